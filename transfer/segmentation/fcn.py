"""FCN (Long et al., CVPR 2015) as torchvision has it: two convolutions on a dilated last level."""

from torch import nn

from pretrain.backbone import Backbone
from transfer.segmentation.config import SegmenterConfig
from transfer.segmentation.network import build_dilated, fcn_head


def build_segmenter(backbone: Backbone, config: SegmenterConfig, num_classes: int) -> nn.Module:
    """See `setup.build_model`. New parts are drawn from torch's ambient generator.

    The paper adds finer levels to the last one (FCN-16s, FCN-8s); torchvision dilates instead.
    """
    return build_dilated(
        backbone, config, num_classes, lambda channels: fcn_head(channels, config, num_classes)
    )
