"""The table in Markdown, for a README or a terminal."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError, printable
from pretrain.files import atomic
from pretrain.reading import read_text
from transfer.evaluation import suites
from transfer.report import paper, published
from transfer.report.comparisons import compare_all
from transfer.report.order import ORDERS, order_cells, order_names, order_rules, orders
from transfer.report.results import RunSet
from transfer.report.table import Table
from transfer.report.words import (
    COMPARISONS,
    comparison_rows,
    comparison_rules,
    difference_text,
    primary_text,
    rules,
    short_table,
    unfinished_lines,
    verdicts,
)

_BEGIN, _END = r"<!-- report(?: (\S[^\n]*?))? -->", "<!-- /report -->"
_PRIMARY = " --primary "
# an underscore inside a word is harmless, and so are list and heading marks inside a line
_SPECIAL = re.compile(r"[\\|`*~\[\]<>&$]|(?<!\w)_|_(?!\w)|^[#+-]|(?<=^\d)[.)]")


def to_markdown(table: Table, run_set: RunSet, primary: str = "") -> str:
    """The table, what its columns are, what is missing, the paper's values, all comparisons.

    Raises:
        UsageError: `primary` names no comparison, or several.
    """
    blocks, blocks_of = list[str](), suites.blocks()
    compared = compare_all(table, primary)
    for part in table.tables:
        about = () if blocks else (*run_set.about, *primary_text(compared))
        said = "  \n".join(map(escape, (*about, *verdicts(part, compared))))
        legend = _legend(part, run_set if part is table else RunSet(()))
        heading = [] if part is table else [f"**{blocks_of[part.settings[0].task].title}**"]
        ours = [*heading, said, *map(_short_table, part.components), legend]
        ours += [] if blocks else [rules(part)]
        blocks += filter(None, ours)
        if part is table:
            blocks.append(f"The paper's own values ({paper.SOURCE}). {paper.SCALE}")
            blocks.append(_table(*paper.short_table()))
        for one in published.beside(part):
            blocks += [one.caption, _table(*one.short_table())]
    if ranked := orders(table):
        names = [", ".join(filter(None, pair)) for pair in order_names(ranked)]
        rows = [[escape(name), *order_cells(one)] for name, one in zip(names, ranked, strict=True)]
        blocks += [
            f"**Published orders of methods.** {order_rules(ranked)}",
            _lines(ORDERS, rows, len(ORDERS)),
        ]
    if tested := [one for one in compared if one.has_test]:
        rows = [[escape(name), *cells] for name, *cells in comparison_rows(tested)]
        blocks += [f"**Comparisons.** {comparison_rules(compared)}", _lines(COMPARISONS, rows, 2)]
    return "\n\n".join(blocks) + "\n"


class Place(NamedTuple):
    """Where a table stands in a Markdown text."""

    folder: str
    """Of its runs, relative to the file; empty where the marker names none."""
    primary: str
    """The comparison that was named beforehand, as --primary has it; empty for none."""
    inside: slice
    """Between the markers."""


def find_tables(text: str, name: str) -> list[Place]:
    """What each marker in a Markdown text says, and what it encloses.

    Raises:
        UsageError: no markers, or some without their end; it begins with `name`.
    """
    found = list(re.finditer(rf"{_BEGIN}([\s\S]*?){_END}", text))
    if len({len(found), len(re.findall(_BEGIN, text)), text.count(_END)}) > 1 or not found:
        raise UsageError(
            f"{name}: it must hold a line <!-- report --> or <!-- report FOLDER --> or "
            "<!-- report FOLDER --primary COMPARISON --> and, below each, a line "
            f"{_END}; the text between them is replaced."
        )
    places = []
    for one in found:
        folder, _, primary = (one[1] or "").partition(_PRIMARY)
        places.append(Place(folder, primary, slice(one.start(2), one.end(2))))
    return places


def find_place(text: str, path: Path, runs: Path) -> Place:
    """The place of a folder of runs in the text of a file.

    Its markers are those that name the folder, relative to the file, or else those that name none.

    Raises:
        UsageError: it is not one pair of markers.
    """
    places, here = find_tables(text, f"--docs {path}"), os.path.realpath(runs)
    named = [one for one in places if one.folder]
    fitting = [one for one in named if os.path.realpath(path.parent / one.folder) == here]
    fitting = fitting or [one for one in places if not one.folder]
    if len(fitting) != 1:
        begin = f"<!-- report {os.path.relpath(runs, path.parent)} -->"
        raise UsageError(
            f"--docs {path}: {len(fitting)} of its markers are for {runs}, not one; write a line "
            f"{begin} above and {_END} below its place."
        )
    return fitting[0]


def primary_of(path: Path, runs: Path) -> str:
    """The comparison that the marker for a folder of runs names as the primary one."""
    return find_place(read_text(path, f"--docs {path}"), path, runs).primary


def replace_between(path: Path, text: str, runs: Path) -> bool:
    """Put the table of a folder of runs between its markers; whether that changed the file.

    Raises:
        UsageError: the file cannot be read or written, or it is not one pair of markers.
    """
    old = read_text(path, f"--docs {path}")
    place = find_place(old, path, runs).inside
    line = "\r\n" if "\r\n" in old else "\n"
    inside = f"\n\n{text.strip()}\n\n".replace("\n", line)
    new = old[: place.start] + inside + old[place.stop :]
    if new == old:
        return False
    with atomic(path.resolve()) as temporary:
        temporary.write_bytes(new.encode("utf-8"))
        temporary.chmod(path.stat().st_mode)
    return True


def _short_table(part: Table) -> str:
    titles, *sides = short_table(part)
    rows, pairs = ([[escape(name), *cells] for name, *cells in side] for side in sides)
    return _table(titles, rows, pairs)


def _table(titles: list[str], rows: list[list[str]], pairs: list[list[str]]) -> str:
    italic = [[f"*{cell}*" if cell else "" for cell in pair] for pair in pairs]
    return _lines(["backbone", *titles], [*rows, *italic])


def _lines(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first so many columns are texts, and the others numbers."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    rule = "|" + "---|" * texts + "---:|" * (len(titles) - texts)
    return "\n".join([lines[0], rule, *lines[1:]])


def _legend(table: Table, run_set: RunSet) -> str:
    lines = [f"[{number}] {escape(one.title)}" for number, one in table.numbered]
    pairs: dict[str, list[str]] = {}
    for row, one, other, between in table.between_engines():
        if one.metric.main:
            detail = f" ({table.detail(row)})" if table.detail(row) else ""
            head = f"[{one.number}] - [{other.number}], {escape(row.method + detail)}"
            text = f"{one.title} *{difference_text(between, one.metric.decimals)}*"
            pairs.setdefault(head, []).append(text)
    lines += [f"{head}: {', '.join(texts)}" for head, texts in pairs.items()]
    lines += [escape(line) for line in (*unfinished_lines(run_set), *table.notes)]
    lines += [escape(f"left out: {line}") for line in run_set.complaints]
    return "  \n".join(lines)


def escape(text: str) -> str:
    """A text as Markdown shows it, on one line: no heading, link, HTML, table or emphasis."""
    return _SPECIAL.sub(r"\\\g<0>", printable(text))
