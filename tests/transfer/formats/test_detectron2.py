"""detectron2 itself, where it is installed: every level, every head, and what must turn red."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.images import decode
from tests.conftest import ROOT
from tests.transfer.formats.making import dump, msra, tame
from transfer import parity
from transfer.detectron2_resnet import HEADS, dilated_res5, heads_of
from transfer.formats import Overrides, read, to_detectron2, write
from transfer.formats.to_detectron2 import VERIFIED
from transfer.parity import ParityReport, compare

detectron2 = pytest.mark.skipif(
    importlib.util.find_spec("detectron2") is None, reason="detectron2 is not installed"
)
LEVELS = ("res2", "res3", "res4", "res5")


@pytest.fixture(scope="module")
def photo(unpacked) -> torch.Tensor:
    """A real photograph, its middle 96 x 128 pixels as they are."""
    paths = sorted(unpacked("data/imagenet-photos.tar").rglob("*.JPEG"))
    image = decode(paths[100])
    top, side = (image.shape[1] - 96) // 2, (image.shape[2] - 128) // 2
    return image[:, top : top + 96, side : side + 128].contiguous()


@pytest.fixture(scope="module")
def deep() -> Backbone:
    return tame("resnet50")


def draft(backbone: Backbone, folder: Path) -> tuple[Path, dict[str, Path]]:
    """Weights and configurations, not yet verified."""
    weights = folder / "w.pkl"
    to_detectron2.write_weights(backbone, weights, {})
    configs = {head: folder / f"{head}.yaml" for head in heads_of(backbone)}
    for head, path in configs.items():
        to_detectron2.write_config(backbone, head, path, weights, "")
    return weights, configs


def levels(backbone: Backbone, image) -> dict[str, torch.Tensor]:
    found = parity.features(backbone, parity.normalize(backbone, image))
    return {name: found[name] for name in LEVELS}


def measured(
    backbone: Backbone, head: str, config: Path, weights: Path, image, ours=None
) -> ParityReport:
    from transfer.formats.detectron2_probe import probe

    ours = dict(ours or levels(backbone, image))
    if head == "dc5":
        ours["res5"] = dilated_res5(backbone, ours["res4"])
    return compare(head, ours, probe(str(config), str(weights), image.numpy()))


@detectron2
@pytest.mark.parametrize("arch", sorted(VERIFIED))
def test_every_level_of_every_head_is_the_same_function(arch, photo, tmp_path):
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    backbone = tame(arch, mean=mean, std=std)
    weights, configs = draft(backbone, tmp_path)
    assert set(configs) == (set(HEADS) if arch not in ("resnet18", "resnet34") else {"fpn"})
    ours = levels(backbone, photo)
    for head, config in configs.items():
        if head == "dc5" and "50" not in arch:
            continue  # the same stage dilated; its depth is not in it
        found = measured(backbone, head, config, weights, photo, ours)
        assert [level.name for level in found.levels] == list(LEVELS)
        assert found.passed, found.table()


def change_yaml(path: Path, *keys: str, value: object) -> None:
    content = yaml.safe_load(path.read_text())
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(yaml.safe_dump(content))


def change_pickle(path: Path, change) -> None:
    content = pickle.loads(path.read_bytes())
    change(content["model"])
    path.write_bytes(pickle.dumps(content, 4))


def permute(model: dict) -> None:
    name = "res3.1.conv2.weight"
    model[name] = np.ascontiguousarray(model[name].transpose(1, 0, 2, 3))


MUTANTS = {
    "BGR swapped": lambda w, c: change_yaml(c, "INPUT", "FORMAT", value="BGR"),
    "std omitted": lambda w, c: change_yaml(c, "MODEL", "PIXEL_STD", value=[1.0, 1.0, 1.0]),
    "mean of Caffe": lambda w, c: change_yaml(
        c, "MODEL", "PIXEL_MEAN", value=[103.53, 116.28, 123.675]
    ),
    "stride moved": lambda w, c: change_yaml(c, "MODEL", "RESNETS", "STRIDE_IN_1X1", value=True),
    "tensor permuted": lambda w, c: change_pickle(w, permute),
    "shortcut norms swapped": lambda w, c: change_pickle(
        w,
        lambda model: model.update(
            {
                "res4.0.shortcut.norm.weight": model["res4.0.conv3.norm.weight"],
                "res4.0.conv3.norm.weight": model["res4.0.shortcut.norm.weight"],
            }
        ),
    ),
}


@detectron2
@pytest.mark.parametrize("head", ["fpn", "c4"])
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_report_turns_red(mutant, head, deep, photo, tmp_path):
    weights, configs = draft(deep, tmp_path)
    MUTANTS[mutant](weights, configs[head])
    found = measured(deep, head, configs[head], weights, photo)
    assert not found.passed
    # a moved stride leaves the first stage as it is: that it turns red needs the deeper levels
    assert found.levels[-1].relative > 100 * parity.TOLERANCE


@detectron2
def test_a_missing_tensor_is_found(deep, photo, tmp_path):
    weights, configs = draft(deep, tmp_path)
    change_pickle(weights, lambda model: model.pop("res5.2.conv3.weight"))
    for head in ("fpn", "c4"):
        with pytest.raises(ValueError, match=r"did not fill 1 tensors"):
            measured(deep, head, configs[head], weights, photo)


@detectron2
def test_a_missing_statistic_which_detectron2_replaces_is_found(deep, photo, tmp_path):
    """It fills a variance of one in and says nothing: the levels tell."""
    weights, configs = draft(deep, tmp_path)
    change_pickle(weights, lambda model: model.pop("res2.0.conv1.norm.running_var"))
    found = measured(deep, "fpn", configs["fpn"], weights, photo)
    assert not any(level.agrees for level in found.levels)


@detectron2
def test_msra_s_strides_and_channels_survive_the_way_through_us(deep, photo, tmp_path):
    """Caffe2 names, BGR and the stride in the 1x1: detectron2 reads the file itself, then ours."""
    path = dump(tmp_path / "R-50.pkl", msra(deep), 2)
    backbone = read(path, Overrides(source="msra"))
    weights, configs = draft(backbone, tmp_path)
    assert yaml.safe_load(configs["c4"].read_text())["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is True
    default = tmp_path / "default.yaml"  # detectron2's defaults are MSRA's network
    default.write_text(
        "MODEL: {BACKBONE: {NAME: build_resnet_backbone}, ROI_HEADS: {NAME: Res5ROIHeads}}\n"
    )
    from transfer.formats.detectron2_probe import probe

    theirs = probe(str(default), str(path), photo.numpy())
    for head in ("fpn", "c4"):
        assert measured(backbone, head, configs[head], weights, photo).passed
    ours = parity.features(backbone, parity.normalize(backbone, photo))
    assert compare("as it came", {n: ours[n] for n in LEVELS}, theirs).passed


@detectron2
def test_an_export_with_its_report(tmp_path):
    """By the public door: the probe runs as a process of its own."""
    backbone = tame("resnet18", mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    written = write(backbone, "detectron2", tmp_path / "r18.pkl", python=sys.executable)
    assert sorted(os.listdir(tmp_path)) == ["r18-fpn.yaml", "r18.pkl"]
    assert [p.passed for p in written.reports] == [True]
    text = (tmp_path / "r18-fpn.yaml").read_text()
    assert "Verified against detectron2" in text
    model = yaml.safe_load(text)["MODEL"]
    assert model["WEIGHTS"] == str(tmp_path / "r18.pkl")
    assert model["PIXEL_MEAN"] == [127.5, 102.0, 76.5]
    content = pickle.loads((tmp_path / "r18.pkl").read_bytes())
    passport = json.loads(content["cutmix_transfer"])
    assert passport["proof"][0]["levels"][3]["relative"] <= parity.TOLERANCE
    assert read(tmp_path / "r18.pkl").fingerprint() == backbone.fingerprint()


STOCK = """
import pickle, sys
for ours in ("pretrain", "transfer", "tools"):
    sys.modules[ours] = None  # not importable
import numpy as np, torch
from detectron2.config import get_cfg
from detectron2.data.datasets import register_pascal_voc
from detectron2.engine import DefaultTrainer
config, weights, data, out = sys.argv[1:]
register_pascal_voc("cells", data, "trainval", 2007, class_names=("RBC", "WBC", "Platelets"))
cfg = get_cfg()
cfg.merge_from_file(config)
cfg.merge_from_list(["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", ("cells",), "DATASETS.TEST", (),
    "MODEL.ROI_HEADS.NUM_CLASSES", 3, "DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 1,
    "SOLVER.MAX_ITER", 3, "SOLVER.STEPS", (), "SOLVER.BASE_LR", 1e-4, "OUTPUT_DIR", out,
    "INPUT.MIN_SIZE_TRAIN", (128,), "INPUT.MAX_SIZE_TRAIN", 192, "MODEL.ROI_BOX_HEAD.FC_DIM", 32,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE", 16, "MODEL.RPN.POST_NMS_TOPK_TRAIN", 50])
trainer = DefaultTrainer(cfg)
trainer.resume_or_load()
trunk = trainer.model.backbone
own = {n.removeprefix("bottom_up."): t for n, t in trunk.state_dict().items() if "fpn_" not in n}
if hasattr(trainer.model.roi_heads, "res5"):
    own |= {"res5." + n: t for n, t in trainer.model.roi_heads.res5.state_dict().items()}
file = pickle.load(open(weights, "rb"), encoding="latin1")["model"]
assert set(own) == set(file), set(own) ^ set(file)
assert all(np.array_equal(own[n].numpy(), file[n]) for n in own)
trainer.train()
print("trained", trainer.iter, "matched", len(own))
"""


@detectron2
@pytest.mark.parametrize(
    ("arch", "head"), [("resnet18", "fpn"), ("resnet50", "c4"), ("resnet50", "dc5")]
)
def test_a_stock_script_trains_from_it_without_our_package(arch, head, unpacked, tmp_path):
    weights, configs = draft(tame(arch), tmp_path)
    script = tmp_path / "train.py"
    script.write_text(STOCK)
    data = next(unpacked("data/bccd.tar").rglob("ImageSets")).parent
    command = [sys.executable, "-I", "-W", "ignore", script, configs[head], weights, data,
               tmp_path / "out"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained 3 matched" in done.stdout


@detectron2
@pytest.mark.parametrize(
    "arch", ["convnext_atto", "efficientnet_b0", "resnet10t", "swin_tiny_patch4_window7_224"]
)
def test_the_registered_backbone_is_the_same_function(arch, photo, tmp_path):
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from transfer.detection import detectron2_backbone, detectron2_timm

    backbone = tame(arch, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    backbone.save(tmp_path / "b.pth")
    cfg = get_cfg()
    detectron2_backbone.configure(cfg, str(tmp_path / "b.pth"))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
    model = build_model(cfg)
    trunk = model.backbone.bottom_up
    frozen = [name for name, p in trunk.named_parameters() if not p.requires_grad]
    assert any(part in name for name in frozen for part in ("stem", "conv1", "patch_embed"))
    assert len(frozen) < len(list(trunk.parameters()))
    model.train()
    assert not any(
        module.training for module in trunk.modules() if "BatchNorm" in type(module).__name__
    )
    model.eval()
    with torch.no_grad():
        pixels = model.preprocess_image([{"image": photo}]).tensor
        theirs = trunk(pixels)
        pyramid = model.backbone(pixels)
    free = detectron2_timm.for_any_size(backbone)
    ours = parity.features(free, parity.normalize(free, photo))
    assert compare(arch, {name: ours[name] for name in LEVELS}, theirs).passed
    assert list(pyramid) == ["p2", "p3", "p4", "p5", "p6"]
    cfg.INPUT.FORMAT = "BGR"
    with pytest.raises(UsageError, match=r"INPUT\.FORMAT is BGR"):
        build_model(cfg)


@pytest.mark.parametrize("head", ["c4", "dc5"])
def test_basic_blocks_are_refused_where_detectron2_would_build_others(head, tmp_path):
    with pytest.raises(UsageError, match="bottlenecks"):
        write(tame("resnet18"), "detectron2", tmp_path / "r.pkl", heads=[head])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arch", "options", "said"),
    [
        ("convnext_atto", {}, "detectron2_backbone"),
        ("resnet10t", {}, "detectron2_backbone"),
        ("seresnet18", {}, "detectron2_backbone"),
        ("resnet26", {}, "depth 50"),
        ("resnet18", {"model_args": {"act_layer": "gelu"}}, "act_layer"),
    ],
)
def test_what_stock_detectron2_lacks_is_refused(arch, options, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        write(tame(arch, **options), "detectron2", tmp_path / "r.pkl")
    assert os.listdir(tmp_path) == []


def test_without_detectron2_a_verified_mapping_is_named_and_others_are_asked_for(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(to_detectron2, "verify", lambda *_: None)
    backbone = tame("resnet18")
    written = write(backbone, "detectron2", tmp_path / "r.pkl")
    (note,) = written.notes
    assert note.startswith("this file was not compared: detectron2 is missing")
    assert note.endswith(f"mapping verified against detectron2 {to_detectron2.VERIFIED_COMMIT}")
    assert to_detectron2.VERIFIED_COMMIT in (tmp_path / "r-fpn.yaml").read_text()
    assert read(tmp_path / "r.pkl").fingerprint() == backbone.fingerprint()
    monkeypatch.setattr(to_detectron2, "VERIFIED", frozenset())
    with pytest.raises(UsageError, match="--unverified"):
        write(backbone, "detectron2", tmp_path / "s.pkl")
    assert sorted(os.listdir(tmp_path)) == ["r-fpn.yaml", "r.pkl"]
    written = write(backbone, "detectron2", tmp_path / "s.pkl", unverified=True)
    assert written.notes[0].startswith("UNVERIFIED")
    assert "UNVERIFIED" in (tmp_path / "s-fpn.yaml").read_text()


def test_the_probe_needs_nothing_of_ours():
    text = (ROOT / "transfer" / "formats" / "detectron2_probe.py").read_text()
    assert "import pretrain" not in text
    assert "from pretrain" not in text
    assert "from transfer" not in text


def test_a_wrong_interpreter_is_named(tmp_path):
    with pytest.raises(UsageError, match="cannot be run"):
        write(tame("resnet18"), "detectron2", tmp_path / "r.pkl", python=str(tmp_path / "none"))
    assert os.listdir(tmp_path) == []


def test_files_that_numpy_1_reads_too(tmp_path):
    to_detectron2.write_weights(tame("resnet18"), tmp_path / "r.pkl", {})
    content = (tmp_path / "r.pkl").read_bytes()
    assert b"numpy.core.multiarray" in content
    assert b"numpy._core" not in content
