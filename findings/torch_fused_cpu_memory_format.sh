#!/usr/bin/env bash
# Package:   torch 2.11.0, on a CPU: SGD with momentum, Adam and AdamW with fused=True
# Behaviour: the update in one pass reads weights, gradients and the optimizer's state as their
#            memory lies, and compares no strides. A state that was saved from a network in the
#            default memory format and is loaded beside the same network in channels_last gives each
#            weight the momentum of another one. No error, no warning; fused=False is exact.
# Seen:      two steps, saved, loaded, two more in channels_last: the weights are off by 40 to 50 % of
#            the way that they moved; without fused, or in one format throughout, by less than 1e-6.
# Hurts:     channels_last is the usual switch for faster convolutions, and nobody takes it for part
#            of a checkpoint: a training that is resumed with it goes on with a scrambled memory, in
#            which every name, shape, norm and learning rate is right. The loss rises a little and
#            recovers, as after any restart.
# Way out:   after load_state_dict, copy each state tensor into one of the weight's own layout:
#            torch.empty_like(weight).copy_(value).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import copy

import torch

torch.manual_seed(0)
network = torch.nn.Conv2d(8, 8, 3, bias=False)
batches = torch.randn(4, 2, 8, 12, 12)
MOMENTUM = {torch.optim.SGD: {"momentum": 0.9}}


def train(model, optimizer, batches):
    for images in batches:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()


def resumed(kind, layout, fused):
    """The weights after two steps, and two more from the saved state in a memory format."""
    options = {"lr": 0.01, "fused": fused, **MOMENTUM.get(kind, {})}
    first = copy.deepcopy(network)
    optimizer = kind(first.parameters(), **options)
    train(first, optimizer, batches[:2])
    second = copy.deepcopy(network).to(memory_format=layout)
    second.load_state_dict(first.state_dict())
    again = kind(second.parameters(), **options)
    again.load_state_dict(optimizer.state_dict())
    train(second, again, batches[2:])
    return second.weight.detach()


for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
    wanted = resumed(kind, torch.contiguous_format, False)
    way = (wanted - network.weight.detach()).norm()
    off = {
        (layout, fused): float((resumed(kind, layout, fused) - wanted).norm() / way)
        for layout in (torch.contiguous_format, torch.channels_last)
        for fused in (False, True)
    }
    for (layout, fused), share in off.items():
        print(f"{kind.__name__}, {layout}, fused={fused}: off by {share:.1e} of the way")
    assert off.pop((torch.channels_last, True)) > 0.1, "the behaviour has changed"
    assert max(off.values()) < 1e-5, "the behaviour has changed"
PYTHON
env/bin/python see.py
