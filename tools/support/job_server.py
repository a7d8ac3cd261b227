"""Starts jobs as forks of one process that has imported the trainers: seconds saved for each job.

Requests come on standard input, answers go to standard output, JSON a line:

    {"start": [TOOL, OPTION, ...], "log": FILE, "threads": "N"}  ->  PID
    {"poll": PID}                                              ->  exit code, null while it runs

A job is what `python TOOL OPTION ...` would be: a process in a session of its own, its output at
the end of its log. The server computes nothing, so no thread and no device is there to be forked;
it ends with its input, and the jobs go on.
"""

import json
import os
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Lock
from typing import Any

TRAINERS = tuple(
    f"transfer.{name}.engine"
    for name in ("classification", "detection", "segmentation", "captioning")
)


class JobServer:
    """The server, as the grid sees it; its threads may call it."""

    def __init__(self, modules: Sequence[str]) -> None:
        """Start it: it imports these modules while the grid goes on."""
        # in a session of its own: Ctrl-C is the grid's to pass on
        self._process = Popen(
            [sys.executable, __file__, *modules],
            stdin=PIPE,
            stdout=PIPE,
            text=True,
            start_new_session=True,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )
        self._lock = Lock()

    def start(self, words: Sequence[str], log: Path, threads: str) -> "ForkedJob":
        """Start `python WORDS`, with so many threads; OSError where there can be no log."""
        log.open("ab").close()
        return ForkedJob(self, self.ask({"start": words, "log": str(log), "threads": threads}))

    def close(self) -> None:
        """End the server, even while it imports; the jobs go on."""
        self._process.kill()
        self._process.communicate()

    def ask(self, request: dict[str, Any]) -> Any:
        """The answer to a request; OSError where the server has ended."""
        to, back = self._process.stdin, self._process.stdout
        assert to is not None
        assert back is not None
        with self._lock:
            with suppress(BrokenPipeError):
                print(json.dumps(request), file=to, flush=True)
            if not (answer := back.readline()):
                raise ChildProcessError("the process that starts the jobs has ended")
        return json.loads(answer)


@contextmanager
def job_server() -> Iterator[JobServer | None]:
    """A server; None where a process that has imported torch cannot be forked.

    Drivers of GPUs do not survive a fork, and on macOS system libraries do not.
    """
    if sys.platform != "linux" or any(map(os.path.exists, ("/dev/nvidiactl", "/dev/kfd"))):
        yield None
        return
    server = JobServer(TRAINERS)
    try:
        yield server
    finally:
        server.close()


@dataclass(frozen=True)
class ForkedJob:
    """A process that the server started."""

    server: JobServer
    pid: int

    def poll(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        code: int | None = self.server.ask({"poll": self.pid})
        return code


def _serve() -> list[str] | None:
    """Answer until the input ends; in a forked process, the words of the job that it is."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    for module in sys.argv[1:]:
        import_module(module)
    for line in requests:
        request = json.loads(line)
        if "poll" in request:
            ended, status = os.waitpid(request["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif (answer := _fork()) == 0:
            requests.close()
            answers.close()
            return _become(request)
        print(json.dumps(answer), file=answers, flush=True)
    return None


def _fork() -> int:
    """As os.fork, once the new process leads a session: who is told its number may end that."""
    led, leads = os.pipe()
    if (process := os.fork()) == 0:
        os.setsid()
    os.close(leads)
    os.read(led, 1)  # its end: both have closed theirs
    os.close(led)
    return process


def _become(request: dict[str, Any]) -> list[str]:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for target, source in enumerate((nowhere, log, log)):
        os.dup2(source, target)
    os.environ["OMP_NUM_THREADS"] = request["threads"]  # of what it starts
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(request["threads"]))
    return list(request["start"])


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    if job := _serve():
        sys.argv, sys.path[0] = job, os.path.dirname(job[0])  # as Python does
        runpy.run_path(job[0], run_name="__main__")
