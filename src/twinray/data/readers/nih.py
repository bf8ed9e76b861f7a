"""NIH ChestX-ray14 -> Collection.

Data sheet
    What: 112,120 frontal chest X-rays (PA or AP) of 30,805 patients, PNG of 1024 x 1024 pixels. Of
    these, 519 are RGBA files that hold grey.
    Labels: 14 findings and ``No Finding``, several an image, joined by ``|``. They were text-mined from the radiology
    reports, not read from the images: some are wrong, and a finding that a report leaves out counts as absent.
    Boxes: 984, drawn by radiologists, on 880 images, of 8 of the findings. Their frame is 1024 x
    1024 pixels whatever the size of the files (converted copies are often smaller). The box list
    says ``Infiltrate`` for ``Infiltration``. All other images were never annotated with boxes,
    which is not the same as having none.
    Splits: the official lists, by patient. ``train_val_list.txt`` (86,524 images) is train here;
    validation is cut out of it by patient. ``test_list.txt`` has 25,596 images.
    Patients: ``Patient ID``; the same number that file names begin with.
    Get it: https://nihcc.app.box.com/v/ChestXray-NIHCC. Licence: use unrestricted, with attribution to the NIH
    Clinical Center. Cite: Wang et al., ChestX-ray8: Hospital-scale Chest X-ray Database and Benchmarks on
    Weakly-Supervised Classification and Localization of Common Thorax Diseases, CVPR 2017.

Layout (CSV files may be gzipped; one level up will do, so that a single shard can be given)::

    Data_Entry_2017.csv or Data_Entry_2017_v2020.csv     needed
    BBox_List_2017.csv                                   optional: no boxes without it
    train_val_list.txt, test_list.txt                    optional, both or none: splits are cut by patient without them
    images_001/images/*.png ... images_012/images/*.png, or images/*.png, or *.png; converted files of the same stem too

Rows are set aside one by one. Causes are an unknown finding, ``No Finding`` beside a finding, no
patient or another than the file's name names, and an image named twice. A box is set aside that is not four finite numbers, has no area
or lies outside the frame. So is a box of an unknown finding or image.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from twinray.data.annotations import REPEATED, BoxAudit
from twinray.data.readers.disk import FileLoader, index_images
from twinray.data.readers.tabular import Row, find_table, number, read_names, read_rows
from twinray.errors import InputError
from twinray.records import ABSENT, PRESENT, Boxes, Collection, FloatArray, Sample, Skipped, Split
from twinray.words import counted

FINDINGS = (
    "Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumonia", "Pneumothorax",
    "Consolidation", "Edema", "Emphysema", "Fibrosis", "Pleural_Thickening", "Hernia",
)  # fmt: skip
"""The 14 findings; the first 8 also have boxes."""

NO_FINDING = "No Finding"
LABEL_CLASSES = (*FINDINGS, NO_FINDING)
BOX_CLASSES = FINDINGS[:8]
FRAME = (1024, 1024)
"""(width, height) in pixels of the frame that boxes are in."""

NAME = "nih-cxr14"
"""Of the collection; shards share it, and with it their patients."""

_NAMED = re.compile(r"(\d{8})_\d{3}\.\w+")
_BOX_SPELLINGS = {"Infiltrate": "Infiltration"}
_ATTRIBUTES = {
    "Follow-up #": "follow_up",
    "Patient Age": "age",
    "Patient Gender": "sex",
    "Patient Sex": "sex",
    "View Position": "view",
    # the commas inside the brackets of the published header make columns of these names
    "OriginalImage[Width": "original_width",
    "Height]": "original_height",
    "OriginalImagePixelSpacing[x": "pixel_spacing_x_mm",
    "y]": "pixel_spacing_y_mm",
}


@dataclass(slots=True)
class _Drawn:
    """What the box list says of one image."""

    boxes: list[FloatArray] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)


def read_nih(
    root: Path, *, images_root: Path | None = None, need_images: bool = True
) -> Collection:
    """Describe the images of a whole or partial copy; a sample's id is its file name in ``Data_Entry_2017``.

    Args:
        root: the folder of the tables, or a folder of images just below it.
        images_root: folder where the images are, at any depth; by default ``root``.
        need_images: flag to leave out images that are not on the disk; False keeps them all, for
            annotations alone.

    Returns:
        A multi-label collection in the order of the table. Images without a box in the list have ``boxes`` None.

    Raises:
        InputError: a table is missing or cannot be read, one official list without the other, no image left.
    """
    if not root.is_dir():
        raise InputError(
            f"expected the folder of NIH ChestX-ray14, {root} is not there or no folder; check the path"
        )
    folders = (root, root.resolve().parent)
    entry = find_table(folders, ("Data_Entry_2017_v2020", "Data_Entry_2017"))
    if entry is None:
        raise InputError(
            f"expected Data_Entry_2017.csv or Data_Entry_2017_v2020.csv (or .csv.gz) in {root}, found neither; add it"
        )
    skipped: list[Skipped] = []
    notes: list[str] = []
    index = index_images(images_root or root, skipped)
    listed = _entries(entry, skipped, notes)
    split_of = read_official_lists(folders)
    drawn = _boxes(find_table(folders, ("BBox_List_2017",)), listed, skipped, notes)
    found = {name: path for name in listed if (path := index.find(name)) is not None}
    if need_images:
        notes = [*index.notes(len(listed), found.values(), entry.name), *notes]
    kept = [name for name in listed if not need_images or name in found]
    if not kept:
        first = f"; first set aside: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise InputError(
            f"none of the {len(listed):,} images that {entry} lists is under {index.root}{first}"
        )
    if not split_of:
        notes.append(
            "no official lists (train_val_list.txt, test_list.txt): no image has an official split"
        )
    elif unlisted := sum(name not in split_of for name in kept):
        notes.append(f"{counted(unlisted, 'image is', 'images are')} in neither official list")
    samples = []
    for name in kept:
        patient, labels, attributes = listed[name]
        boxes = _as_boxes(drawn.get(name))
        frame = None if boxes is None else FRAME
        where, split = found.get(name, name), split_of.get(name)
        samples.append(
            Sample(name, where, patient, split, labels, boxes, frame, attributes=attributes)
        )
    return Collection(
        name=NAME,
        label_classes=LABEL_CLASSES,
        box_classes=BOX_CLASSES,
        task="multilabel",
        samples=tuple(samples),
        load=FileLoader(index.root),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def read_official_lists(folders: tuple[Path, ...]) -> dict[str, Split]:
    """Split by file name from ``train_val_list.txt`` (train) and ``test_list.txt``; empty where there are none.

    Raises:
        InputError: one list without the other, or an image in both.
    """
    for folder in folders:
        train_val, test = folder / "train_val_list.txt", folder / "test_list.txt"
        if not train_val.is_file() and not test.is_file():
            continue
        for path, other in ((train_val, test), (test, train_val)):
            if not path.is_file():
                raise InputError(
                    f"expected both official lists, found {other} but no {path.name}; add it"
                )
        splits: dict[str, Split] = dict.fromkeys(read_names(train_val), "train")
        for name in read_names(test):
            if splits.setdefault(name, "test") != "test":
                raise InputError(
                    f"{name} is in both {train_val} and {test.name}; copy the lists again"
                )
        return splits
    return {}


def patient_number(patient: str) -> str:
    """A patient id as the table writes it: without the zeros that file names put in front."""
    return patient.lstrip("0") or patient[-1:]


def _entries(
    path: Path, skipped: list[Skipped], notes: list[str]
) -> dict[str, tuple[str, FloatArray, dict[str, str]]]:
    """Image -> patient, labels, attributes."""
    listed: dict[str, tuple[str, FloatArray, dict[str, str]]] = {}
    vectors: dict[str, FloatArray] = {}
    needed = ("Image Index", "Finding Labels", "Patient ID")
    for row in read_rows(path, needed, notes=notes, classes=("Finding Labels",)):
        name, told = row["Image Index"], row["Finding Labels"]
        fault = _fault(name, told, row["Patient ID"]) or _other_patient(name, row["Patient ID"])
        if fault is None and name in listed:
            fault = f"{name} already has a row further up; keep one of them"
        if fault is not None:
            skipped.append(Skipped(row.where, fault))
            continue
        if told not in vectors:
            vector = np.full(len(LABEL_CLASSES), ABSENT, dtype=np.float32)
            vector[[LABEL_CLASSES.index(label) for label in told.split("|")]] = PRESENT
            vector.flags.writeable = False
            vectors[told] = vector
        attributes = {key: row[column] for column, key in _ATTRIBUTES.items() if row[column]}
        listed[name] = patient_number(row["Patient ID"]), vectors[told], attributes
    return listed


def _fault(name: str, told: str, patient: str) -> str | None:
    if not name:
        return "expected a file name in column 'Image Index', found nothing; correct the row"
    unknown = next((label for label in told.split("|") if label not in LABEL_CLASSES), None)
    if unknown is not None:
        return f"expected findings such as 'Effusion|Mass' or '{NO_FINDING}', got {unknown[:60]!r}; correct the row"
    if NO_FINDING in told.split("|") and told != NO_FINDING:
        return f"expected '{NO_FINDING}' alone or findings, got {told[:80]!r}; correct the row"
    if not patient:
        return "expected a 'Patient ID', found nothing; without it splits could not keep patients apart"
    return None


def _other_patient(name: str, patient: str) -> str | None:
    """That the file's name, which begins with the patient's number, names another patient than the table."""
    named = _NAMED.fullmatch(name)
    if named is None or named[1].lstrip("0") == patient.lstrip("0"):
        return None
    return f"expected patient {patient_number(named[1])}, whom the file's name {name} names, got {patient[:20]!r}; correct the row"


def _boxes(
    path: Path | None,
    listed: dict[str, tuple[str, FloatArray, dict[str, str]]],
    skipped: list[Skipped],
    notes: list[str],
) -> dict[str, _Drawn]:
    """Image -> its boxes, in the frame of 1024 x 1024 pixels."""
    drawn: dict[str, _Drawn] = defaultdict(_Drawn)
    if path is None:
        notes.append("no BBox_List_2017.csv: no image counts as annotated with boxes")
        return drawn
    audit = BoxAudit(str(path))
    for row in read_rows(path, ("Image Index", "Finding Label"), notes=notes):
        name, label = row["Image Index"], row["Finding Label"]
        label = _BOX_SPELLINGS.get(label, label)
        if name not in listed:
            fault: str | None = (
                f"expected an image of Data_Entry_2017, got {name[:60]!r}; correct the row"
            )
        elif label not in BOX_CLASSES:
            fault = f"expected one of {', '.join(BOX_CLASSES)}, got {label[:60]!r}; correct the row"
        else:
            fault = None
            box = _box(row, name, BOX_CLASSES.index(label), audit)
            if not isinstance(box, str):
                drawn[name].boxes.append(box)
                drawn[name].classes.append(BOX_CLASSES.index(label))
            elif box != REPEATED:
                fault = box
        if fault is not None:
            skipped.append(Skipped(row.where, fault))
    notes += audit.conclude(lambda _: FRAME)
    return drawn


def _as_boxes(drawn: _Drawn | None) -> Boxes | None:
    """None where the list names no usable box of the image: it does not say that there is nothing to find."""
    if drawn is None or not drawn.boxes:
        return None
    return Boxes(np.array(drawn.boxes, dtype=np.float64), np.array(drawn.classes, dtype=np.int64))


def _box(row: Row, image: str, label: int, audit: BoxAudit) -> FloatArray | str:
    """xyxy of the four columns after the label: the header breaks their names ``Bbox [x,y,w,h]`` at the commas."""
    cells = [cell.strip() for cell in row.cells[2:6]]
    values = [number(cell) for cell in cells]
    if len(values) < 4 or any(value is None for value in values):
        return f"expected four numbers x, y, width, height, got {', '.join(cells)[:60]!r}; correct the row"
    x, y, width, height = (float(value) for value in values if value is not None)
    judged = audit.judge(image, label, (x, y, x + width, y + height), FRAME, row.where)
    return (
        f"{judged}; correct the row" if isinstance(judged, str) and judged != REPEATED else judged
    )
