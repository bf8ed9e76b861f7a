"""The verb boxes, and what pack does with several sources, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from twinray.data.pack import open_pack
from twinray.data.readers.coco import read_coco
from twinray.report.charts.box_counts import Panel, box_counts_chart

KAGGLE = "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max"
ROWS = (
    "a,Cardiomegaly,3,R1,100,200,300,400",
    "a,Cardiomegaly,3,R2,102,198,300,400",
    "a,Nodule/Mass,8,R3,10,20,30,40",
    "b,No finding,14,R1,,,,",
    "c,ILD,5,R1,0,0,50,60",
)


@pytest.fixture
def vindr(tmp_path: Path) -> Path:
    root = tmp_path / "vindr"
    root.mkdir()
    (root / "train.csv").write_text("\n".join([KAGGLE, *ROWS]) + "\n")
    (root / "train_meta.csv").write_text("image_id,dim0,dim1\na,600,500\nb,600,500\n")
    return root


@pytest.fixture
def rsna(tmp_path: Path) -> Path:
    root = tmp_path / "rsna"
    (root / "images").mkdir(parents=True)
    (root / "stage_2_train_labels.csv").write_text(
        "patientId,x,y,width,height,Target\np,512,256,128,64,1\nq,,,,,0\nr,0,0,64,64,1\n"
    )
    (root / "patientId_to_nih.csv").write_text(
        "patientId,Image Index\np,00000005_000.png\nq,00000005_001.png\n"
    )
    for key in "pq":
        Image.new("L", (256, 256)).save(root / "images" / f"{key}.png")
    return root


def test_vindr_is_fused_by_default(cli, vindr, tmp_path):
    out, figure = tmp_path / "new" / "c.json", tmp_path / "new" / "f.png"
    status, text, err = cli("boxes", vindr, "--format", "vindr", "--out", out, "--figure", figure)
    assert status == 0, err
    assert "before fusion" in text and "after fusion" in text
    assert "3 boxes on 2 images, 1 image without a box; sizes known of 2" in " ".join(text.split())
    coco = json.loads(out.read_text())
    assert [image["file_name"] for image in coco["images"]] == [
        "train/a.dicom",
        "train/b.dicom",
        "train/c.dicom",
    ]
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (500, 600)
    assert "width" not in coco["images"][2]
    assert [a["n_readers"] for a in coco["annotations"]] == [2, 1, 1]
    assert coco["annotations"][0]["bbox"] == [101, 199, 199, 201]
    assert [c["name"] for c in coco["categories"]][3] == "Cardiomegaly" and len(
        coco["categories"]
    ) == 14
    with Image.open(figure) as image:
        assert image.format == "PNG" and image.width > 800


def test_raw_boxes_keep_readers_and_readers_can_be_counted(cli, vindr, tmp_path):
    assert (
        cli("boxes", vindr, "--format", "vindr", "--out", tmp_path / "r.json", "--fusion-iou", 0)[0]
        == 0
    )
    raw = json.loads((tmp_path / "r.json").read_text())
    assert [a["reader"] for a in raw["annotations"]] == ["R1", "R2", "R3", "R1"]
    status = cli(
        "boxes",
        vindr,
        "--format",
        "vindr",
        "--out",
        tmp_path / "m.json",
        "--min-readers",
        2,
        "--with-boxes-only",
    )
    assert status[0] == 0
    agreed = json.loads((tmp_path / "m.json").read_text())
    assert len(agreed["annotations"]) == len(agreed["images"]) == 1


def test_what_is_written_reads_back(cli, vindr, tmp_path):
    cli("boxes", vindr, "--format", "vindr", "--out", tmp_path / "c.json")
    collection = read_coco(tmp_path / "c.json")
    assert not collection.skipped and len(collection.samples) == 3
    assert [len(s.boxes) for s in collection.samples] == [2, 0, 1]
    status, text, _ = cli(
        "boxes", tmp_path / "c.json", "--format", "coco", "--out", tmp_path / "again.json"
    )
    assert status == 0 and "3 boxes on 2 images" in text
    assert [len(s.boxes) for s in read_coco(tmp_path / "again.json").samples] == [2, 0, 1]


def test_boxes_are_in_pixels_of_the_files_that_are_there(cli, rsna, tmp_path):
    status, _, err = cli("boxes", rsna, "--format", "rsna", "--out", tmp_path / "c.json")
    assert status == 0, err
    coco = json.loads((tmp_path / "c.json").read_text())
    assert [(i["width"], i.get("patient_id")) for i in coco["images"]] == [
        (256, "5"),
        (256, "5"),
        (1024, None),
    ]
    assert [a["bbox"] for a in coco["annotations"]] == [[128, 64, 32, 16], [0, 0, 64, 64]]


def test_classes_of_another_model_are_refused(cli, vindr, blobs, blob_pack, detect_run, tmp_path):
    """By name and by order: labels are numbers."""
    for like, whose in ((detect_run, "run"), (blob_pack, "pack")):
        out = tmp_path / f"{whose}.json"
        status, _, err = cli("boxes", vindr, "--format", "vindr", "--out", out, "--like", like)
        assert status == 2 and len(err.strip().splitlines()) == 1
        assert f"only in the {whose}: ['blob']" in err and "'Cardiomegaly'" in err
        assert not out.exists()
        status, _, err = cli("boxes", blobs, "--format", "coco", "--out", out, "--like", like)
        assert status == 0, err
    two = {"images": [], "annotations": []} | json.loads(blobs.read_text())
    names = [("blob", 7), ("other", 8)]
    for name, numbers in (("first", names), ("second", [("other", 7), ("blob", 8)])):
        two["categories"] = [{"id": number, "name": label} for label, number in numbers]
        (tmp_path / f"{name}.json").write_text(json.dumps(two))
    pack = tmp_path / "pack"
    images = ("--images", blobs.parent / "images")
    common = ("--format", "coco", *images)
    assert (
        cli("pack", tmp_path / "first.json", *common, "--size", 32, "--out", pack, "--workers", 1)[
            0
        ]
        == 0
    )
    status, _, err = cli(
        "boxes", tmp_path / "second.json", *common, "--out", tmp_path / "c.json", "--like", pack
    )
    assert status == 2 and "the same names in another order" in err and "['blob', 'other']" in err
    status, _, err = cli(
        "boxes", tmp_path / "first.json", *common, "--out", tmp_path / "c.json", "--like", vindr
    )
    assert status == 2 and "has neither" in err


def test_bad_rows_and_unreadable_headers_are_counted(cli, rsna, tmp_path):
    (rsna / "images" / "p.png").write_bytes(b"no image")
    with (rsna / "stage_2_train_labels.csv").open("a") as file:
        file.write("s,1,2,3,4,maybe\n")
    status, text, _ = cli("boxes", rsna, "--format", "rsna", "--out", tmp_path / "c.json")
    text = " ".join(text.split())
    assert status == 0 and "set aside: 2" in text and "line 5: expected 'Target'" in text
    assert len(json.loads((tmp_path / "c.json").read_text())["annotations"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "zip", "--out", "c.json"], "format"),
        (["--format", "vindr"], "out"),
        (["--format", "vindr", "--out", "c.json", "--fusion-iou", "1"], "--fusion-iou"),
        (["--format", "vindr", "--out", "c.json", "--min-readers", "0"], "--min-readers"),
        (
            ["--format", "vindr", "--out", "c.json", "--min-readers", "2", "--fusion-iou", "0"],
            "needs fused",
        ),
        (["--format", "vindr", "--out", "c.json", "--figure", "f.gif"], ".png"),
        (["--format", "vindr", "--out", "c.png", "--figure", "c.png"], "same file"),
        (["--format", "rsna", "--out", "c.json"], "stage_2_train_labels"),
        (["--format", "nih", "--out", "c.json"], "Data_Entry_2017"),
        (["--format", "coco", "--out", "c.json"], "is a folder"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(
    cli, vindr, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    status, _, err = cli("boxes", vindr, *arguments)
    assert status == 2 and err.count("\n") == 1 and message in err
    assert not [path for path in tmp_path.iterdir() if path.is_file()]


def test_nothing_is_overwritten(cli, vindr, tmp_path):
    for name, flag in (("c.json", "--out"), ("f.svg", "--figure")):
        (tmp_path / name).write_text("mine")
        arguments = {"--out": tmp_path / "new.json", flag: tmp_path / name}
        status, _, err = cli(
            "boxes", vindr, "--format", "vindr", *(x for pair in arguments.items() for x in pair)
        )
        assert status == 2 and "is there already" in err and (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "new.json").exists()


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_charts_are_the_same_bytes_and_survive_empty_counts(kind):
    panels = (
        Panel("labels", {"x": 3, "y": 0}),
        Panel("boxes", {"x": 5}, {"x": 2}),
        Panel("none", {}),
    )
    first = box_counts_chart(panels, kind)
    assert first == box_counts_chart(panels, kind)
    assert first[:4] in (b"\x89PNG", b"<?xm", b"%PDF")


def test_pack_takes_several_sources(cli, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID\n"
        + "".join(f"{i // 2:08d}_{i % 2:03d}.png,Mass,0,{i // 2}\n" for i in range(12))
    )
    for shard in range(2):
        folder = tmp_path / f"images_{shard + 1:03d}"
        folder.mkdir()
        for i in range(12):
            if i % 2 == shard:
                pixels = rng.integers(0, 256, (20, 20), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i // 2:08d}_{i % 2:03d}.png")
    shards = tmp_path / "images_001", tmp_path / "images_002"
    status, _, err = cli(
        "pack", *shards, "--format", "nih", "--out", tmp_path / "p", "--size", 16, "--workers", 1
    )
    assert status == 0, err
    pack = open_pack(tmp_path / "p")
    assert len(pack) == 12 and pack.info.counts["patients"] == 6
    sides = {
        (patient, split)
        for patient, split in zip(pack.patients.tolist(), pack.splits.tolist(), strict=True)
    }
    assert len(sides) == 6, "a patient's images in two shards stay on one side"
    assert cli("pack", *shards, shards[0], "--format", "nih", "--out", tmp_path / "q")[0] == 2
    status, _, err = cli(
        "pack", *shards, "--format", "nih", "--images", tmp_path, "--out", tmp_path / "q"
    )
    assert status == 2 and "goes with one source" in err


def test_pack_reads_vindr_with_its_options(cli, vindr, tmp_path):
    for key in "abc":
        Image.new("L", (250, 300), ord(key)).save(vindr / f"{key}.png")
    common = (
        "pack",
        vindr,
        "--format",
        "vindr",
        "--size",
        50,
        "--workers",
        1,
        "--val",
        0,
        "--test",
        0,
    )
    assert cli(*common, "--out", tmp_path / "fused")[0] == 0
    fused = open_pack(tmp_path / "fused")
    assert fused.boxes(0).n_readers.tolist() == [2, 1]
    assert fused.boxes(0).xyxy[0].tolist() == [50.5, 99.5, 150, 200], (
        "pixels of the stored file, half the original"
    )
    assert cli(*common, "--fusion-iou", 0, "--out", tmp_path / "raw")[0] == 0
    assert open_pack(tmp_path / "raw").boxes(0).readers == ("R1", "R2", "R3")
    status, _, err = cli("pack", vindr, "--fusion-iou", 0.4, "--out", tmp_path / "x")
    assert status == 2 and "--fusion-iou goes with --format vindr" in err
