"""The table in LaTeX: one table environment for each setting and one for the paper's."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from pretrain.errors import printable
from transfer.report import paper, published
from transfer.report.table import Cell, Table
from transfer.report.words import (
    CELLS,
    cell_text,
    difference_text,
    mean_text,
    p_text,
    rules,
    short_table,
)
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
    """Tables to be read in by a document that uses booktabs and graphicx."""
    made = ["% needs \\usepackage{booktabs,graphicx}"]
    for part in table.tables:
        made += _settings(part)
        if part is table:
            titles, *parts = paper.short_table()
            caption = f"The paper's own values ({paper.SOURCE}). {paper.SCALE}"
            made.append(_table(titles, parts, caption, "transfer-paper"))
        for one in published.beside(part):
            titles, *parts = one.short_table()
            made.append(_table(titles, parts, one.caption, f"transfer-paper-{one.suite}"))
    return "\n".join(made)


def _settings(table: Table) -> Iterator[str]:
    """A table for each setting."""
    notes = table.notes
    for number, setting in table.numbered:
        columns = (column for column in table.columns if column.setting == setting)
        of_setting = replace(table, columns=tuple(columns))
        titles, *parts = short_table(of_setting, _cell, _difference)
        rule = rules(of_setting, detectable=False) if of_setting.differences else CELLS
        caption = " ".join([f"[{number}] {setting.title}.", rule, *(f"{note}." for note in notes)])
        yield _table(titles, parts, caption, f"transfer-{number}")
        notes = ()  # once


def _table(heads: list[str], parts: Iterable[list[list[str]]], caption: str, label: str) -> str:
    """Shrunk to the width of a line where it is wider."""
    middle = "\n\\midrule\n".join("\n".join(map(_row, part)) for part in parts if part)
    return rf"""\begin{{table}}
\centering
\caption{{{_escape(caption)}}}
\label{{tab:{label}}}
\resizebox{{\ifdim\width>\linewidth\linewidth\else\width\fi}}{{!}}
{{\begin{{tabular}}{{l{"r" * len(heads)}}}
\toprule
{_row(["backbone", *heads])}
\midrule
{middle}
\bottomrule
\end{{tabular}}}}
\end{{table}}
"""


def _row(cells: Iterable[str]) -> str:
    text = " & ".join(map(_escape, cells))
    return ("{}" if _OPTION.match(text) else "") + text + r" \\"


def _cell(cell: Cell, decimals: int) -> str:
    return mean_text(cell, decimals) if cell.n else cell_text(cell)


def _difference(one: Difference | None, decimals: int) -> str:
    """Without n, which stands in the cells, and without what could be found."""
    if one is None or one.half_width is None:
        return difference_text(one, decimals)
    return f"{one.mean:+.{decimals}f} ± {one.half_width:.{decimals}f} ({p_text(one)})"


def _escape(text: str) -> str:
    return _MINUS.sub(r"$-$", printable(text).translate(_SPECIAL))
