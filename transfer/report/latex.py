"""The table in LaTeX: booktabs, one table environment for ours and one for the paper's."""

import re
from collections.abc import Iterable

from transfer.report import paper
from transfer.report.table import Cell, Table
from transfer.report.words import NO_PAIR, NOT_MEASURED, lost_text, p_text, rules
from transfer.statistics import Difference

_SPECIAL = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "\n": " ",
    }
)
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def latex(table: Table) -> str:
    """Two tables to be read in by a document that uses booktabs."""
    columns = [column for column in table.columns if column.metric.main]
    heads = [f"{column.metric.title} [{column.number}]" for column in columns]
    body = [
        [table.name(row), *(_cell(table.cell(row, column)) for column in columns)]
        for row in table.rows
    ]
    pairs = [
        [
            table.label(row, other),
            *(_difference(table.difference(row, other, column)) for column in columns),
        ]
        for row, other in table.comparisons
    ]
    legend = " ".join(
        f"[{number}] {setting.title}." for number, setting in enumerate(table.settings, 1)
    )
    told = " ".join([legend, rules(table), *(f"{note}." for note in table.notes)])
    ours = _table(heads, [body, pairs], told, "transfer")
    shown = [column for column in paper.COLUMNS if column.main]
    values = [
        [method, *(paper.text(method, column) for column in shown)] for method in paper.PRINTED
    ]
    gains = [
        [f"{method} - none", *(f"{paper.gain(method, column):+.1f}" for column in shown)]
        for method in list(paper.PRINTED)[1:]
    ]
    theirs = _table(
        [column.title for column in shown],
        [values, gains],
        f"The paper's own values ({paper.SOURCE}). {paper.SCALE}",
        "transfer-paper",
    )
    return "% needs \\usepackage{booktabs}\n" + ours + "\n" + theirs


def _table(heads: list[str], parts: Iterable[list[list[str]]], caption: str, label: str) -> str:
    bodies = (
        "\n".join(" & ".join(_escape(cell) for cell in line) + r" \\" for line in part)
        for part in parts
        if part
    )
    middle = "\n\\midrule\n".join(bodies)
    head = " & ".join(_escape(text) for text in ["backbone", *heads])
    return rf"""\begin{{table}}
\centering
\caption{{{_escape(caption)}}}
\label{{tab:{label}}}
\begin{{tabular}}{{l{"r" * len(heads)}}}
\toprule
{head} \\
\midrule
{middle}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


def _cell(cell: Cell) -> str:
    if not cell.n:
        return lost_text(cell.unfinished) or NOT_MEASURED
    if cell.deviation is None:
        return f"{cell.mean:.1f}"
    return f"{cell.mean:.1f} ± {cell.deviation:.1f} (n={cell.n})"


def _difference(found: Difference | None) -> str:
    if found is None:
        return NO_PAIR
    if found.half_width is None:
        return f"{found.mean:+.1f}"
    return f"{found.mean:+.1f} ± {found.half_width:.1f} ({p_text(found)})"


def _escape(text: str) -> str:
    return _MINUS.sub(r"$-$", text.translate(_SPECIAL))
