"""Records, detector and the run that ties them together."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import Stopped, UserError
from pretrain.run import Result, Run
from pretrain.training import make_fabric
from transfer.detection import engine
from transfer.detection.average_precision import evaluate
from transfer.detection.config import DetectionConfig, DetectorConfig, SolverConfig
from transfer.detection.faster_rcnn import STRIDES, Trunk, build_detector
from transfer.detection.samples import Samples, flip
from transfer.detection.voc import choose_splits, read_voc

SMALL = DetectorConfig(
    short_side=64,
    long_side=128,
    fpn_channels=16,
    head_channels=32,
    anchor_scale=5,
    proposals=50,
    rois=16,
)


def config(tree: Path, **changes) -> DetectionConfig:
    tiny = DetectionConfig(
        name="test",
        data=str(tree),
        detector=SMALL,
        epochs=1,
        batch_size=4,
        workers=0,
        solver=SolverConfig(lr=1e-3),
    )
    return replace(tiny, **changes)


# ---------------------------------------------------------------------------------------- records


def test_boxes_lose_one_pixel_at_left_and_top_only(worlds):
    tree = worlds["detection"]
    held = read_voc(tree, "val")
    import xml.etree.ElementTree as ElementTree

    for record in held.images:
        root = ElementTree.parse(tree / "Annotations" / f"{record.image_id}.xml").getroot()
        for thing, box, label in zip(root.iter("object"), record.boxes, record.labels, strict=True):
            written = [
                int(thing.find(f"bndbox/{t}").text) for t in ("xmin", "ymin", "xmax", "ymax")
            ]
            assert box.tolist() == [written[0] - 1, written[1] - 1, written[2], written[3]]
            assert held.classes[label] == thing.find("name").text
    assert (record.width, record.height) == (64, 64)


def test_real_blood_smears(unpacked):
    tree = unpacked("data/bccd.tar") / "BCCD"
    assert choose_splits(tree, None, None) == ("trainval", "test")
    held = [read_voc(tree, split) for split in ("trainval", "test")]
    assert held[0].classes == ("Platelets", "RBC", "WBC")
    assert [len(split) for split in held] == [292, 72]
    boxes = sum(len(r.labels) for split in held for r in split.images)
    assert boxes == 4155 + 372 + 361
    # two of them have xmin = xmax: one pixel wide in VOC's inclusive convention, not without area
    assert sum(split.dropped for split in held) == 0
    assert sum((r.boxes[:, 2] - r.boxes[:, 0] == 1).sum() for s in held for r in s.images) == 2


def test_splits_are_chosen_without_leaks(tmp_path):
    main = tmp_path / "ImageSets" / "Main"
    for folder in (main, tmp_path / "Annotations", tmp_path / "JPEGImages"):
        folder.mkdir(parents=True)
    for name in ("train", "val", "trainval"):
        (main / f"{name}.txt").write_text("a\n")
    assert choose_splits(tmp_path, None, None) == ("train", "val")
    (main / "test.txt").write_text("b\n")
    assert choose_splits(tmp_path, None, None) == ("trainval", "test")
    assert choose_splits(tmp_path, None, "val") == ("train", "val")
    assert choose_splits(tmp_path, "val", None) == ("val", "test")


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("no tree", "there is no folder"),
        ("no sets", "no ImageSets/Main"),
        ("no split", "no split 'nacht'; it has train, val"),
        ("empty split", "is empty"),
        ("twice", "names train_000000 twice"),
        ("no annotation", r"no annotation .*train_000001\.xml"),
        ("broken xml", r"train_000001\.xml is broken XML.*line"),
        ("no box", r"train_000001\.xml lacks"),
        ("no image", r"no image .*train_000001\.jpg"),
        ("class", "class .* is not among"),
    ],
)
def test_trees_as_users_give_them(trouble, words, worlds, tmp_path):
    tree, split, classes = tmp_path / "tree", "train", None
    if trouble != "no tree":
        shutil.copytree(worlds["detection"], tree)
    listed = tree / "ImageSets" / "Main" / "train.txt"
    xml = tree / "Annotations" / "train_000001.xml"
    if trouble == "no sets":
        shutil.rmtree(tree / "ImageSets")
    if trouble == "no split":
        split = "nacht"
    if trouble == "empty split":
        listed.write_text("\n")
    if trouble == "twice":
        listed.write_text("train_000000\ntrain_000000\n")
    if trouble == "no annotation":
        xml.unlink()
    if trouble == "broken xml":
        xml.write_text(xml.read_text()[:200])
    if trouble == "no box":
        xml.write_text(xml.read_text().replace("xmax", "xmux"))
    if trouble == "no image":
        (tree / "JPEGImages" / "train_000001.jpg").unlink()
    if trouble == "class":
        classes = ["cat", "dog"]
    with pytest.raises(UserError, match=words):
        read_voc(tree, split, classes)


def test_boxes_without_area_are_dropped_and_counted(worlds, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(worlds["detection"], tree)
    xml = tree / "Annotations" / "train_000000.xml"
    text = xml.read_text()
    xmax = text.split("<xmax>")[1].split("<")[0]
    xml.write_text(text.replace(f"<xmax>{xmax}<", "<xmax>0<", 1))
    whole, cut = read_voc(worlds["detection"], "train"), read_voc(tree, "train")
    assert (whole.dropped, cut.dropped) == (0, 1)
    assert len(cut.images[0].labels) == len(whole.images[0].labels) - 1


def test_flip_moves_boxes_with_their_pixels():
    image = torch.zeros(1, 8, 20)
    image[:, 2:5, 3:9] = 1
    turned, boxes = flip(image, torch.tensor([[3.0, 2.0, 9.0, 5.0]]))
    left, top, right, bottom = boxes[0].int().tolist()
    assert turned[:, top:bottom, left:right].all()
    assert turned.sum() == image.sum() == (right - left) * (bottom - top)


def test_flips_follow_the_ambient_seed(worlds):
    samples = Samples(read_voc(worlds["detection"], "train").images, flip=0.5)
    seen = set()
    for seed in range(12):
        torch.manual_seed(seed)
        one = samples[0][0]
        torch.manual_seed(seed)
        assert torch.equal(samples[0][0], one)
        seen.add(one.numpy().tobytes())
    assert len(seen) == 2


# ---------------------------------------------------------------------------------------- detector


def test_the_trunk_is_the_backbone(backbone):
    trunk = Trunk(backbone, SMALL).train()
    images = torch.randn(2, 3, 64, 96)
    wanted = backbone.features(images)[1:]
    for found, level, stride in zip(trunk.body(images), wanted, STRIDES, strict=True):
        assert torch.equal(found, level), f"stride {stride}"
    assert set(trunk(images)) == {"0", "1", "2", "3", "pool"}


@pytest.mark.parametrize("arch", ["efficientnet_b0", "regnety_002"])
def test_frozen_norms_keep_their_fused_activations(arch):
    """timm's BatchNormAct2d carries the activation; a converter to FrozenBatchNorm2d drops it."""
    spec = BackboneSpec(arch=arch, num_classes=3)
    held = Backbone.of(spec.create(3, 0), spec, Provenance())
    trunk = Trunk(held, SMALL).train()
    images = torch.randn(1, 3, 64, 64)
    for found, level in zip(trunk.body(images), held.features(images)[-4:], strict=True):
        torch.testing.assert_close(found, level)


def test_frozen_means_that_nothing_moves(backbone):
    for freeze, moving in ((2, "layer2"), (1, "layer1"), (0, "conv1")):
        trunk = Trunk(backbone, replace(SMALL, freeze=freeze)).train()
        optimizer = torch.optim.SGD([p for p in trunk.parameters() if p.requires_grad], lr=0.1)
        sum(level.square().mean() for level in trunk(torch.randn(2, 3, 64, 64)).values()).backward()
        optimizer.step()
        moved = {
            name.split(".")[0]
            for name, tensor in trunk.body.model.state_dict().items()
            if not torch.equal(tensor, backbone.weights[name])
        }
        assert min(moved, key=["conv1", "layer1", "layer2", "layer3", "layer4"].index) == moving
        norms = {
            name
            for name, module in trunk.body.model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
        }
        for name in norms:
            for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                key = f"{name}.{part}"
                assert torch.equal(trunk.body.model.state_dict()[key], backbone.weights[key])


def test_trained_norms_move(backbone):
    trunk = Trunk(backbone, replace(SMALL, batch_norm="trained", freeze=0)).train()
    trunk(torch.randn(2, 3, 64, 64))
    assert not torch.equal(trunk.body.model.bn1.running_mean, backbone.weights["bn1.running_mean"])


def test_preprocessing_travels_with_the_backbone(backbone):
    spec = replace(backbone.spec, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    detector = build_detector(replace(backbone, spec=spec), SMALL, 3)
    image = torch.rand(3, 64, 64)
    seen, _ = detector.transform([image])
    wanted = (image - torch.tensor(spec.mean)[:, None, None]) / torch.tensor(spec.std)[
        :, None, None
    ]
    torch.testing.assert_close(seen.tensors[0], wanted)


def test_an_architecture_without_a_pyramid_is_refused():
    spec = BackboneSpec(arch="vit_tiny_patch16_224", num_classes=2)
    held = Backbone.of(spec.create(2, 0), spec, Provenance())
    with pytest.raises(UserError, match=r"stride \[16.*needs \[4, 8, 16, 32\]"):
        build_detector(held, SMALL, 3)


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
    scores = evaluate(
        read_voc(worlds["detection"], "val", read_voc(worlds["detection"], "train").classes), rows
    )
    assert scores.mean["voc07"]["AP50"] == result.metrics["AP50"]


def test_the_same_seed_gives_the_same_bits(first, worlds, backbone, tmp_path):
    options = config(worlds["detection"], epochs=2, workers=1)
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
    with pytest.raises(UserError, match=r"another backbone .*0123456789abcdef"):
        engine.finetune(backbone, config(worlds["detection"]), run, make_fabric("cpu"))


def test_a_detector_can_learn(worlds, backbone, tmp_path):
    """Ten images by heart: the loss falls and objects of the training images are found."""
    tree = tmp_path / "tree"
    shutil.copytree(worlds["detection"], tree)
    shutil.copy(tree / "ImageSets/Main/train.txt", tree / "ImageSets/Main/val.txt")
    options = config(
        tree,
        epochs=60,
        batch_size=5,
        detector=replace(
            SMALL, freeze=0, batch_norm="trained", fpn_channels=64, head_channels=128, rois=32
        ),
        solver=SolverConfig(optimizer="adamw", lr=2e-3, schedule="cosine"),
    )
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    log = Run(tmp_path / "run").read_log()
    assert log[-1]["loss"] < 0.5 * log[0]["loss"]
    assert result.metrics["AP50"] > 40
    assert np.isfinite(result.metrics["AP"])
