"""Every option of every verb: its kind, and a bad value of each of its rules, through the real parser and configuration file."""

from __future__ import annotations

import dataclasses
import math
import typing
from pathlib import Path
from typing import Any, Literal

import docstring_parser
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from twinray import cli
from twinray.checks import (
    CountsWith,
    Kind,
    NotWith,
    Option,
    Range,
    UpTo,
    as_words,
    flag,
    options,
    shown,
    type_words,
)
from twinray.errors import InputError
from twinray.runs.folder import plain
from twinray.verbs import VERBS, load

pytestmark = pytest.mark.usefixtures("kept_parsers")

CONFIGS = {name: load(verb.config) for name, verb in VERBS.items()}


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run a verb up to its function, which is not called: the one line that it was refused with."""
    monkeypatch.setattr(
        cli, "load", lambda where: load(where) if where.endswith("Config") else lambda config: None
    )

    def run(verb: str, *arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            cli.main([verb, *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (stop.value.code, out, err.count("\n")) == (2, "", 1), err
        assert err.startswith("twinray: ")
        return err.removeprefix("twinray: ").rstrip()

    return run


def given_as(verb: str, values: dict[str, Any]) -> list[object]:
    """A verb's arguments: what it requires, with the values given in its place; those without a flag first."""
    known = options(CONFIGS[verb])
    values = {name: one_good(option) for name, option in known.items() if option.required} | values
    words = [
        word for name in VERBS[verb].positional if name in values for word in _many(values[name])
    ]
    for name in values.keys() - set(VERBS[verb].positional):
        words += [flag(name)] if values[name] is True else [flag(name), *_many(values[name])]
    return words


def _many(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def one_good(option: Option) -> Any:
    """A value that the option's own rules accept, other than its default."""
    single: list[Any]
    one = next((t for t in typing.get_args(option.one) if t is not type(None)), option.one)
    if typing.get_origin(option.one) is Literal or typing.get_origin(one) is Literal:
        single = list(typing.get_args(one if typing.get_origin(one) is Literal else option.one))
    else:
        kind = one if isinstance(one, type) else option.one
        single = {
            int: [*range(1, 17), 64, 96, 128],
            float: [0.25, 0.5, 1.0, 2.0, 5.0],
            str: ["cpu", "val", "x", "nih-cxr14"],
            Path: [Path("a.png"), Path("b")],
            bool: [True],
        }[kind]
    several = (
        [(v,) * max(option.several, 1) for v in single] + [tuple(single[:2])]
        if option.several
        else single
    )
    return next(
        v for v in several if v != option.default and all(rule.holds(v) for rule in option.rules)
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_kind_and_a_default_that_holds(verb, all_cores):
    known = options(CONFIGS[verb])  # raises where a field has no kind, or two
    assert list(known) == [field.name for field in dataclasses.fields(CONFIGS[verb])]
    made = CONFIGS[verb](
        **{name: one_good(option) for name, option in known.items() if option.required}
    )
    for name, option in known.items():
        assert option.required or getattr(made, name) == option.default
        for relation in (*option.relations, *([option.counts] if option.counts else [])):
            others = (
                [relation.other] if isinstance(relation, NotWith | UpTo) else list(relation.others)
            )
            assert set(others) <= set(known) - {name}


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_a_text_of_its_own(verb):
    texts = docstring_parser.parse_from_object(CONFIGS[verb]).params
    assert {text.arg_name for text in texts if text.description} == set(options(CONFIGS[verb]))


@pytest.mark.parametrize("verb", VERBS)
def test_a_bad_value_of_every_rule_is_one_line_made_from_the_rule(verb, refused):
    for name, option in options(CONFIGS[verb]).items():
        for rule in option.rules:
            assert rule.bad(), f"{verb} {option.flag}: a rule that refuses nothing is none"
            for bad in rule.bad():
                assert not rule.holds(bad)
                told = refused(verb, *given_as(verb, {name: bad})) if bad != () else None
                if (
                    told is None or "arguments" in told
                ):  # a number of values that the parser itself refuses
                    continue
                expected = f"expected {option.flag} to be "
                assert told.startswith(expected), told
                assert told.split(", got ")[0].removeprefix(expected) in {
                    r.words for r in option.rules
                }, told


@pytest.mark.parametrize("verb", VERBS)
def test_a_value_of_another_type_is_one_line_from_flag_file_and_python(verb, refused, tmp_path):
    known = options(CONFIGS[verb])
    file = tmp_path / "options.yaml"
    required = {name: one_good(option) for name, option in known.items() if option.required}
    wrong = {int: ["many", 1.5, True], float: ["much", math.nan, math.inf], bool: ["maybe", 3]}
    for name, option in known.items():
        one = next((t for t in typing.get_args(option.one) if t in wrong), option.one)
        for value in (
            *wrong.get(one, []),
            {"a": 1},
            *(["nonesuch"] if "one of" in type_words(option.type) else []),
        ):
            bad = (value,) * max(option.several, 1) if option.several else value
            with pytest.raises(InputError, match=f"expected {option.flag} to be "):
                CONFIGS[verb](**{**required, name: bad})
            if name in VERBS[verb].positional:
                continue
            written = {k: plain(v) for k, v in required.items() if k not in VERBS[verb].positional}
            file.write_text(yaml.safe_dump({**written, name: plain(bad)}))
            positional = [
                v for k in VERBS[verb].positional if k in required for v in _many(required[k])
            ]
            told = refused(verb, *positional, "--config", file)
            assert told.startswith(f"expected {option.flag} to be "), told


@pytest.mark.parametrize("verb", VERBS)
def test_options_that_do_not_go_together_are_one_line(verb, refused):
    known = options(CONFIGS[verb])
    for name, option in known.items():
        for relation in option.relations:
            values = {name: one_good(option)}
            if isinstance(relation, NotWith):
                values[relation.other] = one_good(known[relation.other])
            elif isinstance(relation, UpTo):
                values |= {name: 3, relation.other: 2}
            else:
                for other, rule in relation.others.items():
                    if rule.holds(known[other].default):
                        values[other] = next(v for v in _values(known[other]) if not rule.holds(v))
            told = refused(verb, *given_as(verb, values))
            assert option.flag in told
            assert any(flag(other) in told for other in _others(relation)), told


def _others(relation: Any) -> list[str]:
    return [relation.other] if isinstance(relation, NotWith | UpTo) else list(relation.others)


def _values(option: Option) -> list[Any]:
    return (
        list(typing.get_args(option.type))
        if typing.get_origin(option.type) is Literal
        else [1, 2, 3]
    )


@pytest.mark.parametrize("verb", VERBS)
def test_words_of_a_command_line_give_the_same_options_again(verb, monkeypatch):
    """Every option at another value than its default, alone, written as words and read by the real parser."""
    read: list[Any] = []
    take = {VERBS[verb].run: read.append, VERBS[verb].command: read.append}
    monkeypatch.setattr(cli, "load", lambda where: take.get(where) or load(where))
    known, positional = options(CONFIGS[verb]), VERBS[verb].positional
    required = {name: one_good(option) for name, option in known.items() if option.required}
    for name, option in known.items():
        if option.relations:
            continue
        value = not option.default if option.type is bool else one_good(option)
        made = CONFIGS[verb](**{**required, name: value})
        cli.main([verb, *as_words(made, positional=positional)])
        assert read.pop() == made, option.flag
    made = CONFIGS[verb](**required)
    of_kinds = [word for kind in Kind for word in as_words(made, kind)]
    assert sorted(of_kinds) == sorted(as_words(made))


def test_options_with_several_values_and_paths_are_taken_as_python_has_them(tmp_path):
    from twinray.jobs.pack import PackConfig
    from twinray.pretraining.config import PretrainConfig

    config = PretrainConfig(["a", "b"], "run", projector=[8, 8], seed=np.int64(3), flip=1)
    assert config.data == (Path("a"), Path("b")) and config.out == Path("run")
    assert (config.projector, config.seed, type(config.seed), config.flip, type(config.flip)) == (
        (8, 8),
        3,
        int,
        1.0,
        float,
    )
    assert PackConfig("source").source == (Path("source"),)
    assert PackConfig(None).source == ()
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="different packs"):
        PretrainConfig((tmp_path, tmp_path / "link"), tmp_path)


RANGES = [
    (verb, option.name, rule)
    for verb, config in CONFIGS.items()
    for option in options(config).values()
    for rule in option.rules
    if isinstance(rule, Range)
]


@given(st.sampled_from(RANGES), st.one_of(st.integers(-3, 200), st.floats(-3, 200)))
def test_a_range_accepts_what_lies_in_it_and_nothing_else(case, value):
    verb, name, rule = case
    option = options(CONFIGS[verb])[name]
    if option.one is int or int in typing.get_args(option.one):
        value = int(value)
    inside = (rule.low < value or (not rule.low_open and value == rule.low)) and (
        value < rule.high or (not rule.high_open and value == rule.high)
    )
    assert rule.holds(value) is inside
    if inside or value == option.default:
        option.check(value)
    else:
        with pytest.raises(InputError, match=flag(name)) as told:
            option.check(value)
        assert f"{rule.low:g}" in str(told.value) and str(told.value).endswith(
            f"got {shown(value)}"
        )


def test_what_decides_nothing_is_stated_by_other_options_of_the_same_verb():
    """An option may only be idle where options that always count say so: else two could hide each other."""
    for verb, config in CONFIGS.items():
        known = options(config)
        for option in known.values():
            for other in option.counts.others if isinstance(option.counts, CountsWith) else ():
                assert known[other].counts is None, f"{verb} {option.flag}"


def test_kinds_are_told_in_the_help():
    text = cli.build_parser("twinray detect", CONFIGS["detect"]).format_help()
    headings = [
        "what is read, and where results go:",
        "what is made:",
        "speed:",
        "records and the run's own figures:",
    ]
    places = [text.index(heading) for heading in headings]
    assert places == sorted(places)
    of = {
        "--data": 0,
        "--out": 0,
        "--init": 0,
        "--epochs": 1,
        "--seed": 1,
        "--checkpoint-every": 2,
        "--log-every": 3,
    }
    for name, heading in of.items():
        ends = [*places[1:], len(text)]
        assert places[heading] < text.index(f"  {name} ", places[0]) < ends[heading], name
    assert "--seed SEED" in text and "(default: 0)" in text[text.index("--seed SEED", places[1]) :]
