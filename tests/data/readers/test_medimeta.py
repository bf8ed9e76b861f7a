"""MedIMeta folders of TIFFs and of HDF5: tasks, splits, patients, several sets in one pack, and what is refused."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from twinray.data.decoding.sandbox import map_in_workers
from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.medimeta import Hdf5Loader, read_medimeta
from twinray.errors import InputError
from twinray.records import Sample

ORGANS = {
    "task_name": "organ label",
    "task_target": "MULTICLASS_CLASSIFICATION",
    "labels": {0: "heart", 1: "left lung", 2: "liver"},
}
FINDINGS = {
    "task_name": "disease labels",
    "task_target": "MULTILABEL_CLASSIFICATION",
    "labels": {0: "Mass", 1: "Nodule"},
}
SEX = {
    "task_name": "patient sex",
    "task_target": "BINARY_CLASSIFICATION",
    "labels": {0: "M", 1: "F"},
}
LABELS = {
    "organ label": np.array([0, 1, 2, 0, 1, 2]),
    "disease labels": np.array([[0, 1], [1, 1], [0, 0], [1, 0], [0, 1], [0, 0]]),
    "patient sex": np.array([0, 1, 0, 1, 0, 1]),
}
SPLIT = {"train": [0, 1, 2], "val": [3], "test": [4, 5]}


def refusal(call: Callable[[], object]) -> str | None:
    """What an InputError says, None where nothing was refused; any other exception passes."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def pixels(colour: bool, seed: int = 0) -> np.ndarray:
    """(6, 16, 16, 1 or 3) uint8."""
    return np.random.default_rng(seed).integers(
        0, 256, (6, 16, 16, 3 if colour else 1), dtype=np.uint8
    )


def build(
    root: Path,
    tasks: list[dict[str, Any]],
    *,
    colour: bool = False,
    tiff: bool = True,
    hdf5: bool = False,
    patients: bool = True,
    split: dict[str, list[int]] = SPLIT,
    folder: str = "splits",
) -> Path:
    for name in ("images", folder, "task_labels"):
        (root / name).mkdir(parents=True, exist_ok=True)
    info = {
        "id": root.name,
        "name": "a set",
        "tasks": tasks,
        "input_size": [3 if colour else 1, 16, 16],
    }
    (root / "info.yaml").write_text(yaml.safe_dump(info, sort_keys=False))
    for name, members in split.items():
        (root / folder / f"{name}.txt").write_text(
            "\n".join(f"images/{i:06d}.tiff" for i in members)
        )
    for task in tasks:
        np.save(root / "task_labels" / f"{task['task_name']}.npy", LABELS[task["task_name"]])
    lines = [
        "filepath,tasks/organ label,original_filepath,original_split"
        + (",patient_id" if patients else "")
    ]
    lines += [
        f"images/{i:06d}.tiff,0,v{i}.nii,train" + (f",{i // 2}" if patients else "")
        for i in range(6)
    ]
    (root / "annotations.csv").write_text("\n".join(lines) + "\n")
    images = pixels(colour)
    if tiff:
        for i, image in enumerate(images):
            Image.fromarray(image if colour else image[..., 0]).save(
                root / "images" / f"{i:06d}.tiff"
            )
    if hdf5:
        h5py = pytest.importorskip("h5py", reason="reading HDF5 needs h5py (the [hdf5] extra)")
        with h5py.File(root / "images.hdf5", "w") as file:
            file.create_dataset("images", data=images)
    return root


def shown(image: np.ndarray) -> np.ndarray:
    return image if image.shape[-1] == 3 else image[..., 0]


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize(("tiff", "hdf5"), [(True, False), (False, True), (True, True)])
def test_pixels_of_tiffs_and_of_hdf5(tmp_path: Path, colour: bool, tiff: bool, hdf5: bool) -> None:
    found = read_medimeta(build(tmp_path / "organs", [ORGANS], colour=colour, tiff=tiff, hdf5=hdf5))
    load = pickle.loads(pickle.dumps(found.load))
    assert isinstance(load, Hdf5Loader) != tiff
    for i, sample in enumerate(found.samples):
        assert sample.source == (f"images/{i:06d}.tiff" if tiff else f"images.hdf5#{i}")
        np.testing.assert_array_equal(load(sample).array, shown(pixels(colour)[i]))


def test_the_only_task_splits_and_patients(tmp_path: Path) -> None:
    found = read_medimeta(build(tmp_path / "organs", [ORGANS]))
    assert (found.name, found.label_classes, found.task) == (
        "organs",
        ("heart", "left lung", "liver"),
        "multiclass",
    )
    assert [s.id for s in found.samples] == [f"{i:06d}" for i in range(6)]
    assert [s.split for s in found.samples] == ["train"] * 3 + ["val"] + ["test"] * 2
    assert [s.patient for s in found.samples] == ["0", "0", "1", "1", "2", "2"]
    np.testing.assert_array_equal(
        [np.argmax(s.labels) for s in found.samples], LABELS["organ label"]
    )
    assert dict(found.samples[1].attributes) == {
        "original_filepath": "v1.nii",
        "original_split": "train",
    }
    assert not found.notes
    assert not found.skipped


def test_a_task_is_chosen_by_name(tmp_path: Path) -> None:
    root = build(tmp_path / "cxr", [FINDINGS, SEX])
    several = read_medimeta(root, task="Disease Labels")
    assert (several.label_classes, several.task) == (("Mass", "Nodule"), "multilabel")
    np.testing.assert_array_equal([s.labels for s in several.samples], LABELS["disease labels"])
    binary = read_medimeta(root, task="patient sex")
    assert (binary.label_classes, binary.task) == (("M", "F"), "multiclass")
    np.testing.assert_array_equal(
        [np.argmax(s.labels) for s in binary.samples], LABELS["patient sex"]
    )
    with pytest.raises(InputError, match=r"\(disease labels, patient sex\), got 'age'"):
        read_medimeta(root, task="age")


def test_of_several_tasks_none_is_taken_unasked(tmp_path: Path) -> None:
    found = read_medimeta(build(tmp_path / "cxr", [FINDINGS, SEX]))
    assert (found.task, found.label_classes) == ("none", ())
    assert all(sample.labels is None for sample in found.samples)
    assert found.notes == (
        "labels are left out: 2 tasks, choose one with --task (disease labels, patient sex)",
    )


def test_one_column_of_labels_and_sparse_class_numbers(tmp_path: Path) -> None:
    root = build(tmp_path / "organs", [{**ORGANS, "labels": {0: "a", 5: "b"}}])
    np.save(root / "task_labels" / "organ label.npy", np.array([[0], [5], [0], [7], [-1], [5]]))
    found = read_medimeta(root)
    assert found.label_classes == ("a", "b")
    assert [None if s.labels is None else int(np.argmax(s.labels)) for s in found.samples] == [
        0,
        1,
        0,
        None,
        None,
        1,
    ]
    assert [s.where.rsplit(" ", 1)[1] for s in found.skipped] == ["3", "4"]
    assert "got 7; the image is kept without" in found.skipped[0].reason


def test_labels_that_are_not_stated(tmp_path: Path) -> None:
    root = build(tmp_path / "cxr", [FINDINGS])
    np.save(
        root / "task_labels" / "disease labels.npy",
        np.array([[0, np.nan], [np.nan] * 2, *[[1.0, 0.5]] * 3]),
    )
    found = read_medimeta(root)
    np.testing.assert_array_equal(found.samples[0].labels, [0, np.nan])
    assert all(sample.labels is None for sample in found.samples[1:])
    assert len(found.skipped) == 4
    assert "has only 5 rows" in found.skipped[-1].reason


def test_an_empty_split_has_no_file_and_original_splits_stand_in(tmp_path: Path) -> None:
    root = build(tmp_path / "a", [ORGANS], split={"train": [0, 2], "test": [5]}, patients=False)
    found = read_medimeta(root)
    assert [(s.id, s.split) for s in found.samples] == [
        ("000000", "train"),
        ("000002", "train"),
        ("000005", "test"),
    ]
    assert "3 images are in no split and were left out" in found.notes
    assert any("no patient ids" in note for note in found.notes)
    other = read_medimeta(build(tmp_path / "b", [ORGANS], folder="original_splits"))
    assert len(other.samples) == 6
    assert any("original_splits/" in note for note in other.notes)


def test_lines_of_a_split_that_name_no_image_or_one_twice(tmp_path: Path) -> None:
    root = build(tmp_path / "a", [ORGANS])
    (root / "splits" / "val.txt").write_text(
        "images/000003.tiff\n\nimages\\000002.tiff\nx\n../²²²²²²\n"
    )
    found = read_medimeta(root)
    assert len(found.samples) == 6
    assert [s.where.rsplit(" ", 1)[1] for s in found.skipped] == ["3", "4", "5"]
    assert "already in train" in found.skipped[0].reason


def test_missing_tiffs_are_one_count_and_hdf5_stands_in(tmp_path: Path) -> None:
    root = build(tmp_path / "a", [ORGANS])
    (root / "images" / "000001.tiff").unlink()
    found = read_medimeta(root)
    assert [s.id for s in found.samples] == ["000000", "000002", "000003", "000004", "000005"]
    assert found.notes == ("1 image that the splits list is not there (first: 000001); left out",)
    whole = build(tmp_path / "b", [ORGANS], hdf5=True)
    (whole / "images" / "000001.tiff").unlink()
    assert len(read_medimeta(whole).samples) == 6
    assert isinstance(read_medimeta(whole).load, Hdf5Loader)


def test_hdf5_without_h5py_names_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = build(tmp_path / "a", [ORGANS], tiff=False)
    (root / "images.hdf5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match=r"needs the package h5py: pip install 'twinray\[hdf5\]'"):
        read_medimeta(root)


def test_several_sets_become_one_pack(tmp_path: Path) -> None:
    grey = read_medimeta(build(tmp_path / "axial", [ORGANS]))
    colour = read_medimeta(build(tmp_path / "tissue", [{**ORGANS, "labels": {0: "mucus", 1: "debris", 2: "fat"}}],
                                 colour=True, tiff=False, hdf5=True))  # fmt: skip
    write_pack([grey, colour], tmp_path / "pack", PackOptions(size=16), workers=1)
    pack = open_pack(tmp_path / "pack")
    assert pack.info.counts["images"] == 12
    assert pack.info.channels == 3
    assert pack.info.label_classes == ("heart", "left lung", "liver", "mucus", "debris", "fat")
    np.testing.assert_array_equal(pack.images[11], pixels(True)[5])
    np.testing.assert_array_equal(pack.images[4][..., 0], pixels(False)[4][..., 0])


def hdf5(path: Path, **datasets: Any) -> None:
    h5py = pytest.importorskip("h5py", reason="reading HDF5 needs h5py (the [hdf5] extra)")
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file.create_dataset(name, data=data)


@pytest.mark.parametrize(
    ("datasets", "message"),
    [
        ({"other": pixels(False)}, r"expected 'images' \(n, height, width, 1 or 3\)"),
        ({"images": pixels(False).astype(np.float32)}, "of uint8"),
        ({"images": pixels(False)[..., [0, 0]]}, "1 or 3"),
        ({"images": b"text"}, "expected 'images'"),
        ({"images": pixels(False)[:2]}, "expected an image 4, it holds 2"),
    ],
)
def test_hdf5_of_another_layout_is_refused_image_by_image(
    tmp_path: Path, datasets: dict[str, Any], message: str
) -> None:
    root = build(tmp_path / "a", [ORGANS], tiff=False)
    hdf5(root / "images.hdf5", **datasets)
    found = read_medimeta(root)
    with pytest.raises(InputError, match=message) as refused:
        found.load(found.samples[4])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("info", "message"),
    [
        ("", "an object with a list of tasks"),
        ("[1, 2]", "an object with a list of tasks"),
        ("tasks: 3", "a list of tasks"),
        ("tasks: [3]", r"'task_name' in .*tasks\[0\]"),
        (
            "tasks: [{task_name: score, task_target: REGRESSION, labels: {type: integer}}]",
            "numbered classes for .*REGR",
        ),
        ("tasks: [{task_name: a}]", "numbered classes for task 'a'"),
        ("tasks: [{task_name: a, labels: {0: x, 1: x}}]", "a name of its own"),
        ("tasks: [{task_name: ../a, labels: {0: x, 1: y}}]", "can be a file's name"),
        ("tasks: [{task_name: gone, labels: [x, y]}]", "there is no such file"),
        ("a: &a [*a, *a]", "no patient|expected"),
        ("{" * 5000, "reading YAML failed"),
        ("!!python/object/apply:os.system [true]", "reading YAML failed"),
        ("x" * (1 << 20) + "x", "more than 1 MiB"),
        ("\x00", "reading YAML failed"),
    ],
)
def test_unusable_descriptions_are_refused_in_one_line(
    tmp_path: Path, info: str, message: str
) -> None:
    root = build(tmp_path / "a", [ORGANS], split={})
    (root / "info.yaml").write_text(info)
    with pytest.raises(InputError, match=message) as refused:
        read_medimeta(root)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((6, 2)), "expected 3 columns"),
        (np.zeros((6, 2, 2)), "one or two dimensions"),
        (np.array(["a"] * 6), "one or two dimensions of numbers"),
        (np.array([{}] * 6, dtype=object), "of numbers, got"),
    ],
)
def test_unusable_labels_are_refused(tmp_path: Path, labels: np.ndarray, message: str) -> None:
    root = build(tmp_path / "a", [ORGANS])
    np.save(root / "task_labels" / "organ label.npy", labels)
    with pytest.raises(InputError, match=message):
        read_medimeta(root)


def test_folders_that_are_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_medimeta(tmp_path / "none")
    with pytest.raises(InputError, match="found none; check the path"):
        read_medimeta(tmp_path)
    build(tmp_path / "b", [ORGANS])
    root = build(tmp_path / "a", [ORGANS], split={}, tiff=False)
    with pytest.raises(InputError, match="give one of the folders in it: a, b"):
        read_medimeta(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        read_medimeta(root / "info.yaml")
    with pytest.raises(InputError, match=r"expected image paths in .*splits"):
        read_medimeta(root)
    with pytest.raises(InputError, match="found neither"):
        read_medimeta(build(root, [ORGANS], tiff=False))
    (root / "annotations.csv").write_text("x,y\n")
    with pytest.raises(InputError, match="expected a column 'filepath'"):
        read_medimeta(root)
    (root / "annotations.csv").write_bytes(b"filepath,\xff\n")
    with pytest.raises(InputError, match="CSV in UTF-8"):
        read_medimeta(root)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=120),
    st.sampled_from(["info.yaml", "annotations.csv", "splits/train.txt", "label", "head"]),
)
def test_random_bytes_in_any_file_are_read_or_one_line(
    tmp_path: Path, content: bytes, where: str
) -> None:
    root = tmp_path / "set"
    if not root.exists():
        build(root, [ORGANS])
    path = root / ("task_labels/organ label.npy" if where in ("label", "head") else where)
    before = path.read_bytes()
    path.write_bytes(before[:10] + content if where == "head" else content)
    refused = refusal(lambda: read_medimeta(root))
    path.write_bytes(before)
    assert refused is None or len(refused.splitlines()) == 1


def test_mutated_hdf5_gives_pixels_or_one_line(tmp_path: Path) -> None:
    """In a worker process, as packing reads: HDF5's library is C and may do worse than raise."""
    rng = np.random.default_rng(0)
    root = build(tmp_path / "a", [ORGANS], tiff=False, hdf5=True)
    whole = (root / "images.hdf5").read_bytes()
    tasks = []
    for i in range(40):
        content = bytearray(whole)
        for at in rng.integers(0, 1200 if i % 2 else len(content), rng.integers(1, 9)):
            content[at] = rng.integers(256)
        (root / f"{i}.hdf5").write_bytes(
            content[: None if i % 5 else rng.integers(1, len(content))]
        )
        tasks += [Sample(f"{i}", f"{i}.hdf5#{index}", attributes={}) for index in (0, 5)]
    outcomes = list(map_in_workers(Hdf5Loader(root), tasks, workers=1, timeout_s=10))
    assert len(outcomes) == 80
    for outcome in outcomes:
        assert (
            outcome.result().array.dtype == np.uint8
            if outcome.error is None
            else "\n" not in outcome.error
        )
    assert any(outcome.error for outcome in outcomes)
    assert any(outcome.ok for outcome in outcomes)
