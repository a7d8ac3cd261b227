"""What a user may state about a backbone file that does not say it itself. No torch at import."""

import argparse
from typing import TYPE_CHECKING, Any

from pretrain.errors import UsageError

if TYPE_CHECKING:
    from transfer.formats import Overrides


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Add --trust, and the options for what a file leaves open in a group of their own."""
    parser.add_argument("--trust", action="store_true", help="Download files of unknown hash.")
    add = parser.add_argument_group("what the file does not say of itself").add_argument
    add("--arch", help="A timm architecture, where names and shapes do not tell it.")
    add(
        "--source",
        metavar="NAME",
        help="Whose preprocessing it follows (mean, std, channel order, strides): cutmix, "
        "cutmix-cifar, torchvision, mmpretrain, msra, detectron1, fair, or timm (the defaults of "
        "--arch).",
    )
    add("--mean", metavar="R,G,B", help="Of pixels in [0, 1]; with --std.")
    add("--std", metavar="R,G,B", help="Of pixels in [0, 1]; with --mean.")
    channels = "The order that its first convolution expects, beside --mean and --std."
    add("--channels", choices=["rgb", "bgr"], default="rgb", help=channels)
    add("--prefix", help="Names that begin so belong to the network, the others are left.")


def overrides(options: Any) -> "Overrides":
    """The options as `transfer.formats` takes them."""
    from transfer.formats import Overrides

    values = {name: getattr(options, name) for name in ("arch", "source", "channels", "prefix")}
    for name in ("mean", "std"):
        text = getattr(options, name)
        try:
            values[name] = text and [float(word) for word in text.split(",")]
        except ValueError as error:
            raise UsageError(
                f"--{name} is {text!r}; it must be three numbers with commas: 0.485,0.456,0.406."
            ) from error
    return Overrides(**values)
