"""show_mixing.py --task segmentation. No torch at import: `--help` is instant."""

import random
from dataclasses import replace
from typing import Any

from pretrain.errors import UsageError
from tools.support.command import SYNTHETIC

ABOUT_MASKS = {
    "cutmix": "a box of another image at its own place, with its part of the mask",
    "mosaic": "four images around a drawn centre, each with its part of the mask",
}
"""What an image becomes, in the order in which methods are listed and drawn."""
_MOST_IMAGES = 8
_SIDE = 240  # of a crop; that of the smallest image where it is less, as the rest would be void


def show_masks(options: Any) -> None:
    """Mix a batch, draw it, print how much of it is pasted; or only list the methods.

    Args:
        options: of the tool, with `dataset` and `mixing` as configurations.

    Raises:
        UsageError: data that cannot be read.
    """
    if options.list:
        print("\n".join(f"{name:17} {about}" for name, about in ABOUT_MASKS.items()))
        return
    from pretrain import synthetic
    from transfer.segmentation.config import VOID
    from transfer.segmentation.data import open_data
    from transfer.segmentation.dataset import SegmentationDataset
    from transfer.segmentation.gallery import draw_gallery, make_row, read_batch

    root = options.data or synthetic.segmentation(SYNTHETIC, train=60, val=20, size=128)
    records = open_data(root, options.dataset).train
    count = min(options.count, len(records), _MOST_IMAGES)
    if count < 2:
        raise UsageError(f"{root} has {len(records)} images, --count is {options.count}; two mix")
    shown = random.Random(options.seed).sample(range(len(records)), count)
    sides = (min(records[number].read_image().shape[-2:]) for number in shown)
    size = options.size or min(_SIDE, options.dataset.short_side or min(sides))
    dataset = replace(options.dataset, crop_size=size)
    images, masks = read_batch(SegmentationDataset(records, dataset, True), shown, options.seed)
    rows = {}
    for method in options.method or ABOUT_MASKS:
        mixing = replace(options.mixing, **{method: 1.0})
        row = rows[method] = make_row(images, masks, mixing, options.seed)
        void = [100 * (some == VOID).double().mean() for some in (masks, row.mixed_masks)]
        print(
            f"{method}: {100 * row.pasted:.0f} % of the pixels are of another image; void "
            f"{void[0]:.0f} % before, {void[1]:.0f} % after"
        )
    draw_gallery(rows, options.out)
    print(f"\nthe gallery is {options.out}")
