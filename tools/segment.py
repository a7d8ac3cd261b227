"""Label the pixels of images, or of volumes, with a trained segmenter.

python tools/segment.py --segmenter RUN --images DIR [--out DIR] [--no-pictures]

Writes masks/NAME.png, a palette PNG whose values are the numbers of the classes, in the size of the
image; pictures/NAME.png, the image below its classes' colours; and classes.json, with the names,
colours and shares of the classes. NAME is the file's path in DIR without its ending. Images in
folders of DIR are taken too, hidden files are not. Photos are turned as their EXIF orientation
says, and masks are those of the picture as it is displayed; --exif ignore takes the pixels as they
are stored.

A segmenter trained on volumes takes NIfTI files, or ACDC's patients (of these the frames ED and
ES), and writes masks/NAME_segmentation.nii.gz in their grid and with their header.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
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
    add("--images", type=Path, required=True, help="A folder, one image, or one volume.")
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

    from pretrain.training import make_fabric
    from transfer.segmentation.inference import load_segmenter

    segmenter = load_segmenter(options.segmenter)
    fabric = make_fabric(options.device)
    network = fabric.setup(segmenter.model)
    written = Written(options.out, segmenter.classes, not options.no_pictures)
    label = label_volumes if segmenter.volumes else label_images
    label(options, segmenter, network, fabric, written)
    written.finish("volumes" if segmenter.volumes else "images", options.images)


@dataclass
class Written:
    """What has been written so far."""

    out: Path
    classes: tuple[str, ...]
    pictures: bool
    count: int = 0
    pixels: dict[int, int] = field(default_factory=dict)
    """Of each class."""

    def add(self, name: str, labels: Any, read_image: Callable[[], Any]) -> None:
        """Count the pixels of a label map, and draw it over its image (H, W, 3)."""
        import numpy as np

        from transfer.segmentation.label_maps import draw_overlay

        for value, count in enumerate(np.bincount(labels.ravel()).tolist()):
            self.pixels[value] = self.pixels.get(value, 0) + count
        if self.pictures:
            plain = 0 if self.classes[0] == "background" else None
            draw_overlay(self.out / "pictures" / f"{name}.png", read_image(), labels, plain)

    def finish(self, what: str, source: Path) -> None:
        """Write classes.json and say what there is."""
        from pretrain.palette import colour_map

        if not self.count:
            raise UsageError(f"none of the {what} of {source} can be read.")
        total = sum(self.pixels.values())
        rows = [
            {"value": value, "name": name, "colour": colour_map()[value].tolist(),
             "share": self.pixels.get(value, 0) / total}
            for value, name in enumerate(self.classes)
        ]  # fmt: skip
        lines = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in rows)
        write_text(self.out / "classes.json", f"[{lines}]\n")
        largest = sorted(rows, key=lambda row: -row["share"])
        found = [f"{row['name']} {row['share']:.1%}" for row in largest if row["share"]]
        print(
            f"{self.count:,} {what} of {len(rows)} classes: {shorten(found)}\n"
            f"  masks      {self.out}/masks/\n"
            f"  classes    {self.out}/classes.json"
            + (f"\n  pictures   {self.out}/pictures/" if self.pictures else "")
        )


def label_images(options: Any, segmenter: Any, network: Any, fabric: Any, written: Written) -> None:
    """Write a label map of each image."""
    from pretrain.images import list_images
    from transfer.image_files import find_images
    from transfer.segmentation.inference import UnlabelledImage, scoring_loader, segment
    from transfer.segmentation.label_maps import write_label_map
    from transfer.segmentation.volumes import is_nifti

    source = options.images
    has_images = source.is_dir() and list_images(source)[0]
    if not has_images and any(map(is_nifti, [source, *source.rglob("*")])):
        raise UsageError(f"{source} holds volumes; this segmenter was trained on images.")
    records = [UnlabelledImage(file) for file in find_images(source, options.exif)]
    dataset = replace(segmenter.dataset, max_corrupt=len(records))
    loader = scoring_loader(records, dataset, fabric, workers=options.workers)

    def see(index: int, label_map: Any, mask: Any) -> None:
        labels, record = label_map.cpu().numpy(), records[index]
        write_label_map(written.out / "masks" / f"{record.image_id}.png", labels)
        written.add(record.image_id, labels, lambda: record.read_image().permute(1, 2, 0).numpy())
        written.count += 1

    segment(network, loader, fabric, see)


def label_volumes(
    options: Any, segmenter: Any, network: Any, fabric: Any, written: Written
) -> None:
    """Write a label volume of each volume."""
    import numpy as np

    from transfer.segmentation.inference import scoring_loader, segment
    from transfer.segmentation.nifti import write_labels
    from transfer.segmentation.pictures import to_rgb
    from transfer.segmentation.volumes import find_volumes, read_slices

    for file in find_volumes(options.images):
        records = read_slices(file)
        label_maps: dict[int, Any] = {}

        def see(index: int, label_map: Any, mask: Any, into: Any = label_maps) -> None:
            into[index] = label_map.cpu().numpy()

        if records:
            loader = scoring_loader(records, segmenter.dataset, fabric, workers=options.workers)
            segment(network, loader, fabric, see)
            volume = np.stack([label_maps[number] for number in range(len(records))])
            path = written.out / "masks" / f"{file.name}_segmentation.nii.gz"
            write_labels(file.path, volume, path)
            for record, labels in zip(records, volume, strict=True):
                written.add(record.image_id, labels, partial(to_rgb, record))
            written.count += 1


if __name__ == "__main__":
    run_main(main)
