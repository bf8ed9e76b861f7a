"""Pre-train on unlabelled medical images with Barlow Twins, then detect, classify, compare and explain.

Every verb of the command line is a function here, with the same options::

    import twinray
    twinray.pretrain(twinray.PretrainConfig(data=(Path("pack"),), out=Path("run")))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twinray.classification.config import ClassifyConfig
    from twinray.classification.run import run as classify
    from twinray.data.pack import open_pack
    from twinray.detection.config import DetectConfig
    from twinray.jobs.boxes import BoxesConfig
    from twinray.jobs.boxes import run as boxes
    from twinray.jobs.evaluate.config import EvaluateConfig
    from twinray.jobs.evaluate.run import run as evaluate
    from twinray.jobs.explain.run import ExplainConfig
    from twinray.jobs.explain.run import run as explain
    from twinray.jobs.pack import PackConfig
    from twinray.jobs.pack import run as pack
    from twinray.jobs.predict import PredictConfig
    from twinray.jobs.predict import run as predict
    from twinray.jobs.train import detect, pretrain
    from twinray.pretraining.config import PretrainConfig
    from twinray.study.demo import DemoConfig
    from twinray.study.demo import run as demo

_WHERE = {
    "BoxesConfig": "twinray.jobs.boxes",
    "ClassifyConfig": "twinray.classification.config",
    "DemoConfig": "twinray.study.demo",
    "DetectConfig": "twinray.detection.config",
    "EvaluateConfig": "twinray.jobs.evaluate.run",
    "ExplainConfig": "twinray.jobs.explain.run",
    "PackConfig": "twinray.jobs.pack",
    "PredictConfig": "twinray.jobs.predict",
    "PretrainConfig": "twinray.pretraining.config",
    "open_pack": "twinray.data.pack",
    "boxes": "twinray.jobs.boxes:run",
    "classify": "twinray.classification.run:run",
    "demo": "twinray.study.demo:run",
    "detect": "twinray.jobs.train:detect",
    "evaluate": "twinray.jobs.evaluate.run:run",
    "explain": "twinray.jobs.explain.run:run",
    "pack": "twinray.jobs.pack:run",
    "predict": "twinray.jobs.predict:run",
    "pretrain": "twinray.jobs.train:pretrain",
}

__all__ = [
    "BoxesConfig",
    "ClassifyConfig",
    "DemoConfig",
    "DetectConfig",
    "EvaluateConfig",
    "ExplainConfig",
    "PackConfig",
    "PredictConfig",
    "PretrainConfig",
    "boxes",
    "classify",
    "demo",
    "detect",
    "evaluate",
    "explain",
    "open_pack",
    "pack",
    "predict",
    "pretrain",
]


def __getattr__(name: str) -> Any:
    """Import on first use: reading a pack must not wait for torch."""
    if name not in _WHERE:
        raise AttributeError(f"module 'twinray' has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)
