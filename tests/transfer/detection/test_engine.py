"""The detector's parts, and the run that ties them together."""

import json
import os
import shutil
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models.detection.image_list import ImageList

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.config import LoaderConfig, OptimizerConfig
from pretrain.errors import Stopped, UsageError
from pretrain.run import Result, Run
from pretrain.training import make_fabric, make_optimizer
from tools.finetune_det import describe
from transfer.body import verify_body
from transfer.detection import engine
from transfer.detection.anchors import Anchors
from transfer.detection.average_precision import evaluate
from transfer.detection.body import STRIDES
from transfer.detection.config import LOSSES, DatasetConfig, DetectionConfig, DetectorConfig
from transfer.detection.data import open_data
from transfer.detection.dataset import DetectionDataset, aspect_ratio_order
from transfer.detection.faster_rcnn import RoIPooler, build_detector
from transfer.detection.inference import detect, load_detector, scoring_loader
from transfer.detection.records import Record
from transfer.detection.sample import flip
from transfer.detection.setup import build
from transfer.detection.voc import read_voc

pytestmark = pytest.mark.usefixtures("no_pictures")
SMALL = DetectorConfig(
    fpn_channels=16,
    head_channels=32,
    anchor_sizes=(20, 40, 80, 160, 320),
    proposals_before_nms=100,
    proposals=50,
    test_proposals=50,
    rois=16,
)


def optimizer(**changes) -> OptimizerConfig:
    return replace(DetectionConfig().optimizer, **changes)


def config(tree: Path, **changes) -> DetectionConfig:
    tiny = DetectionConfig(
        name="test",
        engine="torchvision",
        data=str(tree),
        dataset=DatasetConfig(short_side=64, long_side=128),
        detector=SMALL,
        epochs=1,
        batch_size=4,
        loader=LoaderConfig(workers=0),
        optimizer=optimizer(lr=1e-3, clip_norm=10),
    )
    return replace(tiny, **changes)


# ---------------------------------------------------------------------------------------- samples


def test_flip_moves_boxes_with_their_pixels():
    image = torch.zeros(1, 8, 20)
    image[:, 2:5, 3:9] = 1
    turned, boxes = flip(image, torch.tensor([[3.0, 2.0, 9.0, 5.0]]))
    left, top, right, bottom = boxes[0].int().tolist()
    assert turned[:, top:bottom, left:right].all()
    assert turned.sum() == image.sum() == (right - left) * (bottom - top)


def test_sizes_and_flips_follow_the_ambient_seed(worlds):
    records = read_voc(worlds["detection"], "train").images
    images = DatasetConfig(train_short_sides=(32, 48), long_side=100)
    samples = DetectionDataset(records, images, train=True)
    seen = Counter()
    for seed in range(40):
        torch.manual_seed(seed)
        image, target = samples[0]
        torch.manual_seed(seed)
        assert torch.equal(samples[0][0], image)
        seen[image.shape[1], round(float(target["boxes"][0, 0]), 3)] += 1
    assert {size for size, _ in seen} == {32, 48}
    assert len(seen) == 4  # both sizes, turned and not
    still = DetectionDataset(records, images, train=False)[0][0]
    assert torch.equal(still, DetectionDataset(records, images, train=False)[0][0])


def test_boxes_follow_their_image(worlds):
    """Resized to twice its size and back, every box is the record's."""
    records = read_voc(worlds["detection"], "train").images
    for index, record in enumerate(records):
        images = DatasetConfig(short_side=128, flip=0)
        image, target = DetectionDataset(records, images, train=True)[index]
        assert image.shape == (3, 128, 128)
        assert target["scale"].tolist() == [2, 2]
        np.testing.assert_allclose(target["boxes"].numpy(), 2 * record.boxes, rtol=1e-6)
        assert target["labels"].tolist() == (record.labels + 1).tolist()


@pytest.mark.parametrize("shape", [(67, 100), (100, 67)])
def test_a_box_over_the_whole_image_ends_at_its_edges(tmp_path, shape):
    """Sides are rounded apart, so width and height have a scale of their own."""
    width, height = shape
    Image.new("RGB", shape).save(tmp_path / "a.png")
    whole = replace(
        of_shapes([shape])[0],
        path=tmp_path / "a.png",
        boxes=np.array([[0.0, 0.0, width, height]]),
        labels=np.zeros(1, np.int64),
    )
    image, target = DetectionDataset([whole], DatasetConfig(short_side=9, flip=0), train=False)[0]
    assert sorted(image.shape[1:]) == [9, 13]  # 13.43 before rounding
    assert (image.shape[2] > image.shape[1]) == (width > height)
    edges = [0, 0, image.shape[2], image.shape[1]]
    np.testing.assert_allclose(target["boxes"][0].numpy(), edges, atol=1e-4)


def of_shapes(shapes: list[tuple[int, int]]) -> list[Record]:
    return [Record(image_id=k, path=Path(), width=w, height=h) for k, (w, h) in enumerate(shapes)]


def test_batches_are_of_one_shape_and_every_image_comes_once():
    records = of_shapes([(40, 30)] * 22 + [(30, 40)] * 11)
    orders = [aspect_ratio_order(records, 4, seed=1, epoch=epoch) for epoch in (0, 1)]
    for order in orders:
        assert sorted(order) == list(range(33))
        batches = [order[k : k + 4] for k in range(0, 28, 4)]
        kinds = [{index < 22 for index in batch} for batch in batches]
        assert all(len(kind) == 1 for kind in kinds)
        assert {True} in kinds
        assert {False} in kinds
    assert orders[0] != orders[1]
    assert orders[0] == aspect_ratio_order(records, 4, seed=1, epoch=0)
    assert aspect_ratio_order(of_shapes([(40, 30)] * 3), 4, 0, 0) != []


# ---------------------------------------------------------------------------------------- detector


def pyramid_of(backbone: Backbone, config: DetectorConfig) -> nn.Module:
    return build_detector(backbone, config, 2).backbone


def test_the_body_is_the_backbone(backbone):
    body = pyramid_of(backbone, SMALL).train()
    images = torch.randn(2, 3, 64, 96)
    wanted = backbone.features(images)[1:]
    for found, level, stride in zip(body.body(images), wanted, STRIDES, strict=True):
        assert torch.equal(found, level), f"stride {stride}"
    assert set(body(images)) == {"0", "1", "2", "3", "pool"}


@pytest.mark.parametrize("arch", ["efficientnet_b0", "regnety_002"])
def test_frozen_norms_keep_their_fused_activations(arch):
    """timm's BatchNormAct2d carries the activation; a converter to FrozenBatchNorm2d drops it."""
    spec = BackboneSpec(arch=arch, num_classes=3)
    held = Backbone.of(spec.create(3, 0), spec, Provenance())
    body = pyramid_of(held, SMALL).train()
    images = torch.randn(1, 3, 64, 64)
    for found, level in zip(body.body(images), held.features(images)[-4:], strict=True):
        torch.testing.assert_close(found, level)
    from torchvision.ops.misc import FrozenBatchNorm2d

    body = held.feature_network([1, 2, 3, 4])
    for module in list(body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                frozen = FrozenBatchNorm2d(child.num_features)
                frozen.load_state_dict(
                    {k: v for k, v in child.state_dict().items() if "num_batches" not in k}
                )
                setattr(module, name, frozen)
    with pytest.raises(UsageError, match="of the frozen network differs from the backbone's"):
        verify_body(body, held, [1, 2, 3, 4])


@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_frozen_means_that_nothing_moves(backbone, head):
    for freeze, moving in ((2, "layer2"), (1, "layer1"), (0, "conv1")):
        sides = SMALL.anchor_sizes if head == "fpn" else (32.0,)
        detector = build_detector(
            backbone, replace(SMALL, head=head, freeze=freeze, anchor_sizes=sides), 2
        ).train()
        sgd = make_optimizer(detector, optimizer(lr=0.1), 2)
        image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
        target = {"boxes": torch.tensor([[8.0, 8, 40, 40]]), "labels": torch.tensor([1])}
        for _ in range(2):  # in the first step only the boxes' last layer has a gradient
            sum(detector([image], [target]).values()).backward()
            sgd.step()
        held = {
            name.removeprefix("backbone.body.model.").replace("roi_heads.box_head.stage", "layer4"):
            tensor
            for name, tensor in detector.state_dict().items()
        }  # fmt: skip
        held = {name: tensor for name, tensor in held.items() if name in backbone.weights}
        assert len(held) >= len(backbone.weights) - 2
        moved = {
            name.split(".")[0]
            for name, tensor in held.items()
            if not torch.equal(tensor, backbone.weights[name])
        }
        parts = ["conv1", "layer1", "layer2", "layer3", "layer4"]
        assert min(moved, key=parts.index) == moving
        assert "layer4" in moved
        for name in held:
            if "bn" in name or "running" in name:
                assert torch.equal(held[name], backbone.weights[name]), name


def test_trained_norms_move(backbone):
    body = pyramid_of(backbone, replace(SMALL, batch_norm="trained", freeze=0)).train()
    body(torch.randn(2, 3, 64, 64))
    assert not torch.equal(body.body.model.bn1.running_mean, backbone.weights["bn1.running_mean"])


def test_sync_norms_are_the_backbone_and_learn(backbone):
    body = pyramid_of(backbone, replace(SMALL, batch_norm="sync", freeze=0))
    assert any(isinstance(module, nn.SyncBatchNorm) for module in body.modules())


def test_preprocessing_travels_with_the_backbone(backbone):
    spec = replace(backbone.spec, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    detector = build_detector(replace(backbone, spec=spec), SMALL, 3)
    image = torch.randint(0, 256, (3, 40, 64), dtype=torch.uint8)
    seen = detector.pad([image, image[:, :33, :20]])
    mean, std = (torch.tensor(v)[:, None, None] for v in (spec.mean, spec.std))
    torch.testing.assert_close(seen.tensors[0, :, :40], (image / 255 - mean) / std)
    assert seen.tensors.shape == (2, 3, 64, 64)
    assert not seen.tensors[1, :, 33:].any()
    assert not seen.tensors[1, :, :, 20:].any()
    assert seen.image_sizes == [(40, 64), (33, 20)]


def test_architectures_that_lack_what_a_head_needs_are_refused():
    def held(arch: str) -> Backbone:
        spec = BackboneSpec(arch=arch, num_classes=2)
        return Backbone.of(spec.create(2, 0), spec, Provenance())

    with pytest.raises(UsageError, match=r"stride \[16\].*needed \[4, 8, 16, 32\]"):
        build_detector(held("vit_tiny_patch16_224"), SMALL, 3)
    with pytest.raises(UsageError, match=r"regnety_002 has no last stage.*--detector\.head fpn"):
        build_detector(held("regnety_002"), replace(SMALL, head="c4"), 3)


def test_anchors_keep_their_stride_and_are_not_rounded():
    """Against the definition: area side^2, ratios 1:2, 1:1, 2:1, centred at multiples of stride."""
    anchors = Anchors([(10.0,), (20.0, 30.0)], [8, 64])
    images = ImageList(torch.zeros(1, 3, 32, 96), [(32, 96)])
    (found,) = anchors(images, [torch.zeros(1, 1, 4, 12), torch.zeros(1, 1, 1, 2)])
    assert anchors.num_anchors_per_location() == [3, 6]
    assert found.shape == (4 * 12 * 3 + 2 * 6, 4)
    width, height = found[:, 2] - found[:, 0], found[:, 3] - found[:, 1]
    torch.testing.assert_close((height / width)[:3], torch.tensor([0.5, 1, 2]))
    torch.testing.assert_close((width * height)[-6:], torch.tensor([400.0] * 3 + [900.0] * 3))
    centre = (found[:, :2] + found[:, 2:]) / 2
    torch.testing.assert_close(centre[3 * 13], torch.tensor([8.0, 8.0]))  # row 1, column 1
    torch.testing.assert_close(centre[-1], torch.tensor([64.0, 0.0]))


def test_regions_come_from_the_level_of_their_size():
    levels = {str(k): torch.full((1, 1, 512 >> k, 512 >> k), float(k)) for k in range(4)}
    pooler = RoIPooler(list(levels), STRIDES, 2)
    sides = torch.tensor([20.0, 111, 113, 223, 225, 447, 449, 2000])
    boxes = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)
    found = pooler(levels, [boxes], [(2048, 2048)]).mean((1, 2, 3)).round()
    assert found.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_paper_protocol_takes_a_step(worlds):
    """C4 of a ResNet with basic blocks: detectron2 cannot build it, torchvision's parts can."""
    spec = BackboneSpec(arch="resnet18", num_classes=3)
    held = Backbone.of(spec.create(3, 0), spec, Provenance())
    changes = replace(SMALL, head="c4", anchor_sizes=(16, 32, 64), proposals=20, rois=8)
    detector = build_detector(held, changes, 3).train()
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[5.0, 8, 40, 60]]), "labels": torch.tensor([2])}
    losses = detector([image], [target])
    assert set(losses) == set(LOSSES["faster_rcnn"])
    sum(losses.values()).backward()
    assert all(bool(torch.isfinite(value)) for value in losses.values())
    (found,) = detector.eval()([image])
    assert set(found) == {"boxes", "labels", "scores"}


def test_norms_are_not_decayed_and_the_rate_follows_the_batch(backbone):
    detector = build_detector(backbone, replace(SMALL, batch_norm="trained", freeze=0), 2)
    options = optimizer(lr=0.02, lr_batch=16, weight_decay=0.1)
    decayed, norms = make_optimizer(detector, options, 4).param_groups
    assert decayed["lr"] == norms["lr"] == 0.005
    assert (decayed["weight_decay"], norms["weight_decay"]) == (0.1, 0)
    names = dict(detector.named_parameters())
    in_norms = {id(p) for p in norms["params"]}
    listed = {name for name, p in names.items() if id(p) in in_norms}
    assert "backbone.body.model.bn1.weight" in listed
    assert all("bn" in name or "downsample" in name or "conv1." in name for name in listed)
    assert len(decayed["params"]) + len(norms["params"]) == len(names)


# ---------------------------------------------------------------------------------------- the run


@pytest.fixture(scope="module")
def first(worlds, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    options = config(worlds["detection"], epochs=2)
    return engine.finetune(backbone, options, Run(folder), make_fabric("cpu")), folder


def weights(folder: Path) -> dict:
    return torch.load(folder / "detector.pth", weights_only=True)["state_dict"]


def test_a_run_leaves_what_it_promises(first, worlds, backbone):
    result, folder = first
    assert Result.read(folder / "result.json") == result
    assert result.backbone["fingerprint"] == backbone.fingerprint()
    for name in ("detector.pth", "pictures/detections.png", "pictures/curve.png", "config.yaml"):
        assert (folder / name).stat().st_size > 0
    rows = json.loads((folder / "detections.json").read_text())
    data = open_data(worlds["detection"], config(worlds["detection"]).dataset)
    assert evaluate(data.test, rows).mean["voc07"]["AP50"] == result.metrics["AP50"]
    log = Run(folder).read_log()
    assert [record["epoch"] for record in log] == [1, 2]
    assert log[-1]["AP50"] == result.metrics["AP50"]
    assert result.metrics["scored_epochs"] == 1


def test_the_detector_file_finds_the_same(first, worlds, backbone_file):
    _, folder = first
    held = load_detector(folder)
    truth = open_data(worlds["detection"], config(worlds["detection"]).dataset).test
    loader = scoring_loader(truth.images, held.dataset, make_fabric("cpu"))
    rows = detect(held.model, loader, truth.images, held.classes, make_fabric("cpu"))
    wanted = json.loads((folder / "detections.json").read_text())
    assert [row["image_id"] for row in rows] == [row["image_id"] for row in wanted]
    for row, other in zip(rows, wanted, strict=True):
        np.testing.assert_allclose(row["bbox"], other["bbox"], atol=0.02)
        assert min(row["bbox"]) >= 0
    with pytest.raises(UsageError, match="no detector of this project: format 'backbone/1'"):
        load_detector(backbone_file)
    with pytest.raises(UsageError, match=r"format 'detector/3'; a backbone .* is needed"):
        Backbone.load(folder / "detector.pth")


def test_a_detector_of_the_format_before_is_the_same(first, tmp_path):
    content = torch.load(first[1] / "detector.pth", weights_only=True)
    config = content["config"]
    dataset, config["scratch"] = config.pop("dataset"), config.pop("random_init")
    sizes = ("short_side", "long_side", "train_short_sides", "flip")
    config["images"] = {name: dataset.pop(name) for name in sizes}
    config["images"]["group"] = dataset.pop("aspect_ratio_grouping")
    config["voc"] = dataset | {"max_broken": dataset.pop("max_corrupt")}
    config["detector"]["anchor_sides"] = config["detector"].pop("anchor_sizes")
    names = {"backbone.body": "trunk.body", "backbone.fpn": "trunk.pyramid", "fc6": "fc1",
             "fc7": "fc2"}  # fmt: skip
    old = {}
    for name, tensor in content["state_dict"].items():
        for today, before in names.items():
            name = name.replace(today, before)
        old[name] = tensor
    assert {"trunk.body.model.layer1.0.conv1.weight", "roi_heads.box_head.fc2.bias"} < set(old)
    torch.save({**content, "format": "detector/2", "state_dict": old}, tmp_path / "detector.pth")
    loaded, expected = load_detector(tmp_path), load_detector(first[1])
    assert loaded.dataset == expected.dataset
    weights = loaded.model.state_dict()
    assert all(torch.equal(t, weights[n]) for n, t in expected.model.state_dict().items())


def test_boxes_come_back_in_pixels_of_the_file(worlds):
    """A detector that finds every box of the images it is given, of twice their size."""
    records = read_voc(worlds["detection"], "val").images

    class Oracle(nn.Module):
        def forward(self, images):
            outputs = []
            for image in images:
                record = records[self.seen]
                self.seen += 1
                scale = image.shape[-1] / record.width
                assert scale == 2
                boxes = torch.from_numpy(record.boxes).float() * scale
                boxes[0, :2] -= 1000  # beyond the edge
                labels = torch.from_numpy(record.labels) + 1
                outputs.append({"boxes": boxes, "labels": labels, "scores": torch.ones(len(boxes))})
            return outputs

    oracle = Oracle()
    oracle.seen = 0
    classes = read_voc(worlds["detection"], "val").classes
    loader = scoring_loader(records, DatasetConfig(short_side=128), make_fabric("cpu"))
    rows = detect(oracle, loader, records, classes, make_fabric("cpu"))
    wanted = [
        (r.image_id, classes[label], box.tolist())
        for r in records
        for box, label in zip(r.boxes, r.labels, strict=True)
    ]
    assert [(row["image_id"], row["category"]) for row in rows] == [w[:2] for w in wanted]
    for row, (_, _, box) in zip(rows, wanted, strict=True):
        left, top, width, height = row["bbox"]
        np.testing.assert_allclose([left + width, top + height], box[2:], atol=1e-3)
        assert [left, top] == pytest.approx(box[:2], abs=1e-3) or (left, top) == (0, 0)


def test_from_scratch_nothing_is_frozen(backbone, worlds):
    options = config(worlds["detection"], random_init=True, seed=3)
    setup = build(backbone, options)
    said = "random weights: all are trained"
    assert said in describe(setup, options)
    assert said not in describe(setup, replace(options, random_init=False))
    assert setup.backbone.method == "from scratch"
    assert setup.backbone.describe()["seed"] == 3
    assert all(parameter.requires_grad for parameter in setup.model.parameters())
    name = "backbone.body.model.layer1.0.conv1.weight"
    assert not torch.equal(setup.model.state_dict()[name], backbone.weights[name[20:]])


def test_a_curve_of_the_score(first, backbone, worlds, tmp_path):
    """Scores on the way change no weight."""
    options = config(worlds["detection"], epochs=2, score_every=1)
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    scores = [record["AP50"] for record in Run(tmp_path / "run").read_log()]
    assert len(scores) == result.metrics["scored_epochs"] == 2
    assert result.metrics["AP50_best"] == max(scores)
    quiet = weights(first[1])
    for name, tensor in weights(tmp_path / "run").items():
        assert torch.equal(tensor, quiet[name]), name


def test_the_same_seed_gives_the_same_bits(first, worlds, backbone, tmp_path):
    options = config(worlds["detection"], epochs=2, loader=LoaderConfig(workers=1))
    engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    again = weights(tmp_path / "run")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(first[1]).items())
    options = config(worlds["detection"], epochs=2, seed=1)
    engine.finetune(backbone, options, Run(tmp_path / "other"), make_fabric("cpu"))
    other = weights(tmp_path / "other")
    assert any(not torch.equal(tensor, other[name]) for name, tensor in again.items())


def test_stopped_and_resumed_equals_uninterrupted(first, worlds, backbone, tmp_path):
    options, count = config(worlds["detection"], epochs=2), 0

    class Stopping(type(make_fabric("cpu"))):
        def clip_gradients(self, *arguments, **named):
            nonlocal count
            count += 1
            if count == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().clip_gradients(*arguments, **named)

    with pytest.raises(Stopped, match="step 3 of 4"):
        engine.finetune(
            backbone, options, Run(tmp_path / "run"), Stopping(accelerator="cpu", devices=1)
        )
    engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    again = weights(tmp_path / "run")
    assert all(torch.equal(tensor, again[name]) for name, tensor in weights(first[1]).items())


def test_another_backbone_is_not_resumed(first, worlds, backbone, tmp_path):
    run = Run(tmp_path / "run")
    run.start(engine.plain(config(worlds["detection"])), "0123456789abcdef")
    with pytest.raises(UsageError, match=r"another backbone .*0123456789abcdef"):
        engine.finetune(backbone, config(worlds["detection"]), run, make_fabric("cpu"))


def test_a_detector_can_learn(worlds, backbone, tmp_path, full):
    """Ten images by heart: the loss falls and objects of the training images are found.

    Without --full, tests/transfer/test_chance.py sees a detector learn.
    """
    if not full:
        pytest.skip("twenty seconds: --full")
    tree = tmp_path / "tree"
    shutil.copytree(worlds["detection"], tree)
    shutil.copy(tree / "ImageSets/Main/train.txt", tree / "ImageSets/Main/val.txt")
    options = config(
        tree,
        epochs=40,
        batch_size=5,
        detector=replace(
            SMALL, freeze=0, batch_norm="trained", fpn_channels=64, head_channels=128, rois=32
        ),
        optimizer=optimizer(name="adamw", lr=2e-3, schedule="cosine", clip_norm=10),
    )
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    log = Run(tmp_path / "run").read_log()
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert result.metrics["AP50"] > 40
    assert np.isfinite(result.metrics["AP"])
