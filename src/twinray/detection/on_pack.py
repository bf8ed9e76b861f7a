"""Run a detector over images of a pack."""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch

from twinray.data.pack import Pack
from twinray.detection.model import Detector
from twinray.progress import progress
from twinray.records import Boxes, IntArray
from twinray.training.device import Machine
from twinray.training.loader import PixelSource, prefetch


@torch.no_grad()
def detect_rows(
    detector: Detector,
    pack: Pack,
    rows: IntArray,
    *,
    machine: Machine,
    batch_size: int,
    label: str = "detecting",
    shown: bool = True,
) -> dict[str | int, Boxes]:
    """Image id -> predicted boxes with scores, in original pixels, for the given rows of a pack."""
    detector.eval()
    size = detector.options.size
    source = PixelSource([pack.pixels], np.stack([np.zeros_like(rows), rows], axis=1))
    batches = [
        np.arange(start, min(start + batch_size, len(rows)))
        for start in range(0, len(rows), batch_size)
    ]
    found: dict[str | int, Boxes] = {}
    with progress(label, len(rows)) if shown else nullcontext() as meter:
        for batch, pixels in zip(batches, prefetch(source.gather, batches), strict=True):
            images = detector.network_input(pixels.to(machine.device))
            with machine.autocast():
                detections = detector.detect_batch(images).on_cpu().per_image()
            for i, detection in zip(batch, detections, strict=True):
                row = int(rows[i])
                place = pack.place(row)
                xyxy = place.clip(place.to_original(detection.boxes.double().numpy(), size))
                found[pack.ids[row]] = Boxes(
                    xyxy, detection.labels.numpy(), detection.scores.double().numpy()
                )
            if meter is not None:
                meter.advance(len(batch))
    return found
