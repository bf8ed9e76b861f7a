"""One table of verbs: the command line and the names that ``import twinray`` offers are made from it.

A new verb is its own module (options and function), a row here, and two imports for type checkers
in ``twinray/__init__.py``. A test holds those imports against this table.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from twinray.errors import InputError, TwinrayError


@dataclass(frozen=True)
class Verb:
    """Where a verb's options and function live, as ``module:name``; imported only when it is asked for.

    Attributes:
        help: text on what it does, for ``twinray --help``.
        config: dataclass of its options.
        run: function that takes the options; the verb of the same name in Python.
        command: function behind the command line, where that says more than the one in Python; else empty.
        positional: options that are given without a flag, in order.
        python: name of the function in Python where the verb's is taken by a package; else empty.
    """

    help: str
    config: str
    run: str
    command: str = ""
    positional: tuple[str, ...] = ()
    python: str = ""


VERBS: Mapping[str, Verb] = MappingProxyType(
    {
        "demo": Verb(
            help="the whole pipeline on synthetic images, in minutes",
            config="twinray.studies.config:DemoConfig",
            run="twinray.studies.demo:run",
        ),
        "pack": Verb(
            help="images on disk -> a pack that training reads",
            config="twinray.jobs.pack:PackConfig",
            run="twinray.jobs.pack:run",
            positional=("source",),
        ),
        "look": Verb(
            help="an archive before training: negatives, sideways images, laterals, text, copies",
            config="twinray.jobs.look.config:LookConfig",
            run="twinray.jobs.look.run:run",
            positional=("paths",),
        ),
        "boxes": Verb(
            help="readers' annotations -> one COCO file and its counts",
            config="twinray.jobs.boxes:BoxesConfig",
            run="twinray.jobs.boxes:run",
            positional=("source",),
        ),
        "pretrain": Verb(
            help="unlabelled packs -> a backbone (Barlow Twins)",
            config="twinray.pretraining.config:PretrainConfig",
            run="twinray.jobs.train:pretrain",
            command="twinray.jobs.train:pretrain_and_tell",
        ),
        "detect": Verb(
            help="a pack with boxes -> a detector and its figures",
            config="twinray.detection.config:DetectConfig",
            run="twinray.jobs.train:detect",
            command="twinray.jobs.train:detect_and_tell",
        ),
        "classify": Verb(
            help="a pack with labels -> a classifier and its figures",
            config="twinray.classification.config:ClassifyConfig",
            run="twinray.jobs.train:classify",
            command="twinray.jobs.train:classify_and_tell",
        ),
        "evaluate": Verb(
            help="a finished run on a pack, or several runs side by side",
            config="twinray.jobs.evaluate.config:EvaluateConfig",
            run="twinray.jobs.evaluate.run:run",
            positional=("runs",),
        ),
        "explain": Verb(
            help="a heat map for each predicted box",
            config="twinray.jobs.explain.config:ExplainConfig",
            run="twinray.jobs.explain.run:run",
            positional=("run", "images"),
        ),
        "embed": Verb(
            help="features of a pack: maps, neighbours, what they tell of labels and scanners",
            config="twinray.jobs.embed.config:EmbedConfig",
            run="twinray.jobs.embed.run:run",
        ),
        "faithfulness": Verb(
            help="do heat maps point at the finding? Measured over a split",
            config="twinray.jobs.explain.config:FaithfulnessConfig",
            run="twinray.jobs.explain.measure:run",
            positional=("run",),
        ),
        "study": Verb(
            help="a whole comparison from one file: packs, arms, tasks, figures on sealed test images",
            config="twinray.studies.config:StudyConfig",
            run="twinray.studies.run:run",
            positional=("file",),
        ),
        "retrain": Verb(
            help="readers' corrections -> a new detector, compared with the old and put beside it",
            config="twinray.studies.config:RetrainConfig",
            run="twinray.studies.retrain:run",
            positional=("store",),
        ),
        "report": Verb(
            help="a study, finished or not, as one page with its tables and figures",
            config="twinray.studies.report.config:ReportConfig",
            run="twinray.studies.report.write:run",
            positional=("study",),
            python="write_report",
        ),
        "export": Verb(
            help="a run's weights for another tool, checked there on real images",
            config="twinray.exporting.config:ExportConfig",
            run="twinray.exporting.run:run",
            positional=("run",),
        ),
        "weights": Verb(
            help="public weights by name, or what a weight file holds",
            config="twinray.jobs.weights.config:WeightsConfig",
            run="twinray.jobs.weights.run:run",
            positional=("target",),
        ),
        "predict": Verb(
            help="boxes or labels for files and folders",
            config="twinray.jobs.predict.config:PredictConfig",
            run="twinray.jobs.predict.run:run",
            positional=("run", "paths"),
        ),
        "serve": Verb(
            help="a web page and an HTTP API for readers of images",
            config="twinray.serving.config:ServeConfig",
            run="twinray.serving.run:run",
            positional=("runs",),
        ),
        "store": Verb(
            help="the store of serve: backup, restore, users, forgetting a patient",
            config="twinray.serving.config:StoreConfig",
            run="twinray.serving.manage:run",
            positional=("action",),
        ),
    }
)


def public_names() -> dict[str, str]:
    """Every verb's function under the verb's name and its options under the dataclass's: name -> ``module:name``."""
    functions = {verb.python or name: verb.run for name, verb in VERBS.items()}
    options = {verb.config.partition(":")[2]: verb.config for verb in VERBS.values()}
    return options | functions


def load(reference: str) -> Any:
    """The object that ``module:name`` stands for; imports its module."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def with_short_errors(
    function: Callable[..., Any], name: str, options_class: str
) -> Callable[..., Any]:
    """A verb's function for Python sessions: an error that a user can act on comes without the frames inside the package.

    The environment variable ``TWINRAY_TRACEBACK`` keeps them.

    Args:
        function: takes the options first.
        name: what it is called at the top of the package.
        options_class: name of the dataclass of its options.

    Raises:
        InputError: called with anything but these options.
    """

    @functools.wraps(function)
    def verb(*arguments: Any, **options: Any) -> Any:
        given = arguments[0] if arguments else options.get("config")
        if type(given).__name__ != options_class:
            came = f"{type(given).__name__} {given!r:.60}" if arguments else ", ".join(options)
            raise InputError(
                f"twinray.{name} takes its options as one object, twinray.{name}(twinray.{options_class}(...)), "
                f"got {came or 'none'}"
            )
        try:
            return function(*arguments, **options)
        except TwinrayError as error:
            if os.environ.get("TWINRAY_TRACEBACK"):
                raise
            short = error.with_traceback(None)
        raise short from None  # outside of the block, or the first traceback would come along as its context

    return verb
