"""Is a Pascal VOC tree on disk as detection needs it?"""

from pathlib import Path

from pretrain.check_results import CheckResult, decoded, note, ok, wrong
from pretrain.errors import UsageError
from transfer.detection.config import DatasetConfig
from transfer.detection.records import raise_for_issues, summarize_issues
from transfer.detection.voc import find_trees, list_splits, read_voc

# images of the detection task (host.robots.ox.ac.uk/pascal/VOC)
_EXPECTED = {
    "VOC2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "VOC2012": {"train": 5717, "val": 5823, "trainval": 11540},
}


def check_voc(root: Path, sample: int, config: DatasetConfig | None = None) -> list[CheckResult]:
    """One tree, or a VOCdevkit with VOC2007 and VOC2012 in it.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main.
        sample: images of each tree to decode.
        config: what is allowed; None takes the defaults.
    """
    config = config or DatasetConfig()
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    return [
        line for tree in find_trees(root) or [root] for line in _check_tree(tree, sample, config)
    ]


def _check_tree(root: Path, sample: int, config: DatasetConfig) -> list[CheckResult]:
    try:
        names = list_splits(root)
    except UsageError as error:
        return [wrong(str(error))]
    if not names:
        return [wrong(f"{root}/ImageSets/Main has no splits")]
    lines: list[CheckResult] = []
    paths: set[Path] = set()
    classes: set[str] = set()
    for name in names:
        try:
            records = read_voc(root, name, config=config, check=False)
            raise_for_issues(records.issues, "it", config, option=None)
        except UsageError as error:
            lines.append(wrong(f"{root.name} {name}: {error}"))
            continue
        difficult = sum(int(record.difficult.sum()) for record in records.images)
        text = f"{root.name} {name}: {len(records):,} images, {records.num_objects:,} objects"
        text += f", {difficult:,} of them difficult"
        expected = _EXPECTED.get(root.name, {}).get(name, len(records))
        is_complete = expected == len(records)
        lines.append(ok(text) if is_complete else wrong(f"{text}; {expected:,} images expected"))
        notes = summarize_issues(records.issues, option=None)
        lines += [note(f"{root.name} {name}: {line}") for line in notes]
        classes |= set(records.classes)
        paths |= {record.path for record in records.images}
    if classes:
        lines.append(ok(f"{root.name}: {len(classes)} classes: {', '.join(sorted(classes))}"))
    if paths:
        lines.append(decoded(sorted(paths), sample, root.name))
    return lines
