"""Networks of the same names and shapes and another function: told apart, or asked about.

The true network is built by torchvision or timm itself, and compared by its last feature level and
its classifier.
"""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.pool2d_same import MaxPool2dSame
from timm.models import save_for_hf
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from tests.transfer.formats.making import mmpretrain, save, tame
from transfer.formats import Overrides, read
from transfer.formats.inspection import inspect

CHANNELS = (32, 64, 96, 128)  # of a ResNet, so that the files are small
NUMBERS: dict[str, Any] = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "channels": "rgb"}
SIZE = 40  # halves that are even and odd: another padding shows
IMAGES = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def shaken(network: nn.Module) -> nn.Module:
    """The network with drawn weights and norms that say something, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for name, value in network.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, (2 * len(value) / value.numel()) ** 0.5, generator=generator)
        elif value.ndim == 0:
            value.zero_()
        else:
            low = 0.5 if name.endswith(("weight", "running_var")) else -0.2
            value.uniform_(low, low + 0.4, generator=generator)
    return network.eval()


@torch.inference_mode()
def differ(found: Backbone, true: nn.Module) -> float:
    """The largest difference of last level and classifier, over the largest value."""
    kept: list[Tensor] = []
    last: Any = true.layer4 if hasattr(true, "layer4") else None
    if last is not None:
        handle = last.register_forward_hook(lambda *args: kept.append(args[-1]))
    theirs = true(IMAGES)
    pairs = [(found.build().eval()(IMAGES), theirs)]
    if last is not None:
        handle.remove()
        pairs.append((found.features(IMAGES)[-1], kept[0]))
    if any(a.shape != b.shape for a, b in pairs):
        return float("inf")
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(32, channels)


def thin(network: Any, block: Any = BasicBlock) -> nn.Module:
    """torchvision's ResNet with few channels, by its own code."""
    network.inplanes = 64
    for stage, planes in enumerate(CHANNELS, 1):
        dilates = network.dilates[stage - 2] if stage > 1 else False
        layer = network._make_layer(
            block, planes, network.layers[stage - 1], min(stage, 2), dilates
        )
        setattr(network, f"layer{stage}", layer)
    network.fc = nn.Linear(CHANNELS[-1] * block.expansion, 7)
    return network


def resnet(
    block: Any = BasicBlock,
    dilates: Any = (False,) * 3,
    layers: Any = (2, 2, 2, 2),
    **options: Any,
) -> nn.Module:
    with torch.device("meta"):
        network: Any = torchvision.models.ResNet(block, list(layers), 7, **options)
        network.dilates, network.dilation, network.layers = dilates, 1, layers
        thin(network, block)
    return shaken(network.to_empty(device="cpu"))


def timm_resnet18(**options: Any) -> nn.Module:
    return shaken(timm.create_model("resnet18", num_classes=7, channels=CHANNELS, **options))


def stated(model_args: Any = (), **facts: Any) -> Overrides:
    """What is stated of a file, and that its network is thin."""
    return Overrides(**facts, model_args={"channels": list(CHANNELS), **dict(model_args)})


def saved(folder: Path, network: nn.Module, **around: Any) -> Path:
    weights = network.state_dict()
    return save(folder / "f.pth", {**around, "state_dict": weights} if around else weights)


def flax(network: Any) -> nn.Module:
    """The network with SAME padding, by hand: every strided convolution wider than its stride."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d) and child.stride == (2, 2) and child.kernel_size[0] > 1:
                same = Conv2dSame(child.in_channels, child.out_channels, child.kernel_size[0], 2,
                                  bias=False)  # fmt: skip
                same.weight = child.weight
                setattr(parent, name, same)
    network.maxpool = MaxPool2dSame(3, 2)
    return network


# --- norms without statistics


@pytest.mark.parametrize("norm", [group_norm, partial(nn.InstanceNorm2d, affine=True)])
@pytest.mark.parametrize("given", [{"source": "torchvision"}, NUMBERS], ids=["source", "numbers"])
def test_norms_without_statistics_are_no_folded_batchnorms(norm, given, tmp_path):
    path = saved(tmp_path, resnet(norm_layer=norm))
    for arch in (None, "resnet18"):
        with pytest.raises(UsageError, match=r"GroupNorm \(.*norm_layer=groupnorm.*InstanceNorm"):
            read(path, stated(**given, arch=arch))
    with pytest.raises(UsageError, match="GroupNorm"):
        inspect(path, stated())


def test_groupnorm_is_read_where_it_is_named(tmp_path):
    true = resnet(norm_layer=group_norm)
    named = stated(**NUMBERS, arch="resnet18", model_args={"norm_layer": "groupnorm"})
    found = read(saved(tmp_path, true), named)
    assert differ(found, true) < 1e-5
    assert any("32 groups" in note for note in found.notes)
    found.save(tmp_path / "b.pth")
    assert differ(Backbone.load(tmp_path / "b.pth"), true) < 1e-5


@pytest.mark.parametrize("maker", ["torchvision", "timm"])
def test_resnet50_with_groupnorm_names_its_architecture(maker, tmp_path):
    if maker == "timm":
        true = shaken(timm.create_model("resnet50_gn", num_classes=7, channels=CHANNELS))
    else:
        true = resnet(Bottleneck, layers=(3, 4, 6, 3), norm_layer=group_norm)
    path = saved(tmp_path, true)
    with pytest.raises(UsageError, match="--arch resnet50_gn, or "):
        read(path, stated(source="torchvision", arch="resnet50"))
    assert differ(read(path, stated(**NUMBERS, arch="resnet50_gn")), true) < 1e-5


# --- what timm's train.py was asked to build


def timm_file(folder: Path, network: nn.Module, **arguments: Any) -> Path:
    usual = {"model": "resnet18", "gp": None, "bn_eps": None, "bn_momentum": None, "mean": None,
             "std": None, "input_size": None, "img_size": None, "in_chans": None,
             "interpolation": "", "crop_pct": None}  # fmt: skip
    args = argparse.Namespace(**(usual | arguments))
    if args.model.startswith("resnet18"):
        own = arguments.get("model_kwargs", {})
        thin_own = {"channels": CHANNELS, **own} if isinstance(own, dict) else own
        args.model_kwargs = thin_own
    return saved(folder, network, arch=args.model, version=2, epoch=1, args=args)


@pytest.mark.parametrize(
    ("built", "arguments"),
    [
        ({"act_layer": "silu"}, {"model_kwargs": {"act_layer": "silu"}}),
        ({"output_stride": 8}, {"model_kwargs": {"output_stride": 8}}),
        ({"norm_layer": "groupnorm"}, {"model_kwargs": {"norm_layer": "groupnorm"}}),
        ({"global_pool": "max"}, {"gp": "max"}),
        ({"global_pool": "catavgmax"}, {"gp": "catavgmax"}),
        ({}, {"gp": "avg", "in_chans": 3, "bn_momentum": 0.01, "drop_path": 0.1}),
    ],
    ids=str,
)
def test_timm_s_arguments_are_built_with(built, arguments, tmp_path):
    true = timm_resnet18(**built)
    path = timm_file(tmp_path, true, **arguments)
    found = read(path)
    assert differ(found, true) < 1e-5
    built = {"channels": list(CHANNELS), **built}
    assert found.spec.model_args == built
    assert str(found.spec.model_args) in inspect(path, stated()).text()
    for name in built:
        with pytest.raises(UsageError, match=f"--model-arg {name}=other contradicts"):
            read(path, Overrides(model_args={name: "other"}))


@pytest.mark.parametrize(("arguments", "eps"), [({"bn_eps": 0.1}, 0.1), ({"bn_tf": True}, 1e-3)])
def test_timm_s_eps_is_built_with(arguments, eps, tmp_path):
    arch = "mobilenetv3_small_050"
    true = shaken(timm.create_model(arch, num_classes=7, bn_eps=eps))
    found = read(timm_file(tmp_path, true, model=arch, **arguments))
    assert differ(found, true) < 1e-5
    plain = read(timm_file(tmp_path, true, model=arch))
    assert differ(plain, true) > 1e-4


def test_timm_s_sizes_are_by_timm_s_rule(tmp_path):
    true = timm_resnet18()
    found = read(timm_file(tmp_path, true, img_size=160, mean=[0.5], crop_pct=None))
    assert (found.spec.input_size, found.spec.mean) == ((3, 160, 160), (0.5, 0.5, 0.5))
    assert found.spec.crop_pct == timm.get_pretrained_cfg("resnet18").crop_pct
    tagged = read(timm_file(tmp_path, true, model="resnet18.tv_in1k"))
    assert (tagged.spec.arch, tagged.spec.crop_pct) == ("resnet18", 0.875)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"in_chans": 1}, "in_chans is 1"),
        ({"input_size": (1, 64, 64)}, "in_chans is 1"),
        ({"model_kwargs": {"act_layer": torch.ones(1)}}, "plain values"),
        ({"model_kwargs": {"act_layer": "nothing"}}, "cannot be built"),
        ({"model_kwargs": {"norm_layer": "nothing"}}, "cannot be built"),
        ({"model_kwargs": {"wings": 2}}, "cannot be built"),
        ({"model_kwargs": {"checkpoint_path": "/tmp/x"}}, "network alone"),
        ({"model_kwargs": "act_layer=silu"}, "plain values"),
        ({"mean": "abc"}, "does not say how the network is fed"),
        ({"mean": ["a", "b", "c"]}, "does not say how the network is fed"),
        ({"crop_pct": [1]}, "does not say how the network is fed"),
        ({"std": [0, 0, 0]}, "does not say how the network is fed"),
        ({"interpolation": 3}, "does not say how the network is fed"),
    ],
    ids=str,
)
def test_timm_s_arguments_that_cannot_be_used(arguments, said, tmp_path):
    true = timm_resnet18()
    with pytest.raises(UsageError, match=said):
        read(timm_file(tmp_path, true, **arguments))


@pytest.mark.parametrize("arguments", [None, 5, "--gp max", [1], [("gp", 1)], {1: 2}], ids=str)
def test_arguments_of_another_type_say_nothing(arguments, tmp_path):
    true = resnet()
    path = saved(tmp_path, true, arch="resnet18", version=2, args=arguments)
    with pytest.raises(UsageError, match="does not say how the network is fed"):
        read(path, stated())
    assert differ(read(path, stated(source="torchvision")), true) < 1e-5


# --- stems, padding, dilation, activation, eps


def cifar(pool: bool, padding: int) -> nn.Module:
    network: Any = resnet()
    network.conv1 = nn.Conv2d(3, 64, 3, padding=padding, bias=False)
    if not pool:
        network.maxpool = nn.Identity()
    return network


@pytest.mark.parametrize(("pool", "padding"), [(False, 1), (True, 1), (False, 2), (True, 2)])
def test_what_follows_a_cifar_stem_is_asked_for(pool, padding, tmp_path):
    true = cifar(pool, padding)
    path = saved(tmp_path, true)
    for given in (NUMBERS, {"source": "torchvision"}):
        with pytest.raises(UsageError, match=r"--arch resnet18_cifar .*stem_pool=max"):
            read(path, stated(**given))
    assert "max-pool" in inspect(path, stated()).text()
    arguments = {"stem_pool": "max"} if pool else {}
    arguments |= {"stem_padding": 2} if padding == 2 else {}
    found = read(path, stated(**NUMBERS, arch="resnet18_cifar", model_args=arguments))
    assert differ(found, true) < 1e-5
    assert found.spec.model_args == {"channels": list(CHANNELS), **arguments}
    sides = [level.shape[-1] for level in found.features(torch.zeros(1, 3, 32, 32))]
    if padding == 1:
        assert sides == [32 // level.stride for level in found.spec.levels()]
    if not arguments:  # a program whose stem is known
        assert differ(read(path, stated(source="cutmix-cifar")), true) < 1e-5


def test_mm_s_cifar_networks_say_their_stem(tmp_path):
    true = cifar(False, 1)
    text = "model=dict(backbone=dict(type='ResNet_CIFAR')); x=dict(mean=[125.3, 123.0, 113.9], std="
    net = tame("resnet18_cifar", num_classes=7)
    content = mmpretrain(net, text + "[63.0, 62.1, 66.7])")
    content["state_dict"] = mmpretrain_weights(true)
    assert differ(read(save(tmp_path / "m.pth", content), stated()), true) < 1e-5


def mmpretrain_weights(network: nn.Module) -> dict[str, Tensor]:
    items = network.state_dict().items()
    return {f"head.{n}" if n.startswith("fc.") else f"backbone.{n}": t for n, t in items}


@pytest.mark.parametrize(
    "built",
    [
        "dilations=(1, 1, 2, 4)",
        "act_cfg=dict(type='SiLU')",
        "norm_cfg=dict(type='GN', num_groups=32)",
        "conv_cfg=dict(type='ConvWS')",
    ],
)
def test_mm_configurations_that_build_another_network(built, tmp_path):
    text = f"backbone=dict(type='ResNet', {built}); x=dict(mean=[1, 2, 3], std=[1, 1, 1])"
    content = mmpretrain(tame("resnet18", model_args={"channels": list(CHANNELS)}), text)
    with pytest.raises(UsageError, match="builds its network"):
        read(save(tmp_path / "m.pth", content), stated())
    usual = "dilations=(1, 1, 1, 1), act_cfg=dict(type='ReLU'), norm_cfg=dict(type='SyncBN')"
    content["meta"]["config"] = text.replace(built, usual)
    assert read(save(tmp_path / "m.pth", content), stated()).spec.arch == "resnet18"


# the true network, the options that read it, a word of the line that says so where they are missing
OTHERS = {
    "padding": (lambda: flax(resnet()), {}, {"arch": "tf_resnet18"}, "pad"),
    "activation": (
        lambda: timm_resnet18(act_layer="gelu"),
        {},
        {"model_args": {"act_layer": "gelu"}},
        "activation",
    ),
    "eps": (
        lambda: resnet(norm_layer=partial(nn.BatchNorm2d, eps=0.1)),
        {},
        {"bn_eps": 0.1},
        "eps",
    ),
    "channels": (resnet, {}, {"channels": "bgr"}, "red"),
}


@pytest.mark.parametrize("fact", OTHERS)
def test_what_no_file_says_is_named_with_the_option_that_changes_it(fact, tmp_path):
    make, given, decisive, word = OTHERS[fact]
    true: Any = make()
    true.conv1.weight.data[:, 0] *= 4  # red unlike blue
    weights = true.state_dict()
    if fact == "channels":
        weights = {n: t.flip(1) if n == "conv1.weight" else t for n, t in weights.items()}
    path = save(tmp_path / "f.pth", weights)
    numbers = {key: value for key, value in NUMBERS.items() if key != "channels"}
    plain = read(path, stated(**numbers, **given))
    lines = [note for note in plain.notes if word in note]
    assert len(lines) == 1
    assert lines[0].startswith("assumed: ")
    option, value = next(iter(decisive.items()))
    named = {"model_args": "--model-arg", "bn_eps": "--bn-eps"}.get(option, f"--{option}")
    assert named in lines[0]
    assert lines[0].removeprefix("assumed: ") in inspect(path, stated(**numbers, **given)).text()
    assert differ(plain, true) > 1e-2
    found = read(path, stated(**{**numbers, **given, option: value}))
    assert differ(found, true) < 1e-5
    assert not [note for note in found.notes if word in note and "--channels" in note + word]


def test_dilation_is_named(tmp_path):
    true = resnet(Bottleneck, dilates=(False, True, True))
    path = saved(tmp_path, true)
    plain = read(path, stated(arch="resnet26", source="torchvision"))
    assert [note for note in plain.notes if "--model-arg output_stride=" in note]
    assert differ(plain, true) > 1e-2
    found = read(path, stated({"output_stride": 8}, arch="resnet26", source="torchvision"))
    assert differ(found, true) < 1e-5
    assert [level.stride for level in found.spec.levels()] == [2, 4, 8, 8, 8]
    assert not found.notes


def test_the_padding_of_timm_s_networks_is_named(tmp_path):
    arch = "efficientnet_lite0"
    true = shaken(timm.create_model(f"tf_{arch}", num_classes=7, bn_eps=1e-5))
    path = saved(tmp_path, true)
    plain = read(path, Overrides(arch=arch, source="timm"))
    assert [note for note in plain.notes if f"--arch tf_{arch}" in note]
    assert differ(plain, true) > 1e-3
    found = read(path, Overrides(arch=f"tf_{arch}", source="timm", bn_eps=1e-5))
    assert differ(found, true) < 1e-4
    assert [note for note in found.notes if f"--arch {arch}" in note]


def test_channels_and_a_source_are_two_answers():
    with pytest.raises(UsageError, match="--channels goes with --mean"):
        Overrides(source="torchvision", channels="bgr")


@pytest.mark.parametrize("arch", ["resnet50d", "seresnet50", "tf_resnet50"])
def test_strides_that_an_architecture_has_elsewhere(arch, tmp_path):
    thin_net = tame(arch, model_args={"channels": list(CHANNELS)})
    path = save(tmp_path / "f.pth", dict(thin_net.weights))
    with pytest.raises(UsageError, match="strides in the 1x1 is not supported"):
        read(path, stated(arch=arch, source="msra"))


# --- averages


def training(average: nn.Module, model: nn.Module) -> dict[str, Any]:
    return {"model": model.state_dict(), "model_ema": average.state_dict(), "epoch": 3}


def test_an_average_of_the_parameters_alone_is_not_taken(tmp_path):
    model = resnet()
    average = resnet()
    for name, value in average.state_dict().items():
        if name.endswith(("running_mean", "running_var")):
            value.fill_(float(name.endswith("var")))
    path = save(tmp_path / "f.pth", training(average, model))
    given = stated(source="torchvision")
    found = read(path, given)
    assert differ(found, model) < 1e-5
    assert [note for note in found.notes if "model_ema" in note]
    assert "model_ema" in inspect(path, given).text()
    told = read(path, stated(source="torchvision", key="model_ema"))
    assert differ(told, average) < 1e-5


def test_an_average_that_lives_is_taken_and_an_old_one_named(tmp_path):
    model, average = resnet(), resnet()
    average.state_dict()["conv1.weight"].mul_(0.5)
    given = stated(source="torchvision")
    found = read(save(tmp_path / "f.pth", training(average, model)), given)
    assert differ(found, average) < 1e-5
    assert not [note for note in found.notes if "average" in note]
    model.state_dict()["bn1.num_batches_tracked"].fill_(1000)
    found = read(save(tmp_path / "g.pth", training(average, model)), given)
    assert differ(found, average) < 1e-5
    assert [note for note in found.notes if "--key model" in note]


# --- a configuration beside the file


def test_a_configuration_beside_a_file_can_be_left_alone(tmp_path):
    network = timm_resnet18()
    data = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    save_for_hf(network, tmp_path, data_config=data, safe_serialization=True)
    path = saved(tmp_path, resnet())
    assert read(path).spec.mean == (0.5, 0.5, 0.5)
    assert "config.json" in read(path).provenance.stated["conventions"]
    with pytest.raises(UsageError, match="--config none"):
        read(path, stated(source="cutmix-cifar"))
    found = read(path, stated(source="cutmix-cifar", config="none"))
    assert found.spec.mean == pytest.approx((125.3 / 255, 123.0 / 255, 113.9 / 255))
    with pytest.raises(UsageError, match="--config none"):
        read(path, stated(arch="tf_resnet18"))
    other = tmp_path / "other"
    save_for_hf(network, other, data_config={**data, "mean": (0.1, 0.2, 0.3)})
    named = read(path, stated(config=str(other / "config.json")))
    assert named.spec.mean == (0.1, 0.2, 0.3)
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(UsageError, match="no configuration of timm"):
        read(path, stated(config=str(tmp_path / "empty.json")))


def test_two_descriptions_of_one_file_must_agree(tmp_path):
    true = timm_resnet18()
    path = timm_file(tmp_path, true, model_kwargs={"act_layer": "silu"})
    save_for_hf(timm_resnet18(), tmp_path, data_config={"mean": (0.1, 0.2, 0.3)})
    with pytest.raises(UsageError, match=r"described twice.*--config none"):
        read(path)
    assert read(path, stated(config="none")).spec.model_args["act_layer"] == "silu"
    content = json.loads((tmp_path / "config.json").read_text())
    mean = read(path, stated(config="none")).spec.mean
    content["pretrained_cfg"] |= {"mean": mean}
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"was built with .*silu"):
        read(path)
