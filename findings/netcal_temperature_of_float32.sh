#!/usr/bin/env bash
# Package:   netcal 1.4.0, TemperatureScaling (method "mle", the default) on float32 probabilities
# Behaviour: the loss is computed in the type of the probabilities, and SciPy's minimize is given no
#            derivative: it moves the weight by 1.5e-8 to see the loss change. In float32 the weight
#            1 + 1.5e-8 is 1, so the loss does not change, the derivative is 0, and the optimiser
#            stops where it began. No warning; `fit` and `transform` return as usual.
# Seen:      2,000 images of ten classes whose logits are three times too large. float32: weight
#            1.000, NLL 2.07 before and after. float64 of the very same numbers: weight 0.338, NLL
#            1.30. (`.temperature` is the weight, so 1 / T: T = 2.96.)
# Hurts:     float32 is what softmax of a network is: .numpy() of it "calibrates" nothing, and the
#            figures after temperature scaling repeat those before. It reads as if the method
#            failed, not the fit.
# Way out:   .astype(np.float64) before fit and transform.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    netcal==1.4.0 torch==2.11.0 numpy==2.4.6 scipy==1.16.3

cat > see.py <<'PYTHON'
import numpy as np
import torch
from netcal.scaling import TemperatureScaling

draw = torch.Generator().manual_seed(0)
logits = 2 * torch.randn(2000, 10, generator=draw)
labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0].numpy()
softmax = (3 * logits).softmax(1).numpy()  # float32


def fit(probabilities):
    scaling = TemperatureScaling()
    scaling.fit(probabilities, labels)
    after = scaling.transform(probabilities)[np.arange(2000), labels]
    return round(float(scaling.weights[0]), 3), round(float(-np.log(after).mean()), 2)


before = round(float(-np.log(softmax[np.arange(2000), labels].astype(float)).mean()), 2)
single, double = fit(softmax), fit(softmax.astype(np.float64))
print(f"NLL before {before}; float32: weight and NLL {single}; float64: {double}")
changed = single[0] != 1 or double[0] > 0.4
raise SystemExit("the behaviour has changed" if changed else 0)
PYTHON
env/bin/python see.py
