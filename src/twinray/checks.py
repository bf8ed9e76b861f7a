"""What an option is: its kind, and the rules on its value, stated once, in its annotation.

A verb's options are the fields of a frozen dataclass::

    @dataclass(frozen=True)
    class Options:
        fraction: Annotated[float, MODEL, above(0, up_to=1)] = 1.0
        \"""Share of the training images that may be used.\"""
        fraction_seed: Annotated[int, SEED, at_least(0), counts_with(fraction=above(0, below=1))] = 0
        \"""Seed of the order in which patients enter the fraction.\"""

        def __post_init__(self) -> None:
            settle(self)

What may change when a run goes on, what makes two runs one arm and which differences are reported follow from the kind.
The message of a refused value is made from the rule: ``expected --fraction to be above 0 and up to 1, got 2``.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import math
import numbers
import os
import re
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from twinray.errors import InputError


class Kind(enum.Enum):
    """What an option decides."""

    MODEL = "what is made: the model, its figures, the pack, the pictures"
    SEED = "which draw of chance: runs that differ in nothing else are one arm"
    START = "the initial weights, which a comparison of arms puts to the test"
    DATA = "what is read: known by its bytes, wherever it lies"
    PLACE = "where results go and where the work is done"
    SPEED = "how fast: nothing but rounding depends on it"
    RECORD = "what is written on the way, how a run's own figures are made, how it goes on"


MODEL, SEED, START, DATA = Kind.MODEL, Kind.SEED, Kind.START, Kind.DATA
PLACE, SPEED, RECORD = Kind.PLACE, Kind.SPEED, Kind.RECORD

MAY_CHANGE = frozenset({DATA, PLACE, SPEED, RECORD})
"""Kinds that a resumed run may change. Data may have moved; the run's ``inputs.json`` holds it to
the same bytes."""


# --- rules on one value -----------------------------------------------------------------------------------------------


class Rule(Protocol):
    """What a value must be. The default of an option always holds, whatever its rules say."""

    @property
    def words(self) -> str:
        """What is expected, to stand after "expected --option to be"."""

    def holds(self, value: Any) -> bool:
        """Whether a value of the option's type is accepted."""

    def bad(self) -> tuple[Any, ...]:
        """Some values of the option's type that are refused: a test tries them."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; an open end leaves the end itself out.

    Attributes:
        low, high: the ends; ``high`` infinite where there is none.
        low_open, high_open: flags, true if the end itself is refused.
        name: name of what the number is, for the message (``a probability``).
        unit: unit that it counts (``steps``).
    """

    low: float
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    name: str = ""
    unit: str = ""

    @property
    def words(self) -> str:
        """As in ``2 or more pieces`` or ``a probability, 0 to 1``."""
        low, high = f"{self.low:g}", f"{self.high:g}"
        if math.isinf(self.high):
            text = f"more than {low}" if self.low_open else f"{low} or more"
        elif self.low_open and self.high_open:
            text = f"above {low} and below {high}"
        elif self.low_open:
            text = f"above {low} and up to {high}"
        else:
            text = f"{low} or more and below {high}" if self.high_open else f"{low} to {high}"
        text = f"{text} {self.unit}" if self.unit else text
        return f"{self.name}, {text}" if self.name else text

    def holds(self, value: Any) -> bool:
        """Whether the number lies inside."""
        above = self.low < value if self.low_open else self.low <= value
        return bool(above and (value < self.high if self.high_open else value <= self.high))

    def bad(self) -> tuple[Any, ...]:
        """Just outside each end."""
        below = self.low if self.low_open else self.low - 1
        return (
            (below,)
            if math.isinf(self.high)
            else (below, self.high if self.high_open else self.high + 1)
        )


@dataclasses.dataclass(frozen=True)
class Told:
    """Any other rule on a value, with its words and some values that it refuses.

    Attributes:
        words: what is expected.
        check: whether a value is accepted.
        refused: some values that are not.
        names: all values that are accepted, where these are a few names.
    """

    words: str
    check: Callable[[Any], bool]
    refused: tuple[Any, ...] = ()
    names: tuple[str, ...] = ()

    def holds(self, value: Any) -> bool:
        """Whether the value is accepted."""
        return self.check(value)

    def bad(self) -> tuple[Any, ...]:
        """The refused values that were stated."""
        return self.refused


def at_least(low: float, unit: str = "") -> Range:
    """``low`` or more."""
    return Range(low, unit=unit)


def above(
    low: float, unit: str = "", *, up_to: float = math.inf, below: float | None = None
) -> Range:
    """More than ``low``; at most ``up_to``, or less than ``below``."""
    return Range(
        low,
        up_to if below is None else below,
        low_open=True,
        high_open=below is not None,
        unit=unit,
    )


def between(
    low: float, high: float, name: str = "", unit: str = "", *, below: bool = False
) -> Range:
    """From ``low`` to ``high``, both included; with ``below`` less than ``high``."""
    return Range(low, high, high_open=below, name=name, unit=unit)


PROBABILITY = between(0, 1, "a probability")


def one_of(*names: str) -> Told:
    """One of these."""
    return Told(f"one of {', '.join(names)}", lambda value: value in names, ("nonesuch",), names)


def some_of(*names: str) -> Told:
    """At least one of these, and nothing else; for an option with several values."""
    words = f"some of {', '.join(names)}"
    return Told(
        words, lambda values: bool(values) and set(values) <= set(names), ((), ("nonesuch",)), names
    )


def zero_or(rule: Rule) -> Told:
    """0, or what another rule accepts."""
    refused = tuple(value for value in rule.bad() if value != 0) or (-1,)
    return Told(f"0, or {rule.words}", lambda value: value == 0 or rule.holds(value), refused)


def multiple_of(step: int, least: int) -> Told:
    """A multiple of ``step``, not less than ``least``."""
    words = f"a multiple of {step}, {least} or more"
    return Told(
        words, lambda value: value >= least and value % step == 0, (least + 1, least - step)
    )


def each(names: str, rule: Rule) -> Told:
    """Every value of an option with several; ``names`` says what they are (``widths``)."""
    refused = tuple((value,) for value in rule.bad())
    return Told(f"{names} of {rule.words}", lambda values: all(map(rule.holds, values)), refused)


def pair(names: str, rule: Rule) -> Told:
    """Both values of an option with two."""
    refused = tuple((value, value) for value in rule.bad())
    return Told(
        f"two {names} of {rule.words}", lambda v: len(v) == 2 and all(map(rule.holds, v)), refused
    )


def different(names: str, example: Any) -> Told:
    """One value or more, none of them twice; paths are the same where they lead to the same place.

    Args:
        names: name of what the values are (``packs``).
        example: one of them, which a test gives twice.
    """
    words = f"one or more different {names}"
    return Told(
        words, lambda values: len(values) > 0 and _no_repeat(values), ((), (example, example))
    )


def no_repeat(names: str, example: Any) -> Told:
    """Any number of values, none of them twice; arguments as of :func:`different`."""
    return Told(f"different {names}", _no_repeat, ((example, example),))


def _no_repeat(values: Any) -> bool:
    real = [os.path.realpath(value) if isinstance(value, Path) else value for value in values]
    return len(set(real)) == len(real)


def written_as(words: str, pattern: str) -> Told:
    """A text of a certain form; ``words`` describe it."""
    return Told(words, lambda value: re.fullmatch(pattern, str(value)) is not None, ("?",))


def _rising(values: Any) -> bool:
    return len(values) == 2 and all(map(math.isfinite, values)) and values[0] < values[1]


RISING = Told("two finite numbers, the second above the first", _rising, ((1.0, 1.0), (2.0, 1.0)))
DEVICE = written_as("auto, cpu, cuda or cuda:N", r"auto|cpu|cuda(:\d+)?")


# --- rules on an option beside others ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class GoesWith:
    """Given, the option needs others to be as stated; made by :func:`goes_with`."""

    others: Mapping[str, Rule]

    def fault(self, own: Option, values: Mapping[str, Any]) -> str | None:
        """What is wrong, in one line; None where nothing is."""
        for name, rule in self.others.items():
            if not rule.holds(values[name]):
                came = f", not with {shown(values[name])}" if rule is not GIVEN else ""
                what = f"{flag(name)} {rule.words}".rstrip()
                return (
                    f"{own.flag} goes with {what}{came}; leave one of them out"
                    if came
                    else (f"{own.flag} goes with {what}; give both, or leave it out")
                )
        return None


@dataclasses.dataclass(frozen=True)
class NotWith:
    """Given, the option takes the place of another; made by :func:`not_with`."""

    other: str
    why: str

    def fault(self, own: Option, values: Mapping[str, Any]) -> str | None:
        """What is wrong, in one line; None where nothing is."""
        if not GIVEN.holds(values[self.other]):
            return None
        return (
            f"{own.flag} and {flag(self.other)} exclude each other{self.why}; leave one of them out"
        )


@dataclasses.dataclass(frozen=True)
class UpTo:
    """The option is at most what another one is; made by :func:`up_to`."""

    low: float
    other: str
    below: bool

    def fault(self, own: Option, values: Mapping[str, Any]) -> str | None:
        """What is wrong, in one line; None where nothing is."""
        value, most = values[own.name], values[self.other]
        if self.low <= value and (value < most if self.below else value <= most):
            return None
        ends = f"{self.low:g} or more and below" if self.below else f"{self.low:g} to"
        return (
            f"expected {own.flag} to be {ends} {flag(self.other)} {shown(most)}, got {shown(value)}"
        )


Relation = GoesWith | NotWith | UpTo


@dataclasses.dataclass(frozen=True)
class CountsWith:
    """The option decides something only where others are as stated; made by :func:`counts_with`."""

    others: Mapping[str, Rule]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether it decides something among these values; one that is not there counts as stated."""
        return all(
            name not in values or rule.holds(values[name]) for name, rule in self.others.items()
        )


GIVEN = Told("", lambda value: value not in (None, (), [], "", False))
"""Whatever is not left out."""


def goes_with(**others: Rule | str | tuple[str, ...]) -> GoesWith:
    """Refuse the option, where it is not at its default, unless the others are as stated (:data:`GIVEN`: given at all)."""
    return GoesWith({name: _as_rule(rule) for name, rule in others.items()})


def not_with(other: str, why: str = "") -> NotWith:
    """Refuse the option beside another one; ``why`` begins with a comma or a colon."""
    return NotWith(other, why)


def up_to(other: str, low: float = 0, *, below: bool = False) -> UpTo:
    """From ``low`` up to another option's value; with ``below`` less than it."""
    return UpTo(low, other, below)


def counts_with(**others: Rule | str | tuple[str, ...]) -> CountsWith:
    """State that the option decides nothing unless the others are as stated: runs that differ in it then are the same."""
    return CountsWith({name: _as_rule(rule) for name, rule in others.items()})


def _as_rule(rule: Rule | str | tuple[str, ...]) -> Rule:
    if isinstance(rule, str | tuple):
        names = (rule,) if isinstance(rule, str) else rule
        return Told(", ".join(names), lambda value: value in names)
    return rule


@dataclasses.dataclass(frozen=True)
class Help:
    """How an option is described.

    Attributes:
        before, after: texts that stand around the text under the field, where it is made from a
            table.
        hidden: flag, true if the option is left out of the help, as one that goes with the next
            version is.
    """

    before: str = ""
    after: str = ""
    hidden: bool = False


HIDDEN = Help(hidden=True)


@dataclasses.dataclass(frozen=True)
class Each:
    """The option has a value for each of several things: its flag takes one value and is given several times."""


EACH = Each()


@dataclasses.dataclass(frozen=True)
class Older:
    """What runs did before there was such an option, where that is not its default."""

    value: Any


# --- options of a verb ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Option:
    """One field of a verb's dataclass.

    Attributes:
        name: name of the field.
        kind: kind of thing that it decides.
        type: type of its values.
        default: its default; ``dataclasses.MISSING`` where it must be given.
        rules: rules on its value alone.
        relations: relations to other options.
        counts: cases where it decides something, or None where it always does.
        words: texts that stand around the field's own text in its help, or None.
        older: value that it had in runs that were made before there was such an option.
        each: flag, true if it is given once for each of several things (:data:`EACH`).
    """

    name: str
    kind: Kind
    type: Any
    default: Any
    rules: tuple[Rule, ...]
    relations: tuple[Relation, ...]
    counts: CountsWith | None
    words: Help | None
    older: Any
    each: bool = False

    @property
    def flag(self) -> str:
        """As it is given on the command line."""
        return flag(self.name)

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is dataclasses.MISSING

    @property
    def several(self) -> int:
        """How many values it has where these are more than one, -1 for any number; 0 for a single value."""
        inner = _inner(self.type)
        of = typing.get_args(inner) if typing.get_origin(inner) is tuple else ()
        return -1 if of[1:] == (Ellipsis,) else len(of)

    @property
    def many(self) -> bool:
        """Whether it has any number of values."""
        return self.several < 0

    @property
    def one(self) -> Any:
        """The type of one value."""
        return typing.get_args(_inner(self.type))[0] if self.several else self.type

    @property
    def choices(self) -> tuple[str, ...]:
        """All values that it can have, where these are a few names; else none."""
        one = _inner(self.one)
        if typing.get_origin(one) is Literal:
            return tuple(map(str, typing.get_args(one)))
        return next(
            (rule.names for rule in self.rules if isinstance(rule, Told) and rule.names), ()
        )

    @property
    def is_path(self) -> bool:
        """Whether a value of it is a file or a folder."""
        return _inner(self.one) is Path

    def help(self, text: str) -> str | None:
        """Its help: the text under the field, between what its annotation adds; None where it has none to show."""
        if self.words and self.words.hidden:
            return None
        parts = (self.words.before, text, self.words.after) if self.words else (text,)
        return " ".join(part for part in parts if part)

    def check(self, value: Any) -> None:
        """Refuse a value that a rule refuses; the default always holds.

        Raises:
            InputError: made from the rule.
        """
        if value is None or value == self.default:
            return
        for rule in self.rules:
            if not rule.holds(value):
                raise InputError(f"expected {self.flag} to be {rule.words}, got {shown(value)}")


def options(config: type[Any]) -> Mapping[str, Option]:
    """The options of a verb by name, in their order.

    Args:
        config: a dataclass whose fields are annotated with a kind each.

    Raises:
        TypeError: a field without a kind, or with two.
    """
    return _options(typing.cast(Hashable, config))


@functools.cache
def _options(config: Any) -> Mapping[str, Option]:
    hints = typing.get_type_hints(config, include_extras=True)
    found: dict[str, Option] = {}
    for field in dataclasses.fields(config):
        hint = hints[field.name]
        known = getattr(hint, "__metadata__", ())
        kinds = [one for one in known if isinstance(one, Kind)]
        if len(kinds) != 1:
            raise TypeError(
                f"{config.__name__}.{field.name} needs one kind in its annotation, has {len(kinds)}"
            )
        factory = field.default_factory
        default = field.default if factory is dataclasses.MISSING else factory()
        counts = next((one for one in known if isinstance(one, CountsWith)), None)
        words = next((one for one in known if isinstance(one, Help)), None)
        relations = tuple(one for one in known if isinstance(one, Relation))
        rules = tuple(one for one in known if isinstance(one, Range | Told))
        older = next((one.value for one in known if isinstance(one, Older)), default)
        found[field.name] = Option(
            field.name,
            kinds[0],
            hint.__origin__,
            default,
            rules,
            relations,
            counts,
            words,
            older,
            any(isinstance(one, Each) for one in known),
        )
    return types.MappingProxyType(found)


def of_kind(config: type[Any], *kinds: Kind) -> frozenset[str]:
    """Names of the options of these kinds."""
    return frozenset(name for name, option in options(config).items() if option.kind in kinds)


def counting(config: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of those options that decide something among them: see :func:`counts_with`."""
    known = options(config)
    idle = {
        name
        for name in values
        if name in known and (c := known[name].counts) and not c.holds(values)
    }
    return {name: value for name, value in values.items() if name not in idle}


def settle(config: Any) -> None:
    """Bring a verb's options to their types and refuse the first one that breaks a rule; called when one is made.

    A text may stand for a path, a list for a tuple, one path for several, and None for none at all.

    Args:
        config: the options, a frozen dataclass.

    Raises:
        InputError: naming flag, expectation and value.
    """
    known = options(config.__class__)
    for name, option in known.items():
        value = getattr(config, name)
        if option.each and isinstance(value, str):
            value = (value,)
        if value is not option.default:
            object.__setattr__(config, name, _typed(value, option.type, option.flag))
    for name, option in known.items():
        option.check(getattr(config, name))
    values = {name: getattr(config, name) for name in known}
    for name, option in known.items():
        if values[name] is None or values[name] == option.default:
            continue
        for relation in option.relations:
            if fault := relation.fault(option, values):
                raise InputError(fault)


def check_kept(config: type[Any], values: Mapping[str, Any], where: str) -> None:
    """Refuse values that a file of options holds and that are of another type than their options.

    Options that are no more are passed over, and so are rules on values, which versions may change.

    Args:
        config: dataclass of the options.
        values: what the file holds.
        where: the file, for messages.

    Raises:
        InputError: naming file, option, expectation and value.
    """
    for name, option in options(config).items():
        if name in values and values[name] != option.default:
            try:
                _typed(values[name], option.type, name)
            except InputError as error:
                raise InputError(f"{where}: {error}; was it edited? Restore the file") from None
            except (TypeError, ValueError, OverflowError):
                raise InputError(
                    f"{where}: expected {name} to be {type_words(option.type)}; was it edited? Restore the file"
                ) from None


def as_words(config: Any, *kinds: Kind, positional: Sequence[str] = ()) -> list[str]:
    """The words of a command line that give the options which are not at their defaults.

    Args:
        config: a verb's options.
        kinds: of the options to give; all where none is named.
        positional: options that are given without a flag; they come first.
    """
    first: list[str] = []
    words: list[str] = []
    for name, option in options(config.__class__).items():
        value = getattr(config, name)
        if (kinds and option.kind not in kinds) or value is None or value == option.default:
            continue
        values = [*map(_word, value if isinstance(value, tuple) else (value,))]
        if name in positional:
            first += values
        elif isinstance(value, bool):
            words.append(option.flag if value else f"--no-{option.flag[2:]}")
        elif option.each:
            words += [word for one in values for word in (option.flag, one)]
        else:
            words += [option.flag, *values]
    return first + words


def _word(value: Any) -> str:
    if isinstance(value, Path):
        return value.as_posix()
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)


def flag(name: str) -> str:
    """``--batch-size`` for ``batch_size``."""
    return "--" + name.replace("_", "-")


def shown(value: Any) -> str:
    """A value as it is written on a command line."""
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "nothing"
    return "nothing" if value in (None, "") else str(value)


_TYPES: Mapping[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}


def type_words(hint: Any) -> str:
    """What a value of a type is, for messages."""
    inner = _inner(hint)
    if typing.get_origin(inner) is Literal:
        return one_of(*typing.get_args(inner)).words
    if typing.get_origin(inner) is tuple:
        of = typing.get_args(inner)
        return (
            f"a list, each {type_words(of[0])}"
            if of[1:] == (Ellipsis,)
            else f"{len(of)} values, each {type_words(of[0])}"
        )
    return _TYPES[inner]


def _inner(hint: Any) -> Any:
    """The type beside None."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        (inner,) = (one for one in typing.get_args(hint) if one is not type(None))
        return inner
    return hint


def _typed(value: Any, hint: Any, name: str) -> Any:
    """A value as the option's type has it.

    Raises:
        InputError: it is of another type, or a number that is not finite.
    """
    inner = _inner(hint)
    if value is None and inner is not hint:
        return None
    if typing.get_origin(inner) is tuple:
        return _tuple(value, inner, name)
    made = (
        _CONVERT[inner](value)
        if inner in _CONVERT
        else value
        if value in typing.get_args(inner)
        else None
    )
    if made is None:
        raise InputError(f"expected {name} to be {type_words(hint)}, got {shown(value)}")
    if inner is int and not -_LARGEST <= made <= _LARGEST:
        raise InputError(f"expected {name} to be at most {_LARGEST}, got {made}")
    if inner is float and not math.isfinite(made):
        raise InputError(f"expected {name} to be a finite number, got {value}")
    return made


_LARGEST = 2**63 - 1
"""Largest whole number that every file of ours holds."""


def _tuple(value: Any, hint: Any, name: str) -> tuple[Any, ...]:
    of = typing.get_args(hint)
    if value is None and of[1:] == (Ellipsis,):
        value = ()
    if of[0] is Path and isinstance(value, str | os.PathLike):
        value = (value,)
    if not isinstance(value, list | tuple) or (of[1:] != (Ellipsis,) and len(value) != len(of)):
        raise InputError(f"expected {name} to be {type_words(hint)}, got {shown(value)}")
    return tuple(_typed(one, of[0], name) for one in value)


_CONVERT: Mapping[Any, Callable[[Any], Any]] = {
    bool: lambda value: value if isinstance(value, bool) else None,
    int: lambda value: (
        int(value) if not isinstance(value, bool) and isinstance(value, numbers.Integral) else None
    ),
    float: lambda value: (
        float(value) if not isinstance(value, bool) and isinstance(value, numbers.Real) else None
    ),
    str: lambda value: value if isinstance(value, str) else None,
    Path: lambda value: Path(value) if isinstance(value, str | os.PathLike) else None,
}
"""How a value of another but fitting type is taken over (a whole number of NumPy's for one of Python's); None: not at all."""
