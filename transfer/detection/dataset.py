"""Records as samples for a detector: decoded, augmented, resized, flipped, mixed.

All draws come from torch's ambient generator, in this order: whether the image is mixed and how;
the image's size, augmentation (see `augmentation`) and flip; its partners, each followed by its
size, augmentation and flip; the mixture (see `mixing`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from pretrain.errors import UsageError
from pretrain.images import decode
from pretrain.training import generator
from transfer.coco_masks import rasterize
from transfer.detection.augmentation import augment
from transfer.detection.config import DatasetConfig, MixingConfig
from transfer.detection.mixing import PARTNERS, Method, Mixture, draw_method, mix
from transfer.detection.records import Record
from transfer.detection.sample import Sample

_MOST_DRAWS = 100  # of partners, where hardly one can be used


@dataclass(frozen=True)
class DetectionDataset:
    """A sample is (image uint8 RGB (3, H, W), target).

    The target holds "boxes" (K, 4) and "labels" (K,) from 1, "index" of the record, and "scale"
    (2,): how much wider and taller the image was made; in scoring, than it is on disk. In training
    K may be 0: mixing may leave no object of which enough is seen.
    """

    records: Sequence[Record]
    config: DatasetConfig
    train: bool
    """Draw sizes, flips, augmentation and mixing from torch's ambient generator."""
    mixing: MixingConfig = field(default_factory=MixingConfig)

    def __len__(self) -> int:
        return len(self.records)

    def at_epoch(self, epoch: int) -> "DetectionDataset":
        """The data set of an epoch: without mixing from `mixing.off_epoch` on."""
        off = self.mixing.off_epoch
        return self if off is None or epoch < off else replace(self, mixing=MixingConfig())

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        method = draw_method(self.mixing, torch.default_generator) if self.train else None
        sample, scale = self.read(index, masks=method == "copy_paste")
        mixture = None if method is None else self.mix(method, index, sample)
        if mixture is not None:
            sample = mixture.keep(self.mixing.min_visible)
        target = {"boxes": sample.boxes, "labels": sample.labels}
        return sample.image, {**target, "scale": scale, "index": torch.tensor(index)}

    def read(self, index: int, masks: bool = False) -> tuple[Sample, Tensor]:
        """An image as it is without mixing, if asked with masks, and its scale (2,)."""
        record, config = self.records[index], self.config
        short_side, sides = config.short_side, config.train_short_sides
        if self.train and sides:
            short_side = sides[int(torch.randint(len(sides), ()))]
        image = decode(record.path, record.apply_exif)
        boxes, labels = torch.from_numpy(record.boxes).float(), torch.from_numpy(record.labels) + 1
        sample = Sample(image, boxes, labels)
        if masks:
            written = record.segmentations or [None] * len(labels)
            segmentations = [None if text is None else json.loads(text) for text in written]
            sample = replace(sample, masks=rasterize(segmentations, *sample.size))
        if self.train:
            sample = augment(sample, config)
        height, width = sample.size
        size = output_shape(height, width, short_side, config.long_side)
        if config.square is not None:
            size = config.square, config.square
        scale = torch.tensor([size[1] / width, size[0] / height])
        sample = sample.resize(size)
        if self.train and torch.rand(()) < config.flip:
            sample = sample.flip()
        return sample, scale

    def mix(self, method: Method, index: int, own: Sample) -> Mixture | None:
        """Image `index`, as read, with partners drawn uniformly from the other images.

        One that cannot be read or used is drawn anew; a broken file is named when it is drawn
        itself. None where 100 draws are not enough: the image stays as it is.
        """
        others = self._with_masks if method == "copy_paste" else range(len(self.records))
        partners: list[Sample] = []
        for _ in range(_MOST_DRAWS):
            other = others[int(torch.randint(len(others), ()))]
            if other == index:
                continue
            try:
                partners.append(self.read(other, masks=method == "copy_paste")[0])
            except UsageError:
                continue
            if len(partners) == PARTNERS[method]:
                mixture = mix(method, own, partners, self.mixing, torch.default_generator)
                if mixture is not None:
                    return mixture
                partners.clear()
        return None

    @cached_property
    def _with_masks(self) -> list[int]:
        """The images that Copy-Paste takes objects from."""
        return [index for index, record in enumerate(self.records) if any(record.segmentations)]


def check_mixing(records: Sequence[Record], config: MixingConfig) -> None:
    """Raise UsageError where training images have no partners, or masks cannot be drawn."""
    asked = [name for name, chance in config.chances.items() if chance]
    if asked and len(records) < 2:
        raise UsageError(
            f"mixing.{asked[0]} needs a second training image, and there is {len(records)}: leave "
            "it out"
        )
    with_masks = sum(any(record.segmentations) for record in records)
    if "copy_paste" in asked and with_masks < 2:
        raise UsageError(
            f"mixing.copy_paste needs masks, and {with_masks or 'none'} of {len(records):,} "
            "training images has one. MS-COCO's instance files have them (segmentation), Pascal "
            "VOC's have not: give such a tree, or leave mixing.copy_paste at 0; cutmix needs "
            "boxes alone"
        )
    if "copy_paste" in asked and find_spec("pycocotools") is None:
        raise UsageError("mixing.copy_paste needs pycocotools: pip install pycocotools")


def output_shape(height: int, width: int, short_side: int, long_side: int) -> tuple[int, int]:
    """Height and width with that short side, or with the largest allowed long one.

    detectron2's rule and rounding (ResizeShortestEdge.get_output_shape), where a side of less than
    half a pixel becomes 0 and fails; here no side is below 1.
    """
    scale = short_side / min(height, width)
    tall, wide = (short_side, scale * width) if height < width else (scale * height, short_side)
    if max(tall, wide) > long_side:
        shrink = long_side / max(tall, wide)
        tall, wide = tall * shrink, wide * shrink
    return max(1, int(tall + 0.5)), max(1, int(wide + 0.5))


def collate(samples: list[Any]) -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """Images of different sizes stay a list."""
    images, targets = zip(*samples, strict=True)
    return list(images), list(targets)


def aspect_ratio_order(
    records: Sequence[Record], batch_size: int, seed: int, epoch: int
) -> list[int]:
    """Every record once, in batches of wide images or of tall ones, in random order.

    A function of (seed, epoch). What fills no batch of its kind comes together at the end.
    """
    draw = generator(seed, "order", epoch)
    order = torch.randperm(len(records), generator=draw)
    wide = torch.tensor([record.width > record.height for record in records])[order]
    parts = [*order[wide].split(batch_size), *order[~wide].split(batch_size)]
    batches = [part for part in parts if len(part) == batch_size]
    rest = [part for part in parts if len(part) < batch_size]
    positions = torch.randperm(len(batches), generator=draw).tolist()
    return torch.cat([*(batches[position] for position in positions), *rest]).tolist()
