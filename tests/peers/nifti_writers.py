"""Small volumes that SimpleITK and nibabel wrote, and what SimpleITK reads of them: tests/fixtures.

    python tests/peers/nifti_writers.py [--environment DIR]

The packages are installed from PyPI into an environment (in a temporary folder, or kept in DIR).
Writes tests/fixtures/nifti_writers.json: each file in base64, and its voxels (slices, rows,
columns) and sizes of voxels as SimpleITK gives them after DICOMOrient(image, "LPS").
"""

import argparse
import base64
import json
import subprocess
import tempfile
from pathlib import Path

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "nifti_writers.json"
REQUIREMENTS = ("SimpleITK==2.5.7", "nibabel==5.4.2")


def write() -> None:
    """The fixture."""
    import nibabel
    import numpy as np
    import SimpleITK as sitk

    def directed(axes: str) -> list[float]:
        turned = sitk.Image(2, 2, 2, sitk.sitkUInt8)
        return list(sitk.DICOMOrient(turned, axes).GetDirection())

    rng, cases = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as work:
        for axes in ("LPS", "RAS", "RPS", "LAS", "PLS", "ARS"):
            for dtype in (np.uint8, np.int16, np.float64):
                image = sitk.GetImageFromArray(rng.integers(0, 99, (3, 4, 5)).astype(dtype))
                image.SetSpacing((1.25, 1.5, 8.0))
                image.SetOrigin((3.0, -7.0, 11.0))
                image.SetDirection(directed(axes))
                path = Path(work) / f"{axes}-{np.dtype(dtype).name}.nii.gz"
                sitk.WriteImage(image, path)
                cases.append(("SimpleITK", path))
        for slope, dtype in ((1.0, np.float32), (0.25, np.int16)):
            header = nibabel.Nifti1Header()
            header.set_data_dtype(dtype)
            header.set_data_shape((5, 4, 3))
            header.set_zooms((1.25, 1.5, 8.0))
            header.set_sform(np.diag([-1.0, -1, 1, 1]), code=2)  # as in ACDC
            header.set_slope_inter(slope, -3)
            voxels = rng.integers(0, 99, (5, 4, 3)) * slope - 3
            path = Path(work) / f"acdc-{np.dtype(dtype).name}.nii.gz"
            nibabel.Nifti1Image(voxels, None, header).to_filename(path)
            cases.append(("nibabel", path))
        lines = []
        for writer, path in cases:
            image = sitk.DICOMOrient(sitk.ReadImage(path), "LPS")
            case = {
                "writer": writer,
                "name": path.name,
                "spacing": list(image.GetSpacing())[::-1],
                "voxels": sitk.GetArrayFromImage(image).tolist(),
                "file": base64.b64encode(path.read_bytes()).decode(),
            }
            lines.append(json.dumps(case))
    text = ",\n".join(lines)
    versions = json.dumps(REQUIREMENTS)
    FIXTURE.write_text(f'{{"versions": {versions},\n"cases": [\n{text}\n]}}\n', encoding="utf-8")


def main() -> None:
    """Run `write` where the packages are."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep it here")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        write()
        return
    from environments import make_environment

    with tempfile.TemporaryDirectory() as work:
        folder = options.environment or Path(work) / "environment"
        python = make_environment(folder, REQUIREMENTS)
        subprocess.run([python, __file__, "--inside"], check=True)


if __name__ == "__main__":
    main()
