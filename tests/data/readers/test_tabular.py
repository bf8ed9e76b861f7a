"""The one CSV reader: encodings, delimiters, gzip, damage; against Python's own csv where both can read."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinray.data.readers.tabular import MISSING, read_rows
from twinray.errors import InputError

TABLE = "path,patient,note\na.png,p1,größer\nb.png,p2,\n"
ROWS = [["a.png", "p1", "größer"], ["b.png", "p2", ""]]


def read(path: Path, *needed: str, **options: object) -> list[list[str]]:
    return [list(row.cells) for row in read_rows(path, needed or ("path", "patient"), **options)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_table_is_told_by_its_content(
    tmp_path: Path, encoding: str, delimiter: str, newline: str, packed: bool
) -> None:
    content = TABLE.replace(",", delimiter).replace("\n", newline).encode(encoding)
    path = tmp_path / "table"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    assert read(path) == ROWS


def test_big_endian_utf16_has_its_mark_too(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"\xfe\xff" + TABLE.encode("utf-16-be"))
    assert read(tmp_path / "t.csv") == ROWS


def test_the_needed_columns_decide_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,patient;of;whom,x\na,p;q;r,1\n")
    assert read(path, "path") == [["a", "p;q;r", "1"]]
    path.write_text("path;box [x,y,w,h];patient\na;1,2,3,4;p\n")
    assert read(path) == [["a", "1,2,3,4", "p"]]
    path.write_text("path\na;b,c\n")
    assert read(path, "path") == [["a;b", "c"]]


def test_rows_carry_their_place_and_cells_by_any_spelling(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(' File ,Age\n\na.png, 7 \n"b\nc", \n,,\nshort\n')
    rows = list(read_rows(path, (("path", "file"),), any_case=True))
    assert [row.where for row in rows] == [f"{path} line {n}" for n in (3, 5, 7)]
    assert [row[("path", "file")] for row in rows] == ["a.png", "b\nc", "short"]
    assert (rows[0]["age"], rows[2]["age"], rows[0]["none"]) == ("7", "", "")
    assert rows[0].others((("path", "file"),)) == {"Age": " 7 "}
    assert "age" in rows[0]
    assert "Age" not in rows[0]


def test_a_header_may_have_line_breaks_inside_quotes(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('"path","what was\nseen"\na.png,x\n')
    (row,) = read_rows(path, ("path",))
    assert (row["what was\nseen"], row.line) == ("x", 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"path,patient\na,caf\xe9\n",
            "expected CSV in UTF-8 .* other bytes at or after line 1; save it as UTF-8",
        ),
        (TABLE.encode("utf-16-le"), "bytes of no text"),
        (TABLE.encode("utf-32"), "bytes of no text"),
        (b"PK\x03\x04 and so on", "a zip archive or an Excel workbook; save it as CSV"),
        (gzip.compress(TABLE.encode(), mtime=0)[:-9], "expected a whole gzip file"),
        (b"\x1f\x8b but no gzip", "expected a whole gzip file"),
        (
            b'path,patient\na,"never closed\nb,p\nc,p\n',
            "below line 1: unexpected end of data; correct the table",
        ),
        (b"path,patient\na," + b"x" * (1 << 20), "a line of more than 1,048,576 characters"),
        (b"path,patient\na," + b"x" * 200_000, "field larger than field limit"),
        (b"", "expected the columns path, patient in .*, found nothing"),
        (b"path,age\n", "found path, age; missing: patient; give the file as it is published"),
        (b"path,patient,path\n", "expected one column 'path' in .*, found it twice"),
    ],
)
def test_damage_is_one_clear_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(tmp_path / "t.csv")
    assert "\n" not in str(caught.value)
    assert "t.csv" in str(caught.value)


def test_columns_that_are_used_where_they_are_there_must_be_there_once(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,note,note,Label,label\n")
    assert read(path, "path") == []
    with pytest.raises(InputError, match=r"expected one column 'label' in .*, found it twice"):
        read(path, "path", optional=("label",), any_case=True)


def test_what_is_no_file_is_one_clear_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere.csv"):
        with pytest.raises(InputError, match="could not read the table"):
            read(path)


CELL = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=8)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(CELL, CELL, CELL), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
)
def test_what_pythons_writer_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    cells: list[tuple[str, str, str]],
    delimiter: str,
    quoting: int,
) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, quoting=quoting).writerows(
        [("path", "patient", "x"), *cells]
    )
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    stated = [["" if c.strip().casefold() in MISSING else c for c in row] for row in cells]
    assert read(path) == [row for row in stated if any(row)]


@pytest.mark.parametrize(
    "word", ["nan", "NaN", "NULL", "null", " NA ", "None", "<NA>", "#N/A", "NaT"]
)
def test_words_for_nothing_are_empty_cells_and_counted_by_column(tmp_path: Path, word: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f"path,patient,age\na.png,{word},3\nb.png,{word},{word}\nc.png,Nancy,nano\n")
    notes: list[str] = []
    assert read(path, notes=notes) == [
        ["a.png", "", "3"],
        ["b.png", "", ""],
        ["c.png", "Nancy", "nano"],
    ]
    assert notes == [
        "3 cells of t.csv hold nan, null or the like and count as empty (patient 2, age 1)"
    ]


def test_a_class_may_be_called_none(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("path,patient,label\na.png,p,None\nb.png,p,nan\n")
    assert [row[2] for row in read(path, classes=("label",))] == ["None", ""]
