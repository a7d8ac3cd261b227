#!/usr/bin/env bash
# Package:   timm 1.0.31, timm.layers.DropBlock2d, and drop_block_rate of its ResNets (torch 2.11.0)
# Behaviour: the chance of a block's centre is DropBlock's gamma, which is made for centres that lie
#            where the whole block is inside: (H - size + 1) x (W - size + 1) places. The centres are
#            drawn at all H x W places, so more blocks are dropped than the rate says, and those at
#            the border are cut off. One mask is taken for all channels ("matches paper"); the
#            paper's algorithm 1 has one for each channel, "which tends to work better" (section 3).
# Seen:      of features of ones, the share that is zero at drop_prob 0.1: 7 x 7 places, blocks of
#            7: 0.93; blocks of 3: 0.15; 8 x 8, blocks of 4: 0.17; 14 x 14, blocks of 7: 0.21;
#            56 x 56, blocks of 7: 0.11. torchvision.ops.drop_block2d: 0.09 to 0.10 (less than 0.1
#            as blocks overlap). resnet50(drop_block_rate=0.1) has blocks of 3 in its last stage.
# Hurts:     the settings of papers are others: "keep_prob 0.9, block size 7" (DropBlock's ImageNet
#            row) on the last stage of a ResNet at 224 pixels erases nearly everything and scales
#            the rest up by 15 on average, without a warning; blocks of 4 at 8 x 8 places (CIFAR
#            networks) drop nearly twice the rate.
# Way out:   torchvision.ops.DropBlock2d for odd sizes; it refuses even ones.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from timm.layers import DropBlock2d
from timm.models.resnet import drop_blocks
from torchvision.ops import drop_block2d

torch.manual_seed(0)
expected = {(7, 7): 0.93, (7, 3): 0.15, (8, 4): 0.17, (14, 7): 0.21, (56, 7): 0.11}
for (side, size), wanted in expected.items():
    ones = torch.ones(2000, 1, side, side)
    share = (DropBlock2d(0.1, size).train()(ones) == 0).float().mean().item()
    line = f"{side} x {side}, blocks of {size}: timm drops {share:.3f} of the places"
    assert abs(share - wanted) < 0.02, f"the behaviour has changed: {line}"
    if size % 2:
        theirs = (drop_block2d(ones, 0.1, size) == 0).float().mean().item()
        assert 0.08 < theirs < 0.105, theirs
        line += f", torchvision {theirs:.3f}"
    print(line)
of_resnets = [layer.keywords for layer in drop_blocks(0.1) if layer]
print("ResNets:", of_resnets)
assert of_resnets[1]["block_size"] == 3, "the behaviour has changed"
PYTHON
env/bin/python see.py
