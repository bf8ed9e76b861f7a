"""Pre-train on unlabelled medical images with Barlow Twins, then detect, classify, compare and explain.

Every verb of the command line is a function here, with the same options::

    import twinray
    run = twinray.pretrain(twinray.PretrainConfig(data="pack", out="run"))
    run.metrics["train"]["loss"]["value"]
    twinray.open_run("run").metrics  # the same later

Paths may be texts. A configuration is checked when it is made. Errors that a user can act on are ``TwinrayError`` with one
line; the environment variable ``TWINRAY_TRACEBACK`` keeps the frames inside the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twinray.verbs import VERBS, public_names, with_short_errors
from twinray.verbs import load as _load

if (
    TYPE_CHECKING
):  # the same names once more for type checkers and editors; a test holds them against the table
    from twinray.classification.config import ClassifyConfig as ClassifyConfig
    from twinray.data.pack import open_pack as open_pack
    from twinray.detection.config import DetectConfig as DetectConfig
    from twinray.errors import InputError as InputError
    from twinray.errors import TwinrayError as TwinrayError
    from twinray.exporting.config import ExportConfig as ExportConfig
    from twinray.exporting.load import load as load
    from twinray.exporting.run import run as _export
    from twinray.jobs.boxes import BoxesConfig as BoxesConfig
    from twinray.jobs.boxes import run as _boxes
    from twinray.jobs.embed.config import EmbedConfig as EmbedConfig
    from twinray.jobs.embed.run import run as _embed
    from twinray.jobs.evaluate.config import EvaluateConfig as EvaluateConfig
    from twinray.jobs.evaluate.run import run as _evaluate
    from twinray.jobs.explain.config import ExplainConfig as ExplainConfig
    from twinray.jobs.explain.config import FaithfulnessConfig as FaithfulnessConfig
    from twinray.jobs.explain.measure import run as _faithfulness
    from twinray.jobs.explain.run import run as _explain
    from twinray.jobs.look.config import LookConfig as LookConfig
    from twinray.jobs.look.run import run as _look
    from twinray.jobs.pack import PackConfig as PackConfig
    from twinray.jobs.pack import run as _pack
    from twinray.jobs.predict.config import PredictConfig as PredictConfig
    from twinray.jobs.predict.run import run as _predict
    from twinray.jobs.train import classify as classify
    from twinray.jobs.train import detect as detect
    from twinray.jobs.train import pretrain as pretrain
    from twinray.jobs.weights.config import WeightsConfig as WeightsConfig
    from twinray.jobs.weights.run import run as _weights
    from twinray.pretraining.config import PretrainConfig as PretrainConfig
    from twinray.runs.folder import existing_run as _open_run
    from twinray.serving.config import ServeConfig as ServeConfig
    from twinray.serving.config import StoreConfig as StoreConfig
    from twinray.serving.manage import run as _store
    from twinray.serving.run import run as _serve
    from twinray.studies.config import DemoConfig as DemoConfig
    from twinray.studies.config import RetrainConfig as RetrainConfig
    from twinray.studies.config import StudyConfig as StudyConfig
    from twinray.studies.demo import run as _demo
    from twinray.studies.report.config import ReportConfig as ReportConfig
    from twinray.studies.report.write import run as _write_report
    from twinray.studies.retrain import run as _retrain
    from twinray.studies.run import run as _study

    __version__: str
    boxes = _boxes
    demo = _demo
    embed = _embed
    evaluate = _evaluate
    explain = _explain
    export = _export
    faithfulness = _faithfulness
    look = _look
    open_run = _open_run
    pack = _pack
    predict = _predict
    serve = _serve
    store = _store
    retrain = _retrain
    study = _study
    weights = _weights
    write_report = _write_report

_WHERE = {
    **public_names(),
    "open_pack": "twinray.data.pack:open_pack",
    "open_run": "twinray.runs.folder:existing_run",
    "load": "twinray.exporting.load:load",
    "InputError": "twinray.errors:InputError",
    "TwinrayError": "twinray.errors:TwinrayError",
    "__version__": "twinray.about:own_version",
}

__all__ = sorted(_WHERE)

_VERBS = {verb.python or name: verb.config.partition(":")[2] for name, verb in VERBS.items()}
"""What verbs are called here, with the names of their options' dataclasses."""


if not TYPE_CHECKING:  # type checkers shall miss a name that does not exist

    def __getattr__(name: str) -> Any:
        """Import on first use: reading a pack must not wait for torch."""
        if name not in _WHERE:
            raise AttributeError(f"module 'twinray' has no attribute {name!r}")
        found = _load(_WHERE[name])
        if name == "__version__":
            return found()
        if name in _VERBS:
            found = with_short_errors(found, name, _VERBS[name])
        globals()[name] = found  # made once
        return found

    def __dir__() -> list[str]:
        return sorted({*_WHERE, *(name for name in globals() if name.startswith("__"))})
