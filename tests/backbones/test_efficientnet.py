"""EfficientNet-Lite0 does what ResNets do: where its cells look, its stages, its frozen norms, its state dict."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from support import PRETRAIN, ranks
from twinray.backbones.build import build_backbone
from twinray.backbones.contract import STAGE_STRIDES
from twinray.backbones.norm import apply_norm_policy, set_norm_modes
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.options import resolve
from twinray.detection.protocols import recipe
from twinray.detection.run import make_detector, make_optimizer
from twinray.training import engine

timm = pytest.importorskip("timm", reason="timm is not installed (extra timm)")
LITE0 = "timm/tf_efficientnet_lite0"


def averaging(arch: str, *, aligned: bool) -> nn.Module:
    """A network of the same layers that only averages: positive weights, no activations, no norms."""
    backbone = build_backbone(arch, 0, 64).eval()
    backbone.aligned = aligned
    assert len(backbone.stage_channels) == 4  # found before the network is no longer itself
    for module in list(backbone.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm | nn.ReLU | nn.ReLU6):
                setattr(module, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                mean = nn.AvgPool2d(child.kernel_size, child.stride, child.padding)
                setattr(module, name, mean)
    for parameter in backbone.parameters():
        parameter.requires_grad_(False).fill_(1 / parameter[0].numel())
        assert parameter.ndim == 4
    return backbone


def looked_at(arch: str, side: int, *, aligned: bool) -> dict[str, tuple[float, float]]:
    """By stage, the (row, column) pixel in the middle of what the map's middle cell looks at.

    With positive weights and without activations the gradient of a cell is the weight of each pixel in it.
    """
    backbone = averaging(arch, aligned=aligned)
    image = torch.zeros(1, 3, side, side, requires_grad=True)
    places = torch.arange(side, dtype=torch.float64)
    found = {}
    for stage, cells in backbone.stages(image).items():
        middle = cells.shape[-1] // 2
        (seen,) = torch.autograd.grad(cells[0, 0, middle, middle], image, retain_graph=True)
        weight = seen.double().sum(dim=(0, 1))
        row, column = ((weight.sum(dim=d) * places).sum() / weight.sum() for d in (1, 0))
        found[stage] = float(row), float(column)
    return found


@pytest.mark.parametrize(
    ("arch", "side", "aligned", "shift"),
    [
        ("resnet18", 512, True, lambda s: 0),
        (LITE0, 1024, True, lambda s: -1),  # a pixel at every stride
        (LITE0, 1024, False, lambda s: s - 1),  # as runs of versions before have it
        (LITE0, 1025, True, lambda s: 0),  # odd sides at every stride: the padding is even
    ],
)
def test_cells_look_where_boxes_are(arch, side, aligned, shift):
    for stage, place in looked_at(arch, side, aligned=aligned).items():
        stride = STAGE_STRIDES[stage]
        where = stride * (-(-side // stride) // 2) + shift(stride)
        assert place == pytest.approx((where, where), abs=0.05), stage


@pytest.mark.parametrize("side", [96, 97])
def test_a_dot_moves_its_cells_and_no_farther_ones(side):
    """With random weights: a bright dot changes a fine map most at its own cell."""
    backbone = build_backbone(LITE0, 0, 96).eval()
    backbone.aligned = True
    plain, dotted = torch.zeros(1, 3, side, side), torch.zeros(1, 3, side, side)
    rows, columns = 40, 24
    dotted[:, :, rows - 1 : rows + 2, columns - 1 : columns + 2] = 4.0
    with torch.no_grad():
        change = (backbone.stages(dotted)["c2"] - backbone.stages(plain)["c2"]).abs().sum(dim=1)[0]
    at = divmod(int(change.argmax()), change.shape[1])
    assert abs(at[0] * 4 - rows) <= 4 and abs(at[1] * 4 - columns) <= 4


def test_stages_have_names_and_every_part_its_parameters():
    backbone = build_backbone(LITE0, 0, 64)
    assert tuple(backbone.stage_channels) == (24, 40, 112, 320)
    owner = {name: backbone.stage_of(name) for name, _ in backbone.named_parameters()}
    last = {0: "blocks.1", 1: "blocks.1", 2: "blocks.2", 3: "blocks.4", 4: "blocks.6"}
    for stage, part in last.items():
        if stage:
            assert {s for name, s in owner.items() if name.startswith(f"net.{part}.")} == {stage}
    assert {name.partition("net.")[2].split(".")[0] for name, s in owner.items() if s == 0} == {
        "conv_stem", "bn1", "blocks",
    }  # fmt: skip
    assert {name.partition("net.")[2].split(".")[0] for name, s in owner.items() if s is None} == {
        "conv_head", "bn2",
    }  # fmt: skip
    parts = backbone.parts()
    assert (
        list(parts) == ["stem", *(f"blocks.{i}" for i in range(7)), "conv_head"] or "stem" in parts
    )
    assert sorted(n for names in parts.values() for n in names) == sorted(owner)


@pytest.mark.parametrize("policy", ["frozen", "eval"])
def test_frozen_norms_keep_their_statistics_and_their_eps(policy):
    backbone = build_backbone(LITE0, 0, 64)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-3
            module.running_var.fill_(2e-3)  # so small that another eps would show
    before = copy.deepcopy(backbone).eval()
    apply_norm_policy(backbone, policy, 5)
    backbone.train()
    set_norm_modes(backbone, policy, 5)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, value in backbone.stages(x).items():
            torch.testing.assert_close(value, before.stages(x)[name])
    for name, buffer in backbone.named_buffers():
        assert torch.equal(buffer, before.get_buffer(name)), name
    affine = [p for n, p in backbone.named_parameters() if p.ndim == 1 and backbone.stage_of(n) is not None]  # fmt: skip
    assert all(p.requires_grad == (policy == "eval") for p in affine)


def test_its_state_dict_is_timms_and_comes_back():
    ours = build_backbone(LITE0, 3, 64).eval()
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))
    again = build_backbone(LITE0, 4, 64)
    again.load_state_dict(theirs.state_dict())
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in ours.state_dict().items())


def test_an_interrupted_run_goes_on_to_the_same_bytes(class_pack, tmp_path, cli):
    options = (
        "pretrain", "--data", class_pack, *PRETRAIN, "--arch", LITE0, "--epochs", 2, "--log-every", 1,
        "--checkpoint-every", 1, "--device", "cpu",
    )  # fmt: skip
    assert cli(*options, "--out", tmp_path / "whole")[0] == 0
    with pytest.MonkeyPatch.context() as patch:
        real, calls = engine._one_step, []

        def stopped(*arguments):
            calls.append(1)
            if len(calls) == 4:
                raise KeyboardInterrupt
            return real(*arguments)

        patch.setattr(engine, "_one_step", stopped)
        assert cli(*options, "--out", tmp_path / "cut")[0] == 130
    assert list((tmp_path / "cut" / "checkpoints").glob("step-*"))
    assert not (tmp_path / "cut" / "backbone.safetensors").exists()
    assert cli(*options, "--out", tmp_path / "cut", "--resume")[0] == 0
    one, two = ((tmp_path / name / "backbone.safetensors").read_bytes() for name in ("whole", "cut"))  # fmt: skip
    assert one == two


def dots(side: int) -> list[tuple[int, int]]:
    """Places (row, column) well inside a picture."""
    return [
        (side // 3, side // 2),
        (side // 2 + 5, side // 4 + 3),
        (2 * side // 3 - 1, 2 * side // 3),
    ]


@pytest.mark.parametrize("side", [224, 225, 257, 288])
def test_dots_lie_where_the_pyramid_places_them(side):
    """A dot lights cells about its own place, whatever the padding makes of an odd side.

    With positive weights and without activations a dot spreads into a smooth spot. Its middle, cells being at whole strides
    as boxes and heat maps have them, is the dot, but for the pixel by which sides that 32 divides are padded unevenly. Detectors
    take such sides alone; of others only those are padded evenly at every stride that are one more (225, 257).
    """
    backbone = averaging(LITE0, aligned=True)
    with torch.no_grad():
        for row, column in dots(side):
            picture = torch.zeros(1, 3, side, side)
            picture[:, :, row, column] = 1.0
            spots = backbone.stages(picture)
            for stage, stride in (("c2", 4), ("c3", 8)):
                spot = spots[stage][0, 0].double()
                places = torch.arange(len(spot), dtype=torch.float64) * stride
                seen = [float((spot.sum(dim=1 - d) * places).sum() / spot.sum()) for d in (0, 1)]
                # a spot of few cells has its middle to a quarter of a cell
                where = stage, row, column
                assert seen == pytest.approx([row, column], abs=1 + stride / 4), where


def test_layer_wise_rates_of_a_detector_fall_from_block_to_block(blob_pack):
    """Pyramid and heads have the full rate, the last block the decay, each block before it the decay times that."""
    config = resolve(
        DetectConfig(
            blob_pack, "x", arch=LITE0, size=64, fpn_channels=32, layer_decay=0.8, optimizer="adamw"
        )
    )
    model, _ = make_detector(config, open_pack(blob_pack))
    chosen = recipe(config)
    optimizer = make_optimizer(chosen, model)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            seen[names[id(parameter)]] = group["lr"] / chosen.lr
            assert group["weight_decay"] == (0.0 if parameter.ndim == 1 else chosen.weight_decay)
    body = "backbone.body.net."
    for name, factor in seen.items():
        if not name.startswith(body):
            assert factor == 1, name
            continue
        part = name.removeprefix(body).split(".")
        distance = 7 - int(part[1]) if part[0] == "blocks" else 8  # the stem stands before blocks.0
        assert factor == pytest.approx(0.8**distance), name
    after_maps = (f"{body}conv_head.", f"{body}bn2.")  # no map is made of them
    learning = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(seen) == {n for n in learning if not n.startswith(after_maps)}


SMALL = (
    "--arch", LITE0, "--size", 64, "--batch-size", 4, "--fpn-channels", 32, "--box-head-width", 32, "--rois-per-image", 16,
    "--anchor-scale", 4, "--bootstrap", 0, "--precision", "float32", "--device", "cpu",
)  # fmt: skip


def test_a_detector_of_it_goes_on_to_the_same_bytes(blob_pack, tmp_path, cli):
    options = (
        "detect",
        "--data",
        blob_pack,
        *SMALL,
        "--epochs",
        2,
        "--fraction",
        0.6,
        "--checkpoint-every",
        1,
    )
    assert cli(*options, "--out", tmp_path / "whole")[0] == 0
    real, calls = engine._one_step, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "_one_step", stopped)
        assert cli(*options, "--out", tmp_path / "cut")[0] == 130
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    assert cli(*options, "--out", tmp_path / "cut", "--resume")[0] == 0
    for name in ("model.safetensors", "predictions.json"):
        one, two = ((tmp_path / run / name).read_bytes() for run in ("whole", "cut"))
        assert one == two, name


def test_a_detector_of_it_trains_on_two_ranks_as_on_one(blob_pack, tmp_path, cli):
    """RetinaNet samples nothing: one step of SGD gives equal weights, to the rounding of sums in another order."""
    options = (
        "detect", "--data", blob_pack, "--protocol", "as-published", "--detector", "retinanet", *SMALL, "--epochs", 1,
        "--warmup-steps", 0, "--lr", 0.01, "--flip", 0, "--scale", 1, 1, "--brightness", 0, "--contrast", 0, "--fraction", 0.4,
        "--trainable-stages", 2,
    )  # fmt: skip
    assert cli(*options, "--out", tmp_path / "one")[0] == 0
    ranks(2, ["-m", "twinray.cli", *options, "--out", tmp_path / "two"])
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    config = resolve(
        DetectConfig(
            blob_pack, "x", arch=LITE0, size=64, fpn_channels=32, protocol="as-published", detector="retinanet",
            trainable_stages=2,
        )
    )  # fmt: skip
    start = make_detector(config, open_pack(blob_pack))[0].state_dict()
    assert one.keys() == two.keys() == start.keys()
    moved = max(float((one[n] - t).abs().max()) for n, t in start.items() if t.is_floating_point())
    assert moved > 1e-4
    for name, value in one.items():
        assert float((two[name].double() - value.double()).abs().max()) <= 0.02 * moved, name
