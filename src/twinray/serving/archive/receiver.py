"""A C-STORE receiver with C-ECHO (pynetdicom): archives without web access push their radiographs here.

What comes is written down as it comes and not parsed in the server's own process. The peer hears
"success" when the file and its row are on the disk; it sends again what it hears anything else of.
DICOM's own protocol knows no password: callers are known by title and address alone, and by what the network lets through.
"""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, final

from twinray.data.decoding.dicom.header import SOP_CLASSES
from twinray.errors import InputError, TwinrayError
from twinray.serving.archive.peer import VERIFICATION, quiet
from twinray.serving.log import error_facts, log

if TYPE_CHECKING:
    from pynetdicom.events import Event

SUCCESS, OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xC000
SYNTAXES = (
    *("1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"),
    *("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57"),
    *("1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"),
    *("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.5"),
)
"""Transfer syntaxes that the decoders read, plain ones first."""


class RefusedError(TwinrayError):
    """A file that is not taken, now (``passes``) or ever."""

    def __init__(self, message: str, *, passes: bool) -> None:
        super().__init__(message)
        self.passes = passes


@dataclass(frozen=True)
class Listening:
    """How to listen.

    Attributes:
        host, port: address; port 0 takes a free one. title: our own title, by which callers must call.
        callers: titles that may call; none lets all. most_bytes: bytes of one file that are taken.
        most_calls: associations at once.
    """

    host: str
    port: int
    title: str
    callers: tuple[str, ...] = ()
    most_bytes: int = 256 << 20
    most_calls: int = 10


@final
class Receiver:
    """The receiver.

    Args:
        how: how to listen.
        take: called with the bytes of a DICOM file in a thread of the association; returns when it is on the disk.

    Raises:
        InputError: the address cannot be listened at.
    """

    def __init__(self, how: Listening, take: Callable[[bytes], None]) -> None:
        from pynetdicom import AE, evt

        quiet()
        self._how, self._take = how, take
        self._received: dict[int, int] = {}
        self._lock = threading.Lock()
        entity = AE(ae_title=how.title)
        entity.add_supported_context(VERIFICATION)
        for sop_class in SOP_CLASSES:
            entity.add_supported_context(sop_class, list(SYNTAXES))
        entity.require_called_aet = True
        entity.require_calling_aet = list(how.callers)
        entity.maximum_associations = how.most_calls
        entity.maximum_pdu_size = 1 << 17
        entity.acse_timeout = entity.dimse_timeout = 30.0
        entity.network_timeout = 60.0
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_C_ECHO, self._on_echo),
            (evt.EVT_DATA_RECV, self._on_data),
            (evt.EVT_CONN_CLOSE, self._on_close),
            (evt.EVT_REJECTED, self._on_rejected),
        ]
        try:
            server = entity.start_server(
                (how.host, how.port),
                block=False,
                evt_handlers=handlers,
            )
        except OSError as error:
            raise InputError(
                f"could not listen for DICOM at {how.host}:{how.port}: {error.strerror or error}; choose another --listen-dicom"
            ) from error
        assert server is not None and server.socket is not None
        self._server, self._entity = server, entity
        self.port = int(server.socket.getsockname()[1])
        log("dicom listening", port=self.port)

    def stop(self) -> None:
        """End: calls that are under way are ended, nothing that was acknowledged is lost."""
        self._entity.shutdown()

    def _on_echo(self, event: Event) -> int:
        log("dicom echo")
        return SUCCESS

    def _on_store(self, event: Event) -> int:
        with self._lock:
            self._received.pop(id(event.assoc), None)
        try:
            # head and data as they came: nothing is decoded or written anew
            self._take(event.encoded_dataset())
        except RefusedError as error:
            return OUT_OF_RESOURCES if error.passes else CANNOT_UNDERSTAND
        except Exception as error:  # whatever it is, the peer must not take it for success
            log("dicom store failed", **error_facts(error))
            return OUT_OF_RESOURCES
        return SUCCESS

    def _on_data(self, event: Event) -> None:
        """End a call whose object is larger than what is taken: the library itself would go on filling the memory."""
        with self._lock:
            total = self._received.get(id(event.assoc), 0) + len(event.data)
            self._received[id(event.assoc)] = total
        if total > self._how.most_bytes + (1 << 20):
            log("dicom object too large", mib=total >> 20)
            event.assoc.abort()

    def _on_close(self, event: Event) -> None:
        with self._lock:
            self._received.pop(id(event.assoc), None)

    def _on_rejected(self, _: Event) -> None:
        log("dicom call refused")


def is_open_address(host: str) -> bool:
    """Whether an address is reached from other machines."""
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host != "localhost"
