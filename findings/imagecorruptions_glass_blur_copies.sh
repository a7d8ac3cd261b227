#!/usr/bin/env bash
# Package:   imagecorruptions 1.1.2, glass_blur (as the ImageNet-C authors' make_imagenet_c.py)
# Behaviour: glass blur is to shuffle pixels: x[h, w], x[h2, w2] = x[h2, w2], x[h, w]. Of a grey image
#            the two sides are numbers, and the line swaps them. Of a colour image they are views of
#            three values: the first assignment overwrites what the second one reads, so one pixel is
#            copied over the other, and its own value is gone.
# Seen:      a 32 x 32 image of 1024 different colours, its two Gaussian blurs left out: 411 to 608 of
#            the colours are left, some of them 19 times. A grey image keeps all of its values; the
#            same image and draws as three equal channels do not, and half of the pixels differ.
# Hurts:     who writes it anew from the paper ("locally shuffle"), on tensors or with a true swap, has
#            another corruption than the one behind the published figures, where half of the pixels
#            are lost. A grey data set (MNIST, radiographs) is corrupted otherwise as mode L than as
#            RGB, and neither the code nor the paper says so.
# Way out:   copy as they do, where figures are to be comparable: the pixel (h, w) takes the value that
#            (h2, w2) has by then. x[[h, h2], [w, w2]] = x[[h2, h], [w2, w]] would swap.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check numpy==1.26.4 scikit-image==0.20.0 \
  scipy==1.11.4 opencv-python-headless==4.10.0.84 setuptools==80.9.0
env/bin/pip install --quiet --disable-pip-version-check --no-deps imagecorruptions==1.1.2

cat > see.py <<'PYTHON'
from collections import Counter

import numpy as np
from imagecorruptions import corruptions
from PIL import Image

SIDE = 32
# The moves alone; the call itself fails since scikit-image 0.20, which has no `multichannel`.
corruptions.gaussian = lambda image, sigma, **options: image + 1e-9


def moved(image, severity):
    np.random.seed(0)
    return np.uint8(corruptions.glass_blur(Image.fromarray(image), severity))


number = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
colours = np.stack([number // 256, number % 256, np.zeros_like(number)], -1).astype(np.uint8)
grey = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE), np.uint8)
for severity in range(1, 6):
    red, green, _ = np.moveaxis(moved(colours, severity).astype(int), -1, 0)
    left = Counter((256 * red + green).ravel().tolist())
    alone = moved(grey, severity)
    channel = moved(np.stack([grey] * 3, -1), severity)[..., 0]
    differ = np.mean(alone != channel)
    print(
        f"severity {severity}: {len(left)} of {SIDE * SIDE} colours are left, one of them "
        f"{max(left.values())} times; grey and the same as RGB differ in {100 * differ:.0f} %"
    )
    assert len(left) < 700, "colours are swapped"
    assert sorted(alone.ravel()) == sorted(grey.ravel()), "grey values are lost as well"
    assert differ > 0.4
PYTHON
env/bin/python -W ignore see.py
