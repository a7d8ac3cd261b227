#!/usr/bin/env bash
# Package:   Pillow 13.0.0, Image.save of JPEG, BMP and TIFF into a file
# Behaviour: where the disk becomes full within the last piece that is written, save() returns as if
#            all were well, and the file is cut off there. Pieces have 64 KiB, so a small picture is
#            one piece. PNG, GIF and WebP raise OSError.
# Seen:      noise of 128 x 128 (JPEG 10 kB, BMP and TIFF 49 kB) and room for 8,192 bytes: three files
#            of 8,192 bytes, no error. A real file system of 8 kB gives the same.
# Hurts:     a script that crops or shrinks a data set ends with exit code 0 and damaged files in it,
#            and what catches OSError around save() to clean up, as it does for PNG, is never
#            reached. Pillow and torchvision refuse such a file hours later, in training; OpenCV
#            fills the missing rows with grey and a line on stderr, and trains on them.
# Way out:   save into io.BytesIO and write its bytes with a file object of Python, which raises.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    pillow==13.0.0 numpy==2.4.6 opencv-python-headless==5.0.0.93

cat > see.py <<'PYTHON'
import errno
import io
import resource
import signal
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

ROOM = 8192  # bytes; a limit on the size of files stands for what is left on the disk
noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # an error as of a full disk instead of a signal
resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, ROOM))


def save(suffix):
    path, whole = Path(f"noise.{suffix}"), io.BytesIO()
    noise.save(whole, Image.registered_extensions()[path.suffix])
    assert whole.tell() > ROOM
    try:
        noise.save(path)
    except OSError as error:
        return f"OSError {error.errno}"
    assert path.read_bytes() == whole.getvalue()[:ROOM]
    return "saved"


seen = {suffix: save(suffix) for suffix in ("jpg", "bmp", "tif", "png", "gif", "webp")}
print(seen)
raises = dict.fromkeys(("png", "gif", "webp"), f"OSError {errno.EFBIG}")
assert seen == dict.fromkeys(("jpg", "bmp", "tif"), "saved") | raises, "the behaviour has changed"

cut = cv2.imread("noise.jpg")
print("OpenCV reads the JPEG:", cut.shape, "with last rows of one colour:", cut[-1, -1])
assert cut.shape == (128, 128, 3) and (np.ptp(cut[-8:], axis=(0, 1)) == 0).all()
PYTHON
env/bin/python see.py
