"""Seeds of any size, for generators that take so many bits."""

from __future__ import annotations

import hashlib


def within(seed: int, bits: int = 63) -> int:
    """A seed that a generator takes: itself where it fits, else one that is drawn from it.

    torch's generators take 64 bits, of which the last is the sign; scikit-learn's take 32.
    """
    if 0 <= seed < 1 << bits:
        return seed
    digest = hashlib.sha256(str(seed).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> (64 - bits)
