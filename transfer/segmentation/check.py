"""Is a tree of images and masks on disk as segmentation needs it, and what would the run log?"""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pretrain.check_results import CheckResult, counted, note, ok, wrong
from pretrain.errors import UsageError, shorten
from pretrain.progress import bar
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.data import open_data
from transfer.segmentation.records import Record

# images of the segmentation task (host.robots.ox.ac.uk/pascal/VOC), and of ADE20K's benchmark
_EXPECTED = {
    **{("VOC2012", "train"): 1464, ("VOC2012", "val"): 1449, ("VOC2012", "trainval"): 2913},
    **{("ADEChallengeData2016", "training"): 20_210, ("ADEChallengeData2016", "validation"): 2000},
}


def check_masks(root: Path, sample: int, config: DatasetConfig | None = None) -> list[CheckResult]:
    """A tree of Pascal VOC's layout or of folders: the splits that a run takes, every mask read.

    Args:
        root: the tree.
        sample: images of each split to decode.
        config: splits, classes and their values; None takes the defaults.
    """
    config = config or DatasetConfig()
    try:
        data = open_data(root, config)
    except UsageError as error:
        return [wrong(str(error))]
    if data.volumes:
        return [
            wrong(f"{root} holds volumes; python tools/prepare_data.py acdc --check looks there")
        ]
    results = [note(text) for text in data.notes]
    for split, records in zip(data.splits, (data.train, data.val), strict=True):
        expected = _EXPECTED.get((data.name, split), len(records))
        results.append(counted(len(records), expected, f"images with masks in {split}"))
        counts, faults = _read(records, sample, split)
        if len(faults) > config.max_corrupt:
            lines = "\n        ".join(["", *faults[:3]])
            results.append(wrong(f"{len(faults):,} of {split} cannot be used, such as{lines}"))
        results.append(ok(f"{split}: {_describe_shares(counts, data.classes)}"))
        if absent := [name for name, count in zip(data.classes, counts, strict=False) if not count]:
            results.append(note(f"{split}: no pixel of {shorten(absent)}"))
    return results


def _read(records: Sequence[Record], sample: int, split: str) -> tuple[np.ndarray, list[str]]:
    """Pixels of each class, of VOID at its place, over all masks; what cannot be read.

    `sample` of the images are decoded too, the same each time.
    """
    chosen = {*random.Random(0).sample(range(len(records)), min(sample, len(records)))}
    counts, faults = np.zeros(VOID + 1, np.int64), list[str]()
    with bar(split, len(records), "masks") as advance:
        for number, record in enumerate(records):
            try:
                if number in chosen:
                    record.read_image()
                counts += np.bincount(record.read_mask().numpy().ravel(), minlength=VOID + 1)
            except UsageError as error:
                faults.append(str(error))
            advance(1)
    return counts, faults


def _describe_shares(counts: np.ndarray, classes: Sequence[str]) -> str:
    """`pixels: 71.3% background, 28.7% cat; 5.2% of all are void`, the most frequent first."""
    total = max(1, int(counts[:VOID].sum()))
    order = np.argsort(-counts[: len(classes)], kind="stable")
    shares = [f"{100 * counts[number] / total:.1f}% {classes[number]}" for number in order]
    void = f"; {100 * counts[VOID] / max(1, counts.sum()):.1f}% of all are void"
    return f"pixels: {shorten(shares, 8)}{void if counts[VOID] else ''}"
