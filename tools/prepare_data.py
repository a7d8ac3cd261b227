"""Is a data set laid out and complete as its task needs? Repairs and draws what usually is not.

python tools/prepare_data.py imagenet --check DIR             folders, counts, a sample decoded
python tools/prepare_data.py imagenet --repair DIR            what was downloaded (the three tar
                                                              files, or parquet) unpacked into class
                                                              folders, then checked
python tools/prepare_data.py cifar --check DIR                every image and label read
python tools/prepare_data.py cifar --repair DIR               the archive unpacked, then checked
python tools/prepare_data.py coco --check DIR                 MS-COCO captions
python tools/prepare_data.py instances --check DIR            MS-COCO detection
python tools/prepare_data.py voc --check DIR                  a Pascal VOC tree, or a VOCdevkit
python tools/prepare_data.py yolo --check DIR                 YOLO's data.yaml, images and labels
python tools/prepare_data.py masks --check DIR [--dataset.*]  images and masks, as finetune_seg.py
                                                              takes them; every mask is read
python tools/prepare_data.py acdc --check DIR [--dataset.*]   ACDC's volumes

python tools/prepare_data.py voc --data DIR --val-fraction 0.2          lists of train and val drawn
python tools/prepare_data.py instances --data DIR --val-fraction 0.2    two files from one
python tools/prepare_data.py yolo --data DIR [--out NEW]                MS-COCO's files from YOLO's
python tools/prepare_data.py instance-masks --data DIR [--out NEW]      masks of MS-COCO's objects

A check ends with 0 where the data set is complete and with 1 where it is not. What is written never
replaces a file with another content.
"""

import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from tools.support.command import Parser, run_main
from transfer.segmentation.config import DatasetConfig as SegmentationData
from transfer.stores import is_store

_CHECKED = Path("--check")  # --repair without a folder: that of --check
_KINDS = (
    *("imagenet", "cifar", "coco", "instances", "voc", "yolo"),
    *("masks", "acdc", "instance-masks"),
)
# what only some kinds have
_ALLOWED = {
    "check": tuple(kind for kind in _KINDS if kind != "instance-masks"),
    "repair": ("imagenet", "cifar"),
    "data": ("instances", "voc", "yolo", "instance-masks"),
    "val_fraction": ("instances", "voc"),
    "test_fraction": ("instances", "voc"),
    "no_annotation": ("voc",),
    "out": ("yolo", "instance-masks"),
    "classes": ("instance-masks",),
    "join": ("instance-masks",),
    "dataset": ("masks", "acdc"),
}


def main(argv: list[str] | None = None) -> None:
    """Check, or prepare."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("kind", choices=list(_KINDS))
    add("--check", type=Path, metavar="DIR", help="The data set to look at.")
    add("--repair", type=Path, nargs="?", const=_CHECKED, metavar="DIR", help="Repair it first.")
    add("--sample", type=int, default=200, help="Images of a split to decode.")
    add("--data", type=Path, metavar="DIR", help="The data set to write for.")
    add("--val-fraction", type=float, default=0.0, help="So much of the images becomes val.")
    add("--test-fraction", type=float, default=0.0, help="So much of the images becomes test.")
    add("--seed", type=int, default=0, help="Of the draw.")
    choices = ["refuse", "empty"]
    add("--no-annotation", choices=choices, default="refuse", help="voc: images without an XML.")
    add("--out", type=Path, help="The new tree (default: beside the images).")
    help_classes = "instance-masks: categories to keep; the others are background."
    add("--classes", nargs="+", default=[], metavar="NAME", help=help_classes)
    add("--join", metavar="NAME", help="instance-masks: they are one class of this name.")
    parser.add_class_arguments(SegmentationData, "dataset", fail_untyped=True)
    options: Any = parser.parse(argv)
    check_ranges("--", options, sample=">= 0", seed=">= 0")
    check_ranges("--", options, val_fraction="[0, 1)", test_fraction="[0, 1)")
    options.dataset = parser.instantiate(options).dataset
    for name, kinds in _ALLOWED.items():
        default = SegmentationData() if name == "dataset" else parser.get_default(name)
        if options[name] != default and options.kind not in kinds:
            flag = "--dataset.*" if name == "dataset" else f"--{name.replace('_', '-')}"
            raise UsageError(f"there is nothing that {flag} could do to {options.kind}.")
    if options.repair not in (None, _CHECKED):
        if options.check is not None:
            raise UsageError("--check and --repair both name a folder: give one, `--repair DIR`.")
        options.check = options.repair
    if (options.check is None) == (options.data is None):
        both = "--check DIR looks at a data set, --data DIR writes what it lacks"
        raise UsageError(f"{both}: give one of them.")
    root = options.check or options.data
    if is_store(root):
        raise UsageError(
            f"{root} is a store of shards; `python tools/pack.py --verify {root}` checks it."
        )
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    results = _check(options, root) if options.check is not None else _prepare(options, root)
    for result in results:
        print(f"{result.state:<6}{result.text}")
    if options.check is None:
        return
    wrong = sum(result.state == "wrong" for result in results)
    problems = f"incomplete: {wrong} of {len(results)} checks failed"
    print(f"\n{root} is {problems if wrong else 'complete'}")
    sys.exit(1 if wrong else 0)


def _check(options: Any, root: Path) -> list[Any]:
    from pretrain.check_results import wrong
    from pretrain.data.check import check_cifar, check_imagenet, repair_cifar, repair_imagenet
    from transfer.captioning.check import check_coco
    from transfer.detection.check import check_instances, check_voc
    from transfer.detection.config import DatasetConfig
    from transfer.detection.yolo import convert_yolo
    from transfer.segmentation.acdc_check import check_acdc
    from transfer.segmentation.check import check_masks

    if options.kind == "yolo":
        try:
            return convert_yolo(root, None, write=False)
        except UsageError as error:
            return [wrong(str(error))]
    config = DatasetConfig(no_annotation=options.no_annotation)
    checks = {
        "imagenet": lambda: check_imagenet(root, options.sample),
        "cifar": lambda: check_cifar(root),
        "coco": lambda: check_coco(root, options.sample),
        "instances": lambda: check_instances(root, options.sample),
        "voc": lambda: check_voc(root, options.sample, config),
        "masks": lambda: check_masks(root, options.sample, options.dataset),
        "acdc": lambda: check_acdc(root, options.sample, options.dataset),
    }
    repairs = {"imagenet": repair_imagenet, "cifar": repair_cifar}
    repaired = repairs[options.kind](root) if options.repair is not None else []
    return [*repaired, *checks[options.kind]()]


def _prepare(options: Any, root: Path) -> list[Any]:
    if options.kind == "yolo":
        from transfer.detection.yolo import convert_yolo

        return convert_yolo(root, options.out)
    if options.kind == "instance-masks":
        from tools.support.instance_masks import write_masks

        return write_masks(root, options.out, options.classes, options.join)
    if not options.val_fraction + options.test_fraction:
        raise UsageError("what is to be drawn? --val-fraction 0.2 makes train and val.")
    from transfer.detection.splits import split_instances, split_voc

    draw = (root, options.val_fraction, options.test_fraction, options.seed)
    if options.kind == "instances":
        return split_instances(*draw)
    return split_voc(*draw, empty=options.no_annotation == "empty")


if __name__ == "__main__":
    run_main(main)
