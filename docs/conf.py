"""The documentation site: ``make docs`` builds it into ``docs/_build/html``, with warnings as errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "extensions"))
sys.path.insert(0, str(HERE.parent / "src"))  # pages are made from the tree that they lie in

import tomllib  # noqa: E402

_project = tomllib.loads((HERE.parent / "pyproject.toml").read_text("utf-8"))["project"]

project = "twinray"
author = "twinray contributors"
copyright = "twinray contributors, Apache-2.0. Research software, not a medical device"  # noqa: A001
release = version = _project["version"]

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "generated_pages",
    "commands",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "generated/runs", "extensions"]
suppress_warnings = [
    "config.cache",
    "toc.empty_glob",
]  # the table of command outputs changes with every build
if os.environ.get("TWINRAY_DOCS_RUN") == "no":
    # what the commands draw is not there
    suppress_warnings += ["image.not_readable"]

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
myst_dmath_allow_digits = False
myst_dmath_allow_space = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_attr_annotations = False  # types stand in the signatures

html_theme = "furo"
html_title = "twinray"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_last_updated_fmt = None  # the same bytes whenever it is built
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#1f5f8b", "color-brand-content": "#1f5f8b"},
    "dark_css_variables": {"color-brand-primary": "#7fb8de", "color-brand-content": "#7fb8de"},
}
copybutton_exclude = ".linenos, .gp, .go"
highlight_language = "text"  # where a block names no language
smartquotes = False  # "--resume" is an option, not a dash
pygments_style = "friendly"
pygments_dark_style = "monokai"


def setup(app):
    """The index names every page: those that it does not place itself stand under its last heading of deeds."""
    app.connect("source-read", _with_all_pages)


def _with_all_pages(_app, name, source) -> None:
    if name == "index":
        text = source[0]
        pages = sorted(path.stem for path in HERE.glob("*.md"))
        others = [page for page in pages if page != "index" and f"\n{page}\n" not in text]
        source[0] = text.replace("PAGES-NOT-NAMED-ABOVE", "\n".join(others))
