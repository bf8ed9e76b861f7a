import math

import pytest
import torch
from torch import nn

from twinray.training.optim import LARS, build_optimizer, parameter_groups, warmup_cosine


def authors_lars_step(params, grads, buffers, lrs, adapt, momentum=0.9, decay=1e-6, eta=0.001):
    """The update that the authors of Barlow Twins write down, tensor by tensor."""
    for i, (p, g) in enumerate(zip(params, grads, strict=True)):
        update = g.clone()
        if adapt[i]:
            update = update + decay * p
            p_norm, u_norm = p.norm(), update.norm()
            if p_norm > 0 and u_norm > 0:
                update = update * (eta * p_norm / u_norm)
        buffers[i] = momentum * buffers[i] + update
        p -= lrs[i] * buffers[i]


def test_lars_is_the_authors():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.Linear(7, 3, bias=False)).double()
    with torch.no_grad():
        model[2].weight.zero_()  # a zero norm takes a ratio of 1
    optimizer = build_optimizer("lars", model, lr=0.2, lr_biases=0.0048, weight_decay=1e-6)
    params = list(model.parameters())
    expected = [p.detach().clone() for p in params]
    buffers = [torch.zeros_like(p) for p in expected]
    adapt = [p.ndim > 1 for p in params]
    for step in range(4):
        x = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        model(x).square().sum().backward()
        if step == 0:
            model[2].weight.grad += 0.1
        grads = [p.grad.clone() for p in params]
        authors_lars_step(expected, grads, buffers, [0.2 if a else 0.0048 for a in adapt], adapt)
        optimizer.step()
        for p, e in zip(params, expected, strict=True):
            torch.testing.assert_close(p.detach(), e, rtol=1e-12, atol=1e-14)


def test_groups_hold_every_parameter_once_and_norms_take_no_decay():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    weights, biases = parameter_groups(model)
    assert sum(p.numel() for g in (weights, biases) for p in g["params"]) == sum(
        p.numel() for p in model.parameters()
    )
    assert all(p.ndim == 1 for p in biases["params"])
    optimizer = build_optimizer("adamw", model, lr=1e-3, lr_biases=2e-3, weight_decay=0.1)
    assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == [
        (1e-3, 0.1),
        (2e-3, 0.0),
    ]


def test_frozen_parameters_are_left_out():
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    optimizer = build_optimizer("sgd", model, lr=0.1, lr_biases=0.1, weight_decay=0.0)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == 1


@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (50, 0), (4, 3)])
def test_schedule(total, warmup):
    values = [warmup_cosine(s, total=total, warmup=warmup, end=0.001) for s in range(total)]
    assert all(0 < v <= 1 for v in values)
    assert max(values) == pytest.approx(1.0, abs=1e-9)
    if warmup:
        assert values[:warmup] == sorted(values[:warmup])
    assert values[warmup:] == sorted(values[warmup:], reverse=True)
    assert warmup_cosine(total, total=total, warmup=warmup, end=0.001) == pytest.approx(0.001)
    middle = warmup_cosine(warmup + (total - warmup) // 2, total=total, warmup=warmup, end=0.0)
    assert total < 20 or math.isclose(middle, 0.5, abs_tol=0.02)


def test_lars_accepts_an_empty_gradient():
    model = nn.Linear(2, 2)
    optimizer = LARS([{"params": list(model.parameters())}], lr=0.1)
    optimizer.step()
    assert optimizer.state == {}


def test_tokens_and_positions_that_a_network_excepts_take_no_decay():
    timm = pytest.importorskip("timm", reason="the extra timm is not installed")
    model = nn.Sequential(
        timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=0), nn.Linear(192, 4)
    )
    weights, rest = parameter_groups(model)
    named = {id(p): name for name, p in model.named_parameters()}
    excepted = {named[id(p)] for p in rest["params"] if p.ndim > 1}
    assert excepted == {"0.cls_token", "0.pos_embed"}
    assert len(weights["params"]) + len(rest["params"]) == len(named)
