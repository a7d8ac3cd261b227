#!/usr/bin/env bash
# Package:   openmixup 0.2.9, models.augments.fmix (as the authors' ecs-vlc/FMix at e5991dc)
# Behaviour: the noise behind FMix's masks is to be alike in all directions, 1 / frequency^decay_power.
#            get_spectrum draws (1, height, width / 2 + 1, 2), real and imaginary parts last, and
#            make_low_freq_image takes them from axis 1, the height: spectrum[:, 0] + 1j *
#            spectrum[:, 1]. Two rows of the spectrum are left, and irfftn reads them as frequencies
#            down the image, with 0 and 1 as the only ones across it.
# Seen:      200 masks of 64 x 64 for each decay_power: no row changes sides more than twice. A column
#            does so up to 6 times at 3 (the default), 10 times at 2 and 24 times at 1, where the mask
#            is a pile of stripes. With the way out both do so 15 times on average at 1.
# Hurts:     who lowers decay_power for smaller patches gets thinner stripes. Masks made by the paper's
#            formula are not those of the published figures, and the other way round.
# Way out:   spectrum[..., 0] + 1j * spectrum[..., 1], the first column times the square root of 2.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check numpy==2.4.6
env/bin/pip install --quiet --disable-pip-version-check --no-deps openmixup==0.2.9

cat > see.py <<'PYTHON'
import importlib.util
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

import numpy as np

# The package needs an mmcv of 2022 to be imported; what makes the masks in this file needs NumPy.
for name in ("openmixup.models.utils", "scipy", "scipy.stats", "torch"):
    sys.modules[name] = ModuleType(name)
sys.modules["openmixup.models.utils"].batch_shuffle_ddp = None
sys.modules["scipy.stats"].beta = None
sys.modules["torch"].no_grad = lambda: lambda function: function
path = Path(sysconfig.get_paths()["purelib"], "openmixup/models/augments/fmix.py")
spec = importlib.util.spec_from_file_location("fmix", path)
fmix = importlib.util.module_from_spec(spec)
spec.loader.exec_module(fmix)

np.random.seed(0)
most = {}
for decay_power in (3, 2, 1):
    masks = np.stack(
        [
            fmix.binarise_mask(fmix.make_low_freq_image(decay_power, (64, 64)), 0.5, (64, 64))[0]
            for _ in range(200)
        ]
    )
    in_columns, in_rows = ((np.diff(masks, axis=axis) != 0).sum(axis) for axis in (1, 2))
    most[decay_power] = in_rows.max(), in_columns.max()
    print(
        f"decay_power {decay_power}: a row changes sides {in_rows.mean():.1f} times, at most "
        f"{in_rows.max()}; a column {in_columns.mean():.1f} times, at most {in_columns.max()}"
    )
assert all(rows == 2 for rows, _ in most.values()), "the behaviour has changed"
assert most[3][1] > 3 and most[1][1] > 20, "the behaviour has changed"
PYTHON
env/bin/python see.py
