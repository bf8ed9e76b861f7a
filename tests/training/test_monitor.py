"""A collapse is found in every precision, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from twinray.training.monitor import collapse, embedding_health


def judged(z: torch.Tensor) -> str | None:
    return collapse({name: float(value) for name, value in embedding_health(z).items()}, len(z))


def line(rows: int, d: int, offset: float, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    along, direction = torch.randn(rows, 1, generator=rng), torch.randn(1, d, generator=rng)
    return along * direction + offset * torch.randn(1, d, generator=rng)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("offset", [0.0, 3.0, 10.0])
@pytest.mark.parametrize(("rows", "d"), [(768, 8192), (64, 16)])
def test_a_line_is_found_whatever_rounding_makes_of_it(rows, d, offset, dtype):
    assert "line" in judged(line(rows, d, offset).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_point_is_found(dtype):
    z = torch.randn(1, 256, generator=torch.Generator().manual_seed(0)).expand(64, -1)
    assert "point" in judged(z.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_healthy_embeddings_are_left_alone_and_their_rank_is_that_of_an_svd(dtype, offset):
    rng = torch.Generator().manual_seed(1)
    z = torch.randn(96, 5, generator=rng) @ torch.randn(5, 512, generator=rng) + 0.2 * torch.randn(
        96, 512, generator=rng
    )
    z = (z + offset).to(dtype)
    assert judged(z) is None
    exact = z.double().numpy()
    p = np.linalg.svd(exact - exact.mean(axis=0), compute_uv=False)
    p = p[p > 0] / p.sum()
    assert float(embedding_health(z)["effective_rank"]) == pytest.approx(
        np.exp(-(p * np.log(p)).sum()), rel=0.02
    )


def test_a_batch_of_two_always_lies_on_a_line():
    z = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    assert float(embedding_health(z)["effective_rank"]) == pytest.approx(1, abs=1e-6)
    assert judged(z) is None
    assert judged(line(8, 64, 0.0)) is not None


def test_what_is_not_finite_has_no_health():
    z = torch.ones(8, 4)
    z[3, 2] = float("nan")
    assert all(np.isnan(float(value)) for value in embedding_health(z).values())
