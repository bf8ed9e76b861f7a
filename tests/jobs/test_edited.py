"""Files that figures depend on are those that were written, or nobody can miss that they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml

from run_copies import copied
from support import DETECT, PRETRAIN, twinray

REFUSED = "--allow-edited"


@pytest.fixture(scope="module")
def probe(class_pack: Path, tmp_path_factory) -> Path:
    """A classifier, through the real command line."""
    out = tmp_path_factory.mktemp("runs") / "probe"
    arguments = ("--arch", "resnet18", "--size", 64, "--seeds", 0, 1, "--bootstrap", 20)
    twinray("classify", "--data", class_pack, "--out", out, *arguments, check=True)
    return out


def as_truth(run: Path) -> None:
    """Predictions replaced by the truth: a perfect detector."""
    truth = json.loads((run / "truth.json").read_text())
    keys = ("image_id", "category_id", "bbox")
    perfect = [{**{k: a[k] for k in keys}, "score": 1.0} for a in truth["annotations"]]
    (run / "predictions.json").write_text(json.dumps(perfect))


def without_boxes(run: Path) -> None:
    """Boxes that the detector missed are gone."""
    truth = json.loads((run / "truth.json").read_text())
    (run / "truth.json").write_text(json.dumps({**truth, "annotations": truth["annotations"][:1]}))


def unmarked(run: Path) -> None:
    """Notes that a reader should have seen are gone."""
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(json.dumps({**metrics, "notes": []}))


def unseen(run: Path) -> None:
    (run / "seen.json").unlink()


def unsealed(run: Path) -> None:
    (run / "checksums.json").unlink()


def renamed(run: Path) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**config, "seed": 5}))


EDITS = {
    as_truth: "predictions.json",
    without_boxes: "truth.json",
    unmarked: "metrics.json",
    unseen: "seen.json",
    unsealed: "checksums.json",
    renamed: "config.yaml",
}


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_a_run_that_was_edited_is_refused_or_marked(detect_run, cli, tmp_path, edit) -> None:
    run = tmp_path / "run"
    copied(detect_run, run)
    assert cli("evaluate", run, "--bootstrap", 0)[0] == 0
    edit(run)
    status, _, told = cli("evaluate", run, "--bootstrap", 0)
    assert (status, len(told.splitlines())) == (2, 1)
    assert EDITS[edit] in told and REFUSED in told
    out = tmp_path / "out"
    status, shown, told = cli("evaluate", run, "--bootstrap", 0, REFUSED, "--out", out)
    assert status == 0, told
    assert f"warning: EDITED: {EDITS[edit]}" in shown
    results = json.loads((out / "metrics.json").read_text())
    assert any("EDITED" in note for note in results["warnings"])
    assert all("EDITED" in "".join(one["notes"]) for one in results["runs"].values())
    assert "EDITED" in (out / "report.html").read_text()


def test_what_another_detector_predicted_is_not_this_ones(detect_run, cli, tmp_path) -> None:
    """Model, weights and val thresholds are checked where they are used too."""
    run = tmp_path / "run"
    copied(detect_run, run)
    described = json.loads((run / "model.json").read_text())
    described["thresholds"] = None
    (run / "model.json").write_text(json.dumps(described))
    image = tmp_path / "image.png"
    from PIL import Image

    Image.fromarray(np.zeros((64, 64), np.uint8)).save(image)
    status, _, told = cli("predict", run, image, "--out", tmp_path / "p", "--device", "cpu")
    assert (status, REFUSED in told, "model.json" in told) == (2, True, True)
    status, shown, told = cli(
        "predict", run, image, "--out", tmp_path / "p", "--device", "cpu", REFUSED
    )
    assert status == 0, told
    assert "EDITED" in shown
    assert "EDITED" in json.loads((tmp_path / "p" / "summary.json").read_text())["edited"][0]


@pytest.mark.parametrize("name", ["predictions.parquet", "metrics.json"])
def test_scores_of_a_classifier_that_were_edited(probe, cli, tmp_path, name) -> None:
    run = tmp_path / "run"
    copied(probe, run)
    assert cli("evaluate", run, "--bootstrap", 0)[0] == 0
    if name == "metrics.json":
        unmarked(run)
    else:
        table = pq.read_table(run / name)
        for at, column in enumerate(table.column_names):
            if column.startswith("score:"):
                truth = table.column(column.replace("score:", "truth:")).cast(pa.float64())
                table = table.set_column(at, column, truth)
        pq.write_table(table, run / name)
    status, _, told = cli("evaluate", run, "--bootstrap", 0)
    assert (status, name in told, REFUSED in told) == (2, True, True)


def test_older_runs_open_and_say_that_nobody_can_verify_them(detect_run, cli, tmp_path) -> None:
    runs = []
    for name in ("one", "two"):
        copied(detect_run, tmp_path / name)
        (tmp_path / name / "checksums.json").unlink()
        metrics = json.loads((tmp_path / name / "metrics.json").read_text())
        metrics.pop("checksums")
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
        runs.append(tmp_path / name)
    status, shown, told = cli("evaluate", *runs, "--apart", "--bootstrap", 0)
    assert status == 0, told
    assert shown.count("cannot be verified") == 1
    assert "EDITED" not in shown


def swapped(table: pa.Table) -> pa.Table:
    """Images of train and of test have changed sides."""
    other = {"train": "test", "test": "train", "val": "val"}
    splits = pa.array([other[split] for split in table.column("split").to_pylist()])
    return table.set_column(table.column_names.index("split"), "split", splits)


def turned(table: pa.Table) -> pa.Table:
    """Every label is its opposite."""
    at = table.column_names.index("labels")
    labels = [None if row is None else row[::-1] for row in table.column("labels").to_pylist()]
    return table.set_column(at, "labels", pa.array(labels, table.schema.field("labels").type))


def write_table(edit):
    def apply(pack: Path) -> None:
        table = pq.read_table(pack / "samples.parquet")
        pq.write_table(edit(table), pack / "samples.parquet")

    apply.__name__ = edit.__name__
    return apply


def other_classes(pack: Path) -> None:
    """The names of the classes have changed places."""
    raw = json.loads((pack / "pack.json").read_text())
    raw["label_classes"] = raw["label_classes"][::-1]
    (pack / "pack.json").write_text(json.dumps(raw))


def other_pixels(pack: Path) -> None:
    images = np.lib.format.open_memmap(pack / "images.npy", mode="r+")
    images[:] = images[::-1].copy()
    images.flush()


PACKS = {
    write_table(swapped): "samples.parquet",
    write_table(turned): "samples.parquet",
    other_classes: "pack.json",
    other_pixels: "images.npy",
}


@pytest.mark.parametrize("edit", PACKS, ids=lambda edit: edit.__name__)
def test_a_pack_that_was_edited_is_refused_or_marked(class_pack, cli, tmp_path, edit) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(class_pack, pack)
    edit(pack)
    verbs = {
        "pretrain": (*PRETRAIN, "--epochs", 1),
        "classify": ("--arch", "resnet18", "--size", 64, "--seeds", 0, "--bootstrap", 0),
        "embed": ("--arch", "resnet18", "--size", 32, "--bootstrap", 0, "--maps", "pca"),
    }
    marks = {"pretrain": "metrics.json", "classify": "metrics.json", "embed": "embedding.json"}
    for verb, more in verbs.items():
        out = tmp_path / verb
        status, _, told = cli(verb, "--data", pack, *more, "--out", out)
        assert (status, PACKS[edit] in told, REFUSED in told) == (2, True, True), (verb, told)
        shutil.rmtree(out, ignore_errors=True)
        status, _, told = cli(verb, "--data", pack, *more, "--out", out, REFUSED)
        assert status == 0, told
        assert f"note: EDITED: {PACKS[edit]}" in told.replace(f"{pack}/", "") or "pixels" in told
        assert "EDITED" in "".join(json.loads((out / marks[verb]).read_text())["notes"])


def test_an_edited_pack_marks_an_evaluation_and_what_learns_from_it(
    detect_run, blob_pack, cli, tmp_path
) -> None:
    pack = tmp_path / "pack"
    shutil.copytree(blob_pack, pack)
    write_table(swapped)(pack)
    arguments = ("evaluate", detect_run, "--data", pack, "--bootstrap", 0, "--device", "cpu")
    status, _, told = cli(*arguments)
    assert (status, "samples.parquet" in told, REFUSED in told) == (2, True, True)
    status, _, told = cli(*arguments, REFUSED)
    assert status == 2 and "seen in the training" in told  # it is not the pack of the run any more
    out = tmp_path / "e"
    status, shown, told = cli(*arguments, REFUSED, "--allow-seen", "--out", out)
    assert status == 0, told
    assert "warning: EDITED: " in shown
    assert "EDITED" in (out / "report.html").read_text()


def stopped(run: Path, seed: int, pack: Path) -> tuple[object, ...]:
    """A pre-training that has checkpoints and did not end; its command, to be resumed."""
    command = ("pretrain", "--data", pack, "--out", run, *PRETRAIN, "--epochs", 2, "--seed", seed)
    twinray(*command, check=True)
    for name in ("metrics.json", "checksums.json", "backbone.json", "backbone.safetensors"):
        (run / name).unlink()
    newest = max((run / "checkpoints").glob("step-*.pt"))
    state = torch.load(newest, weights_only=True)
    state["progress"]["step"] -= 1
    newest.unlink()
    torch.save(state, newest.with_name(f"step-{state['progress']['step']:09d}.pt"))
    return (*command, "--resume")


def test_a_checkpoint_of_another_seed_is_refused(class_pack, cli, tmp_path) -> None:
    commands = [stopped(tmp_path / f"seed{seed}", seed, class_pack) for seed in (0, 1)]
    for path in (tmp_path / "seed0" / "checkpoints").glob("*.pt"):
        path.unlink()
    for path in (tmp_path / "seed1" / "checkpoints").glob("*.pt"):
        shutil.copy(path, tmp_path / "seed0" / "checkpoints" / path.name)
    status, _, told = cli(*commands[0])
    assert (status, len(told.splitlines())) == (2, 1)
    assert "seed was 1, now 0" in told and "step-" in told
    assert cli(*commands[1])[0] == 0  # its own are taken


def test_best_weights_of_another_run_are_refused(blob_pack, cli, tmp_path) -> None:
    out = tmp_path / "run"
    command = ("detect", "--data", blob_pack, "--out", out, "--epochs", 1, *DETECT)
    twinray(*command, check=True)
    for name in ("metrics.json", "checksums.json", "model.json", "model.safetensors"):
        (out / name).unlink()
    best = out / "checkpoints" / "best.safetensors"
    with safetensors.safe_open(best, "pt") as file:
        said = file.metadata()
    other = {**said, "run": said["run"].replace('"seed": 0', '"seed": 7')}
    best.write_bytes(safetensors.torch.save(safetensors.torch.load_file(best), other))
    status, _, told = cli(*command, "--resume")
    assert (status, "best.safetensors is of another run (seed was 7, now 0)" in told) == (2, True)
