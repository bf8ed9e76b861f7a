"""The membership check finds what was learnt by heart, and nothing where nothing was learnt."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import twinray.exporting.membership as check
from export_support import made_run
from twinray.data.pack import open_pack
from twinray.exporting.membership import Sides, membership, sides
from twinray.exporting.subject import open_subject
from twinray.runs.seen import Seen


@pytest.fixture
def halves(class_pack):
    """The pack's rows by patient: every second patient is a member, whatever the class."""
    pack = open_pack(class_pack)
    patients = sorted(set(pack.patients.tolist()))
    member = np.isin(pack.patients.astype(str), patients[::2])
    return pack, Sides(np.flatnonzero(member), np.flatnonzero(~member))


def test_weights_that_never_saw_the_images_tell_nothing(tmp_path, class_pack, halves):
    pack, both = halves
    subject = open_subject(made_run(tmp_path / "run", class_pack, kind="classifier"))
    found = membership(subject, pack, both)
    assert found.n_members == len(both.members) and found.n_others == len(both.others)
    assert found.loss.low <= 0.5 <= found.loss.high
    assert found.trained.low <= 0.5 <= found.trained.high


def test_images_learnt_by_heart_are_told_from_others(tmp_path, class_pack, halves):
    pack, both = halves
    run = made_run(tmp_path / "run", class_pack, kind="classifier", size=32)
    subject = open_subject(run)
    network = subject.network
    # labels drawn at random can be learnt by heart alone
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, 2, len(pack)).astype(np.float32)
    pack.labels[:] = np.stack([drawn, 1 - drawn], axis=1)
    seen = subject.network_input(torch.from_numpy(np.stack([pack.images[r] for r in both.members])))
    truth = torch.from_numpy(pack.labels[both.members].astype(np.float32))
    steps = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(30):
        steps.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network.logits(seen), truth).backward()
        steps.step()
    found = membership(subject, pack, both)
    assert found.loss.low > 0.5 and found.loss.value > 0.7
    assert "treat these weights as data of patients" in found.told()[-1]


@pytest.mark.parametrize("kind", ["detector", "backbone"])
def test_detectors_and_backbones_are_tried_too(tmp_path, blob_pack, kind):
    pack = open_pack(blob_pack)
    subject = open_subject(made_run(tmp_path / "run", blob_pack, kind=kind))
    before = {k: v.clone() for k, v in subject.network.state_dict().items()}
    both = Sides(pack.where("train"), np.concatenate([pack.where("val"), pack.where("test")]))
    found = membership(subject, pack, both)
    assert 0 <= found.loss.value <= 1 and found.patients == 12
    assert all(torch.equal(v, before[k]) for k, v in subject.network.state_dict().items())
    assert not subject.network.training


def test_a_run_with_a_record_is_checked_and_the_card_says_so(
    tmp_path, cli, detect_run, monkeypatch
):
    monkeypatch.setattr("twinray.exporting.membership._FEWEST", 2)
    out = tmp_path / "out"
    status, _, said = cli("export", detect_run, "--to", "hub", "--membership", "on", "--out", out)
    assert status == 0, said
    found = json.loads((out / "membership.json").read_text())
    assert found["n_members"] > found["n_others"] > 0
    card = (out / "README.md").read_text()
    assert (
        f"by the loss (Yeom et al. 2018; of backbones the likeness of crops, Liu et al. 2021): {found['loss']['value']:.3f}"
        in card
    )


def test_too_few_patients_are_said(tmp_path, cli, detect_run, blob_pack):
    assert "does not record" in sides(Seen(), open_pack(blob_pack), 10)
    out = tmp_path / "out"
    status, _, said = cli("export", detect_run, "--to", "hub", "--membership", "on", "--out", out)
    assert status == 2 and "too few" in said


@pytest.mark.parametrize("signal", [0.0, 1.0])
def test_the_fitted_attack_finds_what_is_there_and_holds_chance_where_nothing_is(
    signal: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four numbers of 100 and 130 images: without a signal about one interval in twenty leaves 0.5 out, not one in five."""
    monkeypatch.setattr(check, "_RESAMPLES", 200)
    missed = 0
    for study in range(30):
        rng = np.random.default_rng(study)
        member = np.arange(230) < 100
        numbers, groups = rng.normal(size=(230, 4)), np.arange(230)
        numbers[member, 0] -= signal
        halvings = [check._halves(groups, member, 100 * study + k) for k in range(check._HALVINGS)]
        scored = [check._attack(numbers, member, halves) for halves in halvings]
        found = check._interval(scored, member, groups, study)
        assert found.low is not None and found.high is not None
        assert found.low < found.value < found.high
        missed += not found.low <= 0.5 <= found.high
    assert missed <= 4 if signal == 0 else missed == 30


@pytest.mark.parametrize("other", [-1.0, float("nan")])
def test_an_uncertain_label_has_no_loss(other: float) -> None:
    class Logits:
        task = "multilabel"

        def logits(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[2.0, -3.0]]).expand(len(x), 2)

    stated = SimpleNamespace(
        pixels=np.zeros((2, 1, 4, 4), np.uint8), labels=np.array([[1.0, other], [other, other]])
    )
    subject = SimpleNamespace(network_input=lambda x: x.float())
    found = check._OfClassifier(subject, Logits(), stated)
    own, mirrored = found(0)[:2]
    assert own == mirrored == pytest.approx(np.log1p(np.exp(-2.0)), rel=1e-5)
    assert found(1) is None
