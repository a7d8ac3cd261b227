"""Draw what a mixing method makes of images: a gallery with label weights, and how lam falls.

python tools/show_mixing.py                                    every method, on the shape world
python tools/show_mixing.py --images DIR --method cutmix --granularity sample
python tools/show_mixing.py --images DIR/train --method cutmix mixup cutout --out gallery.png
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.config import MethodConfig, MixingConfig
from pretrain.errors import UsageError
from tools.command import SHAPE_WORLD, run_main


def main(argv: list[str] | None = None) -> None:
    """Mix, draw, say the averages."""
    options = _options(argv)
    base = MixingConfig(
        alpha=options.alpha,
        probability=options.probability,
        box=options.box,
        granularity=options.granularity,
        partner=options.partner,
        side=options.side,
    )

    from pretrain import synthetic
    from pretrain.gallery import Row, draw_gallery, read_images

    if options.images is None:
        world = synthetic.classification(SHAPE_WORLD, train=60, val=20, size=64)
        options.images = world / "train"
    images, labels, classes = read_images(options.images, options.count, options.size, options.seed)
    rows = []
    for method in options.method:
        recipe = replace(base, method=method)
        rows.append(Row.of(_title(recipe), recipe, images, labels, classes, options.seed))
    draw_gallery(rows, options.out)
    for row in rows:
        print(
            f"{row.title}\n  mean lam {row.lam.mean():.3f} over {len(row.lam):,} draws, "
            f"{100 * (row.lam == 1).mean():.1f} % of them 1"
        )
    print(f"\nthe gallery is {options.out}")


def _title(recipe: MixingConfig) -> str:
    if recipe.method == "cutout":
        return f"cutout, side {recipe.side:g}"
    if recipe.method == "none":
        return "none"
    more = [f"alpha {recipe.alpha:g}", f"one draw a {recipe.granularity}"]
    if recipe.method == "cutmix":
        more.insert(1, f"{recipe.box} box")
    if recipe.partner == "other":
        more.append("no self-pairs")
    if recipe.probability < 1:
        more.append(f"probability {recipe.probability:g}")
    return f"{recipe.method}, {', '.join(more)}"


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    kinds = get_type_hints(MethodConfig)
    methods = get_args(kinds["method"])
    parser.add_argument(
        "--images",
        type=Path,
        help="A folder of images, or of class folders; without it the shape world.",
    )
    parser.add_argument("--method", nargs="+", choices=methods, default=list(methods))
    parser.add_argument("--alpha", type=float, default=1.0, help="lam ~ Beta(alpha, alpha).")
    parser.add_argument("--probability", type=float, default=1.0, help="Chance that a draw mixes.")
    for name in ("box", "granularity", "partner"):
        allowed = get_args(kinds[name])
        parser.add_argument(f"--{name}", choices=allowed, default=allowed[0])
    parser.add_argument("--side", type=float, default=0.5, help="Of a Cutout square.")
    parser.add_argument("--count", type=int, default=8, help="Images in the batch.")
    parser.add_argument("--size", type=int, default=160, help="Their side in pixels.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mixing.png"), help="The picture.")
    options = parser.parse_args(argv)
    for name, least in (("count", 1), ("size", 8), ("seed", 0)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name} is {getattr(options, name)}; it must be at least {least}")
    if options.out.suffix.lower() != ".png":
        raise UsageError(f"--out is {options.out}; the picture is a .png")
    return options


if __name__ == "__main__":
    run_main(main)
