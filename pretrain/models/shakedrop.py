"""ShakeDrop (Yamada, Iwamura, Akiba and Kise, 2018, arXiv 1802.02375): a residual branch is shaken.

    training, forward    x + (b + alpha - b alpha) F(x)
    training, backward   the same with beta in the place of alpha
    evaluation           x + (1 - rate) F(x), the mean of what is added in training

b is 1 with a chance of 1 - rate, drawn for the whole batch: then the branch is left as it is.
Else alpha ~ U(-1, 1) and beta ~ U(0, 1) are drawn for each image. So do the field's PyramidNets
(github.com/owruby/shake-drop_pytorch, and those after it).
"""

from typing import Any

import torch
from torch import Tensor, nn


class ShakeDrop(nn.Module):
    """Branches (N, C, H, W), shaken in training. Draws from the ambient generator of the device.

    Args:
        rate: the chance that the branch is shaken; 1 - p of the paper.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """See the module."""
        if not self.training:
            return x * (1 - self.rate)
        is_kept = torch.rand((), device=x.device) >= self.rate  # not read here: a GPU would wait
        alpha, beta = torch.rand(2, len(x), *[1] * (x.ndim - 1), device=x.device)
        forth = torch.where(is_kept, 1.0, 2 * alpha - 1).to(x.dtype)
        back = torch.where(is_kept, 1.0, beta).to(x.dtype)
        scaled: Tensor = _Scale.apply(x, forth, back)  # type: ignore[no-untyped-call]
        return scaled

    def extra_repr(self) -> str:
        """For print(network)."""
        return f"rate={self.rate:g}"


class _Scale(torch.autograd.Function):
    """One factor on the way forward, another for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forth: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        return x * forth

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (back,) = ctx.saved_tensors
        return grads[0] * back, None, None
