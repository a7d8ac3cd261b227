"""One fact of a network is another than usual, in the file of every program: never silently.

A cell is a reader and a fact. The true network has the fact, and the program writes of it what it
writes. What is read must compute the true features; or be refused; or carry one note with the word
`assumed` and the option that decides. `OUT_OF_REACH` is what no reader can know: a program that
was changed, whose files still say that it is the program.
"""

import argparse
import random
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import save_for_hf
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from tests.transfer.formats.making import save
from tests.transfer.formats.test_same_shapes import CHANNELS, flax, shaken
from transfer.formats import Overrides, read

SAMPLE = 12
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ODD = (0.3, 0.5, 0.7)
PIXELS = torch.randint(256, (2, 3, 40, 40), generator=torch.Generator().manual_seed(2))
# fact -> the word and the option in the note that names it
FACTS = {
    "nothing": None,
    "mean": None,
    "std": None,
    "channels": ("red", "--channels"),
    "stride": None,
    "stem pool": None,
    "stem padding": None,
    "padding": ("pad", "--arch tf_"),
    "dilation": ("dilation", "--model-arg output_stride"),
    "activation": ("activation", "--model-arg act_layer"),
    "eps": ("eps", "--bn-eps"),
    "GroupNorm": None,
    "InstanceNorm": None,
    "missing": None,
    "turned": None,
    "another": None,
}
READERS = ("numbers", "source", "lightning", "release", "timm", "torchvision", "mm", "folder")
# what the program writes down of a network or how it is fed
STATED = {
    "numbers": {"mean", "std"},
    "lightning": {"mean", "std"},
    "timm": {"mean", "std", "activation", "dilation", "GroupNorm"},
    "folder": {"mean", "std", "activation", "dilation", "GroupNorm"},
    "mm": {"mean", "std", "channels", "stride"},
}
FIXED = {"mean", "std", "channels", "stride", "padding", "activation", "eps"}
OUT_OF_REACH = {
    "source": FIXED,
    "release": FIXED | {"dilation"},
    "torchvision": FIXED | {"dilation"},
    "timm": {"channels", "stride", "padding", "eps"},
    "folder": {"channels", "stride", "padding", "eps"},
    "mm": {"padding", "eps"},
}
CELLS = [
    (reader, fact)
    for reader in READERS
    for fact in FACTS
    if fact not in OUT_OF_REACH.get(reader, set())
]


def build(fact: str) -> tuple[str, dict[str, Any], nn.Module]:
    """timm's name, arguments that timm has for it, and the true network."""
    arch, arguments = "resnet18", {"channels": CHANNELS}
    match fact:
        case "stride":
            arch, arguments = "resnet50", {"channels": (64,) * 4}
        case "activation":
            arguments["act_layer"] = "gelu"
        case "dilation":
            arguments["output_stride"] = 16
        case "GroupNorm":
            arguments["norm_layer"] = "groupnorm"
        case "another":
            arch = "resnet34"
    network: Any = timm.create_model(arch, num_classes=5, **arguments)
    match fact:
        case "stride":
            for stage in (network.layer2, network.layer3, network.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
        case "padding":
            flax(network)
        case "stem pool" | "stem padding":
            network.conv1 = nn.Conv2d(3, 64, 3, padding=1 + ("padding" in fact), bias=False)
            if fact == "stem padding":
                network.maxpool = nn.Identity()
        case "eps":
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.1
        case "InstanceNorm":
            for parent in list(network.modules()):
                for name, child in list(parent.named_children()):
                    if isinstance(child, nn.BatchNorm2d):
                        setattr(parent, name, nn.InstanceNorm2d(child.num_features, affine=True))
    return arch, arguments, shaken(network)


def write(reader: str, fact: str, folder: Path, draw: random.Random) -> tuple[Path, Any, Overrides]:
    """The file as the program writes it, the true network's function, and what a user gives."""
    arch, arguments, network = build(fact)
    mean, std = (ODD if fact == name else usual for name, usual in (("mean", MEAN), ("std", STD)))
    weights = OrderedDict(network.state_dict())
    if fact == "channels":
        weights["conv1.weight"] = weights["conv1.weight"].flip(1)
    convolutions = [name for name, value in weights.items() if value.ndim == 4]
    if fact == "missing":
        del weights[draw.choice(list(weights)[:-8])]
    if fact == "turned":
        name = draw.choice([n for n in convolutions if len(set(weights[n].shape[:2])) == 2])
        weights[name] = weights[name].transpose(0, 1)
    given: dict[str, Any] = {"model_args": {"channels": list(arguments["channels"])}}
    stated_arch = "resnet18" if fact == "another" else arch

    def true(pixels: Tensor) -> Tensor:
        spread = [torch.tensor(values)[:, None, None] for values in (mean, std)]
        return network.forward_features((pixels / 255 - spread[0]) / spread[1])  # type: ignore[operator]

    path = folder / "f.pth"
    match reader:
        case "numbers":
            save(path, weights)
            given |= {"mean": mean, "std": std}
        case "source":
            save(path, weights)
            given |= {"source": "torchvision"}
        case "lightning":
            inner = {f"model.{name}": value for name, value in weights.items()}
            save(path, {"pytorch-lightning_version": "2.6", "state_dict": inner, "epoch": 1})
            given |= {"mean": mean, "std": std}
        case "release":
            inner = {f"module.{name}": value for name, value in weights.items()}
            save(path, {"arch": "resnet", "state_dict": inner, "epoch": 9, "best_err1": 20.0})
        case "timm":
            args = argparse.Namespace(
                model=stated_arch, mean=mean, std=std, crop_pct=0.9, model_kwargs=arguments
            )
            save(path, {"arch": stated_arch, "state_dict": weights, "version": 2, "args": args})
            given = {}
        case "torchvision":
            args = argparse.Namespace(
                model=stated_arch, val_crop_size=64, val_resize_size=64, interpolation="bilinear"
            )
            content = {"model": weights, "args": args, "lr_scheduler": {}, "epoch": 1}
            save(path, content)
        case "folder":
            shown = timm.create_model(stated_arch, num_classes=5, **arguments)
            data = {"mean": mean, "std": std, "input_size": (3, 64, 64)}
            own = {**arguments, "channels": list(arguments["channels"])}
            save_for_hf(shown, folder, data_config=data, model_args=own)
            path.unlink(missing_ok=True)
            save(folder / "pytorch_model.bin", weights)
            path, given = folder, {}
        case "mm":
            is_bgr, step = fact == "channels", -1 if fact == "channels" else 1
            numbers = [[255 * x for x in values][::step] for values in (mean, std)]
            more = {"activation": ", act_cfg=dict(type='GELU')",
                    "dilation": ", dilations=(1, 1, 1, 2)",
                    "GroupNorm": ", norm_cfg=dict(type='GN', num_groups=32)",
                    "InstanceNorm": ", norm_cfg=dict(type='IN')",
                    "stride": ", style='caffe'"}.get(fact, "")  # fmt: skip
            text = (
                f"data_preprocessor=dict(mean={numbers[0]}, std={numbers[1]}, to_rgb={not is_bgr})"
                f"\nmodel=dict(backbone=dict(type='ResNet'{more}))"
            )
            inner = {
                f"{'head.' if name.startswith('fc.') else 'backbone.'}{name}": value
                for name, value in weights.items()
            }
            save(path, {"meta": {"config": text, "epoch": 3}, "state_dict": inner})
    return path, true, Overrides(**given)


def compute(found: Backbone, pixels: Tensor) -> Tensor:
    images = torch.stack([found.spec.normalisation()[1](image / 255) for image in pixels])
    return found.features(images)[-1]


@torch.inference_mode()
def outcome(reader: str, fact: str, folder: Path) -> str:
    """right, refused, assumed; or what is wrong with it."""
    path, true, given = write(reader, fact, folder, random.Random(f"{reader} {fact}"))
    try:
        found = read(path, given)
    except UsageError:
        return "refused"
    theirs, ours = true(PIXELS), compute(found, PIXELS)
    same = ours.shape == theirs.shape
    if same and float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4:
        return "right"
    word, option = FACTS[fact] or ("no word", "no option")
    notes = [note for note in found.notes if note.startswith("assumed: ") and word in note]
    return "assumed" if len(notes) == 1 and option in notes[0] else f"silent: {found.notes}"


def test_no_fact_is_wrong_without_a_word(full, tmp_path):
    cells = CELLS if full else random.Random(0).sample(CELLS, SAMPLE)
    counts, wrong = Counter(), []
    for number, (reader, fact) in enumerate(cells):
        found = outcome(reader, fact, tmp_path / str(number))
        counts[found] += 1
        allowed = {"right", "refused", "assumed"}
        if fact in STATED.get(reader, ()):
            allowed = {"right", "refused"}
        if fact == "nothing":
            allowed = {"right"}
        elif fact not in STATED.get(reader, ()) and fact != "another":
            allowed.discard("right")  # the fact would change nothing
        if found not in allowed:
            wrong.append((reader, fact, found))
    print(f"{len(cells)} of {len(CELLS)} cells: {dict(counts)}")
    assert not wrong


@pytest.mark.parametrize("reader", ["release", "timm", "torchvision", "mm", "folder"])
def test_what_a_file_states_cannot_be_stated_otherwise(reader, tmp_path):
    path, _, given = write(reader, "nothing", tmp_path, random.Random(0))
    read(path, given)
    usual: dict[str, Any] = {"model_args": given.model_args}
    for wrong in (
        {"mean": ODD, "std": STD},
        {"mean": MEAN, "std": ODD},
        {"mean": MEAN, "std": STD, "channels": "bgr"},
        {"source": "cutmix-cifar"},
        {"source": "msra"},
    ):
        with pytest.raises(UsageError, match="contradicts it"):
            read(path, Overrides(**usual, **wrong))
    for arch in ("resnet34", "resnet50"):
        with pytest.raises(UsageError, match=r"contradicts it|not understood"):
            read(path, Overrides(**usual, arch=arch))
