"""``twinray embed``: what the features of any weights know of a pack: maps, neighbours, clusters, and the shortcut check."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from twinray.about import DISCLAIMER
from twinray.backbones.build import Backbone, build_backbone
from twinray.backbones.weights import initialise, seen_by, settled_arch, settled_size
from twinray.classification.features.on_pack import extract_features
from twinray.data.fit import to_square
from twinray.data.pack import Pack, open_pack
from twinray.data.packed_pixels import shown
from twinray.errors import InputError
from twinray.evaluation.intervals import Resampling, group_index
from twinray.evaluation.labels.report import evaluate_labels
from twinray.evaluation.record import figure_as_json, figure_of, read_figure
from twinray.evaluation.subgroups import UNKNOWN, By, group_names, parse_by
from twinray.explanation.embedding import (
    Components,
    Told,
    check_map,
    linear_auc,
    mean_area,
    nearest,
    neighbour_votes,
    one_hot,
    principal_components,
    silhouette,
    two_dimensions,
)
from twinray.files import (
    atomic_writer,
    frees_folders,
    make_folder,
    write_bytes,
    write_json,
    write_text,
)
from twinray.jobs.called_as import CalledAs
from twinray.jobs.embed.config import EmbedConfig
from twinray.jobs.image_files import decode, find_images
from twinray.records import FloatArray, IntArray, Pixels, Skipped
from twinray.report.charts.embedding import embedding_map, embedding_svg
from twinray.report.numbers import interval, number
from twinray.report.page.embedding import Dots, embedding_page, thumbnails
from twinray.report.pictures.panels import Panel, as_png, panel_row
from twinray.report.pictures.single import picture_name
from twinray.report.tables import Table
from twinray.runs.output import open_output, pack_fact
from twinray.runs.seen import check_unseen
from twinray.training.device import Machine, choose_machine
from twinray.words import counted

_MANY = 10_000
_MOST_VALUES = 20
"""Different values up to which an attribute is one of groups."""


@dataclass(frozen=True, eq=False)
class _Known:
    """What is known of the chosen images.

    Attributes:
        rows: rows of the pack.
        patients: (n,) group numbers.
        labels: (n, k).
        by: attribute -> (group of each image, groups in order).
    """

    rows: IntArray
    patients: IntArray
    labels: FloatArray
    by: Mapping[str, tuple[list[str], tuple[str, ...]]]


@frees_folders
def run(config: EmbedConfig) -> dict[str, Any]:
    """Embed, draw and measure; print the figures.

    Returns:
        What ``embedding.json`` holds.

    Raises:
        InputError: bad options, pack, weights or queries; an attribute that no image has.
    """
    pack = open_pack(config.data, allow_edited=config.allow_edited)
    size = settled_size(config.size, config.init) or pack.info.size
    known = _choose(config, pack)
    queries, skipped = _queries(config, pack)
    for name in config.maps:
        check_map(name)
    backbone = build_backbone(settled_arch(config.arch, config.init), config.seed, size)
    provenance = initialise(backbone, config.init)
    machine = choose_machine(config.device, config.precision)
    machine = (
        machine if machine.bf16 else machine.exact
    )  # features that are kept are those of any device
    seen = seen_by(config.init)
    notes = [
        *pack.check_pixels(known.rows),
        *skipped,
        *provenance.notes,
        *check_unseen(seen, pack, {"embedded": known.rows}, weights=config.init, allow=True).notes,
    ]
    if len(known.rows) < _in_split(config, pack):
        notes.append(
            f"{len(known.rows)} of {_in_split(config, pack)} images, a seeded choice of whole patients (--most)"
        )
    inputs = {"data": pack_fact(config.data), "init": provenance.as_json()}
    reads = [config.data, *(Path(text) for text in config.query if Path(text).exists())]
    with open_output(config, "embed", config.out, inputs, reads=reads):
        features = extract_features(
            backbone,
            pack.pixels,
            known.rows,
            size=size,
            batch_size=config.batch_size,
            machine=machine,
        )
        if not np.isfinite(features).all():
            raise InputError(f"features of {config.init} are not finite; check the weights")
        _write_features(config.out, pack, known, features)
        components = principal_components(features)
        # Below some ten thousand images threads wait for each other longer than they work.
        jobs = config.workers or (os.cpu_count() or 1 if len(features) >= _MANY else 1)
        places: dict[str, FloatArray] = {
            name: two_dimensions(
                name, components, perplexity=config.perplexity, seed=config.seed, jobs=jobs
            )
            for name in config.maps
        }
        _write_places(config.out, pack, known, places)
        record: dict[str, Any] = {
            "data": str(config.data),
            "init": provenance.as_json(),
            "arch": backbone.arch,
            "size": size,
            "n_images": len(known.rows),
            "n_patients": len(np.unique(known.patients)),
            "features": backbone.features,
            "explained_by_components": components.explained.tolist(),
            **_figures(config, pack, known, features),
            "notes": notes,
        }
        colourings = {
            name: found
            for name, found in (_label_colouring(pack, known), *known.by.items())
            if found[1]
        }
        tables = _tables(record)
        _draw_maps(config, pack, known, components, places, colourings)
        record["page_images"] = _write_page(config, pack, known, places, colourings, tables, notes)
        record["queries"] = _answer(config, pack, known, features, backbone, size, machine, queries)
        write_json(config.out / "embedding.json", record, "figures")
        console = Console()
        for table in tables:
            console.print(table)
        for note in notes:
            console.print(f"note: {note}", soft_wrap=True, markup=False)
        console.print(
            f"features, maps and figures of {counted(len(known.rows), 'image in', 'images in')} {config.out}",
            soft_wrap=True,
            markup=False,
        )
        return record


def _in_split(config: EmbedConfig, pack: Pack) -> int:
    return len(pack) if config.split == "all" else len(pack.where(config.split))


def _choose(config: EmbedConfig, pack: Pack) -> _Known:
    rows = np.arange(len(pack)) if config.split == "all" else pack.where(config.split)
    if len(rows) < 3:
        raise InputError(
            f"expected 3 images or more in split {config.split} of {pack.path}, found {len(rows)}"
        )
    patients = group_index(list(pack.patients[rows]), list(pack.ids[rows]))
    if config.most and len(rows) > config.most:
        order = np.random.default_rng([config.seed, 24]).permutation(int(patients.max()) + 1)
        within = np.cumsum(np.bincount(patients)[order]) <= config.most
        kept = np.flatnonzero(np.isin(patients, order[within]))
        rows, patients = rows[kept], np.unique(patients[kept], return_inverse=True)[1]
    by: dict[str, tuple[list[str], tuple[str, ...]]] = {}
    for one in parse_by(config.by) if config.by else _usual(pack, rows):
        values = list(pack.splits) if one.attribute == "split" else pack.attribute(one.attribute)
        by[one.attribute] = group_names(one, [values[row] for row in rows])
    return _Known(rows, patients, np.asarray(pack.labels[rows], dtype=np.float64), by)


def _usual(pack: Pack, rows: IntArray) -> list[By]:
    """Split, and every attribute with a handful of values; where ages are numbers, ages by twenty years."""
    found = [By("split")] if len(set(pack.splits[rows])) > 1 else []
    for name, values in pack.attributes.items():
        stated = {str(values[row]).strip() for row in rows if values[row]} - {""}
        if 2 <= len(stated) <= _MOST_VALUES:
            found.append(By(name))
        elif len(stated) > _MOST_VALUES and name.lower() in ("age", "patient_age", "patientage"):
            found.append(By(name, (0.0, 20.0, 40.0, 60.0, 80.0)))
    return found


def _queries(config: EmbedConfig, pack: Pack) -> tuple[list[tuple[str, int | Pixels]], list[str]]:
    """Each query's name with its row in the pack, or its pixels; and what could not be read."""
    position = {str(image): row for row, image in enumerate(pack.ids)}
    found: list[tuple[str, int | Pixels]] = []
    skipped: list[str] = []
    named = [Path(text) for text in config.query if text not in position]
    called_as = CalledAs(config.pseudonymise, named)
    for text in config.query:
        if text in position:
            found.append((text, position[text]))
            continue
        with called_as.in_refusals():
            listed = find_images([Path(text)])
        aside = map(called_as.aside, listed.skipped)
        skipped += [f"set aside: {item.where}: {item.reason}" for item in aside]
        for file, pixels in decode(
            listed.files,
            pack.info.decoded.for_new_files(None, pack.info.pixels),
            workers=1,
            timeout=60,
            memory=2048,
        ):
            if isinstance(pixels, Skipped):
                item = called_as.aside(pixels)
                skipped.append(f"set aside: {item.where}: {item.reason}")
            else:
                found.append((called_as.of(file), pixels))
    if config.query and not found:
        raise InputError(
            f"none of the {len(config.query)} queries could be read; the first: {skipped[0]}"
        )
    return found, skipped


def _figures(
    config: EmbedConfig, pack: Pack, known: _Known, features: FloatArray
) -> dict[str, Any]:
    """k-NN and silhouette of the labels, and how well a linear layer tells labels and attributes."""
    result: dict[str, Any] = {"knn": None, "silhouette": None, "told": {}}
    classes, task = pack.info.label_classes, pack.info.task
    labelled = bool(classes) and bool(((known.labels == 0) | (known.labels == 1)).any())
    if labelled:
        votes = neighbour_votes(features, known.labels, known.patients, seed=config.seed)
        usable = np.isfinite(votes.scores).any(axis=1)
        if usable.any():
            rows, scores = votes.rows[usable], votes.scores[usable]
            truth = np.where(
                np.isfinite(scores), known.labels[rows], np.nan
            )  # nobody near states it: not asked
            report = evaluate_labels(
                truth, np.nan_to_num(scores), classes, task, known.patients[rows].tolist(),
                resampling=Resampling(config.bootstrap, config.seed),
            )  # fmt: skip
            shown = ("accuracy", "balanced_accuracy", "auc")
            result["knn"] = {
                "neighbours": votes.neighbours,
                "n_images": report.n_images,
                "n_in_pool": int(((known.labels == 0) | (known.labels == 1)).any(axis=1).sum()),
                **{
                    name: figure_as_json(figure_of(report.metrics[name]))
                    for name in shown
                    if name in report.metrics
                },
            }
        result["silhouette"] = _silhouettes(config, pack, known, features)
    targets: dict[str, tuple[FloatArray, tuple[str, ...]]] = {}
    if labelled:
        plain = np.where((known.labels == 0) | (known.labels == 1), known.labels, np.nan)
        targets["label"] = plain, classes
    for name, (of, groups) in known.by.items():
        told = tuple(group for group in groups if group != UNKNOWN)
        if name != "split" and len(told) >= 2:
            targets[name] = one_hot(of, told), told
    if targets:
        table = np.concatenate([values for values, _ in targets.values()], axis=1)
        areas = linear_auc(
            features,
            table,
            known.patients,
            folds=config.folds,
            bootstrap=config.bootstrap,
            seed=config.seed,
        )
        at = 0
        for name, (_, groups) in targets.items():
            own = dict(zip(groups, areas[at : at + len(groups)], strict=True))
            at += len(groups)
            result["told"][name] = _told_as_json(own)
    return result


def _told_as_json(told: Mapping[str, Told]) -> dict[str, Any]:
    mean = mean_area(told)
    return {
        "mean_auc": None if np.isnan(mean) else mean,
        "per_group": {
            name: {
                "auc": figure_as_json(figure_of(one.area)),
                "n_positive": one.n_positive,
                "n_negative": one.n_negative,
                "n_patients_positive": one.patients,
            }
            for name, one in told.items()
        },
    }


def _silhouettes(
    config: EmbedConfig, pack: Pack, known: _Known, features: FloatArray
) -> dict[str, Any]:
    """Of exclusive classes one figure, of others one a class against the rest; and of each attribute."""
    found: dict[str, Any] = {}

    def add(name: str, groups: IntArray) -> None:
        value, n = silhouette(features, groups, seed=config.seed)
        found[name] = {"value": None if np.isnan(value) else value, "n_images": n}

    labels = known.labels
    if pack.info.task == "multiclass":
        stated = (labels == 1).sum(axis=1) == 1
        add("label", np.where(stated, labels.argmax(axis=1), -1))
    else:
        for i, name in enumerate(pack.info.label_classes):
            column = labels[:, i]
            add(
                f"label {name}",
                np.where(column == 1, 1, np.where(column == 0, 0, -1)).astype(np.int64),
            )
    for attribute, (of, groups) in known.by.items():
        place = {name: i for i, name in enumerate(g for g in groups if g != UNKNOWN)}
        add(attribute, np.array([place.get(name, -1) for name in of], dtype=np.int64))
    return found


def _label_colouring(pack: Pack, known: _Known) -> tuple[str, tuple[list[str], tuple[str, ...]]]:
    """The one class of each image; ``several``, ``none`` and ``unknown`` where it has not exactly one."""
    classes = pack.info.label_classes
    if not classes:
        return "label", ([], ())
    present = known.labels == 1
    stated = ((known.labels == 0) | present).any(axis=1)
    count = present.sum(axis=1)
    first = present.argmax(axis=1)
    of = [
        UNKNOWN if not s else classes[i] if c == 1 else "several" if c else "none"
        for s, c, i in zip(stated, count, first, strict=True)
    ]
    used = set(of)
    return "label", (
        of,
        tuple(
            name for name in dict.fromkeys((*classes, "several", "none", UNKNOWN)) if name in used
        ),
    )


def _tables(record: Mapping[str, Any]) -> list[Table]:
    """The shortcut check, labels first; then neighbours and clusters."""
    told = record["told"]
    rows = []
    for name, of in told.items():
        for group, one in of["per_group"].items():
            figure = one["auc"]
            why = figure.get("note") or interval(read_figure(figure, "embed"))
            rows.append(
                (
                    f"{name}: {group}",
                    number(figure["value"]),
                    why,
                    f"{one['n_positive']:,}",
                    f"{one['n_negative']:,}",
                )
            )
    tables = []
    if rows:
        means = "; ".join(f"{name} {number(of['mean_auc'], 2)}" for name, of in told.items())
        note = (
            f"Mean by attribute: {means}. What is told as well as the label, or better, may be what the label is told by: look "
            "at the label's figures within its groups (evaluate --by)."
        )
        caption = "How well a linear layer on the features tells what (AUC over folds of patients, 95 % interval)"
        tables.append(
            Table(
                caption, ("what", "AUC", "95 % interval", "with it", "without"), tuple(rows), note
            )
        )
    knn = record["knn"]
    if knn:
        own = [
            (
                f"k-NN {name.replace('_', ' ')}",
                number(knn[name]["value"]),
                interval(read_figure(knn[name], "embed")),
                f"{knn['n_images']:,}",
            )
            for name in ("accuracy", "balanced_accuracy", "auc")
            if name in knn
        ]
        own += [
            (f"silhouette by {name}", number(one["value"]), "", f"{one['n_images']:,}")
            for name, one in (record["silhouette"] or {}).items()
        ]
        caption = f"Neighbours ({knn['neighbours']} of other patients) and clusters, by cosine"
        tables.append(Table(caption, ("figure", "value", "95 % interval", "images"), tuple(own)))
    return tables


def _draw_maps(
    config: EmbedConfig,
    pack: Pack,
    known: _Known,
    components: Components,
    places: Mapping[str, FloatArray],
    colourings: Mapping[str, tuple[Sequence[str], Sequence[str]]],
) -> None:
    """``maps/MAP-COLOUR.svg`` and ``.png``."""
    folder = config.out / "maps"
    make_folder(folder)
    share = [f"{100 * float(v):.0f} %" for v in components.explained[:2]] + ["0 %", "0 %"]
    axes = {"pca": (f"component 1 ({share[0]} of the variance)", f"component 2 ({share[1]})")}
    where = f"{counted(len(known.rows), 'image of', 'images of')} {pack.path.name}, split {config.split}; features of {config.init}"
    for name, points in places.items():
        for colour, (of, groups) in colourings.items():
            title = f"{_TITLES[name]} of the features, by {colour}"
            sheet = embedding_map(
                points, of, groups, title, axes.get(name, ("", "")), f"{where}. {DISCLAIMER}."
            )  # fmt: skip
            safe = picture_name(0, name, colour).removeprefix("000000-").removesuffix(".png")
            write_bytes(folder / f"{safe}.png", as_png(sheet), "map")
            write_bytes(folder / f"{safe}.svg", embedding_svg(sheet), "map")


_TITLES = {"pca": "Principal components", "tsne": "t-SNE", "umap": "UMAP"}


def _write_page(
    config: EmbedConfig,
    pack: Pack,
    known: _Known,
    places: Mapping[str, FloatArray],
    colourings: Mapping[str, tuple[Sequence[str], Sequence[str]]],
    tables: Sequence[Table],
    notes: Sequence[str],
) -> int:
    """Write ``embedding.html``; the number of its dots."""
    n = len(known.rows)
    if not config.page_images:
        return 0
    chosen: list[int] = list(range(n))
    if n > config.page_images:
        drawn = np.random.default_rng([config.seed, 25]).permutation(n)[: config.page_images]
        chosen = [int(i) for i in np.sort(drawn)]
    dots = Dots(
        {_TITLES[name]: points[chosen] for name, points in places.items()},
        [str(pack.ids[known.rows[i]]) for i in chosen],
        {name: ([of[i] for i in chosen], groups) for name, (of, groups) in colourings.items()},
        thumbnails(pack.shown, [int(known.rows[i]) for i in chosen]),
    )
    own = (
        [f"{len(chosen):,} of {n:,} images are shown, a seeded choice."] if len(chosen) < n else []
    )
    title = f"Features of {config.init} on {pack.path.name}"
    write_text(
        config.out / "embedding.html", embedding_page(title, dots, tables, [*own, *notes]), "page"
    )
    return len(chosen)


def _answer(
    config: EmbedConfig,
    pack: Pack,
    known: _Known,
    features: FloatArray,
    backbone: Backbone,
    size: int,
    machine: Machine,
    queries: Sequence[tuple[str, int | Pixels]],
) -> list[dict[str, Any]]:
    """A picture a query: the image, and its nearest neighbours with their similarity and label."""
    answers: list[dict[str, Any]] = []
    _, (labels, _) = _label_colouring(pack, known)
    for number_of, (name, query) in enumerate(queries, start=1):
        pixels = np.asarray(pack.pixels[query]) if isinstance(query, int) else _fitted(query, pack)
        own = extract_features(
            backbone, pixels[None], np.array([0]), size=size, batch_size=1, machine=machine
        )[0]  # fmt: skip
        without = np.flatnonzero(known.rows == query) if isinstance(query, int) else None
        rows, near = nearest(features, own, config.neighbours, without)
        panels = [Panel(Path(name).name, shown(pixels))]
        found = []
        for row, similarity in zip(map(int, rows), near.tolist(), strict=True):
            at = int(known.rows[row])
            title = f"{similarity:.3f}" + (f" {labels[row]}" if labels else "")
            panels.append(Panel(title, pack.shown(at)))
            patient = pack.patients[at]
            same = (
                isinstance(query, int) and patient is not None and patient == pack.patients[query]
            )
            found.append(
                {"id": str(pack.ids[at]), "similarity": similarity, "same_patient": bool(same)}
            )
        note = f"Nearest of {len(known.rows)} images by cosine of the features of {config.init}. {DISCLAIMER}."
        path = config.out / picture_name(number_of, "neighbours", Path(name).name)
        write_bytes(path, as_png(panel_row(panels, (), inches=2.1, note=note)), "picture")
        answers.append({"query": name, "picture": path.name, "neighbours": found})
    return answers


def _fitted(pixels: Pixels, pack: Pack) -> Any:
    """A file's pixels as networks would take them from the pack."""
    if pack.info.pixels == "uint16":
        pixels = pixels.as_linear()
    fitted = to_square(pixels.array, pack.info.size, pack.info.fit, pack.info.channels)
    return fitted if pixels.linear is None else pixels.linear.levels(fitted)


def _write_features(out: Path, pack: Pack, known: _Known, features: FloatArray) -> None:
    """``features.parquet``: id, split, features (a list of float32 of fixed length)."""
    flat = pa.array(np.ascontiguousarray(features, dtype=np.float32).ravel())
    table = pa.table(
        {
            "id": pa.array([str(pack.ids[row]) for row in known.rows]),
            "split": pa.array([str(pack.splits[row]) for row in known.rows]),
            "features": pa.FixedSizeListArray.from_arrays(flat, features.shape[1]),
        }
    )
    with atomic_writer(out / "features.parquet", "features") as file:
        pq.write_table(table, file)


def _write_places(out: Path, pack: Pack, known: _Known, places: Mapping[str, FloatArray]) -> None:
    """``embedding.parquet``: id, split, and two columns a map."""
    columns: dict[str, Any] = {
        "id": pa.array([str(pack.ids[row]) for row in known.rows]),
        "split": pa.array([str(pack.splits[row]) for row in known.rows]),
    }
    for name, points in places.items():
        columns |= {f"{name}_{axis + 1}": pa.array(points[:, axis]) for axis in (0, 1)}
    with atomic_writer(out / "embedding.parquet", "maps") as file:
        pq.write_table(pa.table(columns), file)
