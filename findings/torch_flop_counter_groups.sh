#!/usr/bin/env bash
# Package:   torch 2.11.0, torch.utils.flop_counter.FlopCounterMode
# Behaviour: the gradients of a convolution's input and of its weight each take as many operations
#            as the forward pass, so that a backward pass counts twice. For grouped convolutions the
#            gradient of the weight is counted as if there were no groups: groups times too much.
# Seen:      128 channels, 3x3, at 14 x 14: backward over forward is 2 without groups, 3 with 2, 33
#            with 32 (ResNeXt's), 129 with 128 (depthwise), on the CPU and on the meta device.
#            timm's resnext101_32x4d at 224 pixels: 77 GFLOP an image where three forward passes are
#            48; resnet101: 46.6 of 46.8.
# Hurts:     costs and utilization (MFU) of training that are computed from it: ResNeXt comes out
#            60 % dearer than it is, and networks of depthwise convolutions (MobileNet, EfficientNet,
#            ConvNeXt) by multiples, so their utilization of a GPU looks far better than it is. The
#            forward count alone is right. No warning.
# Way out:   count the forward pass, times three.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def operations(layer, images, backward):
    with FlopCounterMode(display=False) as counter:
        output = layer(images)
        if backward:
            output.sum().backward()
    return counter.get_total_flops()


for groups in (1, 2, 32, 128):
    layer = nn.Conv2d(128, 128, 3, padding=1, groups=groups, bias=False)
    images = torch.zeros(2, 128, 14, 14, requires_grad=True)
    forward = operations(layer, images, backward=False)
    assert forward == 2 * 2 * 14 * 14 * 9 * 128 * 128 // groups
    ratio = operations(layer, images, backward=True) / forward - 1
    print(f"{groups:3} groups: forward {forward:,}, backward {ratio:g} times as many")
    assert ratio == 1 + groups, "the behaviour has changed"
PYTHON
env/bin/python see.py
