"""MedMNIST archives of every kind against numpy.load, and what is refused."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers import medmnist
from twinray.data.readers.medmnist import CLASS_NAMES, read_medmnist
from twinray.errors import InputError

SIZES = {"train": 7, "val": 2, "test": 3}


def refusal(call: Callable[[], object]) -> str | None:
    """What an InputError says, None where nothing was refused; any other exception passes."""
    try:
        call()
    except InputError as error:
        return str(error)
    return None


def arrays(
    n_classes: int = 2, side: int = 28, colour: bool = False, k: int = 1, seed: int = 0
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    made = {}
    for split, n in SIZES.items():
        made[f"{split}_images"] = rng.integers(
            0, 256, (n, side, side, 3) if colour else (n, side, side), dtype=np.uint8
        )
        labels = rng.integers(0, 2, (n, k)) if k > 1 else (np.arange(n) % n_classes)[:, None]
        made[f"{split}_labels"] = labels.astype(np.uint8)
    return made


def save(path: Path, content: dict[str, np.ndarray], compressed: bool = True) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


def check_against_numpy(path: Path) -> None:
    """Every image and label as numpy.load gives it, forwards and backwards."""
    found = read_medmnist(path)
    load = pickle.loads(pickle.dumps(found.load))
    with np.load(path) as archive:
        assert len(found.samples) == sum(len(archive[f"{split}_images"]) for split in SIZES)
        for sample in [*found.samples, *reversed(found.samples)]:
            split, index = sample.id.split("/")
            np.testing.assert_array_equal(
                load(sample).array, archive[f"{split}_images"][int(index)]
            )
            own = archive[f"{split}_labels"][int(index)]
            assert sample.split == split
            assert sample.source == f"{path.name}#{sample.id}"
            if found.task == "multilabel":
                np.testing.assert_array_equal(sample.labels, own)
            else:
                assert np.flatnonzero(sample.labels).tolist() == [int(own[0])]
                assert len(sample.labels) == len(found.label_classes)


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("name", "content", "task"),
    [
        ("breastmnist", arrays(2), "multiclass"),
        ("pathmnist_64", arrays(9, 64, colour=True), "multiclass"),
        ("chestmnist_128", arrays(side=128, k=14), "multilabel"),
        ("retinamnist_224", arrays(5, 224, colour=True), "multiclass"),
        ("organamnist", arrays(11), "multiclass"),
    ],
)
def test_every_kind(
    tmp_path: Path, name: str, content: dict[str, np.ndarray], task: str, compressed: bool
) -> None:
    path = save(tmp_path / f"{name}.npz", content, compressed)
    found = read_medmnist(path)
    assert (found.name, found.task, found.label_classes) == (
        name,
        task,
        CLASS_NAMES[name.split("_")[0]],
    )
    assert all(sample.patient is None for sample in found.samples)
    assert any("no patient ids" in note for note in found.notes)
    check_against_numpy(path)


@pytest.mark.parametrize("name", sorted(CLASS_NAMES))
def test_all_twelve_2d_sets_are_known(tmp_path: Path, name: str) -> None:
    n = len(CLASS_NAMES[name])
    assert len(set(CLASS_NAMES[name])) == n
    path = save(tmp_path / f"{name}.npz", arrays(n, k=14 if name == "chestmnist" else 1))
    assert read_medmnist(path).label_classes == CLASS_NAMES[name]
    assert len(CLASS_NAMES) == 12


def test_an_unknown_set_has_numbered_classes(tmp_path: Path) -> None:
    assert read_medmnist(save(tmp_path / "own.npz", arrays(4))).label_classes == (
        "0",
        "1",
        "2",
        "3",
    )
    found = read_medmnist(save(tmp_path / "two.npz", arrays(k=3)))
    assert (found.label_classes, found.task) == (("0", "1", "2"), "multilabel")
    flat = {
        key: value[:, 0] if key.endswith("labels") else value for key, value in arrays(3).items()
    }
    assert read_medmnist(save(tmp_path / "flat.npz", flat)).label_classes == ("0", "1", "2")


def test_a_large_compressed_array_is_streamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(medmnist, "HELD_BYTES", 1000)
    path = save(tmp_path / "pathmnist.npz", arrays(9, colour=True))
    check_against_numpy(path)
    _, row = medmnist._rows(str(path), "train_images", 0, 0, 0)
    assert isinstance(row, medmnist._StreamedRows)


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "own.npz", arrays(seed=1))
    sample = read_medmnist(path).samples[0]
    before = read_medmnist(path).load(sample).array
    save(path, arrays(3, seed=2))
    assert (read_medmnist(path).load(sample).array != before).any()
    save(path, {key: value[:1] for key, value in arrays().items()})
    last = read_medmnist(save(tmp_path / "other.npz", arrays())).samples[6]
    with pytest.raises(InputError, match="expected an image 6 in train, it holds 1"):
        read_medmnist(path).load(last)


@pytest.mark.parametrize("held", [1 << 20, 100])
def test_damage_refuses_images_once_and_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr(medmnist, "HELD_BYTES", held)
    path = save(tmp_path / "own.npz", arrays(side=64))
    found = read_medmnist(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 0xFF
    path.write_bytes(content)
    said = [
        refusal(lambda sample=sample: found.load(sample))
        for sample in found.samples[: SIZES["train"]]
    ]
    assert any(said)
    assert all(
        line is None or ("unpacking its images" in line and "\n" not in line) for line in said
    )
    monkeypatch.setattr(
        zipfile.ZipFile, "open", None
    )  # what is known to be damaged is not unpacked again
    with pytest.raises(InputError, match="unpacking its images"):
        found.load(found.samples[6])


def without(key: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in arrays().items() if name != key}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("own", without("val_labels"), "expected the array val_labels, found test_images"),
        ("own", without("test_images"), "expected the array test_images"),
        ("own", {"x": np.zeros(3)}, "is it a MedMNIST file"),
        (
            "organmnist3d",
            arrays() | {"train_images": np.zeros((7, 28, 28, 28), np.uint8)},
            "3D sets cannot be used",
        ),
        ("organmnist3d_64", arrays(), "3D sets"),
        ("own", arrays() | {"train_images": np.zeros((7, 4, 4, 4, 1), np.uint8)}, "3D sets"),
        (
            "own",
            arrays() | {"train_images": np.zeros((7, 28), np.uint8)},
            r"expected train_images \(n, h, w\)",
        ),
        ("own", arrays() | {"val_images": np.zeros((2, 28, 28), np.uint16)}, "of uint8"),
        ("own", arrays() | {"val_images": np.zeros((2, 28, 28))}, "whole numbers"),
        ("own", arrays() | {"val_images": np.zeros((2, 64, 64), np.uint8)}, "of one size"),
        (
            "own",
            arrays() | {"val_images": np.zeros((2, 0, 28), np.uint8)},
            "claims 2 images of 28 x 0",
        ),
        (
            "own",
            arrays() | {"val_labels": np.zeros((3, 1), np.uint8)},
            "a label for each of 2 images",
        ),
        ("own", arrays() | {"val_labels": np.zeros((2, 2), np.uint8)}, "as many labels an image"),
        (
            "own",
            arrays() | {"val_labels": np.full((2, 1), -1)},
            "from 0 to 999, got -1 in val_labels row 0",
        ),
        ("own", arrays() | {"val_labels": np.full((2, 1), 2**63, np.uint64)}, "from 0 to 999"),
        ("own", arrays(k=3) | {"val_labels": np.full((2, 3), 2)}, "from 0 to 1, got 2"),
        ("octmnist", arrays(5), "got 4 in train_labels row 4; if it is another data set"),
        ("chestmnist", arrays(k=3), "expected 14 labels an image, got 3"),
        ("own", {key: value[:0] for key, value in arrays().items()}, "it holds none"),
        (
            "own",
            arrays() | {"train_images": np.asfortranarray(arrays()["train_images"])},
            "row by row",
        ),
    ],
)
def test_unusable_archives_are_refused(
    tmp_path: Path, name: str, content: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(InputError, match=message) as refused:
        read_medmnist(save(tmp_path / f"{name}.npz", content))
    assert "\n" not in str(refused.value)


def test_pickled_arrays_are_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    trapped = np.array([[Trap()]] * 7, dtype=object)
    with pytest.raises(InputError, match="whole numbers"):
        read_medmnist(save(tmp_path / "own.npz", arrays() | {"train_labels": trapped}))


def test_paths_that_are_no_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not there"):
        read_medmnist(tmp_path / "none.npz")
    save(tmp_path / "a.npz", arrays())
    with pytest.raises(InputError, match=r"is a folder; give a file in it \(a.npz\)"):
        read_medmnist(tmp_path)
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="no zip file"):
        read_medmnist(tmp_path / "text.npz")


def test_a_length_that_is_claimed_is_not_believed(tmp_path: Path) -> None:
    """A header of petabytes in a file of bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"shape": (1 << 30, 1 << 20, 1 << 20), "fortran_order": False, "descr": "|u1"}
    )
    path = save(tmp_path / "own.npz", without("train_images"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("train_images.npy", header.getvalue() + b"x")
    with pytest.raises(InputError, match="is not its length"):
        read_medmnist(path)
    long = without("train_images")
    with zipfile.ZipFile(save(path, long), "a") as archive:
        archive.writestr("train_images.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1))
    with pytest.raises(InputError, match=r"file format 1\.0"):
        read_medmnist(path)


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    flips=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    cut=st.floats(0, 1),
)
def test_mutations_give_pixels_or_one_line(
    tmp_path: Path, flips: list[tuple[float, int]], cut: float
) -> None:
    path = tmp_path / "mutant.npz"
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        save(whole, arrays(side=4))
    content = bytearray(whole.read_bytes())
    for where, value in flips:
        content[int(where * len(content))] = value
    if cut > 0.8:
        content = content[: int((cut - 0.8) * 5 * len(content))]
    path.write_bytes(content)

    def read_all() -> None:
        found = read_medmnist(path)
        for sample in found.samples:
            assert found.load(sample).array.shape[:2] == (4, 4)

    refused = refusal(read_all)
    assert refused is None or len(refused.splitlines()) == 1


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.binary(max_size=200), st.sampled_from(sorted(arrays())))
def test_random_bytes_as_an_array_are_one_line(tmp_path: Path, content: bytes, key: str) -> None:
    path = save(tmp_path / "own.npz", without(key))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{key}.npy", content)
    with pytest.raises(InputError) as refused:
        read_medmnist(path)
    assert len(str(refused.value).splitlines()) == 1


def test_a_set_is_packed_in_worker_processes(tmp_path: Path) -> None:
    source = arrays(9, 32, colour=True)
    path = save(tmp_path / "pathmnist.npz", source)
    write_pack([read_medmnist(path)], tmp_path / "pack", PackOptions(size=32), workers=2)
    pack = open_pack(tmp_path / "pack")
    assert dict(pack.info.counts)["images"] == 12
    assert pack.info.task == "multiclass"
    np.testing.assert_array_equal(pack.images[0], source["train_images"][0])
    np.testing.assert_array_equal(pack.images[11], source["test_images"][2])
