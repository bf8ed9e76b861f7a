"""A message is one line, whatever a file's names hold."""

from __future__ import annotations

import pickle

import pytest

from twinray.errors import InputError, TwinrayError


@pytest.mark.parametrize("kind", [InputError, TwinrayError])
def test_a_message_is_one_printable_line(kind):
    error = kind(
        "expected a, found b\nc\x0bd\u2028e\ud800\x1b; größer \N{GREEK SMALL LETTER LAMDA}"
    )
    assert len(str(error).splitlines()) == 1
    assert (
        str(error) == "expected a, found b c d e\\ud800\\x1b; größer \N{GREEK SMALL LETTER LAMDA}"
    )
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
