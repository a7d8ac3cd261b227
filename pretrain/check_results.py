"""What a check of a data set on disk gives: complete, or what is wrong with it."""

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
    """The task cannot run, or not on all of the data set."""
    return CheckResult("wrong", text)


def note(text: str) -> CheckResult:
    """Worth knowing."""
    return CheckResult("note", text)


def counted(count: int, expected: int, what: str) -> CheckResult:
    """`count` of something that should be `expected`."""
    text = f"{count:,} {what}"
    return ok(text) if count == expected else wrong(f"{text}, {expected:,} expected")


def decoded(paths: Sequence[Path | str], sample: int, where: str) -> CheckResult:
    """Whether a sample of the images can be read, the same sample each time."""
    chosen = sorted(random.Random(0).sample(range(len(paths)), min(sample, len(paths))))
    errors = []
    for index in chosen:
        try:
            decode(Path(paths[index]))
        except UsageError as error:
            errors.append(str(error))
    if not errors:
        return ok(f"{len(chosen):,} images of {where} decoded")
    more = f" and {len(errors) - 3} more" if len(errors) > 3 else ""
    lines = "\n        ".join(["", *errors[:3]])
    return wrong(f"{len(errors)} of {len(chosen):,} images of {where} are broken{more}:{lines}")
