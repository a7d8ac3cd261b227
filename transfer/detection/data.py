"""From a folder to what is trained on and what is scored, whatever its layout."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pretrain.errors import UsageError
from transfer.detection import coco, voc
from transfer.detection.config import VocConfig
from transfer.detection.records import Records, summary


@dataclass(frozen=True)
class DetectionData:
    """Training and test records of one tree."""

    name: str
    train: Records
    """What is trained on: see Records.to_train_on."""
    test: Records
    train_split: str
    test_split: str
    notes: tuple[str, ...] = ()
    """For the reader of the run: classes, problems, what was left out."""


def open_data(root: Path, config: VocConfig) -> DetectionData:
    """Read the splits that the configuration names, or those that are usual.

    Raises:
        UsageError: no such tree or split, or what the rules refuse.
    """
    train_split, test_split = voc.choose_splits(splits_of(root), config.train, config.test)
    read = read_split(root, train_split, config.classes or None, config)
    test = read_split(root, test_split, read.classes, config)
    train = read.to_train_on(difficult=config.difficult)
    if not len(train):
        raise UsageError(f"{root}, split {train_split}: no image has an object to learn.")
    data = DetectionData(root.resolve().name, train, test, train_split, test_split)
    return replace(data, notes=tuple(_notes(data, read, config)))


def splits_of(root: Path) -> list[str]:
    """Names of the splits of a tree of either layout; UsageError where it is none."""
    return coco.splits(root) or voc.splits(root)


def read_split(
    root: Path,
    split: str,
    classes: Sequence[str] | None,
    config: VocConfig,
    *,
    images: bool = True,
) -> Records:
    """Records of a split of a tree of either layout."""
    read = coco.read_coco if coco.splits(root) else voc.read_voc
    return read(
        root,
        split,
        classes,
        images=images,
        max_corrupt=config.max_corrupt,
        other_classes=config.other_classes,
    )


def _notes(data: DetectionData, read: Records, config: VocConfig) -> list[str]:
    """About a tree of which `read` was read for training."""
    how = "as given" if config.classes else f"found in {data.train_split}"
    notes = [f"{len(read.classes)} classes ({how}): {', '.join(read.classes)}"]
    for split, records in ((data.train_split, read), (data.test_split, data.test)):
        notes += [f"{split}: {line}" for line in summary(records.problems)]
    if left := len(read) - len(data.train):
        notes.append(f"{data.train_split}: {left:,} images without an object to learn left out")
    if both := len({r.path for r in read.images} & {r.path for r in data.test.images}):
        notes.append(f"{both:,} images are both trained on and scored: the score says little")
    return notes
