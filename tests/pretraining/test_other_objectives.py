import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from twinray.pretraining.objective import ObjectiveValue, barlow_twins
from twinray.pretraining.other_objectives import byol, simclr, vicreg

SHAPES = [(8, 4), (6, 32), (16, 16), (2, 5)]


def embeddings(
    n: int, b: int, d: int, dtype: torch.dtype = torch.float64, spread: float = 0.7
) -> tuple[Tensor, ...]:
    """n related embeddings, of some dimensions with a standard deviation above 1 and some below."""
    generator = torch.Generator().manual_seed(b * 1000 + d)
    scale = torch.linspace(0.3, 2.0, d, dtype=dtype)
    base = torch.randn(b, d, generator=generator, dtype=dtype)
    noise = [spread * torch.randn(b, d, generator=generator, dtype=dtype) for _ in range(n)]
    return tuple(((base + one) * scale + 0.5).requires_grad_(True) for one in noise)


def byol_of_two(z1: Tensor, z2: Tensor) -> ObjectiveValue:
    """Symmetric in its views and with the embeddings as predictions: for tests that all objectives share."""
    return byol(z1, z2, z1, z2)


ALL = [vicreg, simclr, byol_of_two]
Objective = Callable[[Tensor, Tensor], ObjectiveValue]


def assert_same(
    loss: Tensor, expected: Tensor, inputs: tuple[Tensor, ...], tolerance: float = 1e-9
) -> None:
    torch.testing.assert_close(loss, expected, rtol=tolerance, atol=1e-12)
    for got, want in zip(
        torch.autograd.grad(loss, inputs), torch.autograd.grad(expected, inputs), strict=True
    ):
        assert (got - want).norm() <= tolerance * want.norm() + 1e-12


# --- against lightly


@pytest.mark.parametrize(("b", "d"), SHAPES)
@pytest.mark.parametrize("gram", [None, False, True])
def test_vicreg_is_lightlys(b, d, gram):
    lightly = pytest.importorskip("lightly.loss.vicreg_loss", reason="lightly is not installed")
    z = embeddings(2, b, d)
    assert_same(vicreg(*z, gram=gram).loss, lightly.VICRegLoss()(*z), z)
    weighted = lightly.VICRegLoss(lambda_param=3.0, mu_param=5.0, nu_param=7.0)(*z)
    assert_same(vicreg(*z, 3.0, 5.0, 7.0, gram).loss, weighted, z)


@pytest.mark.parametrize(("b", "d"), SHAPES)
@pytest.mark.parametrize("temperature", [0.07, 0.5, 2.0])
def test_simclr_is_lightlys(b, d, temperature):
    lightly = pytest.importorskip("lightly.loss.ntx_ent_loss", reason="lightly is not installed")
    z = embeddings(2, b, d)
    assert_same(simclr(*z, temperature).loss, lightly.NTXentLoss(temperature=temperature)(*z), z)


@pytest.mark.parametrize(("b", "d"), SHAPES)
def test_byol_is_lightlys_cosine(b, d):
    lightly = pytest.importorskip(
        "lightly.loss.negative_cosine_similarity", reason="lightly is not installed"
    )
    p1, p2, t1, t2 = embeddings(4, b, d)
    cosine = lightly.NegativeCosineSimilarity()
    expected = 4 + 2 * (cosine(p1, t2.detach()) + cosine(p2, t1.detach()))
    assert_same(byol(p1, p2, t1, t2).loss, expected, (p1, p2))


# --- against the papers' formulas


def vicreg_formula(z1: Tensor, z2: Tensor) -> Tensor:
    d = z1.shape[1]
    loss = 25 * (z1 - z2).square().sum(dim=1).mean() / d
    for z in (z1, z2):
        loss = loss + 25 / 2 * (1 - (z.var(dim=0) + 1e-4).sqrt()).clamp_min(0).mean()
        covariance = torch.cov(z.T)
        loss = loss + (covariance - torch.diag(torch.diag(covariance))).square().sum() / d
    return loss


def simclr_formula(z1: Tensor, z2: Tensor, temperature: float) -> Tensor:
    z = torch.cat([z1, z2])
    z = z / z.norm(dim=1, keepdim=True)
    b, terms = len(z1), []
    for i in range(2 * b):
        similar = (z @ z[i] / temperature).exp()
        others = torch.cat([similar[:i], similar[i + 1 :]])
        terms.append(-torch.log(similar[(i + b) % (2 * b)] / others.sum()))
    return torch.stack(terms).mean()


@pytest.mark.parametrize(("b", "d"), SHAPES)
def test_values_and_gradients_are_the_papers(b, d):
    z = embeddings(2, b, d)
    assert_same(vicreg(*z).loss, vicreg_formula(*z), z)
    assert_same(simclr(*z, 0.3).loss, simclr_formula(*z, 0.3), z)
    p1, p2, t1, t2 = embeddings(4, b, d)

    def distance(p: Tensor, t: Tensor) -> Tensor:
        return (
            (p / p.norm(dim=1, keepdim=True) - t / t.norm(dim=1, keepdim=True))
            .square()
            .sum(dim=1)
            .mean()
        )

    assert_same(
        byol(p1, p2, t1, t2).loss, distance(p1, t2.detach()) + distance(p2, t1.detach()), (p1, p2)
    )


@pytest.mark.parametrize(("b", "d"), [(12, 40), (40, 12)])
def test_both_forms_of_vicreg_are_equal(b, d):
    z = embeddings(2, b, d)
    assert_same(vicreg(*z, gram=True).loss, vicreg(*z, gram=False).loss, z)


@pytest.mark.parametrize("objective", ALL)
def test_gradients_are_those_of_finite_differences(objective):
    z1, z2 = embeddings(2, 5, 7)
    if objective is byol_of_two:
        t1, t2 = z1.detach().clone() + 0.1, z2.detach().clone() - 0.1
        assert torch.autograd.gradcheck(lambda a, b: byol(a, b, t1, t2).loss, (z1, z2))
    else:
        assert torch.autograd.gradcheck(lambda a, b: objective(a, b).loss, (z1, z2))


# --- monitors


@pytest.mark.parametrize("objective", ALL)
@pytest.mark.parametrize(("b", "d"), SHAPES)
def test_monitors_are_those_of_the_cross_correlation(objective, b, d):
    z1, z2 = embeddings(2, b, d)
    x1, x2 = (
        (z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in (z1.detach(), z2.detach())
    )
    c = x1.T @ x2 / b
    off = c[~torch.eye(d, dtype=torch.bool)]
    value = objective(z1, z2)
    torch.testing.assert_close(value.invariance, torch.diag(c).mean())
    torch.testing.assert_close(value.redundancy, off.square().mean().sqrt())
    assert not value.invariance.requires_grad and not value.redundancy.requires_grad
    assert value.loss.requires_grad


def test_monitors_of_byol_are_those_of_the_targets():
    p1, p2, t1, t2 = embeddings(4, 8, 6)
    assert byol(p1, p2, t1, t2)[1:] == byol(p2, p1, t1, t2)[1:] == barlow_twins(t1, t2)[1:]


# --- what must not matter, and what must


@settings(max_examples=25, deadline=None)
@given(b=st.integers(2, 9), d=st.integers(2, 12), seed=st.integers(0, 10_000))
@pytest.mark.parametrize("objective", ALL)
def test_order_of_the_batch_of_the_views_and_of_dimensions_changes_nothing(objective, b, d, seed):
    generator = torch.Generator().manual_seed(seed)
    z1, z2 = (torch.randn(b, d, generator=generator, dtype=torch.float64) for _ in range(2))
    base = objective(z1, z2)
    rows, columns = torch.randperm(b, generator=generator), torch.randperm(d, generator=generator)
    for other in (
        objective(z1[rows], z2[rows]),
        objective(z1[:, columns], z2[:, columns]),
        objective(z2, z1),
    ):
        for got, want in zip(other, base, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-8, atol=1e-10)
    assert float(base.loss) >= -1e-12


@pytest.mark.parametrize("objective", [simclr, byol_of_two])
def test_only_directions_count(objective):
    z1, z2 = embeddings(2, 6, 5)
    lengths = torch.linspace(0.5, 4.0, 6, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(objective(z1 * lengths, z2 * 3).loss, objective(z1, z2).loss)


def test_vicreg_does_not_see_a_shift_of_both_views():
    z1, z2 = embeddings(2, 6, 5)
    torch.testing.assert_close(vicreg(z1 + 9, z2 + 9).loss, vicreg(z1, z2).loss)
    assert vicreg(z1 + 9, z2).loss > vicreg(z1, z2).loss


def test_least_values():
    z = torch.linalg.qr(
        torch.randn(64, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    )[0]
    z = (
        torch.linalg.qr(z - z.mean(0))[0] * math.sqrt(63) * 1.01
    )  # decorrelated, standard deviation just above 1
    assert float(vicreg(z, z).loss) < 1e-9
    assert float(byol(z, z, z, z).loss) == pytest.approx(0, abs=1e-12)
    assert float(byol(z, z, -z, -z).loss) == pytest.approx(8)
    eye = torch.eye(4, dtype=torch.float64)
    assert float(simclr(eye, eye, 0.5).loss) == pytest.approx(
        -math.log(math.exp(2) / (math.exp(2) + 6))
    )


def test_a_collapsed_embedding_costs():
    same = torch.ones(8, 4, dtype=torch.float64)
    assert float(vicreg(same, same).loss) == pytest.approx(
        25 * (1 - 0.01)
    )  # every deviation is sqrt(epsilon)
    assert float(simclr(same, same).loss) == pytest.approx(
        math.log(15)
    )  # no better than a guess among 15


def test_targets_of_byol_get_no_gradient():
    p1, p2, t1, t2 = embeddings(4, 6, 5)
    byol(p1, p2, t1, t2).loss.backward()
    assert p1.grad is not None and p2.grad is not None
    assert t1.grad is None and t2.grad is None


@pytest.mark.parametrize("objective", ALL)
def test_gradients_stay_finite_where_norms_and_deviations_vanish(objective):
    z1, z2 = torch.zeros(4, 3, requires_grad=True), torch.zeros(4, 3, requires_grad=True)
    value = objective(z1, z2)
    value.loss.backward()
    assert torch.isfinite(torch.stack(value)).all()
    assert torch.isfinite(z1.grad).all() and torch.isfinite(z2.grad).all()


# --- precision, memory, errors


@pytest.mark.parametrize("objective", ALL)
def test_autocast_changes_no_bit(objective):
    z1, z2 = embeddings(2, 64, 96, torch.float32)
    exact = objective(z1, z2)
    with torch.autocast("cpu", torch.bfloat16):
        same = objective(z1, z2)
        half = objective(z1.bfloat16(), z2.bfloat16())
    assert all(v.dtype == torch.float32 for v in (*same, *half))
    assert all(torch.equal(got, want) for got, want in zip(same, exact, strict=True))
    assert objective(z1.double(), z2.double()).loss.dtype == torch.float64
    torch.testing.assert_close(
        objective(z1.double(), z2.double()).loss.float(), exact.loss, rtol=1e-4, atol=1e-5
    )


class LargestTensor(TorchDispatchMode):
    """Notes the largest number of elements of any tensor that an operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


@pytest.mark.parametrize("objective", ALL)
def test_a_small_batch_never_makes_a_matrix_of_dimensions(objective):
    b, d = 4, 100
    z1, z2 = embeddings(2, b, d)
    with LargestTensor() as largest:
        objective(z1, z2).loss.backward()
    assert largest.elements == 2 * b * d if objective is simclr else largest.elements == b * d


def test_simclr_needs_the_square_of_the_batch_only():
    z1, z2 = embeddings(2, 20, 3)
    with LargestTensor() as largest:
        simclr(z1, z2).loss.backward()
    assert largest.elements == 40 * 40


@pytest.mark.parametrize(
    "shapes", [((4, 3), (4, 2)), ((1, 3), (1, 3)), ((4,), (4,)), ((4, 3), (5, 3))]
)
@pytest.mark.parametrize("objective", ALL)
def test_shapes_are_checked(objective, shapes):
    with pytest.raises(ValueError, match=r"expected \d \(b, d\) embeddings"):
        objective(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_byol_checks_its_targets():
    z = torch.zeros(4, 3)
    with pytest.raises(ValueError, match="expected 4"):
        byol(z, z, z, torch.zeros(4, 2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_is_checked(temperature):
    with pytest.raises(ValueError, match="temperature above 0"):
        simclr(torch.ones(2, 2), torch.ones(2, 2), temperature)
