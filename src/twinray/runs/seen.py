"""What training saw: a record beside a run's weights, and the guard that asks it before every evaluation.

Figures on images that the weights have met say little of new patients. A backbone that was
pre-trained on a whole archive meets its test images easily. Every run therefore leaves :data:`FILE`
beside its weights, and a run that starts from weights goes on with what these saw. An image counts
as seen where its packed pixels, its id or its patient do.

The record holds hashes only: SHA-256, the first 16 bytes. Of private sources they are hashes of keyed hashes, which a pack
holds beside its ids (:mod:`twinray.data.keyed`): without the key no number can be tried. Of sources whose ids are published,
and of packs that were made without a key, they are plain, and hide ids from a reader alone. What was made under another key
than the images that are asked for cannot be compared by ids; that is said, and pixels are compared all the same.

What is equal. Pixels are equal wherever they come from, in packs of one size and fit. Images of one
single grey value say nothing and do not count. Ids and patients are equal within a source of one
name, as a pack records it. So patient 7 of one hospital is not patient 7 of another. Sources that
were packed with shared patients count under each of their names. A patient id that occurs under
another source name only is not refused but noted, and so is one that differs in form only (012 for 12).

What is the same under another name. Published data sets that were made from one another share their
people (:mod:`twinray.data.identity`). Ids that they keep, or a mapping, decide where there are any.
Where nothing tells whose image is whose, all of the one counts as seen once the other was.

What is nearly equal. Copies that were resized or encoded anew are found by a perceptual hash
(:mod:`twinray.data.near_copies`). They count where they are more than chance brings. A
perceptual hash is no secret: it shows a blurred outline of the image.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from twinray.data.identity import DATA_SETS, NO_DATA_SET, DataSet, Identity, identify, known_as
from twinray.data.keyed import VARIABLE, Key, Own, known_keys, looks_keyed
from twinray.data.near_copies import (
    HASH_BYTES,
    Words,
    are_near,
    more_than_chance,
    perceptual_hashes,
)
from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.evaluation.record import SEEN
from twinray.files import read_json, typed, write_json
from twinray.records import SPLITS, IntArray
from twinray.runs.checksums import check_files
from twinray.words import counted

FILE = "seen.json"
MARK = SEEN
"""The entry of a split's figures that says how many of its images training had seen."""

Use = Literal["training", "selection"]
Hashes = npt.NDArray[np.bytes_]

_Count = Annotated[int, msgspec.Meta(ge=0)]
_FORMAT = 1
_BYTES = 16
_KINDS = ("pixels", "ids", "patients", "bare_patients")
_LATER_KINDS = ("loose_patients",)
"""Kinds that records of earlier versions lack."""
_ASKED = "asked for loosely"
"""Keys under which a patient id is looked up in ``loose_patients``; they are not kept."""
_PLAIN = ""
"""In place of a key's mark: ids as their sources write them."""
_NO_LOOKS: Words = np.empty((0, HASH_BYTES // 8), dtype=np.uint64)


@dataclass(frozen=True)
class Origin:
    """The images of one source whose people are those of a published data set.

    Attributes:
        source: name of the source.
        data_set: key in :data:`twinray.data.identity.DATA_SETS`.
        parts: parts of the origin that the images are from; empty where some image's is not known.
        n_images: number of images.
        n_settled: number of those whose ids tell which image or patient of the origin they are.
    """

    source: str
    data_set: str
    parts: tuple[str, ...]
    n_images: _Count
    n_settled: _Count


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
            name, loose_patients: without zeros and letters in front) (n,) sorted, unique.
        origins: published data sets that images came from.
        looks: (m, 4) perceptual hashes.
        keys: marks of the keys under which ids were hashed; ``""`` stands for plain ids of no key.
        sealed: mark of the key under which the hashes of ids and patients were hashed once more, for a record that leaves
            the house; empty where they were not.
    """

    run: str
    job: str
    use: Use
    sources: tuple[str, ...]
    n_images: int
    n_patients: int
    hashes: Mapping[str, Hashes]
    origins: tuple[Origin, ...] = ()
    looks: Words = field(default_factory=lambda: _NO_LOOKS)
    keys: tuple[str, ...] = (_PLAIN,)
    sealed: str = ""

    @property
    def public(self) -> bool:
        """Whether all images are of published data sets, whose ids are hashed plainly."""
        return sum(origin.n_images for origin in self.origins) >= self.n_images


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
    origins: tuple[Origin, ...] | None = None
    looks: str = ""
    keys: tuple[str, ...] = (_PLAIN,)
    sealed: str = ""


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
        self,
        run: Path,
        job: str,
        images: Iterable[tuple[Pack, IntArray]],
        use: Use = "training",
        *,
        under: str | None = None,
    ) -> Seen:
        """With a further part of the run itself: the given rows of packs; as it was where there are none.

        Args:
            run: its folder.
            job: its verb.
            images: packs, and rows of each.
            use: what the images were used for.
            under: mark of the key under which all ids are hashed; None: each pack's own.
        """
        chosen = [(pack, np.asarray(rows, dtype=np.int64)) for pack, rows in images if len(rows)]
        if not chosen:
            return self
        people = [_People(pack, rows) for pack, rows in chosen]
        modes = [_own_mode(pack) if under is None else under for pack, _ in chosen]
        keys = [
            _keys(pack, rows, who, mode)
            for (pack, rows), who, mode in zip(chosen, people, modes, strict=True)
        ]
        hashes = {
            kind: np.unique(np.concatenate([k[kind].hashes for k in keys]))
            for kind in (*_KINDS, *_LATER_KINDS)
        }
        looks = np.concatenate([_looks(pack, rows)[0] for pack, rows in chosen])
        names = tuple(dict.fromkeys(name for pack, _ in chosen for name in pack.info.names))
        patients = {
            patient if len(pack.info.names) > 1 else f"{pack.info.names[0]}/{patient}"
            for pack, rows in chosen
            for patient in pack.patients[rows].tolist()
            if patient
        }
        n_images = sum(len(rows) for _, rows in chosen)
        part = Part(
            run.resolve().name,
            job,
            use,
            names,
            n_images,
            len(patients),
            hashes,
            _joined([origin for who in people for origin in who.origins()]),
            np.unique(looks, axis=0),
            tuple(dict.fromkeys(modes)),
        )
        return replace(self, parts=(*self.parts, part), own=self.own + 1)


def inherited(weights: Path | None) -> Seen:
    """What the weights in a file saw, for a run that starts from them.

    Args:
        weights: a file in a run's folder or in its ``checkpoints``, or any other; None for random or ImageNet weights.

    Raises:
        InputError: a damaged record, or one that the run did not write.
    """
    if weights is None:
        return Seen()
    folder = weights.parent.parent if weights.parent.name == "checkpoints" else weights.parent
    check_files(folder, [FILE])
    if not (folder / FILE).is_file():
        return Seen(unknown=(f"{folder.resolve().name}/{weights.name}",))
    return replace(read_seen(folder), own=0)


PUBLISHED = "published weights"
"""The job of a part that no run of ours made: public weights, of which data sets are known and no image."""
OFFICIAL_TRAIN = "official training list"
"""The part of a data set that weights saw which were trained on nothing else of it."""


def of_published(name: str, saw: Mapping[str, bool], *, unknown: bool = False) -> Seen:
    """What public weights saw, as far as their publishers say.

    Args:
        name: name of the weights.
        saw: key of a data set (:mod:`twinray.data.identity`) -> whether its official training list alone was seen. Of
            others all counts as seen. Sets that are not known there hold no patient that can be met.
        unknown: something else was seen too, and nobody says what.
    """
    origins = tuple(
        Origin(f"{PUBLISHED} {name}", key, (OFFICIAL_TRAIN,) if train else (), 1, 0)
        for key, train in saw.items()
        if key in DATA_SETS
    )
    nothing = {kind: _hashes(b"") for kind in (*_KINDS, *_LATER_KINDS)}
    sources = tuple(saw)
    part = Part(name, PUBLISHED, "training", sources, 0, 0, nothing, origins)
    return Seen((part,) if origins else (), (name,) if unknown else ())


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
                | {"hashes": _read_hashes(p.hashes), "looks": _read_looks(p.looks)}
                | {"origins": _by_name(p) if p.origins is None else p.origins}
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
            **asdict(replace(part, hashes={}, looks=_NO_LOOKS)),
            "hashes": {kind: hashes.tobytes().hex() for kind, hashes in part.hashes.items()},
            "looks": part.looks.astype(">u8").tobytes().hex(),
        }
        for part in seen.parts
    ]
    content = {"format": _FORMAT, "own": seen.own, "unknown": list(seen.unknown), "parts": parts}
    write_json(run / FILE, content, "record of what training saw")


def sealed(seen: Seen, key: Key) -> Seen:
    """The record for people outside: no patient number can be tried through it, and no image is outlined.

    Ids of published data sets stay plain, so that the guard works between institutions. All other hashes of ids and patients are
    hashed once more under the key: its holder can still ask, others are told that they cannot. Pixels can only be asked by whoever
    has the image. Perceptual hashes, which outline an image, and names of private sources and of runs stay behind.

    Args:
        seen: record of a run.
        key: secret of the house.
    """
    parts = []
    for number, part in enumerate(seen.parts, start=1):
        if part.job == PUBLISHED or (part.public and set(part.keys) <= {_PLAIN}):
            parts.append(replace(part, looks=_NO_LOOKS))
            continue
        known = {origin.source for origin in part.origins}
        parts.append(
            replace(
                part,
                run=f"{part.job}-{number}",
                sources=tuple(s if s in known else "private" for s in part.sources),
                hashes={
                    kind: hashes if kind == "pixels" else np.unique(_under(hashes, key))
                    for kind, hashes in part.hashes.items()
                },
                # whoever lacks the key cannot ask by id: of a shared origin all then counts as seen
                origins=tuple(replace(origin, n_settled=0) for origin in part.origins),
                looks=_NO_LOOKS,
                sealed=key.mark,
            )
        )
    unknown = tuple("unknown weights" for _ in seen.unknown)
    return Seen(tuple(parts), unknown, seen.own)


def _under(hashes: Hashes, key: Key) -> Hashes:
    """Hashes hashed once more, in their order; a pseudonym's 16 digits fill the 16 bytes of a hash."""
    texts = [key.text(one.ljust(_BYTES, b"\0").hex()) for one in hashes.tolist()]
    return _hashes("".join(texts).encode("ascii"))


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
    notes = tuple(note for split, overlap in found.items() for note in overlap.notes(split, pack))
    why = " ".join(dict.fromkeys(why for overlap in hits.values() for why in overlap.why))
    if hits and not allow:
        raise InputError(
            f"{told} in {pack.path} were seen in the training of {weights} (by {runs}), so figures on them would not be of new "
            f"images;{' ' + why if why else ''} train without them (pretrain --splits train, on a pack whose splits keep patients "
            "apart), or go on with --allow-seen, which marks the figures"
        )
    if hits:
        notes = (
            f"{told} were seen in training (by {runs}): figures are not of new images",
            *((why.rstrip(";"),) if why else ()),
            *notes,
        )
    marks = {
        split: {MARK: {"value": int(overlap.seen.sum()), "ci95": None, "n": len(overlap.seen)}}
        for split, overlap in hits.items()
    }
    return Checked(marks, notes)


def apart_from(pack: Pack, rows: IntArray, others: Sequence[Pack]) -> IntArray:
    """The rows that share no pixels, no id and no patient with any image of ``others``, and are no near copy of one.

    A patient id that stands under another source's name counts as the same patient here: to leave out too much is harmless.

    Raises:
        InputError: the packs are of one origin, and nothing tells whose image is whose.
    """
    seen = Seen()
    for other in others:
        everything = [(other, np.arange(len(other.ids), dtype=np.int64))]
        common = [mode for mode in _modes(other) if mode in _modes(pack)]
        if not common:
            raise InputError(
                f"{pack.path} cannot be kept apart from {other.path}: made with another key, so ids cannot be compared; "
                f"pack both with one key, or set {VARIABLE} to the file of that key"
            )
        seen = seen.plus(pack.path, "pack", everything, under=common[0])
    found = _find(seen, pack, rows, "")
    if found.by[_ORIGIN].any():
        raise InputError(
            f"{pack.path} cannot be kept apart from what is to be left out: {' '.join(found.why).rstrip(';')}; leave one of the "
            "two data sets out altogether"
        )
    return rows[~(found.seen | found.coincident | found.alike)]


def footnote(figures: Mapping[str, Any]) -> str:
    """What to write below figures of a split as JSON holds them; empty where no image of it was seen."""
    mark = figures.get(MARK)
    return told_seen((mark["value"], mark["n"])) if mark else ""


def told_seen(seen: tuple[int, int] | None) -> str:
    """What to write below figures that include seen images, given how many, and of how many; empty where there is none."""
    return (
        f"includes {seen[0]:,} of {seen[1]:,} images that training had seen, or may have (--allow-seen)"
        if seen
        else ""
    )


_ORIGIN = "origin"
"""How an image was seen that is of a data set whose people training saw, where no id tells more."""
_NEAR = "near copies"
_WORDS = {
    "pixels": "same pixels",
    "ids": "same id",
    "patients": "same patient",
    _NEAR: "near copies",
    _ORIGIN: "of people of one origin",
}


@dataclass(frozen=True, eq=False)
class _Overlap:
    """What of n evaluated rows was seen.

    Attributes:
        seen: (n,) flags of rows that count as seen.
        by: (n,) flags for each way.
        coincident: (n,) flags of rows whose patient's id alone stands under another source's name.
        loose: (n,) flags of rows whose patient's id differs in form only from one that was seen.
        alike: (n,) flags of rows that look like a seen image, whether or not they count.
        ids, patients: (n,) ids and patients.
        runs, others, why: runs that saw them; their sources; sentences on data sets of one origin.
        apart: runs whose images were kept under a key that cannot be asked for.
        private: (n,) flags of rows whose ids are not published.
    """

    seen: npt.NDArray[np.bool_]
    by: Mapping[str, npt.NDArray[np.bool_]]
    coincident: npt.NDArray[np.bool_]
    loose: npt.NDArray[np.bool_]
    alike: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.object_]
    patients: npt.NDArray[np.object_]
    runs: tuple[str, ...]
    others: tuple[str, ...]
    why: tuple[str, ...]
    apart: tuple[str, ...]
    private: npt.NDArray[np.bool_]

    def told(self, split: str) -> str:
        always = ("pixels", "ids", "patients")
        ways = ", ".join(
            f"{words} {int(self.by[way].sum()):,}"
            for way, words in _WORDS.items()
            if way in always or self.by[way].any()
        )
        n = _distinct(self.patients[self.seen])
        return (
            f"{int(self.seen.sum()):,} of {counted(len(self.seen), 'image')}{_of(split)} ({counted(n, 'patient') if n else 'unknown patients'}; "
            f"{ways})"
        )

    def notes(self, split: str, pack: Pack) -> Iterator[str]:
        """What to tell of ids that two sources share by chance or not, of ids that nearly agree, and of few near copies."""
        if self.apart:
            yield (
                f"{counted(int(self.private.sum()), 'image')}{_of(split)} in {pack.path} could not be compared by id or patient with what "
                f"{' and '.join(self.apart)} saw, only by pixels: made with another key; pack all with one --key (or --pseudonymise), "
                f"or set {VARIABLE} to the file of that key"
            )
        alone = self.coincident & ~self.seen
        if alone.any():
            n = _distinct(self.patients[alone])
            yield (
                f"{counted(n, 'patient id')}{_of(split)} in {pack.path} {'occurs' if n == 1 else 'occur'} in what training saw under "
                f"other source names ({', '.join(self.others)}) and {_others(n)}; if the sources are of one "
                "hospital, pack them together with --shared-patients, so that the splits keep these patients apart"
            )
        formed = self.loose & ~self.seen
        if formed.any():
            n = _distinct(self.patients[formed])
            yield (
                f"{counted(n, 'patient id')}{_of(split)} in {pack.path}, such as {self.patients[formed][0]}, "
                f"{'differs' if n == 1 else 'differ'} in form only (zeros or letters in front) from ids that training saw, and "
                f"{_others(n)}; if they are the same, write their ids alike and pack again"
            )
        few = self.alike & ~self.seen
        if few.any():
            n = int(few.sum())
            yield (
                f"{counted(n, 'image')}{_of(split)} in {pack.path} {'looks' if n == 1 else 'look'} like images that training saw (such as "
                f"{self.ids[few][0]}), no more than chance brings among so many; look at them"
            )


def _of(split: str) -> str:
    """`` of split test``; nothing where the images are no split of the pack, as those that ``embed`` takes."""
    return f" of split {split}" if split in SPLITS else ""


def _others(n: int) -> str:
    return "was taken for another person" if n == 1 else "were taken for other people"


def _find(seen: Seen, pack: Pack, rows: IntArray, split: str) -> _Overlap:
    parts = [part for part in seen.parts if split != "val" or part.use != "selection"]
    by = {kind: np.zeros(len(rows), dtype=bool) for kind in (*_KINDS, *_LATER_KINDS, *_WORDS)}
    asked = bool(parts) and len(rows) > 0
    people = _People(pack, rows) if asked else None
    can = _modes(pack) if people else ()
    wanted = dict.fromkeys((_PLAIN, *(mode for part in parts for mode in part.keys)))
    keys = {
        mode: _keys(pack, rows, people, mode)
        for mode in wanted
        if people and (mode in can or mode == _PLAIN)
    }
    apart: list[str] = []
    words, positions = _looks(pack, rows, asking=True) if asked else (_NO_LOOKS, rows[:0])
    private = np.array([own is not None for own in pack.keyed(rows)], dtype=bool)
    if pack.key is None:  # nobody knows of a pack without a key
        private = np.array([s is None for s in people.sets_of()], dtype=bool) if people else private
    runs: list[str] = []
    others: list[str] = []
    why: list[str] = []
    n_known = 0
    for part in parts if people else ():
        assert people is not None
        hit = {
            kind: np.zeros(len(rows), dtype=bool)
            for kind in (*_KINDS, *_LATER_KINDS)
            if kind in part.hashes
        }
        secret = next((key for key in known_keys() if key.mark == part.sealed), None)
        if part.sealed and secret is None:
            apart.append(_run_in_words(part))
            private = np.ones(len(rows), dtype=bool)
        for mode in dict.fromkeys((*part.keys, _PLAIN)):  # ids of published sources are plain
            for kind in hit if mode in keys else ():
                asked_as = keys[mode][_ASKED if kind in _LATER_KINDS else kind]
                if part.sealed and kind != "pixels":
                    if secret is None:
                        continue
                    asked_as = _Keys(_under(asked_as.hashes, secret), asked_as.positions)
                hit[kind] |= asked_as.rows_in(part.hashes[kind], len(rows))
        if not set(part.keys) <= set(can) and not part.public and private.any():
            apart.append(_run_in_words(part))
        for i in np.flatnonzero(hit["pixels"]):
            hit["pixels"][i] = not _blank(pack.images[rows[i]])
        hit[_ORIGIN], reasons = people.of_origins(part.origins)
        hit[_NEAR] = np.zeros(len(rows), dtype=bool)
        hit[_NEAR][positions[are_near(words, part.looks)]] = True
        n_known += len(part.looks)
        if any(hit[way].any() for way in _WORDS):
            runs.append(_run_in_words(part))
        if (hit["bare_patients"] & ~hit["patients"]).any():
            others += part.sources
        why += reasons
        for kind, rows_hit in hit.items():
            by[kind] |= rows_hit
    sure = by["pixels"] | by["ids"] | by["patients"] | by[_ORIGIN]
    alike = by[_NEAR]
    if not more_than_chance(int((alike & ~sure).sum()), len(rows), n_known):
        by[_NEAR] = alike & sure
    return _Overlap(
        seen=sure | by[_NEAR],
        by=by,
        coincident=by["bare_patients"],
        loose=by["loose_patients"],
        alike=alike,
        ids=pack.ids[rows],
        patients=pack.patients[rows],
        runs=tuple(dict.fromkeys(runs)),
        others=tuple(dict.fromkeys(others)),
        why=tuple(dict.fromkeys(why)),
        apart=tuple(dict.fromkeys(apart)),
        private=private,
    )


def _run_in_words(part: Part) -> str:
    return f"the weights {part.run}" if part.job == PUBLISHED else f"the {part.job} run {part.run}"


def _own_mode(pack: Pack) -> str:
    """The mark of the pack's key; empty where it has none."""
    return pack.key.mark if pack.key else _PLAIN


def _modes(pack: Pack) -> tuple[str, ...]:
    """Under what a pack's ids can be hashed: its own key; plainly unless they are pseudonyms; and, then, keys at hand."""
    if pack.key is None:
        return (_PLAIN, *(key.mark for key in known_keys()))
    if pack.key.pseudonymised:
        return (pack.key.mark,)
    return tuple(dict.fromkeys((pack.key.mark, _PLAIN, *(key.mark for key in known_keys()))))


@dataclass(frozen=True, eq=False)
class _Ids:
    """Ids of one image as they are hashed: its own, and the names of its source, for its id and for its patient."""

    own: Own
    spaces: Sequence[str]
    patient_spaces: Sequence[str]


def _ids(pack: Pack, rows: IntArray, mode: str) -> list[_Ids]:
    """Ids of images, those of private sources under a key.

    Args:
        pack: pack of the images.
        rows: rows of the pack.
        mode: mark of the key, or empty for plain ids; one of :func:`_modes`.
    """
    plain, keyed = pack.plain(rows), pack.keyed(rows)
    names, told = pack.source_names, pack.key
    key = next((key for key in known_keys() if key.mark == mode), None)
    found = []
    for row, own, under in zip(rows.tolist(), plain, keyed, strict=True):
        spaces = names.of(str(pack.ids[row]))[0]
        patient_spaces = names.of(pack.patients[row])[0] if pack.patients[row] else ()
        private = under is not None or told is None
        if private and mode != _PLAIN:
            if under is not None and told is not None and mode == told.mark:
                own = under
                hidden = told.names
                spaces = [hidden.get(space, space) for space in spaces]
                patient_spaces = [hidden.get(space, space) for space in patient_spaces]
            elif key is not None:
                own = own if told is None and looks_keyed(own) else key.own(own)
                spaces = [key.name(space) for space in spaces]
                patient_spaces = [key.name(space) for space in patient_spaces]
        found.append(_Ids(own, spaces, patient_spaces))
    return found


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


class _People:
    """Of which published data sets the given rows of a pack are, and what ids say of each."""

    def __init__(self, pack: Pack, rows: IntArray) -> None:
        names = pack.source_names
        self.sources = [names.source(str(pack.ids[row])) for row in rows.tolist()]
        own = [names.of(str(pack.ids[row]))[1] for row in rows.tolist()]
        stated = pack.info.extra.get("data_sets", {})
        self.sets: dict[str, DataSet | None] = {
            name: known_as(
                name,
                [text for text, source in zip(own, self.sources, strict=True) if source == name],
                _stated(stated, name),
            )
            for name in dict.fromkeys(self.sources)
        }
        self.in_official_test = (pack.splits[rows].astype(str) == "test") & _test_is_official(pack)
        self.identities: list[Identity | None] = [None] * len(rows)
        if not any(self.sets.values()):
            return
        attributes = (
            [json.loads(text) if text else {} for text in _attributes(pack, rows)]
            if any(data_set and data_set.mapping for data_set in self.sets.values())
            else [{}] * len(rows)
        )
        for at, row in enumerate(rows.tolist()):
            data_set, patient = self.sets[self.sources[at]], pack.patients[row]
            if data_set is None:
                continue
            if patient:
                patient = names.of(patient)[1].removeprefix(f"{data_set.origin}/")
            self.identities[at] = identify(data_set, own[at], patient, attributes[at])

    def sets_of(self) -> list[DataSet | None]:
        """The published data set that each row is of, if any."""
        return [self.sets[source] for source in self.sources]

    def origin_keys(self, at: int) -> tuple[bytes | None, bytes | None]:
        """Hashes of the origin's ids of an image and its patient, alike in all data sets of one origin."""
        data_set, identity = self.sets[self.sources[at]], self.identities[at]
        if data_set is None or identity is None:
            return None, None
        space = f"origin {data_set.origin}"
        return (
            _hash("image", space, identity.image) if identity.image else None,
            _hash("patient", space, identity.patient) if identity.patient else None,
        )

    def origins(self) -> list[Origin]:
        """What of which data set is among the rows."""
        found = []
        for source, data_set in self.sets.items():
            if data_set is None:
                continue
            own = [
                identity
                for identity, name in zip(self.identities, self.sources, strict=True)
                if name == source and identity is not None
            ]
            parts = {identity.part for identity in own}
            found.append(
                Origin(
                    source,
                    data_set.key,
                    () if "" in parts else tuple(sorted(parts)),
                    len(own),
                    sum(identity.settled for identity in own),
                )
            )
        return found

    def of_origins(self, known: Sequence[Origin]) -> tuple[npt.NDArray[np.bool_], list[str]]:
        """(n,) flags of rows that may be of people of ``known`` data sets where ids do not tell, and why, in words."""
        flags = np.zeros(len(self.sources), dtype=bool)
        why: dict[str, None] = {}
        for at, (source, identity) in enumerate(zip(self.sources, self.identities, strict=True)):
            own = self.sets[source]
            if own is None or identity is None:
                continue
            for other in known:
                theirs = DATA_SETS.get(other.data_set)
                if theirs is None or theirs.origin != own.origin:
                    continue
                if _plain(other.source) == _plain(source):
                    continue  # of one source: its own ids decide
                if other.source.startswith(PUBLISHED):
                    held_out = other.parts == (OFFICIAL_TRAIN,) and own.key == theirs.key
                    if held_out and self.in_official_test[at]:
                        continue
                    flags[at] = True
                    why[_why_published(source, own, other.source, theirs)] = None
                    continue
                settled = identity.settled and other.n_settled == other.n_images
                apart = identity.part and other.parts and identity.part not in other.parts
                if settled or apart:
                    continue
                flags[at] = True
                why[_why(source, own, other.source, theirs)] = None
        return flags, list(why)


def _why(source: str, own: DataSet, other: str, theirs: DataSet) -> str:
    facts = dict.fromkeys(row.fact for row in (own, theirs) if row.key != row.origin)
    advice = own.advice or theirs.advice
    cure = advice or "test on another data set, or train on one of the two alone"
    return (
        f"{source} ({own.key}) has people of {other} ({theirs.key}), both made of {own.origin} "
        f"({'; '.join(facts) or own.fact}), and no id tells whose image is whose, so all of it counts as seen: {cure};"
    )


def _test_is_official(pack: Pack) -> bool:
    """Whether the pack's test split is its only source's own, as its record of the splits says."""
    kept = pack.info.split_method.partition(" official")[0]
    return len(pack.info.names) == 1 and (
        pack.info.split_method == "official" or "test" in kept.split(", ")
    )


def _why_published(source: str, own: DataSet, other: str, theirs: DataSet) -> str:
    """Why rows may be of people that public weights saw: their publishers name data sets, not images."""
    which = "" if own.key == theirs.key else f", whose people {own.key} has ({own.fact})"
    return (
        f"{source} ({own.key}): the {other} were trained on {theirs.key}{which}, and which of its images is not known here, so "
        "all of it that may be among them counts as seen: test on another data set, or start from weights that did not see it;"
    )


def _stated(stated: object, name: str) -> str:
    """The data set that ``pack --data-set`` or a reader stated; empty where unknown to this version."""
    key = stated.get(name, "") if isinstance(stated, dict) else ""
    return key if key in DATA_SETS or key == NO_DATA_SET else ""


def _plain(source: str) -> str:
    """A source's name without what differs between copies of one source."""
    return re.sub(r"(?<=mnist)_(28|64|128|224)$", "", re.sub(r"-\d+$", "", source))


def _attributes(pack: Pack, rows: IntArray) -> list[str | None]:
    if "attributes" not in pack.table.column_names:
        return [None] * len(rows)
    found: list[str | None] = pack.table.column("attributes").take(pa.array(rows)).to_pylist()
    return found


def _joined(origins: Sequence[Origin]) -> tuple[Origin, ...]:
    """One entry a source and data set."""
    found: dict[tuple[str, str], Origin] = {}
    for new in origins:
        key = (new.source, new.data_set)
        old = found.get(key)
        if old is not None:
            parts = tuple(sorted({*old.parts, *new.parts})) if old.parts and new.parts else ()
            new = Origin(*key, parts, old.n_images + new.n_images, old.n_settled + new.n_settled)
        found[key] = new
    return tuple(found[key] for key in sorted(found))


def _by_name(part: _KeptPart) -> tuple[Origin, ...]:
    """Of a record that does not say: what the sources' names tell, with no image settled."""
    known = [(name, known_as(name, [])) for name in part.sources]
    return tuple(
        Origin(name, row.key, (), part.n_images, 0) for name, row in known if row is not None
    )


def _looks(pack: Pack, rows: IntArray, *, asking: bool = False) -> tuple[Words, IntArray]:
    """Perceptual hashes of rows, and the positions in ``rows`` that they are of."""
    return _looks_of(pack, np.asarray(rows, dtype=np.int64).tobytes(), asking)


@lru_cache(maxsize=2)  # several models are asked about the same images
def _looks_of(pack: Pack, rows: bytes, asking: bool) -> tuple[Words, IntArray]:
    numbers = np.frombuffer(rows, dtype=np.int64).tolist()
    return perceptual_hashes((_picture(pack, row) for row in numbers), asking=asking)


def _picture(pack: Pack, row: int) -> npt.NDArray[np.uint8]:
    """The image without the bars of a letterbox."""
    image = pack.shown(row)  # so that copies in packs of other pixels are found
    part: npt.NDArray[np.uint8] = image[pack.place(row).picture]
    return part if part.size else image


def _keys(pack: Pack, rows: IntArray, people: _People, mode: str) -> dict[str, _Keys]:
    """Hashes of every kind of the given rows; ids of private sources under the key that ``mode`` marks."""
    digests = pack.table.column("sha256").take(pa.array(rows)).to_pylist()
    kinds = (*_KINDS, *_LATER_KINDS, _ASKED)
    found: dict[str, list[tuple[bytes, int]]] = {kind: [] for kind in kinds}
    known: dict[tuple[object, ...], tuple[list[bytes], bytes]] = {}
    for at, (row, ids) in enumerate(zip(rows.tolist(), _ids(pack, rows, mode), strict=True)):
        own = ids.own
        found["pixels"].append((_pixels(digests[at], pack, row), at))
        found["ids"] += [(_hash("image", space, *own.image), at) for space in ids.spaces]
        image_key, patient_key = people.origin_keys(at)
        found["ids"] += [(image_key, at)] if image_key else []
        found["patients"] += [(patient_key, at)] if patient_key else []
        if not own.patient:
            continue
        whose = (own.patient, *ids.patient_spaces)
        if whose not in known:
            known[whose] = (
                [_hash("patient", space, own.patient) for space in ids.patient_spaces],
                _hash("patient", own.patient),
            )
        named, bare = known[whose]
        found["patients"] += [(key, at) for key in named]
        found["bare_patients"].append((bare, at))
        if own.number is not None:
            letters, number = own.letters, own.number
            for space in ids.patient_spaces:
                of_any, of_none, of_own = (
                    (_hash("loose", space, kind, number), at)
                    for kind in ("any", "none", f"letters {letters}")
                )
                found["loose_patients"] += [of_own, of_any] if letters else [of_none]
                found[_ASKED] += [of_own, of_none] if letters else [of_any, of_none]
    return {kind: _Keys.of(pairs) for kind, pairs in found.items()}


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
    later = [kind for kind in _LATER_KINDS if kind in text]
    return {kind: _hashes(bytes.fromhex(text[kind])) for kind in (*_KINDS, *later)}


def _read_looks(text: str) -> Words:
    words = np.frombuffer(bytes.fromhex(text), dtype=">u8").astype(np.uint64)
    return words.reshape(-1, HASH_BYTES // 8)


def _hashes(joined: bytes) -> Hashes:
    return np.frombuffer(joined, dtype=f"S{_BYTES}")
