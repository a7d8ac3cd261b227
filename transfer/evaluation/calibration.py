"""Calibration: to be written."""

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from pretrain.backbone import Backbone
from transfer.evaluation.config import CalibrationConfig
from transfer.evaluation.images import LabelledImages, Labels, open_labelled
from transfer.evaluation.session import Session, normalise, to_unit


def open_data(
    backbone: Backbone, root: Path, options: CalibrationConfig, labels: Labels
) -> LabelledImages:
    """The labelled images."""
    return open_labelled(backbone, root, labels)


def evaluate(
    backbone: Backbone, data: LabelledImages, options: CalibrationConfig, session: Session
) -> dict[str, Any]:
    """Measure."""

    def logits() -> dict[str, torch.Tensor]:
        network, images = session.network(backbone), data.images
        rows, found = [], []
        for batch, numbers in session.batches(images, backbone.spec, "calibration"):
            with torch.inference_mode(), session.fabric.autocast():
                rows.append(network(normalise(to_unit(batch), backbone.spec)).float().cpu())
            found.append(torch.from_numpy(images.labels)[numbers])
        return {"logits": torch.cat(rows), "labels": torch.cat(found)}

    kept = session.tensors("logits", logits)
    right = kept["logits"].argmax(1) == kept["labels"]
    confidence = functional.softmax(kept["logits"], 1).amax(1)
    return {"ece": 100 * float((confidence.mean() - right.float().mean()).abs())}
