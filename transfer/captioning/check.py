"""Is an MS-COCO captions tree on disk as captioning needs it?"""

from pathlib import Path

from pretrain.check_results import CheckResult, decoded, ok, wrong
from pretrain.errors import UsageError
from transfer.captioning.coco import read_coco, splits

# images of the releases (cocodataset.org)
_EXPECTED = {"train2014": 82_783, "val2014": 40_504, "train2017": 118_287, "val2017": 5_000}


def check_coco(root: Path, sample: int) -> list[CheckResult]:
    """Every captions file and the images it names.

    Args:
        root: the folder with annotations and the folders of images.
        sample: images of each split to decode.
    """
    try:
        names = splits(root)
    except UsageError as error:
        if not root.is_dir():
            raise
        return [wrong(str(error))]
    if not names:
        return [wrong(f"{root}/annotations has no captions_*.json")]
    found: list[CheckResult] = []
    for name in names:
        left_out: list[str] = []
        try:
            images = read_coco(root, name, tell=left_out.append)
        except UsageError as error:
            found.append(wrong(f"{name}: {error}"))
            continue
        finally:
            found += map(wrong, left_out)
        sentences = sum(len(image.captions) for image in images)
        text = f"{name}: {len(images):,} images, {sentences:,} captions"
        expected = _EXPECTED.get(name)
        if expected is not None and expected != len(images):
            found.append(wrong(f"{text}; {expected:,} images expected"))
        else:
            found.append(ok(text))
        found.append(decoded([image.path for image in images], sample, name))
    return found
