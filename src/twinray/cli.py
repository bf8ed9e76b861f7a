"""The command line: one verb, one dataclass of options, one function.

A job's options are the fields of its frozen dataclass; the text under a field is the flag's help.
Exit status: 0 done, 2 bad input (one line), 1 anything else.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import itertools
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import docstring_parser
import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter

from twinray.about import DISCLAIMER, own_version
from twinray.checks import (
    DATA,
    MODEL,
    PLACE,
    RECORD,
    SEED,
    SPEED,
    START,
    Kind,
    Option,
    flag,
    options,
    type_words,
)
from twinray.errors import InputError, Interrupted, TwinrayError
from twinray.files import check_regular, folders_freed
from twinray.verbs import VERBS, load


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the ``twinray`` command."""
    try:
        try:
            _dispatch(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            sys.stdout.flush()  # here, where a reader that has gone can be answered, and not at the interpreter's end
    except BrokenPipeError:  # `twinray ... | head` is not an error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _dispatch(arguments: Sequence[str]) -> None:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_overview())
        sys.exit(0 if arguments else 2)
    if arguments[0] == "--version":
        print(f"twinray {own_version()}")
        sys.exit(0)
    if arguments[0] == "--completion":
        _print_completion(arguments[1:])
        return
    if arguments[0] not in VERBS:
        _fail(f"expected a verb ({', '.join(VERBS)}), got {arguments[0]!r}; see twinray --help", 2)
    try:
        _run_verb(arguments[0], arguments[1:])
    except TwinrayError as error:
        _fail(str(error), error.exit_code, told=error.told)
    except Interrupted as stop:
        _fail(str(stop), 130, told=stop.told)
    except KeyboardInterrupt:
        _fail("interrupted before anything was begun", 130)
    except BrokenPipeError:
        raise
    except PermissionError as error:
        _fail(
            f"{error.filename or 'a file'} may not be read or written by this user; change its permissions, or choose another place",
            2,
        )
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            _unforeseen(error)
        told = str(error.filename or "a path")
        told = told if len(told) < 100 else f"{told[:60]}...{told[-30:]}"
        _fail(f"{told} can be no path here ({error.strerror}); correct it", 2)
    except Exception as error:
        if _out_of_memory(error):
            known = options(load(VERBS[arguments[0]].config))
            pieces = (
                "--accumulate (the same gradient in pieces), or " if "accumulate" in known else ""
            )
            _fail(f"out of memory; use {pieces}a smaller --batch-size or --size", 1)
        _unforeseen(error)


def _print_completion(arguments: Sequence[str]) -> None:
    from twinray.completion import SHELLS, completion_script  # loads the options of every verb

    if len(arguments) != 1 or arguments[0] not in SHELLS:
        came = " ".join(arguments) or "nothing"
        _fail(f"expected --completion to be one of {', '.join(SHELLS)}, got {came}", 2)
    print(completion_script(arguments[0]))


def _interrupted(config: Any) -> Interrupted:
    """Ctrl-C, and what is left of the verb's work, as it lies on the disk."""
    known, out = options(config.__class__), getattr(config, "out", None)
    if out is None or not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return Interrupted("interrupted; nothing was written")
    if "checkpoint_minutes" in known:
        from twinray.runs.folder import what_is_kept

        return Interrupted(f"interrupted; {what_is_kept(out)}")
    if "resume" in known:
        return Interrupted(
            f"interrupted; what was finished is kept in {out}, the same command with --resume goes on"
        )
    again = "again with --overwrite, or" if "overwrite" in known else "again"
    return Interrupted(
        f"interrupted; {out} holds what was written so far, which is not all; run it {again} into a new --out"
    )


def _out_of_memory(error: Exception) -> bool:
    """torch says it in two ways: a class of its own on a GPU, a RuntimeError on the CPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


class _HelpFormatter(DefaultHelpFormatter):
    """The field's own text and its default; Python's type names help nobody on a command line."""

    def _get_help_string(self, action: Any) -> str:
        text = action.help or ""
        unsaid = (
            action.default is None or action.default is False or action.default == argparse.SUPPRESS
        )
        if action.required or unsaid or not action.option_strings:
            return text
        default = action.default
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        return f"{text} (default: {shown})".replace("%", "%%") if shown != "" else text


def _run_verb(name: str, arguments: Sequence[str]) -> None:
    verb = VERBS[name]
    config_class = load(verb.config)
    parser = build_parser(f"twinray {name}", config_class, verb.positional)
    for word in _config_files(arguments):
        check_regular(Path(word), "the options of --config")  # the parser would wait for a pipe
    words = _gathered(_of_runs(arguments, name), config_class, verb.positional)
    words, texts = _shielded(words)
    try:
        parsed = parser.parse_args(words)
    except (
        ArgumentError,
        ValueError,
        TypeError,
    ) as error:  # the latter two: a YAML file that is none
        raise InputError(
            f"{_reworded(_bared(str(error).strip(), texts), config_class, verb.positional)}; see twinray {name} --help"
        ) from error
    except (RuntimeError, LookupError, AttributeError) as error:  # an object where values stand
        raise InputError(
            f"the options cannot be read: does --config hold an object where a value is expected? See twinray {name} --help"
        ) from error
    values = {option: _bared(getattr(parsed, option), texts) for option in options(config_class)}
    given = {
        option: value
        for option, value in values.items()
        if value is not None or option not in verb.positional
    }
    config = config_class(**given)
    command = load(verb.command or verb.run)
    try:
        with folders_freed():
            command(config)
    except Interrupted:
        raise
    except KeyboardInterrupt as stop:
        raise _interrupted(config) from stop


_SHIELD = "word-of-the-command-line-"


def _shielded(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words, with a stand-in for each that YAML reads as nothing (``#key``, ``null``, ``~``), and what these stand for.

    The parser reads values as YAML: an option with such a value would count as not given.
    """
    shielded: list[str] = []
    texts: dict[str, str] = {}
    for word in words:
        head, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        after_config = bool(shielded) and shielded[-1] == "--config"
        if value and head != "--config" and not after_config and _is_nothing(value):
            stand_in = f"{_SHIELD}{len(texts)}"
            texts[stand_in] = value
            word = f"{head}{equals}{stand_in}"
        shielded.append(word)
    return shielded, texts


def _is_nothing(text: str) -> bool:
    try:
        return yaml.safe_load(text) is None
    except yaml.YAMLError:
        return False


def _bared(value: Any, texts: Mapping[str, str]) -> Any:
    """A parsed value, or a message, with the words in place of their stand-ins."""
    if isinstance(value, list | tuple):
        return type(value)(_bared(one, texts) for one in value)
    if isinstance(value, Path):
        return Path(texts.get(str(value), str(value)))
    if isinstance(value, str) and _SHIELD in value:
        for stand_in, text in texts.items():
            value = value.replace(stand_in, text)
    return value


def _config_files(arguments: Sequence[str]) -> list[str]:
    """What stands behind each ``--config``."""
    found = []
    for word, following in itertools.pairwise([*arguments, ""]):
        name, equals, value = word.partition("=")
        found += [value if equals else following] if name == "--config" else []
    return found


def _of_runs(arguments: Sequence[str], verb: str) -> list[str]:
    """The same, with the text of a run's own ``config.yaml`` in place of its path: it names its verb, which is no option.

    Raises:
        InputError: a run of another verb.
    """
    found = list(arguments)
    for at, argument in enumerate(arguments):
        flag_, equals, path = argument.partition("=")
        if flag_ != "--config" or (not equals and at + 1 == len(arguments)):
            continue
        place = at if equals else at + 1
        kept = _kept_options(Path(path if equals else arguments[place]))
        if kept is None:
            continue
        job = kept.pop("job")
        if job != verb:
            raise InputError(
                f"{path or arguments[place]} holds the options of a {job} run, not of twinray {verb}; see twinray {job} --help"
            )
        text = yaml.safe_dump(kept, sort_keys=False, allow_unicode=True)
        found[place] = f"--config={text}" if equals else text
    return found


def _kept_options(path: Path) -> dict[str, Any] | None:
    """What a run's ``config.yaml`` holds; None of any other file, which the parser reads and refuses."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return read if isinstance(read, dict) and isinstance(read.get("job"), str) else None


def _gathered(
    arguments: Sequence[str], config_class: type, positional: Sequence[str] = ()
) -> list[str]:
    """Values of a flag that is given several times, behind one place: ``--by sex --by view`` is ``--by sex view``.

    A flag that takes a value for each of several things goes to the end, so that it takes no other word for its value. What
    needs no flag may have one: ``--source A --format nih --source B --format rsna`` is ``A B --format nih rsna``.
    """
    known = options(config_class)
    bare = {option.flag for name, option in known.items() if name in positional and option.many}
    each = {option.flag for option in known.values() if option.each}
    first: list[str] = []
    last: dict[str, list[str]] = {}
    files: list[str] = []  # before the words without a flag, which win over what they say
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--config" and bare:
            files += [word] if equals else [word, *itertools.islice(words, 1)]
        elif name not in bare | each:
            rest.append(word)
        elif (one := value if equals else next(words, None)) is None:
            rest.append(word)  # the parser says what is missing
        elif name in bare:
            first.append(one)
        else:
            last.setdefault(name, []).append(one)
    flags = {option.flag for option in known.values() if option.many and not option.each}
    found: list[str] = []
    places: dict[str, list[str]] = {}
    collecting: list[str] | None = None
    for word in rest:
        name, equals, value = word.partition("=")
        if name in flags - bare:
            if name not in places:
                places[name] = []
                found.append(name)
            collecting = places[name]
            collecting += [value] if equals else []
        elif collecting is None or (word.startswith("-") and not word[1:2].isdigit()):
            collecting = None
            found.append(word)
        else:
            collecting.append(word)
    gathered = [part for word in found for part in (word, *places.get(word, ()))]
    if not first and not _has_bare(gathered, known):
        first = _of_file(arguments, [name for name in positional if known[name].many])
    return [
        *files,
        *first,
        *gathered,
        *(part for name, ones in last.items() for part in (name, *ones)),
    ]


def _has_bare(words: Sequence[str], known: Mapping[str, Option]) -> bool:
    """Whether a word stands before any flag, or behind a flag that takes no or enough values."""
    flags = {option.flag: option for option in known.values()}
    left = 0
    for word in words:
        if word.startswith("--"):
            name, equals, _ = word.partition("=")
            option = flags.get(name)
            switch = name in ("--help", "--print_config") or (option and option.type is bool)
            many = len(words) if option and option.many else option.several if option else 0
            left = 0 if equals or switch else max(1, many)
        elif left:
            left -= 1
        elif not word.startswith("-"):
            return True
    return False


def _of_file(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """Values that a configuration file has for options without a flag: the parser would have none of the command line win."""
    found: list[str] = []
    for file in _config_files(arguments):
        with contextlib.suppress(
            OSError, ValueError, yaml.YAMLError
        ):  # the parser says what is wrong
            content = yaml.safe_load(Path(file).read_text("utf-8"))
            for option in names if isinstance(content, dict) else ():
                told = content.get(option)
                found = [str(one) for one in told] if isinstance(told, list) else found
    return found


def _reworded(message: str, config_class: type, positional: Sequence[str]) -> str:
    """What the parser says of a value's type or of a missing option, in the option's words; anything else as it is."""
    known = options(config_class)
    found = re.match(r'Parser key "(\w+)"(.*)', message, re.DOTALL)
    if found and found[1] in known:
        option = known[found[1]]
        came = re.search(r"Got value: (.*)", found[2], re.DOTALL)
        return f"expected {option.flag} to be {type_words(option.type)}" + (
            f", got {came[1]}" if came else ""
        )
    found = re.match(r"the following arguments are required: (.*)", message)
    if found:
        missing = [name for name in found[1].split(", ") if name in known and known[name].required]
        return f"expected {', '.join(n.upper() if n in positional else flag(n) for n in missing)}, got nothing"
    return message


GROUPS: Mapping[str, tuple[Kind, ...]] = {
    "what is read, and where results go": (DATA, START, PLACE),
    "what is made": (MODEL, SEED),
    "speed": (SPEED,),
    "records and the run's own figures": (RECORD,),
}
"""Headings of a verb's help, and the kinds of options under each."""


def build_parser(
    program: str, config_class: type, positional: Sequence[str] = ()
) -> ArgumentParser:
    """A parser whose flags are the fields of a dataclass, with ``--config`` and ``--print_config``."""
    docs = docstring_parser.parse_from_object(config_class)
    helps = {param.arg_name: " ".join((param.description or "").split()) for param in docs.params}
    parser = ArgumentParser(
        prog=program,
        description=docs.short_description,
        exit_on_error=False,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument(
        "--config", action="config", help="YAML file of options; flags given after it win"
    )
    headings = {kind: title for title, kinds in GROUPS.items() for kind in kinds}
    groups = {
        title: parser.add_argument_group(title) for title in GROUPS
    }  # without options it is not shown
    for name, option in options(config_class).items():
        text = option.help(helps.get(name, "")) or argparse.SUPPRESS
        if name in positional:
            _add_positional(parser, option, text)
            continue
        _add_flag(groups[headings[option.kind]], option, text)
    return parser


def _add_positional(parser: ArgumentParser, option: Option, text: str) -> None:
    """An option without a flag; jsonargparse lets these have no default, so :func:`_run_verb` leaves it to the field."""
    more: dict[str, Any] = {}
    if option.many or not option.required:
        more["nargs"] = ("+" if option.required else "*") if option.many else "?"
    parser.add_argument(option.name, help=text, type=option.one, **more)


def _add_flag(group: Any, option: Option, text: str) -> None:
    if option.type is bool:
        action = argparse.BooleanOptionalAction if option.default else "store_true"
        group.add_argument(option.flag, action=action, help=text, default=option.default)
        return
    default = None if option.required else option.default
    if isinstance(default, tuple):
        default = list(default)  # as a configuration file has it
    nargs: dict[str, Any] = {}
    if option.several:
        nargs = {"nargs": "+" if option.many else option.several}
    if option.each:
        nargs["metavar"] = option.name.upper()
    group.add_argument(
        option.flag, help=text, type=option.one, required=option.required, default=default, **nargs
    )


def _overview() -> str:
    lines = ["usage: twinray VERB [options]    (twinray VERB --help tells them)", "", "verbs:"]
    lines += [f"  {name:<10} {verb.help}" for name, verb in VERBS.items()]
    lines += [
        "",
        "twinray --completion bash|zsh|fish prints a script that completes all of this in a shell.",
    ]
    lines += ["", f"{DISCLAIMER}."]
    return "\n".join(lines)


def _fail(message: str, status: int, *, told: bool = False) -> NoReturn:
    """End with one line; of several ranks with the rank's number, unless another one tells it."""
    rank = (
        f"rank {os.environ['RANK']}: "
        if os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ
        else ""
    )
    if not told:
        print(f"twinray: {rank}{' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _unforeseen(error: Exception) -> NoReturn:
    """A defect of ours: one line for the user, the traceback only if asked for."""
    if os.environ.get("TWINRAY_TRACEBACK"):
        raise error
    kind = type(error).__name__
    _fail(
        f"unforeseen {kind}: {error}; set TWINRAY_TRACEBACK=1 and run again for the details that a bug report needs",
        1,
    )


if __name__ == "__main__":
    main()
