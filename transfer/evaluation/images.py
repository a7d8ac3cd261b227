"""Labelled images of a folder, the labels being the classifier's outputs.

What a suite needs that scores the classifier on images of its own classes.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.backbone import Backbone
from pretrain.backbone_evaluation import ClassOrder, open_matched, require_classifier
from pretrain.data import Images
from pretrain.data_digest import DataFiles
from transfer.stores import data_name


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images that the classifier can be right about."""

    images: Images
    """Its `labels` are outputs of the classifier."""
    matching: str
    """How the classes of the data were matched with the outputs."""
    files: DataFiles
    name: str

    @property
    def summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        return {
            "name": self.name,
            "images": len(self.images),
            "classes": len(np.unique(self.images.labels)),
            "matching": self.matching,
            "notes": list(self.images.notes),
        }


@dataclass(frozen=True, kw_only=True)
class Labels:
    """How a folder of labelled images is read: as tools/evaluate.py without suites reads it."""

    split: str | None = None
    val_labels: str | None = None
    class_order: ClassOrder | None = None


def open_labelled(backbone: Backbone, root: str | Path, labels: Labels) -> LabelledImages:
    """List the images of a folder or of shards.

    Raises:
        UsageError: a backbone without classifier, no such data, or classes that are not its.
    """
    require_classifier(backbone)
    images, matching = open_matched(
        root, labels.split, labels.val_labels, backbone, labels.class_order
    )
    files = DataFiles((Path(root),), images.paths, images.annotations)
    return LabelledImages(images, matching, files, data_name(root))
