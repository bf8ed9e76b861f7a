"""The options of ``twinray serve`` on an archive -> the link to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from twinray.errors import InputError
from twinray.evaluation.thresholds import FALLBACK_SCORE, thresholds_from_json
from twinray.serving.app.runs import Served
from twinray.serving.archive.client import Address
from twinray.serving.archive.courier import Courier, Rule, Settings, check_place
from twinray.serving.archive.peer import read_peer
from twinray.serving.archive.receiver import Listening, is_open_address
from twinray.serving.config import ServeConfig
from twinray.serving.log import log
from twinray.serving.store.store import Store


def open_link(
    config: ServeConfig, store: Store, served: Sequence[Served], wake: Callable[[], None]
) -> Courier | None:
    """The link; None where no archive is named and nothing is listened for.

    Raises:
        InputError: options that cannot be used, or a package that is not installed.
    """
    if config.archive is None and config.archive_peer is None and config.listen_dicom is None:
        if config.send_back != "never":
            raise InputError(
                f"expected --archive or --archive-peer with --send-back {config.send_back}, got neither"
            )
        return None
    if config.send_back != "never" and config.archive is None and config.archive_peer is None:
        raise InputError(
            f"expected --archive or --archive-peer with --send-back {config.send_back}, got --listen-dicom alone"
        )
    if not config.send_objects:
        raise InputError("expected --send-objects to be some of sr, sc, gsps, got none")
    try:
        import pynetdicom  # noqa: F401 - said here in one line, not in a thread later
        import urllib3  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"the link to an archive needs packages that are not installed ({error.name}); pip install 'twinray[serve]'"
        ) from error
    if config.listen_dicom is not None and is_open_address(config.host) and not config.callers:
        raise InputError(
            f"expected --callers with --listen-dicom at {config.host}: the protocol knows no password, so name the titles that may send"
        )
    settings = Settings(
        address=_address(config),
        peer=None if config.archive_peer is None else read_peer(config.archive_peer),
        title=config.ae_title,
        listening=None
        if config.listen_dicom is None
        else Listening(
            config.host,
            config.listen_dicom,
            config.ae_title,
            config.callers,
            config.max_file << 20,
        ),
        fetch_every=config.fetch_every,
        days=config.fetch_days,
        modalities=config.modalities,
        send_back=config.send_back,
        kinds=config.send_objects,
        compressed=config.captures == "jpeg2000",
        max_queue=config.max_queue,
        min_free=config.min_free << 20,
        max_file=config.max_file << 20,
        timeout=max(config.timeout, 60.0),
        memory=config.memory << 20,
    )
    if config.send_back == "always" and not served[0].gives_boxes:
        raise InputError(
            f"expected a detect run first with --send-back always, {served[0].run} is a classifier: reports hold boxes; "
            "use --send-back signed"
        )
    host = None if settings.address is None else settings.address.host
    log("archive", host=host, send_back=config.send_back, fetch_every=config.fetch_every)
    return Courier(
        store, store.exchange, settings, {m.model: _rule(m) for m in served if m.gives_boxes}, wake
    )


def _address(config: ServeConfig) -> Address | None:
    if config.archive is None:
        return None
    for path in (
        config.archive_certificate,
        config.archive_certificate_key,
        config.archive_authority,
    ):
        if path is not None:
            check_place(path)
    return Address(
        config.archive,
        _secret(config.archive_token_env, "--archive-token-env"),
        _secret(config.archive_login_env, "--archive-login-env"),
        config.archive_certificate,
        config.archive_certificate_key,
        config.archive_authority,
        config.archive_plain,
    )


def _secret(name: str | None, option: str) -> str:
    if name is None:
        return ""
    value = os.environ.get(name, "").strip()
    if not value or not value.isprintable() or not value.isascii():
        raise InputError(
            f"expected a secret in the environment variable {name} of {option}, it is empty or no plain text"
        )
    if option == "--archive-login-env" and ":" not in value:
        raise InputError(f"expected user:password in the environment variable {name}, got no colon")
    return value


def _rule(served: Served) -> Rule:
    """Boxes that go back unsigned: those of predict, for 0.25 false positives an image on validation."""
    raw = served.about["operating_points"]
    if raw is None:
        words = f"score >= {FALLBACK_SCORE:g} (fixed: the model holds no thresholds)"
        return Rule(dict.fromkeys(served.classes, FALLBACK_SCORE), words)
    table = thresholds_from_json(raw, served.classes, str(served.run / "model.json"))
    point = table.at(None)
    words = f"by class, for {point.fp_per_image:g} false positives per image on {table.n_images} validation images"
    least = [float(value) for value in point.thresholds()]
    return Rule(dict(zip(served.classes, least, strict=True)), words)
