"""TransMix (Chen et al., CVPR 2022, arXiv 2111.09833, section 3.2): labels by attention.

CutMix of the images; how much of the label is whose is read from the network while it trains on
them: A, the attention of the class token in the last block on each token of the image, averaged
over the heads, and M, the box on the grid of tokens.

    share of the pasted label = A . M / sum(A)

Label rule: the mean of that share and of the box's share of pixels, as the authors' code has it;
`attention_weight` 1 is the paper's formula. Further passes of the network: none.

The code (github.com/Beckschen/TransMix, transmix.py, transmix_label) mixes one box a batch, image i
with N-1-i. Ours draws as CutMix. Equal otherwise: M is the nearest pixel's for each token, A is
that of before attention's dropout, and the labels have no gradient. timm's fused attention gives no
map, so A is computed from its queries and keys, in float32.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from timm.layers.attention import Attention
from torch import Tensor, nn

from pretrain.errors import UsageError, check_ranges
from pretrain.mixing.cutmix import CutMix, paste
from pretrain.mixing.mixed import (
    Mixed,
    Read,
    blend_labels,
    to_device,
    warn_of_plain_pass,
)
from pretrain.mixing.network import token_grid


class AttentionRecorder:
    """What the class token of a ViT or DeiT attends to in the last block.

    To be made once, before the network is compiled or wrapped for several processes: see `levels`.
    """

    def __init__(self, network: nn.Module) -> None:
        """Install the hooks.

        Raises:
            UsageError: the network is no ViT that classifies by its class token.
        """
        blocks: Any = getattr(network, "blocks", None) or [None]
        attention = getattr(blocks[-1], "attn", None)
        by_token = getattr(network, "global_pool", None) == "token"
        if not (by_token and isinstance(attention, Attention)):
            raise UsageError(
                f"TransMix needs a timm ViT or DeiT that classifies by its class token, such as "
                f"vit_tiny_patch16_224 or deit3_small_patch16_224; this {type(network).__name__} "
                "has no such attention, or pools over tokens"
            )
        self.recording = False
        self.waiting = 0
        """The id of what is to be entered by `forward`, or 0."""
        self.prefix: int = network.num_prefix_tokens  # type: ignore[assignment]
        self.attention: Tensor | None = None
        """(M, T) of the last pass that was recorded: means over the heads, by tokens of the
        image."""
        self._query: Tensor | None = None
        self._scale: float = attention.scale
        attention.q_norm.register_forward_hook(self._take_query)
        attention.k_norm.register_forward_hook(self._take_keys)

    def _take_query(self, module: nn.Module, inputs: Any, queries: Tensor) -> None:
        """(M, heads, prefix + T, D); the class token is the first."""
        if self.recording:
            self._query = queries[:, :, :1].detach().float() * self._scale
        elif module.training and self.waiting:
            self.waiting = 0
            warn_of_plain_pass()

    def _take_keys(self, module: nn.Module, inputs: Any, keys: Tensor) -> None:
        """(M, heads, prefix + T, D), after the queries."""
        if self.recording and self._query is not None:
            scores = (self._query * keys.detach()).sum(-1)  # no matmul: autocast would round it
            self.attention = scores.softmax(-1).mean(1)[:, self.prefix :]
            self._query = None


@dataclass(frozen=True, kw_only=True)
class TransMix(CutMix):
    """CutMix with labels by attention; `lam` of the result is the share of pixels."""

    attention: AttentionRecorder
    attention_weight: float = 0.5
    """Of attention in the label; the rest is the area's. 0.5 in the authors' code, 1 in the paper's
    formula."""

    def __post_init__(self) -> None:
        """Refuse what is no weight, and a second rule for the labels."""
        super().__post_init__()
        check_ranges("mixing.args", self, attention_weight="[0, 1]")
        if self.label != "area":
            raise UsageError(
                f"mixing.args.label is {self.label}, but transmix weighs labels by attention and "
                "area; leave it out"
            )

    def __call__(
        self,
        images: Tensor,
        labels: Tensor,
        num_classes: int,
        generator: torch.Generator,
        read: Read | None = None,
    ) -> Mixed:
        """See Mix."""
        pairs, boxes = self.draw(images, generator)
        partner = torch.from_numpy(pairs.partner)
        mixed = paste(images, labels, num_classes, boxes, partner, read=read)
        if not pairs.mixed.any():
            return mixed
        weight = self.attention_weight
        return replace(mixed, inside=AttentionLabels(self.attention, weight, boxes, labels))


@dataclass(frozen=True)
class AttentionLabels:
    """InNetwork: the attention of the pass inside gives the targets."""

    recorder: AttentionRecorder
    weight: float
    """Of attention; the rest is the area's."""
    boxes: np.ndarray
    """(M, 4) in pixels, pasted."""
    labels: Tensor
    """(N,) or (N, K), of the images before."""

    def __post_init__(self) -> None:
        """A pass is to come."""
        self.recorder.waiting = id(self)

    def __del__(self) -> None:
        """No longer: nobody has the batch, which was only looked at."""
        if self.recorder.waiting == id(self):
            self.recorder.waiting = 0

    def __enter__(self) -> None:
        """Set the recorder to work; UsageError where it is, as another pass would be read."""
        if self.recorder.recording:
            raise UsageError(
                "the attention of another pass of this network is being recorded: run one pass "
                "after the other"
            )
        self.recorder.attention, self.recorder.recording = None, True
        self.recorder.waiting = 0

    def __exit__(self, *failure: object) -> None:
        """Let it rest."""
        self.recorder.recording = False

    def targets(self, mixed: Mixed) -> Tensor:
        """Targets (M, K) after the pass.

        Raises:
            UsageError: the pass did not come by the recorder's hooks, or the tokens have no grid.
        """
        attention, self.recorder.attention = self.recorder.attention, None
        if attention is None:
            raise UsageError(
                "the network ran without the hooks of TransMix: build it first, then "
                "AttentionRecorder(network), then compile and wrap it"
            )
        height, width = mixed.images.shape[-2:]
        cells = token_grid(attention.shape[1], height, width)
        if cells is None:
            raise UsageError(
                f"{attention.shape[1]} tokens have no rows and columns of {height} x {width} "
                "pixels; give images whose sides are multiples of the network's patches"
            )
        mask = token_mask(self.boxes, height, width, *cells)
        pasted = (attention * to_device(torch.from_numpy(mask), attention.device)).sum(1)
        by_attention = 1 - pasted / attention.sum(1)
        by_area = to_device(mixed.lam, attention.device)
        own = torch.lerp(by_area, by_attention, self.weight)
        partner = to_device(mixed.partner, attention.device)
        return blend_labels(self.labels, mixed.targets.shape[1], partner, own)


def token_mask(boxes: np.ndarray, height: int, width: int, rows: int, columns: int) -> np.ndarray:
    """Boxes (M, 4) in pixels as booleans (M, rows * columns) of the grid of tokens.

    A token is inside where its nearest pixel is, by torch's rule that of its top left corner.
    """
    top, left, bottom, right = boxes.T[:, :, None, None]
    y = (np.arange(rows) * height // rows)[:, None]
    x = np.arange(columns) * width // columns
    mask: np.ndarray = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    return mask.reshape(len(boxes), -1)
