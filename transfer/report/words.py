"""What every page says in the same words: cells, differences, and the rules of n."""

from transfer.report.metrics import METRICS
from transfer.report.results import Unfinished
from transfer.report.table import Cell, Table
from transfer.statistics import FEWEST, Difference, smallest_sign_flip_p

NOT_MEASURED = "not measured"
NO_PAIR = "no pair"

RULES = (
    "A cell is the mean over n pretraining seeds; several fine-tunings of one backbone are "
    "averaged first and count once. With n > 1 the standard deviation stands behind it. A "
    "difference is the mean over pairs of the same seed, with half of its 95 % interval (paired "
    "t); behind it the p-value of the paired t test, and the smallest true difference that n pairs "
    "with this spread would have found four times out of five. A cell without n is one "
    "pretraining: its differences are no evidence. The p-values are not corrected for the number "
    "of comparisons."
)


def too_few(n: int) -> str:
    """Why there is no test."""
    return (
        f"too few pairs for a test: an exact sign-flip test of {n} cannot fall below "
        f"p = {smallest_sign_flip_p(n):g}"
    )


def rules(table: Table) -> str:
    """The rules, and the reason for missing tests where there are some."""
    few = {
        found.n
        for row, other in table.comparisons
        for column in table.columns
        if (found := table.difference(row, other, column)) and 1 < found.n < FEWEST
    }
    return RULES + (f" n = {max(few)} is {too_few(max(few))}." if few else "")


def p_text(found: Difference) -> str:
    """The p-value, or why there is none."""
    if found.n < FEWEST:
        return "too few"
    if found.p is None:
        return "no spread"
    return "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"


def cell_text(cell: Cell) -> str:
    """Mean, deviation where there is one, n where it is above one, and what is missing."""
    lost = lost_text(cell.unfinished)
    if not cell.n:
        return lost or NOT_MEASURED
    if cell.deviation is None:
        text = f"{cell.mean:.1f}"
    else:
        text = f"{cell.mean:.1f} ± {cell.deviation:.1f} (n={cell.n})"
    return f"{text}; {lost}" if lost else text


def lost_text(cells: tuple[Unfinished, ...]) -> str:
    """`1 failed, 2 missing`; without the number where there is one cell of one kind."""
    counts = {state: sum(cell.state == state for cell in cells) for state in ("failed", "missing")}
    if sum(counts.values()) == 1:
        return next(state for state, count in counts.items() if count)
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)


def difference_text(found: Difference | None) -> str:
    """Mean, interval, n, test and the smallest difference that could be found."""
    if found is None:
        return NO_PAIR
    if found.half_width is None or found.detectable is None:
        return f"{found.mean:+.1f}"
    return (
        f"{found.mean:+.1f} ± {found.half_width:.1f} (n={found.n}, {p_text(found)}, could find "
        f"{found.detectable:.1f})"
    )


def unfinished_lines(cells: tuple[Unfinished, ...]) -> list[str]:
    """One line for each cell of a grid that has no result."""
    return [
        f"{cell.state}: {cell.task} from {cell.backbone['name']}, pretraining seed "
        f"{cell.backbone['seed']}, seed {cell.seed} ({cell.folder}): {cell.why or 'not run yet'}"
        for cell in sorted(cells, key=lambda cell: (list(METRICS).index(cell.task), cell.folder))
    ]
