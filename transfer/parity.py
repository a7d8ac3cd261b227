"""Parity of two networks: the same image through both, every feature level compared.

The image enters as uint8 RGB, so that mean, std and channel order are compared too. A level agrees
where its largest difference is at most TOLERANCE of its largest value.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.spec import create_outline

TOLERANCE = 1e-4


@dataclass(frozen=True)
class LevelParity:
    """One feature level of both networks."""

    name: str
    shape: tuple[int, ...]
    """Of ours, without the batch."""
    largest: float
    """max |feature| of ours."""
    difference: float
    """max |ours - theirs|; infinite where the shapes differ or a value is NaN."""

    @property
    def relative(self) -> float:
        """Difference / largest."""
        return self.difference / self.largest if self.largest else float(self.difference > 0)

    @property
    def agrees(self) -> bool:
        """Within the tolerance; a level of zeros shows nothing and does not agree."""
        return self.largest > 0 and self.relative <= TOLERANCE


@dataclass(frozen=True)
class ParityReport:
    """All levels of one comparison."""

    target: str
    """The other library, its version, and what was built in it."""
    levels: tuple[LevelParity, ...]

    @property
    def passed(self) -> bool:
        """Every level agrees, and there is one."""
        return bool(self.levels) and all(level.agrees for level in self.levels)

    def table(self) -> str:
        """As text, one line a level."""
        rows = [f"  {'level':<8}{'shape':<20}{'largest':>11}{'difference':>13}{'relative':>12}"]
        for level in self.levels:
            shape = " x ".join(map(str, level.shape))
            rows.append(
                f"  {level.name:<8}{shape:<20}{level.largest:>11.4g}{level.difference:>13.3g}"
                f"{level.relative:>12.2g}  {'equal' if level.agrees else 'DIFFERS'}"
            )
        return f"{self.target}\n" + "\n".join(rows)

    def to_dict(self) -> dict[str, Any]:
        """As plain values, for the metadata sidecar."""
        rows = [
            {"level": level.name, "shape": list(level.shape), "relative": level.relative}
            for level in self.levels
        ]
        return {"target": self.target, "tolerance": TOLERANCE, "levels": rows}


class ParityError(UsageError):
    """The exported network computes another function: nothing was written."""

    def __init__(self, reports: Sequence[ParityReport]) -> None:
        failed = (report.table() for report in reports if not report.passed)
        problem = "the exported network is not the same function; nothing was written."
        super().__init__("\n".join((problem, *failed)))


def compare(target: str, ours: Mapping[str, Tensor], theirs: Mapping[str, Any]) -> ParityReport:
    """Level by level; a level that one side lacks differs without bound."""
    levels = []
    for name in dict.fromkeys((*ours, *theirs)):
        mine = ours.get(name, torch.ones(1))
        other = torch.as_tensor(theirs.get(name, torch.empty(0)))
        difference = float((mine - other).abs().max()) if mine.shape == other.shape else math.inf
        difference = math.inf if math.isnan(difference) else difference
        levels.append(LevelParity(name, tuple(mine.shape[1:]), float(mine.abs().max()), difference))
    return ParityReport(target, tuple(levels))


def raw_image(height: int, width: int) -> Tensor:
    """A fixed image of colour fields and grain, uint8 RGB (3, H, W), no channel like another."""
    generator = np.random.Generator(np.random.PCG64(20190511))
    cells = generator.integers(0, 160, (3, -(-height // 16), -(-width // 16)))
    fields = np.kron(cells, np.ones((16, 16), dtype=np.int64))[:, :height, :width]
    grain = generator.integers(0, 40, (3, height, width))
    offset = np.array([55, 25, 0]).reshape(3, 1, 1)
    return torch.from_numpy((fields + grain + offset).astype(np.uint8))


def assemble(backbone: Backbone) -> nn.Module:
    """The network in evaluation mode on the backbone's own tensors, which must not be changed.

    Nothing is drawn or copied, which saves the memory and the time of a second set of weights.
    """
    spec = backbone.spec
    network = create_outline(spec.arch, num_classes=spec.num_classes, **spec.model_args)
    network.load_state_dict(dict(backbone.weights), strict=True, assign=True)
    if is_outline(network):
        network = backbone.build()
    return network.eval()


def is_outline(network: nn.Module) -> bool:
    """True where a tensor is still without content: a buffer that no file holds."""
    return any(tensor.is_meta for tensor in chain(network.parameters(), network.buffers()))


def level_names(backbone: Backbone) -> dict[str, int]:
    """`res2` to `res5` for strides 4 to 32, `stride1` and so on for others: name to index."""
    names = {4: "res2", 8: "res3", 16: "res4", 32: "res5"}
    return {
        names.get(level.stride, f"stride{level.stride}"): level.index
        for level in backbone.spec.levels()
    }


def feature_network(backbone: Backbone) -> FeatureGetterNet:
    """From normalised images to every level, on the backbone's own tensors."""
    return FeatureGetterNet(assemble(backbone), out_indices=tuple(level_names(backbone).values()))


@torch.inference_mode()
def features(backbone: Backbone, images: Tensor) -> dict[str, Tensor]:
    """Every level of normalised images (N, 3, H, W) by name."""
    return dict(zip(level_names(backbone), feature_network(backbone)(images), strict=True))


@torch.inference_mode()
def normalize(backbone: Backbone, image: Tensor) -> Tensor:
    """A raw image (3, H, W) as the network's input (1, 3, H, W), its size kept."""
    for step in backbone.spec.normalisation():
        image = step(image)
    return image[None]
