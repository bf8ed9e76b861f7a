"""The pipeline's first steps on real radiographs; with ``-m long`` what takes minutes too."""

import json

import pytest

from support import twinray
from twinray.data.pack import open_pack


def test_kermany_patients_come_from_the_file_names(real_data, tmp_path, cli):
    source = tmp_path / "some"
    for name in ("NORMAL", "PNEUMONIA"):
        (source / name).mkdir(parents=True)
        for file in sorted((real_data / "kermany-cxr" / "train" / name).iterdir())[:60]:
            (source / name / file.name).symlink_to(file)
    regex = r"(person\d+)_|(IM-\d+)-"
    status, _, err = cli(
        "pack",
        source,
        "--patient-regex",
        regex,
        "--val",
        0.1,
        "--test",
        0.2,
        "--size",
        64,
        "--out",
        tmp_path / "p",
    )
    assert status == 0, err
    pack = open_pack(tmp_path / "p")
    assert len(pack) == 120
    assert pack.info.channels == 1  # RGB files that hold grey images
    assert all(p is not None for p in pack.patients)
    sides: dict[str, set[str]] = {}
    for patient, split in zip(pack.patients, pack.splits, strict=True):
        sides.setdefault(patient, set()).add(split)
    assert all(len(splits) == 1 for splits in sides.values())


def test_rsna_boxes_pack_with_patients_on_one_side(real_data, tmp_path, cli):
    source = real_data / "rsna-pneumonia" / "annotations.json"
    status, _, err = cli(
        "pack",
        source,
        "--format",
        "coco",
        "--size",
        64,
        "--val",
        0.15,
        "--test",
        0.3,
        "--out",
        tmp_path / "p",
    )
    assert status == 0, err
    pack = open_pack(tmp_path / "p")
    boxes = [pack.boxes(i) for i in range(len(pack))]
    assert sum(len(b) for b in boxes if b is not None) == 142
    assert sum(len(b) > 0 for b in boxes if b is not None) == 89
    by_split = {split: set(pack.patients[pack.where(split)]) for split in ("train", "val", "test")}
    assert not by_split["train"] & by_split["val"]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["val"] & by_split["test"]


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_a_detector_learns_sixteen_images_by_heart(real_data, tmp_path):
    """Boxes, labels and losses are wired right if and only if this is possible."""
    source = real_data / "rsna-pneumonia" / "annotations.json"
    data = json.loads(source.read_text())
    with_box = {a["image_id"] for a in data["annotations"]}
    images = [image for image in data["images"] if image["id"] in with_box][:16]
    ids = {image["id"] for image in images}
    few = tmp_path / "few.json"
    few.write_text(
        json.dumps(
            {
                **data,
                "images": images,
                "annotations": [a for a in data["annotations"] if a["image_id"] in ids],
            }
        )
    )
    where = source.parent / "images"
    twinray(
        "pack",
        few,
        "--format",
        "coco",
        "--images",
        where,
        "--val",
        0,
        "--test",
        0,
        "--out",
        tmp_path / "p",
        check=True,
    )
    small = (
        "--arch",
        "resnet18",
        "--fpn-channels",
        128,
        "--rois-per-image",
        128,
        "--lr",
        0.0005,
        "--epochs",
        90,
    )
    still = ("--flip", 0, "--scale", 1, 1, "--brightness", 0, "--contrast", 0)
    twinray(
        "detect",
        "--data",
        tmp_path / "p",
        "--out",
        tmp_path / "r",
        *small,
        *still,
        check=True,
        limit=3000,
    )
    metrics = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert metrics["train"]["map50"]["value"] >= 0.9
