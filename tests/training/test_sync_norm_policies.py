"""A norm policy means the same on one rank and on several: which statistics move, and where to."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.distributed as dist

from twinray.backbones.build import build_backbone
from twinray.backbones.norm import apply_norm_policy, is_batch_norm, set_norm_modes
from twinray.training.sync_norm import RankBatchNorm, synchronise_norms


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """The group of one process: messages go through gloo, sums are one rank's."""
    place = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{place}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def plain():
    return build_backbone("resnet18", 0)


@pytest.mark.parametrize("stages", range(6))
@pytest.mark.parametrize("policy", ["trainable", "eval", "frozen", "group"])
def test_statistics_move_where_the_policy_says_and_nowhere_else(group, plain, policy, stages):
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    backbones = []
    for several in (False, True):
        backbone = copy.deepcopy(plain)
        apply_norm_policy(backbone, policy, stages)
        if several:
            synchronise_norms(backbone)
            norms = [m for m in backbone.modules() if is_batch_norm(m)]
            assert all(isinstance(m, RankBatchNorm) for m in norms)
        backbone.train()
        set_norm_modes(backbone, policy, stages)
        backbone(images)
        backbones.append(backbone)
    one, two = (dict(backbone.named_buffers()) for backbone in backbones)
    before = dict(plain.named_buffers())
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5, msg=name)
        stage = plain.stage_of(name.rpartition(".")[0])
        moves = policy == "trainable" and stage is not None and stage >= 5 - stages
        if name.endswith("num_batches_tracked"):
            assert int(value) == int(two[name]) == int(moves), name
        elif not moves:
            assert torch.equal(value, before[name]) and torch.equal(two[name], before[name]), name
    assert bool(one) == (policy != "group")
    learn = [
        {name for name, p in backbone.named_parameters() if p.requires_grad}
        for backbone in backbones
    ]
    assert learn[0] == learn[1]
