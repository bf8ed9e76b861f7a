"""Results to an archive without web access, by C-STORE (DICOM PS3.4, annex B; PS3.7, 9.1.1).

A file is offered in the transfer syntax that it has, and in no other: nothing is decoded or
compressed on the way. A peer that takes none of it is named with what it refused.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass

from pydicom import dcmread
from pydicom.uid import UID

from twinray.errors import InputError
from twinray.serving.archive.client import ArchiveError

VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Peer:
    """Another application entity, as in ``PACS@10.0.0.5:104``."""

    title: str
    host: str
    port: int

    @property
    def name(self) -> str:
        """Title, host and port."""
        return f"{self.title}@{self.host}:{self.port}"


def read_peer(text: str) -> Peer:
    """A peer from text.

    Raises:
        InputError: it is not written so.
    """
    found = re.fullmatch(r"([\x21-\x5b\x5d-\x7e]{1,16})@\[?([^\]@\s]+?)\]?:(\d{1,5})", text)
    if found is None or not 0 < int(found[3]) < 65_536:
        raise InputError(f"expected --archive-peer to be TITLE@HOST:PORT, got {text[:80]!r}")
    return Peer(found[1], found[2], int(found[3]))


def echo(peer: Peer, own_title: str, *, timeout: float = 10.0) -> None:
    """Ask a peer whether it lives (C-ECHO).

    Raises:
        ArchiveError: it does not.
    """
    from pynetdicom import AE

    entity = AE(ae_title=own_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout
    entity.connection_timeout = timeout
    entity.add_requested_context(VERIFICATION)
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    if not association.is_established:
        raise ArchiveError(f"{peer.name}: echo: {_why_not(association)}")
    try:
        status = association.send_c_echo()
        if "Status" not in status or status.Status != 0:
            raise ArchiveError(f"{peer.name}: echo: no answer")
    finally:
        association.release()


def send(
    peer: Peer, own_title: str, files: Mapping[str, bytes], *, timeout: float = 30.0
) -> dict[str, str]:
    """Send files in one association.

    Args:
        peer: who gets them. own_title: title under which we call.
        files: name -> bytes of a DICOM file.
        timeout: seconds that each answer may take.

    Returns:
        Name -> why it was not taken; empty where all were.

    Raises:
        ArchiveError: the peer cannot be reached, or wants no association with us.
    """
    from pynetdicom import AE

    quiet()
    datasets = {name: dcmread(io.BytesIO(data)) for name, data in files.items()}
    entity = AE(ae_title=own_title)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = timeout
    entity.connection_timeout = 10.0
    kinds = {(one.SOPClassUID, one.file_meta.TransferSyntaxUID): None for one in datasets.values()}
    for sop_class, syntax in kinds:  # a context each: one with two syntaxes lets the peer choose
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate(peer.host, peer.port, ae_title=peer.title)
    if not association.is_established:
        raise ArchiveError(f"{peer.name}: send: {_why_not(association)}")
    refused: dict[str, str] = {}
    try:
        taken = {(c.abstract_syntax, c.transfer_syntax[0]) for c in association.accepted_contexts}
        for name, one in datasets.items():
            sop_class, syntax = UID(one.SOPClassUID), UID(one.file_meta.TransferSyntaxUID)
            if (sop_class, syntax) not in taken:
                advice = (
                    "; --captures uncompressed may be taken"
                    if syntax.is_compressed
                    else "; let its operator allow it"
                )
                refused[name] = f"{peer.name} takes no {sop_class.name} in {syntax.name}{advice}"
                continue
            status = association.send_c_store(one)
            if "Status" not in status:
                raise ArchiveError(f"{peer.name}: send: the connection ended")
            if (
                status.Status != 0 and status.Status >> 12 != 0xB
            ):  # B000 and on are warnings: stored
                refused[name] = f"{peer.name} answered with status 0x{status.Status:04X}"
    finally:
        if association.is_established:
            association.release()
    return refused


def _why_not(association: object) -> str:
    if getattr(association, "is_rejected", False):
        acceptor = getattr(association, "acceptor", None)
        said = getattr(getattr(acceptor, "primitive", None), "reason_str", "")
        return f"refused{f' ({said})' if said else ''}; check both titles"
    if getattr(association, "is_aborted", False):
        return "ended by the peer; it may take none of what was offered"
    return "no answer"


def quiet() -> None:
    """Keep the libraries' logs, which tell whole requests, away from ours."""
    for name in ("pynetdicom", "pydicom", "urllib3"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    import pynetdicom._config

    pynetdicom._config.LOG_HANDLER_LEVEL = "none"
