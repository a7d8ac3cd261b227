"""Who is in an ACDC tree: patients, their files, the splits of the data set and of others.

The tree is ROOT/{training,testing}/patientNNN/, or the same below ROOT/database, with Info.cfg,
patientNNN_frameNN.nii.gz, patientNNN_frameNN_gt.nii.gz and patientNNN_4d.nii.gz in each folder.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UsageError, shorten
from pretrain.reading import read_text

# of `training`, as data_interface/utils_acdc/split_data.py of Valvano et al. (IEEE TMI 2021) has
# them: of the 70 patients left, these 35 give scribbles, the others unpaired masks
_VALVANO = {
    "valvano_train": (
        *(4, 6, 14, 19, 21, 26, 28, 31, 35, 37, 38, 43, 45, 46, 50, 52, 53, 54, 56, 59, 61, 63),
        *(69, 71, 74, 88, 89, 90, 91, 93, 94, 97, 98, 99, 100),
    ),
    "valvano_val": (1, 17, 18, 22, 25, 27, 32, 44, 49, 57, 79, 81, 84, 95, 96),
    "valvano_test": (5, 10, 24, 30, 36, 39, 41, 60, 64, 72, 73, 77, 78, 80, 82),
}


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

    def find_frame(self, number: int) -> tuple[Path, int | None]:
        """The file of a frame and None; else that of all frames, and the frame's number in it.

        Raises:
            UsageError: there is neither.
        """
        path = find_file(self.folder / f"{self.name}_frame{number:02d}")
        if path.is_file():
            return path, None
        over_time = find_file(self.folder / f"{self.name}_4d")
        if over_time.is_file():
            return over_time, number
        frames = sorted(self.folder.glob("*_frame*"))
        others = [one.name for one in frames if re.search(r"_frame\d+\.nii", one.name)]
        raise UsageError(
            f"{path}: there is no such file, nor {over_time.name}; Info.cfg names frame {number}, "
            f"and there are {shorten(others) or 'none'}"
        )


def find_split(root: Path, split: str) -> Path | None:
    """The folder of a split, where there is one with patients; `root` itself may be `training`."""
    own = (root,) if split == "training" else ()
    for folder in (root / split, root / "database" / split, *own):
        if any(folder.glob("patient*/Info.cfg")):
            return folder
    return None


def is_acdc(root: Path) -> bool:
    """Whether a folder holds patients as ACDC does."""
    return any(find_split(root, split) for split in ("training", "testing"))


def read_patients(root: Path, split: str) -> list[Patient]:
    """The patients of a split, in the order of their names.

    Args:
        root: the tree.
        split: a folder of it, or valvano_train, valvano_val, valvano_test: the 35, 15 and 15
            patients of `training` of Valvano et al.

    Raises:
        UsageError: there is none, or an Info.cfg does not say what it should.
    """
    numbers = _VALVANO.get(split)
    name = split if numbers is None else "training"
    folder = find_split(root, name)
    if folder is None:
        raise UsageError(
            f"{root}: has no {name}/patientNNN/Info.cfg, nor database/{name}. If patients are not "
            "split, score a fold of them: --dataset.fold 0"
        )
    folders = sorted(path for path in folder.glob("patient*") if path.is_dir())
    if numbers is not None:
        wanted = {f"patient{number:03d}" for number in numbers}
        folders = [path for path in folders if path.name in wanted]
        if missing := sorted(wanted - {path.name for path in folders}):
            raise UsageError(f"{folder}: {split} needs {shorten(missing)}, which are not there")
    return [read_patient(path) for path in folders]


def read_patient(folder: Path) -> Patient:
    """What Info.cfg says.

    Raises:
        UsageError: it does not say which frames are ED and ES, or contradicts itself.
    """
    path = folder / "Info.cfg"
    text = read_text(path).removeprefix("\ufeff")  # Windows' editor puts it there
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    said = {key.strip(): value.strip() for key, value in pairs}

    def number(key: str) -> int | None:
        text = said.get(key)
        if text is not None and not re.fullmatch("0{0,3}[1-9][0-9]{0,3}", text):
            raise UsageError(f"{path}: {key} is {text!r:.40}; it must be a whole number above 0")
        return None if text is None else int(text)

    given = {phase: frame for phase in ("ED", "ES") if (frame := number(phase))}
    if missing := [phase for phase in ("ED", "ES") if phase not in given]:
        raise UsageError(f"{path}: does not say which frame is {' and '.join(missing)}")
    count = number("NbFrame")
    if count is not None and max(given.values()) > count:
        raise UsageError(f"{path}: ED and ES are {list(given.values())}, but NbFrame is {count}")
    if given["ED"] == given["ES"]:
        raise UsageError(f"{path}: ED and ES are one frame, {given['ED']}")
    return Patient(folder, said.get("Group", ""), given, count)


def split_folds(patients: Sequence[Patient], folds: int) -> list[list[Patient]]:
    """Patients dealt out to so many folds, group by group, in the order of their names.

    Between folds the numbers of patients differ by at most one, in all and of each group. It is
    the same split for any seed and any phases.

    Raises:
        UsageError: fewer patients than folds.
    """
    if len(patients) < folds:
        raise UsageError(
            f"dataset.folds is {folds}, but there are only {len(patients)} patients to deal out"
        )
    ordered = sorted(patients, key=lambda patient: (patient.group, patient.name))
    return [ordered[number::folds] for number in range(folds)]


def find_file(stem: Path) -> Path:
    """The file of this name with the ending .nii.gz, or else .nii."""
    packed, plain = stem.with_name(f"{stem.name}.nii.gz"), stem.with_name(f"{stem.name}.nii")
    return plain if plain.is_file() and not packed.is_file() else packed
