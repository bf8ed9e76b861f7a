"""RetinaNet and FCOS against torchvision's own, and what all three detectors have in common."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import box_iou

from twinray.backbones.build import build_backbone
from twinray.detection.model import Detector, DetectorKind, DetectorOptions, build_detector
from twinray.detection.one_stage import OCTAVE_STEPS
from twinray.detection.pyramid import ONE_STAGE_STRIDES, Anchors
from twinray.detection.targets import BoxTargets
from twinray.errors import InputError

CLASSES = ("opacity", "nodule")
KINDS: tuple[DetectorKind, ...] = ("faster-rcnn", "retinanet", "fcos")
SCALE = {"faster-rcnn": 4.0, "retinanet": 4.0, "fcos": 1.0}


def detector(kind: DetectorKind, **more: object) -> Detector:
    options = DetectorOptions(
        detector=kind,
        size=64,
        fpn_channels=64,
        box_head_width=64,
        anchor_scale=SCALE[kind],
        proposals_before_nms=(200, 100),
        proposals=(100, 50),
        rois_per_image=32,
    )
    options = dataclasses.replace(options, **more)  # type: ignore[arg-type]
    return build_detector(build_backbone("resnet18"), options, CLASSES, seed=0)


def images(n: int = 2, size: int = 64) -> Tensor:
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def two_images_one_negative() -> BoxTargets:
    return BoxTargets.from_lists(
        [torch.tensor([[5.0, 6, 30, 40], [20, 20, 60, 62]]), torch.zeros(0, 4)],
        [torch.tensor([0, 1]), torch.zeros(0)],
    )


class Maps(nn.Module):
    """Our pyramid as torchvision's detectors take a backbone."""

    def __init__(self, pyramid: nn.Module, channels: int) -> None:
        super().__init__()
        self.pyramid, self.out_channels = pyramid, channels

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return self.pyramid(x).pyramid


def torchvisions(ours: Detector) -> RetinaNet | FCOS:
    """torchvision's detector around our weights and anchors, without resizing."""
    o = ours.options
    common = {
        "min_size": o.size,
        "max_size": o.size,
        "image_mean": [0.0] * 3,
        "image_std": [1.0] * 3,
        "score_thresh": o.score_threshold,
        "nms_thresh": o.nms,
        "detections_per_img": o.detections_per_image,
        "topk_candidates": o.proposals_before_nms[1],
    }
    maps = Maps(ours.backbone, o.fpn_channels)
    theirs: RetinaNet | FCOS
    if o.detector == "retinanet":
        shapes = AnchorGenerator(((8, 10, 12),) * 5, ((0.5, 1.0, 2.0),) * 5)
        theirs = RetinaNet(maps, len(CLASSES), anchor_generator=shapes, **common)
    else:
        theirs = FCOS(maps, len(CLASSES), **common)
    theirs.transform._skip_resize = True  # it would draw a size
    theirs.head.load_state_dict(ours.head.state_dict(), strict=True)
    assert ours.one_stage is not None
    theirs.anchor_generator = ours.one_stage.anchors
    return theirs


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_losses_gradients_and_boxes_equal_torchvisions(kind: DetectorKind) -> None:
    ours = detector(kind, norm="group").train()
    theirs = torchvisions(ours).train()
    x, targets = images(), two_images_one_negative()
    losses = ours(x, targets)
    expected = theirs(list(x), [{"boxes": b, "labels": y} for b, y in targets.per_image()])
    assert losses.keys() == {f"loss_{name}" for name in expected}
    for name, value in expected.items():
        torch.testing.assert_close(losses[f"loss_{name}"], value, rtol=1e-6, atol=1e-6)
    # both share our backbone and pyramid; the heads are two
    shared = [p for p in ours.backbone.parameters() if p.requires_grad]
    of_ours, of_theirs = (
        torch.autograd.grad(
            sum(found.values()), [*shared, *head.parameters()], materialize_grads=True
        )
        for found, head in ((losses, ours.head), (expected, theirs.head))
    )
    for a, b in zip(of_ours, of_theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * float(b.abs().max().clamp(min=1)))
    found, known = ours.eval().detect(x), theirs.eval()(list(x))
    for a, b in zip(found, known, strict=True):
        assert len(a) == len(b["boxes"]) > 10
        torch.testing.assert_close(a.scores, b["scores"], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(a.boxes, b["boxes"], rtol=1e-4, atol=1e-3)
        assert torch.equal(a.labels, b["labels"])
        assert set(a.labels.tolist()) <= {0, 1}


def test_a_one_stage_box_keeps_its_anchor_and_level() -> None:
    model = detector("retinanet").eval()
    (found,), features = model.detect_with_features(images(1))
    assert model.one_stage is not None
    maps = list(features.pyramid.values())
    assert [tuple(m.shape[2:]) for m in maps] == [(8, 8), (4, 4), (2, 2), (1, 1), (1, 1)]
    anchors = model.one_stage.anchors(ImageList(images(1), [(64, 64)]), maps)[0]
    counts = [m.shape[2] * m.shape[3] * 9 for m in maps]
    for level, here in enumerate(anchors.split(counts)):
        mine = found.proposals[found.levels == level]
        assert all((here == one).all(dim=1).any() for one in mine)
    assert len(found.levels.unique()) > 1


@pytest.mark.parametrize("size", [224, 640])
def test_one_stage_anchors_lie_on_the_true_strides(size: int) -> None:
    sides = []
    side = math.ceil(size / 4)
    for _ in ONE_STAGE_STRIDES:
        side = math.ceil(side / 2)
        sides.append(side)
    maps = [torch.zeros(1, 1, n, n) for n in sides]
    image_list = ImageList(torch.zeros(1, 3, size, size), [(size, size)])
    retina = Anchors(4.0, (0.5, 1.0, 2.0), ONE_STAGE_STRIDES, OCTAVE_STEPS)(image_list, maps)[0]
    points = Anchors(1.0, (1.0,), ONE_STAGE_STRIDES)(image_list, maps)[0]
    for stride, n, many, one in zip(
        ONE_STAGE_STRIDES,
        sides,
        retina.split([9 * n * n for n in sides]),
        points.split([n * n for n in sides]),
        strict=True,
    ):
        grid = [float(i * stride) for i in range(n)]
        assert ((many[:, :2] + many[:, 2:]) / 2).round(decimals=2).unique().tolist() == grid
        assert ((one[:, :2] + one[:, 2:]) / 2).unique().tolist() == grid
        assert (one[:, 2:] - one[:, :2]).unique().tolist() == [stride]
        areas = (many[:, 2:] - many[:, :2]).prod(dim=1).sqrt()
        wanted = [4 * stride * 2 ** (i / 3) for i in range(3)]
        torch.testing.assert_close(
            areas[:9].sort().values, torch.tensor(wanted).repeat_interleave(3)
        )


def test_anchors_are_made_once_for_a_size() -> None:
    made = Anchors(8.0, (1.0,), (4,))
    image_list = ImageList(torch.zeros(2, 3, 32, 32), [(32, 32)] * 2)
    first = made(image_list, [torch.zeros(2, 1, 8, 8)])
    assert made(image_list, [torch.zeros(2, 1, 8, 8)])[1] is first[0]
    assert len(made(image_list, [torch.zeros(2, 1, 4, 4)])[0]) == 16
    assert "_made" not in made.state_dict()


def test_heads_carry_torchvisions_names() -> None:
    retina, fcos = detector("retinanet").state_dict(), detector("fcos").state_dict()
    assert {
        "backbone.fpn.extra_blocks.p6.weight",
        "head.regression_head.bbox_reg.weight",
    } <= retina.keys()
    assert "head.regression_head.bbox_ctrness.weight" in fcos
    for state in (retina, fcos):
        assert all(name.startswith(("backbone.body.", "backbone.fpn.", "head.")) for name in state)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bf16", [False, True])
def test_a_batch_without_any_box_gives_finite_losses_and_gradients(
    kind: DetectorKind, bf16: bool
) -> None:
    model = detector(kind, norm="group").train()
    none = BoxTargets.from_lists([torch.zeros(0, 4)] * 2, [torch.zeros(0)] * 2)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        losses = model(images(), none)
    assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in losses.values())
    sum(losses.values()).backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is None or bool(g.isfinite().all()) for g in gradients)
    assert any(g is not None and bool((g != 0).any()) for g in gradients)


@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_a_one_stage_detector_learns_where_a_bright_square_is(kind: DetectorKind) -> None:
    pixels = torch.zeros(3, 3, 64, 64)
    boxes = [torch.tensor([[8.0, 8, 40, 40]]), torch.tensor([[20.0, 24, 52, 56]])]
    for image, box in zip(pixels, boxes, strict=False):
        x1, y1, x2, y2 = box[0].int().tolist()
        image[:, y1:y2, x1:x2] = 1
    targets = BoxTargets.from_lists(
        [*boxes, torch.zeros(0, 4)], [torch.tensor([1])] * 2 + [torch.zeros(0)]
    )
    model = detector(kind, norm="group").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    totals = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = sum(model(pixels, targets).values())
        loss.backward()
        optimizer.step()
        totals.append(float(loss.detach()))
    assert totals[-1] < 0.75 * totals[0]
    found = model.eval().detect(pixels)
    for detection, box in zip(found, boxes, strict=False):
        assert detection.labels[0] == 1
        assert box_iou(detection.boxes[:1], box) > 0.5
    assert found[0].scores[0] > found[2].scores[0]  # the image without a box


@pytest.mark.parametrize("channels", [32, 80])
def test_fcos_refuses_channels_that_its_norms_do_not_suit(channels: int) -> None:
    with pytest.raises(InputError, match="32 divides"):
        detector("fcos", fpn_channels=channels)
