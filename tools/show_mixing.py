"""Draw what a mixing method makes of images: a gallery with label weights, and how lam falls.

python tools/show_mixing.py                                    every method, on synthetic shapes
python tools/show_mixing.py --images DIR --method cutmix --granularity sample
python tools/show_mixing.py --images DIR/train --method cutmix mixup cutout --out gallery.png
"""

import sys
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import MethodConfig, MixingConfig
from pretrain.errors import UsageError, check_ranges
from tools.support.command import SYNTHETIC, Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Mix, draw, print the averages."""
    methods = get_args(get_type_hints(MethodConfig)["method"])
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--images", type=Path, help="Images, or class folders; without it synthetic shapes.")
    add("--method", nargs="+", choices=methods, default=list(methods))
    parser.add_class_arguments(MethodConfig, skip={"method", "weight"})
    add("--count", type=int, default=8, help="Images in the batch.")
    add("--size", type=int, default=160, help="Their side in pixels.")
    add("--seed", type=int, default=0)
    add("--out", type=Path, default=Path("mixing.png"), help="The picture.")
    options = parser.parse(argv)
    check_ranges("--", options, count="[1, 1024]", size="[8, 8192]", seed=">= 0")
    if options.out.suffix.lower() != ".png":
        raise UsageError(f"--out is {options.out}; the picture is a .png")
    names = {entry.name for entry in fields(MethodConfig)} - {"method", "weight"}
    shared = {name: options[name] for name in names}
    configs = [MixingConfig(method=method, **shared) for method in options.method]
    recipes = {_title(config): config for config in configs}

    from pretrain import synthetic
    from pretrain.gallery import draw_gallery, read_images

    folder = options.images
    if folder is None:
        folder = synthetic.classification(SYNTHETIC, train=60, val=20, size=64) / "train"
    batch = read_images(folder, options.count, options.size, options.seed)
    draws = draw_gallery(recipes, batch, options.seed, options.out)
    for title, lam in draws.items():
        unmixed = f"{100 * (lam == 1).mean():.1f} % of them 1"
        print(f"{title}\n  mean lam {lam.mean():.3f} over {len(lam):,} draws, {unmixed}")
    print(f"\nthe gallery is {options.out}")


def _title(recipe: MixingConfig) -> str:
    if recipe.method in ("none", "cutout"):
        return recipe.method if recipe.method == "none" else f"cutout, side {recipe.side:g}"
    box = f", {recipe.box} box" if recipe.method == "cutmix" else ""
    partner = ", no self-pairs" if recipe.partner == "other" else ""
    chance = f", probability {recipe.probability:g}" if recipe.probability < 1 else ""
    shared = f"one draw a {recipe.granularity}{partner}{chance}"
    return f"{recipe.method}, alpha {recipe.alpha:g}{box}, {shared}"


if __name__ == "__main__":
    run_main(main)
