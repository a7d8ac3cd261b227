"""The two ways a run ends early: an input that cannot be used, and a stop; and their messages."""

from collections.abc import Sequence


class UsageError(ValueError):
    """Something the user gave cannot be used: the tools print it and exit with code 2.

    The message says what was wrong, the value got, what is allowed, and what to do.
    """


def shorten(names: Sequence[str], most: int = 5) -> str:
    """The first names for a message: `a, b, c and 7 more`."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def at_least(section: str, config: object, **least: float) -> None:
    """Raise UsageError for the first field of a configuration that lies below its bound.

    Args:
        section: of the options, such as optimizer; empty at the top; -- for options of a tool.
        config: with the fields.
        least: field -> the smallest value allowed.
    """
    for name, smallest in least.items():
        value = getattr(config, name)
        if not value >= smallest:  # nan too
            option = f"--{name.replace('_', '-')}" if section == "--" else f"{section}.{name}"
            raise UsageError(f"{option.lstrip('.')} is {value}; it must be at least {smallest}")


class Stopped(Exception):
    """A stop signal was obeyed at a step boundary; the run in `folder` can be resumed.

    `signal_number` is 0 where the stop had been planned.
    """

    def __init__(self, folder: str, done: str, signal_number: int) -> None:
        super().__init__(f"stopped after {done}")
        self.folder = folder
        self.done = done
        self.signal_number = signal_number
