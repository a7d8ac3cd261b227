"""The jobs of a grid on a cluster, through submitit."""

import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import yaml

from pretrain.errors import UsageError
from tools.support.grid_run import Launch

_PAUSE = 1.0  # seconds between two looks
_ONE_AT_A_TIME = Lock()


@contextmanager
def _submitit() -> Iterator[None]:
    """Around calls of submitit, which knows no threads; what it refuses is a UsageError."""
    with _ONE_AT_A_TIME:
        try:
            yield
        except Exception as error:  # assert, RuntimeError, NameError ...
            raise UsageError(f"--slurm: submitit says: {str(error).strip()}") from error


def slurm_launcher(words: Sequence[str], folder: Path) -> Launch:
    """Submits commands; the cluster decides when they run, and a signal cancels them.

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
    with _submitit():
        executor = submitit.AutoExecutor(folder, cluster=parameters.pop("cluster", "slurm"))
        executor.update_parameters(**parameters)

    def launch(words: list[str], log_file: Path, slot: int, signals: Sequence[int]) -> int:
        line = f"exec {shlex.join(words)} >> {shlex.quote(str(log_file))} 2>&1"
        shell = submitit.helpers.CommandFunction(["sh", "-c", line], verbose=False, cwd=Path.cwd())
        with _submitit():
            job = executor.submit(shell)
        while True:
            with _submitit():
                if job.done():
                    return int(job.exception() is not None)
                if signals:  # the run goes on from its last checkpoint when it is called again
                    job.cancel(check=False)
                    return 1
            time.sleep(_PAUSE)

    return launch
