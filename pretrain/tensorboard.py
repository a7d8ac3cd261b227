"""Curves for TensorBoard, beside log.jsonl; what a resumed run does again is cut away."""

import io
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pretrain.errors import UsageError
from pretrain.files import append
from pretrain.run import Run

_EVERY = 50


class TensorBoardLog:
    """Writes RUN/tensorboard if `enabled`, and nothing otherwise. Axis: steps done.

    TensorBoard's own writer does so in a thread, where a full disk is a traceback.
    """

    def __init__(self, run: Run, enabled: bool, steps_done: int) -> None:
        """Continue after `steps_done` steps.

        Raises:
            UsageError: the package tensorboard is missing.
        """
        self._enabled = enabled
        if enabled:
            try:
                from tensorboard.compat.proto.event_pb2 import SessionLog
            except ImportError as error:
                raise UsageError(
                    "tensorboard is true, but the package is missing: pip install tensorboard, or "
                    "leave it off; log.jsonl has the same figures."
                ) from error
            name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
            self._file = run.folder / "tensorboard" / name
            self._write(file_version="brain.Event:2")
            # what an earlier process wrote for later steps counts no more
            self._write(step=steps_done + 1, session_log=SessionLog(status=SessionLog.START))

    def log_step(self, steps_done: int, lr: float, means: Tensor) -> None:
        """Loss and learning rate, every fifty steps: reading the loss waits for the device."""
        if self._enabled and steps_done % _EVERY == 1:
            self._log(steps_done, {"step/loss": float(means[0]), "step/lr": lr})

    def log_epoch(self, steps_done: int, record: dict[str, Any]) -> None:
        """Every figure of the log."""
        if self._enabled:
            self._log(steps_done, {f"epoch/{name}": value for name, value in record.items()})

    def _log(self, step: int, values: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._write(step=step, summary=Summary(value=points))

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        record = io.BytesIO()
        RecordWriter(record).write(Event(wall_time=time.time(), **content).SerializeToString())
        append(self._file, record.getvalue())
