#!/usr/bin/env bash
# Package:   torchcp 1.2.1, TSTrainer (temperature scaling), with its defaults (torch 2.11.0)
# Behaviour: the network is wrapped so that it divides by the first temperature, the logits are
#            collected from the wrapped one, and the loss divides them by the temperature again.
#            What is fitted is therefore T / init_temperature, and the model that is returned
#            divides once. LBFGS with a rate of 0.01 also stops on the way: 100 steps are 63 % of it.
# Seen:      2,000 images of ten classes whose logits are three times too large (optimum 2.96, NLL
#            1.296). init_temperature 1.5: "optimal temperature 1.740, NLL after scaling 1.304", and
#            the NLL of the model that is returned is 1.459. With 1: 1.496, and 1.576.
# Hurts:     conformal sets are made from the model that is returned; the figures that the trainer
#            prints say that it is calibrated. Only init_temperature 1 divides as it was fitted, and
#            then the optimum is not reached.
# Way out:   init_temperature=1, and train(loader, lr=1).
# Here:      the three files of the trainer are imported without the package around them, which
#            wants a compiler (torchsort) and transformers and has no part in it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.11.0 numpy==2.4.6 tqdm==4.67.1
env/bin/pip install --quiet --disable-pip-version-check --no-deps torchcp==1.2.1

cat > see.py <<'PYTHON'
import importlib
import importlib.metadata
import sys
import types

import torch
from torch.utils.data import DataLoader, TensorDataset

root = str(importlib.metadata.distribution("torchcp").locate_file("torchcp"))
for name in ("torchcp", "torchcp.classification", "torchcp.classification.trainer"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [root + name.removeprefix("torchcp").replace(".", "/")]
trainer = importlib.import_module("torchcp.classification.trainer.ts_trainer")

draw = torch.Generator().manual_seed(0)
logits = 2 * torch.randn(2000, 10, generator=draw)
labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
logits *= 3
nll = torch.nn.functional.cross_entropy


def fit(first, **options):
    scaling = trainer.TSTrainer(torch.nn.Identity(), init_temperature=first)
    model = scaling.train(DataLoader(TensorDataset(logits, labels), batch_size=100), **options)
    return round(model.temperature.item(), 2), round(nll(model(logits), labels).item(), 2)


found = {"1.5": fit(1.5), "1": fit(1.0), "1, lr=1": fit(1.0, lr=1)}
print(f"temperature and NLL of the model that is returned, by init_temperature: {found}")
expected = {"1.5": (1.74, 1.46), "1": (1.5, 1.58), "1, lr=1": (2.96, 1.3)}
raise SystemExit(0 if found == expected else "the behaviour has changed")
PYTHON
env/bin/python see.py
