"""Caption images with a trained captioner.

python tools/caption.py --captioner RUN --images DIR [--out DIR]

RUN is the folder of a captioning run, or a captioner.pth; images are those in DIR and in folders
below it. Writes OUT/captions.json (MS-COCO's results format; an id is the file's name, or MS-COCO's
number where all names have one) and OUT/captions.html.
"""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.files import write_text
from pretrain.progress import log
from tools.support.command import Parser, run_main

_ON_PAGE = 200


def main(argv: list[str] | None = None) -> None:
    """Read, caption, write."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--captioner", type=Path, required=True, metavar="RUN", help="A captioning run, or file.")
    add("--images", type=Path, required=True, metavar="DIR", help="A folder of images.")
    add("--out", type=Path, metavar="DIR", help="Where to write (default: DIR-captions).")
    add("--beam", type=int, metavar="K", help="Width of the search (default: the captioner's).")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    add("--workers", type=int, default=1, help="Loader processes (default: 1).")
    add("--skip-broken", action="store_true", help="Leave out files that cannot be read.")
    help_exif = "Photos turned as their EXIF orientation says (default), or as they are stored."
    add("--exif", choices=["apply", "ignore"], default="apply", help=help_exif)
    options = parser.parse(argv)
    check_ranges("--", options, beam="[1, 1000]", workers="[0, 512]")

    from pretrain.images import read_header
    from pretrain.training import make_fabric
    from transfer.captioning.captioner import Captioner
    from transfer.captioning.inference import caption_files, image_files
    from transfer.captioning.page import Figure, write_figures

    paths = image_files(options.images)
    name = options.images.resolve().name
    out = options.out or options.images.with_name(f"{name}-captions")
    captioner, fabric = Captioner.load(options.captioner), make_fabric(options.device)
    if options.beam is not None:
        captioner = replace(captioner, decoding=replace(captioner.decoding, beam=options.beam))
    apply_exif = options.exif == "apply"
    captions, corrupt = caption_files(
        captioner, paths, fabric, workers=options.workers, apply_exif=apply_exif
    )
    if corrupt and not options.skip_broken:
        raise UsageError(
            f"{len(corrupt)} of {len(paths)} files cannot be read. The first: "
            f"{next(iter(corrupt.values()))} --skip-broken captions the others."
        )
    for message in corrupt.values():
        log(f"left out: {message}")
    captioned = [paths[index] for index in captions]
    headers = map(read_header, captioned)
    if tagged := sum(header is not None and header.orientation != 1 for header in headers):
        how = "turned as it says" if apply_exif else "taken as they are stored (--exif ignore)"
        log(f"{tagged:,} of {len(captioned):,} photos carry an EXIF orientation: {how}")
    names = [str(path.relative_to(options.images)) for path in captioned]
    rows = [
        {"image_id": image_id, "caption": caption}
        for image_id, caption in zip(_ids(names), captions.values(), strict=True)
    ]
    figures = list(map(Figure, names, captioned, captions.values()))[:_ON_PAGE]
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    # bytes of a name that are no text become \udcXX, as JSON escapes them
    write_text(out / "captions.json", text.encode("utf-8", "backslashreplace").decode())
    write_figures(out / "captions.html", f"Captions of {name}", {"": figures}, len(figures))
    for row in rows[:3]:
        print(f"{row['image_id']}: {row['caption']}")
    print(f"{len(rows):,} captions in {out}/captions.json, a page in {out}/captions.html")


def _ids(names: list[str]) -> list[int] | list[str]:
    """The numbers of names such as COCO_val2014_000000391895.jpg, or else the names."""
    matches = [re.search(r"(?:^|_)(\d{12})$", Path(name).stem) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    return numbers if len(set(numbers)) == len(names) else names


if __name__ == "__main__":
    run_main(main)
