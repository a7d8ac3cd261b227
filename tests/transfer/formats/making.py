"""Backbones with non-trivial statistics, and files as the field's programs write them."""

import hashlib
import pickle
import struct
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.spec import create_outline
from transfer.key_maps import CAFFE2_MSRA

FOLDED = ("running_mean", "running_var", "num_batches_tracked")


def tame(arch: str, num_classes: int = 10, seed: int = 0, **options) -> Backbone:
    """A random network whose BatchNorms say something and whose activations stay in bounds.

    Drawn by NumPy from the names of the tensors: the same on every machine. The last BatchNorm of
    a block is far from zero, where it would hide a wrong stride.
    """
    spec = BackboneSpec(arch=arch, num_classes=num_classes, **options)
    model = create_outline(arch, num_classes=num_classes, **spec.model_args)
    weights = {name: _draw(name, tensor, seed) for name, tensor in model.state_dict().items()}
    return Backbone(spec=spec, provenance=Provenance(seed=seed), weights=weights)


def _draw(name: str, tensor: torch.Tensor, seed: int) -> torch.Tensor:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    draw = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:8], "big")))
    shape = tuple(tensor.shape)
    if name.endswith("num_batches_tracked"):
        return torch.tensor(int(draw.integers(1, 1000)))
    if name.endswith("running_mean"):
        value = draw.uniform(-0.2, 0.2, shape)
    elif name.endswith("running_var"):
        value = draw.uniform(0.5, 1.5, shape)
    elif name.endswith("weight") and len(shape) == 1:
        value = draw.uniform(0.3, 0.6, shape)
    elif name.endswith("weight"):
        fan = np.prod(shape[1:])
        value = draw.standard_normal(shape, dtype=np.float32) * np.sqrt(2 / fan)
    else:
        value = draw.uniform(-0.1, 0.1, shape)
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


def save(path: Path, content: object, **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path, **options)
    return path


def dump(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


def cutmix_release(backbone: Backbone, net_type: str = "resnet") -> dict:
    """As train.py of clovaai/CutMix-PyTorch saves it."""
    weights = OrderedDict((f"module.{name}", t) for name, t in backbone.weights.items())
    momentum = {0: {"momentum_buffer": torch.zeros(2)}}
    return {
        "epoch": 299,
        "arch": net_type,
        "state_dict": weights,
        "best_err1": 21.4,
        "best_err5": 5.92,
        "optimizer": {"state": momentum, "param_groups": [{"lr": 1e-4, "params": [0]}]},
    }


def mmpretrain(backbone: Backbone, config: str | None, deep_stem: bool = False) -> dict:
    """As mmpretrain and openmixup save it; names by rules of their own, not by our table."""
    renamed = {}
    for name, tensor in backbone.weights.items():
        if name.startswith("fc."):
            theirs = "head." + name
        else:
            theirs = "backbone." + name
            theirs = theirs.replace(".se.fc1.", ".se_layer.conv1.conv.")
            theirs = theirs.replace(".se.fc2.", ".se_layer.conv2.conv.")
        if deep_stem:
            for ours, their in (
                ("backbone.conv1.0.", "backbone.stem.0.conv."),
                ("backbone.conv1.1.", "backbone.stem.0.bn."),
                ("backbone.conv1.3.", "backbone.stem.1.conv."),
                ("backbone.conv1.4.", "backbone.stem.1.bn."),
                ("backbone.conv1.6.", "backbone.stem.2.conv."),
                ("backbone.bn1.", "backbone.stem.2.bn."),
                ("backbone.layer1.0.downsample.1.", "backbone.layer1.0.downsample.0."),
                ("backbone.layer1.0.downsample.2.", "backbone.layer1.0.downsample.1."),
            ):
                if theirs.startswith(ours):
                    theirs = their + theirs.removeprefix(ours)
                    break
        renamed[theirs] = tensor
    meta = {"epoch": 100, "iter": 500400, "mmpretrain_version": "1.0", "CLASSES": ["a", "b"]}
    if config is not None:
        meta["config"] = config
    return {"meta": meta, "state_dict": renamed}


def detectron2_torchvision(backbone: Backbone) -> dict:
    """As detectron2's convert-torchvision-to-d2.py writes it: its chain of replaces."""
    model = {}
    for name, tensor in backbone.weights.items():
        key = name if "layer" in name else "stem." + name
        for stage in (1, 2, 3, 4):
            key = key.replace(f"layer{stage}", f"res{stage + 1}")
        for number in (1, 2, 3):
            key = key.replace(f"bn{number}", f"conv{number}.norm")
        key = key.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        model[key] = tensor.numpy()
    return {"model": model, "__author__": "torchvision", "matching_heuristics": True}


def msra(backbone: Backbone) -> dict:
    """Caffe2's names, BGR, statistics folded into the affine map, as Detectron keeps them."""
    blobs = {}
    for name, tensor in backbone.weights.items():
        if name.endswith(FOLDED):
            continue
        value = tensor.flip(1) if name == "conv1.weight" else tensor
        blobs[CAFFE2_MSRA.theirs(name)] = value.contiguous().numpy()
    return blobs


def python_2(arrays: dict[str, np.ndarray]) -> bytes:
    """A dictionary of float32 arrays as Python 2's cPickle wrote it, protocol 2."""
    stream = b"\x80\x02}("
    for name, array in arrays.items():
        shape = b"".join(b"M" + struct.pack("<H", side) for side in array.shape)
        content = array.tobytes()
        stream += b"U" + bytes([len(name)]) + name.encode()
        stream += b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01("
        stream += shape + b"tcnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNN"
        stream += b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        stream += struct.pack("<i", len(content)) + content + b"tb"
    return stream + b"u."


def fold(backbone: Backbone) -> Backbone:
    """The backbone with identity statistics: what a file with folded ones stands for."""
    weights = {}
    for name, tensor in backbone.weights.items():
        if name.endswith("running_mean"):
            tensor = torch.zeros_like(tensor)
        elif name.endswith("running_var"):
            tensor = torch.ones_like(tensor) - 1e-5
        elif name.endswith("num_batches_tracked"):
            tensor = torch.zeros_like(tensor)
        weights[name] = tensor
    return Backbone(spec=backbone.spec, provenance=backbone.provenance, weights=weights)
