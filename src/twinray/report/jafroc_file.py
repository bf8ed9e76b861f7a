"""The workbook of a reader study that RJafroc reads, and beside it who is behind which number.

RJafroc reads ``.xlsx`` only (``DfReadDataFile(..., newExcelFileFormat = TRUE)``) and refuses further sheets.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from twinray.errors import InputError
from twinray.evaluation.readers.jafroc import ReaderStudy, sheets
from twinray.files import write_bytes, write_text


def write_jafroc(study: ReaderStudy, path: Path) -> tuple[Path, Path]:
    """Write the workbook and the names.

    Args:
        study: what readers marked.
        path: file to write, ``.xlsx``.

    Returns:
        The workbook, and a CSV file of arms, readers and images by number.

    Raises:
        InputError: another ending, or openpyxl is not installed.
    """
    if path.suffix.lower() != ".xlsx":
        raise InputError(f"reader study: expected a file that ends in .xlsx, got {path.name}")
    try:
        from openpyxl import Workbook
    except ImportError:
        raise InputError(
            "reader study: writing .xlsx needs openpyxl; install it with: pip install 'twinray[excel]'"
        ) from None
    made = sheets(study)
    names = made.pop("NAMES")
    book = Workbook(write_only=True)
    for title, rows in made.items():
        sheet = book.create_sheet(title)
        for row in rows:
            # None is an empty cell; an empty text would be a cell with a text in it
            sheet.append([None if cell == "" else cell for cell in row])
    out = io.BytesIO()
    book.save(out)
    write_bytes(path, out.getvalue(), "reader study")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(names)
    beside = path.with_name(f"{path.stem}-names.csv")
    write_text(beside, text.getvalue(), "names of a reader study")
    return path, beside
