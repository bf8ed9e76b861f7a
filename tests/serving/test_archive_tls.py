"""An archive by HTTPS that asks for a certificate, and whose own is vouched for by the hospital alone."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace

import pytest

from twinray.errors import InputError
from twinray.serving.archive.client import Address, ArchiveError, DicomWeb

pytest.importorskip("cryptography", reason="cryptography makes the certificates (extra dev)")
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Makes certificates into a folder, each with its key in a file of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._pem(self._signed(self.name, self.key.public_key(), True)))

    def _signed(self, subject, public, ca: bool):
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
        )  # fmt: skip
        if ca:
            usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
            made = made.add_extension(usage, critical=True)
        return made.sign(self.key, hashes.SHA256())

    @staticmethod
    def _pem(certificate) -> bytes:
        return certificate.public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str, password: bytes = b"") -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        places = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        places[0].write_bytes(self._pem(self._signed(subject, key.public_key(), False)))
        shut = (
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption()
        )
        places[1].write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, shut)
        )
        return places


class Empty(http.server.BaseHTTPRequestHandler):
    """An archive without a study, which notes who asked."""

    def do_GET(self) -> None:
        self.server.asked.append(dict(self.connection.getpeercert()["subject"][0])["commonName"])
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_: object) -> None:
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A handshake that failed is what the tests are about."""


@pytest.fixture
def closed(tmp_path) -> Iterator[SimpleNamespace]:
    """An archive by HTTPS that asks who we are, and takes certificates of its own authority alone."""
    authority = Authority(tmp_path, "hospital")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("archive"))
    context.load_verify_locations(authority.file)
    context.verify_mode = ssl.CERT_REQUIRED
    server = Quiet(("127.0.0.1", 0), Empty)
    server.asked = []
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield SimpleNamespace(
        url=f"https://127.0.0.1:{server.server_port}/dicom-web",
        asked=server.asked,
        authority=authority,
        folder=tmp_path,
    )
    server.shutdown()
    server.server_close()


def test_a_client_certificate_lets_us_in_and_nothing_else_does(closed):
    certificate, key = closed.authority.issue("viewer")
    trust = {"authority": closed.authority.file}
    assert DicomWeb(Address(closed.url, certificate=certificate, key=key, **trust)).studies() == []
    both = closed.folder / "both.pem"  # certificate and key in one file
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    assert DicomWeb(Address(closed.url, certificate=both, **trust)).studies() == []
    assert closed.asked == ["viewer", "viewer"]
    strangers = Authority(closed.folder, "strangers").issue("stranger")
    for odd_address in (
        Address(closed.url, **trust),
        Address(closed.url, certificate=strangers[0], key=strangers[1], **trust),
        Address(
            closed.url, certificate=certificate, key=key
        ),  # nobody here vouches for the archive
    ):
        with pytest.raises(ArchiveError) as caught:
            DicomWeb(odd_address).studies(PatientID="Canary")
        assert "Canary" not in str(caught.value)
    assert len(closed.asked) == 2  # none of these got so far as to ask


def test_a_key_behind_a_password_is_refused_and_never_asked_for(closed):
    certificate, key = closed.authority.issue("viewer", password=b"secret")
    with pytest.raises(InputError, match="without a password"):
        DicomWeb(
            Address(closed.url, certificate=certificate, key=key, authority=closed.authority.file)
        )
    with pytest.raises(InputError, match="--archive-certificate"):
        DicomWeb(Address(closed.url, certificate=closed.folder / "none.pem"))
