"""Pseudonyms: the same under one key, without it none; and what is taken out of messages."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinray.data.pseudonyms import HIDDEN, Censor, Pseudonyms, read_key
from twinray.errors import InputError


@given(st.text(), st.text(min_size=1).filter(lambda key: key.strip()))
def test_a_pseudonym_is_the_beginning_of_the_keyed_hash(value: str, key: str) -> None:
    found = Pseudonyms(key).of(value, "patient")
    data = value.encode("utf-8", "backslashreplace")
    assert hmac.new(key.encode("utf-8"), data, hashlib.sha256).hexdigest().startswith(found)
    assert len(found) == 16


def test_endings_of_images_stay_and_no_others() -> None:
    names = Pseudonyms("k")
    assert names.of_path("a/b.PNG").endswith(".png")
    assert "." not in names.of_path("scan.Mueller")


@pytest.mark.parametrize(
    ("said", "left"),
    [
        ("expected a number, got 'Anna'; correct the row", "expected a number, got …; correct the row"),
        ("the pack's images, the model's size", "the pack's images, the model's size"),
        ("could not read /data/Anna Berg/x.dcm: no such file", "could not read … no such file"),
        ("Anna Berg already has a row further up", "… already has a row further up"),
        ("3 files of 12 patients", "3 files of 12 patients"),
        ("expected MONOCHROME2, got ANNA with 1 samples; leave it out", "expected MONOCHROME2, got … with 1 samples; leave it out"),
        ("expected 8 or 16 bits, got 3 stored in 8; leave it out", "expected 8 or 16 bits, got 3 stored in 8; leave it out"),
        ("12345678 already has a row", "… already has a row"),
        ("all lie in the folder Anna Berg: taken as nesting", "all lie in the folder …: taken as nesting"),
    ],
)  # fmt: skip
def test_names_leave_a_message_and_words_stay(said: str, left: str) -> None:
    censor = Censor(["Anna Berg/x.dcm", "12345678", "12"])
    assert censor(said) == left


@given(
    st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=4, max_size=12), min_size=1, max_size=4),
    st.sampled_from(["{} is gone", "see {}", "({}), again", "first: {}; then", "a {} b"]),
)  # fmt: skip
def test_a_known_name_of_several_words_is_found_wherever_it_stands(words, frame) -> None:
    name = " ".join(words)
    assert name not in Censor([name])(frame.format(name)).replace(HIDDEN, "")


def test_a_folder_is_walked(tmp_path: Path) -> None:
    (tmp_path / "Berg" / "Anna B").mkdir(parents=True)
    (tmp_path / "Berg" / "Anna B" / "Hals.note").write_text("")
    censor = Censor()
    censor.walk(tmp_path / "Berg")
    assert censor("in Berg lies Anna B and Hals.note") == f"in {HIDDEN} lies {HIDDEN} and {HIDDEN}"


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "is empty"), (b"\xff\xfe\xff", "UTF-8"), (None, "could not read")],
)
def test_a_key_that_is_none_is_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_key(path)
