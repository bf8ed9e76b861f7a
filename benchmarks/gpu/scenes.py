"""What the checks share: phantom packs, and the loops that the jobs build."""

from __future__ import annotations

import io
import os
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from gpu.record import Session
from twinray.data.pack import Pack, open_pack
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as write_pack
from twinray.pretraining import run as pretraining
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.model import BarlowTwins, Byol
from twinray.pretraining.options import resolve
from twinray.training.device import Machine
from twinray.training.engine import Loop


def exact_float32() -> None:
    """TensorFloat-32 off everywhere: the comparison is with float32, not with what a default rounds it to."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def phantom_pack(path: Path, images: int, size: int, seed: int = 0) -> Pack:
    """A pack of the phantom with labels and boxes; made once."""
    if not (path / "pack.json").exists():
        workers = min(os.cpu_count() or 1, max(images // 64, 1))
        config = PackConfig(
            format="phantom", out=path, size=size, phantom_images=images, seed=seed, workers=workers
        )
        write_pack(config, Console(file=io.StringIO()))
    return open_pack(path)


def pretraining_loop(config: PretrainConfig, machine: Machine) -> Loop:
    """The loop that ``twinray pretrain`` builds from these options, on ``machine``."""
    config = resolve(config)
    packs = pretraining.open_packs(config)
    source = pretraining.open_source(packs, pretraining.chosen_rows(packs, config), config)
    backbone = pretraining.build_backbone(config.arch, config.seed, config.size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        twins = BarlowTwins(backbone, config.projector)
        model = Byol(twins) if config.objective == "byol" else twins
    model = model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return pretraining.make_loop(config, model, source, machine)


def gradients(module: torch.nn.Module) -> Tensor:
    """All gradients of a module in one vector, float64 on the processor."""
    return torch.cat(
        [
            p.grad.detach().double().cpu().flatten()
            for p in module.parameters()
            if p.grad is not None
        ]
    )


def values(module: torch.nn.Module) -> Tensor:
    """All parameters of a module in one vector, float64 on the processor."""
    return torch.cat([p.detach().double().cpu().flatten() for p in module.parameters()])


def processor(session: Session) -> Machine:
    """The machine of comparison."""
    del session
    return Machine(torch.device("cpu"), bf16=False)


def under_test(session: Session, *, bf16: bool = False) -> Machine:
    """The machine under test."""
    return Machine(torch.device("cuda:0") if session.cuda else torch.device("cpu"), bf16=bf16)
