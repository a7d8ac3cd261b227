#!/usr/bin/env bash
# Package:   opencv-contrib-python-headless 5.0.0 (4.11.0 too),
#            cv2.saliency.StaticSaliencyFineGrained_create().computeSaliency
# Behaviour: a float32 image is taken without a word, and the bytes of its floats are read as if they
#            were its pixels: of each row the first quarter, as noise. (float64 is refused.) The map has
#            nothing to do with the image. On bytes it is right but for a sum kept in a byte: pixels
#            above 255 wrap round, so that the most salient pixels of some images become the least.
# Seen:      500 images of a bright square on grey. The most salient pixel is on the square, or at most
#            four pixels beside it, in 490 of them as bytes, and in none as floats from 0 to 1,
#            normalised or not.
# Hurts:     SaliencyMix's own code (afm-shahab-uddin/SaliencyMix, saliencymix.py and train.py, function
#            saliency_bbox) and openmixup's, which has it from there, give it the normalised float batch:
#            training runs, labels are right, and the box that should hold the object is anywhere.
#            Whoever compares with SaliencyMix by this code compares with CutMix at other places.
# Way out:   bring the image to bytes first: numpy.uint8, BGR.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
  opencv-contrib-python-headless==5.0.0.93 numpy==2.4.6

cat > see.py <<'PYTHON'
import cv2
import numpy as np

SIZE, SIDE, MARGIN, COUNT = 64, 12, 4, 500
saliency = cv2.saliency.StaticSaliencyFineGrained_create()


def peak(image):
    """As in SaliencyMix's code."""
    success, found = saliency.computeSaliency(image)
    assert success
    return np.unravel_index(np.argmax((found * 255).astype("uint8")), found.shape)


forms = {
    "bytes": lambda image: image,
    "floats from 0 to 1": lambda image: (image / 255).astype(np.float32),
    "normalised floats": lambda image: ((image / 255 - 0.45) / 0.225).astype(np.float32),
}
rng = np.random.default_rng(0)
hits = dict.fromkeys(forms, 0)
for _ in range(COUNT):
    top, left = rng.integers(MARGIN, SIZE - SIDE - MARGIN, 2)
    image = np.full((SIZE, SIZE, 3), 40, np.uint8)
    image[top : top + SIDE, left : left + SIDE] = 230
    for name, form in forms.items():
        distance = np.abs(np.array(peak(form(image))) - (top + SIDE / 2, left + SIDE / 2)).max()
        hits[name] += distance <= SIDE / 2 + MARGIN
for name, count in hits.items():
    print(f"{name}: the most salient pixel is at the square in {count} of {COUNT} images")
assert hits.pop("bytes") > 0.95 * COUNT, "the behaviour on bytes has changed"
assert max(hits.values()) < 0.05 * COUNT, "the behaviour on floats has changed"
PYTHON
env/bin/python see.py
