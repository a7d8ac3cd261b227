"""CutMix and its family: pure functions on batches, randomness passed in."""

from pretrain.mixing.boxes import official_boxes, paper_boxes
from pretrain.mixing.cutmix import CutMix, paste
from pretrain.mixing.cutout import Cutout
from pretrain.mixing.mixed import Granularity, Mix, Mixed, Partner, forward, unmixed
from pretrain.mixing.mixup import Mixup
from pretrain.mixing.schedule import Choice, mix_at, network_parts

__all__ = [
    "Choice",
    "CutMix",
    "Cutout",
    "Granularity",
    "Mix",
    "Mixed",
    "Mixup",
    "Partner",
    "forward",
    "mix_at",
    "network_parts",
    "official_boxes",
    "paper_boxes",
    "paste",
    "unmixed",
]
