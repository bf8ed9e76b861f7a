"""Reading verbs that were cut off: ``--resume`` ends in the bytes of an uninterrupted job, ``--overwrite`` removes what is ours alone."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dicom_support import write_radiograph
from support import twinray
from twinray.errors import InputError
from twinray.files import folders_freed, write_bytes
from twinray.jobs.predict.config import PredictConfig
from twinray.runs.output import PROGRESS, RECORD, WRITTEN, Output, open_output
from warm_process import Process


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by name, without the times at which jobs were started."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    for name in (RECORD, "summary.json"):
        if name in found:
            found[name] = re.sub(rb'"(started|made)": "[^"]*"', b"", found[name])
    return found


@pytest.fixture(scope="module")
def inbox(tmp_path_factory, blobs) -> Path:
    """Images of every outcome: good, damaged, a copy, none at all."""
    folder = tmp_path_factory.mktemp("outputs") / "inbox"
    (folder / "more").mkdir(parents=True)
    whole = [path.read_bytes() for path in sorted((blobs.parent / "images").iterdir())]
    for i in range(7):
        (folder / ("more" if i % 3 else ".") / f"{i}.png").write_bytes(whole[i])
    (folder / "2 copy.png").write_bytes(whole[2])
    (folder / "4 cut.png").write_bytes(whole[4][:300])
    return folder


def killed(arguments: list[str], watched: Path, lines: int) -> None:
    """The real command, killed once a file has so many lines."""
    process = Process(["-m", "twinray.cli", *arguments], {**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if watched.is_file() and len(watched.read_bytes().splitlines()) >= lines:
            break
        time.sleep(0.002)
    if process.poll() is None:
        process.send_signal(signal.SIGKILL)
    _, told = process.communicate()
    assert process.returncode == -signal.SIGKILL, told


@pytest.mark.parametrize("verb", ["predict", "explain"])
def test_killed_and_resumed_is_uninterrupted(verb, detect_run, inbox, tmp_path, cli) -> None:
    options = {
        "predict": ("--batch-size", 2, "--score-threshold", 0.0),
        "explain": ("--least-score", 0, "--boxes", 1, "--method", "grad-cam"),
    }[verb]
    arguments = [str(a) for a in (verb, detect_run, inbox, *options, "--device", "cpu")]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    status, _, told = cli(*arguments, "--out", whole)
    assert status == 0, told
    again = [*arguments, "--out", str(cut)]
    killed(again, cut / WRITTEN, 2)
    killed([*again, "--resume"], cut / PROGRESS, 2)
    kept = len((cut / PROGRESS).read_bytes().splitlines())
    assert kept >= 2
    status, _, told = cli(*again, "--resume")
    assert status == 0, told
    assert contents(cut) == contents(whole)
    assert not (cut / PROGRESS).exists()
    before = {path: path.stat().st_mtime_ns for path in cut.rglob("*")}
    status, _, told = cli(*again, "--resume")
    assert (status, "nothing is left to do" in told) == (0, True)
    assert {path: path.stat().st_mtime_ns for path in cut.rglob("*")} == before


VERBS = ("predict", "explain", "faithfulness", "evaluate", "embed")


@pytest.fixture(scope="module")
def few_images(inbox, tmp_path_factory) -> Path:
    """Of every outcome one at least."""
    folder = tmp_path_factory.mktemp("outputs") / "few"
    for name in ("0.png", "more/1.png", "more/2.png", "2 copy.png", "3.png", "4 cut.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((inbox / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def commands(detect_run, blob_pack, few_images) -> dict[str, list[str]]:
    """A small job of every reading verb."""
    few = ("--device", "cpu")
    jobs = {
        "predict": (detect_run, few_images, "--batch-size", 1, *few),
        "explain": (detect_run, few_images, "--method", "grad-cam", "--boxes", 1, "--least-score", 0, *few),
        "faithfulness": (
            detect_run, "--data", blob_pack, "--methods", "grad-cam", "--curve-points", 0,
            "--bootstrap", 20, "--least-score", 0, "--iou", 0.01, *few,
        ),
        "evaluate": (detect_run, "--bootstrap", 20),
        "embed": (
            "--data", blob_pack, "--arch", "resnet18", "--size", 32, "--maps", "pca", "--bootstrap", 0,
            "--page-images", 0, *few,
        ),
    }  # fmt: skip
    return {verb: [str(a) for a in (verb, *words)] for verb, words in jobs.items()}


@pytest.mark.parametrize("verb", VERBS)
def test_overwrite_replaces_what_the_verb_wrote_and_nothing_else(
    verb, commands, tmp_path, cli
) -> None:
    out = tmp_path / "out"
    command = [*commands[verb], "--out", str(out)]
    status, _, told = cli(*command)
    assert status == 0, told
    first = contents(out)
    assert json.loads((out / RECORD).read_text())["files"] == sorted(set(first) - {RECORD})
    status, _, told = cli(*command)
    assert (status, told.count("\n")) == (2, 1)
    assert "is not empty; choose another --out" in told and "--overwrite" in told
    # as a kill in the middle leaves it
    record = json.loads((out / RECORD).read_text())
    (out / WRITTEN).write_text("".join(json.dumps(name) + "\n" for name in record["files"]))
    (out / RECORD).write_text(json.dumps({**record, "finished": False, "files": []}))
    stale = out / f".{record['files'][0].replace('/', '-')}.77.tmp"
    if "/" not in record["files"][0]:
        stale.write_text("half")
    status, _, told = cli(*command, "--overwrite")
    assert status == 0, told
    assert contents(out) == first
    for foreign in ("mine.txt", "deep/er/mine.png"):
        (out / foreign).parent.mkdir(parents=True, exist_ok=True)
        (out / foreign).write_text("mine")
        status, _, told = cli(*command, "--overwrite")
        assert (status, told.count("\n")) == (2, 1) and "was not written by" in told, told
        assert set(contents(out)) == {*first, foreign}
        (out / foreign).unlink()
        for folder in ("deep/er", "deep"):
            if (out / folder).is_dir():
                (out / folder).rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "link").symlink_to(elsewhere)
    status, _, told = cli(*command, "--overwrite")
    assert (status, "was not written by" in told) == (2, True)
    assert elsewhere.is_dir()


@pytest.mark.parametrize("flag", ["--resume", "--overwrite"])
def test_a_folder_of_something_else_is_left_alone(
    flag, commands, detect_run, tmp_path, cli
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "mine.txt").write_text("mine")
    (notes / ".mine.tmp").write_text("mine")
    other = tmp_path / "evaluated"
    assert cli(*commands["evaluate"], "--out", other)[0] == 0
    for folder in (notes, other, detect_run):
        before = contents(folder)
        for verb in ("predict", "explain"):
            status, _, told = cli(*commands[verb], "--out", folder, flag)
            assert (status, told.count("\n")) == (2, 1), told
            assert "choose another --out" in told
        assert contents(folder) == before


def test_a_resume_mixes_nothing(detect_run, inbox, tmp_path, cli) -> None:
    """Other options, other images, another model: refused in one line, and what is there stays as it is."""
    images = tmp_path / "images"
    images.mkdir()
    for i, path in enumerate(sorted(inbox.rglob("?.png"))[:4]):
        (images / f"{i}.png").write_bytes(path.read_bytes())
    out = tmp_path / "out"
    command = ["predict", detect_run, images, "--batch-size", 2, "--device", "cpu", "--out", out]
    assert cli(*command)[0] == 0
    record = json.loads((out / RECORD).read_text())
    (out / RECORD).write_text(json.dumps({**record, "finished": False}))
    before = contents(out)
    for change, what in (
        (("--score-threshold", 0.3), "score_threshold was None, now 0.3"),
        (("--nested", "keep"), "nested was 'merge', now 'keep'"),
        (("--captures", "uncompressed"), "captures was 'jpeg2000', now 'uncompressed'"),
        (("--batch-size", 3), "batch_size was 2, now 3"),
    ):
        status, _, told = cli(*command, *change, "--resume")
        assert (status, told.count("\n")) == (2, 1) and what in told, told
        assert contents(out) == before
    time.sleep(0.01)
    first = images / "0.png"
    data = first.read_bytes()
    first.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    status, _, told = cli(*command, "--resume")
    assert status == 2 and "images changed since it was started" in told
    first.unlink()
    assert "images changed" in cli(*command, "--resume")[2]
    assert contents(out) == before
    (out / PROGRESS).write_text('{"tables": {"predictions.csv": "x"}}\n')
    (images / "0.png").write_bytes(data)
    status, _, told = cli(*command, "--resume", "--overwrite")
    assert (status, "--overwrite" in told and "--resume" in told) == (2, True)


def test_what_is_read_is_not_removed(detect_run, few_images, tmp_path, cli) -> None:
    """Pictures that explain drew may be what the next command reads."""
    out = tmp_path / "out"
    command = ["explain", detect_run, few_images, "--method", "grad-cam", "--boxes", 1, "--device", "cpu"]  # fmt: skip
    assert cli(*command, "--least-score", 0, "--out", out)[0] == 0
    before = contents(out)
    picture = next(out.glob("*.png"))
    status, _, told = cli("explain", detect_run, picture, "--out", out, "--overwrite")
    assert (status, "which --overwrite would empty" in told) == (2, True)
    assert contents(out) == before
    # results inside the folder of the images are no images of the next start
    nested = tmp_path / "images"
    nested.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40), dtype=np.uint8)
    Image.fromarray(pixels).save(nested / "a.png")
    inside = ["predict", detect_run, nested, "--out", nested / "out", "--device", "cpu"]
    assert cli(*inside)[0] == 0
    first = contents(nested / "out")
    assert cli(*inside, "--overwrite")[0] == 0
    assert contents(nested / "out") == first


def test_damaged_records_are_refused_in_one_line(detect_run, few_images, tmp_path, cli) -> None:
    out = tmp_path / "out"
    command = ["predict", detect_run, few_images, "--out", out, "--device", "cpu"]
    assert cli(*command)[0] == 0
    whole = json.loads((out / RECORD).read_text())
    for damaged in (
        "no JSON", "[]", json.dumps({**whole, "format": 2}), json.dumps({**whole, "started": "noon"}),
        json.dumps({**whole, "files": 3}), json.dumps({**whole, "more": 1}),
    ):  # fmt: skip
        (out / RECORD).write_text(damaged)
        for flag in ("--resume", "--overwrite"):
            status, _, told = cli(*command, flag)
            assert (status, told.count("\n")) == (2, 1) and "unforeseen" not in told, told
    (out / RECORD).write_text(json.dumps({**whole, "finished": False}))
    for line in ("{}", "3", '{"tables": 1}', '{"tables": {"predictions.csv": 5}}', "null"):
        (out / PROGRESS).write_text(line + "\n")
        status, _, told = cli(*command, "--resume")
        assert (status, told.count("\n")) == (2, 1) and "begin again with --overwrite" in told
    (out / PROGRESS).write_text('{"tables": {"predictions.csv"')  # a line that a kill cut short
    assert cli(*command, "--resume")[0] == 0


def test_the_key_holders_table_is_whole_after_a_kill(detect_run, tmp_path, cli) -> None:
    """Pseudonyms that were given before the kill lead back, too, and no name stands among the results."""
    images, key = tmp_path / "images", tmp_path / "key.txt"
    images.mkdir()
    key.write_text("a long secret\n")
    rng = np.random.default_rng(0)
    for i in range(5):
        pixels = rng.integers(0, 255, (40, 40), dtype=np.uint8)
        write_radiograph(
            images / f"Zumpelhuber {i}.dcm", pixels, SOPInstanceUID=f"1.2.40.77771.{i}"
        )
    command = ["predict", detect_run, images, "--pseudonymise", key, "--batch-size", 1]
    command = [str(a) for a in (*command, "--device", "cpu")]
    whole = [*command, "--out", str(tmp_path / "a"), "--pseudonyms", str(tmp_path / "a.csv")]
    assert cli(*whole)[0] == 0
    again = [*command, "--out", str(tmp_path / "b"), "--pseudonyms", str(tmp_path / "b.csv")]
    killed(again, tmp_path / "b" / PROGRESS, 2)
    text = b"".join(contents(tmp_path / "b").values())
    assert b"Zumpelhuber" not in text and b"1.2.40.77771" not in text
    status, _, told = cli(*again, "--resume")
    assert status == 0, told
    assert contents(tmp_path / "b") == contents(tmp_path / "a")
    assert (tmp_path / "b.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_a_kill_between_any_two_files_is_made_good(tmp_path) -> None:
    """The record alone, a half file, a file that was listed and never written, an emptied folder: all are begun again."""
    config = PredictConfig(Path("run"), (Path("x.png"),), out=tmp_path / "out", overwrite=True)

    def begun() -> None:
        with open_output(config, "predict", config.out, {}):
            write_bytes(config.out / "a.csv", b"a")

    for states in (
        {}, {RECORD: None}, {RECORD: None, WRITTEN: '"a.csv"\n'},
        {RECORD: None, WRITTEN: '"a.csv"\n', ".a.csv.7.tmp": "half"},
        {RECORD: None, WRITTEN: '"a.csv"\n"b.c', "a.csv": "a"}, {f".{RECORD}.7.tmp": "{"},
    ):  # fmt: skip
        with folders_freed():
            begun()
        record = (config.out / RECORD).read_bytes()
        whole = contents(config.out)
        for path in config.out.iterdir():
            path.unlink()
        for name, text in states.items():
            unfinished = json.loads(record) | {"finished": False, "files": []}
            (config.out / name).write_text(json.dumps(unfinished) if text is None else text)
        with folders_freed():
            begun()
        assert contents(config.out) == whole
        for path in config.out.iterdir():
            path.unlink()
    with (
        folders_freed(),
        pytest.raises(InputError, match="nothing"),
        open_output(config, "predict", config.out, {}),
    ):
        raise InputError("nothing came of it")
    assert not any(config.out.iterdir())  # as if never begun


KEEP = Output.keep


def keep_and_stop(self: Output, state: object) -> None:
    KEEP(self, state)
    raise KeyboardInterrupt


def test_explain_and_faithfulness_go_on_where_progress_ends(
    commands, tmp_path, cli, monkeypatch
) -> None:
    """Stopped after every image in turn, down to the last one."""
    for verb in ("explain", "faithfulness"):
        whole = tmp_path / f"{verb} whole"
        assert cli(*commands[verb], "--out", whole)[0] == 0
        out = tmp_path / verb
        command = [*commands[verb], "--out", str(out), "--resume"]
        stops = 0
        with monkeypatch.context() as patched:
            patched.setattr(Output, "keep", keep_and_stop)
            while (status := cli(*command)[0]) == 130:
                stops += 1
                assert stops < 40
        assert (status, stops > 3) == (0, True)
        assert contents(out) == contents(whole)


def test_a_whole_command_line_from_kill_to_overwrite(commands, tmp_path) -> None:
    out = tmp_path / "out"
    command = [*commands["evaluate"], "--out", str(out)]
    killed(command, out / WRITTEN, 1)
    refused = twinray(*command)
    assert refused.returncode == 2 and "--overwrite" in refused.stderr
    twinray(*command, "--overwrite", check=True)
    assert not (out / WRITTEN).exists() and (out / "metrics.json").is_file()
