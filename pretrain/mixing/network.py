"""Further passes of the network that is trained, which leave no trace in it."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode inside the block: no dropout, batch averages as they are.

    Afterwards each module has its own flag again, so that a part kept in evaluation mode stays so.
    What is computed inside draws no random numbers and changes no buffer. Whether gradients are
    recorded is for the caller to say (`torch.no_grad`).
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
