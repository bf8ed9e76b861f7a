"""What of a source is not in its pack: classes and patients that vanish, named loudly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from twinray.data.classes import vanished
from twinray.data.packing.mix import Mix
from twinray.records import PRESENT


def losses(mix: Mix, packed: Iterable[int], boxes: Mapping[str, int]) -> list[str]:
    """Warnings on what most of is set aside.

    Args:
        mix: the sources.
        packed: numbers of the packed images.
        boxes: packed boxes by class.
    """
    kept = set(packed)
    before = Counter[str]()
    after = Counter[str]()
    of_source = Counter[str]()
    patients: tuple[set[str], set[str]] = (set(), set())
    for i in range(len(mix)):
        labels, sample, patient = mix.labels(i), mix.sample(i), mix.patient(i)
        if labels is not None:
            shown = [
                name
                for name, value in zip(mix.label_classes, labels, strict=True)
                if value == PRESENT
            ]
            before.update(shown)
            after.update(shown if i in kept else ())
        if sample.boxes is not None:
            names = mix.collections[mix.collection_of(i)].box_classes
            of_source.update(names[c] for c in sample.boxes.labels.tolist())
        if patient is not None:
            patients[0].add(patient)
            patients[1].update({patient} if i in kept else ())
    aside = " (skipped.csv says why)"
    notes = vanished("images", before, after, aside)
    notes += vanished("boxes", of_source, boxes, aside)
    for what, left, n in (
        ("images", len(kept), len(mix)),
        ("patients", len(patients[1]), len(patients[0])),
    ):
        if 2 * left < n:
            notes.append(f"WARNING: only {left:,} of {n:,} {what} are left{aside}")
    return notes
