"""Options of ``twinray serve`` and ``twinray store``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from twinray.checks import (
    DATA,
    DEVICE,
    GIVEN,
    MODEL,
    PLACE,
    RECORD,
    RISING,
    SPEED,
    above,
    at_least,
    between,
    goes_with,
    no_repeat,
    not_with,
    settle,
    written_as,
)


@dataclass(frozen=True)
class ServeConfig:
    """A web page and an HTTP API for readers: images in, boxes, labels and heat maps out, corrections kept.

    The address is this machine's own unless --host names another, which needs a token in the environment variable
    TWINRAY_TOKEN or users in the store.
    """

    runs: Annotated[tuple[Path, ...], DATA]
    """Folders of finished detect or classify runs; the first is shown unless another is chosen."""
    store: Annotated[str, PLACE] = "twinray-store"
    """Folder that keeps images and readings (SQLite), or the URL of a PostgreSQL database
    (postgresql://user@host/name)."""
    files: Annotated[Path | None, PLACE] = None
    """Folder of the image files where --store is a URL (default: twinray-store)."""
    host: Annotated[str, PLACE] = "127.0.0.1"
    """Address to listen at."""
    port: Annotated[int, PLACE, between(0, 65_535)] = 8000
    """Port to listen at; 0 takes a free one and says which."""
    study: Annotated[Path | None, DATA] = None
    """File of a reader study, which is served in place of worklist and viewer: readers sign in and read
    cases with and without the first model's boxes. See docs/reader_study.md."""
    names: Annotated[tuple[str, ...], PLACE] = ()
    """Further names that requests may call this server by (those of a reverse proxy); others are refused."""
    certificate: Annotated[Path | None, PLACE, goes_with(certificate_key=GIVEN)] = None
    """PEM file of a TLS certificate, to answer by HTTPS."""
    certificate_key: Annotated[Path | None, PLACE, goes_with(certificate=GIVEN)] = None
    """PEM file of the certificate's private key."""
    depth: Annotated[int | None, MODEL, between(8, 16, unit="bits")] = None
    """Bits of the detector, of files of more than 8 bits that are not DICOM (default: as in the
    model's pack; files are refused where that had none)."""
    value_range: Annotated[tuple[float, float] | None, MODEL, RISING, not_with("depth")] = None
    """Stored values that become black and white, in place of --depth."""
    archive: Annotated[str | None, PLACE, not_with("study")] = None
    """URL of the archive's DICOMweb, as in https://host/dicom-web. It is the only place that is called."""
    archive_token_env: Annotated[str | None, PLACE, not_with("archive_login_env")] = None
    """Name of the environment variable that holds the archive's bearer token."""
    archive_login_env: Annotated[str | None, PLACE, goes_with(archive=GIVEN)] = None
    """Name of the environment variable that holds user:password of the archive."""
    archive_certificate: Annotated[Path | None, PLACE, goes_with(archive=GIVEN)] = None
    """PEM file of the certificate by which the archive knows this server."""
    archive_certificate_key: Annotated[Path | None, PLACE, goes_with(archive_certificate=GIVEN)] = (
        None
    )
    """PEM file of that certificate's private key, where it is a file of its own."""
    archive_authority: Annotated[Path | None, PLACE, goes_with(archive=GIVEN)] = None
    """PEM file of the authorities that vouch for the archive (default: the system's)."""
    archive_plain: Annotated[bool, PLACE, goes_with(archive=GIVEN)] = False
    """Speak to an archive on another machine without encryption, within a closed network."""
    archive_peer: Annotated[str | None, PLACE, not_with("archive"), not_with("study")] = None
    """TITLE@HOST:PORT of an archive without web access, which gets results by C-STORE."""
    listen_dicom: Annotated[int | None, PLACE, between(0, 65_535), not_with("study")] = None
    """Port at which radiographs are received by C-STORE, at the address of --host; 0 takes a free
    one. The protocol knows no password: let the network allow the archive alone."""
    ae_title: Annotated[
        str, PLACE, written_as("1 to 16 letters, digits, _ . or -", "[A-Za-z0-9_.-]{1,16}")
    ] = "TWINRAY"
    """Title of this server among DICOM's application entities."""
    callers: Annotated[tuple[str, ...], PLACE] = ()
    """Titles that may send to --listen-dicom (default: all)."""
    fetch_every: Annotated[float | None, RECORD, above(0, "seconds"), goes_with(archive=GIVEN)] = (
        None
    )
    """Seconds between looks for new studies in the archive (default: none is looked for; studies are
    fetched when somebody asks)."""
    fetch_days: Annotated[int, RECORD, at_least(1, "days")] = 1
    """Days, today among them, whose studies are looked for."""
    modalities: Annotated[tuple[str, ...], RECORD, no_repeat("modalities", "DX")] = ("CR", "DX")
    """Modalities of the series that are fetched."""
    send_back: Annotated[Literal["never", "signed", "always"], RECORD] = "never"
    """When results go back to the archive: never but where a reader asks; signed: when a reader has
    finished an image; always: when the first model has answered. Only images that came from the archive are
    answered, and only from the time at which this was switched on."""
    send_objects: Annotated[tuple[Literal["sr", "sc", "gsps"], ...], RECORD] = ("sr", "sc")
    """Objects that go back: sr (structured report), sc (picture with boxes), gsps (presentation state)."""
    captures: Annotated[Literal["jpeg2000", "uncompressed"], RECORD] = "jpeg2000"
    """Pixels of pictures that go back: JPEG 2000 without loss, or uncompressed."""
    workers: Annotated[int, SPEED, at_least(1)] = 1
    """Processes that analyse images; one more answers for pixels and heat maps."""
    device: Annotated[str, PLACE, DEVICE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    timeout: Annotated[float, SPEED, above(0, "seconds")] = 60.0
    """Longest that decoding one file may take, seconds."""
    memory: Annotated[int, SPEED, at_least(1, "MiB")] = 2048
    """Most memory that decoding one file may take, MiB."""
    max_file: Annotated[int, RECORD, at_least(1, "MiB")] = 256
    """Largest file that is taken, MiB."""
    max_files: Annotated[int, RECORD, at_least(1, "files")] = 500
    """Most files of one upload."""
    max_queue: Annotated[int, RECORD, at_least(1, "images")] = 10_000
    """Most images that may wait to be analysed; further uploads are asked to come again later."""
    min_free: Annotated[int, RECORD, at_least(0, "MiB")] = 1024
    """Least space that stays free on the store's disk, MiB; below it no image is taken."""
    max_cache: Annotated[int, RECORD, at_least(1, "MiB")] = 4096
    """Most space of pixels and heat maps that are kept to be shown again, MiB."""
    rate: Annotated[float, RECORD, above(0, "requests a second")] = 50.0
    """Requests a second that one address may make on average, ten times as many in a burst."""
    session_hours: Annotated[float, RECORD, above(0, "hours")] = 12.0
    """Hours after which a reader has to sign in again."""
    log: Annotated[Path | None, PLACE] = None
    """File that takes the log, a line of JSON an event (default: standard error)."""
    allow_edited: Annotated[bool, RECORD] = False
    """Go on where a file of a run is not the one that it wrote; the log says so."""

    def __post_init__(self) -> None:
        settle(self)


@dataclass(frozen=True)
class StoreConfig:
    """What an operator does with the store of twinray serve: back it up, restore it, check it, forget a patient, let
    users in, work out a reader study."""

    action: Annotated[
        Literal[
            "backup",
            "restore",
            "check",
            "forget",
            "sweep",
            "add-user",
            "disable-user",
            "users",
            "reader-study",
            "end-study",
        ],
        MODEL,
    ]
    """backup writes all of a store into one file, also while it is served; restore makes a new store
    of one. check compares database and files. forget removes a patient or an image. sweep removes image files
    that no row names, left by a process that was killed, while no server runs. add-user lets
    somebody sign in, or gives a new password, which is asked for or comes in TWINRAY_PASSWORD;
    disable-user ends that; users lists them. reader-study writes a study's figures, RJafroc's workbook and
    all marks to --output; end-study ends one that nobody reads on."""
    store: Annotated[str, PLACE] = "twinray-store"
    """Folder of the store, or the URL of its PostgreSQL database."""
    files: Annotated[Path | None, PLACE] = None
    """Folder of the image files where --store is a URL (default: twinray-store)."""
    file: Annotated[Path | None, PLACE] = None
    """Backup file: new for backup, read by restore. It holds images and the key of pseudonyms: keep it as safe as the store."""
    patient: Annotated[str, DATA, not_with("image")] = ""
    """Pseudonym of the patient to forget, as the worklist shows it."""
    patient_file: Annotated[Path | None, DATA, not_with("image"), not_with("patient")] = None
    """File that holds the number (Patient ID) of the patient to forget. On a command line every user
    of the machine could read it; - reads standard input."""
    image: Annotated[str, DATA] = ""
    """Id of the image to forget."""
    name: Annotated[str, DATA] = ""
    """Name of the user, or of the reader study."""
    output: Annotated[Path | None, PLACE] = None
    """Folder that takes what reader-study writes."""
    role: Annotated[Literal["reader", "admin"], MODEL] = "reader"
    """Role of a new user."""

    def __post_init__(self) -> None:
        settle(self)
