"""Curves for TensorBoard, beside log.jsonl; what a resumed run does again is cut away."""

from typing import Any

from torch import Tensor

from pretrain.errors import UsageError
from pretrain.run import Run

_EVERY = 50


class TensorBoardLog:
    """Writes RUN/tensorboard if `enabled`, and nothing otherwise. Axis: steps done."""

    def __init__(self, run: Run, enabled: bool, steps_done: int) -> None:
        """Continue after `steps_done` steps.

        Raises:
            UsageError: the package tensorboard is missing.
        """
        self._writer: Any = None
        if enabled:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UsageError(
                    "tensorboard is true, but the package is missing: pip install tensorboard, or "
                    "leave it off; log.jsonl has the same figures."
                ) from error
            folder = str(run.folder / "tensorboard")
            self._writer = SummaryWriter(folder, purge_step=steps_done + 1)

    def log_step(self, steps_done: int, lr: float, means: Tensor) -> None:
        """Loss and learning rate, every fifty steps: reading the loss waits for the device."""
        if self._writer is not None and steps_done % _EVERY == 1:
            self._writer.add_scalar("step/loss", float(means[0]), steps_done)
            self._writer.add_scalar("step/lr", lr, steps_done)

    def log_epoch(self, steps_done: int, record: dict[str, Any]) -> None:
        """Every figure of the log."""
        if self._writer is not None:
            for name, value in record.items():
                self._writer.add_scalar(f"epoch/{name}", value, steps_done)
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
