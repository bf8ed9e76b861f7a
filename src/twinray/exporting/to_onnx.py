"""``--to onnx``: graphs of fixed shape, and a short NumPy module for anchors, box coder and suppression.

A detector is a dense graph and, of Faster R-CNN, a pooled head (RoIAlign on one level, box head). Whole two-stage detectors do
not survive today's exporter: their loops over images, classes and levels are traced away.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from twinray.about import version_of
from twinray.detection.model import Detector
from twinray.detection.pyramid import POOLED_LEVELS
from twinray.detection.two_stage import POOLED_SIDE
from twinray.errors import InputError, TwinrayError
from twinray.exporting.exact import exact_boxes, exact_numbers
from twinray.exporting.files import SQUARE, Exported, run_file, write_loader
from twinray.exporting.parity import Parity, of_boxes, of_numbers
from twinray.exporting.subject import Subject, boxes_of, limits_of, outputs
from twinray.exporting.to_torchvision import describe
from twinray.files import write_bytes, write_json
from twinray.records import Boxes

LOADER = "onnx_model.py"
LIMIT = 1e-4
_OPSET = 18


class _Dense(nn.Module):
    """Images (1, 3, s, s) to pooled maps and the outputs at every place, in a fixed order."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        maps, found = self.detector.dense(images)
        pooled = [] if self.detector.one_stage else [maps[name] for name in POOLED_LEVELS]
        return (*pooled, *found.values())


class _Head(nn.Module):
    """Pooled maps (n, c, 7, 7) to class logits and box codes."""

    def __init__(self, heads: Any) -> None:
        super().__init__()
        self.first, self.second = heads.box_head.fc6, heads.box_head.fc7
        self.scores, self.codes = heads.box_predictor.cls_score, heads.box_predictor.bbox_pred

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.second(self.first(pooled.flatten(1)).relu()).relu()
        return self.scores(hidden), self.codes(hidden)


class _Whole(nn.Module):
    """Images (1, 3, s, s) to logits or features."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.network = subject.network
        self.classifier = subject.kind == "classifier"

    def forward(self, images: Tensor) -> Tensor:
        network: Any = self.network
        found: Tensor = network.logits(images) if self.classifier else network(images)
        return found


def check_installed() -> None:
    """Refuse the target where its packages are missing, before any work.

    Raises:
        InputError: naming the extra.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise InputError(f"--to onnx needs {package}: pip install 'twinray[onnx]'") from error


@torch.no_grad()
def write(subject: Subject, out: Path) -> Exported:
    """Write the graphs, ``model.json`` and the loader.

    Raises:
        InputError: the extra is not installed.
        TwinrayError: the exporter cannot take the network.
    """
    check_installed()
    described = describe(subject)  # channels stay in the order in which the network takes them
    example = torch.zeros(1, 3, subject.size, subject.size)
    network = subject.network
    if isinstance(network, Detector):
        maps, found = network.dense(example)
        pooled = [] if network.one_stage else list(POOLED_LEVELS)
        described["grids"] = [list(one.shape[-2:]) for one in maps.values()]
        names = {
            "dense.onnx": _graph(_Dense(network), example, ("images",), (*pooled, *found), subject)
        }
        if network.one_stage is None:
            names["head.onnx"] = _head_graph(network, subject)
    else:
        output = "logits" if subject.kind == "classifier" else "features"
        names = {"model.onnx": _graph(_Whole(subject), example, ("images",), (output,), subject)}
    for name, data in names.items():
        write_bytes(out / name, data, "graph")
    write_json(out / "model.json", described, "description of the weights")
    loader = write_loader(LOADER, out)
    write_loader(SQUARE, out)
    usage = (
        "```python\nimport numpy as np\nfrom PIL import Image\n\n"
        f"from {Path(LOADER).stem} import Model  # beside the graphs, with {SQUARE}; needs numpy, pillow and onnxruntime\n\n"
        "model = Model('.')\nfound = model(np.asarray(Image.open('image.png').convert('RGB')))\n```"
    )

    def check(pixels: Tensor) -> Parity:
        return _check(subject, run_file(loader).Model(out), pixels)

    return Exported((*names, "model.json", LOADER, SQUARE), usage, check)


def _graph(
    module: nn.Module,
    example: Tensor,
    inputs: Sequence[str],
    outputs: Sequence[str],
    subject: Subject,
    *,
    rows: bool = False,
) -> bytes:
    """The graph of a module as bytes; ``rows``: any number of rows in its input."""
    if "images" in inputs and subject.normalisation.order == "BGR":
        module = _BlueFirst(module)
    shapes = ({0: torch.export.Dim("n", min=1, max=100_000)},) if rows else None
    loud = logging.getLogger("torch.onnx")
    level = loud.level
    loud.setLevel(logging.ERROR)
    kept = io.BytesIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            made: Any = torch.onnx.export(
                copy.deepcopy(module).eval(),
                (example,),
                dynamo=True,
                opset_version=_OPSET,
                input_names=list(inputs),
                output_names=list(outputs),
                dynamic_shapes=shapes,
                verbose=False,
            )
        importlib.import_module("onnx").save_model(made.model_proto, kept)
    except Exception as error:  # the exporter raises whatever its passes raise
        said = " ".join(str(error).split())[:200]
        raise TwinrayError(
            f"PyTorch {torch.__version__} could not export {subject.arch} as an ONNX graph ({said}); use --to torchvision"
        ) from error
    finally:
        loud.setLevel(level)
    return kept.getvalue()


class _BlueFirst(nn.Module):
    """A network that takes blue first, fed red first."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor) -> Any:
        return self.inner(images.flip(1))


def _head_graph(detector: Detector, subject: Subject) -> bytes:
    """RoIAlign on one map and the box head: ``map``, ``rois`` (n, 4) in its pixels, ``image`` -> ``logits``, ``codes``."""
    onnx: Any = importlib.import_module("onnx")
    channels = detector.options.fpn_channels
    example = torch.zeros(3, channels, POOLED_SIDE, POOLED_SIDE)
    data = _graph(
        _Head(detector.roi_heads), example, ("pooled",), ("logits", "codes"), subject, rows=True
    )
    head = onnx.load_from_string(data)
    helper, kind = onnx.helper, onnx.TensorProto
    pool = helper.make_node(
        "RoiAlign",
        ["map", "rois", "image"],
        ["pooled"],
        mode="avg",
        output_height=POOLED_SIDE,
        output_width=POOLED_SIDE,
        sampling_ratio=2,
        spatial_scale=1.0,
        # ONNX's name for torchvision's aligned=False: corners stay where they are
        coordinate_transformation_mode="output_half_pixel",
    )
    graph = head.graph
    graph.node.insert(0, pool)
    del graph.input[:]
    graph.input.extend(
        [
            helper.make_tensor_value_info("map", kind.FLOAT, [1, channels, "h", "w"]),
            helper.make_tensor_value_info("rois", kind.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("image", kind.INT64, ["n"]),
        ]
    )
    del graph.value_info[:]
    onnx.checker.check_model(head)
    found: bytes = head.SerializeToString()
    return found


@torch.no_grad()
def _check(subject: Subject, model: Any, pixels: Tensor) -> Parity:
    loader = f"onnxruntime {version_of('onnxruntime')}"
    seen = [subject.network_input(one[None]) for one in pixels]
    red_first = [model.normalised(one.numpy()) for one in pixels]
    if not isinstance(subject.network, Detector):
        own = np.concatenate([outputs(subject, one).double().numpy() for one in seen])
        other = np.concatenate([model.dense.run(None, {"images": one})[0] for one in red_first])
        what = "logits" if subject.kind == "classifier" else "features"
        return of_numbers(
            own,
            other.astype(np.float64),
            loader=loader,
            what=what,
            limit=LIMIT,
            exact=lambda: exact_numbers(subject, pixels),
        )
    ours = [boxes_of(subject.network.detect(one)[0]) for one in seen]
    theirs = []
    for one in red_first:
        boxes, labels, scores = model.detect(one)
        theirs.append(
            Boxes(boxes.astype(np.float64), labels.astype(np.int64), scores.astype(np.float64))
        )
    return of_boxes(
        ours,
        theirs,
        limits=limits_of(subject.network),
        loader=loader,
        limit=LIMIT,
        exact=lambda: exact_boxes(subject, pixels),
    )
