"""Features that are kept for all probes of one weight: the same figures, and never those of anything else."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinray.classification.config import ClassifyConfig
from twinray.classification.features.kept import RECORD, VALUES, write_features
from twinray.classification.run import run as classify
from twinray.data.pack import open_pack
from twinray.errors import InputError
from twinray.runs.folder import read_metrics
from twinray.runs.results import read_label_predictions


@pytest.fixture(scope="module")
def kept(class_pack: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[ClassifyConfig, Path]:
    """Options of a probe, and the features that were kept for it."""
    folder = tmp_path_factory.mktemp("kept")
    config = ClassifyConfig(
        data=class_pack, out=folder / "run", arch="resnet18", size=32, bootstrap=10, device="cpu"
    )
    return config, write_features(replace(config, out=folder / "features"))


@pytest.mark.parametrize("fraction", [0.5, 1.0])
def test_figures_are_those_of_a_run_that_computes_its_own(kept, tmp_path, fraction):
    config, features = kept
    own = replace(config, out=tmp_path / "own", fraction=fraction)
    shared = replace(own, out=tmp_path / "shared", kept_features=features)
    classify(own)
    classify(shared)
    first, second = (read_label_predictions(run.out, "test") for run in (own, shared))
    assert first.images == second.images
    # batches differ where fewer images are needed, and with them the last bits
    np.testing.assert_allclose(first.scores[0], second.scores[0], rtol=0, atol=1e-5)
    one, two = (read_metrics(run.out) for run in (own, shared))
    assert one["test"]["auc"]["value"] == pytest.approx(two["test"]["auc"]["value"], abs=1e-6)
    assert one["penalties"] == two["penalties"]


def test_a_pass_that_is_whole_is_not_done_again_and_holds_every_labelled_image(kept):
    config, features = kept
    before = (features / VALUES).stat().st_mtime_ns
    assert write_features(replace(config, out=features)) == features
    assert (features / VALUES).stat().st_mtime_ns == before
    pack = open_pack(config.data)
    assert np.load(features / "rows.npy").tolist() == [*range(len(pack))]
    assert np.load(features / VALUES).shape == (len(pack), 512)


def test_features_of_anything_else_are_refused(kept, tmp_path):
    config, features = kept
    shared = replace(config, kept_features=features)
    with pytest.raises(InputError, match="of other weights, another pack or another size"):
        classify(replace(shared, out=tmp_path / "seed", seed=1))  # other random weights
    with pytest.raises(InputError, match="of other weights, another pack or another size"):
        classify(replace(shared, out=tmp_path / "size", size=64))
    with pytest.raises(InputError, match=f"found no {RECORD}"):
        classify(replace(shared, out=tmp_path / "none", kept_features=tmp_path))
    with pytest.raises(InputError, match="--kept-features"):
        replace(shared, policy="full")


def test_images_that_the_features_lack_are_not_taken_from_others(kept, tmp_path):
    config, _ = kept
    features = write_features(replace(config, out=tmp_path / "features"))
    record = json.loads((features / RECORD).read_text())
    for name in (VALUES, "rows.npy"):  # a pass over fewer images, whole in itself
        np.save(features / name, np.load(features / name)[:-3])
        record["files"][name] = hashlib.sha256((features / name).read_bytes()).hexdigest()
    (features / RECORD).write_text(json.dumps(record))
    with pytest.raises(InputError, match="lack 3 images of this run"):
        classify(replace(config, out=tmp_path / "run", kept_features=features))


def test_a_damaged_file_is_refused(kept, tmp_path):
    config, _ = kept
    features = write_features(replace(config, out=tmp_path / "features"))
    values = np.load(features / VALUES)
    values[0, 0] += 1
    np.save(features / VALUES, values)
    with pytest.raises(InputError, match="is not as it was written"):
        classify(replace(config, out=tmp_path / "run", kept_features=features))
