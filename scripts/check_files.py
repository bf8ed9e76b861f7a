"""Refuse what must not enter the repository: medical images, other images, large files, private keys.

    python scripts/check_files.py [FILE ...]      (without files: all that git tracks)

The pre-commit hook and ``make check`` run it. A file is judged by its bytes, since names can be anything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MOST_BYTES = 1_000_000
FIGURES = Path("docs/figures")
_IMAGES = {
    b"\x89PNG\r\n\x1a\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"GIF8": "a GIF image",
    b"II*\0": "a TIFF image",
    b"MM\0*": "a TIFF image",
    b"BM": "a BMP image",
    b"\0\0\0\x0cjP  \r\n\x87\n": "a JPEG 2000 image",
    b"\xffO\xffQ": "a JPEG 2000 codestream",
}
_IMAGE_NAMES = {
    ".png",
    ".jpg",
    ".jpeg",
    ".jfif",
    ".gif",
    ".tif",
    ".tiff",
    ".bmp",
    ".webp",
    ".jp2",
    ".j2k",
}
_DICOM_NAMES = {".dcm", ".dicom", ".ima"}
_KEY = re.compile(rb"^-----BEGIN [A-Z ]*PRIVATE KEY-----", re.MULTILINE)


def fault(path: Path) -> str | None:
    """Why a file may not be committed; None for one that may.

    Args:
        path: of a file, relative to the repository's root.
    """
    data = path.read_bytes()
    suffix = path.suffix.lower()
    if data[128:132] == b"DICM" or suffix in _DICOM_NAMES:
        return "a DICOM file; no medical image is ever committed: generate one in the test"
    if len(data) > MOST_BYTES:
        return (
            f"{len(data):,} bytes; expected at most {MOST_BYTES:,}: make it smaller or generate it"
        )
    kind = next((name for mark, name in _IMAGES.items() if data.startswith(mark)), None)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "a WebP image"
    if kind is None and suffix in _IMAGE_NAMES:
        kind = "an image by its name"
    if kind is not None and FIGURES not in path.parents:
        return f"{kind} outside {FIGURES}; generate it in the test, or draw it into {FIGURES}"
    if _KEY.search(data):
        return "a private key; remove it and revoke the key"
    return None


def main(names: Sequence[str]) -> int:
    """Print a line for each file that may not be committed; exit status 1 where there is one."""
    if not names:
        told = subprocess.run(
            ["git", "ls-files", "-z"], capture_output=True, check=False, text=True
        )
        if told.returncode:  # an unpacked sdist: nothing can be committed from it
            print("git tracks nothing here; no file was judged")
            return 0
        names = [name for name in told.stdout.split("\0") if name]
    faults = {name: fault(Path(name)) for name in names if Path(name).is_file()}
    for name, reason in faults.items():
        if reason is not None:
            print(f"{name}: {reason}")
    return int(any(faults.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
