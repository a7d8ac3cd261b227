"""Volumes in NIfTI files (.nii, .nii.gz): x, y, and slices along the third axis; time the fourth.

The size of a voxel is the header's `pixdim`, not the length of the affine's columns: in ACDC's
files these are 1 mm, whatever the voxels are. The affine says only where the axes point. Slices are
turned as ACDC's are: columns go to the patient's left, rows to the back. Where the third axis does
not point up or down, the slices stay as they are stored.
"""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pretrain.errors import UsageError, first_line
from pretrain.files import atomic

_SAME = 1e-3  # millimetres by which the voxels of two files may differ in size
_LARGEST = 100.0  # millimetres; a unit may be wrong, and an image of such pixels fills the memory


@dataclass(frozen=True, eq=False)
class Volume:
    """The slices of a file."""

    voxels: np.ndarray
    """(slices, rows, columns), as stored; float32 where that is float, or scaled by the header."""
    spacing: tuple[float, float, float]
    """Millimetres from slice to slice, row to row, column to column."""
    axes: str
    """Where the file's own axes point: LPS in ACDC; "" where it does not say."""


def read_volume(path: Path, frame: int | None = None) -> Volume:
    """Read a volume.

    Args:
        path: of a volume, or of several over time.
        frame: which of these, 1 the first; None of a volume.

    Raises:
        UsageError: missing, broken, with other axes than these, or voxels without a size.
    """
    image = open_nifti(path)
    shape = image.shape[:3] if image.shape[3:] == (1,) and frame is None else image.shape
    if len(shape) != (3 if frame is None else 4):
        what = "a volume has 3" if frame is None else "volumes over time have 4"
        raise UsageError(f"{path}: has {len(shape)} axes, {shape}; {what}")
    if frame is not None and not 1 <= frame <= shape[3]:
        raise UsageError(f"{path}: holds frames 1 to {shape[3]}, and {frame} is asked for")
    if 0 in shape:
        raise UsageError(f"{path}: has x, y, slices {shape}; there is no voxel")
    spacing = _spacing(path, image)
    try:
        part = image.dataobj if image.ndim == 3 else image.dataobj[..., (frame or 1) - 1]
        voxels = np.asanyarray(part)
    except Exception as error:  # of a broken file, whatever it is
        raise UsageError(f"{path}: is broken: {first_line(error)}") from error
    if voxels.dtype.kind not in "iuf":
        raise UsageError(f"{path}: holds {voxels.dtype}; plain numbers are read")
    if voxels.dtype.kind == "f":
        voxels = voxels.astype(np.float32)
    turn = _turn(image)
    slices = np.ascontiguousarray(turn.apply(voxels.T))
    sizes = spacing[::-1] if not turn.swap else (spacing[2], spacing[0], spacing[1])
    return Volume(slices, sizes, _axes(image))


def mean_and_deviation(voxels: np.ndarray, path: Path) -> tuple[float, float]:
    """Of all voxels of the file `path`; UsageError where they cannot be standardised by it."""
    mean, std = voxels.mean(dtype=np.float64), voxels.std(dtype=np.float64)
    if not (np.isfinite(std) and std > 0):
        raise UsageError(f"{path}: all its voxels are alike, or one is no number")
    return float(mean), float(std)


def check_labels(image: Volume, labels: Volume, path: Path) -> None:
    """UsageError where the labels of the file `path` are of another grid than the image.

    Where the grids lie is not compared: ACDC's scribbles lie elsewhere than its images.
    """
    if labels.voxels.shape != image.voxels.shape:
        raise UsageError(
            f"{path}: has slices, rows, columns {labels.voxels.shape}, and its image "
            f"{image.voxels.shape}"
        )
    if labels.axes and image.axes and labels.axes != image.axes:
        raise UsageError(
            f"{path}: its axes point to {labels.axes}, and those of its image to {image.axes}: "
            "write both with the same header"
        )
    if not np.allclose(labels.spacing, image.spacing, rtol=0, atol=_SAME):
        raise UsageError(
            f"{path}: its voxels have {_in_words(labels.spacing)}, and those of its image "
            f"{_in_words(image.spacing)}: write both with the same header"
        )


def write_labels(source: Path, label_volume: np.ndarray, path: Path) -> None:
    """Write a label volume in the grid of a file and with its header, whole or not at all.

    Args:
        source: the image's file.
        label_volume: (slices, rows, columns), as `read_volume` gives the image's; 0 to 255.
        path: of the new file, .nii or .nii.gz.

    Raises:
        UsageError: the source cannot be read, or the file not be written.
    """
    image = open_nifti(source)
    header = image.header.copy()
    header.set_data_dtype(np.uint8)
    header["scl_slope"], header["scl_inter"] = math.nan, math.nan
    header["cal_min"], header["cal_max"] = 0, 0
    stored = _turn(image).undo(label_volume).T.astype(np.uint8)
    with atomic(path) as temporary:
        temporary.write_bytes(nifti_bytes(stored, header, compressed=path.suffix == ".gz"))


def nifti_bytes(voxels: np.ndarray, header: Any, compressed: bool = True) -> bytes:
    """The content of a file of voxels (x, y, z[, t]), always the same bytes."""
    content: bytes = _nibabel().Nifti1Image(voxels, None, header).to_bytes()
    return gzip.compress(content, 6, mtime=0) if compressed else content


def open_nifti(path: Path) -> Any:
    """An image of nibabel's with its header read; UsageError where the file is none."""
    if not path.is_file():
        raise UsageError(f"{path}: there is no such file")
    nibabel = _nibabel()
    try:
        image = nibabel.load(path)
    except Exception as error:  # of a broken file, whatever it is
        raise UsageError(f"{path}: is no NIfTI file: {first_line(error)}") from error
    if not isinstance(image, nibabel.Nifti1Image):
        raise UsageError(f"{path}: is {type(image).__name__}; NIfTI (.nii, .nii.gz) is read")
    if not np.isfinite(image.affine).all():
        raise UsageError(f"{path}: its affine holds what is no number: write its header anew")
    return image


class _Turn(NamedTuple):
    """From slices as stored to ACDC's: rows and columns swapped, then flipped."""

    swap: bool = False
    rows: bool = False
    columns: bool = False

    def apply(self, slices: np.ndarray) -> np.ndarray:
        turned = slices.swapaxes(1, 2) if self.swap else slices
        return self._flip(turned)

    def undo(self, slices: np.ndarray) -> np.ndarray:
        turned = self._flip(slices)
        return turned.swapaxes(1, 2) if self.swap else turned

    def _flip(self, slices: np.ndarray) -> np.ndarray:
        return slices[:, :: -1 if self.rows else 1, :: -1 if self.columns else 1]


def _turn(image: Any) -> _Turn:
    axes = _axes(image)
    if not axes or axes[2] not in "SI":
        return _Turn()
    swap = axes[0] in "AP"
    return _Turn(swap, rows="A" in axes, columns="R" in axes)


def _axes(image: Any) -> str:
    if not image.header["qform_code"] and not image.header["sform_code"]:
        return ""
    codes = _nibabel().aff2axcodes(image.affine)
    return "".join(codes) if all(codes) else ""


def _spacing(path: Path, image: Any) -> tuple[float, float, float]:
    """Millimetres along the stored axes; ACDC names no unit, which are millimetres then."""
    with _nibabel().openers.ImageOpener(path) as file:
        header = image.header_class.from_fileobj(file, check=False)  # a check makes 1 of 0
    unit, _ = image.header.get_xyzt_units()
    factor = {"meter": 1000.0, "micron": 0.001}.get(unit, 1.0)
    x, y, z = (factor * abs(float(size)) for size in header["pixdim"][1:4])
    if not all(0 < size <= _LARGEST for size in (x, y, z)):
        raise UsageError(
            f"{path}: its voxels have {_in_words((x, y, z))}; all must be above 0 and at most "
            f"{_LARGEST:g} mm"
        )
    if z < max(x, y) - _SAME:
        raise UsageError(
            f"{path}: its voxels have {_in_words((x, y, z))}; slices lie along the third axis, "
            "which must be the coarsest: turn the volume's axes first"
        )
    return x, y, z


def _in_words(sizes: tuple[float, ...]) -> str:
    return " x ".join(f"{size:.4g}" for size in sizes) + " mm"


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise UsageError(
            "volumes are read by nibabel, which is not installed: pip install nibabel, or this "
            "package with the extra nifti"
        ) from error
    return nibabel
