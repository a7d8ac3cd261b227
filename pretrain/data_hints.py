"""What a folder without images in class folders holds, and the command that makes a data set of it.

No torch at import.
"""

import shlex
from collections.abc import Collection
from pathlib import Path

_REPAIR = "`python tools/prepare_data.py imagenet --repair {folder}`"
# what is looked for below the folder, and what is to be done about the first that is found
_HINTS = (
    ("ILSVRC2012_img_*.tar", f"{_REPAIR} unpacks it"),
    ("cifar-10*-python.tar.gz", f"{_REPAIR.replace('imagenet', 'cifar')} unpacks it"),
    ("train/n*.tar", f"{_REPAIR} unpacks it"),
    ("n*.tar", f"{_REPAIR.replace('folder', 'above')} unpacks it"),
    *((f"{deep}*.parquet", f"{_REPAIR} unpacks it") for deep in ("", "*/", "*/*/", "*/*/*/")),
    ("ILSVRC2012_val_*", f"{_REPAIR.replace('folder', 'above')} makes class folders"),
    ("LOC_val_solution.csv", "`mv {found} {folder}/ILSVRC/Data/CLS-LOC/` brings labels to images"),
    *((f"{deep}train", "name {inside} instead of {folder}") for deep in ("*/", "*/*/", "*/*/*/")),
    ("*.zip", "`python -m zipfile -e {found} {folder}` unpacks it"),
    *(
        (ending, "`tar -xf {found} -C {folder}` unpacks it")
        for ending in ("*.tar", "*.tar.*", "*.tgz")
    ),
)


def describe(folder: Path, parts: Collection[str] = ()) -> str:
    """` It holds X: DO THIS.` for a message; empty where nothing is known.

    Args:
        folder: where nothing of use was found.
        parts: names, in small letters, of folders of a data set above those of its splits.
    """
    for pattern, remedy in _HINTS:
        for found in sorted(folder.glob(pattern))[:1]:
            paths = {"found": found, "folder": folder, "above": folder.parent}
            inside = found.parent
            paths["inside"] = inside.parent if inside.name.lower() in parts else inside
            quoted = {key: shlex.quote(str(path)) for key, path in paths.items()}
            return f" It holds {found.relative_to(folder)}: {remedy.format(**quoted)}."
    return ""
