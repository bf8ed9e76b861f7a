r"""Tables as Markdown, for a repository, and as LaTeX (booktabs), for a paper: the same cells as on the page.

>>> from twinray.report.tables import Table
>>> one = Table("Figures", ("arm", "mAP50"), (("a_b", "0.250"),))
>>> print(markdown(one))
Figures
<BLANKLINE>
| arm | mAP50 |
| :-- | --: |
| a\_b | 0.250 |
<BLANKLINE>
>>> r"a\_b & 0.250 \\" in latex(one)
True
"""

from __future__ import annotations

import re

from twinray.report.tables import Table

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!])")
_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")


def markdown(table: Table) -> str:
    """A table as GitHub's Markdown: caption, table, note; numbers to the right.

    Args:
        table: cells of any text; what Markdown would read as a mark is escaped.
    """
    lines = [_md(table.caption), "", _row(table.columns)]
    lines.append("| " + " | ".join([":--", *["--:"] * (len(table.columns) - 1)]) + " |")
    lines += [_row(row) for row in table.rows]
    if table.note:
        lines += ["", _md(table.note)]
    return "\n".join(lines) + "\n"


def latex(table: Table, label: str = "") -> str:
    """A table as LaTeX, in a float with its caption; needs the package ``booktabs``.

    Args:
        table: cells of any text; LaTeX's own characters are escaped.
        label: name for ``\\ref``; without one there is no label.
    """
    columns = "l" + "r" * (len(table.columns) - 1)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(table.caption)}}}",
        *([rf"\label{{{label}}}"] if label else []),
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        _tex_row(table.columns),
        r"\midrule",
        *(_tex_row(row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *([rf"\par\smallskip\footnotesize {_tex(table.note)}"] if table.note else []),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_md, cells)) + " |"


def _md(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))


def _tex_row(cells: tuple[str, ...]) -> str:
    return " & ".join(map(_tex, cells)) + r" \\"


def _tex(text: str) -> str:
    """Escaped, and a negative number with a real minus sign instead of a hyphen."""
    parts = []
    for i, piece in enumerate(_MINUS.split(" ".join(text.split()))):
        parts += ["$-$"] if i else []
        parts.append("".join(_LATEX.get(letter, letter) for letter in piece))
    return "".join(parts)
