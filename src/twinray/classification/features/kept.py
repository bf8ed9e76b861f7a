"""Features of a frozen backbone, computed once and kept in a folder, so that all probes of one weight share one pass over the images.

The folder holds ``features.npy`` (n, d) float32, ``rows.npy`` (n,) rows of the pack, and ``features.json``: hashes of the weights and of
the pack, the side of the input and the batch. A probe takes them only where all of these are its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from twinray.backbones.build import Backbone, build_backbone
from twinray.backbones.weights import initialise
from twinray.classification.config import ClassifyConfig
from twinray.classification.data import labelled_rows, labels_to_learn, rows_with_labels
from twinray.classification.features.on_pack import extract_features
from twinray.classification.options import resolve
from twinray.data.pack import Pack, open_pack
from twinray.errors import InputError
from twinray.files import atomic_writer, clear_disk_errors, read_json, write_json
from twinray.records import FloatArray, IntArray
from twinray.training.device import choose_machine

RECORD, VALUES, ROWS = "features.json", "features.npy", "rows.npy"


def write_features(config: ClassifyConfig) -> Path:
    """Compute the features of every image that a probe of these options may need, in the pack's order.

    Args:
        config: options of a probe; its ``out`` is the folder, its fraction and seeds of labels do not count.

    Returns:
        The folder. One that is whole already is left as it is.

    Raises:
        InputError: bad options, pack or weights.
        TwinrayError: the disk refuses.
    """
    config = resolve(config)
    folder = config.out
    if (folder / RECORD).is_file():
        return folder
    pack = open_pack(config.data, allow_edited=config.allow_edited)
    labels = labels_to_learn(pack, config.uncertain, config.blank)
    rows = np.unique(
        np.concatenate(
            [labelled_rows(pack, "train", labels), labelled_rows(pack, "test"), rows_with_labels(pack, "val")]
        )
    )  # fmt: skip
    backbone = build_backbone(config.arch, config.seed, config.size, config.drop_path)
    initialise(backbone, config.init)
    about = _about(config, pack, backbone)
    values = extract_features(
        backbone, pack.images, rows,
        size=config.size, batch_size=config.batch_size or 256,
        machine=choose_machine(config.device, config.precision).exact,
    )  # fmt: skip
    with clear_disk_errors(folder, "features"):
        folder.mkdir(parents=True, exist_ok=True)
    for name, array in ((VALUES, values), (ROWS, rows)):
        with atomic_writer(folder / name, "features") as file:
            np.save(file, array)
    sums = {name: _sum(folder / name) for name in (VALUES, ROWS)}
    write_json(folder / RECORD, {**about, "files": sums}, "record of features")  # last: it is whole
    return folder


def read_features(
    config: ClassifyConfig, pack: Pack, backbone: Backbone
) -> tuple[IntArray, FloatArray]:
    """Rows of the pack, ascending, and their features (n, d) float32.

    Raises:
        InputError: the folder is none of these, is damaged, or holds features of other weights or of another pack.
    """
    folder = config.kept_features
    assert folder is not None
    if not (folder / RECORD).is_file():
        raise InputError(f"expected features in {folder}, found no {RECORD}; leave --kept-features out, or let the study make them")  # fmt: skip
    record = read_json(folder / RECORD, "record of features")
    own = _about(config, pack, backbone)
    if not isinstance(record, dict) or any(record.get(key) != value for key, value in own.items()):
        raise InputError(f"the features in {folder} are of other weights, another pack or another size; leave --kept-features out")  # fmt: skip
    sums = record.get("files", {})
    if any(not (folder / name).is_file() or _sum(folder / name) != sums.get(name) for name in (VALUES, ROWS)):  # fmt: skip
        raise InputError(f"a file in {folder} is not as it was written; delete the folder, and have the features made again")  # fmt: skip
    rows: IntArray = np.load(folder / ROWS)
    values: FloatArray = np.load(folder / VALUES)
    return rows, values


def _about(config: ClassifyConfig, pack: Pack, backbone: Backbone) -> dict[str, Any]:
    return {
        "format": 1,
        "arch": backbone.arch,
        "size": config.size,
        "batch_size": config.batch_size or 256,
        "weights": _weights(backbone),
        "pack": dict(pack.info.checksums),
    }


def _weights(backbone: Backbone) -> str:
    """SHA-256 of all tensors, by name."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
