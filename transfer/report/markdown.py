"""The table in Markdown, for a README or a terminal."""

import re
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.run import atomic
from transfer.report import paper
from transfer.report.results import Found
from transfer.report.table import Table
from transfer.report.words import cell_text, difference_text, rules, unfinished_lines

BEGIN, END = "<!-- report -->", "<!-- /report -->"
_SPECIAL = re.compile(r"[\\|`*\[\]<>$]|(?<!\w)_|_(?!\w)")  # an underscore inside a word is harmless


def markdown(table: Table, found: Found) -> str:
    """The table, what its columns are, what is missing, and the paper's values."""
    return "\n\n".join([_ours(table), _legend(table, found), rules(table), _paper()]) + "\n"


def replace_between(path: Path, text: str) -> bool:
    """Put `text` between the markers of a Markdown file; whether that changed it.

    Raises:
        UsageError: no such file, or not one pair of markers in it.
    """
    try:
        old = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--docs {path}: cannot be read as text ({error}).") from error
    if (old.count(BEGIN), old.count(END)) != (1, 1) or old.index(BEGIN) > old.index(END):
        raise UsageError(
            f"--docs {path}: it must hold one line {BEGIN} and, below it, one line {END}; the text "
            "between them is replaced."
        )
    head, rest = old.split(BEGIN)
    line = "\r\n" if "\r\n" in old else "\n"
    inside = f"\n\n{text.strip()}\n\n".replace("\n", line)
    new = head + BEGIN + inside + END + rest.split(END)[1]
    if new == old:
        return False
    with atomic(path.resolve()) as temporary:
        temporary.write_bytes(new.encode("utf-8"))
        temporary.chmod(path.stat().st_mode)
    return True


def _ours(table: Table) -> str:
    columns = [column for column in table.columns if column.metric.main]
    lines = [
        _line(
            [
                "backbone",
                *(_escape(column.metric.title) + f" [{column.number}]" for column in columns),
            ]
        )
    ]
    lines.append("|---|" + "---:|" * len(columns))
    for row in table.rows:
        cells = (cell_text(table.cell(row, column)) for column in columns)
        lines.append(_line([_escape(table.name(row)), *cells]))
    for row, other in table.comparisons:
        found = (table.difference(row, other, column) for column in columns)
        cells = (f"*{difference_text(one)}*" for one in found)
        lines.append(_line([f"*{_escape(table.label(row, other))}*", *cells]))
    return "\n".join(lines)


def _legend(table: Table, found: Found) -> str:
    lines = [
        f"[{number}] {_escape(setting.title)}" for number, setting in enumerate(table.settings, 1)
    ]
    pairs: dict[str, list[str]] = {}
    for row, one, other, between in table.between_engines():
        if one.metric.main:
            detail = f" ({table.detail(row)})" if table.detail(row) else ""
            head = f"[{one.number}] - [{other.number}], {_escape(row.method + detail)}"
            told = f"{one.metric.title} *{difference_text(between)}*"
            pairs.setdefault(head, []).append(told)
    lines += [f"{head}: {', '.join(told)}" for head, told in pairs.items()]
    lines += [_escape(line) for line in (*unfinished_lines(found.unfinished), *table.notes)]
    return "  \n".join(lines)


def _paper() -> str:
    columns = [column for column in paper.COLUMNS if column.main]
    lines = [_line(["backbone", *(column.title for column in columns)])]
    lines.append("|---|" + "---:|" * len(columns))
    for method in paper.PRINTED:
        lines.append(_line([method, *(paper.text(method, column) for column in columns)]))
    for method in list(paper.PRINTED)[1:]:
        gains = (f"*{paper.gain(method, column):+.1f}*" for column in columns)
        lines.append(_line([f"*{method} - none*", *gains]))
    return f"The paper's own values ({paper.SOURCE}). {paper.SCALE}\n\n" + "\n".join(lines)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text.replace("\n", " "))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
