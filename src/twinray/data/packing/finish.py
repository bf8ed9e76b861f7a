"""From a full journal to the files of a pack: the last steps of packing.

In this order: ``skipped.csv``, the count in the header of the images, ``splits.json``, ``samples.parquet``, the name
``images.npy``, ``pack.json``. Each can be done again after a crash, with the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import re
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from twinray.about import own_version, version_of
from twinray.data.keyed import keyed_columns, pack_key
from twinray.data.pack import IMAGES, KEYED, LINEAR, PACK, REGIONS, SAMPLES, SCHEMA, PackInfo
from twinray.data.packed_pixels import linear_columns
from twinray.data.packing.journal import Journal, Packed
from twinray.data.packing.losses import losses
from twinray.data.packing.mix import Mix
from twinray.data.packing.options import PackOptions
from twinray.data.packing.remarks import Remarks
from twinray.data.packing.scales import Scales
from twinray.data.splitting.groups import Rows, one_number
from twinray.data.splitting.record import SplitRecord
from twinray.data.splitting.settle import Fold, Settled, describe, settle, settle_given
from twinray.files import atomic_writer, clear_disk_errors, sha256, write_json
from twinray.geometry import geometry
from twinray.records import SPLITS, Boxes, Sample, Skipped

SKIPPED, SPLIT_RECORD = "skipped.csv", "splits.json"
_BATCH_ROWS = 1024
_MOST_REASONS = 50


def set_aside(mix: Mix, journal: Journal) -> Iterator[Skipped]:
    """The images that could not be packed and the boxes that could not be kept, so far, in order."""
    for entry in journal.entries():
        if entry.packed is None:
            # the reason may begin with the path on this machine; ``where`` says it for any machine
            reason = entry.reason.split(f"{mix.sample(entry.index).source}: ", 1)[-1]
            yield Skipped(mix.where(entry.index), reason)
        else:
            yield from mix.boxes(entry.index, entry.packed.width, entry.packed.height)[1]


class Finish:
    """The last steps: from a full journal to the files of a pack."""

    def __init__(
        self, mix: Mix, journal: Journal, options: PackOptions, scales: Scales, job: str
    ) -> None:
        self._mix, self._journal, self._options, self._scales, self._job = (
            mix,
            journal,
            options,
            scales,
            job,
        )
        self._counts: Counter[str] = Counter()
        self._boxes_of_class: Counter[str] = Counter()

    def write(self, out: Path) -> PackInfo:
        """Write every file; ``pack.json`` is the last."""
        mix, options, journal = self._mix, self._options, self._journal
        n_skipped, reasons = self._write_skipped(out)
        images_sha256, digests = journal.finish()
        rows, sums, squares = self._rows(digests)
        settled, record = self._settle(rows)
        with clear_disk_errors(out / SPLIT_RECORD, "the splits"):
            record.write(out / SPLIT_RECORD)
        with (
            atomic_writer(out / SAMPLES, "the table") as file,
            pq.ParquetWriter(file, self._schema) as writer,
        ):
            for batch in self._batches(settled.splits, digests):
                writer.write_table(batch)
        mean, std = self._mean_std(settled.splits, sums, squares)
        remarks = Remarks.of(mix, self._packed(), options.size)
        lost = losses(mix, (i for i, _ in self._packed()), self._boxes_of_class)
        files = [*self._linear(), *self._scales.notes(), *remarks.notes(options.exif)]
        info = PackInfo(
            names=mix.names,
            label_classes=mix.label_classes,
            box_classes=mix.box_classes,
            task=mix.task,
            size=options.size,
            channels=3 if journal.channels == 3 else 1,
            fit=options.fit,
            mean=mean,
            std=std,
            counts=self._count(rows, settled),
            skipped=n_skipped,
            skipped_reasons=reasons,
            notes=tuple(lost + settled.notes + self._own_notes() + files),
            split_method=settled.method,
            checksums={IMAGES: images_sha256, SAMPLES: sha256(out / SAMPLES)},
            created_by=f"twinray {own_version()}, Pillow {version_of('pillow')}, pyarrow {version_of('pyarrow')}",
            decoded=self._scales.decoded,
            pixels=options.pixels,
            extra=self._extra(rows, settled)
            | ({"remarks": dict(remarks.counts)} if remarks.counts else {}),
        )
        journal.close()
        journal.images_path.replace(out / IMAGES)
        write_json(out / PACK, info.as_json(), "the pack's description")
        return info

    def _linear(self) -> list[str]:
        """What the pixels of a pack of linear values are."""
        if self._options.pixels == "uint8":
            return []
        return [
            "pixels are linear uint16, not display values: each image's window_low and window_high in "
            f"{SAMPLES} become black and white, and slope x pixel + intercept is the value of its source"
        ]

    def _settle(self, rows: Rows) -> tuple[Settled, SplitRecord]:
        """The splits, and the record of them."""
        mix, options = self._mix, self._options
        if options.given is not None:
            settled = settle_given(rows, options.given)
            return settled, describe(rows, settled, mix.label_classes, {}, None)
        fold = Fold(options.fold, options.folds) if options.folds else None
        together = [k for k, collection in enumerate(mix.collections) if collection.by_place]
        whole = [k for k, collection in enumerate(mix.collections) if collection.settled]
        settled = settle(
            rows,
            mix.names,
            options.val,
            options.test_share,
            options.seed,
            fold,
            together,
            whole,
        )
        shares = {"val": options.val, "test": options.test_share}
        return settled, describe(rows, settled, mix.label_classes, shares, options.seed)

    def _packed(self) -> Iterator[tuple[int, Packed]]:
        for entry in self._journal.entries():
            if entry.packed is not None:
                yield entry.index, entry.packed

    def _aside(self) -> Iterator[Skipped]:
        for collection, name in zip(self._mix.collections, self._mix.names, strict=True):
            for skipped in collection.skipped:
                yield (
                    Skipped(f"{name}: {skipped.where}", skipped.reason)
                    if self._mix.several
                    else skipped
                )
        yield from set_aside(self._mix, self._journal)

    def _write_skipped(self, out: Path) -> tuple[int, dict[str, int]]:
        """Write ``skipped.csv``; the number of its rows, and how often each kind of reason occurs.

        A kind is shown by the first reason of it.
        """
        kinds: Counter[str] = Counter()
        shown: dict[str, str] = {}
        with atomic_writer(out / SKIPPED, "the list of what was set aside") as file:
            text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
            rows = csv.writer(text, lineterminator="\n")
            rows.writerow(("where", "reason"))
            for skipped in self._aside():
                rows.writerow((skipped.where, skipped.reason))
                kind = _kind(skipped)
                kinds[kind] += 1
                shown.setdefault(kind, skipped.reason)
            text.detach()
        ranked = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        return sum(kinds.values()), {shown[kind]: n for kind, n in ranked[:_MOST_REASONS]}

    def _rows(
        self, digests: npt.NDArray[np.uint8]
    ) -> tuple[Rows, npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """What splits depend on, and the sums and squares, (n, channels), that mean and deviation do."""
        mix, channels = self._mix, self._journal.channels
        index, sums, squares = array("q"), array("q"), array("q")
        for i, packed in self._packed():
            index.append(i)
            repeat = channels // len(packed.sums)
            sums.extend(packed.sums * repeat)
            squares.extend(packed.squares * repeat)
        total = np.frombuffer(sums, dtype=np.int64).reshape(-1, channels)
        square = np.frombuffer(squares, dtype=np.int64).reshape(-1, channels)
        keys = np.ascontiguousarray(digests).view("S32").ravel()
        twins = np.unique(keys, return_inverse=True)[1].astype(np.int64).ravel()
        if any(mix.kin):
            twins = one_number(twins, [mix.original(i) for i in index])
        rows = Rows(
            ids=[mix.id(i) for i in index],
            patients=[mix.patient(i) for i in index],
            official=[mix.sample(i).split for i in index],
            collection=np.array([mix.collection_of(i) for i in index], dtype=np.int64),
            labels=self._label_matrix(index),
            twins=twins,
            told_by_ids=any(mix.kin),
            blank=(square * self._options.size**2 == total**2).all(axis=1),
        )
        return rows, total, square

    def _label_matrix(self, index: Sequence[int]) -> npt.NDArray[np.float32] | None:
        if not self._mix.label_classes:
            return None
        matrix = np.full((len(index), len(self._mix.label_classes)), np.nan, dtype=np.float32)
        for row, i in enumerate(index):
            labels = self._mix.labels(i)
            if labels is not None:
                matrix[row] = labels
        return matrix

    @cached_property
    def _schema(self) -> pa.Schema:
        """With columns of regions only where there are any, so that other packs are the same bytes as ever."""
        any_region = any(self._mix.sample(i).regions is not None for i, _ in self._packed())
        regions = REGIONS if any_region else ()
        linear = LINEAR if self._options.pixels == "uint16" else ()
        return pa.schema([*SCHEMA, *regions, *linear, *(KEYED if self._private else ())])

    @cached_property
    def _private(self) -> list[str]:
        """Names of the sources whose ids are kept under the key."""
        if self._options.key is None:
            return []
        named = zip(self._mix.names, self._mix.collections, strict=True)
        return [name for name, collection in named if not collection.public]

    def _batches(self, splits: Sequence[str], digests: npt.NDArray[np.uint8]) -> Iterator[pa.Table]:
        rows = enumerate(self._packed())
        while batch := list(islice(rows, _BATCH_ROWS)):
            records = [
                self._record(i, p, splits[row], digests[row].tobytes().hex())
                for row, (i, p) in batch
            ]
            yield pa.Table.from_pylist(records, schema=self._schema)

    def _record(self, index: int, packed: Packed, split: str, digest: str) -> dict[str, object]:
        """One row of the table."""
        mix, sample = self._mix, self._mix.sample(index)
        place = geometry(packed.width, packed.height, self._options.size, self._options.fit)
        boxes, _ = mix.boxes(index, packed.width, packed.height)
        labels = mix.labels(index)
        if boxes is not None:
            self._counts["annotated"] += 1
            self._boxes_of_class.update(mix.box_classes[c] for c in boxes.labels.tolist())
        return {
            "id": mix.id(index),
            "patient": mix.patient(index),
            "split": split,
            "width": packed.width,
            "height": packed.height,
            "scale_x": place.scale_x,
            "scale_y": place.scale_y,
            "offset_x": place.offset_x,
            "offset_y": place.offset_y,
            "labels": None if labels is None else labels.tolist(),
            **_box_columns(boxes),
            "source": sample.source,
            "how": packed.how,
            "sha256": digest,
            "attributes": json.dumps(dict(sample.attributes), ensure_ascii=False),
            **_region_columns(mix.regions(index, packed.width, packed.height)),
            **({} if packed.linear is None else linear_columns(packed.linear)),
            **(self._keyed(index, sample) if self._private else {}),
        }

    def _keyed(self, index: int, sample: Sample) -> dict[str, str | None]:
        public = self._mix.collections[self._mix.collection_of(index)].public
        return keyed_columns(None if public else sample, self._options.key)

    def _mean_std(
        self, splits: Sequence[str], sums: npt.NDArray[np.int64], squares: npt.NDArray[np.int64]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Of the training images' pixels, on the scale 0..1; sums are whole numbers, so no order of adding matters."""
        of_train = np.array([split == "train" for split in splits])
        chosen = of_train if of_train.any() else np.ones(len(splits), dtype=bool)
        n = int(chosen.sum()) * self._options.size**2
        mean, std = [], []
        for total, square in zip(_exact(sums[chosen]), _exact(squares[chosen]), strict=True):
            mean.append(float(Fraction(total, n * 255)))
            std.append(float(Fraction(square * n - total * total, n * n * 255 * 255)) ** 0.5)
        return tuple(mean), tuple(std)

    def _count(self, rows: Rows, settled: Settled) -> dict[str, int]:
        of_split = Counter(settled.splits)
        return {
            "images": len(rows.ids),
            **{split: of_split[split] for split in SPLITS},
            "patients": len({patient for patient in rows.patients if patient}),
            "annotated": self._counts["annotated"],
            "boxes": sum(self._boxes_of_class.values()),
        }

    def _own_notes(self) -> list[str]:
        mix = self._mix
        return [
            f"{name}: {note}" if mix.several else note
            for collection, name in zip(mix.collections, mix.names, strict=True)
            for note in collection.notes
        ]

    def _split_options(self) -> dict[str, Any]:
        options = self._options
        if options.given is not None:
            return {"file": options.given.name, "sha256": options.given.sha256}
        of_fold = {"fold": options.fold, "folds": options.folds} if options.folds else {}
        return {"val": options.val, "test": options.test_share, "seed": options.seed} | of_fold

    def _key(self) -> dict[str, Any]:
        key, hidden = self._options.key, self._options.pseudonymised
        if key is None or not self._private:
            return {}
        return {"key": pack_key(self._private, key, pseudonymised=hidden)}

    def _extra(self, rows: Rows, settled: Settled) -> dict[str, Any]:
        mix = self._mix
        labels = rows.labels
        stated = {
            name: c.data_set
            for name, c in zip(mix.names, mix.collections, strict=True)
            if c.data_set
        }
        return {
            "job": self._job,
            "filter": "bicubic, reducing gap 2; averages for whole factors from 4",
            "split": self._split_options(),
            "label_counts": {}
            if labels is None
            else {c: int((labels[:, k] == 1).sum()) for k, c in enumerate(mix.label_classes)},
            **({"data_sets": stated} if stated else {}),
            **self._key(),
            "box_counts": {name: self._boxes_of_class[name] for name in mix.box_classes},
            **settled.findings,
        }


def _box_columns(boxes: Boxes | None) -> dict[str, object]:
    if boxes is None:
        return {"boxes": None, "box_classes": None, "box_readers": None, "box_n_readers": None}
    return {
        "boxes": boxes.xyxy.tolist(),
        "box_classes": boxes.labels.tolist(),
        "box_readers": None if boxes.readers is None else list(boxes.readers),
        "box_n_readers": None if boxes.n_readers is None else boxes.n_readers.tolist(),
    }


def _region_columns(regions: Boxes | None) -> dict[str, object]:
    return (
        {}
        if regions is None
        else {"regions": regions.xyxy.tolist(), "region_classes": regions.labels.tolist()}
    )


def _exact(values: npt.NDArray[np.int64]) -> list[int]:
    """Column sums as Python's unbounded integers, from halves that cannot overflow."""
    low, high = (values & 0xFFFFFFFF).sum(axis=0), (values >> 32).sum(axis=0)
    return [int(a) + (int(b) << 32) for a, b in zip(low, high, strict=True)]


def _kind(skipped: Skipped) -> str:
    """The reason without what differs from one file to the next: its name and numbers."""
    reason = skipped.reason.replace(skipped.where, "…")
    reason = re.sub(r"'[^']*'|\"[^\"]*\"", "…", reason)
    reason = re.sub(r"(?<!\w)(?:/[^\s:,;]+)+", "…", reason)
    return re.sub(r"\d+(?:\.\d+)?", "N", reason)
