"""Maps of the features that the arms start from, on test images, with the figures behind them: what ``twinray embed`` makes of each arm."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from twinray.about import DISCLAIMER
from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.evaluation.record import read_figure
from twinray.explanation.embedding import check_map
from twinray.files import folders_freed, make_folder
from twinray.jobs.embed.config import EmbedConfig
from twinray.jobs.embed.run import run as embed
from twinray.records import FloatArray
from twinray.report.charts.embedding import embedding_map, embedding_svg
from twinray.report.fonts import cut_in_middle
from twinray.report.numbers import count, interval, number, value_of
from twinray.report.page.document import Block, Details, Picture
from twinray.report.tables import Table
from twinray.runs.folder import read_config
from twinray.studies.report.gather import Gathered, Key

MOST_IMAGES = 500
"""Test images of a map: a seeded choice of whole patients where there are more."""
MOST_ARMS = 4
"""Arms of a task with a map; of more the first ones and the last."""
_TITLES = {"tsne": "t-SNE", "pca": "Principal components"}


def embeddings(study: Gathered, folder: Path) -> tuple[Block, ...]:
    """Of each task and arm: a map of its initial weights' features, and how well these tell the labels.

    Args:
        study: opened, or nothing is drawn.
        folder: place of what ``embed`` writes, a folder a task and arm.
    """
    blocks: list[Block] = []
    drawn: set[tuple[Any, ...]] = set()
    for key in study.measured:
        pack, task = study.shown[key], study.task(key)
        if pack is None:
            continue
        pictures: list[Block] = []
        rows: list[tuple[str, ...]] = []
        for arm, run in _arms(study, key):
            config = read_config(run)
            what = (str(pack.path), config.get("init"), config.get("arch"), config.get("size"), arm)
            if what in drawn:  # another policy of the same arm starts from the same features
                continue
            drawn.add(what)
            place = folder / task.name / f"arm-{task.arms.index(arm) + 1}"
            try:
                record = _embedded(config, pack, place)
            except InputError as error:
                rows.append((arm, f"not drawn: {error}", "", "", ""))
                continue
            rows.append((arm, *_figures(record)))
            pictures.append(_picture(task.title, arm, pack, place, key_is_detector=task.kind == "detector"))  # fmt: skip
        if rows:
            blocks.append(_table(task.title, rows))
        if pictures:
            summary = f"{task.title}: maps of the features of {count(len(pictures), 'arm')}"
            blocks.append(Details(summary, tuple(pictures)))
    return tuple(blocks)


def _arms(study: Gathered, key: Key) -> Iterator[tuple[str, Path]]:
    """An arm and the folder of its first run with all its labels."""
    task = study.task(key)
    kept = task.arms if len(task.arms) <= MOST_ARMS else (*task.arms[: MOST_ARMS - 1], task.arms[-1])  # fmt: skip
    runs = study.first_runs(key)
    yield from ((arm, runs[arm]) for arm in kept if arm in runs)


def _embedded(config: Mapping[str, Any], pack: Pack, place: Path) -> dict[str, Any]:
    """What ``embed`` says of a run's initial weights.

    Raises:
        InputError: weights that are not there any more, or too few test images.
    """
    asked = EmbedConfig(
        data=pack.path,
        out=place,
        init=str(config.get("init", "random")),
        arch=str(config.get("arch", "")),
        size=int(config.get("size") or 0),
        split="test",
        most=MOST_IMAGES,
        maps=(_map_name(),),
        page_images=0,
        bootstrap=200,
        seed=int(config.get("seed") or 0),
        device=str(config.get("device", "auto")),
        allow_edited=True,
    )
    make_folder(place.parent)
    with redirect_stdout(io.StringIO()), folders_freed():
        return embed(asked)


def _map_name() -> Any:
    try:
        check_map("tsne")
    except InputError:  # its library is not installed
        return "pca"
    return "tsne"


def _figures(record: Mapping[str, Any]) -> tuple[str, str, str, str]:
    knn, told, silhouettes = record["knn"], record["told"], record["silhouette"] or {}
    own = [read_figure(knn["auc"], "embed")] if knn and "auc" in knn else []
    near = f"{number(value_of(own[0]))} ({interval(own[0])})" if own else "no labels"
    label = told.get("label")
    linear = "no labels" if label is None else number(label["mean_auc"])
    others = [f"{name} {number(of['mean_auc'], 2)}" for name, of in told.items() if name != "label"]
    known = [one["value"] for one in silhouettes.values() if one["value"] is not None]
    clusters = number(float(np.mean(known)), 3) if known else "not defined"
    return near, linear, ", ".join(others) or "none stated", clusters


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(
        f"{title}: what the features of the initial weights tell, before any label was learnt from",
        ("arm", "k-NN, AUC (95 % interval)", "linear layer, mean AUC", "linear layer, other attributes", "silhouette"),
        tuple(rows),
        f"On at most {MOST_IMAGES} test images. What is told as well as the labels may be what the labels are told by.",
    )  # fmt: skip


def _picture(title: str, arm: str, pack: Pack, place: Path, *, key_is_detector: bool) -> Picture:
    name = _map_name()
    table = pq.read_table(place / "embedding.parquet")
    points: FloatArray = np.stack(
        [table.column(f"{name}_{axis}").to_numpy() for axis in (1, 2)], axis=1
    )
    row_of = {str(image): row for row, image in enumerate(pack.ids)}
    rows = [row_of[str(image)] for image in table.column("id").to_pylist()]
    of = [_of_boxes(pack, row) if key_is_detector else _of_labels(pack, row) for row in rows]
    groups = sorted(set(of), key=lambda group: (group in _REST, group))
    head = f"{_TITLES[name]} of the features of {cut_in_middle(arm, 40)}"
    sheet = embedding_map(
        points, of, groups, head, ("", ""), f"{len(rows):,} test images. {DISCLAIMER}."
    )
    counts = ", ".join(f"{group} {of.count(group):,}" for group in groups)
    return Picture(
        embedding_svg(sheet),
        "svg",
        f"{title}: {head}; {counts}.",
        f"{title}: {head}. Distances between clusters mean little; the figures of the table are computed on the features.",
    )


_REST = ("several", "none", "unknown")


def _of_labels(pack: Pack, row: int) -> str:
    values = pack.labels[row]
    present = np.flatnonzero(values == 1)
    if len(present) == 1:
        return pack.info.label_classes[int(present[0])]
    if len(present):
        return "several"
    return "none" if (values == 0).any() else "unknown"


def _of_boxes(pack: Pack, row: int) -> str:
    boxes = pack.boxes(row)
    if boxes is None:
        return "unknown"
    kinds = np.unique(boxes.labels)
    if len(kinds) == 1:
        return pack.info.box_classes[int(kinds[0])]
    return "several" if len(kinds) else "none"
