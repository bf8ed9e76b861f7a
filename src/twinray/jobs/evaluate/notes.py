"""What a reader must know to read an evaluation rightly."""

from __future__ import annotations

from collections.abc import Mapping

from twinray.data.pack import EDITED
from twinray.evaluation.result import ArmResult
from twinray.jobs.evaluate.arms import DRAWS, TRAINING_SEEDS, Arm
from twinray.jobs.evaluate.tested import RunInfo, Tested
from twinray.report.numbers import count
from twinray.runs.notes import UNKNOWN_SEEN, told_once
from twinray.runs.seen import told_seen


def warnings_of(arms: Mapping[str, Arm], results: Mapping[str, ArmResult]) -> list[str]:
    """What no reader may miss: edited files, and what makes a comparison unfair.

    Unfair are arms of one run each that differ in more than their weights, or in their seed.
    """
    edited = [
        note for arm in arms.values() for one in _runs(arm) for note in one.notes if EDITED in note
    ]
    return [*dict.fromkeys(edited), *_unfair(arms, results), *_of_precisions(arms)]


def _of_precisions(arms: Mapping[str, Arm]) -> list[str]:
    """Machines that computed in different precisions, which no option of the runs shows."""
    known: dict[str, dict[str, None]] = {}
    for name, arm in arms.items():
        for one in _runs(arm):
            if one.run.precision:
                known.setdefault(one.run.precision, {})[name] = None
    if len(known) < 2:
        return []
    told = "; ".join(f"{precision}: {', '.join(own)}" for precision, own in known.items())
    return [f"runs were trained in different precisions, each in that of its machine ({told}); give --precision"]  # fmt: skip


def _unfair(arms: Mapping[str, Arm], results: Mapping[str, ArmResult]) -> list[str]:
    if any(len({one.run.path for one in arm.tested}) > 1 for arm in arms.values()):
        return _differing(arms, results)
    told: dict[str, list[str]] = {}
    for name, result in results.items():
        of: dict[str, list[str]] = {}
        policies = "policy" in result.differing
        for option, values in result.differing.items():
            if option == "seeds" and set(values["first"]) & set(values["this"]):
                continue  # pairs are made of the draws that both have, and a note says so
            if policies and None in (values["first"], values["this"]):
                continue  # an option that one of the two policies has not: the policies say it
            what = (
                "runs are of different seeds, so their difference holds the luck of the draw too"
                if values["kind"] == "seed"
                else "runs differ in more than their initial weights"
            )
            of.setdefault(what, []).append(f"{option} {values['first']} vs {values['this']}")
        for what, own in of.items():
            told.setdefault(f"{what}: {', '.join(own)}", []).append(f"{result.minus}, {name}")
    return [f"{line} ({_first_of(pairs)})" for line, pairs in told.items()]


def _first_of(pairs: list[str]) -> str:
    """The first pair, and how many there are besides."""
    return "; and ".join([pairs[0], *([count(len(pairs) - 1, "more pair")] if pairs[1:] else [])])


def _differing(arms: Mapping[str, Arm], results: Mapping[str, ArmResult]) -> list[str]:
    """That arms differ from those that they are compared with, and in which options where their names do not say it."""
    differing: set[str] = set()
    shares: list[str] = []
    for name, result in results.items():
        if not result.minus:
            continue
        own, first = arms[name].differing, arms[result.minus].differing
        unlike = {k for k in {**own, **first} if own.get(k) != first.get(k)}
        differing |= unlike - {"fraction"}
        if "fraction" in unlike:
            shares.append(f"{result.minus}, {name}")
    other = [f"arms of different shares of the labels are compared ({_first_of(shares)})"] if shares else []  # fmt: skip
    if not differing:
        return other
    sets = {arm.letter: arm.differing for arm in arms.values() if arm.letter}
    where = "options are listed by letter" if sets else "see their names"
    return [
        f"the arms differ in more than their initial weights: {where}",
        *(
            f"options {letter}: {', '.join(f'{k} {v}' for k, v in own.items())}"
            for letter, own in sets.items()
        ),
        *other,
    ]


def notes_of(arms: Mapping[str, Arm], split: str) -> list[str]:
    """Seen images, unknown origins, the runs' own notes, and what spoils the pairing of arms."""
    notes = [
        f"{one.name} {told_seen(one.seen)}"
        for arm in arms.values()
        for one in _runs(arm)
        if one.seen
    ]
    unseen = {
        name: [(UNKNOWN_SEEN,) if one.status == "unknown" else () for one in _runs(arm)]
        for name, arm in arms.items()
    }
    notes += told_once(unseen)
    notes += told_once({name: [one.notes for one in _runs(arm)] for name, arm in arms.items()})
    everything = [one for arm in arms.values() for one in _runs(arm)]
    unknown = sum(None in one.patients for one in everything)
    if unknown:
        notes.append(
            f"{count(unknown, 'run')} with {split} images of unknown patients; each such image counts as a patient"
        )
    notes += _of_unequal_numbers(arms)
    return notes + _of_one_start(arms) + _of_other_packs(everything) + _of_other_draws(everything)


def _runs(arm: Arm) -> list[Tested]:
    """One entry a run, whatever the number of its label draws."""
    return list({one.run.path: one for one in arm.tested}.values())


def _of_one_start(arms: Mapping[str, Arm]) -> list[str]:
    """Arms of several seeds that share one weight file: the luck of making that file is in none of their intervals."""
    return [
        f"all runs of {name} start from one pre-training, so its interval over seeds holds no luck of the pre-training"
        for name, arm in arms.items()
        if len({(one.run.seed, one.draw) for one in arm.tested}) > 1
        and len({one.run.init_hash for one in arm.tested}) == 1
        and arm.tested[0].run.init_hash
    ]


def _of_other_packs(tested: list[Tested]) -> list[str]:
    notes, of_images = [], dict[tuple[str, ...], RunInfo]()
    for one in tested:
        first = of_images.setdefault(one.images, one.run)
        if one.run.packs != first.packs:
            notes.append(
                f"{first.path} and {one.run.path} are of one fold but were not trained on the same pack"
            )
    return notes


def _of_other_draws(tested: list[Tested]) -> list[str]:
    notes, labelled = [], dict[tuple[object, ...], RunInfo]()
    for one in tested:
        run = one.run
        first = labelled.setdefault((run.seed, one.images, run.fraction), run)
        if run.fraction_seed != first.fraction_seed:
            notes.append(
                f"{first.path} and {run.path} are of one fold and seed but were trained on other labelled images"
            )
    return notes


_KINDS = {TRAINING_SEEDS: "training seed", DRAWS: "label draw", "pre-trainings": "pre-training"}


def _repeats(arm: Arm) -> dict[str, int]:
    """How often an arm was run, by kind of luck."""
    return {
        TRAINING_SEEDS: len({one.run.seed for one in arm.tested}),
        DRAWS: len({one.draw for one in arm.tested}),
        "pre-trainings": len({one.run.init_hash or one.run.init for one in arm.tested}),
    }


def _of_unequal_numbers(arms: Mapping[str, Arm]) -> list[str]:
    """How often each arm was run, where that differs."""
    own = {name: _repeats(arm) for name, arm in arms.items()}
    notes = []
    for kind in (TRAINING_SEEDS, DRAWS):  # weights that were not learnt have one pre-training
        noun = _KINDS[kind]
        by_number: dict[int, list[str]] = {}
        for name, repeats in own.items():
            by_number.setdefault(repeats[kind], []).append(name)
        if len(by_number) > 1:
            told = "; ".join(
                f"{count(n, noun)}: {', '.join(by_number[n])}"
                for n in sorted(by_number, reverse=True)
            )
            notes.append(f"arms were not run equally often: {told}")
    return notes


def what_is_repeated(arms: Mapping[str, Arm]) -> str:
    """What the runs of an arm differ in by chance, in words; a range where arms were not run equally often."""
    own = [_repeats(arm) for arm in arms.values()]
    told = []
    for kind, noun in _KINDS.items():
        least, most = min(one[kind] for one in own), max(one[kind] for one in own)
        if most > 1:
            one = least == most or kind == "pre-trainings"  # weights that were not learnt have one
            told.append(count(most, noun) if one else f"{least} to {count(most, noun)}")
    return ", ".join(told)
