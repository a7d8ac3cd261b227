"""Trained detectors: their file, and what they find in images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from pretrain import torch_file
from pretrain.audit import load_strict
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.progress import bar
from pretrain.run import plain
from pretrain.training import Loader
from transfer import image_files
from transfer.detection.config import DatasetConfig, DetectionConfig, DetectorConfig
from transfer.detection.dataset import DetectionDataset, collate
from transfer.detection.records import Record
from transfer.detection.setup import build_model, unfrozen

FORMAT = "detector/3"
# fields in detector/2 and today
_RENAMED = {
    "max_broken": "max_corrupt",
    "group": "aspect_ratio_grouping",
    "anchor_sides": "anchor_sizes",
}


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A trained detector and what it must be fed."""

    model: nn.Module
    classes: tuple[str, ...]
    dataset: DatasetConfig


@dataclass(frozen=True)
class DetectorFile:
    """What is written of a trained detector; `load_detector` reads it."""

    model: nn.Module
    backbone: Backbone
    config: DetectionConfig
    classes: Sequence[str]

    def save(self, path: Path) -> None:
        """Write it, complete or not at all."""
        content = {
            "format": FORMAT,
            "backbone": self.backbone.describe(),
            "spec": plain(self.backbone.spec),
            "config": plain(self.config),
            "classes": list(self.classes),
            "state_dict": self.model.state_dict(),
        }
        torch_file.write(path, content)


def load_detector(path: Path) -> Detector:
    """Read a detector file, or the one in the folder of a run.

    Raises:
        UsageError: no such file, no detector, damaged, or of a library that is not installed.
    """
    file = path / "detector.pth" if path.is_dir() else path
    if not file.exists():
        raise UsageError(f"there is no detector {file}: give the folder of a finished run.")
    content = torch_file.read(file)
    found = content.get("format") if isinstance(content, dict) else None
    if found not in (FORMAT, "detector/2"):
        raise UsageError(
            f"{file} is no detector of this project: format {found!r}, not {FORMAT!r}."
        )
    try:
        content = _from_detector_2(content) if found == "detector/2" else content
        spec = BackboneSpec(**content["spec"])
        config, classes = content["config"], tuple(content["classes"])
        detector = DetectorConfig(**_fields(config["detector"]))
        detector = unfrozen(detector) if config["random_init"] else detector
        backbone = Backbone.of(spec.create(spec.num_classes, 0), spec, Provenance())
        dataset = DatasetConfig(**_fields(config["dataset"]))
        model = build_model(backbone, detector, len(classes), config["engine"], dataset.square)
        load_strict(model, content["state_dict"])
        return Detector(model=model.eval(), classes=classes, dataset=dataset)
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is damaged: {error!r}.") from error


def _from_detector_2(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a file of the format before, under today's names."""
    modules = {
        "trunk.pyramid.": "backbone.fpn.",
        "trunk.body.": "backbone.body.",
        ".box_head.fc1.": ".box_head.fc6.",
        ".box_head.fc2.": ".box_head.fc7.",
    }
    config = content["config"]
    config |= {"dataset": config["voc"] | config["images"], "random_init": config["scratch"]}
    weights = {}
    for name, tensor in content["state_dict"].items():
        for before, today in modules.items():
            name = name.replace(before, today)
        weights[name] = tensor
    return content | {"state_dict": weights}


def _fields(section: dict[str, Any]) -> dict[str, Any]:
    """A section of a configuration as its dataclass takes it."""
    return {_RENAMED.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in section.items()}


def scoring_loader(
    records: Sequence[Record],
    dataset: DatasetConfig,
    fabric: Fabric,
    *,
    batch_size: int = 1,
    workers: int = 0,
) -> Loader:
    """What `detect` reads: images, each process its share."""
    return Loader(
        DetectionDataset(records, dataset, train=False),
        batch_size=batch_size,
        workers=workers,
        collate=collate,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=dataset.max_corrupt,
        keep=True,
    )


@torch.inference_mode()
def detect(
    model: nn.Module,
    loader: Loader,
    records: Sequence[Record],
    classes: Sequence[str],
    fabric: Fabric,
) -> list[dict[str, Any]]:
    """Detections of every image as a COCO-style results list.

    Boxes are x, y, width, height in pixels of the image on disk, cut at its edges. Every process
    looks at its share of the images; all of them return the whole list, in order of the records.

    Args:
        model: the detector.
        loader: see `scoring_loader`.
        records: of its images.
        classes: of the detector.
        fabric: device, precision, processes.
    """
    model.eval()
    rows_of: dict[int, list[dict[str, Any]]] = {}
    with bar("scoring", len(records), "images", shown=fabric.is_global_zero) as advance:
        for images, targets in loader.epoch(0):
            with fabric.autocast():
                outputs = model(fabric.to_device(images))
            for output, target in zip(outputs, targets, strict=True):
                index = int(target["index"])
                rows_of[index] = _to_rows(output, target["scale"], records[index], classes)
            advance(len(images) * fabric.world_size)
    if fabric.world_size > 1:
        shares: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(shares, rows_of)
        rows_of = {index: rows for share in shares for index, rows in share.items()}
    return [row for index in sorted(rows_of) for row in rows_of[index]]


def _to_rows(
    output: dict[str, torch.Tensor], scale: torch.Tensor, record: Record, classes: Sequence[str]
) -> list[dict[str, Any]]:
    boxes = output["boxes"].float().cpu() / scale.repeat(2)
    limits = torch.tensor([record.width, record.height]).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    boxes[:, 2:] -= boxes[:, :2]
    scored = zip(boxes.tolist(), output["labels"].tolist(), output["scores"].tolist(), strict=True)
    return [
        {"image_id": record.image_id, "category": classes[label - 1], "bbox": box, "score": score}
        for box, label, score in scored
    ]


def find_images(path: Path, exif: str = "apply") -> list[Record]:
    """Images without objects; see `image_files.find_images`."""
    return [
        Record(
            image_id=image.name,
            path=image.path,
            width=image.width,
            height=image.height,
            apply_exif=image.apply_exif,
        )
        for image in image_files.find_images(path, exif)
    ]
