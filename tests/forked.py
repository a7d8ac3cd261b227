"""Tools as processes of their own that need no import: forks of one that has imported torch.

What a process sees of itself is as after `python TOOL OPTION ...`: arguments, folder, standard
streams, exit code, its own session. Tests of what a tool imports, or of its first seconds, start
it themselves.
"""

import atexit
import contextlib
import functools
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "pretrain.engine",
    "transfer.classification.engine",
    "transfer.detection.engine",
    "transfer.captioning.engine",
    "transfer.report",
    "tools.support.training",
    # what these take when they come to it
    "transfer.formats",
    "docstring_parser",
    "matplotlib.backends.backend_agg",
)


def call(tool: str, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a tool to its end, away from the repository."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = start(tool, *words, cwd=cwd, stdout=out, stderr=err)
        code = process.wait(timeout=300)
        return subprocess.CompletedProcess(process.args, code, text_of(out), text_of(err))


def text_of(stream: IO[str]) -> str:
    """All that a process has written to its standard stream so far."""
    stream.seek(0)
    return stream.read()


def until(condition: Callable[[], object]) -> None:
    """Wait for what is about to happen; a minute is for ever."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def start(tool: str, *words: object, **options):
    """A tool at work, in its own session; options are those of Popen that Forked has."""
    command = [sys.executable, str(ROOT / "tools" / f"{tool}.py"), *map(str, words)]
    kind = Forked if sys.platform == "linux" else subprocess.Popen
    return kind(command, **options, start_new_session=True)


def start_ranks(processes: int, tool: str, *words: object, **options) -> list:
    """A tool at work in several processes, with the environment that torchrun gives each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    sizes = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(processes))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "none"}
    common = {**os.environ, **sizes, **place, "GROUP_RANK": "0"}
    return [
        start(tool, *words, **options, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(processes)
    ]


class Forked:
    """What `subprocess.Popen([sys.executable, TOOL, ...], start_new_session=True)` is, forked."""

    def __init__(
        self,
        args: list[str],
        *,
        stdout: IO | int,
        stderr: IO | int,
        start_new_session: bool,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ):
        assert start_new_session
        self.args, self.returncode = args, None
        own, theirs = os.pipe()
        null = os.open(os.devnull, os.O_RDWR)
        streams = [null if one == subprocess.DEVNULL else one.fileno() for one in (stdout, stderr)]
        request = json.dumps([args[1:], str(cwd or Path.cwd()), dict(env or os.environ)])
        socket.send_fds(_server(), [request.encode()], [null, *streams, theirs])
        os.close(null)
        os.close(theirs)
        self._told = own
        self.pid = _number(own)

    def poll(self) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = _number(self._told)
            os.close(self._told)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)


def _number(descriptor: int) -> int:
    if not (told := os.read(descriptor, 4)):
        raise ChildProcessError("the server of forks has ended")
    return int.from_bytes(told, "little", signed=True)


@functools.cache
def _server() -> socket.socket:
    own, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, __file__, str(theirs.fileno())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(
        command, pass_fds=[theirs.fileno()], env=environment, start_new_session=True
    )
    theirs.close()
    atexit.register(server.kill)
    return own


def _serve(requests: socket.socket) -> list[str]:
    """Tell each request a process id and in the end an exit code; in a fork, the command it is."""
    for module in MODULES:
        import_module(module)
    while True:
        message, descriptors, *_ = socket.recv_fds(requests, 2**18, 4)
        if not message:
            sys.exit()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        *streams, told = descriptors
        if os.fork() == 0:
            break
        for descriptor in descriptors:
            os.close(descriptor)
    requests.close()
    if child := os.fork():  # waits for the other, as nobody else can
        for descriptor in streams:
            os.close(descriptor)
        os.write(told, child.to_bytes(4, "little"))
        _, status = os.waitpid(child, 0)
        os.write(told, os.waitstatus_to_exitcode(status).to_bytes(4, "little", signed=True))
        os._exit(0)
    os.close(told)
    command, folder, environment = json.loads(message)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell puts behind
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for target, source in enumerate(streams):
        os.dup2(source, target)
        os.close(source)
    return command


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    sys.argv = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.path[0] = os.path.dirname(sys.argv[0])  # as Python does
    runpy.run_path(sys.argv[0], run_name="__main__")
