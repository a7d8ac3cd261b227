"""Names against the libraries' own, and networks told from names and shapes."""

import hashlib
import json
from functools import cache

import pytest
from torch import Size

from pretrain.spec import create_outline
from tests.conftest import ROOT
from tests.transfer.formats.making import mmpretrain, tame
from transfer.formats.architectures import ARCHITECTURES, CAFFE, RESNET_SHAPES, infer
from transfer.key_maps import (
    CAFFE2_FAIR,
    CAFFE2_MSRA,
    DETECTRON2,
    MMPRETRAIN,
    MMPRETRAIN_DEEP_STEM,
)
from transfer.network_maps import KEY_MAPS

# read from the state dicts of detectron2 02b5c4e, torchvision 0.26, CutMix-PyTorch 2d8eb68
GOLDEN = json.loads((ROOT / "tests/transfer/formats/golden_names.json").read_text())
RESNETS = ("resnet18", "resnet50", "resnext50_32x4d")


@cache
def shapes(arch: str, **arguments) -> dict[str, Size]:
    weights = create_outline(arch, **arguments).state_dict()
    return {name: tensor.shape for name, tensor in weights.items()}


@pytest.mark.parametrize("arch", RESNETS)
def test_our_names_are_torchvision_s(arch):
    assert {n: list(s) for n, s in shapes(arch).items()} == GOLDEN[f"torchvision/{arch}"]


@pytest.mark.parametrize("arch", RESNETS)
def test_detectron2_s_names_one_to_one(arch):
    ours = {n: list(s) for n, s in shapes(arch).items() if not n.startswith("fc.")}
    theirs = {DETECTRON2.theirs(name): shape for name, shape in ours.items()}
    assert theirs == GOLDEN[f"detectron2/{arch}"]
    assert DETECTRON2.rename(theirs) == ours


RESNETS_ONLY = [title for title, row in KEY_MAPS.items() if not row.architectures]
FAMILIES = [title for title, row in KEY_MAPS.items() if row.architectures]


@pytest.mark.parametrize("title", RESNETS_ONLY)
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_every_key_map_is_its_own_inverse(title, arch):
    key_map = KEY_MAPS[title]
    names = [n for n in shapes(arch) if "counters" not in n]
    if "Caffe2" in title:
        names = [name for name in names if not name.endswith("num_batches_tracked")]
    if "deep stem" in title:
        names = [name for name in shapes("resnet50d")]
    if "PaddleClas" in title:  # the number of a block depends on the depth
        names = list(shapes(f"resnet{title.split('-')[1]}" + "d" * title.endswith("vd")))
    if "without classifier" in title:
        names = [name for name in names if not name.startswith("fc.")]
    theirs = [key_map.theirs(name) for name in names]
    assert None not in theirs
    assert len(set(theirs)) == len(names)
    assert [key_map.ours(name) for name in theirs] == names


@pytest.mark.parametrize("title", FAMILIES)
def test_every_family_s_names_are_all_there_and_come_back(title):
    key_map = KEY_MAPS[title]
    for arch, arguments in key_map.architectures[:: max(1, len(key_map.architectures) // 2)]:
        names = list(shapes(arch, **arguments))
        theirs = [key_map.theirs(name) for name in names]
        assert None not in theirs
        assert len(set(theirs)) == len(names)
        assert [key_map.ours(name) for name in theirs] == names


@pytest.mark.parametrize("key_map", [CAFFE2_MSRA, CAFFE2_FAIR])
def test_caffe2_s_names_become_what_detectron2_makes_of_them(key_map):
    loading = pytest.importorskip(
        "detectron2.checkpoint.c2_model_loading", reason="detectron2 is not installed"
    )
    ours = [n for n in shapes("resnet50") if "num_batches" not in n and not n.startswith("fc.")]
    caffe2 = [key_map.theirs(name) for name in ours]
    assert loading.convert_basic_c2_names(caffe2) == [DETECTRON2.theirs(name) for name in ours]


@pytest.mark.parametrize(
    ("arch", "key_map", "deep"),
    [
        ("resnet18", MMPRETRAIN, False),
        ("seresnet50", MMPRETRAIN, False),
        ("resnext50_32x4d", MMPRETRAIN, False),
        ("resnet50d", MMPRETRAIN_DEEP_STEM, True),
    ],
)
def test_mmpretrain_s_names_by_its_own_construction(arch, key_map, deep):
    backbone = tame(arch)
    theirs = mmpretrain(backbone, None, deep)["state_dict"]
    assert list(theirs) == [key_map.theirs(name) for name in backbone.weights]
    assert list(key_map.rename(theirs)) == list(backbone.weights)


def test_a_name_without_a_row_is_not_translated():
    assert DETECTRON2.ours("backbone.fpn_lateral2.weight") is None
    assert DETECTRON2.rename({"stem.conv1.weight": 1, "fpn_lateral2.weight": 2}) is None
    assert DETECTRON2.find_ignored({"stem.conv1.bias": 1, "stem.conv1.weight": 2}) == [
        "stem.conv1.bias"
    ]


@pytest.mark.parametrize("arch", sorted(RESNET_SHAPES))
def test_networks_are_told_from_their_shapes(arch):
    found = infer(shapes(arch, num_classes=3))
    assert found is not None
    assert found == (arch, {})


def test_no_two_networks_of_the_table_have_the_same_shapes():
    assert len(ARCHITECTURES) == len(RESNET_SHAPES)
    for stock, caffe in CAFFE.items():
        assert shapes(stock) == shapes(caffe)  # nothing but the source tells these apart


@pytest.mark.parametrize(
    "arguments",
    [
        {"depth": 20, "alpha": 48, "bottleneck": False},
        {"depth": 110, "alpha": 270, "bottleneck": False},
        {"depth": 29, "alpha": 84, "bottleneck": True},
    ],
)
def test_depth_and_alpha_of_a_pyramidnet(arguments):
    found = infer(shapes("pyramidnet", **arguments))
    assert found is not None
    assert found == ("pyramidnet", arguments)


@pytest.mark.parametrize("title", [name for name in GOLDEN if "sha256" in GOLDEN[name]])
def test_the_release_s_names_and_shapes(title):
    """Digests over the networks of clovaai's own code, for as many classes as it trains."""
    _, arch = title.split("/")
    classes = 200 if "vgg" in arch else 100 if "cifar" in arch or "pyramid" in arch else 1000
    own = shapes(arch, num_classes=classes)
    digest = hashlib.sha256(json.dumps([[n, list(s)] for n, s in own.items()]).encode())
    assert len(own) == GOLDEN[title]["tensors"]
    assert digest.hexdigest() == GOLDEN[title]["sha256"]
    assert infer(own) == (arch, {})


@pytest.mark.parametrize(
    "arguments", [{"depth": 20, "bottleneck": False}, {"depth": 29, "bottleneck": True}]
)
def test_depth_and_block_of_the_release_s_resnets_for_cifar(arguments):
    own = shapes("resnet_cifar", **arguments)
    assert infer(own) == ("resnet_cifar", arguments)
    own["layer2.7.conv2.weight"] = own["layer2.0.conv2.weight"]
    assert infer(own) is None
    assert infer(shapes("resnet44_cifar")) == ("resnet44_cifar", {})


@pytest.mark.parametrize(
    "change",
    [
        {"layer2.1.conv1.weight": None},
        {"layer1.0.conv2.weight": Size((64,))},
        {"layer1.0.conv2.weight": Size((0, 0, 3, 3))},
        {"conv1.weight": Size((64, 3))},
        {"layer1.7.conv1.weight": Size((64, 64, 3, 3))},
    ],
    ids=str,
)
def test_what_belongs_to_no_network_is_not_told(change):
    own = dict(shapes("resnet18"))
    for name, shape in change.items():
        own[name] = shape
        if shape is None:
            own = {n: s for n, s in own.items() if not n.startswith(name[:9])}
    assert infer(own) is None
