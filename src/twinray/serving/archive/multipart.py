"""Bodies of multipart/related (RFC 2387), as DICOMweb sends and takes files (DICOM PS3.18, 8.7.3)."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from email.message import Message

from twinray.errors import InputError


def encode(files: Sequence[bytes]) -> tuple[bytes, str]:
    """Files as one body, each a part of type application/dicom.

    Returns:
        The body, and its content type with the boundary.
    """
    boundary = secrets.token_hex(24)
    head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    body = b"".join(head + data + b"\r\n" for data in files) + f"--{boundary}--\r\n".encode()
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


def decode(body: bytes, content_type: str) -> list[bytes]:
    """The parts of a body; a body of type application/dicom is its own and only part.

    Raises:
        InputError: it is neither, or has no boundary that stands in it.
    """
    header = Message()
    header["Content-Type"] = content_type
    if header.get_content_type() == "application/dicom":
        return [body]
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/related" or not isinstance(boundary, str):
        raise InputError(
            f"expected files as multipart/related, the archive sent {header.get_content_type()[:80]!r}"
        )
    mark = b"--" + boundary.encode("utf-8", "replace")
    whole = b"\r\n" + body  # the first boundary may open the body
    pieces = whole.split(b"\r\n" + mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise InputError("expected whole parts, the archive's answer ends in the middle of one")
    parts = []
    for piece in pieces[1:-1]:
        _, gap, content = piece.partition(b"\r\n\r\n")
        if not gap:
            raise InputError(
                "expected the header of each part to end, one of the archive's does not"
            )
        parts.append(content)
    return parts
