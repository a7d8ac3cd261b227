"""The table in LaTeX: booktabs, one table environment for ours and one for the paper's."""

import re
from collections.abc import Iterable

from pretrain.errors import printable
from transfer.report import paper
from transfer.report.table import Cell, Table
from transfer.report.words import cell_text, difference_text, mean_text, p_text, rules, short_table
from transfer.statistics import Difference

_NAMES = zip(
    "\\~^<>|", ("backslash", "asciitilde", "asciicircum", "less", "greater", "bar"), strict=True
)
_SPECIAL = str.maketrans(
    {letter: f"\\{letter}" for letter in "&%$#_{}"}
    | {letter: rf"\text{name}{{}}" for letter, name in _NAMES}
    | {"±": r"$\pm$"}
)
# what would be read as an option of the line break or rule before it
_OPTION = re.compile(r"(?=\s*[\[*])")
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def to_latex(table: Table) -> str:
    """Two tables to be read in by a document that uses booktabs."""
    titles, *parts = short_table(table, _cell, _difference)
    legend = [f"[{number}] {setting.title}." for number, setting in enumerate(table.settings, 1)]
    caption = " ".join([*legend, rules(table), *(f"{note}." for note in table.notes)])
    ours = _table(titles, parts, caption, "transfer")
    titles, *parts = paper.short_table()
    caption = f"The paper's own values ({paper.SOURCE}). {paper.SCALE}"
    theirs = _table(titles, parts, caption, "transfer-paper")
    return f"% needs \\usepackage{{booktabs}}\n{ours}\n{theirs}"


def _table(heads: list[str], parts: Iterable[list[list[str]]], caption: str, label: str) -> str:
    middle = "\n\\midrule\n".join("\n".join(map(_row, part)) for part in parts if part)
    return rf"""\begin{{table}}
\centering
\caption{{{_escape(caption)}}}
\label{{tab:{label}}}
\begin{{tabular}}{{l{"r" * len(heads)}}}
\toprule
{_row(["backbone", *heads])}
\midrule
{middle}
\bottomrule
\end{{tabular}}
\end{{table}}
"""


def _row(cells: Iterable[str]) -> str:
    text = " & ".join(map(_escape, cells))
    return ("{}" if _OPTION.match(text) else "") + text + r" \\"


def _cell(cell: Cell) -> str:
    return mean_text(cell) if cell.n else cell_text(cell)


def _difference(one: Difference | None) -> str:
    """Without n, which stands in the cells, and without what could be found."""
    if one is None or one.half_width is None:
        return difference_text(one)
    return f"{one.mean:+.1f} ± {one.half_width:.1f} ({p_text(one)})"


def _escape(text: str) -> str:
    return _MINUS.sub(r"$-$", printable(text).translate(_SPECIAL))
