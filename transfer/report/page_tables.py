"""The tables of the page: summary, differences, and the paper's block."""

from collections.abc import Iterable
from html import escape
from itertools import groupby

from transfer.report import paper
from transfer.report.provenance import measured
from transfer.report.table import Cell, Column, Row, Table
from transfer.report.words import NOT_MEASURED, lost_text, p_text, too_few
from transfer.statistics import FEWEST, Difference


def boxed(name: str, caption: str, head: str, body: Iterable[str]) -> str:
    """A table that scrolls inside its own box, with rows that sort.

    Args:
        name: its identifier, unique on the page.
        caption: HTML.
        head: rows of <th>.
        body: rows.
    """
    return (
        f'<div class="scroll" role="region" aria-labelledby="{name}-caption" tabindex="0">'
        f'<table id="{name}"><caption id="{name}-caption"><span>{caption}</span></caption>'
        f"<thead>{head}</thead><tbody>{''.join(body)}</tbody></table></div>"
    )


def head(words: str, task: str = "", rows: int = 1) -> str:
    """The head of a column that sorts."""
    span = f' rowspan="{rows}"' if rows > 1 else ""
    return (
        f'<th scope="col" aria-sort="none"{span}{_of(task)}>'
        f'<button type="button" class="sort">{escape(words)}</button></th>'
    )


def row(
    name: str,
    cells: Iterable[str],
    *,
    words: str = "",
    task: str = "",
    anchor: str = "",
    detail: str = "",
) -> str:
    """A row whose first cell is its head.

    Args:
        name: the head.
        cells: the others, HTML.
        words: what the filter looks in, besides the head.
        task: whose row it is; empty for one of several tasks.
        anchor: its identifier.
        detail: small, below the head.
    """
    identifier = f' id="{anchor}"' if anchor else ""
    small = f"<small>{escape(detail)}</small>" if detail else ""
    held = escape(f"{name} {detail} {words}".lower())
    return (
        f'<tr{identifier} data-words="{held}"{_of(task)}>'
        f'<th scope="row">{escape(name)}{small}</th>{"".join(cells)}</tr>'
    )


def value(text: str, number: float | str | None, task: str = "", kind: str = "") -> str:
    """A cell; `number` is what it is sorted by, `text` is HTML."""
    by = "" if number is None else f' data-value="{escape(str(number))}"'
    return f'<td class="{kind}"{by}{_of(task)}>{text}</td>'


def summary(table: Table, anchors: dict[str, str]) -> str:
    """Every method and every metric; each number with where it comes from."""
    groups, heads = [head("backbone", rows=2)], []
    for number, mine in groupby(table.columns, key=lambda column: column.number):
        columns = list(mine)
        setting = columns[0].setting
        engine = f", {escape(setting.engine)}" if setting.engine else ""
        groups.append(
            f'<th scope="colgroup" colspan="{len(columns)}"{_of(setting.task)}>'
            f"[{number}] {escape(setting.task)} <small>{escape(setting.recipe)}{engine}<br>"
            f"{escape(setting.data)}</small></th>"
        )
        heads += [head(column.metric.title, setting.task) for column in columns]
    body = [
        row(
            f"{one.arch}, {one.method}",
            (
                _cell(table.cell(one, column), column, f"p{number}-{place}", anchors)
                for place, column in enumerate(table.columns)
            ),
            detail=table.detail(one),
        )
        for number, one in enumerate(table.rows)
    ]
    told = "Mean over pretrainings ± standard deviation. Hover or focus a number for its runs."
    top = f"<tr>{''.join(groups)}</tr><tr>{''.join(heads)}</tr>"
    return boxed("table-summary", told, top, body)


def differences(table: Table) -> str:
    """Every comparison under every metric, with all that can be said of it."""
    titles = ("comparison", "setting", "metric", "difference", "95 % interval", "n", "paired test")
    top = f"<tr>{''.join(map(head, (*titles, 'could find')))}</tr>"
    body = []
    for one, other in table.comparisons:
        for column in table.columns:
            found = table.difference(one, other, column)
            if found is not None:
                label = f"{one.method} - {other.method}"
                body.append(_difference(label, table.pair_detail(one, other), column, found))
    told = (
        "Paired by pretraining seed, in points. “could find” is the smallest true difference that "
        "so many pairs with this spread would have found four times out of five."
    )
    return boxed("table-differences", told, top, body)


def in_their_shape(table: Table) -> str:
    """Our means in the columns of the paper, and below them the gain on the plain method."""
    places: list[tuple[str, str, Column | None]] = []
    for wanted in paper.COLUMNS:
        mine = [
            column
            for column in table.columns
            if (column.setting.task, column.metric.key) == (wanted.task, wanted.key)
        ]
        places += [(column.head, wanted.task, column) for column in mine]
        places += [] if mine else [(wanted.title, wanted.task, None)]
    top = (
        f"<tr>{''.join([head('backbone'), *(head(title, task) for title, task, _ in places)])}</tr>"
    )
    body = [
        row(
            f"{one.arch}, {one.method}",
            (_ours(table, one, task, column) for _, task, column in places),
            detail=table.detail(one),
        )
        for one in table.rows
    ]
    told = (
        "Below each mean, the mean difference to the plain backbone of the same pretraining seeds."
    )
    return boxed("table-ours", told, top, body)


def theirs() -> str:
    """The paper's table, and its differences, in the shape of ours."""
    top = f"<tr>{''.join(map(head, ('backbone', *(c.title for c in paper.COLUMNS))))}</tr>"
    body = [
        row(method, (_theirs(method, column) for column in paper.COLUMNS), words="paper")
        for method in paper.PRINTED
    ]
    told = f"{escape(paper.SOURCE)}. {escape(paper.SCALE)}"
    return boxed("table-paper", told, top, body) + f"<p class='note'>{escape(paper.NOTE)}</p>"


def _cell(cell: Cell, column: Column, name: str, anchors: dict[str, str]) -> str:
    task = column.setting.task
    lost = lost_text(cell.unfinished)
    if not cell.n:
        words = escape(lost or NOT_MEASURED)
        return value(f'<span class="missing">{words}</span>', None, task)
    small = [] if cell.deviation is None else [f"±&nbsp;{cell.deviation:.1f}", f"n={cell.n}"]
    more = f"<small>{', '.join(small)}</small>" if small else ""
    if lost:
        more += f'<small class="missing">{escape(lost)}</small>'
    return value(measured(cell, column, name, anchors, more), cell.mean, task, "number")


def _difference(label: str, detail: str, column: Column, found: Difference) -> str:
    setting, task = column.setting, column.setting.task
    words = f"{task} {setting.recipe} {setting.data} {column.metric.title}"
    interval = test = detectable = '<span class="missing">one pair</span>'
    if found.half_width is not None and found.detectable is not None:
        low, high = found.mean - found.half_width, found.mean + found.half_width
        interval = f"{low:+.1f} to {high:+.1f}"
        detectable = f"{found.detectable:.1f}"
        why = f' title="{escape(too_few(found.n))}"' if found.n < FEWEST else ""
        test = f"<span{why}>{p_text(found)}</span>"
    cells = [
        value(f"[{column.number}] {escape(task)}", f"{column.number:04d}"),
        value(escape(column.metric.title), column.metric.title),
        value(f"{found.mean:+.1f}", found.mean, kind="number"),
        value(interval, found.mean - (found.half_width or 0), kind="number"),
        value(str(found.n), found.n, kind="number"),
        value(test, found.p, kind="number"),
        value(detectable, found.detectable, kind="number"),
    ]
    return row(label, cells, words=words, task=task, detail=detail)


def _ours(table: Table, one: Row, task: str, column: Column | None) -> str:
    cell = Cell({}) if column is None else table.cell(one, column)
    if column is None or not cell.n:
        words = lost_text(cell.unfinished) or NOT_MEASURED
        return value(f'<span class="missing">{escape(words)}</span>', None, task)
    small = "" if cell.n == 1 else f" <small>± {cell.deviation:.1f}, n={cell.n}</small>"
    for ours, plain in table.comparisons:
        if (
            ours == one
            and plain.method == "none"
            and (gain := table.difference(one, plain, column))
        ):
            small += f"<small>{gain.mean:+.1f}</small>"
    return value(f"{cell.mean:.1f}{small}", cell.mean, task, "number")


def _theirs(method: str, column: paper.Column) -> str:
    mark = "?" if (method, column.key) == paper.DOUBTFUL else ""
    more = "" if method == "none" else f"<small>{paper.gain(method, column):+.1f}</small>"
    text = f"{paper.text(method, column)}{mark}{more}"
    return value(text, paper.value(method, column), column.task, "number")


def _of(task: str) -> str:
    return f' data-task="{escape(task)}"' if task else ""
