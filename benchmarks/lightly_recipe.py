"""The Barlow Twins example of lightly's documentation, timed in a process of its own.

Its own process keeps PyTorch's own settings, whatever the other contestants set. What the recipe is, and where it
differs from the example, is told in ``pretrain_throughput.py``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import multiprocessing
import shutil
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from turns import Rate, TurnOver, Window, let_go

PREFETCH = 2  # batches that a worker keeps ready: the DataLoader's own default


@dataclass(frozen=True)
class Recipe:
    """What lightly's side needs to know for a turn; ``steps`` at least, in whole rounds of one batch a worker."""

    images: Path
    arch: str
    size: int
    batch_size: int
    projector: tuple[int, ...]
    steps: int
    workers: int
    device: str
    precision: str
    blur: bool


def serve_lightly(connection: Connection) -> None:
    """Answer each recipe with a :class:`Rate`, or with text that says why there is none; None ends."""
    try:
        import lightly.loss.barlow_twins_loss
        import lightly.models.modules.heads
        import lightly.transforms.byol_transform  # noqa: F401
    except ImportError as error:
        connection.send(f"lightly cannot be imported here ({error})")
        return
    connection.send("")
    fits: dict[tuple[int, str], int] = {}  # batches that an earlier turn had to settle for
    while (recipe := connection.recv()) is not None:
        device = torch.device(recipe.device)
        key = (recipe.size, recipe.precision)
        recipe = dataclasses.replace(recipe, batch_size=fits.get(key, recipe.batch_size))
        answer: Rate | str = ""
        while not answer:
            try:
                answer = lightly_turn(recipe, device)
            except torch.cuda.OutOfMemoryError:
                recipe = dataclasses.replace(recipe, batch_size=recipe.batch_size // 2)
                fits[key] = recipe.batch_size
                answer = "" if recipe.batch_size > 1 else "out of GPU memory at any batch"
            except Exception as error:
                answer = f"lightly's turn ended with {type(error).__name__}: {error}"
            let_go(device)
        connection.send(answer)


def lightly_turn(recipe: Recipe, device: torch.device) -> Rate:
    """Train as lightly's example does, for one warming and then some timed rounds."""
    from lightly.loss.barlow_twins_loss import BarlowTwinsLoss

    workers, ahead = fitting_workers(recipe)
    steps = math.ceil(recipe.steps / workers) * workers
    window = Window(device, workers, workers + steps)
    # More than is timed, or the last steps would have the processor to themselves.
    drawn = (window.last + 1 + workers * ahead) * recipe.batch_size
    data = lightly_dataset(recipe)
    loader: DataLoader[Any] = DataLoader(
        data,
        batch_size=recipe.batch_size,
        sampler=RandomSampler(data, num_samples=drawn),  # type: ignore[arg-type]
        drop_last=True,
        num_workers=workers,
        prefetch_factor=ahead,
    )
    model = lightly_model(recipe).to(device)
    criterion = BarlowTwinsLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.06)
    total = torch.zeros((), device=device)
    with contextlib.suppress(TurnOver):
        for index, batch in enumerate(window.timed(loader)):
            window.before_step(index)
            x0, x1 = (view.to(device) for view in batch[0])
            with torch.autocast(
                device.type, dtype=torch.bfloat16, enabled=recipe.precision == "bf16"
            ):
                loss = criterion(model(x0), model(x1))
            total += loss.detach()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    return window.rate(recipe.batch_size)


def lightly_dataset(recipe: Recipe) -> Dataset[Any]:
    from lightly.transforms.byol_transform import (
        BYOLTransform,
        BYOLView1Transform,
        BYOLView2Transform,
    )

    more: dict[str, float] = {} if recipe.blur else {"gaussian_blur": 0.0}
    transform = BYOLTransform(
        view_1_transform=BYOLView1Transform(input_size=recipe.size, **more),
        view_2_transform=BYOLView2Transform(input_size=recipe.size, **more),
    )
    try:
        from lightly.data.dataset import LightlyDataset
    except ImportError:
        return torchvision.datasets.ImageFolder(str(recipe.images), transform=transform)
    found: Dataset[Any] = LightlyDataset(str(recipe.images), transform=transform)
    return found


def lightly_model(recipe: Recipe) -> nn.Module:
    from lightly.models.modules.heads import BarlowTwinsProjectionHead

    resnet = torchvision.models.get_model(recipe.arch, weights=None)
    hidden, _, width = recipe.projector
    head = BarlowTwinsProjectionHead(resnet.fc.in_features, hidden, width)
    return nn.Sequential(*list(resnet.children())[:-1], nn.Flatten(), head)


def fitting_workers(recipe: Recipe) -> tuple[int, int]:
    """Workers and batches that each keeps ready, fewer where shared memory cannot hold the finished batches."""
    workers, ahead, shared = recipe.workers, PREFETCH, Path("/dev/shm")
    if shared.is_dir():
        batch_bytes = recipe.batch_size * 2 * 3 * recipe.size**2 * 4
        room = shutil.disk_usage(shared).free * 0.8
        if workers * (ahead + 1) * batch_bytes > room:
            ahead = 1
        while workers > 1 and workers * (ahead + 1) * batch_bytes > room:
            workers -= 1
    return workers, ahead


@dataclass
class LightlyProcess:
    """The other process; ``missing`` says why it cannot be asked, empty if it can."""

    missing: str
    connection: Any = None
    process: Any = None

    @staticmethod
    def start() -> LightlyProcess:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=serve_lightly, args=(there,))
        process.start()
        there.close()
        started = LightlyProcess("", here, process)
        started.missing = started._receive()
        return started

    def turn(self, recipe: Recipe) -> Rate | str:
        if not self.missing:
            self.connection.send(recipe)
            return self._receive()
        return self.missing

    def _receive(self) -> Any:
        try:
            return self.connection.recv()
        except EOFError:
            self.missing = "lightly's process ended without an answer"
            return self.missing

    def stop(self) -> None:
        if self.process is not None:
            with contextlib.suppress(OSError):
                self.connection.send(None)
            self.process.join()
