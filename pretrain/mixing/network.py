"""Further passes of a network, which leave no trace in it.

N images, C channels, h rows and w columns of its last features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError

_SCALE = 256.0  # a power of two changes no bit of a gradient


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


@torch.no_grad()
def feature_map(network: nn.Module, images: Tensor) -> Tensor:
    """Last features (N, C, h, w) of a timm network, float32: one pass in evaluation mode.

    It does not go through `network.__call__`, so what `network.compile()` made is neither used nor
    made anew. Features with the channels last, and tokens of images cut into a grid, are put into
    this order.

    Raises:
        UsageError: the images are bytes, the network is none of timm's, or its features have no
            place in the image.
    """
    inputs = _inputs(network, images)
    find: Any = getattr(network, "forward_features", lambda images: None)
    with evaluating(network):
        features = find(inputs)
    if isinstance(features, Tensor) and features.ndim == 3:
        tokens = features[:, getattr(network, "num_prefix_tokens", 0) :]
        if cells := token_grid(tokens.shape[1], *images.shape[-2:]):
            return tokens.unflatten(1, cells).permute(0, 3, 1, 2).float()
    if not isinstance(features, Tensor) or features.ndim != 4:
        raise UsageError(
            f"the last features of {type(network).__name__} are no grid over the image; mixing "
            "that looks at the images through a network needs one of timm's such as resnet50, "
            "itself and not what DistributedDataParallel makes of it"
        )
    last = has_channels_last(network, features.shape, getattr(network, "num_features", None))
    return (features.permute(0, 3, 1, 2) if last else features).float()


def token_grid(count: int, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of `count` tokens of an image, of its aspect ratio; None: they have none."""
    rows = max(round((count * height / width) ** 0.5), 1)
    return (rows, count // rows) if count > 0 and count % rows == 0 else None


def has_channels_last(network: nn.Module, shape: torch.Size, channels: int | None) -> bool:
    """Whether features of four dimensions are (N, h, w, C), where there should be `channels`."""
    by_format = getattr(network, "output_fmt", None) == "NHWC"  # which SAM's ViT does not have
    return by_format or shape[-1] == channels != shape[-3]


def gradient_saliency(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Saliency (N, H, W) of images, labels (N,) or (N, K): a pass forward and back to the images.

    The root of the mean square, over the channels, of the gradient of the cross entropy. It is in
    evaluation mode and does not go through `network.__call__`, as in `feature_map`. The gradients
    of the parameters are neither computed nor changed, so that nothing that waits for them (DDP)
    notices.

    Raises:
        UsageError: the images are bytes.
    """
    inputs = _inputs(network, images).detach().requires_grad_()
    with evaluating(network), torch.enable_grad():
        logits = network.forward(inputs)
        given = labels.float() if labels.ndim == 2 else labels.long()
        loss = functional.cross_entropy(logits.float(), given, reduction="sum")
        # scaled, since float16 under autocast has nothing below 6e-8
        (gradient,) = torch.autograd.grad(_SCALE * loss, inputs)
    return gradient.float().square().mean(1).sqrt() / _SCALE


def _inputs(network: nn.Module, images: Tensor) -> Tensor:
    """The images in the dtype of the network."""
    if not images.is_floating_point():
        raise UsageError(
            f"the images are {images.dtype}, but the mixing looks at them through a network; give "
            "what the network is trained on: normalised floats"
        )
    return images.to(next(network.parameters()).dtype)
