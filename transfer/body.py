"""A backbone inside another network: its levels, its first part frozen, its BatchNorm too.

Freezing never goes through a converter: torchvision's and detectron2's replace timm's
`BatchNormAct2d` by a norm without its activation (EfficientNet's features are then another
network's). Norms stay in evaluation mode instead, and every level is compared with the backbone's
own before the first step.

N images, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models import group_parameters
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.parity import TOLERANCE, assemble, compare, normalize, raw_image

Levels = Mapping[str, Tensor]


class FrozenBatchNormModule(nn.Module):
    """A module whose BatchNorm keeps its statistics in training, if `batch_norm` is "frozen"."""

    def __init__(self, batch_norm: str) -> None:
        super().__init__()
        self.frozen_norm = batch_norm == "frozen"

    def train(self, mode: bool = True) -> "FrozenBatchNormModule":
        """Training mode for all but frozen norms."""
        super().train(mode)
        if self.frozen_norm:
            for module in batch_norms(self):
                module.eval()
        return self


def feature_body(
    backbone: Backbone, indices: Sequence[int], *, freeze: int, batch_norm: str
) -> nn.Module:
    """A network from normalised images to the levels `indices`, frozen and verified.

    Args:
        backbone: whose levels.
        indices: timm's numbers of them, fine to coarse.
        freeze: parts without gradient, see `freeze_parameters`.
        batch_norm: "frozen", "trained" or "sync" (over all processes).
    """
    body = backbone.feature_network(indices)
    if batch_norm == "sync":
        body = convert_sync_batchnorm(body)
    freeze_parameters(body, freeze, batch_norm == "frozen")
    verify_body(body, backbone, list(indices))
    return body


def levels_of(backbone: Backbone, strides: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """Channels and timm's numbers of the levels at `strides`; UsageError where one is missing."""
    by_stride = {level.stride: level for level in backbone.spec.levels()}
    if not set(strides) <= set(by_stride):
        raise UsageError(
            f"{backbone.spec.arch} has feature levels of stride {list(by_stride)}; here "
            f"are needed {list(strides)}. Take a backbone that has them, such as resnet18."
        )
    levels = [by_stride[stride] for stride in strides]
    return [level.channels for level in levels], [level.index for level in levels]


def freeze_parameters(body: nn.Module, num_parts: int, frozen_norm: bool) -> None:
    """Take the gradient from the first `num_parts` parts, and from every BatchNorm if asked.

    The parts are timm's own coarse groups: 0 is the stem, 1 the first stage.
    """
    if num_parts:
        model: Any = body.model  # the network inside timm's feature wrapper
        groups = group_parameters(model, model.group_matcher(coarse=True))
        for part in range(num_parts):
            for name in groups.get(part, ()):
                model.get_parameter(name).requires_grad_(False)
    if frozen_norm:
        for module in batch_norms(body):
            module.requires_grad_(False)


def batch_norms(module: nn.Module) -> list[nn.Module]:
    """Every BatchNorm in a module, timm's with fused activation too."""
    return [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@torch.inference_mode()
def verify_body(body: nn.Module, backbone: Backbone, indices: list[int]) -> None:
    """Compare the levels `indices` with the backbone's own, in evaluation mode.

    Raises:
        UsageError: a level differs by more than 1e-4 of its largest value, or the network takes
            images of one size alone.
    """
    image = sample_image(backbone)
    strides = {level.index: level.stride for level in backbone.spec.levels()}
    names = [f"{index} (stride {strides[index]})" for index in indices]
    was_training = body.training
    try:
        levels = dict(zip(names, body.eval()(image), strict=True))
    except AssertionError as error:
        raise UsageError(
            f"{backbone.spec.arch} takes no images of any size ({error}). Take a backbone that "
            "does, such as resnet18."
        ) from error
    body.train(was_training)
    own_levels = FeatureGetterNet(assemble(backbone), tuple(indices))(image)
    own = dict(zip(names, own_levels, strict=True))
    where, remedy = "of the frozen network", "This architecture cannot be frozen so."
    verify_levels(backbone, levels, own, where, remedy)


def sample_image(backbone: Backbone) -> Tensor:
    """The normalised image that a network is compared on, (1, 3, 96, 128)."""
    return normalize(backbone, raw_image(96, 128))


def verify_levels(
    backbone: Backbone, levels: Levels, expected: Levels, where: str, remedy: str
) -> None:
    """UsageError where a level differs from the backbone's by more than the exports allow."""
    for level in compare(where, {name: expected[name] for name in levels}, levels).levels:
        if level.relative > TOLERANCE:
            raise UsageError(
                f"{backbone.name}: level {level.name} {where} differs from the backbone's by "
                f"{level.relative:.1e} of its largest value. {remedy}"
            )
