"""SSD against torchvision's own class with equal weights, its layouts against published ones."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD as TorchvisionSSD
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.config import LoaderConfig
from pretrain.errors import Stopped, UsageError
from pretrain.run import Run
from pretrain.training import make_fabric
from tools.support.benchmarks import detectors
from transfer.detection.config import LOSSES, DatasetConfig, DetectionConfig, DetectorConfig
from transfer.detection.engine import finetune
from transfer.detection.inference import load_detector
from transfer.detection.ssd import SSD, build_detector

TRAINED = DetectorConfig(kind="ssd", freeze=0, batch_norm="trained")
CLASSES, SIDE = 4, 96


def make(arch: str) -> Backbone:
    spec = BackboneSpec(arch=arch, num_classes=3)
    return Backbone.of(spec.create(3, 0), spec, Provenance())


class Levels(nn.Module):
    """What torchvision's SSD takes for a backbone: all maps, of the same modules."""

    def __init__(self, ours: SSD) -> None:
        super().__init__()
        self.backbone, self.norms, self.extra = ours.backbone, ours.norms, ours.extra

    def forward(self, images):
        own = self.backbone(images).items()
        levels = {name: norm(level) for norm, (name, level) in zip(self.norms, own, strict=True)}
        for block in self.extra:
            levels[str(len(levels))] = block(levels[str(len(levels) - 1)])
        return levels


def torchvision_ssd(ours: SSD, spec: BackboneSpec) -> TorchvisionSSD:
    """The same weights, so gradients are of the same tensors."""
    generator, sides = ours.anchor_generator, (SIDE, SIDE)
    mean_std = list(spec.mean), list(spec.std)
    return TorchvisionSSD(Levels(ours), generator, sides, CLASSES + 1, *mean_std, head=ours.head)


def images_and_targets():
    draw = torch.Generator().manual_seed(1)
    images = [torch.randint(0, 256, (3, SIDE, SIDE), generator=draw, dtype=torch.uint8)] * 4
    images = [image.roll(10 * k, 2) for k, image in enumerate(images)]
    twins = [[40.0, 40, 60, 61], [10, 8, 80, 90], [40, 40, 60, 61], [0, 0, 5, 5]]
    held = [twins, [], [[10.5, 8, 90, 50]], [[3, 60, 50, 90], [30, 10, 70, 45]]]
    labels = [[1, 4, 2, 3], [], [2], [4, 4]]
    targets = [
        {"boxes": torch.tensor(boxes).reshape(-1, 4).float(), "labels": torch.tensor(number).long()}
        for boxes, number in zip(held, labels, strict=True)
    ]
    return images, targets


@pytest.fixture
def pair(backbone):
    torch.manual_seed(0)
    ours = build_detector(backbone, TRAINED, CLASSES, SIDE)
    return ours, torchvision_ssd(ours, backbone.spec)


@pytest.mark.parametrize("chosen", [[0, 1, 2, 3], [1], [2, 1]])
def test_losses_and_gradients_are_torchvisions(pair, chosen):
    ours, theirs = pair
    for layer in ours.head.classification_head.module_list:  # those with an object are the worst
        layer.bias.data.view(-1, CLASSES + 1)[:, 0] += 3
    images, targets = ([of[k] for k in chosen] for of in images_and_targets())
    floats = [image / 255 for image in images]
    found, wanted = ours.train()(images, targets), theirs.train()(floats, targets)
    assert tuple(found) == LOSSES["ssd"]
    names = dict(zip(LOSSES["ssd"], ("classification", "bbox_regression"), strict=True))
    for name, other in names.items():
        torch.testing.assert_close(found[name], wanted[other], atol=1e-5, rtol=1e-5)
    assert (found["loss_classifier"] > 0) == (chosen != [1])
    weights = [p for p in ours.parameters() if p.requires_grad]
    gradients = []
    for losses in (found, wanted):
        each = torch.autograd.grad(sum(losses.values()), weights)
        gradients.append(torch.cat([gradient.flatten() for gradient in each]))
    one, other = gradients
    assert (one - other).norm() <= 1e-5 * other.norm()


def test_detections_are_torchvisions(pair):
    ours, theirs = pair
    images, _ = images_and_targets()
    with torch.no_grad():  # so that there is something to choose from
        for layer in ours.head.classification_head.module_list:
            layer.weight.mul_(30)
    floats = [image / 255 for image in images]
    for one, other in zip(ours.eval()(images), theirs.eval()(floats), strict=True):
        assert len(one["boxes"]) > 50
        assert one["labels"].tolist() == other["labels"].tolist()
        torch.testing.assert_close(one["scores"], other["scores"], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(one["boxes"], other["boxes"], atol=1e-5, rtol=1e-5)


# ---------------------------------------------------------------------------------------- layouts


@pytest.mark.parametrize(
    ("layout", "widths"), [("levels", [512, 256, 256]), ("stride8", [512, 512, 256, 256, 256])]
)
def test_default_boxes_of_300_pixels_are_the_papers(backbone, layout, widths):
    """torchvision's for SSD300, but for the scales: it has MS-COCO's."""
    detector = build_detector(backbone, replace(TRAINED, layout=layout), 20, 300)
    generator = DefaultBoxGenerator(
        [[2], [2, 3], [2, 3], [2, 3], [2], [2]],
        scales=[0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05],
        steps=[8, 16, 32, 64, 100, 300],
    )
    maps = [torch.empty(1, 1, size, size) for size in (38, 19, 10, 5, 3, 1)]
    (wanted,) = generator(ImageList(torch.empty(1, 3, 300, 300), [(300, 300)]), maps)
    assert len(wanted) == 8732
    assert [block[3].out_channels for block in detector.extra] == widths
    torch.testing.assert_close(detector.default_boxes, wanted)


def test_512_pixels_have_seven_levels(backbone):
    detector = build_detector(backbone, TRAINED, 20, 512)
    assert len(detector.default_boxes) == 24_564  # the paper's SSD512
    assert detector.anchor_generator.steps == [8, 16, 32, 64, 128, 256, 512]


@pytest.mark.parametrize(("arch", "block"), [("resnet18", BasicBlock), ("resnet26", Bottleneck)])
def test_the_body_at_stride_8_is_nvidias(arch, block):
    """DeepLearningExamples, PyTorch/Detection/SSD/ssd/model.py: ResNet, from torchvision's."""
    held = make(arch)
    ours = build_detector(held, replace(TRAINED, layout="stride8"), 20, 64).eval()
    network = ResNet(block, [2, 2, 2, 2], num_classes=3)
    network.load_state_dict(held.weights)
    theirs = nn.Sequential(*list(network.children())[:7]).eval()
    first = theirs[-1][0]
    first.conv1.stride = first.conv2.stride = first.downsample[0].stride = (1, 1)
    image = torch.randn(1, 3, 64, 64)
    (level,) = ours.backbone(image).values()
    assert level.shape[-2:] == (8, 8)
    torch.testing.assert_close(level, theirs(image))
    assert not any("layer4" in name for name in ours.state_dict())


def test_what_cannot_be_is_refused(backbone):
    stride8 = replace(TRAINED, layout="stride8")
    with pytest.raises(
        UsageError, match=r"mobilenetv3_small_050 is no ResNet.*--detector\.layout levels"
    ):
        build_detector(make("mobilenetv3_small_050"), stride8, 20, 64)
    with pytest.raises(UsageError, match="resnetblur18 is no ResNet"):
        build_detector(make("resnetblur18"), stride8, 20, 64)
    with pytest.raises(
        UsageError, match=r"has 3 sizes.* 4 levels \(maps of 12, 6, 3, 1\).* want 5"
    ):
        build_detector(backbone, replace(TRAINED, box_scales=(0.1, 0.2, 0.3)), 20, 96)
    detector = build_detector(backbone, TRAINED, 20, 96)
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"96 x 64 pixels.*squares of 96.*--dataset\.square 96"):
        detector([image], [])


# --------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("layout", ["levels", "stride8"])
def test_frozen_norms_are_the_backbones_alone(backbone, layout):
    """New layers have no statistics yet; one image is enough for them."""
    config = DetectorConfig(kind="ssd", layout=layout)
    detector = build_detector(backbone, config, CLASSES, SIDE).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    images, targets = images_and_targets()
    sum(detector(images[:1], targets[:1]).values()).backward()
    for name, tensor in detector.state_dict().items():
        if name.endswith("running_mean"):
            is_new = not name.startswith("backbone.")
            assert torch.equal(tensor, before[name]) != is_new, name
    assert all(p.grad is not None for p in detector.extra.parameters())


def test_mixed_precision_leaves_boxes_in_float32(backbone):
    detector = build_detector(backbone, replace(TRAINED, layout="stride8"), CLASSES, 32)
    images = [torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)] * 2
    targets = [{"boxes": torch.tensor([[2.0, 3, 20, 30]]), "labels": torch.tensor([1])}] * 2
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.train()(images, targets)
        found = detector.eval()(images)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert found[0]["boxes"].dtype == torch.float32


def test_stopped_and_resumed_equals_uninterrupted(worlds, backbone, tmp_path, no_pictures):
    config = DetectionConfig(
        name="test",
        engine="torchvision",
        data=str(worlds["detection"]),
        dataset=DatasetConfig(square=64, short_side=64),
        detector=TRAINED,
        optimizer=replace(DetectionConfig().optimizer, lr=1e-3, clip_norm=10),
        epochs=1,
        batch_size=4,
        loader=LoaderConfig(workers=0),
    )
    run = partial(finetune, backbone, config)
    run(Run(tmp_path / "whole"), make_fabric("cpu"))
    with pytest.raises(Stopped, match="step 1 of 2"):
        run(Run(tmp_path / "parts"), make_fabric("cpu"), stop_after=1)
    run(Run(tmp_path / "parts"), make_fabric("cpu"))
    whole, parts = (load_detector(tmp_path / name).model for name in ("whole", "parts"))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, parts.state_dict()[name]), name
    start = backbone.weights["layer1.0.conv1.weight"]
    assert not torch.equal(whole.state_dict()["backbone.body.model.layer1.0.conv1.weight"], start)


def test_the_benchmark_runs_both_sides(worlds, capsys):
    detectors.main(["--data", str(worlds["detection"]), "--kind", "ssd", "--size", "32",
                    "--rounds", "1", "--parts", "step"])  # fmt: skip
    said = capsys.readouterr().out
    assert "| ours |" in said
    assert "| torchvision's SSD |" in said
