"""The ways a run ends early: an input that cannot be used, a loss that is no number, and a stop."""

from collections.abc import Sequence

LARGEST = 2**32 - 1
"""No number of a configuration is above it."""


class UsageError(ValueError):
    """Something the user gave cannot be used: the tools print it and exit with code 2.

    The message says what was wrong, the value got, what is allowed, and what to do.
    """


class Diverged(UsageError):
    """The loss is no number: what was given can be read, but not trained with."""


def shorten(names: Sequence[str], most: int = 5) -> str:
    """The first names for a message: `a, b, c and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def first_line(error: Exception) -> str:
    """What an error says first; its class where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(text: str, most: int | None = None) -> str:
    """One line that a terminal, a table and a spreadsheet can show: no control characters.

    Args:
        text: any.
        most: letters that are left of it.
    """
    if not text.isprintable():
        text = " ".join(text.encode("utf-8", "backslashreplace").decode("utf-8").splitlines())
        text = "".join(
            letter if letter.isprintable() else " " if letter.isspace() else repr(letter)[1:-1]
            for letter in text
        )
    return text if most is None or len(text) <= most else text[: most - 3] + "..."


def check_ranges(section: str, config: object, **allowed: str) -> None:
    """Raise UsageError for the first field of a configuration that lies outside its range.

    Args:
        section: of the options, such as optimizer; empty at the top; -- for options of a tool.
        config: with the fields; one that is None is not checked.
        allowed: field -> ">= 1", "> 0", or an interval such as "[0, 1)"; nothing above LARGEST.
    """
    for name, text in allowed.items():
        value = getattr(config, name)
        if value is None or _lies_in(value, text):
            continue
        option = f"--{name.replace('_', '-')}" if section == "--" else f"{section}.{name}"
        must = "lie in " if text[0] in "[(" else "be "
        words = text.replace(">= ", "at least ").replace("> ", "above ")
        words += f" and at most {LARGEST:,}" if value > LARGEST and must == "be " else ""
        raise UsageError(f"{option.lstrip('.')} is {value!s:.40}; it must {must}{words}")


def _lies_in(value: float, text: str) -> bool:
    """Whether a number lies in a range as `check_ranges` writes it; nan never does."""
    if text[0] in "[(":
        low, high = map(float, text[1:-1].split(","))
        return (low < value or (text[0] == "[" and low == value)) and (
            value < high or (text[-1] == "]" and value == high)
        )
    sign, bound = text.split()
    return (value >= float(bound) if sign == ">=" else value > float(bound)) and value <= LARGEST


class Stopped(Exception):
    """A stop signal was obeyed at a step boundary; the run in `folder` can be resumed.

    `signal_number` is 0 where the stop had been planned.
    """

    def __init__(self, folder: str, done: str, signal_number: int) -> None:
        super().__init__(f"stopped after {done}")
        self.folder = folder
        self.done = done
        self.signal_number = signal_number
