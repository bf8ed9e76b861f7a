"""Shell completion: a script that completes verbs, options, their few values, and paths. Made from the table of verbs.

shtab writes the script from a plain argparse parser, which is built here and parses nothing.
"""

from __future__ import annotations

import argparse
from typing import Any

import shtab

from twinray.checks import options
from twinray.verbs import VERBS, load

SHELLS = ("bash", "zsh", "fish")


def completion_script(shell: str) -> str:
    """The script for a shell, one of :data:`SHELLS`."""
    script: str = shtab.complete(_parser(), shell)
    return script


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="twinray")
    parser.add_argument("--version", action="store_true", help="the version")
    parser.add_argument("--completion", choices=SHELLS, help="print a completion script")
    verbs = parser.add_subparsers()
    for name, verb in VERBS.items():
        own = verbs.add_parser(name, help=verb.help)
        _complete(own.add_argument("--config", help="YAML file of options"), shtab.FILE)
        own.add_argument("--print_config", action="store_true", help="print the options and end")
        for option in options(load(verb.config)).values():
            if option.words is not None and option.words.hidden:
                continue
            if option.name in verb.positional:
                added = own.add_argument(option.name, nargs="*" if option.many else "?")
            elif option.type is bool:
                no = "--no-" + option.flag.removeprefix("--")
                own.add_argument(
                    *([option.flag, no] if option.default else [option.flag]), action="store_true"
                )
                continue
            else:
                nargs = "*" if option.many else option.several or None
                added = own.add_argument(option.flag, nargs=nargs)
            if option.is_path or option.name in _ALSO_PATHS:
                _complete(added, shtab.FILE)
            elif option.choices:
                added.choices = option.choices
    return parser


_ALSO_PATHS = {"init", "images"}
"""Options of text that may name a folder."""


def _complete(action: argparse.Action, how: Any) -> None:
    action.complete = how  # type: ignore[attr-defined]  # where shtab looks
