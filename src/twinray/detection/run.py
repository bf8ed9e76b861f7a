"""``twinray detect``: a pack with boxes and initial weights -> a detector and its figures."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from twinray.backbones.build import build_backbone
from twinray.backbones.contract import STAGE_NAMES, Backbone, layer_factors, parts_of_maps
from twinray.backbones.timm_backbone import PREFIX
from twinray.backbones.weights import BACKBONE_ALONE, Provenance, initialise, seen_by
from twinray.data.pack import Pack, open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.data import DetectionData, annotated, labelled_fraction
from twinray.detection.initial import (
    fill_detector,
    initial_detector,
    norm_eps,
)
from twinray.detection.model import (
    Detector,
    DetectorOptions,
    build_detector,
    frozen_random_layers,
    layer_report,
)
from twinray.detection.on_pack import detect_rows
from twinray.detection.options import check_ranks, resolve, transform_options
from twinray.detection.protocols import Recipe, learning_rate, pack_notes, recipe, with_warmup
from twinray.detection.results import write_coco, write_thresholds
from twinray.detection.step import Step
from twinray.errors import InputError
from twinray.evaluation.boxes import BoxRules, FrocRule, evaluate_boxes, mean_average_precision
from twinray.evaluation.intervals import Resampling
from twinray.files import frees_folders
from twinray.runs.classes import never_learned
from twinray.runs.folder import RunFolder, began_before, open_run, plain
from twinray.runs.sealed import KEY as SEALED
from twinray.runs.seen import Checked, check_unseen, write_seen
from twinray.training.depthwise import DEPTHWISE, concerns, full_depthwise
from twinray.training.device import (
    Amount,
    Machine,
    choose_machine,
    compiled,
    set_arithmetic,
    to_compile,
)
from twinray.training.engine import Loop, Watch, load_best, train
from twinray.training.engine import Progress as State
from twinray.training.optim import build_optimizer, optimizer_of, rated_groups
from twinray.training.ranks import Ranks, joined_ranks
from twinray.training.record import environment, save_weights
from twinray.training.sync_norm import synchronise_norms
from twinray.training.windows import DRAWN, Windows, settled_windows, windows_told

_BODY = "backbone.body."
_ALIGNED, _WARM_UP = "maps", "warm-up"
"""Facts on how a run computes, among its inputs."""


@frees_folders
def run(
    config: DetectConfig, watch: Watch | None = None, finished: Watch | None = None
) -> RunFolder:
    """Train, keep the epoch with the best mAP50 on val, test it once.

    Args:
        config: the options.
        watch: function called at the end of every epoch with the run's folder and the best epoch so
            far (-1: none).
        finished: function called the same way, once at the end.

    Raises:
        InputError: bad options, pack or initial weights; weights that were trained on images of val or test.
        TwinrayError: the loss left the finite numbers, or the disk refuses.
    """
    config = resolve(config)
    pack = open_pack(config.data, allow_edited=config.allow_edited)
    config = settled_windows(config, pack, DRAWN if config.protocol == "sound" else Windows())
    data = {
        split: annotated(
            pack,
            split,
            recipe(config).images if split == "train" else "all",
            to_learn=split == "train",
        )
        for split in ("train", "val", "test")
    }
    data["train"] = labelled_fraction(data["train"], config.fraction, config.fraction_seed)
    if data["train"].n_boxes == 0:
        raise InputError(
            f"no box on any training image of {pack.path} (--fraction {config.fraction}): a detector has nothing to learn; "
            "look at the pack, or raise the fraction"
        )
    told = _data_notes(config, pack, data)
    config = with_warmup(config, len(data["train"]))
    detector, provenance = make_detector(config, pack)
    decay = layer_decay(recipe(config), detector.backbone.body)
    config = dataclasses.replace(config, layer_decay=decay)  # told by the network
    seen = seen_by(config.init)
    tested = {split: data[split].rows for split in ("val", "test")}
    checked = check_unseen(seen, pack, tested, weights=config.init, allow=config.allow_seen)
    provenance = dataclasses.replace(provenance, seen=seen.status)
    machine = choose_machine(config.device, config.precision)
    set_arithmetic(machine, deterministic=config.deterministic)
    inputs = {
        "pack": pack.info.checksums,
        "init": provenance.sha256,
        "precision": machine.precision,
    }
    # what earlier versions did otherwise: their runs lack the fact, and go on as they began
    if config.arch.startswith(PREFIX) and not began_before(config.out, _ALIGNED):
        inputs[_ALIGNED] = "cells at multiples of the stride"
    if recipe(config).schedule == "epoch" and not began_before(config.out, _WARM_UP):
        inputs[_WARM_UP] = "as MMEngine's"
    if concerns(detector, machine) and not began_before(config.out, DEPTHWISE):
        inputs[DEPTHWISE] = "float32"
    folder, resume = RunFolder(config.out), config.resume
    with joined_ranks(machine.device) as ranks:
        check_ranks(config, len(data["train"]), ranks.world)
        if ranks.first(
            lambda: (
                open_run(
                    config,
                    out=folder.path,
                    resume=resume,
                    job="detect",
                    environment=environment(),
                    inputs=inputs,
                ).finished
            )
        ):
            return folder
        edited = ranks.first(
            lambda: pack.check_pixels(np.concatenate([part.rows for part in data.values()]))
        )
        checked = dataclasses.replace(checked, notes=(*edited, *checked.notes))
        for note in (
            (*provenance.notes, *checked.notes, *pack_notes(config, pack), *told)
            if ranks.main
            else ()
        ):
            print(f"note: {note}", file=sys.stderr)
        seen = seen.plus(folder.path, "detect", [(pack, data["train"].rows)])
        seen = seen.plus(folder.path, "detect", [(pack, data["val"].rows)], use="selection")
        ranks.first(lambda: write_seen(folder.path, seen))
        if ranks.world > 1:
            synchronise_norms(detector)
        detector = detector.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if DEPTHWISE in inputs:
            full_depthwise(detector, machine)
        loop = dataclasses.replace(make_loop(config, detector, data, machine, ranks), watch=watch)
        state = train(loop, folder)

        def finish() -> None:
            if loop.select is not None:
                load_best(loop, folder)
            _save_model(config, folder, pack, detector, provenance)
            _evaluate(config, folder, detector, data, machine.exact, state, provenance, checked)
            if finished is not None:
                finished(folder, state.best_epoch)

        ranks.first(
            finish
        )  # the others wait: figures come from one process, whatever the number of ranks
    return folder


def layer_decay(chosen: Recipe, body: Backbone) -> float:
    """Factor on the rate from each part of the backbone to the one before it: the recipe's, or that of the network.

    ViTDet's (Li et al. 2022) are 0.7, 0.8 and 0.9 for ViT-B, -L and -H, of 12, 24 and 32 blocks.
    """
    if chosen.layer_decay is not None:
        return chosen.layer_decay
    if not body.patch:
        return 1.0
    blocks = len(parts_of_maps(body)) - 1
    return 0.7 if blocks <= 12 else 0.8 if blocks <= 24 else 0.9


def _data_notes(config: DetectConfig, pack: Pack, data: Mapping[str, DetectionData]) -> list[str]:
    """What every reader of the figures must know of the boxes.

    Raises:
        InputError: no training box is as large as a pixel of the network's input.
    """
    train, tested = data["train"], Counter[str]()
    for split in ("val", "test"):
        tested.update(data[split].boxes_by_class())
    notes = never_learned(train.boxes_by_class(), tested)
    small = train.n_too_small(config.size)
    if small == train.n_boxes:
        raise InputError(
            f"none of the {small:,} boxes on training images of {pack.path} is as large as a pixel at --size {config.size}: a "
            "detector has nothing to learn; are they in 0..1? Pack again, or raise --size"
        )
    if small:
        notes.append(
            f"{small:,} of {train.n_boxes:,} training boxes are smaller than a pixel at --size {config.size}"
        )
    return notes


def make_detector(config: DetectConfig, pack: Pack) -> tuple[Detector, Provenance]:
    """The detector before training. Arms differ in initial tensors and in nothing else.

    Where the initial weights are a detector, pyramid and heads are taken too; else they come from the seed alone.

    Raises:
        InputError: weights that do not fit. Under the protocol ``sound`` also a layer that would stay
            random for ever.
    """
    backbone = build_backbone(config.arch, config.seed, config.size, config.drop_path)
    provenance = initialise(backbone, config.init)
    initial = initial_detector(config.init, config.init_part, config.detector)
    assert config.anchor_scale is not None  # set by resolve
    chosen = recipe(config)
    options = DetectorOptions(
        detector=config.detector,
        size=config.size,
        resize=config.resize,
        norm=chosen.norm,
        trainable_stages=chosen.trainable_stages,
        trainable_blocks=config.trainable_blocks,
        fpn_channels=config.fpn_channels,
        box_head_width=config.box_head_width,
        rois_per_image=config.rois_per_image,
        anchor_scale=config.anchor_scale,
        round_anchors=config.round_anchors,
        norm_eps=norm_eps(initial, chosen.norm),
        aligned=not began_before(config.out, _ALIGNED),
    )
    detector = build_detector(backbone, options, pack.info.box_classes, config.seed)
    if initial is not None:
        told = fill_detector(detector, initial, provenance)
        others = (note for note in provenance.notes if not note.endswith(BACKBONE_ALONE))
        provenance = dataclasses.replace(provenance, notes=(told, *others))
    stuck = random_for_ever(config, detector, provenance)
    if stuck and config.protocol == "sound":
        raise InputError(
            f"{stuck}; use --norm trainable or group with --trainable-stages 5 (--protocol as-published allows it, with a warning)"
        )
    if stuck:
        print(f"warning: {stuck}", file=sys.stderr)
    return detector, provenance


def random_for_ever(config: DetectConfig, detector: Detector, provenance: Provenance) -> str | None:
    """What is unfair about an arm whose random layers never learn, in one line; None where none do."""
    stuck = frozen_random_layers(detector, provenance.is_random)
    if not stuck:
        return None
    body = detector.backbone.body
    stages = [STAGE_NAMES[stage] for stage in sorted({body.stage_of(name) or 0 for name in stuck})]
    frozen = (
        f"--trainable-stages {config.trainable_stages}"
        if config.trainable_blocks is None
        else f"--trainable-blocks {config.trainable_blocks}"
    )
    return (
        f"--init random with --norm {config.norm} and {frozen} keeps random weights or "
        f"statistics frozen in stages {', '.join(stages)}: {len(stuck)} layers stay random for ever "
        f"({', '.join(stuck[:3])} ...), no fair floor"
    )


def make_loop(
    config: DetectConfig,
    detector: Detector,
    data: Mapping[str, DetectionData],
    machine: Machine,
    ranks: Ranks | None = None,
) -> Loop:
    """The training loop of a resolved configuration."""
    chosen, ranks = recipe(config), ranks or Ranks()
    train_data, val = data["train"], _choosing(chosen, data["val"])
    batch_size = min(chosen.batch_size, len(train_data))
    steps_per_epoch = len(train_data) // batch_size
    optimizer = make_optimizer(chosen, detector)
    factors = [float(group["lr"]) / chosen.lr for group in optimizer.param_groups]
    # a run of a version whose warm-up began a step on ends as it would have there
    before = began_before(config.out, _WARM_UP)

    def validate(epoch: int) -> dict[str, float]:
        """mAP50 of the validation images, of which each rank detects a share."""
        own = detect_rows(
            detector,
            val.pack,
            val.rows[ranks.rank :: ranks.world],
            machine=machine,
            batch_size=max(1, batch_size // ranks.world),
            label=f"validation {epoch + 1}",
            shown=ranks.main,
        )
        parts = ranks.collect(own)
        found = {key: boxes for part in parts for key, boxes in part.items()}
        truth = val.truth_by_id()
        classes = val.pack.info.box_classes
        return ranks.first(
            lambda: {
                "map50": mean_average_precision(truth, {key: found[key] for key in truth}, classes)
            }
        )

    has_val = val.n_boxes > 0
    amount = Amount(steps_per_epoch * chosen.epochs, batch_size // ranks.world * config.size**2)
    wanted = to_compile(config.compile, machine.device, amount)
    ahead = train_data.ahead(machine.device) if machine.device.type == "cuda" else None
    return Loop(
        label="detector",
        model=detector,
        optimizer=optimizer,
        step=Step(
            detector,
            machine,
            transform_options(config),
            config.seed,
            ranks,
            compiled(detector.dense) if wanted else None,
        ),
        batches=lambda epoch, first: train_data.batches(
            batch_size, seed=config.seed, epoch=epoch, first=first, ranks=ranks, ahead=ahead
        ),
        steps_per_epoch=steps_per_epoch,
        epochs=chosen.epochs,
        rates=lambda step: [
            learning_rate(chosen, step, steps_per_epoch, a_step_on=before) * factor
            for factor in factors
        ],
        images_per_step=batch_size,
        seed=config.seed,
        at_epoch_end=validate if has_val else None,
        shared_figures=True,
        select="map50" if has_val else None,
        clip_norm=chosen.clip_norm or None,
        checkpoint_every=config.checkpoint_every,
        checkpoint_minutes=config.checkpoint_minutes,
        log_every=config.log_every,
        ranks=ranks,
        mean_gradients=True,  # each rank's loss is a mean over its own images
    )


def _choosing(chosen: Recipe, val: DetectionData) -> DetectionData:
    """The validation images that the epoch is chosen on."""
    return val.with_boxes() if chosen.images == "with_boxes" else val


def make_optimizer(chosen: Recipe, detector: Detector) -> torch.optim.Optimizer:
    """The optimiser of everything that learns: weights in one group, biases and norm parameters in another.

    Under layer-wise decay there are as many groups as rates (Li et al. 2022, ViTDet: pyramid and heads have the full one).
    """
    lr, body = chosen.lr, detector.backbone.body
    decay = layer_decay(chosen, body)
    if decay < 1:
        of = layer_factors(body, decay)

        def rate(name: str) -> tuple[str, float, float]:
            if name.startswith(_BODY):
                return "backbone", of.get(name.removeprefix(_BODY), 0.0), lr
            return "head", 1.0, lr

        return optimizer_of(
            chosen.optimizer,
            rated_groups(
                detector,
                rate,
                weight_decay=chosen.weight_decay,
                weight_decay_biases=chosen.weight_decay_biases,
            ),
        )
    optimizer = build_optimizer(
        chosen.optimizer, detector, lr=lr, lr_biases=lr, weight_decay=chosen.weight_decay
    )
    for group in optimizer.param_groups:
        if group["name"] != "weights":
            group["weight_decay"] = chosen.weight_decay_biases
    return optimizer


def _save_model(
    config: DetectConfig, folder: RunFolder, pack: Pack, detector: Detector, provenance: Provenance
) -> None:
    description: dict[str, Any] = {
        "kind": "detector",
        "arch": config.arch,
        "classes": list(detector.box_classes),
        "options": detector.options,
        "normalisation": detector.normalisation,
        "size": config.size,
        "pack": pack.info.made(),
        "trained_by": f"detect ({config.detector}, FPN)",
        "detector": config.detector,
        "protocol": config.protocol,
        "seed": config.seed,
        "data": [
            {
                "pack": str(config.data),
                "names": list(pack.info.names),
                "checksums": pack.info.checksums,
            }
        ],
        "init": provenance.as_json(),
        "layers": layer_report(detector),
        **windows_told(config),
    }
    save_weights(folder, "model", detector.state_dict(), plain(description))


def _evaluate(
    config: DetectConfig,
    folder: RunFolder,
    detector: Detector,
    data: Mapping[str, DetectionData],
    machine: Machine,
    state: State,
    provenance: Provenance,
    checked: Checked,
) -> None:
    """Figures on val and test; on the training images only where there is neither."""
    chosen, pack = recipe(config), data["train"].pack
    splits = [split for split in ("val", "test") if len(data[split])] or ["train"]
    froc = FrocRule(config.froc_iou if config.froc_hit == "iou" else "centre", config.froc_repeats)
    metrics: dict[str, Any] = {}
    for split in splits:
        part = data[split]
        found = detect_rows(
            detector,
            part.pack,
            part.rows,
            machine=machine,
            batch_size=chosen.batch_size,
            label=f"{split} split",
        )
        if split != "test" or not config.seal:
            metrics[split] = evaluate_boxes(
                part.truth_by_id(),
                found,
                detector.box_classes,
                part.codes(),  # numbered as evaluate does, so that its intervals are these
                resampling=Resampling(config.bootstrap, config.seed),
                rules=BoxRules(froc),
            ).as_json() | dict(checked.marks.get(split, {}))
        write_coco(folder, split, part, found)
        if split == "val":
            write_thresholds(folder, part, found)
    metrics |= {
        **({SEALED: {"marks": dict(checked.marks.get("test", {}))}} if config.seal else {}),
        "best_epoch": state.best_epoch if state.best_epoch >= 0 else chosen.epochs - 1,
        "selected_on": _selected_on(chosen, data["val"], state),
        "seconds": state.seconds,
        "training_images": len(data["train"]),
        "training_patients": len(set(pack.groups[data["train"].rows].tolist())),
        "training_boxes": data["train"].n_boxes,
        "init": provenance.as_json(),
        "protocol": config.protocol,
        "froc_rule": froc.told(),
        "notes": [
            *pack.info.notes,
            *provenance.notes,
            *checked.notes,
            *pack_notes(config, pack),
            *_data_notes(config, pack, data),
        ],
    }
    if stuck := random_for_ever(config, detector, provenance):
        metrics["notes"].append(stuck)
    if splits == ["train"]:
        metrics["notes"].append(
            "no val and no test images: figures are on the training images and say nothing of new ones"
        )
    folder.write_metrics(metrics)


def _selected_on(chosen: Recipe, val: DetectionData, state: State) -> str:
    if state.best_epoch < 0:
        return "last epoch (no boxes in val)"
    if chosen.images == "all":
        return "val map50"
    n = len(val.with_boxes())
    return (
        f"val map50 on the {n:,} of {len(val):,} images with a box (figures of val: on all {len(val):,}; "
        f"under with_boxes: on the {n:,})"
    )
