"""Errors that a user can act on.

Every message says what was expected, what came, where, and what to do next. The command
line prints it as one line, without a traceback, and exits with ``exit_code``.
"""

from __future__ import annotations


class TwinrayError(Exception):
    """A failure with a known cause that is not the user's input (a full disk, say): exit status 1.

    What a file says of itself may hold line breaks and control characters: a message is one line of what can be printed.
    """

    exit_code = 1
    told = False
    """Whether another process of the same job tells it."""

    def __init__(self, message: str = "") -> None:
        super().__init__(
            "".join(
                c if c.isprintable() else c.encode("unicode_escape").decode()
                for c in " ".join(message.splitlines())
            )
        )


class DiskFull(TwinrayError):
    """A disk or quota without room: nothing is wrong with the work, which goes on where it was once there is some."""


class InputError(TwinrayError):
    """Bad input: an option, a file, a row of a table: exit status 2."""

    exit_code = 2


class Stopped(TwinrayError):
    """A signal of a scheduler, met where the state could be saved: the same command with ``--resume`` goes on."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, met where the state could be saved: the message says what is kept. Exit status 130.

    It is no :class:`TwinrayError`: a loop over runs that passes errors by must end with it.
    """

    told = False
    """Whether another process of the same job tells it."""
