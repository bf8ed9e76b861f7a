"""Whatever becomes of the files that the product wrote itself: they are read, or refused in one line that names the file.

Each file is changed in many ways: values of other kinds, keys that are gone, numbers that no float or int64 holds, bytes
turned, ends cut off, another encoding. A reader may take the result or raise ``InputError``; anything else is a defect.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
import yaml

from twinray.backbones.weight_file import read_tensors
from twinray.checks import options
from twinray.classification.draws import kept_draw, kept_tuning
from twinray.cli import main
from twinray.data.pack import open_pack
from twinray.data.packing.journal import Journal
from twinray.data.splitting.record import GivenSplits
from twinray.detection.config import DetectConfig
from twinray.errors import InputError, TwinrayError
from twinray.evaluation.coco_json import read_predictions, read_truth
from twinray.evaluation.labels.cutoffs import label_thresholds_from_json
from twinray.evaluation.thresholds import thresholds_from_json
from twinray.inference.model import load_model
from twinray.jobs.evaluate.options import model_options, recipe
from twinray.jobs.evaluate.stored import kept, read_runs
from twinray.runs.checksums import check_files, write_checksums
from twinray.runs.description import read_description, read_weight_description
from twinray.runs.folder import RunFolder, open_run, read_config
from twinray.runs.notes import metrics_of, own_notes
from twinray.runs.results import (
    LabelPredictions,
    read_label_predictions,
    split_figures,
    thresholds_on_val,
    write_label_predictions,
)
from twinray.runs.seen import read_seen
from twinray.training.checkpoint import load_checkpoint
from twinray.verbs import VERBS, load

FIXTURES = Path(__file__).parent / "fixtures" / "generations"
ODD: tuple[Any, ...] = (
    None, "", "x", "a" * 300, -1, 0, 1, 2.5, 1e308, -1e308, 10**30, -(10**400), True, [], {}, [[]], [None], ["x", 1],
    {"x": 1}, {"value": "x"}, "\ud800", "\x00", float("nan"), float("inf"), 2**63, 2**31, "nan", [10**30], "../x", [1, [2, [3]]],
)  # fmt: skip
FEW = 60
MANY = 2500


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a JSON value."""
    yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, inner in items:
        yield from places(inner, (*path, key))


def changed(value: Any, rng: np.random.Generator) -> Any:
    """The value with one or two places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(int(rng.integers(1, 3))):
        every = list(places(value))
        path = every[int(rng.integers(len(every)))]
        odd = ODD[int(rng.integers(len(ODD)))]
        if not path:
            if rng.random() < 0.1:
                value = copy.deepcopy(odd)
            continue
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        way = rng.random()
        if way < 0.15:
            del holder[path[-1]]
        elif way < 0.25 and isinstance(holder, dict):
            holder[str(path[-1]) + "x"] = copy.deepcopy(odd)
        elif way < 0.3 and isinstance(holder, list):
            holder.append(holder[path[-1]])
        else:
            holder[path[-1]] = copy.deepcopy(odd)  # one place of the list would hold itself later
    return value


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """The bytes turned, cut, doubled, or in another encoding."""
    way = int(rng.integers(8))
    if way == 0:
        return data[: int(rng.integers(len(data) + 1))]
    if way == 1:
        return b"\xef\xbb\xbf" + data
    if way == 2:
        return data.decode("utf-8", "replace").encode("utf-16")
    if way == 3:
        return data + data[: int(rng.integers(len(data) + 1))]
    if way == 4:
        return bytes(rng.integers(0, 256, int(rng.integers(200)), dtype=np.uint8))
    if way == 5:
        return b"[" * 100_000
    turned = bytearray(data)
    for at in rng.integers(0, max(len(turned), 1), int(rng.integers(1, 6))):
        if turned:
            turned[at] = int(rng.integers(256))
    return bytes(turned)


def as_json(data: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.2:
        return damaged(data, rng)
    text = json.dumps(changed(json.loads(data), rng), ensure_ascii=True)
    return text.encode("utf-8")


def as_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """A file of JSON lines, one of them changed."""
    if rng.random() < 0.3:
        return damaged(data, rng)
    lines = data.splitlines()
    at = int(rng.integers(len(lines)))
    lines[at] = json.dumps(changed(json.loads(lines[at]), rng)).encode()
    return b"\n".join(lines) + b"\n"


def as_yaml(data: bytes, rng: np.random.Generator) -> bytes:
    if rng.random() < 0.3:
        return damaged(data, rng)
    return yaml.safe_dump(changed(yaml.safe_load(data), rng), allow_unicode=True).encode(
        "utf-8", "replace"
    )


def as_table(data: bytes, rng: np.random.Generator) -> bytes:
    """A Parquet table of another schema."""
    if rng.random() < 0.2:
        return damaged(data, rng)
    table = pq.read_table(pa.BufferReader(data))
    at = int(rng.integers(len(table.column_names)))
    name, n = table.column_names[at], len(table)
    columns: list[Callable[[], pa.Array]] = [
        lambda: pa.array([None] * n), lambda: pa.array(["x"] * n), lambda: pa.array([""] * n), lambda: pa.array([-1] * n),
        lambda: pa.array([2**62] * n), lambda: pa.array([float("nan")] * n), lambda: pa.array([[]] * n, pa.list_(pa.float32())),
        lambda: pa.array([[1.0]] * n, pa.list_(pa.float32())), lambda: pa.array([[7]] * n, pa.list_(pa.int32())),
        lambda: pa.array([[[1.0, 2.0, 3.0, 4.0]]] * n, pa.list_(pa.list_(pa.float64(), 4))),
        lambda: pa.array([[None]] * n, pa.list_(pa.float32())), lambda: pa.array(["[1]"] * n), lambda: pa.array(['{"a": [1]}'] * n),
        lambda: pa.array([b"\xff"] * n), lambda: pa.array([True] * n), lambda: table.column(name).combine_chunks().take(pa.array([0] * n)),
        lambda: pa.array([[float("inf")] * 2] * n, pa.list_(pa.float32())),
    ]  # fmt: skip
    way = rng.random()
    if way < 0.1:
        table = table.drop_columns([name])
    elif way < 0.15:
        table = table.slice(0, int(rng.integers(n)))
    elif way < 0.2:
        table = table.append_column(name, table.column(name))
    else:
        column = columns[int(rng.integers(len(columns)))]()
        if rng.random() < 0.5:
            with contextlib.suppress(pa.ArrowException, NotImplementedError):
                column = column.cast(table.schema.field(name).type)
        table = table.set_column(at, name, column)
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


@pytest.fixture(scope="module")
def kept_files(tmp_path_factory) -> Path:
    """A pack and runs that an earlier version wrote, with the files that came later."""
    pytest.importorskip("timm", reason="the fixtures' backbone is timm's smallest")
    folder = tmp_path_factory.mktemp("own")
    with tarfile.open(FIXTURES / "0.1-a.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    scores = np.random.default_rng(0).random((6, 2))
    truth = np.eye(2, dtype=np.float32)[[0, 1, 0, 1, 0, 1]]
    ids = tuple(f"i{i}" for i in range(6))
    part = LabelPredictions("test", ids, ids, ("a", "b"), truth, {0: scores, 1: scores})
    (folder / "labels").mkdir()
    write_label_predictions(folder / "labels", [part, replace(part, split="val")])
    (folder / "draw").mkdir()
    arrays = {"test": scores, "choosing_rows": np.arange(3), "weight": scores, "bias": scores[0]}
    np.savez(folder / "draw" / "scores.npz", **arrays)
    record = {
        "seed": 0,
        "training_images": 3,
        "record": {"best_epoch": 1},
        "choosing_words": "x",
        "task": "multilabel",
        "penalties": [0.1, 10.0],
    }
    (folder / "draw" / "draw.json").write_text(json.dumps(record))
    (folder / "draw" / "tuning.json").write_text(json.dumps({"stem": 0.5, "head": 1.0}))
    write_checksums(folder / "detector", {})
    (folder / "journal").mkdir()
    journal = {"job": "j"}
    line = [0, 4, 4, "png", "0" * 64, [5], [6]]
    rows = [journal, line, [1, "reason"], [2, *line[1:], [["damaged", "x"]]]]
    (folder / "journal" / "journal.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return folder


def use_pack(folder: Path) -> None:
    """Open a pack, and whatever asks it for anything."""
    pack = open_pack(folder, allow_edited=True)
    _ = pack.attributes, pack.groups, pack.labels.sum()
    for row in range(len(pack)):
        pack.boxes(row)
        pack.regions(row)
        pack.place(row)
    pack.check_pixels(np.arange(len(pack)))


def use_run(folder: Path) -> None:
    """What ``evaluate`` reads of a run without predictions now."""
    run = folder / "run"
    (one,) = read_runs([run], kept_of="test", allow_edited=True)
    kept([one], "test")
    split_figures(run)
    own_notes(metrics_of(run))
    read_seen(run)
    recipe(str(run))
    model_options(read_config(run), metrics_of(run))


def use_thresholds(folder: Path) -> None:
    run = folder / "run"
    thresholds_on_val(run, read_description(run / "model.json").classes, 0.3, allow_edited=True)


def use_description(folder: Path) -> None:
    described = read_description(folder / "run" / "model.json")
    read_weight_description(folder / "run" / "model.json")
    if described.thresholds is None:
        return
    read = thresholds_from_json if described.kind == "detector" else label_thresholds_from_json
    read(described.thresholds, described.classes, "model.json")


def use_resume(folder: Path) -> None:
    run = folder / "run"
    (run / "metrics.json").unlink(missing_ok=True)
    config = DetectConfig(data=Path("pack"), out=run, resume=True)
    open_run(config, out=run, resume=True, job="detect", environment={"a": 1}, inputs={"pack": {}})
    RunFolder(run).identity()
    RunFolder(run).history()
    RunFolder(run).forget_after(2)


def use_checkpoint(folder: Path) -> None:
    load_checkpoint(folder / "run" / "checkpoints")


def use_journal(folder: Path) -> None:
    (folder / "run" / "images.part").write_bytes(bytes(128 + 3 * 16))
    with Journal(folder / "run", "j", 4, 1) as journal:
        list(journal.entries())


def use_predictions(folder: Path) -> None:
    truth = read_truth(folder / "run" / "truth.json")
    read_predictions(folder / "run" / "predictions.json", truth.image_ids, len(truth.classes))


def use_labels(folder: Path) -> None:
    for split in ("test", "val"):
        read_label_predictions(folder / "run", split)


def use_draw(folder: Path) -> None:
    kept_draw(RunFolder(folder / "run"))
    kept_tuning(RunFolder(folder / "run"))


CASES: dict[str, tuple[str, str, Callable[[bytes, np.random.Generator], bytes], Callable[[Path], None]]] = {
    "pack.json": ("pack", "pack.json", as_json, use_pack),
    "samples.parquet": ("pack", "samples.parquet", as_table, use_pack),
    "images.npy": ("pack", "images.npy", lambda d, rng: damaged(d[:128], rng)[:128].ljust(128) + d[128:], use_pack),
    "splits.json": ("pack", "splits.json", as_json, lambda f: GivenSplits.read(f / "run" / "splits.json") and None),
    "journal": ("journal", "journal.jsonl", as_lines, use_journal),
    "config.yaml": ("detector", "config.yaml", as_yaml, use_run),
    "config.yaml of classifier": ("classifier", "config.yaml", as_yaml, use_run),
    "config.yaml to resume": ("detector", "config.yaml", as_yaml, use_resume),
    "inputs.json": ("detector", "inputs.json", as_json, use_resume),
    "environment.json": ("detector", "environment.json", as_json, use_resume),
    "metrics.jsonl": ("detector", "metrics.jsonl", as_lines, use_resume),
    "metrics.json": ("detector", "metrics.json", as_json, use_run),
    "metrics.json of classifier": ("classifier", "metrics.json", as_json, use_run),
    "seen.json": ("detector", "seen.json", as_json, use_run),
    "checksums.json": ("detector", "checksums.json", as_json, lambda f: check_files(f / "run", ["truth.json"], allow_edited=True) and None),
    "truth.json": ("detector", "truth.json", as_json, use_predictions),
    "predictions.json": ("detector", "predictions.json", as_json, use_predictions),
    "truth_val.json": ("detector", "truth_val.json", as_json, use_thresholds),
    "predictions.csv": ("classifier", "predictions.csv", damaged, use_labels),
    "predictions.parquet": ("labels", "predictions.parquet", as_table, use_labels),
    "model.json": ("detector", "model.json", as_json, use_description),
    "model.json of classifier": ("classifier", "model.json", as_json, use_description),
    "draw.json": ("draw", "draw.json", as_json, use_draw),
    "tuning.json": ("draw", "tuning.json", as_json, use_draw),
    "scores.npz": ("draw", "scores.npz", damaged, use_draw),
}  # fmt: skip


def unforeseen(kept_files: Path, work: Path, case: str, n: int, seed: int = 0) -> list[str]:
    """What ended in another error than ours, or in more than a line."""
    source, name, mutate, use = CASES[case]
    run = work / "run"
    whole = (kept_files / source / name).read_bytes()
    found = []
    for number in range(n):
        rng = np.random.default_rng([seed, number])
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(kept_files / source, run)
        (run / name).write_bytes(mutate(whole, rng))
        try:
            use(run if source == "pack" and use is use_pack else work)
        except (InputError, TwinrayError) as error:
            if "\n" in str(error) or not str(error).strip():
                found.append(f"{number}: {error!r}")
        except Exception as error:
            found.append(f"{number}: {type(error).__name__}: {error!s:.200}")
    return found


@pytest.mark.parametrize("case", CASES)
def test_a_file_of_ours_is_read_or_refused_in_one_line(kept_files, tmp_path, case) -> None:
    assert unforeseen(kept_files, tmp_path, case, FEW) == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("case", CASES)
def test_a_file_of_ours_in_many_ways(kept_files, tmp_path, case) -> None:
    assert unforeseen(kept_files, tmp_path, case, MANY, seed=1) == []


def test_what_a_longer_search_found(kept_files, tmp_path) -> None:
    """Numbers that no int holds in thresholds, names of columns that are no text, paths that no disk has."""
    for source in ("detector", "labels"):
        shutil.copytree(kept_files / source, tmp_path / source)
    described = json.loads((tmp_path / "detector" / "model.json").read_text())
    point = {"fp_per_image": 1.0, "fp_per_image_measured": 1.0, "sensitivity": 1.0}
    each = {
        "threshold": 0.5,
        "n_boxes": float("inf"),
        "sensitivity": 1.0,
        "fp_per_image": 1.0,
        "fallback": "",
    }
    thresholds = {
        **(described.get("thresholds") or {}),
        "operating_points": [{**point, "per_class": {"a": each}}],
    }
    assert "cannot be read" in refusal(
        lambda: thresholds_from_json(thresholds, ["a"], "model.json")
    )
    table = tmp_path / "labels" / "predictions.parquet"
    table.write_bytes(table.read_bytes().replace(b"split", b"spl\xd7t"))
    assert "Parquet" in refusal(lambda: read_label_predictions(table.parent, "test"))
    assert recipe("a" * 300) == "a" * 300


def odd_options(verb: str) -> Iterator[tuple[str, Any]]:
    """Every option of a verb with values of other kinds."""
    for name in options(load(VERBS[verb].config)):
        for odd in (
            None,
            "x",
            "#x",
            -1,
            2.5,
            10**30,
            True,
            [],
            {},
            [[]],
            [None],
            ["x", 1],
            {"x": 1},
            float("nan"),
        ):
            yield name, odd


@pytest.mark.parametrize("verb", VERBS)
def test_options_of_the_wrong_kind_in_a_file_are_taken_or_one_line(
    verb, tmp_path, monkeypatch, capsys, kept_parsers
) -> None:
    """The verb itself does nothing here: what reaches it has the types of its options."""
    reference = VERBS[verb].command or VERBS[verb].run
    module, _, name = reference.partition(":")
    monkeypatch.setattr(importlib.import_module(module), name, lambda config: None)
    monkeypatch.chdir(tmp_path)
    for option, odd in odd_options(verb):
        (tmp_path / "options.yaml").write_text(yaml.safe_dump({option: odd}))
        status = 0
        try:
            main([verb, "--config", "options.yaml"])
        except SystemExit as stop:
            status = int(stop.code or 0)
        said = capsys.readouterr().err
        assert status in (0, 2), (option, odd, said)
        assert "unforeseen" not in said and len(said.splitlines()) <= 1, (option, odd, said)


OPTIONS_OF_A_MODEL: dict[str, tuple[Any, ...]] = {
    "fpn_channels": (0, 1, 2**40, -3),
    "box_head_width": (0, 2**50),
    "rois_per_image": (0, -1),
    "anchor_scale": (0.0, -1.0, 1e300),
    "trainable_stages": (-1, 9),
    "size": (0, 1, 2**31),
    "norm": ("x",),
    "detector": ("x",),
}


def test_options_of_a_model_that_build_no_network_are_one_line(kept_files, tmp_path) -> None:
    shutil.copytree(kept_files / "detector", tmp_path / "run")
    whole, said = json.loads((tmp_path / "run" / "model.json").read_text()), []
    for name, values in OPTIONS_OF_A_MODEL.items():
        for value in values:
            described = {**whole, "options": {**whole["options"], name: value}}
            if name == "size":
                described["size"] = value
            (tmp_path / "run" / "model.json").write_text(json.dumps(described))
            said.append(refusal(lambda: load_model(tmp_path / "run", "cpu", allow_edited=True)))
    assert not any("\n" in one for one in said)
    assert sum(map(bool, said)) > len(said) // 2


def refusal(call: Callable[[], object]) -> str:
    """What an InputError says; empty where nothing was refused."""
    try:
        call()
    except InputError as error:
        return str(error) or "\n"
    return ""


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_damaged_weights_are_read_or_one_line(tmp_path, ending) -> None:
    tensors = {"conv1.weight": torch.zeros(4, 3, 3, 3), "bn1.num_batches_tracked": torch.tensor(1)}
    path = tmp_path / f"weights{ending}"
    if ending == ".pth":
        torch.save({"state_dict": tensors}, path)
    else:
        safetensors.torch.save_file(tensors, path)
    whole, said = path.read_bytes(), []
    for number in range(150):
        path.write_bytes(damaged(whole, np.random.default_rng([2, number])))
        said.append(refusal(lambda: read_tensors(path)))
    assert not any("\n" in one for one in said)
    assert sum(map(bool, said)) > 50


def test_damaged_checkpoints_give_way_or_are_one_line(tmp_path, capsys) -> None:
    state = {"model": {"a": torch.zeros(3)}, "progress": {"step": 3}, "run": "{}"}
    whole = io.BytesIO()
    torch.save(state, whole)
    said = []
    for number in range(150):
        path = tmp_path / "step-000000003.pt"
        path.write_bytes(damaged(whole.getvalue(), np.random.default_rng([3, number])))
        said.append(refusal(lambda: load_checkpoint(tmp_path)))
    assert not any("\n" in one for one in said)
    assert sum(map(bool, said)) > 50
    capsys.readouterr()
