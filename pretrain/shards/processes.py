"""Work on shards in several processes, which end with the first one, however that ends."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context, parent_process
from threading import Thread
from typing import Any, TypeVar

import torch

from pretrain.errors import UsageError

T = TypeVar("T")
_function: Callable[[int], Any]


def in_processes(
    function: Callable[[int], T], numbers: Sequence[int], workers: int
) -> Iterator[tuple[int, T]]:
    """(number, function(number)) as they come; the first error ends it.

    Args:
        function: handed to each process once; what it holds is not copied where processes fork.
        numbers: to call it with.
        workers: processes; 1 calls it in this one.

    Raises:
        UsageError: a process was killed.
    """
    if workers < 2 or len(numbers) < 2:
        yield from ((number, function(number)) for number in numbers)
        return
    method = "fork" if "fork" in get_all_start_methods() else "spawn"
    count, context = min(workers, len(numbers)), get_context(method)
    with ProcessPoolExecutor(count, context, _start, (function,)) as pool:
        futures = {pool.submit(_call, number): number for number in numbers}
        try:
            for future in as_completed(futures):
                yield futures.pop(future), future.result()
        except BrokenProcessPool as error:
            raise UsageError(
                "a process was killed; the machine may be out of memory. Give fewer --workers; the "
                "same command goes on behind the shards that are done."
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _start(function: Callable[[int], Any]) -> None:
    global _function
    _function = function
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends the others
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes wait for work for ever where the first was killed, and hold its lock."""
    if (parent := parent_process()) is not None:
        parent.join()
    os._exit(1)


def _call(number: int) -> Any:
    return _function(number)
