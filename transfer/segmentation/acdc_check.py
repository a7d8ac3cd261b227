"""Is an ACDC tree on disk as segmentation needs it?"""

from collections import Counter
from pathlib import Path

from pretrain.check_results import CheckResult, note, ok, wrong
from pretrain.errors import UsageError
from transfer.segmentation.acdc import FrameReader, Labels, same_volumes
from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.nifti import open_nifti
from transfer.segmentation.patients import Patient, find_file, find_split, read_patient

_EXPECTED = {"training": 100, "testing": 50}


def check_acdc(root: Path, sample: int, config: DatasetConfig | None = None) -> list[CheckResult]:
    """Patients, frames, labels and scribbles.

    Args:
        root: the folder with `training`, or with database/training.
        sample: frames of each split that are read, beside each Info.cfg and each header.
        config: what is allowed; None takes the defaults.
    """
    config, results = config or DatasetConfig(), list[CheckResult]()
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    reader = FrameReader(root, config)
    for split, expected in _EXPECTED.items():
        folder = find_split(root, split)
        if folder is None:
            missing = f"no {split}/patientNNN/Info.cfg"
            results.append(wrong(missing) if split == "training" else note(missing))
            continue
        patients = list[Patient]()
        for path in sorted(folder.glob("patient*")):
            try:
                patients.append(read_patient(path))
            except UsageError as error:
                results.append(wrong(str(error)))
        groups = Counter(patient.group or "no group" for patient in patients)
        counts = ", ".join(f"{group} {count}" for group, count in sorted(groups.items()))
        results.append(ok(f"{split}: {len(patients)} patients: {counts}"))
        if len(patients) != expected:
            results.append(note(f"{split}: ACDC has {expected} patients"))
        results += [result for patient in patients for result in _check_frames(patient)]
        results += _check_labels(reader, split, patients, sample, "masks")
        if split == "training":
            results += _check_labels(reader, split, patients, sample, "scribbles")
    return results


def _check_frames(patient: Patient) -> list[CheckResult]:
    """What Info.cfg says against the volumes over time."""
    path = find_file(patient.folder / f"{patient.name}_4d")
    if not path.is_file():
        return []
    try:
        shape = open_nifti(path).shape
    except UsageError as error:
        return [wrong(str(error))]
    if len(shape) != 4 or patient.num_frames not in (None, shape[3]):
        said = f"NbFrame of Info.cfg is {patient.num_frames}"
        return [wrong(f"{path}: has x, y, slices, frames {shape}, and {said}")]
    return []


def _check_labels(
    reader: FrameReader, split: str, patients: list[Patient], sample: int, labels: Labels
) -> list[CheckResult]:
    before, step = len(reader.errors), max(1, 2 * len(patients) // max(sample, 1))
    frames = reader.read(patients[::step], labels)
    errors = reader.errors[before:]
    if labels == "scribbles" and not frames:
        return [note(f"{split}: no scribbles: {errors[0] if errors else 'no frames'}")]
    results = [ok(f"{split}: {len(frames)} frames read with their {labels}")]
    results += [wrong(error) for error in errors[:5]]
    if len(errors) > 5:
        results.append(wrong(f"{split}: {len(errors) - 5} more frames cannot be used"))
    if labels == "masks":
        pairs = same_volumes(frames)
        results += [note(f"{split}: {two} is the same volume as {one}") for one, two in pairs]
    return results
