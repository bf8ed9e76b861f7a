"""How labels that a table leaves open are read: uncertain, blank, and what "No Finding" says of the findings.

The words are those of the literature on CheXpert (Irvin et al., AAAI 2019): U-Ignore, U-Zeros and U-Ones for uncertain labels. A reading
is applied in this order: uncertain, no finding, blank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from twinray.records import ABSENT, PRESENT, UNCERTAIN, UNKNOWN, FloatArray

Uncertain = Literal["ignore", "zero", "one"]
Blank = Literal["unknown", "zero"]
NoFinding = Literal["implies", "alone"]

CELLS: Final[Mapping[str, float]] = {
    "": UNKNOWN,
    "1": PRESENT,
    "1.0": PRESENT,
    "0": ABSENT,
    "0.0": ABSENT,
    "-1": UNCERTAIN,
    "-1.0": UNCERTAIN,
}
"""What a cell of a table of CheXpert's labeller says."""


@dataclass(frozen=True, slots=True)
class LabelReading:
    """How labels are read.

    Attributes:
        uncertain: ``ignore`` keeps an uncertain label uncertain, which counts for nothing unless training says otherwise; ``zero`` and
            ``one`` read it as absent and present.
        blank: ``unknown`` keeps what is not mentioned not stated; ``zero`` reads it as absent where the image has another label.
        no_finding: ``implies`` reads the findings that are not mentioned as absent where "No Finding" is present, and "No Finding"
            as absent where it is blank and a finding is present; ``alone`` reads every label by itself. A "No Finding" beside a finding
            that is present or uncertain contradicts its row, so it implies nothing.
    """

    uncertain: Uncertain = "ignore"
    blank: Blank = "unknown"
    no_finding: NoFinding = "implies"

    def read(
        self, stated: FloatArray, classes: Sequence[str], no_finding: str, apart: Sequence[str] = ()
    ) -> FloatArray:
        """(k,) labels as read.

        Args:
            stated: (k,) float32, as in ``records.Sample.labels``.
            classes: (k,) names.
            no_finding: name of the label that says that there is none.
            apart: names of labels that are no findings: "No Finding" says nothing of them, nor they of it.
        """
        labels = np.array(stated, dtype=np.float32)
        if np.isnan(labels).all():
            return labels
        none = list(classes).index(no_finding)
        finding = np.array([name != no_finding and name not in apart for name in classes])
        # asked before uncertain labels are read as something else
        doubtful = contradicts(labels, none, finding)
        if self.uncertain != "ignore":
            labels[labels == UNCERTAIN] = PRESENT if self.uncertain == "one" else ABSENT
        if self.no_finding == "implies":
            if labels[none] == PRESENT and not doubtful:
                labels[finding & np.isnan(labels)] = ABSENT
            elif np.isnan(labels[none]) and (labels[finding] == PRESENT).any():
                labels[none] = ABSENT
        if self.blank == "zero":
            labels[np.isnan(labels)] = ABSENT
        return labels


def contradicts(labels: FloatArray, none: int, finding: npt.NDArray[np.bool_]) -> bool:
    """Whether "No Finding" (column ``none``) is present beside a finding that is present or uncertain.

    CheXpert's labeller gives it only where neither is so (Irvin et al., AAAI 2019): such a row was made otherwise.
    """
    return bool(labels[none] == PRESENT and np.isin(labels[finding], (PRESENT, UNCERTAIN)).any())


@dataclass(slots=True)
class LabelTable:
    """Cells of a table of CheXpert's labeller -> labels as read; equal rows share one vector.

    Attributes:
        classes: (k,) names, in the order of the vectors.
        no_finding: name of the label that says that there is none.
        apart: names of labels that are no findings.
        reading: way in which uncertain, blank and ``no_finding`` are read.
    """

    classes: Sequence[str]
    no_finding: str
    apart: Sequence[str]
    reading: LabelReading
    _known: dict[tuple[str, ...], FloatArray] = field(default_factory=dict)
    _doubtful: set[int] = field(
        default_factory=set
    )  # ids of those in _known that contradict themselves

    def fault(self, stated: Sequence[str]) -> str | None:
        """Why the (k,) cells cannot be read; None if they can."""
        pairs = zip(self.classes, stated, strict=True)
        wrong = next(((name, cell) for name, cell in pairs if cell not in CELLS), None)
        if wrong is None:
            return None
        name, cell = wrong
        return f"expected 1, 0, -1 or blank under {name!r}, got {cell[:80]!r}; correct the row"

    def vector(self, stated: tuple[str, ...]) -> FloatArray:
        """(k,) float32 labels of (k,) cells without a fault; not to be written to."""
        if stated not in self._known:
            as_stated = np.array([CELLS[cell] for cell in stated], dtype=np.float32)
            vector = self.reading.read(as_stated, self.classes, self.no_finding, self.apart)
            vector.flags.writeable = False
            self._known[stated] = vector
            none = list(self.classes).index(self.no_finding)
            finding = np.array([c != self.no_finding and c not in self.apart for c in self.classes])
            if contradicts(as_stated, none, finding):
                self._doubtful.add(id(vector))
        return self._known[stated]

    def notes(self, vectors: Sequence[FloatArray | None]) -> list[str]:
        """What users must know of the labels of a source."""
        uncertain = sum(int((v == UNCERTAIN).sum()) for v in vectors if v is not None)
        told = (
            [f"{uncertain:,} label values are uncertain (-1) and are kept as such"]
            if uncertain
            else []
        )
        doubtful = sum(id(v) in self._doubtful for v in vectors)
        if doubtful and self.reading.no_finding == "implies":
            told.append(
                f"{doubtful:,} image{'s are' if doubtful > 1 else ' is'} labelled {self.no_finding!r} beside a finding that is present or uncertain: such a row contradicts "
                "itself, so nothing is implied from it"
            )
        return [
            *told,
            f"labels are read with --uncertain {self.reading.uncertain} --blank {self.reading.blank} --no-finding "
            f"{self.reading.no_finding}",
        ]
