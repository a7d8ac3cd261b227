"""The ResNets of CIFAR (He et al., CVPR 2016, section 4.2): 6 n + 2 layers, widths 16, 32, 64.

Shortcuts are of type A: every second pixel, channels of zeros on both sides of them, no weights; as
in github.com/akamaster/pytorch_resnet_cifar10, whose published files load strictly. Those of the
CutMix release (clovaai/CutMix-PyTorch, resnet.py) are of type B, 1x1 convolutions where the shape
changes, and its blocks are by default bottlenecks, of which 9 n + 2 layers are made: ResNet-110 of
the paper's table 6. Names of the weights are the same. Feature levels lie at strides 1, 2, 4.
"""

from typing import Any

from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnet import BasicBlock, Bottleneck
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.models.pyramidnet import PyramidNet


class PaddedShortcut(nn.Module):
    """(N, C, H, W) to (N, 2 C, H / 2, W / 2), rounded up: every second pixel between zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        half = x.shape[1] // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, half, half))


class ThreeStageResNet(PyramidNet):
    """Convolution, BN and ReLU, three stages of blocks, mean over the image, classifier.

    Args:
        depth: 6 n + 2; of bottlenecks 9 n + 2.
        bottleneck: blocks of three convolutions, their outputs four times as wide; with projection.
        projection: shortcuts are convolutions where the shape changes.
        num_classes: outputs; 0 for pooled features.
        in_chans: of the images.
        drop_rate: in front of the classifier.
        global_pool: of timm's.
    """

    def __init__(
        self,
        depth: int = 20,
        bottleneck: bool = False,
        projection: bool = False,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        nn.Module.__init__(self)
        unit = 9 if bottleneck else 6
        per_stage, odd = divmod(depth - 2, unit)
        if odd or not 0 < per_stage <= 200:
            raise UsageError(f"the depth of a ResNet for CIFAR is {unit} n + 2, and not {depth}")
        block: Any = Bottleneck if bottleneck else BasicBlock
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = BatchNormAct2d(16)
        self.add_module("bn_final", nn.Identity())
        self.feature_info = []
        inputs = 16
        for stage, width in enumerate((16, 32, 64), 1):
            stride, outputs = (2 if stage > 1 else 1), width * block.expansion
            shortcut: nn.Module | None = None
            if stride > 1 or inputs != outputs:
                projected = bottleneck or projection
                shortcut = _project(inputs, outputs, stride) if projected else PaddedShortcut()
            blocks = [block(inputs, width, stride, shortcut)]
            blocks += [block(outputs, width) for _ in range(per_stage - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            level = {"num_chs": outputs, "reduction": 2 ** (stage - 1), "module": f"layer{stage}"}
            self.feature_info.append(level)
            inputs = outputs
        self.num_features = self.head_hidden_size = inputs
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _project(inputs: int, outputs: int, stride: int) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
