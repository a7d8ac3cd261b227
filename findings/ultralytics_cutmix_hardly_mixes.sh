#!/usr/bin/env bash
# Package:   ultralytics 8.4.190, training option cutmix (data.augment.CutMix)
# Behaviour: cutmix=1.0, documented as the probability of mixing, mixes few images. Three boxes are
#            drawn; one that touches any object of the image is out. Where none is left, or the
#            partner has no object with a tenth of its area in the box, the image stays as it is, in
#            silence.
# Seen:      images of 128 x 128 with 1, 5 and 15 objects of 0.15 to 0.45 of a side, all other
#            augmentation off: 31, 9 and 1 % of them are mixed. mixup=1.0 mixes 97 % (the others are
#            their own partner).
# Hurts:     whoever compares cutmix=0 with cutmix=1 on images of several objects compares two runs
#            that are nearly one, and reports that CutMix does nothing for detection. Which images
#            are mixed depends on their objects: those full of them never are.
# Way out:   count (as below) before concluding. mosaic and mixup happen as often as asked.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check ultralytics==8.4.190 torch==2.11.0 \
  torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import random
from pathlib import Path

import cv2
import numpy as np
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset

SIDE, IMAGES, ROUNDS = 128, 60, 5
OTHERS = ("mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v", "erasing")


def share_of_mixed(objects, **asked):
    """Of images that are their own number in every pixel, those with another one in them."""
    random.seed(0)
    np.random.seed(0)
    rng = np.random.default_rng(0)
    folder = Path(f"{objects}-{'-'.join(asked)}")
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for number in range(IMAGES):
        cv2.imwrite(f"{folder}/images/{number:03}.png", np.full((SIDE, SIDE, 3), number, np.uint8))
        sides = rng.uniform(0.15, 0.45, (objects, 2))
        centres = sides / 2 + rng.random((objects, 2)) * (1 - sides)
        rows = np.concatenate([np.zeros((objects, 1)), centres, sides], 1)
        np.savetxt(f"{folder}/labels/{number:03}.txt", rows, "%g")
    options = get_cfg(overrides=dict.fromkeys(OTHERS, 0.0) | asked)
    data = {"names": {0: "thing"}, "nc": 1, "channels": 3}
    images = YOLODataset(f"{folder}/images", imgsz=SIDE, data=data, hyp=options)
    order = [*range(IMAGES)] * ROUNDS
    mixed = [bool((images[number]["img"] != number).any()) for number in order]
    return sum(mixed) / len(mixed)


found = {objects: share_of_mixed(objects, cutmix=1.0) for objects in (1, 5, 15)}
print(", ".join(f"{objects} objects: {100 * share:.0f} %" for objects, share in found.items()))
mixup = share_of_mixed(5, mixup=1.0)
print(f"mixup=1.0, 5 objects: {100 * mixup:.0f} %")
assert found[1] < 0.5 and found[5] < 0.2 and found[15] < 0.05, "the behaviour has changed"
assert mixup > 0.95, "the behaviour has changed"
PYTHON
env/bin/python see.py 2>&1 | grep -v "^WARNING\|Scanning\|New cache"
