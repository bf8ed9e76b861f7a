"""Classes that no training image shows: one rule, in the figures, the notes and the lines of every verb."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from twinray.data.pack import open_pack
from twinray.data.packing.options import PackOptions
from twinray.data.packing.write import write_pack
from twinray.data.readers.folder import read_folder
from twinray.jobs.train import summary
from twinray.runs.results import read_label_predictions


def pack_of(folder: Path, train: str, test: str, joined: bool = False) -> Path:
    """A pack whose images are of these classes in turn, a letter a class; with ``joined`` each has the label x too or not."""
    rng = np.random.default_rng(0)
    rows = ["path,patient,split,label"]
    (folder / "images").mkdir(parents=True)
    for split, classes, n in (("train", train, 20), ("val", train, 8), ("test", test, 24)):
        for k in range(n):
            name, own = f"{split}{k}.png", classes[k % len(classes)]
            pixels = rng.integers(0, 120, (32, 32), dtype=np.uint8)
            pixels[8:20, 8:20] += np.uint8(40 * "abc".index(own))
            Image.fromarray(pixels).save(folder / "images" / name)
            label = f"{own}|x" if joined and rng.random() < 0.5 else own
            rows.append(f"{name},{name},{split},{label}")
    (folder / "t.csv").write_text("\n".join(rows))
    source = read_folder(folder / "images", table=folder / "t.csv")
    write_pack([source], folder / "pack", PackOptions(size=32), workers=0)
    return folder / "pack"


@pytest.mark.parametrize(
    ("train", "test", "joined", "left_out"),
    [
        ("ab", "abc", False, ["c"]),
        ("ab", "abc", True, ["c"]),
        ("a", "abc", True, ["b", "c"]),
        ("abc", "ab", True, ["c"]),  # learned, but with one kind of label among the test images
        ("abc", "abc", False, []),
    ],
)
def test_a_mean_is_over_the_classes_that_were_learned_and_tested(
    cli, tmp_path, train, test, joined, left_out
):
    data = pack_of(tmp_path, train, test, joined)
    flags = ("--arch", "resnet18", "--size", 32, "--bootstrap", 20, "--device", "cpu")
    status, said, err = cli("classify", "--data", data, "--out", tmp_path / "run", *flags)
    assert status == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["test"]["left_out"] == left_out
    pack = open_pack(data)
    names, rows = pack.info.label_classes, pack.where("test")
    kept = [k for k, name in enumerate(names) if name not in left_out]
    scores = read_label_predictions(tmp_path / "run", "test").scores[0]
    areas = [roc_auc_score(pack.labels[rows][:, k], scores[:, k]) for k in kept]
    assert metrics["test"]["auc"]["value"] == pytest.approx(np.mean(areas))
    # the class's own row stays, though no mean holds it
    assert set(metrics["test"]["per_class"]) == set(names)
    unlearned = [name for name in left_out if name not in train]
    assert metrics.get("never_learned", []) == unlearned
    told = f"no training image shows {', '.join(unlearned)}"
    assert any(told in note for note in metrics["notes"]) == bool(unlearned)
    assert (told in said + err) == bool(unlearned)
    status, shown, _ = cli("evaluate", tmp_path / "run", "--bootstrap", 20)
    assert status == 0
    named = f"means over classes leave out {', '.join(unlearned)}"
    assert (named in shown) == bool(unlearned)


@pytest.mark.parametrize(("fraction", "over"), [(1.0, "24 patients"), (0.5, "3 seeds")])
def test_the_line_says_what_its_interval_is_over(cli, tmp_path, fraction, over):
    data = pack_of(tmp_path, "ab", "ab")
    flags = ("--arch", "resnet18", "--size", 32, "--bootstrap", 50, "--device", "cpu")
    flags += ("--fraction", fraction, "--seeds", 0, 1, 2, "--out", tmp_path / "run")
    status, said, err = cli("classify", "--data", data, *flags)
    assert status == 0, err
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    auc = metrics["test"]["auc"]
    assert over == f"{auc['n']} {auc['over']}"
    line = summary(metrics)
    assert f"(95 % interval over {over} " in line and auc["ci95"][0] < auc["ci95"][1]
    assert ("its 3 seeds make one and the same model" in line) == (fraction == 1)
    assert line in said
