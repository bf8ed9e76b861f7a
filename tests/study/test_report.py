"""``twinray report`` on a real small study: one page, and every figure the same in page, tables, metrics and Parquet."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
from collections import defaultdict
from html import unescape
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest

from twinray.errors import InputError, TwinrayError
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.run import run as evaluate
from twinray.report.checklists.sources import Pointer, read_records
from twinray.report.numbers import typeset
from twinray.runs.folder import read_config
from twinray.studies.config import StudyConfig
from twinray.studies.plan.nodes import Cell
from twinray.studies.report.config import ReportConfig
from twinray.studies.report.gather import Key, gather
from twinray.studies.report.parts import tuning
from twinray.studies.report.write import run as write
from twinray.studies.results.state import collect
from twinray.studies.run import run as study

FILE = """
study: toy
question: Do weights learnt on unlabelled phantoms help?
packs:
  lake: {format: phantom, phantom_images: 16, phantom_labelled: 0, size: 32, val: 0, test: 0, seed: 1}
  chest: {format: phantom, phantom_images: 70, size: 64, val: 0.1, test: 0.4}
pretrainings:
  bt: {pack: lake, options: {arch: resnet18, size: 32, batch_size: 8, epochs: 1, projector: [16, 16]}}
arms:
  - random
  - {name: Barlow Twins, pretraining: bt}
tasks:
  findings:
    verb: classify
    pack: chest
    policies: [probe]
    fractions: [0.5, 1]
    options: {arch: resnet18, size: 32}
  lesions:
    verb: detect
    pack: chest
    heat_maps: 1
    options: {arch: resnet18, size: 64, epochs: 1, batch_size: 16, fpn_channels: 8, box_head_width: 16, rois_per_image: 8}
options:
  all: {bootstrap: 50}
limits: [Toy sizes.]
published:
  - {table: barlow-cxr-boxes, task: lesions, arms: {none: random, Barlow Twins: Barlow Twins}, differs: [Phantoms.]}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "toy.yaml").write_text(FILE, encoding="utf-8")
    study(StudyConfig(folder / "toy.yaml", out=folder / "out", workers=1))
    write(ReportConfig(folder / "out"))
    return folder / "out"


def text_of(page: Path) -> str:
    body = page.read_text(encoding="utf-8").split("<body>")[1]
    return unescape(" ".join(re.sub(r"<[^>]+>", " ", body).split()))


def test_the_page_answers_the_question_of_the_file(done: Path) -> None:
    text = text_of(done / "report" / "report.html")
    assert "Do weights learnt on unlabelled phantoms help?" in text
    assert "Opened once, after the last planned run. No deviation from the plan." in text
    assert text.count("Research software, not a medical device") >= 2
    assert "Barlow Twins is worth" in text and "at random's figure with" in text
    assert gather(collect(done)).result.tasks[0].name.startswith("findings")
    for name in (
        "At a glance",
        "The smallest difference this test can show",
        "Where it looks",
        "Checklists",
        "Toy sizes.",
        "Pre-training, without any label",
        "the features of the initial weights tell",
        "The study's file",
    ):
        assert name in text, name


def test_published_values_stand_beside_with_data_and_protocol_of_both(done: Path) -> None:
    text = text_of(done / "report" / "report.html")
    assert "0.1342 (0.1306, 0.1378)" in text and "arXiv:2402.06499, table 1" in text
    state = collect(done)
    own = gather(state)
    (one,) = own.result.published
    told = {d.aspect: (d.published, d.own) for d in one.differs}
    (pack,) = {p.path: p for p in own.packs.values() if p is not None}.values()
    assert f"{len(pack.where('test')):,} images" in told["test images"][1]
    assert "resnet18" in told["network"][1] and "epochs 1" in told["training"][1]
    assert told["seeds"] == ("4 at 224 pixels, 5 at 640", "1")
    assert "bt: on lake, from random, 1 epochs" in told["pre-training"][1]
    assert one.more == ("Phantoms.",)
    assert len(one.rows) == 6  # the task names no size, so both of the paper's are shown


def test_features_of_every_arm_have_a_map_and_its_figures(done: Path) -> None:
    folder = done / "report" / "embeddings"
    maps = sorted(path.parent.name for path in folder.glob("*/*/embedding.parquet"))
    assert maps == ["arm-1", "arm-1", "arm-2", "arm-2"]  # of two tasks
    for path in folder.glob("findings*/*/embedding.json"):
        figure = json.loads(path.read_text(encoding="utf-8"))["knn"]["auc"]["value"]
        assert f"{figure:.3f} (" in text_of(done / "report" / "report.html")


def test_heat_maps_are_measured_or_the_page_says_why_not(done: Path) -> None:
    text = text_of(done / "report" / "report.html")
    measured = (done / "report" / "faithfulness" / "lesions" / "faithfulness.json").is_file()
    assert ("Faithfulness of heat maps on" in text) == measured
    assert measured or "faithfulness was not measured: none of the" in text


def test_every_figure_is_the_same_in_page_tables_metrics_and_parquet(done: Path) -> None:
    """Means over the runs of an arm in Parquet, the evaluation of the task, the tables and the page."""
    rows = pq.read_table(done / "report" / "figures.parquet").to_pylist()
    runs: dict[tuple[str, str, float], list[float]] = defaultdict(list)
    for row in rows:
        main = {"findings": "auc", "lesions": "map50"}[row["task"]]
        if (row["split"], row["images"], row["class_name"], row["metric"]) == ("test", "all", "", main):  # fmt: skip
            runs[row["task"], row["arm"], row["fraction"]].append(row["value"])
    assert len(runs) == 6
    page = text_of(done / "report" / "report.html")
    for (task, arm, share), values in runs.items():
        folder = next((done / "report" / "tasks").glob(f"{task}*"))
        measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["arms"]
        name = f"{arm}, {100 * share:g} %" if task == "findings" else arm
        main = {"findings": "auc", "lesions": "map50"}[task]
        value = measured[name]["test"][main]["value"]
        assert value == pytest.approx(sum(values) / len(values), abs=1e-12)
        table = (done / "report" / "tables" / f"{folder.name}.md").read_text(encoding="utf-8")
        line = next(x for x in table.splitlines() if x.startswith(f"| {arm} "))
        assert f" {value:.3f} (" in line and f"{value:.3f}" in page


def test_gains_have_hours_and_every_chart_and_table_of_the_page_is_a_file(
    done: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report"
    text = text_of(write(ReportConfig(done, out=out, heat_maps=False, embeddings=False, minutes_per_image=3.0)))  # fmt: skip
    ((saves, replaces),) = json.loads((out / "gains.json").read_text(encoding="utf-8")).values()
    assert (saves["way"], replaces["way"]) == ("saves", "replaces")
    assert (
        saves["at_patients"] > replaces["at_patients"]
    )  # all of the one arm, the fewest of the other
    assert typeset(saves["words"]) in text and "reader hours" in saves["words"]
    low, high = saves["worth_patients"]["measurable"]
    hours = saves["reader_hours"]["measurable"]
    each = 60 * (hours[1] - hours[0]) / (high - low) / 3  # images of a patient
    assert 1 <= each < 4
    charts = {path.stem.rpartition("-")[0] for path in (out / "figures").glob("*.svg")}
    assert {"worth", "training"} <= charts
    tables = {path.stem for path in (out / "tables").glob("*.tex")}
    assert {"worth-1", "worth-2", "smallest-1", "published-1", "differences"} <= tables
    assert saves["worth_patients"]["words"] in (out / "tables" / "worth-1.md").read_text(encoding="utf-8")  # fmt: skip
    differences = (out / "tables" / "differences.md").read_text(encoding="utf-8")
    assert "over runs" in differences and "one run each" in differences


def test_every_pointer_of_a_checklist_resolves(done: Path) -> None:
    records = read_records(done)
    found = 0
    for path in (done / "report" / "checklists").glob("*.json"):
        for item in json.loads(path.read_text(encoding="utf-8"))["items"]:
            for said in item["statements"]:
                for source in said["sources"]:
                    records.resolve(Pointer(source["file"], source["key"]))
                    found += 1
    assert found > 20


def test_a_report_elsewhere_claims_the_same_items_from_its_own_figures(
    done: Path, tmp_path: Path
) -> None:
    """It left out every test figure, or took those of an older report that lay in the study."""
    out = tmp_path / "elsewhere"
    write(ReportConfig(done, out=out, heat_maps=False, embeddings=False))
    records = read_records(done, out)
    for path in (done / "report" / "checklists").glob("*.json"):
        beside = json.loads((out / "checklists" / path.name).read_text(encoding="utf-8"))["items"]
        inside = json.loads(path.read_text(encoding="utf-8"))["items"]
        figures = 0
        for ours, theirs in zip(inside, beside, strict=True):
            assert ours["number"] == theirs["number"]
            files = [s["file"] for said in theirs["statements"] for s in said["sources"]]
            assert not any(file.startswith(f"{done.name}/report/") for file in files)
            figures += sum("/tasks/" in file for file in files)
            if any("report/tasks/" in s["file"] for said in ours["statements"] for s in said["sources"]):  # fmt: skip
                assert any(file.startswith("elsewhere/tasks/") for file in files)
            for said in theirs["statements"]:
                for source in said["sources"]:
                    records.resolve(Pointer(source["file"], source["key"]))
        assert figures


def test_a_single_run_has_checklists_whose_pointers_resolve(done: Path, tmp_path: Path) -> None:
    run = next(p.folder for p in collect(done).measured() if p.node.kind == "detect")
    evaluate(EvaluateConfig((run,), out=tmp_path / "out", bootstrap=10, checklists=True))
    pack = Path(str(read_config(run)["data"]))
    records = read_records(run, pack)
    found = 0
    for path in sorted((tmp_path / "out" / "checklists").glob("*.json")):
        for item in json.loads(path.read_text(encoding="utf-8"))["items"]:
            for said in item["statements"]:
                for source in said["sources"]:
                    records.resolve(Pointer(source["file"], source["key"]))
                    found += 1
    assert found > 20 and len([*(tmp_path / "out" / "checklists").glob("*.md")]) == 3


def test_it_can_be_written_again_and_elsewhere_but_not_over_other_files(
    done: Path, tmp_path: Path
) -> None:
    first = (done / "report" / "tables" / "differences.md").read_bytes()
    write(ReportConfig(done, heat_maps=False))
    assert (done / "report" / "tables" / "differences.md").read_bytes() == first
    (tmp_path / "mine.txt").write_text("x", encoding="utf-8")
    with pytest.raises(InputError, match="holds files and is no report"):
        write(ReportConfig(done, out=tmp_path))
    with pytest.raises(InputError, match="expected a study's folder"):
        write(ReportConfig(tmp_path))
    with pytest.raises(InputError, match=r"mine\.txt is a file; choose another --out"):
        write(ReportConfig(done, out=tmp_path / "mine.txt"))
    with pytest.raises(TwinrayError, match="a file stands where a folder is needed"):
        write(ReportConfig(done, out=tmp_path / "mine.txt" / "report"))
    before = (done / "report" / "report.json").stat().st_mtime_ns
    handle = os.open(done / "report", os.O_RDONLY)  # another report of the same study, at work
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="is in use"):
            write(ReportConfig(done))
    finally:
        os.close(handle)
    assert (done / "report" / "report.json").stat().st_mtime_ns == before


def test_a_run_that_failed_is_a_hole_with_its_reason(done: Path, tmp_path: Path) -> None:
    """Marks and figures of one run are taken away: it is not done any more."""
    copy = tmp_path / "study"
    shutil.copytree(done, copy)
    state = collect(copy)
    last = state.measured()[-1]
    (copy / "claims" / f"{last.node.id}.done").unlink()
    text = text_of(write(ReportConfig(copy, heat_maps=False)))
    again = gather(collect(copy))
    assert again.result.count("done") == len(again.result.runs) - 1
    assert "no figure" in text and "1 run without a figure" in text


def test_what_a_search_chose_is_named() -> None:
    choice = {"measure": "auc", "chosen": {"lr_head": 0.003}, "budget": 2}  # as choose writes it
    piece = SimpleNamespace(choice=choice)
    study = SimpleNamespace(
        pieces={Key("findings", "", 0): [(Cell("findings", "random"), piece)]},
        task=lambda key: SimpleNamespace(title="Findings"),
    )
    (details,) = tuning(study)
    assert "lr_head 0.003" in repr(details)
