"""``twinray detect``: a pack with boxes and initial weights -> a detector and its figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from twinray.backbones.build import build_backbone
from twinray.backbones.pixels import MEAN, STD
from twinray.backbones.weights import Provenance, described_arch, initialise
from twinray.data.pack import Pack, open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.data import DetectionData, annotated
from twinray.detection.model import Detector, DetectorOptions, build_detector, frozen_random_layers, layer_report
from twinray.detection.predict import detect_rows
from twinray.detection.targets import BoxTargets
from twinray.detection.transforms import TransformOptions, training_batch
from twinray.errors import InputError, check_numbers, check_options
from twinray.evaluation.boxes import evaluate_boxes, mean_average_precision
from twinray.evaluation.coco_json import coco_image_ids, truth_as_coco, write_predictions
from twinray.files import write_json
from twinray.training.device import Machine, choose_machine
from twinray.training.engine import Loop, load_best, train
from twinray.training.engine import Progress as State
from twinray.training.optim import build_optimizer, warmup_cosine
from twinray.training.rundir import RunFolder, open_run, plain


def run(config: DetectConfig) -> RunFolder:
    """Train, keep the epoch with the best mAP50 on val, test it once.

    Raises:
        InputError: bad options, pack or initial weights.
        TwinrayError: the loss left the finite numbers, or the disk refuses.
    """
    config = resolve(config)
    pack = open_pack(config.data)
    data = {
        split: annotated(pack, split, config.images if split == "train" else "all")
        for split in ("train", "val", "test")
    }
    if data["train"].n_boxes == 0:
        raise InputError(
            f"no box on any training image of {pack.path}: a detector has nothing to learn; look at the pack"
        )
    detector, provenance = make_detector(config, pack)
    machine = choose_machine(config.device, config.precision)
    inputs = {"pack": pack.info.checksums, "init": provenance.sha256, "precision": machine.precision}
    folder = open_run(config, out=config.out, resume=config.resume, job="detect", inputs=inputs)
    if folder.finished:
        return folder
    detector = detector.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    loop = make_loop(config, detector, data, machine)
    state = train(loop, folder)
    if loop.select is not None:
        load_best(loop, folder)
    _save_model(config, folder, pack, detector, provenance)
    _evaluate(config, folder, detector, data, dataclasses.replace(machine, bf16=False), state, provenance)
    return folder


def resolve(config: DetectConfig) -> DetectConfig:
    """Check the options and fill in defaults that depend on others.

    Raises:
        InputError: an option outside its range.
    """
    check_numbers(config)
    rules: Sequence[tuple[bool, str, object, str]] = (
        (config.batch_size >= 1, "--batch-size", config.batch_size, "1 or more"),
        (config.epochs >= 1, "--epochs", config.epochs, "1 or more"),
        (config.lr is None or config.lr > 0, "--lr", config.lr, "more than 0"),
        (config.clip_norm > 0, "--clip-norm", config.clip_norm, "more than 0"),
        (0 <= config.trainable_stages <= 5, "--trainable-stages", config.trainable_stages, "0 to 5"),
        (0 <= config.flip <= 1, "--flip", config.flip, "a probability, 0..1"),
        (0 < config.scale[0] <= config.scale[1], "--scale", config.scale, "two numbers above 0, ascending"),
        (config.weight_decay is None or config.weight_decay >= 0, "--weight-decay", config.weight_decay, "0 or more"),
        (config.warmup_steps is None or config.warmup_steps >= 0, "--warmup-steps", config.warmup_steps, "0 or more"),
        (config.brightness >= 0, "--brightness", config.brightness, "0 or more"),
        (0 <= config.contrast <= 1, "--contrast", config.contrast, "0 to 1"),
        (config.bootstrap >= 0, "--bootstrap", config.bootstrap, "0 or more"),
        (config.log_every >= 1, "--log-every", config.log_every, "1 or more steps"),
        (config.checkpoint_every >= 0, "--checkpoint-every", config.checkpoint_every, "0 or more steps"),
    )
    check_options(rules)
    adamw = config.optimizer == "adamw"
    default_lr = 2e-4 * math.sqrt(config.batch_size / 8) if adamw else 0.005 * config.batch_size / 32
    return dataclasses.replace(
        config,
        arch=config.arch or described_arch(config.init),
        lr=config.lr if config.lr is not None else default_lr,
        weight_decay=config.weight_decay if config.weight_decay is not None else (0.05 if adamw else 1e-4),
    )


def make_detector(config: DetectConfig, pack: Pack) -> tuple[Detector, Provenance]:
    """The detector before training. Arms differ in the backbone's initial tensors and in nothing else.

    Raises:
        InputError: weights that do not fit, or a layer that would stay random for ever.
    """
    backbone = build_backbone(config.arch, config.seed)
    provenance = initialise(backbone, config.init)
    options = DetectorOptions(
        size=config.size,
        norm=config.norm,
        trainable_stages=config.trainable_stages,
        fpn_channels=config.fpn_channels,
        box_head_width=config.box_head_width,
        rois_per_image=config.rois_per_image,
        anchor_scale=config.anchor_scale,
    )
    detector = build_detector(backbone, options, pack.info.box_classes, config.seed)
    stuck = frozen_random_layers(detector, provenance.is_random)
    if stuck:
        raise InputError(
            f"--init random with --norm {config.norm} and --trainable-stages {config.trainable_stages} leaves {len(stuck)} layers "
            f"random for ever ({', '.join(stuck[:3])} ...), no fair floor; use --norm trainable or group and --trainable-stages 5"
        )
    return detector, provenance


def make_loop(config: DetectConfig, detector: Detector, data: Mapping[str, DetectionData], machine: Machine) -> Loop:
    """The training loop of a resolved configuration."""
    assert config.lr is not None and config.weight_decay is not None  # set by resolve
    train_data, val = data["train"], data["val"]
    batch_size = min(config.batch_size, len(train_data))
    steps_per_epoch = len(train_data) // batch_size
    total = steps_per_epoch * config.epochs
    warmup = config.warmup_steps if config.warmup_steps is not None else min(500, total // 10)
    lr = config.lr
    optimizer = build_optimizer(config.optimizer, detector, lr=lr, lr_biases=lr, weight_decay=config.weight_decay)

    def validate(epoch: int) -> dict[str, float]:
        found = detect_rows(
            detector, val.pack, val.rows, machine=machine, batch_size=batch_size, label=f"validation {epoch + 1}"
        )
        return {"map50": mean_average_precision(val.truth_by_id(), found, val.pack.info.box_classes)}

    has_val = val.n_boxes > 0
    return Loop(
        label="detector",
        model=detector,
        optimizer=optimizer,
        step=Step(detector, machine, transform_options(config), config.seed),
        batches=lambda epoch, first: train_data.batches(batch_size, seed=config.seed, epoch=epoch, first=first),
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        rates=lambda step: (
            [lr * warmup_cosine(step, total=total, warmup=warmup, start=0.001)] * len(optimizer.param_groups)
        ),
        images_per_step=batch_size,
        seed=config.seed,
        at_epoch_end=validate if has_val else None,
        select="map50" if has_val else None,
        clip_norm=config.clip_norm,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
    )


def transform_options(config: DetectConfig) -> TransformOptions:
    """The training transforms of a configuration."""
    return TransformOptions(
        flip=config.flip, scale=config.scale, brightness=config.brightness, contrast=config.contrast
    )


@dataclass(frozen=True, eq=False)
class Step:
    """The training step: transform, forward, the sum of the four losses, its gradient."""

    detector: Detector
    machine: Machine
    transforms: TransformOptions
    seed: int

    def __call__(self, batch: tuple[Tensor, BoxTargets], step: int) -> Mapping[str, Tensor]:
        """Packed pixels and targets -> losses; gradients are left in ``.grad``."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        pixels, targets = batch
        device = self.machine.device
        images, targets = training_batch(
            pixels.to(device, non_blocking=True),
            targets.to(device),
            self.detector.options.size,
            self.transforms,
            generator,
        )
        with self.machine.autocast():
            losses = self.detector(images.contiguous(memory_format=torch.channels_last), targets)
        loss: Tensor = torch.stack([value.float() for value in losses.values()]).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": loss.detach(), **{name: value.detach() for name, value in losses.items()}}


def _save_model(
    config: DetectConfig, folder: RunFolder, pack: Pack, detector: Detector, provenance: Provenance
) -> None:
    description: dict[str, Any] = {
        "kind": "detector",
        "arch": config.arch,
        "classes": list(detector.box_classes),
        "options": detector.options,
        "normalisation": {"mean": MEAN, "std": STD, "scale": "0..1"},
        "size": config.size,
        "pack": {"size": pack.info.size, "fit": pack.info.fit, "channels": pack.info.channels},
        "trained_by": "detect (Faster R-CNN, FPN)",
        "seed": config.seed,
        "data": [{"pack": str(config.data), "names": list(pack.info.names), "checksums": pack.info.checksums}],
        "init": provenance.as_json(),
        "layers": layer_report(detector),
    }
    folder.save_weights("model", detector.state_dict(), plain(description))


def _evaluate(
    config: DetectConfig,
    folder: RunFolder,
    detector: Detector,
    data: Mapping[str, DetectionData],
    machine: Machine,
    state: State,
    provenance: Provenance,
) -> None:
    """Figures on val and test; on the training images only where there is neither."""
    splits = [split for split in ("val", "test") if len(data[split])] or ["train"]
    metrics: dict[str, Any] = {}
    for split in splits:
        part = data[split]
        found = detect_rows(
            detector, part.pack, part.rows, machine=machine, batch_size=config.batch_size, label=f"{split} split"
        )
        metrics[split] = evaluate_boxes(
            part.truth_by_id(),
            found,
            detector.box_classes,
            part.patients(),
            bootstrap=config.bootstrap,
            seed=config.seed,
        ).as_json()
        write_coco(folder, split, part, found)
    metrics |= {
        "best_epoch": state.best_epoch if state.best_epoch >= 0 else config.epochs - 1,
        "selected_on": "val map50" if state.best_epoch >= 0 else "last epoch (no boxes in val)",
        "seconds": state.seconds,
        "training_images": len(data["train"]),
        "training_boxes": data["train"].n_boxes,
        "init": provenance.as_json(),
        "notes": list(data["train"].pack.info.notes),
    }
    if splits == ["train"]:
        metrics["notes"].append(
            "no val and no test images: figures are on the training images and say nothing of new ones"
        )
    folder.write_metrics(metrics)


def write_coco(folder: RunFolder, split: str, part: DetectionData, found: Mapping[str | int, Any]) -> None:
    """Truth and predictions of a split as COCO files; those of test under the plain name ``predictions.json``."""
    suffix = "" if split == "test" else f"_{split}"
    ids = coco_image_ids(list(part.pack.ids[part.rows]))
    sizes = {part.pack.ids[row]: (int(part.pack.sizes[row][0]), int(part.pack.sizes[row][1])) for row in part.rows}
    classes = part.pack.info.box_classes
    names = {part.pack.ids[row]: part.pack.table.column("source")[int(row)].as_py() for row in part.rows}
    truth = truth_as_coco(part.truth_by_id(), classes, sizes=sizes, file_names=names, image_ids=ids)
    write_json(folder.path / f"truth{suffix}.json", truth, "true boxes")
    write_predictions(folder.path / f"predictions{suffix}.json", found, len(classes), ids)
