"""The process of a worker, as `launch` starts it.

Its order is the first line of standard input, JSON. The input ends where the process that started
it wants it to stop, or ends itself: it stops after its step. It answers on standard output, a line
of JSON each: {"line": TEXT} for every training that has come to its rung or its end, {"error":
TEXT} for what it cannot go on with. What else it and its libraries say is in OUT/logs.
"""

import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import IO, Any

sys.path[0] = str(Path(__file__).resolve().parents[3])

from pretrain.errors import Stopped, UsageError
from tools.support.sweep.config import Sweep, parse_sweep
from tools.support.sweep.study import Studies
from tools.support.sweep.worker import work


def main() -> None:
    """Take the order, work, and end as a tool does."""
    order, answers = json.loads(sys.stdin.readline()), os.fdopen(os.dup(1), "w")
    asked = threading.Event()
    threading.Thread(target=_follow, args=(asked,), daemon=True).start()
    out = Path(order["out"])
    log = out / "logs" / f"{socket.gethostname()}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        config = parse_sweep(order["config"], "the sweep")
        sweep = Sweep(config=config, recipe=Path(order["recipe"]), data=order["data"], out=out)
        studies = Studies(sweep, order["storage"]["url"], order["storage"]["name"])
        work(
            sweep, studies, order["device"], lambda text: _answer(answers, line=text), asked.is_set
        )
    except UsageError as error:
        _answer(answers, error=str(error))
        sys.exit(2)
    except Stopped as stopped:
        sys.exit(128 + stopped.signal_number)
    except KeyboardInterrupt:
        sys.exit(130)


def _answer(answers: IO[str], **content: Any) -> None:
    print(json.dumps(content), file=answers, flush=True)


def _follow(asked: threading.Event) -> None:
    """Stop after the step, as by a signal, once the input has ended."""
    os.read(0, 1)
    asked.set()  # in its last epoch a training takes the signal, and ends as if there were none
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
