"""Every file of ours is written here: whole or not at all, and by one process at a time.

A failure to write is one UsageError that names the file, whatever a library makes of it; what stood
there before is unchanged.

No torch at import.
"""

import errno
import os
import re
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any

from filelock import AcquireReturnProxy, FileLock, Timeout

from pretrain.errors import UsageError, first_line
from pretrain.progress import log

_NO_ROOM = (None, errno.ENOSPC, errno.EDQUOT)  # None: the library does not say
_OF_THE_DISK = (*_NO_ROOM, errno.EFBIG, errno.EIO, errno.EROFS)
_DRAFT = r"\..*\.\d+\.tmp"


@contextmanager
def draft(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary name beside `path`, for a file or a folder; it is gone afterwards.

    `publish` puts what was written there in its place. The folder of `path` is made; where it was
    not there before and the block fails, it is gone as well: not otherwise, as another process may
    be about to write into it.

    Args:
        path: what is written in the block.
        size: the bytes it needs, where that is known.

    Raises:
        UsageError: it could not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    new: list[Path] = []
    done = False
    try:
        new += [folder for folder in path.parents if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(temporary)  # of a process of the same number that was killed
        yield temporary
        done = True
    except Exception as error:
        cause = _write_error(error)
        if cause is None or not _is_of(cause, path, temporary):
            raise
        if any(re.fullmatch(_DRAFT, folder.name) for folder in path.parents):
            raise  # of a file in a draft the folder is named
        remove(temporary)
        raise UsageError(_message(path, cause, size)) from error
    finally:
        remove(temporary)
        for folder in [] if done else new:  # innermost first
            with suppress(OSError):
                folder.rmdir()


_NOTHING = nullcontext[Any]()


def publish(temporary: Path, path: Path, held: AbstractContextManager[Any] = _NOTHING) -> None:
    """Rename a file or a folder: onto the disk first, then its name, while `held` is."""
    publish_all({temporary: path}, held)


def publish_all(paths: Mapping[Path, Path], held: AbstractContextManager[Any] = _NOTHING) -> None:
    """Rename several, old path to new: all onto the disk first, then name after name.

    A kill can come between two names, not between two writes. Only names are given while `held` is.
    """
    for temporary in paths:
        for written in (*temporary.rglob("*"), temporary):
            if not written.is_symlink():
                _share(written)
                _sync(written)
    with held:
        for temporary, path in paths.items():
            os.replace(temporary, path)
    for folder in {path.parent for path in paths.values()}:
        _sync(folder)


@contextmanager
def atomic(path: Path, size: int | None = None) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it becomes `path`, otherwise it is removed.

    A kill leaves the old file or the new one, never half. Arguments and errors: see `draft`.
    """
    with draft(path, size) as temporary:
        yield temporary
        publish(temporary, path)


@contextmanager
def draft_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path`, gone afterwards whatever happens; see `draft`."""
    with draft(path) as temporary:
        temporary.mkdir()
        yield temporary


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    content = text.encode("utf-8")
    with atomic(path, len(content)) as temporary:
        temporary.write_bytes(content)


def save_figure(figure: Any, path: Path, dpi: int = 110) -> None:
    """Write a matplotlib figure as PNG, whole or not at all; a $ in a text is a dollar."""
    for text in figure.findobj(lambda artist: hasattr(artist, "set_parse_math")):
        text.set_parse_math(False)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=dpi)


def append(path: Path, content: bytes) -> None:
    """Write behind the end of a file and onto the disk; where that fails, the file is as before."""
    with draft(path, len(content)), open(path, "ab", buffering=0) as handle:
        end = handle.tell()
        try:
            written = 0
            while written < len(content):
                written += handle.write(content[written:])
            os.fsync(handle.fileno())
        except BaseException:
            os.truncate(path, end)
            raise


def lock(path: Path, busy: str, *, wait: bool = False) -> AcquireReturnProxy:
    """Lock a file for this process; the kernel gives the lock up however the process ends.

    It is held until the end of `with lock(...):`, or as long as the object that is returned lives.
    The process that holds it may take it again.

    Args:
        path: made where it is not there; it says who holds it, and since when.
        busy: the message where another process holds it, such as "another grid works in runs/a".
        wait: for its end, after having said so; otherwise it is an error.

    Raises:
        UsageError: another process holds it, or `path` cannot be opened.
    """
    with draft(path):
        try:
            held = _acquire(path, 0)
        except Timeout as error:
            message = f"{busy} ({_owner(path)})"
            if not wait:
                raise UsageError(f"{message}. Wait for its end, or give another --out.") from error
            log(f"{message}: waiting for its end ...")
            held = _acquire(path, -1)
        now = datetime.now(UTC).isoformat(sep=" ", timespec="seconds")
        with suppress(OSError):  # on a full disk it is held without saying so
            text = f"process {os.getpid()} on {socket.gethostname()}, since {now}"
            path.write_text(text, encoding="utf-8")
        return held


def holder(path: Path) -> str | None:
    """Who holds a lock of `lock`, and since when; None where no other process does.

    Raises:
        UsageError: `path` cannot be opened.
    """
    try:
        with suppress(PermissionError):  # of a folder: what locks it says so
            path.lstat()
        with _acquire(path, 0):
            return None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Timeout:
        return _owner(path)


def _acquire(path: Path, timeout: float) -> AcquireReturnProxy:
    """Wait so many seconds (-1: without end) for a lock; Timeout where that is not enough."""
    try:
        with suppress(FileNotFoundError):
            if not S_ISREG(path.stat().st_mode):  # a pipe would be opened, and block its readers
                raise OSError("it is no file")
        return _lock_of(path).acquire(timeout)
    except Timeout:
        raise
    except OSError as error:
        raise UsageError(
            f"{path} cannot be opened to lock it ({error.strerror or error}). Remove it, or make "
            "it and its folder writable."
        ) from error


def _lock_of(path: Path) -> FileLock:
    """One object for a path: a process does not keep itself out."""
    return FileLock(path, thread_local=False, is_singleton=True, fallback_to_soft=False)


def _owner(path: Path) -> str:
    """What the holder of a lock wrote into it."""
    text = ""
    with suppress(OSError):  # Windows lets nobody else read it; or it has just been given up
        text = path.read_text(encoding="utf-8", errors="replace").strip()
    return text or "which has not said who it is"


def _share(path: Path) -> None:
    """Let others read a file as any new one; safetensors writes for its owner alone."""
    if path.is_file() and not path.stat().st_mode & 0o077:
        mask = os.umask(0)
        os.umask(mask)
        path.chmod(0o666 & ~mask)


def _sync(path: Path) -> None:
    """Onto the disk: a file's content, or a folder's names."""
    if os.name == "nt":  # there neither is possible through a handle to read
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file or a folder, where it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _write_error(error: Exception) -> Exception | None:
    """The system's error where a library failed to write, else the library's; None for others.

    torch raises RuntimeError when it closes the file, safetensors a type of its own.
    """
    if isinstance(error, OSError):
        return error
    if type(error).__name__ == "SafetensorError" and "I/O error" in str(error):
        number = re.search(r"os error (\d+)", str(error))
        return OSError(int(number[1]), os.strerror(int(number[1]))) if number else error
    before = error.__cause__ or error.__context__
    if isinstance(error, RuntimeError) and isinstance(before, Exception):
        return _write_error(before)
    return None


def _is_of(error: Exception, path: Path, temporary: Path) -> bool:
    """Whether an error is about what was to be written, not a file that was read for it."""
    names = [getattr(error, key, None) for key in ("filename", "filename2")]
    met = [Path(os.path.abspath(name)) for name in names if isinstance(name, str | Path)]
    path, temporary = Path(os.path.abspath(path)), Path(os.path.abspath(temporary))
    return (
        not met
        or getattr(error, "errno", None) in _OF_THE_DISK
        or any(name in (path, *path.parents) or temporary in (name, *name.parents) for name in met)
    )


def _message(path: Path, cause: Exception, size: int | None) -> str:
    """What could not be written and why, the room needed and left, and what to do."""
    number = getattr(cause, "errno", None)
    why = (cause.strerror if isinstance(cause, OSError) else None) or first_line(cause)
    if isinstance(cause, FileExistsError):
        why = "what should be its folder is a file"
    message = f"{path} cannot be written: {why}"
    met = Path(str(getattr(cause, "filename", None) or path))
    drafted = any(re.fullmatch(_DRAFT, part) for part in met.parts)
    message += "." if met == path or drafted else f" ({met})."
    place = "another place"
    if any(folder.name == "cutmix-transfer" for folder in path.parents):  # the cache
        place += " by XDG_CACHE_HOME"
    remedy = f"Change that, or name {place},"
    if number in _NO_ROOM:
        disk = next(folder for folder in path.parents if folder.exists())
        left = shutil.disk_usage(disk).free
        if size is None:
            message += f" It needs more than the {left:,} bytes that are left on its disk."
        else:
            message += f" It needs {size:,} bytes; {left:,} are left on its disk."
        remedy = f"Make room, or name {place},"
    if path.is_file():
        message += " The one of before is unchanged."
    # a run with a checkpoint is refused without --resume
    for folder in (path.parent, path.parent.parent):
        is_run = (folder / "checkpoints" / "last.pth").exists()
        if is_run and _lock_of(folder / ".lock").is_locked:  # by this process, which trains it
            return f"{message} {remedy} and give the same command with --resume {folder}."
    return f"{message} {remedy} and give the same command again."
