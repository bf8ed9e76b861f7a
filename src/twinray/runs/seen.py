"""What training saw: a record beside a run's weights, and the guard that asks it before every evaluation.

Figures on images that the weights have met say little of new patients. A backbone that was
pre-trained on a whole archive meets its test images easily. Every run therefore leaves :data:`FILE`
beside its weights, and a run that starts from weights goes on with what these saw. An image counts
as seen where its packed pixels, its id or its patient do.

The record holds hashes only: SHA-256, the first 16 bytes. They hide ids from a reader, not from one who can guess them
(patient numbers can be counted through). Keep the file where the pack may be kept.

What is equal. Pixels are equal wherever they come from, in packs of one size and fit. Images of one
single grey value say nothing and do not count. Ids and patients are equal within a source of one
name, as a pack records it. So patient 7 of one hospital is not patient 7 of another. Sources that
were packed with shared patients count under each of their names. A patient id that occurs under
another source name only is not refused but noted.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.evaluation.record import SEEN
from twinray.files import read_json, typed, write_json
from twinray.records import IntArray

FILE = "seen.json"
MARK = SEEN
"""The entry of a split's figures that says how many of its images training had seen."""

Use = Literal["training", "selection"]
Hashes = npt.NDArray[np.bytes_]

_FORMAT = 1
_BYTES = 16
_KINDS = ("pixels", "ids", "patients", "bare_patients")


@dataclass(frozen=True, eq=False)
class Part:
    """What one run saw, for one use.

    Attributes:
        run: name of the run's folder.
        job: its verb.
        use: ``training`` (gradients came from these images) or ``selection`` (the epoch was chosen on them, as every
            run does on its val images: seen for a test, not for another such choice).
        sources: names of the sources.
        n_images, n_patients: numbers of images and patients; images of unknown patients count as
            none.
        hashes: hashes for each kind (pixels, ids, patients, bare_patients: without the source's
            name) (n,) sorted, unique.
    """

    run: str
    job: str
    use: Use
    sources: tuple[str, ...]
    n_images: int
    n_patients: int
    hashes: Mapping[str, Hashes]


_Count = Annotated[int, msgspec.Meta(ge=0)]


@dataclass(frozen=True)
class _KeptPart:
    """A part as ``seen.json`` holds it; hashes as hexadecimal text."""

    run: str
    job: str
    use: Use
    sources: tuple[str, ...]
    n_images: _Count
    n_patients: _Count
    hashes: dict[str, str]


@dataclass(frozen=True)
class _Kept:
    """What ``seen.json`` holds."""

    format: int
    own: _Count
    unknown: tuple[str, ...]
    parts: tuple[_KeptPart, ...]


@dataclass(frozen=True, eq=False)
class Seen:
    """All that some weights saw.

    Attributes:
        parts: one for each run and use, the oldest first.
        unknown: weights on the way that came without a record (a foreign file, an older run).
        own: number of the parts, the last ones, that are of the run itself and not of those that it
            started from.
    """

    parts: tuple[Part, ...] = ()
    unknown: tuple[str, ...] = ()
    own: int = 0

    @property
    def before(self) -> Seen:
        """Without the run's own part: what the weights that it started from saw."""
        return replace(self, parts=self.parts[: len(self.parts) - self.own], own=0)

    @property
    def status(self) -> str:
        """``recorded``, ``nothing`` (random or ImageNet weights), or ``unknown``."""
        return "unknown" if self.unknown else "recorded" if self.parts else "nothing"

    def plus(
        self, run: Path, job: str, images: Iterable[tuple[Pack, IntArray]], use: Use = "training"
    ) -> Seen:
        """With a further part of the run itself: the given rows of packs; as it was where there are none."""
        chosen = [(pack, np.asarray(rows, dtype=np.int64)) for pack, rows in images if len(rows)]
        if not chosen:
            return self
        keys = [_keys(pack, rows) for pack, rows in chosen]
        hashes = {
            kind: np.unique(np.concatenate([k[kind].hashes for k in keys])) for kind in _KINDS
        }
        names = tuple(dict.fromkeys(name for pack, _ in chosen for name in pack.info.names))
        patients = {
            patient if len(pack.info.names) > 1 else f"{pack.info.names[0]}/{patient}"
            for pack, rows in chosen
            for patient in pack.patients[rows].tolist()
            if patient
        }
        n_images = sum(len(rows) for _, rows in chosen)
        part = Part(run.resolve().name, job, use, names, n_images, len(patients), hashes)
        return replace(self, parts=(*self.parts, part), own=self.own + 1)


def inherited(weights: Path | None) -> Seen:
    """What the weights in a file saw, for a run that starts from them.

    Args:
        weights: a file in a run's folder or in its ``checkpoints``, or any other; None for random or ImageNet weights.

    Raises:
        InputError: a damaged record.
    """
    if weights is None:
        return Seen()
    folder = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
    if not (folder / FILE).is_file():
        return Seen(unknown=(f"{folder.resolve().name}/{weights.name}",))
    return replace(read_seen(folder), own=0)


def read_seen(run: Path) -> Seen:
    """The record of a run; one that is unknown where the folder has none.

    Raises:
        InputError: a damaged record.
    """
    path = run / FILE
    if not path.is_file():
        return Seen(unknown=(run.resolve().name,))
    what = "record of what training saw"
    raw = read_json(path, what)
    if isinstance(raw, dict) and raw.get("format", _FORMAT) != _FORMAT:
        raise InputError(
            f"{path} is not a {what} as this version writes it (format {raw['format']}); use the twinray that wrote it"
        )
    kept = typed(raw, _Kept, path, what)
    try:
        parts = tuple(
            Part(
                **{f.name: getattr(p, f.name) for f in fields(Part)}
                | {"hashes": _read_hashes(p.hashes)}
            )
            for p in kept.parts
        )
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not a {what} as this version writes it ({type(error).__name__}: {error}); "
            "copy it again from the run that made the weights"
        ) from error
    if kept.own > len(parts):
        raise InputError(
            f"{path}: expected own to be at most {len(parts)}, the number of parts, found {kept.own}; copy it again"
        )
    return Seen(parts, kept.unknown, kept.own)


def write_seen(run: Path, seen: Seen) -> None:
    """Write the record into the run's folder; the same bytes for the same images.

    Raises:
        TwinrayError: the place cannot be written.
    """
    parts = [
        {
            **asdict(replace(part, hashes={})),
            "hashes": {kind: part.hashes[kind].tobytes().hex() for kind in _KINDS},
        }
        for part in seen.parts
    ]
    content = {"format": _FORMAT, "own": seen.own, "unknown": list(seen.unknown), "parts": parts}
    write_json(run / FILE, content, "record of what training saw")


@dataclass(frozen=True)
class Checked:
    """What the guard found, where it let an evaluation go on.

    Attributes:
        marks: split -> entry for its figures, ``{"seen_in_pretraining": {"value", "ci95", "n"}}``; splits without a
            seen image have none.
        notes: facts that a reader must know.
    """

    marks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def check_unseen(
    seen: Seen, pack: Pack, splits: Mapping[str, IntArray], *, weights: str | Path, allow: bool
) -> Checked:
    """Refuse to evaluate on images that training saw, or with ``allow`` say how many they are.

    Args:
        seen: record of the weights. Images that another run chose its epoch on may choose again:
            they do not count in ``val``.
        pack: pack with the images to evaluate on.
        splits: name of a split -> rows of the pack.
        weights: name of the weights in a message.
        allow: go on and mark.

    Raises:
        InputError: ``allow`` is off and some image was seen: how many, by which run, and what to do.
    """
    found = {
        split: _find(seen, pack, np.asarray(rows, dtype=np.int64), split)
        for split, rows in splits.items()
    }
    hits = {split: overlap for split, overlap in found.items() if overlap.seen.any()}
    told = " and ".join(overlap.told(split) for split, overlap in hits.items())
    runs = ", ".join(dict.fromkeys(run for overlap in hits.values() for run in overlap.runs))
    notes = tuple(note for split, overlap in found.items() if (note := overlap.note(split, pack)))
    if hits and not allow:
        raise InputError(
            f"{told} in {pack.path} were seen in the training of {weights} (by {runs}), so figures on them would not be of new "
            "images; train without them (pretrain --splits train, on a pack whose splits keep patients apart), or go on with "
            "--allow-seen, which marks the figures"
        )
    if hits:
        notes = (f"{told} were seen in training (by {runs}): figures are not of new images", *notes)
    marks = {
        split: {MARK: {"value": int(overlap.seen.sum()), "ci95": None, "n": len(overlap.seen)}}
        for split, overlap in hits.items()
    }
    return Checked(marks, notes)


def apart_from(pack: Pack, rows: IntArray, others: Sequence[Pack]) -> IntArray:
    """The rows that share no pixels, no id and no patient with any image of ``others``.

    A patient id that stands under another source's name counts as the same patient here: to leave out too much is harmless.
    """
    everything = [(other, np.arange(len(other.ids), dtype=np.int64)) for other in others]
    found = _find(Seen().plus(pack.path, "pack", everything), pack, rows, "")
    return rows[~(found.seen | found.coincident)]


def footnote(figures: Mapping[str, Any]) -> str:
    """What to write below figures of a split as JSON holds them; empty where no image of it was seen."""
    mark = figures.get(MARK)
    return told_seen((mark["value"], mark["n"])) if mark else ""


def told_seen(seen: tuple[int, int] | None) -> str:
    """What to write below figures that include seen images, given how many, and of how many; empty where there is none."""
    return (
        f"includes {seen[0]:,} of {seen[1]:,} images that training had seen (--allow-seen)"
        if seen
        else ""
    )


@dataclass(frozen=True, eq=False)
class _Overlap:
    """Of n evaluated rows, (n,) bool: which were seen, and how; ``coincident``: the patient's id alone, elsewhere."""

    seen: npt.NDArray[np.bool_]
    by: Mapping[str, npt.NDArray[np.bool_]]
    coincident: npt.NDArray[np.bool_]
    patients: npt.NDArray[np.object_]
    runs: tuple[str, ...]
    others: tuple[str, ...]

    def told(self, split: str) -> str:
        pixels, ids, patients = (
            f"{int(self.by[kind].sum()):,}" for kind in ("pixels", "ids", "patients")
        )
        n = _distinct(self.patients[self.seen])
        return (
            f"{int(self.seen.sum()):,} of {len(self.seen):,} images of split {split} ({f'{n:,}' if n else 'unknown'} patients; same pixels "
            f"{pixels}, same id {ids}, same patient {patients})"
        )

    def note(self, split: str, pack: Pack) -> str:
        """What to tell of patient ids that two sources share by chance or not; empty where there are none."""
        alone = self.coincident & ~self.seen
        if not alone.any():
            return ""
        return (
            f"{_distinct(self.patients[alone]):,} patient ids of split {split} in {pack.path} occur in what training saw under "
            f"other source names ({', '.join(self.others)}) and were taken for other people; if the sources are of one "
            "hospital, pack them together with --shared-patients, so that the splits keep these patients apart"
        )


def _find(seen: Seen, pack: Pack, rows: IntArray, split: str) -> _Overlap:
    parts = [part for part in seen.parts if split != "val" or part.use != "selection"]
    by = {kind: np.zeros(len(rows), dtype=bool) for kind in _KINDS}
    keys = _keys(pack, rows) if parts and len(rows) else {}
    runs: list[str] = []
    others: list[str] = []
    for part in parts if keys else ():
        hit = {kind: keys[kind].rows_in(part.hashes[kind], len(rows)) for kind in _KINDS}
        for i in np.flatnonzero(hit["pixels"]):
            hit["pixels"][i] = not _blank(pack.images[rows[i]])
        if hit["pixels"].any() or hit["ids"].any() or hit["patients"].any():
            runs.append(f"the {part.job} run {part.run}")
        if (hit["bare_patients"] & ~hit["patients"]).any():
            others += part.sources
        for kind in _KINDS:
            by[kind] |= hit[kind]
    return _Overlap(
        seen=by["pixels"] | by["ids"] | by["patients"],
        by=by,
        coincident=by["bare_patients"],
        patients=pack.patients[rows],
        runs=tuple(dict.fromkeys(runs)),
        others=tuple(dict.fromkeys(others)),
    )


@dataclass(frozen=True, eq=False)
class _Keys:
    """Hashes, and for each the position of its image among the rows asked for; a row can have none or several."""

    hashes: Hashes
    positions: IntArray

    @staticmethod
    def of(pairs: Sequence[tuple[bytes, int]]) -> _Keys:
        return _Keys(
            _hashes(b"".join(key for key, _ in pairs)),
            np.array([at for _, at in pairs], dtype=np.int64),
        )

    def rows_in(self, known: Hashes, n: int) -> npt.NDArray[np.bool_]:
        rows = np.zeros(n, dtype=bool)
        rows[self.positions[np.isin(self.hashes, known)]] = True
        return rows


def _keys(pack: Pack, rows: IntArray) -> dict[str, _Keys]:
    """Hashes of every kind of the given rows."""
    names = _Names(pack.info.names)
    table = pack.table.select(["source", "sha256"]).take(pa.array(rows))
    sources, digests = table.column("source").to_pylist(), table.column("sha256").to_pylist()
    found: dict[str, list[tuple[bytes, int]]] = {kind: [] for kind in _KINDS}
    known: dict[str, tuple[list[bytes], bytes]] = {}
    for at, row in enumerate(rows.tolist()):
        found["pixels"].append((_pixels(digests[at], pack, row), at))
        spaces, own = names.of(str(pack.ids[row]))
        # bare numbers begin at 1 in every annotation file of a folder; the file's name tells them apart
        what = (own, PurePosixPath(sources[at] or "").stem) if own.isdecimal() else (own,)
        found["ids"] += [(_hash("image", space, *what), at) for space in spaces]
        patient = pack.patients[row]
        if not patient:
            continue
        if patient not in known:
            spaces, own = names.of(patient)
            known[patient] = (
                [_hash("patient", space, own) for space in spaces],
                _hash("patient", own),
            )
        named, bare = known[patient]
        found["patients"] += [(key, at) for key in named]
        found["bare_patients"].append((bare, at))
    return {kind: _Keys.of(pairs) for kind, pairs in found.items()}


class _Names:
    """The sources of a pack: whose an id is, and the id as the source itself writes it (see ``pack_mix``)."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._of_one = {
            name: self._spaces((name,)) for name in sorted(names, key=len, reverse=True)
        }
        self._of_all = self._spaces(self._names)

    def of(self, text: str) -> tuple[list[str], str]:
        """An image's or a patient's id -> the names of its source, and the id without a name in front.

        An id without one is of the only source, or of a patient that all sources share.
        """
        if len(self._names) > 1:
            for name, spaces in self._of_one.items():  # the longest first
                if text.startswith(f"{name}/"):
                    return spaces, text[len(name) + 1 :]
        return self._of_all, text

    def _spaces(self, names: Sequence[str]) -> list[str]:
        """A second source of one name is called name-2 in a pack, and its own name in a pack by itself."""
        own = (re.sub(r"-\d+$", "", name) for name in names)
        both = [
            n
            for name, first in zip(names, own, strict=True)
            for n in (name, *([first] * (first in self._names)))
        ]
        # the sizes in which MedMNIST is published have the same ids
        return list(
            dict.fromkeys(re.sub(r"(?<=mnist)_(28|64|128|224)$", "", name) for name in both)
        )


def _hash(*what: str) -> bytes:
    return hashlib.sha256(repr(what).encode("utf-8", "backslashreplace")).digest()[:_BYTES]


def _pixels(digest: Any, pack: Pack, row: int) -> bytes:
    """The table has the pixels' SHA-256; a table that somebody else wrote may lack one."""
    try:
        known = bytes.fromhex(digest)
    except (TypeError, ValueError):
        known = b""
    if len(known) == 32:
        return known[:_BYTES]
    return hashlib.sha256(np.ascontiguousarray(pack.images[row]).tobytes()).digest()[:_BYTES]


def _blank(image: npt.NDArray[np.uint8]) -> bool:
    return bool((image == image[0, 0]).all())


def _distinct(patients: npt.NDArray[np.object_]) -> int:
    return len({patient for patient in patients.tolist() if patient})


def _read_hashes(text: Mapping[str, str]) -> dict[str, Hashes]:
    return {kind: _hashes(bytes.fromhex(text[kind])) for kind in _KINDS}


def _hashes(joined: bytes) -> Hashes:
    return np.frombuffer(joined, dtype=f"S{_BYTES}")
