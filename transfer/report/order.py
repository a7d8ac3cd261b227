"""Does the order in which others have published the methods hold here?

A published table ranks several methods by one number. Where a column of ours means that number, and
backbones of at least three of the methods stand in it, both orders are shown side by side, with
what pairs of one seed say of each two methods. Levels are not compared: theirs is full scale.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean

from transfer.report import paper
from transfer.report.published import PUBLISHED
from transfer.report.table import Column, Row, Table, difference
from transfer.statistics import ALPHA, FEWEST, Difference, holm

_METHODS = 3
"""Fewer have no order beyond their difference, which stands among the comparisons."""


@dataclass(frozen=True)
class Pair:
    """Two methods, the one that was published as better first."""

    better: str
    worse: str
    difference: Difference | None
    """Ours, the first minus the second, above zero where it is better here too; None without a
    pretraining seed in common."""
    corrected_p: float | None = None
    """After Holm, over all tests of all orders."""

    @property
    def agrees(self) -> bool:
        """Whether the sign is the published one, shown or not."""
        return self.difference is not None and self.difference.mean > 0

    @property
    def is_shown(self) -> bool:
        """Either way."""
        return self.corrected_p is not None and self.corrected_p <= ALPHA


@dataclass(frozen=True)
class Order:
    """One column of ours beside the number that it means."""

    column: Column
    theirs: Mapping[str, float]
    """By method, the best first, as published."""
    ours: Mapping[str, float]
    """By method, the best first: means over the seeds that all of them have."""
    n: int
    """These seeds."""
    pairs: tuple[Pair, ...]


def orders(table: Table) -> list[Order]:
    """Of the tasks and of the suites, in the order of their columns."""
    found = [one for part in table.tables for one in _orders_of(part)]
    pairs = [pair for one in found for pair in one.pairs]
    tested = [pair.difference.p if pair.difference else None for pair in pairs]
    corrected = iter(holm(tested))
    return [
        replace(one, pairs=tuple(replace(pair, corrected_p=next(corrected)) for pair in one.pairs))
        for one in found
    ]


def _orders_of(table: Table) -> Iterator[Order]:
    for column in table.columns:
        for values in published_values(column):
            for rows in _pretrainings(table):
                known = [row for row in rows if row.method in values and table.cells[row, column].n]
                if len(known) >= _METHODS and (order := _order(table, column, values, known)):
                    yield order


def published_values(column: Column) -> Iterator[Mapping[str, float]]:
    """{method: value} of each published number that a column means."""
    setting, key = column.setting, column.metric.key
    for theirs in paper.COLUMNS:
        if (theirs.task, theirs.network, theirs.key) == (setting.task, setting.network, key):
            yield {method: paper.value(method, theirs) for method in paper.PRINTED}
    for one in PUBLISHED:
        for number, keys in enumerate(one.keys if one.suite == setting.task else ()):
            if key in keys:
                yield {name: v for name, row in one.rows.items() if (v := row[number]) is not None}


def _pretrainings(table: Table) -> Iterator[list[Row]]:
    """Each plain row and what is compared with it; a method that stands twice is none of both."""
    for plain in (row for row in table.rows if row.method == "none"):
        rows = [plain, *(row for row, other in table.comparisons if other == plain)]
        times = Counter(row.method for row in rows)
        yield [row for row in rows if times[row.method] == 1]


def _order(
    table: Table, column: Column, values: Mapping[str, float], rows: Sequence[Row]
) -> Order | None:
    cells = {row.method: table.cells[row, column] for row in rows}
    seeds = set.intersection(*(set(cell.values) for cell in cells.values()))
    if not seeds:
        return None
    means = {name: fmean(cell.values[seed] for seed in seeds) for name, cell in cells.items()}
    sign = -1 if column.metric.less else 1
    theirs = sorted(cells, key=lambda name: -sign * values[name])
    ours = sorted(cells, key=lambda name: -sign * means[name])
    pairs = []
    for better, worse in combinations(theirs, 2):
        if values[better] != values[worse]:
            pair = (cells[better], cells[worse])
            pairs.append(Pair(better, worse, difference(*(pair if sign > 0 else reversed(pair)))))
    return Order(
        column,
        {name: values[name] for name in theirs},
        {name: means[name] for name in ours},
        len(seeds),
        tuple(pairs),
    )


ORDERS = (
    "metric", "published", "here", "n", "pairs in the published order", "shown", "shown reversed",
)  # fmt: skip
"""Titles of the table of all orders."""


def order_cells(one: Order) -> list[str]:
    """What stands under ORDERS behind the metric."""
    decimals = one.column.metric.decimals
    shown = [pair for pair in one.pairs if pair.is_shown]
    as_there = [f"{pair.better} > {pair.worse}" for pair in shown if pair.agrees]
    reversed_ = [f"{pair.worse} > {pair.better}" for pair in shown if not pair.agrees]
    compared = [pair for pair in one.pairs if pair.difference]
    return [
        ", ".join(f"{name} {value:g}" for name, value in one.theirs.items()),
        ", ".join(f"{name} {value:.{decimals}f}" for name, value in one.ours.items()),
        str(one.n),
        f"{sum(pair.agrees for pair in compared)} of {len(compared)}",
        ", ".join(as_there) or "-",
        ", ".join(reversed_) or "-",
    ]


def order_rules(found: Sequence[Order]) -> str:
    """What the table says."""
    pairs = [pair for one in found for pair in one.pairs]
    tests = sum(pair.corrected_p is not None for pair in pairs)
    few = sum(pair.difference is not None and pair.difference.n < FEWEST for pair in pairs)
    return (
        "The best first; published are values of full scale, here means over the n pretraining "
        "seeds that all of these methods have. Pairs in the published order: of any two methods, "
        "whether the sign of the difference is the published one; of methods that do not differ, "
        f"half are. Shown: p at most {ALPHA:g} after Holm's correction for the {tests} tests of "
        "this table, paired by all seeds that the two have."
        + (f" {few} pairs have fewer than {FEWEST} seeds, and no test." if few else "")
    )
