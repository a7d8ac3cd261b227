"""Is a data set on disk as detection needs it, and what would the run log about it?"""

from collections.abc import Callable, Iterable
from pathlib import Path

from pretrain.check_results import CheckResult, decoded, note, ok, wrong
from pretrain.errors import UsageError, shorten
from transfer.detection.coco import read_coco
from transfer.detection.coco_layout import find_splits
from transfer.detection.config import DatasetConfig
from transfer.detection.data import choose_splits, refuse_yolo
from transfer.detection.records import Records, label_names, raise_for_issues, summarize_issues
from transfer.detection.voc import read_voc
from transfer.detection.voc_layout import find_trees, list_splits

# images of the detection task (host.robots.ox.ac.uk/pascal/VOC), and of cocodataset.org's releases
_EXPECTED = {
    **{"VOC2007 train": 2501, "VOC2007 val": 2510, "VOC2007 trainval": 5011, "VOC2007 test": 4952},
    **{"VOC2012 train": 5717, "VOC2012 val": 5823, "VOC2012 trainval": 11540},
    **{"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000},
}


def check_voc(root: Path, sample: int, config: DatasetConfig | None = None) -> list[CheckResult]:
    """One Pascal VOC tree, or a VOCdevkit with VOC2007 and VOC2012 in it.

    Args:
        root: the folder with JPEGImages, Annotations and ImageSets/Main.
        sample: images of each tree to decode.
        config: what is allowed; None takes the defaults.
    """
    config, results = config or DatasetConfig(), list[CheckResult]()
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    refuse_yolo(root)
    for tree in find_trees(root) or [root]:
        try:
            names = list_splits(tree)
        except UsageError as error:
            results.append(wrong(str(error)))
            continue
        if not names:
            results.append(wrong(f"{tree}/ImageSets/Main has no splits"))
        paths: set[Path] = set()
        classes: set[str] = set()
        for name in names:
            label = f"{tree.name} {name}"
            records, found = _check_split(read_voc, tree, name, config, label, label)
            results += found
            if records is None:
                continue
            paths |= {record.path for record in records.images}
            classes |= set(records.classes)
        if classes:
            text = f"{tree.name}: {len(classes)} classes: {', '.join(sorted(classes))}"
            results.append(ok(text))
            results += _similar_names(classes, config)
        if paths:
            results.append(decoded(sorted(paths), sample, tree.name))
    return results


def check_instances(root: Path, sample: int) -> list[CheckResult]:
    """Every instance file of MS-COCO's format, and the images that it names.

    Args:
        root: the folder with annotations and the folders of images.
        sample: images of each split to decode.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; an MS-COCO tree is needed.")
    splits = find_splits(root)
    if not splits:
        refuse_yolo(root)
        return [wrong(
            f"{root} has no instance file: looked for annotations/instances_SPLIT.json, "
            "SPLIT/_annotations.coco.json, annotations/SPLIT.json, SPLIT/annotations.json, "
            "result.json, labels.json and other JSON files with images, annotations, categories"
        )]  # fmt: skip
    results, classes = list[CheckResult](), set[str]()
    for split, path in splits.items():
        title = f"{split} ({path.relative_to(root)})"
        records, found = _check_split(read_coco, root, split, DatasetConfig(), split, title)
        results += found
        if records is None:
            continue
        if new := [name for name in records.classes if classes and name not in classes]:
            text = f"{split}: {len(new)} categories are in no split before: {shorten(new)}"
            results.append(note(text))
        classes |= set(records.classes)
        results.append(decoded([record.path for record in records.images], sample, split))
    results += _similar_names(classes, DatasetConfig())
    draw = f"python tools/prepare_data.py instances --data {root} --val-fraction 0.2"
    try:
        choose_splits(list(splits), None, None, draw)
    except UsageError as error:
        results.append(note(str(error)))
    return results


def _similar_names(classes: Iterable[str], config: DatasetConfig) -> list[CheckResult]:
    """Names of several splits together that a run refuses to take for several classes."""
    joined = label_names(sorted(classes), None)[2] if config.similar_names == "refuse" else {}
    remedy = "give them one name, or join them with finetune_det.py --dataset.similar_names join"
    return [
        wrong(f"similar class names in two splits: {name!r} beside {like!r}; {remedy}")
        for name, like in joined.items()
    ]


def _check_split(
    read: Callable[..., Records],
    root: Path,
    split: str,
    config: DatasetConfig,
    label: str,
    title: str,
) -> tuple[Records | None, list[CheckResult]]:
    """A split, None where it cannot be used; its counts, and what the run would log."""
    try:
        records = read(root, split, config=config, check=False)
        raise_for_issues(records.issues, "it", config, option=None)
    except UsageError as error:
        return None, [wrong(f"{label}: {error}")]
    difficult = sum(int(record.difficult.sum()) for record in records.images)
    text = f"{title}: {len(records):,} images, {records.num_objects:,} objects, "
    if read is read_coco:
        crowds = sum(int(record.crowd.sum()) for record in records.images)
        text += f"{crowds:,} of them crowds and {difficult:,} difficult, of "
        text += f"{len(records.classes)} categories: {shorten(records.classes, 8)}"
    else:
        text += f"{difficult:,} of them difficult"
    expected = _EXPECTED.get(label, len(records))
    is_complete = expected == len(records)
    counts = ok(text) if is_complete else wrong(f"{text}; {expected:,} images expected")
    notes = summarize_issues(records.issues, option=None)
    return records, [counts, *(note(f"{label}: {line}") for line in notes)]
