"""RotNet's task beside classification: a second head says by how much an image was turned.

Gidaris et al., ICLR 2018, arXiv 1803.07728 (the task); Hendrycks et al., NeurIPS 2019, arXiv
1906.12340 (as an auxiliary loss of weight 0.5, for robustness and out-of-distribution detection).
The images as they were before mixing are turned by 0, 90, 180 and 270 degrees and go through the
network together with the mixed ones; a linear layer on the pooled features tells the four apart:

    loss = loss of the mixed images + weight * mean cross-entropy of the turns

Cost: 1 + 4 times the images of a batch go through the network, or 1 + 1 where one turn is drawn for
each of them. Reference: hendrycks/ss-ood, adversarial/train.py: all four, beside the batch in one
pass, so that BatchNorm averages over both, as here; there all are attacked first, and none mixed.
"""

from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.errors import UsageError
from pretrain.mixing.mixed import numpy_generator, to_device


class RotationNetwork(nn.Module):
    """A classifier of timm's and, for its training, a head for the four turns beside its own."""

    def __init__(self, network: nn.Module, seed: int) -> None:
        """Take the network as it is; `seed` draws the weights of the new head.

        Raises:
            UsageError: an architecture that does not part its features from its head.
        """
        super().__init__()
        self.network: Any = network
        width = getattr(network, "head_hidden_size", None)
        if width is None or not hasattr(network, "forward_head"):
            raise UsageError(
                f"rotation.weight is above 0, but {type(network).__name__} has no pooled features "
                "before its classifier. Give --rotation.weight 0, or another --model.arch."
            )
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.rotation = nn.Linear(width, 4)

    def forward(self, images: Tensor, turned: Tensor | None = None) -> Any:
        """Logits (N, K) of images; with `turned` images (M, ...), their logits (M, 4) too."""
        if turned is None:
            return self.network(images)
        features = self.network.forward_features(torch.cat([images, turned]))
        logits = self.network.forward_head(features[: len(images)])
        pooled = self.network.forward_head(features[len(images) :], pre_logits=True)
        return logits, self.rotation(pooled)


def plain_network(network: nn.Module) -> nn.Module:
    """The classifier alone: what is kept."""
    return network.network if isinstance(network, RotationNetwork) else network


def turn(
    images: Tensor, angles: Literal["all", "one"], generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Turn the images (N, C, S, S) of a batch counterclockwise.

    Args:
        images: square; left as they are.
        angles: all four of each image, or one for each, drawn evenly.
        generator: a CPU generator.

    Returns:
        Turned images (4 N or N, C, S, S), ordered by their turns, and these (4 N or N,): quarters
        of a circle, from 0 to 3.

    Raises:
        UsageError: the images are not square.
    """
    count, _, height, width = images.shape
    if height != width:
        raise UsageError(
            f"images of {height} x {width} pixels are turned by quarters only where they are "
            "square. Give --rotation.weight 0."
        )
    drawn = numpy_generator(generator).integers(0, 4, count)
    rows = [np.flatnonzero((drawn == quarters) | (angles == "all")) for quarters in range(4)]
    turned = images[to_device(torch.from_numpy(np.concatenate(rows)), images.device)]
    sizes = [len(own) for own in rows]
    for quarters, part in enumerate(turned.split(sizes)):  # keeps the memory layout
        part.copy_(part.rot90(quarters, (2, 3)))
    turns = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    return turned, to_device(turns, images.device)
