"""Published tables that a study's figures may stand beside: values as printed, and what they were measured on and how.

Values are those of the papers' tables; facts are those of their texts, of their released code, or of their logs, and say which. A
table is measured on its own images by its own protocol, so no value here is a target.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

ASPECTS = (
    "test images", "split", "training images", "pre-training", "network", "training", "epoch that is tested", "seeds", "interval",
)  # fmt: skip
"""What two tables may differ in, in the order shown."""


@dataclass(frozen=True)
class PrintedValue:
    """One value of a published table.

    Attributes:
        arm: the paper's name of its initial weights. printed: the value with its interval, as printed.
        share: share of the training images, 0..1. size: side of the input in pixels; 0 where the table has one size.
    """

    arm: str
    printed: str
    share: float = 1.0
    size: int = 0


@dataclass(frozen=True)
class PrintedTable:
    """A published table of test figures.

    Attributes:
        title: what it shows. source: where it is printed.
        verb: detect or classify. measure: our name of its measure.
        unit: unit of its values. factor: by which ours are multiplied to have it.
        values: in the order printed.
        facts: aspect (:data:`ASPECTS`) -> what the paper did.
    """

    title: str
    source: str
    verb: str
    measure: str
    values: tuple[PrintedValue, ...]
    facts: Mapping[str, str]
    unit: str = ""
    factor: float = 1.0

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of its arms."""
        return tuple(dict.fromkeys(value.arm for value in self.values))


_CXR = "Sheng, Ma, Samson and Liu, BarlowTwins-CXR, arXiv:2402.06499"
_COMPARED = "Elsherif, Frank, Kemp, Krause and Rebig, A Comparative Study of Barlow Twins Pre-training and ImageNet Fine-Tuning"
_NIH_PRETRAINING = (
    "NIH ChestX-ray14's list train_val, 86,524 images, by the paper; its released log has all 112,120. From ImageNet V2 weights, "
    "while the ImageNet arms start from V1."
)
_BOXES = MappingProxyType(
    {
        "test images": "VinDr-CXR: 660 of the 4,394 training images that have boxes; normal images are left out. Readers' boxes fused at IoU 0.5.",
        "split": "by image, 3,075 to train, 659 to choose, 660 to test; the data set has no patient ids",
        "training images": "3,075",
        "pre-training": _NIH_PRETRAINING,
        "network": "Faster R-CNN with FPN on ResNet-50; stem and first stage frozen, BatchNorm in eval mode. Without pre-training: another "
        "head, GroupNorm, and a random stem that stays frozen, by the released configuration.",
        "training": "SGD, learning rate 0.005, batch 32, 50 epochs; MMDetection's L1 box losses",
        "epoch that is tested": "best mAP50 on validation images",
        "seeds": "4 at 224 pixels, 5 at 640",
        "interval": "95 %, over seeds alone",
    }
)
_FINDINGS = MappingProxyType(
    {
        "test images": "a fifth of NIH ChestX-ray14's test_list (25,596 images of 2,797 patients); 15 labels, No Finding among them",
        "split": "by image: of 93.8 % of the held-out images the patient is in the training images too, by count of the lists",
        "training images": "four fifths of test_list; 1, 10 and 100 % of them",
        "pre-training": _NIH_PRETRAINING,
        "network": "ResNet-50, one linear layer on its features",
        "training": "binary cross-entropy, 30 epochs, batch 64",
        "epoch that is tested": "chosen on the test images, by the released code",
        "seeds": "5",
        "interval": "95 %, over seeds alone",
    }
)


def _shares(arm: str, *printed: str, shares: tuple[float, ...]) -> tuple[PrintedValue, ...]:
    return tuple(PrintedValue(arm, p, share) for share, p in zip(shares, printed, strict=True))


def _compared(test: str, pretraining: str, how: str) -> Mapping[str, str]:
    return MappingProxyType(
        {
            "test images": test,
            "split": "the one that MIMeta comes with",
            "pre-training": f"Barlow Twins on {pretraining}, 1,000 epochs, batch 256, Adam",
            "network": f"ResNet-18, one linear layer; {how}",
            "seeds": "not stated",
            "interval": "none printed",
        }
    )


_THREE = (0.01, 0.1, 1.0)
_FOUR = (0.1, 0.25, 0.5, 1.0)
_SIX = (0.005, 0.01, 0.1, 0.25, 0.5, 1.0)
_TISSUE = "MIMeta's colorectal tissue, 9 classes, 107,180 images in all"
_SAGITTAL = "MIMeta's sagittal liver slices, 11 organs, 1,645 images in all; about 165 test images, by the paper"
_LIVER = "axial, coronal and sagittal slices together"

TABLES: Mapping[str, PrintedTable] = MappingProxyType(
    {
        "barlow-cxr-boxes": PrintedTable(
            "Boxes on VinDr-CXR, test images",
            f"{_CXR}, table 1",
            "detect",
            "map50",
            (
                PrintedValue("none", "0.1342 (0.1306, 0.1378)", size=224),
                PrintedValue("ImageNet", "0.2210 (0.2194, 0.2226)", size=224),
                PrintedValue("Barlow Twins", "0.2448 (0.2414, 0.2482)", size=224),
                PrintedValue("Barlow Twins from ImageNet", "0.2502 (0.2476, 0.2528)", size=224),
                PrintedValue("ImageNet", "0.280 (0.2757, 0.2848)", size=640),
                PrintedValue("Barlow Twins from ImageNet", "0.289 (0.2826, 0.2954)", size=640),
            ),
            _BOXES,
        ),
        "barlow-cxr-linear": PrintedTable(
            "Findings on NIH ChestX-ray14, linear layer alone",
            f"{_CXR}, table 2",
            "classify",
            "auc",
            (
                *_shares("BarlowTwins-CXR", "0.6586 (0.6556, 0.6616)", "0.7773 (0.7756, 0.7790)", "0.8031 (0.8027, 0.8035)", shares=_THREE),
                *_shares("ImageNet", "0.5932 (0.5913, 0.5951)", "0.6855 (0.6822, 0.6889)", "0.7098 (0.7089, 0.7107)", shares=_THREE),
            ),
            _FINDINGS,
        ),
        "barlow-cxr-end-to-end": PrintedTable(
            "Findings on NIH ChestX-ray14, all layers trained",
            f"{_CXR}, table 3",
            "classify",
            "auc",
            (
                *_shares("BarlowTwins-CXR", "0.6585 (0.6544, 0.6627)", "0.7756 (0.7745, 0.7768)", "0.8107 (0.8098, 0.8116)", shares=_THREE),
                *_shares("ImageNet", "0.6163 (0.6110, 0.6216)", "0.7168 (0.7093, 0.7243)", "0.7866 (0.7843, 0.7889)", shares=_THREE),
            ),
            _FINDINGS,
        ),
        "medical-barlow-tissue-head": PrintedTable(
            "Colorectal tissue, last layer alone",
            _COMPARED,
            "classify",
            "accuracy",
            (
                *_shares("Barlow Twins", "91.25", "93.26", "95.78", "96.29", "96.43", "96.64", shares=_SIX),
                *_shares("ImageNet", "85.91", "88.66", "92.40", "93.11", "93.49", "93.61", shares=_SIX),
            ),
            _compared(_TISSUE, "the same images", "backbone frozen"),
            "%",
            100.0,
        ),
        "medical-barlow-tissue-full": PrintedTable(
            "Colorectal tissue, all layers trained",
            _COMPARED,
            "classify",
            "accuracy",
            (
                *_shares("Barlow Twins", "88.93", "92.03", "96.34", "96.42", "97.34", "97.97", shares=_SIX),
                *_shares("ImageNet", "89.30", "93.00", "95.98", "94.57", "97.74", "96.86", shares=_SIX),
            ),
            _compared(_TISSUE, "the same images", "all layers trained"),
            "%",
            100.0,
        ),
        "medical-barlow-sagittal-head": PrintedTable(
            "Sagittal liver slices, last layer alone",
            _COMPARED,
            "classify",
            "accuracy",
            (
                *_shares("Barlow Twins", "63.41", "71.34", "77.44", "79.27", shares=_FOUR),
                *_shares("ImageNet", "54.27", "48.78", "47.56", "50.00", shares=_FOUR),
            ),
            _compared(_SAGITTAL, _LIVER, "backbone frozen"),
            "%",
            100.0,
        ),
        "medical-barlow-sagittal-full": PrintedTable(
            "Sagittal liver slices, all layers trained",
            _COMPARED,
            "classify",
            "accuracy",
            (
                *_shares("Barlow Twins", "68.90", "75.00", "78.66", "78.05", shares=_FOUR),
                *_shares("ImageNet", "62.20", "71.95", "79.88", "76.22", shares=_FOUR),
            ),
            _compared(_SAGITTAL, _LIVER, "all layers trained"),
            "%",
            100.0,
        ),
    }
)  # fmt: skip
"""Published tables by the name that a study's file calls them."""
