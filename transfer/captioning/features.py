"""Pooled features of a frozen backbone, each image encoded once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from lightning.fabric import Fabric
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.images import decode
from pretrain.progress import bar
from pretrain.training import Loader


@dataclass(frozen=True)
class _Images:
    paths: Sequence[Path]
    transform: Callable[[Tensor], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(decode(self.paths[index]))


@torch.inference_mode()
def encode_images(
    backbone: Backbone,
    paths: Sequence[Path],
    fabric: Fabric,
    *,
    image_size: int | None,
    workers: int,
    batch_size: int = 50,
) -> Tensor:
    """Pooled features (images, F) on the CPU, evaluation preprocessing and mode.

    Args:
        backbone: its own classifier is left away.
        paths: image files.
        fabric: the device.
        image_size: side of the network's input; None takes the backbone's own.
        workers: loader processes.
        batch_size: images at once.
    """
    if image_size is not None:
        spec = replace(backbone.spec, input_size=(3, image_size, image_size))
        backbone = Backbone(spec=spec, provenance=backbone.provenance, weights=backbone.weights)
    network = fabric.setup_module(backbone.build(num_classes=0).eval())
    images = _Images(paths, backbone.preprocess())
    loader = Loader(images, batch_size=batch_size, seed=0, workers=workers, shuffle=False)
    encoded = []
    with bar("encoding images", len(paths), "images") as advance:
        for batch in loader.epoch(0):
            encoded.append(network(fabric.to_device(batch)).float().cpu())
            advance(len(batch))
    return torch.cat(encoded)
