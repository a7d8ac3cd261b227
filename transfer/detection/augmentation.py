"""SSD's augmentation, by torchvision's transforms (v2), at the image's own resolution.

Liu et al. (ECCV 2016), sections 2.2 and 3.6, in the order of amdegroot/ssd.pytorch and of the
preset `ssd` of torchvision's references; resizing and flip follow, in `dataset`:

    photometric   brightness, contrast, saturation, hue and the order of the channels, each with
                  chance 0.5, as both do (the authors' Caffe code leaves the channels in order)
    zoom_out      the image on a canvas of one to four times its sides. It is filled with ImageNet's
                  mean colour: the backbone's own, which may be another, is not known here
    iou_crop      an IoU of 0, 0.1, 0.3, 0.5, 0.7 or 0.9, or the whole image, is drawn; a crop has
                  0.3 to 1 of each side, and overlaps at least one object by so much

A crop keeps the objects whose centre lies in it, cut at its edges. Less than one pixel wide, high
or large they are dropped, where v2 does so too: whenever there is a chance of cropping and it comes
up, whole image or not. v2 may lose all objects by that; then the image is left uncropped here. An
image without objects, on which v2 would try crop after crop, or with a side below four pixels, of
which v2 would take a side of none and divide by it, is not cropped.

All draws come from torch's ambient generator.
"""

from functools import cache
from typing import Any

from torch import Tensor
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes, BoundingBoxFormat, Mask
from torchvision.tv_tensors import Image as Pixels

from pretrain.spec import IMAGENET_MEAN
from transfer.detection.config import DatasetConfig
from transfer.detection.sample import Sample

FILL = tuple(round(255 * value) for value in IMAGENET_MEAN)
"""RGB around a picture that is zoomed out."""
_LEAST_SIDE = 4  # 0.3 of it, cut off, is one pixel


def augment(sample: Sample, config: DatasetConfig) -> Sample:
    """Other colours, zoomed out, cropped: by the chances of a configuration.

    Nothing is drawn for what has no chance.
    """
    if not (config.photometric or config.zoom_out or config.iou_crop):
        return sample
    parts = as_parts(sample)
    for step in _before_crop(config.photometric, config.zoom_out):
        parts = step(parts)
    height, width = parts["image"].shape[-2:]
    if config.iou_crop and len(sample.boxes) and min(height, width) >= _LEAST_SIDE:
        cropped = _crop(config.iou_crop)(parts)
        parts = cropped if len(cropped["boxes"]) else parts
    plain = {name: part.as_subclass(Tensor) for name, part in parts.items()}
    return Sample(**plain)


def as_parts(sample: Sample) -> dict[str, Tensor]:
    """A sample as v2 takes it."""
    shape: Any = sample.size
    boxes = BoundingBoxes(sample.boxes, format=BoundingBoxFormat.XYXY, canvas_size=shape)
    parts = {"image": Pixels(sample.image), "boxes": boxes, "labels": sample.labels}
    return parts if sample.masks is None else {**parts, "masks": Mask(sample.masks)}


@cache
def _before_crop(photometric: float, zoom_out: float) -> list[v2.Transform]:
    steps: list[v2.Transform] = []
    if photometric:
        steps.append(v2.RandomApply([v2.RandomPhotometricDistort()], photometric))
    if zoom_out:
        steps.append(v2.RandomZoomOut({Pixels: FILL, "others": 0}, p=zoom_out))
    return steps


@cache
def _crop(chance: float) -> v2.Transform:
    return v2.RandomApply([v2.RandomIoUCrop(), v2.SanitizeBoundingBoxes()], chance)
