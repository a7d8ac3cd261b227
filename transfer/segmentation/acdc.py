"""ACDC: short-axis cine MRI of 150 hearts, the frames of end-diastole and end-systole labelled.

Bernard et al., IEEE TMI 2018; the tree is that of `patients`. Scribbles are those of Valvano et
al. (IEEE TMI 2021): patientNNN_frameNN_scribble.nii.gz beside the frames, or all of them in
ROOT/acdc_scribbles; 4 is a pixel without one.

A volume is standardised as a whole, by the mean and the deviation of all its voxels, as CycleMix
does (Zhang and Zhuang, CVPR 2022). Every slice is trained on and scored, also one without a label.
Patients 074 and 076 of ACDC are one heart, segmented twice: where one is scored, the other is not
trained on.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UsageError, shorten
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.nifti import check_labels, mean_and_deviation, read_volume
from transfer.segmentation.patients import Patient, find_file, read_patients, split_folds
from transfer.segmentation.records import SegmentationData

CLASSES = ("background", "RV", "MYO", "LV")
_UNLABELLED = 4
_SCRIBBLES = "acdc_scribbles"
_ROUNDING = 1e-3  # labels that nibabel wrote from floats are scaled, and 1 is read as 1.00002
Labels = Literal["masks", "scribbles"]


@dataclass(frozen=True, eq=False)
class Frame:
    """A volume in memory: its slices and their labels."""

    case: str
    voxels: np.ndarray
    """(slices, rows, columns), as stored."""
    mean: float
    std: float
    spacing: tuple[float, float]
    labels: np.ndarray
    """uint8, classes and VOID."""


@dataclass(frozen=True, eq=False)
class SliceRecord:
    """A slice of a frame, see `records.Record`."""

    frame: Frame
    number: int
    """From 0, as stored."""

    @property
    def image_id(self) -> str:
        """Such as patient001_frame01/slice003."""
        return f"{self.frame.case}/slice{self.number:03d}"

    @property
    def case(self) -> str:
        """The frame, such as patient001_frame01."""
        return self.frame.case

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Millimetres of a pixel down and across."""
        return self.frame.spacing

    def read_image(self) -> Tensor:
        """float32 (1, H, W), standardised by mean and deviation of the whole volume."""
        pixels = torch.from_numpy(self.frame.voxels[self.number].astype(np.float32))
        return pixels.sub_(self.frame.mean).div_(self.frame.std)[None]

    def read_mask(self) -> Tensor:
        """uint8 (H, W): classes and VOID."""
        return torch.from_numpy(self.frame.labels[self.number].copy())


def open_acdc(root: Path, config: DatasetConfig) -> SegmentationData:
    """Read the volumes into memory, where forked workers share them.

    Trained on are the patients of `training` (`config.train`) that are not of `config.fold`;
    scored are those of the fold, or of `testing` (`config.val`).

    Raises:
        UsageError: no such tree, split or file; a broken one; one that does not fit another.
    """
    name = config.train or "training"
    train, reader = read_patients(root, name), FrameReader(root, config)
    if config.fold is None:
        val_name = config.val or "testing"
        val = read_patients(root, val_name)
    else:
        if config.val is not None:
            raise UsageError("dataset.fold and dataset.val both say what is scored: give one")
        val_name = f"{name}, fold {config.fold + 1} of {config.folds}"
        val = split_folds(train, config.folds)[config.fold]
        scored = {patient.name for patient in val}
        train = [patient for patient in train if patient.name not in scored]
    val_frames, train_frames = reader.read(val, "masks"), reader.read(train, config.labels)
    reader.check()
    train_frames = _without(train_frames, val_frames, reader.notes)
    for split, frames in ((name, train_frames), (val_name, val_frames)):
        if not frames:
            raise UsageError(f"{split}: no frame is left; {'; '.join(reader.errors[:3])}")
    if both := len({patient.name for patient in train} & {patient.name for patient in val}):
        reader.notes.append(
            f"{both:,} patients are both trained on and scored: the score says little"
        )
    return SegmentationData(
        name=root.resolve().name,
        classes=config.classes or CLASSES,
        train=_slices(train_frames),
        val=_slices(val_frames),
        splits=(name, val_name),
        volumes=True,
        paths=tuple(dict.fromkeys(reader.paths)),
        annotations=tuple(dict.fromkeys(reader.annotations)),
        notes=tuple(reader.notes),
    )


class FrameReader:
    """Reads frames, and keeps what was read and what is wrong with it."""

    def __init__(self, root: Path, config: DatasetConfig) -> None:
        self.root, self.config = root, config
        self.paths: list[Path] = []
        self.annotations: list[Path] = []
        self.errors: list[str] = []
        self.notes: list[str] = []

    def read(self, patients: Sequence[Patient], labels: Labels) -> list[Frame]:
        """The frames of `config.phases`; one that cannot be used is in `errors`."""
        frames = []
        for patient in patients:
            self.annotations.append(patient.folder / "Info.cfg")
            for phase in self.config.phases:
                try:
                    frames.append(self.read_frame(patient, patient.frames[phase], labels))
                except UsageError as error:
                    self.errors.append(str(error))
        return frames

    def check(self) -> None:
        """Refuse more unusable frames than are allowed; note those that are."""
        if (count := len(self.errors)) > (most := self.config.max_corrupt):
            raise UsageError(
                f"{count} frames cannot be used, at most {most} may be: "
                f"{'; '.join(self.errors[:3])}. Repair them, or leave them out: "
                f"--dataset.max_corrupt {count}"
            )
        self.notes += [f"left out: {error}" for error in self.errors]

    def read_frame(self, patient: Patient, number: int, labels: Labels) -> Frame:
        """A frame with its labels.

        Raises:
            UsageError: a file is missing or broken, or one does not fit the other.
        """
        case = f"{patient.name}_frame{number:02d}"
        path, place = patient.find_frame(number)
        label_path = self._find_labels(patient, case, labels)
        image, given = read_volume(path, place), read_volume(label_path)
        check_labels(image, given, label_path)
        mean, std = mean_and_deviation(image.voxels, path)
        mapped = self._map(given.voxels, label_path, labels)
        self.paths.append(path)
        self.annotations.append(label_path)
        if self.config.fold is not None:  # every fold is of the same files
            with suppress(UsageError):
                self.annotations += [
                    self._find_labels(patient, case, kind) for kind in ("masks", self.config.labels)
                ]
        return Frame(case, image.voxels, mean, std, image.spacing[1:], mapped)

    def _find_labels(self, patient: Patient, case: str, labels: Labels) -> Path:
        if labels == "masks":
            return find_file(patient.folder / f"{case}_gt")
        apart = self.root / (self.config.masks or _SCRIBBLES)
        folders = [apart, apart / patient.name]
        if self.config.masks is None:
            folders.insert(0, patient.folder)
        found = [find_file(folder / f"{case}_scribble") for folder in folders]
        usable = next((path for path in found if path.is_file()), None)
        if usable is None:
            raise UsageError(
                f"{found[0].name}: is not in {' nor '.join(map(str, folders))}; "
                "--dataset.masks names the folder of the scribbles"
            )
        return usable

    def _map(self, values: np.ndarray, path: Path, labels: Labels) -> np.ndarray:
        """Classes and VOID of the values in a file."""
        config = self.config
        of_classes = config.values or tuple(range(len(config.classes or CLASSES)))
        without = set() if config.void is None else {config.void}
        if labels == "scribbles":
            without |= {_UNLABELLED} - set(of_classes)
        table = np.full(2**16, -1, np.int16)
        table[sorted(without)] = VOID
        table[list(of_classes)] = np.arange(len(of_classes))
        indices = np.rint(np.nan_to_num(values).clip(0, len(table) - 1)).astype(np.uint16)
        mapped = table[indices]
        if (unknown := (mapped < 0) | ~(abs(indices - values) <= _ROUNDING)).any():
            found = [f"{value:g}" for value in np.unique(values[unknown]).tolist()]
            raise UsageError(
                f"{path}: holds {shorten(found)}; the classes are {list(of_classes)}, and pixels "
                f"without one {sorted(without)} (--dataset.void)"
            )
        return mapped.astype(np.uint8)


def same_volumes(frames: Sequence[Frame]) -> list[tuple[str, str]]:
    """Cases that are one volume under two names, each with the first of them."""
    first, pairs = dict[tuple[object, ...], str](), list[tuple[str, str]]()
    for frame in frames:
        # of other voxels mean and deviation are others too, in double precision
        case = first.setdefault((frame.voxels.shape, frame.mean, frame.std), frame.case)
        if case != frame.case:
            pairs.append((case, frame.case))
    return pairs


def _without(train: list[Frame], val: list[Frame], notes: list[str]) -> list[Frame]:
    """What is trained on without the volumes that are scored under another name."""
    known, pairs = {frame.case for frame in val}, same_volumes([*val, *train])
    leaked = {case: scored for scored, case in pairs if scored in known and case not in known}
    notes += [
        f"{case} is the same volume as {scored}, which is scored: it is not trained on"
        for case, scored in leaked.items()
    ]
    return [frame for frame in train if frame.case not in leaked]


def _slices(frames: Sequence[Frame]) -> list[SliceRecord]:
    return [SliceRecord(frame, number) for frame in frames for number in range(len(frame.voxels))]
