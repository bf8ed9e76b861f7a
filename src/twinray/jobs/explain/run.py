"""``twinray explain``: a heat map for each predicted box or class, as one picture each; or several runs side by side."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast
from urllib.parse import unquote

import numpy as np
from rich.console import Console

from twinray.checks import (
    options,
)
from twinray.data.annotations import boxes_in_file, size_fault
from twinray.data.decoding.options import Decoding
from twinray.data.decoding.scale import declared
from twinray.data.pack import Pack, open_pack
from twinray.data.pseudonyms import Pseudonyms
from twinray.data.readers.formats import SourceOptions, read_annotations
from twinray.errors import InputError
from twinray.explanation.class_maps import ClassMethod
from twinray.files import frees_folders, write_bytes, write_json
from twinray.inference.class_maps import ClassExplainer
from twinray.inference.heat_maps import Explained, check_method
from twinray.inference.methods import DEFAULT_CLASS_MAPS, DEFAULT_MAP, Method
from twinray.inference.model import Model, check_classes, check_pack, load_model, prepare_row
from twinray.inference.prepared import Prepared
from twinray.jobs.called_as import CalledAs
from twinray.jobs.explain.classes import ClassChoice, draw_class_sheets, draw_classes
from twinray.jobs.explain.config import ExplainConfig, FaithfulnessConfig
from twinray.jobs.explain.contact_sheets import write_sheets
from twinray.jobs.explain.measure import run as faithfulness
from twinray.jobs.explain.rows import chosen_rows, rows_to_explain
from twinray.jobs.image_files import Found, decode, find_images
from twinray.progress import progress
from twinray.records import Boxes, Collection, Pixels, Sample, Skipped
from twinray.report.numbers import count
from twinray.report.pictures.single import as_png, box_picture, picture_name
from twinray.runs.output import Output, files_fact, open_output, pack_fact, run_fact

_Images = Iterator[tuple[list[Prepared], Boxes | None]]
"""Each image as the pack of every model would hold it, with its true boxes where known."""
_PICTURES = 4


@frees_folders
def run(config: ExplainConfig) -> list[Path]:
    """Write one PNG a box (with ``versus``: contact sheets) and ``explanations.json``.

    Returns:
        The paths of the pictures; with ``faithfulness`` of all files of that verb.

    Raises:
        InputError: bad options, or not one image that could be read.
        TwinrayError: the disk refuses a file; pictures written before stay.
    """
    _check(config)
    if config.faithfulness and config.data is not None:
        return _measure(config, config.data)
    pack = (
        open_pack(config.data, allow_edited=config.allow_edited)
        if config.data is not None
        else None
    )
    called_as = CalledAs(
        config.pseudonymise, [Path(name) for name in config.images] if pack is None else []
    )
    Pseudonyms.check_table(config.pseudonyms, config.out, exists=config.resume or config.overwrite)
    with called_as.in_refusals():
        found = (
            find_images([Path(name) for name in config.images], leave_out=config.out)
            if pack is None
            else Found((), ())
        )
    models = [
        load_model(path, config.device, allow_edited=config.allow_edited)
        for path in (config.run, *config.versus)
    ]
    if {model.kind for model in models} == {"classifier"}:
        return _explain_classifiers(config, models, pack, found, called_as)
    detectors = [
        model.detector for model in models
    ]  # mixed kinds are refused before any folder is made
    if config.classes:
        raise InputError(
            f"--classes is for classifiers, {config.run} is a detector: its boxes are chosen by --boxes"
        )
    method = config.method or DEFAULT_MAP
    for detector in detectors:
        check_method(detector, method)
    rows = (
        chosen_rows(pack, config.images, config.split, config.count or _PICTURES)
        if pack is not None
        else []
    )
    _notes(found, called_as)
    if pack is not None:
        pack.check_pixels(np.asarray(rows))
        for model in models:
            _check_fits(model, pack, pack.info.box_classes)
    else:
        with called_as.in_refusals():
            truth = _true_boxes(config.truth, models, found.files, called_as)
        _decoding(config, models)  # refused before any folder is made
    with _open(config, models, pack, found, called_as) as output:
        if output.finished:
            output.say_finished()
            return [path for path in output.files if path.suffix == ".png"]
        drawn = _Drawn.of(output, found, called_as)
        if pack is not None:
            images = _from_pack(models, pack, rows, drawn)
        else:
            images = _from_files(config, models, found.files, truth, drawn, called_as)

        def draw(shown: _Images) -> None:
            if config.versus:
                _draw_sheets(config, method, models, shown, drawn)
            else:
                _draw_boxes(config, method, models[0], shown, drawn)

        _draw(config, output, drawn, images, len(rows) + len(found.files), draw)
        _report(config, drawn)
    return drawn.pictures


def _notes(found: Found, called_as: CalledAs) -> None:
    for note in found.notes:
        Console().print(f"note: {called_as.said(note)}", soft_wrap=True, markup=False)


def _open(
    config: ExplainConfig,
    models: Sequence[Model],
    pack: Pack | None,
    found: Found,
    called_as: CalledAs,
) -> Output:
    """The folder of the pictures."""
    files = [*found.files, *([] if config.truth is None else [config.truth])]
    inputs = {
        "run": [run_fact(model.path) for model in models],
        "data": None if pack is None else pack_fact(pack.path),
        "images": [*config.images] if pack is not None else files_fact(files, called_as.key),
        "key": called_as.mark,
        "device": models[0].machine.device.type,
    }
    reads = [config.run, *config.versus, *([config.data] if config.data else [])]
    reads += [config.truth] if config.truth else []
    reads += [Path(name) for name in config.images] if pack is None else []
    return open_output(config, "explain", config.out, inputs, reads=reads)


def _draw(
    config: ExplainConfig,
    output: Output,
    drawn: _Drawn,
    images: _Images,
    total: int,
    draw: Callable[[_Images], None],
) -> None:
    """Draw what an earlier start has not, and write what the pictures show."""
    try:
        with progress("explaining", total, done=drawn.done) as meter:
            keep = None if config.versus else output.keep
            draw(_counted(images, drawn, meter.advance, keep))
    finally:  # a stop leaves the pictures drawn so far, and what they show
        if drawn.images:
            write_json(config.out / "explanations.json", drawn.records, "explanations")
    if drawn.called_as.pseudonyms is not None and config.pseudonyms is not None:
        drawn.called_as.pseudonyms.write(config.pseudonyms)


@dataclass
class _Drawn:
    """What has been drawn so far.

    Attributes:
        called_as: names of the files.
        skipped: files set aside.
        done: number of files or rows that were gone through.
        images, without: numbers of images, and of those without anything to show.
        pictures, records: paths of the pictures, and what they show.
    """

    called_as: CalledAs
    skipped: list[Skipped]
    done: int = 0
    images: int = 0
    without: int = 0
    pictures: list[Path] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    kept: tuple[int, int, int] = (0, 0, 0)

    @staticmethod
    def of(output: Output, found: Found, called_as: CalledAs) -> _Drawn:
        """What earlier starts have drawn; with none, what was set aside while looking."""
        drawn = _Drawn(called_as, [called_as.aside(item) for item in found.skipped])
        if output.progress:
            drawn.skipped = []
        with output.reading():
            for state in output.progress:
                drawn.done, drawn.images, drawn.without = map(int, state["counts"])
                drawn.pictures += [output.path / str(name) for name in state["pictures"]]
                drawn.records += [dict(record) for record in state["records"]]
                drawn.skipped += [Skipped(str(w), str(r)) for w, r in state["skipped"]]
        drawn.kept = len(drawn.pictures), len(drawn.records), len(drawn.skipped)
        return drawn

    def as_state(self) -> dict[str, Any]:
        """What is new since the last call."""
        pictures, records, skipped = self.kept
        self.kept = len(self.pictures), len(self.records), len(self.skipped)
        return {
            "counts": [self.done, self.images, self.without],
            "pictures": [path.name for path in self.pictures[pictures:]],
            "records": self.records[records:],
            "skipped": [(item.where, item.reason) for item in self.skipped[skipped:]],
        }

    @property
    def empty(self) -> int:
        """Heat maps with nothing in them."""
        return sum(bool(record.get("empty")) for record in self.records)


def _counted(
    images: _Images,
    drawn: _Drawn,
    advance: Callable[[], None],
    keep: Callable[[Any], None] | None,
) -> _Images:
    for image in images:
        drawn.images += 1
        yield image  # whoever asks for the next one has written all pictures of this one
        if keep is not None:
            keep(drawn.as_state())
        advance()


def _draw_boxes(
    config: ExplainConfig, method: Method, model: Model, images: _Images, drawn: _Drawn
) -> None:
    for (prepared,), true in images:
        explained = model.explain(
            prepared, true, method=method, most=config.boxes, least_score=config.least_score
        )
        drawn.without += not explained.top
        for path, record in write_pictures(explained, model.classes, config.out, drawn.images):
            drawn.pictures.append(path)
            drawn.records.append(record)


def _draw_sheets(
    config: ExplainConfig, method: Method, models: Sequence[Model], images: _Images, drawn: _Drawn
) -> None:
    for sheet in write_sheets(
        models,
        images,
        config.out,
        method=method,
        most=config.boxes,
        least_score=config.least_score,
    ):
        drawn.pictures.append(sheet.path)
        drawn.records += sheet.records
        drawn.without += sheet.without


def _explain_classifiers(
    config: ExplainConfig,
    models: Sequence[Model],
    pack: Pack | None,
    found: Found,
    called_as: CalledAs,
) -> list[Path]:
    """The same for classifiers: a picture, or a row of a sheet, a class."""
    explainers = [ClassExplainer(model) for model in models]
    choice = ClassChoice(config.classes, config.boxes, config.least_score)
    for model in models:
        if pack is not None:
            check_pack(model, pack)
            check_classes(model, pack.info.label_classes, pack.path)
        elif model.classes != models[0].classes:
            raise InputError(
                f"expected runs of the same classes, got {list(models[0].classes)} in {models[0].path} and "
                f"{list(model.classes)} in {model.path}"
            )
        choice.check(model.classes)
    exact, any_network = DEFAULT_CLASS_MAPS
    usable = all(one.scorer.last_map is not None for one in explainers)
    chosen = config.method or (exact if usable else any_network)
    for explainer in explainers:
        explainer.check_method(chosen)
    method = cast(ClassMethod, chosen)
    _notes(found, called_as)
    rows: list[int] = []
    truth: Mapping[Path, Sample] = {}
    box_classes: Sequence[str] = ()
    if pack is not None:
        most = config.count or _PICTURES
        rows = (
            chosen_rows(pack, config.images, config.split, most)
            if config.images
            else rows_to_explain(pack, config.split, most)
        )
        pack.check_pixels(np.asarray(rows))
        box_classes = pack.info.box_classes
    else:
        with called_as.in_refusals():
            collection = None if config.truth is None else _truth(config.truth, called_as)
            box_classes = () if collection is None else collection.box_classes
            truth = {} if collection is None else _by_file(collection, config.truth, found.files)
        _decoding(config, models)
    with _open(config, models, pack, found, called_as) as output:
        if output.finished:
            output.say_finished()
            return [path for path in output.files if path.suffix == ".png"]
        drawn = _Drawn.of(output, found, called_as)
        if pack is not None:
            images = _from_pack(models, pack, rows, drawn)
        else:
            images = _from_files(config, models, found.files, truth, drawn, called_as)

        def draw(shown: _Images) -> None:
            pictures = (
                draw_class_sheets(explainers, shown, config.out, choice, method, box_classes)
                if config.versus
                else draw_classes(
                    explainers[0],
                    shown,
                    config.out,
                    choice,
                    method,
                    box_classes,
                    first=drawn.images + 1,
                )
            )
            for one in pictures:
                drawn.pictures += [] if one.path is None else [one.path]
                drawn.records += one.records
                drawn.without += one.without

        _draw(config, output, drawn, images, len(rows) + len(found.files), draw)
        _report(config, drawn, "class")
    return drawn.pictures


def _report(config: ExplainConfig, drawn: _Drawn, what: str = "box") -> None:
    """Say what was set aside and what was drawn."""
    console, skipped = Console(), drawn.skipped
    for item in skipped:
        console.print(f"set aside: {item.where}: {item.reason}", soft_wrap=True, markup=False)
    if drawn.images == 0:
        raise InputError(
            f"none of the {len(skipped)} image files could be read; the first: {skipped[0].reason}"
        )
    pictures, images = count(len(drawn.pictures), "picture"), count(drawn.images, "image")
    aside = f", {len(skipped)} set aside" if skipped else ""
    empty = (
        f"; no {what} scored {config.least_score} or more on {drawn.without} of them"
        if drawn.without
        else ""
    )
    console.print(
        f"{pictures} of {images}{aside} in {config.out}{empty}", soft_wrap=True, markup=False
    )
    if drawn.empty:
        console.print(
            f"note: {drawn.empty} of {count(len(drawn.records), 'heat map')} are empty: by this method nothing speaks for the "
            f"{what}; compare another --method",
            soft_wrap=True,
            markup=False,
        )


def _measure(config: ExplainConfig, data: Path) -> list[Path]:
    """What ``--faithfulness`` did before it was a verb."""
    print(
        "note: explain --faithfulness is a verb of its own now, twinray faithfulness RUN --data PACK; with the next version the flag goes",
        file=sys.stderr,
    )
    shared = {name: getattr(config, name) for name in options(FaithfulnessConfig)}
    return faithfulness(FaithfulnessConfig(**{**shared, "data": data}))


def _check(config: ExplainConfig) -> None:
    if config.data is None and config.faithfulness:
        raise InputError("--faithfulness needs true boxes: give a pack with --data")
    if config.data is None and not config.images:
        raise InputError("expected image files, or a pack with --data; got neither")
    if config.versus and config.faithfulness:
        raise InputError(
            "--versus draws and --faithfulness measures; measure each run with a command of its own"
        )
    resolved = [path.resolve() for path in (config.run, *config.versus)]
    if len(set(resolved)) < len(resolved):
        raise InputError(
            f"expected every run once, got {' '.join(map(str, (config.run, *config.versus)))}"
        )


def explain_pack_images(
    run: Path,
    pack: Path,
    ids: Sequence[str],
    *,
    most: int = 3,
    least_score: float = 0.05,
    method: Method = DEFAULT_MAP,
) -> list[Explained]:
    """Boxes and heat maps of some images of a pack.

    Raises:
        InputError: not a detect run, not a pack made alike, an unknown id.
    """
    model, opened = load_model(run), open_pack(pack)
    _check_fits(model, opened, opened.info.box_classes)
    rows = chosen_rows(opened, ids, "test", len(ids))
    return [
        model.explain(prepared, true, method=method, most=most, least_score=least_score)
        for (prepared,), true in _from_pack([model], opened, rows)
    ]


def write_pictures(
    explained: Explained, classes: Sequence[str], out: Path, image_number: int
) -> Iterator[tuple[Path, dict[str, object]]]:
    """Write a picture for each heat map; yield its path and what it shows.

    ``image_number`` begins the pictures' names, so that images of one name in two folders keep their own.
    """
    boxes = explained.predictions
    assert boxes.scores is not None
    for number, (index, heat) in enumerate(
        zip(explained.top, explained.heat_maps, strict=True), start=1
    ):
        one = Boxes(
            boxes.xyxy[index : index + 1],
            boxes.labels[index : index + 1],
            boxes.scores[index : index + 1],
        )
        name = classes[int(boxes.labels[index])]
        picture = box_picture(
            explained.image,
            heat,
            classes,
            one,
            explained.truth,
            explained.scale,
            explained.definition,
        )
        path = out / picture_name(
            image_number, PurePosixPath(explained.id).name, f"box{number}", name
        )
        write_bytes(path, as_png(picture), "picture")
        yield (
            path,
            {
                "image": explained.id,
                "picture": path.name,
                "class": name,
                "score": float(boxes.scores[index]),
                "box_xyxy": [float(v) for v in boxes.xyxy[index]],
                "heat_map": explained.definition,
                "empty": not heat.any(),
            },
        )


def _decoding(config: ExplainConfig, models: Sequence[Model]) -> Decoding:
    """How files are decoded, the same for all models.

    Raises:
        InputError: the models' packs were decoded in different ways.
    """
    own = [model.decoding(declared(config.depth, config.value_range)) for model in models]
    for model, decoding in zip(models, own, strict=True):
        if decoding != own[0]:
            raise InputError(
                f"the packs of {models[0].path} and {model.path} turn files into pixels in different ways ({own[0]}; "
                f"{decoding}); give --depth or --value-range, or explain the runs one by one"
            )
    return own[0]


def _check_fits(model: Model, pack: Pack, classes: Sequence[str]) -> None:
    check_pack(model, pack)
    check_classes(model, classes, pack.path)


def _from_pack(
    models: Sequence[Model], pack: Pack, rows: Sequence[int], drawn: _Drawn | None = None
) -> _Images:
    """Images and true boxes of a pack, after those that are drawn."""
    for row in rows[drawn.done if drawn else 0 :]:
        if drawn is not None:
            drawn.done += 1
        yield [prepare_row(model, pack, row) for model in models], pack.boxes(row)


def _from_files(
    config: ExplainConfig,
    models: Sequence[Model],
    files: Sequence[Path],
    truth: Mapping[Path, Sample],
    drawn: _Drawn,
    called_as: CalledAs,
) -> _Images:
    """Images and true boxes of files, after those that are drawn."""
    decoding = _decoding(config, models)
    for file, pixels in decode(
        files[drawn.done :],
        decoding,
        workers=config.workers,
        timeout=config.timeout,
        memory=config.memory,
    ):
        drawn.done += 1
        if isinstance(pixels, Skipped):
            drawn.skipped.append(called_as.aside(pixels))
            continue
        boxes = _in_file(truth.get(file), file, pixels)
        if isinstance(boxes, str):
            drawn.skipped.append(called_as.aside(Skipped(str(file), boxes)))
        else:
            yield [model.prepare(pixels, called_as.of(file)) for model in models], boxes


def _in_file(sample: Sample | None, file: Path, pixels: Pixels) -> Boxes | str | None:
    """True boxes in pixels of the file; or why they are none of this file's: beside the findings they would mislead."""
    if sample is None:
        return None
    height, width = pixels.array.shape[:2]
    if (fault := size_fault(sample, width, height)) is not None:
        return f"{fault}; give the image that --truth was made for"
    boxes, aside = boxes_in_file(sample, width, height)
    return aside[0].reason if aside else boxes


def _truth(path: Path, called_as: CalledAs) -> Collection:
    """The COCO file; what was set aside in it is said, and so is what users must know of its boxes."""
    called_as.know((str(path), str(path.absolute()), path.name, path.absolute().parent.name))
    collection = read_annotations("coco", path, SourceOptions())
    for sample in collection.samples:
        called_as.know(
            (sample.id, sample.source, sample.patient or "", *sample.attributes.values())
        )
    for item in collection.skipped:
        print(called_as.said(f"set aside: {item.where}: {item.reason}"), file=sys.stderr)
    for note in collection.notes:
        if "duplicate" in note or note.startswith("WARNING"):
            print(called_as.said(f"note: {note}"), file=sys.stderr)
    return collection


def _true_boxes(
    path: Path | None, models: Sequence[Model], files: Sequence[Path], called_as: CalledAs
) -> Mapping[Path, Sample]:
    """True boxes of those files that the COCO file names.

    Raises:
        InputError: no COCO file, other classes, or a file name that fits two images: boxes of another image would be shown.
    """
    if path is None:
        return {}
    collection = _truth(path, called_as)
    for model in models:
        check_classes(model, collection.box_classes, path)
    return _by_file(collection, path, files)


def _by_file(
    collection: Collection, path: Path | None, files: Sequence[Path]
) -> Mapping[Path, Sample]:
    """The COCO images that the files are; a name that fits two images is refused."""
    by_name: dict[str, list[Sample]] = {}
    for sample in collection.samples:
        written = PurePosixPath(sample.source).name
        for name in dict.fromkeys((written, unquote(written))):
            by_name.setdefault(name, []).append(sample)
    owner: dict[str, Path] = {}
    for file in files:
        named = by_name.get(file.name, [])
        if len(named) > 1:
            raise InputError(
                f"{path} has {len(named)} images named {file.name} ({named[0].source}, {named[1].source}), so the true "
                f"boxes of {file} are not certain; give a file with one of them"
            )
        if named and owner.setdefault(file.name, file) != file:
            raise InputError(
                f"{owner[file.name]} and {file} are both named {file.name}, and {path} has one image of that name; "
                "explain them one by one"
            )
    return {file: by_name[file.name][0] for file in files if file.name in by_name}
