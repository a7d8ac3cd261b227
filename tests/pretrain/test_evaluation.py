"""Scores of a classifier: against timm's own dataset, preprocessing, loader and accuracy."""

import dataclasses
import random
import shutil
from pathlib import Path

import pytest
import timm
import torch
from timm.data import ImageDataset, create_loader
from timm.data.imagenet_info import ImageNetInfo
from timm.utils import accuracy
from timm.utils.misc import natural_key
from torch import nn
from torch.nn import functional
from torchvision.datasets import ImageFolder

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.backbone_evaluation import (
    ClassOrder,
    evaluate_backbone,
    open_matched,
    order_classes,
)
from pretrain.data.images import ImageFiles
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
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 64, 64), num_classes=1000)
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
    with pytest.raises(UsageError, match="has 10 classes, the classifier 7 outputs without names"):
        evaluate_backbone(seven, root, fabric)
    thousand = lively(dataclasses.replace(spec, num_classes=1000))
    with pytest.raises(UsageError, match="none of the classifier's 1000"):
        evaluate_backbone(thousand, root, fabric)


def folders_of(root: Path, names: list[str]) -> Path:
    """A file named as an image in each class folder."""
    for name in names:
        (root / name).mkdir(parents=True)
        (root / name / "1.png").touch()
    return root


def outputs_of(root: Path, backbone: Backbone, order: ClassOrder | None = None) -> dict[str, int]:
    """Class folder -> the output that its image counts for."""
    images, _ = open_matched(root, None, None, backbone, order)
    assert isinstance(images, ImageFiles)
    return {images.path(n).parent.name: int(images.labels[n]) for n in range(len(images))}


def test_the_order_of_numbered_folders_is_stated(tmp_path):
    """0 to 999, of which alphabetical order puts 988 elsewhere than torch's labels mean."""
    thousand = lively(BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=1000))
    root = folders_of(tmp_path / "val", [str(number) for number in range(1000)])
    with pytest.raises(UsageError) as refused:
        open_matched(root, None, None, thousand)
    for words in (
        "--class-order alphabetical (as torchvision's ImageFolder sorts them: 10, 100, 101, ...)",
        "letters is nothing: 2, 3, 4, ...)",
        "--class-order number (a folder's name is the number of its output: 2, 3, 4, ...)",
    ):
        assert words in str(refused.value)
    truth = {str(number): number for number in range(1000)}
    assert outputs_of(root, thousand, "number") == outputs_of(root, thousand, "natural") == truth
    alphabetical = outputs_of(root, thousand, "alphabetical")
    assert alphabetical == ImageFolder(str(root)).class_to_idx
    assert sum(alphabetical[name] != number for name, number in truth.items()) == 988
    few = folders_of(tmp_path / "few", ["2", "10", "999"])  # a part of the classes
    with pytest.raises(UsageError, match="give --class-order number"):
        open_matched(few, None, None, thousand)
    assert outputs_of(few, thousand, "number") == {"2": 2, "10": 10, "999": 999}
    with pytest.raises(UsageError, match="3 class folders and 1000 outputs"):
        open_matched(few, None, None, thousand, "natural")


def test_orders_of_other_folders(tmp_path):
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=12)
    twelve, names = lively(spec), [str(number) for number in range(1, 13)]
    root = folders_of(tmp_path / "twelve", names)
    with pytest.raises(UsageError, match=r"natural .*: 2, 3, 4, \.\.\.\)\.$"):  # 12 is no output
        open_matched(root, None, None, twelve)
    assert outputs_of(root, twelve, "natural") == {name: int(name) - 1 for name in names}
    with pytest.raises(UsageError, match=r"1 of 12 .* not the number of an output, 0 to 11: 12\."):
        open_matched(root, None, None, twelve, "number")
    named = lively(spec, classes=names)  # names decide, whatever the order
    assert outputs_of(root, named)["12"] == 11
    with pytest.raises(UsageError, match="the file names the classes"):
        open_matched(root, None, None, named, "alphabetical")
    foreign = lively(spec, classes=[f"n{name}" for name in names])
    assert outputs_of(root, foreign, "natural")["12"] == 11
    # one order alone: zero-padded numbers, words of one case
    padded = folders_of(tmp_path / "padded", [f"c{name.zfill(2)}" for name in names])
    assert outputs_of(padded, twelve)["c12"] == 11
    two = lively(dataclasses.replace(spec, num_classes=2))
    mixed = folders_of(tmp_path / "mixed", ["Zebra", "apple"])
    with pytest.raises(
        UsageError, match=r"alphabetical .*: Zebra, apple.*natural .*: apple, Zebra"
    ):
        open_matched(mixed, None, None, two)
    same = folders_of(tmp_path / "same", ["a1", "a01"])
    with pytest.raises(UsageError, match="folders a01, a1 are the same in natural order"):
        open_matched(same, None, None, two, "natural")
    twins = lively(dataclasses.replace(spec, num_classes=2), classes=["crane", "crane"])
    with pytest.raises(UsageError, match="more than one output of the name crane"):
        open_matched(folders_of(tmp_path / "twins", ["crane"]), None, None, twins)


def test_natural_order_is_timm_s():
    draw = random.Random(0)
    words = ["".join(draw.choices("aB1029_ ", k=draw.randint(1, 6))) for _ in range(300)]
    names = [*{natural_key(word).__repr__(): word for word in words}.values()]
    ranks = order_classes(names, "natural", len(names))
    assert sorted(names, key=natural_key) == [n for _, n in sorted(zip(ranks, names, strict=True))]


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
    for name in ("circle", "star", "cross"):
        source = next(iter((worlds["classification"] / "val").glob(name)), None)
        if source is not None:
            shutil.copytree(source, tmp_path / "val" / name)
    count = len(list((tmp_path / "val").iterdir()))
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=count)
    evaluation = evaluate_backbone(lively(spec), tmp_path, make_fabric("cpu"), workers=0)
    assert evaluation.scores.top5 == 100.0


def test_broken_images_name_the_option_of_the_tool(worlds, tmp_path):
    root = shutil.copytree(worlds["classification"] / "val", tmp_path / "val").parent
    names = sorted(path.name for path in (root / "val").iterdir())
    for name in names[:2]:
        next((root / "val" / name).iterdir()).write_bytes(b"no picture")
    spec = BackboneSpec(arch="resnet10t", input_size=(3, 32, 32), num_classes=10)
    backbone, fabric = lively(spec, classes=names), make_fabric("cpu")
    with pytest.raises(UsageError, match=r"number 2; 1 may be left out\. --max-corrupt N leaves"):
        evaluate_backbone(backbone, root, fabric, workers=0, max_corrupt=1)
    assert evaluate_backbone(backbone, root, fabric, workers=0, max_corrupt=2).num_corrupt == 2
