"""Every comparison of a report in one list, corrected for how many there are.

One may be named as the question that was fixed before anything was measured (--primary): it stands
first, is not corrected, and the others are corrected without it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

from pretrain.errors import UsageError
from transfer.report.table import Column, Row, Table
from transfer.statistics import ALPHA, FEWEST, Difference, holm, holm_levels, pairs_needed

_LISTED = 40  # so many comparisons an error lists


@dataclass(frozen=True)
class Comparison:
    """A difference beside the others of its report."""

    table: Table
    """Which has its rows and columns: of the tasks, or of a suite."""
    row: Row
    other: Row
    """What is subtracted."""
    column: Column
    difference: Difference
    is_primary: bool = False
    """Named beforehand: not corrected."""
    corrected_p: float | None = None
    """After Holm, over all comparisons of the list that have a test and are not primary."""
    corrected_half_width: float | None = None
    """Of the interval that agrees with `corrected_p`."""

    @property
    def methods(self) -> str:
        """The two that are compared."""
        return f"{self.row.method} - {self.other.method}"

    @property
    def detail(self) -> str:
        """What tells it from others of the same methods."""
        return self.table.brief_detail(self.row, self.other)

    @property
    def label(self) -> str:
        """Methods and detail."""
        return self.table.brief(self.row, self.other)

    @property
    def head(self) -> str:
        """What --primary calls it: methods and metric."""
        return f"{self.methods}: {self.column.metric.key}"

    @property
    def words(self) -> tuple[str, ...]:
        """What --primary may add to the head, what people know first."""
        setting, data = self.column.setting, self.column.setting.data.split(" (")[0]
        words = self.row.recipe, setting.task, setting.recipe, data, setting.engine
        more = setting.network, self.row.arch, self.row.recipe_hash or "", setting.digest
        return *(word or "" for word in words), *more

    @property
    def pairs_needed(self) -> int | None:
        """To find the paper's gain; None for a single pair, and where nobody has so many."""
        deviation = self.difference.deviation
        return None if deviation is None else pairs_needed(deviation)

    @property
    def is_shown(self) -> bool:
        """After correction, unless it was named beforehand."""
        p = self.difference.p if self.is_primary else self.corrected_p
        return p is not None and p <= ALPHA

    @property
    def has_test(self) -> bool:
        """Whether there were pairs enough."""
        return self.difference.n >= FEWEST


def compare_all(table: Table, primary: str = "") -> list[Comparison]:
    """The primary one, if one is named, and all others in the order of the tables.

    Args:
        table: of tasks, with those of the suites.
        primary: METHOD - METHOD: METRIC, and where several fit, after commas, words that choose.

    Raises:
        UsageError: `primary` is none of them, or several.
    """
    found = [
        Comparison(part, row, other, column, difference)
        for part in table.tables
        for (row, other, column), difference in part.differences.items()
        if column.metric.main
    ]
    if not primary:
        return correct(found)
    chosen = _find(found, primary)
    others = correct(one for one in found if one is not chosen)
    return [replace(chosen, is_primary=True), *others]


def correct(found: Iterable[Comparison]) -> list[Comparison]:
    """The same, corrected for their number."""
    found = list(found)
    p_values = [one.difference.p for one in found]
    return [
        replace(
            one,
            corrected_p=p,
            corrected_half_width=None if level is None else one.difference.half_width_at(level),
        )
        for one, p, level in zip(found, holm(p_values), holm_levels(p_values), strict=True)
    ]


def _find(found: Sequence[Comparison], primary: str) -> Comparison:
    fitting = [one for one in found if _fits(one, primary)]
    if len(fitting) == 1:
        return fitting[0]
    head, *words = primary.split(", ")
    of_head = [one for one in found if one.head == head]
    lost = [word for word in words if not any(word and word in one.words for one in of_head)]
    near = get_close_matches(head, [one.head for one in found], 1, 0.5)
    if fitting:
        said = f"fits {len(fitting)} comparisons; name one of"
    elif of_head and lost:
        said = f"is none: {lost[0]!r} is no word of {head}; there are"
    else:
        nearest = f", such as {near[0]!r}" if near else ""
        said = f"is none; it must be METHOD - METHOD: METRIC, WORD, ...{nearest}. There are"
    # what is nearest first
    listed = fitting or sorted(found, key=lambda one: one.head not in (head, *near))
    names = [_name(one, found) for one in listed[:_LISTED]]
    more = [f"and {len(listed) - _LISTED} more"] if len(listed) > _LISTED else []
    lines = [f"\n  {name}" for name in [*names, *more] or ["none"]]
    raise UsageError(f"--primary {primary!r} {said}{''.join(lines)}")


def _fits(one: Comparison, primary: str) -> bool:
    rest = primary.removeprefix(one.head)
    if rest == primary or not (rest == "" or rest.startswith(", ")):
        return False
    return all(word and word in one.words for word in rest.split(", ")[1:])


def _name(one: Comparison, found: Iterable[Comparison]) -> str:
    """Its head and the words that tell it from the others."""
    name, rivals = one.head, [other for other in found if other.head == one.head]
    for word in one.words:
        fewer = [other for other in rivals if word in other.words]
        if word and ", " not in word and len(fewer) < len(rivals):
            name, rivals = f"{name}, {word}", fewer
    return name
