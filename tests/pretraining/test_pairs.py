"""Second views of other images of the same patient: exact shares, the same partners on every rank and after every resume."""

import dataclasses
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import PRETRAIN, ranks, twinray
from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import normalise, pixels_to_unit
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.model import BarlowTwins, Byol
from twinray.pretraining.objective import barlow_twins
from twinray.pretraining.options import resolve
from twinray.pretraining.pairs import Partners, partners
from twinray.pretraining.run import chosen_rows, make_loop, open_packs, open_source
from twinray.pretraining.step import Step
from twinray.pretraining.views import ViewMaker
from twinray.training.device import Machine

PATIENTS = ("--pairs", "patient", "--pair-share", 0.5)


@given(
    groups=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    share=st.floats(0.01, 1),
    seed=st.integers(0, 9),
    epoch=st.integers(0, 9),
)
@settings(deadline=None, max_examples=200)
def test_partners_are_others_of_the_group_and_as_many_as_asked(groups, share, seed, epoch):
    numbers = np.unique(groups, return_inverse=True)[1]
    found = Partners(numbers, share, seed)
    second = found.drawn(epoch)
    assert (numbers[second] == numbers).all()
    sizes = np.bincount(numbers)
    assert found.with_partner == sum(sizes[g] > 1 for g in numbers)
    assert int((second != np.arange(len(numbers))).sum()) == round(share * found.with_partner)
    assert (found.drawn(epoch) == second).all()


def test_every_partner_is_as_likely():
    found = Partners(np.array([0, 1, 0, 0, 1]), 1.0, 3)
    drawn = np.stack([found.drawn(epoch) for epoch in range(4000)])
    assert (drawn[:, [1, 4]] == [4, 1]).all()
    for own, others in ((0, (2, 3)), (2, (0, 3)), (3, (0, 2))):
        assert set(drawn[:, own]) == set(others)
        assert np.mean(drawn[:, own] == others[0]) == pytest.approx(0.5, abs=0.03)


def test_patients_of_two_packs_stay_apart_and_unknown_ones_alone(class_pack, tmp_path):
    config = PretrainConfig(data=(class_pack,), out=tmp_path / "x", arch="resnet18", batch_size=4)
    pack = open_packs(config)[0]
    rows = chosen_rows([pack], config)[0]
    one = partners([pack], [rows], "patient", 0.5, 0)
    two = partners([pack, pack], [rows, rows], "patient", 0.5, 0)
    assert one.with_partner == len(rows)
    half = len(rows)
    assert not set(two.groups[:half]) & set(two.groups[half:])
    unknown = pack.patients.copy()
    unknown[rows[0]] = None
    some = partners([dataclasses.replace(pack, patients=unknown)], [rows], "patient", 0.5, 0)
    assert (
        some.with_partner == one.with_partner - 2
    )  # the image, and the one that it was paired with
    assert partners([pack], [rows], "image", 0.5, 0) is None


def test_what_cannot_be_paired_is_refused(class_pack, tmp_path):
    run = twinray(
        "pretrain", "--data", class_pack, *PRETRAIN, "--pairs", "study", "--out", tmp_path / "a"
    )
    assert run.returncode == 2 and "expected an attribute that names the study" in run.stderr
    ids = [None] * len(pq.read_table(class_pack / "samples.parquet"))
    config = PretrainConfig(data=(class_pack,), out=tmp_path / "x", arch="resnet18", batch_size=4)
    pack = open_packs(config)[0]
    alone = dataclasses.replace(pack, patients=np.array(ids, dtype=object))
    with pytest.raises(Exception, match="expected images that share a patient"):
        partners([alone], chosen_rows([alone], config), "patient", 0.5, 0)


def test_the_second_view_is_the_partners(class_pack, tmp_path):
    """The loss of a paired step is that of views made of the images and of their partners, put together by hand."""
    config = resolve(
        PretrainConfig(
            data=(class_pack,),
            out=tmp_path / "x",
            arch="resnet18",
            size=32,
            batch_size=8,
            projector=(32, 32),
            precision="float32",
            device="cpu",
            pairs="patient",
            pair_share=1.0,
        )
    )
    packs = open_packs(config)
    rows = chosen_rows(packs, config)
    source = open_source(packs, rows, config)
    paired = partners(packs, rows, "patient", 1.0, config.seed)
    torch.manual_seed(0)
    model = BarlowTwins(build_backbone("resnet18", 0, 32), config.projector)
    machine = Machine(torch.device("cpu"), bf16=False)
    loop = make_loop(config, model, source, machine, paired=paired)
    pixels = next(iter(loop.batches(0, 0)))
    assert len(pixels) == 16
    first, second = pixels[:8], pixels[8:]
    assert not torch.equal(first, second)
    patients = [str(packs[0].patients[row]) for row in rows[0]]
    where = {
        source.gather(np.array([i])).numpy().tobytes(): patients[i] for i in range(len(source))
    }
    assert [where[p.numpy().tobytes()] for p in first] == [
        where[p.numpy().tobytes()] for p in second
    ]
    found = loop.step(pixels, 3)["loss"]
    drawn = loop.step._draw(pixels_to_unit(first), 3)
    z = [
        model(
            normalise(view.apply(pixels_to_unit(own), p)).contiguous(
                memory_format=torch.channels_last
            )
        )[1]
        for view, own, p in zip(loop.step.views, (first, second), drawn, strict=True)
    ]
    assert float(loop.step.objective(*z).loss.detach()) == pytest.approx(float(found), rel=1e-5)


@pytest.mark.parametrize("objective", ["barlow-twins", "byol"])
def test_pieces_take_their_own_partners(objective):
    """With norms that do not look at the batch, pieces change nothing: loss and gradient are those of one pass."""
    torch.manual_seed(0)
    twins = BarlowTwins(build_backbone("resnet18", 0, 32), (16, 16))
    model = (Byol(twins) if objective == "byol" else twins).eval()
    step = Step(
        model=model,
        machine=Machine(torch.device("cpu"), bf16=False),
        views=(ViewMaker(32), ViewMaker(32)),
        objective=lambda a, b: barlow_twins(a, b, 0.01),
        seed=0,
        health_every=10,
        paired=True,
    )
    pixels = torch.randint(0, 255, (16, 48, 48), dtype=torch.uint8)
    found = []
    for accumulate in (1, 2):
        model.zero_grad()
        loss = dataclasses.replace(step, accumulate=accumulate)(pixels, 3)["loss"]
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found.append((float(loss), gradient.clone()))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    assert torch.allclose(found[1][1], found[0][1], rtol=1e-2, atol=1e-3 * found[0][1].abs().max())


def test_two_ranks_draw_the_same_partners(class_pack, tmp_path):
    more = ("--optimizer", "sgd", "--batch-size", 24, "--log-every", 1)
    arguments = ("pretrain", "--data", class_pack, "--epochs", 1, *PRETRAIN, *more, *PATIENTS)
    told = twinray(*arguments, "--out", tmp_path / "one", check=True).stderr
    assert "images have a partner; second views of" in told
    ranks(2, ["-m", "twinray.cli", *arguments, "--out", tmp_path / "two"])
    losses = {
        name: next(
            json.loads(line)["loss"]
            for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()
            if "loss" in json.loads(line)
        )
        for name in ("one", "two")
    }
    assert losses["two"] == pytest.approx(losses["one"], rel=1e-4)


def test_a_share_of_none_would_be_no_pairs_and_is_refused(class_pack, tmp_path):
    run = twinray(
        "pretrain", "--data", class_pack, "--pairs", "patient", "--pair-share", 0, "--out", tmp_path
    )
    assert run.returncode == 2 and "--pair-share" in run.stderr
