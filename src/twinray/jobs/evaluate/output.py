"""What an evaluation shows on the terminal and leaves in its folder: the same of detectors and classifiers, of runs and arms."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from twinray.about import DISCLAIMER
from twinray.evaluation.measures import (
    COUNT_OF_CLASS,
    main_measure,
    shown_by_class,
    shown_overall,
    title,
)
from twinray.evaluation.record import PATIENTS, SplitFigures
from twinray.evaluation.result import Evaluation, evaluation_as_json
from twinray.files import make_folder, write_bytes, write_json, write_text
from twinray.jobs.evaluate.diagnose import Detected, Ranked
from twinray.jobs.evaluate.measure import Measured
from twinray.report.charts.curves import class_bars, fraction_curves, froc_curves, interval_plot
from twinray.report.charts.diagnostics import (
    calibration_plot,
    confusion_plot,
    precision_recall_curves,
    run_dots,
)
from twinray.report.charts.labels import (
    confusion_of_labels,
    precision_recall_of_labels,
    reliability_of_labels,
    roc_curves,
    subgroup_plot,
)
from twinray.report.charts.sheet import Chart
from twinray.report.figures_csv import differences_csv, figures_csv, fractions_csv
from twinray.report.fonts import cut_in_middle
from twinray.report.numbers import count, number
from twinray.report.page.comparison import Pictured, write_comparison
from twinray.report.pictures.single import picture_name
from twinray.report.tables import arms_table, class_tables, difference_table, group_tables
from twinray.runs.names import file_names
from twinray.runs.seen import told_seen

PAGE = "report.html"
_MOST_POINTS = 500
"""Points of a curve in the CSV; thinned evenly where there are more."""


def show(console: Console, result: Evaluation, out: Path | None) -> None:
    """The tables, and below them what a reader must know to read them rightly."""
    measures, main_of_class = shown_overall(result.kind), shown_by_class(result.kind)[0]
    rows = [
        (f"{name} *" if arm.figures.seen else name, arm.figures)
        for name, arm in result.arms.items()
    ]
    if result.repeated or result.folds > 1:
        over = " and ".join(
            part
            for part in (count(result.folds, "fold") if result.folds > 1 else "", result.repeated)
            if part
        )
        say(console, f"means over {over}; {DISCLAIMER.lower()}")
        say(
            console, f"Intervals over {_counted(rows, measures[0])} (the trained runs as they are):"
        )
    else:
        say(console, f"Intervals over {_counted(rows, measures[0])}:")
    console.print(arms_table(rows, measures))
    for table in class_tables(rows, main_of_class, COUNT_OF_CLASS[result.kind], console.width):
        console.print(table)
    for images, told in _subsets(rows):
        console.print(arms_table([(name, part) for name, part in images], measures, told))
    for table in group_tables(rows, measures):
        console.print(table)
    for line in _gaps(result, measures[0]):
        say(console, line)
    if result.several:
        say(console, "Intervals over seeds (the images as they are):")
        console.print(arms_table(rows, measures, over_seeds=True))
    for name, arm in result.arms.items():
        if arm.difference is not None:
            for over_seeds in (False, True) if _repeated(arm.difference, measures[0]) else (False,):
                over = _over(arm.difference, measures[0]) if over_seeds else "patients"
                told = f"{name} minus {arm.minus}; interval over {over}."
                console.print(
                    difference_table(arm.difference, measures, told, over_seeds=over_seeds)
                )
    for name, arm in result.arms.items():
        if note := told_seen(arm.figures.seen):
            say(console, f"{name} * {note}")
    if result.rule:
        say(console, f"FROC: {result.rule}")
    for warning in result.warnings:
        say(console, f"warning: {warning}")
    for note in result.notes:
        say(console, f"note: {note}")
    if out is not None:
        say(console, f"page: {(out / PAGE).resolve()}")


def _counted(rows: Sequence[tuple[str, SplitFigures]], measure: str) -> str:
    """How many patients (an unknown one for each image without) the figures rest on: ``20 patients``."""
    found = [figure for _, arm in rows if (figure := arm.get(measure)) is not None]
    ns = sorted({figure.n for figure in found})
    over = found[0].over if found else PATIENTS
    return (
        f"{ns[0]:,} to {ns[-1]:,} {over}"
        if len(ns) > 1
        else (count(ns[0], over[:-1]) if ns else over)
    )


def _repeated(difference: SplitFigures, measure: str) -> bool:
    """Whether there is an interval over seeds."""
    figure = difference.get(measure)
    return figure is not None and figure.over_seeds is not None and figure.over_seeds.n > 1


def _over(difference: SplitFigures, measure: str) -> str:
    figure = difference.get(measure)
    return "seeds" if figure is None or figure.over_seeds is None else figure.over_seeds.over


def _subsets(
    rows: Sequence[tuple[str, SplitFigures]],
) -> list[tuple[list[tuple[str, SplitFigures]], str]]:
    """Figures over images with boxes, where not all images have any."""
    parts: dict[str, list[tuple[str, SplitFigures]]] = {}
    for name, split in rows:
        for images, part in split.sets():
            if images == "with_boxes" and part.counts.get("n_images") != split.counts.get(
                "n_images"
            ):
                parts.setdefault(images, []).append((name, part))
    told = []
    for own in parts.values():
        n = count(own[0][1].counts.get("n_images"), "image")
        told.append((own, f"Only the {n} with boxes: value (95 % interval)"))
    return told


def _gaps(result: Evaluation, main: str) -> list[str]:
    """The largest gap of the main measure between groups, of each arm."""
    lines = []
    for name, arm in result.arms.items():
        for attribute, gaps in (arm.figures.details.get("gaps") or {}).items():
            own = [gap for gap in gaps if gap["class"] is None and gap["measure"] == main]
            if not own and len(arm.figures.subgroups.get(attribute, {})) > 1:
                lines.append(
                    f"{name}: largest gap of {title(main)} by {attribute}: too few patients in all groups but one"
                )
            for gap in own:
                ends = gap["gap_ci95"]
                shown = "" if ends is None else f" ({number(ends[0])} to {number(ends[1])})"
                p = "" if gap["p"] is None else f", p {number(gap['p'])}"
                told = f"{gap['high']} above {gap['low']}{p}, interval and p over {count(gap['comparisons'], 'pair')} of groups"
                lines.append(
                    f"{name}: largest gap of {title(main)} by {attribute} {number(gap['gap'])}{shown}: {told}"
                )
    return lines


def gaps_csv(result: Evaluation) -> str:
    """run, attribute, class (empty: over all), measure, gap, low, high, p, high group, low group, comparisons, n."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        (
            "run",
            "attribute",
            "class",
            "measure",
            "gap",
            "low",
            "high",
            "p",
            "high_group",
            "low_group",
            "comparisons",
            "n",
        )
    )
    for name, arm in result.arms.items():
        for attribute, gaps in (arm.figures.details.get("gaps") or {}).items():
            for gap in gaps:
                ends = gap["gap_ci95"] or ("", "")
                p = "" if gap["p"] is None else gap["p"]
                writer.writerow(
                    (
                        name,
                        attribute,
                        gap["class"] or "",
                        gap["measure"],
                        gap["gap"],
                        *ends,
                        p,
                        gap["high"],
                        gap["low"],
                        gap["comparisons"],
                        gap["n"],
                    )
                )
    return out.getvalue()


def say(console: Console, text: str) -> None:
    """A line as it is: not broken, no markup."""
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def write(
    out: Path, measured: Measured, pictures: Sequence[Pictured] = (), *, png: bool = False
) -> None:
    """Everything that an evaluation leaves: figures as JSON and CSV, curves, charts, the page.

    Args:
        out: folder, there already.
        measured: what came out.
        pictures: pictures for the page.
        png: flag to write every figure as a PNG too.

    Raises:
        TwinrayError: a file cannot be written.
    """
    result = measured.result
    write_json(out / "metrics.json", evaluation_as_json(result), "metrics")
    write_text(
        out / "metrics.csv",
        figures_csv([(name, arm.figures) for name, arm in result.arms.items()]),
        "table",
    )
    differences = [
        (name, arm.minus, arm.difference)
        for name, arm in result.arms.items()
        if arm.difference is not None
    ]
    if differences:
        write_text(out / "differences.csv", differences_csv(differences), "table")
    if len(result.fractions) > 1:
        write_text(out / "fractions.csv", fractions_csv(result), "table")
    if any(arm.figures.subgroups for arm in result.arms.values()):
        write_text(out / "gaps.csv", gaps_csv(result), "table")
    write_text(out / "curves.csv", curves_csv(measured.curves), "curves")
    make_folder(out / "figures")
    for name, svg in _charts(measured).items():
        write_bytes(out / "figures" / f"{name}.svg", svg, "figure")
        if png and isinstance(svg, Chart):
            write_bytes(out / "figures" / f"{name}.png", svg.as_png(), "figure")
    write_comparison(out / PAGE, result, pictures)


def _charts(measured: Measured) -> dict[str, bytes]:
    """File name without ending -> chart."""
    result = measured.result
    main = main_measure(result.kind)
    charts = {
        main: interval_plot(result, main),
        "classes": class_bars(result, shown_by_class(result.kind)[0]),
    }
    if any(len(arm.runs) > 1 for arm in result.arms.values()):
        charts["runs"] = run_dots(result, main)
    if len(result.fractions) > 1:
        charts["fractions"] = fraction_curves(result, main)
    for attribute in dict.fromkeys(
        a for arm in result.arms.values() for a in arm.figures.subgroups
    ):
        groups = {
            name: arm.figures.subgroups.get(attribute, {}) for name, arm in result.arms.items()
        }
        by_group = {
            name: {
                group: (part.get(main), part.counts.get("n_images", 0))
                for group, part in own.items()
            }
            for name, own in groups.items()
        }
        safe = picture_name(0, attribute).removeprefix("000000-").removesuffix(".png")
        charts[f"by {safe}"] = subgroup_plot(by_group, f"{title(main)} by {attribute}")
    names = list(measured.curves)
    files = file_names(names)
    drawn = _one_an_arm(measured)
    boxes = {name: one for name, one in drawn.items() if isinstance(one, Detected)}
    labels = {name: one for name, one in drawn.items() if isinstance(one, Ranked)}
    if boxes:
        charts["froc"] = froc_curves(result)
        charts["precision-recall"] = precision_recall_curves(
            {name: one.curves[""][0] for name, one in boxes.items()}
        )
        charts["calibration"] = calibration_plot(
            {name: (one.calibration, one.shown_error) for name, one in boxes.items()}
        )
    if labels:
        chosen = set(_drawn_classes(result))
        curves = {
            name: {c: curve for c, curve in one.curves.items() if c in chosen}
            for name, one in labels.items()
        }
        charts["roc"] = roc_curves(curves)
        charts["precision-recall"] = precision_recall_of_labels(curves)
        charts["reliability"] = reliability_of_labels(
            {name: one.reliability for name, one in labels.items()}
        )
    for name, one in measured.curves.items():
        if one.confusion is not None:
            draw = confusion_plot if isinstance(one, Detected) else confusion_of_labels
            charts[f"confusion {files[name]}"] = draw(
                one.confusion, one.classes, cut_in_middle(name, 40)
            )
    return charts


def _one_an_arm(measured: Measured) -> dict[str, Detected | Ranked]:
    """Curves of each arm's first model, under the arm's name: those of all would hide each other (``curves.csv`` has them)."""
    found = {}
    for name, arm in measured.result.arms.items():
        first, n = measured.curves[arm.runs[0]], len(arm.runs)
        found[name if n == 1 else f"{name} (first of {n})"] = first
    return found


def _drawn_classes(result: Evaluation) -> list[str]:
    """Of two exclusive classes the second mirrors the first."""
    two = result.task == "multiclass" and len(result.classes) == 2
    return (
        list(result.classes[1:] if two else result.classes) if result.kind == "classifier" else []
    )


def curves_csv(curves: Mapping[str, Detected | Ranked]) -> str:
    """run, class (empty: all pooled), score, precision, recall, false positives per image or their rate; by falling score."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    detectors = any(isinstance(one, Detected) for one in curves.values())
    false = "false_positives_per_image" if detectors else "false_positive_rate"
    writer.writerow(("run", "class", "score", "precision", "recall", false))
    for name, one in curves.items():
        if isinstance(one, Detected):
            for class_name, (pr, froc) in one.curves.items():
                for i in _thinned(len(pr.score)):
                    recall = "" if np.isnan(pr.recall[i]) else pr.recall[i]
                    # FROC may count fewer boxes: the last of its thresholds that is not below this score
                    at = int(np.searchsorted(-froc.score, -pr.score[i], side="right")) - 1
                    rate = froc.false_positives_per_image[at] if at >= 0 else 0.0
                    writer.writerow((name, class_name, pr.score[i], pr.precision[i], recall, rate))
        else:
            for class_name, curve in one.curves.items():
                for i in range(1, len(curve.score)):  # at the first threshold nothing passes
                    row = (
                        curve.score[i],
                        curve.precision[i],
                        curve.recall[i],
                        curve.false_positive_rate[i],
                    )
                    writer.writerow((name, class_name, *row))
    return out.getvalue()


def _thinned(n: int) -> list[int]:
    found: list[int] = np.unique(
        np.linspace(0, n - 1, min(n, _MOST_POINTS)).round().astype(np.int64)
    ).tolist()
    return found
