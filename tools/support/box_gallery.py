"""show_mixing.py --task detection. No torch at import: `--help` is instant."""

import random
from dataclasses import replace
from typing import Any

from pretrain.errors import UsageError
from pretrain.progress import log
from tools.support.command import SYNTHETIC

ABOUT_BOXES = {
    "mosaic": "four images around a drawn point, each at half its size",
    "mixup": "a weighted mean with another image, and the objects of both",
    "cutmix": "a rectangle of another image at its own place, with the objects in it",
    "copy_paste": "some objects of another image, cut out by their masks",
}
"""What an image becomes, in the order in which methods are listed and drawn."""
_MOST_PAIRS = 8


def show_boxes(options: Any) -> None:
    """Mix, draw, print what becomes of the objects; or only list the methods.

    Args:
        options: of the tool, with `dataset` and `mixing` as configurations.

    Raises:
        UsageError: data that cannot be read, or that a method asked for cannot mix.
    """
    if options.list:
        print("\n".join(f"{name:17} {about}" for name, about in ABOUT_BOXES.items()))
        return
    from pretrain import synthetic
    from transfer.detection.data import open_data
    from transfer.detection.dataset import DetectionDataset, check_mixing
    from transfer.detection.gallery import count_objects, draw_gallery, make_pairs

    side = options.size or 240
    dataset = replace(options.dataset, short_side=side, long_side=min(2 * side, 16384))
    root = options.data or synthetic.detection(SYNTHETIC, train=60, val=20, size=128)
    records = open_data(root, dataset, masks=True).train.images
    samples = DetectionDataset(records, dataset, train=True, mixing=options.mixing)
    count, rows = min(options.count, len(records), _MOST_PAIRS), {}
    shown = random.Random(options.seed).sample(range(len(records)), count)
    methods: Any = options.method or ABOUT_BOXES
    for method in methods:
        try:
            check_mixing(records, replace(options.mixing, **{method: 1.0}))
            rows[method] = make_pairs(samples, method, shown, options.seed)
        except UsageError as error:
            if options.method:
                raise
            log(f"note: left out: {method}: {error}")
    least = options.mixing.min_visible
    if not rows:
        raise UsageError(f"{root}: no method can be drawn; the notes above say why.")
    draw_gallery(rows, least, options.out)
    for method, pairs in rows.items():
        whole, cut, dropped = count_objects(pairs, least)
        print(f"{method}: {whole} objects whole, {cut} cut, {dropped} dropped (under {least:g})")
    print(f"\nthe gallery is {options.out}")
