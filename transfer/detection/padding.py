"""Images of any sizes as one normalised batch."""

import torch
from torch import Tensor, nn
from torchvision.models.detection.image_list import ImageList

from pretrain.backbone import BackboneSpec


class PaddedBatch(nn.Module):
    """Normalises by the backbone's mean and std, and fills up with zeros to the right and below."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, divisor: int) -> None:
        """`divisor`: height and width of the batch are multiples of it."""
        super().__init__()
        self.divisor = divisor
        for name, values in (("mean", spec.mean), ("std", spec.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None] * 255, persistent=False)

    def forward(self, images: list[Tensor]) -> ImageList:
        """N uint8 RGB (3, H, W) to (N, 3, largest H, largest W) and the sizes."""
        sizes = [(image.shape[-2], image.shape[-1]) for image in images]
        height, width = (
            -(-max(side) // self.divisor) * self.divisor for side in zip(*sizes, strict=True)
        )
        batch = self.mean.new_zeros((len(images), 3, height, width))
        for padded, image in zip(batch, images, strict=True):
            padded[:, : image.shape[-2], : image.shape[-1]] = (image - self.mean) / self.std
        return ImageList(batch, sizes)
