"""What ``twinray look`` finds in real radiographs that were corrupted by known amounts, and what it flags in clean ones.

Images are cut in two halves by a hash of their patients' names. Everything was tuned on the first (``--half tuning``); the figures
in ``docs/look.md`` are those of the second (``--half final``, the default). For each check one image in twenty of the half is
corrupted, the whole half is judged as one archive, and recall is counted on the corrupted images, false alarms on the others.

    python benchmarks/look.py --images FOLDER --patient REGEX [--half final] [--most 1500] [--repeats 5] [--seed 0]

Prints a table in Markdown, with 95 % intervals by Wilson.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from twinray.data.look.archive import judge
from twinray.data.look.measure import Measures, measured

Pixels = npt.NDArray[np.uint8]
Corruption = Callable[[Pixels, np.random.Generator], Pixels]


def burnt(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A name and a date of 8 pixels in height at least, near the upper or lower edge."""
    height, width = image.shape
    picture = Image.fromarray(image.copy())
    size = max(12, round(rng.uniform(0.035, 0.06) * height))
    font = ImageFont.load_default(size=size)
    letters = "".join(rng.choice(list("ABCDEFGHKLMNOPRSTUVWXYZ"), rng.integers(5, 9)))
    text = f"{letters} {''.join(rng.choice(list('0123456789'), 8))}"
    draw = ImageDraw.Draw(picture)
    x = rng.uniform(0, max(1, width - draw.textlength(text, font=font)))
    y = float(rng.choice([rng.uniform(0.01, 0.12), rng.uniform(0.82, 0.92)])) * height
    ground = image[int(y) : int(y) + size, int(x) :].mean()
    draw.text((x, y), text, font=font, fill=255 if ground < 150 else 0)
    return np.asarray(picture)


def framed(image: Pixels, rng: np.random.Generator) -> Pixels:
    copy = image.copy()
    height, width = image.shape
    top, left = (int(side * rng.uniform(0.08, 0.2)) for side in image.shape)
    copy[:top], copy[height - top :], copy[:, :left], copy[:, width - left :] = 0, 0, 0, 0
    return copy


def scrambled(image: Pixels, _: np.random.Generator) -> Pixels:
    """Its quarters in another order: no radiograph."""
    y, x = (side // 2 for side in image.shape)
    return np.concatenate(
        [
            np.concatenate([image[y : 2 * y, x : 2 * x], image[y : 2 * y, :x]], axis=1),
            np.concatenate([image[:y, x : 2 * x], image[:y, :x]], axis=1),
        ]
    )


def cut(image: Pixels, rng: np.random.Generator) -> Pixels:
    """A window of the middle 45 % of the image's values."""
    low, high = np.percentile(image, [27.5, 72.5])
    return np.clip((image - low) / max(1, high - low) * 255, 0, 255).astype(np.uint8)


CORRUPTIONS: dict[str, tuple[str, Corruption]] = {
    "negative": ("negative", lambda image, _: 255 - image),
    "turned by 90 or 270 degrees": ("turned", lambda image, rng: np.rot90(image, rng.choice([1, 3])).copy()),
    "turned by 180 degrees": ("turned", lambda image, _: np.rot90(image, 2).copy()),
    "upside down": ("turned", lambda image, _: image[::-1].copy()),
    "mirrored": ("mirrored", lambda image, _: image[:, ::-1].copy()),
    "quarters in another order": ("odd", scrambled),
    "blank": ("blank", lambda image, rng: rng.integers(100, 103, image.shape).astype(np.uint8)),
    "a line of text": ("text", burnt),
    "32 grey levels": ("few levels", lambda image, _: (image // 8 * 8).astype(np.uint8)),
    "a quarter of the contrast": ("low contrast", lambda image, _: (image // 4 + 90).astype(np.uint8)),
    "a window of the middle 45 %": ("clipped", cut),
    "black frame of 8 to 20 % a side": ("border", framed),
}  # fmt: skip


def wilson(k: int, n: int) -> str:
    if not n:
        return "-"
    share, z = k / n, 1.959964
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return f"{share:.3f} ({max(0, middle - half):.3f} to {min(1, middle + half):.3f})"


def number_of(path: Path, patient: re.Pattern[str]) -> int:
    """A number that all images of a patient share."""
    found = patient.search(path.name)
    key = next((g for g in found.groups() if g), path.name) if found else path.name
    return zlib.crc32(key.encode())


def half_of(folder: Path, patient: re.Pattern[str], half: str, most: int, seed: int) -> list[Path]:
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg", ".jpeg"))
    own = [path for path in files if (number_of(path, patient) % 2 == 0) == (half == "tuning")]
    return [own[k] for k in np.random.default_rng(seed).permutation(len(own))[:most]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--patient", default=r"(.+)")
    parser.add_argument("--half", choices=("tuning", "final"), default="final")
    parser.add_argument("--most", type=int, default=1500)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", nargs="+", choices=CORRUPTIONS, default=tuple(CORRUPTIONS))
    given = parser.parse_args()
    files = half_of(given.images, re.compile(given.patient), given.half, given.most, given.seed)
    pixels = [np.asarray(Image.open(path).convert("L")) for path in files]
    clean = [measured(image) for image in pixels]
    names = [path.stem for path in files]
    print(f"{len(files):,} images of {given.images.name}, half {given.half}\n")
    print(
        "| corruption | check | recall (95 % interval) | false alarms (95 % interval) |\n| --- | --- | --- | --- |",
        flush=True,
    )
    for what in given.what:
        check, corrupt = CORRUPTIONS[what]
        hits = alarms = n_corrupted = n_clean = 0
        for repeat in range(given.repeats):
            rng = np.random.default_rng([given.seed, repeat])
            chosen = set(rng.permutation(len(files))[: max(1, len(files) // 20)].tolist())
            archive: list[Measures] = [
                measured(corrupt(pixels[k], rng)) if k in chosen else clean[k]
                for k in range(len(files))
            ]
            flags = judge(archive, patients=names, lateral=[False] * len(files), seed=repeat).flags
            hits += sum(check in flags[k] for k in chosen)
            alarms += sum(check in own for k, own in enumerate(flags) if k not in chosen)
            n_corrupted, n_clean = n_corrupted + len(chosen), n_clean + len(files) - len(chosen)
        print(
            f"| {what} | {check} | {wilson(hits, n_corrupted)} | {wilson(alarms, n_clean)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
