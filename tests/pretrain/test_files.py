"""Writing whole files or a message, and locks that say who holds them."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from matplotlib.figure import Figure

from pretrain import files, torch_file
from pretrain.errors import UsageError
from pretrain.files import (
    append,
    atomic,
    draft_folder,
    holder,
    lock,
    publish,
    save_figure,
    write_text,
)
from tests.conftest import ROOT, limited

TENSORS = {"a": torch.arange(50_000.0)}


def save_array(path):
    with open(path, "wb") as handle:
        np.save(handle, np.zeros(50_000))


def save_by_torch(path):
    with open(path, "wb") as handle:
        torch.save(TENSORS, handle)


WRITERS = {
    "text": lambda path: path.write_text("x" * 100_000),
    "torch": save_by_torch,
    "safetensors": lambda path: safetensors.torch.save_file(TENSORS, path),
    "numpy": save_array,
    "matplotlib": lambda path: Figure().savefig(path, format="png", dpi=300),
}


@pytest.mark.parametrize("most", [0, 3000])
@pytest.mark.parametrize("name", WRITERS)
def test_every_library_s_failure_is_one_message(name, most, tmp_path):
    path, words = tmp_path / "new" / "file", rf"^{tmp_path}/new/file cannot be written: "
    with limited(most), pytest.raises(UsageError, match=words), atomic(path) as draft:
        WRITERS[name](draft)
    assert os.listdir(tmp_path) == []


def full(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_message_tells_room_and_remedy(tmp_path, monkeypatch):
    path = tmp_path / "run" / "checkpoints" / "last.pth"
    torch_file.write(path, TENSORS)
    old = path.read_bytes()

    def message() -> str:
        with pytest.raises(UsageError) as met:
            torch_file.write(path, TENSORS)
        return str(met.value)

    monkeypatch.setattr(os, "fsync", full)
    # of a run that another command trained, and that has no such option
    assert message().endswith("name another place, and give the same command again.")
    with lock(tmp_path / "run" / ".lock", "busy"):
        words = message()
    assert f"{path} cannot be written: No space left on device. It needs 200,000 bytes; " in words
    assert " are left on its disk. The one of before is unchanged. Make room" in words
    assert words.endswith(f"and give the same command with --resume {tmp_path / 'run'}.")
    assert path.read_bytes() == old
    monkeypatch.undo()
    words = rf"below cannot be written: what should be its folder is a file \({path}\)\. Change"
    with pytest.raises(UsageError, match=words):
        write_text(path / "below", "x")
    with pytest.raises(ValueError, match="of the block"), atomic(path):  # no disk's error
        raise ValueError("of the block")
    with pytest.raises(FileNotFoundError, match="nowhere"), atomic(tmp_path / "copy") as draft:
        shutil.copyfile(tmp_path / "nowhere", draft)  # nor is it one to read


def test_a_line_that_does_not_fit_leaves_the_log_as_it_was(tmp_path):
    path = tmp_path / "log"
    append(path, b"one\n")
    with limited(7), pytest.raises(UsageError, match="log cannot be written"):
        append(path, b"second\n")
    assert path.read_bytes() == b"one\n"


def test_a_folder_appears_whole_and_names_what_was_asked_for(tmp_path, monkeypatch):
    target = tmp_path / "new" / "folder"
    words = rf"^{target} cannot be written"
    with limited(5), pytest.raises(UsageError, match=words), draft_folder(target) as folder:
        write_text(folder / "inner" / "file", "x" * 9)
    assert os.listdir(tmp_path) == []
    with monkeypatch.context() as faulty:
        faulty.setattr(os, "fsync", full)
        words += r".* It needs more than the [0-9,]+ bytes that are left"
        with pytest.raises(UsageError, match=words), draft_folder(target) as folder:
            write_text(folder / "inner" / "file", "x" * 9)
    with draft_folder(target) as folder:
        safetensors.torch.save_file(TENSORS, folder / "file")  # which nobody else may read
        write_text(folder / "file.txt", "x")
        (folder / "link").symlink_to("nowhere")
        synced = []
        monkeypatch.setattr(files, "_sync", synced.append)
        publish(folder, target)
    assert sorted(synced[:2]) == [folder / "file", folder / "file.txt"]
    assert synced[2:] == [folder, target.parent]
    assert (target / "file").stat().st_mode == (target / "file.txt").stat().st_mode


# ---- locks

HOLD = (
    "import sys, pathlib; from pretrain.files import lock\n"
    "held = lock(pathlib.Path(sys.argv[1]), 'busy')\n"
    "print('held', flush=True); sys.stdin.read()"
)


def refuse(*_, **__):
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def test_a_lock_says_who_holds_it_and_since_when(tmp_path, monkeypatch):
    path = tmp_path / "new" / ".lock"
    assert holder(path) is None
    command = [sys.executable, "-c", HOLD, str(path)]
    other = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    who = rf"process {other.pid} on \S+, since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d\+00:00"
    with pytest.raises(UsageError, match=rf"^busy here \({who}\)\. Wait for its end"):
        lock(path, "busy here")
    assert f"process {other.pid} on " in holder(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", refuse)  # as Windows does
        assert holder(path) == "which has not said who it is"
    other.kill()
    other.wait()
    assert holder(path) is None
    with lock(path, "busy"), lock(path, "busy"):  # a process does not keep itself out
        assert holder(path) is None


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_a_lock_that_cannot_be_opened_is_an_error(kind, tmp_path):
    path = tmp_path / ".lock"
    makers = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}
    makers.get(kind, lambda: path.symlink_to(tmp_path / "nowhere" / "x"))()
    for take in (lambda: lock(path, "busy"), lambda: lock(path, "busy", wait=True)):
        with pytest.raises(UsageError, match=rf"^{path} cannot be opened to lock it .* Remove it"):
            take()
    with pytest.raises(UsageError, match="cannot be opened"):
        holder(path)


def test_the_lock_of_another_user(tmp_path):
    """Without the right to write it, it is named; it does not count as busy."""
    (tmp_path / ".lock").touch(0o400)
    (tmp_path / ".lock").chmod(0o400)
    code = (
        "import os, sys, pathlib; from pretrain.files import holder\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: print(holder(pathlib.Path(sys.argv[1])))\n"
        "except ValueError as error: print(error)"
    )
    for folder in (tmp_path, *tmp_path.parents):
        if "pytest-" in str(folder):
            folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / ".lock")],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert "cannot be opened to lock it (Permission denied)" in done.stdout, done.stderr


def test_a_dollar_in_a_figure_is_a_dollar(tmp_path):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1], label=r"$\frac$")
    figure.axes[0].set_title("a$ b$")
    figure.axes[0].legend()
    save_figure(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").is_file()


def test_a_new_folder_goes_with_a_failure_alone(tmp_path):
    """Another process may be about to write into one that is empty for a moment."""
    with files.draft(tmp_path / "new" / "a.txt") as temporary:
        temporary.touch()
    assert [*(tmp_path / "new").iterdir()] == []
    with pytest.raises(ZeroDivisionError), files.draft(tmp_path / "other" / "a.txt"):
        print(1 / 0)
    assert not (tmp_path / "other").exists()
