"""One thing wrong in a file, drawn from a seed: a value, the text, or what lies in its place.

A sample is tried; with --full all are, and $MUTATION_SEED draws others.
"""

import json
import math
import os
import random
import signal
from collections.abc import Callable
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import yaml

SAMPLE = 16  # one in so many
SECONDS = 20.0  # of one call; a second or less on a free machine
_SEED = os.environ.get("MUTATION_SEED", "0")

ODD: tuple[Any, ...] = (
    None, True, 0, -1, 1.5, 10**400, -(10**30), 1e300, 5e-324, math.nan, math.inf, "", " ", "x",
    "\n", "x\ny", "\x1b[31m\x00", "=1+1", "../../x", "é" * 3000, "\ud800", "http://[",
    "https://x:99999/y", "ftp://x/y", [], ["x"], [1, [2]], {}, {"a": {"b": None}},
)  # fmt: skip


def draws(kind: str, cases: int, full: bool) -> list[random.Random]:
    """A source of draws for each of so many cases, or of a sample of them."""
    count = cases if full else -(-cases // SAMPLE)
    return [random.Random(f"{_SEED} {kind} {case}") for case in range(count)]


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside a value."""
    is_list = isinstance(value, list)
    keys = range(len(value)) if is_list else value if isinstance(value, dict) else ()
    return [(value, key) for key in keys] + [one for key in keys for one in places(value[key])]


def mutate_value(value: Any, draw: random.Random) -> Any:
    """One value inside is another, is missing, is nested deeply or stands under another key."""
    value = deepcopy(value)
    container, key = draw.choice(places(value))
    match draw.randrange(6):
        case 0 | 1 | 2:
            container[key] = draw.choice(ODD)
        case 3:
            del container[key]
        case 4:
            for _ in range(draw.choice([3, 60, 350, 900])):
                container[key] = [container[key]] if draw.random() < 0.5 else {"a": container[key]}
        case 5:
            other, name = draw.choice(places(value))
            container[key] = deepcopy(other[name])
    return value


def mutate_text(data: bytes, draw: random.Random) -> bytes:
    """Torn, twice, in another encoding, without a byte or with more of them."""
    place = draw.randrange(len(data))
    marks = (b'"', b"{", b"]", b",", b": ", b"&a *a ", b"!!x ", b"\xff\xfe", b"\x00", b"\n")
    return draw.choice(
        [
            b"",
            b"\x00" * 100,
            data[:place],
            data[place:],
            data[:place] + data[place + 1 :],
            data[:place] + bytes([draw.randrange(256)]) + data[place:],
            data[:place] + draw.choice(marks) + data[place:],
            data[:place] + b"9" * draw.choice([400, 5000]) + data[place:],
            data + data,
            data.decode("utf-8", "replace").encode("utf-16"),
            b"\xef\xbb\xbf" + data,
            data.replace(b"\n", b"\r\n"),
            b"[" * 3_000,
            b'{"a":' * 3_000,
        ]
    )


def mutate(content: Any, write: Callable[[Any], str], draw: random.Random) -> bytes:
    """A file whose content, or whose text, is mutated."""
    if draw.random() < 0.6:
        content = mutate_value(content, draw)
        return write(content).encode("utf-8", "surrogatepass")
    return mutate_text(write(content).encode(), draw)


def as_yaml(content: Any) -> str:
    try:
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    except RecursionError:
        return json.dumps(content)


def put(path: Path, data: bytes, draw: random.Random | None = None) -> bool:
    """Write a file; with `draw`, what is no file may stand there, which is returned."""
    path.parent.mkdir(parents=True, exist_ok=True)
    match draw.randrange(40) if draw else None:
        case 0:
            os.mkfifo(path)
        case 1:
            path.mkdir()
        case 2:
            path.symlink_to(path)
        case 3:
            path.symlink_to("nowhere")
        case 4:
            path.symlink_to("/dev/zero")
        case _:
            path.write_bytes(data)
            return False
    return True


@contextmanager
def time_limit():
    """A hang is an error."""

    def stop(*_):
        raise TimeoutError

    old = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
