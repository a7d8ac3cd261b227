"""ImageNet's variants against timm's own rules, on logits that are given image by image."""

import importlib.resources
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import ImageNetInfo, RealLabelsImagenet
from timm.utils import accuracy
from torch import nn

from pretrain.errors import UsageError
from pretrain.spec import BackboneSpec
from pretrain.training import make_fabric
from tests.conftest import FIXTURES
from transfer.evaluation import imagenet_sets
from transfer.evaluation.config import VariantsConfig
from transfer.evaluation.imagenet_variants import average_precision, evaluate, open_data
from transfer.evaluation.images import Labels
from transfer.evaluation.session import Session

SYNSETS = ImageNetInfo().label_names()
INFO = importlib.resources.files("timm.data") / "_info"
A, R = ((INFO / f"imagenet_{name}_synsets.txt").read_text().split() for name in "ar")
A_NUMBERS = [int(line) for line in (INFO / "imagenet_a_indices.txt").read_text().split()]
O = (FIXTURES / "evaluation" / "imagenet_o_synsets.txt").read_text().split()  # noqa: E741
SPEC = BackboneSpec(arch="resnet10t", input_size=(3, 8, 8), num_classes=1000)
LABELS, OPTIONS = Labels(), VariantsConfig()


class Given(nn.Module):
    """Logits of the image whose number its colour is."""

    def __init__(self, outputs=1000):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.table = torch.randn(6000, outputs, generator=draw)

    def forward(self, images):
        mean, std = (torch.tensor(values)[:, None, None] for values in (SPEC.mean, SPEC.std))
        red, green, _ = ((images * std + mean) * 255).mean((2, 3)).round().long().T
        return self.table[red + 256 * green]


def backbone_of(network, names=SYNSETS):
    spec = replace(SPEC, num_classes=network.table.shape[1])
    return SimpleNamespace(spec=spec, output_names=tuple(names), build=lambda: network)


@pytest.fixture
def draw(tmp_path):
    """A function that writes images of the next numbers: FOLDER/NAME for each name."""
    count = iter(range(6000))

    def write(folder, names):
        numbers = []
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            numbers.append(next(count))
            colour = (numbers[-1] % 256, numbers[-1] // 256, 0)
            Image.new("RGB", (8, 8), colour).save(path, format="PNG")
        return numbers

    return write


def session_in(folder):
    fabric = make_fabric("cpu", "32-true")
    return Session(fabric=fabric, folder=folder, suite="imagenet-variants", workers=0)


def score(network, root, names=SYNSETS):
    backbone = backbone_of(network, names)
    data = open_data(backbone, root, OPTIONS, LABELS)
    return evaluate(backbone, data, OPTIONS, session_in(root / ".run")), data


def by_timm(logits, labels, ks=(1, 5)):
    return [float(one) for one in accuracy(logits, torch.tensor(labels), ks)]


def help_to_be_right(network, numbers, labels):
    """Half of the images: otherwise no one would be."""
    for number, label in list(zip(numbers, labels, strict=True))[::2]:
        network.table[number, label] += 3


def test_a_set_of_200_classes_is_scored_among_them_as_timm_does(draw, tmp_path):
    network = Given()
    numbers = draw("any-name", [f"{synset}/x.JPEG" for synset in A])
    help_to_be_right(network, numbers, A_NUMBERS)
    metrics, data = score(network, tmp_path)
    logits = network.table[numbers]
    # validate.py: output[:, valid_labels], the labels being places among the 200 folders
    top1, top5 = by_timm(logits[:, A_NUMBERS], range(200))
    assert (metrics["imagenet_a_top1"], metrics["imagenet_a_top5"]) == pytest.approx((top1, top5))
    assert metrics["imagenet_a_top1_all"] == pytest.approx(by_timm(logits, A_NUMBERS)[0])
    assert metrics["imagenet_a_top1"] > metrics["imagenet_a_top1_all"] > 0
    assert metrics["imagenet_a_images"] == 200
    assert "any-name is a part of ImageNet-A: 200 of 7,500 images" in data.notes
    assert data.summary["images_of"] == {"any-name": 200}


def link_classes(root, names, pool):
    """Folders of these names, each a link to one of a few."""
    root.mkdir()
    for number, name in enumerate(names):
        (root / name).symlink_to(pool / f"{number % 16}", target_is_directory=True)


def test_folders_0_to_999_are_numbers(draw, tmp_path):
    network = Given()
    pool = draw(".pool", [f"{n}/x.jpeg" for n in range(16)])
    names = sorted(map(str, range(1000)))  # as torchvision would number them
    link_classes(tmp_path / "imagenetv2-top-images-format-val", names, tmp_path / ".pool")
    help_to_be_right(network, pool, map(int, names[:16]))
    metrics, _ = score(network, tmp_path)
    logits = network.table[pool].repeat(63, 1)[:1000]
    top1, top5 = by_timm(logits, [int(name) for name in names])
    assert metrics["imagenet_v2_top_images_top1"] == pytest.approx(top1)
    assert metrics["imagenet_v2_top_images_top5"] == pytest.approx(top5)
    assert top1 > by_timm(logits, range(1000))[0]
    assert "imagenet_v2_top_images_top1_all" not in metrics  # all outputs compete


def test_val_real_and_imagenet_o(draw, tmp_path):
    network = Given()
    places = list(range(1, 50_000, 250))  # the images, and any class for each
    labels = [SYNSETS.index(synset) for synset in O[:100]] + list(range(100))
    names = [f"ILSVRC2012_val_{place:08d}.JPEG" for place in places]
    val = draw("val", [f"{SYNSETS[n]}/{name}" for n, name in zip(labels, names, strict=True)])
    out = draw("o", [f"{synset}/x.JPEG" for synset in O])
    real = RealLabelsImagenet(names + [""] * (50_000 - len(names)))
    help_to_be_right(network, val, labels)
    answers = [(real.real_labels[name] or [0])[-1] for name in names]
    help_to_be_right(network, val[1:], answers[1:])
    metrics, _ = score(network, tmp_path)

    logits = network.table[val]
    real.add_result(logits)
    expected = [*by_timm(logits, labels), real.get_accuracy(1), real.get_accuracy(5)]
    keys = ["val_top1", "val_top5", "real_top1", "real_top5"]
    assert [metrics[key] for key in keys] == pytest.approx(expected)
    assert metrics["real_images"] == len(real.is_correct[1]) < metrics["val_images"] == 200
    # eval_many_models.py: the largest probability among the 200, val's images of these classes
    mask = [synset in O for synset in SYNSETS]
    inside = [number for number, label in zip(val, labels, strict=True) if mask[label]]
    scores = [-network.table[n][:, mask].softmax(1).amax(1).numpy() for n in (out, inside)]
    assert metrics["imagenet_o_aupr"] == pytest.approx(100 * average_precision(*scores))
    assert metrics["imagenet_o_images"] == 200
    assert metrics["imagenet_o_val_images"] == len(inside) > 100


def test_val_without_class_folders_takes_its_labels_from_a_file(draw, tmp_path):
    network = Given()
    numbers = draw("val", [f"ILSVRC2012_val_{place:08d}.JPEG" for place in (1, 2, 3)])
    (tmp_path / "val.txt").write_text(
        "".join(f"ILSVRC2012_val_{place:08d}.JPEG {place}\n" for place in (1, 2, 3))
    )
    network.table[numbers[:2], [1, 2]] += 9
    assert score(network, tmp_path)[0]["val_top1"] == pytest.approx(200 / 3)


def test_sketch_is_known_by_its_files_and_v2_by_its_name(draw, tmp_path):
    draw(".pool", [f"{n}/sketch_0.JPEG" for n in range(16)])
    folder, other = tmp_path / "deep" / "er", tmp_path / "imagenet_matched_frequency"
    folder.parent.mkdir()
    link_classes(folder, SYNSETS, tmp_path / ".pool")

    def key():
        (found,) = open_data(backbone_of(Given()), tmp_path, OPTIONS, LABELS).sets.items()
        return found[0], found[1].key

    assert key() == ("deep/er", "sketch")
    folder.rename(other)
    for path in (tmp_path / ".pool").glob("*/*"):
        path.rename(path.with_name("x.JPEG"))
    assert key() == (other.name, "imagenet_v2_matched_frequency")
    other.rename(folder)
    assert key() == ("deep/er", None)


def test_other_folders_are_scored_by_their_synsets(draw, tmp_path):
    network = Given()
    few = draw("imagenet-a", [f"{synset}/x.JPEG" for synset in SYNSETS[:8]])
    draw("train", [f"{SYNSETS[0]}/x.JPEG"])
    draw("flowers", ["rose/x.JPEG"])
    help_to_be_right(network, few, range(8))
    metrics, data = score(network, tmp_path)
    folder, logits = metrics["folders"]["imagenet-a"], network.table[few]
    assert folder["top1"] == metrics["others_top1"] == by_timm(logits[:, :8], range(8))[0]
    assert folder["top1_all"] == by_timm(logits, range(8))[0]
    assert "imagenet_a_top1" not in metrics
    assert any(note.startswith("flowers, train: left out") for note in data.notes)


def test_a_classifier_of_some_classes_in_another_order(draw, tmp_path):
    network, names = Given(5), [SYNSETS[9], "dog", SYNSETS[3], SYNSETS[6], "cat"]
    numbers = draw(".", [f"{SYNSETS[n]}/x.JPEG" for n in (3, 4, 6)])
    network.table[numbers] = torch.tensor([0.0, 9, 1, 0, 0])
    metrics, data = score(network, tmp_path, names)
    (folder,) = metrics["folders"].values()
    assert folder == {"top1": 50, "top5": 100, "top1_all": 0, "images": 2}
    assert f"{tmp_path.name}: 1 of 3 images are left out" in " ".join(data.notes)
    assert "the classifier has 3 of ImageNet's 1,000 classes" in data.notes[0]


def test_what_cannot_be_scored(draw, tmp_path):
    backbone = backbone_of(Given())

    def message(backbone=backbone):
        with pytest.raises(UsageError) as error:
            open_data(backbone, tmp_path, OPTIONS, LABELS)
        return str(error.value)

    draw("digits", [f"{n}/x.png" for n in range(10)])
    assert "holds nothing that can be scored" in message()
    draw("o", [f"{synset}/x.JPEG" for synset in O])
    assert "ImageNet-O is left out" in message()
    draw("one", [f"{synset}/x.JPEG" for synset in R])
    (found,) = open_data(backbone, tmp_path, OPTIONS, LABELS).sets.values()
    assert (found.key, len(found.competing)) == ("imagenet_r", 200)
    draw("two", [f"{synset}/x.JPEG" for synset in R])
    assert "holds ImageNet-R twice: one and two" in message()
    assert "they are rose, tulip." in message(backbone_of(Given(2), ["rose", "tulip"]))
    assert "they are 2 without names." in message(backbone_of(Given(2), ()))


def test_images_that_cannot_be_read(draw, tmp_path):
    draw("x", [f"{synset}/x.JPEG" for synset in SYNSETS[:2]])
    for path in tmp_path.rglob("*.JPEG"):
        path.write_text("no image")
    backbone = backbone_of(Given())
    data = open_data(backbone, tmp_path, OPTIONS, LABELS)
    session = replace(session_in(tmp_path / ".run"), max_corrupt=2)
    with pytest.raises(UsageError, match="scoring x: none of the images can be read"):
        evaluate(backbone, data, OPTIONS, session)


def test_validation_images_without_labels_of_real(draw, tmp_path):
    names = ["ILSVRC2012_val_00000000.JPEG", "ILSVRC2012_val_00050001.JPEG"]
    draw("val", [f"{SYNSETS[0]}/{name}" for name in names])
    metrics, _ = score(Given(), tmp_path)
    assert metrics["val_images"] == 2
    assert not any(key.startswith("real_") for key in metrics)


def test_names_too_long_for_those_of_parts(draw, tmp_path):
    places = ["\N{CJK UNIFIED IDEOGRAPH-4E2D}" * 60 + end for end in "ab"]
    numbers = [draw(place, [f"{SYNSETS[0]}/x.JPEG"]) for place in places]
    network = Given()
    network.table[numbers[0], 0] += 9
    metrics, _ = score(network, tmp_path)
    assert [folder["top1_all"] for folder in metrics["folders"].values()] == [100, 0]


def test_severities_are_no_classes(draw, tmp_path):
    draw("fog", [f"{level}/{synset}/x.JPEG" for level in (1, 2) for synset in SYNSETS[:3]])
    assert [*score(Given(), tmp_path)[0]["folders"]] == ["fog/1", "fog/2"]


def test_more_images_than_published_are_another_set(draw, tmp_path, monkeypatch):
    a = imagenet_sets.PUBLISHED["imagenet_a"]
    monkeypatch.setitem(imagenet_sets.PUBLISHED, "imagenet_a", a._replace(images=199))
    draw("a", [f"{synset}/x.JPEG" for synset in A])
    metrics, data = score(Given(), tmp_path)
    assert [*metrics["folders"]] == ["a"]
    assert "200 images where that has 199" in data.notes[0]


def test_what_is_measured_is_kept(draw, tmp_path):
    draw("x", [f"{synset}/x.JPEG" for synset in SYNSETS[:4]])
    first, data = score(Given(), tmp_path)
    other = backbone_of(Given())
    other.build().table.zero_()
    assert evaluate(other, data, OPTIONS, session_in(tmp_path / ".run")) == first
    assert evaluate(other, data, OPTIONS, session_in(tmp_path / ".new")) != first


@pytest.mark.parametrize("case", ["random", "ties", "all_equal", "one"])
def test_average_precision_is_scikit_learns(case):
    found = json.loads((FIXTURES / "evaluation" / "average_precision.json").read_text())[case]
    ours = average_precision(np.array(found["positive"]), np.array(found["negative"]))
    assert ours == pytest.approx(found["value"], abs=1e-12)
