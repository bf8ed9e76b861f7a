"""The study's file: YAML that people write, read into typed records. Every error is one line with file, place and remedy."""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
import yaml

from twinray.errors import InputError
from twinray.files import check_regular

T = TypeVar("T")
Scalar = bool | int | float | str | None
Value = Scalar | list[Scalar]
Options = dict[str, Value]


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """A pre-training of the study.

    Attributes:
        pack: name of a pack, or several.
        leave_out: names of packs whose patients are not learnt from.
        init: initial weights, as ``pretrain --init`` takes them.
        seeds: seeds; each is a pre-training of its own.
        options: further options of ``pretrain``.
    """

    pack: str | list[str]
    leave_out: list[str] = dataclasses.field(default_factory=list)
    init: str = "random"
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    options: Options = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Arm:
    """Initial weights under test.

    Attributes:
        name: name in tables; by default what ``init`` or ``pretraining`` says.
        init: initial weights, as ``detect --init`` takes them.
        pretraining: name of a pre-training of the study, in place of ``init``.
        seeds: seeds of that pre-training to take; all of them unless given.
        options: options that go with the initial weights.
    """

    name: str = ""
    init: str = ""
    pretraining: str = ""
    seeds: list[int] | None = None
    options: Options = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Between:
    """A range that a random search draws from.

    Attributes:
        low, high: ends, both above 0 where ``log`` is on.
        log: flag, true if the logarithm is uniform.
    """

    low: float
    high: float
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Search:
    """A small search that every arm gets with the same budget, on validation images.

    Attributes:
        space: option -> values to try, or a range to draw from.
        budget: number of trials of each arm; the whole grid unless given.
        seed: seed of the draws.
    """

    space: dict[str, list[Scalar] | Between]
    budget: int | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Task:
    """What the arms are compared at.

    Attributes:
        verb: detect or classify.
        pack: name of a pack.
        arms: names of the arms that take part; all unless given.
        policies: policies of ``classify``.
        fractions: shares of the training images that may be used, above 0 up to 1.
        sizes: sides of the network's input, in pixels; the verb's default unless given.
        seeds: seeds of the runs, the same for every arm.
        folds: folds of the pack to test on; all of them unless given.
        heat_maps: number of test images with heat maps in the report.
        options: further options of the verb, the same for every arm.
        by_arm: arm -> options that go with its initial weights.
        search: values that are searched for.
        readers: name of a pack of the same images with every reader's boxes (``fusion_iou: 0``), for the human ceiling; that of the
            task unless given.
    """

    verb: Literal["detect", "classify"]
    pack: str
    arms: list[str] | None = None
    policies: list[str] | None = None
    fractions: list[float] = dataclasses.field(default_factory=lambda: [1.0])
    sizes: list[int] | None = None
    seeds: list[int] = dataclasses.field(default_factory=lambda: [0])
    folds: list[int] | None = None
    heat_maps: int = 0
    options: Options = dataclasses.field(default_factory=dict)
    by_arm: dict[str, Options] = dataclasses.field(default_factory=dict)
    search: Search | None = None
    readers: str = ""


@dataclasses.dataclass(frozen=True)
class Unfair:
    """An option that differs between arms on purpose.

    Attributes:
        option: its name.
        reason: why; it stands in the report.
        arm: name of the arm; any unless given.
    """

    option: str
    reason: str
    arm: str = ""


@dataclasses.dataclass(frozen=True)
class Beside:
    """A published table that stands beside a task's figures in the report.

    Attributes:
        table: name of the table (``twinray.report.published``).
        task: name of the task.
        arms: name of an arm in the published table -> name of the study's.
        policy: policy of the task's classifiers; any unless given.
        size: side of the input, in pixels; any unless given.
        differs: further differences in data or protocol, a sentence each.
    """

    table: str
    task: str
    arms: dict[str, str]
    policy: str = ""
    size: int = 0
    differs: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class StudyFile:
    """A study as its file states it.

    Attributes:
        study: title.
        question: question that the study answers.
        variables: defaults of ``${NAME}``; the environment takes precedence.
        packs: name -> path of a finished pack, or options of ``pack``.
        pretrainings: by name.
        arms: in their order; a text is the arm's initial weights.
        tasks: by name.
        options: verb (or ``all``) -> options of all its runs.
        unfair: options that may differ between arms, with reasons.
        limits: sentences on what the study cannot say; they stand beside the answer.
        published: published tables that stand beside the study's figures.
    """

    study: str
    packs: dict[str, str | Options]
    arms: list[str | Arm]
    tasks: dict[str, Task]
    question: str = ""
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    pretrainings: dict[str, Pretraining] = dataclasses.field(default_factory=dict)
    options: dict[str, Options] = dataclasses.field(default_factory=dict)
    unfair: list[Unfair] = dataclasses.field(default_factory=list)
    limits: list[str] = dataclasses.field(default_factory=list)
    published: list[Beside] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Source:
    """Where a study was read from.

    Attributes:
        path: the file; paths in it are relative to its folder.
        text: what it holds.
        unset: names of variables that nothing sets.
    """

    path: Path
    text: str
    unset: tuple[str, ...] = ()

    def fault(self, place: str, what: str) -> InputError:
        """An error at a place of the file (``tasks.lesions.pack``)."""
        return InputError(f"{self.path}: {place}: {what}" if place else f"{self.path}: {what}")


def read_study(path: Path) -> tuple[StudyFile, Source]:
    """Read a study's file.

    Args:
        path: YAML file.

    Returns:
        The study, and where it came from. A variable that nothing sets stays as it is written.

    Raises:
        InputError: the file is missing, not YAML, or holds a key or value that no study has.
    """
    check_regular(path, "a study")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"could not read the study {path}: {error.strerror}; check the path"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8 text in the study {path}; save it as UTF-8") from error
    source = Source(path, text)
    try:
        content = yaml.load(text, Loader=_Loader)  # a safe loader of our own
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        what = getattr(error, "problem", None) or str(error)
        raise source.fault(
            place, f"expected YAML, {what}; mend it, or check it with a YAML editor"
        ) from None
    if not isinstance(content, dict):
        raise source.fault(
            "", "expected keys such as study, packs, arms, tasks; see docs/studies.md"
        )
    content, unset = _filled(content, source)
    source = dataclasses.replace(source, unset=unset)
    _check_keys(content, StudyFile, "", source)
    for part, of in _TYPES.items():  # one by one: msgspec does not name keys of mappings
        own = content.get(part)
        for name, one in own.items() if isinstance(own, dict) else ():
            _converted(one, of, f"{part}.{name}", source)
    return _converted(content, StudyFile, "", source), source


def _converted(content: Any, kind: type[T], place: str, source: Source) -> T:
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        where, what = _told(error)
        raise source.fault(".".join(one for one in (place, where) if one), what) from None


class _Loader(yaml.SafeLoader):
    """YAML with numbers as people write them (``1e-3``), and without a key that stands twice."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        if key_node.tag == "tag:yaml.org,2002:merge":
            continue
        key = loader.construct_object(key_node)
        if key in seen:
            raise yaml.MarkedYAMLError(
                problem=f"found the key {key!r} twice", problem_mark=key_node.start_mark
            )
        seen.add(key)
    return yaml.SafeLoader.construct_mapping(loader, node, deep=True)


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)

_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")


def _filled(content: dict[Any, Any], source: Source) -> tuple[dict[Any, Any], tuple[str, ...]]:
    """The content with the values of its variables, and the names of those that have none."""
    defaults = content.get("variables") or {}
    if not isinstance(defaults, dict):
        raise source.fault("variables", "expected names and their values")
    unset: dict[str, None] = {}

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], defaults.get(match[1]))
        if found is None:
            unset[match[1]] = None
            return match[0]
        return str(found)

    def fill(part: Any) -> Any:
        if isinstance(part, str):
            return _VARIABLE.sub(value, part)
        if isinstance(part, dict):
            return {key: fill(own) for key, own in part.items()}
        return [fill(own) for own in part] if isinstance(part, list) else part

    filled = {key: own if key == "variables" else fill(own) for key, own in content.items()}
    return filled, tuple(unset)


_TYPES: Mapping[str, Any] = {"pretrainings": Pretraining, "tasks": Task}


def _check_keys(content: Mapping[Any, Any], kind: type, place: str, source: Source) -> None:
    """Refuse keys that nothing reads: a slip of the pen must not be an option that does nothing."""
    known = [field.name for field in dataclasses.fields(kind)]
    for key in content:
        if key not in known:
            raise source.fault(f"{place}.{key}" if place else str(key), unknown(str(key), known))
    if kind is StudyFile:
        for name, of in _TYPES.items():
            part = content.get(name)
            for key, own in part.items() if isinstance(part, dict) else ():
                if isinstance(own, dict):
                    _check_keys(own, of, f"{name}.{key}", source)
        for name, of in {"arms": Arm, "unfair": Unfair, "published": Beside}.items():
            part = content.get(name)
            for i, own in enumerate(part if isinstance(part, list) else ()):
                if isinstance(own, dict):
                    _check_keys(own, of, f"{name}[{i}]", source)
    search = content.get("search")
    if kind is Task and isinstance(search, dict):
        _check_keys(search, Search, f"{place}.search", source)


def unknown(name: str, known: list[str]) -> str:
    """That a name is not known, with the nearest that is."""
    close = difflib.get_close_matches(name, known, 1)
    return (
        f"unknown; did you mean {close[0]}?"
        if close
        else f"unknown; expected one of {', '.join(known)}"
    )


def _told(error: msgspec.ValidationError) -> tuple[str, str]:
    """Place and fault of a value of another type."""
    what, _, where = str(error).partition(" - at ")
    place = where.strip("`").removeprefix("$").removeprefix(".")
    if lacking := re.fullmatch(r"Object missing required field `(.*)`", what):
        return (
            f"{place}.{lacking[1]}" if place else lacking[1],
            "expected it, found nothing; see docs/studies.md",
        )
    return place, f"{what[:1].lower()}{what[1:]}; see docs/studies.md"
