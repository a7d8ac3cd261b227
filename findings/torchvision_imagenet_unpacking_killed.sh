#!/usr/bin/env bash
# Package:   torchvision 0.29.1, datasets.ImageNet(root, "train") beside ILSVRC2012_img_train.tar
# Behaviour: it unpacks the archive into root/train at the first call, class by class, and takes
#            root/train as it stands at every later one. Where the first was ended in between, what
#            is there is the data set: classes whose archive is not unpacked yet are left out, and
#            all behind them have other numbers. No error, no warning, and no call unpacks the rest.
# Seen:      SIGKILL after three of five classes, the third half done: the next call gives 3 classes
#            and 8 images instead of 5 and 15; a class is number 1 instead of 2. len() and training
#            work.
# Hurts:     unpacking 138 GB takes an hour or more, longer than many a job's time limit. The next
#            job trains on a part of ImageNet with shifted labels; its own validation, if it was
#            cut short in the same way, agrees with it, and a published checkpoint scores near
#            chance on these labels.
# Way out:   len(ImageNet(root, "train")) must be 1,281,167; otherwise remove root/train.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    torch==2.14.1 torchvision==0.29.1 scipy==1.17.1 numpy==2.4.6 pillow==13.0.0

cat > see.py <<'PYTHON'
"""A small archive of the same form; its hash takes the place of the published one."""

import hashlib
import io
import os
import shutil
import signal
import sys
import tarfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.datasets import ImageNet, imagenet

SYNSETS = ["n01440764", "n01443537", "n01484850", "n01491361", "n01494475"]
root = Path("imagenet")


def pack(files):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, held in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(held)
            archive.addfile(entry, io.BytesIO(held))
    return content.getvalue()


def draw(seed):
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(content, "JPEG")
    return content.getvalue()


root.mkdir(exist_ok=True)
archive = root / "ILSVRC2012_img_train.tar"
archive.write_bytes(
    pack({f"{s}.tar": pack({f"{s}_{n}.JPEG": draw(n) for n in range(3)}) for s in SYNSETS})
)
digest = hashlib.md5(archive.read_bytes()).hexdigest()
imagenet.ARCHIVE_META["train"] = (archive.name, digest)
# what the development kit's archive is read into
torch.save(({s: (f"word of {s}",) for s in SYNSETS}, []), root / "meta.bin")


def kill_in_third_class():
    extract, count = imagenet.extract_archive, 0
    order = os.listdir
    imagenet.os.listdir = lambda path: sorted(order(path), key=lambda name: name[-5::-1])

    def extract_archive(source, target=None, remove_finished=False):
        nonlocal count
        count += str(source).endswith(".tar") and "img_train" not in str(source)
        if count == 3:
            with tarfile.open(source) as opened:
                for member in opened.getmembers()[:2]:
                    opened.extract(member, target, filter="data")
            os.kill(os.getpid(), signal.SIGKILL)
        return extract(source, target, remove_finished)

    imagenet.extract_archive = extract_archive
    ImageNet(root, "train")


if sys.argv[1] == "kill":
    kill_in_third_class()
found = ImageNet(root, "train")
print(len(found.wnids), "classes,", len(found), "images,", found.wnid_to_idx)
if sys.argv[1] == "again":
    assert (len(found.wnids), len(found)) == (3, 8), "the rest is unpacked or missed now"
    moved = [s for s, n in found.wnid_to_idx.items() if SYNSETS.index(s) != n]
    assert moved, "the numbers are right now"
    assert len(list((root / "train").glob("*.tar"))) == 3, "an archive more or less is left"
    shutil.rmtree(root / "train")
else:
    assert (len(found.wnids), len(found)) == (5, 15)
PYTHON
env/bin/python see.py kill || echo "ended by signal $(($? - 128))"
env/bin/python see.py again
env/bin/python see.py whole
