"""A segmenter."""

from torch import nn

from pretrain.backbone import Backbone
from transfer.segmentation.config import SegmenterConfig


def build_segmenter(backbone: Backbone, config: SegmenterConfig, num_classes: int) -> nn.Module:
    """See `setup.build_model`."""
    raise NotImplementedError
