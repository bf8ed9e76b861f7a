"""What MMDetection 3 makes of this folder: ``python mmdet_check.py FOLDER IMAGES.npz OUT.npz``.

IMAGES holds arrays ``arr_0``, ``arr_1``, ...: (h, w, 3), blue first, uint8 or floating point numbers in 0..255, as MMDetection's loader gives
them. OUT gets ``boxes`` in pixels of the images, ``labels`` and ``scores`` of all images one after the other, ``counts`` for each
image, and ``version``. It loads and asks as README.md of the folder says.
"""

# mypy: ignore-errors

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch


def load(folder: str | Path):
    """The detector in evaluation mode; every tensor is filled or it is an error."""
    from mmdet.apis import init_detector

    sys.path.insert(0, str(folder))  # where the configuration's own modules lie
    weights = str(Path(folder) / "weights.pth")
    model = init_detector(str(Path(folder) / "config.py"), weights, device="cpu")
    # init_detector only warns of names that do not fit
    kept = torch.load(weights, map_location="cpu", weights_only=True)
    model.load_state_dict(kept["state_dict"], strict=True)
    return model


def main(folder: str, images: str, out: str) -> None:
    """Load, detect and write."""
    import mmdet
    from mmdet.apis import inference_detector

    model = load(folder)
    boxes, labels, scores, counts = [], [], [], []
    kept = np.load(images)
    for i in range(len(kept.files)):
        found = inference_detector(model, kept[f"arr_{i}"]).pred_instances
        boxes.append(found.bboxes.numpy())
        labels.append(found.labels.numpy())
        scores.append(found.scores.numpy())
        counts.append(len(found.labels))
    np.savez(
        out,
        boxes=np.concatenate(boxes),
        labels=np.concatenate(labels),
        scores=np.concatenate(scores),
        counts=np.array(counts),
        version=np.array(mmdet.__version__),
        classes=np.array(model.dataset_meta["classes"]),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
