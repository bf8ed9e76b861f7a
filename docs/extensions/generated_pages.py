"""Pages that are made from the code: every option, one page a data set, the names in Python.

They are written into ``docs/generated`` before Sphinx looks for pages, and only where they changed,
so that a second build reads few of them again.
"""

from __future__ import annotations

import inspect
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import docstring_parser
from sphinx.application import Sphinx

import twinray
from twinray import cli
from twinray.checks import Kind, Option, options, type_words
from twinray.data.readers import formats
from twinray.verbs import VERBS, Verb, load, public_names

_KINDS = {
    "MODEL": "what is made",
    "SEED": "a draw of chance",
    "START": "the initial weights under test",
    "DATA": "what is read",
    "PLACE": "where results go and work is done",
    "SPEED": "speed",
    "RECORD": "records",
}


def setup(app: Sphinx) -> Mapping[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", write_pages, priority=400)
    return {"parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    """Write what changed; remove pages of verbs and data sets that are no more."""
    root = Path(app.srcdir) / "generated"
    made: dict[Path, str] = {}
    for name, verb in VERBS.items():
        made[root / "options" / f"{name}.rst"] = options_page(name, verb)
    for name, row in formats.FORMATS.items():
        made[root / "data" / f"{name}.rst"] = data_page(name, row)
    made[root / "options" / "index.rst"] = options_index()
    made[root / "data" / "index.rst"] = data_index()
    made[root / "python.rst"] = python_page()
    for folder in (root / "options", root / "data"):
        for old in folder.glob("*"):
            if old not in made:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")


# --- options ----------------------------------------------------------------------------------------------------------


def options_index() -> str:
    """All verbs, with what each does."""
    lines = [
        *_title("Every option"),
        "The options of each verb, from the same dataclasses that make its flags, its ``--help`` and its checks.",
        "In Python they are the arguments of the verb's options: ``--batch-size 64`` is ``batch_size=64``.",
        "",
        "``--config FILE.yaml`` takes options from a file, ``--print_config`` prints one, and the ``config.yaml`` of a run is one.",
        "An option on the command line takes precedence over the file.",
        "",
        "**Kind** says what an option decides: see :ref:`kinds of options <option-kinds>` below.",
        "",
    ]
    for name, verb in VERBS.items():
        lines += [f":doc:`twinray {name} <{name}>`", f"    {_plain(verb.help)}", ""]
    lines += [".. _option-kinds:", "", *_title("Kinds of options", "-")]
    lines += [
        "What ``--resume`` may change, what makes two runs one arm of a comparison and which differences are reported follow from the kind.",
        "",
    ]
    for kind, words in _KINDS.items():
        lines += [f"*{words}*", f"    {_plain(_kind_words(kind))}.", ""]
    return "\n".join([*lines, *_toctree(VERBS)])


def options_page(name: str, verb: Verb) -> str:
    """One verb: its usage and its options in the groups of its help."""
    config = load(verb.config)
    docs = docstring_parser.parse_from_object(config)
    texts = {param.arg_name: " ".join((param.description or "").split()) for param in docs.params}
    known = options(config)
    usage = " ".join(
        [f"twinray {name}", *(_positional(known[one]) for one in verb.positional), "[options]"]
    )
    lines = [*_title(f"twinray {name}"), _plain(docs.short_description or ""), ""]
    lines += [".. code-block:: text", "", f"    {usage}", "", f".. program:: twinray {name}", ""]
    headings = {kind: title for title, kinds in cli.GROUPS.items() for kind in kinds}
    groups: dict[str, list[str]] = {title: [] for title in cli.GROUPS}
    for option in known.values():
        text = option.help(texts.get(option.name, ""))
        if text is None:
            continue
        own = option.name in verb.positional
        groups[headings[option.kind]] += _option(option, text, positional=own)
    for title, entries in groups.items():
        if entries:
            lines += [*_title(title[0].upper() + title[1:], "-"), *entries]
    function = verb.python or name
    lines += [f"In Python: :func:`twinray.{function}`.", ""]
    return "\n".join(lines)


def _option(option: Option, text: str, *, positional: bool) -> list[str]:
    head = _positional(option) if positional else _flags(option)
    return [f".. option:: {head}", "", f"   {_plain(text)}", "", f"   {_facts(option)}", ""]


def _flags(option: Option) -> str:
    if option.type is bool:
        return f"--no-{option.flag[2:]}" if option.default is True else option.flag
    value = option.name.upper().replace("_", "-")
    if option.choices and not option.many:
        value = "{" + ",".join(option.choices) + "}" if len(option.choices) < 9 else value
    many = " ..." if option.several else ""
    return f"{option.flag} {value}{many}"


def _positional(option: Option) -> str:
    word = option.name.upper()
    word = f"{word} ..." if option.many else word
    return word if option.required else f"[{word}]"


def _facts(option: Option) -> str:
    """Default, values and kind in one line."""
    facts = []
    if option.required:
        facts.append("Must be given.")
    elif option.default not in (None, (), "", False):
        default = option.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        facts.append("On by default." if default is True else f"Default: {_literal(shown)}.")
    words = [type_words(option.type)] if option.type is not bool else []
    words += [rule.words for rule in option.rules]
    if words:
        facts.append(f"Expected: {_plain('; '.join(dict.fromkeys(words)))}.")
    facts.append(f"Kind: {_KINDS[option.kind.name]}.")
    return " ".join(f"*{fact}*" if "``" not in fact else fact for fact in facts)


def _kind_words(kind: str) -> str:
    words = Kind[kind].value
    return words[0].upper() + words[1:]


# --- data sets --------------------------------------------------------------------------------------------------------


def data_index() -> str:
    """All formats, with what each one's source is."""
    lines = [
        *_title("Data sets and formats"),
        "Each page is the data sheet of a reader, from the reader's own source: images, labels, splits, patients, label noise, licence, and the layout on disk.",
        "Several sources go into one pack: ``twinray pack --source NIH --format nih --source RSNA --format rsna``.",
        "",
    ]
    for name, row in formats.FORMATS.items():
        boxes = "with boxes" if row.annotations else ""
        what = row.what.removeprefix("the ")
        lines += [
            f":doc:`{name} <{name}>`",
            f"    {_plain(what)}{', ' + boxes if boxes else ''}",
            "",
        ]
    return "\n".join([*lines, *_toctree(formats.FORMATS)])


def data_page(name: str, row: formats.Format) -> str:
    """One format: how it is packed, and its reader's data sheet."""
    module = sheet_module(row.read)
    sheet = inspect.getdoc(module) or ""
    first, _, rest = sheet.partition("\n\n")
    source = f"{row.usage} " if row.usage else ""
    lines = [
        *_title(name),
        " ".join(first.split()).replace(" -> Collection", ""),
        "",
        ".. code-block:: text",
        "",
        f"    twinray pack {source}--format {name} --out PACK",
        "",
    ]
    if row.takes:
        taken = (
            f":option:`--{o.replace('_', '-')} <twinray pack --{o.replace('_', '-')}>`"
            for o in sorted(row.takes)
        )
        lines += [f"Options of this format: {', '.join(taken)}.", ""]
    if row.annotations:
        lines += [
            f"It has boxes: ``twinray boxes {row.usage} --format {name} --out BOXES.json`` makes one COCO file of them.",
            "",
        ]
    lines += [as_fields(rest), "", f"Reader: ``{module.__name__}``.", ""]
    return "\n".join(lines)


def sheet_module(read: Callable[..., Any]) -> Any:
    """The module whose docstring is the data sheet: that of the reader which a row's function calls."""
    for called in read.__code__.co_names:
        found = getattr(formats, called, None)
        module = inspect.getmodule(found) if inspect.isfunction(found) else None
        if module is not None and module.__name__.startswith("twinray.data.") and module.__doc__:
            return module
    raise ValueError(f"no reader behind {read}: its function calls none of twinray.data")


_ENTRY = re.compile(r"    ([A-Z][\w ,/'-]{1,40})[:.] +(.*)")


def as_fields(sheet: str) -> str:
    """The part of a docstring under ``Data sheet`` as a list of fields; everything else as it is."""
    lines: list[str] = []
    inside = False
    for line in sheet.splitlines():
        if line.strip() == "Data sheet":
            inside = True
            continue
        if inside and line and not line.startswith("    "):
            inside = False
            lines.append("")
        if not inside:
            lines.append(line)
        elif found := _ENTRY.fullmatch(line):
            lines += ["", f"**{found[1]}.** {found[2]}"]
        elif line.strip():
            lines.append(line.strip())
        else:
            lines.append("")
    return "\n".join(lines)


# --- Python -----------------------------------------------------------------------------------------------------------

_ROOMS: Mapping[str, tuple[str, ...]] = {
    "Packs and records": ("twinray.data.pack", "twinray.records"),
    "Figures and intervals": (
        "twinray.evaluation.boxes",
        "twinray.evaluation.intervals",
        "twinray.evaluation.accumulate",
    ),
    "Pre-training": ("twinray.pretraining.objective",),
    "Heat maps": ("twinray.explanation.ablation_cam", "twinray.explanation.occlusion"),
    "Boxes of several readers": ("twinray.data.fusion FusedTable, fuse_table, fuse_collection",),
    "Rules on options": ("twinray.checks",),
}
"""Modules that are of use on their own; names after a module are those of its members to show, else all."""


def python_page() -> str:
    """The names that ``import twinray`` offers, and the modules that are of use on their own."""
    lines = [
        *_title("Python reference"),
        *inspect.cleandoc(twinray.__doc__ or "").splitlines(),
        "",
        *_title("Verbs", "-"),
        "Each takes its options and returns what it made. All options: :doc:`options/index`.",
        "",
    ]
    for name, verb in VERBS.items():
        function = verb.python or name
        lines += [f".. autofunction:: twinray.{function}", ""]
        lines += [f"   Options: :doc:`twinray {name} <options/{name}>`.", ""]
    others = sorted(set(twinray.__all__) - set(public_names()) - {"__version__"})
    lines += [*_title("Other names at the top", "-")]
    for name in others:
        lines += [*_auto(name), ""]
    for title, modules in _ROOMS.items():
        lines += _title(title, "-")
        for module in modules:
            named, _, members = module.partition(" ")
            lines += [f".. automodule:: {named}", f"   :members: {members}".rstrip(), ""]
    return "\n".join(lines)


def _auto(name: str) -> list[str]:
    found = getattr(twinray, name)
    if not inspect.isclass(found):
        return [f".. autofunction:: twinray.{name}"]
    kind = "autoexception" if issubclass(found, BaseException) else "autoclass"
    return [f".. {kind}:: twinray.{name}", "   :members:"]


# --- words ------------------------------------------------------------------------------------------------------------


def _title(text: str, line: str = "=") -> list[str]:
    return [text, line * len(text), ""]


def _toctree(names: Iterable[str]) -> list[str]:
    return ["", ".. toctree::", "   :hidden:", "", *(f"   {name}" for name in names), ""]


def _plain(text: str) -> str:
    """Text of a terminal as text of a page: no character of it is markup."""
    return re.sub(r"([\\*`|_])", r"\\\1", " ".join(text.split()))


def _literal(text: str) -> str:
    return f"``{text}``"
