"""The command line: one verb, one dataclass of options, one function.

A job's options are the fields of its frozen dataclass; the text under a field is the flag's help.
Exit status: 0 done, 2 bad input (one line), 1 anything else.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import typing
from collections.abc import Sequence
from typing import Any, NoReturn

import docstring_parser
from jsonargparse import ActionYesNo, ArgumentError, ArgumentParser, DefaultHelpFormatter

from twinray.about import DISCLAIMER, own_version
from twinray.errors import InputError, TwinrayError
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
    if arguments[0] not in VERBS:
        _fail(f"expected a verb ({', '.join(VERBS)}), got {arguments[0]!r}; see twinray --help", 2)
    try:
        _run_verb(arguments[0], arguments[1:])
    except TwinrayError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        again = (
            "the same command with --resume goes on" if _can_resume(arguments[0]) else "run it again into a new --out"
        )
        _fail(f"interrupted; what was written is kept, {again}", 130)
    except BrokenPipeError:
        raise
    except PermissionError as error:
        _fail(
            f"{error.filename or 'a file'} may not be read or written by this user; change its permissions, or choose another place",
            2,
        )
    except Exception as error:
        if _out_of_memory(error):
            _fail("out of memory; use a smaller --batch-size or --size", 1)
        _unforeseen(error)


def _can_resume(verb: str) -> bool:
    return any(field.name == "resume" for field in dataclasses.fields(load(VERBS[verb].config)))


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
        if action.required or action.default in (None, False, argparse.SUPPRESS) or not action.option_strings:
            return text
        default = action.default
        shown = " ".join(map(str, default)) if isinstance(default, (list, tuple)) else default
        return f"{text} (default: {shown})".replace("%", "%%") if shown != "" else text


def _run_verb(name: str, arguments: Sequence[str]) -> None:
    verb = VERBS[name]
    config_class = load(verb.config)
    parser = build_parser(f"twinray {name}", config_class, verb.positional)
    try:
        options = parser.parse_args(list(arguments))
    except (
        ArgumentError,
        ValueError,
        TypeError,
    ) as error:  # the latter two: a YAML file that is none, or odd values in it
        raise InputError(f"{str(error).strip()}; see twinray {name} --help") from error
    hints = typing.get_type_hints(config_class)
    values = {}
    for field in dataclasses.fields(config_class):
        value = getattr(options, field.name)
        if value is None and field.name in verb.positional:
            continue  # the field's own default
        values[field.name] = _checked(value, hints[field.name], field.name)
    load(verb.command or verb.run)(config_class(**values))


def _checked(value: Any, hint: Any, name: str) -> Any:
    """What a configuration file may hold and a flag may not: text for a switch, one value for a list."""
    if hint is bool and not isinstance(value, bool):
        raise InputError(f"expected {name} to be true or false, got {value!r}")
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"expected a list for {name}, got {value!r}")
        return tuple(value)
    return value


def build_parser(program: str, config_class: type, positional: Sequence[str] = ()) -> ArgumentParser:
    """A parser whose flags are the fields of a dataclass, with ``--config`` and ``--print_config``."""
    docs = docstring_parser.parse_from_object(config_class)
    helps = {param.arg_name: " ".join((param.description or "").split()) for param in docs.params}
    hints = typing.get_type_hints(config_class)
    parser = ArgumentParser(
        prog=program, description=docs.short_description, exit_on_error=False, formatter_class=_HelpFormatter
    )
    parser.add_argument("--config", action="config", help="YAML file of options; flags given after it win")
    for field in dataclasses.fields(config_class):
        text = (
            f"{field.metadata.get('help_before', '')}{helps.get(field.name, '')}{field.metadata.get('help_after', '')}"
        )
        _add_option(parser, field, hints[field.name], text, field.name in positional)
    return parser


def _add_option(parser: ArgumentParser, field: dataclasses.Field[Any], hint: Any, text: str, positional: bool) -> None:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    required = default is dataclasses.MISSING
    of = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
    many = of[1:] == (Ellipsis,)
    options: dict[str, Any] = {"help": text, "type": of[0] if of else hint}
    if positional:  # jsonargparse lets these have no default; _run_verb puts the field's in
        if many:
            options["nargs"] = "+" if required else "*"
        elif not required:
            options["nargs"] = "?"
        parser.add_argument(field.name, **options)
        return
    flag = "--" + field.name.replace("_", "-")
    if hint is bool:
        parser.add_argument(
            flag, action=ActionYesNo(no_prefix="no-") if default else "store_true", help=text, default=default
        )
        return
    if of:
        options["nargs"] = "+" if many else len(of)
    options["required"] = required
    options["default"] = None if required else list(typing.cast(tuple[Any, ...], default)) if of else default
    parser.add_argument(flag, **options)


def _overview() -> str:
    lines = ["usage: twinray VERB [options]    (twinray VERB --help tells them)", "", "verbs:"]
    lines += [f"  {name:<10} {verb.help}" for name, verb in VERBS.items()]
    lines += ["", f"{DISCLAIMER}."]
    return "\n".join(lines)


def _fail(message: str, status: int) -> NoReturn:
    if os.environ.get("LOCAL_RANK", "0") == "0" or "WORLD_SIZE" not in os.environ:  # once a machine, not once a rank
        print(f"twinray: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(status)


def _unforeseen(error: Exception) -> NoReturn:
    """A defect of ours: one line for the user, the traceback only if asked for."""
    if os.environ.get("TWINRAY_TRACEBACK"):
        raise error
    kind = type(error).__name__
    _fail(
        f"unforeseen {kind}: {error}; set TWINRAY_TRACEBACK=1 and run again for the details that a bug report needs", 1
    )


if __name__ == "__main__":
    main()
