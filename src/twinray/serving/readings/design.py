"""The design of a reader study: read from a file once, fixed in the store before the first reading, never changed after.

The file is YAML. Its cases and their truth are one COCO file. What was fixed holds the truth by image, so figures need no file
later, and it names neither files nor patients: cases of one patient share a number.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import numpy as np
import yaml

from twinray.data.decoding.images import file_kind
from twinray.data.readers.coco import read_coco
from twinray.errors import InputError
from twinray.evaluation.boxes import FrocRule
from twinray.evaluation.readers.crossover import crossover
from twinray.files import check_regular, sha256, typed
from twinray.records import Boxes, Collection, Sample
from twinray.serving.store.people import NAME
from twinray.serving.store.store import Store
from twinray.serving.store.studies import Planned

ARMS: Final = ("without", "with")
"""Arms: without the model's boxes, which is what is compared with, and with them."""
PRACTICE: Final = 0
"""Number of the session of practice cases, which come before the first and count nowhere."""
_WHAT: Final = "reader study"


@dataclass(frozen=True)
class StudyFile:
    """What the file says.

    Attributes:
        study: name, by which the store knows it.
        cases: COCO file of the cases and their true boxes, relative to this file.
        readers: names of users who read.
        threshold: score from which the model's boxes are shown, above 0 and up to 1.
        images: folder of the image files; by default as in ``pack --format coco``.
        practice: COCO file of cases that each reader reads first and that count nowhere; None for none.
        practice_images: folder of their image files, likewise.
        seed: seed of orders and halves.
        wash_out_days: least days between a reader's last reading of the first session and the second.
        highest_rating: highest rating of a mark; the lowest is 1.
        scores: flag to show the scores of the model's boxes.
        heat_maps: flag to let readers see heat maps of the model's boxes.
        hit: IoU from which a mark hits a lesion of its class, or ``centre``: the mark's centre lies in it.
        repeats: role of a further mark on a lesion that was hit.
    """

    study: str
    cases: str
    readers: list[str]
    threshold: Annotated[float, msgspec.Meta(gt=0, le=1)]
    images: str | None = None
    practice: str | None = None
    practice_images: str | None = None
    seed: int = 0
    wash_out_days: Annotated[float, msgspec.Meta(ge=0, le=3650)] = 28.0
    highest_rating: Annotated[int, msgspec.Meta(ge=2, le=100)] = 100
    scores: bool = True
    heat_maps: bool = False
    hit: float | Literal["centre"] = 0.5
    repeats: Literal["false-positive", "ignore"] = "false-positive"


@dataclass(frozen=True)
class Case:
    """One case: image in the store, number of its patient, true boxes (x0, y0, x1, y1, class) and regions left out."""

    image: str
    patient: int
    lesions: tuple[tuple[float, float, float, float, int], ...]
    regions: tuple[tuple[float, float, float, float, int], ...] = ()

    def truth(self) -> Boxes:
        """The true boxes, with regions that count neither as found nor as missed."""
        rows = [*self.lesions, *self.regions]
        if not rows:
            return Boxes.empty()
        crowd = np.arange(len(rows)) >= len(self.lesions)
        return Boxes(
            np.array([row[:4] for row in rows], dtype=np.float64),
            np.array([row[4] for row in rows], dtype=np.int64),
            crowd=crowd if crowd.any() else None,
        )


@dataclass(frozen=True)
class Design:
    """A design as it is fixed.

    Attributes:
        file: what the file said. cases_sha256: hash of the COCO file.
        model: hash of the model whose boxes are shown. classes: class names of marks and lesions.
        cases: cases in the order of the COCO file.
        practice: ids of the practice images in the order of their COCO file. practice_sha256: hash of that file; empty where there is none.
    """

    file: StudyFile
    cases_sha256: str
    model: str
    classes: tuple[str, ...]
    cases: tuple[Case, ...] = field(default=())
    practice: tuple[str, ...] = ()
    practice_sha256: str = ""

    @property
    def rule(self) -> FrocRule:
        """What a hit is."""
        return FrocRule(self.file.hit, self.file.repeats)

    def told(self) -> dict[str, Any]:
        """As the store keeps it."""
        content: dict[str, Any] = msgspec.to_builtins(dataclasses.asdict(self))
        return content

    def fingerprint(self) -> str:
        """Hash of what must not change: all but the ids by which this store knows the images."""
        return hashlib.sha256(json.dumps(self._fixed(), sort_keys=True).encode()).hexdigest()

    def _fixed(self) -> dict[str, Any]:
        file = dataclasses.asdict(self.file)
        for place in ("cases", "images", "practice", "practice_images"):
            del file[place]  # where they lie is no part of the design, their bytes are
        practice = {"practice": self.practice_sha256} if self.practice_sha256 else {}
        return {**file, "cases": self.cases_sha256, **practice, "model": self.model}

    def changes(self, other: Design) -> list[str]:
        """Names of what differs in another design."""
        mine, theirs = self._fixed(), other._fixed()
        return [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]


def design_of(kept: Mapping[str, Any]) -> Design:
    """A design that the store kept."""
    return msgspec.convert(dict(kept), Design)


def read_study_file(path: Path) -> StudyFile:
    """Read the file.

    Raises:
        InputError: not such a file, naming the key, what was expected and what came.
    """
    check_regular(path, _WHAT)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"could not read the {_WHAT} {path}: {error.strerror}; check the path") from error  # fmt: skip
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{_WHAT} {path}{where}: expected YAML in UTF-8; mend the file") from None
    if not isinstance(content, dict):
        raise InputError(f"{_WHAT} {path}: expected keys such as study, cases, readers, threshold; see docs/reader_study.md")  # fmt: skip
    file = _typed(content, path)
    if not NAME.fullmatch(file.study):
        raise InputError(f"{_WHAT} {path}: study: expected letters, digits and . _ @ - of at most 64, got {file.study!r}")  # fmt: skip
    if not file.readers or len(set(file.readers)) < len(file.readers):
        raise InputError(f"{_WHAT} {path}: readers: expected names of users, each once, got {file.readers}")  # fmt: skip
    try:
        FrocRule(file.hit, file.repeats)
    except InputError as error:
        raise InputError(f"{_WHAT} {path}: hit: {error}") from None
    return file


def _typed(content: dict[Any, Any], path: Path) -> StudyFile:
    known = [one.name for one in dataclasses.fields(StudyFile)]
    for key in content:
        if key not in known:
            raise InputError(f"{_WHAT} {path}: the key {key!r} is not known; expected {', '.join(known)}")  # fmt: skip
    try:
        return typed(content, StudyFile, path, _WHAT)
    except InputError as error:
        raise InputError(str(error).replace("; was it edited? Restore the file", "; mend the file")) from None  # fmt: skip


def opened(path: Path, store: Store, model: str, model_classes: Sequence[str]) -> Design:
    """The design of a file, fixed in the store; a study that is there already must be the same.

    Its image files are taken into the store at the first time, where the model then answers for them.

    Args:
        path: study file.
        store: open store.
        model: hash of the model whose boxes are shown.
        model_classes: names of its classes.

    Raises:
        InputError: a file, a case or a reader that cannot be used, or a design that was changed.
    """
    file = read_study_file(path)
    cases = _coco(path, "cases", file.cases)
    practice = None if file.practice is None else _coco(path, "practice", file.practice)
    fresh = Design(
        file,
        sha256(cases),
        model,
        (),
        practice_sha256="" if practice is None else sha256(practice),
    )
    known = store.studies.get(file.study)
    if known is not None:
        kept = design_of(known.design)
        if changed := kept.changes(fresh):
            raise InputError(
                f"the study {file.study} of this store was fixed with another {', '.join(changed)}; restore the file, or give a new "
                "study a name of its own"
            )
        if known.ended is not None:
            raise InputError(f"the study {file.study} of this store was ended; give a new study a name of its own")  # fmt: skip
        return kept
    _check_readers(file, store)  # later one may have left, and what was read stays
    if others := [*store.studies.open_ones()]:
        raise InputError(
            f"the study {others[0]} of this store is not finished; finish it first, or end it: twinray store end-study --name {others[0]}"
        )
    collection = _truth(cases, path, file.images)
    if not set(collection.box_classes) & set(model_classes):
        raise InputError(
            f"{_WHAT} {path}: the model knows {', '.join(model_classes)}, none of the classes of {cases.name} "
            f"({', '.join(collection.box_classes)}): no box could be shown"
        )
    known_files: dict[str, str] = {}
    first = None
    if practice is not None:  # looked at before a file is taken: a refused study leaves none behind
        first = _truth(practice, path, file.practice_images)
        _check_practice(first, collection, path)
    taken = _taken(collection, store, known_files)
    design = dataclasses.replace(
        fresh,
        classes=tuple(collection.box_classes),
        cases=_cases(collection.samples, [image for image, _ in taken]),
        practice=() if first is None else tuple(i for i, _ in _taken(first, store, known_files)),
    )
    planned = _planned(design, [own for _, own in taken])
    begun = store.studies.begin(file.study, design.told(), design.fingerprint(), planned)
    return design_of(begun.design)


def _coco(path: Path, key: str, name: str) -> Path:
    found = path.parent / name
    if not found.is_file():
        raise InputError(f"{_WHAT} {path}: {key}: expected a COCO file, {found} is not there; correct the path")  # fmt: skip
    return found


def _check_practice(practice: Collection, cases: Collection, path: Path) -> None:
    """Refuse practice on what is counted: a reader would know the case, or the patient."""
    counted = {one.patient for one in cases.samples if one.patient is not None}
    if shared := sorted({one.id for one in practice.samples if one.patient in counted}):
        raise InputError(
            f"{_WHAT} {path}: practice: expected patients that are in no case, the image {shared[0]} is of one that is; leave it out"
        )


def _check_readers(file: StudyFile, store: Store) -> None:
    users = {user.name for user in store.people.all() if not user.disabled}
    if lacking := [name for name in file.readers if name not in users]:
        raise InputError(
            f"expected the readers of the study {file.study} to be users of the store, {', '.join(lacking)} "
            f"{'is' if len(lacking) == 1 else 'are'} none; twinray store add-user --name {lacking[0]}"
        )


def _truth(cases: Path, path: Path, images: str | None) -> Collection:
    """Cases with their true boxes; nothing is set aside, since a lesion that is not counted would change the figures."""
    root = None if images is None else path.parent / images
    found = read_coco(cases, root, strict=True, need_images=True, layout="flat")
    for one in found.samples:
        if one.boxes is None:
            raise InputError(f"{_WHAT} {path}: the image {one.id} of {cases.name} has no truth; every case needs its annotations")  # fmt: skip
    return found


def _taken(collection: Collection, store: Store, known: dict[str, str]) -> list[tuple[str, str]]:
    """Id in the store and hash of each case's file, which the store now has; ``known`` holds those of before by hash."""
    root = getattr(collection.load, "root", None)
    assert isinstance(root, Path)
    taken = []
    for sample in collection.samples:
        place = root / sample.source
        check_regular(place, "image of a reader study")
        kind = file_kind(place)
        if kind == "unknown":
            raise InputError(f"expected an image file as case {sample.id}, {place} is none; correct the file")  # fmt: skip
        with store.files.receive() as incoming:
            with place.open("rb") as source:
                while piece := source.read(1 << 20):
                    incoming.write(piece)
            kept = incoming.keep()
        if kept.sha256 in known:
            raise InputError(f"the cases {known[kept.sha256]} and {sample.id} are the same file; leave one of them out")  # fmt: skip
        known[kept.sha256] = sample.id
        # the name of a file may name a patient, and a study needs none
        image, _ = store.images.add(kept, f"case.{kind}", kind, who="server")
        taken.append((image.id, kept.sha256))
    return taken


def _cases(samples: Sequence[Sample], images: Sequence[str]) -> tuple[Case, ...]:
    numbers: dict[str, int] = {}
    made = []
    for sample, image in zip(samples, images, strict=True):
        assert sample.boxes is not None
        # an image whose patient is not known is a patient of its own
        who = f"image {image}" if sample.patient is None else f"patient {sample.patient}"
        number = numbers.setdefault(who, len(numbers))
        made.append(Case(image, number, _rows(sample.boxes), _rows(sample.regions)))
    return tuple(made)


def _rows(boxes: Boxes | None) -> tuple[tuple[float, float, float, float, int], ...]:
    if boxes is None:
        return ()
    return tuple(
        (x0, y0, x1, y1, int(label))
        for (x0, y0, x1, y1), label in zip(boxes.xyxy.tolist(), boxes.labels.tolist(), strict=True)
    )


def _planned(design: Design, hashes: Sequence[str]) -> list[Planned]:
    """All readings. The draw depends on the bytes of the files, not on the ids that this store gave them.

    Practice cases come first, in the order of their file, for all readers alike: without and with boxes in turn.
    """
    image_of = dict(zip(hashes, (case.image for case in design.cases), strict=True))
    ill = [own for own, case in zip(hashes, design.cases, strict=True) if case.lesions]
    plan = crossover(design.file.readers, hashes, ARMS, design.file.seed, with_lesions=ill)
    practice = [
        Planned(reader, PRACTICE, n + 1, image, ARMS[n % 2])
        for reader in design.file.readers
        for n, image in enumerate(design.practice)
    ]
    return practice + [
        Planned(slot.reader, slot.session, slot.position, image_of[slot.case], slot.arm)
        for slots in plan.values()
        for slot in slots
    ]
