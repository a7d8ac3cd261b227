#!/usr/bin/env bash
# Package:   torchvision 0.26.0 with torch 2.11.0: torchvision.io.decode_image (and read_image) of a
#            PNG with a palette, in its default mode, UNCHANGED; such files written by Pillow 12.0.0
# Behaviour: of a palette of more than 16 colours, as Pascal VOC's, it gives the indices, which are
#            the classes of a mask. Of up to 16 colours Pillow stores 4, 2 or 1 bits a pixel, and
#            torchvision gives these bytes as they are packed, two to eight pixels in one value, at
#            the left of each row, and leaves the rest of the row to what the memory held. The shape
#            is right, and nothing is raised.
# Seen:      masks of 2, 4, 5 and 16 classes, 64 x 64: 29, 18, 12 and 3 % of the pixels are
#            right, by chance; of 17 classes all. A row [0, 1, 2, 3, 0, 1, 2, 3] of 2 bits becomes
#            [27, 27, ...]. With mode RGB the same files are decoded right, as colours.
# Hurts:     what works on Pascal VOC is tried on one's own masks, drawn with a palette of five
#            colours. Values above the classes raise in a loss, unless they are cut, mapped or
#            ignored; with a palette of two, many are 0 and 255, of which one is void by convention.
# Way out:   PIL.Image.open, whose array is the indices at any depth; or write masks as grey, or with
#            a palette of 256 colours.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    torch==2.11.0 torchvision==0.26.0 numpy==2.4.6 pillow==12.0.0

cat > see.py <<'PYTHON'
import numpy as np
from PIL import Image
from torchvision.io import ImageReadMode, decode_image


def save(mask: np.ndarray, classes: int) -> Image.Image:
    image = Image.fromarray(mask)
    image.putpalette([channel for color in range(classes) for channel in (7 * color, 9, 255 - color)])
    image.save("mask.png")
    return Image.open("mask.png")


for classes in (2, 4, 5, 16, 17):
    mask = np.random.default_rng(classes).integers(0, classes, (64, 64), dtype=np.uint8)
    theirs = save(mask, classes)
    decoded = decode_image("mask.png").numpy()
    depth = open("mask.png", "rb").read()[24]
    share = (decoded == mask).mean()
    print(f"{classes} classes, {depth} bits: {decoded.shape}, {100 * share:.0f} % of the pixels right")
    assert decoded.shape == (1, 64, 64)
    assert np.array_equal(np.array(theirs), mask)
    colors = decode_image("mask.png", ImageReadMode.RGB).permute(1, 2, 0).numpy()
    assert np.array_equal(colors, np.array(theirs.convert("RGB")))
    assert share == 1 if depth == 8 else share < 0.6, "the behaviour has changed"

row = np.array([[0, 1, 2, 3, 0, 1, 2, 3]], np.uint8)
save(row, 4)
packed = decode_image("mask.png")[0, 0].tolist()
print(f"{row[0].tolist()} becomes {packed}")
assert packed[:2] == [0b00011011] * 2, "the behaviour has changed"
PYTHON
env/bin/python see.py
