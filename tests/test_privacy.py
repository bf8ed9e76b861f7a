"""Under ``--pseudonymise`` a name that stands wherever names stand comes out nowhere: not in a file, not on the screen."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from pydicom import dcmread

from dicom_support import write_radiograph
from support import DETECT, PRETRAIN, twinray, write_coco

CANARIES = ("zumpelhuber", "84629173", "1.2.40.77771")
NAME, NUMBER, ROOT = "Zumpelhuber", "84629173", "1.2.40.77771"


def seen_in(*places: Path | str) -> list[str]:
    """Where a canary stands: in names of files, in their bytes, in tables, in text."""
    found = []
    for place in places:
        if isinstance(place, str):
            found += [f"screen: {line}" for line in place.splitlines() if has_canary(line)]
            continue
        for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
            if has_canary(path.name):
                found.append(f"name of {path}")
            if not path.is_file():
                continue
            text = path.read_bytes().decode("latin-1")
            if path.suffix == ".parquet":
                text += repr(pq.read_table(path).to_pylist())
            if has_canary(text):
                found.append(f"{path}: {[c for c in CANARIES if c in text.lower()]}")
    return found


def has_canary(text: str) -> bool:
    return any(canary in text.lower() for canary in CANARIES)


@pytest.fixture(scope="module")
def key(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("key") / "key.txt"
    path.write_text("a long secret\n")
    return path


@pytest.fixture(scope="module")
def export(tmp_path_factory) -> Path:
    """Radiographs as a hospital exports them, with a table: names in folders, files, headers and cells; some files damaged."""
    root = tmp_path_factory.mktemp("exports") / f"Export {NAME}"
    rng = np.random.default_rng(0)
    rows = []
    for i in range(24):
        folder = root / f"{NAME}_Maria {i // 2}" / f"{NUMBER}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.normal(70 + 90 * (i // 2 % 2), 25, (40, 40)).clip(0, 255).astype(np.uint8)
        path = write_radiograph(
            folder / f"{NAME} {i}.dcm",
            pixels,
            PatientID=f"{NUMBER}-{i // 2}",
            PatientName=f"{NAME}^Maria",
            OtherPatientIDs=NUMBER,
            InstitutionName=f"Praxis {NAME}",
            StudyDescription=f"{NAME} thorax",
            SeriesDescription=NUMBER,
            ImageComments=NAME,
            ReferringPhysicianName=NAME,
            OperatorsName=NAME,
            SOPInstanceUID=f"{ROOT}.{i}",
            StudyInstanceUID=f"{ROOT}.8.{i // 2}",
            SeriesInstanceUID=f"{ROOT}.9.{i // 2}",
            BodyPartExamined=NAME.upper() if i == 5 else "CHEST",
        )
        rows.append((path.relative_to(root).as_posix(), ("bright", "dark")[i // 2 % 2], NAME))
    first = root / rows[0][0]
    (root / f"{NAME} copy.dcm").write_bytes(first.read_bytes())
    for at, change in enumerate(
        (
            {"WindowCenter": NAME, "WindowWidth": NUMBER},
            {"Modality": NAME},
            {"PhotometricInterpretation": NAME.upper()},
            {"VOILUTFunction": NAME.upper()},
            {"ViewPosition": NAME.upper()},
        )
    ):
        header = dcmread(first)
        header.SOPInstanceUID = f"{ROOT}.5.{at}"
        for keyword, value in change.items():
            header[keyword] = _raw(keyword, value)
        header.save_as(root / f"{NAME} odd {at}.dcm", enforce_file_format=False)
    (root / f"{NAME}.dcm").write_bytes(b"no DICOM")
    (root / f"{NAME} cut.dcm").write_bytes(first.read_bytes()[:900])
    (root / f"Brief {NAME}.pdf").write_bytes(b"%PDF")
    (root / f"{NAME}.zip").write_bytes(b"PK\x03\x04")
    (root / f"link {NAME}").symlink_to(root.parent, target_is_directory=True)
    rows += [(f"{NAME} odd {i}.dcm", "bright", NAME) for i in range(5)] + [
        (f"{NAME}.dcm", "bright", NAME),
        (f"nowhere {NAME}.dcm", "dark", NAME),
        rows[0],
    ]
    with (root / f"Liste {NAME}.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "name", "phone", "age", "split"))
        table.writerows((*row, NUMBER, 50 + i % 3, "") for i, row in enumerate(rows))
        table.writerow((rows[1][0], "bright", NAME, NUMBER, 50, NAME))
        table.writerow((rows[2][0], "bright", NAME))
        table.writerow((rows[3][0], "bright", NAME, NUMBER, 50, "", NAME))
    return root


def _raw(keyword: str, value: str):
    """An element whose text is not what its representation allows."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    data = value.encode("ascii") + b" " * (len(value) % 2)
    return RawDataElement(
        Tag(tag_for_keyword(keyword)), dictionary_VR(keyword), len(data), data, 0, False, True
    )


def packed(out: Path, key: Path, *arguments: object) -> str:
    done = twinray(
        "pack", *arguments, "--pseudonymise", key, "--out", out, "--size", 32, "--workers", 1,
        "--val", 0.2, "--test", 0.3, check=True,
    )  # fmt: skip
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def dicom_pack(export, key, tmp_path_factory) -> tuple[Path, str, Path]:
    """The export, packed; what was on the screen; and the key holder's table."""
    folder = tmp_path_factory.mktemp("packs")
    out, names = folder / "dicom", folder / "names.csv"
    screen = packed(
        out, key, export, "--format", "dicom", "--table", export / f"Liste {NAME}.csv",
        "--pseudonyms", names, "--attributes", "age", "sex", "sop_uid",
    )  # fmt: skip
    return out, screen, names


def test_a_pack_of_dicom_files_holds_no_name(dicom_pack) -> None:
    pack, screen, _ = dicom_pack
    assert not seen_in(pack, screen)
    skipped = (pack / "skipped.csv").read_text()
    assert " line " in skipped  # rows are still named
    assert len(skipped.splitlines()) > 4
    table = pq.read_table(pack / "samples.parquet").to_pylist()
    kept = [json.loads(row["attributes"]) for row in table]
    assert {name for row in kept for name in row} == {"age", "sex", "sop_uid"}
    assert len({row["patient"] for row in table}) == 12


def test_the_key_holder_finds_everybody_again(dicom_pack, export) -> None:
    pack, _, names = dicom_pack
    assert names.stat().st_mode & 0o077 == 0
    with names.open(newline="") as file:
        back = {row["pseudonym"]: row["original"] for row in csv.DictReader(file)}
    for row in pq.read_table(pack / "samples.parquet").to_pylist():
        assert back[row["id"]].startswith(ROOT)
        assert back[row["patient"]].startswith(NUMBER)
        assert (export / back[row["source"].removesuffix(".dcm")]).is_file()
    with (pack / "skipped.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert back[row["where"].partition(" ")[0].partition(".")[0]]


@pytest.fixture(scope="module")
def coco_pack(key, tmp_path_factory) -> tuple[Path, str, Path]:
    """A COCO file with names wherever it has texts, packed; what was on the screen; and the source."""
    folder = tmp_path_factory.mktemp("coco")
    source = write_coco(folder / f"coco {NAME}", n=12)
    data = json.loads(source.read_text())
    for image in data["images"]:
        name = f"{NAME} {image['file_name']}"
        (source.parent / "images" / image["file_name"]).rename(source.parent / "images" / name)
        image |= {"file_name": name, "patient_id": f"{NUMBER} {image['patient_id']}", "name": NAME}
    data["images"][3]["patient_id"] = None
    data["images"].append({"id": NAME, "file_name": f"{NAME}.png", "width": 1, "height": 1})
    data["annotations"].append({"id": 99, "image_id": NAME, "category_id": 7, "bbox": [NAME]})
    source.write_text(json.dumps(data))
    screen = packed(folder / "pack", key, source, "--format", "coco")
    return folder / "pack", screen, source


def test_a_pack_of_a_coco_file_holds_no_name(coco_pack) -> None:
    pack, screen, _ = coco_pack
    assert not seen_in(pack, screen)
    assert "2 of 13 images have no patient id" in (pack / "pack.json").read_text()


def test_a_pack_of_a_folder_holds_no_name(key, tmp_path) -> None:
    root = tmp_path / f"{NAME} archive"
    rng = np.random.default_rng(0)
    for i in range(12):
        folder = root / ("sick", "well")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (40, 40), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{NAME}-{NUMBER}-{i // 2:02d}_{i}.png")
    whole = (root / "sick" / f"{NAME}-{NUMBER}-00_0.png").read_bytes()
    (root / "sick" / f"{NAME} cut.png").write_bytes(whole[:200])
    screen = packed(tmp_path / "folder", key, root, "--patient-regex", rf"({NAME}-\d+-\d+)_")
    assert "set aside" in screen
    assert not seen_in(tmp_path / "folder", screen)
    patients = pq.read_table(tmp_path / "folder" / "samples.parquet").column("patient").to_pylist()
    assert len(set(patients)) == 6


def test_refusals_hold_no_name(export, key, tmp_path) -> None:
    """What ends a job is said without the names of the source."""
    table = tmp_path / "table.csv"
    table.write_text(f"path,patient\n{NAME}.dcm,{NUMBER}\n")
    jobs = [
        (export, "--format", "dicom", "--table", table),
        (export, "--format", "dicom", "--strict"),
        (export, "--format", "nih"),
        (export / f"Liste {NAME}.csv", "--format", "coco"),
        (export, "--format", "dicom", "--attributes", "shoe_size"),
    ]
    for number, job in enumerate(jobs):
        done = twinray(
            "pack", *job, "--pseudonymise", key, "--out", tmp_path / f"p{number}", "--size", 32
        )
        assert done.returncode == 2, job
        assert "unforeseen" not in done.stderr
        assert not seen_in(done.stdout, done.stderr), job


def test_what_learns_from_such_a_pack_holds_no_name(dicom_pack, cli, tmp_path) -> None:
    pack, _, _ = dicom_pack
    screen = ""
    small = ("--arch", "resnet18", "--size", 32, "--bootstrap", 20)
    for arguments in (
        ("pretrain", "--data", pack, "--out", tmp_path / "pre", *PRETRAIN, "--epochs", 1),
        ("classify", "--data", pack, "--out", tmp_path / "probe", "--seeds", 0, *small),
        ("evaluate", tmp_path / "probe", "--out", tmp_path / "stored", "--bootstrap", 0),
        ("evaluate", tmp_path / "probe", "--data", pack, "--by", "sex", "--out", tmp_path / "fresh",
         "--bootstrap", 0),
    ):  # fmt: skip
        status, out, err = cli(*arguments)
        assert status == 0, err
        screen += out + err
    assert not seen_in(*(tmp_path / n for n in ("pre", "probe", "stored", "fresh")), screen)


def test_predictions_hold_no_name(dicom_pack, export, key, cli, tmp_path) -> None:
    small = ("--arch", "resnet18", "--size", 32, "--bootstrap", 0, "--seeds", 0)
    assert cli("classify", "--data", dicom_pack[0], "--out", tmp_path / "run", *small)[0] == 0
    arguments = ("predict", tmp_path / "run", export, "--pseudonymise", key, "--device", "cpu")
    out, names = tmp_path / "p", tmp_path / "names.csv"
    status, shown, err = cli(*arguments, "--out", out, "--pseudonyms", names)
    assert status == 0, err
    assert not seen_in(out, shown, err)
    with (out / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    packed_as = {
        row["source"]: row["id"]
        for row in pq.read_table(dicom_pack[0] / "samples.parquet").to_pylist()
    }
    same = [row for row in rows if row["file"] in packed_as]
    assert len(same) > 20  # one key, one name, in packs and in predictions
    uids = [name for name in rows[0] if "sop" in name.lower()]
    assert all(row[uids[0]] == packed_as[row["file"]] for row in same)
    assert NAME in names.read_text()


@pytest.fixture(scope="module")
def detector(coco_pack, tmp_path_factory) -> tuple[Path, str]:
    """A detector of that pack, and what was on the screen."""
    run = tmp_path_factory.mktemp("runs") / "detector"
    done = twinray(
        "detect", "--data", coco_pack[0], "--out", run, "--epochs", 1, "--device", "cpu", *DETECT, check=True
    )  # fmt: skip
    return run, done.stdout + done.stderr


def test_detectors_and_what_judges_them_hold_no_name(detector, coco_pack, cli, tmp_path) -> None:
    run, screen = detector
    pack = coco_pack[0]
    few = ("--device", "cpu", "--least-score", 0)
    for arguments in (
        ("evaluate", run, "--data", pack, "--out", tmp_path / "fresh", "--bootstrap", 0, "--device", "cpu"),
        ("explain", run, "--data", pack, "--out", tmp_path / "pack", "--method", "grad-cam", "--count", 1, "--boxes", 1, *few),
        ("faithfulness", run, "--data", pack, "--out", tmp_path / "faith", "--methods", "grad-cam", "--iou", 0.01,
         "--curve-points", 0, "--bootstrap", 0, "--count", 2, *few),
    ):  # fmt: skip
        status, out, err = cli(*arguments)
        assert status == 0, err
        screen += out + err
    assert not seen_in(run, *(tmp_path / n for n in ("fresh", "pack", "faith")), screen)
    assert list((tmp_path / "pack").rglob("*.png"))


def test_heat_maps_of_files_hold_no_name(detector, coco_pack, key, cli, tmp_path) -> None:
    """Truth is found by the names of the files, and stands under their pseudonyms."""
    run, source = detector[0], coco_pack[2]
    files = sorted((source.parent / "images").iterdir())[:2]
    folder = tmp_path / f"{NAME} again"
    folder.mkdir()
    shutil.copy(files[0], folder)
    (folder / f"{NAME} cut.png").write_bytes(files[0].read_bytes()[:200])
    names = tmp_path / "names.csv"
    for number, given in enumerate((files, [folder])):
        status, out, err = cli(
            "explain", run, *given, "--truth", source, "--out", tmp_path / f"x{number}", "--method", "grad-cam", "--boxes", 1,
            "--least-score", 0, "--device", "cpu", "--pseudonymise", key, "--pseudonyms", names,
        )  # fmt: skip
        assert status == 0, err
        assert not seen_in(tmp_path / f"x{number}", out, err)
        assert NAME in names.read_text()
        assert "annotations[9]" in err  # the truth's own faults are still said
        names.unlink()
    assert len(list((tmp_path / "x0").rglob("*.png"))) >= 2
    status, out, err = cli(
        "explain", run, f"{files[0]}x", "--out", tmp_path / "y", "--pseudonymise", key
    )
    assert (status, seen_in(out, err)) == (2, [])


def test_maps_and_neighbours_hold_no_name(coco_pack, key, cli, tmp_path) -> None:
    pack, _, source = coco_pack
    small = (
        "--arch",
        "resnet18",
        "--size",
        32,
        "--maps",
        "pca",
        "--bootstrap",
        0,
        "--page-images",
        12,
        "--device",
        "cpu",
    )
    known = pq.read_table(pack / "samples.parquet").column("id").to_pylist()[0]
    file = sorted((source.parent / "images").iterdir())[0]
    for out, more in (
        ("all", ()),
        ("id", ("--query", known)),
        ("file", ("--query", file, "--pseudonymise", key)),
    ):
        status, shown, err = cli("embed", "--data", pack, "--out", tmp_path / out, *small, *more)
        assert status == 0, err
        assert not seen_in(tmp_path / out, shown, err), out
    status, shown, err = cli(
        "embed",
        "--data",
        pack,
        "--out",
        tmp_path / "no",
        *small,
        "--query",
        f"{file}x",
        "--pseudonymise",
        key,
    )
    assert (status, seen_in(shown, err)) == (2, [])


def drawn(form: str, root: Path) -> Path:
    """A source of a drawing tool with names in files, folders and cells, and faults in three of its rows; what to give."""
    rng = np.random.default_rng(0)
    names = [f"{NAME} {NUMBER}_{i}.png" for i in range(9)]
    images = root / f"{NAME}" / "images"
    images.mkdir(parents=True)
    for name in names:
        Image.fromarray(rng.integers(0, 255, (40, 60), dtype=np.uint8)).save(images / name)
    (images / names[8]).write_bytes(b"no picture")
    boxes = [(5, 6, 25, 30)] * 6 + [(5, 6, 900, 30), (NAME, 6, 25, 30)]
    if form == "yolo":
        (root / NAME / "labels").mkdir()
        (root / NAME / "data.yaml").write_text("names: [mass]\ntrain: images\n")
        for name, (a, *_) in zip(names, boxes, strict=False):
            (root / NAME / "labels" / name.replace(".png", ".txt")).write_text(
                f"0 {a}e-1 0.5 0.1 0.2\n"
            )
        (root / NAME / "labels" / f"{NAME} alone.txt").write_text("")
        return root / NAME / "data.yaml"
    if form == "voc":
        for name, box in zip(names, boxes, strict=False):
            corners = "".join(
                f"<{k}>{v}</{k}>"
                for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
            )
            (root / NAME / name.replace(".png", ".xml")).write_text(
                f"<annotation><folder>{NAME}</folder><filename>{name}</filename><size><width>60</width><height>40</height></size>"
                f"<object><name>mass</name><pose>{NAME}</pose><bndbox>{corners}</bndbox></object></annotation>"
            )
        return root / NAME
    if form == "cvat":
        shapes = "".join(
            f'<image id="{i}" name="{name}" width="60" height="40"><box label="mass" xtl="{a}" ytl="{b}" xbr="{c}" ybr="{d}"/>'
            f'<box label="{NAME}" xtl="1" ytl="1" xbr="9" ybr="9"/></image>'
            for i, (name, (a, b, c, d)) in enumerate(zip(names, boxes, strict=False))
        )
        meta = f"<meta><task><name>{NAME}</name><labels><label><name>mass</name></label></labels></task></meta>"
        (root / NAME / "annotations.xml").write_text(f"<annotations>{meta}{shapes}</annotations>")
        return root / NAME / "annotations.xml"
    tasks = [
        {"id": i, "data": {"image": f"/data/upload/1/{i:08x}-{name}", "patient_id": f"{NUMBER}-{i}", "note": NAME},
         "annotations": [{"completed_by": {"email": f"{NAME}@x.org"}, "result": [
             {"id": NAME, "type": "rectanglelabels", "original_width": 60, "original_height": 40,
              "value": {"x": a, "y": b, "width": c, "height": 9, "rectanglelabels": ["mass"]}}]}]}
        for i, (name, (a, b, c, _)) in enumerate(zip(names, boxes, strict=False))
    ]  # fmt: skip
    (root / NAME / "export.json").write_text(json.dumps(tasks))
    return root / NAME / "export.json"


@pytest.mark.parametrize("form", ["yolo", "voc", "cvat", "label-studio"])
def test_packs_of_drawing_tools_hold_no_name(form, key, cli, tmp_path) -> None:
    source = drawn(form, tmp_path / "in")
    status, out, err = cli(
        "pack",
        source,
        "--format",
        form,
        "--pseudonymise",
        key,
        "--out",
        tmp_path / "p",
        "--size",
        32,
        "--workers",
        1,
    )
    assert status == 0, err
    assert not seen_in(tmp_path / "p", out, err)
    assert len((tmp_path / "p" / "skipped.csv").read_text().splitlines()) > 1


def test_splits_of_named_images_are_used_again_under_pseudonyms(key, tmp_path) -> None:
    root = tmp_path / "images"
    root.mkdir()
    for i in range(12):
        pixels = np.random.default_rng(i).integers(0, 255, (20, 20), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{NAME}{i}.png")
    arguments = ("--size", 16, "--workers", 1)
    twinray("pack", root, *arguments, "--out", tmp_path / "plain", check=True)
    splits = tmp_path / "plain" / "splits.json"
    for number, given in enumerate((splits, tmp_path / "keyed0" / "splits.json")):
        out = tmp_path / f"keyed{number}"
        done = twinray(
            "pack",
            root,
            *arguments,
            "--pseudonymise",
            key,
            "--splits",
            given,
            "--out",
            out,
            check=True,
        )
        assert not seen_in(out, done.stdout, done.stderr)
        plain, keyed = (
            pq.read_table(path / "samples.parquet").column("split").to_pylist()
            for path in (tmp_path / "plain", out)
        )
        assert keyed == plain


def test_the_table_of_names_stays_out_of_the_pack(key, export, cli, tmp_path) -> None:
    arguments = (
        "pack",
        export,
        "--format",
        "dicom",
        "--pseudonymise",
        key,
        "--out",
        tmp_path / "p",
    )
    status, _, told = cli(*arguments, "--pseudonyms", tmp_path / "p" / "names.csv")
    assert (status, "--pseudonyms outside" in told) == (2, True)
    (tmp_path / "there.csv").write_text("x")
    status, _, told = cli(*arguments, "--pseudonyms", tmp_path / "there.csv")
    assert (status, "expected a new file" in told) == (2, True)
    status, _, told = cli(
        "pack", export, "--out", tmp_path / "p", "--pseudonyms", tmp_path / "n.csv"
    )
    assert (status, "--pseudonymise" in told) == (2, True)
