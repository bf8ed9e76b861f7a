"""Who may sign in, and who is signed in. Passwords are kept as salted scrypt hashes, cookies' secrets as hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final

import sqlalchemy as sa
from sqlalchemy import select
from sqlalchemy.orm import Session

from twinray.errors import InputError
from twinray.serving.store.audit import note
from twinray.serving.store.database import Database
from twinray.serving.store.models import SignIn, User

Role = Literal["reader", "admin"]
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
"""Names of users and readers: what can stand in a file name, a log and a table without quoting."""
_RESERVED = frozenset({"token", "local", "server", "operator", "archive"})
"""Who the audit says it was where it was no user: nobody may sign in under one of these."""
_LEAST_PASSWORD = 12
_N, _R, _P = 1 << 14, 8, 1
_NOBODY = "00" * 16 + "$" + "00" * 32


@dataclass(frozen=True)
class Signed:
    """One who is signed in: ``secret`` for the cookie, ``csrf`` for the header of changes."""

    secret: str
    csrf: str
    who: str
    role: Role
    expires: float


@final
class People:
    """Users and sessions in a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, name: str, password: str, role: Role = "reader") -> None:
        """Add a user, or give one a new password and role; all of the user's sessions end.

        Raises:
            InputError: a name that is none, or a password that is too short.
        """
        if not NAME.fullmatch(name):
            raise InputError(
                f"expected a name of letters, digits and . _ @ - of at most 64, got {name!r}"
            )
        if name.lower() in _RESERVED:
            raise InputError(
                f"expected a name that the audit does not use itself, got {name!r}; choose another one"
            )
        if len(password) < _LEAST_PASSWORD:
            raise InputError(
                f"expected a password of {_LEAST_PASSWORD} characters or more, got {len(password)}"
            )
        secret = _hashed(password, secrets.token_bytes(16))

        def change(session: Session) -> None:
            user = session.get(User, name)
            if user is None:
                session.add(User(name=name, secret=secret, role=role, created=time.time()))
            else:
                user.secret, user.role, user.disabled = secret, role, False
            session.execute(sa.delete(SignIn).where(SignIn.who == name))
            note(session, "operator", "user set", details={"user": name, "role": role})

        self._database.write(change)

    def disable(self, name: str) -> None:
        """Let a user sign in no more; what was read under the name stays.

        Raises:
            InputError: there is no such user.
        """

        def change(session: Session) -> bool:
            user = session.get(User, name)
            if user is None:
                return False
            user.disabled = True
            session.execute(sa.delete(SignIn).where(SignIn.who == name))
            note(session, "operator", "user disabled", details={"user": name})
            return True

        if not self._database.write(change):
            raise InputError(f"expected a user of this store, there is no {name!r}")

    def all(self) -> Sequence[User]:
        """All users by name."""
        with self._database.reading() as session:
            return session.scalars(select(User).order_by(User.name)).all()

    def check(self, name: str, password: str) -> Role | None:
        """The role of a user whose password is right; None for any other. It takes as long for names that do not exist."""
        with self._database.reading() as session:
            user = session.get(User, name)
            known = user.secret if user is not None and not user.disabled else _NOBODY
            role = user.role if user is not None else "reader"
        salt = bytes.fromhex(known.partition("$")[0])
        if hmac.compare_digest(_hashed(password, salt), known):
            return "admin" if role == "admin" else "reader"
        return None

    def sign_in(self, who: str, role: Role, hours: float) -> Signed:
        """Begin a session under a secret of its own."""
        secret, csrf, now = secrets.token_urlsafe(32), secrets.token_urlsafe(32), time.time()
        expires = now + 3600 * hours

        def change(session: Session) -> None:
            session.execute(sa.delete(SignIn).where(SignIn.expires < now))
            session.merge(
                SignIn(
                    id=_cookie_hash(secret),
                    who=who,
                    role=role,
                    csrf=csrf,
                    created=now,
                    expires=expires,
                )
            )
            note(session, who, "signed in")

        self._database.write(change)
        return Signed(secret, csrf, who, role, expires)

    def signed_in(self, secret: str) -> Signed | None:
        """Whose session a cookie is; None of one that ended or never was."""
        with self._database.reading() as session:
            found = session.get(SignIn, _cookie_hash(secret))
            if found is None or found.expires < time.time():
                return None
            role: Role = "admin" if found.role == "admin" else "reader"
            return Signed(secret, found.csrf, found.who, role, found.expires)

    def sign_out(self, secret: str) -> None:
        """End a session."""
        self._database.write(
            lambda session: session.execute(
                sa.delete(SignIn).where(SignIn.id == _cookie_hash(secret))
            )
        )


def _hashed(password: str, salt: bytes) -> str:
    made = hashlib.scrypt(password.encode(), salt=salt, n=_N, r=_R, p=_P, maxmem=1 << 26, dklen=32)
    return f"{salt.hex()}${made.hex()}"


def _cookie_hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
