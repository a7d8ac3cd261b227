"""From a folder to what is trained on and what is scored, whatever its layout."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UsageError
from transfer.detection import coco, coco_layout, voc, voc_layout
from transfer.detection.config import DatasetConfig
from transfer.detection.records import Records, raise_for_issues, summarize_issues
from transfer.stores import refuse_store


@dataclass(frozen=True)
class DetectionData:
    """Training and test records of one tree."""

    name: str
    train: Records
    """What is trained on: see Records.for_training."""
    test: Records
    train_split: str
    test_split: str
    notes: tuple[str, ...]
    """For the log: classes, issues, what was left out."""


def open_data(root: str | Path, config: DatasetConfig, masks: bool = False) -> DetectionData:
    """Read the splits that the configuration names, or those that are usual.

    Args:
        root: the tree.
        config: the splits, and the rules.
        masks: read the segmentations of the training split too, where the layout has them.

    Raises:
        UsageError: no such tree or split, or what the rules refuse.
    """
    read, root = reader_of(root), Path(root)
    is_coco = read is coco.read_coco
    names = coco_layout.list_splits(root) if is_coco else voc_layout.list_splits(root)
    kind = "instances" if is_coco else "voc"
    draw = f"python tools/prepare_data.py {kind} --data {root} --val-fraction 0.2"
    train_split, test_split = choose_splits(names, config.train, config.test, draw)
    asked = {"masks": True} if masks and is_coco else {}
    listed = read(root, train_split, config.classes or None, config, check=False, **asked)
    test = read(root, test_split, listed.classes, config, check=False)
    # of both at once: what is done about all of them is done in one go
    raise_for_issues((*listed.issues, *test.issues), f"{root}", config)
    train = listed.for_training(difficult=config.difficult)
    if not len(train):
        raise UsageError(f"{root}, split {train_split}: no image has an object to learn.")
    if not len(test):
        raise UsageError(f"{root}, split {test_split}: no image is left, all are broken.")
    how = "as given" if config.classes else f"found in {train_split}"
    notes = [f"{len(listed.classes)} classes ({how}): {', '.join(listed.classes)}"]
    for split, records in ((train_split, listed), (test_split, test)):
        notes += [f"{split}: {line}" for line in summarize_issues(records.issues)]
    if left := len(listed) - len(train):
        notes.append(f"{train_split}: {left:,} images without an object to learn left out")
    if all((record.difficult | record.crowd).all() for record in test.images):
        notes.append(f"{test_split}: no object to find that is not difficult, so there is no score")
    if both := len({r.path for r in listed.images} & {r.path for r in test.images}):
        notes.append(f"{both:,} images are both trained on and scored: the score says little")
    return DetectionData(root.resolve().name, train, test, train_split, test_split, tuple(notes))


def choose_splits(
    names: Sequence[str], train: str | None, test: str | None, draw: str = ""
) -> tuple[str, str]:
    """The splits to train and to score on, out of `names`; what is given stands.

    Otherwise (trainval, test) where there is a test split, or else (train, val); of MS-COCO's names
    the one that begins so. `draw` is the command that makes splits, for the message.
    """

    def find(name: str) -> str | None:
        return min((n for n in names if re.fullmatch(rf"{name}\d*", n)), default=None)

    if train is None:
        with_test = find("trainval") and (test or find("test")) and test != "val"
        train = find("trainval" if with_test else "train")
    test = test or find("test") or find("val") or find("valid")
    if train is None or test is None:
        raise UsageError(
            f"there are the splits {', '.join(names) or 'none'}: say which to train on and which "
            "to score on with --dataset.train and --dataset.test (several are joined by +)"
            + (f", or draw them: {draw}." if draw and len(names) < 2 else ".")
        )
    return train, test


def reader_of(root: str | Path) -> Callable[..., Records]:
    """`read_voc` or `read_coco`, by the layout of the tree; both take the same arguments.

    Raises:
        UsageError: a tree of neither layout, but of YOLO's; a store of shards.
    """
    refuse_store(root, "detection needs objects with their boxes")
    root = Path(root)
    if coco_layout.list_splits(root):
        return coco.read_coco
    refuse_yolo(root)
    return voc.read_voc


def refuse_yolo(root: Path) -> None:
    """Raise UsageError for a data set in YOLO's layout, with the command that converts it."""
    if coco_layout.is_yolo(root) and not voc_layout.find_trees(root):
        raise UsageError(
            f"{root} is a data set in YOLO's layout. This converts it, and copies no image: python "
            f"tools/prepare_data.py yolo --data {root}"
        )
