"""Sections of a report that need more than figures: how arms learned, what is confused, where a detector looks, labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from twinray.data.pack import Pack
from twinray.evaluation.measures import title
from twinray.files import make_folder, write_bytes
from twinray.jobs.evaluate.diagnose import Detected
from twinray.jobs.evaluate.pictures import choose_images
from twinray.jobs.explain.run import explain_pack_images
from twinray.records import Boxes, IntArray
from twinray.report.charts.curves import pretraining_curves
from twinray.report.charts.diagnostics import confusion_plot
from twinray.report.charts.labels import confusion_of_labels
from twinray.report.fonts import cut_in_middle
from twinray.report.numbers import count, number
from twinray.report.page.document import Block, Details, Panels, Picture, Points
from twinray.report.page.strips import Curves, Line, scale_of
from twinray.report.palette import look_of
from twinray.report.pictures.panels import Panel, as_png, panel_row, scaled
from twinray.report.tables import Table
from twinray.runs.folder import RunFolder
from twinray.studies.report.gather import Gathered, Key

_VALIDATION = {"map50": "val_map50", "auc": "val_auc"}


def training(study: Gathered) -> tuple[Block, ...]:
    """How each pre-training went, and the main measure on validation images by epoch: mean of an arm's runs, and their range."""
    blocks: list[Block] = list(_pretrainings(study))
    for key in study.pieces:
        task = study.task(key)
        share = max(task.shares)
        curves = {
            arm: _epochs(study, key, arm, share, _VALIDATION[task.measure]) for arm in task.arms
        }
        known = {arm: own for arm, own in curves.items() if own}
        if known:
            blocks.append(_training_chart(task.title, task.measure, task.arms, known))
    return tuple(blocks)


def _pretrainings(study: Gathered) -> Iterator[Block]:
    """Loss, agreement, redundancy and rank of every pre-training that is done; one alone is shown at once."""
    done = [p for p in study.state.of("done") if p.node.kind == "pretrain"]
    drawn: list[tuple[str, Picture]] = []
    for piece in done:
        lines = RunFolder(piece.folder).history()
        last = next((line for line in reversed(lines) if "mean_c_ii" in line), None)
        if last is None:  # an objective without these figures
            continue
        told = (
            f"loss {number(last.get('loss'), 1)}, mean C_ii {number(last.get('mean_c_ii'), 2)}, "
            f"RMS C_ij {number(last.get('rms_c_ij'))}, effective rank {number(last.get('effective_rank'), 0)}"
        )
        name = piece.node.name[:1].upper() + piece.node.name[1:]
        drawn.append(
            (
                f"{name}: {told}",
                Picture(
                    pretraining_curves(lines),
                    "svg",
                    f"{name}: four curves over {count(last.get('step'), 'step')}; at the end {told}.",
                    f"{name}. At the end: {told}.",
                ),
            )
        )
    if drawn:
        yield Points(((
            "Pre-training, without any label.",
            "Two altered views of each image are to agree (C_ii near 1) while their features say different things (C_ij near 0). "
            "An effective rank that falls towards 1 would mean collapse.",
        ),))  # fmt: skip
    for summary, picture in drawn:
        yield picture if len(drawn) == 1 else Details(summary, (picture,))


def _epochs(
    study: Gathered, key: Key, arm: str, share: float, value: str
) -> dict[int, list[float]]:
    """Epoch -> the measure of each of an arm's runs."""
    found: dict[int, list[float]] = {}
    for cell, piece in study.pieces[key]:
        if cell.arm == arm and cell.fraction == share and piece.state == "done":
            for line in RunFolder(piece.folder).history():
                if isinstance(known := line.get(value), int | float) and np.isfinite(known):
                    found.setdefault(int(line["epoch"]), []).append(float(known))
    return found


def _training_chart(
    of: str, measure: str, arms: Sequence[str], known: Mapping[str, Mapping[int, list[float]]]
) -> Curves:
    last = max(max(own) for own in known.values())
    scale = scale_of([v for own in known.values() for values in own.values() for v in values])

    def at(epoch: int) -> float:
        return 100 * (0.02 + 0.96 * (epoch / last if last else 0.5))

    lines, rows = [], []
    for arm, own in known.items():
        epochs = sorted(own)
        means = {e: sum(own[e]) / len(own[e]) for e in epochs}
        points = tuple((at(e), scale.at(means[e])) for e in epochs)
        band = (
            *((at(e), scale.at(max(own[e]))) for e in epochs),
            *((at(e), scale.at(min(own[e]))) for e in reversed(epochs)),
        )
        several = any(len(own[e]) > 1 for e in epochs)
        look = look_of(arms.index(arm), len(arms))
        lines.append(Line(arm, cut_in_middle(arm, 40), look, points, band if several else ()))
        best = max(epochs, key=lambda e: means[e])
        rows.append(
            (arm, count(len(own[epochs[0]])), str(best + 1), number(means[best]), number(means[epochs[-1]]))
        )  # fmt: skip
    ticks = sorted({0, last // 2, last})
    return Curves(
        title=f"{of}: {title(measure)} on validation images while training",
        sub="Mean over an arm's runs at all its labels; bands from the least to the greatest run.",
        y_label=title(measure),
        x_label="epoch",
        y_ticks=scale.ticks,
        x_ticks=tuple((at(e), str(e + 1)) for e in ticks),
        lines=tuple(lines),
        alt="; ".join(f"{row[0]}: best {row[3]} at epoch {row[2]}" for row in rows),
        numbers=Table(
            f"{title(measure)} on validation images",
            ("arm", "runs", "best epoch", "mean there", "mean in the end"),
            tuple(rows),
        ),
    )


_FEW_CLASSES = 4
"""Classes of which a confusion matrix can be read at half of the page's width."""


def confusions(study: Gathered) -> tuple[Block, ...]:
    """What is taken for what: the first and the last arm of each task, their first run with all its labels."""
    blocks: list[Block] = []
    for key, measured in study.measured.items():
        task = study.task(key)
        share = max(task.evaluation.fractions) if task.evaluation is not None else 1.0
        for arm in dict.fromkeys((task.arms[0], task.arms[-1])):
            name = next(
                (n for n, a in measured.result.arms.items() if (a.family, a.fraction) == (arm, share)),
                None,
            )  # fmt: skip
            own = None if name is None else measured.curves[measured.result.arms[name].runs[0]]
            if own is None or own.confusion is None:
                continue
            draw = confusion_plot if isinstance(own, Detected) else confusion_of_labels
            head = f"{task.title}: {cut_in_middle(arm, 60)}"
            counts = "; ".join(
                f"{true}: {', '.join(str(int(n)) for n in row)}"
                for true, row in zip(
                    [*own.classes, "background"] if isinstance(own, Detected) else own.classes,
                    own.confusion,
                    strict=True,
                )
            )
            blocks.append(
                Picture(
                    draw(own.confusion, own.classes, cut_in_middle(arm, 60)),
                    "svg",
                    f"Confusion of {head}, rows true: {counts}.",
                    f"{head}. The arm's first run; the others lie in the folder of the task.",
                    small=len(own.classes) <= _FEW_CLASSES,
                )
            )
    return tuple(blocks)


def pictures(study: Gathered, folder: Path, seed: int = 0) -> tuple[Block, ...]:
    """Boxes of the first and last arm on a few test images, and the heat map of the last arm's best box.

    Args:
        study: opened, or nothing is drawn.
        folder: place of the pictures as files.
        seed: seed of the choice of images; they are drawn before any box is looked at.
    """
    blocks: list[Block] = []
    for key in study.measured:
        task, pack = study.task(key), study.shown[key]
        n = study.state.plan.heat_maps.get(key.task, 0)
        if task.kind != "detector" or pack is None or not n:
            continue
        ids = choose_images(pack, "test", n, seed)
        sheets = _sheets(study, key, pack, ids)
        for name, panels, told in sheets:
            make_folder(folder / task.name)
            sheet = as_png(panel_row(panels, pack.info.box_classes))
            write_bytes(folder / task.name / f"{name}.png", sheet, "picture")
            # in the page each panel stands by itself, so that a phone shows them one below the other
            items = tuple(
                Picture(
                    as_png(panel_row([panel], pack.info.box_classes, key=False)),
                    "png",
                    f"{task.title}, test image {name.rpartition('-')[2]}: {panel.title}.",
                    "",
                )
                for panel in panels
            )
            blocks.append(Panels(items, told))
    if blocks:
        blocks.insert(
            0,
            Points((
                ("How the images were chosen.", "By the seed, before any result was looked at: one of each class, one without a box, then others."),
                ("What is drawn.", "Solid blue: true boxes. Dashed yellow: each arm's boxes of a score of 0.3 or more. The heat map belongs to the one box drawn on it."),
                ("What a heat map does not say.", "It shows where the features that carry one box's score respond. It does not show that the box is right."),
            )),
        )  # fmt: skip
    return tuple(blocks)


def _sheets(
    study: Gathered, key: Key, pack: Pack, ids: Sequence[str]
) -> list[tuple[str, list[Panel], str]]:
    """(name, panels, words) of each image: a panel an arm, then the last arm's best box with its map."""
    task = study.task(key)
    runs = study.first_runs(key)
    shown = [arm for arm in dict.fromkeys((task.arms[0], task.arms[-1])) if arm in runs]
    if not shown:
        return []
    explained = {
        arm: explain_pack_images(
            runs[arm], pack.path, ids, most=1 if arm == shown[-1] else 0, least_score=0.0
        )
        for arm in shown
    }
    found = []
    classes = pack.info.box_classes
    for i in range(len(ids)):
        panels = []
        for arm in shown:
            one = explained[arm][i]
            truth = None if one.truth is None else scaled(one.truth, one.scale)
            scores = one.predictions.scores
            assert scores is not None
            kept = scaled(_some(one.predictions, np.flatnonzero(scores >= 0.3)[:3]), one.scale)
            panels.append(Panel(cut_in_middle(arm, 28), one.image, truth, kept))
        last = explained[shown[-1]][i]
        told = "no box, so no heat map"
        if len(last.heat_maps):
            best = scaled(_some(last.predictions, np.array(last.top[:1])), last.scale)
            told = f"heat map of its best box ({classes[int(best.labels[0])]})"
            panels.append(Panel(told, last.image, None, best, last.heat_maps[0]))
        found.append(
            (
                f"image-{i + 1}",
                panels,
                f"{task.title}, test image {i + 1}: {', '.join(shown)}; {told}.",
            )
        )
    return found


def _some(boxes: Boxes, index: IntArray) -> Boxes:
    scores = None if boxes.scores is None else boxes.scores[index]
    return Boxes(boxes.xyxy[index], boxes.labels[index], scores)


def labels(study: Gathered) -> tuple[Block, ...]:
    """How many images and boxes of each class each split has, and what became of readers' boxes."""
    blocks: list[Block] = []
    seen: set[Path] = set()
    for key, pack in study.shown.items():
        if pack is None or pack.path in seen:
            continue
        seen.add(pack.path)
        rows = []
        for split in ("train", "val", "test"):
            here = pack.where(split)
            counts: dict[str, int] = {}
            if study.task(key).kind == "detector":
                for row in here:
                    for label in b.labels.tolist() if (b := pack.boxes(int(row))) else ():
                        name = pack.info.box_classes[int(label)]
                        counts[name] = counts.get(name, 0) + 1
            else:
                positive = (pack.labels[here] == 1).sum(axis=0)
                counts = dict(zip(pack.info.label_classes, map(int, positive), strict=True))
            rows.append((split, len(here), counts))
        names = list(dict.fromkeys(name for _, _, counts in rows for name in counts))
        what = "boxes" if study.task(key).kind == "detector" else "images with the label"
        blocks.append(
            Table(
                f"{study.task(key).title}: {what} by class and split"
                + ("" if study.packs[key] is not None else ", first fold"),
                ("class", *(f"{split} ({n:,} images)" for split, n, _ in rows)),
                tuple((name, *(count(counts.get(name, 0)) for _, _, counts in rows)) for name in names),
                " ".join(f"{note}." for note in pack.info.notes[:3]),
            )
        )  # fmt: skip
        fusion = _fusion(pack.info.extra)
        if fusion is not None:
            blocks.append(fusion)
    return tuple(blocks)


def _fusion(extra: Mapping[str, Any]) -> Table | None:
    """Boxes of each class before and after readers' boxes were fused, where the pack says it."""
    before, after = extra.get("boxes_before_fusion"), extra.get("boxes_after_fusion")
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        return None
    rows = tuple((str(name), count(before[name]), count(after.get(name, 0))) for name in before)
    return Table(
        "Boxes before and after fusing readers", ("class", "before fusion", "after fusion"), rows
    )


def tuning(study: Gathered) -> tuple[Block, ...]:
    """What every arm's search chose, of how many trials."""
    rows = []
    for key, own in study.pieces.items():
        for cell, piece in own:
            if piece.choice:
                chosen = piece.choice["chosen"]
                told = ", ".join(f"{name} {value}" for name, value in dict(chosen).items())
                row = (study.task(key).title, cell.arm, f"{100 * cell.fraction:g} %", told, str(piece.choice["budget"]))  # fmt: skip
                rows.append(row)
    if not rows:
        return ()
    table = Table("Values that the search chose on validation images", ("task", "arm", "labels", "chosen", "trials"), tuple(dict.fromkeys(rows)))  # fmt: skip
    return (Details(f"{count(len(table.rows), 'choice')} of the search", (replace(table),)),)
