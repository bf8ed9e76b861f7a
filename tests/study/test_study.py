"""A small study for real: seal, opening, deviations, failures, kills."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import torchvision
import yaml
from rich.console import Console

from support import twinray
from twinray.errors import InputError, TwinrayError
from twinray.evaluation.record import read_split
from twinray.files import folders_freed
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.run import run as evaluate
from twinray.runs.folder import read_metrics
from twinray.studies import run as verb
from twinray.studies.config import StudyConfig
from twinray.studies.plan.build import build
from twinray.studies.plan.file import read_study
from twinray.studies.report.gather import gather
from twinray.studies.results.state import collect
from twinray.studies.runner.place import Place
from twinray.studies.runner.worker import work
from twinray.studies.sealed.deviations import deviations
from twinray.studies.sealed.opening import open_study
from warm_process import Process


def content(folder: Path) -> dict:
    small = {"arch": "resnet18", "size": 32, "precision": "float32"}
    detector = {
        "arch": "resnet18", "size": 64, "batch_size": 4, "epochs": 2, "fpn_channels": 32, "box_head_width": 64,
        "rois_per_image": 32, "anchor_scale": 4, "precision": "float32", "checkpoint_every": 1,
    }  # fmt: skip
    return {
        "study": "Toy",
        "packs": {"pack": {"format": "phantom", "size": 64, "val": 0.2, "test": 0.4, "phantom_images": 30}},
        "arms": ["random", {"name": "other", "init": str(folder / "other.pth")}],
        "tasks": {
            "labels": {"verb": "classify", "pack": "pack", "fractions": [0.5, 1], "options": small},
            "lesions": {"verb": "detect", "pack": "pack", "arms": ["random"], "options": detector},
        },
        "options": {"all": {"bootstrap": 20, "device": "cpu"}},
    }  # fmt: skip


def written(folder: Path, study: dict) -> Path:
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("study")
    torch.manual_seed(5)
    torch.save(torchvision.models.resnet18().state_dict(), path / "other.pth")
    return path


def prepared(file: Path, out: Path) -> tuple[Place, object]:
    plan = build(*(read := read_study(file)))
    return verb._opened(StudyConfig(file=file, out=out), plan, read[1]), plan


@pytest.fixture(scope="module")
def sealed(folder) -> Path:
    """All runs done, by a worker in this process; nothing opened."""
    out = folder / "sealed"
    place, _ = prepared(written(folder, content(folder)), out)
    with folders_freed():
        assert work(place.path) == 8  # a pack, a feature pass an arm, five runs
    return out


@pytest.fixture(scope="module")
def opened(sealed, folder) -> Path:
    out = folder / "opened"
    shutil.copytree(sealed, out)
    state = finish(out, folder)
    assert state.opened
    return out


def finish(out: Path, folder: Path, **more):
    return verb.run(
        StudyConfig(file=folder / "study.yaml", out=out, threads=1, **more), Console(quiet=True)
    )


def copy(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "copy"))


def kinds(study: Path) -> Counter:
    return Counter(one.kind for one in deviations(Place(study)))


def test_a_sealed_run_has_predictions_and_no_test_figure_anywhere(sealed):
    runs = [piece for piece in collect(sealed).pieces if piece.node.measured]
    assert len(runs) == 5
    for piece in runs:
        assert "test" not in read_metrics(piece.folder) and "val" in piece.figures
        assert "test" not in piece.figures
        assert "test_auc" not in (piece.folder / "metrics.jsonl").read_text()
        for name in ("predictions.parquet", "predictions.json"):
            if (piece.folder / name).is_file():
                break
        else:
            pytest.fail("no predictions of the test images")
        with pytest.raises(
            InputError, match="are sealed until every planned run of its study is done"
        ):
            evaluate(EvaluateConfig((piece.folder,)))
        pack = (
            sealed / "packs" / next(read.node for read in piece.node.reads if read.option == "data")
        )
        with pytest.raises(InputError, match="are sealed"):
            evaluate(EvaluateConfig((piece.folder,), data=pack))


def test_validation_figures_of_a_sealed_run_are_free(sealed, capsys):
    run = next(piece.folder for piece in collect(sealed).measured())
    assert evaluate(EvaluateConfig((run,), split="val", bootstrap=5)).split == "val"


def test_the_sealed_figures_are_those_of_the_same_run_without_a_seal(opened, tmp_path):
    """The oracle is the verb itself: the same options, no seal."""
    checked = 0
    for piece in collect(opened).measured():
        if piece.node.kind == "classify" and piece.node.cells[0].fraction == 1:
            words = json.loads(json.dumps(dict(piece.node.options)))
            pack = opened / "packs" / next(r.node for r in piece.node.reads if r.option == "data")
            init = next(r.path for r in piece.node.reads if r.option == "init")
            kept = next(r.node for r in piece.node.reads if r.option == "kept_features")
            del words["seal"]
            given = [
                part
                for name, value in words.items()
                for part in (
                    "--" + name.replace("_", "-"),
                    *(value if isinstance(value, list) else [value]),
                )
            ]
            out = tmp_path / piece.node.id
            twinray(
                "classify",
                "--data",
                pack,
                "--init",
                init,
                "--out",
                out,
                "--device",
                "cpu",
                "--kept-features",
                opened / "runs" / kept,
                *given,
                check=True,
            )
            metrics = read_metrics(out)
            own = read_split(metrics["test"], "the run's own")
            found = piece.figures["test"]
            pairs = [(found.figures, own.figures)]
            pairs += [(found.per_class[c].figures, own.per_class[c].figures) for c in own.per_class]
            for one, other in pairs:
                assert list(one) == list(other)
                for measure in one:  # sums over arrays of another layout differ in the last digit
                    a, b = one[measure], other[measure]
                    assert a.value == (
                        None if b.value is None else pytest.approx(b.value, rel=1e-12)
                    )
                    assert (a.n, a.note, a.ci95 is None) == (b.n, b.note, b.ci95 is None)
                    assert a.ci95 is None or a.ci95 == pytest.approx(b.ci95, rel=1e-9)
            checked += 1
            break
    assert checked


def test_the_tidy_table_holds_every_figure_once(opened):
    table = pq.read_table(opened / "results" / "figures.parquet").to_pylist()
    state = collect(opened)
    for piece in state.measured():
        for split in ("val", "test"):
            own = [r for r in table if (r["run"], r["split"]) == (piece.node.id, split)]
            keys = [(r["images"], r["class_name"], r["metric"]) for r in own]
            assert len(set(keys)) == len(keys) > 0
            main = "map50" if piece.node.kind == "detect" else "auc"
            (row,) = [
                r for r in own if (r["images"], r["class_name"], r["metric"]) == ("all", "", main)
            ]
            figure = piece.figures[split].figures[main]
            assert (row["value"], row["n"]) == (figure.value, figure.n)
    assert {r["arm"] for r in table} == {"random", "other"}


def test_the_same_command_again_repeats_nothing(opened, folder, tmp_path):
    study = copy(opened, tmp_path)
    before = {path.name: path.read_bytes() for path in (study / "results").iterdir()}
    lines = (study / "journal.jsonl").read_bytes()
    finish(study, folder)
    assert (study / "journal.jsonl").read_bytes() == lines
    assert {path.name: path.read_bytes() for path in (study / "results").iterdir()} == before
    assert kinds(study) == {}


# --- deviations ---


def test_runs_added_and_options_changed_are_listed(opened, folder, tmp_path):
    study = copy(opened, tmp_path)
    shutil.copy(folder / "other.pth", tmp_path)
    changed = content(tmp_path)
    changed["tasks"]["labels"]["seeds"] = [0, 1]
    changed["tasks"]["lesions"]["options"]["lr"] = 0.01
    prepared(written(tmp_path, changed), study)
    found = deviations(Place(study))
    added = [one for one in found if one.kind == "run added"]
    assert len(added) == 4 and all("seed 1" in one.what for one in added)
    assert all("after the test images were opened" in one.what for one in added)
    (option,) = [one for one in found if one.kind == "option changed"]
    assert option.what.startswith("detect lr: default before, 0.01 now, in 1 run")
    fewer = content(tmp_path)
    del fewer["tasks"]["lesions"]
    prepared(written(tmp_path, fewer), study)
    assert kinds(study)["run left out"] == 5


@pytest.mark.parametrize("late", [False, True])
def test_another_question_or_comparison_is_listed(folder, tmp_path, late):
    """Runs stay as they are; what is asked of them is chosen after a look."""
    shutil.copy(folder / "other.pth", tmp_path)
    place, plan = prepared(written(tmp_path, content(tmp_path)), tmp_path / "out")
    if late:
        place.journal.append("opened", early=False, not_done=[], pieces=[])
    changed = content(tmp_path)
    changed["question"] = "Do random weights do better?"
    changed["arms"].reverse()
    changed["tasks"] = dict(reversed(changed["tasks"].items()))
    _, other = prepared(written(tmp_path, changed), place.path)
    assert {one.id for one in other.measured()} == {one.id for one in plan.measured()}
    found = deviations(place)
    assert {(one.kind, one.what.partition(":")[0]) for one in found} == {
        ("question changed", "question"),
        ("question changed", "task that answers"),
        ("question changed", "arms of labels, first to last"),
    }
    assert all(one.what.endswith("after the test images were opened") == late for one in found)
    assert "labels before, lesions now" in next(o.what for o in found if "answers" in o.what)


def test_a_run_that_is_done_again_is_listed(sealed, tmp_path):
    study = copy(sealed, tmp_path)
    run = next(p.node for p in collect(study).measured() if p.node.kind == "classify")
    for path in (study / "claims").glob(f"{run.id}.*"):
        path.unlink()
    shutil.rmtree(run.folder(study))
    with folders_freed():
        assert work(study) == 1
    (one,) = deviations(Place(study))
    assert one.kind == "run repeated" and one.runs == (run.id,)


@pytest.mark.parametrize(
    "name", ["metrics.json", "predictions.csv", "opened.json", "journal", "plan", "study.yaml", "study.json", "done"]
)  # fmt: skip
def test_an_edited_file_is_listed(opened, tmp_path, name):
    study = copy(opened, tmp_path)
    run = next(p for p in collect(study).measured() if p.node.kind == "classify")
    path = {
        "journal": study / "journal.jsonl",
        "plan": study / "plan.json",
        "done": study / "claims" / f"{run.node.id}.done",
    }.get(name) or (study / name if name.startswith("study.") else run.folder / name)
    text = path.read_text()
    number = next(i for i, letter in enumerate(text) if letter.isdigit() and i > 40)
    if name == "plan":
        text = text.replace('"arm": "other"', '"arm": "mine"', 1)
    elif name == "done":
        text = text.replace('"metrics.json": "', '"metrics.json": "0')
    elif name == "study.json":
        text = text.replace('"file": "', '"file": "0')
    elif name == "study.yaml":
        text += "# later\n"
    else:
        text = text[:number] + str((int(text[number]) + 1) % 10) + text[number + 1 :]
    path.write_text(text)
    assert set(kinds(study)) == {"file edited"}


def test_figures_of_nobody_are_measured_and_the_first_hash_of_figures_stays(
    sealed, folder, tmp_path
):
    study = copy(sealed, tmp_path)
    piece = next(p for p in collect(study).measured() if p.node.kind == "classify")
    (piece.folder / "opened.json").write_text('{"test": {}}')  # no opening is on record
    place = Place(study)
    (told,) = deviations(place)
    assert told.what.endswith("no opening is on record") and told.runs == (piece.node.id,)
    assert open_study(place, place.plan()) == 5 and open_study(place, place.plan()) == 0
    path = piece.folder / "opened.json"
    assert json.loads(path.read_text())["test"]["n_images"] > 0 and not kinds(study)
    path.write_text(path.read_text() + " ")
    other = next(p.folder for p in collect(study).measured() if p.folder != piece.folder)
    (other / "opened.json").unlink()  # as if it were done later: all figures are listed again
    assert open_study(place, place.plan()) == 1
    edited = {one.runs[0] for one in deviations(place) if one.kind == "file edited"}
    assert piece.node.id in edited


def test_two_coordinators_open_once(sealed, tmp_path):
    study = copy(sealed, tmp_path)
    code = (
        "import sys, pathlib; from twinray.studies.runner.place import Place; from twinray.studies.sealed.opening import open_study\n"
        "place = Place(pathlib.Path(sys.argv[1])); print('ready', flush=True); sys.stdin.readline(); print(open_study(place, place.plan()))"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(study)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    for one in both:
        assert one.stdout.readline() == "ready\n"
    for one in both:
        one.stdin.write("\n")
        one.stdin.flush()
    assert sorted(int(one.communicate()[0]) for one in both) == [0, 5]
    events = Counter(event.what for event in Place(study).journal.events())
    assert events["opened"] == events["figures"] == 1 and not kinds(study)


def test_arms_that_differ_on_purpose_are_listed(folder, tmp_path):
    shutil.copy(folder / "other.pth", tmp_path)
    changed = content(tmp_path)
    changed["tasks"]["labels"]["by_arm"] = {"other": {"size": 64}}
    changed["unfair"] = [{"option": "size", "reason": "it was made for larger images"}]
    place, _ = prepared(written(tmp_path, changed), tmp_path / "out")
    (one,) = deviations(place)
    assert one.kind == "arms differ" and "it was made for larger images" in one.what


def test_a_failed_run_keeps_the_seal_and_is_named_and_may_be_tried_again(folder, tmp_path):
    broken = content(tmp_path)
    del broken["tasks"]["lesions"]
    broken["tasks"]["labels"]["fractions"] = [1]
    (tmp_path / "other.pth").write_bytes(b"no weights")
    file, out = written(tmp_path, broken), tmp_path / "out"
    place, plan = prepared(file, out)
    with folders_freed():
        assert (
            work(out) == 3
        )  # the pack, and the arm whose weights can be read: its features and its run
    config = StudyConfig(file=file, out=out, threads=1)
    with pytest.raises(TwinrayError, match=r"1 of 5 pieces .* failed"):
        verb.run(config, Console(quiet=True))
    state = collect(out)
    (failed,) = state.of("failed")
    assert "other.pth" in failed.reason and "\n" not in failed.reason and not state.opened
    assert failed.reason in (out / "results" / "runs.csv").read_text()
    (missing,) = [run for run in gather(state).result.runs if run.state != "done"]
    assert missing.arm == "other" and failed.reason in missing.reason  # what it waits for is named
    with pytest.raises(InputError, match="the test images stay sealed"):
        open_study(place, plan)
    with pytest.raises(TwinrayError):
        verb.run(StudyConfig(file=file, out=out, threads=1, open_anyway=True), Console(quiet=True))
    assert kinds(out) == {"opened early": 1}
    assert len([p for p in collect(out).measured() if "test" in p.figures]) == 1


def test_another_study_and_a_foreign_folder_are_refused(opened, folder, tmp_path):
    other = written(tmp_path, {**content(folder), "study": "Another"})
    with pytest.raises(InputError, match="holds the study 'Toy', not 'Another'"):
        verb.run(StudyConfig(file=other, out=opened))
    (tmp_path / "notes.txt").write_text("the file of a study may lie in its folder, others may not")
    with pytest.raises(InputError, match="holds files and is no study"):
        verb.run(StudyConfig(file=other, out=tmp_path))


# --- kills ---


def start(file: Path, out: Path) -> Process:
    words = ["-m", "twinray", "study", file, "--out", out, "--threads", 1]
    return Process(words, {**os.environ, "OMP_NUM_THREADS": "1"})


def holder(out: Path, kind: str, *, step: bool = False) -> int:
    """Process id of the worker that does a piece of a kind, once it has begun (with ``step``: and saved a step)."""
    until = time.monotonic() + 200
    while time.monotonic() < until:
        time.sleep(0.05)
        if not (out / "plan.json").is_file():
            continue
        place = Place(out)
        for one in place.plan():
            if one.kind == kind and place.claims.state(one.id) == "running":
                saved = [*one.folder(out).glob("checkpoints/step-*.pt")]
                held = place.claims.holder(one.id)
                if held is not None and (saved or not step):
                    return held.process.pid
    raise AssertionError(f"nobody began to {kind}")


@pytest.mark.timeout(600)
def test_killed_at_two_moments_and_run_again_it_ends_with_the_same_table(opened, folder, tmp_path):
    out = tmp_path / "out"
    file = folder / "study.yaml"
    coordinator = start(file, out)
    os.kill(
        holder(out, "detect", step=True), signal.SIGKILL
    )  # the worker: the coordinator starts another
    worker = holder(out, "classify")
    coordinator.kill()
    os.kill(worker, signal.SIGKILL)
    coordinator.wait()
    assert not (out / "results").exists()
    again = start(file, out)
    assert again.wait(timeout=240) == 0
    for name in ("figures.csv", "figures.parquet", "runs.csv", "deviations.csv"):
        assert (out / "results" / name).read_bytes() == (opened / "results" / name).read_bytes()
    events = Place(out).journal.events()
    done = Counter(e.about["piece"] for e in events if e.what == "done")
    begun = Counter(e.about["piece"] for e in events if e.what == "begun")
    assert set(done.values()) == {1} and len(done) == 8
    assert sum(begun.values()) == 10  # two were begun twice, and no finished one


@pytest.mark.long
@pytest.mark.timeout(3000)
def test_killed_ten_times_at_random_moments_it_ends_with_the_same_table(tmp_path):
    """Worker, coordinator or all of them; the script compares tables, and counts from the journal."""
    script = Path(__file__).resolve().parents[2] / "benchmarks" / "study_kills.py"
    words = [sys.executable, str(script), "--kills", "10", "--out", str(tmp_path / "out")]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
