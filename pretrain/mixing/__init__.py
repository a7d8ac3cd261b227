"""CutMix and its family: pure functions on batches, randomness passed in."""

from pretrain.mixing.attentive_cutmix import AttentiveCutMix
from pretrain.mixing.boxes import official_boxes, paper_boxes
from pretrain.mixing.cut_thumbnail import CutThumbnail
from pretrain.mixing.cutmix import CutMix, paste
from pretrain.mixing.cutout import Cutout
from pretrain.mixing.decoupled import decoupled_loss
from pretrain.mixing.feature_cutmix import FeatureCutMix
from pretrain.mixing.fmix import FMix
from pretrain.mixing.gridmask import GridMask
from pretrain.mixing.gridmix import GridMix, patch_targets
from pretrain.mixing.levels import FeatureLevels
from pretrain.mixing.manifold_mixup import ManifoldMixup
from pretrain.mixing.mixed import Granularity, Mix, Mixed, Partner, forward, unmixed
from pretrain.mixing.mixup import Mixup
from pretrain.mixing.mosaic import Mosaic
from pretrain.mixing.puzzlemix import PuzzleMix
from pretrain.mixing.random_erasing import RandomErasing
from pretrain.mixing.resizemix import ResizeMix
from pretrain.mixing.saliencymix import SaliencyMix
from pretrain.mixing.schedule import Choice, mix_at, network_parts
from pretrain.mixing.smoothmix import SmoothMix
from pretrain.mixing.snapmix import SnapMix
from pretrain.mixing.transmix import AttentionRecorder, TransMix

__all__ = [
    "AttentionRecorder",
    "AttentiveCutMix",
    "Choice",
    "CutMix",
    "CutThumbnail",
    "Cutout",
    "FMix",
    "FeatureCutMix",
    "FeatureLevels",
    "Granularity",
    "GridMask",
    "GridMix",
    "ManifoldMixup",
    "Mix",
    "Mixed",
    "Mixup",
    "Mosaic",
    "Partner",
    "PuzzleMix",
    "RandomErasing",
    "ResizeMix",
    "SaliencyMix",
    "SmoothMix",
    "SnapMix",
    "TransMix",
    "decoupled_loss",
    "forward",
    "mix_at",
    "network_parts",
    "official_boxes",
    "paper_boxes",
    "paste",
    "patch_targets",
    "unmixed",
]
