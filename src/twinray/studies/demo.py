"""The verb ``demo``: a study of two arms on the embedded phantom, with the report that every study gets.

Nothing here is special to the demo but its sizes. It writes a study's file, does it as ``twinray study`` would, and writes the report
as ``twinray report`` would. The file stays in the folder, for use on other images.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePath

from rich.console import Console
from rich.text import Text

from twinray.backbones.weights import settled_arch
from twinray.errors import InputError
from twinray.files import clear_disk_errors, write_text
from twinray.report.numbers import duration
from twinray.studies.config import DemoConfig, StudyConfig
from twinray.studies.report.config import ReportConfig
from twinray.studies.report.write import tables, written
from twinray.studies.run import run as study
from twinray.studies.runner.place import FILE
from twinray.words import counted

BARLOW_TWINS = "Barlow Twins"
"""Name of the second arm."""


def run(config: DemoConfig, console: Console | None = None) -> Path:
    """Do the study, print its table, write its report and return the report's absolute path.

    A demo that was cut off goes on where it was, with the same options.

    Raises:
        InputError: bad options, or a folder that holds something else.
        TwinrayError: the disk is full; what was finished stays.
    """
    console = console or Console()
    file = config.out / FILE
    text = study_file(config)
    _check(config.out, file, text)
    with clear_disk_errors(config.out, "demo"):
        config.out.mkdir(parents=True, exist_ok=True)
    if not file.is_file():
        write_text(file, text, "the study's file")
    console.rule("[bold]Study: two packs, one pre-training, two detectors[/bold]", align="left")
    state = study(StudyConfig(file, out=config.out), console)
    assert state is not None  # only --plan, --estimate and --sbatch have none
    console.print()
    console.rule("[bold]Report[/bold]", align="left")
    page, result = written(ReportConfig(config.out), console)
    for table in tables(result).values():
        console.print(table)
    took = sum(piece.done.seconds for piece in state.pieces if piece.done is not None)
    console.print(f"{counted(len(state.pieces), 'piece')}, {duration(took)} of computing")
    console.print(
        "Synthetic images: the figures say how the tools work, nothing about patients. "
        f"For your own images change the packs in {file}, then twinray study FILE --out STUDY.",
        markup=False,
    )
    console.print(Text(f"report: {page}"), soft_wrap=True)
    return page


def _check(out: Path, file: Path, text: str) -> None:
    """A demo of other options would be another study, and its figures deviations of this one.

    Raises:
        InputError: the folder holds other files, or a study of other options.
    """
    if file.is_file() and file.read_text(encoding="utf-8", errors="replace") != text:
        raise InputError(
            f"{out} holds a study of other options (see {file.name}); choose another --out, or delete the folder"
        )
    if out.is_dir() and any(out.iterdir()) and not file.is_file():
        raise InputError(f"{out} holds files and is no study; choose another --out for the study")


def first_arm(init: str) -> str:
    """Name of the first arm: that of its initial weights, without their folder."""
    return PurePath(init).name


def study_file(config: DemoConfig) -> str:
    """The study as YAML, as a person would write it.

    >>> "lesions" in study_file(DemoConfig())
    True
    """
    init = config.init
    if Path(init).exists():  # paths in a study are relative to its file
        init = str(Path(init).resolve())
    arch = settled_arch("", config.init, "resnet18")
    first = first_arm(config.init)
    common = f"bootstrap: {config.bootstrap}, device: {json.dumps(config.device)}"
    return f"""\
# The demo: does a detector start better from weights learnt on unlabelled images? The images are synthetic.
# For your own images change the packs and what is said about them, then: twinray study THIS_FILE --out STUDY
study: Two starts of a detector on synthetic chest images
question: Do unlabelled images help a detector of lesions?
limits:
  - The images are synthetic. The page shows how the tools work, and nothing about any disease, device or patient.
  - One seed of the training. Intervals resample patients, and do not hold the luck of another training.
  - The second arm has seen more images and spent more computing. An arm given the same time in another way is another question.
packs:
  # without labels
  unlabelled: {{format: phantom, phantom_images: {config.unlabelled}, phantom_labelled: 0, size: {config.size}, val: 0, test: 0, seed: {config.seed + 1}}}
  # with boxes: by patient 20 % train the detectors, 8 % choose their best epoch, 72 % test them: intervals narrow with test images, which cost least
  labelled: {{format: phantom, phantom_images: {config.labelled}, size: {config.size}, val: 0.08, test: 0.72, seed: {config.seed}}}
pretrainings:
  on unlabelled images:
    pack: [unlabelled, labelled] # of the labelled pack the pixels of the training images alone
    init: {json.dumps(init)}
    seeds: [{config.seed}]
    options:
      splits: [train]
      arch: {arch}
      size: {config.pretrain_size}
      batch_size: {config.pretrain_batch}
      epochs: {config.pretrain_epochs}
      lr: 5e-4
      projector: [512, 512, 512]
      lam: 0.005 # 2.5 / width, the better of two on the phantom seed of a search
      crop_min: 0.5 # smaller crops leave little that two views of a chest have in common
      log_every: 5
arms:
  - {{name: {json.dumps(first)}, init: {json.dumps(init)}}}
  - {{name: {BARLOW_TWINS}, pretraining: on unlabelled images}}
tasks:
  lesions:
    verb: detect
    pack: labelled
    seeds: [{config.seed}]
    heat_maps: {config.examples}
    options:
      arch: {arch}
      size: {config.size}
      batch_size: {config.detect_batch}
      epochs: {config.detect_epochs}
      fpn_channels: 64
      box_head_width: 256
      rois_per_image: 64
      anchor_scale: 4
options:
  all: {{{common}}}
"""
