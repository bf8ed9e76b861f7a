"""The page of a study: the answer's words, the seal, missing runs; every state looks as cared for as a yes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from twinray.evaluation.record import SplitFigures
from twinray.evaluation.result import ArmResult, Evaluation, RunResult
from twinray.report.page.document import Caution, as_page
from twinray.report.page.study import Parts, content, day, published_table, verdict
from twinray.report.study_result import (
    Deviation,
    Differs,
    PlannedRun,
    Published,
    PublishedValue,
    Seal,
    StudyResult,
    Task,
    at_share,
    cells,
)

Make = Callable[..., Any]
ARMS = ("ImageNet", "random", "Barlow Twins")
OPENED = Seal(
    "7c1f" * 16, "2026-03-02T09:12:00Z", "2026-03-02T09:14:00Z", "2026-03-05T18:37:00Z", "2026-03-05T18:40:00Z", 18
)  # fmt: skip


def text_of(page: str) -> str:
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", page.split("<body>")[1]).split()))


@pytest.fixture
def study(figure: Make, split_figures: Make) -> Make:
    """A study of detectors: arms, a difference to the first in every arm, one share of labels or several."""

    def made(
        arms: Sequence[str] = ARMS,
        ends: tuple[float, float] | dict[float, tuple[float, float]] = (0.01, 0.05),
        shares: Sequence[float] = (1.0,),
        missing: Sequence[str] = (),
        **more: Any,
    ) -> StudyResult:
        results, runs, planned = {}, {}, []
        for share in shares:
            low, high = ends[share] if isinstance(ends, dict) else ends
            several = len(shares) > 1
            for i, arm in enumerate(arms):
                name = f"{arm}, {100 * share:g} %" if several else arm
                base = f"{arms[0]}, {100 * share:g} %" if several else arms[0]
                failed = arm in missing
                planned += [
                    PlannedRun(
                        f"run-{arm}-{share}-{seed}", "boxes", arm, f"seed {seed}", "failed" if failed else "done",
                        "the disk is full" if failed else "", 60.0, share, 0.2 + 0.1 * seed,
                        {"initial weights": f"{arm}, seed {seed}"},
                    )
                    for seed in range(2)
                ]  # fmt: skip
                if failed:
                    continue
                difference = SplitFigures({"map50": figure((low + high) / 2, low, high)})
                results[name] = ArmResult(
                    split_figures(0.01 * i), (f"run {name}",), "nothing", {}, arm, share, base if i else "",
                    difference if i else None,
                )  # fmt: skip
                runs[f"run {name}"] = RunResult(f"runs/{name}", name, 0, 0, None, arm, "nothing")
        result = Evaluation(
            "detector", "", "test", "", ("opacity",), 1, (0,), "a rule", results, runs
        )
        task = Task("boxes", "Detection", "detector", tuple(arms), tuple(planned), result if results else None)  # fmt: skip
        whole = StudyResult(
            "s", "Which weights help?", "2026-03-05T18:45:00Z", "1", OPENED, (task,), tuple(planned)
        )
        return replace(whole, **more)

    return made


@pytest.mark.parametrize(
    ("ends", "words", "look"),
    [
        ((0.01, 0.05), "Yes: Barlow Twins did better than ImageNet.", "answer up"),
        ((-0.05, -0.01), "No: Barlow Twins did worse than ImageNet.", "answer down"),
        ((-0.05, 0.01), "This study does not show a difference between Barlow Twins and ImageNet.", "answer open"),
    ],
)  # fmt: skip
def test_the_answer_says_what_is_shown(
    study: Make, ends: tuple[float, float], words: str, look: str
) -> None:
    result = study(ends=ends)
    page = as_page(content(result))
    assert verdict(result).headline == words and words in text_of(page)
    assert f'class="{look}"' in page
    assert "0.1 would exclude 0 by chance" in verdict(result).reason


def test_a_gain_with_few_labels_only_is_not_a_gain_everywhere(study: Make) -> None:
    said = verdict(study(ends={0.1: (0.01, 0.05), 1.0: (-0.02, 0.02)}, shares=(0.1, 1.0)))
    assert said.outcome == "higher" and said.headline.startswith("Yes, in part")
    assert "Detection, 10 % of the labels" in said.headline and "1 of 2" in said.headline
    assert "all labels: the difference is +0.000" in said.reason


def test_a_gain_here_and_a_loss_there_is_no_yes(study: Make) -> None:
    said = verdict(study(ends={0.1: (0.01, 0.05), 1.0: (-0.05, -0.01)}, shares=(0.1, 1.0)))
    assert said.outcome == "open" and not said.headline.startswith(("Yes", "No"))
    assert "better than ImageNet" in said.headline and "worse in" in said.headline


def test_places_of_one_task_are_told_together(study: Make) -> None:
    ends = {0.1: (0.01, 0.05), 0.3: (0.02, 0.05), 1.0: (-0.02, 0.02)}
    said = verdict(study(ends=ends, shares=(0.1, 0.3, 1.0)))
    assert said.headline == (
        "Yes, in part: Barlow Twins did better than ImageNet in Detection with 10 % of the labels and 30 % of the labels. "
        "No difference is shown in 1 of 3 comparisons."
    )


def test_arms_of_several_networks_are_told_beside_the_answer(study: Make) -> None:
    result = study()
    (task,) = result.tasks

    def with_network(arms: dict[str, str]) -> str:
        runs = tuple(replace(r, record={**r.record, "network": arms[r.arm]}) for r in task.runs)
        return text_of(as_page(content(replace(result, tasks=(replace(task, runs=runs),)))))

    same = with_network(dict.fromkeys(ARMS, "resnet50"))
    assert "differ in the network" not in same
    other = with_network({**dict.fromkeys(ARMS, "resnet50"), "Barlow Twins": "resnet18"})
    assert "Detection: arms differ in the network too" in other
    assert "(resnet50: ImageNet and random; resnet18: Barlow Twins)" in other


def test_a_sealed_study_shows_no_test_figure(study: Make) -> None:
    """The test figures lie in the record here, and must not reach the page."""
    result = study()
    sealed = replace(result, seal=Seal(OPENED.plan, OPENED.fixed, OPENED.first_run))
    page = as_page(content(sealed))
    text = text_of(page)
    assert "No answer yet: the test set is sealed." in text
    assert "fill:url(#hatch)" in page and "0.250" in text  # the mean of validation figures
    for figure in ("0.260", "+0.030", "0.200 to 0.310"):
        assert figure in text_of(as_page(content(result))) and figure not in text


def test_missing_runs_have_a_hatched_row_and_their_reason(study: Make) -> None:
    result = study(missing=("random",))
    page = as_page(content(result))
    text = text_of(page)
    assert "the disk is full" in text and "0 of 2 runs" in text and "hatched: no figure" in text
    assert 'height="40%" fill="url(#hatch)"' in page
    assert "4 of 6 runs are done and 2 failed." in text


def test_deviations_and_an_early_opening_are_told(study: Make) -> None:
    found = Deviation("--batch-size 8 -> 4", "options changed", "2026-03-03T08:02:00Z", "all arms")
    early = replace(OPENED, early=True, opened_after=3, deviations=(found,))
    text = text_of(as_page(content(study(seal=early))))
    assert "Opened early on 5 March 2026, 18:40 UTC, when 3 of 6 runs were done." in text
    assert "1 deviation from the plan" in text and "--batch-size 8 -> 4" in text
    kept = text_of(as_page(content(study())))
    assert "None: every run is one that the plan names" in kept


@pytest.mark.parametrize("n", [1, 2, 9])
def test_any_number_of_arms(study: Make, n: int) -> None:
    arms = [f"weights-{i}-of-a-public-model-with-a-name-of-sixty-letters-{i:02d}" for i in range(n)]
    result = study(arms=arms)
    page = as_page(content(result))
    assert all(arm in page for arm in arms)
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    if n == 1:
        assert verdict(result).headline == "One arm, so nothing to compare."


def test_no_finished_run_is_a_sentence(study: Make) -> None:
    said = verdict(study(missing=ARMS))
    assert said.headline == "No run is finished, so there is nothing to say."
    assert "0 of 6 runs are done" in said.reason


def test_one_share_is_what_evaluate_says_of_it(study: Make) -> None:
    result = (
        study(ends={0.1: (0.01, 0.05), 1.0: (-0.02, 0.02)}, shares=(0.1, 1.0)).tasks[0].evaluation
    )
    assert result is not None
    one = at_share(result, 0.1)
    assert one is not None and list(one.arms) == list(ARMS)
    assert one.arms["random"].figures is result.arms["random, 10 %"].figures
    assert one.arms["random"].minus == "ImageNet" and at_share(result, 0.5) is None


def test_published_values_keep_their_digits_and_ours_stand_beside(study: Make) -> None:
    rows = (
        PublishedValue("BT", "224", "0.26", "boxes", "Barlow Twins"),
        PublishedValue("none", "640", "0.3", "other", "Barlow Twins"),
    )
    differs = (Differs("split", "by image", "by patient"),)
    one = Published("A paper, table 1", "mAP50", rows, differs, ("Another hospital.",))
    table = published_table(study(), one)
    assert table.rows[0][2] == "0.26" and table.rows[0][3].startswith("0.270 (")
    assert table.rows[1][3] == "none"
    text = text_of(as_page(content(replace(study(), published=(one,)))))
    assert "What the two columns rest on" in text and "Another hospital." in text
    assert re.search(r"split\W+(?:published )?by image\W+(?:this study )?by patient", text)


def test_what_the_file_says_of_limits_stands_beside_the_answer(study: Make) -> None:
    result = replace(study(), limits=("One scanner.",), file="study: Toy")
    page = content(result)
    assert any(isinstance(b, Caution) and "One scanner." in b.items for b in page.sections[0].blocks)  # fmt: skip
    assert "study: Toy" in as_page(page)


def test_further_parts_stand_in_their_group(study: Make) -> None:
    page = content(
        study(), Parts(worth=("Worth 40 patients.",), worth_told="It is worth 40 patients.")
    )
    names = [section.name for section in page.sections]
    assert names.index("At a glance") < names.index("In labelled patients") < names.index("Runs")
    assert (
        next(s for s in page.sections if s.name == "In labelled patients").part
        == "How much it is worth"
    )
    assert "It is worth 40 patients." in text_of(as_page(page))


def test_comparisons_are_of_the_first_arm(study: Make) -> None:
    assert [(c.arm, c.base, c.side) for c in cells(study())] == [
        ("random", "ImageNet", "better"),
        ("Barlow Twins", "ImageNet", "better"),
    ]


def test_times_are_written_for_people() -> None:
    assert day("2026-03-05T18:40:00Z") == "5 March 2026, 18:40 UTC" and day("later") == "later"
