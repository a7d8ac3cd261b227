"""CutMix and its family: pure functions on batches, randomness passed in."""

from pretrain.mixing.cutmix import CutMix, official_boxes, paper_boxes, paste
from pretrain.mixing.cutout import Cutout
from pretrain.mixing.mixed import Mix, Mixed, unmixed
from pretrain.mixing.mixup import Mixup

__all__ = [
    "CutMix",
    "Cutout",
    "Mix",
    "Mixed",
    "Mixup",
    "official_boxes",
    "paper_boxes",
    "paste",
    "unmixed",
]
