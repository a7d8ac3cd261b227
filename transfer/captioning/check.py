"""Is a tree of images with captions on disk as captioning needs it?"""

from pathlib import Path

from pretrain.check_results import CheckResult, decoded, note, ok, wrong
from pretrain.errors import UsageError
from transfer.captioning.config import DatasetConfig
from transfer.captioning.dataset import CaptionedImage, coco_splits, open_captions, read_coco
from transfer.captioning.image_files import overlap
from transfer.captioning.scores.notes import caption_notes

# images of the releases (cocodataset.org)
_EXPECTED = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


def check_coco(root: Path, sample: int) -> list[CheckResult]:
    """Every captions file and the images it names; of another layout, what training reads.

    Args:
        root: the folder with annotations and the folders of images.
        sample: images of each split to decode.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}; an MS-COCO tree is needed.")
    results: list[CheckResult] = []
    splits: dict[str, tuple[CaptionedImage, ...]] = {}
    names = coco_splits(root)
    if not names:
        try:
            data = open_captions(root, DatasetConfig(), log=lambda line: results.append(note(line)))
        except UsageError as error:
            return [*results, wrong(str(error))]
        splits = {"train": data.train, "val": data.val, "test": data.test}
        results += map(note, data.notes)
    for split in names:
        try:
            splits[split] = read_coco(root, split, log=lambda line: results.append(wrong(line)))
        except UsageError as error:
            results.append(wrong(f"{split}: {error}"))
    for split, images in splits.items():
        if not images:
            continue
        num_captions = sum(len(image.captions) for image in images)
        text = f"{split}: {len(images):,} images, {num_captions:,} captions"
        expected = _EXPECTED.get(split, len(images))
        is_whole = expected == len(images)
        results.append(ok(text) if is_whole else wrong(f"{text}; {expected:,} images expected"))
        results.append(decoded([str(image.path) for image in images], sample, split))
        pairs = [(image.image_id, text) for image in images for text in image.captions]
        results += map(note, caption_notes(split, pairs, "ptb", "--dataset.tokenizer"))
    for train in (name for name in names if name in splits and name.startswith("train")):
        for held in (name for name in splits if not name.startswith("train")):
            lines = overlap(splits[train], splits[held])
            results += [note(f"{train} and {held}: {line}") for line in lines]
    return results
