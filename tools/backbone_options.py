"""What a user may say about a backbone file that does not say it itself. No torch at import."""

import argparse
from typing import TYPE_CHECKING

from pretrain.errors import UsageError

if TYPE_CHECKING:
    from transfer.formats import Given


def add(parser: argparse.ArgumentParser) -> None:
    """The options, in a group of their own."""
    group = parser.add_argument_group("what the file does not say of itself")
    group.add_argument("--arch", help="A timm architecture, where names and shapes do not tell it.")
    group.add_argument(
        "--source",
        metavar="NAME",
        help="Whose conventions it follows (mean, std, channel order, strides): cutmix, "
        "cutmix-cifar, torchvision, mmpretrain, msra, detectron1, fair, or timm (the defaults of "
        "--arch).",
    )
    group.add_argument("--mean", metavar="R,G,B", help="Of pixels in [0, 1]; with --std.")
    group.add_argument("--std", metavar="R,G,B", help="Of pixels in [0, 1]; with --mean.")
    group.add_argument(
        "--channels",
        choices=["rgb", "bgr"],
        default="rgb",
        help="The order that its first convolution expects, beside --mean and --std.",
    )
    group.add_argument(
        "--prefix", help="Names that begin so belong to the network, the others are left."
    )


def given(options: argparse.Namespace) -> "Given":
    """The options as `transfer.formats` takes them."""
    from transfer.formats import Given

    return Given(
        arch=options.arch,
        source=options.source,
        mean=_three("--mean", options.mean),
        std=_three("--std", options.std),
        channels=options.channels,
        prefix=options.prefix,
    )


def _three(flag: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(word) for word in text.split(",")]
    except ValueError as error:
        raise UsageError(
            f"{flag} is {text!r}; it must be three numbers with commas: 0.485,0.456,0.406."
        ) from error
