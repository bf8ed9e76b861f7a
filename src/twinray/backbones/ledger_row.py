"""What a row of the ledger of public weights holds; the rows are :mod:`twinray.backbones.ledger`.

Every fact stands with the key of its source, and the table of sources says when it was read. What is not known is None
or ``unknown``, never a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from twinray.runs.description import Normalisation

T = TypeVar("T")

UNKNOWN = "unknown"

Use = Literal["open", "share-alike", "non-commercial", "restricted", "unknown"]
"""What a licence lets one do: ``open`` permissive terms; ``share-alike`` what is made of it comes under the same terms
(copyleft); ``non-commercial`` research alone; ``restricted`` other conditions."""


@dataclass(frozen=True)
class Fact(Generic[T]):
    """A value with the key of the source that it was read in."""

    value: T
    source: str


@dataclass(frozen=True)
class Source:
    """Where facts were read.

    Attributes:
        what: package with version, repository with commit, or page.
        read: day it was read, ISO.
    """

    what: str
    read: str


@dataclass(frozen=True)
class Licence:
    """Terms of a weight.

    Attributes:
        text: name of the licence, as the publisher states it.
        use: what it lets one do.
        note: what else a user must know; empty for nothing.
    """

    text: str
    use: Use
    note: str = ""


@dataclass(frozen=True)
class Place:
    """Where weights are published.

    Attributes:
        how: what fetches them: ``torchvision``, ``timm``, ``hub`` (huggingface_hub), ``url`` (torch.hub), ``package``
            (an installed Python package) or ``hand`` (nobody but the user, and files of the user's own).
        where: torchvision's enum, timm's name with its tag, the hub's id, the address, the package, or a description.
        file: the file in it.
    """

    how: Literal["torchvision", "timm", "hub", "url", "package", "hand"]
    where: str
    file: str = ""


@dataclass(frozen=True)
class Saw:
    """A data set that training saw.

    Attributes:
        data_set: key of the data set, as :mod:`twinray.data.identity` has it where it knows it.
        part: which of it: ``all``; ``train``, the official training list alone; ``part``, an unofficial choice;
            ``unknown``, presumed so.
        labels: whether with labels or reports.
    """

    data_set: str
    part: Literal["all", "train", "part", "unknown"] = "all"
    labels: bool = False

    def told(self) -> str:
        """In words, for a table."""
        part = "" if self.part == "all" else f" ({self.part})"
        return f"{self.data_set}{part}{' with labels' if self.labels else ''}"


@dataclass(frozen=True, kw_only=True)
class PublicWeights:
    """A row: one published weight, or one layout that many people's own weights have.

    Attributes:
        name: name for ``--init``.
        about: what it is, in a few words.
        place: where it is published.
        arch: architecture as ``--arch`` names it; empty where it is the user's to say.
        keys: how the names of its tensors differ from the architecture's, in words.
        layouts: spellings of names that are accepted (:mod:`twinray.backbones.layouts`); empty for any.
        size: side of the images that it was trained on, pixels; None if unknown.
        patch: side of its patches, pixels; 0 for none.
        pixels: statistics on the 0..1 scale; None if unknown.
        scale: how the publisher states them.
        licence: its terms.
        saw: data sets that training saw, its ancestors' included; None if unknown.
        refused: why it cannot be loaded; empty if it can.
        notes: what a user must know of runs that start from it.
    """

    name: str
    about: str
    place: Fact[Place]
    arch: Fact[str]
    keys: Fact[str]
    layouts: tuple[str, ...] = ()
    size: Fact[int | None]
    patch: Fact[int]
    pixels: Fact[Normalisation | None]
    scale: str = "0..1, RGB"
    licence: Fact[Licence]
    saw: Fact[tuple[Saw, ...] | None]
    refused: str = ""
    notes: tuple[str, ...] = ()

    @property
    def detector(self) -> bool:
        """Whether it is a whole detector of torchvision."""
        return self.place.value.where.startswith(_DETECTORS)

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of all its facts' sources, each once."""
        facts = (self.place, self.arch, self.keys, self.size, self.patch, self.pixels, self.licence)
        return tuple(dict.fromkeys((*(fact.source for fact in facts), self.saw.source)))


_DETECTORS = ("FasterRCNN_", "RetinaNet_", "FCOS_")
