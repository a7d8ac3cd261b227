"""Does the order in which the paper has the methods hold here?

Where a column of ours means a number that was published for several methods, and backbones of at
least three of them, the plain one included, stand in it with three seeds in common, both orders are
shown side by side, with what pairs of one seed say of each two methods. Levels are not compared:
theirs are of full scale. Theirs are also single numbers without an interval, so that their order
of two that are close says little.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from transfer.report import paper
from transfer.report.published import PUBLISHED
from transfer.report.table import Cell, Column, Row, Table, difference
from transfer.statistics import ALPHA, FEWEST, Difference, holm

_METHODS = 3
"""Fewer have no order beyond their difference, which stands among the comparisons."""


@dataclass(frozen=True)
class Pair:
    """Two methods, the one that was published as better first."""

    better: str
    worse: str
    difference: Difference
    """Ours, the first minus the second, over the seeds that these two have."""
    corrected_p: float | None = None
    """After Holm, over all tests of all orders."""

    @property
    def is_shown(self) -> bool:
        """That they differ, one way or the other."""
        return self.corrected_p is not None and self.corrected_p <= ALPHA


@dataclass(frozen=True)
class Order:
    """One column of ours beside the number that it means; of both more is better."""

    column: Column
    backbones: str
    """Network and pretraining."""
    source: str
    """Of the published values, such as table 10."""
    theirs: Mapping[str, float]
    """By method, the best first, as published."""
    ours: Mapping[str, float]
    """By method, the best first: means over the seeds that all of them have."""
    n: int
    """These seeds."""
    pairs: tuple[Pair, ...]
    left_out: tuple[str, ...]
    """Methods that were published and measured and have no place, each with its reason."""

    @property
    def agreeing(self) -> int:
        """Pairs that the means above have in the published order."""
        return sum(self.ours[pair.better] > self.ours[pair.worse] for pair in self.pairs)


def orders(table: Table) -> list[Order]:
    """Of the tasks and of the suites, in the order of their columns."""
    found = [one for part in table.tables for one in _orders_of(part)]
    corrected = iter(holm([pair.difference.p for one in found for pair in one.pairs]))
    return [
        replace(one, pairs=tuple(replace(pair, corrected_p=next(corrected)) for pair in one.pairs))
        for one in found
    ]


def _orders_of(table: Table) -> Iterator[Order]:
    for column in (one for one in table.columns if one.metric.main):
        for source, values in published_values(column):
            for plain in (row for row in table.rows if row.method == "none"):
                if order := _order(table, column, source, values, plain):
                    yield order


def published_values(column: Column) -> Iterator[tuple[str, Mapping[str, float]]]:
    """(source, {method: value}) of each published number that a column means."""
    setting, key = column.setting, column.metric.key
    for theirs in paper.COLUMNS:
        if (theirs.task, theirs.network, theirs.key) == (setting.task, setting.network, key):
            yield paper.values(theirs, setting.data)
    for one in PUBLISHED:
        for number, keys in enumerate(one.keys if one.suite == setting.task else ()):
            if key in keys:
                given = {name: row[number] for name, row in one.rows.items()}
                values = {name: value for name, value in given.items() if value is not None}
                yield one.source.rpartition(", ")[2], values  # its last part: section 4.4


def _order(
    table: Table, column: Column, source: str, values: Mapping[str, float], plain: Row
) -> Order | None:
    """Of the pretraining of `plain`; None where it has fewer than three methods."""
    cells, left_out = _cells(table, column, values, plain)
    if len(cells) < _METHODS:
        return None
    seeds = set.intersection(*(set(cell.values) for cell in cells.values()))
    means = {name: fmean(cell.values[seed] for seed in seeds) for name, cell in cells.items()}
    theirs = sorted(cells, key=lambda name: -values[name])
    pairs = [
        Pair(better, worse, between)
        for better, worse in combinations(theirs, 2)
        if values[better] > values[worse]
        if (between := difference(cells[better], cells[worse]))
    ]
    return Order(
        column=column,
        backbones=", ".join(filter(None, (plain.arch, table.detail(plain)))),
        source=source,
        theirs={name: values[name] for name in theirs},
        ours={name: means[name] for name in sorted(cells, key=lambda name: -means[name])},
        n=len(seeds),
        pairs=tuple(pairs),
        left_out=tuple(left_out),
    )


def _cells(
    table: Table, column: Column, values: Mapping[str, float], plain: Row
) -> tuple[dict[str, Cell], list[str]]:
    """{method: cell} of those that have a place, and why others have none.

    A method that stands twice could be either. Of the others as many as have FEWEST seeds in common
    with the plain one and each other, and of so many those with most.
    """
    cells = {row: table.cells[row, column] for row in table.rows if table.cells[row, column].n}
    compared = [(row, other) for row, other in table.comparisons if row in cells and other in cells]
    beside = [row for row, other in compared if other == plain and row.method in values]
    times = Counter(row.method for row in beside)
    plains = Counter(row for row, other in compared if other.method == plain.method)
    left_out, rest = list[str](), list[Row]()
    where = f"in {column.setting.task} {column.head}"
    for row in beside:
        if times[row.method] > 1:
            left_out.append(f"{row.method} is there {times[row.method]} times {where}")
        elif plains[row] > 1:
            left_out.append(f"{row.method} has {plains[row]} plain networks {where}")
        else:
            rest.append(row)

    def shared(rows: Sequence[Row]) -> int:
        return len(set.intersection(*(set(cells[row].values) for row in (plain, *rows))))

    groups = [group for n in range(len(rest) + 1) for group in combinations(rest, n)]
    groups = [group for group in groups if plain in cells and shared(group) >= FEWEST]
    chosen = max(groups, key=lambda group: (len(group), shared(group)), default=())
    lost = [row.method for row in rest if row not in chosen]
    left_out += [f"{name} shares fewer than {FEWEST} seeds {where}" for name in lost]
    return {row.method: cells[row] for row in (plain, *chosen)} if chosen else {}, left_out


ORDERS = (
    "metric", "published", "here", "n", "pairs in the published order", "shown", "shown reversed",
)  # fmt: skip
"""Titles of the table of all orders."""


def order_names(found: Sequence[Order]) -> list[tuple[str, str]]:
    """Of each its metric, and its backbones where a column has several orders; else empty."""
    times = Counter(one.column for one in found)
    return [
        (
            f"{one.column.setting.task} {one.column.head}",
            one.backbones if times[one.column] > 1 else "",
        )
        for one in found
    ]


def order_cells(one: Order) -> list[str]:
    """What stands under ORDERS behind the metric."""
    decimals = one.column.metric.decimals
    shown = [pair for pair in one.pairs if pair.is_shown]
    as_there = [f"{p.better} > {p.worse}" for p in shown if p.difference.mean > 0]
    other_way = [f"{p.worse} > {p.better}" for p in shown if p.difference.mean < 0]
    printed = max(len(f"{value:g}".partition(".")[2]) for value in one.theirs.values())
    theirs = ", ".join(f"{name} {value:.{printed}f}" for name, value in one.theirs.items())
    return [
        f"{theirs} ({one.source})",
        ", ".join(f"{name} {value:.{decimals}f}" for name, value in one.ours.items()),
        str(one.n),
        f"{one.agreeing} of {len(one.pairs)}",
        ", ".join(as_there) or "-",
        ", ".join(other_way) or "-",
    ]


def order_rules(found: Sequence[Order]) -> str:
    """What the table says."""
    pairs = [pair for one in found for pair in one.pairs]
    tests = sum(pair.corrected_p is not None for pair in pairs)
    left_out = dict.fromkeys(why for one in found for why in one.left_out)
    return (
        "Methods, the best first; published are single values of full scale, here means over the "
        "n pretraining seeds that all of these methods have. Pairs in the published order: half "
        "are, where nothing differs. Shown: p at most "
        f"{ALPHA:g} after Holm's correction for the {tests} tests of this table, of all seeds that "
        "the two have." + (f" Left out: {'; '.join(left_out)}." if left_out else "")
    )
