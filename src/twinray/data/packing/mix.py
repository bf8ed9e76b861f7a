"""Several collections seen as one: one numbering of images, one list of classes, ids that stay apart.

Label classes (and box classes) are the union of the collections' own, in order of first appearance. A class that
an image's collection does not know is NaN, not stated, in that image's labels. With more than one
collection, image and patient ids get the collection's name in front. Patient 7 of one hospital is
then not patient 7 of another. Collections of the same name share their patients, which can only
merge groups, never leak one. Collections that are parts of one data set share their patients
whatever their names (:func:`share_patients`). Where nobody said so but patient ids occur in
several, a note says how many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from twinray.data.decoding.options import DecodesFiles, Decoding
from twinray.data.splitting.record import GivenSplits
from twinray.errors import InputError
from twinray.geometry import place_boxes, to_frame
from twinray.records import (
    UNKNOWN,
    Boxes,
    Collection,
    FloatArray,
    Part,
    Pixels,
    Sample,
    Skipped,
    Task,
)


@dataclass(frozen=True, eq=False)
class Mix:
    """One or several collections.

    Attributes:
        collections: collections, at least one.
        names: a distinct name for each.
        label_classes, box_classes, task: classes and task of all.
        starts: number of the first image of each collection, and the number of all images.
    """

    collections: tuple[Collection, ...]
    names: tuple[str, ...]
    label_classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    task: Task
    starts: tuple[int, ...]

    @staticmethod
    def of(collections: Sequence[Collection], given: GivenSplits | None = None) -> Mix:
        """Mix collections; with ``given``, images have its splits, and those that it does not name are left out.

        Raises:
            InputError: none is given, one has an image id twice, or ``given`` names none of the images.
        """
        if not collections:
            raise InputError("expected at least one source of images, got none")
        # samples that are made when asked for are made once: packing goes over them several times
        collections = [replace(c, samples=tuple(c.samples)) for c in collections]
        for collection in collections:
            if len({sample.id for sample in collection.samples}) != len(collection.samples):
                raise InputError(
                    f"{collection.name}: expected every image to have an id of its own, found one twice"
                )
        names = _distinct([collection.name for collection in collections])
        _note_common_patients(collections, names)
        if given is not None:
            collections = _with_splits(collections, names, given)
        starts = np.cumsum([0, *(len(collection.samples) for collection in collections)])
        return Mix(
            collections=tuple(collections),
            names=names,
            label_classes=tuple(
                dict.fromkeys(name for c in collections for name in c.label_classes)
            ),
            box_classes=tuple(dict.fromkeys(name for c in collections for name in c.box_classes)),
            task=_task(collections),
            starts=tuple(int(start) for start in starts),
        )

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def several(self) -> bool:
        """Whether there is more than one collection."""
        return len(self.collections) > 1

    def loaders(self, decodings: Sequence[Decoding]) -> tuple[Callable[[Sample], Pixels], ...]:
        """The function that loads pixels, for each collection, decoding files as its part of ``decodings`` says."""
        loads = (collection.load for collection in self.collections)
        return tuple(
            load.decoding_as(decoding) if isinstance(load, DecodesFiles) else load
            for load, decoding in zip(loads, decodings, strict=True)
        )

    def collection_of(self, index: int) -> int:
        """Which collection image ``index`` is of."""
        return next(k for k, end in enumerate(self.starts[1:]) if index < end)

    def sample(self, index: int) -> Sample:
        """Image ``index``, as its collection describes it."""
        k = self.collection_of(index)
        return self.collections[k].samples[index - self.starts[k]]

    def id(self, index: int) -> str:
        """The image's id in the pack."""
        own = self.sample(index).id
        return f"{self.names[self.collection_of(index)]}/{own}" if self.several else own

    def patient(self, index: int) -> str | None:
        """The image's patient in the pack."""
        own = self.sample(index).patient
        if not own:
            return None
        space = _patient_space(self.collections[self.collection_of(index)])
        return f"{space}/{own}" if self.several and space is not None else own

    def where(self, index: int) -> str:
        """What to call the image in a message."""
        source = self.sample(index).source
        return f"{self.names[self.collection_of(index)]}: {source}" if self.several else source

    def labels(self, index: int) -> FloatArray | None:
        """(k,) float32 over the classes of all; None for an image without labels."""
        own = self.sample(index).labels
        if own is None or not self.several:
            return own
        labels = np.full(len(self.label_classes), UNKNOWN, dtype=np.float32)
        classes = self.collections[self.collection_of(index)].label_classes
        labels[[self.label_classes.index(name) for name in classes]] = own
        return labels

    def boxes(self, index: int, width: int, height: int) -> tuple[Boxes | None, list[Skipped]]:
        """The image's boxes in pixels of its stored file, of ``width`` x ``height``, and those set aside.

        None where the image was never annotated, or where none of its boxes could be kept.
        """
        return self._placed(index, self.sample(index).boxes, width, height)

    def regions(self, index: int, width: int, height: int) -> Boxes | None:
        """The image's regions that evaluation leaves out, as ``boxes``; those that cannot be placed are left out."""
        return self._placed(index, self.sample(index).regions, width, height)[0]

    def _placed(
        self, index: int, boxes: Boxes | None, width: int, height: int
    ) -> tuple[Boxes | None, list[Skipped]]:
        sample = self.sample(index)
        if boxes is None or not len(boxes):
            return boxes, []
        frame = sample.boxes_frame or (width, height)
        xyxy, faults = place_boxes(boxes.xyxy, *frame)
        if sample.boxes_frame is not None:
            xyxy = to_frame(xyxy, frame, (width, height))
        aside = [
            Skipped(f"{self.where(index)} box {j}", f"{fault}; correct the box")
            for j, fault in enumerate(faults)
            if fault is not None
        ]
        keep = [j for j, fault in enumerate(faults) if fault is None]
        if not keep:
            return None, aside
        names = self.collections[self.collection_of(index)].box_classes
        to_all = np.array([self.box_classes.index(name) for name in names], dtype=np.int64)
        kept = Boxes(
            xyxy[keep],
            to_all[np.asarray(boxes.labels)[keep]],
            readers=None if boxes.readers is None else tuple(boxes.readers[j] for j in keep),
            n_readers=None if boxes.n_readers is None else boxes.n_readers[keep],
        )
        return kept, aside

    def tasks(self, start: int, end: int | None = None) -> Iterator[tuple[int, Sample]]:
        """(collection, sample) from image ``start`` to before ``end``, fit to travel to a worker process."""
        for index in range(start, len(self) if end is None else end):
            sample = self.sample(index)
            yield self.collection_of(index), sample

    def checksum(self) -> str:
        """SHA-256 of everything that the collections say of their images."""
        digest = hashlib.sha256()
        for collection in self.collections:
            said = (collection.name, collection.label_classes, collection.box_classes)
            digest.update(
                repr((*said, "shared patients") if isinstance(collection, Part) else said).encode()
            )
            for s in collection.samples:
                digest.update(
                    repr((s.id, s.source, s.patient, s.split, s.boxes_frame, s.size)).encode(
                        "utf-8", "backslashreplace"
                    )
                )
                digest.update(
                    b"-" if s.labels is None else np.asarray(s.labels, dtype=np.float32).tobytes()
                )
                if s.boxes is not None:
                    digest.update(np.asarray(s.boxes.xyxy, dtype=np.float64).tobytes())
                    digest.update(np.asarray(s.boxes.labels, dtype=np.int64).tobytes())
                if s.regions is not None:
                    digest.update(b"regions")
                    digest.update(np.asarray(s.regions.xyxy, dtype=np.float64).tobytes())
                    digest.update(np.asarray(s.regions.labels, dtype=np.int64).tobytes())
        return digest.hexdigest()


def _patient_space(collection: Collection) -> str | None:
    """Within what patient ids are distinct: the name in front of them, None for parts of one data set."""
    return None if isinstance(collection, Part) else collection.name


def _note_common_patients(collections: list[Collection], names: Sequence[str]) -> None:
    """Note, at the first collection with such ids, how many patient ids occur elsewhere as other patients."""
    spaces: dict[str, set[str | None]] = {}
    own = [
        {sample.patient for sample in collection.samples if sample.patient}
        for collection in collections
    ]
    for collection, patients in zip(collections, own, strict=True):
        for patient in patients:
            spaces.setdefault(patient, set()).add(_patient_space(collection))
    common = {patient for patient, within in spaces.items() if len(within) > 1}
    if not common:
        return
    first, *others = (k for k, patients in enumerate(own) if not common.isdisjoint(patients))
    more = ", ..." if len(others) > 3 else ""
    note = (
        f"{len(common)} patient ids occur in several sources ({', '.join(names[k] for k in others[:3])}{more} too) and "
        "were taken for different patients; if the sources are parts of one data set, they may now be in several "
        "splits: pack again with --shared-patients"
    )
    collections[first] = replace(collections[first], notes=(*collections[first].notes, note))


def _with_splits(
    collections: Sequence[Collection], names: Sequence[str], given: GivenSplits
) -> list[Collection]:
    """The images that a record of splits names, with its splits; the others are among what is set aside.

    Ids of a record that was made of several sources have the source's name in front: they count for that source alone too.
    """
    parts: list[Collection] = []
    known: set[str] = set()
    for collection, name in zip(collections, names, strict=True):
        samples, aside = [], []
        for sample in collection.samples:
            ids = (f"{name}/{sample.id}",) if len(names) > 1 else (sample.id, f"{name}/{sample.id}")
            found = next((i for i in ids if i in given.split_of), None)
            if found is None:
                aside.append(
                    Skipped(
                        sample.source,
                        f"{given.name} names no split for this image; add it to use it",
                    )
                )
            else:
                known.add(found)
                samples.append(replace(sample, split=given.split_of[found]))
        skipped = (*collection.skipped, *aside)
        said = [f"{len(aside):,} images have no split in {given.name}: set aside"] if aside else []
        parts.append(
            replace(collection, samples=samples, skipped=skipped, notes=(*collection.notes, *said))
        )
    if not known:
        first = next(
            (sample.id for collection in collections for sample in collection.samples), "none"
        )
        raise InputError(
            f"{given.name} names none of the images (it has ids such as {next(iter(given.split_of), 'none')}, the source "
            f"{first}); give the splits of the same source"
        )
    if lacking := sorted(given.split_of.keys() - known):
        note = (
            f"{len(lacking):,} images of {given.name} are not in the source, such as {lacking[0]}"
        )
        parts[0] = replace(parts[0], notes=(*parts[0].notes, note))
    return parts


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    used: list[str] = []
    for name in names:
        candidate, n = name, 2
        while candidate in used:
            candidate, n = f"{name}-{n}", n + 1
        used.append(candidate)
    return tuple(used)


def _task(collections: Sequence[Collection]) -> Task:
    """Multiclass only where every labelled collection names the same classes; a union of classes is multi-label."""
    labelled = [collection for collection in collections if collection.task != "none"]
    if not labelled:
        return "none"
    one_kind = {(c.task, frozenset(c.label_classes)) for c in labelled}
    return "multiclass" if len(one_kind) == 1 and labelled[0].task == "multiclass" else "multilabel"
