"""The contracting half of a U-Net with BatchNorm, as a network that is pretrained like any other.

Five stages of two 3x3 convolutions, 64 to 1024 channels, a max-pool before each but the first: the
encoder of Ronneberger et al. (MICCAI 2015), each convolution followed by ReLU and BatchNorm as in
CycleMix (Zhang and Zhuang, CVPR 2022; BWGZK/CycleMix, models/UNet.py). Neither pads its
convolutions: levels are smaller than the image, which CycleMix puts into a frame of 92 zeros, and
are cropped to be joined. Here every convolution pads by one: levels lie at strides 1, 2, 4, 8, 16.
"""

from collections.abc import Sequence
from typing import Any

from timm.models._features import feature_take_indices
from torch import Tensor, nn

from pretrain.models.pyramidnet import PyramidNet


class UNetEncoder(PyramidNet):
    """The stages, mean over the image, classifier.

    Args:
        widths: channels of each stage.
        num_classes: outputs; 0 for pooled features.
        in_chans: of the images.
        drop_rate: in front of the classifier.
        global_pool: of timm's.
    """

    def __init__(
        self,
        widths: Sequence[int] = (64, 128, 256, 512, 1024),
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        nn.Module.__init__(self)
        self.stages = nn.ModuleList()
        self.feature_info = []
        inputs = in_chans
        for number, width in enumerate(widths):
            layers: list[nn.Module] = [nn.MaxPool2d(2)] if number else []
            for channels in (inputs, width):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
                layers += [convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(width)]
            self.stages.append(nn.Sequential(*layers))
            level = {"num_chs": width, "reduction": 2**number, "module": f"stages.{number}"}
            self.feature_info.append(level)
            inputs = width
        self.num_features = self.head_hidden_size = inputs
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's parts: the stages, of which the first is the stem."""
        return {"stem": r"^stages\.0\.", "blocks": [(r"^stages\.(\d+)", None)]}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Timm's way to feature levels: the outputs of the stages `indices`."""
        kept, last = feature_take_indices(len(self.stages), indices)  # type: ignore[arg-type]
        levels = []
        for index, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            x = stage(x)
            if index in kept:
                levels.append(x)
        return levels if intermediates_only else (x, levels)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H/16, W/16), rounded down."""
        features: Tensor = self.forward_intermediates(x, 1)[0]
        return features
