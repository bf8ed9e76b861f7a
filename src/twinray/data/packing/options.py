"""What decides a pack's bytes, besides its sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from twinray.data.decoding.options import Exif, PixelType
from twinray.data.decoding.scale import Range, Scale, declared
from twinray.data.keyed import Key
from twinray.data.splitting.record import GivenSplits
from twinray.errors import InputError
from twinray.geometry import Fit

Channels = Literal["auto", "grey", "rgb"]

MIN_SIZE, MAX_SIZE = 16, 4096


@dataclass(frozen=True)
class PackOptions:
    """What decides a pack's bytes, besides its sources.

    Attributes:
        size: side of the packed images in pixels, 16 to 4096.
        fit: ``squash`` both sides to the square, or ``letterbox`` (keep proportions, pad with black).
        channels: ``grey`` (colour turns to luma), ``rgb``, or ``auto``: grey if no image carries colour.
        val, test: shares of images to cut for validation and test where the source has no such split.
        seed: seed of the cut.
        folds: 0, or the number of patient-disjoint folds for cross-validation (2 or more): the test split is then one of
            them, whatever ``test`` says. One seed gives the same folds for every ``fold``.
        fold: number of the fold, from 0.
        given: splits to use instead of the sources' own and of any cut; images that it does not name are set aside.
        depth: bits of the detector that filled images of more than 8 bits, 8 to 16. None takes them
            from each source's headers or largest value (:mod:`twinray.data.decoding.scale`).
        value_range: stored values that become black and white, in place of ``depth``.
        exif: ``ignore`` keeps pixels as stored whatever orientation a file asks for, ``apply`` turns them.
        lenient: flag to keep what damaged files give, counted, in place of setting them aside.
        attributes: names of the attributes that were chosen; none: what the readers give.
        key: key under which ids of private sources are kept; None keeps none of them.
        pseudonymised: flag of sources whose ids are pseudonyms under the key.
        pixels: ``uint8``, as windows show them, or ``uint16``: linear stored values, each image with its window beside them.
    """

    size: int = 256
    fit: Fit = "squash"
    channels: Channels = "auto"
    val: float = 0.1
    test: float = 0.2
    seed: int = 0
    folds: int = 0
    fold: int = 0
    given: GivenSplits | None = None
    depth: int | None = None
    value_range: Range | None = None
    exif: Exif = "ignore"
    lenient: bool = False
    attributes: tuple[str, ...] = ()
    key: Key | None = None
    pseudonymised: bool = False
    pixels: PixelType = "uint8"

    @property
    def scale(self) -> Scale | None:
        """The declared scale of images of more than 8 bits; None: each source's own."""
        return declared(self.depth, self.value_range)

    @property
    def test_share(self) -> float:
        """Share of images to cut for testing."""
        return 1 / self.folds if self.folds else self.test

    def check(self) -> None:
        """Refuse what cannot be.

        Raises:
            InputError: an option out of its range.
        """
        if not MIN_SIZE <= self.size <= MAX_SIZE:
            raise InputError(f"expected --size in {MIN_SIZE}..{MAX_SIZE} pixels, got {self.size}")
        if self.fit not in ("squash", "letterbox"):
            raise InputError(f"expected --fit squash or letterbox, got {self.fit!r}")
        if self.channels not in ("auto", "grey", "rgb"):
            raise InputError(f"expected --channels auto, grey or rgb, got {self.channels!r}")
        if self.exif not in ("ignore", "apply"):
            raise InputError(f"expected --exif ignore or apply, got {self.exif!r}")
        if self.pixels not in ("uint8", "uint16"):
            raise InputError(f"expected --pixels uint8 or uint16, got {self.pixels!r}")
        declared(self.depth, self.value_range)
        for name, share in (("val", self.val), ("test", self.test)):
            if not 0 <= share < 1:
                raise InputError(
                    f"expected --{name} as a share in 0..1, got {share}; 0.1 means one image in ten"
                )
        if self.given is not None and self.folds:
            raise InputError("--folds cuts splits, --splits gives them; leave one of them out")
        if self.folds < 0 or self.folds == 1:
            raise InputError(f"expected --folds of 2 or more, or 0 for none, got {self.folds}")
        if not 0 <= self.fold < max(self.folds, 1):
            given = f"one of 0..{self.folds - 1}" if self.folds else "with --folds only"
            raise InputError(f"expected --fold {given}, got {self.fold}")
        if self.val + self.test_share >= 1:
            cut = f"1/{self.folds} (--folds)" if self.folds else str(self.test)
            raise InputError(
                f"expected --val and --test to leave images for training, got {self.val} + {cut} >= 1"
            )
        if self.seed < 0:
            raise InputError(f"expected --seed of 0 or more, got {self.seed}")
