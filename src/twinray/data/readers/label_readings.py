"""How labels that a table leaves open are read: uncertain, blank, and what "No Finding" says of the findings.

The words are those of the literature on CheXpert (Irvin et al., AAAI 2019): U-Ignore, U-Zeros and U-Ones for uncertain labels. A reading
is applied in this order: uncertain, no finding, blank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from twinray.records import ABSENT, PRESENT, UNCERTAIN, FloatArray

Uncertain = Literal["ignore", "zero", "one"]
Blank = Literal["unknown", "zero"]
NoFinding = Literal["implies", "alone"]


@dataclass(frozen=True, slots=True)
class LabelReading:
    """How labels are read.

    Attributes:
        uncertain: ``ignore`` keeps an uncertain label uncertain, which counts for nothing unless training says otherwise; ``zero`` and
            ``one`` read it as absent and present.
        blank: ``unknown`` keeps what is not mentioned not stated; ``zero`` reads it as absent where the image has another label.
        no_finding: ``implies`` reads the findings that are not mentioned as absent where "No Finding" is present, and "No Finding"
            as absent where it is blank and a finding is present; ``alone`` reads every label by itself.
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
        if self.uncertain != "ignore":
            labels[labels == UNCERTAIN] = PRESENT if self.uncertain == "one" else ABSENT
        none = list(classes).index(no_finding)
        finding = np.array([name != no_finding and name not in apart for name in classes])
        if self.no_finding == "implies":
            if labels[none] == PRESENT:
                labels[finding & np.isnan(labels)] = ABSENT
            elif np.isnan(labels[none]) and (labels[finding] == PRESENT).any():
                labels[none] = ABSENT
        if self.blank == "zero":
            labels[np.isnan(labels)] = ABSENT
        return labels
