"""Both engines are the same detector: equal weights give equal losses and equal detections."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.training import make_fabric
from transfer.detection.config import LOSSES, DatasetConfig, DetectorConfig
from transfer.detection.dataset import output_shape
from transfer.detection.faster_rcnn import build_detector
from transfer.detection.loss_normalizer import update_loss_normalizers
from transfer.detection.sample import resize
from transfer.detection.setup import build_model

pytest.importorskip("detectron2", reason="detectron2 is not installed")

from detectron2.utils.events import EventStorage

from transfer.detection import detectron2_model

SMALL = DetectorConfig(
    fpn_channels=16,
    head_channels=32,
    anchor_sizes=(16, 32, 64, 128, 256),
    proposals_before_nms=100,
    proposals=60,
    test_proposals_before_nms=100,
    test_proposals=60,
    rois=65_536,  # none is left to chance
)
# prefixes of our parameters and of detectron2's
NAMES = {
    "rpn.head.conv.0.0.": "proposal_generator.rpn_head.conv.",
    "rpn.head.cls_logits.": "proposal_generator.rpn_head.objectness_logits.",
    "rpn.head.bbox_pred.": "proposal_generator.rpn_head.anchor_deltas.",
    "roi_heads.box_head.fc6.": "roi_heads.box_head.fc1.",
    "roi_heads.box_head.fc7.": "roi_heads.box_head.fc2.",
    **{f"backbone.fpn.inner_blocks.{k}.0.": f"backbone.fpn_lateral{k + 2}." for k in range(4)},
    **{f"backbone.fpn.layer_blocks.{k}.0.": f"backbone.fpn_output{k + 2}." for k in range(4)},
}


RETINANET = DetectorConfig(
    kind="retinanet", fpn_channels=16, head_convs=2, anchor_sizes=(12, 24, 48, 96, 192)
)
RETINANET_NAMES = {
    **{
        f"head.{ours}_head.conv.{k}.0.": f"head.{theirs}_subnet.{2 * k}."
        for ours, theirs in (("classification", "cls"), ("regression", "bbox"))
        for k in range(4)
    },
    "head.classification_head.cls_logits.": "head.cls_score.",
    "head.regression_head.bbox_reg.": "head.bbox_pred.",
    "backbone.fpn.extra_blocks.": "backbone.top_block.",
    "normalizer.": "normalizer.",
    **{f"backbone.fpn.inner_blocks.{k}.0.": f"backbone.fpn_lateral{k + 3}." for k in range(3)},
    **{f"backbone.fpn.layer_blocks.{k}.0.": f"backbone.fpn_output{k + 3}." for k in range(3)},
}


def make(arch: str) -> Backbone:
    spec = BackboneSpec(arch=arch, num_classes=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    model = spec.create(3, 0)
    draw = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.weight.data.uniform_(0.2, 0.4, generator=draw)
            module.running_mean.uniform_(-0.2, 0.2, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return Backbone.of(model, spec, Provenance())


def rename(ours: torch.nn.Module, theirs: torch.nn.Module, names: dict[str, str]) -> set[str]:
    """Give detectron2's parts the weights of ours; returns what it was given."""
    own, given = theirs.model.state_dict(), set()
    for name, tensor in ours.state_dict().items():
        prefix = next((p for p in names if name.startswith(p)), None)
        if prefix is not None:
            given.add(name.replace(prefix, names[prefix]))
            own[name.replace(prefix, names[prefix])].copy_(tensor)
    return given


def sample(*sizes: tuple[int, int]) -> tuple[list, list]:
    """Images of these sizes: with two objects, with one, and with none."""
    draw = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *s), generator=draw, dtype=torch.uint8) for s in sizes]
    held = [[5.0, 8, 40, 60], [30, 20, 70, 66]], [[10.5, 8, 100, 50]], []
    return images, [
        {"boxes": torch.tensor(held[k]).reshape(-1, 4), "labels": torch.tensor(labels).long()}
        for k, labels in enumerate(([1, 4], [2], [])[: len(sizes)])
    ]


def assert_same_detections(found: list, wanted: list) -> None:
    for one, other in zip(found, wanted, strict=True):
        assert len(one["boxes"]) > 5
        assert one["labels"].tolist() == other["labels"].tolist()
        torch.testing.assert_close(one["scores"], other["scores"], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-2, rtol=1e-4)


def free(model: torch.nn.Module) -> int:
    """Weights that learn."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def carry(ours: torch.nn.Module, theirs: torch.nn.Module) -> None:
    """Give detectron2's heads the weights of ours."""
    rename(ours, theirs, NAMES)
    own, held = theirs.model.state_dict(), ours.state_dict()
    for part in ("weight", "bias"):
        scores = held[f"roi_heads.box_predictor.cls_score.{part}"]
        own[f"roi_heads.box_predictor.cls_score.{part}"].copy_(scores.roll(-1, 0))
        boxes = held[f"roi_heads.box_predictor.bbox_pred.{part}"]
        own[f"roi_heads.box_predictor.bbox_pred.{part}"].copy_(boxes[4:])


@pytest.mark.parametrize(
    ("arch", "head", "beta"),
    [("resnet18", "fpn", 0.0), ("resnet10t", "fpn", 1 / 9), ("resnet50", "c4", 0.0)],
)
def test_equal_weights_are_the_same_detector(arch, head, beta):
    config = replace(SMALL, head=head, smooth_l1_beta=beta)
    if head == "c4":
        config = replace(config, anchor_sizes=(32, 64), proposals=20, test_proposals=20)
    backbone = make(arch)
    torch.manual_seed(0)
    ours = build_detector(backbone, config, 4)
    theirs = detectron2_model.build_detector(backbone, config, 4)
    with torch.no_grad():  # so that there is something to find, and boxes to move
        for layer in (ours.roi_heads.box_predictor.cls_score, ours.rpn.head.cls_logits):
            layer.weight.normal_(0, 0.3)
        for layer in (ours.roi_heads.box_predictor.bbox_pred, ours.rpn.head.bbox_pred):
            layer.weight.normal_(0, 0.02)
    carry(ours, theirs)
    images, targets = sample((96, 75), (70, 121))
    assert_same_detections(ours.eval()(images), theirs.eval()(images))

    # ---- losses, every anchor and region sampled in both
    ours.rpn.fg_bg_sampler.batch_size_per_image = 10**6
    theirs.model.proposal_generator.batch_size_per_image = 10**6
    found, wanted = ours.train()(images, targets), theirs.train()(images, targets)
    assert set(found) == set(wanted) == set(LOSSES["faster_rcnn"])
    for name in LOSSES["faster_rcnn"]:
        torch.testing.assert_close(found[name], wanted[name], atol=1e-7, rtol=2e-4)
        assert found[name].item() > 0

    # ---- as many weights learn, and as many stay
    predictor = ours.roi_heads.box_predictor.bbox_pred
    assert free(ours) - free(theirs) == 4 * (predictor.in_features + 1)  # the background's box


@pytest.mark.parametrize(("arch", "beta"), [("resnet18", 0.0), ("resnet10t", 0.1)])
def test_equal_weights_are_the_same_retinanet(arch, beta):
    """For three steps, so that what the losses are divided by moves too."""
    from detectron2.modeling.meta_arch import RetinaNet

    config, backbone = replace(RETINANET, smooth_l1_beta=beta), make(arch)
    torch.manual_seed(0)
    ours, theirs = (
        build_model(backbone, config, 4, name) for name in ("torchvision", "detectron2")
    )
    with torch.no_grad():
        ours.head.classification_head.cls_logits.weight.normal_(0, 0.3)
        ours.head.classification_head.cls_logits.bias.fill_(-1)
        ours.head.regression_head.bbox_reg.weight.normal_(0, 0.1)
    given = rename(ours, theirs, RETINANET_NAMES)
    assert {name for name in theirs.model.state_dict() if "bottom_up" not in name} == given
    assert free(ours) == free(theirs)
    images, targets = sample((96, 75), (70, 121), (64, 64))
    assert_same_detections(ours.eval()(images), theirs.eval()(images))
    inputs = detectron2_model.training_inputs(images, targets)
    for _ in range(3):
        found, wanted = ours.train()(images, targets), theirs.train()(images, targets)
        assert set(found) == set(wanted) == set(LOSSES["retinanet"])
        with (
            EventStorage(0),
            patch.object(type(theirs.model), "_ema_update", RetinaNet._ema_update),
        ):
            by_attribute = theirs.model(inputs)  # as detectron2 itself divides
        for name, wrapped in (("loss_classifier", "loss_cls"), ("loss_box_reg", "loss_box_reg")):
            torch.testing.assert_close(found[name], wanted[name], atol=1e-7, rtol=2e-4)
            torch.testing.assert_close(wanted[name], by_attribute[wrapped], atol=1e-7, rtol=1e-6)
            assert found[name].item() > 0
        for model in (ours, theirs):
            update_loss_normalizers(model, make_fabric("cpu"))
    assert ours.normalizer.average == theirs.model.normalizer.average != 100


def test_a_retinanet_of_detectron2_s_own_takes_other_backbones(backbone_file):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    from transfer.detection import detectron2_backbone

    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "RetinaNet"
    cfg.MODEL.FPN.IN_FEATURES = ["res3", "res4", "res5"]
    detectron2_backbone.configure(cfg, str(backbone_file))
    levels = build_backbone(cfg).output_shape()
    assert {name: level.stride for name, level in levels.items()} == {
        f"p{k}": 2**k for k in range(3, 8)
    }


def test_heads_that_detectron2_would_build_from_other_blocks_are_refused():
    for arch in ("resnet18", "resnet34"):
        with pytest.raises(UsageError, match="basic blocks"):
            detectron2_model.build_detector(make(arch), replace(SMALL, head="c4"), 3)
    with pytest.raises(UsageError, match="stock detectron2 has no resnet10t"):
        detectron2_model.build_detector(make("resnet10t"), replace(SMALL, head="c4"), 3)


def test_dc5_takes_a_step():
    config = replace(SMALL, head="dc5", anchor_sizes=(32, 64), proposals=20, rois=16)
    detector = detectron2_model.build_detector(make("resnet50"), config, 3).train()
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[5.0, 8, 40, 60]]), "labels": torch.tensor([2])}
    losses = detector([image], [target])
    sum(losses.values()).backward()
    assert all(bool(torch.isfinite(value)) for value in losses.values())


def test_images_are_resized_as_detectron2_does():
    from detectron2.data.transforms import ResizeShortestEdge

    draw = np.random.default_rng(0)
    for _ in range(40):
        height, width = (int(n) for n in draw.integers(20, 400, 2))
        short, long = int(draw.integers(20, 300)), int(draw.integers(300, 500))
        wanted = ResizeShortestEdge.get_output_shape(height, width, short, long)
        assert output_shape(height, width, short, long) == wanted
    image = draw.integers(0, 256, (50, 81, 3), dtype=np.uint8)
    resizing = ResizeShortestEdge(37, 500).get_transform(image)
    size = output_shape(50, 81, 37, DatasetConfig().long_side)
    ours = resize(torch.from_numpy(image.transpose(2, 0, 1)), size)
    assert np.array_equal(ours.numpy().transpose(1, 2, 0), resizing.apply_image(image))


@pytest.mark.parametrize("detector", [replace(SMALL, rois=16), RETINANET], ids=lambda d: d.kind)
def test_stopped_and_resumed_equals_uninterrupted(worlds, backbone, tmp_path, detector):
    """The loop, its sampler and its seeds are ours: to the bit."""
    from pretrain.config import LoaderConfig
    from pretrain.errors import Stopped
    from pretrain.run import Run
    from transfer.detection.config import DetectionConfig
    from transfer.detection.engine import finetune
    from transfer.detection.inference import load_detector

    config = DetectionConfig(
        name="test",
        engine="detectron2",
        data=str(worlds["detection"]),
        dataset=DatasetConfig(short_side=64, long_side=128),
        detector=detector,
        optimizer=replace(DetectionConfig().optimizer, lr=1e-3, clip_norm=10),
        epochs=2,
        batch_size=4,
        loader=LoaderConfig(workers=0),
    )
    finetune(backbone, config, Run(tmp_path / "whole"), make_fabric("cpu"))
    with pytest.raises(Stopped, match="step 3 of 4"):
        finetune(backbone, config, Run(tmp_path / "parts"), make_fabric("cpu"), stop_after=3)
    finetune(backbone, config, Run(tmp_path / "parts"), make_fabric("cpu"))
    whole, parts = (load_detector(tmp_path / name).model for name in ("whole", "parts"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
