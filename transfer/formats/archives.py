"""NumPy archives (JAX and TensorFlow weights) of architectures that timm itself reads."""

from typing import Any

import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from transfer.formats.files import Opened
from transfer.formats.sources import Given


def read_npz(opened: Opened, given: Given) -> Backbone:
    """A network filled by timm's own reader for its architecture, and proof that all of it was.

    Every parameter is NaN beforehand, so what the reader leaves is seen; what the file has beyond
    the network is counted.

    Raises:
        UsageError: no --arch, no conventions, an architecture without such a reader, or not whole.
    """
    path, arch = opened.path, given.arch
    if arch is None:
        raise UsageError(f"{path} is a NumPy archive: give --arch, the timm architecture it is of.")
    convention = given.convention(arch)
    if convention is None:
        raise UsageError(
            f"{path} does not say how its network is fed. Give --source or --mean, --std."
        )
    classes = _classes(opened)
    spec = BackboneSpec(
        arch=arch,
        input_size=(3, convention.size, convention.size),
        mean=convention.mean,
        std=convention.std,
        interpolation=convention.interpolation,
        crop_pct=convention.crop_pct,
        num_classes=classes,
    )
    network: Any = spec.create(classes, seed=0)
    if not hasattr(network, "load_pretrained"):
        raise UsageError(f"timm has no reader of NumPy archives for {arch}.")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(float("nan"))
    try:
        network.load_pretrained(str(path))
    except (KeyError, ValueError, RuntimeError, AssertionError, AttributeError) as error:
        raise UsageError(f"{path} does not fit {arch}: {error}") from error
    empty = [name for name, value in network.named_parameters() if bool(value.isnan().any())]
    if empty:
        raise UsageError(f"{path} does not fill {arch}: {len(empty)} tensors, first {empty[0]}.")
    held = sum(array.size for array in opened.content.values())
    placed = sum(parameter.numel() for parameter in network.parameters())
    if held != placed:
        raise UsageError(
            f"{path} holds {held:,} numbers, {arch} has {placed:,}: not all were placed."
        )
    stated = {"container": "npz", "names": f"timm's own reader of {arch}",
              "conventions": convention.origin}  # fmt: skip
    return Backbone.of(
        network, spec, Provenance(source=path.name, source_sha256=opened.sha256, stated=stated)
    )


def _classes(opened: Opened) -> int:
    """Outputs of the classifier under the names that JAX programs use."""
    for name, array in opened.content.items():
        if name.endswith(("head/kernel", "head/conv2d/kernel")):
            return int(array.shape[-1])
    return 0
