"""``twinray look`` on real radiographs that were corrupted by known amounts: a small part of ``benchmarks/look.py``."""

from __future__ import annotations

import numpy as np
from PIL import Image

from twinray.data.look.archive import judge
from twinray.data.look.measure import measured


def test_corrupted_radiographs_are_found(real_data):
    files = sorted((real_data / "kermany-cxr" / "train").rglob("*.jp*g"))[::17][:300]
    pixels = [np.asarray(Image.open(path).convert("L")) for path in files]
    wrong = {10 * k: k % 3 for k in range(30)}
    change = {0: lambda a: 255 - a, 1: lambda a: np.rot90(a).copy(), 2: lambda a: a // 8 * 8}
    images = [measured(change[wrong[k]](a) if k in wrong else a) for k, a in enumerate(pixels)]
    found = judge(images, patients=[str(p) for p in files], lateral=[False] * len(files)).flags
    for kind, check in enumerate(("negative", "turned", "few levels")):
        own = [k for k in wrong if wrong[k] == kind]
        assert sum(check in found[k] for k in own) >= 9, check
        alarms = sum(check in found[k] for k in range(len(files)) if k not in wrong)
        assert alarms <= 6, (check, alarms)
