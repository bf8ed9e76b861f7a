"""Which published data sets hold the same people and images, and which ids tell whose image is whose.

A data set that was made from another has that other's people. Figures on RSNA's images say little of a network that was
pre-trained on NIH's, whatever the two call them. The table below, :data:`DATA_SETS`, names for each data set its *origin*
and where that is published.

Three things decide whether two images of one origin can be the same person's, the first that can:

- ids. A data set that keeps its origin's file names or patient numbers, or that comes with a mapping, says of each image
  which one of the origin it is, or of which patient.
- parts. Some data sets say which part of the origin each of their splits came from; different parts share nobody.
- nothing. Then all of one data set counts as all of the other.

A data set is known by the name of its source (a reader's own, or that of a folder), by file names that no other data set
has, or because ``pack --data-set`` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

_SAMPLED: Final = 200
_MOST_OF: Final = 0.9


@dataclass(frozen=True, slots=True)
class DataSet:
    """One published data set.

    Attributes:
        key: its name here, as ``pack --data-set`` takes it.
        origin: key of the data set that its people are of; its own where it is first.
        fact: where it is published that it has the origin's people.
        names: expression that the names of its sources match, in lower case with ``-`` for other signs.
        files: expression that the stems of its file names match and no other data set's do; empty for none.
        image: expression whose group is the origin's id of an image, searched in an image's id, in lower case.
        patient: expression whose group is the origin's patient, searched in an image's id, in lower case.
        patients: expression that patient ids match where they are the origin's own.
        parts: part of the origin by the first folder of an id; ``""`` is for every other. Empty: not known.
        mapping: attribute of a sample that holds the origin's id of the image; empty for none.
        advice: what a user can do to tell images apart; empty for nothing.
    """

    key: str
    origin: str
    fact: str
    names: str
    files: str = ""
    image: str = ""
    patient: str = ""
    patients: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    mapping: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is known of one image of a data set.

    Attributes:
        image: the origin's id of the image; None where not known.
        patient: the origin's patient; None where not known.
        part: part of the origin that it is from; empty where not known.
    """

    image: str | None = None
    patient: str | None = None
    part: str = ""

    @property
    def settled(self) -> bool:
        """Whether ids tell which image or patient of the origin this is."""
        return self.image is not None or self.patient is not None


_MEDMNIST = "Yang et al., MedMNIST v2, Scientific Data 10:41, 2023"
_MEDIMETA = "Woerner et al., MedIMeta, Scientific Data 2025"
_NIH_FILE = r"(?:^|[/_-])(\d{8}_\d{3})(?=$|[._/-])"
_NIH_PATIENTS = r"0*([1-9]\d{0,4})"
_CHEXPERT_FILE = r"(patient\d+/study\d+/view\d+_(?:frontal|lateral))"
_MIMIC_FILE = r"([0-9a-f]{8}(?:-[0-9a-f]{8}){4})"
_KERMANY_FILE = r"(person\d+_(?:bacteria|virus)_\d+|(?:normal2-)?im-\d{4}-\d{4}(?:-\d{4})?)"
_OCT_FILE = r"((?:cnv|dme|drusen|normal)-\d+-\d+)"
_ISIC_FILE = r"(isic_\d{7})"
_ORGANS = {"train": "train", "val": "val", "test": "test"}
_TISSUE = {"train": "NCT-CRC-HE-100K", "val": "NCT-CRC-HE-100K", "test": "CRC-VAL-HE-7K"}

_TABLE: tuple[DataSet, ...] = (
    # NIH ChestX-ray14 and what was made of it
    DataSet(
        "nih-cxr14", "nih-cxr14", "Wang et al., ChestX-ray8, CVPR 2017",
        r"nih(-.*)?|cxr-?14|chest-?x-?ray-?(8|14)(-.*)?",
        files=r"\d{8}_\d{3}", image=_NIH_FILE, patient=r"(?:^|[/_-])0*(\d+)_\d{3}(?=$|[._/-])", patients=_NIH_PATIENTS,
    ),
    DataSet(
        "rsna-pneumonia", "nih-cxr14",
        "Shih et al., Radiology: Artificial Intelligence 2019: RSNA's 30,000 images are NIH's, under new ids",
        r"rsna(-pneumonia)?(-.*)?", image=_NIH_FILE, patient=r"(?:^|[/_-])0*(\d+)_\d{3}(?=$|[._/-])",
        patients=_NIH_PATIENTS, mapping="nih_image",
        advice="put the published mapping beside the labels (patientId_to_nih.csv: patientId,Image Index) and pack again, so "
        "that ids decide",
    ),
    DataSet(
        "siim-acr-pneumothorax", "nih-cxr14",
        "Filice et al., Journal of Digital Imaging 33:490, 2020: annotations of NIH's images, under new ids",
        r"siim(-acr)?-pneumothorax(-.*)?", image=_NIH_FILE,
    ),
    DataSet(
        "chestx-det", "nih-cxr14", "Lian et al., arXiv 2104.10326, 2021: a selection of NIH's images, numbered anew",
        r"chest-?x-?det(10)?(-.*)?",
    ),
    DataSet(
        "covidx", "nih-cxr14", "Wang et al., COVID-Net, Scientific Reports 2020: holds RSNA's images, which are NIH's",
        r"covid-?x(-.*)?", image=_NIH_FILE,
    ),
    DataSet("chestmnist", "nih-cxr14", f"{_MEDMNIST}: all 112,120 images of NIH, split anew", r"chestmnist"),
    DataSet("medimeta-cxr", "nih-cxr14", f"{_MEDIMETA}: cxr is NIH's", r"medimeta-cxr", patients=_NIH_PATIENTS),
    # CheXpert: one set of images in several editions
    DataSet(
        "chexpert", "chexpert", "Irvin et al., AAAI 2019; the small edition and CheXpert Plus (Chambon et al., arXiv "
        "2405.19538) are the same images, CheXphoto (Phillips et al., 2020) photographs of them",
        r"(chexpert|chexphoto|chexlocalize|chexplus)(-.*)?", files=r"view\d+_(frontal|lateral)",
        image=_CHEXPERT_FILE, patient=r"(patient\d+)/study\d+", patients=r"(patient\d+)",
    ),
    # MIMIC-CXR
    DataSet(
        "mimic-cxr", "mimic-cxr", "Johnson et al., Scientific Data 6:317, 2019; MIMIC-CXR-JPG (arXiv 1901.07042), MS-CXR and "
        "Chest ImaGenome keep its ids",
        r"(mimic(-cxr)?|ms-cxr|chest-?imagenome)(-.*)?", files=_MIMIC_FILE, image=_MIMIC_FILE,
        patient=r"(?:^|/)p(\d{8})/", patients=r"p?(\d{8})",
    ),
    # PadChest, BRAX, Object-CXR: nothing here is made of them
    DataSet(
        "padchest", "padchest", "Bustos et al., PadChest, Medical Image Analysis 66:101797, 2020", r"(bimcv-)?padchest(-.*)?",
        patients=r"(\d{30,40})",
    ),
    DataSet("brax", "brax", "Reis et al., BRAX, Scientific Data 9:487, 2022", r"brax(-.*)?"),
    DataSet("object-cxr", "object-cxr", "JF Healthcare, object-CXR, a challenge of MIDL 2020", r"object-?cxr(-.*)?"),
    # VinDr-CXR
    DataSet(
        "vindr-cxr", "vindr-cxr", "Nguyen et al., VinDr-CXR, Scientific Data 9:429, 2022: the training images of Kaggle's "
        "VinBigData challenge are those of PhysioNet's, by the same ids",
        r"(vindr(-cxr)?|vin-?big(data)?)(-.*)?", image=r"(?:^|/)([0-9a-f]{32})(?=$|[._])",
    ),
    # Kermany et al.: chest radiographs of children, and OCT
    DataSet(
        "kermany-cxr", "kermany-cxr", "Kermany et al., Cell 172:1122, 2018",
        r"kermany(-(cxr|pneumonia|chest-?x-?rays?))?|chest-?x-?ray-?2017",
        files=_KERMANY_FILE, image=_KERMANY_FILE,
    ),
    DataSet("pneumoniamnist", "kermany-cxr", f"{_MEDMNIST}: 5,856 images of children, Kermany's", r"pneumoniamnist"),
    DataSet("medimeta-pneumonia", "kermany-cxr", f"{_MEDIMETA}: pneumonia is Kermany's", r"medimeta-pneumonia"),
    DataSet(
        "kermany-oct", "kermany-oct", "Kermany et al., Cell 172:1122, 2018",
        r"kermany-oct|oct-?2017", files=_OCT_FILE, image=_OCT_FILE, patient=r"((?:cnv|dme|drusen|normal)-\d+)-\d+",
    ),
    DataSet("octmnist", "kermany-oct", f"{_MEDMNIST}: 109,309 images, Kermany's", r"octmnist"),
    DataSet("medimeta-oct", "kermany-oct", f"{_MEDIMETA}: oct is Kermany's", r"medimeta-oct"),
    # LiTS: three cuts through the same scans
    DataSet(
        "lits", "lits", "Bilic et al., The Liver Tumor Segmentation Benchmark, Medical Image Analysis 2023",
        r"lits(-?17)?(-.*)?|(msd-)?task03-liver",
    ),
    *(
        DataSet(
            name, "lits", f"{_MEDMNIST}: slices of LiTS, its scans in the same splits for all three planes",
            rf"{name}|organmnist-{plane}", parts=_ORGANS,
        )
        for name, plane in (("organamnist", "axial"), ("organcmnist", "coronal"), ("organsmnist", "sagittal"))
    ),
    *(
        DataSet(f"medimeta-organs-{plane}", "lits", f"{_MEDIMETA}: slices of LiTS", rf"medimeta-organs-{plane}")
        for plane in ("axial", "coronal", "sagittal")
    ),
    # Kather et al.: tiles of colorectal tissue
    DataSet(
        "nct-crc-he-100k", "nct-crc", "Kather et al., PLoS Medicine 2019", r"nct-crc-he-100k(-.*)?",
        parts={"": "NCT-CRC-HE-100K"},
    ),
    DataSet("crc-val-he-7k", "nct-crc", "Kather et al., PLoS Medicine 2019", r"crc-val-he-7k", parts={"": "CRC-VAL-HE-7K"}),
    DataSet("pathmnist", "nct-crc", f"{_MEDMNIST}: NCT-CRC-HE-100K, and CRC-VAL-HE-7K for testing", r"pathmnist", parts=_TISSUE),
    DataSet("medimeta-crc", "nct-crc", f"{_MEDIMETA}: crc is Kather's", r"medimeta-crc"),
    # further sources of MedMNIST and MedIMeta
    DataSet(
        "ham10000", "ham10000", "Tschandl et al., Scientific Data 5:180161, 2018", r"ham-?10000(-.*)?",
        files=_ISIC_FILE, image=_ISIC_FILE,
    ),
    DataSet("dermamnist", "ham10000", f"{_MEDMNIST}: HAM10000", r"dermamnist"),
    DataSet("medimeta-derm", "ham10000", f"{_MEDIMETA}: derm is HAM10000", r"medimeta-derm"),
    DataSet("deepdrid", "deepdrid", "Liu et al., DeepDRiD, Patterns 2022", r"deep-?drid(-.*)?"),
    DataSet("retinamnist", "deepdrid", f"{_MEDMNIST}: DeepDRiD", r"retinamnist"),
    DataSet("medimeta-dr-regular", "deepdrid", f"{_MEDIMETA}: dr_regular is DeepDRiD's", r"medimeta-dr-regular"),
    DataSet("busi", "busi", "Al-Dhabyani et al., Data in Brief 28:104863, 2020", r"busi|dataset-busi(-.*)?"),
    DataSet("breastmnist", "busi", f"{_MEDMNIST}: 780 images, Al-Dhabyani's", r"breastmnist"),
    DataSet("medimeta-bus", "busi", f"{_MEDIMETA}: bus is BUSI", r"medimeta-bus"),
    DataSet("pbc", "pbc", "Acevedo et al., Data in Brief 30:105474, 2020", r"pbc(-dataset.*)?"),
    DataSet("medimeta-pbc", "pbc", f"{_MEDIMETA}: pbc is Acevedo's", r"medimeta-pbc"),
    DataSet("bloodmnist", "pbc", f"{_MEDMNIST}: 17,092 images, Acevedo's", r"bloodmnist"),
    DataSet("bbbc051", "bbbc051", "Ljosa et al., Nature Methods 9:637, 2012 (Broad Bioimage Benchmark Collection)", r"bbbc-?051"),
    DataSet("tissuemnist", "bbbc051", f"{_MEDMNIST}: BBBC051", r"tissuemnist"),
)  # fmt: skip

NO_DATA_SET: Final = "none"
"""What is stated of a source that is a copy of no data set in the table, whatever its name."""

DATA_SETS: Mapping[str, DataSet] = {row.key: row for row in _TABLE}
"""Every known data set by its key."""


def known_as(name: str, ids: Sequence[str], stated: str = "") -> DataSet | None:
    """The data set that a source is a copy of; None where that is not known.

    Args:
        name: name of the source in a pack (``rsna-pneumonia``, ``pneumoniamnist_64``, a folder's name).
        ids: ids of its images; some are looked at.
        stated: key that the user stated, or ``none``; takes precedence.
    """
    if stated:
        return DATA_SETS.get(stated)
    plain = re.sub(r"(?<=mnist)[-_](28|64|128|224)$", "", name.lower())
    plain = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    for row in _TABLE:
        if re.fullmatch(row.names, plain):
            return row
    few = ids[:: max(1, len(ids) // _SAMPLED)][:_SAMPLED]
    stems = [PurePosixPath(each.replace("\\", "/")).name.split(".")[0].lower() for each in few]
    for row in _TABLE:
        if row.files and stems:
            hits = sum(re.fullmatch(row.files, stem) is not None for stem in stems)
            if hits >= _MOST_OF * len(stems):
                return row
    return None


def identify(
    data_set: DataSet, image: str, patient: str | None, attributes: Mapping[str, str]
) -> Identity:
    """What ids say of one image.

    Args:
        data_set: data set that it is of.
        image, patient: its own ids, as its source writes them.
        attributes: further columns of its source.
    """
    plain = image.replace("\\", "/").lower()
    told = attributes.get(data_set.mapping, "").lower() if data_set.mapping else ""
    own = _group(data_set.image, told) or _group(data_set.image, plain)
    whose = _group(data_set.patient, told) or _group(data_set.patient, plain)
    if whose is None and patient and data_set.patients:
        found = re.fullmatch(data_set.patients, patient.strip().lower())
        whose = found[1] if found else None
    return Identity(own, whose, data_set.parts.get(plain.split("/")[0], data_set.parts.get("", "")))


def _group(expression: str, text: str) -> str | None:
    found = re.search(expression, text) if expression and text else None
    return None if found is None else found[1]
