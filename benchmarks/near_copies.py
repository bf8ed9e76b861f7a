"""How often near copies are found, and how often different people's images are taken for copies, on real radiographs.

The images are cut in two halves by patient. The number of differing signs that counts as near is chosen on the first half:
the largest at which the expected share of wrong pairs is at most 3e-8, by an exponential tail through the counts of near pairs.
Recall and false alarms are then measured on the second half, with the number that the package has.

    python benchmarks/near_copies.py --images FOLDER --patient REGEX [--copies 300] [--seed 0]

Prints a table in Markdown. Images of one folder should be of one data set, each patient's name in its files.
"""

from __future__ import annotations

import argparse
import io
import re
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from twinray.data.near_copies import NEAR, Words, nearest, perceptual_hashes

Pixels = npt.NDArray[np.uint8]
RNG = np.random.default_rng(1)


def jpeg(image: Pixels, quality: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def resized(image: Pixels, side: int) -> Pixels:
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def windowed(image: Pixels, low: float, high: float, gamma: float = 1.0) -> Pixels:
    return (255 * np.clip((image / 255 - low) / (high - low), 0, 1) ** gamma).astype(np.uint8)


def cropped(image: Pixels, share: float) -> Pixels:
    y, x = (int(side * share) for side in image.shape)
    return image[y : image.shape[0] - y, x : image.shape[1] - x]


def marked(image: Pixels) -> Pixels:
    copy = image.copy()
    side = len(image) // 10
    copy[side : 2 * side, side : 2 * side] = 255
    return copy


COPIES: dict[str, Callable[[Pixels], Pixels]] = {
    "half the size": lambda image: resized(image, len(image) // 2),
    "96 pixels, then JPEG of quality 50": lambda image: jpeg(resized(image, 96), 50),
    "JPEG of quality 30": lambda image: jpeg(image, 30),
    "window from 10 to 90 %": lambda image: windowed(image, 0.1, 0.9),
    "window from 20 to 80 %": lambda image: windowed(image, 0.2, 0.8),
    "gamma 0.6": lambda image: windowed(image, 0, 1, 0.6),
    "gamma 1.6": lambda image: windowed(image, 0, 1, 1.6),
    "negative": lambda image: 255 - image,
    "noise of 6 grey levels": lambda image: np.clip(
        image + RNG.normal(0, 6, image.shape), 0, 255
    ).astype(np.uint8),
    "black frame of 5 % a side": lambda image: np.pad(image, len(image) // 20),
    "crop of 2 % a side": lambda image: cropped(image, 0.02),
    "crop of 5 % a side (not promised)": lambda image: cropped(image, 0.05),
    "white mark of 1 % of the area (not promised)": marked,
}


def read(path: Path) -> Pixels:
    return np.asarray(Image.open(path).convert("L"))


def pairs_by_distance(
    words: Words, of: np.ndarray, asked: Words, of_asked: np.ndarray, patients: np.ndarray
) -> np.ndarray:
    """(256,) number of pairs of images of different patients at each distance, the one looked up among the other."""
    counts = np.zeros(256, dtype=np.int64)
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    for i in range(len(starts)):
        mine = asked[of_asked == of[starts[i]]]
        later = slice(starts[i] + (of == of[starts[i]]).sum(), None)
        if later.start >= len(words):
            break
        least = np.full(len(words) - later.start, 255, dtype=np.int64)
        for one in mine:
            apart = np.bitwise_count(words[later] ^ one).sum(axis=1).astype(np.int64)
            least = np.minimum(least, np.minimum(apart, 255 - apart))
        image = np.minimum.reduceat(least, starts[i + 1 :] - later.start)
        other = patients[of[starts[i + 1 :]]] != patients[of[starts[i]]]
        counts += np.bincount(image[other], minlength=256)
    return counts


def chosen(counts: np.ndarray, wanted: float = 3e-8) -> tuple[int, float]:
    """Largest distance at which the tail's rate is at most ``wanted``, and the rate at the package's own."""
    below = np.cumsum(counts)
    far = np.arange(256)
    enough = (below >= 5) & (below <= 2000)
    slope, start = np.polyfit(far[enough], np.log(below[enough] / counts.sum()), 1)
    rate = np.exp(start + slope * far)
    return int(far[rate <= wanted].max()), float(rate[NEAR])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--patient", required=True)
    parser.add_argument("--copies", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = [p for p in sorted(options.images.rglob("*")) if p.suffix in (".png", ".jpeg", ".jpg")]
    found = [re.search(options.patient, path.name) for path in paths]
    patients = np.array(
        [
            next(g for g in m.groups() if g) if m else path.name
            for m, path in zip(found, paths, strict=True)
        ]
    )
    second = np.array([zlib.crc32(f"{options.seed} {p}".encode()) % 2 == 1 for p in patients])
    started = time.perf_counter()
    words, of = perceptual_hashes(map(read, paths))
    seconds = time.perf_counter() - started
    asked, of_asked = perceptual_hashes(map(read, paths), asking=True)
    print(
        f"{len(paths):,} images of {len(set(patients)):,} patients, {seconds / len(paths) * 1e3:.2f} ms an image to read and hash\n"
    )
    for name, half in (("choosing", ~second), ("measuring", second)):
        own, also = half[of], half[of_asked]
        counts = pairs_by_distance(words[own], of[own], asked[also], of_asked[also], patients)
        threshold, rate = chosen(counts)
        print(
            f"{name}: {half.sum():,} images, {counts.sum():,} pairs of different patients, nearest {np.flatnonzero(counts)[:3].tolist()}, "
            f"pairs up to {NEAR}: {counts[: NEAR + 1].sum()}, tail at {NEAR}: {rate:.1e}, threshold for 3e-8: {threshold}"
        )
    rng = np.random.default_rng(options.seed)
    picked = rng.permutation(np.flatnonzero(second))[: options.copies]
    mine = [words[of == i] for i in picked]
    print("\n| Copy | found | median of differing signs | 99 % |\n|---|---|---|---|")
    for name, change in COPIES.items():
        copies, of_copy = perceptual_hashes((change(read(paths[i])) for i in picked), asking=True)
        least = np.full(len(picked), 255)
        for at, number in enumerate(of_copy.tolist()):
            least[number] = min(least[number], int(nearest(copies[at : at + 1], mine[number])[0]))
        print(
            f"| {name} | {100 * (least <= NEAR).mean():.1f} % | {np.median(least):.0f} | {np.quantile(least, 0.99):.0f} |"
        )


if __name__ == "__main__":
    main()
