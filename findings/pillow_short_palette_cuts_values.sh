#!/usr/bin/env bash
# Package:   Pillow 13.0.0
# Behaviour: a palette PNG gets 1, 2 or 4 bits a pixel where its palette has at most 2, 4 or 16
#            colours, whatever the pixels hold; the higher bits of a larger index are dropped. No
#            error, no warning, and the array of the image that was saved still holds 255.
# Seen:      label maps with the values 0 ... K-1 and 255 (void), a palette of K colours, saved and
#            read back: of 2 classes 255 is 1, of 3 and 4 classes it is 3, of 5 to 16 classes 15;
#            of 17 and more it stays 255. Pascal VOC's 21 classes never show it.
# Hurts:     masks of segmentation, as tools and conversions write them: a colour for each class, 255
#            where nothing is labelled. Of 2, 4 and 16 classes the unlabelled pixels become pixels of
#            the last class, and are trained on and scored as such; of the others they become a class
#            that does not exist. A palette of 256 colours keeps the values.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pillow==13.0.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import warnings

import numpy as np
from PIL import Image

warnings.simplefilter("error")


def void_read_back(classes, colours):
    labels = np.arange(classes, dtype=np.uint8).repeat(20).reshape(classes, 20)
    labels[:, 15:] = 255
    image = Image.fromarray(labels)
    image.putpalette(bytes(range(colours)) * 3)
    image.save("mask.png")
    assert np.array_equal(np.asarray(image), labels)
    read = np.asarray(Image.open("mask.png"))
    assert np.array_equal(read[:, :15], labels[:, :15])
    return int(np.unique(read[:, 15:]).item())


seen = {classes: void_read_back(classes, classes) for classes in (2, 3, 4, 5, 16, 17, 21)}
print("classes: what 255 is when it is read back", seen)
assert seen == {2: 1, 3: 3, 4: 3, 5: 15, 16: 15, 17: 255, 21: 255}
assert {void_read_back(classes, 256) for classes in (2, 3, 4, 16)} == {255}
PYTHON
env/bin/python see.py
