"""What a configuration comes to: images, and the backbone with this run's preprocessing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.training import check_optimizer
from transfer.classification.config import ClassificationConfig
from transfer.classification.folders import ClassificationData, open_image_folders
from transfer.encoder import Encoder, with_image_size


@dataclass(frozen=True)
class ClassificationSetup:
    """Data and backbone, before anything is on a device."""

    data: ClassificationData
    backbone: Backbone
    """With the input size and the resizing of this run."""
    num_features: int

    @property
    def data_summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        return {
            "name": self.data.name,
            "train": len(self.data.train),
            "scored": len(self.data.scored),
            "classes": len(self.data.classes),
        }


def build(backbone: Backbone, config: ClassificationConfig) -> ClassificationSetup:
    """List the images and look at the backbone; every mistake a user can make shows here.

    Raises:
        UsageError: what cannot be used, and why.
    """
    if config.data is None:
        raise UsageError("no data: give --data DIR, a folder with DIR/{train,val}/CLASS/*.jpg")
    check_optimizer(config.optimizer)
    options = config.dataset
    data = open_image_folders(Path(config.data), options)
    if "full" in config.modes and len(data.train) < config.batch_size:
        raise UsageError(
            f"batch_size is {config.batch_size}, but there are only {len(data.train)} training "
            "images. Give a smaller batch_size."
        )
    if config.modes != ["full"] and not len(data.choose):
        raise UsageError(
            f"no class of {data.name} has two training images, so nothing can be held out to "
            "choose penalty and k on. Add images, or a test split: then they are chosen on val."
        )
    least = min(config.knn.ks)
    if "knn" in config.modes and least > len(data.fit):
        raise UsageError(
            f"knn.ks is {list(config.knn.ks)}, but there are only {len(data.fit)} images to choose "
            f"among the neighbours of. Give a k of at most {len(data.fit)}."
        )
    backbone = with_image_size(backbone, options.image_size)
    own = backbone.spec
    spec = replace(
        own,
        crop_pct=own.crop_pct if options.crop_pct is None else options.crop_pct,
        interpolation=options.interpolation or own.interpolation,
    )
    if spec != own:
        backbone = replace(backbone, spec=spec)
    shape = Encoder(backbone, "pooled").feature_shape(backbone)
    if len(shape) != 1:
        raise UsageError(
            f"{backbone.spec.arch} gives {shape} for an image, no single feature to classify by. "
            "Take a backbone with pooling."
        )
    return ClassificationSetup(data, backbone, shape[0])
