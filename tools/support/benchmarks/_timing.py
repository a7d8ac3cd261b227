"""Sides that take turns, and what they ran on."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from tools.support.command import ROOT


def take_turns(
    sides: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Seconds of each side's best round; the sides run one after another in every round.

    Args:
        sides: what to time, by name; each runs once before the clock counts.
        rounds: how often.
        clock: perf_counter for the time that passes, process_time for that of all own threads.
    """
    for side in sides.values():
        side()
    best = dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, side in sides.items():
            started = clock()
            side()
            best[name] = min(best[name], clock() - started)
    return best


def peak_memory_mib(code: str, device: str, *arguments: str) -> float:
    """Peak memory in MiB of a Python process that runs `code` with `arguments`.

    Of the allocator on CUDA, otherwise the largest resident size.
    """
    report = (
        "import torch; from pretrain.run import peak_memory_mib\n"
        f"print(peak_memory_mib(torch.device({device!r})))"
    )
    return float(in_new_process("-c", f"{code}\n{report}", *arguments).split()[-1])


def in_new_process(*arguments: str) -> str:
    """What Python with these arguments prints; this project can be imported there.

    Raises:
        UsageError: it failed; the message ends with its standard error.
    """
    command, environment = [sys.executable, *arguments], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UsageError(f"a process failed ({done.returncode}):\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def check_checkout(flag: str, folder: Path) -> None:
    """Raise UsageError where the folder that an option names is no checkout of this project."""
    if not (folder / "tools" / "transfer.py").is_file():
        raise UsageError(f"{flag} {folder} is no checkout of this project.")


def wait(device: str) -> None:
    """For what a GPU has been given."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def heading(subject: str, argv: Sequence[str], threads: int = 1) -> str:
    """One line: how a benchmark was called, and `hardware`."""
    return f"`{' '.join(['python tools/bench.py', subject, *argv])}`: {hardware(threads)}"


def make_available(make: Callable[[str], Any], names: Iterable[str]) -> dict[str, Any]:
    """The sides whose library is installed, by name; the others are printed as left out."""
    sides = {}
    for name in names:
        try:
            sides[name] = make(name)
        except ImportError as error:
            print(f"left out: {name} ({error})")
    return sides


def hardware(threads: int) -> str:
    """One line: when, on what, with which versions."""
    import torch

    from pretrain.run import environment

    facts = environment(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    versions = {name: version.split("+")[0] for name, version in facts["versions"].items()}
    libraries = ", ".join(f"{name} {versions[name]}" for name in ("torch", "torchvision", "timm"))
    machine = f"{facts['device']}, {threads} thread(s), Python {versions['python']}"
    return f"{date.today()}, {machine}, {libraries}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others figures."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
