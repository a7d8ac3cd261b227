"""Stop signals that wait for the end of a step, agreed on by all processes."""

import signal
import sys
import threading
from types import FrameType
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, distributed


class StopSignal:
    """Within the block SIGINT and SIGTERM are only noted; a second SIGINT interrupts at once."""

    def __init__(self, fabric: Fabric) -> None:
        self.number: int | None = None
        self._fabric = fabric
        self._previous: dict[int, Any] = {}
        self._pending: list[tuple[Any, Tensor]] = []

    def agreed(self) -> int | None:
        """The signal to obey after this step, the same in every process; called after each step.

        A signal reaches the processes of a run at different steps, and a process that stops alone
        leaves the others waiting. So each step's answer is gathered from all of them, and read one
        step later: by then it is there, and the device has not been waited for.
        """
        if self._fabric.world_size == 1:
            return self.number
        flag = torch.tensor(self.number or 0, device=self._fabric.device)
        work = distributed.all_reduce(flag, distributed.ReduceOp.MAX, async_op=True)
        self._pending.append((work, flag))
        if len(self._pending) < 2:
            return None
        work, flag = self._pending.pop(0)
        work.wait()
        return int(flag) or None

    def __enter__(self) -> "StopSignal":
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT and self._fabric.world_size == 1:
            raise KeyboardInterrupt
        first, self.number = self.number is None, number
        if first and self._fabric.is_global_zero:
            print("stopping after this step ...", file=sys.stderr, flush=True)
