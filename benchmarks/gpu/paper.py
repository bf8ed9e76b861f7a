"""The whole chest X-ray paper on this machine, by what was measured: sums of images over rates, nothing else.

Counted as published: two pre-trainings of 86,524 images for 600 epochs (from random weights and from ImageNet's); Faster R-CNN over 50 epochs of
3,075 images with 659 validated after each and 660 tested, four arms of four seeds at 224 pixels and two arms of five at 640; classifiers
for two initial weights at a hundredth, a tenth and all of the 20,477 training images, end to end, 30 epochs, five seeds. Not counted: linear
probes, packing, and heat maps.
"""

from __future__ import annotations

import json
from typing import Any

from gpu.record import Outcome, Session

PAIRS = 86_524 // 768 * 768 * 600
TRAINED, LOOKED_AT = 50 * 3075, 50 * 659 + 659 + 660
FINE_TUNED = 2 * 5 * 30 * (205 + 2_048 + 20_477)
ARMS = {224: 4 * 4, 640: 2 * 5}
HOURS_WANTED = 24


def paper(session: Session) -> None:
    """From the results that this part has written so far."""
    session.check("hours of the chest X-ray paper", lambda: _estimate(session))


def _estimate(session: Session) -> Outcome:
    found: dict[str, dict[str, Any]] = {}
    for line in (session.out / "throughput.jsonl").read_text().splitlines():
        result = json.loads(line)
        found[result["check"]] = result.get(
            "figures", {}
        )  # a later run's result takes the place of an earlier one's
    hours: dict[str, float] = {}
    missing = []
    rate = _figure(
        found, "resnet50, 224 px, batch 768, compiled", "pairs/s, end to end"
    ) or _figure(found, "resnet50, 224 px, batch 768, not compiled", "pairs/s, end to end")
    checkpoint = _figure(found, "seconds of one checkpoint", "seconds") or 0.0
    if rate:
        hours["one pre-training"] = (PAIRS / rate + 600 * checkpoint) / 3600
        hours["two pre-trainings"] = 2 * hours["one pre-training"]
    else:
        missing.append("pre-training")
    for size, runs in ARMS.items():
        arms = found.get(f"resnet50, {size} px, batch 16, against torchvision's loop", {})
        trained = next((v for k, v in arms.items() if k.startswith("images/s, twinray")), None)
        boxes = _figure(found, f"boxes of a whole split, {size} px", "images/s, bf16")
        if trained and boxes:
            hours[f"{runs} detectors of {size} px"] = (
                runs * (TRAINED / trained + LOOKED_AT / boxes) / 3600
            )
        else:
            missing.append(f"detection at {size}")
    tuned = _figure(found, "classify --policy full, resnet50, 224 px, batch 64", "images/s")
    if tuned:
        hours["30 fine-tuned classifiers"] = FINE_TUNED / tuned / 3600
    else:
        missing.append("fine-tuned classifiers")
    total = sum(value for name, value in hours.items() if name != "one pre-training")
    figures = hours | {"in all": total}
    note = f"without {', '.join(missing)}" if missing else "without probes, packing and heat maps"
    complete = not missing and session.cuda and not session.toy
    return Outcome(
        total <= HOURS_WANTED if complete else None, figures, f"{HOURS_WANTED} hours", note
    )


def _figure(found: dict[str, dict[str, Any]], check: str, name: str) -> float | None:
    value = found.get(check, {}).get(name)
    return float(value) if value is not None else None
