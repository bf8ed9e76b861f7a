"""The commands of a page are run when the site is built; the page shows what they printed.

A fenced block ``{run}`` holds commands of a shell. The blocks of one page run in their order in one
folder, ``docs/generated/runs/PAGE``, whose pictures the page may show. What a page's commands
printed is kept in ``docs/_build/commands`` until the commands or the package change.

``TWINRAY_DOCS_RUN=no`` builds the site without running anything: pages show the commands alone, without what they
print or draw. That checks the pages and their links in a minute or two.

Options of a block: ``:fails:`` the last command must end with an error (its message is the point);
``:hidden:`` run, not shown; ``:last: N`` and ``:first: N`` lines of output to show.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util import logging

_LOG = logging.getLogger(__name__)
_HERE = Path(__file__).parent
_SOURCES = _HERE.parents[1] / "src"
_SECONDS = 1800
"""A block that takes longer hangs; on a quiet machine none takes two minutes."""
_RUNS = os.environ.get("TWINRAY_DOCS_RUN", "yes") != "no"
_BLOCK = re.compile(r"^```\{run\}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"^:(\w+):\s*(.*)$")
_PROGRESS = re.compile(r": [\d,]+/[\d,]+ (?:images|files), [\d,.]+/s, ")
_LARGE = ("*.pt", "model.safetensors", "backbone.safetensors")


@dataclass(frozen=True)
class Block:
    """Commands that stand together.

    Attributes:
        commands: text of the commands, as a shell reads it.
        options: options of the directive.
    """

    commands: str
    options: Mapping[str, str]


def setup(app: Sphinx) -> Mapping[str, Any]:
    """Called by Sphinx."""
    app.add_directive("run", Run)
    if _RUNS:
        app.connect("builder-inited", run_pages)
    return {"parallel_read_safe": True}


def blocks(text: str) -> list[Block]:
    """The blocks of one page in their order."""
    found = []
    for match in _BLOCK.finditer(text):
        lines = match[1].splitlines()
        options = {}
        while lines and (option := _OPTION.match(lines[0])):
            options[option[1]] = option[2]
            lines.pop(0)
        found.append(Block("\n".join(lines).strip("\n"), options))
    return found


# --- running ----------------------------------------------------------------------------------------------------------


def run_pages(app: Sphinx) -> None:
    """Run the commands of every page that has some and whose outputs are not kept."""
    source, kept = Path(app.srcdir), Path(app.srcdir) / "_build" / "commands"
    pages = {
        path.relative_to(source).with_suffix("").as_posix(): found
        for path in sorted(source.glob("*.md"))
        if (found := blocks(path.read_text("utf-8")))
    }
    package = _fingerprint()
    due = {}
    for page, found in pages.items():
        key = _key(package, found)
        if not (_folder(source, page).is_dir() and _kept(kept, page).get("key") == key):
            due[page] = key
    if due:
        _LOG.info("running the commands of %s", ", ".join(due))
        kept.mkdir(parents=True, exist_ok=True)
        with _server() as environment, concurrent.futures.ThreadPoolExecutor(2) as pool:
            jobs = {
                page: pool.submit(_run_page, pages[page], _folder(source, page), environment)
                for page in due
            }
            for page, job in jobs.items():
                outputs, seconds = job.result()
                _LOG.info("%s: %d blocks in %.0f s", page, len(outputs), seconds)
                whole = len(outputs) == len(pages[page]) and not any(
                    one.get("fault") for one in outputs
                )
                key = due[page] if whole else ""  # a page with a fault is run again
                text = json.dumps({"key": key, "outputs": outputs}, indent=1)
                (kept / f"{page}.json").write_text(text, "utf-8")
    app.env.twinray_outputs = {  # type: ignore[attr-defined]
        page: _kept(kept, page).get("outputs", []) for page in pages
    }
    stale = {page for page in due if page in app.env.all_docs}
    app.connect("env-get-outdated", lambda *_: sorted(stale))


def _kept(folder: Path, page: str) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        return json.loads((folder / f"{page}.json").read_text("utf-8"))
    return {}


def _folder(source: Path, page: str) -> Path:
    return source / "generated" / "runs" / page


def _fingerprint() -> str:
    """A hash of all that decides what commands print, beside the commands."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted([*_SOURCES.rglob("*.py"), *_SOURCES.rglob("*.json"), *_HERE.glob("*.py")]):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def _key(package: str, found: Sequence[Block]) -> str:
    text = json.dumps([package, [(one.commands, dict(one.options)) for one in found]])
    return hashlib.sha256(text.encode()).hexdigest()


@contextlib.contextmanager
def _server() -> Iterator[dict[str, str]]:
    """The environment of a shell whose ``twinray`` is a fork of a process that is loaded once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        client = folder / "bin" / "twinray"
        client.parent.mkdir()
        client.write_text(
            f'#!/bin/sh\nexec "{sys.executable}" -S -E "{_HERE / "fork_client.py"}" "$@"\n'
        )
        client.chmod(0o755)
        socket = folder / "socket"
        python = Path(sys.executable).parent
        environment = {
            **{
                k: v
                for k, v in os.environ.items()
                if k in ("HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
            },
            "PATH": f"{client.parent}:{python}:{os.environ['PATH']}",
            "PYTHONPATH": str(_SOURCES),
            "TWINRAY_FORK_SERVER": str(socket),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
            "COLUMNS": "110",
            "LC_ALL": "C.UTF-8",
            "XDG_CONFIG_HOME": str(folder / "config"),
            "MPLBACKEND": "agg",
            "DOCS": str(_HERE.parent),
        }
        words = [sys.executable, str(_HERE / "fork_server.py"), str(socket)]
        server = subprocess.Popen(words, env=environment, start_new_session=True)
        try:
            end = time.monotonic() + 120
            while not socket.exists():
                if server.poll() is not None or time.monotonic() > end:
                    raise ExtensionError("the process that runs commands of pages did not start")
                time.sleep(0.05)
            yield environment
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait()


def _run_page(
    found: Sequence[Block], folder: Path, environment: Mapping[str, str]
) -> tuple[list[dict[str, Any]], float]:
    """Run the blocks of a page, up to the first that does not end as it should."""
    started = time.monotonic()
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    outputs: list[dict[str, Any]] = []
    for block in found:
        try:
            ended = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", block.commands],
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SECONDS,
                check=False,
            )
            status, printed = ended.returncode, ended.stdout.decode("utf-8", "replace")
        except subprocess.TimeoutExpired:
            status, printed = -1, f"(more than {_SECONDS} s)"
        output: dict[str, Any] = {"printed": _tidy(printed, folder), "status": status}
        if (status != 0) != ("fails" in block.options):
            output["fault"] = f"exit status {status}"
        outputs.append(output)
        if "fault" in output:
            break
    for pattern in _LARGE:  # pages show none of them, and a build keeps its folders
        for path in folder.rglob(pattern):
            path.unlink()
    return outputs, time.monotonic() - started


def _tidy(text: str, folder: Path) -> str:
    """What a terminal would show in the end, with the folder's own path left out."""
    text = (
        re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
        .replace(f"{folder}/", "")
        .replace(str(folder), ".")
    )
    lines = [line.split("\r")[-1].rstrip() for line in text.splitlines()]
    return "\n".join(line for line in lines if not _PROGRESS.search(line)).strip("\n")


# --- showing ----------------------------------------------------------------------------------------------------------


class Run(Directive):
    """Commands and what they printed."""

    has_content = True
    option_spec: ClassVar[Mapping[str, Any]] = {
        "fails": directives.flag,
        "hidden": directives.flag,
        "first": directives.nonnegative_int,
        "last": directives.nonnegative_int,
    }

    def run(self) -> list[nodes.Node]:
        """Docutils nodes of the block."""
        environment = self.state.document.settings.env
        page = environment.docname
        place = environment.temp_data.get("twinray_block", 0)
        environment.temp_data["twinray_block"] = place + 1
        if not _RUNS:
            text = "\n".join(self.content)
            return (
                []
                if "hidden" in self.options
                else [nodes.literal_block(text, text, language="bash")]
            )
        outputs = getattr(environment, "twinray_outputs", {}).get(page, [])
        where = (page, self.lineno)
        if place >= len(outputs):
            if not outputs or not outputs[-1].get("fault"):
                _LOG.warning("no output is kept of this block", location=where)
            return []
        output = outputs[place]
        if fault := output.get("fault"):
            _LOG.warning(
                "the commands ended with %s: %s", fault, output["printed"][-2000:], location=where
            )
        if "hidden" in self.options:
            return []
        commands = nodes.literal_block(
            "\n".join(self.content), "\n".join(self.content), language="bash"
        )
        commands["classes"] += ["commands"]
        shown: list[nodes.Node] = [commands]
        printed = self._part(output["printed"])
        if printed:
            result = nodes.literal_block(printed, printed, language="text")
            result["classes"] += ["printed"]
            shown.append(result)
        return [nodes.container("", *shown, classes=["run"])]

    def _part(self, printed: str) -> str:
        lines = printed.splitlines()
        if "first" in self.options and len(lines) > self.options["first"]:
            lines = [*lines[: self.options["first"]], "..."]
        if "last" in self.options and len(lines) > self.options["last"]:
            lines = ["...", *lines[-self.options["last"] :]]
        return "\n".join(lines)
