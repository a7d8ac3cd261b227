#!/usr/bin/env bash
# Package:   timm 1.0.31 and torchvision 0.26.0, image folders ROOT/SPLIT/CLASS/*.png
# Behaviour: both number the classes by sorting the folders' names, and neither writes the names into
#            a checkpoint. timm's train.py and validate.py sort naturally (2 before 10), torchvision's
#            ImageFolder by characters (10 before 2). With folders of one kind of name, such as
#            ImageNet's n01440764, both orders are the same, so nobody notices.
# Seen:      folders 0 to 999: 988 of 1,000 classes have another number in one library than in the
#            other; "10" is output 10 of a timm classifier and label 2 of ImageFolder.
# Hurts:     a classifier trained by one program and evaluated by a script of the other scores near
#            chance with right weights and right preprocessing: the usual suspects are all innocent.
#            With ten folders, 0 to 9, everything works; with twelve it breaks.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    torch==2.11.0 torchvision==0.26.0 timm==1.0.31 numpy==2.4.6 pillow==12.3.0

cat > see.py <<'PYTHON'
from pathlib import Path

from PIL import Image
from timm.data import create_dataset
from torchvision.datasets import ImageFolder


def count_moved(names):
    """Classes whose numbers differ, and both numbers of the class "10"."""
    root = Path(f"data{len(names)}")
    for name in names:
        (root / "train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / "train" / name / "a.png")
    by_timm = create_dataset("", root=str(root), split="train").reader.class_to_idx
    by_torchvision = ImageFolder(root / "train").class_to_idx
    assert by_timm.keys() == by_torchvision.keys() == set(names)
    moved = sum(by_timm[name] != by_torchvision[name] for name in names)
    return moved, by_timm.get("10"), by_torchvision.get("10")


digits = count_moved([str(n) for n in range(10)])
numbers = count_moved([str(n) for n in range(1000)])
print("folders 0 to 9  ", digits)
print("folders 0 to 999", numbers)
assert digits == (0, None, None)
assert numbers == (988, 10, 2), "timm and torchvision number the classes otherwise now"
PYTHON
env/bin/python see.py
