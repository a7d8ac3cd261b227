"""Is an MS-COCO captions tree on disk as captioning needs it?"""

from pathlib import Path

from pretrain.check_results import CheckResult, decoded, ok, wrong
from pretrain.errors import UsageError
from transfer.captioning.dataset import coco_splits, read_coco

# images of the releases (cocodataset.org)
_EXPECTED = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


def check_coco(root: Path, sample: int) -> list[CheckResult]:
    """Every captions file and the images it names.

    Args:
        root: the folder with annotations and the folders of images.
        sample: images of each split to decode.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; an MS-COCO tree is needed.")
    splits = coco_splits(root)
    if not splits:
        return [wrong(f"{root}/annotations has no captions_*.json")]
    results: list[CheckResult] = []
    for split in splits:
        try:
            images = read_coco(root, split, log=lambda line: results.append(wrong(line)))
        except UsageError as error:
            results.append(wrong(f"{split}: {error}"))
            continue
        num_captions = sum(len(image.captions) for image in images)
        text = f"{split}: {len(images):,} images, {num_captions:,} captions"
        expected = _EXPECTED.get(split, len(images))
        is_whole = expected == len(images)
        results.append(ok(text) if is_whole else wrong(f"{text}; {expected:,} images expected"))
        results.append(decoded([image.path for image in images], sample, split))
    return results
