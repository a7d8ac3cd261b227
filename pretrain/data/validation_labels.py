"""The class of ILSVRC2012_val_00000001.JPEG: files in which ImageNet's labels come.

    ILSVRC2012_validation_ground_truth.txt      development kit: a number a line, an ILSVRC2012 ID
                                                (1 to 1000, not in the order of the synsets: the
                                                kit's meta.mat says which is which)
    imagenet_2012_validation_synset_labels.txt  TensorFlow's models: a synset a line
    LOC_val_solution.csv                        Kaggle: name,synset x y x y ...
    val.txt                                     Caffe: name number, an index into the sorted synsets

Files without names go by the sorted names of the images. Any file of one of these forms will do.
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pretrain.errors import UsageError

KNOWN = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)
_NAME_AND_SYNSET, _NAME_AND_NUMBER = re.compile(r"([^,]+),\s*(n\d+)"), re.compile(r"(\S+)\s+(\d+)")


def find_labels(root: Path, split: str, option: str = "") -> Path:
    """The first of the known files below ROOT or ROOT/SPLIT; UsageError where there is none."""
    for path in (folder / name for folder in (root, root / split) for name in KNOWN):
        if path.is_file():
            return path
    raise UsageError(
        f"{root / split} has images but no class folders, and {root} none of the label files "
        f"{', '.join(KNOWN[:4])}. ImageNet's come in ILSVRC2012_devkit_t12.tar.gz: with that in "
        f"{root}, `python tools/prepare_data.py imagenet --repair {shlex.quote(str(root))}` makes "
        f"class folders. Others: sort them{f', or name a file by {option} FILE' if option else ''}."
    )


def read_labels(path: Path, names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """The synset of each image.

    Args:
        path: a file of one of the known forms.
        names: file names of the images, sorted.
        classes: all synsets, sorted: what numbers after a name count.

    Raises:
        UsageError: no such file, another form, another number of lines, an image without a label.
    """
    if not path.is_file():
        raise UsageError(f"there is no label file {path}.")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text file ({error.reason}).") from error
    lines = [line.strip() for line in lines if line.strip()]
    if not lines:
        raise UsageError(f"{path} is empty.")
    if lines[0].lower().startswith("imageid,"):
        return _read_by_name(path, lines[1:], names, _NAME_AND_SYNSET)
    if all(map(_NAME_AND_NUMBER.fullmatch, lines)):
        numbers = [int(number) for number in _read_by_name(path, lines, names, _NAME_AND_NUMBER)]
        if numbers and max(numbers) >= len(classes):
            raise UsageError(
                f"{path} has class number {max(numbers)}, but there are {len(classes)} classes"
            )
        return [classes[number] for number in numbers]
    if len(lines) != len(names):
        raise UsageError(
            f"{path} has {len(lines):,} labels for {len(names):,} images. A label file without "
            "names must have a line for each image."
        )
    if all(line.isdigit() for line in lines):
        return _convert_ilsvrc_ids(path, [int(line) for line in lines])
    if all(re.fullmatch(r"n\d+", line) for line in lines):
        return lines
    raise UsageError(
        f"{path} is no label file of a known form; its first line is {lines[0][:60]!r}. Known are: "
        "a synset a line, an ILSVRC2012 ID a line, `name number`, and Kaggle's CSV."
    )


def _read_by_name(
    path: Path, lines: list[str], names: Sequence[str], form: re.Pattern[str]
) -> list[str]:
    """The second group of `form` for each of `names`, the first being the name."""
    labels = {}
    for number, line in enumerate(lines, 1):
        match = form.match(line)
        if match is None:
            raise UsageError(f"{path}, line {number}: {line[:60]!r} names no image and class")
        labels[Path(match[1]).stem] = match[2]
    stems = [Path(name).stem for name in names]
    if missing := [name for name, stem in zip(names, stems, strict=True) if stem not in labels]:
        raise UsageError(
            f"{path} has no label for {len(missing):,} of {len(names):,} images, such as "
            f"{missing[0]}."
        )
    return [labels[stem] for stem in stems]


def _convert_ilsvrc_ids(path: Path, ids: list[int]) -> list[str]:
    """ILSVRC2012 IDs to synsets, by the development kit's meta.mat beside the labels."""
    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise UsageError(
            f"{path} counts classes by ILSVRC2012 ID, and the table of the IDs, meta.mat of the "
            f"development kit, is not beside it. Put it into {path.parent}, or use a list of "
            "synsets."
        )
    from scipy.io import loadmat

    rows = loadmat(meta, squeeze_me=True)["synsets"]
    synsets = {int(row[0]): str(row[1]) for row in rows}
    if unknown := sorted(set(ids) - set(synsets)):
        raise UsageError(f"{path} has the IDs {unknown[:5]}, which meta.mat does not know.")
    return [synsets[number] for number in ids]
