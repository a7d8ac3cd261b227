"""Is a data set laid out and complete as its task needs? Repairs what usually is not.

python tools/prepare_data.py imagenet --check DIR             folders, counts, a sample decoded
python tools/prepare_data.py imagenet --check DIR --repair    class archives of train unpacked, flat
                                                              validation images put into folders
python tools/prepare_data.py cifar --check DIR [--repair]     the archive unpacked
python tools/prepare_data.py voc --check DIR                  a Pascal VOC tree, or a VOCdevkit
python tools/prepare_data.py coco --check DIR                 MS-COCO captions

Ends with 0 where the data set is complete and with 1 where it is not.
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Repair if asked, check, print."""
    parser = Parser(__doc__)
    parser.add_argument("kind", choices=["imagenet", "cifar", "voc", "coco"])
    parser.add_argument("--check", type=Path, required=True, metavar="DIR", help="The data set.")
    parser.add_argument("--repair", action="store_true", help="Do the usual repairs first.")
    parser.add_argument("--sample", type=int, default=200, help="Images of a split to decode.")
    options = parser.parse(argv)
    check_ranges("--", options, sample=">= 0")
    if options.repair and options.kind in ("voc", "coco"):
        raise UsageError(f"there is nothing that --repair could do to {options.kind}.")
    root, results = options.check, []
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")

    from pretrain.data.check import check_cifar, check_imagenet, repair_cifar, repair_imagenet
    from transfer.captioning.check import check_coco
    from transfer.detection.check import check_voc

    if options.repair:
        results += (repair_cifar if options.kind == "cifar" else repair_imagenet)(root)
    if options.kind == "cifar":
        results += check_cifar(root)
    else:
        check = {"imagenet": check_imagenet, "voc": check_voc, "coco": check_coco}[options.kind]
        results += check(root, options.sample)
    for result in results:
        print(f"{result.state:<6}{result.text}")
    wrong = sum(result.state == "wrong" for result in results)
    problems = f"incomplete: {wrong} of {len(results)} checks failed"
    print(f"\n{root} is {problems if wrong else 'complete'}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    run_main(main)
