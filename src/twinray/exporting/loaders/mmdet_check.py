"""What MMDetection 3 makes of this folder: ``python mmdet_check.py FOLDER IMAGES.npy OUT.npz``.

IMAGES holds (n, 3, s, s) float32: blue, green and red in 0..255, as MMDetection's loader gives them. OUT gets ``boxes``, ``labels``
and ``scores`` of all images one after the other, ``counts`` for each image, and ``version``.
"""

# mypy: ignore-errors

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch


def load(folder: str | Path):
    """The detector in evaluation mode; every tensor is filled or it is an error."""
    from mmdet.registry import MODELS
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.registry import DefaultScope

    register_all_modules(init_default_scope=False)
    DefaultScope.get_instance("twinray", scope_name="mmdet")
    sys.path.insert(0, str(folder))  # where the configuration's own module lies
    config = Config.fromfile(str(Path(folder) / "config.py"))
    model = MODELS.build(config.model)
    kept = torch.load(Path(folder) / "weights.pth", map_location="cpu", weights_only=True)
    model.load_state_dict(kept["state_dict"], strict=True)
    return model.eval()


@torch.no_grad()
def main(folder: str, images: str, out: str) -> None:
    """Load, detect and write."""
    import mmdet
    from mmdet.structures import DetDataSample

    model = load(folder)
    boxes, labels, scores, counts = [], [], [], []
    for image in np.load(images):
        sample = DetDataSample()
        side = image.shape[1:]
        sample.set_metainfo(
            {"img_shape": side, "ori_shape": side, "scale_factor": (1.0, 1.0), "img_id": 0}
        )
        data = {"inputs": [torch.from_numpy(image)], "data_samples": [sample]}
        seen = model.data_preprocessor(data, False)
        found = model.predict(seen["inputs"], seen["data_samples"], rescale=False)[0].pred_instances
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
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
