"""Peak memory and time of the Barlow Twins loss and its gradient: the Gram form against the D x D form.

    python benchmarks/objective.py [--batch 768] [--dim 8192] [--device cpu] [--threads 2] [--repeats 3]

Three forms of one loss on the same embeddings:

- Gram: ours, where the batch is smaller than the embedding; never makes a (D, D) matrix;
- D x D: ours, over the cross-correlation matrix;
- literal: BatchNorm1d without affine parameters, c = bn(z1).T @ bn(z2) / b, as the paper's listing.

Each form runs in a process of its own. On the CPU the peak is the process's highest resident memory
during one loss and backward pass, less what was resident before it, after a warm-up on tiny embeddings; on
CUDA it is the allocator's highest mark less what was allocated before. The embeddings are in the
baseline, their gradients in the peak. Times are the best of the repeats after the measured pass; run
it on an otherwise idle machine. Exit status 1 if the Gram form's peak is more than a third of the D x D form's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if (
    TYPE_CHECKING
):  # the parent process imports no torch: a child's resident memory would start at its parent's
    from torch import Tensor

FORMS = ("gram", "dxd", "literal")
TITLES = {"gram": "Gram", "dxd": "D x D", "literal": "literal"}
LAMBDA = 0.0051
LARGEST_SHARE = 1 / 3


def loss_of(form: str) -> Callable[[Tensor, Tensor], Tensor]:
    import torch
    from torch import nn

    from twinray.pretraining.objective import barlow_twins

    if form != "literal":
        return lambda z1, z2: barlow_twins(z1, z2, LAMBDA, gram=form == "gram").loss

    def literal(z1: Tensor, z2: Tensor) -> Tensor:
        norm = nn.BatchNorm1d(z1.shape[1], affine=False).to(z1.device)
        c = norm(z1).T @ norm(z2) / len(z1)
        d = len(c)
        off_diagonal = c.flatten()[:-1].view(d - 1, d + 1)[
            :, 1:
        ]  # what lies between the diagonal's elements
        return (torch.diagonal(c) - 1).square().sum() + LAMBDA * off_diagonal.square().sum()

    return literal


def resident_bytes(field: str) -> int:
    """``VmRSS`` (now) or ``VmHWM`` (highest so far) of this process.

    Where the system has no /proc, both are ``ru_maxrss``, the highest so far.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) * 1024
    import resource

    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest if sys.platform == "darwin" else highest * 1024


def measure(form: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one form in this process: bytes at the peak above the baseline, seconds, and the loss."""
    import torch

    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    cuda = device.type == "cuda"
    loss = loss_of(form)

    def embeddings(b: int, d: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(0)
        z1 = torch.randn(b, d, generator=generator)
        z2 = torch.randn(b, d, generator=generator).mul_(0.8).add_(z1, alpha=0.6)
        return z1.to(device).requires_grad_(True), z2.to(device).requires_grad_(True)

    def once(z1: Tensor, z2: Tensor) -> tuple[float, float]:
        z1.grad = z2.grad = None
        if cuda:
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        value = loss(z1, z2)
        value.backward()
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter() - start, float(value.detach())

    once(*embeddings(16, 32))
    pair = embeddings(options.batch, options.dim)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        value = once(*pair)[1]
        peak = torch.cuda.max_memory_allocated(device) - before
    else:
        before = resident_bytes("VmRSS")
        value = once(*pair)[1]
        peak = resident_bytes("VmHWM") - before
    seconds = min(once(*pair)[0] for _ in range(options.repeats))
    return {"peak": peak, "seconds": seconds, "loss": value}


def in_own_process(form: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--form", form],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"the {TITLES[form]} form ended with status {done.returncode}; is there enough memory?"
        )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=768, help="images in the batch")
    parser.add_argument("--dim", type=int, default=8192, help="width of the embedding")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--repeats", type=int, default=3, help="timed passes; the best counts")
    parser.add_argument("--form", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch < 2 or options.dim < 2 or options.threads < 1 or options.repeats < 1:
        parser.error("--batch and --dim must be 2 or more, --threads and --repeats 1 or more")
    if options.form:
        print(json.dumps(measure(options.form, options)))
        return 0
    found = {form: in_own_process(form) for form in FORMS}
    base = found["dxd"]
    print(
        f"loss and gradient at batch {options.batch}, D = {options.dim}, float32, {options.device}"
    )
    print(
        f"{'form':<8} {'peak (bytes)':>15} {'of D x D':>9} {'seconds':>9} {'of D x D':>9} {'loss':>12}"
    )
    for form, row in found.items():
        memory, duration = row["peak"] / base["peak"], row["seconds"] / base["seconds"]
        print(
            f"{TITLES[form]:<8} {row['peak']:>15,.0f} {memory:>9.3f} {row['seconds']:>9.3f} {duration:>9.3f} {row['loss']:>12.4f}"
        )
    share = found["gram"]["peak"] / base["peak"]
    print(
        f"the Gram form's peak is {share:.3f} of the D x D form's (wanted: at most {LARGEST_SHARE:.3f})"
    )
    return 0 if share <= LARGEST_SHARE else 1


if __name__ == "__main__":
    sys.exit(main())
