#!/usr/bin/env bash
# Package:   nibabel 5.4.2 (and SimpleITK 2.5.7 beside it)
# Behaviour: header.get_zooms() is pixdim, image.affine the sform. Where a file's sform has columns
#            of 1 mm (valid: they are two fields; all of ACDC's cardiac MRI is so),
#            nibabel.processing resamples by the affine, and Nifti1Image(labels, image.affine), the
#            usual way to save a result, writes voxels of 1 mm. Nothing is warned of.
# Seen:      32 x 28 x 6 voxels of 1.5 x 1.5 x 10 mm. resample_to_output to 1.5 x 1.5 x 10 mm makes
#            them 22 x 19 x 2; SimpleITK reads (1.5, 1.5, 10) of the file, and (1, 1, 1) of the
#            labels saved so; mask_volume of one mask is 3375 mm3 before and 150 after.
# Hurts:     who resamples ACDC so loses two of three slices and half of each, and volumes and
#            surface distances of saved labels are of another heart, 22 times too small.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check nibabel==5.4.2 scipy==1.17.1 SimpleITK==2.5.7

cat > see.py <<'PYTHON'
import nibabel
import numpy as np
import SimpleITK
from nibabel.imagestats import mask_volume
from nibabel.processing import resample_to_output

header = nibabel.Nifti1Header()
header.set_data_dtype(np.uint8)
header.set_data_shape((32, 28, 6))
header.set_zooms((1.5, 1.5, 10))
header.set_sform(np.diag([-1.0, -1, 1, 1]), code=2)
mask = np.zeros((32, 28, 6), np.uint8)
mask[:5, :5, :] = 1
nibabel.Nifti1Image(mask, None, header).to_filename("acdc.nii.gz")

image = nibabel.load("acdc.nii.gz")
nibabel.Nifti1Image(mask, image.affine).to_filename("labels.nii.gz")
SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
found = {
    "resampled": resample_to_output(image, (1.5, 1.5, 10), order=0).shape,
    "file": SimpleITK.ReadImage("acdc.nii.gz").GetSpacing(),
    "labels": SimpleITK.ReadImage("labels.nii.gz").GetSpacing(),
    "volumes": (mask_volume(image), mask_volume(nibabel.load("labels.nii.gz"))),
}
print(found)
expected = {
    "resampled": (22, 19, 2),
    "file": (1.5, 1.5, 10.0),
    "labels": (1.0, 1.0, 1.0),
    "volumes": (3375.0, 150.0),
}
raise SystemExit(0 if found == expected else "the behaviour has changed")
PYTHON
env/bin/python see.py
