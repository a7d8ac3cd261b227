"""DeepLabV3 (Chen et al., arXiv 1706.05587) as torchvision has it: a pyramid of dilations."""

from torch import nn
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from pretrain.backbone import Backbone
from transfer.segmentation.config import SegmenterConfig
from transfer.segmentation.network import build_dilated


def build_segmenter(backbone: Backbone, config: SegmenterConfig, num_classes: int) -> nn.Module:
    """See `setup.build_model`. New parts are drawn from torch's ambient generator.

    `dropout` is the second head's: in the pyramid torchvision always drops half, after the layer
    that joins its branches. The paper's multi-grid is in neither.
    """
    return build_dilated(
        backbone,
        config,
        num_classes,
        lambda channels: DeepLabHead(channels, num_classes, config.atrous_rates),
    )
