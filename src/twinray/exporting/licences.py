"""The chain of licences of a run's weights, and whether it allows commercial use."""

from __future__ import annotations

from pathlib import Path

from twinray.backbones.ledger import row_named
from twinray.errors import InputError
from twinray.exporting.subject import Subject
from twinray.runs.description import Ancestor


def chain(subject: Subject) -> tuple[Ancestor, ...]:
    """Published and foreign weights that a run's were made from; of older runs what their description tells."""
    init = subject.init
    if init.ancestors is not None or init.init in ("", "random"):
        return init.ancestors or ()
    row = row_named(init.init)
    if row is None:
        return (Ancestor(Path(init.init).name),)
    terms, saw = row.licence.value, row.saw.value
    told = ("unknown",) if saw is None else tuple(one.told() for one in saw)
    return (Ancestor(row.name, terms.text, terms.use, terms.note, told),)


def check_commercial(subject: Subject) -> None:
    """Refuse weights that some ancestor keeps from commercial use, or of which nobody knows.

    Raises:
        InputError: each such ancestor is named, with its licence.
    """
    bad = [one for one in chain(subject) if one.use in ("non-commercial", "unknown")]
    if bad:
        told = "; ".join(
            f"{one.name}: licence {one.licence}, "
            + (
                "which forbids it"
                if one.use == "non-commercial"
                else "so nobody can say that it allows it"
            )
            for one in bad
        )
        raise InputError(
            f"{subject.run} cannot leave with --commercial: its weights were made from {told}; start from others, ask the holder of "
            "the rights, or leave --commercial out"
        )
