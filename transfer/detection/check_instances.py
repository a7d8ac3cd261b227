"""Are MS-COCO's instance files, and the images they name, as detection needs them?"""

from pathlib import Path

from pretrain.check_results import CheckResult, decoded, note, ok, wrong
from pretrain.errors import UsageError, shorten
from transfer.detection.coco import read_coco
from transfer.detection.coco_layout import find_splits
from transfer.detection.config import DatasetConfig
from transfer.detection.records import raise_for_issues, summarize_issues
from transfer.detection.voc import choose_splits

# images of the releases (cocodataset.org)
_EXPECTED = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


def check_instances(root: Path, sample: int) -> list[CheckResult]:
    """Every instance file: sizes, categories, counts, and all that the run would log.

    Args:
        root: the folder with annotations and the folders of images.
        sample: images of each split to decode.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; an MS-COCO tree is needed.")
    splits = find_splits(root)
    if not splits:
        return [wrong(
            f"{root} has no instance file: looked for annotations/instances_SPLIT.json, "
            "SPLIT/_annotations.coco.json, annotations/SPLIT.json, SPLIT/annotations.json, "
            "result.json, labels.json and other JSON files with images, annotations, categories"
        )]  # fmt: skip
    config, results = DatasetConfig(), list[CheckResult]()
    classes: set[str] = set()
    for split, path in splits.items():
        try:
            records = read_coco(root, split, config=config, check=False)
            raise_for_issues(records.issues, "it", config, option=None)
        except UsageError as error:
            results.append(wrong(f"{split}: {error}"))
            continue
        crowds = sum(int(record.crowd.sum()) for record in records.images)
        difficult = sum(int(record.difficult.sum()) for record in records.images)
        text = f"{split} ({path.relative_to(root)}): {len(records):,} images, "
        text += f"{records.num_objects:,} objects, {crowds:,} of them crowds and {difficult:,} "
        text += f"difficult, of {len(records.classes)} categories: {shorten(records.classes, 8)}"
        expected = _EXPECTED.get(split, len(records))
        is_complete = expected == len(records)
        results.append(ok(text) if is_complete else wrong(f"{text}; {expected:,} images expected"))
        results += [
            note(f"{split}: {line}") for line in summarize_issues(records.issues, option=None)
        ]
        if new := [name for name in records.classes if classes and name not in classes]:
            text = f"{split}: {len(new)} categories are in no split before: {shorten(new)}"
            results.append(note(text))
        classes |= set(records.classes)
        results.append(decoded([record.path for record in records.images], sample, split))
    try:
        choose_splits(list(splits), None, None)
    except UsageError as error:
        results.append(note(str(error)))
    return results
