"""In which precision what is computed."""

from __future__ import annotations

import pytest
import torch

from twinray.training.device import COMPILED_FROM, Amount, Machine, to_compile


def precisions() -> tuple[bool, str, bool, bool]:
    """TF32 in convolutions, matrix products, races of kernels, bf16 of the processor."""
    cudnn = torch.backends.cudnn
    products = torch.get_float32_matmul_precision()
    return cudnn.allow_tf32, products, cudnn.benchmark, torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("device", ["cpu", "cuda:0"])
def test_exact_arithmetic_is_full_float32_and_leaves_training_as_it_was(device, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    before = precisions()
    assert before == (True, "highest", True, False)
    training = Machine(torch.device(device), bf16=False)
    exact = Machine(torch.device(device), bf16=True).exact
    assert (
        exact == Machine(torch.device(device), bf16=False, tf32=False)
        and exact.precision == "float32"
    )
    with training.autocast():
        assert precisions() == before
        with exact.autocast():
            assert precisions() == (False, "highest", False, False)
        assert precisions() == before
    with pytest.raises(KeyError), exact.autocast():
        raise KeyError
    assert precisions() == before


def test_exact_arithmetic_leaves_the_bf16_around_it():
    training = Machine(torch.device("cpu"), bf16=True)
    x = torch.rand(4, 4)
    with training.autocast():
        assert (x @ x).dtype == torch.bfloat16
        with training.exact.autocast():
            assert (x @ x).dtype == torch.float32
        assert (x @ x).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("choice", "device", "amount", "wanted"),
    [
        ("auto", "cuda", (COMPILED_FROM.steps, COMPILED_FROM.pixels), True),
        ("auto", "cuda", (COMPILED_FROM.steps - 1, 10**9), False),
        ("auto", "cuda", (10**6, COMPILED_FROM.pixels - 1), False),
        ("auto", "cpu", (10**6, 10**9), False),
        ("on", "cpu", (1, 1), True),
        ("off", "cuda", (10**6, 10**9), False),
    ],
)
def test_auto_compiles_on_a_gpu_where_steps_are_many_and_large(
    choice, device, amount, wanted
) -> None:
    assert to_compile(choice, torch.device(device), Amount(*amount)) is wanted
