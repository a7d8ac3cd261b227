"""Curves for TensorBoard, beside the log; what a resumed run does again is cut away."""

from typing import Any

from torch import Tensor

from pretrain.errors import UsageError
from pretrain.run import Run

_EVERY = 50


class Curves:
    """Writes RUN/tensorboard where it is wanted, and nothing otherwise. Axis: steps done."""

    def __init__(self, run: Run, wanted: bool, done: int) -> None:
        """Begin after `done` steps.

        Raises:
            UsageError: the package tensorboard is missing.
        """
        self._writer: Any = None
        if wanted:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UsageError(
                    "tensorboard is true, but the package is missing: pip install tensorboard, or "
                    "leave it off; log.jsonl has the same figures."
                ) from error
            self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=done + 1)

    def step(self, done: int, lr: float, means: Tensor) -> None:
        """Loss and learning rate, every fifty steps: reading the loss waits for the device."""
        if self._writer is not None and done % _EVERY == 1:
            self._writer.add_scalar("step/loss", float(means[0]), done)
            self._writer.add_scalar("step/lr", lr, done)

    def epoch(self, done: int, record: dict[str, Any]) -> None:
        """Every figure of the log."""
        if self._writer is not None:
            for name, value in record.items():
                self._writer.add_scalar(f"epoch/{name}", value, done)
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
