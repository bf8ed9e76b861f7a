"""``twinray pretrain``: unlabelled packs -> a backbone."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from twinray.backbones.build import Backbone, build_backbone, zero_last_norms
from twinray.backbones.weights import Provenance, initialise, seen_by
from twinray.data.pack import Pack, enlarged, open_pack
from twinray.errors import InputError
from twinray.files import frees_folders
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.knn import KnnProbe
from twinray.pretraining.model import BarlowTwins, Byol, kept_backbone
from twinray.pretraining.momentum import momentum_at, share_kept
from twinray.pretraining.norms import settle_norms, whole_images
from twinray.pretraining.objective import Objective, barlow_twins
from twinray.pretraining.options import as_published, check_ranks, resolve
from twinray.pretraining.other_objectives import simclr, vicreg
from twinray.pretraining.pairs import Partners, partners
from twinray.pretraining.step import Step
from twinray.pretraining.views import ViewMaker, ViewOptions
from twinray.records import IntArray
from twinray.runs.folder import RunFolder, began_before, open_run, plain
from twinray.runs.seen import apart_from, write_seen
from twinray.training.checkpoint import Keep
from twinray.training.depthwise import DEPTHWISE, concerns, full_depthwise
from twinray.training.device import (
    Amount,
    Machine,
    choose_machine,
    compiled,
    set_arithmetic,
    to_compile,
)
from twinray.training.engine import Loop, Watch, train
from twinray.training.loader import CopyAhead, PixelSource, epoch_order, prefetch
from twinray.training.monitor import collapse
from twinray.training.optim import build_optimizer, warmup_cosine
from twinray.training.ranks import Ranks, joined_ranks, launched_rank
from twinray.training.record import environment, save_weights
from twinray.training.sync_norm import synchronise_norms
from twinray.training.windows import settled_windows, windows_of, windows_told

_WARM_UP = "warm-up"
"""A fact among a run's inputs: how its rate begins."""


@frees_folders
def run(
    config: PretrainConfig, watch: Watch | None = None, finished: Watch | None = None
) -> RunFolder:
    """Pre-train and write ``backbone.safetensors`` into the run's folder.

    Args:
        config: the options.
        watch: function called at the end of every epoch with the run's folder and -1. No epoch is
            better than another here.
        finished: function called the same way, once at the end.

    Raises:
        InputError: bad options, packs or initial weights.
        TwinrayError: the loss left the finite numbers, the embedding collapsed, a signal stopped the run, or the disk
            refuses.
    """
    out, resume = config.out, config.resume
    if out is None:
        raise InputError("expected --out, the folder of the run, or --preview")
    config = resolve(config)
    packs = open_packs(config)
    config = settled_windows(config, packs[0])
    rows = chosen_rows(packs, config)
    source = open_source(packs, rows, config)
    paired = partners(packs, rows, config.pairs, config.pair_share, config.seed)
    if paired is not None and launched_rank()[0] == 0:
        print(f"--pairs {config.pairs}: {paired.told()}", file=sys.stderr)
    machine = choose_machine(config.device, config.precision)
    set_arithmetic(machine, deterministic=config.deterministic)
    with joined_ranks(machine.device) as ranks:
        check_ranks(config, ranks.world)
        backbone = build_backbone(config.arch, config.seed, config.size, config.drop_path)
        provenance = initialise(backbone, config.init)
        if config.zero_init_residual == "on" and provenance.is_random:
            zero_last_norms(backbone)
        seen = seen_by(config.init)
        provenance = dataclasses.replace(provenance, seen=seen.status)
        inputs = {
            "packs": [pack.info.checksums for pack in packs],
            "init": provenance.sha256,
            "precision": machine.precision,
        }
        if _first_rate_is_zero(config):
            inputs[_WARM_UP] = "from 0"
        if concerns(backbone, machine) and not began_before(out, DEPTHWISE):
            inputs[DEPTHWISE] = "float32"
        if config.leave_out:
            inputs["left_out"] = [
                open_pack(path, allow_edited=config.allow_edited).info.checksums
                for path in config.leave_out
            ]
        done = ranks.first(
            lambda: (
                open_run(
                    config,
                    out=out,
                    resume=resume,
                    job="pretrain",
                    environment=environment(),
                    inputs=inputs,
                ).finished
            )
        )
        folder = RunFolder(out)
        if done:
            return folder
        larger = [note for pack in packs for note in enlarged(pack, config.size)]
        for note in (*provenance.notes, *larger) if ranks.main else ():
            print(f"note: {note}", file=sys.stderr)
        # at the start, so that the checkpoints of an interrupted run carry it too
        learnt = list(zip(packs, rows, strict=True))
        edited = ranks.first(
            lambda: [note for pack, own in learnt for note in pack.check_pixels(own)]
        )
        ranks.first(lambda: write_seen(out, seen.plus(out, "pretrain", learnt)))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            twins = BarlowTwins(backbone, config.projector, averaged=bool(config.average))
            model = Byol(twins) if config.objective == "byol" else twins
        if ranks.world > 1:
            synchronise_norms(model)
        model = model.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if DEPTHWISE in inputs:
            full_depthwise(model, machine)
        probe = _probe(config, packs, rows, source)
        loop = make_loop(config, model, source, machine, ranks, probe=probe, paired=paired)
        state = train(dataclasses.replace(loop, watch=watch), folder)

        def finish() -> None:
            kept = finished_backbone(config, model, source, machine)
            _write_results(
                config,
                folder,
                kept,
                packs,
                provenance,
                loop,
                (state.seconds, state.waited),
                edited,
            )
            if finished is not None:
                finished(folder, -1)

        ranks.first(finish)
    return folder


def open_packs(config: PretrainConfig) -> list[Pack]:
    """The packs to learn from.

    Raises:
        InputError: one cannot be opened, or they differ in size or channels.
    """
    packs = [open_pack(path, allow_edited=config.allow_edited) for path in config.data]
    first = packs[0]
    for pack in packs[1:]:
        if (pack.info.size, pack.info.channels) != (first.info.size, first.info.channels):
            raise InputError(
                f"expected packs of one size and one number of channels: {first.path} has {first.info.size} pixels and "
                f"{first.info.channels} channel(s), {pack.path} {pack.info.size} and {pack.info.channels}; pack them alike"
            )
        if pack.info.pixels != first.info.pixels:
            raise InputError(
                f"expected packs of one kind of pixels: {first.path} has {first.info.pixels}, {pack.path} {pack.info.pixels}; "
                f"pack them alike (--pixels)"
            )
    return packs


def chosen_rows(packs: list[Pack], config: PretrainConfig) -> list[IntArray]:
    """The rows of each pack to learn from: those of the splits, without what is to be left out; says how many that are.

    Raises:
        InputError: a pack to be left out cannot be opened.
    """
    others = [open_pack(path, allow_edited=config.allow_edited) for path in config.leave_out]
    rows = []
    for other in others:
        made = (other.info.size, other.info.fit, other.info.channels, other.info.pixels)
        if (
            any(
                (pack.info.size, pack.info.fit, pack.info.channels, pack.info.pixels) != made
                for pack in packs
            )
            and launched_rank()[0] == 0
        ):
            print(
                f"note: {other.path} was packed to another size, fit, number of channels or kind of pixels: images are told by patient and id "
                "alone, not by their pixels",
                file=sys.stderr,
            )
    for pack in packs:
        own = np.flatnonzero(np.isin(pack.splits.astype(str), config.splits))
        rows.append(apart_from(pack, own, others) if others else own)
        if others and launched_rank()[0] == 0:
            print(
                f"{pack.path}: {len(own) - len(rows[-1])} of {len(own)} images left out (--leave-out)",
                file=sys.stderr,
            )
    return rows


def open_source(packs: list[Pack], rows: list[IntArray], config: PretrainConfig) -> PixelSource:
    """The chosen images of all packs.

    Raises:
        InputError: there are none, or fewer than a batch.
    """
    places = [np.stack([np.full(len(own), which), own], axis=1) for which, own in enumerate(rows)]
    source = PixelSource([pack.pixels for pack in packs], np.concatenate(places))
    where = f"{', '.join(config.splits)} in {', '.join(map(str, config.data))}"
    if len(source) == 0:
        raise InputError(f"no image of split {where}; see --splits")
    if len(source) < config.batch_size:
        raise InputError(
            f"--batch-size {config.batch_size} is more than the {len(source)} images of {where}; lower it, or pass more packs"
        )
    return source


def _probe(
    config: PretrainConfig, packs: list[Pack], rows: list[IntArray], source: PixelSource
) -> KnnProbe | None:
    """The k-NN monitor, where the packs share their label classes and it can say something."""
    classes = packs[0].info.label_classes
    if (
        not config.knn_every
        or not classes
        or any(pack.info.label_classes != classes for pack in packs)
    ):
        return None
    labels = np.concatenate([pack.labels[r] for pack, r in zip(packs, rows, strict=True)])
    return KnnProbe.of(source, labels, patient_numbers(packs, rows), config.size, config.seed)


def patient_numbers(packs: Sequence[Pack], rows: Sequence[IntArray]) -> IntArray:
    """Number of the patient of each chosen image; an image whose patient is unknown has one of its own."""
    groups = [
        f"patient {pack.patients[i]}" if pack.patients[i] is not None else f"image {which} {i}"
        for which, (pack, r) in enumerate(zip(packs, rows, strict=True))
        for i in r
    ]
    return np.asarray(np.unique(groups, return_inverse=True)[1], dtype=np.int64)


def objective(config: PretrainConfig) -> Objective:
    """The loss of a resolved configuration."""
    if config.objective == "vicreg":
        return vicreg
    if config.objective == "simclr":
        return simclr
    assert config.lam is not None  # set by resolve
    lam = config.lam
    return lambda z1, z2: barlow_twins(z1, z2, lam)


def make_loop(
    config: PretrainConfig,
    model: BarlowTwins | Byol,
    source: PixelSource,
    machine: Machine,
    ranks: Ranks | None = None,
    *,
    probe: KnnProbe | None = None,
    paired: Partners | None = None,
) -> Loop:
    """The training loop of a resolved configuration."""
    assert (
        config.lr is not None and config.lr_biases is not None and config.optimizer != "auto"
    )  # set by resolve
    assert config.weight_decay is not None and config.warmup_epochs is not None
    ranks = ranks or Ranks()
    steps_per_epoch = len(source) // config.batch_size
    total, warmup = steps_per_epoch * config.epochs, round(config.warmup_epochs * steps_per_epoch)
    optimizer = build_optimizer(
        config.optimizer,
        model,
        lr=config.lr,
        lr_biases=config.lr_biases,
        weight_decay=config.weight_decay,
    )
    base = [float(group["lr"]) for group in optimizer.param_groups]
    at_zero = _first_rate_is_zero(config)
    amount = Amount(total, config.batch_size // ranks.world * config.size**2)
    wanted = to_compile(config.compile, machine.device, amount)
    return Loop(
        label="pre-training",
        model=model,
        optimizer=optimizer,
        step=Step(
            model=model,
            machine=machine,
            views=view_makers(config),
            objective=objective(config),
            seed=config.seed,
            health_every=config.log_every,
            ranks=ranks,
            accumulate=config.accumulate,
            forward=compiled(model) if wanted else None,
            paired=paired is not None,
        ),
        batches=_batches(config, source, machine, ranks, paired),
        steps_per_epoch=steps_per_epoch,
        epochs=config.epochs,
        rates=lambda step: [
            rate * warmup_cosine(step, total=total, warmup=warmup, at_zero=at_zero) for rate in base
        ],
        images_per_step=config.batch_size,
        seed=config.seed,
        at_epoch_end=_monitor(config, probe, model, machine) if probe is not None else None,
        checkpoint_every=config.checkpoint_every,
        checkpoint_minutes=config.checkpoint_minutes,
        log_every=config.log_every,
        ranks=ranks,
        after_step=_after_step(model, total, config.average or 0.0),
        keep=Keep(config.keep_checkpoints, config.keep_every),
        fault=lambda figures: collapse(figures, config.batch_size),
    )


def _first_rate_is_zero(config: PretrainConfig) -> bool:
    """Whether the warm-up begins at 0, as the authors' does; a short run has no step to spare.

    A run of a version whose warm-ups all began a step's share above goes on so.
    """
    begun = config.out is not None and began_before(config.out, _WARM_UP)
    return as_published(config) and not begun


def _after_step(
    model: BarlowTwins | Byol, total: int, share: float
) -> Callable[[int], None] | None:
    """What follows an update: BYOL's twin and the average of weights move on."""
    if not isinstance(model, Byol) and model.average is None:
        return None

    def move(step: int) -> None:
        if isinstance(model, Byol):
            model.twin.update(momentum_at(step, total))
        if model.average is not None:
            model.average.update(share_kept(step, total, share))

    return move


def finished_backbone(
    config: PretrainConfig, model: BarlowTwins | Byol, source: PixelSource, machine: Machine
) -> Backbone:
    """The backbone that the run keeps, with the statistics of batch norms that were asked for."""
    kept = kept_backbone(model)
    if config.norm_statistics != "whole":
        return kept
    # A network of its own: on several ranks the norms of the trained one would wait for the others.
    alone = build_backbone(config.arch, config.seed, config.size, config.drop_path)
    alone.load_state_dict(kept.state_dict())
    alone.normalisation = kept.normalisation
    alone.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    settle_norms(alone, whole_images(source, config.size, config.seed, alone, machine.exact))
    return alone


def _batches(
    config: PretrainConfig,
    source: PixelSource,
    machine: Machine,
    ranks: Ranks,
    paired: Partners | None = None,
) -> Callable[[int, int], Iterator[Tensor]]:
    """This rank's share of each batch, read and copied ahead of the step.

    With partners the images of the second views follow those of the first.
    """

    ahead = CopyAhead(source, machine.device) if machine.device.type == "cuda" else None

    def batches(epoch: int, first: int) -> Iterator[Tensor]:
        order = epoch_order(len(source), config.batch_size, seed=config.seed, epoch=epoch)
        own = [batch[ranks.share(len(batch))] for batch in order[first:]]
        if paired is not None:
            second = paired.drawn(epoch)
            own = [np.concatenate([batch, second[batch]]) for batch in own]
        return ahead.batches(own) if ahead is not None else prefetch(source.gather, own)

    return batches


def _monitor(
    config: PretrainConfig, probe: KnnProbe, model: BarlowTwins | Byol, machine: Machine
) -> Callable[[int], Mapping[str, float]]:
    def look(epoch: int) -> Mapping[str, float]:
        due = (epoch + 1) % config.knn_every == 0 or epoch + 1 == config.epochs
        return probe(kept_backbone(model), machine) if due else {}

    return look


def view_makers(config: PretrainConfig) -> tuple[ViewMaker, ViewMaker]:
    """Makers of the two views of a resolved configuration."""
    assert config.crop_min is not None  # set by resolve
    shared = ViewOptions(
        crop_area=(config.crop_min, 1.0),
        flip=config.flip,
        jitter=config.jitter,
        brightness=config.brightness,
        contrast=config.contrast,
        saturation=config.saturation,
        hue=config.hue,
        grey=config.grey,
        windows=windows_of(config),
    )
    first, second = (
        ViewMaker(config.size, dataclasses.replace(shared, blur=blur, solarise=solarise))
        for blur, solarise in zip(config.blur, config.solarise, strict=True)
    )
    return first, second


def _write_results(
    config: PretrainConfig,
    folder: RunFolder,
    backbone: Backbone,
    packs: list[Pack],
    provenance: Provenance,
    loop: Loop,
    times: tuple[float, float],
    edited: Sequence[str],
) -> None:
    description: dict[str, Any] = {
        "kind": "backbone",
        "arch": config.arch,
        "features": backbone.features,
        "normalisation": backbone.normalisation,
        "size": config.size,
        "pack": packs[0].info.made(),
        "trained_by": f"pretrain ({config.objective})",
        "epochs": config.epochs,
        "data": [
            {"pack": str(path), "splits": list(config.splits), **_fingerprint(pack)}
            for path, pack in zip(config.data, packs, strict=True)
        ],
        "init": provenance.as_json(),
        **windows_told(config),
    }
    save_weights(folder, "backbone", backbone.state_dict(), plain(description))
    seconds, waited = times
    last: dict[str, Any] = {}
    for line in folder.history():
        last |= line  # the newest value of each figure; some are not in every line
    names = ("loss", "mean_c_ii", "rms_c_ij", "embedding_std", "effective_rank", "val_knn_auc")
    figures = {
        name.removeprefix("val_"): _figure(last[name], config.batch_size, "images of a batch")
        for name in names
        if last.get(name) is not None
    }
    rate = loop.steps_per_epoch * loop.epochs * config.batch_size / seconds
    for name, value in (
        ("images_per_s", rate),
        ("seconds", seconds),
        ("data_wait", waited / seconds),
    ):
        figures[name] = _figure(value, 1, "runs")
    larger = (note for pack in packs for note in enlarged(pack, config.size))
    notes = [*provenance.notes, *edited, *larger]
    kept = {"train": figures, "init": provenance.as_json()}
    folder.write_metrics(kept | ({"notes": notes} if notes else {}))


def _figure(value: float, n: int, over: str) -> dict[str, Any]:
    return {"value": value, "ci95": None, "n": n, "over": over}


def _fingerprint(pack: Pack) -> dict[str, Any]:
    kind = {} if pack.info.pixels == "uint8" else {"pixels": pack.info.pixels}
    named = {"names": list(pack.info.names), "images": len(pack)}
    return {**named, "checksums": pack.info.checksums, **kind}
