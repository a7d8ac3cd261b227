"""What a user may state about a backbone file that does not say it itself. No torch at import."""

import argparse
import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pretrain.errors import UsageError
from pretrain.progress import log

if TYPE_CHECKING:
    from pretrain.backbone import Backbone
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
        "cutmix-cifar, torchvision, mmpretrain, msra, detectron1, fair, timm (the defaults of "
        "--arch), or timm:NAME of its list.",
    )
    add("--mean", metavar="R,G,B", help="Of pixels in [0, 1]; with --std.")
    add("--std", metavar="R,G,B", help="Of pixels in [0, 1]; with --mean.")
    channels = "The order that its first convolution expects, beside --mean and --std."
    add("--channels", choices=["rgb", "bgr"], help=channels)
    eps = "What its BatchNorms add to the variance, such as 0.001 in TensorFlow's."
    add("--bn-eps", type=float, help=eps)
    arguments = "Of the architecture: stem_pool=max, output_stride=8, act_layer=silu (repeatable)."
    add("--model-arg", metavar="NAME=VALUE", action="append", default=[], help=arguments)
    config = "A configuration of timm; none where config.json beside the file is another network's."
    add("--config", metavar="FILE", help=config)
    add("--prefix", help="Names that begin so belong to the network, the others are left.")
    key = "Where in the file the weights are; dots between the keys."
    add("--key", metavar="PLACE", help=key)
    leave = "Names that may stay behind, such as 'head.*' (repeatable)."
    add("--leave", metavar="PATTERN", action="append", default=[], help=leave)


def overrides(options: Any) -> "Overrides":
    """The options as `transfer.formats` takes them."""
    from transfer.formats import Overrides

    names = ("arch", "source", "channels", "bn_eps", "config", "prefix", "key")
    values = {name: getattr(options, name) for name in names}
    values["leave"] = tuple(options.leave)
    values["model_args"] = dict(_argument(text) for text in options.model_arg)
    for name in ("mean", "std"):
        text = getattr(options, name)
        try:
            values[name] = text and [float(word) for word in text.split(",")]
        except ValueError as error:
            raise UsageError(
                f"--{name} is {text!r}; it must be three numbers with commas: 0.485,0.456,0.406."
            ) from error
    return Overrides(**values)


def _argument(text: str) -> tuple[str, Any]:
    """NAME=VALUE, a value of JSON or else a text."""
    name, equals, value = text.partition("=")
    if not name.isidentifier() or not equals:
        raise UsageError(f"--model-arg is {text!r}; it must be NAME=VALUE: stem_pool=max.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def load(name: str, given: "Overrides | None" = None, *, trust: bool = False) -> "Backbone":
    """The backbone of a name or file; what must be known of it goes to standard error and with it.

    Args:
        name: what `transfer.hub.resolve` takes.
        given: what the file does not say of itself.
        trust: download files whose hash is not known.
    """
    from transfer import hub
    from transfer.formats import Overrides
    from transfer.formats.inspection import find_flaws

    backbone = hub.resolve(name, given or Overrides(), trust=trust)
    if (stated := backbone.provenance.stated) is not None:  # a foreign file
        flaws = find_flaws(backbone.weights, stated.get("filled", ()))
        notes = list(dict.fromkeys([*stated.get("notes", ()), *flaws]))
        provenance = replace(
            backbone.provenance, stated=stated | ({"notes": notes} if notes else {})
        )
        backbone = replace(backbone, provenance=provenance)
    for note in backbone.notes if os.environ.get("RANK", "0") == "0" else ():
        log(f"note: {name}: {note}")
    return backbone
