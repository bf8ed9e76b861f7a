"""Several collections seen as one: one numbering of images, one list of classes, ids that stay apart.

Label classes (and box classes) are the union of the collections' own, in order of first appearance. A class that
an image's collection does not know is NaN, not stated, in that image's labels. With more than one
collection, image and patient ids get the collection's name in front. Patient 7 of one hospital is
then not patient 7 of another. Collections of the same name share their patients, which can only
merge groups, never leak one. Collections that are parts of one data set share their patients
whatever their names (:func:`share_patients`). Where nobody said so but patient ids occur in
several, a note says how many.

Collections of published data sets that hold the same people (:mod:`twinray.data.identity`) share the patients and images
that their ids or a mapping tell. What nothing tells is a warning among the notes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from twinray.data.annotations import boxes_in_file
from twinray.data.decoding.options import DecodesFiles, Decoding
from twinray.data.identity import DataSet, Identity, identify, known_as
from twinray.data.splitting.record import GivenSplits
from twinray.errors import InputError
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
    form_of,
)
from twinray.words import counted


@dataclass(frozen=True, eq=False)
class Mix:
    """One or several collections.

    Attributes:
        collections: collections, at least one.
        names: a distinct name for each.
        label_classes, box_classes, task: classes and task of all.
        starts: number of the first image of each collection, and the number of all images.
        kin: data set of each collection whose people another collection holds too; None for the others.
    """

    collections: tuple[Collection, ...]
    names: tuple[str, ...]
    label_classes: tuple[str, ...]
    box_classes: tuple[str, ...]
    task: Task
    starts: tuple[int, ...]
    kin: tuple[DataSet | None, ...]

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
        kin = _kin(collections)
        _note_common_patients(collections, names, kin)
        _note_forms(collections)
        _note_kin(collections, names, kin)
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
            kin=kin,
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
        k = self.collection_of(index)
        data_set, collection = self.kin[k], self.collections[k]
        if data_set is not None and not isinstance(collection, Part):
            whose = _identity(data_set, self.sample(index)).patient
            if whose is not None:
                return f"{data_set.origin}/{whose}"
        own = self.sample(index).patient
        if not own:
            return None
        space = _patient_space(collection)
        return f"{space}/{own}" if self.several and space is not None else own

    def original(self, index: int) -> str | None:
        """What several collections call the same image, where they hold the same people and ids tell it; else None."""
        data_set = self.kin[self.collection_of(index)]
        if data_set is None:
            return None
        image = _identity(data_set, self.sample(index)).image
        return None if image is None else f"{data_set.origin}/{image}"

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
        regions = self.sample(index).regions
        return None if regions is None else self._placed(index, regions, width, height)[0]

    def _placed(
        self, index: int, boxes: Boxes | None, width: int, height: int
    ) -> tuple[Boxes | None, list[Skipped]]:
        placed, aside = boxes_in_file(self.sample(index), width, height, boxes=boxes)
        name = self.names[self.collection_of(index)]
        if self.several:
            aside = [Skipped(f"{name}: {one.where}", one.reason) for one in aside]
        if placed is None or not len(placed):
            return placed, aside
        names = self.collections[self.collection_of(index)].box_classes
        to_all = np.array([self.box_classes.index(name) for name in names], dtype=np.int64)
        return replace(placed, labels=to_all[placed.labels]), aside

    def tasks(self, start: int, end: int | None = None) -> Iterator[tuple[int, Sample]]:
        """(collection, sample) from image ``start`` to before ``end``, fit to travel to a worker process."""
        for index in range(start, len(self) if end is None else end):
            sample = self.sample(index)
            yield self.collection_of(index), sample

    def checksum(self) -> str:
        """SHA-256 of everything that the collections say of their images."""
        digest = hashlib.sha256()
        digest.update("".join(f"kin {row.key}" for row in self.kin if row is not None).encode())
        for collection in self.collections:
            said = (collection.name, collection.label_classes, collection.box_classes)
            digest.update(
                repr((*said, "shared patients") if isinstance(collection, Part) else said).encode()
            )
            if collection.by_place:
                digest.update(b"by place")
            if collection.settled:
                digest.update(b"settled")
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


def _identity(data_set: DataSet, sample: Sample) -> Identity:
    return identify(data_set, sample.id, sample.patient, sample.attributes)


def _kin(collections: Sequence[Collection]) -> tuple[DataSet | None, ...]:
    """The data set of each collection whose origin is also that of one with another name."""
    known = [
        known_as(c.name, [sample.id for sample in c.samples], c.data_set)
        if len(collections) > 1
        else None
        for c in collections
    ]
    names: dict[str, set[str]] = {}
    for row, collection in zip(known, collections, strict=True):
        if row is not None:
            names.setdefault(row.origin, set()).add(collection.name)
    return tuple(row if row and len(names[row.origin]) > 1 else None for row in known)


def _note_kin(
    collections: list[Collection], names: Sequence[str], kin: Sequence[DataSet | None]
) -> None:
    """Say of each two collections of one origin that their people are the same, and whether ids tell who is who."""
    for k, row in enumerate(kin):
        for j, other in enumerate(kin[:k]):
            if row is None or other is None or row.origin != other.origin:
                continue
            if collections[k].name == collections[j].name:
                continue
            note = _kin_note((names[j], other, collections[j]), (names[k], row, collections[k]))
            collections[k] = replace(collections[k], notes=(*collections[k].notes, note))


def _kin_note(
    first: tuple[str, DataSet, Collection], second: tuple[str, DataSet, Collection]
) -> str:
    found = [
        [_identity(data_set, sample) for sample in collection.samples]
        for _, data_set, collection in (first, second)
    ]
    facts = "; ".join(
        dict.fromkeys(row.fact for _, row, _ in (first, second) if row.key != row.origin)
    )
    same = f"{first[0]} and {second[0]} hold the same people" + (f" ({facts})" if facts else "")
    parts = [{identity.part for identity in own} for own in found]
    if all("" not in own for own in parts) and not parts[0] & parts[1]:
        return (
            f"{first[0]} and {second[0]} are of different parts of one data set, which share nobody"
        )
    unsettled = sum(not identity.settled for own in found for identity in own)
    if unsettled:
        advice = second[1].advice or first[1].advice or "leave one of the two out"
        return (
            f"WARNING: {same}, and of {counted(unsettled, 'image no id tells whose it is', 'images no id tells whose they are')}: the same person may be in several splits; "
            f"{advice}"
        )
    people = [{identity.patient for identity in own} - {None} for own in found]
    images = [{identity.image for identity in own} - {None} for own in found]
    return f"{same}: {counted(len(people[0] & people[1]), 'patient')} and {counted(len(images[0] & images[1]), 'image')} are in both, kept in one split"


def _note_forms(collections: list[Collection]) -> None:
    """Note how many patient ids differ in form only (12, 012, P12) within what counts as one hospital's."""
    spaces: dict[str | None, dict[str, set[str]]] = {}
    first: dict[str | None, int] = {}
    for k, collection in enumerate(collections):
        space = _patient_space(collection)
        first.setdefault(space, k)
        forms = spaces.setdefault(space, {})
        for patient in {sample.patient for sample in collection.samples if sample.patient}:
            form = form_of(patient)
            if form is not None:
                forms.setdefault(form[1], set()).add(patient)
    for space, forms in spaces.items():
        alike = [sorted(ids) for _, ids in sorted(forms.items()) if _one_hand(ids)]
        if alike:
            k = first[space]
            note = (
                f"{len(alike):,} patient numbers are written in several forms, such as {', '.join(alike[0][:3])}, and count as "
                "different patients; if they are one, write them alike and pack again"
            )
            collections[k] = replace(collections[k], notes=(*collections[k].notes, note))


def _one_hand(ids: set[str]) -> bool:
    """Whether two of the ids, of one number, may be one person: the same letters in front, or one without."""
    letters = [form[0] for each in ids if (form := form_of(each)) is not None]
    return len(letters) > 1 and ("" in letters or len(set(letters)) < len(letters))


def _note_common_patients(
    collections: list[Collection], names: Sequence[str], kin: Sequence[DataSet | None]
) -> None:
    """Note, at the first collection with such ids, how many patient ids occur elsewhere as other patients."""
    spaces: dict[str, set[str | None]] = {}
    own = [
        set()
        if row is not None
        else {sample.patient for sample in collection.samples if sample.patient}
        for collection, row in zip(collections, kin, strict=True)
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
        said = (
            [
                f"{counted(len(aside), 'image has no split', 'images have no split')} in {given.name}: set aside"
            ]
            if aside
            else []
        )
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
        note = f"{counted(len(lacking), 'image')} of {given.name} {'is' if len(lacking) == 1 else 'are'} not in the source, such as {lacking[0]}"
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
