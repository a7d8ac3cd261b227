"""Jobs on a cluster through submitit: how it is called, and one that is a torchrun on each node."""

import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from pretrain.errors import UsageError
from tools.support.command import ROOT

_ONE_AT_A_TIME = Lock()
_GRACE = 60.0  # seconds in which the processes stop after a step, and a job may yet be queued again
_TICK = 0.2


@contextmanager
def submitit_calls() -> Iterator[None]:
    """Around calls of submitit, which knows no threads; what it refuses is a UsageError."""
    with _ONE_AT_A_TIME:
        try:
            yield
        except Exception as error:  # assert, RuntimeError, NameError ...
            raise UsageError(f"SLURM, by submitit: {str(error).strip()}") from error


def import_submitit(otherwise: str) -> Any:
    """The library; UsageError with how to install it, or what does without it."""
    try:
        import submitit
    except ImportError as error:
        raise UsageError(
            "--slurm needs submitit: pip install 'cutmix-transfer[slurm]', or pip install "
            f"submitit. {otherwise}"
        ) from error
    return submitit


def parameters_of(words: Sequence[str]) -> dict[str, Any]:
    """`key=value` as submitit's AutoExecutor takes them (timeout_min=240, slurm_account=vision)."""
    parameters = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise UsageError(f"--slurm has {word!r}; it must be KEY=VALUE, such as timeout_min=240")
        parameters[key] = yaml.safe_load(value)
    return parameters


@dataclass
class TorchrunJob:
    """On each node of a job, torchrun with a tool; when its time is over it is queued again.

    submitit calls `checkpoint` when the cluster's signal comes, some time before the end: the
    processes are asked to stop after a step, and the job that is queued then has the same command,
    whose `--resume auto` goes on.
    """

    words: list[str]
    """The tool and its options."""
    processes: int
    """On a node."""
    folder: Path
    """Where it is run."""
    _codes: list[int] = field(default_factory=list, init=False)
    _asked: bool = field(default=False, init=False)
    _pid: int | None = field(default=None, init=False)

    def command(self, node: int, hosts: Sequence[str], job: int) -> list[str]:
        """Of one node; the first host is where all meet, at a port that follows from the job."""
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", str(len(hosts))]
        place = ["--node_rank", str(node), "--nproc_per_node", str(self.processes)]
        meeting = ["--master_addr", hosts[0], "--master_port", str(20_000 + job % 20_000)]
        return [*launcher, *place, *meeting, *self.words]

    def __call__(self) -> None:
        """What a task of the job does; ends with torchrun's exit code."""
        import submitit

        here = submitit.JobEnvironment()
        job = int(here.raw_job_id) if here.raw_job_id.isdigit() else os.getpid()
        command = self.command(here.node, here.hostnames, job)
        print(shlex.join(command), flush=True)
        # a session of its own: the signal of the cluster would end torchrun
        process = subprocess.Popen(command, cwd=self.folder, start_new_session=True)
        self._pid = process.pid
        signal.signal(signal.SIGTERM, lambda *_: self._stop())
        threading.Thread(target=lambda: self._codes.append(process.wait()), daemon=True).start()
        while not self._codes:  # no lock: `checkpoint` is called within
            time.sleep(_TICK)
        code = self._codes[0]
        if code and (self._asked or here.global_rank):
            time.sleep(_GRACE)  # the first task may yet queue the job again
        if code:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """Stop after a step; what is to be queued."""
        import submitit

        self._stop()
        deadline = time.monotonic() + _GRACE
        while not self._codes and time.monotonic() < deadline:
            time.sleep(_TICK)
        again = type(self)(self.words, self.processes, self.folder)
        return submitit.helpers.DelayedSubmission(again)

    def _stop(self) -> None:
        self._asked = True
        if self._pid is not None and not self._codes:
            os.kill(self._pid, signal.SIGTERM)


def submit(job: TorchrunJob, folder: Path, parameters: Mapping[str, Any], timeouts: int) -> str:
    """Hand a job to the cluster, and return its number.

    Args:
        job: what each node does.
        folder: for logs and submitit's own files, on a file system that the nodes share.
        parameters: of submitit's AutoExecutor, and cluster=slurm|local.
        timeouts: how often it is queued again when its time was over.

    Raises:
        UsageError: submitit is missing, or does not take these parameters; or the cluster refuses.
    """
    submitit = import_submitit("Without it --dry-run prints nothing to submit either.")
    rest = dict(parameters)
    with submitit_calls():
        cluster = rest.pop("cluster", "slurm")
        executor = submitit.AutoExecutor(folder, cluster=cluster, slurm_max_num_timeout=timeouts)
        executor.update_parameters(**rest, **_FIXED)
        return str(executor.submit(job).job_id)


def batch_script(folder: Path, parameters: Mapping[str, Any]) -> str:
    """What sbatch would be given; also where there is no SLURM."""
    submitit = import_submitit("It writes the script.")

    class Printer(submitit.SlurmExecutor):  # type: ignore[misc, name-defined]
        @classmethod
        def affinity(cls) -> int:
            return 1

    with submitit_calls():
        executor = Printer(folder)
        named = {**parameters, **_FIXED}
        named = {key.removeprefix("slurm_"): named[key] for key in named if key != "cluster"}
        executor.update_parameters(**executor._convert_parameters(named))
        return str(executor._make_submission_file_text(executor._submitit_command_str, ""))


# one task a node, which finds this package; its two streams in one file
_FIXED = {
    "tasks_per_node": 1,
    "stderr_to_stdout": True,
    "slurm_setup": [f"export PYTHONPATH={ROOT}${{PYTHONPATH:+:$PYTHONPATH}}"],
}
