#!/usr/bin/env bash
# Package:   foolbox 3.3.4 on eagerpy 0.30.0 (torch 2.11.0)
# Behaviour: a gradient attack on a PyTorch model calls loss.backward(), so each of its steps also
#            adds the attack's gradient of the weights to their .grad. Nothing resets it: what the
#            next optimizer.step() applies is the training loss's gradient plus those of all steps,
#            of a sum over the batch and not of its mean.
# Seen:      adversarial training as it is usually written, zero_grad, attack, backward, step: after
#            an attack of 10 steps on 32 images the gradient is 310 times as long as that of the
#            training loss; with zero_grad after the attack, too, it is that.
# Hurts:     plain SGD takes steps of hundreds of times the learning rate; gradient clipping and
#            Adam hide the size, not that most of the gradient is of images on the attack's way.
#            Gradients accumulated over micro-batches are mixed with it, or lost to a zero_grad.
#            No warning, and model.eval() changes nothing. torchattacks, which is called alike,
#            takes torch.autograd.grad and leaves the weights' gradients alone.
# Way out:   optimizer.zero_grad() after the attack, not before; or weights that want no gradient
#            while it runs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    foolbox==3.3.4 eagerpy==0.30.0 torch==2.11.0 numpy==2.4.6 setuptools==80.9.0

cat > see.py <<'PYTHON'
import foolbox
import torch
from torch import nn
from torch.nn import functional

torch.manual_seed(0)
network = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10))
optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
pixels, labels = torch.rand(32, 3, 16, 16), torch.randint(10, (32,))
attack = foolbox.attacks.LinfPGD(abs_stepsize=2 / 255, steps=10, random_start=False)


def gradient(zero_after: bool) -> torch.Tensor:
    optimizer.zero_grad()
    network.eval()
    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    _, attacked, _ = attack(model, pixels, labels, epsilons=8 / 255)
    network.train()
    if zero_after:
        optimizer.zero_grad()
    functional.cross_entropy(network(attacked), labels).backward()
    return torch.cat([weights.grad.flatten() for weights in network.parameters()])


before, after = gradient(zero_after=False), gradient(zero_after=True)
times = float(before.norm() / after.norm())
print(f"zero_grad before the attack: a gradient {times:.0f} times as long as after it")
assert times > 100, "the behaviour has changed"
PYTHON
env/bin/python see.py
