"""Proof at the border: one raw image through both networks, every feature level compared.

The image enters as uint8 RGB, so that mean, std and channel order are part of what is proved. A
level agrees where its largest difference is at most TOLERANCE of its largest value.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.spec import create_model

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Level:
    """One feature level on both sides."""

    name: str
    shape: tuple[int, ...]
    """Of ours."""
    largest: float
    """max |feature| of ours."""
    difference: float
    """max |ours - theirs|; infinite where the shapes differ or something is no number."""

    @property
    def relative(self) -> float:
        """Difference / largest."""
        return self.difference / self.largest if self.largest else float(self.difference > 0)

    @property
    def agrees(self) -> bool:
        """Within the tolerance, and not a level of zeros that proves nothing."""
        return self.largest > 0 and self.relative <= TOLERANCE


@dataclass(frozen=True)
class Proof:
    """All levels of one export."""

    target: str
    """The other library, its version, and what was built in it."""
    levels: tuple[Level, ...]

    @property
    def holds(self) -> bool:
        """Every level agrees, and there is one."""
        return bool(self.levels) and all(level.agrees for level in self.levels)

    def table(self) -> str:
        """For a person."""
        rows = [f"  {'level':<8}{'shape':<20}{'largest':>11}{'difference':>13}{'relative':>12}"]
        for level in self.levels:
            shape = " x ".join(map(str, level.shape))
            rows.append(
                f"  {level.name:<8}{shape:<20}{level.largest:>11.4g}{level.difference:>13.3g}"
                f"{level.relative:>12.2g}  {'equal' if level.agrees else 'DIFFERS'}"
            )
        return f"{self.target}\n" + "\n".join(rows)

    def plain(self) -> dict[str, Any]:
        """For the passport."""
        rows = [
            {"level": level.name, "shape": list(level.shape), "relative": level.relative}
            for level in self.levels
        ]
        return {"target": self.target, "tolerance": TOLERANCE, "levels": rows}


def compare(target: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Any]) -> Proof:
    """Level by level; what one side lacks differs without bound."""
    levels = []
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        if name not in ours or name not in theirs:
            levels.append(Level(name, (), 1.0, float("inf")))
            continue
        mine, other = ours[name], torch.as_tensor(theirs[name])
        difference = float("inf")
        if mine.shape == other.shape:
            difference = float((mine - other).abs().max())
            difference = float("inf") if difference != difference else difference
        levels.append(Level(name, tuple(mine.shape[1:]), float(mine.abs().max()), difference))
    return Proof(target, tuple(levels))


def raw_image(height: int, width: int) -> Tensor:
    """A fixed image of colour fields and grain, uint8 RGB (3, H, W), no channel like another."""
    draw = np.random.Generator(np.random.PCG64(20190511))
    cells = draw.integers(0, 160, (3, -(-height // 16), -(-width // 16)))
    fields = np.kron(cells, np.ones((16, 16), dtype=np.int64))[:, :height, :width]
    grain = draw.integers(0, 40, (3, height, width))
    offset = np.array([55, 25, 0]).reshape(3, 1, 1)
    return torch.from_numpy((fields + grain + offset).astype(np.uint8))


def assemble(backbone: Backbone) -> nn.Module:
    """The network in evaluation mode on the backbone's own tensors, which must not be changed.

    Nothing is drawn or copied: memory and time of a second set of weights are saved.
    """
    spec = backbone.spec
    with torch.device("meta"):
        network = create_model(spec.arch, num_classes=spec.num_classes, **spec.model_args)
    network.load_state_dict(dict(backbone.weights), strict=True, assign=True)
    tensors = chain(network.parameters(), network.buffers())
    if any(tensor.is_meta for tensor in tensors):  # buffers that no file holds
        network = backbone.build()
    return network.eval()


def level_names(backbone: Backbone) -> dict[str, int]:
    """`res2` to `res5` for strides 4 to 32, `stride1` and so on for others: name to index."""
    names = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
    return {
        names.get(level.stride, f"stride{level.stride}"): level.index
        for level in backbone.spec.levels()
    }


@torch.inference_mode()
def features(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Every level of normalised images (N, 3, H, W) by name."""
    names = level_names(backbone)
    network = FeatureGetterNet(assemble(backbone), out_indices=tuple(names.values()))
    return dict(zip(names, network(images), strict=True))


@torch.inference_mode()
def normalised(backbone: Backbone, image: Tensor) -> Tensor:
    """A raw image (3, H, W) as the network's input (1, 3, H, W), its size kept."""
    for step in backbone.spec.normalisation():
        image = step(image)
    return image[None]


class Unproved(UsageError):
    """The export is not the same function: nothing was written."""

    def __init__(self, proofs: list[Proof]) -> None:
        failed = [proof for proof in proofs if not proof.holds]
        super().__init__(
            "the exported network is not the same function; nothing was written.\n"
            + "\n".join(proof.table() for proof in failed)
        )
