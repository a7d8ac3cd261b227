#!/usr/bin/env bash
# Package:   Pillow 13.0.0 reading TIFFs that tifffile 2026.3.3 wrote
# Behaviour: a colour TIFF of 16 bits a channel opens as mode "RGB": the lower byte of each value is
#            dropped without a warning, and no attribute of the image but a raw TIFF tag tells. A grey
#            TIFF of 16 bits opens as "I;16", and convert("RGB") on it does not scale but clips: each
#            value of 255 and more becomes 255.
# Seen:      the same ramp of 12-bit values, 0 to 4095, as colour and as grey: np.asarray of the
#            colour image holds 16 different values, 0 to 15 (nearly black); the grey one converted
#            to RGB is white in 94 % of its pixels.
# Hurts:     microscopes, satellites and raw converters write such files, often with 12 of the 16
#            bits in use. A loader that does Image.open(path).convert("RGB") trains on black pictures
#            from colour files and on white ones from grey files, and nothing fails.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    pillow==13.0.0 tifffile==2026.3.3 numpy==2.4.6

cat > see.py <<'PYTHON'
import warnings

import numpy as np
import tifffile
from PIL import Image

warnings.simplefilter("error")
ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)  # 12 bits
tifffile.imwrite("grey.tif", ramp)
tifffile.imwrite("colour.tif", np.stack([ramp] * 3, axis=2), photometric="rgb")

grey, colour = Image.open("grey.tif"), Image.open("colour.tif")
print("modes", grey.mode, colour.mode)
pixels = np.asarray(colour)
print("colour:", pixels.dtype, "from", pixels.min(), "to", pixels.max())
white = (np.asarray(grey.convert("RGB")) == 255).all(axis=2).mean()
print(f"grey: {white:.0%} of the pixels are white")
assert (grey.mode, colour.mode) == ("I;16", "RGB")
assert (pixels[..., 0] == ramp >> 8).all() and pixels.max() == 15
assert round(white, 2) == 0.94
PYTHON
env/bin/python see.py
