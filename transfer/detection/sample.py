"""An image and its objects, while they are augmented and mixed."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Sample:
    """An image and its K objects; K may be 0."""

    image: Tensor
    """uint8 RGB (3, H, W)."""
    boxes: Tensor
    """(K, 4) left, top, right, bottom in pixels, float32."""
    labels: Tensor
    """(K,) int64, from 1."""
    masks: Tensor | None = None
    """(K, H, W) bool, where they were asked for; all false of an object without one."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self.image.shape[1], self.image.shape[2]

    def select(self, chosen: Tensor) -> "Sample":
        """Some of the objects, by a mask (K,) or by positions."""
        masks = None if self.masks is None else self.masks[chosen]
        return Sample(self.image, self.boxes[chosen], self.labels[chosen], masks)

    def resize(self, size: tuple[int, int]) -> "Sample":
        """Of another height and width: pixels as by `resize`, masks by the nearest pixel."""
        scale = torch.tensor([size[1] / self.size[1], size[0] / self.size[0]])
        boxes, masks = self.boxes * scale.repeat(2), self.masks
        if masks is not None and self.size != size:
            masks = _resize_masks(masks, size)
        return Sample(resize(self.image, size), boxes, self.labels, masks)

    def flip(self) -> "Sample":
        """Mirrored left to right."""
        image, boxes = flip(self.image, self.boxes)
        masks = None if self.masks is None else self.masks.flip(-1)
        return Sample(image, boxes, self.labels, masks)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """A uint8 image (3, H, W) by PIL's bilinear filter, as detectron2 does, to (3, *size)."""
    if tuple(image.shape[1:]) == size:
        return image
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    resized = np.asarray(picture.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return torch.from_numpy(resized.transpose(2, 0, 1).copy())


def flip(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Mirror an image (..., H, W) and its boxes (K, 4) left to right."""
    width = image.shape[-1]
    left, top, right, bottom = boxes.unbind(1)
    return image.flip(-1), torch.stack([width - right, top, width - left, bottom], dim=1)


def _resize_masks(masks: Tensor, size: tuple[int, int]) -> Tensor:
    if not len(masks):  # which interpolation refuses
        return masks.new_zeros(0, *size)
    return functional.interpolate(masks[None].byte(), size, mode="nearest-exact")[0].bool()
