"""RetinaNet and FCOS of torchvision's parts: against torchvision's own classes, and as a run."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torchvision.models import detection

from pretrain.errors import Stopped, UsageError
from pretrain.run import Run
from pretrain.training import make_fabric
from tests.transfer.detection.test_engine import config, weights
from tools import finetune_det
from transfer.detection import engine, fcos, retinanet, setup
from transfer.detection.anchors import Anchors
from transfer.detection.config import LOSSES, DetectorConfig
from transfer.detection.loss_normalizer import LossNormalizer
from transfer.detection.one_stage import LEVEL_STRIDES, build_body

pytestmark = pytest.mark.usefixtures("no_pictures")
SMALL = {
    "retinanet": DetectorConfig(
        kind="retinanet", fpn_channels=16, head_convs=2, anchor_sizes=(12, 24, 48, 96, 192)
    ),
    "fcos": DetectorConfig(kind="fcos", fpn_channels=64, head_convs=1),
}
KINDS = list(SMALL)


def make(backbone, kind: str, **changes) -> nn.Module:
    """With heads that find something, and boxes that move."""
    torch.manual_seed(0)
    detector = setup.build_model(backbone, replace(SMALL[kind], **changes), 4, "torchvision")
    with torch.no_grad():
        for module in detector.head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        detector.head.classification_head.cls_logits.weight.normal_(0, 0.3)
        detector.head.classification_head.cls_logits.bias.fill_(-1)
        detector.head.regression_head.bbox_reg.weight.normal_(0, 0.02)
    return detector


def sample(*sizes: tuple[int, int]) -> tuple[list, list]:
    draw = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, *s), generator=draw, dtype=torch.uint8) for s in sizes]
    boxes = [[[5.0, 8, 40, 60], [30, 20, 70, 66]], [[10.5, 8, 90, 50]], []]
    labels = [[1, 4], [2], []]
    targets = [
        {
            "boxes": torch.tensor(boxes[k]).reshape(-1, 4),
            "labels": torch.tensor(labels[k], dtype=torch.long),
        }
        for k in range(len(sizes))
    ]
    return images, targets


class Padding(nn.Module):
    """Ours in the place of torchvision's transform, so that both see the same pixels."""

    def __init__(self, pad: nn.Module) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, images, targets=None):
        return self.pad(images), targets

    def postprocess(self, detections, *_):
        return detections


def torchvision_s(its_class: type, detector: nn.Module, **options) -> nn.Module:
    """Its own class on the same body and head."""
    detector.backbone.out_channels = 0
    theirs = its_class(detector.backbone, 4, head=detector.head, **options)
    theirs.transform = Padding(detector.pad)
    return theirs


def from_zero(targets: list) -> list:
    """As torchvision's take labels, but for a first class that stands for nothing."""
    return [{**target, "labels": target["labels"] - 1} for target in targets]


@pytest.mark.parametrize("sizes", [((128, 100), (97, 128), (64, 64)), ((70, 96), (65, 60))])
def test_fcos_is_torchvision_s(backbone, sizes):
    detector = make(backbone, "fcos")
    theirs = torchvision_s(detection.FCOS, detector)
    if sizes[0] == (70, 96):  # in a batch of 96 x 96 torchvision's strides are not the levels' own
        theirs.anchor_generator = detector.anchor_generator
    images, targets = sample(*sizes)
    found, wanted = detector.eval()(images), theirs.eval()(images)
    for one, other in zip(found, wanted, strict=True):
        assert len(one["boxes"]) > 5
        assert torch.equal(one["labels"], other["labels"] + 1)
        torch.testing.assert_close(one["scores"], other["scores"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-5, rtol=1e-5)
    found, wanted = detector.train()(images, targets), theirs.train()(images, from_zero(targets))
    assert tuple(found) == LOSSES["fcos"]
    for ours, other in zip(found.values(), wanted.values(), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)
        assert ours > 0


def test_retinanet_s_losses_are_torchvision_s_if_divided_alike(backbone):
    """Of one image, by its own number of anchors on objects."""
    detector = make(backbone, "retinanet")
    anchors = {"anchor_generator": detector.anchor_generator}
    theirs = torchvision_s(detection.RetinaNet, detector, **anchors).train()
    images, targets = sample((96, 75))
    detector.train()(images, targets)
    (count,) = detector.normalizer.counts
    assert count > 5
    detector.normalizer.average.copy_(count)
    found, wanted = detector(images, targets), theirs(images, from_zero(targets))
    assert tuple(found) == LOSSES["retinanet"]
    for ours, other in zip(found.values(), wanted.values(), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)
        assert ours > 0


def test_retinanet_finds_what_torchvision_s_does_where_no_box_is_cut(backbone):
    """Boxes inside of the image: else detectron2's rule, which is ours, cuts them afterwards."""
    detector = make(backbone, "retinanet")
    theirs = torchvision_s(detection.RetinaNet, detector, detections_per_img=100)
    levels = [torch.zeros(1, 1, 256 // stride, 256 // stride) for stride in LEVEL_STRIDES]
    (anchors,) = detector.anchor_generator(SimpleNamespace(image_sizes=[(256, 256)]), levels)
    sizes = [9 * level.numel() for level in levels]
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(1, len(anchors), 4, generator=draw)
    inside = (anchors[:, :2] > 24).all(1) & (anchors[:, 2:] < 232).all(1)
    logits = torch.where(inside[:, None], logits, -9)
    corrections = 0.1 * torch.randn(1, len(anchors), 4, generator=draw)
    outputs = {"cls_logits": logits, "bbox_regression": corrections}
    outputs = {name: list(tensor.split(sizes, 1)) for name, tensor in outputs.items()}
    (found,) = detector.detections(outputs, anchors.split(sizes), [(256, 256)])
    (wanted,) = theirs.postprocess_detections(outputs, [anchors.split(sizes)], [(256, 256)])
    assert len(found["boxes"]) == 100
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor)


def test_boxes_outside_of_the_image_are_left_out(backbone):
    """An anchor beyond the edge has no area once it is cut."""
    detector = make(backbone, "retinanet")
    anchors = torch.tensor([[-30.0, 0, -10, 20], [2, 2, 50, 20]])
    outputs = {
        "cls_logits": [torch.full((1, 2, 1), 3.0)],
        "bbox_regression": [torch.zeros(1, 2, 4)],
    }
    (found,) = detector.detections(outputs, [anchors], [(40, 40)])
    assert found["boxes"].tolist() == [[2, 2, 40, 20]]


@pytest.mark.parametrize("kind", KINDS)
def test_images_without_objects(backbone, kind):
    """Alone, a batch of them teaches the background; beside others they count as background."""
    detector = make(backbone, kind).train()
    images, targets = sample((64, 96), (80, 64), (96, 64))
    empty = detector(images[2:], targets[2:])
    assert empty["loss_classifier"] > 0
    assert all(loss == 0 for name, loss in empty.items() if name != "loss_classifier")
    sum(empty.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.head.parameters())
    both, alone = detector(images, targets), detector(images[:2], targets[:2])
    assert both["loss_classifier"] > alone["loss_classifier"]
    torch.testing.assert_close(both["loss_box_reg"], alone["loss_box_reg"], rtol=1e-4, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_steps_lower_the_loss(backbone, kind):
    torch.manual_seed(0)
    detector = setup.build_model(backbone, SMALL[kind], 4, "torchvision").train()
    images, targets = sample((64, 64))
    adam = torch.optim.Adam((p for p in detector.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(10):
        loss = sum(detector(images, targets).values())
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("kind", KINDS)
def test_heads_give_float32_under_mixed_precision(backbone, kind):
    detector = make(backbone, kind)
    images, targets = sample((64, 64))
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.train()(images, targets)
        (found,) = detector.eval()(images)
    assert {tensor.dtype for tensor in losses.values()} == {torch.float32}
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert not torch.equal(found["scores"], found["scores"].bfloat16().float())


def test_where_the_last_two_levels_come_from(backbone):
    """torchvision's layer takes the pyramid's last wherever that is as wide as the backbone's."""
    (width,) = {level.channels for level in backbone.spec.levels() if level.stride == 32}
    images = torch.randn(1, 3, 64, 64)
    deepest = backbone.features(images)[-1].clone()
    for from_p5 in (True, False):
        settings = replace(SMALL["retinanet"], fpn_channels=width)
        body = build_body(backbone, settings, from_p5=from_p5).eval()
        with torch.no_grad():
            levels, last = body(images), body.fpn.extra_blocks
        assert [64 // level.shape[-1] for level in levels.values()] == [*LEVEL_STRIDES[:4], 64]
        source = levels["2"] if from_p5 else deepest
        torch.testing.assert_close(levels["p6"], last.p6(source))
        torch.testing.assert_close(levels["p7"], last.p7(last.p6(source).relu()))


def test_sizes_of_anchors_are_a_third_of_an_octave_apart():
    sizes = retinanet.octave_sizes(DetectorConfig(kind="retinanet"))
    assert sizes[0] == pytest.approx([32, 40.3175, 50.7968], abs=1e-4)
    assert [row[0] for row in sizes] == [32, 64, 128, 256, 512]
    anchors = Anchors(sizes, LEVEL_STRIDES)
    assert anchors.num_anchors_per_location() == [9] * 5


def test_heads_are_as_deep_as_asked_for(backbone):
    for kind, per_layer in (("retinanet", 1), ("fcos", 3)):  # of FCOS each with norm and ReLU
        for depth in (1, 6):
            head = make(backbone, kind, head_convs=depth).head
            for part in (head.classification_head, head.regression_head):
                assert len(part.conv) == per_layer * depth
    deep = setup.build_model(
        backbone, replace(SMALL["retinanet"], head_convs=6), 4, "torchvision"
    ).head
    drawn = [layer[0].weight.std().item() for layer in deep.regression_head.conv]
    assert drawn == pytest.approx([0.01] * 6, rel=0.1)


def test_a_width_that_fcos_cannot_norm_is_refused(backbone):
    with pytest.raises(UsageError, match=r"fpn_channels is 48.*multiple of 32"):
        fcos.build_detector(backbone, replace(SMALL["fcos"], fpn_channels=48), 3)
    with pytest.raises(UsageError, match="at least 64"):
        fcos.build_detector(backbone, replace(SMALL["fcos"], fpn_channels=32), 3)


def test_the_divisor_moves_once_a_step_over_all_micro_batches():
    """detectron2's rule, by its own arithmetic, where a step is one micro-batch."""
    fabric, normalizer, plain = make_fabric("cpu"), LossNormalizer(), 100.0
    for count in (0, 7, 300):
        divisor = normalizer(torch.tensor(count))
        plain = plain * 0.9 + max(count, 1) * (1 - 0.9)
        assert divisor.item() == pytest.approx(plain, rel=1e-6)
        assert normalizer(torch.tensor(count)) == divisor  # until the step ends
        normalizer.finish_step(fabric)
        assert normalizer.average.item() == pytest.approx(plain, rel=1e-6)
    # two micro-batches of one process, or one of each of two
    cut, whole = LossNormalizer(), LossNormalizer()
    for count in (4, 10):
        cut(torch.tensor(count))
    cut.finish_step(fabric)
    other = SimpleNamespace(all_reduce=lambda mean, reduce_op: (mean + 10) / 2)
    whole(torch.tensor(4))
    whole.finish_step(other)
    assert cut.average == whole.average == 0.9 * 100 + 0.1 * 7


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_equals_uninterrupted(worlds, backbone, tmp_path, kind):
    options = config(worlds["detection"], epochs=2, detector=SMALL[kind])
    engine.finetune(backbone, options, Run(tmp_path / "whole"), make_fabric("cpu"))
    with pytest.raises(Stopped, match="step 3 of 4"):
        engine.finetune(
            backbone, options, Run(tmp_path / "parts"), make_fabric("cpu"), stop_after=3
        )
    result = engine.finetune(backbone, options, Run(tmp_path / "parts"), make_fabric("cpu"))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    log = Run(tmp_path / "parts").read_log()
    assert set(LOSSES[kind]) < set(log[-1])
    name = {"retinanet": "RetinaNet", "fcos": "FCOS"}[kind]
    said = finetune_det.summarize(result, Run(tmp_path / "parts"))
    assert said.startswith(f"\n{name} (torchvision) from resnet10t")
    shown = finetune_det.describe(setup.build(backbone, options), options)
    assert f"\n# {name} on resnet10t" in shown
    if kind == "retinanet":
        assert 0 < whole["normalizer.average"] != 100
