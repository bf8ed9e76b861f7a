"""Packs without files, and what training on them leaves: shared by the tests of the guard."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from twinray.data.pack import Pack, PackInfo
from twinray.runs.seen import MARK, Seen, check_unseen

SIDE = 4


def make_pack(
    ids: list[str],
    patients: list[str | None],
    *,
    names: tuple[str, ...] = ("archive",),
    pixels: np.ndarray | None = None,
    sources: list[str] | None = None,
    seed: int = 0,
) -> Pack:
    """An open pack of random images, without its files."""
    n = len(ids)
    if pixels is None:
        pixels = np.random.default_rng(seed).integers(0, 256, (n, SIDE, SIDE), dtype=np.uint8)
    digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
    info = PackInfo(
        names=names, label_classes=(), box_classes=(), task="none", size=SIDE, channels=1, fit="squash", mean=(0.5,),
        std=(0.2,), counts={}, skipped=0, skipped_reasons={}, notes=(), split_method="", checksums={},
    )  # fmt: skip
    return Pack(
        path=Path("some-pack"),
        info=info,
        images=pixels,
        table=pa.table({"source": sources or [f"images/{i}.png" for i in ids], "sha256": digests}),
        ids=np.array(ids, dtype=object),
        patients=np.array([*patients, None], dtype=object)[:-1],
        splits=np.array(["test"] * n, dtype=object),
        sizes=np.zeros((n, 2), dtype=np.int64),
        geometry=np.zeros((n, 4)),
        labels=np.zeros((n, 0), dtype=np.float32),
    )


def every(pack: Pack) -> np.ndarray:
    return np.arange(len(pack))


def saw(pack: Pack, run: str = "pre") -> Seen:
    return Seen().plus(Path(run), "pretrain", [(pack, every(pack))])


def n_seen(seen: Seen, pack: Pack, split: str = "test") -> int:
    marks = check_unseen(seen, pack, {split: every(pack)}, weights="W", allow=True).marks
    return marks[split][MARK]["value"] if marks else 0
