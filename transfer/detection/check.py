"""Is a Pascal VOC tree on disk as detection needs it?"""

from pathlib import Path

from pretrain.check_results import CheckResult, decoded, note, ok, wrong
from pretrain.errors import UsageError
from transfer.detection.records import summary
from transfer.detection.voc import read_voc, splits, trees_in

# images of the detection task (host.robots.ox.ac.uk/pascal/VOC)
_EXPECTED = {
    "VOC2007": {"train": 2501, "val": 2510, "trainval": 5011, "test": 4952},
    "VOC2012": {"train": 5717, "val": 5823, "trainval": 11540},
}


def check_voc(root: Path, sample: int) -> list[CheckResult]:
    """One tree, or a VOCdevkit with VOC2007 and VOC2012 in it.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main.
        sample: images of each tree to decode.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    return [line for tree in trees_in(root) or [root] for line in _check_tree(tree, sample)]


def _check_tree(root: Path, sample: int) -> list[CheckResult]:
    found: list[CheckResult] = []
    paths: set[Path] = set()
    try:
        names = splits(root)
    except UsageError as error:
        return [wrong(str(error))]
    if not names:
        return [wrong(f"{root}/ImageSets/Main has no splits")]
    classes: tuple[str, ...] = ()
    for name in names:
        try:
            records = read_voc(root, name)
        except UsageError as error:
            found.append(wrong(f"{root.name} {name}: {error}"))
            continue
        classes = tuple(sorted({*classes, *records.classes}))
        difficult = sum(int(record.difficult.sum()) for record in records.images)
        text = f"{root.name} {name}: {len(records):,} images, {records.num_objects:,} objects"
        text += f", {difficult:,} of them difficult"
        expected = _EXPECTED.get(root.name, {}).get(name)
        if expected is not None and expected != len(records):
            found.append(wrong(f"{text}; {expected:,} images expected"))
        else:
            found.append(ok(text))
        found += [note(f"{root.name} {name}: {line}") for line in summary(records.problems)]
        paths |= {record.path for record in records.images}
    if classes:
        found.append(ok(f"{root.name}: {len(classes)} classes: {', '.join(classes)}"))
    if paths:
        found.append(decoded(sorted(paths), sample, root.name))
    return found
