"""``--to mmdet``: MMDetection 3's names and conventions: background last, blue first, its box coder, and a configuration.

MMDetection rarely installs beside others. The check runs in a Python of the user's choice (``--foreign-python``).
"""

from __future__ import annotations

import io
import os
import pprint
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from twinray.detection.model import Detector
from twinray.errors import InputError, TwinrayError
from twinray.exporting.exact import exact_boxes
from twinray.exporting.files import SQUARE, Exported, write_loader
from twinray.exporting.parity import Parity, of_boxes
from twinray.exporting.subject import Subject, boxes_of, limits_of, rgb_state
from twinray.files import write_bytes, write_text
from twinray.records import Boxes

CHECK, TYPES = "mmdet_check.py", "twinray_mmdet.py"
LIMIT = 1e-4
_DEPTHS = {"resnet18": 18, "resnet34": 34, "resnet50": 50, "resnet101": 101, "resnet152": 152}
_TYPES = {
    "faster-rcnn": "TwinrayFasterRCNN",
    "retinanet": "TwinrayRetinaNet",
    "fcos": "TwinrayFCOS",
}


def write(subject: Subject, out: Path, python: Path | None = None) -> Exported:
    """Write ``weights.pth``, ``config.py`` and the script of the check.

    Args:
        subject: a detector on a torchvision ResNet.
        out: folder.
        python: interpreter that has MMDetection; None for this one.

    Raises:
        InputError: MMDetection has no such network.
        TwinrayError: the place cannot be written.
    """
    network = subject.network
    if not isinstance(network, Detector):
        raise InputError(
            f"--to mmdet takes detectors, {subject.run} is a {subject.kind}; use --to torchvision or timm"
        )
    if subject.arch not in _DEPTHS:
        raise InputError(
            f"MMDetection has no {subject.arch} with these names of tensors; --to mmdet takes {', '.join(_DEPTHS)}: use --to "
            "torchvision or onnx"
        )
    if network.options.round_anchors:
        raise InputError(
            "this detector's anchors are whole pixels, MMDetection's are not; use --to torchvision"
        )
    kept = io.BytesIO()
    meta = {"dataset_meta": {"classes": list(subject.classes)}}
    torch.save({"state_dict": _state(subject, network), "meta": meta}, kept)
    write_bytes(out / "weights.pth", kept.getbuffer(), "weights")
    write_text(out / "config.py", _config_text(subject, network), "configuration")
    script = write_loader(CHECK, out)
    write_loader(TYPES, out)
    write_loader(SQUARE, out)
    names = ("weights.pth", "config.py", CHECK, TYPES, SQUARE)
    usage = (
        "```python\nimport sys\n\nfrom mmdet.apis import init_detector, inference_detector\n\n"
        f"sys.path.insert(0, '.')  # where {TYPES} and {SQUARE} lie, which the configuration needs\n"
        "model = init_detector('config.py', 'weights.pth', device='cpu')\nfound = inference_detector(model, 'image.png')\n```"
    )
    notes = (
        f"{TYPES} holds what torchvision, under whose rules the weights learned, does otherwise than MMDetection; each type in it says "
        "where boxes differ under MMDetection's own",
        f"boxes come in the image's own pixels; `TwinraySquare` of {TYPES} brings images to the square as the run's pack did. The "
        "pipeline reads PNG and JPEG files of 8 bits by OpenCV; of DICOM give it display-ready arrays, blue first",
    )

    def check(pixels: Tensor) -> Parity:
        return _check(subject, network, script, python, pixels)

    return Exported(names, usage, check, notes)


def _state(subject: Subject, network: Detector) -> dict[str, Tensor]:
    """The tensors by MMDetection's names."""
    state = rgb_state(network, subject.normalisation.order)
    group = network.options.norm == "group"
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.startswith("backbone.body."):
            own = name.removeprefix("backbone.body.")
            if group:  # MMDetection calls norms by their kind
                own = own.replace("bn", "gn")
            found[f"backbone.{own}"] = value
    for level in range(4 if network.one_stage is None else 3):
        for theirs, ours in (("lateral_convs", "inner_blocks"), ("fpn_convs", "layer_blocks")):
            for kind in ("weight", "bias"):
                key = f"backbone.fpn.{ours}.{level}.0.{kind}"
                found[f"neck.{theirs}.{level}.conv.{kind}"] = state[key]
    return found | (_two_stage(state) if network.one_stage is None else _one_stage(state, network))


def _two_stage(state: dict[str, Tensor]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        found[f"rpn_head.rpn_conv.{kind}"] = state[f"rpn.head.conv.0.0.{kind}"]
        found[f"rpn_head.rpn_cls.{kind}"] = state[f"rpn.head.cls_logits.{kind}"]
        found[f"rpn_head.rpn_reg.{kind}"] = state[f"rpn.head.bbox_pred.{kind}"]
        for i, layer in enumerate(("fc6", "fc7")):
            found[f"roi_head.bbox_head.shared_fcs.{i}.{kind}"] = state[
                f"roi_heads.box_head.{layer}.{kind}"
            ]
        scores = state[f"roi_heads.box_predictor.cls_score.{kind}"]
        # torchvision has the background first, MMDetection last, and regresses no box for it
        found[f"roi_head.bbox_head.fc_cls.{kind}"] = torch.cat([scores[1:], scores[:1]])
        boxes = state[f"roi_heads.box_predictor.bbox_pred.{kind}"]
        found[f"roi_head.bbox_head.fc_reg.{kind}"] = boxes[4:].clone()
    return found


def _one_stage(state: dict[str, Tensor], network: Detector) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    fcos = network.options.detector == "fcos"
    for kind in ("weight", "bias"):
        for i, level in enumerate(("p6", "p7"), start=3):
            found[f"neck.fpn_convs.{i}.conv.{kind}"] = state[
                f"backbone.fpn.extra_blocks.{level}.{kind}"
            ]
        for theirs, ours in (("cls", "classification"), ("reg", "regression")):
            for i in range(4):
                key = f"bbox_head.{theirs}_convs.{i}"
                before = f"head.{ours}_head.conv"
                if fcos:  # torchvision's list of convolution, norm and activation
                    found[f"{key}.conv.{kind}"] = state[f"{before}.{3 * i}.{kind}"]
                    found[f"{key}.gn.{kind}"] = state[f"{before}.{3 * i + 1}.{kind}"]
                else:
                    found[f"{key}.conv.{kind}"] = state[f"{before}.{i}.0.{kind}"]
        names = (
            {"conv_cls": "classification_head.cls_logits", "conv_reg": "regression_head.bbox_reg",
             "conv_centerness": "regression_head.bbox_ctrness"}
            if fcos
            else {"retina_cls": "classification_head.cls_logits", "retina_reg": "regression_head.bbox_reg"}
        )  # fmt: skip
        for theirs, ours in names.items():
            found[f"bbox_head.{theirs}.{kind}"] = state[f"head.{ours}.{kind}"]
    if fcos:  # distances count in cells: MMDetection in strides, times a learnt scale
        for i in range(5):
            found[f"bbox_head.scales.{i}.scale"] = torch.tensor(network.options.anchor_scale)
    return found


def _config_text(subject: Subject, network: Detector) -> str:
    names = tuple(subject.classes)
    own = subject.pack
    pack = {"size": own.size, "fit": own.fit, "channels": own.channels}
    square = {
        "type": "TwinraySquare",
        "size": subject.size,
        "pack": pack,
        "resize": network.options.resize,
    }
    lines = [
        f"# {subject.kind} on {subject.arch}; weights.pth beside this file belongs to it",
        "default_scope = 'mmdet'",
        f"custom_imports = dict(imports=['{Path(TYPES).stem}'], allow_failed_imports=False)",
        f"model = {pprint.pformat(_model(subject, network), sort_dicts=False, width=100)}",
        "test_pipeline = [",
        "    dict(type='LoadImageFromFile'),",
        f"    dict({', '.join(f'{name}={value!r}' for name, value in square.items())}),",
        "    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'place')),",
        "]",
        f"metainfo = dict(classes={names!r})",
        "# MMDetection asks the data set for its palette: nothing is read unless ann_file names annotations",
        "test_dataloader = dict(",
        "    batch_size=1,",
        "    num_workers=0,",
        "    sampler=dict(type='DefaultSampler', shuffle=False),",
        "    dataset=dict(type='CocoDataset', ann_file='', metainfo=metainfo, pipeline=test_pipeline, test_mode=True),",
        ")",
    ]
    return "\n".join(lines) + "\n"


def _model(subject: Subject, network: Detector) -> dict[str, Any]:
    options, by, k = network.options, subject.normalisation, len(subject.classes)
    norm: dict[str, Any] = (
        {"type": "GN", "num_groups": 32} if options.norm == "group" else {"type": "BN"}
    )
    if options.norm_eps is not None and options.norm != "group":
        norm["eps"] = options.norm_eps
    one_stage = network.one_stage is not None
    neck: dict[str, Any] = {
        "type": "FPN",
        "in_channels": list(subject.backbone.stage_channels),
        "out_channels": options.fpn_channels,
        "num_outs": 5,
    }
    if one_stage:
        neck |= {
            "start_level": 1,
            "add_extra_convs": "on_output",
            "relu_before_extra_convs": True,
        }
    model: dict[str, Any] = {
        "type": _TYPES[options.detector],
        "train_cfg": None,
        "data_preprocessor": {
            "type": "DetDataPreprocessor",
            "mean": [255 * value for value in by.mean],
            "std": [255 * value for value in by.std],
            "bgr_to_rgb": True,
        },
        "backbone": {
            "type": "ResNet",
            "depth": _DEPTHS[subject.arch],
            "num_stages": 4,
            "out_indices": (0, 1, 2, 3),
            "norm_cfg": norm,
            "norm_eval": True,
            "style": "pytorch",
        },
        "neck": neck,
    }
    limits = {
        "nms": {"type": "nms", "iou_threshold": options.nms},
        "score_thr": options.score_threshold,
        "max_per_img": options.detections_per_image,
    }
    candidates = options.proposals_before_nms[1]
    ratios = list(options.anchor_ratios)
    if one_stage:
        test = {"nms_pre": candidates, "min_bbox_size": -1, **limits}
        return model | {"bbox_head": _dense_head(network, k, ratios), "test_cfg": test}
    proposals = {
        "nms_pre": candidates,
        "max_per_img": options.proposals[1],
        "nms": {"type": "nms", "iou_threshold": 0.7},
        "min_bbox_size": 1e-3,
    }
    return model | {
        "rpn_head": {
            "type": "TwinrayRPNHead",
            "in_channels": options.fpn_channels,
            "feat_channels": options.fpn_channels,
            "anchor_generator": {
                "type": "AnchorGenerator",
                "scales": [options.anchor_scale],
                "ratios": ratios,
                "strides": [4, 8, 16, 32, 64],
            },
            "bbox_coder": _coder(1.0, 1.0),
        },
        "roi_head": {
            "type": "StandardRoIHead",
            "bbox_roi_extractor": {
                "type": "SingleRoIExtractor",
                # as torchvision pools: two samples a bin, corners where they are
                "roi_layer": {
                    "type": "RoIAlign",
                    "output_size": 7,
                    "sampling_ratio": 2,
                    "aligned": False,
                },
                "out_channels": options.fpn_channels,
                "featmap_strides": [4, 8, 16, 32],
            },
            "bbox_head": {
                "type": "TwinrayBBoxHead",
                "in_channels": options.fpn_channels,
                "fc_out_channels": options.box_head_width,
                "roi_feat_size": 7,
                "num_classes": k,
                "bbox_coder": _coder(0.1, 0.2),
                "reg_class_agnostic": False,
            },
        },
        "test_cfg": {"rpn": proposals, "rcnn": limits},
    }


def _coder(shift: float, growth: float) -> dict[str, Any]:
    return {
        "type": "TwinrayBoxCoder",
        "target_means": [0.0] * 4,
        "target_stds": [shift, shift, growth, growth],
    }


def _dense_head(network: Detector, k: int, ratios: list[float]) -> dict[str, Any]:
    options = network.options
    shared = {
        "num_classes": k,
        "in_channels": options.fpn_channels,
        "feat_channels": options.fpn_channels,
        "stacked_convs": 4,
    }
    if options.detector == "fcos":
        return {
            "type": "TwinrayFCOSHead",
            **shared,
            "strides": [8, 16, 32, 64, 128],
            "norm_cfg": {"type": "GN", "num_groups": 32},
            "conv_bias": True,
            "norm_on_bbox": True,
            "centerness_on_reg": True,
        }
    return {
        "type": "RetinaHead",
        **shared,
        "anchor_generator": {
            "type": "AnchorGenerator",
            "octave_base_scale": options.anchor_scale,
            "scales_per_octave": 3,
            "ratios": ratios,
            "strides": [8, 16, 32, 64, 128],
        },
        "bbox_coder": _coder(1.0, 1.0),
    }


@torch.no_grad()
def _check(
    subject: Subject, network: Detector, script: Path, python: Path | None, pixels: Tensor
) -> Parity:
    """Run the shipped script in the other Python and compare its boxes."""
    with tempfile.TemporaryDirectory() as folder:
        images, out = Path(folder) / "images.npz", Path(folder) / "found.npz"
        np.savez(images, *map(_blue_first, pixels))
        command = [str(python or sys.executable), str(script), str(script.parent), str(images), str(out)]  # fmt: skip
        try:
            clean = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=clean)
        except OSError as error:
            raise InputError(
                f"could not start {command[0]}: {error.strerror}; give the Python of an environment with MMDetection as "
                "--foreign-python"
            ) from error
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1][:300]
            if "No module named 'mm" in last:
                raise InputError(
                    f"the check needs MMDetection ({last}): make an environment with onedl-mmdetection, onedl-mmengine and "
                    "onedl-mmcv (built with its operators), and give its Python as --foreign-python"
                )
            raise TwinrayError(f"MMDetection could not take the weights: {last}")
        found = np.load(out)
        ends = np.cumsum(found["counts"])[:-1]
        to_input = subject.size / pixels.shape[1]  # from the square's pixels to the network's
        parts = (np.split(found[name], ends) for name in ("boxes", "labels", "scores"))
        theirs = [
            Boxes(
                box.astype(np.float64) * to_input, label.astype(np.int64), score.astype(np.float64)
            )
            for box, label, score in zip(*parts, strict=True)
        ]
        version = str(found["version"])
        named = tuple(str(one) for one in found["classes"])
    if named != subject.classes:
        raise TwinrayError(f"MMDetection names the classes {named}, the run {subject.classes}")
    ours = [boxes_of(network.detect(subject.network_input(one[None]))[0]) for one in pixels]
    return of_boxes(
        ours,
        theirs,
        limits=limits_of(network),
        loader=f"MMDetection {version}",
        limit=LIMIT,
        exact=lambda: exact_boxes(subject, pixels),
    )


def _blue_first(square: Tensor) -> npt.NDArray[Any]:
    """A pack's square (p, p[, 3]) as MMDetection's loader gives images; levels in 0..255."""
    pixels: npt.NDArray[Any] = square.numpy()
    colour = pixels[..., ::-1] if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=-1)
    return np.ascontiguousarray(colour if pixels.dtype == np.uint8 else colour * np.float32(255))
