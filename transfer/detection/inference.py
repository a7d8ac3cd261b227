"""Trained detectors: their file, and what they find in images."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.fabric import Fabric
from torch import nn

from pretrain import torch_file
from pretrain.audit import place
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.images import SUFFIXES
from pretrain.progress import bar, log
from pretrain.run import plain
from pretrain.training import Loader
from transfer.detection.annotations import size_of
from transfer.detection.config import (
    DetectionConfig,
    DetectorConfig,
    Engine,
    ImagesConfig,
)
from transfer.detection.dataset import DetectionDataset, collate
from transfer.detection.records import Record
from transfer.detection.setup import build_model, unfrozen

FORMAT = "detector/2"


@dataclass(frozen=True, kw_only=True)
class Detector:
    """A trained detector and what it must be fed."""

    model: nn.Module
    classes: tuple[str, ...]
    images: ImagesConfig
    engine: Engine
    backbone: dict[str, Any]
    """What `Backbone.describe` said."""


def save_detector(
    path: Path,
    model: nn.Module,
    backbone: Backbone,
    config: DetectionConfig,
    classes: Sequence[str],
) -> None:
    """Write what `load_detector` needs, whole or not at all."""
    content = {
        "format": FORMAT,
        "backbone": backbone.describe(),
        "spec": json.loads(json.dumps(asdict(backbone.spec))),
        "config": plain(config),
        "classes": list(classes),
        "state_dict": model.state_dict(),
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
    if found != FORMAT:
        raise UsageError(
            f"{file} is no detector of this project: format {found!r}, not {FORMAT!r}."
        )
    try:
        spec = BackboneSpec(**content["spec"])
        config, classes = content["config"], tuple(content["classes"])
        detector = DetectorConfig(**_tuples(config["detector"]))
        images, engine = ImagesConfig(**_tuples(config["images"])), config["engine"]
        detector = unfrozen(detector) if config["scratch"] else detector
        backbone = Backbone.of(spec.create(spec.num_classes, 0), spec, Provenance())
        model = build_model(backbone, detector, len(classes), engine)
        place(model, content["state_dict"])
    except (KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is damaged: {error!r}.") from error
    return Detector(
        model=model.eval(),
        classes=classes,
        images=images,
        engine=engine,
        backbone=content["backbone"],
    )


def _tuples(section: dict[str, Any]) -> dict[str, Any]:
    return {
        key: tuple(value) if isinstance(value, list) else value for key, value in section.items()
    }


@torch.inference_mode()
def detect(
    model: nn.Module,
    records: Sequence[Record],
    classes: Sequence[str],
    images: ImagesConfig,
    fabric: Fabric,
    *,
    batch_size: int = 1,
    workers: int = 0,
    max_corrupt: int = 0,
) -> list[dict[str, Any]]:
    """Detections of every image as a COCO-style results list.

    Boxes are x, y, width, height in pixels of the image on disk, cut at its edges. Every process
    looks at its share of the images; all of them return the whole list, in order of the records.
    """
    loader = Loader(
        DetectionDataset(records, images, train=False),
        batch_size=batch_size,
        seed=0,
        shuffle=False,
        workers=workers,
        collate=collate,
        rank=fabric.global_rank,
        ranks=fabric.world_size,
        max_corrupt=max_corrupt,
    )
    model.eval()
    found: list[tuple[int, list[dict[str, Any]]]] = []
    with bar("scoring", len(records), "images", shown=fabric.is_global_zero) as advance:
        for pictures, targets in loader.epoch(0):
            outputs = model(fabric.to_device(pictures))
            for output, target in zip(outputs, targets, strict=True):
                index = int(target["index"])
                rows = _rows(output, target["scale"], records[index], classes)
                found.append((index, rows))
            advance(len(pictures) * fabric.world_size)
    if fabric.world_size > 1:
        shares: list[Any] = [None] * fabric.world_size
        torch.distributed.all_gather_object(shares, found)
        found = [one for share in shares for one in share]
    return [row for _, rows in sorted(found, key=lambda one: one[0]) for row in rows]


def records_of_images(path: Path) -> list[Record]:
    """An image, or those of a folder, without objects.

    Raises:
        UsageError: nothing there, or two files of one name but for the ending.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix.lower() in SUFFIXES)
    else:
        files = [path] if path.is_file() else []
    sizes = [(file, size_of(file)) for file in files]
    usable = [(file, size) for file, size in sizes if size is not None]
    if not usable:
        raise UsageError(f"{path} is no image and no folder with images ({', '.join(SUFFIXES)}).")
    names = [file.stem for file, _ in usable]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UsageError(f"{path} has two images called {twice}; they would be one image_id.")
    for file, size in sizes:
        if size is None:
            log(f"left out: {file} is no image, or cut short")
    none = np.zeros(0, dtype=bool)
    return [
        Record(
            image_id=file.stem,
            path=file,
            width=width,
            height=height,
            boxes=np.zeros((0, 4)),
            labels=np.zeros(0, dtype=np.int64),
            difficult=none,
            truncated=none,
            crowd=none,
        )
        for file, (width, height) in usable
    ]


def _rows(
    output: dict[str, torch.Tensor], scale: torch.Tensor, record: Record, classes: Sequence[str]
) -> list[dict[str, Any]]:
    boxes = output["boxes"].float().cpu() / scale.repeat(2)
    limits = torch.tensor([record.width, record.height]).repeat(2)
    boxes = torch.minimum(boxes.clamp(min=0), limits)
    boxes[:, 2:] -= boxes[:, :2]
    scored = zip(boxes.tolist(), output["labels"].tolist(), output["scores"].tolist(), strict=True)
    return [
        {
            "image_id": record.image_id,
            "category": classes[label - 1],
            "bbox": box,
            "score": score,
        }
        for box, label, score in scored
    ]
