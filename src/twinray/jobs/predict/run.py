"""``twinray predict``: a finished run on files and folders."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from rich.console import Console

from twinray.data.decoding.scale import declared
from twinray.data.pseudonyms import Pseudonyms
from twinray.errors import InputError, TwinrayError
from twinray.evaluation.coco_json import truth_as_coco, write_predictions
from twinray.evaluation.thresholds import FALLBACK_SCORE, Thresholds, thresholds_from_json
from twinray.files import (
    GrowingTable,
    clear_disk_errors,
    frees_folders,
    write_bytes,
    write_json,
)
from twinray.inference.label_rule import LabelRule, label_rule
from twinray.inference.model import Model, load_model
from twinray.inference.prepared import Prepared
from twinray.jobs.called_as import CalledAs
from twinray.jobs.image_files import LeftOut, Opened, decode_with_source, find_images
from twinray.jobs.predict.config import PredictConfig
from twinray.progress import progress
from twinray.records import Boxes, FloatArray, IntArray, Skipped
from twinray.report.dicom.finding import Algorithm, Finding
from twinray.report.dicom.objects import KINDS, dicom_objects, objects_available
from twinray.report.pictures.single import DISCLAIMER, as_png, overlay, picture_name
from twinray.runs.output import Output, files_fact, open_output, run_fact
from twinray.runs.results import thresholds_on_val
from twinray.training.record import environment
from twinray.words import counted

if TYPE_CHECKING:
    from pydicom import Dataset

    from twinray.report.dicom.source import DicomSource


UIDS = ("study_uid", "series_uid", "sop_uid")
_NO_UIDS = ("", "", "")
NESTED = 0.8
"""Share of the smaller box from which two boxes of a class show one region. A choice, not from a source."""

_REMARKS = {
    "orientation": (
        "file asks to be turned (orientation tag): treated as those of the model's pack, pixels as stored unless it says otherwise",
        "files ask to be turned (orientation tag): treated as those of the model's pack, pixels as stored unless it says otherwise",
    ),
    "preview": (
        "file holds further pictures beside the one that was taken",
        "files hold further pictures beside the one that was taken",
    ),
    "clipped": (
        "file holds values outside the scale, which are black or white",
        "files hold values outside the scale, which are black or white",
    ),
    "high bits": (
        "file is a DICOM image that uses bits above Bits Stored, which were left out",
        "files are DICOM images that use bits above Bits Stored, which were left out",
    ),
    "channels": (
        "file is a TIFF with channels that it does not call alpha nor colour, which were left out",
        "files are TIFFs with channels that they do not call alpha nor colour, which were left out",
    ),
    "lateral": (
        "file is a DICOM image of a lateral or oblique view; --views frontal leaves such out",
        "files are DICOM images of lateral or oblique views; --views frontal leaves such out",
    ),
    "sop": (
        "file has the SOP instance UID of another file and other pixels: both were predicted",
        "files have the SOP instance UID of another file and other pixels: all were predicted",
    ),
    "unread": (
        "file is a DICOM image whose header holds something that could not be used",
        "files are DICOM images whose header holds something that could not be used",
    ),
}
"""What a kind of remark says of one file, and of several."""


@dataclass
class _SetAside:
    """Files set aside, listed in a table that exists only if there is one."""

    path: Path
    column: str = "reason"
    items: list[Skipped] = field(default_factory=list)
    _table: GrowingTable | None = None

    @property
    def size(self) -> int:
        """Bytes of the table; 0 where there is none."""
        return 0 if self._table is None else self._table.size

    def go_on(self, size: int) -> None:
        """Take up the first ``size`` bytes of the table that an earlier start left."""
        if not size:
            self.path.unlink(missing_ok=True)
            return
        self._table = GrowingTable(self.path, ("file", self.column), size)
        with self.path.open(encoding="utf-8", newline="") as file:
            self.items = [Skipped(*row) for row in [*csv.reader(file)][1:]]

    def add(self, item: Skipped) -> None:
        if self._table is None:
            self._table = GrowingTable(self.path, ("file", self.column))
        self._table.append([(item.where, item.reason)])
        self.items.append(item)


@dataclass(frozen=True, eq=False)
class _Shown:
    """Which boxes pictures and DICOM objects show: those that reach their class's threshold.

    Attributes:
        thresholds: (k,) by class id. words: the rule, for people. record: for ``summary.json``.
    """

    thresholds: FloatArray
    words: str
    record: dict[str, Any]

    def mask(self, boxes: Boxes) -> Any:
        """(n,) whether each box is shown."""
        assert boxes.scores is not None
        return boxes.scores >= self.thresholds[boxes.labels]


@dataclass(eq=False)
class _Job:
    """What is asked for, and what has been found so far; small things only, so that a long job stays small."""

    config: PredictConfig
    model: Model
    shown: _Shown | None
    rule: LabelRule | None
    algorithm: Algorithm
    made: datetime
    table: GrowingTable
    skipped: _SetAside
    without_objects: _SetAside
    left_out: _SetAside
    copies: _SetAside
    called_as: CalledAs
    output: Output
    first_of: dict[tuple[str, ...], str] = field(default_factory=dict)
    pixels_of: dict[str, str] = field(default_factory=dict)
    uids: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    n_nested: int = 0
    names: list[str] = field(default_factory=list)
    sizes: dict[str | int, tuple[int, int]] = field(default_factory=dict)
    boxes: dict[str | int, Boxes] = field(default_factory=dict)
    remarks: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    n_shown: int = 0
    called: list[str] = field(default_factory=list)
    n_objects: int = 0
    lacks_highdicom: bool = False
    unwritten: list[str] = field(default_factory=list)
    kept: tuple[int, int, int] = (0, 0, 0)

    @property
    def asides(self) -> dict[str, _SetAside]:
        """The tables beside that of the predictions, by name of file."""
        tables = (self.skipped, self.without_objects, self.left_out, self.copies)
        return {table.path.name: table for table in tables}


@frees_folders
def run(config: PredictConfig) -> Path:
    """Predict and write the files; return the folder.

    ``predictions.csv``, ``skipped.csv`` and ``dicom_skipped.csv`` grow with every batch; the JSON files come at the end.

    Raises:
        InputError: bad options, no image, or with ``strict`` a file that cannot be read.
        TwinrayError: the disk refuses a file; what could be written is kept.
    """
    called_as = CalledAs(config.pseudonymise, config.paths)
    with called_as.in_refusals():
        found = find_images(config.paths, leave_out=config.out)
    model = load_model(config.run, config.device, allow_edited=config.allow_edited)
    shown = _choose_shown(config, model)
    again = config.resume or config.overwrite
    Pseudonyms.check_table(config.pseudonyms, config.out, exists=again)
    rule = (
        label_rule(model.description, model.path, config.operating_point, config.score_threshold)
        if shown is None
        else None
    )
    inputs = {
        "run": run_fact(config.run),
        "images": files_fact(found.files, called_as.key),
        "key": called_as.mark,
        "device": model.machine.device.type,
        "objects": objects_available(),
    }
    reads = [config.run, *config.paths]
    with open_output(config, "predict", config.out, inputs, reads=reads) as output:
        if output.finished:
            output.say_finished()
            return config.out
        with output.reading():
            job = _begin(config, model, shown, rule, called_as, output)
            done = _go_on(job)
        job.notes += [*model.edited, *map(called_as.said, found.notes)]
        if not done:
            for item in found.skipped:
                _set_aside(job, item)
        _predict_all(job, found.files, done)
        if called_as.pseudonyms is not None and config.pseudonyms is not None:
            called_as.pseudonyms.write(config.pseudonyms)
        _finish(job)
        if not job.names and not job.skipped.items:
            raise InputError(
                f"all {len(job.left_out.items)} images are lateral or oblique views; give --views all to predict them"
            )
        if not job.names:
            raise InputError(
                f"none of the {len(job.skipped.items)} files could be read; {job.skipped.path} says why for each"
            )
    return config.out


def _begin(
    config: PredictConfig,
    model: Model,
    shown: _Shown | None,
    rule: LabelRule | None,
    called_as: CalledAs,
    output: Output,
) -> _Job:
    """The job as it begins, or as it goes on before anything of it is taken up."""
    columns = (
        (*model.classes, "called", *UIDS)
        if shown is None
        else ("class", "score", "x1", "y1", "x2", "y2", "shown", "box", "nested_in", *UIDS)
    )
    words = "" if shown is None else shown.words
    table, size = config.out / "predictions.csv", _usable(output)
    job = _Job(
        config,
        model,
        shown,
        rule,
        Algorithm(environment()["twinray"], model.description.sha256, words),
        output.started,
        GrowingTable(table, ("file", *columns), size),
        _SetAside(config.out / "skipped.csv"),
        _SetAside(config.out / "dicom_skipped.csv"),
        _SetAside(config.out / "left_out.csv"),
        _SetAside(config.out / "copies.csv", "copy_of"),
        called_as,
        output,
    )
    for name, aside in job.asides.items():
        aside.go_on(output.progress[-1]["tables"][name] if output.progress else 0)
    if config.pseudonyms is not None and called_as.pseudonyms is not None and config.resume:
        called_as.pseudonyms.go_on(config.pseudonyms)
    return job


def _usable(output: Output) -> int:
    """Keep the progress whose tables are all there; the size of the table of predictions then, 0 to begin again.

    A power cut can take the end of a table that the progress speaks of.
    """
    for n in range(len(output.progress), 0, -1):
        tables = output.progress[n - 1]["tables"]
        there = {name: (output.path / name).is_file() for name, size in tables.items() if size}
        if all(there.values()) and all(
            (output.path / name).stat().st_size >= tables[name] for name in there
        ):
            output.go_on_after(n)
            return int(tables["predictions.csv"])
    output.go_on_after(0)
    return 0


def _keep(job: _Job, n_files: int) -> None:
    """Write down what is done, after a batch: a resumed job goes on behind it, with batches of the same images."""
    if job.unwritten:
        return  # pictures are missing: --resume is to make them
    if job.called_as.pseudonyms is not None and job.config.pseudonyms is not None:
        job.called_as.pseudonyms.grow(job.config.pseudonyms)
    names, firsts, sops = job.kept
    new = job.names[names:]
    job.output.keep(
        {
            "files": n_files,
            "tables": {
                "predictions.csv": job.table.size,
                **{name: aside.size for name, aside in job.asides.items()},
            },
            "names": new,
            "called": job.called[names:],
            "boxes": [_as_lists(job, name) for name in new] if job.shown is not None else [],
            "first_of": [[*key, name] for key, name in islice(job.first_of.items(), firsts, None)],
            "pixels_of": [*islice(job.pixels_of.items(), sops, None)],
            "remarks": dict(job.remarks),
            "counts": [job.n_nested, job.n_shown, job.n_objects, int(job.lacks_highdicom)],
        }
    )
    job.kept = len(job.names), len(job.first_of), len(job.pixels_of)


def _as_lists(job: _Job, name: str) -> list[Any]:
    boxes = job.boxes[name]
    assert boxes.scores is not None
    arrays = (boxes.xyxy, boxes.labels, boxes.scores)
    return [list(job.sizes[name]), *(array.tolist() for array in arrays)]


def _go_on(job: _Job) -> int:
    """Take up what an earlier start has done; the number of files that it went through."""
    for state in job.output.progress:
        job.names += state["names"]
        job.called += state["called"]
        for name, (size, xyxy, labels, scores) in zip(
            state["names"] if job.shown is not None else [], state["boxes"], strict=True
        ):
            job.sizes[name] = (size[0], size[1])
            job.boxes[name] = Boxes(
                np.array(xyxy, dtype=np.float64).reshape(-1, 4),
                np.array(labels, dtype=np.int64),
                np.array(scores, dtype=np.float64),
            )
        job.first_of |= {tuple(key): name for *key, name in state["first_of"]}
        job.pixels_of |= dict(state["pixels_of"])
        job.remarks = Counter(state["remarks"])
        job.n_nested, job.n_shown, job.n_objects, lacks = state["counts"]
        job.lacks_highdicom = bool(lacks)
    job.kept = len(job.names), len(job.first_of), len(job.pixels_of)
    return int(job.output.progress[-1]["files"]) if job.output.progress else 0


def _choose_shown(config: PredictConfig, model: Model) -> _Shown | None:
    """The option's threshold, else the model's own, else a fixed one; None for a classifier, which has no boxes."""
    score, rate, k = config.score_threshold, config.fp_per_image, len(model.classes)
    if model.kind == "classifier":
        if rate is not None:
            raise InputError(
                f"expected no --fp-per-image: {config.run} is a classification run, without boxes"
            )
        return None
    if config.operating_point is not None:
        raise InputError(
            f"expected no --operating-point: {config.run} is a detection run; use --fp-per-image"
        )
    raw, source = model.description.thresholds, "--score-threshold"
    if score is None and rate is None and raw is None:
        score, source = FALLBACK_SCORE, "fixed: the model holds no thresholds"
    if score is not None:
        record = {"from": source, "per_class": dict.fromkeys(model.classes, score)}
        return _Shown(np.full(k, score), f"score >= {score:g} ({source})", record)
    table, source = _thresholds(config, model.classes, raw, rate)
    point = table.at(rate)
    fallback = sum(bool(one.fallback) for one in point.per_class.values())
    words = f"by class, for {point.fp_per_image:g} false positives per image on {table.n_images} validation images"
    words += f" ({fallback} of {k} classes by a fallback)" if fallback else ""
    return _Shown(
        point.thresholds(), words, {"from": source, "n_images": table.n_images, **point.as_json()}
    )


def _thresholds(
    config: PredictConfig, classes: Sequence[str], raw: Any, rate: float | None
) -> tuple[Thresholds, str]:
    """Those stored with the model; where they lack the wanted rate, worked out from what the run kept of val."""
    run = config.run
    stored = None if raw is None else thresholds_from_json(raw, classes, str(run / "model.json"))
    if rate is not None and not (stored and stored.has(rate)):
        anew = thresholds_on_val(run, classes, rate, allow_edited=config.allow_edited)
        if anew is not None:
            return anew, "the run's predictions on val"
    if stored is None:
        raise InputError(
            f"{run} holds no thresholds (trained without validation images, or by an older version); "
            "give --score-threshold in place of --fp-per-image"
        )
    return stored, "model"


_ToPredict: TypeAlias = "tuple[Prepared, DicomSource | Skipped | None, Dataset | None]"
"""An image, what objects refer to, and how it is displayed."""


def _predict_all(job: _Job, files: Sequence[Path], done: int) -> None:
    """Predict the files after the first ``done``."""
    config = job.config
    batch: list[_ToPredict] = []
    decoding = job.model.decoding(declared(config.depth, config.value_range))
    opened = decode_with_source(
        files[done:],
        decoding,
        frontal=config.views == "frontal",
        workers=config.workers,
        timeout=config.timeout,
        memory=config.memory,
    )
    with progress("predicting", len(files), done=done) as meter:
        for number, (file, image) in enumerate(opened, start=done + 1):
            name = job.called_as.of(file)
            if isinstance(image, Skipped):
                _set_aside(job, image)
            elif isinstance(image, LeftOut):
                job.left_out.add(Skipped(name, job.called_as.said(image.reason)))
            elif not _is_copy(job, name, image):
                if image.lateral:
                    job.remarks["lateral"] += 1
                job.remarks.update({kind for kind, _ in image.pixels.remarks})
                # DICOM objects must name the patient: under a key there are none
                source = image.source if job.called_as.pseudonyms is None else None
                batch.append((job.model.prepare(image.pixels, name), source, image.shown))
            if len(batch) == config.batch_size:
                _predict(job, batch)
                batch = []
                _keep(job, number)
            meter.advance()
        if batch:
            _predict(job, batch)
            _keep(job, len(files))


def _is_copy(job: _Job, name: str, image: Opened) -> bool:
    """Whether the same pixels under the same UIDs came before; the file is then listed and not predicted again."""
    uids = job.uids[name] = job.called_as.uids(image.uids)
    first = job.first_of.setdefault((image.digest, *uids), name)
    if first != name:
        job.copies.add(Skipped(name, first))
        return True
    if uids[2] and job.pixels_of.setdefault(uids[2], image.digest) != image.digest:
        job.remarks["sop"] += 1
    return False


def _set_aside(job: _Job, item: Skipped) -> None:
    item = job.called_as.aside(item)
    if job.config.strict:
        named = item.reason if item.where in item.reason else f"{item.where}: {item.reason}"
        raise InputError(f"{named}; without --strict such a file is set aside")
    job.skipped.add(item)


def _predict(job: _Job, batch: Sequence[_ToPredict]) -> None:
    """Predict a batch; its rows are on the disk before any picture is drawn."""
    images = [image for image, *_ in batch]
    if job.rule is not None:
        scores: FloatArray = job.model.labels(images)
        called = job.rule.called(scores)
        lines = zip(images, scores.tolist(), called, strict=True)
        job.table.append(
            [
                (image.id, *map(repr, row), labels, *job.uids.get(image.id, _NO_UIDS))
                for image, row, labels in lines
            ]
        )
        job.called += called
        job.names += [image.id for image in images]
        return
    assert job.shown is not None
    found = job.model.boxes(images)
    merge = job.config.nested == "merge"
    inside = [nested_in(boxes) for boxes in found]
    keeps = [
        job.shown.mask(boxes) & (within < 0 if merge else True)
        for boxes, within in zip(found, inside, strict=True)
    ]
    job.table.append(
        [
            (*row, *job.uids.get(image.id, _NO_UIDS))
            for image, *parts in zip(images, found, keeps, inside, strict=True)
            for row in _rows(image.id, job.model.classes, *parts)
        ]
    )
    for (image, source, shown), boxes, keep, within in zip(
        batch, found, keeps, inside, strict=True
    ):
        job.names.append(image.id)
        job.boxes[image.id], job.sizes[image.id] = boxes, image.place.original
        job.n_nested += int((job.shown.mask(boxes) & (within >= 0)).sum())
        best = Boxes(
            boxes.xyxy[keep],
            boxes.labels[keep],
            boxes.scores[keep] if boxes.scores is not None else None,
        )
        job.n_shown += len(best)
        _draw(job, image, source, shown, best)


def _rows(
    name: str, classes: Sequence[str], boxes: Boxes, keep: Any, within: IntArray
) -> list[Sequence[Any]]:
    """The lines of ``predictions.csv`` of one image, in original pixels; boxes are numbered from 1."""
    assert boxes.scores is not None
    columns = zip(boxes.labels, boxes.scores, np.round(boxes.xyxy, 2), keep, within, strict=True)
    return [
        (
            name,
            classes[int(i)],
            f"{score:.4f}",
            *map(float, box),
            int(best),
            number,
            int(of) + 1 if of >= 0 else "",
        )
        for number, (i, score, box, best, of) in enumerate(columns, start=1)
    ]


def nested_in(boxes: Boxes) -> IntArray:
    """Of each box the better one of its class that shares its region: that holds it, or that it holds; -1 for none.

    Two boxes share a region where their intersection is at least ``NESTED`` of the smaller one. Suppression by intersection over
    union keeps such pairs: a small box in a large one overlaps it little by that measure. Chains end at the best box.

    Args:
        boxes: with scores, best first.
    """
    found = np.full(len(boxes), -1, dtype=np.int64)
    low = np.maximum(boxes.xyxy[:, None, :2], boxes.xyxy[None, :, :2])
    high = np.minimum(boxes.xyxy[:, None, 2:], boxes.xyxy[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0.0), axis=2)
    area = np.prod(np.maximum(boxes.xyxy[:, 2:] - boxes.xyxy[:, :2], 0.0), axis=1)
    least = np.minimum(area[:, None], area[None])
    shared = (least > 0) & (both >= NESTED * least) & (boxes.labels[:, None] == boxes.labels[None])
    for i in range(1, len(boxes)):
        better = np.flatnonzero(shared[i, :i] & (found[:i] < 0))
        if len(better):
            found[i] = better[0]
    return found


def _draw(
    job: _Job,
    image: Prepared,
    source: DicomSource | Skipped | None,
    shown: Dataset | None,
    boxes: Boxes,
) -> None:
    """Overlay and DICOM objects of one image, until the disk refuses one."""
    number = len(job.names)
    stem = picture_name(number, Path(image.id).stem).removesuffix(".png")
    if job.config.overlays and not job.unwritten:
        _try(
            f"the overlays from number {number} on",
            lambda: _write_overlay(job, image, boxes, stem),
            job,
        )
    if job.config.dicom_objects and source is not None and not job.unwritten:
        _try(
            f"the DICOM objects from number {number} on",
            lambda: _write_objects(job, image, source, shown, boxes, stem),
            job,
        )


def _write_overlay(job: _Job, image: Prepared, boxes: Boxes, stem: str) -> None:
    picture = overlay(image.display, job.model.classes, boxes)
    write_bytes(_folder(job, "overlays") / f"{stem}.png", as_png(picture), "overlay")


def _write_objects(
    job: _Job,
    image: Prepared,
    source: DicomSource | Skipped,
    shown: Dataset | None,
    boxes: Boxes,
    stem: str,
) -> None:
    if not objects_available():
        job.lacks_highdicom = True
        return
    if isinstance(source, Skipped):
        job.without_objects.add(source)
        return
    try:
        built = dicom_objects(
            Finding(source, image.display, boxes, job.model.classes, job.algorithm, job.made),
            compressed=job.config.captures == "jpeg2000",
            kinds=("sc", "sr") if shown is None else KINDS,
            display=shown,
        )
    except InputError as error:
        job.without_objects.add(Skipped(image.id, str(error)))
        return
    for kind, data in built.items():
        write_bytes(_folder(job, "dicom") / f"{stem}-{kind}.dcm", data, "DICOM object")
        job.n_objects += 1


def _folder(job: _Job, name: str) -> Path:
    folder = job.config.out / name
    with clear_disk_errors(folder, "folder"):
        folder.mkdir(exist_ok=True)
    return folder


def _try(what: str, write: Callable[[], None], job: _Job) -> None:
    """Write; where the disk refuses, remember what is missing and go on: the table matters more than one file."""
    try:
        write()
    except TwinrayError as error:
        cause = error.__cause__
        job.unwritten.append(f"{what} ({cause.strerror if isinstance(cause, OSError) else error})")


def _finish(job: _Job) -> None:
    out = job.config.out
    if job.shown is not None:
        _write_boxes(job)
    _try("summary.json", lambda: write_json(out / "summary.json", _summary(job), "summary"), job)
    skipped, without = job.skipped.items, job.without_objects.items
    lines = [f"{counted(len(job.names), 'image')}, {len(skipped)} set aside; results in {out}"]
    first = {item.reason: item.where for item in reversed(skipped)}
    for reason, count in Counter(s.reason for s in skipped).most_common(5):
        lines.append(f"  set aside ({count}): {first[reason]}: {reason}")
    if job.left_out.items:
        n = len(job.left_out.items)
        lines.append(
            f"{counted(n, 'lateral or oblique view left out', 'lateral or oblique views left out')}, {job.left_out.path} names them"
        )
    if job.copies.items:
        n = len(job.copies.items)
        lines.append(
            f"{counted(n, 'copy of these images was not', 'copies of these images were not')} predicted again, {job.copies.path} names them"
        )
    lines += job.notes
    lines += [
        counted(n, *_REMARKS[kind]) for kind, n in sorted(job.remarks.items()) if kind in _REMARKS
    ]
    if job.shown is not None:
        lines.append(f"{counted(job.n_shown, 'box shown', 'boxes shown')}: {job.shown.words}")
        if job.n_nested:
            how = "not shown" if job.config.nested == "merge" else "shown too"
            lines.append(
                f"{counted(job.n_nested, 'more lies in a better one of its class', 'more lie in a better one of their class')}, or around it: {how}, marked in the table"
            )
    if job.rule is not None:
        counts = Counter(name for labels in job.called for name in labels.split("|") if name)
        told = ", ".join(f"{name} {counts[name]:,}" for name in job.rule.classes)
        lines.append(f"images by called label: {told}; {job.rule.words}")
    if job.n_objects or without:
        aside = (
            f"; {counted(len(without), 'image')} without, {job.without_objects.path} says why"
            if without
            else ""
        )
        lines.append(
            f"{counted(job.n_objects, 'DICOM object')} (Secondary Capture, Structured Report, presentation state) in {out / 'dicom'}{aside}"
        )
    if job.lacks_highdicom:
        lines.append("no DICOM objects: highdicom is not installed; pip install 'twinray[dicom]'")
    console = Console()
    for line in (*lines, DISCLAIMER):
        console.print(line, soft_wrap=True, markup=False)
    if job.unwritten:
        raise TwinrayError(
            f"could not write {' nor '.join(job.unwritten)}; {out / 'predictions.csv'} holds all "
            f"{counted(len(job.names), 'image')}: make room, then run the same command with --resume"
        )


def _decoded(job: _Job) -> dict[str, Any]:
    """How files became pixels; whether these are linear is said where they are."""
    decoding = job.model.decoding(declared(job.config.depth, job.config.value_range))
    return {k: v for k, v in asdict(decoding).items() if k != "linear" or v}


def _summary(job: _Job) -> dict[str, Any]:
    """What was run on what, and which boxes were shown."""
    summary: dict[str, Any] = {
        "note": DISCLAIMER,
        "run": str(job.config.run),
        "model_sha256": job.algorithm.model,
        "twinray": job.algorithm.version,
        "made": job.made.isoformat(timespec="seconds"),
        "images": len(job.names),
        "decoded": _decoded(job),
        "remarks": dict(job.remarks),
        "set_aside": len(job.skipped.items),
        "views": job.config.views,
        "left_out": len(job.left_out.items),
        "copies": len(job.copies.items),
        **({"edited": list(job.model.edited)} if job.model.edited else {}),
    }
    if job.rule is not None:
        summary["thresholds"] = job.rule.record
    if job.shown is not None:
        summary["boxes"] = sum(map(len, job.boxes.values()))
        summary["boxes_shown"] = job.n_shown
        summary["boxes_nested"] = {"n": job.n_nested, "how": job.config.nested}
        summary["thresholds"] = job.shown.record
        summary["dicom_objects"] = job.n_objects
        summary["dicom_images_without_objects"] = len(job.without_objects.items)
    return summary


def _write_boxes(job: _Job) -> None:
    """COCO results, and the image list that their ids point into."""
    out, classes, boxes = job.config.out, job.model.classes, job.boxes
    ids: dict[str | int, int] = {name: number for number, name in enumerate(job.names, start=1)}
    nothing: dict[str | int, Boxes] = {name: Boxes.empty() for name in job.names}
    images = truth_as_coco(
        nothing, classes, sizes=job.sizes, file_names={n: str(n) for n in nothing}, image_ids=ids
    )
    _try("images.json", lambda: write_json(out / "images.json", images, "image list"), job)
    _try(
        "predictions.json",
        lambda: write_predictions(out / "predictions.json", boxes, len(classes), ids),
        job,
    )
