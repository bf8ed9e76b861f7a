"""A detector's class name -> the code under which a structured report states it as a finding.

Only names that equal, word for word, a SNOMED CT concept in DICOM's own context groups get that
code. The groups are CID 3700, 6102, 6105 and 8134 of PS3.16. Everything else keeps its own name
under the private scheme 99TWINRAY. A data set's "Effusion" or "Infiltration" is what its readers
called so, and no better known to us.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

PRIVATE_SCHEME = "99TWINRAY"
"""Designators that begin with 99 are private (PS3.16, 8)."""

_STANDARD = {
    "mass": "4147007",
    "nodule": "27925004",
    "pleural effusion": "60046008",
    "pneumothorax": "36118008",
    "pulmonary edema": "19242006",
}
_LONGEST_CODE, _LONGEST_MEANING = 16, 64


@dataclass(frozen=True, slots=True)
class FindingCode:
    """Code Value (at most 16 characters), Coding Scheme Designator, Code Meaning (at most 64 bytes)."""

    value: str
    scheme: str
    meaning: str


def finding_code(name: str) -> FindingCode:
    """The code of a class: a name always gets the same one, and names without a standard code never share one."""
    plain = " ".join(name.replace("_", " ").split())
    standard = _STANDARD.get(plain.casefold())
    if standard is not None:
        return FindingCode(standard, "SCT", plain[0].upper() + plain[1:].lower())
    printable = "".join(c if c.isprintable() and c != "\\" else " " for c in name)
    meaning = " ".join(printable.split()) or "class without a name"
    return FindingCode(_private_value(name), PRIVATE_SCHEME, _cut(meaning))


def _private_value(name: str) -> str:
    """The name itself where it is a legal, short code; otherwise its beginning and a hash of the whole."""
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) and len(name) <= _LONGEST_CODE - 1:
        return name
    letters = re.sub(r"[^A-Za-z0-9]+", "", name)[:9]
    return f"{letters}.{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}"


def _cut(meaning: str) -> str:
    """At most 64 bytes of UTF-8: the standard counts letters, but validators count bytes."""
    if len(meaning.encode("utf-8")) <= _LONGEST_MEANING:
        return meaning
    return meaning.encode("utf-8")[: _LONGEST_MEANING - 3].decode("utf-8", "ignore").rstrip() + "…"
