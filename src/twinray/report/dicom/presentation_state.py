"""A Grayscale Softcopy Presentation State (DICOM PS3.3 A.33.1): boxes that a viewer draws over the source image.

For viewers that know no structured reports. Nothing is burnt in: the boxes can be switched off with
their layer. The image looks as it does without them, since window, polarity and shape of pixels are taken over from it.

Points of unit PIXEL are column and row, with 0\\0 at the top left corner of the top left pixel (PS3.3 C.10.5.1.2): the
frame of our boxes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom import (
    PresentationLUTShapeValues,
    PresentationLUTTransformation,
)
from highdicom.pr import (
    AnnotationUnitsValues,
    GraphicAnnotation,
    GraphicLayer,
    GraphicObject,
    GraphicTypeValues,
    GrayscaleSoftcopyPresentationState,
    TextJustificationValues,
    TextObject,
)
from pydicom.dataset import Dataset

from twinray.about import DISCLAIMER
from twinray.report.dicom.finding import Finding, derived_uid, device, identity
from twinray.report.dicom.structured_report import corners

SERIES_NUMBER = 9003
_LABEL = "TWINRAY"
_TEXT_HEIGHT = 0.03
"""Height of a text's box, as a share of the image's."""


def presentation_state(
    finding: Finding, *, display: Dataset | None
) -> GrayscaleSoftcopyPresentationState:
    """The boxes with class and score over the source image, and what they are in a line at its top.

    Args:
        finding: what it is made of.
        display: how the source is displayed.

    Raises:
        ValueError: ``display`` is missing, or the image is not grey.
    """
    if display is None:
        raise ValueError("a presentation state needs to know how its image is displayed")
    header: Any = identity(finding.source)
    for element in display:
        if element.keyword != "SpecificCharacterSet":
            header[element.tag] = element
    header.setdefault("SamplesPerPixel", 1)
    layer = GraphicLayer(_LABEL, order=1, description=DISCLAIMER)
    drawn = GraphicAnnotation(
        [header],
        layer,
        graphic_objects=[_frame(finding, i) for i in range(len(finding.boxes))] or None,
        text_objects=[_notice(finding, header)]
        + [_text(finding, i, header) for i in range(len(finding.boxes))],
    )
    inverse = (
        header.get("PresentationLUTShape") == "INVERSE"
        or header.get("PhotometricInterpretation") == "MONOCHROME1"
    )
    shape = PresentationLUTShapeValues.INVERSE if inverse else PresentationLUTShapeValues.IDENTITY
    state = GrayscaleSoftcopyPresentationState(
        [header],
        finding.series_uid("gsps series"),
        SERIES_NUMBER,
        finding.uid("gsps"),
        finding.source.instance_number,
        content_label=_LABEL,
        content_description=DISCLAIMER,
        graphic_annotations=[drawn],
        graphic_layers=[layer],
        # a presentation state takes the place of the image's polarity (PS3.3 C.11.6): white bones stay white
        presentation_lut_transformation=PresentationLUTTransformation(shape),
        series_description=DISCLAIMER,
        **device(finding),
    )
    state.DisplayedAreaSelectionSequence[0].PresentationPixelAspectRatio = _aspect(header)
    state.Laterality = finding.source.laterality or None  # may be empty, not absent
    if finding.review is not None:
        state.ContentCreatorName = finding.review.person_name
    return state


def _frame(finding: Finding, i: int) -> GraphicObject:
    return GraphicObject(
        GraphicTypeValues.POLYLINE,
        corners(finding.boxes.xyxy[i]),
        AnnotationUnitsValues.PIXEL,
        tracking_id=f"box {i + 1}",
        tracking_uid=derived_uid("box", finding.uid("sr"), i),  # the same box as in the report
    )


def _text(finding: Finding, i: int, header: Any) -> TextObject:
    """Class and score in a box of its own above the frame, or inside its top at the image's border."""
    assert finding.boxes.scores is not None
    name, score = finding.classes[int(finding.boxes.labels[i])], float(finding.boxes.scores[i])
    by = "" if finding.review is None else f" ({finding.review.verdicts[i]} by reader)"
    height = max(1.0, _TEXT_HEIGHT * header.Rows)
    x1, y1 = (float(value) for value in finding.boxes.xyxy[i][:2])
    top = y1 - height if y1 >= height else y1
    return _placed(
        f"{name}{by}" if np.isnan(score) else f"{name} {score:.2f}{by}",
        (x1, top, float(header.Columns), top + height),
    )


def _notice(finding: Finding, header: Any) -> TextObject:
    height = max(1.0, _TEXT_HEIGHT * header.Rows)
    none = "" if len(finding.boxes) else " No box."
    algorithm = finding.algorithm
    text = f"{DISCLAIMER}. twinray {algorithm.version}, model {algorithm.model[:12]}.{none}"
    if finding.review is not None:
        text = " ".join([text, *finding.review.as_text()])
    return _placed(text, (0.0, 0.0, float(header.Columns), height))


def _placed(text: str, place: tuple[float, float, float, float]) -> TextObject:
    plain = "".join(c if c.isprintable() and c != "\\" else " " for c in text)
    left = min(place[0], place[2] - 1)
    return TextObject(
        plain[:1024],
        AnnotationUnitsValues.PIXEL,
        bounding_box=(left, *place[1:]),
        text_justification=TextJustificationValues.LEFT,
    )


def _aspect(header: Any) -> list[int]:
    """Vertical to horizontal size of a pixel, as whole numbers; 1 to 1 unless the image says otherwise."""
    stated = header.get("PixelAspectRatio")
    if stated:
        return [int(value) for value in stated]
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing")
    if not spacing or float(spacing[0]) == float(spacing[1]):
        return [1, 1]
    return [round(1000 * float(value)) for value in spacing]
