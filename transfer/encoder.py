"""The frozen backbone as a probe or a captioner uses it: one feature an image, or a grid of them.

N images, F channels, P positions of the grid.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError

FeatureKind = Literal["pooled", "grid"]


def with_image_size(backbone: Backbone, image_size: int | None) -> Backbone:
    """The same backbone for square inputs of another size; None leaves it as it is."""
    if image_size is None or backbone.spec.input_size == (3, image_size, image_size):
        return backbone
    return replace(backbone, spec=replace(backbone.spec, input_size=(3, image_size, image_size)))


class Encoder(nn.Module):
    """Normalised images (N, 3, H, W) to features (N, F), or (N, P, F) of the last level's grid.

    The pooled feature is what the backbone's own classifier saw.
    """

    def __init__(self, backbone: Backbone, kind: FeatureKind) -> None:
        super().__init__()
        if kind == "pooled":
            self.network = backbone.build(num_classes=0)
        else:
            levels = backbone.spec.levels()
            if not levels:
                raise UsageError(
                    f"{backbone.spec.arch} has no feature maps to attend to. Use --model.kind nic."
                )
            self.network = backbone.feature_network([levels[-1].index])
        self.kind = kind
        self.requires_grad_(False)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """See the class."""
        if self.kind == "pooled":
            return self.network(images)
        (level,) = self.network(images)
        return level.flatten(2).transpose(1, 2)

    def train(self, mode: bool = True) -> "Encoder":
        """Normalisation layers keep their statistics: a batch of captions repeats few images."""
        return super().train(False)

    @torch.inference_mode()
    def feature_shape(self, backbone: Backbone) -> tuple[int, ...]:
        """(F,) or (P, F): of one image of the backbone's input size."""
        return tuple(self(torch.zeros(1, *backbone.spec.input_size))[0].shape)
