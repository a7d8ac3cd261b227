"""Where a class is seen: CAM and Grad-CAM on a network's last feature map, in batches.

N images, C channels and h x w positions of the last feature map, K outputs.

    cam         the classifier's weights of the class over the channels (Zhou et al., CVPR 2016):
                needs a mean over the positions and one linear layer behind the map
    grad-cam    the means of the score's gradients over the channels, negative sums cut off
                (Selvaraju et al., ICCV 2017): needs a map; behind a mean and a linear layer it is
                CAM's positive part, divided by h w

Written here: a peer's class hooks a network and runs it again for each method; one pass through the
body and one through the head and back serve both. tests/peers/activation_maps.py compares them with
pytorch-grad-cam and torchcam.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from timm.layers.pool2d_same import AvgPool2dSame
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError, first_line

METHODS = ("cam", "grad-cam")


def class_maps(
    network: Any, images: Tensor, classes: Tensor, methods: Sequence[str]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The outputs (N, K), and by method the maps (N, h, w) of a class each, of any sign and scale.

    Args:
        network: one of timm's, in evaluation, that `check_maps` takes.
        images: normalised (N, 3, H, W).
        classes: (N,) an output for each image.
        methods: of METHODS.
    """
    with torch.no_grad():
        features = network.forward_features(images).float()
    with torch.enable_grad():
        features.requires_grad_()
        logits = network.forward_head(features).float()
        scores = logits.gather(1, classes[:, None]).sum()
        (gradients,) = torch.autograd.grad(scores, features)
    features, maps = features.detach(), dict[str, Tensor]()
    for method in methods:
        if method == "cam":
            maps[method] = _weigh(features, network.get_classifier().weight.float()[classes])
        else:
            maps[method] = _weigh(features, gradients.mean((2, 3))).relu()
    return logits.detach(), maps


def _weigh(features: Tensor, weights: Tensor) -> Tensor:
    return torch.einsum("nchw,nc->nhw", features, weights)


def enlarge(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, h, w) resized to (N, H, W): bilinear, by the corners of pixels, as OpenCV resizes.

    The codes differ: Zhou's, ADL's and pytorch-grad-cam's are bilinear, wsolevaluation's is cubic.
    """
    resized = functional.interpolate(maps[:, None], size, mode="bilinear", align_corners=False)
    return resized[:, 0]


def to_unit_range(maps: Tensor, method: str) -> Tensor:
    """Maps (N, H, W) between 0 and 1; one that is constant, or has nothing above 0, is 0.

    CAM's lowest value becomes 0 and its highest 1 (Zhou's, ADL's, wsolevaluation's code); Grad-CAM
    is divided by its maximum, as its paper's threshold is a share of it.
    """
    if method == "cam":
        maps = maps - maps.amin((1, 2), keepdim=True)
    most = maps.amax((1, 2), keepdim=True)
    return torch.where(most > 0, maps / most, 0)


@torch.no_grad()
def check_maps(network: Any, size: tuple[int, int, int], methods: Sequence[str]) -> tuple[int, int]:
    """The last feature map's h and w for an input of this size.

    Raises:
        UsageError: there is no such map, or no CAM over it.
    """
    draw = torch.Generator().manual_seed(0)
    images = torch.randn((2, *size), generator=draw)
    name = type(network).__name__
    try:
        features = network.forward_features(images)
    except (AssertionError, RuntimeError, ValueError) as error:  # of windows, of positions
        raise UsageError(
            f"a {name} takes no images of {size[1]} x {size[2]} pixels ({first_line(error)}). "
            "Leave --localisation.size off, or give a multiple of the size of its training."
        ) from error
    if features.ndim != 4 or features.shape[1] != network.num_features:
        raise UsageError(
            f"the last features of a {name} are of shape {tuple(features.shape[1:])}; activation "
            f"maps need channels x height x width, as convolutional networks have them."
        )
    classifier = network.get_classifier()
    logits, pooled = network.forward_head(features), features.mean((2, 3))
    fits = isinstance(classifier, nn.Linear) and classifier.in_features == pooled.shape[1]
    if "cam" in methods and not (fits and torch.allclose(classifier(pooled), logits, 1e-3, 1e-3)):
        raise UsageError(
            f"CAM needs a network that ends in the mean over its last feature map and one linear "
            f"layer; a {name} has more behind its map. Give --localisation.methods '[grad-cam]'."
        )
    return tuple(features.shape[2:])


@torch.no_grad()
def without_last_stride(
    network: Any, size: tuple[int, int, int], dilate: bool = False
) -> nn.Module | None:
    """A copy whose last feature map is twice as high and wide, by the same weights.

    The convolutions that halve the resolution last take every position. What follows sees
    neighbours at half the distance, as in the codes of weakly supervised localisation, which train
    on from there; or, dilated, at the distance that it was trained for: timm's `output_stride`, of
    which the kept positions have the values that they had, but for the edges.

    Args:
        network: one of timm's.
        size: of an input.
        dilate: the convolutions behind them.

    Returns:
        None where the resolution is not halved by convolutions and average pools alone.
    """
    copy = deepcopy(network)
    sizes = dict[nn.Module, tuple[torch.Size, torch.Size]]()

    def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        sizes[module] = inputs[0].shape[2:], output.shape[2:]

    layers = {
        name: module
        for name, module in copy.named_modules()
        if isinstance(module, nn.Conv2d | nn.AvgPool2d)
    }
    hooks = [module.register_forward_hook(note) for module in layers.values()]
    images = torch.zeros(1, *size)
    before = copy.forward_features(images).shape[2:]
    for hook in hooks:
        hook.remove()
    for name, module in layers.items():
        shape, result = sizes.get(module, (None, None))
        if result != before:
            continue
        if shape != before and isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
        elif shape != before:  # of ResNet-D's shortcuts; none where nothing is halved
            kernel: Any = module.kernel_size
            same = AvgPool2dSame(kernel, 1, count_include_pad=False)
            copy.set_submodule(name, same if dilate else nn.Identity())
        elif dilate and isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            module.dilation = tuple(2 * step for step in module.dilation)
            if not isinstance(module.padding, str):
                module.padding = tuple(2 * pixels for pixels in module.padding)
    try:
        after = copy.forward_features(images).shape[2:]
    except RuntimeError:  # a shortcut of another kind still halves
        return None
    return copy if all(0 <= 2 * b - a <= 1 for a, b in zip(after, before, strict=True)) else None
