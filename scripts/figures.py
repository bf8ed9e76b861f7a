"""Run the commands that README.md shows, put what they print below each, and draw its picture from what they made.

    python scripts/figures.py [--work FOLDER] [--drawn-only]

``make figures`` calls it. Commands are the lines after ``$`` of the block ``console``; they run in
one folder, by default ``docs/_build/figures``, which is emptied first. ``--drawn-only`` draws the
picture again from what lies there. All images are synthetic.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure as Sheet
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator

from twinray.backbones.pixels import pixels_to_unit
from twinray.data.pack import Pack, open_pack
from twinray.evaluation.record import Figure
from twinray.geometry import box_iou
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.run import evaluated
from twinray.jobs.explain.run import explain_pack_images
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.options import resolve
from twinray.pretraining.run import view_makers
from twinray.records import Boxes
from twinray.report.charts.sheet import as_svg
from twinray.report.palette import ARMS, GRID, INK, MUTED, look_of
from twinray.report.pictures.panels import Panel, draw_panel, scaled
from twinray.runs.folder import RunFolder, read_config

ROOT = Path(__file__).resolve().parents[1]
README, FIGURES = ROOT / "README.md", ROOT / "docs" / "figures"
_BLOCK = re.compile(r"(?<=^```console\n).*?(?=^```$)", re.MULTILINE | re.DOTALL)
_PROGRESS = re.compile(r": \d+/\d+ images, [\d.]+/s, ")


def main() -> None:
    """Run, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=ROOT / "docs" / "_build" / "figures")
    parser.add_argument("--drawn-only", action="store_true")
    options = parser.parse_args()
    if not options.drawn_only:
        text = README.read_text("utf-8")
        shutil.rmtree(options.work, ignore_errors=True)
        options.work.mkdir(parents=True)
        README.write_text(_BLOCK.sub(lambda found: answered(found[0], options.work), text), "utf-8")
    for name, picture in draw(options.work).items():
        (FIGURES / name).write_bytes(picture)
        print(FIGURES / name)


# --- the commands -----------------------------------------------------------------------------------------------------


def commands(block: str) -> list[str]:
    """Commands of a block of a console: what follows ``$``, with the lines that a backslash joins."""
    return re.findall(r"^\$ ((?:.*\\\n)*.*)$", block, re.MULTILINE)


def answered(block: str, work: Path) -> str:
    """The same commands, each with what it printed."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "100"}
    told = ""
    for command in commands(block):
        print(f"$ {command}", flush=True)
        done = subprocess.run(
            ["bash", "-c", command], cwd=work, env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"exit status {done.returncode}: {done.stdout}{done.stderr}")
        lines = [line.rstrip().replace(f"{work}/", "") for line in done.stdout.splitlines()]
        printed = "\n".join(line for line in lines if not _PROGRESS.search(line)).strip("\n")
        told += f"$ {command}\n{printed}\n" if printed else f"$ {command}\n"
    return told


# --- the picture ------------------------------------------------------------------------------------------------------


def draw(work: Path, bootstrap: int = 1000) -> dict[str, bytes]:
    """The picture for wide and for narrow screens, from ``pack``, ``runs/pretrained``, ``runs/random``, ``runs/barlow-twins``."""
    pack = open_pack(work / "pack")
    runs = [work / "runs" / "random", work / "runs" / "barlow-twins"]
    result = evaluated(EvaluateConfig(tuple(runs), bootstrap=bootstrap))[0].result
    arms = list(result.arms.values())  # in the order of the runs
    figures = [arm.figures.figures["map50"] for arm in arms]
    difference = arms[1].difference.figures["map50"]
    views = _views(work / "runs" / "pretrained", pack)
    found = _surest(runs[1], work / "pack", pack)
    drawn = {}
    for name, size, grid in (
        ("overview.svg", (11.6, 3.3), (1, 4)),
        ("overview-narrow.svg", (4.7, 13.0), (4, 1)),
    ):
        sheet = Sheet(figsize=size)
        ratios = {"width_ratios": (2.5, 3.4, 2.5, 3.2)} if grid[0] == 1 else {}
        parts = sheet.subfigures(*grid, **ratios).flat
        _unlabelled(parts[0], pack)
        _barlow_twins(parts[1], *views)
        _explained(parts[2], *found, pack.info.box_classes)
        _intervals(parts[3], figures, difference)
        drawn[name] = bytes(as_svg(sheet))
    return drawn


def _headed(
    part: SubFigure, number: int, title: str, note: str
) -> tuple[float, float, float, float]:
    """A title, a note below, and what is left between them: left, bottom, width, height in inches."""
    part.patch.set_alpha(0)
    width, height = _inches(part)
    _text(part, 0.1, height - 0.12, f"{number}  {title}", size=10.5, weight="bold")
    _text(part, 0.1, 0.42, note, colour=MUTED)
    return 0.1, 0.52, width - 0.2, height - 0.98


def _inches(part: SubFigure) -> tuple[float, float]:
    box = part.bbox.transformed(part.figure.dpi_scale_trans.inverted())
    return float(box.width), float(box.height)


def _text(part: SubFigure, x: float, y: float, text: str, *, size: float = 9, **how: Any) -> None:
    width, height = _inches(part)
    colour = how.pop("colour", INK)
    place = {"ha": "left", "va": "top", "linespacing": 1.25} | how
    part.text(x / width, y / height, text, fontsize=size, color=colour, **place)


def _axes(part: SubFigure, left: float, bottom: float, width: float, height: float) -> Any:
    """Axes at a place in inches."""
    wide, high = _inches(part)
    return part.add_axes((left / wide, bottom / high, width / wide, height / high))


def _unlabelled(part: SubFigure, pack: Pack) -> None:
    rows = [i for i in pack.where("train") if pack.boxes(int(i)) is None]
    place = _headed(
        part,
        1,
        "Images without labels",
        f"{len(rows):,} of them to learn from;\nsynthetic chest X-rays",
    )
    left, bottom, width, height = place
    columns = 3
    side = min(width / columns, height / 3)
    left += (width - columns * side) / 2 if width > 3 else 0
    for at, row in enumerate(rows[:: max(1, len(rows) // 9)][:9]):
        axes = _axes(
            part,
            left + at % columns * side,
            bottom + height - (at // columns + 1) * side,
            side * 0.96,
            side * 0.96,
        )
        axes.imshow(pack.images[row].squeeze(), cmap="gray", vmin=0, vmax=255)
        axes.set_axis_off()


def _views(run: Path, pack: Pack) -> tuple[Any, Any, list[dict[str, Any]]]:
    """An image that the run learnt from, two views of it as training makes them, and the lines of its log."""
    kept = {k: v for k, v in read_config(run).items() if k != "job"}
    config = resolve(PretrainConfig(**{**kept, "data": (pack.path,), "out": run}))
    image = np.asarray(pack.images[int(pack.where("train")[0])])
    generator = torch.Generator().manual_seed(config.seed)
    pixels = pixels_to_unit(torch.from_numpy(image[None].copy()))
    views = [maker(pixels, generator)[0, 0].numpy() for maker in view_makers(config)]
    return image.squeeze(), views, RunFolder(run).history()


def _barlow_twins(part: SubFigure, image: Any, views: Any, lines: Sequence[Any]) -> None:
    place = _headed(
        part,
        2,
        "Barlow Twins",
        "One network sees two views of an image, and\nlearns to say the same of both.",
    )
    left, bottom, width, height = place
    side = min(0.42 * height, width / 3 - 0.08)
    pictures = ((image, "image"), (views[0], "first view"), (views[1], "second view"))
    for at, (picture, heading) in enumerate(pictures):
        axes = _axes(
            part, left + at * (width - side) / 2, bottom + height - side - 0.12, side, side
        )
        axes.imshow(picture, cmap="gray", vmin=0, vmax=255 if at == 0 else 1)
        axes.set_axis_off()
        axes.set_title(heading, fontsize=9, color=MUTED, pad=2)
    steps = [line["step"] for line in lines]
    agreement = [line["mean_c_ii"] for line in lines]
    axes = _axes(part, left + 0.3, bottom + 0.2, width - 0.4, height - side - 0.55)
    axes.plot(steps, agreement, color=ARMS[1], linewidth=2.2)
    axes.axhline(1, color=MUTED, linestyle=(0, (2, 2)), linewidth=1)
    axes.set_title("how far they agree, by step (1: wholly)", fontsize=9, color=MUTED, pad=3)
    _plain(axes, "y")
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.5, 1])


def _surest(run: Path, path: Path, pack: Pack) -> tuple[Any, ...]:
    """Of the test images, the one with the surest box that is right (IoU 0.5 or more with a true one of its class)."""
    ids = [str(pack.ids[i]) for i in pack.where("test") if pack.boxes(int(i)) is not None]
    right = []
    for one in explain_pack_images(run, path, ids, most=0, least_score=0.0):
        assert one.truth is not None and one.predictions.scores is not None
        for at in range(len(one.predictions)):
            alike = one.truth.xyxy[one.truth.labels == one.predictions.labels[at]]
            overlap = box_iou(one.predictions.xyxy[at : at + 1], alike)
            if overlap.max(initial=0.0) >= 0.5:
                right.append((float(one.predictions.scores[at]), one.id))
                break
    chosen = max(right)[1] if right else ids[0]
    (best,) = explain_pack_images(run, path, [chosen], most=1, least_score=0.0)
    top = list(best.top)
    boxes = Boxes(
        best.predictions.xyxy[top], best.predictions.labels[top], best.predictions.scores[top]
    )
    heat = best.heat_maps[0] if len(best.heat_maps) else None
    return best.image, scaled(best.truth, best.scale), scaled(boxes, best.scale), heat


def _explained(
    part: SubFigure, image: Any, truth: Boxes, box: Boxes, heat: Any, classes: Sequence[str]
) -> None:
    place = _headed(
        part,
        3,
        "A box, and why",
        "surest hit (dashed), truth (solid);\nheat: what its score is owed to",
    )
    left, bottom, width, height = place
    side = min(width, height)
    axes = _axes(part, left + (width - side) / 2, bottom + height - side, side, side)
    draw_panel(axes, Panel("", image, truth, box, heat), classes, side)
    axes.set_title("")


def _intervals(part: SubFigure, figures: Sequence[Figure], difference: Figure) -> None:
    n, ends = figures[0].n, difference.ci95
    open_ = ends is None or ends[0] <= 0 <= ends[1]
    place = _headed(
        part,
        4,
        "Compared, with intervals",
        f"mAP50, {n} test patients, 95 % intervals.\nDifference: {'not shown' if open_ else 'shown'} (it {'may be' if open_ else 'is not'} 0)",
    )
    left, bottom, width, height = place
    rows = [
        ("random", figures[0], 0),
        ("Barlow Twins", figures[1], 1),
        ("difference", difference, 2),
    ]
    axes = _axes(part, left + 0.95, bottom + 0.25, width - 1.05, height - 0.3)
    for at, (name, figure, arm) in enumerate(rows):
        look = look_of(arm, 2) if arm < 2 else None
        colour, marker = (look.colour, look.marker) if look else (INK, "D")
        if figure.ci95 is not None:
            axes.plot(figure.ci95, (-at, -at), color=colour, linewidth=2.4, solid_capstyle="butt")
        axes.plot(
            [figure.value], [-at], marker=marker, color=colour, markersize=8, linestyle="none"
        )
        sign = "+" if arm == 2 else ""
        axes.annotate(
            f"{figure.value:{sign}.3f}", (figure.value, -at), xytext=(0, 7), textcoords="offset points", ha="center", color=INK, fontsize=9,
        )  # fmt: skip
        axes.annotate(
            name, (0, -at), xycoords=("axes fraction", "data"), xytext=(-8, 0), textcoords="offset points", ha="right", va="center", color=INK, fontsize=9,
        )  # fmt: skip
    axes.axvline(0, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
    axes.axhline(-1.5, color=GRID, linewidth=0.9)
    axes.set_ylim(-2.5, 0.6)
    axes.set_yticks([])
    _plain(axes, "x")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4))


def _plain(axes: Any, grid: str) -> None:
    axes.set_facecolor("none")
    axes.grid(axis=grid, color=GRID, linewidth=0.9)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9, colors=MUTED)
    for spine in axes.spines.values():
        spine.set_visible(False)


if __name__ == "__main__":
    main()
