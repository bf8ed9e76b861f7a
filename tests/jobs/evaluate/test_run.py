"""Runs side by side: no run twice, every difference said, classifiers scored as they see single images."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from run_copies import changed, copied, noted, sealed, table
from twinray.about import DISCLAIMER
from twinray.classification.config import ClassifyConfig
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.evaluation.result import evaluation_as_json
from twinray.evaluation.thresholds import choose_thresholds
from twinray.inference.model import load_model, prepare_row
from twinray.jobs.evaluate import run as job
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.diagnose import diagnose
from twinray.jobs.evaluate.fresh import score_rows
from twinray.jobs.evaluate.options import differences_in_options
from twinray.jobs.evaluate.tested import BoxData
from twinray.records import Boxes
from twinray.runs.results import read_label_predictions, write_label_predictions


@pytest.fixture(scope="module")
def probe(tmp_path_factory, class_pack) -> Path:
    """A linear probe fitted with two seeds on random features."""
    out = tmp_path_factory.mktemp("runs") / "probe"
    classify(
        ClassifyConfig(
            class_pack, out, arch="resnet18", size=32, seeds=(3, 4), fraction=0.5, bootstrap=0
        )
    )
    return out


def test_the_same_run_twice_is_refused(detect_run, blob_pack, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(detect_run)
    for second in (detect_run, detect_run.parent / "." / "detector", link):
        with pytest.raises(InputError, match="given twice"):
            job.run(EvaluateConfig((detect_run, second), blob_pack, out=tmp_path / "e"))
    assert not (tmp_path / "e").exists()


def test_runs_that_differ_in_more_than_their_weights_say_so(
    detect_run, blob_pack, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    other = changed(
        detect_run, tmp_path / "other", epochs=15, init="imagenet-v2", out="elsewhere", resume=True, data="moved",
        bootstrap=7, log_every=3, checkpoint_every=9, fraction_seed=5,
    )  # fmt: skip
    config = EvaluateConfig((detect_run, other), blob_pack, out=tmp_path / "e", bootstrap=0)
    result = job.run(config)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert said == [
        "warning: runs differ in more than their initial weights: epochs 3 vs 15 (detector, other)",
    ]
    assert list(result.arms) == ["detector", "other"]
    assert result.arms["other"].differing == {"epochs": {"kind": "model", "first": 3, "this": 15}}
    assert json.loads((tmp_path / "e" / "metrics.json").read_text()) == evaluation_as_json(result)
    assert result.arms["other"].difference.get("map50").value == pytest.approx(0, abs=1e-9)
    assert result.arms["detector"].difference is None
    page = (tmp_path / "e" / "report.html").read_text()
    assert "epochs 3 vs 15" in page and DISCLAIMER in page


def test_other_data_is_a_difference_and_another_arm(detect_run, blob_pack, tmp_path):
    other = changed(detect_run, tmp_path / "other", data="moved")
    described = json.loads((other / "model.json").read_text())
    described["data"][0]["checksums"] = {"images.npy": "0"}
    (other / "model.json").write_text(json.dumps(described))
    sealed(other)
    found = differences_in_options(load_model(detect_run), load_model(other))
    assert list(found) == ["data"]
    assert found["data"]["this"] == "moved (0)"
    assert found["data"]["kind"] == "data"
    again = changed(
        other,
        tmp_path / "again",
        data=str(yaml.safe_load((detect_run / "config.yaml").read_text())["data"]),
    )
    (one,) = differences_in_options(load_model(detect_run), load_model(again)).items()
    assert one[0] == "data" and one[1]["first"] != one[1]["this"]  # packed anew under its old name
    result = job.run(EvaluateConfig((detect_run, other), blob_pack, bootstrap=0, allow_seen=True))
    assert list(result.arms) == ["detector", "other"]


def test_options_without_effect_are_no_difference(detect_run, tmp_path):
    """Heads of one-stage detectors have no width, and a fraction of 1 is drawn by no seed."""
    first = changed(detect_run, tmp_path / "first", detector="retinanet")
    others = {"box_head_width": 7, "rois_per_image": 9, "fraction_seed": 5}
    other = changed(first, tmp_path / "other", **others)
    compared = differences_in_options(load_model(first), load_model(other))
    assert compared == {}
    two_stages = changed(detect_run, tmp_path / "two", **others)
    compared = differences_in_options(load_model(detect_run), load_model(two_stages))
    assert list(compared) == ["box_head_width", "rois_per_image"]


def test_probes_that_differ_in_their_batch_size_do_not_differ(
    class_pack, tmp_path, cli, monkeypatch
):
    """Through the command line: what is only speed is no difference; the seed is one of its own sort."""
    monkeypatch.setenv("COLUMNS", "200")
    classify = (
        "classify",
        "--data",
        class_pack,
        "--arch",
        "resnet18",
        "--size",
        32,
        "--bootstrap",
        0,
        "--fraction",
        0.5,
    )
    for name, more in (
        ("a", ()),
        ("b", ("--batch-size", 7)),
        ("c", ("--batch-size", 7, "--seeds", 5, "--folds", 3)),
    ):
        assert cli(*classify, "--out", tmp_path / name, *more)[0] == 0
    runs = [tmp_path / name for name in "abc"]
    status, shown, err = cli(
        "evaluate",
        *runs,
        "--data",
        class_pack,
        "--out",
        tmp_path / "e",
        "--bootstrap",
        0,
        "--apart",
    )
    assert status == 0, err
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())["arms"]
    assert results["b"]["differences_in_options"] == {}
    assert results["c"]["differences_in_options"] == {
        "folds": {"kind": "model", "first": 5, "this": 3},
        "seeds": {"kind": "seed", "first": [0], "this": [5]},
    }
    said = [line for line in shown.splitlines() if line.startswith("warning:")]
    assert len(said) == 2
    assert "more than their initial weights: folds 5 vs 3 (a, c)" in said[0]
    assert "different seeds" in said[1] and "seeds [0] vs [5] (a, c)" in said[1]


def test_a_probe_of_several_draws_says_which_one_was_kept(
    probe, class_pack, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    result = job.run(EvaluateConfig((probe,), class_pack, out=tmp_path / "e", bootstrap=0))
    assert result.runs["probe"].draw == 3
    assert "probe: model of label draw 3" in capsys.readouterr().out
    first = json.loads((probe / "metrics.json").read_text())["test"]["per_seed"][0]["auc"]["value"]
    assert result.figure("probe", "auc").value == pytest.approx(first, abs=1e-6)
    kept = read_label_predictions(probe)
    assert pq.read_table(tmp_path / "e" / result.runs["probe"].predictions).num_rows == len(
        kept.images
    )


def test_without_data_a_classifier_has_all_its_draws_and_the_mean_that_the_run_says(
    probe, tmp_path, capsys
):
    """The sign of a difference cannot turn: what is compared are the means that the runs print."""
    result = job.run(EvaluateConfig((probe,), out=tmp_path / "e", bootstrap=50))
    own = json.loads((probe / "metrics.json").read_text())["test"]
    figure = result.figure("probe", "auc")
    assert figure.value == pytest.approx(own["auc"]["value"], abs=1e-9)
    assert figure.over_seeds.ci95 == pytest.approx(own["auc"]["ci95"], abs=1e-9)
    assert (figure.over, figure.over_seeds.n, result.seeds, list(result.runs)) == (
        "patients", 2, (3, 4), ["probe, draw 3", "probe, draw 4"],
    )  # fmt: skip
    assert [one.training_images for one in result.runs.values()] == json.loads(
        (probe / "metrics.json").read_text()
    )["training_images"]
    assert "2 label draws" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "e" / "figures").iterdir()} >= {
        "auc.svg",
        "roc.svg",
        "reliability.svg",
        "precision-recall.svg",
        "runs.svg",
    }


def test_classifiers_are_compared_over_draws_and_their_shares_of_labels_are_a_curve(
    class_pack, tmp_path, cli, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "200")
    runs = {}
    for init, seed in (("random", 0), ("other", 5)):
        for fraction in (0.4, 1.0):
            out = tmp_path / f"{init}-{fraction}"
            classify(
                ClassifyConfig(
                    class_pack,
                    out,
                    arch="resnet18",
                    size=32,
                    seed=seed,
                    seeds=(1, 2, 3),
                    fraction=fraction,
                    bootstrap=0,
                )
            )
            runs[init, fraction] = changed(
                out, tmp_path / f"said-{init}-{fraction}", init=init, seed=0
            )
    out = tmp_path / "e"
    status, shown, _ = cli("evaluate", *runs.values(), "--out", out, "--bootstrap", "100")
    results = json.loads((out / "metrics.json").read_text())
    names = [run.name for run in runs.values()]
    assert (status, list(results["arms"])) == (0, names)
    own = {
        key: json.loads((run / "metrics.json").read_text())["test"]["auc"]["value"]
        for key, run in runs.items()
    }
    for (init, fraction), run in runs.items():
        arm = results["arms"][run.name]
        assert arm["test"]["auc"]["value"] == pytest.approx(own[init, fraction])
        assert (arm["family"], arm["fraction"]) == (init, fraction)
        assert arm["minus"] == ("" if init == "random" else runs["random", fraction].name)
        if init == "other":
            assert arm["difference"]["auc"]["value"] == pytest.approx(
                own["other", fraction] - own["random", fraction]
            )
    # all labels: the draws are one model, so nothing is repeated
    assert "label draws are one and the same model" in shown
    assert results["arms"][names[0]]["test"]["auc"]["over_seeds"]["n"] == 3
    assert results["arms"][names[1]]["test"]["auc"].get("over_seeds", {"n": 1})["n"] == 1
    points = [r for r in table(out / "fractions.csv") if (r["class"], r["measure"]) == ("", "auc")]
    assert [(r["arm"], r["fraction"]) for r in points] == [
        ("random", "0.4"), ("random", "1.0"), ("other", "0.4"), ("other", "1.0"),
    ]  # fmt: skip
    assert (out / "figures" / "fractions.svg").is_file()
    assert "How many labels it takes" in (out / "report.html").read_text()


def test_batches_of_a_pack_score_as_single_images_do(probe, class_pack):
    model, pack = load_model(probe), open_pack(class_pack)
    rows = pack.where("test")[::-1].copy()
    batched = score_rows(model, pack, rows, 5, "scoring")
    single = np.concatenate([model.labels([prepare_row(model, pack, int(row))]) for row in rows])
    np.testing.assert_allclose(batched, single, atol=1e-5)


def test_with_and_without_data_one_shape_and_the_same_figures(
    detect_run, blob_pack, probe, class_pack, tmp_path
):
    """Fresh predictions and kept ones go through one measure into one set of files."""
    other = changed(detect_run, tmp_path / "other", init="elsewhere/pretrained")
    for name, runs, pack in (
        ("boxes", (detect_run, other), blob_pack),
        ("labels", (one_draw(probe, tmp_path),), class_pack),
    ):
        results, files = [], []
        for data in (pack, None):
            out = tmp_path / f"{name}-{data is None}"
            results.append(job.run(EvaluateConfig(runs, data, out=out, bootstrap=60)))
            files.append(
                {
                    str(p.relative_to(out))
                    for p in out.rglob("*.*")
                    if not p.name.startswith(("predictions ", "truth"))
                }
            )
        fresh, stored = results
        assert files[0] == files[1]
        assert list(fresh.arms) == list(stored.arms)
        for arm in fresh.arms:
            for mine, theirs in ((fresh.arms[arm].figures, stored.arms[arm].figures),):
                for measure, figure in mine.figures.items():
                    assert theirs.get(measure).value == pytest.approx(figure.value, abs=1e-5), (
                        measure
                    )
                    if figure.ci95 is not None:
                        assert theirs.get(measure).ci95 == pytest.approx(figure.ci95, abs=1e-4), (
                            measure
                        )
                    else:
                        assert theirs.get(measure).ci95 is None
        first, second = (evaluation_as_json(one) for one in results)
        assert first.keys() == second.keys()
        assert (
            first["arms"][next(iter(fresh.arms))].keys()
            == second["arms"][next(iter(fresh.arms))].keys()
        )


def one_draw(probe: Path, tmp_path: Path) -> Path:
    """The probe as if it had been fitted with its first draw alone."""
    run = changed(probe, tmp_path / "one-draw", seeds=[3])
    kept = read_label_predictions(probe)
    write_label_predictions(run, [dataclasses.replace(kept, scores={3: kept.scores[3]})])
    (run / "predictions.csv").unlink()
    metrics = json.loads((run / "metrics.json").read_text())
    (run / "metrics.json").write_text(
        json.dumps(metrics | {"seeds": [3], "training_images": metrics["training_images"][:1]})
    )
    return sealed(run)


def test_runs_of_the_first_format_compare_with_new_ones(detect_run, probe, tmp_path, cli):
    """Their metrics.json has no version, their figures no ``over``, their scores are in a CSV."""
    for run, name in ((detect_run, "map50"), (probe, "auc")):
        old = changed(run, tmp_path / f"old-{run.name}", init="old")
        metrics = json.loads((old / "metrics.json").read_text())
        metrics.pop("format", None)
        text = json.dumps(metrics)
        for over in ("patients", "seeds"):
            text = text.replace(f', "over": "{over}"', "")
        (old / "metrics.json").write_text(text)
        (old / "predictions.parquet").unlink(missing_ok=True)
        sealed(old)
        status, _, told = cli(
            "evaluate", run, old, "--out", tmp_path / f"e-{run.name}", "--bootstrap", "20"
        )
        assert status == 0, told
        results = json.loads((tmp_path / f"e-{run.name}" / "metrics.json").read_text())
        assert results["format"] == 2
        assert results["arms"][old.name]["difference"][name]["value"] == 0


def test_kinds_do_not_mix(probe, detect_run, class_pack):
    with pytest.raises(InputError, match="runs of one kind"):
        job.run(EvaluateConfig((probe, detect_run), class_pack))


def test_detectors_leave_curves_confusion_and_charts(detect_run, blob_pack, tmp_path):
    other = changed(detect_run, tmp_path / "other", seed=1)
    out = tmp_path / "e"
    result = job.run(
        EvaluateConfig((detect_run, other), blob_pack, out=out, bootstrap=20, apart=True)
    )
    truth = open_pack(blob_pack)
    n_boxes = sum(len(truth.boxes(int(row))) for row in truth.where("test"))
    for run in ("detector", "other"):
        confusion = result.runs[run].diagnostics["confusion"]
        counts = np.array(confusion["counts"])
        assert confusion["classes"] == [*truth.info.box_classes, "background"]
        assert counts[:-1].sum() == n_boxes
        assert "the model's" in confusion["score_thresholds_from"]
        assert sum(result.runs[run].diagnostics["calibration"]["count"]) > 0
    charts = {path.name for path in (out / "figures").iterdir()}
    assert charts == {
        "precision-recall.svg", "froc.svg", "calibration.svg", "classes.svg", "map50.svg", "confusion detector.svg", "confusion other.svg",
    }  # fmt: skip
    lines = (out / "curves.csv").read_text().splitlines()
    assert lines[0] == "run,class,score,precision,recall,false_positives_per_image"
    recall = [float(line.split(",")[4]) for line in lines if line.startswith("detector,,")]
    assert recall == sorted(recall)


def test_runs_of_several_seeds_are_one_arm_without_data(detect_run, tmp_path, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    runs = [detect_run, changed(detect_run, tmp_path / "second", seed=1)]
    arms = [
        changed(run, tmp_path / f"other-{i}", init="elsewhere/pretrained")
        for i, run in enumerate(runs)
    ]
    out = tmp_path / "crossed"
    status, shown, told = cli("evaluate", *runs, *arms, "--out", out, "--bootstrap", "50")
    assert (status, told) == (0, "")
    results = json.loads((out / "metrics.json").read_text())
    assert (results["folds"], results["seeds"]) == (1, [0, 1])
    assert list(results["arms"]) == ["random", "pretrained"]
    figure = results["arms"]["random"]["test"]["map50"]
    own = json.loads((detect_run / "metrics.json").read_text())["test"]["map50"]["value"]
    assert figure["value"] == pytest.approx(own)
    assert figure["runs"] == [[pytest.approx(own)] * 2]
    assert figure["over_seeds"]["n"] == 2
    assert results["arms"]["pretrained"]["difference"]["map50"]["value"] == 0
    assert {path.name for path in out.iterdir()} == {
        "metrics.json", "metrics.csv", "differences.csv", "curves.csv", "figures", "report.html", "made_by.json",
    }  # fmt: skip
    assert {path.name for path in (out / "figures").iterdir() if not path.name.startswith("confusion")} == {
        "froc.svg", "classes.svg", "runs.svg", "map50.svg", "precision-recall.svg", "calibration.svg",
    }  # fmt: skip
    assert figure["value"] == pytest.approx(
        results["arms"]["random"]["test"]["per_class"]["blob"]["ap50"]["value"]
    )
    assert results["arms"]["random"]["test"]["with_boxes"]["map50"]["value"] >= figure["value"]
    assert results["notes"] == []
    assert "Intervals over seeds" in shown
    status, told, _ = cli("evaluate", *runs, *arms[:1], "--bootstrap", "0")
    assert status == 0
    assert "is over the 1 seed or label draw that both have" in told


def test_without_data_an_edited_truth_is_one_line(probe, detect_run, tmp_path, cli):
    nothing = changed(probe, tmp_path / "nothing")
    for name in ("predictions.csv", "predictions.parquet"):
        (nothing / name).unlink(missing_ok=True)
    sealed(nothing)
    status, _, told = cli("evaluate", nothing)
    assert status == 2
    assert "kept no predictions of split test; give --data to make them now" in told
    whole = json.loads((detect_run / "truth.json").read_text())
    image = whole["images"][0]
    damages = [
        "[]",
        "{",
        json.dumps({**whole, "images": []}),
        json.dumps({**whole, "images": [image, {**image, "pack_id": "another"}]}),
        json.dumps({**whole, "images": [{**image, "id": float("inf")}]}),
        json.dumps({**whole, "categories": [{"id": 3, "name": "blob"}]}),
        json.dumps(whole).replace('"bbox": [', '"bbox": [1' + "0" * 400 + ", "),
    ]
    for i, damage in enumerate(damages):
        run = changed(detect_run, tmp_path / f"damaged{i}")
        (run / "truth.json").write_text(damage)
        sealed(run)
        status, _, told = cli("evaluate", run)
        assert (status, len(told.splitlines())) == (2, 1), damage[:80]
        assert "truth.json" in told
    for name, text in (
        ("model.json", "[]"),
        ("config.yaml", "job: detect\nseed: abc\n"),
        ("config.yaml", "job: pretrain\n"),
    ):
        run = changed(detect_run, tmp_path / f"damaged-{name}-{len(text)}")
        (run / name).write_text(text)
        sealed(run)
        status, _, told = cli("evaluate", run)
        assert (status, len(told.splitlines())) == (2, 1), text
    status, _, told = cli("evaluate", detect_run, "--seed", "-1")
    assert (status, "--seed" in told) == (2, True)


def test_marks_other_packs_and_lengths_of_folds_are_seen_through(
    detect_run, tmp_path, cli, monkeypatch
):
    """An arm is not split by what follows from its fold; what spoils a comparison is told."""
    monkeypatch.setenv("COLUMNS", "200")
    config = yaml.safe_load((detect_run / "config.yaml").read_text())
    metrics = json.loads((detect_run / "metrics.json").read_text())
    batch, epochs = config["batch_size"], config["epochs"]
    more = metrics["training_images"] + 10 * batch  # another fold: longer, so with another warm-up
    other = changed(
        detect_run,
        tmp_path / "other",
        seed=1,
        warmup_steps=min(500, more // batch * epochs // 10),
        bootstrap=3,
    )
    (other / "metrics.json").write_text(json.dumps({**metrics, "training_images": more}))
    sealed(other)
    old = changed(detect_run, tmp_path / "old", seed=2)
    kept = yaml.safe_load((old / "config.yaml").read_text())
    del kept["fraction"]
    (old / "config.yaml").write_text(yaml.safe_dump(kept))
    sealed(old)
    seen = changed(detect_run, tmp_path / "seen", seed=3)
    mark = {"value": 2, "ci95": None, "n": 6}
    (seen / "metrics.json").write_text(
        json.dumps({**metrics, "test": {**metrics["test"], "seen_in_pretraining": mark}})
    )
    described = json.loads((seen / "model.json").read_text())
    described["data"][0]["checksums"] = {"images.npy": "0"}
    (seen / "model.json").write_text(json.dumps(described))
    sealed(seen)
    out = tmp_path / "crossed"
    status, shown, _ = cli(
        "evaluate", detect_run, other, old, seen, "--out", out, "--bootstrap", "20"
    )
    assert status == 0
    results = json.loads((out / "metrics.json").read_text())
    assert (list(results["arms"]), results["seeds"]) == (["random"], [0, 1, 2, 3])
    assert results["arms"]["random"]["test"]["seen_in_pretraining"]["value"] == 2
    assert "seen_in_pretraining" in (out / "metrics.csv").read_text()
    assert "random *" in shown
    assert any("includes 2 of 6 images that training had seen" in note for note in results["notes"])
    assert any("not trained on the same pack" in note for note in results["notes"])


def test_the_draw_of_labelled_images_is_no_other_arm(detect_run, tmp_path, cli):
    runs = [
        changed(
            detect_run,
            tmp_path / f"{init}{seed}",
            init=init,
            seed=seed,
            fraction=0.5,
            fraction_seed=seed,
        )
        for init in ("random", "pretrained")
        for seed in (0, 1)
    ]
    status, _, _ = cli("evaluate", *runs, "--out", tmp_path / "same", "--bootstrap", "0")
    results = json.loads((tmp_path / "same" / "metrics.json").read_text())
    assert (status, list(results["arms"]), results["notes"]) == (0, ["random", "pretrained"], [])
    runs[-1] = changed(runs[-1], tmp_path / "others", fraction_seed=7)
    status, _, _ = cli("evaluate", *runs, "--out", tmp_path / "other", "--bootstrap", "0")
    results = json.loads((tmp_path / "other" / "metrics.json").read_text())
    assert (status, len(results["notes"])) == (0, 1)
    assert "other labelled images" in results["notes"][0]


def test_scores_of_exactly_one_do_not_end_an_evaluation():
    truth = {i: Boxes(np.array([[0.0, 0, 9, 9]]), np.array([0])) for i in range(40)}
    found = {
        i: Boxes(np.array([[50.0, 50, 60, 60]]), np.array([0]), np.array([1.0])) for i in truth
    }
    chosen = choose_thresholds(truth, found, ("blob",)).as_json()
    data = BoxData(truth, found, dict.fromkeys(truth))
    assert diagnose(data, ("blob",), chosen, "run").confusion.tolist() == [[0, 40], [0, 0]]


def test_runs_whose_names_meet_keep_files_of_their_own(
    detect_run, blob_pack, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    names = ["x/r", "y/r", "x_r"]
    for name in names:
        copied(detect_run, Path(name))
    out = tmp_path / "e"
    result = job.run(
        EvaluateConfig(tuple(map(Path, names)), blob_pack, out=out, bootstrap=0, apart=True)
    )
    assert list(result.arms) == names
    files = [result.runs[name].predictions for name in names]
    assert files == ["predictions x_r-2.json", "predictions y_r.json", "predictions x_r.json"]
    assert {path.name for path in out.glob("predictions *")} == set(files)
    assert len(list((out / "figures").glob("confusion *"))) == 3


def test_differences_classes_and_images_with_boxes_are_shown_and_written(
    detect_run, blob_pack, tmp_path, cli, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    names = [f"a-detector-with-a-name-that-is-long-seed{i}" for i in range(2)]
    runs = [changed(detect_run, tmp_path / name, seed=i) for i, name in enumerate(names)]
    out = tmp_path / "e"
    status, shown, _ = cli(
        "evaluate", *runs, "--data", blob_pack, "--out", out, "--bootstrap", "20", "--apart"
    )
    assert status == 0
    assert "Paired differences" in shown and f"{names[1]} minus" in shown
    assert "AP50 of each class" in shown and "true boxes" in shown
    assert "images with boxes: value" in shown
    assert "…" not in shown
    assert (
        "warning: runs are of different seeds, so their difference holds the luck of the draw too: seed 0 vs 1"
        in shown
    )
    assert "more than their initial weights" not in shown
    figures = json.loads((out / "metrics.json").read_text())["arms"][names[0]]["test"]
    rows = {
        (r["run"], r["images"], r["class"], r["measure"]): r for r in table(out / "metrics.csv")
    }
    for key, at in (
        (("all", "", "froc@8"), figures["froc@8"]),
        (("all", "blob", "ap50"), figures["per_class"]["blob"]["ap50"]),
        (("with_boxes", "", "map50"), figures["with_boxes"]["map50"]),
    ):
        assert float(rows[names[0], *key]["value"]) == at["value"]
        assert float(rows[names[0], *key]["high"]) == at["ci95"][1]
    assert rows[names[1], "all", "blob", "n_boxes"]["value"] == str(
        figures["per_class"]["blob"]["n_boxes"]
    )
    differences = table(out / "differences.csv")
    assert {(r["run"], r["minus"]) for r in differences} == {(names[1], names[0])}
    assert {(r["images"], r["class"]) for r in differences} >= {
        ("all", ""),
        ("all", "blob"),
        ("with_boxes", ""),
    }
    assert all(float(r["difference"]) == 0 for r in differences if r["difference"])


def test_one_run_alone_has_no_differences(probe, class_pack, tmp_path, capsys):
    job.run(EvaluateConfig((probe,), class_pack, out=tmp_path / "e", bootstrap=0))
    assert "AUC of each class" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "e").iterdir()} == {
        "metrics.json", "metrics.csv", "curves.csv", "figures", "report.html", "predictions probe.parquet",
        "made_by.json",
    }  # fmt: skip
    rows = table(tmp_path / "e" / "metrics.csv")
    assert {("", "auc"), ("bright", "auc"), ("bright", "n_positive")} <= {
        (r["class"], r["measure"]) for r in rows
    }


def test_runs_notes_are_carried(detect_run, blob_pack, tmp_path, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stuck = "10 layers stay random for ever, no fair floor"
    runs = [
        noted(changed(detect_run, tmp_path / f"r{i}", seed=i), "pack note", *([stuck] * i))
        for i in range(2)
    ]
    status, shown, _ = cli(
        "evaluate",
        *runs,
        "--data",
        blob_pack,
        "--out",
        tmp_path / "e",
        "--bootstrap",
        "0",
        "--apart",
    )
    results = json.loads((tmp_path / "e" / "metrics.json").read_text())["runs"]
    assert status == 0
    assert results["r0"]["notes"] == ["from its training: pack note"]
    assert results["r1"]["notes"] == ["from its training: pack note", f"from its training: {stuck}"]
    assert f"r1: from its training: {stuck}" in shown
    assert shown.count("pack note") == shown.count("all runs: from its training: pack note") == 1
    other = (
        noted(changed(runs[0], tmp_path / "o0", init="pre"), stuck),
        changed(runs[1], tmp_path / "o1", init="pre"),
    )
    status, shown, _ = cli("evaluate", *runs, *other, "--out", tmp_path / "c", "--bootstrap", "0")
    notes = json.loads((tmp_path / "c" / "metrics.json").read_text())["notes"]
    assert notes == ["all runs: pack note", f"random, 1 of 2 runs: {stuck}", f"pre: {stuck}"]
    assert all(f"note: {note}" in shown for note in notes)
