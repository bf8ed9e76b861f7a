"""Is the phantom like real chest radiographs? The same statistics of several packs side by side.

    python benchmarks/phantom_statistics.py --pack nih=NIH_PACK --pack phantom=PHANTOM_PACK [--images 600]

Packs hold grey images of one size. Nothing is trained and no label is read, so a change of the phantom that is judged by this
table is not judged by which arm of a comparison wins. Intervals are 95 % over 200 resamples of images. About a minute a pack.

Grey levels are 0..1. "Between" is the standard deviation over images, "within" over the pixels of one image.

    mean grey, between        how far exposures and bodies set images apart
    contrast                  standard deviation of the pixels of an image: mean and between
    skew                      of an image's grey levels: mean and between
    black, white              share of pixels under 0.02 and over 0.98: mean
    slope                     of log power against log frequency, 3 to 24 cycles an image: mean and between
    fine                      median absolute Laplacian (Immerkaer 1996) over contrast: noise and texture; mean and between
    alike                     correlation of the pixels of two images: mean
    pixels' rank              effective rank of 32 x 32 images, each with zero mean and unit variance (exp of the entropy of
                              the variance's shares), and the share of the first component
    features' rank            the same of a random ResNet-18's features at 64 pixels
    views / images            squared distance between two views of one image over that between views of two, in those
                              standardised features, by operation
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import normalise, resize
from twinray.data.pack import open_pack
from twinray.pretraining.views import ViewMaker, ViewOptions

Values = dict[str, np.ndarray]
NOTHING = ViewOptions(crop_area=(1.0, 1.0), flip=0.0, jitter=0.0, grey=0.0, blur=0.0, solarise=0.0)
VIEWS = {
    "crop from 50 %": dataclasses.replace(NOTHING, crop_area=(0.5, 1.0)),
    "jitter": dataclasses.replace(NOTHING, jitter=0.8),
    "blur": dataclasses.replace(NOTHING, blur=1.0),
    "all": ViewOptions(crop_area=(0.5, 1.0)),
}


def of_images(images: np.ndarray) -> Values:
    """Statistics of single images (n, s, s) in 0..1, each (n,)."""
    n, side, _ = images.shape
    flat = images.reshape(n, -1)
    mean, std = flat.mean(axis=1), flat.std(axis=1).clip(1e-6)
    window = np.hanning(side)[:, None] * np.hanning(side)
    power = np.abs(np.fft.fft2((images - mean[:, None, None]) * window)) ** 2
    turns = np.fft.fftfreq(side) * side
    radius = np.hypot(turns[:, None], turns).round().astype(int)
    rings = np.arange(3, 25)
    radial = np.stack([power[:, radius == r].mean(axis=1) for r in rings], axis=1)
    slope = np.polyfit(np.log(rings), np.log(radial + 1e-12).T, 1)[0]
    second = images[:, :-2] - 2 * images[:, 1:-1] + images[:, 2:]
    laplacian = second[:, :, :-2] - 2 * second[:, :, 1:-1] + second[:, :, 2:]
    return {
        "mean grey": mean,
        "contrast": std,
        "skew": (((flat - mean[:, None]) / std[:, None]) ** 3).mean(axis=1),
        "black": (flat < 0.02).mean(axis=1),
        "white": (flat > 0.98).mean(axis=1),
        "slope": slope,
        "fine": np.median(np.abs(laplacian), axis=(1, 2)) / std,
    }


def spectrum(x: np.ndarray) -> tuple[float, float]:
    """Effective rank and share of the first component of centred rows (n, d)."""
    x = x - x.mean(axis=0)
    variance = np.linalg.eigvalsh(x.T @ x if len(x) > x.shape[1] else x @ x.T).clip(0)
    share = variance / variance.sum()
    return float(np.exp(-(share * np.log(share.clip(1e-12))).sum())), float(share[-1])


def standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True).clip(1e-6)


@torch.no_grad()
def features(backbone: torch.nn.Module, images: Tensor) -> np.ndarray:
    """(n, 1, s, s) -> (n, d) of a random backbone with the statistics of its batch norms as they were born."""
    found = [backbone(normalise(part, backbone.normalisation)) for part in images.split(100)]
    return torch.cat(found).double().numpy()


def look(pack: Path, most: int, seed: int) -> dict[str, str]:
    opened = open_pack(pack)
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(len(opened), min(most, len(opened)), replace=False))
    pixels = np.asarray(opened.images[chosen])
    if pixels.ndim == 4:
        pixels = pixels[..., 0]
    images = pixels.astype(np.float32) / 255
    row = {"images": f"{len(images)} of {images.shape[-1]} pixels"}

    def interval(figure: Callable[[np.ndarray], float], digits: int = 3) -> str:
        drawn = [figure(rng.integers(len(images), size=len(images))) for _ in range(200)]
        low, high = np.percentile(drawn, [2.5, 97.5])
        whole = figure(np.arange(len(images)))
        return f"{whole:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"

    for name, values in of_images(images).items():
        row[name] = interval(lambda i, v=values: float(v[i].mean()))
        if name not in ("black", "white"):
            row[f"{name}, between"] = interval(lambda i, v=values: float(v[i].std()))
    small = resize(torch.from_numpy(images).unsqueeze(1), 32).numpy().reshape(len(images), -1)
    alike = standardised(small)
    row["alike"] = f"{np.mean(alike.mean(axis=0) ** 2):.3f}"
    row["pixels' rank"], row["pixels' first share"] = (f"{v:.3g}" for v in spectrum(alike))
    backbone = build_backbone("resnet18", 0, 64).eval()
    whole = resize(torch.from_numpy(images).unsqueeze(1), 64)
    plain = features(backbone, whole)
    row["features' rank"], row["features' first share"] = (f"{v:.3g}" for v in spectrum(plain))
    mean, std = plain.mean(axis=0), plain.std(axis=0)
    std = std.clip(
        0.1 * np.median(std)
    )  # a feature that is silent on whole images would outweigh all others
    other = rng.permutation(len(images))
    for name, options in VIEWS.items():
        generator = torch.Generator().manual_seed(seed)
        maker = ViewMaker(64, options)
        views = [
            (features(backbone, maker(torch.from_numpy(images).unsqueeze(1), generator)) - mean)
            / std
            for _ in range(2)
        ]
        same = ((views[0] - views[1]) ** 2).sum()
        apart = ((views[0] - views[1][other]) ** 2).sum()
        row[f"views / images, {name}"] = f"{same / apart:.3f}"
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pack", action="append", required=True, metavar="NAME=DIR", help="several times"
    )
    parser.add_argument("--images", type=int, default=600, help="most images of a pack")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = {}
    for named in options.pack:
        name, _, path = named.partition("=")
        rows[name] = look(Path(path), options.images, options.seed)
    print(f"| statistic | {' | '.join(rows)} |")
    print(f"| --- {'| --- ' * len(rows)}|")
    for statistic in next(iter(rows.values())):
        print(f"| {statistic} | {' | '.join(row[statistic] for row in rows.values())} |")


if __name__ == "__main__":
    main()
