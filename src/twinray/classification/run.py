"""``twinray classify``: a pack with labels and initial weights -> a classifier and its figures."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial

import numpy as np

from twinray.backbones.build import Backbone, build_backbone
from twinray.backbones.norm import is_batch_norm
from twinray.backbones.weights import Provenance, initialise, seen_by
from twinray.classification.config import AUTO, ClassifyConfig
from twinray.classification.data import (
    check_classes,
    hold_out,
    label_weights,
    labelled_rows,
    labels_to_learn,
    rows_with_labels,
)
from twinray.classification.draws import (
    Fitted,
    draw_folder,
    drop_kept,
    is_done,
    keep_draw,
    kept_draw,
)
from twinray.classification.features.kept import read_features
from twinray.classification.finetune import Draw, KnownFeatures, Task, train_head, train_layers
from twinray.classification.options import check_ranks, resolve
from twinray.classification.probe import LinearProbe, fit_probe
from twinray.classification.protocols import notes_of
from twinray.classification.results import Outcome, write_results
from twinray.data.pack import Pack, enlarged, open_pack
from twinray.data.splitting.cut import label_fraction
from twinray.errors import InputError
from twinray.files import frees_folders
from twinray.records import FloatArray, IntArray
from twinray.runs.folder import RunFolder, began_before, open_run
from twinray.runs.seen import Checked, Seen, check_unseen, write_seen
from twinray.training.depthwise import DEPTHWISE, concerns, full_depthwise
from twinray.training.device import choose_machine
from twinray.training.engine import Watch
from twinray.training.ranks import joined_ranks, launched_rank
from twinray.training.record import environment
from twinray.training.windows import DRAWN, Windows, settled_windows


@frees_folders
def run(
    config: ClassifyConfig, watch: Watch | None = None, finished: Watch | None = None
) -> RunFolder:
    """Fit on the training split's labelled fraction, once a seed; test on the test split, once.

    Args:
        config: the options.
        watch: function called at the end of every epoch with the run's folder and the best epoch so
            far (-1: none). A probe has no epochs and never calls it.
        finished: function called the same way, once at the end.

    Raises:
        InputError: bad options, pack or initial weights; a split without usable labels. Weights are
            refused too that were trained on images that the epoch is chosen on or that are tested.
        TwinrayError: the loss left the finite numbers, a signal stopped the run, or the disk refuses.
    """
    config = resolve(config)
    pack = open_pack(config.data, allow_edited=config.allow_edited)
    drawn = config.protocol == "sound" and config.policy in ("surgical", "full")
    config = settled_windows(config, pack, DRAWN if drawn else Windows())
    labels = labels_to_learn(pack, config.uncertain, config.blank)
    train, test, val = (
        labelled_rows(pack, "train", labels),
        labelled_rows(pack, "test"),
        rows_with_labels(pack, "val"),
    )
    backbone = build_backbone(config.arch, config.seed, config.size, config.drop_path)
    provenance = initialise(backbone, config.init)
    _check_norms(config, backbone, provenance)
    seen = seen_by(config.init)
    chosen = [
        train[label_fraction(pack.patients[train].tolist(), labels[train], config.fraction, s)]
        for s in config.seeds
    ]
    draws = [
        _draw(config, pack, labels, val, seed, rows)
        for seed, rows in zip(config.seeds, chosen, strict=True)
    ]
    checked = _check_seen(config, pack, seen, val, test, draws)
    provenance = dataclasses.replace(provenance, seen=seen.status)
    missing = [check_classes(pack, d.rows, labels, config.fraction, d.seed) for d in draws]
    machine = choose_machine(config.device, config.precision)
    inputs = {
        "pack": pack.info.checksums,
        "init": provenance.sha256,
        "precision": machine.precision,
    }
    learns = config.policy in ("surgical", "full")
    if learns and concerns(backbone, machine) and not began_before(config.out, DEPTHWISE):
        inputs[DEPTHWISE] = "float32"
    if config.policy == "probe" and launched_rank()[1] > 1:
        check_ranks(config, 0, launched_rank()[1])
    with joined_ranks(machine.device) as ranks:
        for draw in draws if config.policy != "probe" else ():
            check_ranks(config, len(draw.rows), ranks.world)
        if ranks.first(
            lambda: (
                open_run(
                    config,
                    out=config.out,
                    resume=config.resume,
                    job="classify",
                    environment=environment(),
                    inputs=inputs,
                ).finished
            )
        ):
            return RunFolder(config.out)
        folder = RunFolder(config.out)
        used = np.concatenate([val, test, *chosen])
        edited = ranks.first(lambda: pack.check_pixels(used))
        checked = dataclasses.replace(checked, notes=(*edited, *checked.notes))
        notes = _notes(config, pack, draws, val, missing, provenance)
        for note in (*checked.notes, *notes) if ranks.main else ():
            print(f"note: {note}", file=sys.stderr)
        ranks.first(lambda: write_seen(folder.path, _seen(seen, config, pack, draws, val)))
        if DEPTHWISE in inputs:
            full_depthwise(backbone, machine)  # draws train copies of it
        told = None if watch is None else (lambda _, best: watch(folder, best))
        task = Task(config, pack, labels, backbone, val, test, machine, ranks, told)
        fitted = _probes(task, draws) if config.policy == "probe" else _train(task, draws)

        def finish() -> None:
            """Measure and write; files of draws that only resuming needed are removed."""
            unlearned = {name for names in missing for name in names}
            named = tuple(name for name in pack.info.label_classes if name in unlearned)
            of_patient = pack.groups
            patients = tuple(len(set(of_patient[rows].tolist())) for rows in chosen)
            out = Outcome(
                config,
                pack,
                backbone,
                provenance,
                checked,
                val,
                test,
                fitted,
                notes,
                named,
                patients,
            )
            write_results(folder, out)
            if len(draws) > 1 and config.policy != "probe":
                for draw in draws:
                    drop_kept(draw.folder)
            if finished is not None:
                finished(folder, fitted[0].record.get("best_epoch", -1))

        ranks.first(finish)
    return folder


def _draw(
    config: ClassifyConfig, pack: Pack, labels: FloatArray, val: IntArray, seed: int, rows: IntArray
) -> Draw:
    """A draw's images, and those that its epoch is chosen on."""
    folder = draw_folder(RunFolder(config.out), seed, several=len(config.seeds) > 1)
    if config.policy == "probe":
        return Draw(seed, rows, rows[:0], "", folder)
    asked = config.choose_on
    if asked == "val" and not len(val):
        raise InputError(
            f"expected labelled val images in {pack.path} with --choose-on val, found none; pack with --val above 0, or use "
            "--choose-on fraction"
        )
    if asked == "val" or (asked == "auto" and len(val)):
        return Draw(seed, rows, val, f"{len(val):,} val images", folder)
    if asked == "last":
        return Draw(seed, rows, rows[:0], "--choose-on last", folder)
    learnt, held = hold_out(pack, rows, labels, seed)
    held = held[((labels[held] == 0) | (labels[held] == 1)).any(axis=1)]
    if not len(held):
        return Draw(seed, rows, held, "one patient alone, none to hold out", folder)
    patients = len(np.unique(pack.groups[held].astype(str)))
    words = f"{len(held):,} images of {patients:,} patients held out of the labelled fraction"
    return Draw(seed, learnt, held, words, folder)


def _check_norms(config: ClassifyConfig, backbone: Backbone, provenance: Provenance) -> None:
    """Statistics that were never estimated and never will be are no fair floor."""
    if config.policy in ("probe", "head") or config.norm == "trainable" or not provenance.is_random:
        return
    if config.protocol == "sound" and any(map(is_batch_norm, backbone.modules())):
        raise InputError(
            f"--init random with --norm {config.norm} keeps batch statistics that were never estimated; use --norm trainable"
        )


def _check_seen(
    config: ClassifyConfig,
    pack: Pack,
    seen: Seen,
    val: IntArray,
    test: IntArray,
    draws: Sequence[Draw],
) -> Checked:
    """Refuse what the initial weights have met among the images that decide; a probe's val images are only marked."""
    chooses = any(draw.choosing is val for draw in draws)
    rows = {"val": val, "test": test} if chooses and len(val) else {"test": test}
    checked = check_unseen(seen, pack, rows, weights=config.init, allow=config.allow_seen)
    if chooses or not len(val):
        return checked
    also = check_unseen(seen, pack, {"val": val}, weights=config.init, allow=True)
    return Checked(
        {**also.marks, **checked.marks}, tuple(dict.fromkeys((*checked.notes, *also.notes)))
    )


def _seen(
    seen: Seen, config: ClassifyConfig, pack: Pack, draws: Sequence[Draw], val: IntArray
) -> Seen:
    """What this run adds: images that gradients or thresholds came from."""
    learnt = np.unique(np.concatenate([draw.rows for draw in draws]))
    seen = seen.plus(config.out, "classify", [(pack, learnt)])
    chosen = np.setdiff1d(np.concatenate([val, *(draw.choosing for draw in draws)]), learnt)
    return seen.plus(config.out, "classify", [(pack, chosen)], use="selection")


def _notes(
    config: ClassifyConfig,
    pack: Pack,
    draws: Sequence[Draw],
    val: IntArray,
    missing: Sequence[Sequence[str]],
    provenance: Provenance,
) -> list[str]:
    """What every reader of the figures must know."""
    notes = [*provenance.notes, *([] if config.policy == "probe" else notes_of(config))]
    notes += enlarged(pack, config.size)
    absent = sorted({name for names in missing for name in names})
    if absent:
        notes.append(
            f"no training image shows {', '.join(absent)} in at least one label draw: kept out of the means over classes, "
            "their own scores mean little there"
        )
    if config.policy == "probe":
        return notes
    if any(draw.choosing is val for draw in draws) and config.fraction < 1 and len(val):
        notes.append(
            f"the epoch was chosen on all {len(val):,} val images, whose labels --fraction {config.fraction:g} does not count"
        )
    if len(draws[0].choosing) and draws[0].choosing is not val:
        why = "" if config.choose_on == "fraction" else f": {pack.path} has no labelled val images"
        notes.append(f"the epoch was chosen on {draws[0].chosen_on}{why}")
    if config.policy == "surgical" and config.tune != (AUTO,) and provenance.is_random:
        notes.append("--init random under --policy surgical: layers that do not learn stay random")
    if len(draws) > 1:
        notes.append(
            f"model.safetensors is that of seed {draws[0].seed}, the first of {len(draws)}"
        )
    return notes


def _probes(task: Task, draws: Sequence[Draw]) -> list[Fitted]:
    """Convex fits on features that are computed once; an interrupted run does them again."""
    if task.config.kept_features is not None:
        features = KnownFeatures(*read_features(task.config, task.pack, task.backbone))
        asked = np.concatenate([*(draw.rows for draw in draws), task.test, task.val])
        if lacking := int((~np.isin(asked, features.rows)).sum()):
            raise InputError(
                f"the features in {task.config.kept_features} lack {lacking} images of this run; were they made with another "
                "--uncertain or --blank? Leave --kept-features out"
            )
        val = features.of(task.val) if len(task.val) else None
    else:
        needed = np.unique(np.concatenate([*(draw.rows for draw in draws), task.test]))
        features = KnownFeatures(
            needed, task.features(needed)
        )  # at 1 % of the labels few images need features
        val = task.features(task.val) if len(task.val) else None
    fitted = []
    for draw in draws:
        probe = _probe(task, draw, features.of(draw.rows))
        fitted.append(
            Fitted(
                seed=draw.seed,
                training_images=len(draw.rows),
                test=probe.scores(features.of(task.test)),
                val=None if val is None else probe.scores(val),
                choosing=probe.held_out,
                choosing_rows=draw.rows if probe.held_out is not None else draw.rows[:0],
                choosing_words=f"the {len(draw.rows):,} labelled images, each scored by a probe fitted without its patient's fold",
                record={"folds": task.config.folds},
                head=probe,
            )
        )
    return fitted


def _probe(task: Task, draw: Draw, features: FloatArray) -> LinearProbe:
    config, pack, labels = task.config, task.pack, task.labels[draw.rows]
    patients = np.unique(pack.groups[draw.rows].astype(str), return_inverse=True)[1]
    weights = (
        label_weights(labels, pack.info.task, balanced=True)
        if config.class_weights == "balanced"
        else None
    )
    return fit_probe(
        features,
        labels,
        patients,
        pack.info.task,
        folds=config.folds,
        seed=draw.seed,
        weights=weights,
        device=task.machine.device,
    )


def _train(task: Task, draws: list[Draw]) -> list[Fitted]:
    """Each draw in turn; in a run of several, draws that an interrupted run had finished are taken as they are."""
    ranks, several = task.ranks, len(draws) > 1
    done = ranks.first(lambda: [several and is_done(draw.folder) for draw in draws])
    head = task.config.policy == "head" and not all(done)
    known = KnownFeatures.needed(task, draws) if head else None
    fitted = []
    for draw, over in zip(draws, done, strict=True):
        if over:
            fitted.append(kept_draw(draw.folder) if ranks.main else Fitted.empty())
            continue
        ranks.first(partial(draw.folder.checkpoints.mkdir, parents=True, exist_ok=True))
        one = train_head(task, draw, known) if known is not None else train_layers(task, draw)
        if several:
            ranks.first(partial(keep_draw, draw.folder, one, weights=draw is draws[0]))
        fitted.append(one)
    return fitted
