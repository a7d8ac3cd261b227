"""Weights and configurations that stock detectron2 trains from, without this package.

R.pkl holds the backbone under detectron2's names; R-fpn.yaml, R-c4.yaml and R-dc5.yaml name it and
carry mean, std, channel order, strides, groups, widths, depth and normalisation. What detectron2
has no place for (the classifier, BatchNorm's counters) stands beside, so that nothing is lost.
"""

import json
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.formats import passports
from transfer.formats.architectures import CAFFE, RESIDUAL, Residual
from transfer.formats.names import DETECTRON2
from transfer.formats.proof import (
    Proof,
    assemble,
    compare,
    features,
    normalised,
    raw_image,
)

Head = Literal["fpn", "c4", "dc5"]
HEADS: tuple[Head, ...] = ("fpn", "c4", "dc5")

# features of res2 to res5 equal for every head, by tests/transfer/formats/test_detectron2.py
PROVED_COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"
PROVED = frozenset({
    "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d",
    "resnext101_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2",
    "resnet50_caffe", "resnet101_caffe",
})  # fmt: skip

_DEPTHS: dict[tuple[int, ...], int] = {
    (2, 2, 2, 2): 18,
    (3, 4, 6, 3): 50,
    (3, 4, 23, 3): 101,
    (3, 8, 36, 3): 152,
}
# arguments of a constructor that leave the function of evaluation mode as it is
_HARMLESS = {"drop_path_rate", "drop_rate", "drop_block_rate", "zero_init_last"}
_PROBE = Path(__file__).resolve().parent.parent / "detection" / "detectron2_probe.py"
_IMAGE = (160, 224)  # multiples of 32: detectron2 pads nothing


def residual_of(backbone: Backbone) -> tuple[Residual, bool]:
    """Its ResNet, and whether strides lie in the 1x1; UsageError where detectron2 lacks it."""
    arch = backbone.spec.arch
    plain = {caffe: stock for stock, caffe in CAFFE.items()}.get(arch, arch)
    kind = RESIDUAL.get(plain)
    strange = set(backbone.spec.model_args) - _HARMLESS
    if kind is None or kind.stem != "7x7" or kind.squeeze or kind.layers not in _DEPTHS:
        raise UsageError(
            f"stock detectron2 has no {arch}: it knows ResNet-18 to 152, ResNeXt and Wide ResNet. "
            "transfer.detection.detectron2_backbone registers a backbone for timm's other "
            "architectures (README, 'Use it in detectron2')."
        )
    if kind.block == "bottleneck" and kind.layers == (2, 2, 2, 2):
        raise UsageError(f"stock detectron2 has no {arch}: its bottlenecks begin at depth 50.")
    if strange:
        raise UsageError(
            f"{arch} was built with {sorted(strange)}, which detectron2 cannot be told. Train it "
            "without, or use transfer.detection.detectron2_backbone."
        )
    return kind, plain != arch


def heads_of(backbone: Backbone, wanted: Sequence[Head] | None) -> tuple[Head, ...]:
    """The heads that will be written.

    Raises:
        UsageError: a head that detectron2 would build from other blocks than the backbone's.
    """
    kind, _ = residual_of(backbone)
    possible: tuple[Head, ...] = HEADS if kind.block == "bottleneck" else ("fpn",)
    for head in wanted or ():
        if head not in HEADS:
            raise UsageError(f"--heads has {head!r}; it must be of {', '.join(HEADS)}.")
        if head not in possible:
            raise UsageError(
                f"--heads {head}: detectron2's {head.upper()} builds its last stage of bottlenecks "
                f"only (and dilates no others), {backbone.spec.arch} has basic blocks: it would "
                "train from other weights and say nothing. Use fpn."
            )
    return tuple(wanted) if wanted else possible


def model_tensors(backbone: Backbone) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What detectron2 has a place for, under its names, and the rest under ours."""
    model, rest = {}, {}
    for name, tensor in backbone.weights.items():
        theirs = DETECTRON2.theirs(name)
        has_place = not name.startswith("fc.") and not name.endswith("num_batches_tracked")
        if has_place and theirs is not None:
            model[theirs] = tensor
        else:
            rest[name] = tensor
    return model, rest


def config(backbone: Backbone, head: Head, weights: str) -> dict[str, Any]:
    """The YAML's content: everything that differs from detectron2's defaults."""
    kind, in_1x1 = residual_of(backbone)
    spec = backbone.spec
    is_deep = kind.block == "bottleneck"
    depth = _DEPTHS[kind.layers] if is_deep else {6: 34, 2: 18}[kind.layers[2]]
    levels = {"fpn": ["res2", "res3", "res4", "res5"], "c4": ["res4"], "dc5": ["res5"]}[head]
    model: dict[str, Any] = {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "WEIGHTS": weights,
        "MASK_ON": False,
        "PIXEL_MEAN": [round(255 * value, 6) for value in spec.mean],
        "PIXEL_STD": [round(255 * value, 6) for value in spec.std],
        "BACKBONE": {
            "NAME": "build_resnet_fpn_backbone" if head == "fpn" else "build_resnet_backbone",
            "FREEZE_AT": 2,
        },
        "RESNETS": {
            "DEPTH": depth,
            "NUM_GROUPS": kind.groups,
            "WIDTH_PER_GROUP": kind.width,
            "STRIDE_IN_1X1": in_1x1,
            "RES2_OUT_CHANNELS": 256 if is_deep else 64,
            "STEM_OUT_CHANNELS": 64,
            "NORM": "FrozenBN",
            "OUT_FEATURES": levels,
            "RES5_DILATION": 2 if head == "dc5" else 1,
        },
        **HEAD_CONFIG[head],
    }
    model["ROI_HEADS"] = {**model["ROI_HEADS"], "NUM_CLASSES": 20}
    return {
        "MODEL": model,
        "INPUT": {
            "FORMAT": "RGB",
            "MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
            "MIN_SIZE_TEST": 800,
        },
        "DATASETS": {
            "TRAIN": ["voc_2007_trainval", "voc_2012_trainval"],
            "TEST": ["voc_2007_test"],
        },
        "SOLVER": {
            "IMS_PER_BATCH": 16,
            "BASE_LR": 0.02,
            "STEPS": [12000, 16000],
            "MAX_ITER": 18000,
            "WARMUP_ITERS": 100,
        },
        "VERSION": 2,
    }


# detectron2's own base recipes (configs/Base-RCNN-FPN.yaml, -C4.yaml, -DilatedC5.yaml)
_BOX = {"NAME": "FastRCNNConvFCHead", "NUM_FC": 2, "POOLER_RESOLUTION": 7}
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
        "ROI_BOX_HEAD": _BOX,
    },
    "c4": {
        "RPN": {"PRE_NMS_TOPK_TEST": 6000, "POST_NMS_TOPK_TEST": 1000},
        "ROI_HEADS": {"NAME": "Res5ROIHeads"},
    },
    "dc5": {
        "RPN": {
            "IN_FEATURES": ["res5"],
            "PRE_NMS_TOPK_TEST": 6000,
            "POST_NMS_TOPK_TEST": 1000,
        },
        "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": ["res5"]},
        "ROI_BOX_HEAD": _BOX,
    },
}


def write_weights(backbone: Backbone, path: Path, passport: Mapping[str, Any]) -> None:
    """The .pkl; equal content gives equal bytes."""
    model, rest = model_tensors(backbone)
    content = {
        "model": {name: tensor.numpy() for name, tensor in model.items()},
        "__author__": "cutmix-transfer",
        "matching_heuristics": True,  # detectron2 then fits `res2` under `backbone.bottom_up.`
        "rest": {name: tensor.numpy() for name, tensor in rest.items()},
        passports.KEY: json.dumps(passport),
    }
    with open(path, "wb") as handle:
        _Pickler(handle, protocol=4).dump(content)


_Pure: Any = pickle._Pickler  # type: ignore[attr-defined]  # the machine written in Python


class _Pickler(_Pure):
    """Names NumPy's functions as NumPy 1 did, which detectron2's environments often still have."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", "") or ""
        if not module.startswith("numpy._core"):
            super().save_global(obj, name)
            return
        self.save(module.replace("numpy._core", "numpy.core"))
        self.save(name or obj.__qualname__)
        self.write(pickle.STACK_GLOBAL)
        self.memoize(obj)


def write_config(backbone: Backbone, head: Head, path: Path, weights: Path, notes: str) -> None:
    """The YAML, its head saying what it is."""
    comment = (
        f"# {backbone.name} ({backbone.fingerprint()}), Faster R-CNN {head.upper()}, for stock "
        f"detectron2.\n# Images must be RGB, which FORMAT sees to. {notes}\n"
        "# The schedule is detectron2's own for Pascal VOC 2007+2012: 16 images a step.\n"
        f"#   python tools/train_net.py --config-file {path.name}\n"
    )
    content = config(backbone, head, str(weights))
    text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None, width=100)
    path.write_text(comment + text, encoding="utf-8")


def prove(
    backbone: Backbone, weights: Path, configs: Mapping[Head, Path], python: str | None
) -> list[Proof] | None:
    """One proof for each head; None where detectron2 cannot be imported.

    Args:
        backbone: what was exported.
        weights: the .pkl.
        configs: the YAML of each head.
        python: the interpreter of the environment with detectron2; None is this one.

    Raises:
        UsageError: detectron2 refuses what was written.
    """
    image = raw_image(*_IMAGE)
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "jobs.json"
        out = Path(folder) / "levels.npz"
        np.save(Path(folder) / "image.npy", image.numpy())
        jobs = [
            {"name": head, "config": str(path), "weights": str(weights)}
            for head, path in configs.items()
        ]
        plan.write_text(
            json.dumps({"image": str(Path(folder) / "image.npy"), "out": str(out), "jobs": jobs})
        )
        try:
            done = subprocess.run(
                [python or sys.executable, "-I", "-W", "ignore", str(_PROBE), str(plan)],
                capture_output=True,
                text=True,
            )
        except OSError as error:
            raise UsageError(f"--python {python} cannot be run: {error}") from error
        if done.returncode == 3:
            return None
        if done.returncode != 0:
            last = done.stderr.strip().splitlines()[-1:] or ["no message"]
            raise UsageError(f"detectron2 refused the exported files: {last[0]}")
        with np.load(out) as found:
            theirs = {name: found[name] for name in found.files}
    version = str(theirs.pop("version"))
    ours = features(backbone, normalised(backbone, image))
    ours = {name: ours[name] for name in ("res2", "res3", "res4", "res5")}
    proofs = []
    for head in configs:
        expected = dict(ours)
        if head == "dc5":
            expected["res5"] = dilated_res5(backbone, ours["res4"])
        found_levels = {
            name.split("/")[1]: value
            for name, value in theirs.items()
            if name.startswith(f"{head}/")
        }
        proofs.append(compare(f"{version}, {head.upper()}", expected, found_levels))
    return proofs


@torch.inference_mode()
def dilated_res5(backbone: Backbone, res4: Tensor) -> Tensor:
    """What the last stage is under DC5: its stride taken out, its 3x3 convolutions dilated by 2."""
    stage: Any = assemble(backbone).layer4
    for layer in (stage[0].conv1, stage[0].conv2, stage[0].downsample[0]):
        layer.stride = (1, 1)
    for block in stage:
        block.conv2.dilation = block.conv2.padding = (2, 2)
    return stage(res4)
