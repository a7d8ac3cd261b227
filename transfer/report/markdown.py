"""The table in Markdown, for a README or a terminal."""

import re
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.files import atomic
from transfer.report import paper
from transfer.report.results import RunSet
from transfer.report.table import Table
from transfer.report.words import difference_text, rules, short_table, unfinished_lines

BEGIN, END = "<!-- report -->", "<!-- /report -->"
_SPECIAL = re.compile(r"[\\|`*\[\]<>$]|(?<!\w)_|_(?!\w)")  # an underscore inside a word is harmless


def to_markdown(table: Table, run_set: RunSet) -> str:
    """The table, what its columns are, what is missing, and the paper's values."""
    titles, rows, pairs = short_table(table)
    rows, pairs = ([[_escape(name), *cells] for name, *cells in part] for part in (rows, pairs))
    ours = [_table(titles, rows, pairs), _legend(table, run_set), rules(table)]
    head = f"The paper's own values ({paper.SOURCE}). {paper.SCALE}"
    return "\n\n".join([*ours, head, _table(*paper.short_table())]) + "\n"


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


def _table(titles: list[str], rows: list[list[str]], pairs: list[list[str]]) -> str:
    italic = [[f"*{cell}*" for cell in pair] for pair in pairs]
    lines = ["| " + " | ".join(cells) + " |" for cells in (["backbone", *titles], *rows, *italic)]
    return "\n".join([lines[0], "|---|" + "---:|" * len(titles), *lines[1:]])


def _legend(table: Table, run_set: RunSet) -> str:
    lines = [f"[{number}] {_escape(one.title)}" for number, one in enumerate(table.settings, 1)]
    pairs: dict[str, list[str]] = {}
    for row, one, other, between in table.between_engines():
        if one.metric.main:
            detail = f" ({table.detail(row)})" if table.detail(row) else ""
            head = f"[{one.number}] - [{other.number}], {_escape(row.method + detail)}"
            text = f"{one.metric.title} *{difference_text(between)}*"
            pairs.setdefault(head, []).append(text)
    lines += [f"{head}: {', '.join(texts)}" for head, texts in pairs.items()]
    lines += [_escape(line) for line in (*unfinished_lines(run_set), *table.notes)]
    return "  \n".join(lines)


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\g<0>", text.replace("\n", " "))
