import dataclasses
import json
import os
import signal
import threading

import numpy as np
import pytest
import torch
from torch import nn

from twinray.errors import InputError, Interrupted, TwinrayError
from twinray.runs.folder import RunFolder
from twinray.training import engine, loader
from twinray.training.checkpoint import Keep, load_checkpoint, save_checkpoint
from twinray.training.engine import Loop, load_best, seed_everything, train
from twinray.training.loader import PixelSource, epoch_order, prefetch


def folder(path) -> RunFolder:
    run = RunFolder(path)
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    return run


def make_loop(
    *,
    stop_at: int | None = None,
    epochs: int = 3,
    poison_at: int | None = None,
    figures=None,
    every: int = 2,
) -> Loop:
    """A small net with dropout, so that the global generator matters; ``stop_at`` stands for a kill."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    data = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))

    def step(batch, number):
        if stop_at is not None and number == stop_at:
            raise KeyboardInterrupt
        loss = (model(data[torch.from_numpy(batch)]) - 1).square().mean()
        if number == poison_at:
            loss = loss * float("nan")
        loss.backward()
        return {"loss": loss.detach()}

    return Loop(
        label="test",
        model=model,
        optimizer=optimizer,
        step=step,
        batches=lambda epoch, first: epoch_order(40, 8, seed=5, epoch=epoch)[first:],
        steps_per_epoch=5,
        epochs=epochs,
        rates=lambda step: [0.01 / (1 + step)],
        images_per_step=8,
        seed=11,
        at_epoch_end=None if figures is None else (lambda epoch: {"score": figures[epoch]}),
        select=None if figures is None else "score",
        checkpoint_every=every,
        log_every=2,
    )


def weights(loop: Loop) -> bytes:
    return b"".join(t.numpy().tobytes() for t in loop.model.state_dict().values())


@pytest.mark.parametrize("stop_at", [0, 1, 3, 5, 9, 14])
def test_a_stopped_run_continues_to_the_same_bytes(tmp_path, stop_at):
    whole = make_loop()
    train(whole, folder(tmp_path / "whole"))
    with pytest.raises(KeyboardInterrupt):
        train(make_loop(stop_at=stop_at), folder(tmp_path / "cut"))
    resumed = make_loop()
    train(resumed, folder(tmp_path / "cut"))
    assert weights(resumed) == weights(whole)
    logs = [
        [(line["step"], line.get("loss")) for line in folder(tmp_path / name).history()]
        for name in ("whole", "cut")
    ]
    assert logs[0] == logs[1]


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = make_loop()
    train(first, folder(tmp_path))
    again = make_loop(stop_at=0)
    train(again, folder(tmp_path))
    assert weights(again) == weights(first)


def test_the_best_epoch_is_kept_and_of_equal_ones_the_last(tmp_path):
    loop = make_loop(figures=[0.1, 0.7, 0.2])
    state = train(loop, folder(tmp_path / "a"))
    last = weights(loop)
    assert (state.best, state.best_epoch) == (0.7, 1)
    load_best(loop, folder(tmp_path / "a"))
    assert weights(loop) != last
    state = train(make_loop(figures=[0.0, 0.0, 0.0]), folder(tmp_path / "b"))
    assert state.best_epoch == 2
    state = train(make_loop(figures=[0.3, float("nan"), 0.1]), folder(tmp_path / "c"))
    assert state.best_epoch == 0


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    with pytest.raises(TwinrayError, match="loss is nan and the gradient's norm nan at step 8"):
        train(make_loop(poison_at=7), folder(tmp_path))
    saved = load_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert saved["progress"]["step"] == 6
    assert all(torch.isfinite(t).all() for t in saved["model"].values())
    failed = torch.load(tmp_path / "failed-step.pt", weights_only=True)
    assert failed["step"] == 7 and "nan" in failed["reason"]
    again = make_loop(poison_at=7)  # the broken step, run once more from what was kept
    again.model.load_state_dict(failed["model"])
    seed_everything(failed["seed"], failed["step"])
    assert np.array_equal(failed["batch"].numpy(), next(iter(again.batches(1, 2))))
    assert not torch.isfinite(again.step(failed["batch"].numpy(), failed["step"])["loss"])


def test_three_faulty_log_lines_in_a_row_end_the_run_and_one_does_not(tmp_path):
    seen = iter([None, "odd", None, "odd", "odd", "odd", None])
    loop = dataclasses.replace(make_loop(), fault=lambda figures: next(seen))
    with pytest.raises(TwinrayError, match="odd at step 10 of"):  # log lines at 2, 4, 5, 6, 8, 10
        train(loop, folder(tmp_path))
    assert torch.load(tmp_path / "failed-step.pt", weights_only=True)["reason"] == "odd"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_saves_the_step_and_the_run_goes_on_to_the_same_bytes(tmp_path, number):
    whole = make_loop()
    train(whole, folder(tmp_path / "whole"))
    loop = make_loop(every=0)
    step = loop.step

    def signalled(batch, count):
        if count == 6:
            os.kill(os.getpid(), number)
        return step(batch, count)

    before = signal.getsignal(number)
    ctrl_c = number == signal.SIGINT
    stopped, how = (
        (Interrupted, "interrupted") if ctrl_c else (TwinrayError, f"stopped by {number.name}")
    )
    with pytest.raises(stopped, match=f"{how} after step 7, which is saved in"):
        train(dataclasses.replace(loop, step=signalled), folder(tmp_path / "cut"))
    resumed = make_loop(every=0)
    train(resumed, folder(tmp_path / "cut"))
    assert weights(resumed) == weights(whole)
    assert signal.getsignal(number) is before


def test_a_second_ctrl_c_ends_the_run_at_once_and_one_in_the_last_step_is_not_lost(tmp_path, capfd):
    loop = make_loop(every=0)
    step = loop.step

    def signalled(times, at):
        def one(batch, count):
            for _ in range(times if count == at else 0):
                os.kill(os.getpid(), signal.SIGINT)
            return step(batch, count)

        return dataclasses.replace(loop, step=one)

    with pytest.raises(KeyboardInterrupt) as at_once:
        train(signalled(2, 6), folder(tmp_path / "a"))
    assert not isinstance(at_once.value, Interrupted)
    assert not list((tmp_path / "a" / "checkpoints").glob("step-*"))
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    loop = make_loop(every=0)
    step = loop.step
    with pytest.raises(KeyboardInterrupt):
        train(signalled(1, 14), folder(tmp_path / "b"))
    assert load_checkpoint(tmp_path / "b" / "checkpoints")["progress"]["step"] == 15


def test_kept_checkpoints_are_the_newest_and_the_milestones(tmp_path):
    loop = dataclasses.replace(make_loop(epochs=6), keep=Keep(last=1, every_epochs=2))
    train(loop, folder(tmp_path))
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == [
        f"step-{step:09d}.pt" for step in (10, 20, 30)
    ]


def steps_saved(monkeypatch) -> list[int]:
    """The steps whose checkpoints were written, as they come."""
    real, steps = engine.save_checkpoint, []

    def save(folder, step, *rest):
        steps.append(step)
        real(folder, step, *rest)

    monkeypatch.setattr(engine, "save_checkpoint", save)
    return steps


@pytest.mark.parametrize(
    ("minutes", "every", "figures", "expected"),
    [
        (10, 0, None, [15]),  # the end
        (1e-9, 0, None, list(range(1, 16))),
        (10, 4, None, [4, 8, 12, 15]),
        (10, 0, [0.1, 0.7, 0.2], [5, 10, 15]),  # best epochs, and the end
        (10, 0, [0.7, 0.1, 0.2], [5, 15]),
    ],
)
def test_checkpoints_come_by_time_by_steps_and_with_the_best_epoch(
    tmp_path, monkeypatch, minutes, every, figures, expected
):
    steps = steps_saved(monkeypatch)
    train(
        dataclasses.replace(make_loop(every=every, figures=figures), checkpoint_minutes=minutes),
        folder(tmp_path),
    )
    assert steps == expected


def test_what_is_written_is_the_state_when_it_was_taken(tmp_path, monkeypatch):
    """The write of step 2 is held up until step 4 has changed the weights; a run saved on the spot is the same."""
    plain = make_loop(every=2)
    train(dataclasses.replace(plain, keep=Keep(last=99)), folder(tmp_path / "plain"))
    go_on, real = threading.Event(), engine.save_checkpoint

    def late(folder, step, *rest):
        assert step != 2 or go_on.wait(60)
        real(folder, step, *rest)

    monkeypatch.setattr(engine, "save_checkpoint", late)
    loop = make_loop(every=2)
    loop = dataclasses.replace(
        loop, keep=Keep(last=99), after_step=lambda done: go_on.set() if done == 4 else None
    )
    train(loop, folder(tmp_path / "late"))
    for step in (2, 4, 15):
        one, other = (
            load_checkpoint(tmp_path / name / "checkpoints", step) for name in ("plain", "late")
        )
        assert all(
            torch.equal(one["model"][name], tensor) for name, tensor in other["model"].items()
        )
        assert one["optimizer"]["param_groups"] == other["optimizer"]["param_groups"]
        for number, held in one["optimizer"]["state"].items():
            assert all(
                torch.equal(held[k], value)
                for k, value in other["optimizer"]["state"][number].items()
            )


@pytest.mark.parametrize("fails_at", [4, 15])
def test_a_write_that_fails_ends_the_run(tmp_path, monkeypatch, fails_at):
    real = engine.save_checkpoint

    def save(folder, step, *rest):
        if step == fails_at:
            raise OSError("disk gone")
        real(folder, step, *rest)

    monkeypatch.setattr(engine, "save_checkpoint", save)
    seen = []
    loop = dataclasses.replace(make_loop(every=2), after_step=seen.append)
    with pytest.raises(
        TwinrayError, match="could not write a checkpoint: disk gone; the one before is kept"
    ):
        train(loop, folder(tmp_path))
    assert seen[-1] <= fails_at + 2  # the next checkpoint waits for this one
    assert load_checkpoint(tmp_path / "checkpoints")["progress"]["step"] == (
        2 if fails_at == 4 else 14
    )


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(tmp_path):
    loop = make_loop()
    step = loop.step

    def poisoned(batch, number):
        values = step(batch, number)
        if number == 9:  # the last step of an epoch: its weights would be in the checkpoint
            loop.model[0].weight.grad[0, 0] = float("inf")
        return values

    with pytest.raises(TwinrayError, match="gradient's norm inf at step 10"):
        train(dataclasses.replace(loop, step=poisoned), folder(tmp_path))
    assert all(torch.isfinite(t).all() for t in loop.model.state_dict().values())
    saved = load_checkpoint(tmp_path / "checkpoints")
    assert saved is not None
    assert all(torch.isfinite(t).all() for t in saved["model"].values())


def test_what_a_kill_left_half_written_is_cleared(tmp_path):
    save_checkpoint(tmp_path, 1, {"x": torch.tensor(1)}, Keep(), 5)
    (tmp_path / ".step-000000002.pt.4711.tmp").write_bytes(b"half")
    assert load_checkpoint(tmp_path) is not None
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.pt"]


def test_a_log_line_cut_short_by_a_kill_is_left_out(tmp_path):
    run = folder(tmp_path)
    run.log({"step": 1, "loss": 2.0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert run.history() == [{"step": 1, "loss": 2.0}]
    run.forget_after(1)
    assert (tmp_path / "metrics.jsonl").read_text() == json.dumps({"step": 1, "loss": 2.0}) + "\n"


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, {"x": torch.tensor(step)}, Keep(), 5)
    kept = sorted(p.name for p in tmp_path.iterdir())
    assert len(kept) == Keep().last
    newest = tmp_path / kept[-1]
    newest.write_bytes(newest.read_bytes()[:100])
    state = load_checkpoint(tmp_path)
    assert state is not None
    assert int(state["x"]) == 2
    assert "damaged" in capsys.readouterr().err
    assert not newest.exists()  # or it would count among the newest, for ever
    save_checkpoint(tmp_path, 3, {"x": torch.tensor(3)}, Keep(), 5)
    newest.write_bytes(b"")
    (tmp_path / kept[0]).write_bytes(b"")
    with pytest.raises(InputError, match="none of the 2 checkpoints"):
        load_checkpoint(tmp_path)


def test_epochs_are_permutations_that_the_seed_decides():
    batches = epoch_order(103, 10, seed=1, epoch=4)
    assert len(batches) == 10
    flat = np.concatenate(batches)
    assert len(set(flat.tolist())) == 100
    assert all(
        np.array_equal(a, b)
        for a, b in zip(batches, epoch_order(103, 10, seed=1, epoch=4), strict=True)
    )
    assert not np.array_equal(flat, np.concatenate(epoch_order(103, 10, seed=1, epoch=5)))
    assert sorted(
        np.concatenate(epoch_order(103, 10, seed=1, epoch=4, drop_last=False)).tolist()
    ) == list(range(103))


def test_prefetch_keeps_order_passes_errors_on_and_ends():
    batches = [np.array([i]) for i in range(20)]
    assert list(prefetch(lambda b: int(b[0]), batches)) == list(range(20))

    def fail(batch):
        if batch[0] == 3:
            raise OSError("disk gone")
        return int(batch[0])

    iterator = prefetch(fail, batches)
    assert [next(iterator) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(iterator)
    early = prefetch(lambda b: int(b[0]), batches)
    assert next(early) == 0
    early.close()


def test_gather_takes_rows_of_several_arrays_in_the_order_asked_for():
    arrays = [
        np.arange(24, dtype=np.uint8).reshape(6, 2, 2),
        np.arange(100, 116, dtype=np.uint8).reshape(4, 2, 2),
    ]
    rows = np.array([[0, 5], [1, 0], [0, 1], [1, 3]])
    source = PixelSource(arrays, rows)
    picked = source.gather(np.array([3, 0, 1, 2]))
    expected = np.stack([arrays[1][3], arrays[0][5], arrays[1][0], arrays[0][1]])
    assert np.array_equal(picked.numpy(), expected)


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_several_threads_gather_the_same_bytes_into_memory_that_is_given(monkeypatch, n):
    rng = np.random.default_rng(n)
    arrays = [rng.integers(0, 256, (length, 4, 5, 3), dtype=np.uint8) for length in (30, 1, 12)]
    rows = np.concatenate(
        [np.stack([np.full(len(a), i), np.arange(len(a))], axis=1) for i, a in enumerate(arrays)]
    )
    source, at = PixelSource(arrays, rows), rng.integers(0, len(rows), n)
    expected = np.concatenate(arrays)[at]
    assert np.array_equal(source.gather(at).numpy(), expected)
    monkeypatch.setattr(loader, "_LARGE", 0)
    monkeypatch.setattr(loader, "_threads", lambda: 3)
    out = torch.zeros(source.shape(n), dtype=torch.uint8)
    assert source.gather(at, out=out) is out
    assert np.array_equal(out.numpy(), expected)
