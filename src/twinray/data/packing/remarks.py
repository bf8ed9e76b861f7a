"""What users must know of single files, counted over a pack: turned, damaged, clipped, blank images and the like."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from twinray.data.annotations import other_proportions
from twinray.data.decoding.options import Exif
from twinray.data.packing.journal import Packed
from twinray.data.packing.mix import Mix
from twinray.records import RemarkKind
from twinray.words import counted

_NAMED = 3
_ALMOST_ALL = 0.8
_NEARLY_BLANK = 1.0
"""Standard deviation of grey levels below which a packed image shows nothing to anyone."""


@dataclass(slots=True)
class Remarks:
    """Remarks by kind: how many images, and what the first ones are called.

    Attributes:
        counts: images by kind of remark.
        named: the first images of a kind, with what the remark says.
        with_boxes: images with boxes that ask to be turned.
        ways: number of images by the way in which their pixels were made, with the first of each.
    """

    counts: Counter[str] = field(default_factory=Counter)
    named: dict[str, list[str]] = field(default_factory=dict)
    with_boxes: int = 0
    ways: dict[str, tuple[int, str]] = field(default_factory=dict)

    @staticmethod
    def of(mix: Mix, packed: Iterable[tuple[int, Packed]], size: int) -> Remarks:
        """The remarks on all packed images, whose squares have a side of ``size`` pixels."""
        remarks = Remarks()
        for index, one in packed:
            name = mix.where(index)
            n, first = remarks.ways.get(one.how, (0, name))
            remarks.ways[one.how] = n + 1, first
            for kind, text in one.remarks:
                remarks._add(kind, name, text)
                boxes = mix.sample(index).boxes
                remarks.with_boxes += kind == "orientation" and boxes is not None and len(boxes) > 0
            if other_proportions(mix.sample(index), one.width, one.height):
                frame = mix.sample(index).boxes_frame or (0, 0)
                remarks._add(
                    "other proportions",
                    name,
                    f"{one.width} x {one.height}, boxes {frame[0]} x {frame[1]}",
                )
            if not any(kind == "one value" for kind, _ in one.remarks) and _is_nearly_blank(
                one, size
            ):
                remarks._add("nearly blank", name, "")
        return remarks

    def _add(self, kind: str, name: str, text: str) -> None:
        self.counts[kind] += 1
        first = self.named.setdefault(kind, [])
        if len(first) < _NAMED:
            first.append(f"{name} ({text})" if text else name)

    def notes(self, exif: Exif) -> list[str]:
        """One line a kind, the gravest first."""
        return [note for kind, words in _WORDS.items() if (note := self._note(kind, words))] + [
            *self._turned(exif),
            *self._odd_ones_out(),
        ]

    def _note(self, kind: str, words: tuple[str, str]) -> str:
        n = self.counts[kind]
        return words[n != 1].format(n=f"{n:,}", first=self._first(kind)) if n else ""

    def _odd_ones_out(self) -> list[str]:
        """A note on the few images whose pixels were made in another way than those of almost all."""
        ranked = sorted(self.ways.items(), key=lambda way: -way[1][0])
        n = sum(count for count, _ in self.ways.values())
        if len(ranked) < 2 or ranked[0][1][0] < _ALMOST_ALL * n:
            return []
        others = [f"{count:,} {how} (first: {first})" for how, (count, first) in ranked[1:]]
        more = ", ..." if len(others) > _NAMED else ""
        return [
            f"{counted(n - ranked[0][1][0], 'image was decoded', 'images were decoded')} in another way than the others ({ranked[0][0]}): "
            + ", ".join(others[:_NAMED])
            + more
        ]

    def _first(self, kind: str) -> str:
        more = ", ..." if self.counts[kind] > _NAMED else ""
        return ", ".join(self.named[kind]) + more

    def _turned(self, exif: Exif) -> list[str]:
        n = self.counts["orientation"]
        if not n:
            return []
        asked = f"{counted(n, 'image asks to be turned or mirrored by its orientation tag', 'images ask to be turned or mirrored by their orientation tag')}: {self._first('orientation')}; {'it was' if n == 1 else 'they were'} "
        if exif == "apply":
            done, other = "turned, sizes and boxes belong to the turned pictures", "ignore"
        else:
            done, other = (
                "kept as stored, sizes and boxes belong to the stored pixels",
                "apply",
            )
        if self.with_boxes:
            return [
                f"WARNING: {asked}{done}; {self.with_boxes:,} with boxes: if these were drawn on "
                f"{'stored' if exif == 'apply' else 'turned'} pictures, pack again with --exif {other}"
            ]
        return [f"{asked}{done} (--exif {other} does otherwise)"]


_WORDS: dict[RemarkKind | str, tuple[str, str]] = {
    "damaged": (
        "WARNING: {n} damaged image was kept as far as it could be read (--lenient): {first}",
        "WARNING: {n} damaged images were kept as far as they could be read (--lenient): {first}",
    ),
    "other proportions": (
        "WARNING: boxes of {n} image were drawn on a picture of other proportions than this file and are "
        "stretched with it; if the file was padded or cropped, boxes lie in the wrong place: {first}",
        "WARNING: boxes of {n} images were drawn on pictures of other proportions than these files and are "
        "stretched with them; if the files were padded or cropped, boxes lie in the wrong place: {first}",
    ),
    "one value": (
        "{n} image has one single grey value: {first}",
        "{n} images have one single grey value: {first}",
    ),
    "nearly blank": (
        "{n} image is nearly blank (its grey levels differ by less than 1): {first}",
        "{n} images are nearly blank (their grey levels differ by less than 1): {first}",
    ),
    "curve": (
        "{n} image is shown by a curve, of which the range is kept as a straight window, since pixels are linear: {first}",
        "{n} images are shown by a curve, of which the range is kept as a straight window, since pixels are linear: {first}",
    ),
    "clipped": (
        "{n} image holds values outside the scale, which are black or white: {first}",
        "{n} images hold values outside the scale, which are black or white: {first}",
    ),
    "high bits": (
        "{n} DICOM image uses bits above Bits Stored, which were left out: {first}",
        "{n} DICOM images use bits above Bits Stored, which were left out: {first}",
    ),
    "channels": (
        "{n} TIFF file holds channels that it does not call alpha nor colour, which were left out: {first}",
        "{n} TIFF files hold channels that they do not call alpha nor colour, which were left out: {first}",
    ),
    "unread": (
        "{n} DICOM header holds something that could not be used: {first}",
        "{n} DICOM headers hold something that could not be used: {first}",
    ),
    "preview": (
        "{n} file holds further pictures beside the one that was taken: {first}",
        "{n} files hold further pictures beside the one that was taken: {first}",
    ),
}
"""What a kind of remark says of one image, and of several."""


def _is_nearly_blank(one: Packed, size: int) -> bool:
    n = size * size
    return all(
        square / n - (total / n) ** 2 < _NEARLY_BLANK**2
        for total, square in zip(one.sums, one.squares, strict=True)
    )
