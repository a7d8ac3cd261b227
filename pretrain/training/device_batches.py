"""Batches on their way to the device: on CUDA copied beside the step, not between two steps.

The host is ahead of a GPU: when it asks for the next batch, the step before is still being computed
there. A copy in the step's own stream would wait for it to end; in a stream of its own, from pinned
memory, it runs at once. What waits is the next step, on the GPU and for this copy alone.
"""

from functools import cache
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor


def to_device(batch: Any, fabric: Fabric) -> Any:
    """A batch (tensors, in any nesting) on the device of `fabric`, for the current stream."""
    device = fabric.device
    if device.type != "cuda":
        return fabric.to_device(batch)
    step, side = torch.cuda.current_stream(device), _copying_stream(device)
    with torch.cuda.stream(side):
        moved = fabric.to_device(batch)
    step.wait_stream(side)
    # the memory is the side stream's: kept from the copies to come until the step has read it
    apply_to_collection(moved, Tensor, lambda tensor: tensor.record_stream(step))
    return moved


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)
