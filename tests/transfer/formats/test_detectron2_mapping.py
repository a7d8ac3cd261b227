"""The mapping to detectron2 where it is not installed, against figures taken from it.

detectron2_levels.json holds, for seeded networks (making.tame) and a seeded image, what detectron2
02b5c4e computed on CPU from the files that this project writes: of each level the mean, the mean
magnitude, the largest value and a scalar product, which a permutation of channels or pixels moves.
"""

import json
import pickle

import numpy as np
import pytest
import torch

from tests.conftest import ROOT
from tests.transfer.formats.making import dump, tame
from transfer import parity
from transfer.detectron2_resnet import heads_of
from transfer.formats import Overrides, read, to_detectron2

PATH = ROOT / "tests" / "transfer" / "formats" / "detectron2_levels.json"
STOCK = json.loads(PATH.read_text()) if PATH.exists() else {}
FED = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}

# detectron2's own names for what stands in its model zoo and its converter's words:
# depth, channels of res2, groups, width of a group, stride in the first 1x1
FIELDS = {
    "resnet18": (18, 64, 1, 64, False),
    "resnet34": (34, 64, 1, 64, False),
    "resnet50": (50, 256, 1, 64, False),
    "resnet101": (101, 256, 1, 64, False),
    "resnet152": (152, 256, 1, 64, False),
    "resnext50_32x4d": (50, 256, 32, 4, False),
    "resnext101_32x4d": (101, 256, 32, 4, False),
    "resnext101_32x8d": (101, 256, 32, 8, False),
    "wide_resnet50_2": (50, 256, 1, 128, False),
    "wide_resnet101_2": (101, 256, 1, 128, False),
    "resnet50_caffe": (50, 256, 1, 64, True),
    "resnet101_caffe": (101, 256, 1, 64, True),
}


def summary(level: torch.Tensor) -> list[float]:
    """Mean, mean magnitude, largest, and a scalar product with a wave."""
    flat = level.double().numpy().ravel()
    wave = np.cos(0.37 * np.arange(flat.size))
    return [float(flat.mean()), float(np.abs(flat).mean()), float(flat.max()), float(flat @ wave)]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d", "resnet50_caffe"])
def test_levels_are_detectron2_s(arch, tmp_path):
    """Out as detectron2's file, its passport taken away, and in again as anybody's."""
    to_detectron2.write_weights(tame(arch, **FED), tmp_path / "w.pkl", {})
    model = pickle.loads((tmp_path / "w.pkl").read_bytes())["model"]
    path = dump(tmp_path / "foreign.pkl", {"model": model, "__author__": "somebody"})
    backbone = read(path, Overrides(arch=arch, **FED))
    image = parity.raw_image(64, 96)
    found = parity.features(backbone, parity.normalize(backbone, image))
    for level, expected in STOCK[arch].items():
        got = summary(found[level])
        assert got[:3] == pytest.approx(expected[:3], rel=1e-4), level
        scale = expected[1] * found[level].numel() ** 0.5
        assert got[3] == pytest.approx(expected[3], abs=1e-3 * scale), level


@pytest.mark.parametrize("arch", FIELDS)
def test_the_configuration_s_fields(arch):
    backbone = bare(arch)
    for head in heads_of(backbone):
        content = to_detectron2.config(backbone, head, "w.pkl")
        net = content["MODEL"]["RESNETS"]
        keys = ("DEPTH", "RES2_OUT_CHANNELS", "NUM_GROUPS", "WIDTH_PER_GROUP", "STRIDE_IN_1X1")
        assert tuple(net[key] for key in keys) == FIELDS[arch]
        assert net["NORM"] == "FrozenBN"
        assert net["RES5_DILATION"] == (2 if head == "dc5" else 1)
        assert content["INPUT"]["FORMAT"] == "RGB"
        assert content["MODEL"]["PIXEL_MEAN"] == [123.675, 116.28, 103.53]
        assert content["MODEL"]["PIXEL_STD"] == [58.395, 57.12, 57.375]
        assert content["MODEL"]["WEIGHTS"] == "w.pkl"


def bare(arch: str):
    """A backbone without weights: the configuration follows from the spec alone."""
    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    return Backbone(spec=BackboneSpec(arch=arch, **FED), provenance=Provenance(), weights={})


def test_every_verified_architecture_has_its_fields_tested():
    assert set(FIELDS) == set(to_detectron2.VERIFIED)
