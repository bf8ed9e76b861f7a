"""A message is one line, whatever a file's names hold."""

from __future__ import annotations

import pickle

import pytest
import torch

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


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    ],
)
@pytest.mark.parametrize(("verb", "in_pieces"), [("pretrain", True), ("detect", False)])
def test_out_of_memory_names_what_takes_less(monkeypatch, cli, verb, in_pieces, error):
    def fails(config):
        raise error

    monkeypatch.setattr(f"twinray.jobs.train.{verb}_and_tell", fails)
    status, _, err = cli(verb, "--data", "p", "--out", "o")
    assert status == 1 and err.count("\n") == 1
    assert err.startswith("twinray: out of memory") and "--batch-size" in err
    assert ("--accumulate" in err) == in_pieces
