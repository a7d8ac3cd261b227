"""A phantom of the heart in ACDC's layout: what `ventricles` draws, its labels and scribbles.

Scribbles, drawn from the labels: of a structure the pixels whose depth in it is 0.7 of the largest
in the slice, give or take half a pixel, over a drawn 60 to 90 % of the directions (of a tiny one
all); of the background a wavy curve around the heart, 8 to 30 mm away. All other pixels are 4, as
in the scribbles of Valvano et al.
"""

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.synthetic.trees import Samples, draw_tree
from pretrain.synthetic.ventricles import FRAMES, GROUPS, Grid, Heart

_VERSION = 1
_UNLABELLED = 4


def heart(root: Path, *, patients: int, size: int, slices: int, seed: int = 0) -> Path:
    """ACDC's tree TREE/{training,testing}/patientNNN, half as many patients in `testing`.

    Each has Info.cfg, the volumes over time, and of the frames ED and ES image, labels and
    scribbles. A pixel is 1.37 to 1.68 mm at 128 columns, and accordingly more where there are
    fewer; slices are 5 to 10 mm thick, more below 64 columns. The headers are like ACDC's, which
    give the size of a voxel in `pixdim` and 1 mm in the affine.

    Args:
        root: the tree's parent.
        patients: number of them in `training`.
        size: columns of a slice; it has seven eighths as many rows.
        slices: of a volume, from base to apex.
        seed: another one is other hearts.

    Raises:
        UsageError: nibabel is not installed; too small.
    """
    if size < 32 or slices < 2 or patients < 1:
        raise UsageError("a phantom has at least 1 patient, 2 slices and 32 columns")

    def fill(tree: Path, samples: Samples) -> None:
        for split, number, rng in samples:
            name = f"patient{number + 1 + (patients if split == 'testing' else 0):03d}"
            group = list(GROUPS)[number % len(GROUPS)]
            _write(Heart(rng, group, size, slices), tree / split / name)

    name = f"heart{_VERSION}-{size}px-{patients}x{slices}-seed{seed}"
    splits = {"training": patients, "testing": (patients + 1) // 2}
    return draw_tree(root / name, splits, [seed, 4], fill)


def _write(patient: Heart, folder: Path) -> None:
    """Every file of a patient."""
    drawn = [patient.draw(frame) for frame in range(1, FRAMES + 1)]
    images = np.stack([image for image, _ in drawn])
    folder.mkdir(parents=True)
    info = {"ED": 1, "ES": patient.end_systole, "Group": patient.group}
    weight = round(patient.rng.normal(75, 10), 1)
    info |= {"Height": round(patient.rng.normal(170, 8), 1), "NbFrame": FRAMES, "Weight": weight}
    write_text(folder / "Info.cfg", "".join(f"{key}: {value}\n" for key, value in info.items()))
    _save(patient, images, folder / f"{folder.name}_4d.nii.gz")
    for number in (1, patient.end_systole):
        image, labels = drawn[number - 1]
        stem = f"{folder.name}_frame{number:02d}"
        scribbles = np.stack([_scribble(one, patient.grid, patient.rng) for one in labels])
        _save(patient, image, folder / f"{stem}.nii.gz")
        _save(patient, labels, folder / f"{stem}_gt.nii.gz")
        _save(patient, scribbles, folder / f"{stem}_scribble.nii.gz", scribble=True)


def _save(patient: Heart, voxels: np.ndarray, path: Path, scribble: bool = False) -> None:
    zooms = (patient.pixel, patient.pixel, patient.thickness)
    path.write_bytes(_nifti(voxels.T, zooms, scribble))


def _scribble(labels: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Scribbles uint16 of a slice, by the rule above."""
    scribble = np.full(labels.shape, _UNLABELLED, np.uint16)
    middle = [grid.y, grid.x]
    for label in (1, 2, 3):
        inside = labels == label
        if not inside.any():
            continue
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        curve = inside & (abs(depth - max(1.0, 0.7 * depth.max())) <= 0.5)
        y, x = (axis - axis[inside].mean() for axis in middle)
        angle = (np.arctan2(y, x) + rng.uniform(0, 2 * math.pi)) % (2 * math.pi)
        part = curve & (angle < 2 * math.pi * rng.uniform(0.6, 0.9))
        scribble[part if part.any() else curve] = label
    heart = labels > 0
    if not heart.any():
        heart = np.hypot(grid.x, grid.y) < 12
    y, x = (axis - axis[heart].mean() for axis in middle)
    away = ndimage.distance_transform_edt(~heart) * grid.pixel
    wave = np.sin(rng.integers(2, 6) * np.arctan2(y, x) + rng.uniform(0, 2 * math.pi))
    scribble[(labels == 0) & (abs(away - 19 - 11 * wave) <= 0.5 * grid.pixel)] = 0
    return scribble


def _nifti(voxels: np.ndarray, zooms: tuple[float, ...], scribble: bool) -> bytes:
    """A file as ACDC's, or of scribbles as Valvano's; always the same bytes."""
    try:
        import nibabel
    except ImportError as error:
        raise UsageError("volumes are written by nibabel: pip install nibabel") from error
    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    if scribble:
        header.set_qform(np.diag([-zooms[0], -zooms[1], zooms[2], 1]), code=1)
        header.set_xyzt_units("mm")
    else:
        header.set_zooms(zooms + (1.0,) * (voxels.ndim - 3))
        header.set_sform(np.diag([-1.0, -1, 1, 1]), code=2)
    content = nibabel.Nifti1Image(voxels, None, header).to_bytes()
    return gzip.compress(content, 1, mtime=0)
