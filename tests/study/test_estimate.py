"""``twinray study --estimate``: every kind is timed by its own verb, sums add up, finished pieces cost nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import Console

from twinray.files import folders_freed
from twinray.studies import run as verb
from twinray.studies.config import StudyConfig
from twinray.studies.estimate import (
    Cost,
    Estimate,
    _makespan,
    _of_network,
    _of_probe,
    _Rate,
    _Run,
    _Work,
    estimate,
    show_estimate,
)
from twinray.studies.plan.build import build
from twinray.studies.plan.file import read_study
from twinray.studies.plan.nodes import Plan, Read, node
from twinray.studies.runner.execute import execute
from twinray.studies.runner.place import Place

FILE = """
study: Toy
packs:
  lake: {format: phantom, phantom_images: 12, size: 32, val: 0, test: 0, seed: 1}
  chest: {format: phantom, phantom_images: 16, size: 64, val: 0.25, test: 0.25}
pretrainings:
  bt: {pack: lake, options: {arch: resnet18, size: 32, batch_size: 8, epochs: 3, projector: [16, 16], splits: [test, train, val]}}
arms:
  - {name: Barlow Twins, pretraining: bt}
tasks:
  findings: {verb: classify, pack: chest, fractions: [0.5, 1], options: {size: 32}}
  lesions:
    verb: detect
    pack: chest
    options: {size: 64, epochs: 2, batch_size: 4, fpn_channels: 8, box_head_width: 16, rois_per_image: 8}
options:
  all: {bootstrap: 5, device: cpu}
"""


# Without time for more, every kind is timed once. How many runs are timed where there is time, tests with known prices say below.
@pytest.fixture(scope="module", params=[pytest.param(30.0, marks=pytest.mark.long), 0.0])
def limit(request: pytest.FixtureRequest) -> float:
    return request.param


def within(limit: float, plan: Plan, out: Path, workers: int) -> Estimate:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("twinray.studies.estimate.LIMIT_S", limit)
        return estimate(plan, out, workers=workers, threads=1)


@pytest.fixture(scope="module")
def planned(limit: float, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, Estimate]:
    folder = tmp_path_factory.mktemp("estimate")
    (folder / "study.yaml").write_text(FILE, encoding="utf-8")
    file, source = read_study(folder / "study.yaml")
    plan = build(file, source)
    config = StudyConfig(file=folder / "study.yaml", out=folder / "out")
    place = verb._opened(config, plan, source)
    pack = plan.nodes[0]
    claim = place.claims.take(pack.id)
    assert claim is not None
    with folders_freed():
        place.claims.finish(claim, pack.name, 7.0, execute(pack, place.path))
    return folder, plan, within(limit, plan, folder / "out", 2)


def test_every_kind_is_predicted_and_sums_add_up(planned) -> None:
    _, plan, found = planned
    assert found.why == {} and found.done == 1
    assert len(found.left) == len(plan.nodes) - 1
    for one, cost in found.left:
        assert cost is not None and cost.seconds > 0 and cost.error > 0 and cost.bytes > 0, one.name
        assert cost.error >= 0.29 * cost.seconds or one.kind == "pack"
    total = sum(cost.seconds for _, cost in found.left)
    assert total / 2 <= found.seconds + 1e-9 and found.seconds <= total + 1e-9
    assert 0 < found.error < found.seconds
    by_name = {one.name: cost for one, cost in found.left if one.kind == "classify"}
    half, whole = (next(c for n, c in by_name.items() if f" {p} %" in n) for p in (50, 100))
    assert half.seconds < whole.seconds


def test_what_is_finished_costs_nothing_and_its_real_time_is_taken(planned, limit) -> None:
    folder, plan, found = planned
    place = Place(folder / "out")
    pack = plan.nodes[0]
    assert pack.id not in {one.id for one, _ in found.left}
    (run, _) = (one for one in plan if one.kind == "classify")
    claim = place.claims.take(run.id)
    assert claim is not None
    place.claims.finish(claim, run.name, 1e6, {})  # a time that no run here takes
    run.folder(place.path).mkdir(parents=True)
    again = within(limit, plan, place.path, 1)
    (other,) = (cost for one, cost in again.left if one.kind == "classify")
    assert again.done == 2 and other is not None and other.seconds > 1e5


def test_nothing_is_left_behind_and_the_table_has_a_row_a_kind(planned, capsys) -> None:
    folder, _, found = planned
    show_estimate(found, Console(width=120))
    text = capsys.readouterr().out
    for kind in ("pretrain", "detect", "classify", "all"):
        assert f" {kind} " in text
    assert "1 piece is finished and not counted" in text
    assert not (folder / "out" / "results").exists()


def test_free_workers_take_the_first_piece_that_is_ready() -> None:
    first = node("choose", "a", {"n": 1})
    second = node("choose", "b", {"n": 2})
    last = node("choose", "c", {"n": 3}, [Read("trial", node=first.id)])
    plan = Plan("", "", (first, second, last))
    left = [(first, Cost(2.0)), (second, Cost(5.0)), (last, Cost(1.0))]
    assert _makespan(plan, left, 1) == 8
    assert _makespan(plan, left, 2) == 5
    assert _makespan(plan, [(last, Cost(1.0))], 2) == 1


@pytest.mark.parametrize("epoch_s", [0.0, 1.5])
@pytest.mark.parametrize(
    ("step_s", "image_s", "batch"), [(0.05, 0.004, 128), (0.0, 0.02, 64), (0.3, 0.001, 8)]
)
def test_a_network_is_timed_at_its_own_batch_where_time_allows(
    step_s: float, image_s: float, batch: int, epoch_s: float
) -> None:
    """A machine whose every step and image has a known price: the prediction is that price."""
    asked = []

    def price(train: int, held: int, batch: int, epochs: int = 1) -> float:
        each = epoch_s + -(-train // batch) * step_s + train * image_s + held * image_s / 3
        return 1.0 + epochs * each + held * image_s / 3

    def once(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
        asked.append((train, batch))
        work = _Work(float(epochs * train), float((epochs + 1) * held), float(epochs))
        return _Run(price(train, held, batch, epochs), work, 7, batch)

    rate, timed = _of_network(once, batch, gpu=False)
    assert timed == batch and (2 * max(batch, 16), batch) in asked
    found = rate.cost(_Work(10 * 2560.0, 10 * 4.0 + 4.0, 10.0)).seconds
    assert found == pytest.approx(price(2560, 4, batch, epochs=10), rel=0.02)


def test_a_network_of_long_steps_is_timed_once() -> None:
    runs = []

    def once(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
        runs.append(batch)
        return _Run(20.0, _Work(16.0, 8.0), 7, batch)

    rate, batch = _of_network(once, 768, gpu=False)
    assert runs == [8] == [batch] and rate.share == 0.6
    assert rate.cost(_Work(16.0, 8.0)).seconds == pytest.approx(20.0)


def test_what_a_gpu_compiles_once_does_not_make_every_step_dear() -> None:
    """Compiling takes a minute of the first run: the prices are those of the runs after it, and the study's batch is timed."""
    ran = []

    def price(train: int, held: int, epochs: int) -> float:
        return 2.0 + 0.001 * epochs * train + 0.001 / 3 * (epochs + 1) * held

    def once(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
        ran.append(batch)
        compiling = 60.0 if len(ran) == 1 else 0.0
        work = _Work(float(epochs * train), float((epochs + 1) * held), float(epochs))
        return _Run(compiling + price(train, held, epochs), work, 7, batch)

    rate, timed = _of_network(once, 256, gpu=True)
    assert timed == 256
    found = rate.cost(_Work(100 * 2560.0, 101 * 4.0, 100.0)).seconds
    assert found == pytest.approx(price(2560, 4, 100), rel=0.02)


def busy_for(calls: int) -> Callable[[], float]:
    """Something else on the machine makes the first calls half as long again."""
    left = iter([1.5] * calls)
    return lambda: next(left, 1.0)


def test_what_else_the_machine_did_during_one_of_two_runs_is_not_in_the_price() -> None:
    def price(train: float, seen: float) -> float:
        return 2.0 + 0.001 * train + 0.0004 * seen

    busy = busy_for(5)

    def probe(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
        work = _Work(float(train), float(2 * held))
        return _Run(price(work.learnt, work.seen) * busy(), work, 7, 0)

    rate = _of_probe(probe, gpu=False)
    assert rate.cost(_Work(3000, 2900)).seconds == pytest.approx(price(3000, 2900), rel=0.02)

    busy = busy_for(3)

    def network(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
        work = _Work(float(epochs * train), float((epochs + 1) * held), float(epochs))
        seconds = 1.0 + 0.02 * work.learnt + 0.02 / 3 * work.seen
        return _Run(seconds * busy(), work, 7, batch)

    rate, _ = _of_network(network, 8, gpu=False)
    found = rate.cost(_Work(2560.0, 8.0)).seconds
    assert found == pytest.approx(1.0 + 0.02 * 2560 + 0.02 / 3 * 8, rel=0.02)


@pytest.mark.parametrize("image_s", [0.003, 0.05])
def test_a_probe_has_a_price_for_features_and_one_for_fitting(image_s: float) -> None:
    def price(train: float, seen: float) -> float:
        return 0.3 + image_s * (train + seen) + 0.002 * train

    def once(train: int, held: int, batch: int, epochs: int = 1) -> _Run:
        return _Run(price(train, 2 * held), _Work(float(train), float(2 * held)), 7, 0)

    rate = _of_probe(once, gpu=False)
    for train, seen in ((25, 2900), (2600, 2900)):
        assert rate.cost(_Work(train, seen)).seconds == pytest.approx(price(train, seen), rel=0.02)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()]
)  # fmt: skip
def test_a_kind_too_large_for_this_machine_is_named_and_the_others_are_timed(
    tmp_path, monkeypatch, error
):
    """It ended the estimate, which is asked for to learn what is too large."""

    def refused(*_: object) -> None:
        raise error

    for kind in ("_of_network", "_of_probe", "_of_features"):
        monkeypatch.setattr(f"twinray.studies.estimate.{kind}", refused)
    (tmp_path / "study.yaml").write_text(FILE)
    found = estimate(build(*read_study(tmp_path / "study.yaml")), None, workers=1, threads=1)
    assert {one.kind for one, cost in found.left if cost is not None} == {"pack"}
    assert len(found.why) == 4 and all(told.startswith("out of memory") for told in found.why.values())  # fmt: skip
    monkeypatch.setattr("twinray.studies.estimate._of_network", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        estimate(build(*read_study(tmp_path / "study.yaml")), None, workers=1, threads=1)


@pytest.mark.parametrize(
    ("splits", "images"), [("train", 8), ("val, test", 8), ("train, test", 12)]
)
def test_a_pretraining_is_as_long_as_the_splits_that_it_learns_from(
    tmp_path, monkeypatch, splits, images
):
    monkeypatch.setattr(
        "twinray.studies.estimate._of_network", lambda *_: (_Rate(0.0, 1.0, 0.0, 0.3, 1), 8)
    )
    for kind in ("_of_probe", "_of_features"):
        monkeypatch.setattr(f"twinray.studies.estimate.{kind}", lambda *_: _Rate(0.0, 0.0, 0.0, 0.3, 1))  # fmt: skip
    text = FILE.replace("pack: lake", "pack: chest").replace("test, train, val", splits)
    (tmp_path / "study.yaml").write_text(text)
    found = estimate(build(*read_study(tmp_path / "study.yaml")), None, workers=1, threads=1)
    (cost,) = (cost for one, cost in found.left if one.kind == "pretrain")
    assert cost is not None and cost.seconds == 3 * images
