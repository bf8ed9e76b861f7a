"""The page of an evaluation: any number of runs or arms, side by side.

It reads an ``Evaluation`` and pictures and makes the content that ``document`` writes. The reading order: the answer, what it
rests on, the doubt beside it, then the record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from twinray.about import own_version
from twinray.evaluation.measures import (
    COUNT_OF_CLASS,
    count_head,
    count_title,
    main_measure,
    measure,
    shown_by_class,
    shown_overall,
    title,
)
from twinray.evaluation.record import Figure, SplitFigures
from twinray.evaluation.result import ArmResult, Evaluation
from twinray.records import Boxes
from twinray.report.fonts import cut_in_middle
from twinray.report.numbers import count, interval, interval_of, number, signed, value_of
from twinray.report.page.document import (
    Block,
    Caution,
    Content,
    Details,
    Facts,
    Key,
    Keys,
    Panels,
    Picture,
    Points,
    Section,
    Words,
    join_words,
    write_report,
)
from twinray.report.page.strips import (
    BarRow,
    Bars,
    Curves,
    Forest,
    Line,
    Row,
    all_values,
    mark_of,
    scale_of,
    told,
)
from twinray.report.palette import Look, look_of
from twinray.report.pictures.panels import Panel, as_png, best, panel_row, scaled
from twinray.report.tables import FROC_RATES, Table, class_count, with_interval
from twinray.report.verdict import BARELY_LEARNED, Verdict, not_shown, paired_verdict
from twinray.runs.seen import told_seen

FEWEST = 30
"""A class with fewer positives than this is shown without interval: too few to say."""

_LONGEST, _IN_ROW = 60, 52
"""Letters of a name in a line, and in a row of a chart."""


@dataclass(frozen=True, eq=False)
class Pictured:
    """One image as every arm sees it; boxes in original pixels.

    Attributes:
        id: the image.
        image: (h, w) or (h, w, 3) uint8.
        scale: factors of x and y from original pixels to those of ``image``.
        truth: true boxes; None where unknown.
        found: name of an arm -> its boxes with scores.
    """

    id: str
    image: npt.NDArray[np.uint8]
    scale: tuple[float, float]
    truth: Boxes | None
    found: Mapping[str, Boxes]


@dataclass(frozen=True)
class Shown:
    """Arms in the order of the page, and how each looks.

    Attributes:
        order: names. looks: by name.
        first: the arm that the others are compared with. asked: the arm that the page asks about, the last one given.
    """

    order: tuple[str, ...]
    looks: Mapping[str, Look]
    first: str
    asked: str


def shown(result: Evaluation) -> Shown:
    """In the order given up to four arms; from five on the first on top, the others by the main measure.

    Points of curves over shares of labels stand by share, and look as their curve does.
    """
    names, main = list(result.arms), main_measure(result.kind)
    families = list(result.families)
    if len(families) < len(names):
        looks = {
            name: look_of(families.index(arm.family), len(families))
            for name, arm in result.arms.items()
        }
        order = sorted(
            names, key=lambda n: (result.arms[n].fraction, families.index(result.arms[n].family))
        )
        return Shown(tuple(order), looks, names[0], order[-1])
    looks = {name: look_of(i, len(names)) for i, name in enumerate(names)}
    order = names
    if len(names) > 4:
        rest = sorted(names[1:], key=lambda name: -(value_of(result.figure(name, main)) or 0.0))
        order = [names[0], *rest]
    return Shown(tuple(order), looks, names[0], names[-1])


def write_comparison(path: Path, result: Evaluation, pictures: Sequence[Pictured] = ()) -> Path:
    """Write the page and return its absolute path.

    Raises:
        TwinrayError: it cannot be written.
    """
    return write_report(path, content(result, pictures))


def content(result: Evaluation, pictures: Sequence[Pictured] = ()) -> Content:
    """The page of an evaluation."""
    sections = [
        answer(result),
        glance(result),
        *fractions(result),
        *curves(result),
        *classes(result),
        *subgroups(result),
        *images(result, pictures),
        *record(result),
    ]
    arms = count(len(result.arms), "arm")
    return Content(
        title=_heading(result),
        over="Evaluation of detectors"
        if result.kind == "detector"
        else "Evaluation of classifiers",
        lede=_lede(result),
        sections=tuple(sections),
        footer=f"Made by twinray {own_version()}.",
        meta=(
            arms,
            count(len(result.runs), "model"),
            f"split {result.split}",
            f"twinray {own_version()}",
        ),
    )


def _heading(result: Evaluation) -> str:
    names = [cut_in_middle(name, 60) for name in result.arms]
    if len(names) == 1:
        return f"How good is {names[0]}?"
    if len(names) == 2:
        return f"{names[1]} against {names[0]}"
    return f"{len(names)} arms, compared with {names[0]}"


def _lede(result: Evaluation) -> str:
    n = next(iter(result.arms.values())).figures.counts.get("n_images")
    where = (
        f"the {result.split} images of {result.data}"
        if result.data
        else f"the {result.split} images that the runs kept"
    )
    parts = [f"{count(n, 'image')}: {where}."]
    if result.folds > 1 or result.repeated:
        over = [count(result.folds, "fold")] if result.folds > 1 else []
        parts.append(
            f"Every figure is a mean over {join_words([*over, *result.repeated.split(', ')] if result.repeated else over)}."
        )
    return " ".join(parts)


def answer(result: Evaluation) -> Section:
    """What the comparison says, the doubt beside it, three figures."""
    main = main_measure(result.kind)
    blocks: list[Block] = [verdict(result)]
    cautions = [
        *result.warnings,
        *(
            f"{name} {told_seen(arm.figures.seen)}"
            for name, arm in result.arms.items()
            if arm.figures.seen
        ),
    ]
    if cautions:
        blocks.append(Caution(tuple(cautions)))
    blocks.append(Keys(tuple(_keys(result, main))))
    blocks.append(Details("Words on this page", (Points(_words(result)),)))
    return Section("The answer", "Answer", tuple(blocks), part="The answer")


def verdict(result: Evaluation) -> Verdict:
    """What the differences in the main measure say, in words computed from the figures."""
    main = main_measure(result.kind)
    compared = {name: arm for name, arm in result.arms.items() if arm.difference is not None}
    if not compared:
        name, arm = next(iter(result.arms.items()))
        figure = arm.figures.get(main)
        if len(result.arms) > 1:
            values = ", ".join(
                f"{n} {with_interval(a.figures.get(main))}" for n, a in result.arms.items()
            )
            return Verdict(
                "unknown",
                "Points of one curve, so nothing to compare.",
                f"{title(main)}: {values}.",
            )
        n = count(figure.n if figure else None, "patient")
        return Verdict(
            "unknown", "One arm, so nothing to compare.",
            f"{name} reached {title(main)} {with_interval(figure)}, 95 % interval over {n}.",
            _barely(result, [name], main),
        )  # fmt: skip
    if len(compared) == 1:
        name, arm = next(iter(compared.items()))
        found = paired_verdict(
            (arm.minus, result.figure(arm.minus, main)),
            (name, arm.figures.get(main)),
            arm.difference.get(main) if arm.difference else None,
            title(main),
        )
        return _with_seeds(found, arm, main) if result.several else found
    return _verdict_of_many(result, compared, main)


def _with_seeds(found: Verdict, arm: ArmResult, main: str) -> Verdict:
    """The interval over seeds beside that over patients: a difference to be trusted has both clear of 0."""
    figure = arm.difference.get(main) if arm.difference else None
    seeds = figure.over_seeds if figure is not None else None
    if seeds is None or seeds.ci95 is None:
        return found
    says = "excludes 0 too" if seeds.excludes_zero else "includes 0"
    reason = (
        f"{found.reason} Over {seeds.n} {seeds.over}: {interval(seeds, sign=True)}, which {says}."
    )
    if found.outcome in ("higher", "lower") and not seeds.excludes_zero:
        return Verdict(
            "open",
            "Shown for these trained models, not for the way they are trained.",
            reason,
            found.caution,
        )
    return Verdict(found.outcome, found.headline, reason, found.caution)


def _verdict_of_many(result: Evaluation, compared: Mapping[str, ArmResult], main: str) -> Verdict:
    figures = {name: arm.difference.get(main) for name, arm in compared.items() if arm.difference}
    sides = {name: _side(figure, main) for name, figure in figures.items()}
    better, worse = (
        [n for n, s in sides.items() if s == "better"],
        [n for n, s in sides.items() if s == "worse"],
    )
    open_ = len(figures) - len(better) - len(worse)
    base = (
        "the first of their share of labels"
        if len({a.minus for a in compared.values()}) > 1
        else next(iter(compared.values())).minus
    )
    parts = []
    if better:
        parts.append(f"{len(better)} did better than {base}")
    if worse:
        parts.append(f"{len(worse)} did worse{'' if better else f' than {base}'}")
    if open_:
        parts.append(
            "the difference of 1 is not shown"
            if open_ == 1
            else f"the differences of {open_} are not shown"
        )
    headline = (
        f"Of {len(figures)} arms, {join_words(parts)}."
        if better or worse
        else f"None of {len(figures)} arms is shown to differ from {base}."
    )
    asked = shown(result).asked
    reason = ""
    if asked in figures:
        figure = figures[asked]
        reason = f"{title(main)} of {asked}: {number(value_of(result.figure(asked, main)))}; paired difference {signed(value_of(figure))}"
        reason += f", 95 % interval {interval(figure, sign=True)}." if interval_of(figure) else "."
        reason += f"{not_shown(figure) if sides[asked] == 'open' else ''} "
    reason += _by_chance(len(figures))
    outcome = "higher" if better and not worse else "lower" if worse and not better else "open"
    return Verdict(outcome, headline, reason, _barely(result, list(result.arms), main))  # type: ignore[arg-type]


def _side(figure: Figure | None, name: str) -> str:
    """What a difference in a measure shows: ``better``, ``worse`` or nothing (``open``)."""
    if figure is None or not figure.excludes_zero or figure.value is None:
        return "open"
    return "better" if (figure.value > 0) == (measure(name).better == "higher") else "worse"


def _by_chance(n: int) -> str:
    return f"With {n} comparisons, {0.05 * n:.2g} intervals would exclude 0 by chance if nothing differed."


def _corrected(difference: SplitFigures | None, name: str) -> str:
    """What is left of the differences of classes once p is corrected for their number; empty where none was tested."""
    tested = (
        {}
        if difference is None
        else {c: f.tests for c in difference.per_class if (f := difference.get(name, c))}
    )
    corrected = {c: p for c, own in tested.items() if (p := own.get("holm_p")) is not None}
    if len(corrected) < 2:
        return ""
    left = [c for c, p in corrected.items() if p < 0.05]
    told = f"shown for {join_words(left)}" if left else "shown for no class"
    return f" Corrected for {len(corrected)} comparisons (Holm, 5 %), a difference is {told}."


def _barely(result: Evaluation, names: Sequence[str], main: str) -> str:
    """Detectors that learned next to nothing are no basis for a comparison."""
    if result.kind != "detector":
        return ""
    weak = [n for n in names if (value_of(result.figure(n, main)) or 0.0) < BARELY_LEARNED]
    if not weak:
        return ""
    return f"{join_words(weak)}: {title(main)} below {BARELY_LEARNED}, so hardly anything was learned. Train longer or on more images before you compare."


def _keys(result: Evaluation, main: str) -> list[Key]:
    view = shown(result)
    base = result.arms[view.asked].minus or view.first
    names = [base] if base == view.asked else [base, view.asked]
    keys = []
    for name in names:
        figure = result.figure(name, main)
        keys.append(
            Key(
                cut_in_middle(name, _LONGEST),
                number(value_of(figure), measure(main).digits),
                title(main),
                _interval_told(figure),
            )
        )
    arm = result.arms[view.asked]
    if arm.difference is not None:
        figure = arm.difference.get(main)
        detail = _interval_told(figure, sign=True)
        keys.append(
            Key(
                "Paired difference",
                signed(value_of(figure), measure(main).digits),
                title(main),
                detail,
            )
        )
    return keys


def _interval_told(figure: Figure | None, *, sign: bool = False) -> str:
    if interval_of(figure) is None or figure is None:
        return "no 95 % interval"
    return f"95 % interval {interval(figure, sign=sign)}, over {count(figure.n, figure.over.removesuffix('s'))}"


def _words(result: Evaluation) -> tuple[tuple[str, str], ...]:
    measures = tuple(
        (f"{title(name)}:", measure(name).what + ".") for name in shown_overall(result.kind)
    )
    return (
        (
            "arm:",
            "runs that are alike but for chance; everything else that differs between arms is told.",
        ),
        ("95 % interval:", "values that fit the data; wide means unsure."),
        (
            "paired difference:",
            "both arms on the same resampled patients, so that easy and hard images cancel.",
        ),
        ("over seeds:", "what repeating the training would change, with the images held fixed."),
        *measures,
    )


def glance(result: Evaluation) -> Section:
    """Every overall measure of every arm, with the differences."""
    main, *others = shown_overall(result.kind)
    blocks: tuple[Block, ...] = (
        forest(result, main),
        *(forest(result, name, compact=True) for name in others),
    )
    part = next(iter(result.arms.values())).figures.with_boxes
    n_images = next(iter(result.arms.values())).figures.counts.get("n_images")
    if part is not None and part.counts.get("n_images") != n_images:
        n = count(part.counts.get("n_images"), "image")
        blocks += (
            Details(
                f"Only the {n} with a true box",
                (
                    forest(result, main, images="with_boxes", compact=True),
                    _numbers(result, main, "with_boxes"),
                ),
            ),
        )
    return Section("All arms", "All arms", blocks)


def forest(result: Evaluation, name: str, *, images: str = "all", compact: bool = False) -> Forest:
    """A measure of every arm, and its differences."""
    view, of = shown(result), measure(name)
    figures = {arm: _part(result.arms[arm].figures, images).get(name) for arm in view.order}
    differences = {
        arm: _part(own, images).get(name)
        for arm in view.order
        if (own := result.arms[arm].difference) is not None
    }
    scale = scale_of(
        all_values([*figures.values()]) + _runs(list(figures.values())), upper=of.upper
    )
    difference_scale = (
        scale_of(all_values(list(differences.values())), zero=True, sign=True)
        if differences
        else None
    )
    rows = []
    for arm in view.order:
        figure, difference = figures[arm], differences.get(arm)
        has = arm in differences and difference_scale is not None
        rows.append(
            Row(
                arm,
                cut_in_middle(arm, _IN_ROW),
                view.looks[arm],
                _small(result, arm),
                told(figure, of.digits),
                mark_of(figure, scale),
                told(difference, of.digits, sign=True) if has else None,
                mark_of(difference, difference_scale, difference=True)
                if has and difference_scale
                else None,
                "compared with"
                if arm in {a.minus for a in result.arms.values()}
                else "no difference",
            )
        )
    bases = {arm.minus for arm in result.arms.values() if arm.minus}
    head = (
        f"difference to {cut_in_middle(next(iter(bases)), 30)}" if len(bases) == 1 else "difference"
    )
    n = count(_part(result.arms[view.first].figures, images).counts.get("n_images"), "image")
    sub = (
        f"{of.what[:1].upper()}{of.what[1:]}. {n}; intervals over {count(_n(figures), 'patient')}."
    )
    return Forest(
        title=_forest_title(name, differences, view),
        sub=sub,
        measure=of.title,
        scale=scale,
        rows=tuple(rows),
        difference_head=head if differences else "",
        difference_scale=difference_scale,
        numbers=_numbers(result, name, images) if not compact else None,
        csv="metrics.csv" if not compact else "",
        note=_by_chance(len(differences)) if len(differences) > 1 and not compact else "",
        compact=compact,
    )


def _part(split: SplitFigures, images: str) -> SplitFigures:
    return next((part for name, part in split.sets() if name == images), split)


def _runs(figures: Sequence[Figure | None]) -> list[float]:
    return [v for f in figures if f is not None for row in f.runs for v in row if v is not None]


def _n(figures: Mapping[str, Figure | None]) -> int | None:
    return next((f.n for f in figures.values() if f is not None), None)


def _small(result: Evaluation, arm: str) -> str:
    own = result.arms[arm]
    parts = [count(len(own.runs), "model")] if len(own.runs) > 1 else []
    if own.figures.seen:
        parts.append("saw test images")
    return ", ".join(parts)


def _forest_title(name: str, differences: Mapping[str, Figure | None], view: Shown) -> str:
    """What was found, in words computed from the figures."""
    word = title(name)
    if not differences:
        return f"{word} of {'every arm' if len(view.order) > 1 else cut_in_middle(view.first, 60)}"
    sides = [_side(figure, name) for figure in differences.values()]
    # what the title counts is what is drawn; over seeds an interval can hold 0 all the same
    drawn = any(
        figure is not None and figure.over_seeds is not None for figure in differences.values()
    )
    over = " over patients" if drawn else ""
    if len(sides) == 1:
        return f"{word}: {'a difference is shown' if sides[0] != 'open' else 'a difference is not shown'}{over}"
    clear = sum(side != "open" for side in sides)
    return (
        f"{word}: {clear} of {len(sides)} differences are shown{over}"
        if clear
        else f"{word}: none of {len(sides)} differences is shown{over}"
    )


def _numbers(result: Evaluation, name: str, images: str = "all") -> Table:
    view, of = shown(result), measure(name)
    rows = []
    for arm in view.order:
        own = result.arms[arm]
        figure = _part(own.figures, images).get(name)
        difference = _part(own.difference, images).get(name) if own.difference is not None else None
        cells = [
            arm,
            number(value_of(figure), of.digits),
            interval(figure, of.digits),
            count(figure.n if figure else None),
        ]
        if result.several:
            cells.append(_seeds_told(figure, of.digits))
        if any(a.difference for a in result.arms.values()):
            cells += (
                [
                    own.minus or "",
                    signed(value_of(difference), of.digits),
                    interval(difference, of.digits, sign=True),
                ]
                if own.difference
                else ["", "", ""]
            )
            if result.several:
                cells.append(
                    _seeds_told(difference, of.digits, sign=True) if own.difference else ""
                )
        rows.append(tuple(cells))
    columns = ["arm", of.title, "95 % interval", "patients"]
    if result.several:
        columns.append("over seeds")
    if any(a.difference for a in result.arms.values()):
        columns += ["minus", "difference", "95 % interval"]
        if result.several:
            columns.append("over seeds")
    return Table(f"{of.title}: values and paired differences", tuple(columns), tuple(rows))


def _seeds_told(figure: Figure | None, digits: int, *, sign: bool = False) -> str:
    seeds = figure.over_seeds if figure is not None else None
    if seeds is None or interval_of(seeds) is None:
        return "no interval"
    return f"{interval(seeds, digits, sign=sign)} ({seeds.n} {seeds.over})"


def fractions(result: Evaluation) -> list[Section]:
    """The main measure against the share of labels, where arms differ in it."""
    if len(result.fractions) < 2:
        return []
    main, families = main_measure(result.kind), result.families
    figures = {
        family: {share: result.figure(name, main) for share, name in points.items()}
        for family, points in families.items()
    }
    scale = scale_of(
        all_values([f for own in figures.values() for f in own.values()]), upper=measure(main).upper
    )
    shares = np.log(np.array(result.fractions))
    places = dict(
        zip(
            result.fractions,
            (100 * (0.03 + 0.94 * (shares - shares[0]) / (shares[-1] - shares[0]))).tolist(),
            strict=True,
        )
    )
    lines = []
    for i, (family, own) in enumerate(figures.items()):
        known = [
            (places[s], scale.at(v), f) for s, f in own.items() if (v := value_of(f)) is not None
        ]
        beside = 0.7 * (i - (len(figures) - 1) / 2)  # intervals of one share would hide each other
        bars = tuple(
            (x + beside, scale.at(e[0]), scale.at(e[1]))
            for x, _, f in known
            if (e := interval_of(f))
        )
        lines.append(
            Line(
                family,
                cut_in_middle(family, _LONGEST),
                look_of(i, len(families)),
                tuple((x, y) for x, y, _ in known),
                (),
                bars,
            )
        )
    alt = "; ".join(
        f"{family}: {', '.join(f'{number(value_of(f))} at {100 * s:g} %' for s, f in own.items())}"
        for family, own in figures.items()
    )
    rows = tuple(
        (family, f"{100 * s:g} %", count(result.training_images(families[family][s])) if result.training_images(families[family][s]) else "not recorded",
         number(value_of(f)), interval(f))
        for family, own in figures.items() for s, f in own.items()
    )  # fmt: skip
    numbers = Table(
        f"{title(main)} by share of labels",
        ("arm", "share", "training images", title(main), "95 % interval"),
        rows,
    )
    chart = Curves(
        title=f"{title(main)} by share of the labelled training images",
        sub="Same test images for every share. Vertical lines: 95 % intervals over patients.",
        y_label=title(main) + ("" if scale.low == 0 else ", axis does not start at 0"),
        x_label="share of the labelled training images, logarithmic",
        y_ticks=scale.ticks,
        x_ticks=tuple((places[s], f"{100 * s:g} %") for s in result.fractions),
        lines=tuple(lines),
        alt=f"{title(main)} by share of labels. {alt}.",
        numbers=numbers,
        csv="fractions.csv",
    )
    return [Section("How many labels it takes", "Labels", (chart,))]


def curves(result: Evaluation) -> list[Section]:
    """FROC of detectors."""
    if result.kind != "detector":
        return []
    view = shown(result)
    xs = np.linspace(2, 98, len(FROC_RATES)).tolist()
    lines, figures = (
        [],
        {arm: [result.figure(arm, f"froc@{rate}") for rate in FROC_RATES] for arm in view.order},
    )
    top = min(1.0, 1.1 * max([*all_values([f for own in figures.values() for f in own]), 0.05]))
    scale = scale_of([0.0, top], upper=1.0)
    for arm, own in figures.items():
        points = tuple(
            (x, scale.at(v)) for x, f in zip(xs, own, strict=True) if (v := value_of(f)) is not None
        )
        ends = [(x, e) for x, f in zip(xs, own, strict=True) if (e := interval_of(f))]
        band = (
            *((x, scale.at(e[1])) for x, e in ends),
            *((x, scale.at(e[0])) for x, e in reversed(ends)),
        )
        lines.append(
            Line(
                arm,
                cut_in_middle(arm, _IN_ROW),
                view.looks[arm],
                points,
                band if view.looks[arm].role != "other" else (),
            )
        )
    labels = [f"1/{round(1 / float(r))}" if float(r) < 1 else r for r in FROC_RATES]
    rows = tuple(
        (arm, *(number(value_of(f), 2) for f in own), number(value_of(result.figure(arm, "froc"))))
        for arm, own in figures.items()
    )
    at_one = "; ".join(
        f"{arm}: {number(value_of(result.figure(arm, 'froc@1')), 2)} at 1 false positive an image"
        for arm in view.order
    )
    chart = Curves(
        title=f"Share of the true boxes that are found: {_best_at_one(result)}",
        sub=f"FROC: {result.rule}. Bands: 95 % intervals of the first and of the last arm.",
        y_label="sensitivity: share of the true boxes found",
        x_label="false positives an image, logarithmic",
        y_ticks=scale.ticks,
        x_ticks=tuple(zip(xs, labels, strict=True)),
        lines=tuple(lines),
        alt=f"FROC curves. {at_one}.",
        numbers=Table(
            "Sensitivity at so many false positives an image", ("arm", *labels, "mean"), rows
        ),
        csv="metrics.csv",
        note="To the right a lower score is enough for a box to be shown: more true boxes are found, at the price of more false ones.",
    )
    return [Section("Found boxes against false alarms", "False alarms", (chart,))]


def _best_at_one(result: Evaluation) -> str:
    values = [value_of(result.figure(arm, "froc@1")) for arm in result.arms]
    known = [v for v in values if v is not None]
    if not known:
        return "no figure"
    spread = (
        f"{number(min(known), 2)} to {number(max(known), 2)}"
        if len(known) > 1
        else number(known[0], 2)
    )
    return f"{spread} at 1 false positive an image"


def classes(result: Evaluation) -> list[Section]:
    """The main measure of each class, of the first and of the last arm; all arms in the table behind it."""
    view, counted = shown(result), COUNT_OF_CLASS[result.kind]
    name = shown_by_class(result.kind)[0]
    of = measure(name)
    rows = [(arm, result.arms[arm].figures) for arm in view.order]
    everything = list(dict.fromkeys(c for _, split in rows for c in split.per_class))
    if not everything:
        return []
    sizes = {c: class_count(rows, c, counted) for c in everything}
    ordered = sorted(everything, key=lambda c: -(sizes[c] or 0))
    drawn = [view.first] if view.first == view.asked else [view.first, view.asked]
    asked = result.arms[view.asked]
    base = asked.minus
    drawn = [base, view.asked] if base else drawn
    values = all_values(
        [result.figure(arm, name, c) for arm in drawn for c in everything if not _few(sizes[c])]
    )
    scale = scale_of(values, upper=of.upper)
    differences = {
        c: asked.difference.get(name, c) if asked.difference else None for c in everything
    }
    paired = asked.difference is not None and not all(_few(n) for n in sizes.values())
    difference_scale = (
        scale_of(
            all_values([d for c, d in differences.items() if not _few(sizes[c])]),
            zero=True,
            sign=True,
        )
        if paired
        else None
    )
    common: list[BarRow] = []
    rare: list[BarRow] = []
    for c in ordered:
        few = _few(sizes[c])
        marks = []
        for arm in drawn:
            one = mark_of(result.figure(arm, name, c), scale)
            one = (
                one if len(drawn) == 1 and not few else type(one)(one.x)
            )  # intervals of two arms would hide each other
            marks.append((view.looks[arm], one))
        difference = differences[c]
        row = BarRow(
            c,
            cut_in_middle(c, 28),
            count(sizes[c]) if sizes[c] is not None else "",
            tuple(marks),
            told(result.figure(drawn[-1], name, c), of.digits, few=few),
            told(difference, of.digits, sign=True)
            if paired and not few and value_of(difference) is not None
            else None,
            mark_of(difference, difference_scale, difference=True)
            if difference_scale and not few
            else None,
        )
        (rare if few else common).append(row)
    n_classes = len(common)
    chart = Bars(
        title=_class_title(name, [differences[row.name] for row in common], paired),
        sub=f"{of.what[:1].upper()}{of.what[1:]}."
        + (
            f" Difference: {cut_in_middle(view.asked, _LONGEST)} minus {cut_in_middle(base, _LONGEST)}."
            if paired
            else ""
        ),
        head="class",
        n_head=count_head(counted),
        measure=of.title,
        scale=scale,
        arms=tuple((cut_in_middle(arm, _LONGEST), view.looks[arm]) for arm in drawn),
        rows=tuple(common),
        rare=tuple(rare),
        rare_head=f"Fewer than {FEWEST} {count_title(counted)}: too few to say",
        difference_scale=difference_scale,
        look=view.looks[view.asked],
        numbers=_class_numbers(result, name, ordered, sizes),
        csv="metrics.csv",
        note=_by_chance(n_classes) + _corrected(result.arms[view.asked].difference, name)
        if paired and n_classes > 1
        else "",
    )
    return [Section("By class", "By class", (chart,))]


def _few(n: int | None) -> bool:
    return n is not None and n < FEWEST


def _class_title(name: str, differences: Sequence[Figure | None], paired: bool) -> str:
    if not paired:
        return f"{title(name)} of each class"
    sides = [_side(d, name) for d in differences]
    gains, losses = sides.count("better"), sides.count("worse")
    if not gains and not losses:
        return "No class shows a difference" if sides else "No class has enough to say"
    parts = [f"{gains} gain{'s' if gains == 1 else ''}"] if gains else []
    parts += [f"{losses} lose{'s' if losses == 1 else ''}"] if losses else []
    rest = len(sides) - gains - losses
    return f"Of {count(len(sides), 'class', 'classes')}, {join_words(parts)}" + (
        f"; {rest} show no difference" if rest else ""
    )


def _class_numbers(
    result: Evaluation, name: str, ordered: Sequence[str], sizes: Mapping[str, int | None]
) -> Table:
    view, of = shown(result), measure(name)
    columns = ["class", count_title(COUNT_OF_CLASS[result.kind])]
    for arm in view.order:
        columns.append(arm)
        if result.arms[arm].difference is not None:
            columns.append(f"{arm} minus {result.arms[arm].minus}")
    rows = []
    for c in ordered:
        cells = [c, count(sizes[c]) if sizes[c] is not None else ""]
        for arm in view.order:
            own = result.arms[arm]
            cells.append(with_interval(own.figures.get(name, c), digits=of.digits))
            if own.difference is not None:
                cells.append(_tested(own.difference.get(name, c), of.digits))
        rows.append(tuple(cells))
    note = (
        "Intervals of classes with few positives are wide for what they are worth."
        if any(map(_few, sizes.values()))
        else ""
    )
    return Table(f"{of.title} of each class (95 % interval)", tuple(columns), tuple(rows), note)


def _tested(figure: Figure | None, digits: int) -> str:
    text = with_interval(figure, digits=digits, sign=True)
    corrected = None if figure is None else figure.tests.get("holm_p")
    return text if corrected is None else f"{text}, p {number(corrected)} (Holm)"


def subgroups(result: Evaluation) -> list[Section]:
    """The main measure by group of patients, where groups were asked for."""
    view, main = shown(result), main_measure(result.kind)
    asked = result.arms[view.asked]
    if not asked.figures.subgroups:
        return []
    of, drawn = measure(main), list(dict.fromkeys([asked.minus or view.asked, view.asked]))
    blocks: list[Block] = []
    for attribute, groups in asked.figures.subgroups.items():
        per_arm = {arm: result.arms[arm].figures.subgroups.get(attribute, {}) for arm in drawn}
        figures = [own[g].get(main) for own in per_arm.values() for g in groups if g in own]
        scale = scale_of(all_values(figures), upper=of.upper)
        others = asked.difference.subgroups.get(attribute, {}) if asked.difference else {}
        difference_scale = (
            scale_of(all_values([d.get(main) for d in others.values()]), zero=True, sign=True)
            if others
            else None
        )
        rows = []
        for group, own in groups.items():
            few = _few(own.counts.get("n_images"))
            difference = others[group].get(main) if group in others else None
            rows.append(
                BarRow(
                    group, cut_in_middle(group, 28), count(own.counts.get("n_images")),
                    tuple((view.looks[arm], mark_of(per_arm[arm][group].get(main), scale)) for arm in drawn if group in per_arm[arm]),
                    told(own.get(main), of.digits, few=few),
                    told(difference, of.digits, sign=True) if difference is not None and not few else None,
                    mark_of(difference, difference_scale, difference=True) if difference_scale and not few else None,
                )
            )  # fmt: skip
        gap = _gap(asked.figures, attribute, main)
        numbers = Table(
            f"{of.title} by {attribute}", ("group", "images", *drawn),
            tuple((g, count(groups[g].counts.get("n_images")), *(with_interval(per_arm[a][g].get(main)) if g in per_arm[a] else "" for a in drawn)) for g in groups),
        )  # fmt: skip
        blocks.append(
            Bars(f"{of.title} by {attribute}{gap}", f"{cut_in_middle(view.asked, _LONGEST)}; 95 % intervals over patients.", attribute,
                 "images", of.title, scale, tuple((cut_in_middle(a, _LONGEST), view.looks[a]) for a in drawn), tuple(rows),
                 difference_scale=difference_scale, look=view.looks[view.asked], numbers=numbers, csv="metrics.csv",
                 note=_by_chance(len(rows)) if others and len(rows) > 1 else "")
        )  # fmt: skip
    return [Section("By group of patients", "Groups", tuple(blocks))]


def _gap(figures: SplitFigures, attribute: str, name: str) -> str:
    """The largest gap between groups, in words; with its interval over all pairs where there is one."""
    gaps = figures.details.get("gaps") or {}
    own = next(
        (g for g in gaps.get(attribute, ()) if g["measure"] == name and g["class"] is None), None
    )
    if own is not None:
        told_of = Figure(
            own["gap"], None if own["gap_ci95"] is None else tuple(own["gap_ci95"]), own["n"]
        )
        return f": the largest gap is {with_interval(told_of, digits=measure(name).digits)}, {own['high']} against {own['low']}"
    known = [
        v
        for part in figures.subgroups[attribute].values()
        if (v := value_of(part.get(name))) is not None
    ]
    return (
        f": the largest gap is {number(max(known) - min(known), measure(name).digits)}"
        if len(known) > 1
        else ""
    )


def images(
    result: Evaluation, pictures: Sequence[Pictured], most: int = 3, least_score: float = 0.3
) -> list[Section]:
    """True boxes and those of every arm, side by side."""
    if not pictures:
        return []
    names = [arm for arm in shown(result).order if arm in pictures[0].found]
    intro = (
        f"Drawn before any result was looked at: images of each class in turn, then others. Solid blue: true boxes. Dashed yellow: at most "
        f"{count(most, 'box', 'boxes')} an arm, of a score of {least_score:g} or more; of an arm with several models those of the first."
    )
    return [
        Section(
            "Boxes on images",
            "Images",
            (intro, *(picture(one, names, result.classes, most, least_score) for one in pictures)),
        )
    ]


def picture(
    one: Pictured, names: Sequence[str], class_names: Sequence[str], most: int, least_score: float
) -> Panels:
    """One image, a panel an arm."""
    truth = None if one.truth is None else scaled(one.truth, one.scale)
    drawn = {name: scaled(best(one.found[name], most, least_score), one.scale) for name in names}
    panels = {
        name: Panel(cut_in_middle(name, 28), one.image, truth, found)
        for name, found in drawn.items()
    }
    true = boxes_told(one.truth, class_names) if one.truth is not None else "not known"
    told_of = {name: boxes_told(boxes, class_names) for name, boxes in drawn.items()}
    pictures = tuple(
        Picture(
            as_png(panel_row([panel], tuple(class_names), key=False)),
            "png",
            f"Image {one.id}, {name}: {told_of[name]}. True: {true}.",
            "",
        )
        for name, panel in panels.items()
    )
    return Panels(
        pictures,
        f"{one.id}. True: {true}. {'; '.join(f'{name}: {words}' for name, words in told_of.items())}.",
    )


def boxes_told(boxes: Boxes, class_names: Sequence[str]) -> str:
    """``opacity 0.91 and nodule 0.40``; ``no box``."""
    names = [class_names[int(label)] for label in boxes.labels]
    if boxes.scores is not None:
        names = [f"{name} {score:.2f}" for name, score in zip(names, boxes.scores, strict=True)]
    return join_words(names) if names else "no box"


def record(result: Evaluation) -> list[Section]:
    """What a reviewer asks for: notes, runs, how it was measured."""
    notes: tuple[Block, ...] = (
        (Points(tuple(("", note) for note in result.notes)),)
        if result.notes
        else ("Nothing was noted.",)
    )
    columns = (
        "model",
        "arm",
        *(("fold",) if result.folds > 1 else ()),
        "training seed",
        "label draw",
        "training images",
        "initial weights",
        "saw",
        "folder",
    )
    rows = tuple(
        (
            name,
            run.arm,
            *((str(run.fold),) if result.folds > 1 else ()),
            str(run.seed),
            "" if run.draw is None else str(run.draw),
            "not recorded" if run.training_images is None else count(run.training_images),
            run.pretraining,
            {"nothing": "nothing", "recorded": "recorded", "unknown": "not recorded"}.get(
                run.seen, run.seen
            ),
            run.path,
        )
        for name, run in result.runs.items()
    )
    facts = [
        ("models", result.kind + (f", {result.task}" if result.task else "")),
        (
            "images",
            f"split {result.split} of {result.data}"
            if result.data
            else f"split {result.split}, as the runs kept it",
        ),
        ("folds", str(result.folds)),
        (
            "intervals",
            "95 %; over patients: bootstrap, all arms on the same resamples; over seeds: Student's t",
        ),
        *((("FROC", result.rule),) if result.rule else ()),
        ("version", f"twinray {own_version()}"),
    ]
    options = {name: arm.options for name, arm in result.arms.items() if arm.options}
    differing: tuple[Block, ...] = ()
    if options:
        names = list(dict.fromkeys(k for own in options.values() for k in own))
        caption = "Options in which arms differ, besides initial weights"
        cells = tuple((k, *(str(own.get(k)) for own in options.values())) for k in names)
        table = Table(caption, ("option", *options), cells)
        if len(names) <= len(options):  # the longer side goes down the page
            cells = tuple((arm, *(str(own.get(k)) for k in names)) for arm, own in options.items())
            table = Table(caption, ("arm", *names), cells)
        differing = (Words(table),)
    return [
        Section("Notes", "Notes", notes, part="The record"),
        Section(
            "Models and how they were measured",
            "Models",
            (Words(Table("Tested models", columns, rows)), *differing, Facts(tuple(facts))),
        ),
    ]
