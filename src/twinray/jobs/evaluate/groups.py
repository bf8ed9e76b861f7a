"""Groups of patients (sex, age, view): every measure of every arm, and every difference, on the images of each group."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

import numpy as np

from twinray.data.pack import Pack
from twinray.errors import InputError
from twinray.evaluation.boxes import FrocRule
from twinray.evaluation.intervals import Resampling
from twinray.evaluation.record import SplitFigures
from twinray.evaluation.subgroups import (
    group_names,
    parse_by,
    subgroups_of_boxes,
    subgroups_of_labels,
)
from twinray.jobs.evaluate.arms import Arm
from twinray.jobs.evaluate.tested import BoxData, LabelData, Tested
from twinray.records import Task

Grouping: TypeAlias = Mapping[str, tuple[Mapping[str, str], tuple[str, ...]]]
"""Attribute -> group of each image by id, and the groups in order."""

Pair: TypeAlias = tuple[SplitFigures, SplitFigures | None]
"""Figures of an arm, and its differences to the arm that it is compared with."""


def grouping(asked: Sequence[str], pack: Pack, split: str) -> Grouping:
    """What ``--by`` asks for, of a split of a pack.

    Raises:
        InputError: an attribute that the pack lacks or that no image states, or edges that are no numbers.
    """
    rows = pack.where(split)
    found: dict[str, tuple[Mapping[str, str], tuple[str, ...]]] = {}
    for by in parse_by(asked):
        values = pack.attribute(by.attribute)
        names, order = group_names(by, [values[row] for row in rows])
        found[by.attribute] = dict(zip(map(str, pack.ids[rows]), names, strict=True)), order
    return found


def with_groups(
    arms: Mapping[str, Arm],
    whole: Mapping[str, Pair],
    by: Grouping,
    measured: Callable[[Mapping[str, Arm]], Mapping[str, Pair]],
    settings: tuple[Resampling, FrocRule],
) -> dict[str, Pair]:
    """The figures over all images with those of each group, and the largest gaps between groups.

    Args:
        arms: arms that are compared with each other.
        whole: arm -> its figures and differences over all images.
        by: the groups.
        measured: the measure of arms, as over all images.
        settings: settings of the measure.
    """
    groups: dict[str, dict[str, dict[str, SplitFigures]]] = {name: {} for name in arms}
    differences: dict[str, dict[str, dict[str, SplitFigures]]] = {name: {} for name in arms}
    for attribute, (of_image, order) in by.items():
        for group in order:
            images = {image for image, own in of_image.items() if own == group}
            some = {
                name: replace(arm, tested=tuple(_part(one, images) for one in arm.tested))
                for name, arm in arms.items()
            }
            # of folds together: each run has the images of its own
            n_images = len({i for one in next(iter(some.values())).tested for i in one.images})
            try:
                found = measured(some) if n_images else {}
            except InputError:  # no image of the group is labelled
                found = {}
            for name in arms:
                nothing = SplitFigures({}, counts={"n_images": n_images})
                figures, difference = found.get(name, (nothing, None))
                groups[name].setdefault(attribute, {})[group] = figures
                if difference is not None:
                    differences[name].setdefault(attribute, {})[group] = difference
    result: dict[str, Pair] = {}
    for name, (figures, difference) in whole.items():
        details = {**figures.details, "gaps": _gaps(arms[name], by, settings)}
        result[name] = (
            replace(figures, subgroups=groups[name], details=details),
            None if difference is None else replace(difference, subgroups=differences[name]),
        )
    return result


def _part(one: Tested, images: set[str]) -> Tested:
    """The model on some of its images."""
    data = one.data
    if isinstance(data, BoxData):
        own = [image for image in data.truth if str(image) in images]
        some = BoxData(
            {image: data.truth[image] for image in own},
            {image: data.found[image] for image in own if image in data.found},
            {image: data.patients.get(image) for image in own},
        )
        return replace(one, data=some)
    rows = np.array([i for i, image in enumerate(data.images) if image in images], dtype=np.int64)
    return replace(
        one,
        data=replace(
            data,
            images=tuple(data.images[i] for i in rows),
            truth=data.truth[rows],
            scores=data.scores[rows],
            patients=tuple(data.patients[i] for i in rows),
        ),
    )


def _gaps(arm: Arm, by: Grouping, settings: tuple[Resampling, FrocRule]) -> dict[str, Any]:
    """Attribute -> the largest gap of each measure, with an interval over all pairs of groups; of several models that of their means."""
    run, (resampling, froc) = arm.tested[0].run, settings
    if len({one.images for one in arm.tested}) > 1:
        return {}  # folds: no resample of one set of images holds them all
    datas = [one.data for one in arm.tested]
    if run.kind == "detector":
        boxes = [cast(BoxData, data) for data in datas]
        of_boxes = {
            attribute: ({image: of[str(image)] for image in boxes[0].truth}, order)
            for attribute, (of, order) in by.items()
        }
        found = subgroups_of_boxes(
            boxes[0].truth, [data.found for data in boxes], run.classes, boxes[0].patients, of_boxes,
            resampling=resampling, froc_rule=froc,
        )  # fmt: skip
    else:
        labels = [cast(LabelData, data) for data in datas]
        first = labels[0]
        of_images = {
            a: ([of[image] for image in first.images], order) for a, (of, order) in by.items()
        }
        found = subgroups_of_labels(
            first.truth, [data.scores for data in labels], run.classes, cast(Task, run.task), first.patients, of_images,
            thresholds=[data.thresholds for data in labels], resampling=resampling,
        )  # fmt: skip
    return {
        attribute: [gap.as_json() for gap in gaps]
        for attribute, gaps in found.subgroups().gaps.items()
    }
