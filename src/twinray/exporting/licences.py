"""The chain of licences of a run's weights, whether it allows commercial use, and the terms of the images that they saw."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from twinray.backbones.ledger import row_named
from twinray.errors import InputError
from twinray.exporting.subject import Subject
from twinray.runs.description import Ancestor
from twinray.runs.seen import Seen

_MEDMNIST: Final = (
    "bloodmnist", "breastmnist", "chestmnist", "octmnist", "organamnist", "organcmnist", "organsmnist", "pathmnist",
    "pneumoniamnist", "retinamnist", "tissuemnist",
)  # fmt: skip
IMAGE_TERMS: Final[Mapping[str, str]] = {
    "nih-cxr14": "use unrestricted, with attribution to the NIH Clinical Center",
    "rsna-pneumonia": "non-commercial research and education",
    "chexpert": "Stanford University Dataset Research Use Agreement: research, not commercial, not to be passed on",
    "mimic-cxr": "PhysioNet's data use agreement, with credentialed access",
    "brax": "PhysioNet Credentialed Health Data License 1.5.0",
    "vindr-cxr": "PhysioNet's data use agreement, or the rules of Kaggle's competition",
    "kermany-cxr": "CC BY 4.0",
    "dermamnist": "CC BY-NC 4.0",
    **dict.fromkeys(_MEDMNIST, "CC BY 4.0"),
}
"""What publishers say of the use of a data set's images, by its key; as the readers' data sheets have it."""


def image_terms(seen: Seen) -> tuple[str, ...]:
    """A line for each published data set that weights saw, and one for all other images.

    Whether terms of images bind weights that learned from them is not decided here.
    """
    known = sorted({origin.data_set for part in seen.parts for origin in part.origins})
    return (
        *(f"images of {key}: {IMAGE_TERMS.get(key, 'terms unknown here')}" for key in known),
        f"terms of {'other' if known else 'the'} images are not known here: ask who provided them",
    )


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
