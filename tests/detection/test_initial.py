"""Detectors as initial weights: torchvision's own, and runs of ours."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.detection import (
    fasterrcnn_resnet50_fpn,
    fcos_resnet50_fpn,
    retinanet_resnet50_fpn,
)

from support import DETECT as OPTIONS
from twinray.backbones.build import build_backbone
from twinray.backbones.weights import initialise
from twinray.data.pack import open_pack
from twinray.detection.config import DetectConfig
from twinray.detection.initial import initial_detector
from twinray.detection.options import resolve
from twinray.detection.run import make_detector
from twinray.errors import InputError
from twinray.inference.model import load_model

SIDE = 128
BUILDERS = {"coco": (fasterrcnn_resnet50_fpn, "faster-rcnn"), "coco-retinanet": (retinanet_resnet50_fpn, "retinanet"),
            "coco-fcos": (fcos_resnet50_fpn, "fcos")}  # fmt: skip


def random_detector(name):
    """torchvision's detector with random values, its batch norms frozen as the published ones are."""
    builder, kind = BUILDERS[name]
    limits = (
        {"box_score_thresh": 0.001}
        if kind == "faster-rcnn"
        else {"score_thresh": 0.001, "detections_per_img": 100, "nms_thresh": 0.5}  # ours
    )
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = builder(
            weights=None, weights_backbone=None, min_size=SIDE, max_size=SIDE, **limits
        ).eval()
        for module in net.backbone.body.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 2)
                module.weight.data.uniform_(0.5, 1.0)
                module.eps = 1e-5 if name == "coco-fcos" else 0.0  # what overwrite_eps does to v1
        for key, parameter in net.named_parameters():
            if "cls" in key or "bbox" in key:
                parameter.data.normal_(0, 0.01)
    return net  # fmt: skip


def published(net, path):
    """As the file is: FrozenBatchNorm2d keeps no counters."""
    torch.save({k: v for k, v in net.state_dict().items() if "num_batches" not in k}, path)
    return path


def ours(pack, init, **options):
    config = resolve(
        DetectConfig(pack, "never-written", init=init, size=SIDE, norm="eval", **options)
    )
    return make_detector(config, open_pack(pack))


@pytest.mark.parametrize("name", BUILDERS)
def test_torchvisions_state_dict_loads_exactly_and_boxes_are_its_own(name, blob_pack, tmp_path):
    net = random_detector(name)
    kind = BUILDERS[name][1]
    path = published(net, tmp_path / "w.pth")
    detector, provenance = ours(blob_pack, f"{name}={path}", detector=kind)
    theirs, found = net.state_dict(), detector.state_dict()
    new = {
        k
        for k in found
        if "num_batches" not in k and (k not in theirs or not torch.equal(found[k], theirs[k]))
    }
    of_classes = {
        k
        for k in found
        if k.startswith(("roi_heads.box_predictor.", "head.classification_head.cls_logits."))
    }
    assert new == of_classes and provenance.ancestors[0].name == name
    assert f"{name} was taken whole but for the layers of its classes" in provenance.notes[0]
    # torchvision's detector with our new layers of one class: the same network
    if kind == "faster-rcnn":
        net.roi_heads.box_predictor = detector.roi_heads.box_predictor
    else:
        head = net.head.classification_head
        head.cls_logits, head.num_classes = detector.head.classification_head.cls_logits, 1
    pixels = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE), dtype=np.uint8)
    )
    detector.eval()
    with torch.no_grad():
        expected = net(list((pixels.float() / 255).unsqueeze(1).repeat(1, 3, 1, 1)))
        boxes = detector.detect(detector.network_input(pixels))
    for mine, other in zip(boxes, expected, strict=True):
        assert len(mine.boxes) == len(other["boxes"]) > 20
        torch.testing.assert_close(mine.scores, other["scores"], rtol=0, atol=1e-4)
        # boxes of all but equal scores may change places: each of the best has its twin
        apart = torch.cdist(other["boxes"][:50], mine.boxes, p=torch.inf)
        apart += (other["scores"][:50, None] - mine.scores[None]).abs() * 10
        assert apart.min(dim=1).values.max() <= 1e-4


def test_older_spelling_of_the_pyramid_loads(blob_pack, tmp_path):
    net = random_detector("coco")
    state = {}
    for key, value in net.state_dict().items():
        old = key.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for part in ("inner_blocks", "layer_blocks"):
            for i in range(4):
                old = old.replace(f"fpn.{part}.{i}.0.", f"fpn.{part}.{i}.")
        state[old] = value
    assert set(state) != set(net.state_dict())
    torch.save(state, tmp_path / "w.pth")
    detector, _ = ours(blob_pack, f"coco={tmp_path / 'w.pth'}")
    assert torch.equal(detector.rpn.head.conv[0][0].weight, net.rpn.head.conv[0][0].weight)
    assert torch.equal(detector.backbone.fpn.inner_blocks[2][0].bias, net.backbone.fpn.inner_blocks[2][0].bias)  # fmt: skip


def test_anchors_are_torchvisions_where_the_weights_are(blob_pack, tmp_path):
    path = published(random_detector("coco"), tmp_path / "w.pth")
    for part, rounded in (("auto", True), ("backbone", False)):
        config = resolve(
            DetectConfig(blob_pack, "x", init=f"coco={path}", init_part=part, size=SIDE)
        )
        assert config.round_anchors is rounded and config.arch == "resnet50"


def test_the_backbone_alone_is_said(blob_pack, tmp_path):
    path = published(random_detector("coco"), tmp_path / "w.pth")
    detector, provenance = ours(blob_pack, f"coco={path}", init_part="backbone")
    assert "the backbone alone was taken" in provenance.notes[0]
    fresh, _ = ours(blob_pack, "random", arch="resnet50", protocol="as-published")
    assert torch.equal(detector.rpn.head.conv[0][0].weight, fresh.rpn.head.conv[0][0].weight)


def test_arms_from_a_detector_and_from_nothing_differ_in_tensors_alone(blob_pack, tmp_path):
    path = published(random_detector("coco"), tmp_path / "w.pth")
    whole, _ = make_detector(
        resolve(DetectConfig(blob_pack, "x", init=f"coco={path}", size=SIDE)), open_pack(blob_pack)
    )
    plain, _ = make_detector(resolve(DetectConfig(blob_pack, "x", arch="resnet50", size=SIDE, round_anchors=True)),
                             open_pack(blob_pack))  # fmt: skip
    assert whole.options == plain.options
    a, b = whole.state_dict(), plain.state_dict()
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
    for key in a:  # layers of the classes come from the seed in both
        if key.startswith("roi_heads.box_predictor."):
            assert torch.equal(a[key], b[key])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"detector": "retinanet"}, "coco is a faster-rcnn detector, --detector is retinanet"),
        ({"fpn_channels": 64}, "--fpn-channels 256"),
        ({"init": "coco-v2"}, "--init-part backbone"),
        ({"init": "coco-retinanet-v2", "detector": "retinanet"}, "--init-part backbone"),
        ({"init": "barlow-twins", "init_part": "detector"}, "barlow-twins is none"),
        ({"init": "random", "arch": "resnet50", "init_part": "detector"}, "random is none"),
    ],
)
def test_what_cannot_be_taken_whole_is_one_line(options, message, blob_pack, tmp_path):
    path = published(random_detector("coco"), tmp_path / "w.pth")
    init = options.pop("init", f"coco={path}")
    with pytest.raises(InputError, match=message) as caught:
        ours(blob_pack, init, **options)
    assert "\n" not in str(caught.value)


def small(**more):
    pairs = dict(zip(OPTIONS[::2], OPTIONS[1::2], strict=True))
    known = {k.removeprefix("--").replace("-", "_"): v for k, v in pairs.items()}
    return {**known, "arch": "", "anchor_scale": None, **more}


def test_a_run_goes_on_whole_where_the_classes_agree(detect_run, blob_pack):
    config = resolve(DetectConfig(blob_pack, "x", init=str(detect_run), allow_seen=True, **small()))
    assert config.anchor_scale == 4.0  # the run's own
    detector, provenance = make_detector(config, open_pack(blob_pack))
    before = load_model(detect_run, "cpu").detector.state_dict()
    assert all(torch.equal(v, before[k]) for k, v in detector.state_dict().items())
    assert "was taken whole, with the layers of its classes" in provenance.notes[0]


def test_other_classes_get_new_layers_and_a_line(detect_run, blob_pack):
    pack = open_pack(blob_pack)
    other = dataclasses.replace(
        pack, info=dataclasses.replace(pack.info, box_classes=("cyst", "blob"))
    )
    config = resolve(DetectConfig(blob_pack, "x", init=str(detect_run), **small()))
    detector, provenance = make_detector(config, other)
    before = load_model(detect_run, "cpu").detector.state_dict()
    for key, value in detector.state_dict().items():
        if not key.startswith("roi_heads.box_predictor."):
            assert torch.equal(value, before[key])
    assert "the classes differ" in provenance.notes[0] and "cyst" in provenance.notes[0]


def test_through_the_command_line(detect_run, blob_pack, tmp_path, cli):
    status, _, err = cli("detect", "--data", blob_pack, "--init", detect_run, "--out", tmp_path / "o", "--epochs", 1, "--allow-seen",
                         *OPTIONS[2:])  # fmt: skip
    assert status == 0, err
    assert "was taken whole" in err
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert any("was taken whole" in note for note in metrics["notes"])


def test_a_detectors_backbone_serves_other_verbs(tmp_path):
    net = random_detector("coco")
    backbone = build_backbone("resnet50", 0)
    found = initialise(backbone, f"coco={published(net, tmp_path / 'w.pth')}")
    assert found.notes[0] == "of the detector coco the backbone alone was taken"
    assert torch.equal(backbone.layer4[2].conv3.weight, net.backbone.body.layer4[2].conv3.weight)
    assert initial_detector("coco", "backbone", "faster-rcnn") is None
    assert torchvision.models.get_weight("FasterRCNN_ResNet50_FPN_Weights.COCO_V1").meta["categories"][1] == "person"  # fmt: skip
