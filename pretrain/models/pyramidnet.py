"""PyramidNets for 32x32 images (Han et al., CVPR 2017), as the CutMix release trains them.

Every block is wider than the one before by alpha / number of blocks channels; a shortcut is padded
with zero channels, and halved by average pooling. No ReLU before a block's first convolution and
none behind the sum; a BatchNorm closes each block. The names of the weights are those of
github.com/clovaai/CutMix-PyTorch (pyramidnet.py), so its checkpoints load strictly. Ours differs in
running on any device and in giving feature levels, which lie at strides 1, 2, 4 and are the outputs
of the stages before the last BatchNorm.

Three ways to disturb the branches in training, none of which has weights: stochastic depth (Huang
et al., ECCV 2016; timm's, which drops the branches of single images), ShakeDrop, DropBlock. Block l
of L has l / L of the first two rates, as in their papers. DropBlock is in the last two stages as in
its paper, behind each 3x3 convolution and its BN (where timm's ResNets have it), and not on the
shortcuts: of 44 in a row nothing would be left. Where it was in the CutMix paper is not said there.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from timm.layers.classifier import create_classifier
from timm.layers.drop import DropPath
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional

from pretrain.errors import UsageError, check_ranges
from pretrain.models.dropblock import DropBlock
from pretrain.models.shakedrop import ShakeDrop


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What disturbs a block, or, as the arguments of a network, its last block."""

    drop_path_rate: float = 0.0
    shakedrop_rate: float = 0.0
    drop_block_rate: float = 0.0
    drop_block_size: int = 4

    def __post_init__(self) -> None:
        """Refuse what leaves nothing."""
        check_ranges("", self, drop_path_rate="[0, 1)", shakedrop_rate="[0, 1)")
        check_ranges("", self, drop_block_rate="[0, 1)", drop_block_size=">= 1")

    def at(self, depth: float, has_drop_block: bool) -> "Noise":
        """Of the block at a `depth` in (0, 1]."""
        return replace(
            self,
            drop_path_rate=self.drop_path_rate * depth,
            shakedrop_rate=self.shakedrop_rate * depth,
            drop_block_rate=self.drop_block_rate * has_drop_block,
        )


class Block(nn.Sequential):
    """BN and convolution, two (3x3) or three (1x1, 3x3, 1x1) times, then a last BN."""

    def __init__(
        self, inputs: int, width: int, stride: int, bottleneck: bool, noise: Noise
    ) -> None:
        channels = [inputs, width, width, 4 * width] if bottleneck else [inputs, width, width]
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strided = 2 if bottleneck else 1  # the first 3x3
        layers: dict[str, nn.Module] = {}
        for number, kernel in enumerate(kernels, 1):
            before, after = channels[number - 1], channels[number]
            step = stride if number == strided else 1
            layers[f"bn{number}"] = nn.BatchNorm2d(before)
            if number == strided + 1 and noise.drop_block_rate:
                layers["drop_block"] = DropBlock(noise.drop_block_rate, noise.drop_block_size)
            if number > 1:
                layers[f"act{number}"] = nn.ReLU()
            layers[f"conv{number}"] = nn.Conv2d(
                before, after, kernel, step, padding=kernel // 2, bias=False
            )
        layers[f"bn{len(channels)}"] = nn.BatchNorm2d(channels[-1])
        if noise.drop_path_rate:
            layers["drop_path"] = DropPath(noise.drop_path_rate)
        if noise.shakedrop_rate:
            layers["shakedrop"] = ShakeDrop(noise.shakedrop_rate)
        super().__init__(OrderedDict(layers))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C', H/stride, W/stride), C' >= C."""
        shortcut = functional.avg_pool2d(x, 2, ceil_mode=True) if self.stride == 2 else x
        x = super().forward(x)
        return x + functional.pad(shortcut, (0, 0, 0, 0, 0, x.shape[1] - shortcut.shape[1]))


class PyramidNet(nn.Module):
    """Three stages at strides 1, 2, 4, then BN, ReLU, mean over the image, classifier.

    Args:
        depth: counted as the paper counts: 9 n + 2 with bottlenecks, 6 n + 2 without.
        alpha: how much wider the last block is than the stem's 16 channels (times 4 outside of a
            bottleneck).
        bottleneck: blocks of three convolutions.
        num_classes: outputs; 0 for pooled features.
        in_chans: of the images.
        drop_rate: in front of the classifier.
        global_pool: of timm's.
        noise: drop_path_rate (0.25 in the CutMix paper), shakedrop_rate (0.5 in ShakeDrop's; it
            changes the function in evaluation too), drop_block_rate (0.1) and drop_block_size (4).
    """

    global_pool: Any

    def __init__(
        self,
        depth: int = 200,
        alpha: float = 240,
        bottleneck: bool = True,
        num_classes: int = 100,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        global_pool: str = "avg",
        **noise: Any,
    ) -> None:
        super().__init__()
        unit = 9 if bottleneck else 6
        per_stage, odd = divmod(depth - 2, unit)
        if odd or not 0 < per_stage <= 200:
            raise UsageError(f"a PyramidNet's depth is {unit} n + 2, and not {depth}")
        self.conv1 = nn.Conv2d(in_chans, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        channels, width, full = 16, 16.0, Noise(**noise)
        self.feature_info = []
        for stage in (1, 2, 3):
            blocks = []
            for number in range(per_stage):
                # added up as the release does: round() sees the same float
                width += alpha / (3 * per_stage)
                stride = 2 if stage > 1 and number == 0 else 1
                place = ((stage - 1) * per_stage + number + 1) / (3 * per_stage)
                own = full.at(place, has_drop_block=stage > 1)
                blocks.append(Block(channels, round(width), stride, bottleneck, own))
                channels = round(width) * (4 if bottleneck else 1)
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            self.feature_info.append(
                {"num_chs": channels, "reduction": 2 ** (stage - 1), "module": f"layer{stage}"}
            )
        self.bn_final = nn.BatchNorm2d(channels)
        self.num_features = self.head_hidden_size = channels
        self.drop_rate = drop_rate
        self.reset_classifier(num_classes, global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new classifier of `num_classes` outputs, or none."""
        self.num_classes = num_classes
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self.global_pool, self.fc = create_classifier(self.num_features, num_classes, pool)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Timm's parts: 0 is the stem, then the stages (or, fine, their blocks)."""
        blocks = r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"
        return {"stem": r"^conv1|bn1", "blocks": [(blocks, None), (r"^bn_final", (99999,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Refused: not built."""
        if enable:
            raise UsageError("PyramidNet does not support gradient checkpointing")

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | Sequence[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Timm's way to feature levels: the outputs of the stages `indices`, of 0 to 2."""
        kept, last = feature_take_indices(3, indices)  # type: ignore[arg-type]
        x = self.bn1(self.conv1(x))
        levels = []
        for index in range(last + 1 if stop_early else 3):
            x = getattr(self, f"layer{index + 1}")(x)
            if index in kept:
                levels.append(x)
        if intermediates_only:
            return levels
        return functional.relu(self.bn_final(x)), levels

    def prune_intermediate_layers(
        self,
        indices: int | Sequence[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Timm's way to leave out what no level needs; DDP stops where a parameter is not used."""
        kept, _ = feature_take_indices(len(self.feature_info), indices)  # type: ignore[arg-type]
        if prune_norm:
            self.add_module("bn_final", nn.Identity())
        if prune_head:
            self.reset_classifier(0)
        return kept

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C, H/4, W/4)."""
        features: Tensor = self.forward_intermediates(x, [2])[0]
        return features

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, H, W) to logits (N, K), or with pre_logits to the pooled (N, C)."""
        x = functional.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised images (N, 3, H, W) to logits (N, K)."""
        return self.forward_head(self.forward_features(x))
