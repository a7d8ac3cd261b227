"""Scores of a classifier: against timm's own dataset, preprocessing, loader and accuracy."""

import dataclasses
from pathlib import Path

import pytest
import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.data.imagenet_info import ImageNetInfo
from timm.utils import accuracy
from torch import nn
from torch.nn import functional

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.backbone_evaluation import evaluate_backbone
from pretrain.errors import UsageError
from pretrain.training import make_fabric


def lively(spec: BackboneSpec, **provenance) -> Backbone:
    """Random weights whose outputs differ between images, statistics that are not trivial."""
    model = spec.create(spec.num_classes, seed=3)
    draw = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=draw)
            module.running_mean.uniform_(-0.2, 0.2, generator=draw)
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    model.get_classifier().weight.data.normal_(0, 0.5, generator=draw)
    return Backbone.of(model, spec, Provenance(**provenance))


def by_timm(backbone: Backbone, folder: Path, classes: dict[str, int]) -> tuple[float, ...]:
    """top-1, top-5 and loss as timm's validation computes them."""
    spec = backbone.spec
    dataset = ImageDataset(str(folder), class_map=classes)
    loader = create_loader(
        dataset,
        input_size=spec.input_size,
        batch_size=7,
        use_prefetcher=False,
        interpolation=spec.interpolation,
        mean=spec.mean,
        std=spec.std,
        crop_pct=spec.crop_pct,
        num_workers=0,
    )
    model = timm.create_model(spec.arch, num_classes=spec.num_classes)
    model.load_state_dict(dict(backbone.weights))
    model.eval()
    with torch.inference_mode():
        pairs = [(model(images), labels) for images, labels in loader]
    logits, labels = (torch.cat(column) for column in zip(*pairs, strict=True))
    top1, top5 = accuracy(logits, labels, topk=(1, 5))
    return float(top1), float(top5), float(functional.cross_entropy(logits, labels))


@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_equal_to_timm_s_validation(crop_pct, worlds):
    folder = worlds["classification"] / "train"
    names = sorted(path.name for path in folder.iterdir())
    spec = BackboneSpec(
        arch="resnet10t", input_size=(3, 32, 32), num_classes=10, crop_pct=crop_pct,
        interpolation="bicubic", mean=(0.5, 0.4, 0.3),
    )  # fmt: skip
    backbone = lively(spec, classes=names)
    evaluation = evaluate_backbone(
        backbone,
        worlds["classification"],
        make_fabric("cpu"),
        split="train",
        workers=0,
        batch_size=9,
    )
    found = evaluation.scores
    wanted = by_timm(backbone, folder, {name: index for index, name in enumerate(names)})
    assert (found.top1, found.top5, found.loss) == pytest.approx(wanted, abs=1e-3)
    assert found.images == 60
    assert found.per_class[:, 0].tolist() == [6] * 10
    assert 100 * found.per_class[:, 1].sum() / 60 == pytest.approx(found.top1)


def test_equal_to_timm_s_validation_on_real_photos(unpacked):
    """334 ImageNet photographs, classes matched by timm's list of synsets."""
    folder = unpacked("data/imagenet-photos.tar") / "imagenet-photos"
    spec = BackboneSpec(arch="resnet18", input_size=(3, 96, 96), num_classes=1000)
    backbone = lively(spec)
    evaluation = evaluate_backbone(backbone, folder, make_fabric("cpu"), workers=0, batch_size=50)
    assert "334 of 1000 classes, by timm's list" in evaluation.matching
    synsets = {name: index for index, name in enumerate(ImageNetInfo().label_names())}
    wanted = by_timm(backbone, folder, synsets)
    found = evaluation.scores
    assert found.images == 334
    assert (found.top1, found.top5) == pytest.approx(wanted[:2], abs=0.35)  # one image is 0.3
    assert found.loss == pytest.approx(wanted[2], abs=1e-4)
    tensor = evaluate_backbone(backbone, folder, make_fabric("cpu"), workers=0, by_pil=False)
    assert tensor.scores.loss == pytest.approx(wanted[2], rel=0.02)
    assert tensor.scores.loss != found.loss


def test_classes_are_matched_or_refused(worlds):
    root, fabric = worlds["classification"], make_fabric("cpu")
    names = sorted(path.name for path in (root / "val").iterdir())
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=10)
    known = lively(spec, classes=names)
    turned = lively(spec, classes=names[::-1])
    plain = lively(spec)
    by_name = evaluate_backbone(known, root, fabric, workers=0)
    other = evaluate_backbone(turned, root, fabric, workers=0)
    guessed = evaluate_backbone(plain, root, fabric, workers=0)
    assert by_name.scores.loss == guessed.scores.loss
    assert "alphabetical" in guessed.matching
    assert other.scores.loss != by_name.scores.loss  # labels go by name, not by position
    foreign = lively(spec, classes=[f"x{name}" for name in names])
    with pytest.raises(UsageError, match=r"10 of the 10 classes .* none of the classifier's 10"):
        evaluate_backbone(foreign, root, fabric)
    seven = lively(dataclasses.replace(spec, num_classes=7))
    with pytest.raises(UsageError, match="has 10 classes, the classifier 7 outputs"):
        evaluate_backbone(seven, root, fabric)
    thousand = lively(dataclasses.replace(spec, num_classes=1000))
    with pytest.raises(UsageError, match="none of the classifier's 1000"):
        evaluate_backbone(thousand, root, fabric)


def test_flat_imagenet_is_matched_by_timm_s_list(worlds, tmp_path):
    """Without class names in the file the synsets are timm's, and the output says so."""
    synsets = ImageNetInfo().label_names()
    images = sorted((worlds["classification"] / "val").rglob("*.jpg"))[:6]
    (tmp_path / "val").mkdir()
    for number, image in enumerate(images):
        (tmp_path / "val" / f"ILSVRC2012_val_{number + 1:08d}.JPEG").write_bytes(image.read_bytes())
    labels = "".join(f"{synset}\n" for synset in synsets[3:9])
    (tmp_path / "imagenet_2012_validation_synset_labels.txt").write_text(labels)
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=1000)
    fabric = make_fabric("cpu")
    unnamed = evaluate_backbone(lively(spec), tmp_path, fabric, workers=0)
    assert unnamed.matching == "1000 of 1000 classes, by timm's list of ImageNet's synsets"
    assert unnamed.scores.per_class[:, 0].nonzero().flatten().tolist() == [3, 4, 5, 6, 7, 8]
    named = evaluate_backbone(lively(spec, classes=synsets), tmp_path, fabric, workers=0)
    assert named.matching == "1000 of 1000 classes, by the names in the file"
    assert torch.equal(named.scores.per_class, unnamed.scores.per_class)


def test_fewer_classes_than_five(worlds, tmp_path):
    import shutil

    for name in ("circle", "star", "cross"):
        source = next(iter((worlds["classification"] / "val").glob(name)), None)
        if source is not None:
            shutil.copytree(source, tmp_path / "val" / name)
    count = len(list((tmp_path / "val").iterdir()))
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=count)
    evaluation = evaluate_backbone(lively(spec), tmp_path, make_fabric("cpu"), workers=0)
    assert evaluation.scores.top5 == 100.0
