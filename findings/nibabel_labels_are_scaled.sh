#!/usr/bin/env bash
# Package:   nibabel 5.4.2
# Behaviour: Nifti1Image(labels, image.affine, image.header) of labels in floats, as np.zeros makes
#            them, and an image in int16 writes int16 with a scale that spreads the labels over all
#            of its range. What is read again is near the labels, above or below, and equal to
#            none but 0. Labels in integers are written as they are.
# Seen:      0, 1, 2, 3 in float64: no voxel == 1, == 2 or == 3 after reading; of astype(int) 75 %
#            of the voxels have another label, each the one below.
# Hurts:     who saves segmentations beside ACDC's or other int16 scans so has a Dice of 0 by ==, or
#            shifted classes after a cast, and a viewer shows nothing of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check nibabel==5.4.2

cat > see.py <<'PYTHON'
import nibabel
import numpy as np

rng = np.random.default_rng(0)
scan = rng.integers(0, 900, (16, 16, 4)).astype(np.int16)
nibabel.Nifti1Image(scan, np.diag([-1.5, -1.5, 10, 1])).to_filename("scan.nii.gz")
image = nibabel.load("scan.nii.gz")
truth = rng.permutation(np.repeat(np.arange(4), 256)).reshape(16, 16, 4)

found = {}
for dtype in (np.float64, np.float32, np.uint8):
    labels = np.zeros(truth.shape, dtype)
    labels[:] = truth
    nibabel.Nifti1Image(labels, image.affine, image.header).to_filename("labels.nii.gz")
    read = nibabel.load("labels.nii.gz").get_fdata()
    equal = [int((read == label).sum()) for label in range(4)]
    found[dtype.__name__] = equal, float((read.astype(int) != truth).mean())
print(found)
expected = {
    "float64": ([256, 0, 0, 0], 0.75),
    "float32": ([256, 0, 0, 0], 0.75),
    "uint8": ([256, 256, 256, 256], 0.0),
}
raise SystemExit(0 if found == expected else "the behaviour has changed")
PYTHON
env/bin/python see.py
