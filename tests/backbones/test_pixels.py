"""The pixels that every network takes."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from twinray.backbones import pixels


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    monkeypatch.setattr(pixels, "_KEPT", {})


def expected(x: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in (pixels.MEAN, pixels.STD))
    return (x - mean) / std


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_constants_are_made_once_for_a_device_and_precision(dtype, monkeypatch):
    x = torch.rand(2, 1, 4, 4).to(dtype)
    assert torch.equal(pixels.normalise(x), expected(x))
    monkeypatch.setattr(torch, "tensor", lambda *_, **__: pytest.fail("made again"))
    found = pixels.normalise(x)
    monkeypatch.undo()
    assert torch.equal(found, expected(x)) and found.dtype == dtype


def test_constants_of_a_prediction_can_be_learnt_through():
    with torch.inference_mode():
        pixels.normalise(torch.rand(1, 3, 4, 4))
    x = torch.rand(1, 3, 4, 4, requires_grad=True)
    pixels.normalise(x).sum().backward()
    torch.testing.assert_close(x.grad[0, :, 0, 0], 1 / torch.tensor(pixels.STD))


def test_a_trace_keeps_nothing():
    with FakeTensorMode():
        assert pixels.normalise(torch.rand(1, 1, 4, 4, device="cuda")).shape == (1, 3, 4, 4)
    assert not pixels._KEPT
    x = torch.rand(1, 1, 4, 4)
    assert torch.equal(pixels.normalise(x), expected(x))
    with FakeTensorMode():  # nor takes what was kept, which no trace may hold
        pixels.normalise(torch.rand(1, 1, 4, 4))


def test_a_compiled_graph_does_not_break():
    x = torch.rand(1, 1, 4, 4)
    whole = torch.compile(pixels.normalise, backend="eager", fullgraph=True)
    assert torch.equal(whole(x), expected(x))
    assert torch.equal(pixels.normalise(x), expected(x))
    assert torch.equal(whole(x), expected(x))
