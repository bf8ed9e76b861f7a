"""``twinray retrain``: readers' corrections -> a new detector, compared with the old one, and put beside it in the viewer.

Everything is a verb that can be repeated by hand: ``pack STORE --format feedback``, ``study`` on the file that is written here
(``detect --init RUN``), ``evaluate OLD NEW --data PACK``. The pack is made once and outside the study: the store goes on
changing, and a study must be able to go on with what it began with.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from twinray.about import DISCLAIMER
from twinray.checks import MODEL, of_kind
from twinray.data.pack import PACK, Pack, open_pack
from twinray.detection.config import DetectConfig
from twinray.errors import InputError
from twinray.files import write_text
from twinray.jobs.evaluate.config import EvaluateConfig
from twinray.jobs.evaluate.run import run as evaluate
from twinray.jobs.pack import PackConfig
from twinray.jobs.pack import run as pack_images
from twinray.runs.beside import Beside, put_beside
from twinray.runs.description import MODEL as DESCRIPTION
from twinray.runs.description import ModelDescription, read_description
from twinray.runs.folder import read_config
from twinray.studies.config import RetrainConfig, StudyConfig
from twinray.studies.run import run as run_study

PACKED, STUDY_FILE, STUDY, COMPARISON = "pack", "study.yaml", "study", "comparison"
_TENTH = 0.1
_NOT_TAKEN = frozenset(
    {"fraction", "init_part", "epochs", "lr", "warmup_steps", "detector", "arch"}
)
"""Options of the old run that its training alone had, or that are given apart."""


@dataclass(frozen=True)
class Retrained:
    """What came of it.

    Attributes:
        runs: folders of the new runs, in the order of their seeds. comparison: folder of the comparison's page.
        pack: folder of the pack.
    """

    runs: tuple[Path, ...]
    comparison: Path
    pack: Path


def run(config: RetrainConfig, console: Console | None = None) -> Retrained | None:
    """Pack, train, compare, and put the new model beside the old.

    Returns:
        Where everything lies; None with ``plan``.

    Raises:
        InputError: no detect run, no readings on one of the sides, or test patients that the old model learnt from.
        TwinrayError: a training failed.
    """
    console = console or Console()
    old = _old(config.init)
    pack = _pack(config, old, console)
    file = config.out / STUDY_FILE
    write_text(file, _study(config, old), "the study's file")
    study = StudyConfig(file, config.out / STUDY, workers=config.workers, plan=config.plan)
    state = run_study(study, console)
    if state is None:
        return None
    made = sorted((piece.node.cells[0].seed, piece.folder) for piece in state.measured())
    order = {seed: i for i, seed in enumerate(config.seeds)}
    made.sort(key=lambda one: order[one[0]])
    runs = tuple(_named(config, seed, folder) for seed, folder in made)
    comparison = config.out / COMPARISON
    evaluate(
        EvaluateConfig(
            (config.init, *runs),
            data=pack.path,
            out=comparison,
            overwrite=comparison.exists(),
            bootstrap=config.bootstrap,
            pictures=config.pictures,
            device=config.device,
        )
    )
    new = read_description(runs[0] / DESCRIPTION)
    put_beside(
        config.store,
        Beside(
            str(runs[0].resolve()),
            new.sha256,
            old.sha256,
            str((comparison / "report.html").resolve()),
            datetime.now(UTC).isoformat(timespec="seconds"),
        ),
    )
    console.print(Text(f"comparison: {comparison / 'report.html'}"), soft_wrap=True)
    console.print(
        Text(
            f"beside the old model from the next start of twinray serve {config.init} --store {config.store}; the old one "
            "stays first"
        ),
        soft_wrap=True,
    )
    console.print(f"{DISCLAIMER}.")
    return Retrained(runs, comparison, pack.path)


def _named(config: RetrainConfig, seed: int, folder: Path) -> Path:
    """The run under a name that people know it by; its files are those of the study's run, linked where that can be."""
    name = f"{config.init.resolve().name}-retrained" + (f"-{seed}" if len(config.seeds) > 1 else "")
    out = config.out / name
    if not out.exists():
        partial = config.out / f".{name}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            shutil.copytree(folder, partial, copy_function=os.link)
        except (OSError, shutil.Error):  # a disk without links
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(folder, partial)
        partial.rename(out)
    return out


def _old(run_folder: Path) -> ModelDescription:
    if not (run_folder / DESCRIPTION).is_file():
        raise InputError(
            f"expected --init to be the folder of a finished detect run, {run_folder} has no {DESCRIPTION}"
        )
    description = read_description(run_folder / DESCRIPTION)
    if description.kind != "detector":
        raise InputError(
            f"expected --init to be a detect run, {run_folder} is a {description.kind}; pack the store with --format feedback "
            "and give the pack to twinray classify --init"
        )
    return description


def _pack(config: RetrainConfig, old: ModelDescription, console: Console) -> Pack:
    """The pack of this retraining, made as that of the old run was; what is there already stays."""
    path = config.out / PACKED
    if (path / PACK).is_file():
        pack = open_pack(path)
    else:
        decoded = old.pack.decoded
        pack = pack_images(
            PackConfig(
                source=(config.store,),
                format=("feedback",),
                out=path,
                size=old.pack.size,
                fit=old.pack.fit,
                channels="grey" if old.pack.channels == 1 else "rgb",
                exif=decoded.exif,
                pixels=old.pack.pixels,
                database=config.database,
                fusion_iou=config.fusion_iou,
                min_readers=config.min_readers,
                val=config.val,
                test=config.test,
                resume=path.exists(),
            ),
            console,
        )
    for split in ("train", "val", "test"):
        n = sum(pack.boxes(int(row)) is not None for row in pack.where(split))
        if not n:
            raise InputError(
                f"expected read images on every side, none is on the side {split} ({len(pack)} were read in all); read more "
                f"images, then remove {path}; patients' sides come by chance (--val, --test)"
            )
    return pack


def _study(config: RetrainConfig, old: ModelDescription) -> str:
    """The study as a file: what ``twinray study`` takes."""
    kept = read_config(config.init)
    carried = {
        name: kept[name]
        for name in sorted(of_kind(DetectConfig, *(MODEL,)) - _NOT_TAKEN)
        if kept.get(name) is not None and name in kept
    }
    lr = config.lr
    if lr is None and isinstance(kept.get("lr"), int | float):
        lr = _TENTH * float(kept["lr"])
    options: dict[str, Any] = {
        **carried,
        "detector": old.options.get("detector", "faster-rcnn"),
        "arch": old.arch,
        "epochs": config.epochs,
        **({} if lr is None else {"lr": lr}),
        "bootstrap": config.bootstrap,
        "device": config.device,
    }
    content = {
        "study": f"Further training of {config.init.resolve().name} on readers' corrections",
        "question": "Do the corrections make a better detector on the same untouched test patients?",
        "packs": {"feedback": PACKED},
        "arms": [
            {
                "name": "retrained",
                "init": os.path.relpath(config.init.resolve(), config.out.resolve()),
            }
        ],
        "tasks": {
            "boxes": {
                "verb": "detect",
                "pack": "feedback",
                "seeds": [*config.seeds],
                "options": options,
            }
        },
    }
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
