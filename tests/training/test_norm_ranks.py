"""Every norm policy with every number of frozen stages does on two ranks what it does on one, in weights and in statistics."""

import importlib.util
from pathlib import Path

import pytest
import torch

from support import ranks as start_ranks
from twinray.backbones.build import build_backbone

JOB = Path(__file__).with_name("norm_job.py")
_spec = importlib.util.spec_from_file_location("norm_job", JOB)
job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(job)


# None, some and all stages learn; the numbers between in the long set.
@pytest.fixture(
    scope="module", params=[(0, 2, 5), pytest.param((1, 3, 4), marks=pytest.mark.long)], ids=str
)
def results(request, tmp_path_factory):
    """By the number of ranks: state dicts by policy and stages, after one step of one batch."""
    found = {}
    for world in (1, 2):
        out = tmp_path_factory.mktemp("norms") / f"{world}.pt"
        start_ranks(world, [JOB, out, *request.param])
        found[world] = torch.load(out, weights_only=True)
    return request.param, found


@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("policy", job.POLICIES)
def test_two_ranks_end_where_one_ends(results, policy, which):
    stages = results[0][which]
    one, two = (results[1][world][f"{policy}-{stages}"] for world in (1, 2))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-9, atol=1e-11, msg=name)
    backbone = build_backbone("resnet18", 0)
    before = {name: t.double() for name, t in backbone.state_dict().items()}
    moved = {name for name in one if not torch.equal(one[name].double(), before[name])}
    statistics = {name for name in moved if "running" in name or "num_batches" in name}
    learns = {name for name in one if backbone.stage_of(name) >= 5 - stages}
    assert moved <= learns  # what is frozen stays, to the bit
    assert moved == {name for name, t in two.items() if not torch.equal(t.double(), before[name])}
    weights = {n for n in learns if "running" not in n and "num_batches" not in n}
    affine = {n for n in weights if before[n].ndim == 1}
    assert moved - statistics == (weights - affine if policy == "frozen" else weights)
    assert bool(statistics) == (policy == "trainable" and stages > 0)
    if policy == "trainable":
        assert statistics == learns - weights
