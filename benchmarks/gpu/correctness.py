"""The same numbers as on the processor: objectives, views, steps of pre-training, detectors, boxes, heat maps.

The processor computes in float64 where it can, and then its own float32 gives the scale: a GPU's float32 may be a few times
as far from float64 as the processor's, since it sums in another order, and no further.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gpu.record import Outcome, Session, Skip, distance
from gpu.scenes import (
    exact_float32,
    gradients,
    phantom_pack,
    pretraining_loop,
    processor,
    under_test,
    values,
)
from twinray.backbones.build import build_backbone
from twinray.backbones.contract import Backbone
from twinray.backbones.pixels import normalise, pixels_to_unit
from twinray.classification.probe import fit_linear
from twinray.detection.batched.roi_align import MultiScaleRoIAlign, pyramid_levels
from twinray.detection.config import DetectConfig
from twinray.detection.data import annotated
from twinray.detection.model import DetectorKind, DetectorOptions, build_detector
from twinray.detection.postprocess import Detection
from twinray.detection.run import run as detect
from twinray.detection.transforms import TransformOptions, training_batch
from twinray.inference.heat_maps import heat_maps as maps_of
from twinray.inference.methods import Method
from twinray.inference.model import Model, load_model, prepare_row
from twinray.pretraining.config import PretrainConfig
from twinray.pretraining.objective import Objective, barlow_twins
from twinray.pretraining.other_objectives import simclr, vicreg
from twinray.pretraining.views import ViewMaker, ViewOptions
from twinray.records import Boxes, Task
from twinray.training.engine import Loop, seed_everything
from twinray.training.monitor import embedding_health

DETECTORS: tuple[DetectorKind, ...] = ("faster-rcnn", "retinanet", "fcos")

# Objectives and views -------------------------------------------------------------------------------------------------


def objectives(session: Session) -> None:
    """Loss and gradient of every objective against float64; both views against the processor's."""
    exact_float32()
    shapes = ((16, 48), (48, 16)) if session.toy else ((768, 8192), (512, 256))
    losses: dict[str, Objective] = {
        "barlow twins": barlow_twins,
        "barlow twins, gram": partial(barlow_twins, gram=True),
        "barlow twins, d x d": partial(barlow_twins, gram=False),
        "vicreg": vicreg,
        "vicreg, gram": partial(vicreg, gram=True),
        "simclr": simclr,
    }
    for b, d in shapes:
        for name, loss in losses.items():
            session.check(f"{name}, {b} x {d}", partial(_objective, session, loss, b, d), needs=5)
    session.check("embedding health", partial(_health, session), needs=5)
    for channels in (1, 3):
        session.check(f"views, {channels} channel(s)", partial(_views, session, channels), needs=5)
    session.check("views, other seeds", partial(_other_seeds, session), needs=5)


def _objective(session: Session, objective: Objective, b: int, d: int) -> Outcome:
    torch.manual_seed(b)
    shared = torch.randn(b, d)
    z = [
        shared + 0.7 * torch.randn(b, d) + 0.5 for _ in range(2)
    ]  # with an offset: embeddings have one

    def made(
        dtype: torch.dtype, device: torch.device, autocast: bool = False
    ) -> tuple[Tensor, Tensor]:
        leaves = [x.to(device, dtype, copy=True).requires_grad_() for x in z]
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast):
            loss = objective(*leaves).loss
        loss.backward()
        return loss.detach(), torch.cat([leaf.grad for leaf in leaves if leaf.grad is not None])

    cpu = torch.device("cpu")
    loss, gradient = made(torch.float64, cpu)
    own_loss, own_gradient = made(torch.float32, cpu)
    there_loss, there_gradient = made(torch.float32, session.device)
    cast_loss, cast_gradient = made(torch.float32, session.device, autocast=True)
    figures = {
        "loss": float(loss),
        "loss off by": distance(there_loss, loss),
        "gradient off by": distance(there_gradient, gradient),
        "processor's float32: loss": distance(own_loss, loss),
        "gradient": distance(own_gradient, gradient),
        "same under autocast": max(
            distance(cast_loss, there_loss), distance(cast_gradient, there_gradient)
        )
        < 1e-6,
    }
    limit = [
        max(10 * figures["processor's float32: loss"], 1e-5),
        max(10 * figures["gradient"], 1e-5),
    ]
    right = figures["loss off by"] <= limit[0] and figures["gradient off by"] <= limit[1]
    wanted = f"at most {limit[0]:.1g} and {limit[1]:.1g} from float64"
    return Outcome(right and figures["same under autocast"], figures, wanted)


def _health(session: Session) -> Outcome:
    z = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    here, there = embedding_health(z), embedding_health(z.to(session.device))
    off = {name: distance(there[name], here[name]) for name in here}
    return Outcome(all(v < 1e-3 for v in off.values()), off, "1e-3")


def _views(session: Session, channels: int) -> Outcome:
    side, n = (40, 6) if session.toy else (256, 64)
    images = torch.rand(n, channels, side, side, generator=torch.Generator().manual_seed(1))
    worst, low, high = 0.0, 0.0, 1.0
    for options in ViewOptions.pair():
        maker = ViewMaker(side - 8, options)
        drawn = maker.draw(n, side, side, torch.Generator().manual_seed(2))
        here = maker.apply(images, drawn)
        there = maker.apply(images.to(session.device), drawn).cpu()
        worst = max(worst, float((here - there).abs().max()))
        low, high = min(low, float(there.min())), max(high, float(there.max()))
    figures = {"greatest difference": worst, "lowest": low, "highest": high}
    return Outcome(
        worst <= 1e-3 and low >= -1e-5 and high <= 1 + 1e-5,
        figures,
        "at most 1e-3 apart, values in 0..1",
    )


def _other_seeds(session: Session) -> Outcome:
    maker = ViewMaker(32)
    images = torch.rand(4, 1, 40, 40, device=session.device)
    made = [maker(images, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    same, other = bool(torch.equal(made[0], made[1])), float((made[0] - made[2]).abs().mean())
    return Outcome(
        same and other > 1e-3, {"one seed, same view": same, "another seed differs by": other}
    )


# Pre-training ---------------------------------------------------------------------------------------------------------


def pretraining(session: Session) -> None:
    """A whole step of ResNet-18: batch, views, loss, gradients, update."""
    exact_float32()
    size, images = (32, 60) if session.toy else (64, 400)
    pack = phantom_pack(session.folder("pack") / "pack", images, size).path
    base = PretrainConfig(
        data=(pack,),
        out=session.work / "never-written",
        arch="resnet18",
        size=size,
        batch_size=8 if session.toy else 64,
        epochs=100,
        projector=(32, 32) if session.toy else (512, 512, 512),
        optimizer="lars",
        compile="off",
        knn_every=0,
    )
    session.check("batches copied ahead are the pack's", partial(_batches, session, base), needs=5)
    session.check(
        "network's loss and gradient against float64", partial(_network, session, base), needs=10
    )
    for name, change in (
        ("whole step", {}),
        ("whole step in 4 pieces", {"accumulate": 4}),
        ("whole step of byol", {"objective": "byol"}),
        ("whole step of vicreg", {"objective": "vicreg"}),
        ("whole step of simclr", {"objective": "simclr"}),
    ):
        session.check(name, partial(_step, session, dataclasses.replace(base, **change)), needs=8)
    session.check("updates of four LARS steps", partial(_updates, session, base), needs=8)
    session.check("bf16 step is finite and near", partial(_bf16, session, base), needs=5)
    session.check(
        "float32 as shipped (TF32 in convolutions)", partial(_shipped, session, base), needs=5
    )


def _first_batch(loop: Loop) -> Tensor:
    batch: Tensor = next(iter(loop.batches(0, 0)))
    return batch


def _batches(session: Session, config: PretrainConfig) -> Outcome:
    here, there = (pretraining_loop(config, m) for m in (processor(session), under_test(session)))
    pairs = list(zip(here.batches(1, 0), there.batches(1, 0), strict=True))
    same = [bool(torch.equal(a, b.cpu())) for a, b in pairs]
    return Outcome(
        all(same) and len(same) == here.steps_per_epoch, {"batches": len(same), "equal": sum(same)}
    )


def _network(session: Session, config: PretrainConfig) -> Outcome:
    loop = pretraining_loop(config, processor(session))
    step: Any = loop.step
    images = pixels_to_unit(_first_batch(loop))
    generator = torch.Generator().manual_seed(5)
    side = images.shape[-1]
    views = [
        normalise(v.apply(images, v.draw(len(images), side, side, generator))) for v in step.views
    ]

    def made(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        model = copy.deepcopy(loop.model).to(device, dtype).train()
        z1, z2 = (model(view.to(device, dtype))[1] for view in views)
        loss = step.objective(z1, z2).loss
        loss.backward()
        return loss.detach(), gradients(model)

    cpu = torch.device("cpu")
    exact, own, there = (
        made(torch.float64, cpu),
        made(torch.float32, cpu),
        made(torch.float32, session.device),
    )
    figures = {
        "loss off by": distance(there[0], exact[0]),
        "gradient off by": distance(there[1], exact[1]),
        "processor's float32: loss": distance(own[0], exact[0]),
        "gradient": distance(own[1], exact[1]),
    }
    limits = (
        max(10 * figures["processor's float32: loss"], 1e-5),
        max(10 * figures["gradient"], 1e-4),
    )
    right = figures["loss off by"] <= limits[0] and figures["gradient off by"] <= limits[1]
    return Outcome(right, figures, f"at most {limits[0]:.1g} and {limits[1]:.1g} from float64")


def _one(loop: Loop) -> dict[str, Tensor]:
    loop.model.train()
    loop.optimizer.zero_grad(set_to_none=True)
    seed_everything(loop.seed, 0)
    return {name: value.detach() for name, value in loop.step(_first_batch(loop), 0).items()}


def _step(session: Session, config: PretrainConfig) -> Outcome:
    here, there = (pretraining_loop(config, m) for m in (processor(session), under_test(session)))
    own, other = _one(here), _one(there)
    figures = {"loss": float(other["loss"])} | {
        f"{name} off by": distance(other[name], own[name]) for name in own
    }
    figures["gradient off by"] = distance(gradients(there.model), gradients(here.model))
    norms = gradients(there.model).norm(), gradients(here.model).norm()
    figures["gradient's norm off by"] = distance(*norms)
    # A deep network with batch norm amplifies rounding: what float32 itself costs on the processor is the scale.
    exact = _in_float64(pretraining_loop(config, processor(session)))
    _one(exact)
    own_error = distance(gradients(here.model), gradients(exact.model))
    own_norm = distance(gradients(here.model).norm(), gradients(exact.model).norm())
    figures |= {"processor's float32 from float64: gradient": own_error, "its norm": own_norm}
    limits = min(max(10 * own_error, 1e-2), 0.1), min(max(10 * own_norm, 1e-3), 1e-2)
    right = (
        figures["loss off by"] <= 1e-4
        and figures["gradient off by"] <= limits[0]
        and figures["gradient's norm off by"] <= limits[1]
    )
    return Outcome(right, figures, f"loss 1e-4, gradient {limits[0]:.1g}, its norm {limits[1]:.1g}")


def _in_float64(loop: Loop) -> Loop:
    """The loop with a network that computes in float64 on the same float32 views."""
    loop.model.double()
    for module in loop.model.modules():
        if isinstance(module, Backbone):
            module.register_forward_pre_hook(
                lambda _, arguments: tuple(x.double() for x in arguments)
            )
    return loop


def _updates(session: Session, config: PretrainConfig) -> Outcome:
    moved = []
    for machine in (processor(session), under_test(session)):
        loop = pretraining_loop(config, machine)
        before = values(loop.model)
        for index, batch in zip(range(4), loop.batches(0, 0), strict=False):
            seed_everything(loop.seed, index)
            loop.model.train()
            for group, rate in zip(loop.optimizer.param_groups, loop.rates(index), strict=True):
                group["lr"] = rate
            loop.optimizer.zero_grad(set_to_none=True)
            loop.step(batch, index)
            loop.optimizer.step()
        moved.append(values(loop.model) - before)
    off = distance(moved[1], moved[0])
    return Outcome(off <= 2e-2, {"movement off by": off, "moved": float(moved[0].norm())}, "2e-2")


def _bf16(session: Session, config: PretrainConfig) -> Outcome:
    exact, rough = (pretraining_loop(config, under_test(session, bf16=b)) for b in (False, True))
    own, other = _one(exact), _one(rough)
    finite = bool(torch.isfinite(other["loss"])) and bool(
        torch.isfinite(gradients(rough.model)).all()
    )
    figures = {"loss": float(other["loss"]), "off by": distance(other["loss"], own["loss"])}
    figures["gradient off by"] = distance(gradients(rough.model), gradients(exact.model))
    figures["mean C_ii off by"] = distance(other["mean_c_ii"], own["mean_c_ii"])
    return Outcome(
        finite and figures["off by"] < 0.05, figures, "finite, loss within 5 % of float32's"
    )


def _shipped(session: Session, config: PretrainConfig) -> Outcome:
    if not session.cuda:
        raise Skip("TensorFloat-32 is a GPU's")
    here = pretraining_loop(config, processor(session))
    own = _one(here)
    try:
        torch.backends.cudnn.allow_tf32 = True
        there = pretraining_loop(config, under_test(session))
        other = _one(there)
    finally:
        exact_float32()
    off = distance(other["loss"], own["loss"])
    figures = {
        "loss off by": off,
        "gradient off by": distance(gradients(there.model), gradients(here.model)),
    }
    return Outcome(off <= 1e-2, figures, "loss 1e-2")


# Detection ------------------------------------------------------------------------------------------------------------


def detection(session: Session) -> None:
    """RoIAlign, the losses on given targets, and the boxes that trained detectors find."""
    exact_float32()
    session.check(
        "RoIAlign, ours against torchvision's on the GPU", partial(_roi_align, session), needs=5
    )
    side, images = (64, 60) if session.toy else (128, 320)
    pack = phantom_pack(session.folder("pack") / "pack", images, side).path
    for kind in DETECTORS:
        session.check(
            f"{kind}: losses and gradients", partial(_losses, session, pack, kind), needs=10
        )
        session.check(
            f"{kind}: bf16 losses are finite and near",
            partial(_losses_bf16, session, pack, kind),
            needs=5,
        )
    for kind in DETECTORS:
        session.check(
            f"{kind}: boxes of a trained detector", partial(_boxes, session, pack, kind), needs=20
        )


def _roi_align(session: Session) -> Outcome:
    torch.manual_seed(0)
    side, n, channels = (64, 20, 4) if session.toy else (224, 512, 64)
    strides = (4, 8, 16, 32)
    maps = {str(i): torch.randn(2, channels, side // s, side // s) for i, s in enumerate(strides)}
    corners = torch.rand(2, n, 2, 2) * side * 1.1 - 0.05 * side  # some reach over the border
    boxes = [torch.cat([c.amin(1), c.amax(1)], dim=1) for c in corners]
    pool = MultiScaleRoIAlign(list(maps), strides)
    found = []
    for device in (torch.device("cpu"), session.device):
        leaves = {k: m.to(device, copy=True).requires_grad_() for k, m in maps.items()}
        pooled = pool(leaves, [b.to(device) for b in boxes], [(side, side)] * 2)
        weight = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).to(device)
        (pooled * weight).sum().backward()
        found.append(
            (
                pooled.detach(),
                torch.cat([m.grad.flatten() for m in leaves.values() if m.grad is not None]),
            )
        )
    used = torch.bincount(pyramid_levels(torch.cat(boxes), 4), minlength=4).tolist()
    figures = {
        "values off by": distance(found[1][0], found[0][0]),
        "gradient off by": distance(found[1][1], found[0][1]),
    }
    return Outcome(max(figures.values()) <= 1e-4, figures | {"boxes on each level": used}, "1e-4")


def _given(session: Session, pack: Path, kind: DetectorKind) -> tuple[Any, Tensor, Any]:
    """A detector that samples everything, so that no draw decides its losses; a batch of images, and their targets."""
    from twinray.data.pack import open_pack

    opened = open_pack(pack)
    side = opened.info.size
    options = DetectorOptions(
        detector=kind,
        size=side,
        fpn_channels=64,
        box_head_width=128,
        anchor_scale={"faster-rcnn": 4.0, "retinanet": 2.0, "fcos": 1.0}[kind],
        proposals_before_nms=(8192, 8192),
        proposals=(8192, 8192),
        anchors_per_image=16384,
        rois_per_image=32768,
    )
    detector = build_detector(
        build_backbone("resnet18", 0, side), options, opened.info.box_classes, seed=0
    )
    data = annotated(opened, "train", "with_boxes")
    pixels, targets = next(iter(data.batches(2 if session.toy else 8, seed=0, epoch=0, first=0)))
    images, targets = training_batch(
        pixels, targets, side, TransformOptions(), torch.Generator().manual_seed(0)
    )
    return detector, images, targets


def _made(
    detector: nn.Module, images: Tensor, targets: Any, device: torch.device, *, bf16: bool = False
) -> tuple[dict[str, Tensor], Tensor]:
    model = copy.deepcopy(detector).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    seed_everything(0)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        losses = model(
            images.to(device).contiguous(memory_format=torch.channels_last), targets.to(device)
        )
    torch.stack([value.float() for value in losses.values()]).sum().backward()
    return {name: value.detach() for name, value in losses.items()}, gradients(model)


def _losses(session: Session, pack: Path, kind: DetectorKind) -> Outcome:
    detector, images, targets = _given(session, pack, kind)
    own, own_gradient = _made(detector, images, targets, torch.device("cpu"))
    there, gradient = _made(detector, images, targets, session.device)
    figures = {f"{name} off by": distance(there[name], own[name]) for name in own}
    worst = max(figures.values())
    figures |= {name: float(value) for name, value in there.items()}
    figures["gradient off by"] = distance(gradient, own_gradient)
    return Outcome(
        worst <= 1e-3 and figures["gradient off by"] <= 2e-2, figures, "losses 1e-3, gradient 2e-2"
    )


def _losses_bf16(session: Session, pack: Path, kind: DetectorKind) -> Outcome:
    detector, images, targets = _given(session, pack, kind)
    own, _ = _made(detector, images, targets, session.device)
    there, gradient = _made(detector, images, targets, session.device, bf16=True)
    total, near = (torch.stack([v.float() for v in x.values()]).sum() for x in (own, there))
    figures = {"loss": float(near), "off by": distance(near, total)}
    finite = bool(torch.isfinite(near)) and bool(torch.isfinite(gradient).all())
    return Outcome(finite and figures["off by"] < 0.1, figures, "finite, within 10 % of float32's")


def trained(session: Session, pack: Path, kind: DetectorKind) -> Path:
    """The folder of a small detector that the job trained on the device."""
    config = DetectConfig(
        data=pack,
        out=session.folder(kind) / "run",
        arch="resnet18",
        detector=kind,
        size=64 if session.toy else 128,
        batch_size=8,
        epochs=1 if session.toy else 6,
        fpn_channels=64,
        box_head_width=128,
        rois_per_image=64,
        anchor_scale={"faster-rcnn": 4.0, "retinanet": 2.0, "fcos": 1.0}[kind],
        bootstrap=0,
        device="cuda" if session.cuda else "cpu",
        precision="float32",
    )
    detect(config)
    exact_float32()  # the job may have set its own
    return config.out


def _both(session: Session, run: Path) -> tuple[Model, Model]:
    return load_model(run, "cpu"), load_model(run, "cuda" if session.cuda else "cpu")


def _boxes(session: Session, pack: Path, kind: DetectorKind) -> Outcome:
    from twinray.data.pack import open_pack

    here, there = _both(session, trained(session, pack, kind))
    opened = open_pack(pack)
    rows = opened.where("test")[: 8 if session.toy else 48]
    images = [prepare_row(here, opened, int(row)) for row in rows]
    own, other = here.boxes(images), there.boxes(images)
    total, missing, furthest, scored = 0, 0, 0.0, 0.0
    for one, two in ((own, other), (other, own)):
        for a, b in zip(one, two, strict=True):
            n, lost, far, off = _partners(a, b)
            total, missing, furthest, scored = (
                total + n,
                missing + lost,
                max(furthest, far),
                max(scored, off),
            )
    figures = {
        "boxes": total,
        "without a partner": missing,
        "furthest edge, px": furthest,
        "score off by": scored,
    }
    return Outcome(
        total > 0 and missing <= 0.005 * total,
        figures,
        "at most 0.5 % of the boxes scoring 0.01 or more lack a partner of their class within 1e-2 px and 1e-4 in score (suppression may turn on the last bit)",
    )


def _partners(a: Boxes, b: Boxes, least: float = 0.01) -> tuple[int, int, float, float]:
    """Boxes of ``a`` that score ``least``; those without a partner in ``b``; the greatest distances of the others."""
    assert a.scores is not None and b.scores is not None
    lost, far, off = 0, 0.0, 0.0
    chosen = np.flatnonzero(a.scores >= least)
    for i in chosen:
        same = b.labels == a.labels[i]
        edges = np.abs(b.xyxy[same] - a.xyxy[i]).max(axis=1, initial=0.0)
        scores = np.abs(b.scores[same] - a.scores[i])
        good = np.flatnonzero((edges <= 1e-2) & (scores <= 1e-4))
        if len(good):
            best = good[np.argmin(edges[good])]
            far, off = max(far, float(edges[best])), max(off, float(scores[best]))
        else:
            lost += 1
    return len(chosen), lost, far, off


# Heat maps ------------------------------------------------------------------------------------------------------------


def heat_maps(session: Session) -> None:
    """The maps of the same fixed boxes on both machines, by every exact method and by gradients."""
    exact_float32()
    side, images = (64, 60) if session.toy else (128, 320)
    pack = phantom_pack(session.folder("pack") / "pack", images, side).path
    runs: list[Path] = []

    def train_one() -> Outcome:
        runs.append(trained(session, pack, "faster-rcnn"))
        return Outcome(None)

    if not session.check("train the detector to explain", train_one, needs=20):
        return
    methods: tuple[Method, ...] = (
        "ablation",
        "ablation-last-stage",
        "occlusion",
        "grad-cam",
        "grad-cam++",
        "odam",
        "eigen-cam",
    )
    for method in methods:
        session.check(method, partial(_maps, session, pack, runs[0], method), needs=5)


def _maps(session: Session, pack: Path, run: Path, method: Method) -> Outcome:
    from twinray.data.pack import open_pack

    here, there = _both(session, run)
    opened = open_pack(pack)
    map_off, weight_off, score_off, n = 0.0, 0.0, 0.0, 0
    for row in opened.where("test")[: 2 if session.toy else 8]:
        image = prepare_row(here, opened, int(row))
        found, features = here.detector.detect_with_features(here.batch([image]))
        _, features_there = there.detector.detect_with_features(there.batch([image]))
        chosen = list(range(min(3, len(found[0]))))
        size = (here.size, here.size)
        moved = _moved(found[0], there.machine.device)
        own = maps_of(here.detector, features, found[0], chosen, size, method)
        other = maps_of(there.detector, features_there, moved, chosen, size, method)
        for a, b in zip(own, other, strict=True):
            n += 1
            map_off = max(map_off, float(np.abs(a.map - b.map).max()))
            scale = max(float(np.abs(a.weights).max()), 1e-12)
            weight_off = max(weight_off, float(np.abs(a.weights - b.weights).max()) / scale)
            score_off = max(score_off, abs(a.score - b.score))
    figures = {
        "boxes": n,
        "map off by": map_off,
        "weights off by": weight_off,
        "score off by": score_off,
    }
    finite = all(math.isfinite(v) for v in figures.values())
    limit = 2e-2 if method == "eigen-cam" else 1e-2  # a singular vector is less well determined
    return Outcome(
        n > 0 and finite and map_off <= limit and score_off <= 1e-4,
        figures,
        f"maps (0..1) {limit:g}, scores 1e-4",
    )


def _moved(found: Detection, device: torch.device) -> Detection:
    return Detection(*(getattr(found, f.name).to(device) for f in dataclasses.fields(found)))


# The probe ------------------------------------------------------------------------------------------------------------


def probe(session: Session) -> None:
    """The linear probe on the device against the processor."""
    for task in ("multilabel", "multiclass"):
        session.check(f"probe, {task}: loss", partial(_probe, session, task), needs=5)


def _probe(session: Session, task: Task) -> Outcome:
    n, d, k = (200, 16, 3) if session.toy else (4000, 512, 14)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)).astype(np.float32)
    logits = features @ rng.normal(size=(d, k)) / math.sqrt(d) + rng.normal(size=(n, k))
    labels = (logits > 1.0 if task == "multilabel" else np.eye(k)[logits.argmax(1)]).astype(float)
    values = []
    for device in (torch.device("cpu"), session.device):
        fitted = fit_linear(features, labels, task, 0.01, device=device)
        scores = np.clip(fitted.scores(features), 1e-12, 1 - 1e-12)
        each = -(labels * np.log(scores))
        if task == "multilabel":
            each -= (1 - labels) * np.log(1 - scores)
        values.append(each.sum(axis=1).mean())
    off = abs(values[1] - values[0])
    return Outcome(bool(off <= 1e-6), {"loss off by": off}, "1e-6")
