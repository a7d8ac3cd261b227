"""The class of ILSVRC2012_val_00000001.JPEG: files in which ImageNet's labels come.

    ILSVRC2012_validation_ground_truth.txt      development kit: a number a line, an ILSVRC2012 ID
                                                (1 to 1000, not in the order of the synsets: the
                                                kit's meta.mat says which is which)
    imagenet_2012_validation_synset_labels.txt  TensorFlow's models: a synset a line
    LOC_val_solution.csv                        Kaggle: name,synset x y x y ...
    val.txt                                     Caffe: name number, a place in the sorted synsets

Files without names go by the sorted names of the images. Any file of one of these forms will do.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from pretrain.errors import UsageError

KNOWN = (
    "LOC_val_solution.csv",
    "imagenet_2012_validation_synset_labels.txt",
    "val.txt",
    "ILSVRC2012_validation_ground_truth.txt",
    "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt",
)


def find_labels(root: Path, split: str, option: str = "") -> Path:
    """The first of the known files below ROOT or ROOT/SPLIT; UsageError where there is none."""
    for folder in (root, root / split):
        for name in KNOWN:
            if (folder / name).is_file():
                return folder / name
    raise UsageError(
        f"{root / split} has images but no class folders, and {root} none of the label files "
        f"{', '.join(KNOWN[:4])}. {f'Name one by {option} FILE, or put' if option else 'Put'} the "
        "images into class folders."
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
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text file ({error.reason}).") from error
    if not lines:
        raise UsageError(f"{path} is empty.")
    if lines[0].lower().startswith("imageid,"):
        return _by_name(path, lines[1:], names, re.compile(r"([^,]+),\s*(n\d+)"), str)
    if all(re.fullmatch(r"\S+\s+\d+", line.strip()) for line in lines):

        def at(number: str) -> str:
            if int(number) >= len(classes):
                raise UsageError(
                    f"{path} has class number {number}, but there are {len(classes)} classes"
                )
            return classes[int(number)]

        return _by_name(path, lines, names, re.compile(r"(\S+)\s+(\d+)"), at)
    if len(lines) != len(names):
        raise UsageError(
            f"{path} has {len(lines):,} labels for {len(names):,} images. A label file without "
            "names must have a line for each image."
        )
    words = [line.strip() for line in lines]
    if all(word.isdigit() for word in words):
        synset_of = _ilsvrc_ids(path)
        missing = sorted({word for word in words if int(word) not in synset_of})
        if missing:
            raise UsageError(f"{path} has the IDs {missing[:5]}, which meta.mat does not know.")
        return [synset_of[int(word)] for word in words]
    if all(re.fullmatch(r"n\d+", word) for word in words):
        return words
    raise UsageError(
        f"{path} is no label file of a known form; its first line is {lines[0][:60]!r}. Known are: "
        "a synset a line, an ILSVRC2012 ID a line, `name number`, and Kaggle's CSV."
    )


def _by_name(
    path: Path,
    lines: list[str],
    names: Sequence[str],
    form: re.Pattern[str],
    synset: Callable[[str], str],
) -> list[str]:
    found = {}
    for number, line in enumerate(lines, 1):
        match = form.match(line.strip())
        if match is None:
            raise UsageError(f"{path}, line {number}: {line[:60]!r} names no image and class")
        found[Path(match[1]).stem] = match[2]
    lacking = [name for name in names if Path(name).stem not in found]
    if lacking:
        raise UsageError(
            f"{path} has no label for {len(lacking):,} of {len(names):,} images, such as "
            f"{lacking[0]}."
        )
    return [synset(found[Path(name).stem]) for name in names]


def _ilsvrc_ids(path: Path) -> dict[int, str]:
    """ILSVRC2012 ID to synset, from the development kit's meta.mat beside the labels."""
    meta = path.with_name("meta.mat")
    if not meta.is_file():
        raise UsageError(
            f"{path} counts classes by ILSVRC2012 ID, and the table of the IDs, meta.mat of the "
            f"development kit, does not lie beside it. Put it into {path.parent}, or use a list of "
            "synsets."
        )
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UsageError(
            f"{meta} can only be read with SciPy: pip install scipy, or use a list of synsets."
        ) from error
    rows = loadmat(meta, squeeze_me=True)["synsets"]
    return {int(row[0]): str(row[1]) for row in rows}
