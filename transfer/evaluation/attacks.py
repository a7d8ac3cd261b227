"""Attacks on a classifier by its own gradient: FGSM and PGD, batched, on any device.

B images (B, 3, H, W), their pixels in [0, 1]; `classify` takes them to logits (B, K) and normalises
by itself. Its network is in evaluation; weights that want no gradient make the backward pass that
of the images alone.

Written here, since torchattacks and foolbox compute each attack's gradient anew and draw PGD's
start from an ambient generator. Given the same start, the images are theirs bit for bit on the CPU
(tests/peers/attacks.py).
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.training import generator

Classify = Callable[[Tensor], Tensor]


def input_gradient(classify: Classify, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The logits (B, K), and the gradient (B, 3, H, W) of the cross entropy by the images.

    The losses are summed, so that an image's gradient does not depend on those beside it.
    """
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        logits = classify(images)
        loss = functional.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
    return logits.detach(), gradient


def fgsm(pixels: Tensor, gradient: Tensor, eps: float | Tensor, clamp: bool = True) -> Tensor:
    """The fast gradient sign method (Goodfellow et al. 2015): pixels + eps sign(gradient).

    Args:
        pixels: (B, 3, H, W) in [0, 1].
        gradient: of the loss by the pixels; divided by a positive standard deviation, its sign is
            that of the gradient by normalised values.
        eps: the change; (3, 1, 1) for one of each channel, such as eps x std, which is eps of
            normalised values.
        clamp: to [0, 1], what an image can hold.
    """
    attacked = pixels + eps * gradient.sign()
    return attacked.clamp_(0, 1) if clamp else attacked


def pgd(
    classify: Classify,
    pixels: Tensor,
    labels: Tensor,
    start: Tensor,
    *,
    eps: float,
    step_size: float,
    steps: int,
) -> Tensor:
    """Projected gradient descent in the maximum norm (Madry et al. 2018).

    Args:
        classify: pixels in [0, 1] to logits.
        pixels: (B, 3, H, W).
        labels: (B,), from which the images are led away.
        start: (B, 3, H, W) in [-eps, eps], added first.
        eps: the largest change of a pixel.
        step_size: of each step along the gradient's sign.
        steps: how many.

    Returns:
        Images in [0, 1] after the last step, as in the paper; not the worst of all steps.
    """
    attacked = (pixels + start).clamp_(0, 1)
    for _ in range(steps):
        _, gradient = input_gradient(classify, attacked, labels)
        attacked = attacked.add_(gradient.sign_(), alpha=step_size)
        attacked = attacked.sub_(pixels).clamp_(-eps, eps).add_(pixels).clamp_(0, 1)
    return attacked


def uniform_start(seed: int, numbers: Sequence[int], like: Tensor, eps: float) -> Tensor:
    """Uniform in [-eps, eps], each image's a function of (seed, its number).

    Drawn on the CPU, so that every device has the same; (B, 3, H, W) in channels_last memory on the
    device of `like`.
    """
    count, channels, height, width = like.shape
    start = torch.empty(count, height, width, channels, pin_memory=like.is_cuda)
    for row, number in zip(start, numbers, strict=True):
        row.uniform_(-eps, eps, generator=generator(seed, "pixels", number))
    return start.to(like.device, non_blocking=True).permute(0, 3, 1, 2)
