"""``twinray pretrain --preview``: what the views look like and what they cost, seconds before days of training.

Barlow Twins teaches the backbone to give both views of an image the same embedding: whatever the views
change, it learns to overlook. A view that changes what the labels depend on teaches the backbone to
overlook the finding. So, where the packs have labels, each kind of view is judged by how well labels can still
be told from it. Features are those of a backbone with random weights and of the initial weights;
a ridge regression tells the labels from them, cross-validated over patients.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from twinray.backbones.build import Backbone, build_backbone
from twinray.backbones.pixels import normalise, pixels_to_levels, resize
from twinray.backbones.weights import initialise
from twinray.data.pack import Pack
from twinray.explanation.embedding import Told, linear_auc
from twinray.files import claim_folder, write_bytes, write_json
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.options import resolve
from twinray.pretraining.pairs import Partners, partners
from twinray.pretraining.run import (
    chosen_rows,
    open_packs,
    open_source,
    patient_numbers,
    view_makers,
)
from twinray.pretraining.views import ViewMaker, ViewOptions
from twinray.records import PRESENT, FloatArray, IntArray
from twinray.report.numbers import count, finite, number
from twinray.report.pictures.panels import as_png
from twinray.report.pictures.single import DISCLAIMER
from twinray.report.pictures.views import view_sheet
from twinray.report.tables import Table
from twinray.training.device import Machine, choose_machine
from twinray.training.loader import PixelSource
from twinray.training.windows import Windows, settled_windows

IMAGES, SHOWN, FEWEST = 400, 8, 10
"""Most labelled images that are judged; rows of the sheet; fewest images with and without a class."""
_BATCH = 100
_NOTHING = ViewOptions(crop_area=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0, blur=0.0, solarise=0.0)
WHOLE = "whole image"


@dataclass(frozen=True, eq=False)
class Cost:
    """How well labels can be told from one kind of view.

    Attributes:
        weights: name of the backbone's weights.
        view: name of the kind of view.
        told: by class, the cross-validated AUC with its interval over patients.
    """

    weights: str
    view: str
    told: Mapping[str, Told]

    @property
    def mean(self) -> float:
        """Mean AUC over the classes; NaN where there is none."""
        values = [told.area.value for told in self.told.values()]
        return float(np.mean(values)) if values else float("nan")


def run(config: PretrainConfig) -> tuple[Cost, ...]:
    """Write ``views.png`` and, for labelled packs, ``views.json`` into ``config.preview``, and print the table.

    Raises:
        InputError: bad options, packs or initial weights, or a folder that is not empty.
    """
    folder = config.preview
    assert folder is not None  # or the verb is training
    config = resolve(config)
    packs = open_packs(config)
    config = settled_windows(config, packs[0])
    rows = chosen_rows(packs, config)
    source = open_source(packs, rows, config)
    paired = partners(packs, rows, config.pairs, config.pair_share, config.seed)
    machine = choose_machine(config.device, config.precision).exact
    backbones = _backbones(config, machine)
    claim_folder(folder, False, "preview")
    write_bytes(folder / "views.png", _sheet(config, packs, rows, source, paired), "preview")
    console = Console()
    found = tuple(_costs(config, packs, rows, source, paired, backbones, machine))
    if found:
        write_json(folder / "views.json", {"costs": [_as_json(cost) for cost in found]})
        console.print(_table(found))
    else:
        console.print(
            f"what views cost is not measured: it takes a class with {FEWEST} images with it and {FEWEST} without",
            markup=False,
        )
    console.print(f"{folder}: views.png{' and views.json' if found else ''}", markup=False)
    console.print(f"{DISCLAIMER}.", markup=False)
    return found


def _backbones(config: PretrainConfig, machine: Machine) -> dict[str, Backbone]:
    """By name: random weights, and the initial weights where they are others."""
    names = ["random"] if config.init == "random" else ["random", config.init]
    found = {}
    for name in names:
        backbone = build_backbone(config.arch, config.seed, config.size)
        if name != "random":
            initialise(backbone, name)
        found[name] = backbone.to(machine.device).eval()
    return found


def kinds(config: PretrainConfig) -> dict[str, ViewMaker]:
    """The kinds of views of a resolved configuration: whole images, each operation alone, and the two views as they are."""
    first, second = view_makers(config)
    one = first.options
    # of linear values every kind but its own shows an image's own window
    own = None if one.windows is None else Windows()
    nothing = dataclasses.replace(_NOTHING, windows=own)
    alone = {
        WHOLE: nothing,
        f"crop alone (from {one.crop_area[0]:.0%})": dataclasses.replace(
            nothing, crop_area=one.crop_area
        ),
        "flip alone": dataclasses.replace(nothing, flip=one.flip),
        "jitter alone": dataclasses.replace(
            one, crop_area=(1.0, 1.0), flip=0.0, blur=0.0, solarise=0.0, windows=own
        ),
        "window alone": dataclasses.replace(nothing, windows=one.windows),
        "blur alone": dataclasses.replace(nothing, blur=max(config.blur)),
        "solarise alone": dataclasses.replace(nothing, solarise=max(config.solarise)),
    }
    named = {
        name: ViewMaker(config.size, options)
        for name, options in alone.items()
        if name == WHOLE or options != nothing
    }
    return {**named, "first view": first, "second view": second}


def _sheet(
    config: PretrainConfig,
    packs: Sequence[Pack],
    rows: Sequence[IntArray],
    source: PixelSource,
    paired: Partners | None,
) -> bytes:
    """PNG of images chosen by the seed, with two draws of both views each."""
    chosen = _chosen(np.arange(len(source)), SHOWN, config.seed)
    own = pixels_to_levels(source.gather(chosen))
    other = own
    if paired is not None:
        other = pixels_to_levels(source.gather(paired.drawn(0)[chosen]))
    generator = torch.Generator().manual_seed(config.seed)
    first, second = view_makers(config)
    columns = [resize(own.clamp(0, 1), config.size)]
    for _ in range(2):
        columns += [first(own, generator), second(other, generator)]
    ids = np.concatenate([pack.ids[r] for pack, r in zip(packs, rows, strict=True)])
    sheet = view_sheet(
        [[_shown(column[i]) for column in columns] for i in range(len(chosen))],
        ("image", "first view", "second view", "first again", "second again"),
        [str(ids[i]) for i in chosen],
        f"{count(len(source), 'image')} to learn from. {DISCLAIMER}.",
    )
    return as_png(sheet)


def _costs(
    config: PretrainConfig,
    packs: Sequence[Pack],
    rows: Sequence[IntArray],
    source: PixelSource,
    paired: Partners | None,
    backbones: Mapping[str, Backbone],
    machine: Machine,
) -> Iterator[Cost]:
    classes = packs[0].info.label_classes
    if not classes or any(pack.info.label_classes != classes for pack in packs):
        return
    stated = np.concatenate([pack.labels[r] for pack, r in zip(packs, rows, strict=True)])
    labels = np.where((stated == 0) | (stated == PRESENT), stated, np.nan).astype(np.float64)
    chosen = _chosen(np.flatnonzero(~np.isnan(labels).all(axis=1)), IMAGES, config.seed)
    labels = labels[chosen]
    enough = ((labels == PRESENT).sum(axis=0) >= FEWEST) & ((labels == 0).sum(axis=0) >= FEWEST)
    if len(classes) == 2 and packs[0].info.task == "multiclass":
        enough[0] = False  # the first of two exclusive classes mirrors the second
    if not enough.any():
        return
    names = [name for name, known in zip(classes, enough, strict=True) if known]
    own = patient_numbers(packs, rows)[chosen]
    groups = np.asarray(np.unique(own, return_inverse=True)[1], dtype=np.int64)
    partner = paired.drawn(0) if paired is not None else None
    for weights, backbone in backbones.items():
        for view, maker in kinds(config).items():
            print(f"{weights}: {view}, {count(len(chosen), 'image')}", file=sys.stderr)
            at = partner[chosen] if partner is not None and view == "second view" else chosen
            features = _features(backbone, source, at, maker, config.seed, machine)
            told = linear_auc(features, labels[:, enough], groups, seed=config.seed)
            yield Cost(weights, view, dict(zip(names, told, strict=True)))


@torch.inference_mode()
def _features(
    backbone: Backbone,
    source: PixelSource,
    chosen: IntArray,
    maker: ViewMaker,
    seed: int,
    machine: Machine,
) -> FloatArray:
    """(m, d) features of one view of each image."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for start in range(0, len(chosen), _BATCH):
        pixels = source.gather(chosen[start : start + _BATCH]).to(machine.device)
        views = maker(pixels_to_levels(pixels), generator)
        with machine.autocast():
            found.append(backbone(normalise(views, backbone.normalisation)).float().cpu().numpy())
    return np.concatenate(found).astype(np.float64)


def _chosen(among: IntArray, most: int, seed: int) -> IntArray:
    """At most that many of them, drawn by the seed, ascending."""
    return np.sort(np.random.default_rng([seed, 0x5EE]).permutation(among)[:most])


def _shown(image: Tensor) -> Any:
    """(c, s, s) -> (s, s) or (s, s, 3)."""
    pixels = image.clamp(0, 1).cpu().numpy()
    return pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)


def _table(found: Sequence[Cost]) -> Table:
    """Mean AUC by view and weights, and what each view takes away from the whole image."""
    whole = {cost.weights: cost.mean for cost in found if cost.view == WHOLE}
    by_view: dict[str, dict[str, Cost]] = {}
    for cost in found:
        by_view.setdefault(cost.view, {})[cost.weights] = cost
    columns = ["features of"]
    for name in whole:
        columns += [f"AUC, {Path(name).name} weights", "against whole"]
    rows = []
    for view, costs in by_view.items():
        cells = [view]
        for name, cost in costs.items():
            apart = cost.mean - whole[name]
            cells += [number(cost.mean), "" if view == WHOLE else f"{apart:+.3f}"]
        rows.append(tuple(cells))
    told = next(iter(found)).told
    n = max(one.n_positive + one.n_negative for one in told.values())
    return Table(
        "What the views leave of the labels",
        tuple(columns),
        tuple(rows),
        f"Mean over {count(len(told), 'class', 'classes')}, {count(n, 'image')}, ridge regression cross-validated over patients; "
        "by class with intervals in views.json. One draw of the views: differences within the intervals are not shown to be any.",
    )


def _as_json(cost: Cost) -> dict[str, Any]:
    return {
        "weights": cost.weights,
        "view": cost.view,
        "mean_auc": finite(cost.mean),
        "classes": {
            name: {
                "auc": finite(told.area.value),
                "ci95": None if told.area.low is None else [told.area.low, told.area.high],
                "n_positive": told.n_positive,
                "n_negative": told.n_negative,
            }
            for name, told in cost.told.items()
        },
    }
