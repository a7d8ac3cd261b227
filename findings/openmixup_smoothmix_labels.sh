#!/usr/bin/env bash
# Package:   openmixup 0.2.9, models.augments.smoothmix
# Behaviour: the picture becomes image * (1 - mask) + partner * mask, and the labels come back as
#            (own, partner, lam) with lam = the mean of the mask. The heads of the package take lam for
#            the weight of the own label (lam * CE(own) + (1 - lam) * CE(partner)), as its CutMix gives
#            it; so each picture's label gets the other's share.
# Seen:      500 batches of two pictures of 32 x 32. After CutMix the label is the share of the picture
#            that is its own, exactly; after SmoothMix it is the partner's share, off by 0.25 on
#            average and by 0.71 at most.
# Hurts:     the labels sum to one and the loss falls. The less of the partner can be seen, the surer
#            its label: with a tenth of it, nine tenths. SmoothMix seems a poor method.
# Way out:   lam = 1 - kernel.mean() in smoothmix.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6
env/bin/pip install --quiet --disable-pip-version-check --no-deps openmixup==0.2.9

cat > see.py <<'PYTHON'
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

# The package needs an mmcv of 2022 to be imported; two files of it do not.
utils = sys.modules["openmixup.models.utils"] = ModuleType("openmixup.models.utils")
utils.batch_shuffle_ddp = None  # for several GPUs
torch.Tensor.cuda = lambda tensor, *_: tensor  # both ask for one


def method(name):
    folder = Path(sysconfig.get_paths()["purelib"], "openmixup/models/augments")
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)


torch.manual_seed(0)
np.random.seed(0)
images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 32, 32)
wrong = {"cutmix": [], "smoothmix": []}
for name, errors in wrong.items():
    mix = method(name)
    for _ in range(500):
        mixed, (own, partner, lam) = mix(images.clone(), torch.arange(2))
        if partner[0] == 1:
            share = 1 - float(mixed[0].mean())  # of image 0 in the first picture
            assert name == "cutmix" or abs(share - (1 - float(lam))) < 1e-5, "it has changed"
            errors.append(abs(share - float(lam)))
    print(f"{name}: label off by {np.mean(errors):.2f} on average, by {max(errors):.2g} at most")
assert max(wrong["cutmix"]) < 1e-5 and np.mean(wrong["smoothmix"]) > 0.2, "it has changed"
PYTHON
env/bin/python see.py
