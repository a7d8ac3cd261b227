"""One process that dies or hangs ends all within a minute, with one message.

A collective operation waits for every process: with NCCL for ten minutes, for one that is gone as
for one that is slow. So each process writes a beat into torchrun's store from a thread of its own,
which goes on through a long step, torch.compile or what process 0 does alone. Process 0 reads the
beats of all, the others those of process 0 and of their machine, where a number of a process that
is no more is seen at once; elsewhere SECONDS of silence mean that it was killed or hangs. Who sees
it first writes the verdict, which all obey: a process in a collective operation cannot be woken,
only ended.

Beats are counted, not timed: a machine that slept as a whole has lost nothing.
"""

import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from pretrain.errors import UsageError, first_line
from pretrain.progress import log


def _seconds(text: str) -> float:
    """What the environment says; UsageError where that is no number of seconds."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= 86400:
        raise UsageError(f"CUTMIX_HEARTBEAT_SECONDS is {text!r}; it must lie in [1, 86400].")
    return seconds


SECONDS = _seconds(os.environ.get("CUTMIX_HEARTBEAT_SECONDS", "30"))
"""Of silence after which a process on another machine counts as lost."""
_PERIOD = min(1.0, SECONDS / 8)
_PATIENCE = 10.0  # seconds for what is done before the end
_DONE = "done"
_OF_A_CONNECTION = r"gloo|nccl|ProcessGroup|TCPStore|connection|broken pipe|timed out|peer"


class Heartbeat:
    """Of this process; see the module."""

    def __init__(self) -> None:
        number = {key: int(os.environ.get(key, "0")) for key in _NUMBERS}
        self.rank, self.size = number["RANK"], number["WORLD_SIZE"]
        self.machine, self.local = number["GROUP_RANK"], number["LOCAL_RANK"]
        first = self.rank - self.local
        beside = range(first, first + max(1, number["LOCAL_WORLD_SIZE"]))
        self._watched = {*range(self.size)} if self.rank == 0 else {0, *beside}
        self._watched.discard(self.rank)
        self.describe: Callable[[], str] = lambda: "It had not made a step."
        """Where the run stands and how it goes on, for the message."""
        self.before_end: Callable[[], None] = lambda: None
        """Such as to finish a file; it is given ten seconds."""
        self._suspicious = self._finished = False
        self._store: Store | None = None
        self._parent = os.getppid()
        self._rounds = 0
        for work in (self._beat, self._watch_store):
            threading.Thread(target=work, name="heartbeat", daemon=True).start()

    def announce(self, text: str, code: int) -> None:
        """End the others, as this process ends by itself with a message of its own."""
        for _ in range(round(_PATIENCE / _PERIOD)):
            if self._store is not None:
                break
            time.sleep(_PERIOD)
        with suppress(RuntimeError):
            self._claim(text, code)
        self._finished = True

    def finish(self) -> None:
        """This process ends, and is not to be missed."""
        self._finished = True
        with suppress(RuntimeError):
            if self._store is not None:
                self._store.set(f"{self.rank}", _DONE)

    def suspect(self, error: Exception) -> None:
        """Where an operation between processes failed: find who is lost, and end with that."""
        self._suspicious = True
        self._watched = {*range(self.size)} - {self.rank}
        time.sleep(SECONDS / 3 + 3 * _PERIOD)
        text = f"process {self.rank} has lost its connection to others ({first_line(error)})"
        with suppress(RuntimeError):
            self._obey(self._claim(self._message(text), 1))
        self._end(1)

    # ---- a thread that exchanges beats

    def _beat(self) -> None:
        with suppress(RuntimeError):  # seen by the other thread, which has more patience
            self._store = _connect(self.rank)
            silent, before = dict.fromkeys(range(self.size), 0), dict[int, str]()
            while not self._finished:
                self._store.set(f"{self.rank}", self._record())
                if self._store.check(["verdict"]):
                    self._obey(self._store.get("verdict").decode())
                # first: it may end properly before its record is read
                gone = {rank for rank in before if self._is_gone(before[rank])}
                for rank, record in self._read().items():
                    silent[rank] = silent[rank] + 1 if record == before.get(rank) else 0
                    before[rank] = record
                most = SECONDS / 3 if self._suspicious else SECONDS
                for rank, record in before.items():
                    is_silent = silent[rank] * _PERIOD > most
                    if record != _DONE and (rank in gone or is_silent):
                        self._blame(rank, record, rank in gone)
                self._rounds += 1
                time.sleep(_PERIOD)

    def _record(self) -> str:
        return json.dumps([self._rounds, self.machine, os.getpid(), socket.gethostname()])

    def _read(self) -> dict[int, str]:
        """The records of those that are watched and have begun."""
        store: Any = self._store
        there = [rank for rank in sorted(self._watched) if store.check([f"{rank}"])]
        values = store.multi_get([f"{rank}" for rank in there]) if there else []
        return {rank: value.decode() for rank, value in zip(there, values, strict=True)}

    def _is_gone(self, record: str) -> bool:
        """Whether it is of a process of this machine that is no more."""
        if record == _DONE or os.name == "nt":  # where the signal 0 is Ctrl-C
            return False
        _, machine, number, _ = json.loads(record)
        try:
            if machine == self.machine:
                os.kill(number, 0)
        except ProcessLookupError:
            return True
        return False

    def _blame(self, rank: int, record: str, is_gone: bool) -> None:
        _, _, number, host = json.loads(record)
        what = "was killed" if is_gone else "does not answer: it was killed, hangs or is cut off"
        who = f"process {rank} of {self.size} (process id {number} on {host})"
        self._obey(self._claim(self._message(f"{who} {what}"), 1, None if is_gone else record))

    def _message(self, text: str) -> str:
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        most = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
        restart = f" torchrun starts all again ({again + 1} of {most})." if again < most else ""
        return f"error: {text}. {self.describe()}{restart}"

    def _claim(self, text: str, code: int, hangs: str | None = None) -> str:
        """The verdict that counts: this one, if there was none."""
        store: Any = self._store
        verdict = json.dumps([self.rank, self.machine, text, code, hangs])
        return store.compare_set("verdict", "", verdict).decode() if store else verdict

    def _obey(self, verdict: str) -> None:
        """End; one process of each machine says why, who claimed it or else the first."""
        rank, machine, text, code, hangs = json.loads(verdict)
        by_other_machine = machine != self.machine and self.local == 0
        if rank == self.rank or by_other_machine:
            log(text)
        if hangs is not None:  # torchrun would wait half a minute for it
            _, machine, number, _ = json.loads(hangs)
            if machine == self.machine and hasattr(signal, "SIGKILL"):
                with suppress(ProcessLookupError):
                    os.kill(number, signal.SIGKILL)
        self._end(code)

    def _end(self, code: int) -> None:
        timer = threading.Timer(_PATIENCE, os._exit, [code])
        timer.daemon = True
        timer.start()
        with suppress(Exception):
            self.before_end()
        if self.rank == 0 and not _agent_has_store():  # with it goes its store, and the verdict
            time.sleep(4 * _PERIOD)
        os._exit(code)

    # ---- a thread that watches the first, which may wait for a store that is no more

    def _watch_store(self) -> None:
        seen, silent = 0, 0
        while not self._finished:
            time.sleep(_PERIOD)
            silent = silent + 1 if seen == self._rounds > 0 else 0
            seen = self._rounds
            text = "the machine of process 0 does not answer"
            is_orphan = os.getppid() != self._parent
            if is_orphan:
                text = f"torchrun, which started process {self.rank}, was killed"
                with suppress(RuntimeError):
                    self._obey(self._claim(self._message(text), 1))
            if is_orphan or silent * _PERIOD > (SECONDS / 3 if self._suspicious else SECONDS):
                # nobody can be asked who is to say it: one of each machine, not process 0 where
                # the store was its own
                if self.local == (self.machine == 0 and not _agent_has_store()):
                    log(self._message(text))
                self._end(1)


_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK")
_own: Heartbeat | None = None


def heartbeat() -> Heartbeat | None:
    """Of this process, begun at the first call; None where it is alone."""
    global _own
    if _own is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        _own = Heartbeat()
    return _own


def is_of_connection(error: Exception) -> bool:
    """Whether an operation between processes failed."""
    is_error = isinstance(error, torch.distributed.DistError)
    text = str(error)
    return is_error or (
        isinstance(error, RuntimeError) and re.search(_OF_A_CONNECTION, text, re.I) is not None
    )


def _agent_has_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _connect(rank: int) -> Store:
    """The store of torchrun, or where there is none that of process 0; for this attempt."""
    store = TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=rank == 0 and not _agent_has_store(),
        timeout=timedelta(minutes=30),
        wait_for_workers=False,
        multi_tenant=True,
    )
    # torchrun counts no restart where a machine came or went
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), os.environ["WORLD_SIZE"]
    return PrefixStore("/".join(("heartbeat", *attempt)), store)
