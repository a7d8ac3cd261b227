"""Draw what mixing methods make of images: a gallery with label weights, and how lam falls.

python tools/show_mixing.py                                    every method, on synthetic shapes
python tools/show_mixing.py --list                             what each does, in one line
python tools/show_mixing.py --images DIR --method cutmix fmix --granularity sample
python tools/show_mixing.py --images DIR --method cutmix --args.label one_hot --args.inside true
python tools/show_mixing.py --images DIR --backbone runs/x     also those that need a network

No image meets itself here, unless --partner any says so; in training one may.

python tools/show_mixing.py --task detection                   mixing of boxes, on shapes
python tools/show_mixing.py --task detection --data DIR --method cutmix --mixing.min_visible 0.5

draws images of a training split beside what mixing makes of them: of the image's own objects boxes
are blue, of others orange; below one that is not wholly seen stands its share; dropped ones are
dashed and red. --dataset.iou_crop 1, and so on, shows augmentation too. copy_paste is drawn where
the data has masks.

python tools/show_mixing.py --task segmentation --data DIR     mixing of images with their masks

draws a batch of training crops (--size) above their masks, each beside what mixing makes of it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import Method, MethodConfig, MixingConfig
from pretrain.errors import UsageError, check_ranges
from pretrain.progress import log
from tools.support.backbone_options import add_overrides, load, overrides
from tools.support.box_gallery import ABOUT_BOXES, show_boxes
from tools.support.command import SYNTHETIC, Parser, run_main
from tools.support.mask_gallery import ABOUT_MASKS, show_masks
from transfer.detection.config import DatasetConfig as DetectionData
from transfer.detection.config import MixingConfig as BoxMixing
from transfer.segmentation.config import DatasetConfig as SegmentationData
from transfer.segmentation.config import MixingConfig as MaskMixing
from transfer.stores import refuse_store

if TYPE_CHECKING:
    from pretrain.gallery import LabelledImages, Viewer

_MOST_PIXELS = 2**26

ABOUT = {
    "none": "the batch as it is",
    "cutmix": "a box of the partner, at its own place",
    "resizemix": "the whole partner, smaller, at a random place",
    "cut_thumbnail": "the same at half the side: of itself, of one partner, of two",
    "mosaic": "four images, each at its own place",
    "fmix": "the partner where smooth noise is low",
    "gridmix": "the partner in the holes of a grid, or in some of its cells",
    "mixup": "a weighted mean of both",
    "smoothmix": "the partner through a soft mask",
    "cutout": "a square is grey",
    "gridmask": "squares on a turned grid are grey",
    "random_erasing": "a rectangle is noise",
    "saliencymix": "a box around the partner's most salient pixel",
    "attentive_cutmix": "the partner's six cells of 49 with the largest features",
    "puzzlemix": "blocks of both, chosen and moved so that little saliency is lost",
    "snapmix": "a box of the partner in a box of another size",
    "transmix": "as CutMix",
    "manifold_mixup": "Mixup of the features of a level, another for each batch",
    "feature_cutmix": "CutMix of the features of a level, another for each batch",
}
"""What a batch becomes, in the order in which methods are listed and drawn."""
_OF_DATA = ("data", "dataset", "mixing")
"""Options of the tasks with boxes or masks."""


def main(argv: list[str] | None = None) -> None:
    """Mix, draw, print the averages."""
    methods: tuple[Method, ...] = tuple(sorted(get_args(Method), key=[*ABOUT].index))
    all_methods = [*dict.fromkeys((*methods, *ABOUT_BOXES, *ABOUT_MASKS))]
    parser = Parser(__doc__)
    add = parser.add_argument
    tasks = ["classification", "detection", "segmentation"]
    add("--task", choices=tasks, default="classification")
    add("--images", type=Path, help="Images, or class folders; without it synthetic shapes.")
    add("--data", type=Path, help="detection, segmentation: a tree; without it synthetic shapes.")
    add(
        "--method",
        nargs="+",
        choices=all_methods,
        help="Those to draw (default: all; those of a network only with --backbone).",
    )
    add("--list", action="store_true", help="Say what each does, and draw nothing.")
    parser.add_class_arguments(MethodConfig, skip={"method", "weight"})
    parser.set_defaults(partner="other")
    count = "Images in the batch, of which up to 16 are drawn (default: 8; for boxes and masks 4, "
    add("--count", type=int, help=f"{count}at most 8).")
    size = (
        "Their side in pixels (default: 160, or the network's own; for boxes 240, for masks too, "
    )
    add("--size", type=int, help=f"{size}or the shorter side of the smallest image).")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("mixing.png"), help="The picture.")
    add("--backbone", help="A backbone file or name, for the methods that need a network.")
    add_overrides(parser)
    if _task_of(argv) == "segmentation":
        parser.add_class_arguments(SegmentationData, "dataset", skip={"crop_size"})
        parser.add_class_arguments(MaskMixing, "mixing", skip={*ABOUT_MASKS, "off_epoch"})
    else:
        chances = {*BoxMixing().chances, "off_epoch"}
        parser.add_class_arguments(DetectionData, "dataset", skip={"short_side", "long_side"})
        parser.add_class_arguments(BoxMixing, "mixing", skip=chances)
    options = parser.parse(argv)
    check_ranges("--", options, count="[1, 1024]", size="[8, 8192]", seed=">= 0")
    if options.count is None:
        options.count = 8 if options.task == "classification" else 4
    if options.out.suffix.lower() != ".png":
        raise UsageError(f"--out is {options.out}; the picture is a .png")
    _check_task(parser, options, methods)
    if options.task != "classification":
        show = show_boxes if options.task == "detection" else show_masks
        show(parser.instantiate(options))
        return
    if options.list:
        print("\n".join(f"{name:17} {_about(name)}" for name in methods))
        return
    recipes = _recipes(options, options.method or methods)
    left = [one.method for one in recipes if not options.backbone and _needs_network(one.method)]
    if left and options.method:
        raise UsageError(
            f"{left[0]} needs a network: give --backbone, the folder of a run of "
            "python tools/pretrain.py or any file or name that the other tools take"
        )
    if left:
        log(f"note: left out without --backbone: {', '.join(left)}")
    viewer, batch = _look(options)

    from pretrain.gallery import Row, draw_gallery

    rows: dict[str, Row] = {}
    drawn = [recipe for recipe in recipes if recipe.method not in left]
    for number, recipe in enumerate(drawn, 1):
        try:
            rows[_title(recipe)] = viewer.mix(recipe, batch, options.seed)
            log(f"{number}/{len(drawn)}  {recipe.method}")
        except UsageError as error:
            if options.method or recipe.args:
                raise
            log(f"note: left out: {recipe.method}: {error}")
    draw_gallery(rows, batch[2], options.out)
    for title, row in rows.items():
        print(title + (row.note and f": {row.note}"))
        if row.lam.size:
            unmixed = f"{100 * (row.lam == 1).mean():.1f} % of them 1"
            print(f"  mean lam {row.lam.mean():.3f} over {len(row.lam):,} draws, {unmixed}")
    print(f"\nthe gallery is {options.out}")


def _task_of(argv: list[str] | None) -> str | None:
    """What --task says: the options of the data depend on it."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--task")
    task: str | None = parser.parse_known_args(argv)[0].task
    return task


def _check_task(parser: Parser, options: Any, methods: Sequence[str]) -> None:
    """Refuse methods and options of another task."""
    by_task = {"detection": [*ABOUT_BOXES], "segmentation": [*ABOUT_MASKS]}
    known: Sequence[str] = by_task.get(options.task, methods)
    for method in options.method or ():
        if method not in known:
            raise UsageError(f"--method {method} is not of {options.task}: {', '.join(known)}")
    of_data = options.task in by_task
    of_all = ("task", "method", "list", "count", "size", "seed", "out", *_OF_DATA)
    for name, default in parser.get_defaults().items():
        section = name.partition(".")[0]
        is_other = section not in of_all if of_data else section in _OF_DATA
        if is_other and options[name] != default:
            task = "classification" if of_data else "detection"
            text = f"--{name} is of --task {task}, and the task is {options.task}: leave it out"
            raise UsageError(text + (", or give --data" if name == "images" else ""))


def _recipes(options: Any, methods: Sequence[Method]) -> list[MixingConfig]:
    """One for each method; what --args has goes to those of them that take it."""
    from pretrain.mixing.schedule import METHODS, NETWORK_PARTS

    shared = {entry.name for entry in fields(MethodConfig)} - {"method", "weight", "args"}
    flat, taken, recipes = {name: options[name] for name in shared}, set(), []
    for method in methods:
        own = {entry.name for entry in fields(METHODS[method])} - shared - NETWORK_PARTS
        args = {name: value for name, value in options.args.items() if name in own}
        recipes.append(MixingConfig(method=method, args=args, **flat))
        taken |= own
    if unknown := sorted(options.args.keys() - taken):
        raise UsageError(
            f"--args has {', '.join(unknown)}; the arguments of {', '.join(methods)} are "
            f"{', '.join(sorted(taken)) or 'none'}"
        )
    return recipes


def _needs_network(method: str) -> bool:
    """Whether it cannot be made without one."""
    from pretrain.mixing.schedule import METHODS, NETWORK_PARTS

    return not NETWORK_PARTS.isdisjoint(entry.name for entry in fields(METHODS[method]))


def _look(options: Any) -> "tuple[Viewer, LabelledImages]":
    """The images, and the network that looks at them."""
    from pretrain import synthetic
    from pretrain.gallery import Viewer, read_images, view_through

    backbone, size = None, options.size or 160
    if options.backbone:
        backbone = load(options.backbone, overrides(options), trust=options.trust)
        size = options.size or backbone.spec.input_size[1]
    if options.count * size**2 > _MOST_PIXELS:
        raise UsageError(
            f"--count {options.count} images of --size {size} are more than {_MOST_PIXELS:,} "
            "pixels; give less of one"
        )
    folder = options.images
    if folder is None:
        folder = synthetic.classification(SYNTHETIC, train=60, val=20, size=64) / "train"
    refuse_store(folder, "here images of a folder are mixed")
    batch = read_images(folder, options.count, size, options.seed)
    return (Viewer(), batch) if backbone is None else view_through(backbone, batch)


def _about(name: str) -> str:
    """What it does to a batch, and the network that it needs."""
    from pretrain.mixing.schedule import METHODS

    names = {entry.name for entry in fields(METHODS[name])}
    needs = {
        "network": "needs the network that is trained",
        "guide": "needs a network, better a trained one",
        "levels": "needs a network, whose features are mixed",
        "attention": "needs a ViT, whose attention weighs the labels",
    }
    return "; ".join([ABOUT[name], *(text for part, text in needs.items() if part in names)])


def _title(recipe: MixingConfig) -> str:
    """The method, and what it has other than by default here."""
    from pretrain.mixing.schedule import METHODS

    usual = MethodConfig(method=recipe.method, partner="other")
    names = {entry.name for entry in fields(METHODS[recipe.method])} | {"args"}
    given = {entry.name: getattr(recipe, entry.name) for entry in fields(MethodConfig)}
    given = {
        name: value
        for name, value in given.items()
        if name in names and value != getattr(usual, name)
    }
    given |= given.pop("args", {})
    words = (f"{name} {value}".replace("'", "") for name, value in given.items())
    return ", ".join([recipe.method, *words])


if __name__ == "__main__":
    run_main(main)
