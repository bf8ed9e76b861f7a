"""Runs that were made before images could be resized in more than one way keep the one that they had."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from twinray.detection.config import DetectConfig
from twinray.errors import InputError
from twinray.inference.model import load_model
from twinray.runs.folder import open_run


def test_an_older_detector_sees_images_as_it_did(detect_run: Path, tmp_path: Path) -> None:
    assert load_model(detect_run, "cpu").detector.options.resize == "bicubic"
    older = Path(shutil.copytree(detect_run, tmp_path / "older"))
    described = json.loads((older / "model.json").read_text())
    del described["options"]["resize"]
    (older / "model.json").write_text(json.dumps(described))
    (older / "checksums.json").unlink()  # older runs have none
    assert load_model(older, "cpu").detector.options.resize == "bilinear"
    described["options"]["resize"] = "nearest"
    (older / "model.json").write_text(json.dumps(described))
    with pytest.raises(InputError, match="resize: invalid enum value 'nearest'"):
        load_model(older, "cpu")


def test_an_older_run_goes_on_as_it_began_or_says_why_not(tmp_path: Path) -> None:
    config = DetectConfig(data=Path("pack"), out=tmp_path / "run", resume=True)
    open_run(config, out=config.out, resume=True, job="detect", environment={})
    kept = yaml.safe_load((config.out / "config.yaml").read_text())
    del kept["resize"]
    (config.out / "config.yaml").write_text(yaml.safe_dump(kept))
    with pytest.raises(InputError, match=r"resize was 'bilinear', now 'bicubic'"):
        open_run(config, out=config.out, resume=True, job="detect", environment={})
    config = replace(config, resize="bilinear")
    open_run(config, out=config.out, resume=True, job="detect", environment={})
