"""The package in a Python session: texts for paths, checks at once, short errors, objects that say what they are."""

import subprocess
import sys
import traceback

import pytest

import twinray
from support import PRETRAIN
from twinray.errors import InputError


def test_texts_are_paths_and_a_configuration_is_checked_when_it_is_made():
    config = twinray.PretrainConfig(data="packs/a", out="run")
    assert [path.as_posix() for path in config.data] == ["packs/a"]
    assert config.out.name == "run"
    with pytest.raises(twinray.InputError, match="expected --batch-size to be"):
        twinray.PretrainConfig(data="a", out="b", batch_size=-3)
    with pytest.raises(
        twinray.InputError, match="expected --epochs to be a whole number, got many"
    ):
        twinray.PretrainConfig(data="a", out="b", epochs="many")


def test_a_run_has_its_figures_and_says_what_it_is(class_pack, tmp_path):
    out = tmp_path / "probe"
    config = twinray.ClassifyConfig(
        data=str(class_pack), out=str(out), arch="resnet18", size=32, bootstrap=20, seeds=(0, 1)
    )
    run = twinray.classify(config)
    assert 0 <= run.metrics["test"]["auc"]["value"] <= 1
    assert run.config["job"] == "classify"
    assert repr(run).startswith(f"RunFolder('{out}', classify, ")
    assert f"test auc {run.metrics['test']['auc']['value']:.3f}" in repr(run)
    again = twinray.open_run(str(out))
    assert (repr(again), again.metrics) == (repr(run), run.metrics)
    (out / "metrics.json").unlink()
    assert repr(run) == f"RunFolder('{out}', classify, not finished)"
    with pytest.raises(InputError, match="did not finish"):
        _ = run.metrics


@pytest.mark.parametrize(
    ("call", "came"),
    [
        (lambda: twinray.detect("runs/a"), "got str 'runs/a'"),
        (lambda: twinray.classify(data="packs/a", out="b"), "got data, out"),
        (lambda: twinray.evaluate(), "got none"),
        (lambda: twinray.pack(twinray.EvaluateConfig("runs/a")), "got EvaluateConfig "),
        (lambda: twinray.write_report({"study": "s"}), r"twinray.ReportConfig\(...\)\), got dict"),
    ],
)
def test_a_verb_that_is_called_without_its_options_says_how(call, came):
    with pytest.raises(InputError, match=came) as error:
        call()
    assert "takes its options as one object, twinray." in str(error.value)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a run folder"):
        twinray.open_run(tmp_path)


def test_an_evaluation_and_a_pack_say_what_they_are(detect_run, blob_pack):
    shown = repr(twinray.evaluate(twinray.EvaluateConfig(str(detect_run), bootstrap=20)))
    assert shown.startswith("Evaluation of detectors, split test, map50:\n  detector ")
    pack = twinray.open_pack(str(blob_pack))
    assert repr(pack).startswith(f"Pack('{blob_pack}', 24 images of 64 pixels, train ")
    assert "boxes: blob" in repr(pack)


def test_an_error_of_the_user_is_a_few_lines_in_python(tmp_path):
    code = f"import twinray; twinray.predict(twinray.PredictConfig('nowhere', 'x.png', {str(tmp_path / 'o')!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    lines = done.stderr.strip().splitlines()
    assert len(lines) <= 8, done.stderr
    assert lines[-1].startswith("twinray.errors.InputError: expected an image file or a folder")
    assert sum("During handling" in line or "direct cause" in line for line in lines) == 0


def test_the_whole_traceback_is_kept_on_request(tmp_path, monkeypatch):
    def lines():
        with pytest.raises(InputError) as error:
            twinray.predict(twinray.PredictConfig("nowhere", "x.png", tmp_path / "o"))
        return "".join(traceback.format_exception(error.value))

    monkeypatch.delenv("TWINRAY_TRACEBACK", raising=False)
    assert "image_files.py" not in lines()
    monkeypatch.setenv("TWINRAY_TRACEBACK", "1")
    assert "image_files.py" in lines()


def test_other_errors_are_left_alone(monkeypatch, class_pack, tmp_path):
    monkeypatch.setattr("twinray.pretraining.run.train", lambda *_: 1 / 0)
    options = dict(zip(PRETRAIN[::2], PRETRAIN[1::2], strict=False))
    assert options["--arch"] == "resnet18"
    with pytest.raises(ZeroDivisionError):
        twinray.pretrain(
            twinray.PretrainConfig(
                data=class_pack,
                out=tmp_path / "r",
                arch="resnet18",
                size=32,
                batch_size=8,
                projector=(32, 32),
            )
        )
