"""ACDC: short-axis cine MRI of 150 hearts, the frames of end-diastole and end-systole labelled.

Bernard et al., IEEE TMI 2018. The tree is ROOT/{training,testing}/patientNNN/, or the same below
ROOT/database: Info.cfg says which frames are ED and ES and the patient's group;
patientNNN_frameNN.nii.gz is such a frame, patientNNN_frameNN_gt.nii.gz its labels, and
patientNNN_4d.nii.gz holds all frames. Scribbles are those of Valvano et al. (IEEE TMI 2021):
patientNNN_frameNN_scribble.nii.gz beside the frames, or all of them in ROOT/acdc_scribbles; 4 is a
pixel without one.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pretrain.errors import UsageError, shorten
from pretrain.reading import read_text
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.nifti import check_labels, read_volume
from transfer.segmentation.records import SegmentationData

CLASSES = ("background", "RV", "MYO", "LV")
_UNLABELLED = 4
_SCRIBBLES = "acdc_scribbles"


@dataclass(frozen=True)
class Patient:
    """What Info.cfg says, and the folder."""

    folder: Path
    group: str
    """NOR, MINF, DCM, HCM or RV; "" where it is not given."""
    frames: Mapping[str, int]
    """ED and ES: numbers of the frames, from 1."""
    num_frames: int | None

    @property
    def name(self) -> str:
        """Of the folder: patientNNN."""
        return self.folder.name


@dataclass(frozen=True, eq=False)
class Frame:
    """A volume in memory: its slices and their labels."""

    case: str
    voxels: np.ndarray
    """(slices, rows, columns)."""
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
        frame = self.frame
        pixels = (frame.voxels[self.number].astype(np.float32) - frame.mean) / frame.std
        return torch.from_numpy(pixels.astype(np.float32)[None])

    def read_mask(self) -> Tensor:
        """uint8 (H, W): classes and VOID."""
        return torch.from_numpy(self.frame.labels[self.number].copy())


def is_acdc(root: Path) -> bool:
    """Whether a folder holds ACDC's tree."""
    return any(find_split(root, split) is not None for split in ("training", "testing"))


def find_split(root: Path, split: str) -> Path | None:
    """The folder of a split, where there is one with patients."""
    for folder in (root / split, root / "database" / split):
        if any(folder.glob("patient*/Info.cfg")):
            return folder
    return None


def open_acdc(root: Path, config: DatasetConfig) -> SegmentationData:
    """Read the volumes into memory.

    Training: the patients of `training` (`config.train`) that are not of `config.fold`; scored are
    those of the fold, or `testing` (`config.val`). The volumes are kept as they are stored, once
    for all workers that are forked.

    Raises:
        UsageError: no such tree, split or frame; a broken file; one that does not fit another.
    """
    splits = config.train or "training", config.val or "testing"
    train = read_patients(root, splits[0])
    if config.fold is None:
        val = read_patients(root, splits[1])
    else:
        parts = split_folds(train, config.folds)
        val = parts[config.fold]
        train = [one for number, part in enumerate(parts) if number != config.fold for one in part]
        splits = splits[0], f"{splits[0]}, fold {config.fold + 1} of {config.folds}"
    reader = _Reader(root, config)
    train_frames = reader.read(train, config.labels)
    val_frames = reader.read(val, "masks")
    reader.check()
    return SegmentationData(
        name="ACDC",
        classes=config.classes or CLASSES,
        train=_slices(train_frames),
        val=_slices(val_frames),
        splits=splits,
        volumes=True,
        paths=tuple(reader.paths),
        annotations=tuple(reader.annotations),
        notes=tuple(reader.notes),
    )


def read_patients(root: Path, split: str) -> list[Patient]:
    """The patients of a split, in the order of their names."""
    folder = find_split(root, split)
    if folder is None:
        raise UsageError(f"{root}: has no {split}/patientNNN/Info.cfg, nor in database/")
    return [read_patient(path.parent) for path in sorted(folder.glob("patient*/Info.cfg"))]


def read_patient(folder: Path) -> Patient:
    """What Info.cfg says."""
    path = folder / "Info.cfg"
    pairs = (line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    said = {key.strip(): value.strip() for key, value in pairs}

    def number(key: str) -> int | None:
        text = said.get(key)
        if text is not None and not re.fullmatch("[0-9]{1,4}", text):
            raise UsageError(f"{path}: {key} is {text!r:.40}; it must be a whole number")
        return None if text is None else int(text)

    frames = {phase: number(phase) for phase in ("ED", "ES")}
    if missing := [phase for phase, frame in frames.items() if not frame]:
        raise UsageError(f"{path}: does not say which frame is {' or '.join(missing)}")
    given = {phase: frame for phase, frame in frames.items() if frame}
    count = number("NbFrame")
    if count is not None and max(given.values()) > count:
        raise UsageError(f"{path}: ED and ES are {given}, but NbFrame is {count}")
    if given["ED"] == given["ES"]:
        raise UsageError(f"{path}: ED and ES are one frame, {given['ED']}")
    return Patient(folder, said.get("Group", ""), given, count)


def split_folds(patients: Sequence[Patient], folds: int) -> list[list[Patient]]:
    """Patients dealt out to so many folds, group by group, in the order of their names.

    The numbers of patients of a group differ by at most one between folds, and those of all
    patients too. It is the same split for any seed and any phases.
    """
    if len(patients) < folds:
        raise UsageError(
            f"dataset.folds is {folds}, but there are only {len(patients)} patients to deal out"
        )
    ordered = sorted(patients, key=lambda patient: (patient.group, patient.name))
    return [ordered[number::folds] for number in range(folds)]


class _Reader:
    """Reads frames, and collects what was read and what is wrong with it."""

    def __init__(self, root: Path, config: DatasetConfig) -> None:
        self.root, self.config = root, config
        self.paths: list[Path] = []
        self.annotations: list[Path] = []
        self.errors: list[str] = []
        self.notes: list[str] = []
        self.seen: dict[tuple[object, ...], str] = {}

    def read(self, patients: Sequence[Patient], labels: str) -> list[Frame]:
        frames = []
        for patient in patients:
            self.annotations.append(patient.folder / "Info.cfg")
            for phase in self.config.phases:
                try:
                    frames.append(self._read(patient, patient.frames[phase], labels))
                except UsageError as error:
                    self.errors.append(str(error))
        return frames

    def check(self) -> None:
        """Refuse more broken frames than are allowed."""
        if len(self.errors) > self.config.max_corrupt:
            raise UsageError(
                f"{len(self.errors)} frames cannot be used: {shorten(self.errors, 3)}. Repair "
                f"them, or leave them out: --dataset.max_corrupt {len(self.errors)}"
            )
        self.notes += [f"left out: {error}" for error in self.errors]

    def _read(self, patient: Patient, number: int, labels: str) -> Frame:
        case = f"{patient.name}_frame{number:02d}"
        path, frame = find_frame(patient, number)
        image = read_volume(path, frame)
        label_path = self._label_path(patient, case, labels)
        given = read_volume(label_path)
        check_labels(image, given, label_path)
        mean, std = float(image.voxels.mean(dtype=np.float64)), float(image.voxels.std(dtype=float))
        if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
            raise UsageError(f"{path}: all of its voxels are alike, or one is no number")
        key = (image.voxels.shape, mean, std)
        if (other := self.seen.setdefault(key, case)) != case:
            raise UsageError(f"{path}: holds the same volume as {other}")
        self.paths.append(path)
        self.annotations.append(label_path)
        mapped = self._map(given.voxels, label_path, labels)
        return Frame(case, image.voxels, mean, std, image.spacing[1:], mapped)

    def _label_path(self, patient: Patient, case: str, labels: str) -> Path:
        if labels == "masks":
            return find_file(patient.folder / f"{case}_gt")
        name = f"{case}_scribble"
        folders = [self.root / (self.config.masks or _SCRIBBLES)]
        folders = folders if self.config.masks else [patient.folder, *folders]
        folders += [folders[-1] / patient.name]
        for folder in folders:
            for ending in (".nii.gz", ".nii"):
                if (path := folder / f"{name}{ending}").is_file():
                    return path
        raise UsageError(f"{name}.nii.gz: is not in {' nor '.join(map(str, folders))}")

    def _map(self, values: np.ndarray, path: Path, labels: str) -> np.ndarray:
        """Classes and VOID of the file's values."""
        config = self.config
        of_classes = config.values or tuple(range(len(config.classes or CLASSES)))
        without = {config.void} if config.void is not None else set()
        if labels == "scribbles" and _UNLABELLED not in of_classes:
            without.add(_UNLABELLED)
        found, places = np.unique(values, return_inverse=True)
        table = {float(value): number for number, value in enumerate(of_classes)}
        table |= dict.fromkeys(map(float, without), VOID)
        if unknown := [f"{value:g}" for value in found.tolist() if value not in table]:
            raise UsageError(
                f"{path}: holds {shorten(unknown)}; the classes are {list(of_classes)}, and "
                f"pixels without one {sorted(without)}. Give --dataset.void if that is another"
            )
        mapped = np.array([table[value] for value in found.tolist()], np.uint8)
        return mapped[places].reshape(values.shape)


def find_file(stem: Path) -> Path:
    """The file of this name with the ending .nii.gz, or else .nii."""
    packed, plain = stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}.nii")
    return plain if plain.is_file() and not packed.is_file() else packed


def find_frame(patient: Patient, number: int) -> tuple[Path, int | None]:
    """The file of a frame; without one that of all frames, and the number in it."""
    path = find_file(patient.folder / f"{patient.name}_frame{number:02d}")
    if path.is_file():
        return path, None
    over_time = find_file(patient.folder / f"{patient.name}_4d")
    if over_time.is_file():
        return over_time, number
    others = sorted(one.name for one in patient.folder.glob("*_frame*") if "_gt" not in one.name)
    raise UsageError(
        f"{path}: there is no such file, and no {over_time.name}; Info.cfg names frame {number}, "
        f"and there are {shorten(others) or 'none'}"
    )


def _slices(frames: Sequence[Frame]) -> list[SliceRecord]:
    return [SliceRecord(frame, number) for frame in frames for number in range(len(frame.voxels))]
