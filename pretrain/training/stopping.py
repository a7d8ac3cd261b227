"""Stop signals that wait for the end of a step, agreed on by all processes."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed


class StopSignal:
    """Within the block SIGINT and SIGTERM are only noted.

    A second SIGINT interrupts a single process at once.
    """

    def __init__(self, fabric: Fabric) -> None:
        self.number: int | None = None
        self._fabric = fabric
        # a group of its own, on the host: the device need not be waited for
        alone = fabric.world_size == 1
        self._group = None if alone else distributed.new_group(backend="gloo")
        self._previous: dict[int, Any] = {}
        self._pending: list[tuple[Any, Tensor]] = []

    def agreed(self, wait: bool = False) -> int | None:
        """The signal to obey after this step, the same in every process; called after each step.

        A signal reaches the processes of a run at different steps, and a process that stops alone
        leaves the others waiting. So each step's answer is gathered from all of them, and read one
        step later: by then it is there. With `wait` it is read at once: for places where waiting
        for each other costs nothing.
        """
        if self._group is None:
            return self.number
        flag = torch.tensor(self.number or 0)
        work = distributed.all_reduce(
            flag, distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._pending.append((work, flag))
        numbers = []
        while len(self._pending) > (0 if wait else 1):
            work, flag = self._pending.pop(0)
            work.wait()
            numbers.append(int(flag))
        return next(filter(None, numbers), None)

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        # where one process fails, torchrun asks the others to stop: they have yet to say why
        if kind is not None and self._group is not None and signal.SIGTERM in self._previous:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT and self._fabric.world_size == 1:
            raise KeyboardInterrupt
        first, self.number = self.number is None, number
        if first and self._fabric.is_global_zero:
            print("stopping after this step ...", file=sys.stderr, flush=True)
