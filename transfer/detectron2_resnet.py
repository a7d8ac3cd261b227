"""How stock detectron2 describes a backbone's ResNet: its configuration and its tensors' names.

No detectron2 at import: the exports write with this what the detector builds with it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.key_maps import DETECTRON2
from transfer.parity import assemble

Head = Literal["fpn", "c4", "dc5"]
HEADS: tuple[Head, ...] = ("fpn", "c4", "dc5")


def _resnet(depth: int, groups: int = 1, width: int = 64, caffe: bool = False) -> dict[str, Any]:
    """The values of MODEL.RESNETS that tell one ResNet from another."""
    return {
        "DEPTH": depth,
        "NUM_GROUPS": groups,
        "WIDTH_PER_GROUP": width,
        "STRIDE_IN_1X1": caffe,
        "RES2_OUT_CHANNELS": 64 if depth < 50 else 256,  # basic blocks, bottlenecks
    }


RESNETS = {
    **{f"resnet{depth}": _resnet(depth) for depth in (18, 34, 50, 101, 152)},
    **{f"resnet{depth}_caffe": _resnet(depth, caffe=True) for depth in (50, 101, 152)},
    **{f"wide_resnet{depth}_2": _resnet(depth, width=128) for depth in (50, 101)},
    "resnext50_32x4d": _resnet(50, 32, 4),
    **{
        f"resnext101_{groups}x{width}d": _resnet(101, groups, width)
        for groups, width in ((32, 4), (32, 8), (32, 16), (32, 32), (64, 4))
    },
}
# arguments of a constructor that leave the function of evaluation mode as it is
_HARMLESS = {"drop_path_rate", "drop_rate", "drop_block_rate", "zero_init_last"}

# detectron2's own base recipes (configs/Base-RCNN-FPN.yaml, -C4.yaml, -DilatedC5.yaml)
_BOX_HEAD = {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7}
_TEST_PROPOSALS = {"PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TEST": 1000}
HEAD_CONFIG: dict[Head, dict[str, Any]] = {
    "fpn": {
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"]},
        "ANCHOR_GENERATOR": {
            "SIZES": [[32], [64], [128], [256], [512]],
            "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
        },
        "RPN": {
            "IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
            "PRE_NMS_TOPK_TRAIN": 2000,
            "PRE_NMS_TOPK_TEST": 1000,
            "POST_NMS_TOPK_TRAIN": 1000,
            "POST_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["p2", "p3", "p4", "p5"]},
        "ROI_BOX_HEAD": _BOX_HEAD,
    },
    "c4": {"RPN": _TEST_PROPOSALS, "ROI_HEADS": {"NAME": "Res5ROIHeads"}},
    "dc5": {
        "RPN": {"IN_FEATURES": ["res5"], **_TEST_PROPOSALS},
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["res5"]},
        "ROI_BOX_HEAD": _BOX_HEAD,
    },
}


def resnet_config(backbone: Backbone) -> dict[str, Any]:
    """The backbone's MODEL.RESNETS; UsageError where stock detectron2 lacks it."""
    arch = backbone.spec.arch
    if arch == "resnet26":
        raise UsageError(f"stock detectron2 has no {arch}: its bottlenecks begin at depth 50.")
    if arch not in RESNETS:
        raise UsageError(
            f"stock detectron2 has no {arch}: it knows ResNet-18 to 152, ResNeXt and Wide ResNet. "
            "transfer.detection.detectron2_backbone registers a backbone for timm's other "
            "architectures (README, 'Use it in detectron2')."
        )
    if unknown := set(backbone.spec.model_args) - _HARMLESS:
        raise UsageError(
            f"{arch} was built with {sorted(unknown)}, for which detectron2 has no setting. Train "
            "it without, or use transfer.detection.detectron2_backbone."
        )
    return RESNETS[arch]


def heads_of(backbone: Backbone, requested: Sequence[Head] | None = None) -> tuple[Head, ...]:
    """The requested heads; None stands for all that are possible.

    Raises:
        UsageError: a head that detectron2 would build from other blocks than the backbone's.
    """
    possible = HEADS if resnet_config(backbone)["DEPTH"] >= 50 else HEADS[:1]
    for head in requested or ():
        if head not in HEADS:
            raise UsageError(f"--heads has {head!r}; it must be of {', '.join(HEADS)}.")
        if head not in possible:
            raise UsageError(
                f"--heads {head}: detectron2's {head.upper()} builds its last stage of bottlenecks "
                f"only (and dilates no others), {backbone.spec.arch} has basic blocks: it would "
                "train from other weights without a warning. Use fpn."
            )
    return tuple(requested or possible)


def model_config(backbone: Backbone, head: Head) -> dict[str, Any]:
    """The MODEL section of a Faster R-CNN: all that differs from detectron2's defaults."""
    spec = backbone.spec
    levels = {"fpn": ["res2", "res3", "res4", "res5"], "c4": ["res4"], "dc5": ["res5"]}
    return {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "WEIGHTS": "",
        "MASK_ON": False,
        "PIXEL_MEAN": to_pixels(spec.mean),
        "PIXEL_STD": to_pixels(spec.std),
        "BACKBONE": {
            "NAME": "build_resnet_fpn_backbone" if head == "fpn" else "build_resnet_backbone",
            "FREEZE_AT": 2,
        },
        "RESNETS": {
            **resnet_config(backbone),
            "STEM_OUT_CHANNELS": 64,
            "NORM": "FrozenBN",
            "OUT_FEATURES": levels[head],
            "RES5_DILATION": 2 if head == "dc5" else 1,
        },
        **HEAD_CONFIG[head],
    }


def to_pixels(values: Sequence[float]) -> list[float]:
    """Mean or std of pixels in [0, 1] as detectron2 states it, of 0 to 255."""
    return [round(255 * value, 6) for value in values]


def split_tensors(backbone: Backbone) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors that detectron2's ResNet has, under its names, and the others under ours."""
    model, rest = {}, {}
    for name, tensor in backbone.weights.items():
        theirs = DETECTRON2.theirs(name)
        if theirs is None or name.startswith("fc.") or name.endswith("num_batches_tracked"):
            rest[name] = tensor
        else:
            model[theirs] = tensor
    return model, rest


@torch.inference_mode()
def dilated_res5(backbone: Backbone, res4: Tensor) -> Tensor:
    """What the last stage is under DC5: its stride taken out, its 3x3 convolutions dilated by 2."""
    stage: Any = assemble(backbone).layer4
    for layer in (stage[0].conv1, stage[0].conv2, stage[0].downsample[0]):
        layer.stride = (1, 1)
    for block in stage:
        block.conv2.dilation = block.conv2.padding = (2, 2)
    return stage(res4)
