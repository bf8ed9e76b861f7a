"""Trains the small network by which ``twinray look`` tells a chest radiograph from its mirror image.

    python benchmarks/look_net.py --images KERMANY 'REGEX' --images NIH 'REGEX' --out mirror_net.npz

It learns on the same halves of the patients that ``look.py --half tuning`` uses; the figures in ``docs/look.md`` are of the other halves.
Each folder gives equally many images to a batch. An image is the ranks of 72 x 72 areas about the body's axis; it is turned, stretched,
moved and brightened a little, cut to 64 x 64, and the network's answer to it less that to its mirror image should be above 0.

``--check`` trains on one half of the last folder's tuning patients and asks for the other, which is what the recipe was chosen by.
"""

from __future__ import annotations

import argparse
import copy
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from look import half_of, number_of
from twinray.data.look.measure import _about_axis, _ranks, _square
from twinray.data.look.mirror_net import GROUPS, SIDE

CHANNELS = (16, 32, 48, 48)
LARGE = 72


class Net(nn.Module):
    """The network of ``twinray.data.look.mirror_net``, in torch."""

    def __init__(self) -> None:
        super().__init__()
        sides = zip((1, *CHANNELS), CHANNELS, strict=False)
        self.convolutions = nn.ModuleList(nn.Conv2d(i, o, 3, stride=2, padding=1) for i, o in sides)
        self.norms = nn.ModuleList(nn.GroupNorm(GROUPS, o) for o in CHANNELS)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(CHANNELS[-1] * (SIDE // 2 ** len(CHANNELS)) ** 2, 1, bias=False)

    def one(self, x: Tensor) -> Tensor:
        """(n, 1, 64, 64) -> (n,)."""
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return self.head(self.dropout(x.flatten(1)))[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        """Log odds of the right way round."""
        return self.one(x) - self.one(x.flip(3))


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """(n, 1, 72, 72) -> (n, 1, 64, 64)."""
    n = len(x)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) - 0.5

    turn, width = 0.25 * drawn(n), 1 + 0.3 * drawn(n)
    height = width * (1 + 0.2 * drawn(n))
    how = torch.zeros(n, 2, 3)
    how[:, 0, 0], how[:, 0, 1] = width * turn.cos(), -width * turn.sin()
    how[:, 1, 0], how[:, 1, 1] = height * turn.sin(), height * turn.cos()
    how[:, :, 2] = 0.2 * drawn(n, 2)
    grid = F.affine_grid(how, [n, 1, SIDE, SIDE], align_corners=False)
    moved = F.grid_sample(x, grid, align_corners=False, padding_mode="border")
    brightened = ((moved + 1) / 2).clamp(0, 1) ** torch.exp(0.8 * drawn(n, 1, 1, 1)) * 2 - 1
    noise = torch.randn(brightened.shape, generator=generator)
    return brightened + 0.05 * noise * torch.rand(n, 1, 1, 1, generator=generator)


def trained(folders: Sequence[Tensor], steps: int, seed: int) -> Net:
    """The network averaged over the last steps (exponentially, 0.99)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    net = Net()
    average = copy.deepcopy(net).eval()
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for step in range(steps):
        own = [
            f[torch.randint(len(f), (64 // len(folders),), generator=generator)] for f in folders
        ]
        loss = F.softplus(-net(augmented(torch.cat(own), generator))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            for kept, now in zip(average.parameters(), net.parameters(), strict=True):
                kept.lerp_(now, 0.01)
        if step % 250 == 0:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    return average


def write(net: Net, path: Path) -> None:
    """Half-precision arrays, named as the package reads them."""
    kept: dict[str, npt.NDArray[np.float16]] = {}
    for layer, (convolution, norm) in enumerate(zip(net.convolutions, net.norms, strict=True)):
        for kind, module in (("convolution", convolution), ("norm", norm)):
            for name, value in module.named_parameters():
                kept[f"{kind}{layer}.{name}"] = value.detach().numpy().astype(np.float16)
    kept["head.weight"] = net.head.weight.detach().numpy()[0].astype(np.float16)
    np.savez(path, **kept)


def images_of(files: Sequence[Path], side: int) -> Tensor:
    """(n, 1, side, side) ranks."""
    grey = (np.asarray(Image.open(path).convert("L")) for path in files)
    ranks = np.stack([_ranks(_square(_about_axis(one), side)) for one in grey])
    return torch.from_numpy(ranks)[:, None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", nargs=2, action="append", required=True)
    parser.add_argument("--out", type=Path, default=Path("mirror_net.npz"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--check", action="store_true")
    given = parser.parse_args()
    patients = [re.compile(patient) for _, patient in given.images]
    files = [
        half_of(Path(folder), patient, "tuning", 10**9, 0)
        for (folder, _), patient in zip(given.images, patients, strict=True)
    ]
    others = [images_of(own, LARGE) for own in files[:-1]]
    if not given.check:
        write(trained([*others, images_of(files[-1], LARGE)], given.steps, given.seed), given.out)
        return
    for half in (0, 1):
        held = [path for path in files[-1] if number_of(path, patients[-1]) // 2 % 2 == half]
        rest = [path for path in files[-1] if path not in held]
        net = trained([*others, images_of(rest, LARGE)], given.steps, given.seed)
        with torch.no_grad():
            wrong = float((net(images_of(held, SIDE)) < 0).float().mean())
        print(f"{len(held)} images held out: {wrong:.3f} taken for mirrored", flush=True)


if __name__ == "__main__":
    main()
