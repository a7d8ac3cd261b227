"""The jobs of a grid on a cluster, through submitit."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from pretrain.errors import UsageError
from tools.support.grid_run import Launch


class SlurmProcess:
    """A job of the cluster; see `tools.support.grid_run.Launch`."""

    def __init__(self, job: Any) -> None:
        self._job = job
        self._cancelled = False

    def poll(self) -> int | None:
        """None while it waits or runs, 0 or 1 at its end."""
        if self._cancelled:
            return 1
        return int(self._job.exception() is not None) if self._job.done() else None

    def stop(self, hard: bool) -> None:
        """Cancel it: the run goes on from its last checkpoint when it is called again."""
        if not self._cancelled:
            self._job.cancel(check=False)
            self._cancelled = True


def slurm_launcher(words: Sequence[str], folder: Path) -> Launch:
    """Submits commands; the cluster decides when they run.

    Args:
        words: `key=value` as submitit's AutoExecutor takes them (timeout_min=240,
            gpus_per_node=1, slurm_partition=gpu), and cluster=slurm|local.
        folder: for submitit's own files, on a file system that the nodes share.

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
    parameters = {"name": "transfer"}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--slurm has {word!r}; it must be KEY=VALUE, such as timeout_min=240")
        parameters[key] = yaml.safe_load(value)
    try:
        executor = submitit.AutoExecutor(folder, cluster=parameters.pop("cluster", "slurm"))
        executor.update_parameters(**parameters)
    except Exception as error:  # submitit's own checks: assert, RuntimeError, NameError ...
        raise UsageError(f"--slurm: submitit says: {str(error).strip()}") from error

    def launch(words: list[str], log: Path, slot: int) -> SlurmProcess:
        line = f"exec {shlex.join(words)} >> {shlex.quote(str(log))} 2>&1"
        shell = submitit.helpers.CommandFunction(["sh", "-c", line], verbose=False, cwd=Path.cwd())
        return SlurmProcess(executor.submit(shell))

    return launch
