import pytest
import torch
from torch import Tensor, nn

from twinray.pretraining.objective import barlow_twins, standardise

LAMBDA = 0.0051


def authors_loss(z1: Tensor, z2: Tensor, lam: float) -> Tensor:
    """The formula as the paper writes it: BatchNorm without affine, C = Z1^T Z2 / b."""
    norm = nn.BatchNorm1d(z1.shape[1], affine=False).to(z1.dtype)
    c = norm(z1).T @ norm(z2) / len(z1)
    on_diagonal = (torch.diagonal(c) - 1).square().sum()
    off_diagonal = (c - torch.diag(torch.diagonal(c))).square().sum()
    return on_diagonal + lam * off_diagonal


def pair(b: int, d: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(b * 1000 + d)
    z1 = torch.randn(b, d, generator=generator, dtype=dtype) * 3 + 1
    z2 = 0.6 * z1 + 0.8 * torch.randn(b, d, generator=generator, dtype=dtype)
    return z1.requires_grad_(True), z2.requires_grad_(True)


@pytest.mark.parametrize(("b", "d"), [(8, 4), (6, 32), (16, 16), (2, 5)])
@pytest.mark.parametrize("gram", [None, False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_value_and_gradient_are_the_authors(b, d, gram, dtype, tolerance):
    z1, z2 = pair(b, d, dtype)
    expected = authors_loss(z1, z2, LAMBDA)
    wanted = torch.autograd.grad(expected, (z1, z2))
    value = barlow_twins(z1, z2, LAMBDA, gram)
    got = torch.autograd.grad(value.loss, (z1, z2))
    torch.testing.assert_close(value.loss, expected, rtol=tolerance, atol=0)
    for g, w in zip(got, wanted, strict=True):
        assert (g - w).norm() <= tolerance * w.norm() + 1e-7


def test_both_forms_have_equal_gradients():
    z1, z2 = pair(12, 40, torch.float64)
    grads = [
        torch.autograd.grad(barlow_twins(z1, z2, LAMBDA, gram).loss, (z1, z2))
        for gram in (False, True)
    ]
    for plain, gram in zip(*grads, strict=True):
        torch.testing.assert_close(plain, gram, rtol=1e-9, atol=1e-12)


def test_lightly_computes_the_same():
    lightly = pytest.importorskip("lightly.loss", reason="lightly is not installed")
    z1, z2 = pair(32, 16, torch.float64)
    # lightly divides by the unbiased standard deviation, without epsilon: the same C up to (b - 1) / b
    b = len(z1)
    theirs = lightly.BarlowTwinsLoss(lambda_param=LAMBDA)(z1, z2)
    expected = authors_loss(z1, z2, LAMBDA)
    assert abs(float(theirs) - float(expected)) < 3 * float(expected) / b


def test_invariances():
    z1, z2 = pair(16, 8, torch.float64)
    base = barlow_twins(z1, z2, LAMBDA).loss
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(barlow_twins(z1[order], z2[order], LAMBDA).loss, base)
    torch.testing.assert_close(barlow_twins(z2, z1, LAMBDA).loss, base)
    scaled = barlow_twins(z1 * 7 + 3, z2 * 0.5 - 2, LAMBDA).loss
    torch.testing.assert_close(scaled, base, rtol=1e-4, atol=1e-6)


def test_identical_decorrelated_views_have_no_loss():
    z = torch.linalg.qr(
        torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )[0]
    z = z - z.mean(0)
    z = torch.linalg.qr(z)[0]
    value = barlow_twins(z * 10, z * 10, LAMBDA)
    assert float(value.loss) < 1e-3
    assert float(value.invariance) > 0.999
    assert float(value.redundancy) < 1e-2


def test_statistics_stay_float32_under_autocast():
    z1, z2 = pair(128, 64, torch.float32)
    exact = barlow_twins(z1, z2, LAMBDA)
    with torch.autocast("cpu", torch.bfloat16):
        same = barlow_twins(z1, z2, LAMBDA)
        half = barlow_twins(z1.bfloat16(), z2.bfloat16(), LAMBDA)
    assert same.loss.dtype == torch.float32
    assert torch.equal(exact.loss, same.loss)
    assert abs(float(half.invariance / exact.invariance) - 1) < 1e-3


def test_standardise_survives_a_constant_dimension():
    z = torch.ones(8, 3, requires_grad=True)
    out = standardise(z)
    assert torch.equal(out, torch.zeros(8, 3))
    out.sum().backward()
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((1, 3), (1, 3)), ((4,), (4,))])
def test_shapes_are_checked(shapes):
    with pytest.raises(ValueError, match="expected two"):
        barlow_twins(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
