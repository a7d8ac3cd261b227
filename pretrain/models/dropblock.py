"""DropBlock (Ghiasi, Lin and Le, NeurIPS 2018, arXiv 1810.12890): squares of features are zeroed.

Blocks lie inside the features, each channel has its own, and what is left is scaled up so that the
mean stays (algorithm 1). timm's draws the corners of blocks beyond the border too and takes one
mask for all channels: of 7 x 7 features it drops 15 % by blocks of 3 where 10 are asked for, and
93 % by blocks of 7; torchvision's refuses blocks of an even side, such as the CutMix paper's 4.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropBlock(nn.Module):
    """Features (N, C, H, W), blocks of them zeroed in training.

    Args:
        rate: the share of the places that is dropped; a little less, as blocks overlap.
        size: side of a block, at most that of the features.
    """

    def __init__(self, rate: float, size: int) -> None:
        super().__init__()
        self.rate, self.size = rate, size

    def forward(self, x: Tensor) -> Tensor:
        """See the module. Draws from the ambient generator of the device."""
        if not self.training:
            return x
        *outer, height, width = x.shape
        size = min(self.size, height, width)
        inner = (height - size + 1, width - size + 1)  # places of the first corner of a block
        chance = self.rate * height * width / (size**2 * inner[0] * inner[1])
        corners = (torch.rand(*outer, *inner, device=x.device) < chance).to(x.dtype)
        dropped = functional.max_pool2d(functional.pad(corners, (size - 1,) * 4), size, 1)
        kept = 1 - dropped
        return x * kept * (kept.numel() / kept.sum(dtype=torch.float32).clamp(min=1)).to(x.dtype)

    def extra_repr(self) -> str:
        """For print(network)."""
        return f"rate={self.rate:g}, size={self.size}"
