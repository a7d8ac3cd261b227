"""What every page says in the same words: cells, differences, and the rules of n."""

from collections import Counter
from collections.abc import Callable, Sequence

from transfer import task
from transfer.report.comparisons import Comparison
from transfer.report.results import RunSet, seed_text
from transfer.report.table import RANDOM, Cell, Table
from transfer.statistics import ALPHA, FEWEST, MOST, PAPERS_GAIN, Difference, smallest_sign_flip_p

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
_DETECTABLE = (
    ", and the detectable one: the smallest true difference that such pairs find four times out "
    "of five"
)
_RANDOM = (
    f" {RANDOM.capitalize()}: random weights, n of them. Detectors and segmenters train all of "
    "them, normalisation too, whatever freeze and batch_norm say; probes, k-NN and captioners "
    "read them as they were drawn."
)


def too_few(n: int) -> str:
    """Why there is no test."""
    return (
        f"too few pairs for a test: an exact sign-flip test of {n} cannot fall below "
        f"p = {smallest_sign_flip_p(n):g}"
    )


def rules(table: Table, detectable: bool = True) -> str:
    """The rules, and the reason for missing tests where there are some.

    Without `detectable`: of differences that do not say what is.
    """
    few = [one.n for one in table.differences.values() if 1 < one.n < FEWEST]
    random = _RANDOM if any(row.method == RANDOM for row in table.rows) else ""
    differences = _DIFFERENCES + (_DETECTABLE if detectable else "")
    return (
        f"{CELLS} {differences}."
        + (f" n = {max(few)} is {too_few(max(few))}." if few else "")
        + random
    )


_EACH = 4  # so many comparisons of too few pairs are named each


def verdicts(table: Table, compared: Sequence[Comparison] = ()) -> list[str]:
    """A line for each comparison: which of its main intervals exclude zero, uncorrected.

    Many that can show nothing are one sentence. With all comparisons of the report: also how many
    are shown after correction for their number.
    """
    here = [one for one in compared if one.column in table.columns]
    corrected = Counter((one.row, one.other) for one in here if one.is_shown and not one.is_primary)
    primary = {(one.row, one.other) for one in here if one.is_primary and one.is_shown}
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
        text = f"{table.brief(*pair)}, {pairs} {'pair' if pairs == 1 else 'pairs'}: "
        if pairs < FEWEST:
            text += too_few
            few += 1
        elif shown:
            text += f"{len(shown)} of {len(tested)} intervals exclude zero: {'; '.join(shown)}."
            besides = " besides the primary one" if pair in primary else ""
            after = f" Shown after Holm's correction: {corrected[pair] or 'none'}{besides}."
            text += after if compared else ""
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
    return f"p {_p_value(one.p)}" if one.p < 0.001 else f"p = {_p_value(one.p)}"


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
    return f"{_interval(one, decimals)} (n={one.n}, {p_text(one)}, detectable {found})"


def flattery_text(cell: Cell, decimals: int = 1) -> str:
    """By how much the best epoch is above the last."""
    if not cell.n:
        return NOT_MEASURED
    deviation = "" if cell.deviation is None else f" ± {cell.deviation:.{decimals}f}"
    return f"{cell.mean:+.{decimals}f}{deviation}"


def short_table(
    table: Table,
    cell: Callable[[Cell, int], str] = cell_text,
    difference: Callable[[Difference | None, int], str] = difference_text,
) -> tuple[list[str], list[list[str]], list[list[str]]]:
    """Titles, [row, cell, ...] and [comparison, difference, ...] of the main metrics.

    Behind a column of the best epoch stands what it flatters, which is compared with nothing: it is
    no third score beside the two.
    """
    titles = list[str]()
    rows = [[table.name(row)] for row in table.rows]
    pairs = [[table.label(*pair)] for pair in table.comparisons]
    for column in (column for column in table.columns if column.metric.main):
        decimals = column.metric.decimals
        titles.append(column.head)
        for row, cells in zip(table.rows, rows, strict=True):
            cells.append(cell(table.cells[row, column], decimals))
        for pair, cells in zip(table.comparisons, pairs, strict=True):
            cells.append(difference(table.differences.get((*pair, column)), decimals))
        if table.last_of(column):
            titles.append(f"best - last [{column.number}]")
            for row, cells in zip(table.rows, rows, strict=True):
                cells.append(flattery_text(table.flattery(row, column), decimals))
            for cells in pairs:
                cells.append("")
    return titles, rows, pairs


COMPARISONS = (
    "comparison", "metric", "difference", "95 % interval", "n", "p", "p, Holm", "interval, Holm",
    "detectable", f"pairs for {PAPERS_GAIN:g}",
)  # fmt: skip
"""Titles of the table of all comparisons."""


def comparison_rows(found: Sequence[Comparison]) -> list[list[str]]:
    """A line of that table for each."""
    return [
        [
            f"{one.label} (primary)" if one.is_primary else one.label,
            f"{one.column.setting.task} {one.column.head}",
            *comparison_cells(one),
        ]
        for one in found
    ]


def comparison_cells(one: Comparison) -> list[str]:
    """What stands under COMPARISONS behind the two names."""
    between, decimals = one.difference, one.column.metric.decimals

    def interval(half: float | None) -> str:
        if half is None:
            return "-"
        low, high = between.mean - half, between.mean + half
        return f"{low:+.{decimals}f} to {high:+.{decimals}f}"

    found, few = between.detectable, one.pairs_needed
    needed = f"{few:,}" if few else f"> {MOST:,}"
    needed = "-" if between.p is None and one.has_test else needed
    return [
        f"{between.mean:+.{decimals}f}",
        interval(between.half_width),
        str(between.n),
        p_text(between).removeprefix("p = ").removeprefix("p "),
        "-" if one.corrected_p is None else _p_value(one.corrected_p),
        interval(one.corrected_half_width),
        "-" if found is None else f"{found:.{decimals}f}",
        "-" if found is None else needed,
    ]


def comparison_rules(found: Sequence[Comparison]) -> str:
    """What the table of all comparisons says, and what of it is shown after correction."""
    tests = [one for one in found if one.corrected_p is not None]
    shown = sum(one.is_shown for one in tests)
    few = sum(not one.has_test for one in found)
    beside = " beside the primary one" if any(one.is_primary for one in found) else ""
    return (
        f"p, Holm: corrected for the {len(tests)} tests of this table{beside}, those of the last "
        f"and the best epoch both counted; {shown} of {len(tests)} {'is' if shown == 1 else 'are'} "
        f"at most {ALPHA:g}, and where it is above, the interval beside it holds zero. Detectable: "
        "the smallest true difference that so many pairs find four times out of five, without "
        f"correction. Pairs for {PAPERS_GAIN:g}: how many find the paper's gain in AP four times "
        "out of five, if the true deviation is the one seen."
        + (f" {few} more have fewer than {FEWEST} pairs, and no test." if few else "")
    )


def primary_text(found: Sequence[Comparison]) -> list[str]:
    """A sentence on the primary comparison, where one was named beforehand."""
    return [
        f"Primary comparison, named beforehand: {one.label}, {one.column.setting.task} "
        f"{one.column.title}: "
        f"{difference_text(one.difference, one.column.metric.decimals)}"
        f"{'' if one.difference.n > 1 else ' (one pair: no test)'}."
        for one in found
        if one.is_primary
    ]


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def unfinished_lines(run_set: RunSet) -> list[str]:
    """One line for each job of a grid that has no result."""
    return [
        f"{job.state}: {job.task} from {job.backbone['name']}, pretraining seed "
        f"{seed_text(job.backbone['seed'])}, seed {job.seed} ({job.folder}): "
        f"{job.why or 'not run yet'}"
        for job in sorted(run_set.unfinished, key=lambda job: (task.position(job.task), job.folder))
    ]
