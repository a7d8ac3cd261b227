"""The table in Markdown, for a README or a terminal."""

import os
import re
from pathlib import Path

from pretrain.errors import UsageError, printable
from pretrain.files import atomic
from pretrain.reading import read_text
from transfer.evaluation import suites
from transfer.report import paper, published
from transfer.report.results import RunSet
from transfer.report.table import Table
from transfer.report.words import (
    difference_text,
    rules,
    short_table,
    unfinished_lines,
    verdicts,
)

_BEGIN, _END = r"<!-- report(?: (\S[^\n]*?))? -->", "<!-- /report -->"
# an underscore inside a word is harmless, and so are list and heading marks inside a line
_SPECIAL = re.compile(r"[\\|`*~\[\]<>&$]|(?<!\w)_|_(?!\w)|^[#+-]|(?<=^\d)[.)]")


def to_markdown(table: Table, run_set: RunSet) -> str:
    """The table, what its columns are, what is missing, and the paper's values."""
    blocks, blocks_of = list[str](), suites.blocks()
    for part in table.tables:
        titles, rows, pairs = short_table(part)
        rows, pairs = ([[escape(name), *cells] for name, *cells in side] for side in (rows, pairs))
        about = () if blocks else run_set.about
        said = "  \n".join(map(escape, (*about, *verdicts(part))))
        legend = _legend(part, run_set if part is table else RunSet(()))
        heading = [] if part is table else [f"**{blocks_of[part.settings[0].task].title}**"]
        ours = [*heading, said, _table(titles, rows, pairs), legend]
        ours += [] if blocks else [rules(part)]
        blocks += filter(None, ours)
        if part is table:
            blocks.append(f"The paper's own values ({paper.SOURCE}). {paper.SCALE}")
            blocks.append(_table(*paper.short_table()))
        for one in published.beside(part):
            blocks += [one.caption, _table(*one.short_table())]
    return "\n\n".join(blocks) + "\n"


def find_tables(text: str, name: str) -> list[tuple[str, slice]]:
    """The folder that each marker in a Markdown text names (or nothing), and what it encloses.

    Raises:
        UsageError: no markers, or some without their end; it begins with `name`.
    """
    found = list(re.finditer(rf"{_BEGIN}([\s\S]*?){_END}", text))
    if len({len(found), len(re.findall(_BEGIN, text)), text.count(_END)}) > 1 or not found:
        raise UsageError(
            f"{name}: it must hold a line <!-- report --> or <!-- report FOLDER --> and, "
            f"below each, a line {_END}; the text between them is replaced."
        )
    return [(one[1] or "", slice(one.start(2), one.end(2))) for one in found]


def replace_between(path: Path, text: str, runs: Path) -> bool:
    """Put the table of a folder of runs between its markers; whether that changed the file.

    Its markers are those that name the folder, relative to the file, or else those that name none.

    Raises:
        UsageError: the file cannot be read or written, or it is not one pair of markers.
    """
    old = read_text(path, f"--docs {path}")
    tables, here = find_tables(old, f"--docs {path}"), os.path.realpath(runs)
    named = ((os.path.realpath(path.parent / name), place) for name, place in tables if name)
    places = [place for folder, place in named if folder == here]
    places = places or [place for name, place in tables if not name]
    if len(places) != 1:
        begin = f"<!-- report {os.path.relpath(runs, path.parent)} -->"
        raise UsageError(
            f"--docs {path}: {len(places)} of its markers are for {runs}, not one; write a line "
            f"{begin} above and {_END} below its place."
        )
    line = "\r\n" if "\r\n" in old else "\n"
    inside = f"\n\n{text.strip()}\n\n".replace("\n", line)
    new = old[: places[0].start] + inside + old[places[0].stop :]
    if new == old:
        return False
    with atomic(path.resolve()) as temporary:
        temporary.write_bytes(new.encode("utf-8"))
        temporary.chmod(path.stat().st_mode)
    return True


def _table(titles: list[str], rows: list[list[str]], pairs: list[list[str]]) -> str:
    italic = [[f"*{cell}*" for cell in pair] for pair in pairs]
    lines = ["| " + " | ".join(cells) + " |" for cells in (["backbone", *titles], *rows, *italic)]
    return "\n".join([lines[0], "|---|" + "---:|" * len(titles), *lines[1:]])


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
    return "  \n".join(lines)


def escape(text: str) -> str:
    """A text as Markdown shows it, on one line: no heading, link, HTML, table or emphasis."""
    return _SPECIAL.sub(r"\\\g<0>", printable(text))
