"""Is a data set laid out and complete as its task needs? Repairs what usually is not.

python tools/prepare_data.py imagenet --check DIR             folders, counts, a sample decoded
python tools/prepare_data.py imagenet --check DIR --repair    class archives of train unpacked, flat
                                                              validation images put into folders
python tools/prepare_data.py cifar --check DIR [--repair]     the archive unpacked
python tools/prepare_data.py voc --check DIR                  a Pascal VOC tree, or a VOCdevkit
python tools/prepare_data.py coco --check DIR                 MS-COCO captions

Ends with 0 where the data set is whole and with 1 where it is not.
"""

import argparse
import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from tools.command import run_main


def main(argv: list[str] | None = None) -> None:
    """Repair if asked, look, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=["imagenet", "cifar", "voc", "coco"])
    parser.add_argument("--check", type=Path, required=True, metavar="DIR", help="The data set.")
    parser.add_argument("--repair", action="store_true", help="Do the usual repairs first.")
    parser.add_argument(
        "--sample", type=int, default=200, help="Images of a split to decode (default: 200)."
    )
    options = parser.parse_args(argv)
    if options.sample < 0:
        raise UsageError(f"--sample is {options.sample}; it must be at least 0")
    if options.repair and options.kind in ("voc", "coco"):
        raise UsageError(f"there is nothing that --repair could do to {options.kind}.")

    from pretrain.data.check import check_cifar, check_imagenet, repair_cifar, repair_imagenet
    from transfer.captioning.check import check_coco
    from transfer.detection.check import check_voc

    root = options.check
    found = []
    match options.kind:
        case "imagenet":
            found += repair_imagenet(root) if options.repair else []
            found += check_imagenet(root, options.sample)
        case "cifar":
            found += repair_cifar(root) if options.repair else []
            found += check_cifar(root)
        case "voc":
            found += check_voc(root, options.sample)
        case "coco":
            found += check_coco(root, options.sample)
    for line in found:
        print(f"{line.state:<6}{line.text}")
    bad = sum(line.state == "wrong" for line in found)
    print(f"\n{root} is {'whole' if not bad else f'not whole: {bad} of {len(found)} findings'}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    run_main(main)
