"""What every page says in the same words: cells, differences, and the rules of n."""

from collections.abc import Callable

from transfer import task
from transfer.report.results import RunSet
from transfer.report.table import Cell, Table
from transfer.statistics import FEWEST, Difference, smallest_sign_flip_p

NOT_MEASURED = "not measured"
NO_PAIR = "no pair"

CELLS = (
    "Cells: mean ± standard deviation over n pretraining seeds, fine-tunings of one backbone "
    "averaged first; without n, one pretraining and no evidence."
)
_DIFFERENCES = (
    "Differences: mean over pairs of one seed ± half of the 95 % interval, p of the paired t test "
    "(not corrected for the number of comparisons)"
)
_COULD_FIND = ", and the smallest true difference that such pairs find four times out of five"


def too_few(n: int) -> str:
    """Why there is no test."""
    return (
        f"too few pairs for a test: an exact sign-flip test of {n} cannot fall below "
        f"p = {smallest_sign_flip_p(n):g}"
    )


def rules(table: Table, could_find: bool = True) -> str:
    """The rules, and the reason for missing tests where there are some.

    Without `could_find`: of differences that do not say what could be found.
    """
    few = [one.n for one in table.differences.values() if 1 < one.n < FEWEST]
    differences = _DIFFERENCES + (_COULD_FIND if could_find else "")
    return f"{CELLS} {differences}." + (f" n = {max(few)} is {too_few(max(few))}." if few else "")


_EACH = 4  # so many comparisons of too few pairs are named each


def verdicts(table: Table) -> list[str]:
    """A sentence for each comparison: which of its main differences are shown, and how large.

    Many that can show nothing are one sentence.
    """
    sentences, few = [], 0
    too_few = f"no difference can be shown by fewer than {FEWEST} pairs."
    for pair in table.comparisons:
        found = {
            column: table.differences[*pair, column]
            for column in table.columns
            if column.metric.main and (*pair, column) in table.differences
        }
        tested = {column: one for column, one in found.items() if one.p is not None}
        shown = [
            f"{column.setting.task} {column.title} {_interval(one, column.metric.decimals)}"
            for column, one in tested.items()
            if one.half_width is not None and abs(one.mean) > one.half_width
        ]
        pairs = max((one.n for one in found.values()), default=0)
        if not pairs:
            continue
        text = f"{table.label(*pair)}, {pairs} {'pair' if pairs == 1 else 'pairs'}: "
        if pairs < FEWEST:
            text += too_few
            few += 1
        elif shown:
            text += f"shown in {len(shown)} of {len(tested)} metrics: {'; '.join(shown)}."
        elif tested:
            text += f"no difference is shown: all {len(tested)} intervals hold zero."
        else:
            text += "no difference can be shown: the pairs do not vary."
        sentences.append(text)
    if few > _EACH:
        kept = [text for text in sentences if not text.endswith(too_few)]
        return [f"{few} comparisons: {too_few}", *kept]
    return sentences


def p_text(one: Difference) -> str:
    """The p-value, or why there is none."""
    if one.n < FEWEST:
        return "too few"
    if one.p is None:
        return "no spread"
    return "p < 0.001" if one.p < 0.001 else f"p = {one.p:.3f}"


def mean_text(cell: Cell, decimals: int = 1) -> str:
    """Mean, deviation where there is one, n where it is above one."""
    if cell.deviation is None:
        return f"{cell.mean:.{decimals}f}" if cell.n else NOT_MEASURED
    return f"{cell.mean:.{decimals}f} ± {cell.deviation:.{decimals}f} (n={cell.n})"


def cell_text(cell: Cell, decimals: int = 1) -> str:
    """The mean, and what is missing."""
    lost, mean = lost_text(cell), mean_text(cell, decimals)
    return f"{mean}; {lost}" if lost and cell.n else lost or mean


def lost_text(cell: Cell) -> str:
    """`1 failed, 2 missing`; without the number where there is one job of one kind."""
    states = [job.state for job in cell.unfinished]
    if len(states) == 1:
        return states[0]
    return ", ".join(
        f"{states.count(state)} {state}" for state in ("failed", "missing") if state in states
    )


def _interval(one: Difference, decimals: int) -> str:
    return f"{one.mean:+.{decimals}f} ± {one.half_width:.{decimals}f}"


def difference_text(one: Difference | None, decimals: int = 1) -> str:
    """Mean, interval, n, test and the smallest difference that could be found."""
    if one is None:
        return NO_PAIR
    if one.half_width is None:
        return f"{one.mean:+.{decimals}f}"
    found = f"{one.detectable:.{decimals}f}"
    return f"{_interval(one, decimals)} (n={one.n}, {p_text(one)}, could find {found})"


def short_table(
    table: Table,
    cell: Callable[[Cell, int], str] = cell_text,
    difference: Callable[[Difference | None, int], str] = difference_text,
) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Titles, [row, cell, ...] and [comparison, difference, ...] of the main metrics."""
    columns = [column for column in table.columns if column.metric.main]
    rows = [
        [table.name(row), *(cell(table.cells[row, c], c.metric.decimals) for c in columns)]
        for row in table.rows
    ]
    found = table.differences
    pairs = [
        [
            table.label(*pair),
            *(difference(found.get((*pair, c)), c.metric.decimals) for c in columns),
        ]
        for pair in table.comparisons
    ]
    return [column.head for column in columns], rows, pairs


def unfinished_lines(run_set: RunSet) -> list[str]:
    """One line for each job of a grid that has no result."""
    return [
        f"{job.state}: {job.task} from {job.backbone['name']}, pretraining seed "
        f"{job.backbone['seed']}, seed {job.seed} ({job.folder}): {job.why or 'not run yet'}"
        for job in sorted(run_set.unfinished, key=lambda job: (task.position(job.task), job.folder))
    ]
