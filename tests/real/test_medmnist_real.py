"""A PneumoniaMNIST file against numpy.load, and packed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.medmnist import read_medmnist

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "medmnist" / "pneumoniamnist.npz"

pytestmark = pytest.mark.skipif(
    not FILE.is_file(), reason="the shared PneumoniaMNIST file (../shared/data/medmnist) is absent"
)


def test_every_image_and_label_equals_numpy() -> None:
    found = read_medmnist(FILE)
    assert (found.name, found.label_classes, found.task) == (
        "pneumoniamnist",
        ("normal", "pneumonia"),
        "multiclass",
    )
    with np.load(FILE) as archive:
        for split in ("train", "val", "test"):
            own = [sample for sample in found.samples if sample.split == split]
            np.testing.assert_array_equal(
                np.stack([found.load(sample).array for sample in own]), archive[f"{split}_images"]
            )
            np.testing.assert_array_equal(
                [int(np.argmax(sample.labels)) for sample in own], archive[f"{split}_labels"][:, 0]
            )


def test_official_splits_are_kept_in_a_pack(tmp_path: Path) -> None:
    write_pack([read_medmnist(FILE)], tmp_path / "pack", PackOptions(size=28), workers=1)
    pack = open_pack(tmp_path / "pack")
    with np.load(FILE) as archive:
        sizes = {split: len(archive[f"{split}_images"]) for split in ("train", "val", "test")}
        np.testing.assert_array_equal(pack.images[sizes["train"]], archive["val_images"][0])
    assert pack.info.split_method == "official"
    assert {split: pack.info.counts[split] for split in sizes} == sizes
    assert pack.info.counts["images"] == sum(sizes.values())
