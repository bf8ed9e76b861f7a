"""Detectors on plain transformers: against a composition of plain PyTorch, ViTDet's rules, and the real command line."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from support import DETECT, ranks, twinray
from twinray.backbones.build import build_backbone
from twinray.backbones.contract import layer_factors
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.data import annotated
from twinray.detection.model import (
    Detector,
    DetectorOptions,
    build_detector,
    frozen_random_layers,
)
from twinray.detection.options import resolve
from twinray.detection.protocols import recipe
from twinray.detection.run import layer_decay, make_detector, make_loop, make_optimizer
from twinray.detection.run import run as detect
from twinray.detection.targets import BoxTargets
from twinray.errors import InputError
from twinray.inference.heat_maps import usable
from twinray.inference.methods import METHODS
from twinray.inference.model import load_model
from twinray.training.device import choose_machine

pytest.importorskip("timm", reason="timm is not installed; pip install 'twinray[timm]'")

VIT = "timm/test_vit"
BLOCKS, HEADS = 6, 2
SMALL = {
    "fpn_channels": 32,
    "box_head_width": 32,
    "anchor_scale": 4.0,
    "proposals_before_nms": (60, 60),
    "proposals": (40, 40),
    "rois_per_image": 16,
}
REST = [word for word in DETECT if word not in ("--arch", "resnet18")]


def detector(arch: str = VIT, size: int = 64, **more: object) -> Detector:
    options = DetectorOptions(**{**SMALL, "size": size, **more})
    return build_detector(build_backbone(arch, 1, size), options, ("a", "b"), seed=0)


def images(size: int, n: int = 2) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def targets() -> BoxTargets:
    return BoxTargets.from_lists(
        [torch.tensor([[5.0, 6, 50, 60], [20, 20, 60, 62]]), torch.zeros(0, 4)],
        [torch.tensor([0, 1]), torch.zeros(0)],
    )


# --- a composition of plain PyTorch, from the published descriptions --------------------------------------------------


def norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p[f"{name}.weight"], p[f"{name}.bias"], 1e-6)


def transformer(x: Tensor, p: dict[str, Tensor], patch: int) -> Tensor:
    """ViT (Dosovitskiy et al. 2021) with a class token, to its normed patch tokens as a map (b, c, h, w)."""
    cells = F.conv2d(x, p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=patch)
    b, c, h, w = cells.shape
    tokens = torch.cat([p["cls_token"].expand(b, 1, c), cells.flatten(2).transpose(1, 2)], dim=1)
    first, grid = p["pos_embed"][:, :1], p["pos_embed"][:, 1:]
    side = math.isqrt(grid.shape[1])
    if (side, side) != (h, w):
        square = grid.transpose(1, 2).reshape(1, c, side, side).float()
        square = F.interpolate(square, (h, w), mode="bicubic", antialias=True)
        grid = square.flatten(2).transpose(1, 2).to(grid)
    tokens = tokens + torch.cat([first, grid], dim=1)
    for i in range(BLOCKS):
        at = f"blocks.{i}"
        y = norm(tokens, p, f"{at}.norm1")
        y = F.linear(y, p[f"{at}.attn.qkv.weight"], p[f"{at}.attn.qkv.bias"])
        q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in y.chunk(3, dim=-1))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1)
        y = (weights @ v).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(y, p[f"{at}.attn.proj.weight"], p[f"{at}.attn.proj.bias"])
        y = norm(tokens, p, f"{at}.norm2")
        y = F.gelu(F.linear(y, p[f"{at}.mlp.fc1.weight"], p[f"{at}.mlp.fc1.bias"]))
        tokens = tokens + F.linear(y, p[f"{at}.mlp.fc2.weight"], p[f"{at}.mlp.fc2.bias"])
    return norm(tokens, p, "norm")[:, 1:].transpose(1, 2).reshape(b, c, h, w)


def map_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """Layer norm over the channels of a map, by the sums themselves."""
    centred = x - x.mean(dim=1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt()
    weight, bias = (p[f"{name}.{own}"].view(1, -1, 1, 1) for own in ("weight", "bias"))
    return scaled * weight + bias


def level(last: Tensor, p: dict[str, Tensor], name: str, doublings: int) -> Tensor:
    """One level of ViTDet's simple pyramid; below 0 doublings are halvings."""
    at, x = 0, last
    for i in range(max(doublings, 0)):
        if i:
            x = F.gelu(map_norm(x, p, f"{name}.{at}"))
            at += 2
        x = F.conv_transpose2d(x, p[f"{name}.{at}.weight"], p[f"{name}.{at}.bias"], stride=2)
        at += 1
    if doublings < 0:
        x = F.max_pool2d(x, 2**-doublings)
        at += 1
    x = map_norm(F.conv2d(x, p[f"{name}.{at}.weight"]), p, f"{name}.{at + 1}")
    x = F.conv2d(x, p[f"{name}.{at + 2}.weight"], padding=1)
    return map_norm(x, p, f"{name}.{at + 3}")


def parts_of(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize(("patch", "size"), [(16, 96), (14, 84), (8, 64)])
def test_maps_and_gradients_are_those_of_plain_pytorch(patch: int, size: int) -> None:
    ours = detector(f"{VIT}?patch_size={patch}", size).double()
    own = {k: v.clone().requires_grad_() for k, v in ours.state_dict().items()}
    x = images(size).double()
    found = ours.backbone(x).pyramid
    last = transformer(x, parts_of(own, "backbone.body."), patch)
    fpn = parts_of(own, "backbone.fpn.levels.")
    finest = {16: 2, 14: 2, 8: 1}[patch]
    expected = {f"p{i + 2}": level(last, fpn, f"p{i + 2}", finest - i) for i in range(4)}
    expected["p6"] = expected["p5"][:, :, ::2, ::2]
    assert list(found) == list(expected)
    generator, total, theirs = torch.Generator().manual_seed(2), 0.0, 0.0
    for name, one in found.items():
        torch.testing.assert_close(one, expected[name], rtol=1e-6, atol=1e-6)
        wide = torch.randn(one.shape, generator=generator, dtype=torch.float64)
        total, theirs = total + (one * wide).sum(), theirs + (expected[name] * wide).sum()
    total.backward()
    theirs.backward()
    for name, parameter in ours.backbone.named_parameters():
        key = f"backbone.{name}".replace(".net.", ".")
        torch.testing.assert_close(parameter.grad, own[key].grad, rtol=1e-5, atol=1e-6, msg=key)


class Composed(nn.Module):
    """The composition as torchvision's detectors take a backbone."""

    out_channels = SMALL["fpn_channels"]

    def __init__(self, state: dict[str, Tensor]) -> None:
        super().__init__()
        self.own = {k: v.detach().clone().requires_grad_() for k, v in state.items()}

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        fpn = parts_of(self.own, "fpn.")
        last = transformer(x, parts_of(self.own, "body."), 16)
        maps = [level(last, parts_of(fpn, "levels."), f"p{i}", 4 - i) for i in (3, 4, 5)]
        for name in ("p6", "p7"):
            before = maps[-1] if name == "p6" else F.relu(maps[-1])
            weight, bias = (fpn[f"extra_blocks.{name}.{own}"] for own in ("weight", "bias"))
            maps.append(F.conv2d(before, weight, bias, stride=2, padding=1))
        return {str(i): one for i, one in enumerate(maps)}


def test_a_step_is_that_of_plain_pytorch_under_torchvisions_retinanet() -> None:
    ours = detector(size=128, detector="retinanet", round_anchors=True).train()
    x, truth = images(128), targets()
    losses = ours(x, truth)
    sum(losses.values()).backward()
    sides = tuple(tuple(int(4 * s * 2 ** (i / 3)) for i in range(3)) for s in (8, 16, 32, 64, 128))
    theirs = RetinaNet(
        Composed(parts_of(ours.state_dict(), "backbone.")),
        num_classes=2,
        min_size=128,
        max_size=128,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        anchor_generator=AnchorGenerator(sides, ((0.5, 1.0, 2.0),) * 5),
    ).train()
    theirs.transform._skip_resize = True
    theirs.head.load_state_dict(ours.head.state_dict())
    expected = theirs(list(x), [{"boxes": b, "labels": y} for b, y in truth.per_image()])
    sum(expected.values()).backward()
    for name, value in expected.items():
        torch.testing.assert_close(losses[f"loss_{name}"], value, rtol=1e-5, atol=1e-6)
    gradients = {f"head.{k}": p.grad for k, p in theirs.head.named_parameters()}
    gradients |= {f"backbone.{k}": v.grad for k, v in theirs.backbone.own.items()}
    compared = 0
    for name, parameter in ours.named_parameters():
        wanted = gradients[name.replace(".net.", ".")]
        close = wanted.abs().max().item() * 1e-3 + 1e-7
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-3, atol=close, msg=name)
        compared += 1
    assert compared == len(list(ours.parameters())) > 90


# --- geometry ---------------------------------------------------------------------------------------------------------


def test_places_of_patches_of_14_pixels_are_where_they_are() -> None:
    """A map that holds each place's own pixel pools to the pixels of the bins; anchors are centred on the same ones."""
    model = detector(f"{VIT}?patch_size=14", 112).eval()
    maps = model.backbone(images(112, 1)).pyramid
    assert model.backbone.strides == (3.5, 7.0, 14.0, 28.0, 56.0)
    for at, (name, stride) in enumerate(zip(maps, model.backbone.strides, strict=True)):
        side = maps[name].shape[-1]
        assert side == math.ceil(112 / stride)
        if at == 4:
            continue
        across = (torch.arange(side) * stride).expand(1, 1, side, side)
        pooled = model.pool_level(across, torch.tensor([[0.0, 28, 28, 70, 70]]), at)
        if side >= 8:  # or the box reaches beyond the last place
            wanted = 28 + (torch.arange(7) + 0.5) * 6
            torch.testing.assert_close(pooled[0, 0, 3], wanted, rtol=0, atol=1e-3)
    anchors = model.rpn.anchor_generator.on(list(maps.values()))
    counts = model.rpn.counts(list(maps.values()))
    for one, stride, side in zip(
        anchors.split(counts), model.backbone.strides, (16, 32, 64, 128, 256), strict=True
    ):
        centres = ((one[:, 0] + one[:, 2]) / 2).round(decimals=2).unique()
        torch.testing.assert_close(centres, torch.arange(len(centres)) * stride)
        area = (one[:, 2] - one[:, 0]) * (one[:, 3] - one[:, 1])
        torch.testing.assert_close(area.sqrt(), torch.full_like(area, side))  # as of any network


@pytest.mark.parametrize(
    ("arch", "size", "said"),
    [
        (VIT, 80, "multiple of 32 and at least 64 pixels, got 80; try 64 or 96"),
        (f"{VIT}?patch_size=14", 70, "multiple of 28 for patches of 14 pixels"),
        (f"{VIT}?patch_size=14", 96, r"choose another --size \(84 or 98\)"),
        (f"{VIT}?patch_size=32", 64, "patches of 8, 14, 16 pixels, which a feature pyramid needs"),
    ],
)
def test_sizes_and_patches_that_do_not_fit_are_one_line(arch: str, size: int, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        detector(arch, size)
    assert "\n" not in str(caught.value)


# --- what learns, and how fast ----------------------------------------------------------------------------------------


def vitdets_rate(name: str, decay: float, layers: int) -> float:
    """Detectron2's ``get_vit_lr_decay_rate`` (projects/ViTDet), from its description."""
    layer = layers + 1
    if name.startswith("backbone.body."):
        if ".blocks." in name:
            layer = int(name.split(".blocks.")[1].split(".")[0]) + 1
        elif ".norm." not in name:  # its network has no final norm; ours belongs to the last block
            layer = 0
        else:
            layer = layers
    return decay ** (layers + 1 - layer)


def test_rates_and_decays_are_vitdets(blob_pack) -> None:
    config = resolve(DetectConfig(blob_pack, "x", arch=VIT, size=64, fpn_channels=32))
    model, _ = make_detector(config, open_pack(blob_pack))
    chosen = recipe(config)
    assert layer_decay(chosen, model.backbone.body) == 0.7
    optimizer = make_optimizer(chosen, model)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            assert group["lr"] == pytest.approx(chosen.lr * vitdets_rate(name, 0.7, BLOCKS)), name
            plain = parameter.ndim == 1 or "pos_embed" in name or "cls_token" in name
            assert group["weight_decay"] == (0.0 if plain else 0.05), name
    assert seen == set(names.values())
    pack = open_pack(blob_pack)
    data = {split: annotated(pack, split) for split in ("train", "val", "test")}
    loop = make_loop(config, model, data, choose_machine("cpu", "float32"))
    rates, peak = loop.rates(1), max(loop.rates(1))
    assert rates == [pytest.approx(peak * g["lr"] / chosen.lr) for g in loop.optimizer.param_groups]


def test_depth_decides_the_decay_and_other_networks_have_none(blob_pack) -> None:
    def decay(arch: str, **more: object) -> float:
        config = DetectConfig(blob_pack, "x", arch=arch, size=64, **more)
        return layer_decay(recipe(resolve(config)), build_backbone(arch, 0, 64))

    assert decay(f"{VIT}?depth=12") == 0.7
    assert decay(f"{VIT}?depth=13") == decay(f"{VIT}?depth=24") == 0.8
    assert decay(f"{VIT}?depth=32") == 0.9
    assert decay(VIT, layer_decay=0.5) == 0.5
    assert decay("resnet18") == decay("timm/resnet10t") == decay(VIT, protocol="as-published") == 1


def test_a_norm_of_the_pooled_features_counts_as_no_block() -> None:
    backbone = build_backbone("timm/test_vit2", 0, 64)  # its last norm comes after pooling
    assert "fc_norm" in backbone.parts()
    factors = layer_factors(backbone, 0.5)
    assert factors["net.blocks.7.mlp.fc2.weight"] == 0.5
    assert factors["net.pos_embed"] == 0.5**9
    assert backbone.stage_of("net.fc_norm.weight") is None


@pytest.mark.parametrize(
    ("options", "learning"),
    [
        ({"trainable_stages": 5}, {"stem", *range(BLOCKS), "norm"}),
        ({"trainable_stages": 4}, {*range(BLOCKS), "norm"}),
        ({"trainable_stages": 2}, {3, 4, 5, "norm"}),
        ({"trainable_stages": 0}, set()),
        ({"trainable_blocks": 6}, {*range(BLOCKS), "norm"}),
        ({"trainable_blocks": 2}, {4, 5, "norm"}),
        ({"trainable_blocks": 0, "trainable_stages": 5}, set()),
    ],
)
def test_frozen_parts_stay_as_they_are(options: dict[str, int], learning: set[object]) -> None:
    backbone = build_backbone(VIT, 1, 64, drop_path=0.5)
    model = build_detector(backbone, DetectorOptions(**{**SMALL, "size": 64, **options}), "a", 0)
    model = model.eval().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    truth = BoxTargets.from_lists([torch.tensor([[5.0, 6, 50, 60]])] * 2, [torch.tensor([0])] * 2)
    torch.manual_seed(0)
    sum(model(images(64), truth).values()).backward()
    optimizer.step()
    moved = set()
    for name, value in model.state_dict().items():
        own = name.removeprefix("backbone.body.")
        if own == name or torch.equal(value, before[name]):
            continue
        block = own.split(".")[1] if own.startswith("blocks.") else ""
        moved.add(int(block) if block else "norm" if own.startswith("norm.") else "stem")
    assert moved == learning
    for i, block in enumerate(
        model.backbone.body.net.blocks
    ):  # nothing is drawn where nothing learns
        assert block.drop_path2.training == (i in learning)


def test_blocks_of_networks_without_them_are_one_line() -> None:
    for arch, more, said in (
        ("resnet18", {"trainable_blocks": 2}, "use --trainable-stages"),
        (VIT, {"trainable_blocks": 7}, "from 0 to 6, the blocks of timm/test_vit, got 7"),
        (VIT, {"norm": "group"}, "this backbone has none"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            detector(arch, **more)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="--drop-path is for networks of timm"):
        build_backbone("resnet18", 0, 64, drop_path=0.1)


def test_random_frozen_blocks_are_found_and_unused_parts_are_not() -> None:
    found = frozen_random_layers(detector(trainable_blocks=5), True)
    assert "net.blocks.0.attn.qkv" in found and not any("blocks.1" in name for name in found)
    assert "net" in found  # class token and positions
    assert (
        frozen_random_layers(detector("timm/test_vit3"), True) == []
    )  # its pooling learns nothing


@pytest.mark.parametrize("kind", ["faster-rcnn", "retinanet"])
def test_arms_differ_in_initial_tensors_alone(blob_pack, tmp_path, kind: str) -> None:
    pack = open_pack(blob_pack)
    torch.save(build_backbone(VIT, 9, 64).state_dict(), tmp_path / "w.pt")
    scale = {"faster-rcnn": 4.0, "retinanet": 4.0}[kind]
    configs = [
        resolve(
            DetectConfig(
                blob_pack, "x", init=init, arch=VIT, size=64, detector=kind, fpn_channels=32,
                anchor_scale=scale, drop_path=0.1, batch_size=4, epochs=1,
            )
        )
        for init in ("random", str(tmp_path / "w.pt"))
    ]  # fmt: skip
    assert [f for f in vars(configs[0]) if getattr(configs[0], f) != getattr(configs[1], f)] == [
        "init"
    ]
    arms = [make_detector(config, pack)[0].train() for config in configs]
    states = [arm.state_dict() for arm in arms]
    differ = {name for name in states[0] if not torch.equal(states[0][name], states[1][name])}
    assert {"backbone.body.pos_embed", "backbone.body.blocks.5.mlp.fc2.weight"} <= differ
    assert all(name.startswith("backbone.body.") for name in differ)
    assert str(arms[0]) == str(arms[1])
    data = {split: annotated(pack, split) for split in ("train", "val", "test")}
    loops = [
        make_loop(config, arm, data, choose_machine("cpu", "float32"))
        for config, arm in zip(configs, arms, strict=True)
    ]
    assert [loops[0].rates(s) for s in range(4)] == [loops[1].rates(s) for s in range(4)]
    for a, b in zip(*(loop.optimizer.param_groups for loop in loops), strict=True):
        assert [p.shape for p in a["params"]] == [p.shape for p in b["params"]]
        assert {k: v for k, v in a.items() if k != "params"} == {
            k: v for k, v in b.items() if k != "params"
        }


def test_what_compiles_is_one_graph() -> None:
    model = detector(size=96).train()
    x = images(96)
    compiled = torch.compile(model.dense, backend="eager", fullgraph=True)
    with torch.no_grad():
        (maps, outputs), (wanted, theirs) = compiled(x), model.dense(x)
    assert all(torch.equal(maps[k], wanted[k]) for k in wanted)
    assert all(torch.equal(outputs[k], theirs[k]) for k in theirs)


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(blob_pack, tmp_path_factory):
    """A detector on a plain transformer, trained for a moment."""
    out = tmp_path_factory.mktemp("vit") / "run"
    words = [
        "detect",
        "--data",
        blob_pack,
        "--out",
        out,
        "--epochs",
        3,
        "--lr",
        0.002,
        "--drop-path",
        0.1,
        *REST,
    ]
    twinray(*words, "--arch", VIT, check=True)
    return out


def test_a_run_is_described_and_loads_again(run, blob_pack, cli, tmp_path) -> None:
    described = json.loads((run / "model.json").read_text())
    assert described["arch"] == VIT and described["options"]["trainable_blocks"] is None
    assert "layer_decay: 0.7" in (run / "config.yaml").read_text()
    assert "drop_path: 0.1" in (run / "config.yaml").read_text()
    model = load_model(run, "cpu").detector
    assert not model.training and isinstance(model.backbone.body.patch, int)
    status, _, err = cli("evaluate", run, "--data", blob_pack, "--out", tmp_path / "e", "--bootstrap", 50)  # fmt: skip
    assert status == 0, err
    mine = json.loads((run / "metrics.json").read_text())["test"]["map50"]["value"]
    again = json.loads((tmp_path / "e" / "metrics.json").read_text())["arms"]
    (arm,) = again.values()
    assert arm["test"]["map50"]["value"] == pytest.approx(mine, abs=1e-9)


def test_a_run_goes_on_whole(run, blob_pack) -> None:
    pack = open_pack(blob_pack)
    config = resolve(
        DetectConfig(blob_pack, "x", init=str(run), size=96, fpn_channels=32, box_head_width=64)
    )
    model, provenance = make_detector(config, pack)
    before = load_model(run, "cpu").detector.state_dict()
    assert config.arch == VIT  # at another size: positions are interpolated
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert "was taken whole" in provenance.notes[0]


def test_a_step_in_bf16_is_finite() -> None:
    model = detector(f"{VIT}?patch_size=14", 84).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(images(84), targets())
    total = sum(losses.values())
    total.backward()
    assert total.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_heat_maps_that_stay_exact_are_drawn_and_the_other_is_named(
    run, blob_pack, blobs, cli, tmp_path
) -> None:
    detector = load_model(run, "cpu").detector
    assert set(METHODS) - set(usable(detector, METHODS)) == {"ablation-last-stage"}
    explain = ("explain", run, "--data", blob_pack, "--count", 1, "--boxes", 1, "--least-score", 0)
    for method in ("occlusion", "ablation", "odam"):
        status, _, err = cli(*explain, "--out", tmp_path / method, "--method", method)
        assert status == 0, err
    status, _, err = cli(*explain, "--out", tmp_path / "x", "--method", "ablation-last-stage")
    assert status == 2 and len(err.strip().splitlines()) == 1
    assert "ablation-last-stage needs a pyramid without norms" in err
    assert not (tmp_path / "x").exists()
    images = sorted((blobs.parent / "images").iterdir())[:3]
    status, _, err = cli("predict", run, *images, "--out", tmp_path / "p")
    assert status == 0, err


def test_a_stopped_run_goes_on_to_the_same_bytes(blob_pack, tmp_path) -> None:
    """Stochastic depth is drawn anew at every step from (seed, step)."""

    def config(name: str, **more: object) -> DetectConfig:
        return DetectConfig(
            blob_pack, tmp_path / name, arch=VIT, size=64, batch_size=4, epochs=2, fraction=0.6, fpn_channels=32,
            box_head_width=32, bootstrap=0, device="cpu", precision="float32", drop_path=0.3, checkpoint_every=1, **more,
        )  # fmt: skip

    def stop(*_: object) -> None:
        raise RuntimeError("stopped")

    whole = detect(config("whole")).path
    with pytest.raises(RuntimeError, match="stopped"):
        detect(config("stopped"), watch=stop)
    on = detect(config("stopped", resume=True)).path
    assert (on / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    steps = [json.loads(line)["step"] for line in (on / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(steps)


def test_two_ranks_train_one_detector(blob_pack, tmp_path) -> None:
    out = tmp_path / "run"
    words = ["detect", "--data", blob_pack, "--epochs", 1, "--drop-path", 0.2, *REST, "--arch", VIT]
    ranks(2, ["-m", "twinray.cli", *words, "--out", out])
    assert json.loads((out / "metrics.json").read_text())["test"]["map50"]["n"] > 0
