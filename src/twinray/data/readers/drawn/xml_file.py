"""One XML file -> its elements, without what makes XML dangerous.

Annotation files come from anywhere. A document type declaration can define entities that unfold to gigabytes or name files of
this machine; no annotation tool writes one, so it is refused. So are files that are larger or nested deeper than annotations
are.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from twinray.errors import InputError
from twinray.files import check_regular

_MOST_BYTES = 2 << 30
_DEEPEST = 64


class _Refused(Exception):
    pass


def read_xml(path: Path, what: str) -> Element:
    """The root element.

    Args:
        path: path of the file.
        what: what it is, for messages.

    Raises:
        InputError: it is not there, is no XML (with line and column), declares a document type, or is too large or too deep.
    """
    check_regular(path, what)
    builder, depth = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise _Refused(f"elements nested more than {_DEEPEST} deep")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def doctype(*_: object) -> None:
        raise _Refused("a document type declaration (<!DOCTYPE ...>)")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = doctype
    parser.buffer_text = True
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise _Refused(f"more than {_MOST_BYTES >> 30} GiB")
        with path.open("rb") as file:
            parser.ParseFile(file)
        return builder.close()
    except _Refused as refused:
        raise InputError(
            f"expected {what} in {path}, found {refused}; remove it, or export the annotations again"
        ) from None
    except OSError as error:
        raise InputError(
            f"could not read {what} {path}: {error.strerror}; check the path"
        ) from error
    except expat.ExpatError as error:
        raise InputError(
            f"expected XML in {what} {path}, line {error.lineno} column {error.offset}: {expat.ErrorString(error.code)}; "
            "repair the file"
        ) from error
    except (
        AssertionError,
        LookupError,
        ValueError,
    ) as error:  # no element at all, or an encoding that nobody knows
        raise InputError(f"expected XML in {what} {path}: {error}; repair the file") from error


def text_of(element: Element, name: str) -> str:
    """The text of a child without surrounding blanks; empty where there is none."""
    return (element.findtext(name) or "").strip()


def numbers(values: list[str]) -> list[float] | None:
    """Text as numbers; None if one is none."""
    try:
        return [float(value) for value in values]
    except ValueError:
        return None
