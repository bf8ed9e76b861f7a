"""No two runs of an evaluation share a name or a file."""

from __future__ import annotations

from pathlib import Path

from twinray.runs.names import file_names, run_names


def test_folders_of_one_name_are_called_by_their_paths():
    assert run_names([Path("x/r"), Path("y/s")]) == ["r", "s"]
    assert run_names([Path("x/r"), Path("y/r"), Path("x_r")]) == ["x/r", "y/r", "x_r"]


def test_every_name_has_a_file_of_its_own():
    names = ["x/r", "y/r", "x_r", "X_R", "x_r-2", 'a:"b"', "a:\n"]
    files = file_names(names)
    assert list(files) == names
    assert (files["x_r"], files["y/r"], files["x_r-2"]) == ("x_r", "y_r", "x_r-2")
    assert len({file.casefold() for file in files.values()}) == len(names)
    assert not set("".join(files.values())) & set('/\\:"\n')


def test_long_paths_still_fit_into_a_file_name():
    names = [f"{'long/' * 80}{i}/run" for i in range(2)] + ["é" * 250]
    files = file_names(names)
    assert len(set(files.values())) == 3
    assert all(len(file.encode()) <= 170 for file in files.values())
    assert files[names[0]].endswith("0_run")
