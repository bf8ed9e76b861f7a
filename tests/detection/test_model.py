"""The detector against torchvision's own Faster R-CNN, and what makes arms of a comparison fair."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import box_iou

from twinray.backbones.build import build_backbone
from twinray.detection import two_stage
from twinray.detection.batched.matching import Sample, sample
from twinray.detection.batched.roi_align import MultiScaleRoIAlign, pyramid_levels
from twinray.detection.model import (
    Detector,
    DetectorOptions,
    build_detector,
    frozen_random_layers,
    layer_report,
)
from twinray.detection.pyramid import Anchors
from twinray.detection.targets import BoxTargets
from twinray.errors import InputError
from twinray.training.sync_norm import synchronise_norms

CLASSES = ("opacity", "nodule")
SMALL = DetectorOptions(
    size=64, proposals_before_nms=(200, 100), proposals=(100, 50), rois_per_image=32
)


def detector(options: DetectorOptions = SMALL, seed: int = 0, backbone_seed: int = 0) -> Detector:
    return build_detector(
        build_backbone("resnet18", seed=backbone_seed), options, CLASSES, seed=seed
    )


def images(n: int = 2, size: int = 64, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(seed))


def two_images_one_negative() -> BoxTargets:
    return BoxTargets.from_lists(
        [torch.tensor([[5.0, 6, 30, 40], [20, 20, 60, 62]]), torch.zeros(0, 4)],
        [torch.tensor([0, 1]), torch.zeros(0)],
    )


def torchvisions(ours: Detector) -> FasterRCNN:
    """torchvision's detector with our weights, our anchors and no resizing."""
    o = ours.options
    body = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, norm_layer=nn.BatchNorm2d, trainable_layers=5
    )
    theirs = FasterRCNN(
        body,
        num_classes=len(CLASSES) + 1,
        min_size=o.size,
        max_size=o.size,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
        rpn_pre_nms_top_n_train=o.proposals_before_nms[0],
        rpn_pre_nms_top_n_test=o.proposals_before_nms[1],
        rpn_post_nms_top_n_train=o.proposals[0],
        rpn_post_nms_top_n_test=o.proposals[1],
        box_batch_size_per_image=o.rois_per_image,
        box_score_thresh=o.score_threshold,
        box_nms_thresh=o.nms,
        box_detections_per_img=o.detections_per_image,
    )
    theirs.transform._skip_resize = True  # it would draw a size, and so change every later draw
    theirs.rpn.anchor_generator = Anchors(o.anchor_scale, o.anchor_ratios)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    return theirs


def test_boxes_equal_torchvisions() -> None:
    ours = detector().eval()
    x = images()
    found = ours.detect(x)
    expected = torchvisions(ours).eval()(list(x))
    for a, b in zip(found, expected, strict=True):
        assert len(a) == len(b["boxes"]) > 10
        torch.testing.assert_close(a.scores, b["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(a.boxes, b["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(a.labels + 1, b["labels"])


class GivenSamples:
    """Stands in for torchvision's sampler: takes what ours took, call by call."""

    def __init__(self, calls: list[tuple[Tensor, Sample]]) -> None:
        self.calls = calls

    def __call__(self, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        of_ours, chosen = self.calls.pop(0)
        masks = []
        for flags in (chosen.positive, chosen.taken & ~chosen.positive):
            mask = torch.zeros_like(of_ours, dtype=torch.bool).scatter(1, chosen.place, flags)
            masks.append([])
            for mine, theirs, one in zip(of_ours, labels, mask, strict=True):
                if len(mine) > len(theirs):  # our rows that hold no proposal
                    one = one[mine >= 0]
                    mine = mine[mine >= 0]
                assert torch.equal(mine, theirs.to(mine.dtype))
                masks[-1].append(one.to(torch.uint8))
        return masks[0], masks[1]


@pytest.mark.parametrize("size", [64, 160])
def test_losses_and_gradients_equal_torchvisions_on_the_same_samples(
    size: int, monkeypatch
) -> None:
    options = DetectorOptions(**{**vars(SMALL), "size": size, "anchor_scale": 4.0, "norm": "eval"})
    ours = detector(options).double().train()
    # float32 on purpose, which hides what is compared here
    ours.rpn.head.__class__, ours.roi_heads.box_predictor.__class__ = RPNHead, FastRCNNPredictor
    ours.rpn.anchor_generator.on = as_double(ours.rpn.anchor_generator.on)
    theirs = torchvisions(ours).double().train()
    theirs.rpn.anchor_generator = ours.rpn.anchor_generator
    theirs.roi_heads.box_roi_pool = MultiScaleRoIAlign("0123", (4, 8, 16, 32))
    for body in (ours.backbone.body, theirs.backbone.body):  # torchvision's knows no policy
        for module in body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    calls: list[tuple[Tensor, Sample]] = []

    def recorded(labels: Tensor, *more: object) -> Sample:
        calls.append((labels, sample(labels, *more)))
        return calls[-1][1]

    monkeypatch.setattr(two_stage, "sample", recorded)
    x, targets = images(3, size).double(), three_images_one_negative()
    losses = ours(x, targets)
    sum(losses.values()).backward()
    assert [labels.shape[0] for labels, _ in calls] == [3, 3]
    assert all(bool(chosen.positive.any()) for _, chosen in calls)
    given = GivenSamples(calls[::-1] if calls[0][0].shape[1] < calls[1][0].shape[1] else calls)
    theirs.rpn.fg_bg_sampler = theirs.roi_heads.fg_bg_sampler = given
    truth = [{"boxes": b.double(), "labels": y + 1} for b, y in targets.per_image()]
    expected = theirs(list(x), truth)
    sum(expected.values()).backward()
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        torch.testing.assert_close(
            value, expected[name], rtol=1e-6, atol=1e-6, check_dtype=False, msg=name
        )
    gradients = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        torch.testing.assert_close(
            parameter.grad, gradients[name].grad, rtol=1e-6, atol=1e-6, msg=name
        )


def as_double(on):
    return lambda maps: on(maps).double()


def three_images_one_negative() -> BoxTargets:
    return BoxTargets.from_lists(
        [
            torch.tensor([[5.0, 6, 30, 40], [20, 20, 60, 62], [1, 1, 9, 12]]),
            torch.zeros(0, 4),
            torch.tensor([[30.0, 2, 62, 60]]),
        ],
        [torch.tensor([0, 1, 1]), torch.zeros(0), torch.tensor([0])],
    )


def test_a_score_belongs_to_its_source_proposal() -> None:
    model = detector().eval()
    x = images(1)
    (found,), features = model.detect_with_features(x)
    head = model.roi_heads
    pooled = head.box_roi_pool(features.pyramid, [found.proposals], [(64, 64)])
    hidden = head.box_head(pooled)
    scores = model.class_scores(hidden)
    torch.testing.assert_close(
        scores[torch.arange(len(found)), found.labels], found.scores, rtol=1e-4, atol=1e-6
    )
    boxes = head.box_coder.decode(head.box_predictor(hidden)[1], [found.proposals]).clamp(0, 64)
    torch.testing.assert_close(
        boxes[torch.arange(len(found)), found.labels + 1], found.boxes, rtol=1e-3, atol=1e-3
    )
    assert torch.equal(found.levels, pyramid_levels(found.proposals, 4))
    assert {name: tuple(f.shape[2:]) for name, f in features.stages.items()} == {
        "c2": (16, 16), "c3": (8, 8), "c4": (4, 4), "c5": (2, 2)
    }  # fmt: skip


def anchors(size: int) -> tuple[Tensor, ImageList, list[Tensor]]:
    maps = [torch.zeros(1, 1, -(-size // s), -(-size // s)) for s in (4, 8, 16, 32, 64)]
    image_list = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    return Anchors(8.0, (0.5, 1.0, 2.0))(image_list, maps)[0], image_list, maps


def test_anchors_equal_torchvisions_at_640_but_for_its_rounding() -> None:
    ours, image_list, maps = anchors(640)
    generator = AnchorGenerator(tuple((8 * s,) for s in (4, 8, 16, 32, 64)), ((0.5, 1.0, 2.0),) * 5)
    torch.testing.assert_close(ours, generator(image_list, maps)[0], rtol=0, atol=0.5)


def test_anchors_at_224_lie_on_the_true_stride_of_the_coarsest_level() -> None:
    ours, _, maps = anchors(224)
    per_level = [m.shape[2] * m.shape[3] * 3 for m in maps]
    for level, stride in zip(ours.split(per_level), (4, 8, 16, 32, 64), strict=True):
        centre = ((level[:, :2] + level[:, 2:]) / 2).round(decimals=2)
        assert centre.unique().tolist() == list(range(0, 224, stride))
        sides = level[:, 2:] - level[:, :2]
        torch.testing.assert_close(
            sides.prod(dim=1), torch.full((len(level),), float(8 * stride) ** 2)
        )
        torch.testing.assert_close((sides[:, 1] / sides[:, 0])[:3], torch.tensor([0.5, 1.0, 2.0]))


def test_arms_differ_in_nothing_but_the_backbones_initial_tensors() -> None:
    one, other = detector(backbone_seed=1), detector(backbone_seed=2)
    differ = [k for k, v in one.state_dict().items() if not torch.equal(v, other.state_dict()[k])]
    assert differ
    assert all(name.startswith("backbone.body.") for name in differ)
    assert layer_report(one) == layer_report(other)
    assert [p.requires_grad for p in one.parameters()] == [
        p.requires_grad for p in other.parameters()
    ]
    reseeded = detector(seed=3, backbone_seed=1).state_dict()
    differ = [k for k, v in one.state_dict().items() if not torch.equal(v, reseeded[k])]
    assert not any(name.startswith("backbone.body.") for name in differ)


def test_building_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    detector()
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("norm", ["frozen", "eval", "trainable", "group"])
@pytest.mark.parametrize("stages", [5, 3, 0])
def test_norm_policy_and_frozen_stages_hold_through_a_training_step(norm: str, stages: int) -> None:
    model = (
        detector(DetectorOptions(**{**vars(SMALL), "norm": norm, "trainable_stages": stages}))
        .eval()
        .train()
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
    sum(model(images(), two_images_one_negative()).values()).backward()
    optimizer.step()
    changed = {k for k, v in model.state_dict().items() if not torch.equal(v, before[k])}

    def moved(part: str) -> bool:
        return f"backbone.body.{part}" in changed

    assert moved("conv1.weight") == (stages == 5)
    assert moved("layer1.0.conv1.weight") == (stages == 5)
    assert moved("layer2.0.conv1.weight") == (stages >= 3)
    assert moved("layer4.1.bn2.weight") == (stages >= 3 and norm != "frozen")
    if norm == "group":
        assert not any("running" in name for name in model.state_dict())
    else:
        assert moved("layer4.1.bn2.running_mean") == (stages >= 3 and norm == "trainable")
        assert moved("bn1.running_mean") == (stages == 5 and norm == "trainable")
    assert any(name.startswith("backbone.fpn.") for name in changed)


@pytest.mark.parametrize("norm", ["frozen", "eval"])
def test_stored_statistics_stay_stored_on_several_ranks_too(norm: str) -> None:
    """Synchronised batch norms are of another class; with batch statistics they would be another model."""
    model = detector(DetectorOptions(**{**vars(SMALL), "norm": norm}))
    synchronise_norms(model)
    model.train()
    norms = [
        m for m in model.backbone.body.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
    ]
    assert norms and not any(m.training for m in norms)


def test_group_norm_keeps_the_loaded_affine() -> None:
    backbone = build_backbone("resnet18")
    nn.init.uniform_(backbone.bn1.weight)
    loaded = backbone.bn1.weight.detach().clone()
    model = build_detector(
        backbone, DetectorOptions(**{**vars(SMALL), "norm": "group"}), CLASSES, seed=0
    )
    assert isinstance(model.backbone.body.bn1, nn.GroupNorm)
    assert torch.equal(model.backbone.body.bn1.weight, loaded)


def test_frozen_random_layers_are_found() -> None:
    def found(norm: str, stages: int, random: bool = True) -> list[str]:
        model = detector(
            DetectorOptions(**{**vars(SMALL), "norm": norm, "trainable_stages": stages})
        )
        return frozen_random_layers(model, random)

    assert found("eval", 3, random=False) == []
    assert found("trainable", 5) == []
    assert found("group", 5) == []
    published = found("eval", 3)
    assert {"conv1", "bn1", "layer1.0.conv1"} <= set(published)
    assert "layer4.0.bn1" in published  # statistics that were never estimated
    assert "layer4.0.conv1" not in published
    assert "layer1.0.conv1" in found("group", 3)


def test_layer_report_counts_every_value() -> None:
    model = detector(DetectorOptions(**{**vars(SMALL), "trainable_stages": 3}))
    report = layer_report(model)
    assert sum(report["frozen"].values()) + sum(report["trainable"].values()) == sum(
        p.numel() for p in model.parameters()
    )
    assert "backbone.body.layer1.0.conv1" in report["frozen"]
    assert "roi_heads.box_head.fc6" in report["trainable"]


def test_bfloat16_autocast_gives_nearly_the_same_losses_in_float32() -> None:
    model = detector(DetectorOptions(**{**vars(SMALL), "norm": "group"})).train()
    x, targets = images(), two_images_one_negative()
    torch.manual_seed(0)
    full = model(x, targets)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x, targets)
    sum(low.values()).backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for p in model.parameters()
        if p.requires_grad
    )
    for name, value in low.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, full[name], rtol=0.1, atol=0.02)


def test_it_learns_where_a_bright_square_is() -> None:
    pixels = torch.zeros(4, 3, 64, 64)
    boxes = [
        torch.tensor([[8.0, 8, 40, 40]]),
        torch.tensor([[20.0, 24, 52, 56]]),
        torch.tensor([[30.0, 4, 62, 36]]),
    ]
    for image, box in zip(pixels, boxes, strict=False):
        x1, y1, x2, y2 = box[0].int().tolist()
        image[:, y1:y2, x1:x2] = 1
    targets = BoxTargets.from_lists(
        [*boxes, torch.zeros(0, 4)], [torch.tensor([1])] * 3 + [torch.zeros(0)]
    )
    model = detector(
        DetectorOptions(
            **{**vars(SMALL), "norm": "group", "fpn_channels": 64, "box_head_width": 128}
        )
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.manual_seed(0)
    for _ in range(40):
        optimizer.zero_grad()
        sum(model(pixels, targets).values()).backward()
        optimizer.step()
    found = model.eval().detect(pixels)
    for detection, (box, label) in zip(found, targets.per_image(), strict=True):
        if len(box):
            assert detection.labels[0] == label[0]
            assert box_iou(detection.boxes[:1], box) > 0.5


def test_training_and_evaluation_modes_are_not_mixed_up() -> None:
    model = detector()
    with pytest.raises(ValueError, match="training mode"):
        model.eval()(images(), two_images_one_negative())
    with pytest.raises(ValueError, match="evaluation mode"):
        model.train().detect(images())
    with pytest.raises(ValueError, match="targets of 1 images"):
        model.train()(images(1), two_images_one_negative())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 225}, "multiple of 32"),
        ({"norm": "batch"}, "frozen, eval, trainable or group"),
        ({"trainable_stages": 6}, "from 0 to 5"),
        ({"nms": 1.5}, "between 0 and 1"),
        ({"rois_per_image": 0}, "above 0"),
    ],
)
def test_impossible_options_are_refused_in_one_line(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words) as error:
        detector(DetectorOptions(**{**vars(SMALL), **change}))
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no name twice"):
        build_detector(build_backbone("resnet18"), SMALL, ("a", "a"), seed=0)
