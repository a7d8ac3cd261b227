"""Caption images with a trained captioner.

python tools/caption.py --captioner RUN [RUN ...] --images DIR [--out DIR]

RUN is the folder of a captioning run, or a captioner.pth; several that have the same vocabulary are
searched as an ensemble. Images are those in DIR and in folders below it. Writes OUT/captions.json
(MS-COCO's results format; an id is the file's name, or MS-COCO's number where all names have one)
and OUT/captions.html.
"""

import json
import math
import re
import sys
from argparse import Namespace
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.files import write_text
from pretrain.progress import log
from tools.support.command import Parser, run_main

if TYPE_CHECKING:
    from transfer.captioning.config import DecodingConfig

_ON_PAGE = 200


def main(argv: list[str] | None = None) -> None:
    """Read, caption, write."""
    parser = Parser(__doc__)
    add = parser.add_argument
    help_run = "A captioning run or file, or several; the first one says how to search."
    add("--captioner", type=Path, nargs="+", required=True, metavar="RUN", help=help_run)
    add("--images", type=Path, required=True, metavar="DIR", help="A folder of images.")
    add("--out", type=Path, metavar="DIR", help="Where to write (default: DIR-captions).")
    add("--beam", type=int, metavar="K", help="Width of the search.")
    add("--groups", type=int, metavar="G", help="Groups of the beam that keep apart.")
    add("--diversity", type=float, metavar="X", help="How far apart.")
    help_all = "Write the best caption of each group too, likeliest first."
    add("--all", action="store_true", help=help_all)
    add("--max-length", type=int, metavar="L", help="Most words, the end counted.")
    help_power = "Power of the length by which a log-probability is divided."
    add("--length-normalisation", type=float, metavar="P", help=help_power)
    add("--block-ngrams", type=int, metavar="N", help="Repeat no N words.")
    add("--device", choices=["auto", "cpu", "cuda", "mps"], default="auto")
    add("--workers", type=int, default=1, help="Loader processes (default: 1).")
    add("--skip-broken", action="store_true", help="Leave out files that cannot be read.")
    help_exif = "Photos turned as their EXIF orientation says (default), or as they are stored."
    add("--exif", choices=["apply", "ignore"], default="apply", help=help_exif)
    options = parser.parse(argv)
    check_ranges("--", options, beam="[1, 1000]", groups="[1, 1000]", max_length="[1, 1000]")
    check_ranges("--", options, diversity=">= 0", length_normalisation="[0, 10]")
    check_ranges("--", options, block_ngrams=">= 0", workers="[0, 512]")

    from pretrain.images import read_header
    from pretrain.training import make_fabric
    from transfer.captioning.captioner import Captioner
    from transfer.captioning.ensemble import check_vocabularies
    from transfer.captioning.inference import caption_files, image_files
    from transfer.captioning.page import Figure, write_figures

    paths = image_files(options.images)
    title = options.images.resolve().name
    out = options.out or options.images.with_name(f"{title}-captions")
    first, *others = map(Captioner.load, options.captioner)
    first = replace(first, decoding=_decoding(first.decoding, options))
    captioners = [first, *others]
    check_vocabularies(captioners, options.captioner)
    apply_exif = options.exif == "apply"
    captions, corrupt = caption_files(
        captioners,
        paths,
        make_fabric(options.device),
        workers=options.workers,
        apply_exif=apply_exif,
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
        {"image_id": image_id, "caption": found[0], **({"captions": found} if options.all else {})}
        for image_id, found in zip(_ids(names), captions.values(), strict=True)
    ]
    figures = [
        Figure(name, path, found[0], others=found[1:] if options.all else ())
        for name, path, found in zip(names, captioned, captions.values(), strict=True)
    ][:_ON_PAGE]
    text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    # bytes of a name that are no text become \udcXX, as JSON escapes them
    write_text(out / "captions.json", text.encode("utf-8", "backslashreplace").decode())
    write_figures(out / "captions.html", f"Captions of {title}", {"": figures}, len(figures))
    for row in rows[:3]:
        print(f"{row['image_id']}: {row['caption']}")
    print(f"{len(rows):,} captions in {out}/captions.json, a page in {out}/captions.html")


def _decoding(own: "DecodingConfig", options: Namespace) -> "DecodingConfig":
    """A captioner's own search, changed by the options that are given."""
    given = {
        field.name: value
        for field in fields(own)
        if (value := getattr(options, field.name)) is not None
    }
    beam, groups = given.get("beam", own.beam), given.get("groups", own.groups)
    if beam % groups:
        width = min(math.ceil(beam / groups), 1000 // groups)
        raise UsageError(
            f"the beam is {beam} and its groups are {groups}; it must be a multiple of them, such "
            f"as --beam {groups * width}"
        )
    for name in ("diversity", "all"):
        if groups == 1 and getattr(options, name):
            raise UsageError(f"--{name} wants groups; give them, such as --beam 6 --groups 3")
    return replace(own, **given)


def _ids(names: list[str]) -> list[int] | list[str]:
    """The numbers of names such as COCO_val2014_000000391895.jpg, or else the names."""
    matches = [re.search(r"(?:^|_)(\d{12})$", Path(name).stem) for name in names]
    numbers = [int(match[1]) for match in matches if match]
    return numbers if len(set(numbers)) == len(names) else names


if __name__ == "__main__":
    run_main(main)
