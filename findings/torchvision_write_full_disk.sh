#!/usr/bin/env bash
# Package:   torchvision 0.26.0, io.write_jpeg, io.write_png and io.write_file
# Behaviour: whether the bytes arrive is never looked at: on a full disk, over a quota or on a share
#            that has gone, they return as if all were well. Only opening the file can fail.
# Seen:      three files that are links to /dev/full, where each write fails with "no space left": no
#            error from the three, OSError from Python's own write. With room for 4,096 bytes: files
#            of 4,096 bytes, no error, and read_image cannot decode them.
# Hurts:     a script that crops, augments or saves generated pictures runs to the end with exit code
#            0, having replaced good files of the same names by empty or cut ones. The
#            documentation names no failure, and save_image of torchvision.utils, one import away,
#            raises for PNG.
# Way out:   io.encode_jpeg or encode_png, and the bytes through a file object of Python.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import resource
import signal
from pathlib import Path

import torch
from torchvision.io import encode_jpeg, read_image, write_file, write_jpeg, write_png

ROOM = 4096  # bytes
picture = torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)
jpeg = encode_jpeg(picture)
assert len(jpeg) > ROOM
writers = {
    "a.jpg": lambda path: write_jpeg(picture, path),
    "a.png": lambda path: write_png(picture, path),
    "a.bin": lambda path: write_file(path, jpeg),
    "by Python": lambda path: Path(path).write_bytes(bytes(jpeg.tolist())) and None,
}


def attempt(write, path):
    try:
        return write(path)
    except (OSError, RuntimeError) as error:
        return type(error).__name__


for name in writers:
    Path(name).symlink_to("/dev/full")
full = {name: attempt(write, name) for name, write in writers.items()}
print("no room at all:         ", full)

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error as of a full disk instead of a signal
resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))
short = {name: attempt(write, f"short_{name}") for name, write in writers.items()}
sizes = {name: Path(f"short_{name}").stat().st_size for name in writers}
read = {name: attempt(read_image, f"short_{name}") for name in ("a.jpg", "a.png")}
print("room for 4,096 bytes:   ", short, sizes, "read again:", read)

silent = {"a.jpg": None, "a.png": None, "a.bin": None, "by Python": "OSError"}
assert full == short == silent, "the behaviour has changed"
assert set(sizes.values()) == {ROOM} and set(read.values()) == {"RuntimeError"}
PYTHON
env/bin/python see.py
