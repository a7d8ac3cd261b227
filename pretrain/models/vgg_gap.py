"""VGG-GAP: VGG-16 for weakly supervised localisation (CutMix paper, table 9; ACoL, ADL).

VGG-16 without its last max-pool and its fully connected layers; then a 3x3 convolution to 1,024
channels, ReLU, mean over the image, classifier: 14 x 14 places of an image of 224 pixels, which the
classifier's weights turn into class activation maps (Zhou et al., CVPR 2016). As
github.com/clovaai/wsolevaluation (wsol/vgg.py, VggCam) and junsukchoe/ADL (backbone/vgg.py), from
authors of the paper; the names of the weights are the former's, whose files load strictly, and up
to the fifth stage torchvision's. Feature levels lie at strides 1, 2, 4, 8 (the ends of the stages,
before their pools) and 16 (what is averaged).
"""

from collections.abc import Sequence
from typing import Any

from timm.models._features import feature_take_indices
from torch import Tensor, nn

from pretrain.models.pyramidnet import PyramidNet

_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGGGAP(PyramidNet):
    """The stages, one more convolution, mean over the image, classifier.

    Args:
        widths: channels of each convolution of each stage.
        last: channels that are averaged.
        num_classes: outputs; 0 for pooled features.
        in_chans: of the images.
        drop_rate: in front of the classifier.
        global_pool: of timm's.
    """

    def __init__(
        self,
        widths: Sequence[Sequence[int]] = _STAGES,
        last: int = 1024,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        nn.Module.__init__(self)
        layers: list[nn.Module] = []
        self.feature_info = []
        inputs = in_chans
        for number, stage in enumerate(widths):
            layers += [nn.MaxPool2d(2)] if number else []
            for width in stage:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            level = {"num_chs": inputs, "reduction": 2**number}
            self.feature_info.append(level | {"module": f"features.{len(layers) - 1}"})
        self.features = nn.Sequential(*layers)
        self.conv6 = nn.Conv2d(inputs, last, 3, padding=1)
        self.relu = nn.ReLU()
        self.feature_info[-1] = {**level, "num_chs": last, "module": "relu"}
        self.num_features = self.head_hidden_size = last
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's parts: the first convolution is the stem, then layer by layer."""
        return {
            "stem": r"^features\.0\.",
            "blocks": [(r"^features\.(\d+)", None), (r"^conv6", (99,))],
        }

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Timm's way to feature levels: `indices` of 0 to 4."""
        kept, last = feature_take_indices(len(self.feature_info), indices)  # type: ignore[arg-type]
        ends = [int(level["module"].partition(".")[2]) for level in self.feature_info[:-1]]
        levels = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in ends:
                index = ends.index(number)
                levels += [x] if index in kept else []
                if stop_early and index == last:
                    return levels if intermediates_only else (x, levels)
        x = self.relu(self.conv6(x))
        levels += [x] if len(ends) in kept else []
        return levels if intermediates_only else (x, levels)

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H/16, W/16), rounded down."""
        features: Tensor = self.forward_intermediates(x, 1)[0]
        return features
