"""The jobs of a grid on a cluster, through submitit."""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from tools.support.grid_run import Launch
from tools.support.slurm import import_submitit, parameters_of, submitit_calls

_PAUSE = 1.0  # seconds between two looks


def slurm_launcher(words: Sequence[str], folder: Path) -> Launch:
    """Submits commands; the cluster decides when they run, and a signal cancels them.

    Args:
        words: `key=value` as submitit's AutoExecutor takes them (timeout_min=240,
            gpus_per_node=1, slurm_partition=gpu), and cluster=slurm|local.
        folder: for submitit's own files, on a file system that the nodes share.

    Raises:
        UsageError: submitit is missing, or does not take these parameters.
    """
    without = "Without it --print gives one shell command a line for any scheduler."
    submitit = import_submitit(without)
    parameters = {"name": "transfer", **parameters_of(words)}
    with submitit_calls():
        executor = submitit.AutoExecutor(folder, cluster=parameters.pop("cluster", "slurm"))
        executor.update_parameters(**parameters)

    def launch(words: list[str], log_file: Path, slot: int, signals: Sequence[int]) -> int:
        line = f"exec {shlex.join(words)} >> {shlex.quote(str(log_file))} 2>&1"
        shell = submitit.helpers.CommandFunction(["sh", "-c", line], verbose=False, cwd=Path.cwd())
        with submitit_calls():
            job = executor.submit(shell)
        while True:
            with submitit_calls():
                if job.done():
                    return int(job.exception() is not None)
                if signals:  # the run goes on from its last checkpoint when it is called again
                    job.cancel(check=False)
                    return 1
            time.sleep(_PAUSE)

    return launch
