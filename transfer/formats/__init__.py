"""Checkpoints of the field, read into a Backbone. Today: our own format.

Readers for torchvision, timm, detectron2 and the official CutMix release come with their name
tables; until then a foreign file is refused with what it is.
"""

from pathlib import Path

from pretrain.backbone import Backbone


def read(path: str | Path) -> Backbone:
    """Read a checkpoint file; UserError where it is not understood."""
    return Backbone.load(Path(path))
