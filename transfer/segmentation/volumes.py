"""Volumes that a user gives a trained segmenter: NIfTI files, or patients as ACDC has them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.errors import UsageError
from pretrain.progress import log
from transfer.segmentation.acdc import Frame, SliceRecord
from transfer.segmentation.config import VOID
from transfer.segmentation.nifti import mean_and_deviation, read_volume
from transfer.segmentation.patients import read_patient

SUFFIXES = (".nii.gz", ".nii")
_LABELS = ("_gt", "_scribble", "_segmentation")


class VolumeFile(NamedTuple):
    """A volume that has not been read."""

    name: str
    """Its path in the folder, without its ending."""
    path: Path
    frame: int | None
    """Its number in a file of several over time."""


def find_volumes(path: Path) -> list[VolumeFile]:
    """A NIfTI file, or those of a folder and of folders in it.

    Of a folder with Info.cfg these are the frames that it calls ED and ES. Hidden files, and those
    called as labels are (_gt, _scribble, _segmentation), are passed over.

    Raises:
        UsageError: nothing there, two files of one name, or an Info.cfg that cannot be used.
    """
    if not path.exists():
        raise UsageError(f"there is no file or folder {path} with volumes.")
    folder = path if path.is_dir() else path.parent
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    files = [file for file in files if not _is_hidden(file.relative_to(folder))]
    patients = {file.parent for file in files if file.name == "Info.cfg"}
    volumes: dict[str, VolumeFile] = {}
    for patient in map(read_patient, sorted(patients)):
        for number in sorted(patient.frames.values()):
            file, frame = patient.find_frame(number)
            place = patient.folder.relative_to(folder)
            name = (place / f"{patient.name}_frame{number:02d}").as_posix()
            volumes[name] = VolumeFile(name, file, frame)
    for file in files:
        stem = file.name.removesuffix(".gz").removesuffix(".nii")
        if not is_nifti(file) or stem.endswith(_LABELS) or file.parent in patients:
            continue
        name = file.relative_to(folder).with_name(stem).as_posix()
        if name in volumes:
            raise UsageError(f"{path} has two volumes called {name}; their labels would be one.")
        volumes[name] = VolumeFile(name, file, None)
    if not volumes:
        raise UsageError(
            f"{path} holds no volume ({', '.join(SUFFIXES)}), and this segmenter was trained on "
            "slices of volumes."
        )
    return list(volumes.values())


def is_nifti(path: Path) -> bool:
    """Whether a file is called as a volume is."""
    return path.name.endswith(SUFFIXES) and path.is_file()


def read_slices(file: VolumeFile) -> list[SliceRecord]:
    """The slices of a volume, without labels; none, and a line in the log, where it is broken."""
    try:
        volume = read_volume(file.path, file.frame)
        mean, std = mean_and_deviation(volume.voxels, file.path)
    except UsageError as error:
        log(f"left out: {error}")
        return []
    labels = np.full(volume.voxels.shape, VOID, np.uint8)
    frame = Frame(file.name, volume.voxels, mean, std, volume.spacing[1:], labels)
    return [SliceRecord(frame, number) for number in range(len(labels))]


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
