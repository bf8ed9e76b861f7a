"""The page of an evaluation: any number of arms, many classes, long names; words computed from the figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from twinray.evaluation.record import ClassFigures, Figure, SplitFigures
from twinray.report.page.comparison import content, shown, verdict
from twinray.report.page.document import as_page
from twinray.report.page.strips import mark_of, scale_of

Make = Callable[..., Any]


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page.split("<body>")[1]).split())


def many(figure: Make, split_figures: Make, evaluation: Make, n: int, classes: int = 3) -> Any:
    """``n`` arms with names of 60 letters, and as many classes as one likes."""
    names = [
        f"barlow-twins-on-everything-{i:02d}-and-eight-hundred-epochs-seed{i:02d}" for i in range(n)
    ]
    per_class = {
        f"finding {c}": ClassFigures({"ap50": figure(0.2, 0.1, 0.3)}, {"n_boxes": 5 * c})
        for c in range(classes)
    }
    arms = {
        name: replace(split_figures(i / 100), per_class=per_class) for i, name in enumerate(names)
    }
    ends = ((0.01, 0.05), (-0.05, -0.01), (-0.01, 0.03))
    own = {c: ClassFigures({"ap50": figure(0.01, *ends[k % 3])}) for k, c in enumerate(per_class)}
    differences = {
        name: SplitFigures({"map50": figure(sum(ends[i % 3]) / 2, *ends[i % 3])}, own)
        for i, name in enumerate(names[1:])
    }
    return evaluation(arms, differences)


@pytest.mark.parametrize(("n", "classes"), [(1, 3), (2, 40), (4, 3), (9, 40)])
def test_any_number_of_arms_and_classes(
    figure: Make, split_figures: Make, evaluation: Make, n: int, classes: int
) -> None:
    result = many(figure, split_figures, evaluation, n, classes)
    page = as_page(content(result))
    text = text_of(page)
    for name in result.arms:
        assert name in page
    assert all(f"finding {c}" in text for c in range(classes))
    assert text.count("Research software, not a medical device") == 2
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert (
        page.count('<polyline class="cv') == n
    )  # every arm has a curve of its own, in one panel or in its own
    assert page.count('<polyline class="ctx') == (n * (n - 1) if n > 4 else 0)
    assert ("too few to say" in text) and ("Fewer than 30 true boxes" in text)


def test_the_first_arm_stays_on_top_and_the_last_is_asked(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    result = many(figure, split_figures, evaluation, 9)
    view, names = shown(result), list(result.arms)
    assert view.order == (names[0], *names[:0:-1])  # the others by their measure
    assert [view.looks[n].role for n in names] == ["first", *["other"] * 7, "asked"]
    assert len({(view.looks[n].role, view.looks[n].shape) for n in names}) == 9


@pytest.mark.parametrize(
    ("n", "ends", "words", "look"),
    [
        (2, (0.01, 0.05), "did better than", "answer up"),
        (2, (-0.05, -0.01), "did worse than", "answer down"),
        (2, (-0.05, 0.01), "does not show a difference", "answer open"),
        (1, None, "One arm, so nothing to compare.", "answer wait"),
    ],
)
def test_the_answer_says_what_is_shown_and_what_is_not(
    figure: Make,
    split_figures: Make,
    evaluation: Make,
    n: int,
    ends: tuple[float, float] | None,
    words: str,
    look: str,
) -> None:
    arms = {name: split_figures() for name in ("first", "second")[:n]}
    differences = (
        {} if ends is None else {"second": SplitFigures({"map50": figure(sum(ends) / 2, *ends)})}
    )
    result = evaluation(arms, differences)
    page = as_page(content(result))
    assert words in verdict(result).headline and f'class="{look}"' in page
    hollow = page.count('<use href="#m0" class="c-asked hollow"/>')
    assert bool(hollow) == (
        ends == (-0.05, 0.01)
    )  # hollow: the interval includes 0, and nothing else


def test_a_difference_that_seeds_do_not_bear_out_is_not_shown(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    seeds = Figure(0.03, (-0.1, 0.16), 3, "seeds")
    difference = SplitFigures({"map50": replace(figure(0.03, 0.01, 0.05), over_seeds=seeds)})
    result = evaluation(
        {"a": split_figures(), "b": split_figures()}, {"b": difference}, seeds=(0, 1, 2)
    )
    said = verdict(result)
    assert said.outcome == "open" and "not for the way they are trained" in said.headline
    assert "Over 3 seeds: -0.100 to +0.160, which includes 0" in said.reason


def test_arms_of_which_none_differs_are_told_in_one_sentence(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    arms = {name: split_figures() for name in ("random", "imagenet", "barlow-twins")}
    open_ = SplitFigures({"map50": figure(0.01, -0.05, 0.07)})
    none = evaluation(arms, {"imagenet": open_, "barlow-twins": open_})
    assert verdict(none).headline == "None of 2 arms is shown to differ from random."
    clear = SplitFigures({"map50": figure(0.05, 0.03, 0.07)})
    one = evaluation(arms, {"imagenet": clear, "barlow-twins": open_})
    told = "Of 2 arms, 1 did better than random and the difference of 1 is not shown."
    assert verdict(one).headline == told


def test_many_comparisons_say_how_many_would_exclude_0_by_chance(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    result = many(figure, split_figures, evaluation, 9)
    said = verdict(result)
    first = next(iter(result.arms))
    assert (
        said.headline
        == f"Of 8 arms, 3 did better than {first}, 3 did worse and the differences of 2 are not shown."
    )
    assert "With 8 comparisons, 0.4 intervals would exclude 0 by chance" in said.reason


def test_a_lower_error_is_better(figure: Make, evaluation: Make) -> None:
    arms = {
        name: SplitFigures({"auc": figure(0.8, 0.7, 0.9), "brier": figure(0.2, 0.1, 0.3)})
        for name in "abc"
    }
    change = SplitFigures({"auc": figure(0.0, -0.1, 0.1), "brier": figure(-0.1, -0.15, -0.05)})
    result = evaluation(
        arms, {"b": change, "c": change}, kind="classifier", task="multilabel", rule=""
    )
    assert "Brier score: 2 of 2 differences are shown" in text_of(as_page(content(result)))


def test_shares_of_labels_are_curves_that_look_alike(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    arms = {
        f"{name}, fraction {share:g}": split_figures(share / 10)
        for share in (0.1, 1.0)
        for name in "ab"
    }
    result = evaluation(arms)
    made = {
        name: replace(arm, family=name[0], fraction=float(name.split()[-1]), minus="")
        for name, arm in result.arms.items()
    }
    result = replace(result, arms=made)
    page = as_page(content(result))
    assert "How many labels it takes" in page and "fractions.csv" in page
    looks = shown(result).looks
    assert [looks[name].role for name in arms] == ["first", "asked", "first", "asked"]


def test_groups_of_patients_have_rows_and_the_largest_gap(
    figure: Make, split_figures: Make, evaluation: Make
) -> None:
    groups = {
        "sex": {
            "female": split_figures(0.1),
            "male": split_figures(),
            "unknown": SplitFigures({}, counts={"n_images": 3}),
        }
    }
    arm = replace(split_figures(), subgroups=groups)
    text = text_of(as_page(content(evaluation({"a": arm}))))
    assert "mAP50 by sex: the largest gap is 0.100" in text
    assert "no figure" in text


def test_warnings_and_seen_images_stand_beside_the_answer(
    split_figures: Make, evaluation: Make
) -> None:
    result = evaluation(
        {"a": replace(split_figures(), seen=(2, 80))},
        warnings=("epochs 3 vs 15",),
        notes=("a note",),
    )
    text = text_of(as_page(content(result)))
    before, after = (
        text.split("All arms", 2)[1:]
        if text.count("All arms") > 2
        else text.split("Words on this page", 1)
    )
    assert "Before you trust this comparison" in text and "epochs 3 vs 15" in text
    assert "a includes 2 of 80 images that training had seen" in text
    assert "a note" in after or "a note" in before


@pytest.mark.parametrize(
    "values",
    [
        [0.3],
        [0.0, 0.0],
        [0.25, 0.34],
        [0.0001, 0.0007],
        [-0.05, 0.05],
        [0.9, 1.0],
        [],
        [12.0, 480.0],
        [0.5, 0.50001],
    ],
)
def test_axes_are_round_and_hold_what_they_show(values: list[float]) -> None:
    for options in (
        {"upper": 1.0 if max([*values, 0]) <= 1 else None},
        {"zero": True, "sign": True},
    ):
        scale = scale_of(values, **options)
        assert 1 <= len(scale.ticks) <= 5
        assert all(scale.low <= v <= scale.high for v in values)
        assert all(0 <= at <= 100 for at, _ in scale.ticks)
        texts = [text for _, text in scale.ticks]
        assert len(set(texts)) == len(texts)
        if values:
            mark = mark_of(Figure(values[0], (values[0] - 9999, values[0] + 9999)), scale)
            assert mark.cut == (True, True) and mark.ends == (0, 100)
    assert mark_of(None, scale_of([1.0])).x is None
