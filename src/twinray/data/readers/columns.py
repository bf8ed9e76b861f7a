"""What people call their columns: which column of a table, or key of a record, holds patients, splits, labels or paths.

Names count in any case, with or without blanks, underscores and the like: ``Patient ID``, ``patientId`` and
``PATIENT_ID`` are one. A column that looks like one of patients or splits but has no known name is not taken in
silence: it is named, with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from twinray.errors import InputError
from twinray.records import split_of

PATIENT = (
    "patient",
    "patientid",
    "patientidentifier",
    "patientnumber",
    "patientno",
    "patientnr",
    "patientcode",
    "patientkey",
    "patid",
    "ptid",
    "subject",
    "subjectid",
    "subjectnumber",
    "subjectcode",
    "participant",
    "participantid",
    "personid",
    "mrn",
    "caseid",
    "case",
    "pid",
)
"""Plain names of columns that hold patients, the likeliest first."""

SPLIT = ("split", "splitname", "datasetsplit", "datasplit", "subset", "partition", "set", "phase")
"""Plain names of columns that hold splits. All but the first count only where all their cells are names of splits."""

LABEL = ("label", "labels", "class")
"""Plain names of columns that hold labels."""

PATH = ("path", "file", "filename", "filepath", "image", "imagepath", "imagefile", "imagename")
"""Plain names of columns that hold the path of an image."""

_OF_A_PATIENT = re.compile(
    r"age|sex|gender|birth|dob|weight|height|size|race|ethnic|position|orient|view|name|hist|comment|count|num(?!ber)|"
    r"^is|^n|type|class|group|study|series|date|time|status|outcome|set"
)
"""Marks of columns that say something of a patient, not who it is."""
_LOOKS_LIKE = re.compile(r"patient|subject|participant|person|mrn|case")


def plain(name: str) -> str:
    """A name without what people write differently: case, blanks, underscores, hyphens, dots."""
    return re.sub(r"[\W_]+", "", name.casefold())


def find(names: Iterable[str], known: Sequence[str]) -> str | None:
    """The column whose plain name comes first in ``known``; None if there is none."""
    by_plain: dict[str, str] = {}
    for name in names:
        by_plain.setdefault(plain(name), name)
    return next((by_plain[one] for one in known if one in by_plain), None)


def patient_column(names: Sequence[str], wanted: str | None, where: str) -> str | None:
    """The column that holds patients: the one that is asked for, else one of a known name, else None.

    Raises:
        InputError: the one that is asked for is not there.
    """
    if wanted is None:
        return find(names, PATIENT)
    same = [name for name in names if name.strip() == wanted.strip()] or [
        name for name in names if plain(name) == plain(wanted)
    ]
    if not same:
        raise InputError(
            f"expected the column {wanted!r} in {where}, found {', '.join(names)[:300] or 'nothing'}; correct --patient-column"
        )
    return same[0]


def unread_patients(names: Iterable[str], used: str | None) -> str | None:
    """A note on a column that looks like one of patients where none was read; None if none does."""
    if used is not None:
        return None
    like = [
        name
        for name in names
        if _LOOKS_LIKE.search(plain(name)) and not _OF_A_PATIENT.search(plain(name))
    ]
    if not like:
        return None
    return (
        f"WARNING: no patients are known, but the column {like[0]!r} looks as if it held them: "
        f"--patient-column {like[0]!r} takes it"
    )


def split_column(cells: Mapping[str, set[str]]) -> str | None:
    """The column that holds splits; None if there is none.

    Args:
        cells: for each column its distinct cells.
    """
    named = find(cells, SPLIT[:1])
    if named is not None:
        return named
    return find((name for name, values in cells.items() if _all_splits(values)), SPLIT)


def unread_splits(cells: Mapping[str, set[str]], used: str | None) -> str | None:
    """A note on a column that holds nothing but names of splits, where none was read; None if none does."""
    if used is not None:
        return None
    like = [name for name, values in cells.items() if len(values) > 1 and _all_splits(values)]
    return (
        f"WARNING: the column {like[0]!r} holds names of splits but was not read; call it 'split' to use it"
        if like
        else None
    )


def unread_labels(cells: Mapping[str, set[str]], used: str | None) -> str | None:
    """A note on columns of 0 and 1, one a label, where no column of labels was read; None if there are none."""
    if used is not None:
        return None
    like = [name for name, values in cells.items() if {v for v in values if v} == {"0", "1"}]
    if not like:
        return None
    names = ", ".join(map(repr, like[:3])) + (", ..." if len(like) > 3 else "")
    return (
        f"WARNING: columns of 0 and 1 look like labels but were not read ({names}); to use them, write the names of an "
        "image's labels into one column 'label', joined by |"
    )


def _all_splits(values: set[str]) -> bool:
    stated = {value for value in values if value}
    return bool(stated) and all(split_of(value) for value in stated)
