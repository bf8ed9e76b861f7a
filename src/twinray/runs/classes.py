"""Lists of class names: those of a run or of a pack, and how two lists differ. No torch.

Labels are numbers that index such a list, so its order counts as much as its names. With two names
swapped, every box of the one class would silently become one of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twinray.data.pack import PACK, read_info
from twinray.errors import InputError
from twinray.runs.description import MODEL, read_description
from twinray.words import counted


def difference(wanted: Sequence[str], names: Sequence[str], whose: str, other: str) -> str:
    """How two lists of classes differ, in words; empty where they are the same.

    Args:
        wanted: the list to compare with.
        names: the list that is compared.
        whose: name of what ``wanted`` is of, in a word or two.
        other: name of what ``names`` is of.
    """
    if tuple(wanted) == tuple(names):
        return ""
    missing, new = sorted(set(wanted) - set(names)), sorted(set(names) - set(wanted))
    if missing or new:
        return f"only in the {whose}: {missing}; only in the {other}: {new}"
    return f"the same names in another order, and the order counts: in the {whose} {list(wanted)}"


def never_learned(learnt: Mapping[str, int], tested: Mapping[str, int]) -> list[str]:
    """Notes on box classes that training never saw, though figures count them.

    Such a class is found by chance alone. Its average precision is then near 0, and stays in the means over classes, as
    pycocotools has it. (A classifier's chance is an AUC of 0.5, which would flatter, so classifiers keep it out of them.)

    Args:
        learnt: number of training boxes by class.
        tested: number of boxes by class in the splits that are measured.
    """
    lacking = [name for name, n in learnt.items() if not n]
    found = [
        f"{name!r} ({counted(tested[name], 'box', 'boxes')} tested)"
        for name in lacking
        if tested.get(name)
    ]
    silent = [repr(name) for name in lacking if not tested.get(name)]
    notes = []
    if found:
        notes.append(
            f"WARNING: never learned, without a training box: {', '.join(found)}; these classes stay in the means over "
            "classes, near 0"
        )
    if silent:
        notes.append(f"no box in training, val and test: {', '.join(silent)}")
    return notes


def box_classes_of(path: Path) -> tuple[tuple[str, ...], str]:
    """The box classes of a finished detect run or of a pack, and which of the two it is: run or pack.

    Raises:
        InputError: neither, or one without boxes.
    """
    if (path / PACK).is_file():
        names, what = read_info(path).box_classes, "pack"
    elif (path / MODEL).is_file():
        described = read_description(path / MODEL)
        names, what = described.classes if described.kind == "detector" else (), "run"
    else:
        raise InputError(
            f"expected a pack or the folder of a finished detect run, {path} has neither {PACK} nor {MODEL}; check the path"
        )
    if not names:
        raise InputError(
            f"the {what} {path} has no box classes; give a pack with boxes or a finished detect run"
        )
    return names, what
