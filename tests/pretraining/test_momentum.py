import copy
import math

import pytest
import torch
from torch import Tensor, nn

from twinray.pretraining.momentum import BASE_MOMENTUM, MomentumTwin, Predictor, momentum_at


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5))


def images(seed: int = 0) -> Tensor:
    return torch.randn(6, 1, 4, 4, generator=torch.Generator().manual_seed(seed))


def train_a_step(online: nn.Module, seed: int = 0) -> None:
    optimizer = torch.optim.SGD(online.parameters(), lr=0.5)
    optimizer.zero_grad()
    online(images(seed)).square().mean().backward()
    optimizer.step()


class Whole(nn.Module):
    """What a job trains: the online network, its predictor and the twin, in one module."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.online = network(seed)
        self.predictor = Predictor(5, 7)
        self.twin = MomentumTwin(self.online)


def test_a_twin_starts_as_a_copy_and_shares_no_memory():
    online = network()
    twin = MomentumTwin(online)
    for mine, theirs in zip(
        twin.target.state_dict().values(), online.state_dict().values(), strict=True
    ):
        assert torch.equal(mine, theirs)
        assert mine.data_ptr() != theirs.data_ptr()
    assert torch.equal(twin(images()), copy.deepcopy(online)(images()))


def test_an_update_averages_parameters_and_copies_buffers():
    online = network()
    twin = MomentumTwin(online)
    average = [p.detach().clone().double() for p in online.parameters()]
    for step, tau in enumerate((0.996, 0.9, 0.5, 0.3)):
        train_a_step(online, step)
        twin.update(tau)
        average = [
            tau * a + (1 - tau) * p.detach()
            for a, p in zip(average, online.parameters(), strict=True)
        ]
        for got, want in zip(twin.target.parameters(), average, strict=True):
            torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=1e-7)
        for got, want in zip(twin.target.buffers(), online.buffers(), strict=True):
            assert torch.equal(got, want)
    assert twin.target[1].num_batches_tracked == 4


def test_the_ends_of_tau_are_exact():
    online = network()
    twin = MomentumTwin(online)
    before = [p.clone() for p in twin.target.parameters()]
    train_a_step(online)
    twin.update(1.0)
    assert all(torch.equal(p, q) for p, q in zip(twin.target.parameters(), before, strict=True))
    twin.update(0.0)
    assert all(
        torch.equal(p, q)
        for p, q in zip(twin.target.parameters(), online.parameters(), strict=True)
    )


def test_no_gradient_reaches_the_twin_and_no_optimiser_takes_it():
    whole = Whole()
    x = images().requires_grad_(True)
    assert not whole.twin(x).requires_grad
    assert not any(p.requires_grad for p in whole.twin.parameters())
    assert all(p.requires_grad for p in whole.online.parameters())
    train_a_step(whole.online)
    whole.twin.update(0.9)
    assert all(p.grad is None and not p.requires_grad for p in whole.twin.parameters())


def test_the_state_holds_each_tensor_once_and_restores_the_run():
    whole = Whole()
    names = set(whole.state_dict())
    assert {name.split(".", 1)[0] for name in names} == {"online", "predictor", "twin"}
    assert {n.removeprefix("twin.target.") for n in names if n.startswith("twin.")} == set(
        whole.online.state_dict()
    )
    for step in range(2):
        train_a_step(whole.online, step)
        whole.twin.update(0.9)
    resumed = Whole(seed=1)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
    for one in (whole, resumed):
        train_a_step(one.online, 2)
        one.twin.update(0.9)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_moved_network_is_still_followed():
    whole = Whole().double()
    train_a_step_in_double = torch.optim.SGD(whole.online.parameters(), lr=0.5)
    whole.online(images().double()).square().mean().backward()
    train_a_step_in_double.step()
    whole.twin.update(0.0)
    for p, q in zip(whole.twin.target.parameters(), whole.online.parameters(), strict=True):
        assert p.dtype == torch.float64 and torch.equal(p, q)


def test_a_copy_of_the_whole_follows_its_own_network():
    whole = Whole()
    other = copy.deepcopy(whole)
    train_a_step(other.online)
    other.twin.update(0.0)
    assert torch.equal(other.twin.target[3].weight, other.online[3].weight)
    assert not torch.equal(other.twin.target[3].weight, whole.online[3].weight)


def test_a_network_without_buffers_can_be_followed():
    online = nn.Linear(3, 2)
    twin = MomentumTwin(online)
    with torch.no_grad():
        online.weight.add_(1)
    twin.update(0.75)
    torch.testing.assert_close(twin.target.weight, online.weight - 0.75)


@pytest.mark.parametrize("tau", [-0.1, 1.1, math.nan])
def test_tau_is_checked(tau):
    with pytest.raises(ValueError, match=r"momentum of 0\.\.1"):
        MomentumTwin(network()).update(tau)


def test_momentum_goes_from_its_base_to_one_by_a_cosine():
    values = [momentum_at(step, 100) for step in range(101)]
    assert values[0] == pytest.approx(BASE_MOMENTUM) == pytest.approx(0.996)
    assert values[50] == pytest.approx(0.998)
    assert values[100] == 1.0
    assert values == sorted(values)
    for step in (10, 30, 70):
        assert values[step] == pytest.approx(1 - 0.004 * (math.cos(math.pi * step / 100) + 1) / 2)
    assert momentum_at(0, 10, base=0.9) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("step", "total", "base"), [(-1, 10, 0.9), (11, 10, 0.9), (0, 0, 0.9), (0, 10, 1.5)]
)
def test_the_schedule_checks_its_arguments(step, total, base):
    with pytest.raises(ValueError, match="expected a"):
        momentum_at(step, total, base)


def test_the_predictor_is_the_papers():
    predictor = Predictor(256, 4096)
    assert sum(p.numel() for p in predictor.parameters()) == 256 * 4096 * 2 + 2 * 4096
    out = Predictor(8, 16)(torch.randn(4, 8))
    assert out.shape == (4, 8) and out.requires_grad


def test_the_targets_of_byol_are_watched_not_the_predictions(monkeypatch):
    """Predictions may spread where every embedding is one point."""
    from twinray.backbones.build import build_backbone
    from twinray.pretraining import step as module
    from twinray.pretraining.model import BarlowTwins, Byol
    from twinray.pretraining.objective import barlow_twins
    from twinray.pretraining.views import ViewMaker, ViewOptions
    from twinray.training.device import Machine

    model = Byol(BarlowTwins(build_backbone("resnet18", 0), (16, 16)), 32).train()
    torch.nn.init.zeros_(model.twin.target.projector[-1].weight)
    step = module.Step(
        model=model,
        machine=Machine(torch.device("cpu"), bf16=False),
        views=tuple(ViewMaker(32, options) for options in ViewOptions.pair()),
        objective=barlow_twins,
        seed=1,
        health_every=1,
    )
    figures = step(torch.randint(0, 256, (4, 32, 32), dtype=torch.uint8), 0)
    assert float(figures["embedding_std"]) == 0
