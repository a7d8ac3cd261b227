"""Tools as processes of their own that need no import: forks of one that has imported torch.

What a process sees of itself is as after `python TOOL OPTION ...`: arguments, folder, standard
streams, exit code, its own session. Tests of what a tool imports, or of its first seconds, start
it themselves.
"""

import atexit
import functools
import json
import os
import runpy
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "pretrain.engine",
    "transfer.classification.engine",
    "transfer.detection.engine",
    "transfer.captioning.engine",
    "transfer.report",
    "tools.support.training",
)


def call(tool: str, *words: object, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a tool to its end, away from the repository."""
    command = [str(ROOT / "tools" / f"{tool}.py"), *map(str, words)]
    if sys.platform != "linux":
        command = [sys.executable, *command]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)
    server = _server()
    with tempfile.TemporaryDirectory() as folder:
        said = [str(Path(folder, name)) for name in ("out", "err")]
        request = [command, str(cwd or Path.cwd()), dict(os.environ), said]
        print(json.dumps(request), file=server.stdin, flush=True)
        code = json.loads(server.stdout.readline())
        texts = [Path(path).read_text(encoding="utf-8") for path in said]
    return subprocess.CompletedProcess(command, code, *texts)


@functools.cache
def _server() -> subprocess.Popen:
    command = [sys.executable, __file__, *MODULES]
    pipe, environment = subprocess.PIPE, {**os.environ, "OMP_NUM_THREADS": "1"}
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    atexit.register(server.kill)
    return server


def _serve() -> list[str]:
    """Answer each request with an exit code; in a fork, the command that it is to be."""
    requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for module in MODULES:
        import_module(module)
    for line in requests:
        if (child := os.fork()) == 0:
            requests.close()
            answers.close()
            command, folder, environment, said = json.loads(line)
            os.setsid()
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(environment)
            streams = [os.open(os.devnull, os.O_RDONLY)]
            streams += [os.open(path, os.O_WRONLY | os.O_CREAT, 0o600) for path in said]
            for target, source in enumerate(streams):
                os.dup2(source, target)
            return command
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), file=answers, flush=True)
    sys.exit()


if __name__ == "__main__":
    sys.path[0] = str(ROOT)
    sys.argv = _serve()
    sys.path[0] = os.path.dirname(sys.argv[0])  # as Python does
    runpy.run_path(sys.argv[0], run_name="__main__")
