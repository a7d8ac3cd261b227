"""Lightning Fabric on the device a user asked for."""

from typing import Literal

import torch
from lightning.fabric import Fabric

from pretrain.errors import UserError

Device = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def make_fabric(device: Device, precision: Precision = "32-true") -> Fabric:
    """Lightning Fabric on one device; UserError where that device is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device is cuda, but torch sees no CUDA device. Use --device cpu.")
    if device == "mps" and not torch.backends.mps.is_available():
        raise UserError("device is mps, but torch sees no Apple GPU. Use --device cpu.")
    return Fabric(accelerator=device, devices=1, precision=precision)
