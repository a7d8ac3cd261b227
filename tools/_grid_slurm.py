"""The cells of a grid as jobs of a cluster, through submitit."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UsageError
from transfer.grid import Cell, command


class Cluster:
    """Every cell is submitted at once; the cluster decides when it runs."""

    def __init__(self, words: Sequence[str], out: Path, tools: Path, slots: int) -> None:
        """Prepare the executor.

        Args:
            words: `key=value` as submitit's AutoExecutor takes them (timeout_min=240,
                gpus_per_node=1, slurm_partition=gpu), and cluster=slurm|local.
            out: the grid's folder, on a file system that the nodes share.
            tools: folder of the tools.
            slots: jobs at once: the number of cells.

        Raises:
            UsageError: submitit is missing, or does not take these parameters.
        """
        try:
            import submitit
        except ImportError as error:
            raise UsageError(
                "--slurm needs submitit: pip install 'cutmix-transfer[slurm]', or pip install "
                "submitit. Without it --print gives one shell command a line for any scheduler."
            ) from error
        self.out, self.tools, self.slots = out, tools, max(1, slots)
        self._function = submitit.helpers.CommandFunction
        parameters = dict(_parameter(word) for word in words)
        cluster = parameters.pop("cluster", "slurm")
        try:
            self._executor: Any = submitit.AutoExecutor(out / "logs" / "submitit", cluster=cluster)
            self._executor.update_parameters(**{"name": "transfer", **parameters})
        except Exception as error:  # submitit's own checks: assert, RuntimeError, NameError ...
            raise UsageError(f"--slurm: submitit says: {str(error).strip()}") from error

    def start(self, cell: Cell, slot: int) -> "Submitted":
        """See `Launcher`."""
        log = self.out / cell.log
        log.parent.mkdir(parents=True, exist_ok=True)
        words = shlex.join(command(cell, self.out, sys.executable, self.tools))
        line = f"exec {words} >> {shlex.quote(str(log))} 2>&1"
        function = self._function(["sh", "-c", line], verbose=False, cwd=Path.cwd())
        return Submitted(self._executor.submit(function))


class Submitted:
    """A job of the cluster."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._cancelled = False

    def code(self) -> int | None:
        """See `Job`."""
        if self._cancelled:
            return 1
        if not self._job.done():
            return None
        return 0 if self._job.exception() is None else 1

    def stop(self, hard: bool = False) -> None:
        """Cancel it: the run goes on from its last checkpoint when it is called again."""
        if not self._cancelled:
            self._job.cancel(check=False)
            self._cancelled = True


def _parameter(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key.isidentifier():
        raise UsageError(f"--slurm has {word!r}; it must be KEY=VALUE, such as timeout_min=240.")
    return key, yaml.safe_load(value)
