"""The gradient of a batch is the same wherever its rows are: on 1, 2 and 4 ranks, in 1, 2 and 4 pieces."""

import importlib.util
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import nn

from support import ranks as start_ranks
from twinray.backbones.pixels import normalise, pixels_to_unit
from twinray.errors import InputError
from twinray.training.device import choose_machine
from twinray.training.ranks import Ranks, launched_rank
from twinray.training.sync_norm import RankBatchNorm, synchronise_norms

JOB = Path(__file__).with_name("rank_job.py")
_spec = importlib.util.spec_from_file_location("rank_job", JOB)
job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(job)


def authors_loss(z1, z2, lam):
    norm = nn.BatchNorm1d(z1.shape[1], affine=False).to(z1.dtype)
    c = norm(z1).T @ norm(z2) / len(z1)
    on_diagonal = (torch.diagonal(c) - 1).square().sum()
    return on_diagonal + lam * (c - torch.diag(torch.diagonal(c))).square().sum()


def expected(norm: bool, dtype: torch.dtype, world: int, pieces: int):
    """One process, the whole batch, the authors' formula; BatchNorm per piece, each piece over all ranks."""
    model = job.TinyTwins(norm, dtype).train()
    images = pixels_to_unit(job.make_pixels())
    generator = torch.Generator().manual_seed(5 * 1_000_003 + 7)
    views = [normalise(view(images, generator)) for view in job.view_makers()]
    rows = torch.arange(job.BATCH).view(world, pieces, -1)
    z = [torch.zeros(job.BATCH, 24, dtype=dtype) for _ in views]
    for piece in range(pieces):
        own = rows[:, piece].flatten()
        z = [
            whole.index_put((own,), model(view[own])[1])
            for whole, view in zip(z, views, strict=True)
        ]
    loss = authors_loss(*z, job.LAMBDA)
    loss.backward()
    return (
        loss.detach(),
        {name: p.grad for name, p in model.named_parameters()},
        dict(model.named_buffers()),
    )


@pytest.mark.parametrize("world", [1, 2, 4])
def test_loss_and_gradient_are_the_authors_on_any_ranks_and_pieces(world, tmp_path):
    out = tmp_path / "results.pt"
    start_ranks(world, [JOB, out])
    results = torch.load(out, weights_only=True)
    assert len(results) == 12
    for name, got in results.items():
        kind, dtype_name, pieces = name.split("-")
        dtype = getattr(torch, dtype_name)
        tolerance = 1e-6 if dtype == torch.float64 else 1e-4
        loss, gradients, buffers = expected(kind == "norm", dtype, world, int(pieces))
        torch.testing.assert_close(got["loss"], loss, rtol=tolerance, atol=0, msg=name)
        whole = torch.cat([g.flatten() for g in gradients.values()])
        theirs = torch.cat([got[k].flatten() for k in gradients])
        assert (theirs - whole).norm() <= tolerance * whole.norm(), name
        for key, value in buffers.items():
            if key.endswith(("running_mean", "running_var")):
                torch.testing.assert_close(
                    got[key], value, rtol=1e-4, atol=1e-6, msg=f"{name} {key}"
                )
            else:
                assert got[key] == value, f"{name} {key}"


def test_a_bare_sum_of_correlations_would_be_wrong():
    """The convention matters: differentiating one rank's share of C alone gives another direction."""
    z1, z2 = (
        torch.randn(8, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(s))
        for s in (1, 2)
    )
    z1.requires_grad_()
    whole = torch.autograd.grad(authors_loss(z1, z2, 0.01), z1)[0]
    half = torch.autograd.grad(authors_loss(z1[:4], z2[:4], 0.01), z1)[0]
    assert (
        torch.nn.functional.cosine_similarity(whole[:4].flatten(), half[:4].flatten(), dim=0) < 0.99
    )


def test_one_rank_does_not_communicate(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    assert launched_rank() == (0, 1, 0)
    one = Ranks()
    z = torch.ones(3, 2, requires_grad=True)
    assert one.gather(z) is z and one.main and one.first(lambda: 5) == 5 and not one.any(False)
    assert [Ranks(r, 4).share(12) for r in (0, 3)] == [slice(0, 3), slice(9, 12)]


def test_a_norm_with_an_activation_keeps_it():
    timm_layers = pytest.importorskip("timm.layers", reason="timm is not installed")
    norm = timm_layers.BatchNormAct2d(4).eval()
    norm.running_mean.fill_(0.3)
    x = torch.randn(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    model = synchronise_norms(nn.Sequential(norm))
    assert isinstance(model[0], RankBatchNorm)
    assert torch.equal(model(x), norm(x)) and float(model(x).min()) == 0
    assert model[0].state_dict().keys() == norm.state_dict().keys()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("loss", "on another rank the loss is not a finite number at step 4"),
        ("fault", "odd at step 3"),
    ],
)
def test_what_one_rank_finds_ends_all_of_them_and_is_told_once(kind, said, tmp_path):
    job = Path(__file__).with_name("rank_fault_job.py")
    ended = [
        process.communicate(timeout=120)
        for process in start_ranks(2, [job, kind, tmp_path], start_only=True)
    ]
    assert said in ended[0][0], ended
    assert ended[1][0].strip() == "told by another", ended


def test_an_error_of_any_rank_has_its_number(cli, monkeypatch):
    for name, value in {"RANK": "3", "LOCAL_RANK": "3", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    status, _, error = cli("pretrain", "--data", "nowhere", "--out", "run", "--epochs", 0)
    assert status == 2 and error.startswith("twinray: rank 3: expected --epochs")


def test_an_error_that_every_rank_meets_is_told_by_the_first(class_pack, tmp_path):
    (tmp_path / "file").write_text("in the way")
    arguments = [
        "-m",
        "twinray.cli",
        "pretrain",
        "--data",
        class_pack,
        "--out",
        tmp_path,
        "--batch-size",
        4,
        "--size",
        32,
    ]
    started = start_ranks(2, [*arguments, "--arch", "resnet18", "--device", "cpu"], start_only=True)
    said = [process.communicate(timeout=240)[1] for process in started]
    assert [process.returncode for process in started] == [2, 2], said
    assert "twinray: rank 0: " in said[0] and str(tmp_path) in said[0]
    assert "twinray:" not in said[1]


def test_one_gpu_for_all_ranks_of_a_machine_is_refused(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        InputError,
        match="--device cuda:0 under torchrun would put all 2 ranks of this machine on one GPU",
    ):
        choose_machine("cuda:0")
    monkeypatch.setenv(
        "LOCAL_WORLD_SIZE", "1"
    )  # one rank on each of two machines: any of their GPUs
    with (
        pytest.raises(InputError, match=r"no usable GPU|counted from 0")
        if not torch.cuda.is_available()
        else nullcontext()
    ):
        choose_machine("cuda:0")
