#!/usr/bin/env bash
# Package:   torchvision 0.26.0, models.detection.anchor_utils.AnchorGenerator (FCOS, RetinaNet)
# Behaviour: the stride of a level is the height of the padded batch divided by the rows of the level,
#            rounded down. Where the batch is no multiple of 128 pixels, anchors of the coarse levels
#            stand elsewhere than the features that answer for them, and they move with the sizes of
#            the other images of the batch.
# Seen:      on 800 x 1344 pixels, the usual size, the lowest points of FCOS's levels of stride 64 and
#            128 lie 36 and 84 pixels above their features. One and the same answer of the network for
#            a wide image is other boxes once a tall image is in the batch, by up to 36 pixels.
# Hurts:     what is found in an image depends on its neighbours, and weights from detectron2 or
#            MMDetection, which keep the stride, find large objects beside where they are. Nothing
#            raises; the sizes that tests take, multiples of 128, hide it.
# Way out:   an AnchorGenerator whose forward gives grid_anchors the strides 8, 16, 32, 64, 128.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from torch import nn
from torchvision.models.detection import FCOS

STRIDES = (8, 16, 32, 64, 128)


class Levels(nn.Module):
    """The same features everywhere, in levels of the usual sizes."""

    out_channels = 64

    def forward(self, images):
        height, width = images.shape[-2:]
        shapes = [(-(-height // s), -(-width // s)) for s in STRIDES]
        return {str(k): torch.ones(len(images), 64, *shape) for k, shape in enumerate(shapes)}


torch.manual_seed(0)
detector = FCOS(Levels(), num_classes=2).eval()
seen = []
generate = detector.anchor_generator.forward


def keep(images, levels):
    anchors = generate(images, levels)
    places = [level.shape[-2] * level.shape[-1] for level in levels]
    seen.append([(part[:, 1] + part[:, 3]) / 2 for part in anchors[0].split(places)])
    return anchors


detector.anchor_generator.forward = keep
wide, tall = torch.zeros(3, 800, 1333), torch.zeros(3, 1333, 800)
with torch.inference_mode():
    detector([wide])
    detector([wide, tall])
alone, together = seen
off = []
for stride, rows in zip(STRIDES, alone, strict=True):
    feature = stride * (-(-800 // stride) - 1)
    off.append(feature - int(rows.max()))
    print(f"stride {stride:3}: the last row of features is at {feature}, its points at {rows.max():.0f}")
rows = alone[3].unique()
moved = int((together[3].unique()[: len(rows)] - rows).max())
print(f"with a tall image in the batch, points of stride 64 move by up to {moved} pixels")
assert off == [0, 0, 0, 36, 84], off
assert moved == 36, moved
PYTHON
env/bin/python see.py
