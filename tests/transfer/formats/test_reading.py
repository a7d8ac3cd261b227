"""Every wrapping of the field, read into the same backbone; what cannot be known is asked for."""

import argparse
import copy
import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from timm.models import save_for_hf

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from tests.transfer.formats.making import (
    cutmix_release,
    detectron2_torchvision,
    dump,
    fold,
    mmpretrain,
    msra,
    python_2,
    save,
    tame,
)
from transfer.formats import Overrides, read, sources

MM_CONFIG = """
data_preprocessor = dict(
    num_classes=10, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True)
model = dict(backbone=dict(type='ResNet', depth=18, style='pytorch'))
"""


THIN = {"channels": [16, 16, 32, 32]}  # so that the files are small
DEEP = {"channels": [64, 64, 64, 64]}  # shapes tell a bottleneck by the width of its first stage


@pytest.fixture(scope="module")
def net() -> Backbone:
    return tame("resnet18", model_args=THIN)


@pytest.fixture(scope="module")
def deep() -> Backbone:
    return tame("resnet50", model_args=DEEP)


def thin(**facts) -> Overrides:
    """What is stated of a file, and that its network is thin."""
    return Overrides(**facts, model_args=THIN)


def same_weights(one: Backbone, other: Backbone) -> bool:
    return list(one.weights) == list(other.weights) and all(
        torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items()
    )


TORCHVISION = thin(source="torchvision")


def lightning(net: Backbone) -> dict:
    return {
        "epoch": 9,
        "global_step": 100,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": {f"model.{name}": tensor for name, tensor in net.weights.items()},
        "loops": {},
        "callbacks": {},
        "optimizer_states": [],
        "lr_schedulers": [],
    }


def timm_training(net: Backbone) -> dict:
    other = {name: torch.zeros_like(tensor) for name, tensor in net.weights.items()}
    arguments = argparse.Namespace(model="resnet18", mean=None, std=None, interpolation="bicubic",
                                   crop_pct=0.9, input_size=None, img_size=None)  # fmt: skip
    return {
        "epoch": 20,
        "arch": "resnet18",
        "state_dict": other,
        "state_dict_ema": dict(net.weights),
        "optimizer": {},
        "version": 2,
        "args": arguments,
        "metric": np.float64(70.5),
    }


def torchvision_training(net: Backbone) -> dict:
    arguments = argparse.Namespace(model="resnet18", val_crop_size=176, val_resize_size=200,
                                   interpolation="bilinear")  # fmt: skip
    ema = {f"module.{name}": tensor for name, tensor in net.weights.items()}
    return {
        "model": {name: torch.zeros_like(tensor) for name, tensor in net.weights.items()},
        "model_ema": {**ema, "n_averaged": torch.tensor(7)},
        "optimizer": {},
        "lr_scheduler": {},
        "epoch": 3,
        "args": arguments,
    }


# title -> (content, what must be given, wrapping that is named)
WRAPPED = {
    "plain": (lambda net: dict(net.weights), TORCHVISION, "plain weights"),
    "compiled and parallel": (
        lambda net: {f"_orig_mod.module.{n}": t for n, t in net.weights.items()},
        TORCHVISION,
        "plain weights",
    ),
    "release": (cutmix_release, thin(), "CutMix-PyTorch release"),
    "lightning": (lightning, TORCHVISION, "Lightning checkpoint"),
    "timm": (timm_training, thin(), "timm's train.py"),
    "torchvision": (torchvision_training, thin(), "torchvision's train.py"),
    "mmpretrain": (lambda net: mmpretrain(net, MM_CONFIG), thin(), "mmpretrain or openmixup"),
    "mm without config": (
        lambda net: mmpretrain(net, None),
        thin(source="mmpretrain"),
        "mmpretrain or openmixup",
    ),
    "example": (
        lambda net: {"epoch": 90, "arch": "resnet18", "state_dict": dict(net.weights),
                     "best_acc1": torch.tensor(69.7)},
        TORCHVISION,
        "training checkpoint",
    ),
}  # fmt: skip


@pytest.mark.parametrize("title", WRAPPED)
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_every_wrapping_gives_the_same_weights(title, legacy, net, tmp_path):
    make, given, wrapping = WRAPPED[title]
    path = save(tmp_path / "f.pth", make(net), _use_new_zipfile_serialization=not legacy)
    found = read(path, given)
    assert same_weights(found, net)
    assert found.spec.arch == "resnet18"
    assert found.spec.num_classes == 10
    assert wrapping in found.provenance.stated["wrapping"]
    assert found.provenance.source_sha256
    assert found.spec.mean == pytest.approx((0.485, 0.456, 0.406))
    assert found.spec.std == pytest.approx((0.229, 0.224, 0.225))


def test_what_the_programs_say_of_preprocessing_is_taken(net, tmp_path):
    by_timm = read(save(tmp_path / "t.pth", timm_training(net)), thin())
    assert (by_timm.spec.interpolation, by_timm.spec.crop_pct) == ("bicubic", 0.9)
    content = timm_training(net)
    content["args"] = argparse.Namespace(mean=[0.5] * 3, std=[0.5] * 3)  # a part of them counts
    part = save(tmp_path / "p.pth", content)
    assert read(part, thin()).spec.mean == (0.5, 0.5, 0.5)
    with pytest.raises(UsageError, match="contradicts"):
        read(part, thin(source="torchvision"))
    by_torchvision = read(save(tmp_path / "v.pth", torchvision_training(net)), thin())
    assert by_torchvision.spec.input_size == (3, 176, 176)
    assert by_torchvision.spec.crop_pct == pytest.approx(0.88)


@pytest.mark.parametrize(
    "change",
    [
        {"val_crop_size": "large"},
        {"val_resize_size": 0},
        {"val_resize_size": None},
        {"val_crop_size": [224]},
        "--crop 224",
    ],
    ids=str,
)
def test_what_torchvision_s_arguments_do_not_say_is_asked_for(change, net, tmp_path):
    content = torchvision_training(net)
    arguments = {**vars(content["args"]), **change} if isinstance(change, dict) else change
    path = save(tmp_path / "v.pth", content | {"args": arguments})
    with pytest.raises(UsageError, match="does not say how the network is fed"):
        read(path, thin())
    assert same_weights(read(path, TORCHVISION), net)


@pytest.mark.parametrize(
    "change", [{"crop_pct": "x"}, {"mean": 0.5}, {"mean": "abc"}, {"input_size": "abc"}], ids=str
)
def test_what_timm_s_arguments_do_not_say_is_one_message(change, net, tmp_path):
    content = timm_training(net)
    path = save(tmp_path / "t.pth", content | {"args": {**vars(content["args"]), **change}})
    with pytest.raises(UsageError):
        read(path)


def test_the_release_s_facts(deep, tmp_path):
    given = Overrides(model_args=DEEP)
    found = read(save(tmp_path / "model_best.pth.tar", cutmix_release(deep)), given)
    assert found.spec.arch == "resnet50"
    assert found.provenance.epochs == 300
    assert found.provenance.stated["best_err1"] == 21.4
    assert found.provenance.stated["prefix"] == "module."


def test_the_release_s_pyramidnet_is_fed_as_cifar(tmp_path):
    net = tame("pyramidnet110_a64", num_classes=100, input_size=(3, 32, 32))
    found = read(save(tmp_path / "p.pth.tar", cutmix_release(net, "pyramidnet")))
    assert found.spec.arch == "pyramidnet110_a64"
    assert same_weights(found, net)
    assert found.spec.mean == pytest.approx((125.3 / 255, 123.0 / 255, 113.9 / 255))
    assert found.spec.input_size == (3, 32, 32)


def test_a_pyramidnet_s_shakedrop_is_said_or_assumed_away(tmp_path):
    """As github.com/ildoonet/cutmix publishes one, under the release's layout and names."""
    arguments = {"depth": 20, "alpha": 8, "bottleneck": False}
    net = tame("pyramidnet", model_args=arguments, input_size=(3, 32, 32))
    path = save(tmp_path / "p.pth.tar", cutmix_release(net, "pyramidnet"))
    (note,) = read(path).notes
    assert "--model-arg shakedrop_rate=0.5" in note
    shaken = read(path, Overrides(model_args={"shakedrop_rate": 0.5}))
    assert shaken.notes == []
    assert shaken.spec.model_args == {**arguments, "shakedrop_rate": 0.5}
    images = torch.randn(1, 3, 32, 32)
    assert not torch.allclose(shaken.build().eval()(images), net.build().eval()(images), rtol=0.01)


def test_the_release_s_resnets_for_cifar_are_fed_as_cifar(tmp_path):
    net = tame("resnet_cifar", model_args={"depth": 11, "bottleneck": True}, num_classes=100)
    found = read(save(tmp_path / "r.pth.tar", cutmix_release(net)))
    assert (found.spec.arch, found.spec.model_args) == (net.spec.arch, net.spec.model_args)
    assert same_weights(found, net)
    assert found.spec.mean == pytest.approx((125.3 / 255, 123.0 / 255, 113.9 / 255))
    assert found.spec.input_size == (3, 32, 32)


def test_detectron2_s_own_conversion_of_torchvision(deep, tmp_path):
    path = dump(tmp_path / "R-50.pkl", detectron2_torchvision(deep))
    found = read(path, Overrides(model_args=DEEP))
    assert same_weights(found, deep)
    assert "torchvision" in found.provenance.stated["conventions"]


@pytest.mark.parametrize(("protocol", "blobs"), [(2, True), (3, False), (4, True)])
def test_msra_s_files(protocol, blobs, deep, tmp_path):
    content = msra(deep)
    if blobs:
        momentum = {"conv1_w_momentum": content["conv1_w"], "lr": np.float32(0.02)}
        content = {"blobs": {**content, **momentum}, "cfg": "TRAIN: {}"}
    path = dump(tmp_path / "R-50.pkl", content, protocol)
    with pytest.raises(UsageError, match="--source"):
        read(path, Overrides(model_args=DEEP))
    found = read(path, Overrides(source="msra", model_args=DEEP))
    assert found.spec.arch == "resnet50_caffe"
    assert same_weights(found, fold(deep))  # BGR turned round, statistics filled in
    assert found.spec.std == (1 / 255, 1 / 255, 1 / 255)
    assert "running statistics" in found.provenance.stated["filled"]
    with pytest.raises(UsageError, match="resnet50_caffe"):
        read(path, Overrides(source="msra", arch="resnet50", model_args=DEEP))


def test_python_2_pickles(net, tmp_path):
    """Byte strings for names and for the numbers, numpy.core, as the files of 2017 hold them."""
    path = tmp_path / "R-18.pkl"
    path.write_bytes(python_2(msra(net)))
    found = read(path, thin(source="msra"))
    assert found.spec.arch == "resnet18"  # basic blocks have one place for the stride
    assert same_weights(found, fold(net))


def test_channel_order_given_by_hand(net, tmp_path):
    turned = {n: t.flip(1) if n == "conv1.weight" else t for n, t in net.weights.items()}
    path = save(tmp_path / "b.pth", turned)
    facts = {"mean": (0.4, 0.4, 0.4), "std": (0.2, 0.2, 0.2)}
    assert same_weights(read(path, thin(**facts, channels="bgr")), net)
    assert not same_weights(read(path, thin(**facts)), net)


def test_mm_configurations_are_read_or_not_believed():
    caffe = sources.of_mm_config(
        "x = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)\n"
        "backbone=dict(style='caffe')"
    )
    assert caffe.mean == pytest.approx((123.675 / 255, 116.28 / 255, 103.53 / 255))
    assert (caffe.channels, caffe.stride) == ("bgr", "1x1")
    unit = sources.of_mm_config("img_norm_cfg = dict(mean=[0.485, 0.456, 0.406], std=[.2, .2, .2])")
    assert unit.mean == (0.485, 0.456, 0.406)
    assert (
        sources.of_mm_config("a=dict(mean=[1, 2, 3], std=[1, 1, 1]); b=dict(mean=[0, 0, 0])")
        is None
    )
    assert sources.of_mm_config("mean=[x, y, z], std=[1, 1, 1]") is None
    assert sources.of_mm_config("nothing") is None


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_timm_s_folder(kind, net, tmp_path):
    model = timm.create_model("resnet18", num_classes=10, **THIN)
    model.load_state_dict(dict(net.weights))
    data = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "interpolation": "bicubic",
            "crop_pct": 0.95, "input_size": (3, 256, 256)}  # fmt: skip
    save_for_hf(model, tmp_path, data_config=data, model_args=THIN,
                safe_serialization=kind == "safetensors")  # fmt: skip
    found = read(tmp_path)
    assert same_weights(found, net)
    assert (found.spec.mean, found.spec.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (found.spec.interpolation, found.spec.crop_pct) == ("bicubic", 0.95)
    assert found.spec.input_size == (3, 256, 256)


def test_a_bare_safetensors_file(net, tmp_path):
    safetensors.torch.save_file(dict(net.weights), tmp_path / "n.safetensors")
    assert same_weights(read(tmp_path / "n.safetensors", TORCHVISION), net)
    with pytest.raises(UsageError, match="does not say how the network is fed"):
        read(tmp_path / "n.safetensors", thin())


def test_other_architectures_by_name(tmp_path):
    net = tame("convnext_atto")
    path = save(tmp_path / "c.pth", {"model": dict(net.weights)})
    with pytest.raises(UsageError, match="--arch"):
        read(path)
    assert same_weights(read(path, Overrides(arch="convnext_atto", source="timm")), net)


def test_names_that_timm_s_own_filter_reads(tmp_path):
    """The original ConvNeXt's names, which timm turns into its own."""
    net = tame("convnext_atto")
    swaps = (("stem.0", "downsample_layers.0.0"), ("stem.1", "downsample_layers.0.1"))
    theirs = {}
    for name, tensor in net.weights.items():
        for ours, original in swaps:
            name = name.replace(ours, original)
        for stage in (1, 2, 3):
            name = name.replace(f"stages.{stage}.downsample", f"downsample_layers.{stage}")
        name = name.replace("blocks.", "").replace("conv_dw", "dwconv")
        name = name.replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        theirs[name.replace("head.norm", "norm").replace("head.fc", "head")] = tensor
    path = save(tmp_path / "c.pth", {"model": theirs})
    found = read(path, Overrides(arch="convnext_atto", source="timm"))
    assert "timm's own filter" in found.provenance.stated["names"]
    assert same_weights(found, net)


def test_numpy_archives_that_timm_reads(tmp_path):
    """BiT's layout of a ResNetV2, written here as JAX's checkpoints hold it."""
    small = {"channels": [128, 128, 128, 128]}
    net = tame("resnetv2_50x1_bit", num_classes=5, model_args=small)
    arrays = {}
    for name, tensor in net.weights.items():
        parts = name.split(".")
        value = tensor.permute(2, 3, 1, 0).numpy() if tensor.ndim == 4 else tensor.numpy()
        last = {"weight": "gamma", "bias": "beta"}[parts[-1]]
        if parts[0] == "stem":
            key = "root_block/standardized_conv2d/kernel"
        elif parts[0] == "norm":
            key = f"group_norm/{last}"
        elif parts[0] == "head":
            key = f"head/conv2d/{'kernel' if parts[-1] == 'weight' else 'bias'}"
        else:
            unit = f"block{int(parts[1]) + 1}/unit{int(parts[3]) + 1:02d}"
            inner = "downsample" if parts[4] == "downsample" else parts[4]
            branch = {"downsample": "a/proj", "conv1": "a", "conv2": "b", "conv3": "c",
                      "norm1": "a", "norm2": "b", "norm3": "c"}[inner]  # fmt: skip
            leaf = (
                f"group_norm/{last}" if inner.startswith("norm") else "standardized_conv2d/kernel"
            )
            key = f"{unit}/{branch}/{leaf}"
        arrays[f"resnet/{key}"] = value
    path = tmp_path / "bit.npz"
    np.savez(path, **arrays)
    given = Overrides(arch="resnetv2_50x1_bit", source="timm", model_args=small)
    found = read(path, given)
    assert same_weights(found, net)
    with pytest.raises(UsageError, match="--arch"):
        read(path)
    np.savez(path, **{key: value for key, value in arrays.items() if "unit02/b" not in key})
    with pytest.raises(UsageError, match="does not fi"):
        read(path, given)
    np.savez(path, **arrays, surplus=np.zeros(3))
    with pytest.raises(UsageError, match="not all were loaded"):
        read(path, given)


def test_files_that_libraries_list_by_hash_are_known(net, tmp_path, monkeypatch):
    path = save(tmp_path / "f.pth", dict(net.weights))
    import hashlib

    digits = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    known = sources.known_file("11ad3fa6")  # torchvision's resnet50, IMAGENET1K_V2
    assert known.name == "torchvision:resnet50/IMAGENET1K_V2"
    assert int(224 / known.preprocessing.crop_pct) == 232
    entry = dataclasses.replace(known, arch="resnet18")
    monkeypatch.setitem(sources._known_files(), digits, lambda: entry)
    found = read(path, thin())
    assert found.provenance.source == known.name
    with pytest.raises(UsageError, match="contradicts"):
        read(path, thin(source="cutmix-cifar"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"source": "elsewhere"}, "elsewhere"),
        ({"mean": (0.5, 0.5, 0.5)}, "--mean and --std go together"),
        ({"mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)}, "divide"),
        ({"mean": (0.5, 0.5), "std": (0.5, 0.5)}, "three numbers"),
        ({"source": "torchvision", "mean": (0, 0, 0), "std": (1, 1, 1)}, "--source states"),
    ],
)
def test_wrong_answers_are_refused(given, said):
    with pytest.raises(UsageError, match=said):
        Overrides(**given)


def test_strides_are_asked_for_where_only_numbers_are_given(deep, tmp_path):
    path = save(tmp_path / "r.pth", dict(deep.weights))
    numbers = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    with pytest.raises(UsageError, match="--arch resnet50 or --arch resnet50_caffe"):
        read(path, Overrides(**numbers, model_args=DEEP))
    assert (
        read(path, Overrides(**numbers, model_args=DEEP, arch="resnet50")).spec.arch == "resnet50"
    )
    assert (
        read(path, Overrides(**numbers, model_args=DEEP, arch="resnet50_caffe")).spec.arch
        == "resnet50_caffe"
    )
    with pytest.raises(UsageError, match="needs --arch"):
        read(path, Overrides(source="timm", model_args=DEEP))
    with pytest.raises(UsageError, match="3x3"):
        read(path, Overrides(source="torchvision", arch="resnet50_caffe", model_args=DEEP))


@pytest.mark.parametrize("change", ["missing", "surplus", "shape", "renamed"])
def test_weights_that_do_not_fit_list_both_sides(change, net, tmp_path):
    weights = dict(net.weights)
    if change == "missing":
        del weights["layer3.0.conv1.weight"]
    if change == "surplus":
        weights["layer5.0.conv1.weight"] = torch.zeros(1)
    if change == "shape":
        weights["layer4.1.bn2.bias"] = torch.zeros(31)
    if change == "renamed":
        weights["layer1.0.bn2.wait"] = weights.pop("layer1.0.bn2.weight")
    path = save(tmp_path / "x.pth", weights)
    with pytest.raises(UsageError, match=r"(layer3.0.conv1|layer5.0.conv1|\(31,\)|bn2.wait)"):
        read(path, TORCHVISION)


def test_old_files_without_counters(net, tmp_path):
    weights = {n: t for n, t in net.weights.items() if not n.endswith("num_batches_tracked")}
    found = read(save(tmp_path / "old.pth", weights), TORCHVISION)
    assert found.provenance.stated["filled"] == ["num_batches_tracked"]
    assert int(found.weights["bn1.num_batches_tracked"]) == 0
    del weights["layer1.0.bn1.running_mean"]  # one alone is damage, not age
    with pytest.raises(UsageError, match=r"layer1\.0\.bn1\.running_mean"):
        read(save(tmp_path / "cut.pth", weights), TORCHVISION)


def test_without_a_classifier(net, tmp_path):
    weights = {n: t for n, t in net.weights.items() if not n.startswith("fc.")}
    found = read(save(tmp_path / "trunk.pth", weights), TORCHVISION)
    assert found.spec.num_classes == 0
    images = torch.randn(1, 3, 64, 64)
    assert found.build().eval()(images).shape == (1, 32)
    assert found.build(num_classes=4).eval()(images).shape == (1, 4)
    found.save(tmp_path / "b.pth")
    assert Backbone.load(tmp_path / "b.pth").fingerprint() == found.fingerprint()


def test_a_prefix_names_the_network_among_others(net, tmp_path):
    content = {f"student.{name}": tensor for name, tensor in net.weights.items()}
    content["criterion.weight"] = torch.ones(3)
    path = save(tmp_path / "s.pth", {"state_dict": content})
    with pytest.raises(UsageError, match="--prefix"):
        read(path, TORCHVISION)
    found = read(path, thin(source="torchvision", prefix="student."))
    assert same_weights(found, net)
    assert found.provenance.stated["left"] == ["criterion.weight"]
    with pytest.raises(UsageError, match="no name in"):
        read(path, thin(source="torchvision", prefix="teacher."))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_float32(dtype, net, tmp_path):
    weights = {n: t.to(dtype) if t.is_floating_point() else t for n, t in net.weights.items()}
    found = read(save(tmp_path / "h.pth", weights), TORCHVISION)
    assert all(t.dtype in (torch.float32, torch.int64) for t in found.weights.values())
    assert torch.equal(found.weights["fc.bias"], weights["fc.bias"].float())


def test_a_file_of_ours_says_itself(backbone_file, tmp_path):
    assert read(backbone_file).fingerprint() == Backbone.load(backbone_file).fingerprint()
    with pytest.raises(UsageError, match="leave --arch"):
        read(backbone_file, Overrides(source="torchvision"))


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(UsageError, match=r"none of backbone\.pth"):
        read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18"}))
    with pytest.raises(UsageError, match=r"model\.safetensors"):
        read(tmp_path)


def test_reading_changes_nothing_in_what_it_was_given(net, tmp_path):
    content = msra(net)
    before = copy.deepcopy(content)
    read(dump(tmp_path / "m.pkl", content), thin(source="msra"))
    assert all(np.array_equal(value, before[name]) for name, value in content.items())
