"""VinDr-CXR -> Collection.

Data sheet
    What: 18,000 postero-anterior chest X-rays of adults, DICOM. Of these, 15,000 are for training,
    each read by three of 17 radiologists on their own. The other 3,000 are for testing, read by
    consensus.
    Boxes: in pixels of the original image. Training rows carry the reader's name (``rad_id``), test rows are a consensus
    without names. Kaggle's copy has 14 classes and 36,096 training boxes on 4,394 images (67,914
    rows with those of ``No finding``). PhysioNet's has 22 classes. Kaggle's test annotations are
    not published; PhysioNet's are. Fused at IoU 0.5 (:mod:`twinray.data.fusion`) the 36,096 become
    23,934. Their classes are Aortic enlargement 3,386, Atelectasis 230, Calcification 745,
    Cardiomegaly 2,402, Consolidation 435, ILD 733, Infiltration 954 and Lung Opacity 2,017. Further
    classes are Nodule/Mass 1,867, Other lesion 1,836, Pleural effusion 1,771, Pleural thickening
    4,058, Pneumothorax 131 and Pulmonary fibrosis 3,369.
    Labels: a finding is present where at least ``min_readers`` readers state it; ``No finding`` where as many state that
    and no finding is present. Kaggle: the 14 box classes and ``No finding``; PhysioNet: 28 (``image_labels_*.csv``).
    Attributes: ``readers``, everybody who read a training image, with or without a box.
    Label noise: readers often disagree, which is why their boxes are fused and ``n_readers`` is kept. Training (three
    single readings) and test (consensus) annotations were made in different ways.
    Splits: PhysioNet's train and test are official. Kaggle's training images are cut here.
    Patients: NOT PUBLISHED. The files name images alone. Two images of one person may lie on both
    sides of a split, which makes figures too high; no split can exclude it. Every image counts as a
    patient of its own, which makes intervals too narrow where people have several. By how much
    cannot be told from the files. PhysioNet's official splits are subject to the same.
    Get it: https://physionet.org/content/vindr-cxr/ (credentialed access under its data use agreement), or
    https://www.kaggle.com/c/vinbigdata-chest-xray-abnormalities-detection (under the competition's rules). Cite: Nguyen
    et al., VinDr-CXR: An open dataset of chest X-rays with radiologist's annotations, Scientific Data 2022.

Layout (CSV files may be gzipped; images of the same stem in any folder, DICOM or converted)::

    Kaggle      train.csv (image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max), train/<image_id>.dicom
    PhysioNet   annotations/annotations_train.csv (image_id,rad_id,class_name,x_min,y_min,x_max,y_max),
                annotations/annotations_test.csv (without rad_id), annotations/image_labels_{train,test}.csv,
                {train,test}/<image_id>.dicom
    either      train_meta.csv, test_meta.csv (image_id,dim0,dim1 = height,width of the original) with converted copies;
                columns width,height in the table of boxes do as well

Rows are set aside one by one. Causes are an unknown class, and a row without image or reader. A box
is set aside that is not four finite numbers, has no area or lies outside its image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from twinray.data.annotations import BoxAudit, file_size
from twinray.data.fusion import fuse_collection
from twinray.data.readers.disk import FileLoader, ImageIndex, index_images
from twinray.data.readers.vindr.order import PUBLISHED_IOU, published_order
from twinray.data.readers.vindr.rows import (
    BOX_CLASSES,
    GLOBAL_CLASSES,
    NO_FINDING,
    OTHER_BOX_CLASSES,
    Part,
    Reading,
    find_parts,
    read_part,
)
from twinray.errors import InputError
from twinray.records import (
    ABSENT,
    PRESENT,
    READERS,
    UNKNOWN,
    Boxes,
    Collection,
    FloatArray,
    Sample,
    Skipped,
)
from twinray.words import counted

_DICOM = (".dicom", ".dcm")


def read_vindr(
    root: Path,
    *,
    images_root: Path | None = None,
    need_images: bool = True,
    fusion_iou: float = 0.5,
    min_readers: int = 1,
) -> Collection:
    """Describe the images of a copy in Kaggle's or PhysioNet's layout; a sample's id is its ``image_id``.

    Args:
        root: the folder, or the CSV of annotations itself.
        images_root: folder where the images are, at any depth; by default the folder.
        need_images: flag to leave out images that are not on the disk; False keeps them all, for
            annotations alone.
        fusion_iou: threshold at which the readers' boxes are fused, in (0, 1); 0 keeps them as they are, with names.
        min_readers: number of distinct readers that must agree on a label and on a fused box.

    Returns:
        A multi-label collection sorted by image id, training images first.

    Raises:
        InputError: tables are missing or cannot be read, options out of range, no image left.
    """
    if not 0 <= fusion_iou < 1:
        raise InputError(
            f"expected --fusion-iou in 0..1 (0: keep every reader's boxes), got {fusion_iou}"
        )
    if min_readers > 1 and fusion_iou == 0:
        raise InputError(
            "--min-readers needs fused boxes, --fusion-iou 0 keeps them raw; change one of them"
        )
    raw = read_raw_vindr(
        root, images_root=images_root, need_images=need_images, min_readers=min_readers
    )
    return fuse_vindr(raw, fusion_iou, min_readers) if fusion_iou else raw


def fuse_vindr(raw: Collection, iou: float, min_readers: int) -> Collection:
    """Fuse what :func:`read_raw_vindr` read; at the published threshold in the published order of ties.

    Raises:
        InputError: a threshold out of range.
    """
    return fuse_collection(raw, iou, min_readers, published_order if iou == PUBLISHED_IOU else None)


def read_raw_vindr(
    root: Path, *, images_root: Path | None = None, need_images: bool = True, min_readers: int = 1
) -> Collection:
    """As :func:`read_vindr`, with every reader's boxes; ``min_readers`` decides labels only."""
    if min_readers < 1:
        raise InputError(f"expected --min-readers of 1 or more, got {min_readers}")
    parts = find_parts(root)
    folder = root.parent if root.is_file() else root
    skipped: list[Skipped] = []
    index = index_images(images_root or folder, skipped)
    told: list[str] = []
    audit = BoxAudit(str(root), form="corners")
    readings = [(part, read_part(part, skipped, told, audit)) for part in parts]
    label_classes = _label_classes(parts)
    box_classes = BOX_CLASSES if parts[0].kaggle else BOX_CLASSES + OTHER_BOX_CLASSES
    samples: list[Sample] = []
    listed: set[str] = set()
    found: list[str] = []
    frameless = 0
    for part, images in readings:
        if twice := sorted(listed & images.keys()):
            raise InputError(
                f"image {twice[0]} is in both the training and the test annotations; copy them again"
            )
        listed |= images.keys()
        for key in sorted(images):
            path = index.find(key)
            if path is not None:
                found.append(path)
                frameless += images[key].frame is None and not path.lower().endswith(_DICOM)
            elif need_images:
                continue
            samples.append(
                _sample(key, path, part, images[key], label_classes, box_classes, min_readers)
            )
    if not samples:
        first = f"; first set aside: {skipped[0].where}: {skipped[0].reason}" if skipped else ""
        raise InputError(
            f"none of the {len(listed):,} images that {parts[0].annotations} lists is in {index.root}{first}"
        )
    told += audit.conclude(lambda key: _size_of(index, key))
    notes = [*_notes(parts, index, len(listed), found, frameless, need_images), *told]
    if {sample.split for sample in samples} == {"train"}:
        samples = [
            replace(sample, split=None) for sample in samples
        ]  # no official split without its other half
    return Collection(
        name="vindr-cxr",
        label_classes=label_classes,
        box_classes=box_classes,
        task="multilabel",
        samples=tuple(samples),
        load=FileLoader(index.root),
        skipped=tuple(skipped),
        notes=tuple(notes),
    )


def _size_of(index: ImageIndex, key: str) -> tuple[int, int] | None:
    path = index.find(key)
    return None if path is None else file_size(index.root / path)


def _label_classes(parts: tuple[Part, ...]) -> tuple[str, ...]:
    if parts[0].kaggle:
        return (*BOX_CLASSES, NO_FINDING)
    told = any(part.labels is not None for part in parts)
    return (*BOX_CLASSES, *OTHER_BOX_CLASSES, *(GLOBAL_CLASSES if told else ()), NO_FINDING)


def _notes(
    parts: tuple[Part, ...],
    index: ImageIndex,
    listed: int,
    found: list[str],
    frameless: int,
    need_images: bool,
) -> list[str]:
    notes = [
        "no patient ids: VinDr-CXR publishes image ids alone, so splits cannot be kept patient-disjoint "
        "(figures may be too high), and every image counts as a patient of its own (intervals may be too narrow)"
    ]
    if need_images:
        notes += index.notes(listed, found, " and ".join(part.annotations.name for part in parts))
    if frameless:
        notes.append(
            f"{counted(frameless, 'converted image has', 'converted images have')} no train_meta.csv: boxes are taken to be in pixels of these files; "
            "if they were resized, add it"
        )
    if not parts[0].kaggle and any(part.labels is None for part in parts):
        notes.append(
            "image_labels_train.csv or image_labels_test.csv is missing: labels of its images come from boxes"
        )
    return notes


def _sample(
    key: str,
    path: str | None,
    part: Part,
    reading: Reading,
    label_classes: tuple[str, ...],
    box_classes: tuple[str, ...],
    min_readers: int,
) -> Sample:
    return Sample(
        id=key,
        source=path or f"{part.split}/{key}.dicom",
        split=part.split,
        labels=_labels(reading, label_classes, min_readers if part.named else 1, part),
        boxes=_boxes(reading, box_classes, part.named),
        boxes_frame=reading.frame,
        attributes={READERS: ";".join(sorted(set().union(*reading.votes.values())))}
        if part.named
        else {},
    )


def _labels(reading: Reading, classes: tuple[str, ...], enough: int, part: Part) -> FloatArray:
    """(k,) float32: 1 where enough readers state the class, otherwise 0, or NaN where nobody was asked."""
    labels = np.full(len(classes), ABSENT, dtype=np.float32)
    if reading.incomplete:
        labels[:] = UNKNOWN
    elif part.labels is None and not part.kaggle:
        labels[[classes.index(name) for name in GLOBAL_CLASSES if name in classes]] = UNKNOWN
    votes: Mapping[str, set[str]] = reading.votes
    present = [
        name for name, readers in votes.items() if name != NO_FINDING and len(readers) >= enough
    ]
    labels[[classes.index(name) for name in present]] = PRESENT
    if present:
        labels[classes.index(NO_FINDING)] = ABSENT
    elif len(votes.get(NO_FINDING, ())) >= enough and not reading.incomplete:
        labels[classes.index(NO_FINDING)] = PRESENT
    return labels


def _boxes(reading: Reading, classes: tuple[str, ...], named: bool) -> Boxes | None:
    """All readers' boxes; None where every box of the image was set aside."""
    if not reading.boxes:
        return None if reading.lost else Boxes.empty()
    return Boxes(
        np.array([xyxy for xyxy, _, _ in reading.boxes], dtype=np.float64),
        np.array([classes.index(name) for _, name, _ in reading.boxes], dtype=np.int64),
        readers=tuple(reader for _, _, reader in reading.boxes) if named else None,
    )
