"""Trained segmenters: their file, and the label maps that they make of records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from pretrain import torch_file
from pretrain.audit import load_strict
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.images import decode
from pretrain.progress import bar
from pretrain.run import plain
from pretrain.training import Loader
from transfer.image_files import ImageFile
from transfer.segmentation.config import VOID, DatasetConfig, SegmentationConfig, SegmenterConfig
from transfer.segmentation.dataset import SegmentationDataset, collate_scored
from transfer.segmentation.records import Record
from transfer.segmentation.setup import build_model, unfrozen

FORMAT = "segmenter/1"
_CLASSES_AT_ONCE = 8
_PIXELS_AT_ONCE = 2**21  # of images as they are scored, which may be larger than training's crops


@dataclass(frozen=True, kw_only=True)
class Segmenter:
    """A trained segmenter and what it must be fed."""

    model: nn.Module
    classes: tuple[str, ...]
    dataset: DatasetConfig
    volumes: bool
    """Trained on slices of volumes, not on images."""


@dataclass(frozen=True)
class SegmenterFile:
    """What is written of a trained segmenter; `load_segmenter` reads it."""

    model: nn.Module
    backbone: Backbone
    config: SegmentationConfig
    classes: Sequence[str]
    volumes: bool

    def save(self, path: Path) -> None:
        """Write it, complete or not at all."""
        content = {
            "format": FORMAT,
            "backbone": self.backbone.describe(),
            "spec": plain(self.backbone.spec),
            "config": plain(self.config),
            "classes": list(self.classes),
            "volumes": self.volumes,
            "state_dict": self.model.state_dict(),
        }
        torch_file.write(path, content)


def load_segmenter(path: Path) -> Segmenter:
    """Read a segmenter file, or the one in the folder of a run.

    Raises:
        UsageError: no such file, no segmenter, or damaged.
    """
    file = path / "segmenter.pth" if path.is_dir() else path
    if not file.exists():
        raise UsageError(f"there is no segmenter {file}: give the folder of a finished run.")
    content = torch_file.read(file)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        raise UsageError(
            f"{file} is no segmenter of this project: format {found!r}, not {FORMAT!r}."
        )
    try:
        spec = BackboneSpec(**content["spec"])
        config, classes = content["config"], tuple(content["classes"])
        segmenter = SegmenterConfig(**_fields(config["segmenter"]))
        segmenter = unfrozen(segmenter) if config["random_init"] else segmenter
        backbone = Backbone.of(spec.create(spec.num_classes, 0), spec, Provenance())
        dataset = DatasetConfig(**_fields(config["dataset"]))
        model = build_model(backbone, segmenter, len(classes))
        load_strict(model, content["state_dict"])
        volumes = bool(content["volumes"])
        return Segmenter(model=model.eval(), classes=classes, dataset=dataset, volumes=volumes)
    except UsageError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file} is damaged: {error!r}.") from error


def _fields(section: dict[str, Any]) -> dict[str, Any]:
    """A section of a configuration as its dataclass takes it."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in section.items()}


@dataclass(frozen=True)
class UnlabelledImage:
    """A Record of an image without a mask: all of it is void."""

    file: ImageFile
    case: str = ""
    spacing: tuple[float, float] | None = None

    @property
    def image_id(self) -> str:
        """Its path in the folder, without its ending."""
        return self.file.name

    def read_image(self) -> Tensor:
        """See Record."""
        return decode(self.file.path, self.file.apply_exif)

    def read_mask(self) -> Tensor:
        """See Record."""
        return torch.full((self.file.height, self.file.width), VOID, dtype=torch.uint8)


def scoring_loader(
    records: Sequence[Record],
    dataset: DatasetConfig,
    fabric: Fabric,
    *,
    batch_size: int = 1,
    workers: int = 0,
) -> Loader:
    """What `segment` reads: images and masks, each process its share."""
    return Loader(
        SegmentationDataset(records, dataset, train=False),
        batch_size=batch_size,
        workers=workers,
        collate=collate_scored,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=dataset.max_corrupt,
        keep=True,
    )


@torch.inference_mode()
def segment(
    model: nn.Module,
    loader: Loader,
    fabric: Fabric,
    see: Callable[[int, Tensor, Tensor], None],
) -> None:
    """Hand each record's label map, in the size of its mask, to `see`.

    Logits are enlarged bilinearly to the mask's size (`align_corners` false), then the largest is
    taken: at the ends of the range of sizes this differs from enlarging a label map.

    Args:
        model: the segmenter.
        loader: see `scoring_loader`.
        fabric: device, precision, processes; each looks at its share of the records.
        see: called with the record's index, label map (H, W) uint8 and mask (H, W) uint8, both on
            the device.
    """
    model.eval()
    with bar("scoring", loader.batches.count, "images", shown=fabric.is_global_zero) as advance:
        for images, masks, indices in loader.epoch(0):
            for chosen in _of_one_size(images):
                batch = torch.stack([images[place] for place in chosen])
                with fabric.autocast():
                    logits = model(fabric.to_device(batch))["out"].float()
                for one, place in zip(logits, chosen, strict=True):
                    truth = fabric.to_device(masks[place])
                    label_map = to_label_map(one, (truth.shape[0], truth.shape[1]))
                    see(int(indices[place]), label_map, truth)
            advance(len(images) * fabric.world_size)


@torch.inference_mode()
def predict(model: nn.Module, record: Record, dataset: DatasetConfig, fabric: Fabric) -> np.ndarray:
    """A record as a label map uint8 (H, W) of the size of its mask; UsageError if unreadable."""
    image, mask, _ = SegmentationDataset([record], dataset, train=False)[0]
    model.eval()
    with fabric.autocast():
        logits = model(fabric.to_device(image[None]))["out"][0].float()
    label_map = to_label_map(logits, (mask.shape[0], mask.shape[1]))
    return np.asarray(label_map.cpu().numpy())


def to_label_map(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits (K, h, w) as a label map uint8 of `size`: enlarged bilinearly, the largest taken.

    A few classes at a time: all of 150 classes at 4000 x 3000 pixels would take 7 GB. The result is
    the same to the pixel; of equal logits the first class is taken.
    """
    if tuple(logits.shape[1:]) == size:
        return logits.argmax(0).to(torch.uint8)
    best = label_map = torch.empty(0)
    # other kernels, of other bits, enlarge what is channels_last
    for first, part in enumerate(logits.contiguous().split(_CLASSES_AT_ONCE)):
        values, places = functional.interpolate(part[None], size, mode="bilinear")[0].max(0)
        numbers = (places + first * _CLASSES_AT_ONCE).to(torch.uint8)
        if first == 0:
            best, label_map = values, numbers
        else:
            label_map = torch.where(values > best, numbers, label_map)
            best = torch.maximum(values, best)
    return label_map


def _of_one_size(images: Sequence[Tensor]) -> list[list[int]]:
    """Places of images that are stacked, in order: of one size, and not too many pixels."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place, image in enumerate(images):
        groups.setdefault(tuple(image.shape), []).append(place)
    return [
        places[start : start + most]
        for (*_, height, width), places in groups.items()
        for most in [max(1, _PIXELS_AT_ONCE // (height * width))]
        for start in range(0, len(places), most)
    ]
