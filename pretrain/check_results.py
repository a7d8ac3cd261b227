"""What a look at a data set on disk has found: whole, or what is wrong with it, in words."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pretrain.errors import UsageError
from pretrain.images import decode


@dataclass(frozen=True)
class CheckResult:
    """One line of a report."""

    state: Literal["ok", "wrong", "note"]
    text: str


def ok(text: str) -> CheckResult:
    """As it should be."""
    return CheckResult("ok", text)


def wrong(text: str) -> CheckResult:
    """The task cannot run, or not on the whole data set."""
    return CheckResult("wrong", text)


def note(text: str) -> CheckResult:
    """Worth knowing."""
    return CheckResult("note", text)


def counted(found: int, expected: int, what: str) -> CheckResult:
    """`found` of something that should be `expected`."""
    if found == expected:
        return ok(f"{found:,} {what}")
    return wrong(f"{found:,} {what}, {expected:,} expected")


def decoded(paths: Sequence[Path | str], sample: int, where: str) -> CheckResult:
    """Whether a sample of the images can be read, the same sample each time."""
    chosen = sorted(random.Random(0).sample(range(len(paths)), min(sample, len(paths))))
    broken = []
    for place in chosen:
        try:
            decode(Path(paths[place]))
        except UsageError as error:
            broken.append(str(error))
    if not broken:
        return ok(f"{len(chosen):,} images of {where} decoded")
    more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
    listed = "".join(f"\n        {line}" for line in broken[:3])
    return wrong(f"{len(broken)} of {len(chosen):,} images of {where} are broken{more}:{listed}")
