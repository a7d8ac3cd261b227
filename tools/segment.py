"""Label the pixels of images with a trained segmenter.

python tools/segment.py --segmenter RUN --images DIR [--out DIR] [--no-pictures]

Writes masks/NAME.png, a palette PNG whose values are the numbers of the classes, in the size of the
image; pictures/NAME.png, the image below its classes' colours; and classes.json, with the names,
colours and shares of the classes. NAME is the file's path in DIR without its ending. Images in
folders of DIR are taken too, hidden files are not. Photos are turned as their EXIF orientation
says, and masks are those of the picture as it is displayed; --exif ignore takes the pixels as they
are stored.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges, shorten
from pretrain.files import write_text
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Load, segment, write."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--segmenter", type=Path, required=True, help="Folder of a finished run, or segmenter.pth.")
    add("--images", type=Path, required=True, help="A folder, or one image.")
    add("--out", type=Path, default=Path("runs/segment"))
    add("--exif", choices=["apply", "ignore"], default="apply", help="Photos' orientation.")
    add("--no-pictures", action="store_true", help="Write masks and classes.json alone.")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    add("--workers", type=int, default=0, help="Loader processes.")
    options: Any = parser.parse(argv)
    check_ranges("--", options, workers="[0, 512]")
    out, images = options.out.resolve(), options.images.resolve()
    if images.is_dir() and images in (out, *out.parents):
        raise UsageError(
            f"--out {options.out} lies in --images {options.images}: what is written would be "
            "taken for images the next time. Give an --out elsewhere."
        )

    import numpy as np

    from pretrain.training import make_fabric
    from transfer.image_files import find_images
    from transfer.segmentation.inference import (
        UnlabelledImage,
        load_segmenter,
        scoring_loader,
        segment,
    )
    from transfer.segmentation.label_maps import colour_map, draw_overlay, write_label_map

    segmenter = load_segmenter(options.segmenter)
    records = [UnlabelledImage(file) for file in find_images(options.images, options.exif)]
    fabric, classes = make_fabric(options.device), segmenter.classes
    dataset = replace(segmenter.dataset, max_corrupt=len(records))
    loader = scoring_loader(records, dataset, fabric, workers=options.workers)
    plain = 0 if classes[0] == "background" else None
    counts, seen = np.zeros(len(classes), np.int64), 0

    def see(index: int, label_map: Any, mask: Any) -> None:
        nonlocal seen
        labels, name = label_map.cpu().numpy(), f"{records[index].image_id}.png"
        counts[:] += np.bincount(labels.ravel(), minlength=len(classes))
        seen += 1
        write_label_map(options.out / "masks" / name, labels)
        if not options.no_pictures:
            image = records[index].read_image().permute(1, 2, 0).numpy()
            draw_overlay(options.out / "pictures" / name, image, labels, plain)

    segment(fabric.setup(segmenter.model), loader, fabric, see)
    if not seen:
        raise UsageError(f"none of the images of {options.images} can be read.")
    shares = (counts / counts.sum()).tolist()
    rows = [
        {"value": value, "name": name, "colour": colour, "share": share}
        for value, (name, colour, share) in enumerate(
            zip(classes, colour_map().tolist(), shares, strict=False)
        )
    ]
    lines = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(options.out / "classes.json", f"[{lines}]\n")
    largest = sorted(rows, key=lambda row: -row["share"])
    found = shorten([f"{row['name']} {row['share']:.1%}" for row in largest if row["share"]], 5)
    print(
        f"{seen:,} images of {len(classes)} classes: {found}\n"
        f"  masks      {options.out}/masks/\n"
        f"  classes    {options.out}/classes.json"
        + ("" if options.no_pictures else f"\n  pictures   {options.out}/pictures/")
    )


if __name__ == "__main__":
    run_main(main)
