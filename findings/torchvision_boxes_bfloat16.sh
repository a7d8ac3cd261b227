#!/usr/bin/env bash
# Package:   torchvision 0.26.0 with torch 2.11.0: its detectors under
#            torch.autocast("cpu", torch.bfloat16)
# Behaviour: anchors, corrections and boxes take the type of the features, and boxes are in pixels:
#            bfloat16's 8 bits leave nothing for a fraction. From 256 pixels on a coordinate is even,
#            from 512 on a multiple of 4. No warning.
# Seen:      Faster R-CNN, an image of 800 pixels: every coordinate above 512 is a multiple of 4;
#            SSDlite, 320 pixels: above 256 all are even; in float32 0 and 17 % are. Exact boxes of
#            objects of 16, 32 and 64 pixels in 800, rounded so, overlap the objects by 0.87, 0.93 and
#            0.96 on average; 60, 23 and 0 % by less than 0.9.
# Hurts:     bfloat16 is what one takes so as not to think of scaling. A detector that is scored under
#            it loses AP at high overlaps and on small objects, most in the lower right of an image,
#            and nothing says that it is not the detector. float16 is eight times as fine.
# Way out:   heads whose outputs are float32 (a forward hook that returns `.float()`: on the RPN's head
#            and the box predictor, or on SSD's head), or no autocast where detections count.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from torchvision.models import detection
from torchvision.ops import box_iou

MODELS = {  # side of the image, options, from where on multiples of what
    "fasterrcnn_mobilenet_v3_large_320_fpn":
        (800, {"min_size": 800, "max_size": 800, "box_score_thresh": 0}, 512, 4),
    "ssdlite320_mobilenet_v3_large": (320, {"score_thresh": 0}, 256, 2),
}
for name, (side, options, start, step) in MODELS.items():
    torch.manual_seed(0)
    model = getattr(detection, name)(weights=None, weights_backbone=None, **options).eval()
    image = torch.rand(3, side, side)
    shares = {}
    for enabled in (False, True):
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            boxes = model([image])[0]["boxes"]
        inner = boxes[(boxes >= start) & (boxes < side)].float()
        assert len(inner) > 50
        shares[boxes.dtype] = float((inner % step == 0).float().mean())
    print(name, {str(dtype): f"{100 * share:.0f} %" for dtype, share in shares.items()})
    assert shares[torch.bfloat16] == 1, "the behaviour has changed"
    assert shares[torch.float32] < 0.25, "the behaviour has changed"

for size in (16, 32, 64):
    corner = torch.rand(100_000, 2) * (800 - size)
    exact = torch.cat([corner, corner + size], 1)
    pairs = zip(exact.split(1000), exact.bfloat16().float().split(1000))
    overlap = torch.cat([box_iou(one, other).diagonal() for one, other in pairs])
    below = 100 * (overlap < 0.9).float().mean()
    print(f"objects of {size} pixels: IoU {overlap.mean():.2f}, {below:.0f} % below 0.9")
PYTHON
env/bin/python see.py
