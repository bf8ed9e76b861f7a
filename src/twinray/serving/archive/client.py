"""A DICOMweb client of one archive: find (QIDO-RS), fetch (WADO-RS) and send (STOW-RS), DICOM PS3.18.

Built on a pool of connections to one host, which can speak to no other: redirects are refused, and
neither proxies nor passwords are taken from the environment. ``dicomweb-client`` was weighed. It parses what a stranger sends
in the server's own process, without a limit, logs what is asked for (names and numbers of patients), follows redirects, and
takes a partly refused STOW for success where the answer's type has a parameter. It is the oracle of the tests instead.

Errors name the archive's host, the action and the status, never what was asked for.
"""

from __future__ import annotations

import json
import re
import ssl
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final
from urllib.parse import quote, urlencode, urlsplit

import urllib3

from twinray.errors import InputError, TwinrayError
from twinray.serving.archive.multipart import decode, encode

_JSON = "application/dicom+json"
_FILES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_LONGEST_LIST = 64 << 20
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_PAGE = 200


class ArchiveError(TwinrayError):
    """The archive does not answer, or refuses; ``passes`` says whether the same may succeed later."""

    def __init__(self, message: str, *, passes: bool = True) -> None:
        super().__init__(message)
        self.passes = passes


@dataclass(frozen=True)
class Address:
    """Where an archive is, and what lets us in.

    Attributes:
        url: DICOMweb's root, as in https://host/dicom-web.
        token: bearer token. login: ``user:password`` for HTTP Basic.
        certificate, key: PEM files of a client certificate. authority: PEM file of the authorities to trust.
        plain: flag to speak HTTP without encryption to another machine.
    """

    url: str
    token: str = field(default="", repr=False)
    login: str = field(default="", repr=False)
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    plain: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be an archive's address.

        Raises:
            InputError: not an http or https URL; one with a password in it, or plain HTTP to another machine.
        """
        try:
            parts = urlsplit(self.url)
            port = parts.port
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or port == 0:
            raise InputError(
                "expected --archive to be a URL as https://host/dicom-web, got something else"
            )
        if parts.username is not None:
            raise InputError(
                "expected --archive without user and password, every user of this machine could read them; use --archive-login-env"
            )
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if parts.scheme == "http" and not local and not self.plain:
            raise InputError(
                f"expected https for {parts.hostname}, got http: images and names would travel unencrypted; "
                "give https, or --archive-plain within a closed network"
            )

    @property
    def host(self) -> str:
        """Host and port."""
        return urlsplit(self.url).netloc


@dataclass(frozen=True)
class Study:
    """A study that an archive holds: identifiers stay inside, a caller is told date, kinds and number."""

    uid: str
    date: str
    modalities: tuple[str, ...]
    images: int | None


@dataclass(frozen=True)
class Instance:
    """One object of an archive: UIDs of study, series and object, and its class."""

    study: str
    series: str
    sop: str
    sop_class: str


@dataclass(frozen=True)
class Sent:
    """What an archive made of a STOW: SOP instance UIDs that it holds, and those refused with their reason's number."""

    held: tuple[str, ...]
    refused: Mapping[str, int]


@final
class DicomWeb:
    """One archive.

    Args:
        address: address of the archive.
        timeout: seconds that one answer may take to begin, and to go on.
        most_bytes: bytes of one file that are taken.
    """

    def __init__(self, address: Address, *, timeout: float = 30.0, most_bytes: int = 256 << 20):
        self.address = address
        self._most_bytes = most_bytes
        parts = urlsplit(address.url)
        self._root = parts.path.rstrip("/")
        options: dict[str, Any] = {
            "timeout": urllib3.Timeout(connect=10.0, read=timeout),
            "retries": False,
            "maxsize": 4,
        }
        assert parts.hostname is not None
        if parts.scheme == "https":
            self._pool: urllib3.HTTPConnectionPool = urllib3.HTTPSConnectionPool(
                parts.hostname, parts.port, ssl_context=_trust(address), **options
            )
        else:
            self._pool = urllib3.HTTPConnectionPool(parts.hostname, parts.port, **options)
        self._headers = {"User-Agent": "twinray"}
        if address.token:
            self._headers["Authorization"] = f"Bearer {address.token}"
        elif address.login:
            self._headers["Authorization"] = f"Basic {b64encode(address.login.encode()).decode()}"

    def close(self) -> None:
        """Close its connections."""
        self._pool.close()

    # --- find ---------------------------------------------------------------------------------------------------------

    def studies(self, *, most: int = 1000, **wanted: str) -> list[Study]:
        """Studies that match (QIDO-RS), at most ``most``.

        Args:
            most: most studies.
            wanted: attribute -> value, as ``PatientID="p7"``, ``StudyDate="20260101-20260131"``.

        Raises:
            ArchiveError: the archive does not answer, or refuses.
        """
        found = []
        for one in self._search("studies", most, {**wanted, "includefield": "00080061,00201208"}):
            uid = _first(one, "0020000D")
            if _UID.fullmatch(uid):
                modalities = tuple(str(v) for v in _values(one, "00080061"))
                number = _first(one, "00201208")
                found.append(
                    Study(
                        uid,
                        _first(one, "00080020"),
                        modalities,
                        int(number) if number.isdecimal() else None,
                    )
                )
        return found

    def instances(self, study: str, modalities: Sequence[str] = ()) -> list[Instance]:
        """Objects of a study, those of some modalities alone where any are named.

        Raises:
            ArchiveError: the archive does not answer, or refuses.
        """
        found = []
        for one in self._search(f"studies/{_uid(study)}/series", 10_000, {}):
            series, modality = _first(one, "0020000E"), _first(one, "00080060")
            if not _UID.fullmatch(series) or (modalities and modality not in modalities):
                continue
            for item in self._search(f"studies/{study}/series/{series}/instances", 10_000, {}):
                sop = _first(item, "00080018")
                if _UID.fullmatch(sop):
                    found.append(Instance(study, series, sop, _first(item, "00080016")))
        return found

    def _search(self, path: str, most: int, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while len(found) < most:
            limit = min(_PAGE, most - len(found))
            query = urlencode({**wanted, "limit": limit, "offset": len(found)}, quote_via=quote)
            status, body, _ = self._ask("GET", f"{path}?{query}", "find", {"Accept": _JSON})
            page: Any = [] if status == 204 or not body else _json(body, self.address.host)
            page = [page] if isinstance(page, dict) else page
            if not isinstance(page, list) or not all(isinstance(one, dict) for one in page):
                raise ArchiveError(f"{self.address.host}: find: the answer is no list of objects")
            new = [one for one in page if one not in found[-_PAGE:]]  # some archives know no offset
            found += new
            if len(page) < limit or not new:
                break
        return found[:most]

    # --- fetch and send -----------------------------------------------------------------------------------------------

    def fetch(self, one: Instance) -> bytes:
        """An object as the archive holds it, in its own transfer syntax (WADO-RS).

        Raises:
            ArchiveError: the archive does not answer, refuses, or sends more than is taken.
        """
        path = f"studies/{_uid(one.study)}/series/{_uid(one.series)}/instances/{_uid(one.sop)}"
        _, body, kind = self._ask(
            "GET", path, "fetch", {"Accept": _FILES}, most=self._most_bytes + (1 << 16)
        )
        try:
            parts = decode(body, kind)
        except InputError as error:
            raise ArchiveError(f"{self.address.host}: fetch: {error}") from error
        if len(parts) != 1:
            raise ArchiveError(f"{self.address.host}: fetch: expected one file, got {len(parts)}")
        return parts[0]

    def store(self, study: str, files: Sequence[bytes]) -> Sent:
        """Send objects of one study (STOW-RS), and read what became of each.

        Raises:
            ArchiveError: the archive does not answer, or took none.
        """
        body, kind = encode(files)
        status, answer, _ = self._ask(
            "POST",
            f"studies/{_uid(study)}",
            "send",
            {"Content-Type": kind, "Accept": _JSON},
            body=body,
            may_fail=(409,),
        )
        said: Any = _json(answer, self.address.host) if answer else {}
        said = said[0] if isinstance(said, list) and said else said
        if not isinstance(said, dict):
            said = {}
        held = tuple(_first(one, "00081155") for one in _values(said, "00081199"))
        refused = {
            _first(one, "00081155"): int(_first(one, "00081197") or 0)
            for one in _values(said, "00081198")
        }
        if status in (202, 409) and not refused:
            raise ArchiveError(
                f"{self.address.host}: send: status {status}, some objects were not taken and the archive does not say which"
            )
        return Sent(held, refused)

    def _ask(
        self,
        method: str,
        path: str,
        action: str,
        headers: Mapping[str, str],
        *,
        body: bytes | None = None,
        most: int = _LONGEST_LIST,
        may_fail: Sequence[int] = (),
    ) -> tuple[int, bytes, str]:
        """Status, body and content type of one answer."""
        host = self.address.host
        try:
            answer = self._pool.urlopen(
                method,
                f"{self._root}/{path}",
                body=body,
                headers={**self._headers, **headers},
                redirect=False,
                retries=False,
                preload_content=False,
                decode_content=False,
            )
            try:
                content = _bounded(answer, most)
            finally:
                answer.close() if answer.length_remaining else answer.release_conn()
        except urllib3.exceptions.SSLError as error:
            raise ArchiveError(
                f"{host}: {action}: no trusted connection ({_tls_reason(error)}); check --archive-authority and the certificates"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            # the library's own words hold the whole address, and with it what was asked for
            raise ArchiveError(f"{host}: {action}: no answer ({type(error).__name__})") from None
        if content is None:
            raise ArchiveError(
                f"{host}: {action}: more than {most >> 20} MiB, the most that is taken",
                passes=False,
            )
        status = answer.status
        if 300 <= status < 400:
            raise ArchiveError(
                f"{host}: {action}: sends elsewhere (status {status}); only the archive that was named is asked",
                passes=False,
            )
        if status >= 400 and status not in may_fail:
            advice = {
                401: "; the token or login is not accepted",
                403: "; the token or login may not do this",
                404: "; check the path of --archive",
            }.get(status, "")
            passes = status >= 500 or status in (401, 403, 408, 429)
            raise ArchiveError(f"{host}: {action}: status {status}{advice}", passes=passes)
        return status, content, answer.headers.get("Content-Type", "")


def _bounded(answer: urllib3.BaseHTTPResponse, most: int) -> bytes | None:
    """The body; None where it is longer than ``most``."""
    data = bytearray()
    while piece := answer.read(1 << 20):
        data += piece
        if len(data) > most:
            return None
    return bytes(data)


def _trust(address: Address) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=None if address.authority is None else str(address.authority)
        )
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if address.certificate is not None:
            # without a password OpenSSL would ask for one at the terminal, and wait
            context.load_cert_chain(address.certificate, address.key, password=lambda: "")
    except (OSError, ValueError, ssl.SSLError) as error:
        raise InputError(
            f"could not use the certificates of the archive ({type(error).__name__}); check --archive-certificate, "
            "--archive-certificate-key (its key without a password) and --archive-authority"
        ) from error
    return context


def _tls_reason(error: BaseException) -> str:
    inner = error.args[0] if error.args else error
    return str(getattr(inner, "verify_message", "") or getattr(inner, "reason", "") or "TLS")[:100]


def _json(body: bytes, host: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ArchiveError(f"{host}: the answer is not JSON") from None


def _values(one: Any, tag: str) -> list[Any]:
    found = one.get(tag) if isinstance(one, dict) else None
    values = found.get("Value") if isinstance(found, dict) else None
    return values if isinstance(values, list) else []


def _first(one: Any, tag: str) -> str:
    values = _values(one, tag)
    return str(values[0]) if values and isinstance(values[0], (str, int, float)) else ""


def _uid(value: str) -> str:
    """A UID as part of a path; nothing else comes into one."""
    if not _UID.fullmatch(value):
        raise ArchiveError("expected a DICOM UID, got something else", passes=False)
    return value
