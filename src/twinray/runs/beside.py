"""Models that stand beside the served ones in a store's viewer: trained from its readings, shown because they were asked for.

``beside.json`` in the store's folder names runs. The server shows them after those of its command line, so none takes the
place of the first. Whoever wants one gone removes its entry; whoever wants one first names it first on the command line.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from twinray.files import read_json, typed, write_json

FILE: Final = "beside.json"
_WHAT: Final = "list of models beside the served ones"


@dataclass(frozen=True)
class Beside:
    """One model.

    Attributes:
        run: folder of its run. model: hash of its weights. from_model: hash of the model that it was trained from.
        comparison: page that compares both on the same test patients.
        since: time, as ISO 8601.
    """

    run: str
    model: str
    from_model: str
    comparison: str
    since: str


@dataclass(frozen=True)
class _Kept:
    models: tuple[Beside, ...] = ()


def read_beside(store: Path) -> tuple[Beside, ...]:
    """The models beside the served ones, oldest first; none where the store has no such list.

    Raises:
        InputError: a damaged list.
    """
    path = store / FILE
    if not path.is_file():
        return ()
    return typed(read_json(path, _WHAT), _Kept, path, _WHAT).models


def put_beside(store: Path, one: Beside) -> None:
    """Add a model; one of the same weights is replaced.

    Raises:
        InputError: a damaged list. TwinrayError: the folder cannot be written.
    """
    kept = [other for other in read_beside(store) if other.model != one.model]
    write_json(store / FILE, asdict(_Kept((*kept, one))), _WHAT)
