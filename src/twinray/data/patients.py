"""Do patient ids name patients? The one place that judges them, for every reader.

Ids that stand for "nobody knows" (``nan``, ``ANONYMOUS``, ``0``) would make one patient of many, or be one patient in
name only. They count as unknown, which is told with the number of images; so are images that have no id among others
that have one. One id that has far more images than any
other is named, since it may be such a placeholder too.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from statistics import median
from typing import Final

from twinray.records import Collection
from twinray.words import counted

NO_PATIENTS: Final = (
    "no patient ids: images are their own groups, so splits cannot be kept patient-disjoint"
)
"""The note of a source without patients."""

PATIENT_DATA: Final = "treat what is made of them as patient data"
"""End of the notes on ids that are kept as they are."""

_FOR_NOBODY = frozenset(
    {
        "", "nan", "null", "<na>", "nat", "#n/a", "n/a", "na", "none", "nil", "-", "--", "?", "unknown", "unk", "missing",
        "anonymous", "anonymouspatient", "patientanonymous", "anonymized", "anonymised", "anonym", "anon", "anonymizedpatient",
        "deidentified", "removed", "redacted", "notavailable", "notspecified", "undefined", "withheld", "hidden", "noid",
        "unbekannt", "inconnu", "desconocido", "noname", "default", "empty", "blank",
    }
)  # fmt: skip
"""Ids of nobody, in lower case without blanks and punctuation between letters."""
_OFTEN_NOBODY = re.compile(
    r"[-+]?0+(?:\.0+)?|-1(?:\.0+)?|9{3,}|1(?:\.0+)?|12345\d*|x+|patient|subject|test"
)
"""Ids that may be somebody's, but are a placeholder where they have more images than any other."""
_NO_NUMBER = re.compile(r"[-+]?0+(?:\.0+)?|-1(?:\.0+)?|9{3,}")
"""Those that are a placeholder too where no other id is a number."""
_MANY, _TIMES_MEDIAN, _TIMES_NEXT, _FEWEST_OTHERS = 10, 10, 3, 3


def is_nobody(patient: str) -> bool:
    """Whether an id says in words that the patient is not known."""
    text = patient.strip().casefold()
    return text in _FOR_NOBODY or re.sub(r"[\s_\-.^]+", "", text) in _FOR_NOBODY


def checked_patients(collection: Collection, *, tell_ids: bool = True) -> Collection:
    """The collection with placeholders taken for unknown patients, and notes on what was found.

    Args:
        collection: any reader's.
        tell_ids: flag to name an id that has far more images than others; False names one of its images instead.
    """
    counts = Counter(sample.patient for sample in collection.samples if sample.patient)
    if not counts:
        return collection
    nobody = {patient for patient in counts if is_nobody(patient)}
    notes = []
    nobody |= _placeholders(Counter({p: n for p, n in counts.items() if p not in nobody}))
    top = _far_ahead(Counter({p: n for p, n in counts.items() if p not in nobody}), _TIMES_MEDIAN)
    if nobody:
        n = sum(counts[patient] for patient in nobody)
        named = ", ".join(repr(patient) for patient in sorted(nobody)[:4])
        notes.append(
            f"WARNING: {counted(n, 'image has a patient id', 'images have a patient id')} that stands for nobody ({named}): their patients count as unknown, "
            "each image is its own group"
        )
    if top is not None:
        image = next(sample.source for sample in collection.samples if sample.patient == top)
        who = f"patient {top!r}" if tell_ids else f"one patient (that of {image})"
        next_most = max(n for patient, n in counts.items() if patient not in (top, *nobody))
        notes.append(
            f"WARNING: {who} has {counts[top]:,} of {len(collection.samples):,} images, the next has {next_most:,}: "
            "is the id a placeholder? If so, empty it"
        )
    lacking = [sample.source for sample in collection.samples if not sample.patient]
    if lacking:
        notes.append(
            f"{len(lacking):,} of {len(collection.samples):,} images have no patient id (first: {lacking[0]}): each is its own group"
        )
    if not notes:
        return collection
    samples = tuple(
        replace(sample, patient=None) if sample.patient in nobody else sample
        for sample in collection.samples
    )
    if nobody and all(sample.patient is None for sample in samples):
        notes.append(NO_PATIENTS)
    return replace(collection, samples=samples, notes=(*collection.notes, *notes))


def _placeholders(counts: Counter[str]) -> set[str]:
    """Ids such as 0 and 999, where the other ids show that they name nobody."""
    found = set()
    top = _far_ahead(counts, 1)
    if top is not None and _OFTEN_NOBODY.fullmatch(top.strip().casefold()):
        found.add(top)
    odd = {patient for patient in counts if _NO_NUMBER.fullmatch(patient.strip())}
    if len(counts) > len(odd) and not any(_is_number(p) for p in counts.keys() - odd):
        found |= odd
    return found


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[-+]?\d+(?:\.\d*)?", text.strip()) is not None


def _far_ahead(counts: Counter[str], times_median: float) -> str | None:
    """The id that has far more images than every other; None if there is none."""
    if len(counts) <= _FEWEST_OTHERS:
        return None
    (top, n), (_, following), *_ = counts.most_common(2)
    others = [count for patient, count in counts.items() if patient != top]
    ahead = n >= max(_MANY, _TIMES_NEXT * following, times_median * median(others))
    return top if ahead else None
