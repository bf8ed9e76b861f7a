"""Rows of the store as the API gives them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twinray.serving.app import forms
from twinray.serving.app.service import Service
from twinray.serving.store.models import Analysis, Image, Mark, Prediction
from twinray.serving.store.readings import Whole


def at(seconds: float) -> str:
    """A time as ISO 8601, UTC."""
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds * 1000) % 1000:03d}Z"


def _row(image: Image) -> dict[str, Any]:
    return {
        "id": image.id,
        "name": image.name,
        "state": image.state,
        "reason": image.reason,
        "created": at(image.created),
        "width": image.width,
        "height": image.height,
        "score": image.score,
        "teach": image.teach,
        "read": None if image.read is None else at(image.read),
        "patient": image.patient,
        "acquired": image.acquired,
        "view": image.view,
        "kind": image.kind,
        "origin": image.origin,
    }


def image_row(image: Image) -> forms.ImageRow:
    """A row of the worklist."""
    return forms.ImageRow(**_row(image))


def image_whole(
    service: Service,
    image: Image,
    model: str,
    analyses: Sequence[Analysis],
    predictions: Sequence[Prediction],
    readings: Sequence[Whole],
    place: int | None,
) -> forms.ImageWhole:
    """An image with boxes or labels of one model and the newest reading of each reader."""
    scores = next((one.labels for one in analyses if one.model == model), None) or {}
    return forms.ImageWhole(
        **_row(image),
        place=place,
        model=model,
        models=_answers(service, image, analyses),
        predictions=[
            forms.PredictedBox(
                box=(one.x0, one.y0, one.x1, one.y1), **{"class": one.label}, score=one.score
            )
            for one in predictions
        ],
        labels=_labels(service, model, scores),
        marks=[
            mark_given(mark, whole.reading.reader) for whole in readings for mark in whole.marks
        ],
    )


def _labels(
    service: Service, model: str, scores: Mapping[str, float]
) -> list[forms.PredictedLabel]:
    served = service.models.get(model)
    rule = None if served is None else served.rule
    called = None if rule is None or not scores else rule.calls(np.array([[*scores.values()]]))[0]
    return [
        forms.PredictedLabel(
            **{"class": name},
            score=score,
            threshold=None if rule is None or rule.highest else float(rule.thresholds[k]),
            called=None if called is None else bool(called[k]),
        )
        for k, (name, score) in enumerate(scores.items())
    ]


def _answers(
    service: Service, image: Image, analyses: Sequence[Analysis]
) -> list[forms.ModelAnswer]:
    have = {one.model: one for one in analyses}
    names = {one.model: one.name for one in service.store.images.models()}
    waiting = image.state if image.state in ("queued", "running", "failed") else "queued"
    return [
        forms.ModelAnswer(
            model=model,
            name=names.get(model, ""),
            state=have[model].state if model in have else waiting,  # type: ignore[arg-type]
            reason=have[model].reason if model in have else "",
            score=have[model].score if model in have else None,
            boxes=have[model].boxes if model in have else 0,
        )
        for model in dict.fromkeys([*service.models, *have])
    ]


def mark_given(mark: Mark, reader: str) -> forms.MarkGiven:
    """A box of a reading."""
    return forms.MarkGiven(
        box=(mark.x0, mark.y0, mark.x1, mark.y1),
        **{"class": mark.label},
        verdict=mark.verdict,  # type: ignore[arg-type]
        reader=reader,
        reading=mark.reading,
        prediction=mark.prediction,
        model=mark.model,
    )


def reading_given(whole: Whole) -> forms.ReadingGiven:
    """A reading."""
    one = whole.reading
    return forms.ReadingGiven(
        id=one.id,
        reader=one.reader,
        key=one.key,
        created=at(one.created),
        normal=one.normal,
        text=one.text,
        labels=one.labels,
        model=one.model,
        seconds=one.seconds,
        finished=one.finished,
        marks=[mark_given(mark, one.reader) for mark in whole.marks],
    )


def marks_as_coco(
    service: Service, readings: Sequence[Whole], images: Sequence[Image]
) -> dict[str, Any]:
    """All that readers said, as COCO: what they hold to be there under ``annotations``, with the reader of each.

    What they rejected stands under ``rejected``: a tool that takes every annotation for a finding must not meet it. Images
    without an entry in ``readings`` were not read. File names are ids, so that no name of a patient goes along.
    """
    known = [name for served in service.models.values() for name in served.classes]
    marked = [mark.label for whole in readings for mark in whole.marks]
    classes = [*dict.fromkeys([*known, *marked])]
    category = {name: number for number, name in enumerate(classes, start=1)}
    number = {image.id: i for i, image in enumerate(images, start=1)}
    boxes = [
        {
            "image_id": number[whole.reading.image],
            "category_id": category[mark.label],
            "bbox": [mark.x0, mark.y0, mark.x1 - mark.x0, mark.y1 - mark.y0],
            "area": (mark.x1 - mark.x0) * (mark.y1 - mark.y0),
            "iscrowd": 0,
            "reader": whole.reading.reader,
            "verdict": mark.verdict,
            "model": mark.model,
            "created": at(whole.reading.created),
        }
        for whole in readings
        for mark in whole.marks
    ]
    held = [box for box in boxes if box["verdict"] != "rejected"]
    return {
        "info": {"description": "readings of twinray serve", "date_created": at(time.time())},
        "images": [
            {
                "id": number[image.id],
                "file_name": f"{image.id}.{image.kind}",
                "width": image.width,
                "height": image.height,
                "twinray_id": image.id,
                "patient_id": image.patient,
            }
            for image in images
        ],
        "categories": [{"id": i, "name": name} for name, i in category.items()],
        "annotations": [{"id": i, **box} for i, box in enumerate(held, start=1)],
        "rejected": [box for box in boxes if box["verdict"] == "rejected"],
        "readings": [
            {
                "image_id": number[whole.reading.image],
                "reader": whole.reading.reader,
                "normal": whole.reading.normal,
                "labels": whole.reading.labels,
                "text": whole.reading.text,
                "finished": whole.reading.finished,
                "model": whole.reading.model,
                "seconds": whole.reading.seconds,
                "created": at(whole.reading.created),
            }
            for whole in readings
        ],
    }
