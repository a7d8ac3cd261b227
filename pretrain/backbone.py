"""The backbone: an artifact that carries everything a later task must know about it.

On disk one .pth of plain dicts and tensors, read with `weights_only=True`:
{"format": "backbone/1", "spec": {...}, "provenance": {...}, "state_dict": {name: tensor}}.
The names are timm's (for ResNets these are torchvision's), so timm opens the weights of a stock
architecture as they stand. Shapes: N images, C channels, H height, W width.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import torch
from timm.data.imagenet_info import ImageNetInfo
from timm.models._features import FeatureGetterNet  # what features_only="getter" uses
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode, v2

from pretrain import torch_file
from pretrain.audit import load_strict
from pretrain.errors import UsageError
from pretrain.reading import check
from pretrain.run import CHANGEABLE
from pretrain.spec import BackboneSpec, create_outline, evaluation_crop

__all__ = ["Backbone", "BackboneSpec", "Provenance", "classifier_patterns", "recipe_hash"]

FORMAT = "backbone/1"
# of a recipe: what replicates may differ in, and paths, which say nothing of what they hold
_NOT_HASHED = frozenset({"seed", "data", "name", "init", "backbone", "workers", *CHANGEABLE})
# fields that recipes of before lack
_LATER = {"score_every": 1.0, "rotation": {"weight": 0.0, "angles": "all"}}
_LATER_IN: dict[str, dict[str, Any]] = {
    "mixing": {"args": {}, "guide": None, "decoupled": 0.0},
    "dataset": {
        "shard_window": 32,
        "per_class": None,
        "progressive": {"smallest": None, "start": 0.0, "end": None, "multiple": 32},
    },
}


class _Mixing(TypedDict, total=False):
    method: str
    args: dict[str, Any]
    decoupled: float
    others: "list[_Mixing]"


class _Rotation(TypedDict, total=False):
    weight: float


class _Recipe(TypedDict, total=False):
    """What is used of a recipe."""

    name: str
    mixing: _Mixing
    rotation: _Rotation


class _Stated(TypedDict, total=False):
    """What is used of what a foreign file states."""

    notes: list[str]
    assumed: list[str]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where a backbone came from. What is unknown is None."""

    recipe: dict[str, Any] | None = None
    """The whole resolved configuration of its training."""
    dataset: str | None = None
    num_images: int | None = None
    epochs: int | None = None
    seed: int | None = None
    top1: float | None = None
    """Percent on the validation images, last epoch."""
    classes: list[str] | None = None
    """Names of the classifier's outputs, in order."""
    commit: str | None = None
    versions: dict[str, str] | None = None
    created: str | None = None
    source: str | None = None
    """For foreign checkpoints: where the file came from."""
    source_sha256: str | None = None
    stated: dict[str, Any] | None = None
    """What a foreign file states (epoch, errors), and where facts about it are from."""

    @staticmethod
    def of(content: Any) -> "Provenance":
        """From a file of any version of ours; UsageError where a value is not of its type."""
        found: Provenance = check(content, Provenance, "provenance")
        check(found.recipe, _Recipe | None, "provenance.recipe")
        check(found.stated, _Stated | None, "provenance.stated")
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Backbone:
    """A network, how to feed it, and where it came from. Weights on CPU, floats in float32."""

    spec: BackboneSpec
    provenance: Provenance
    weights: Mapping[str, Tensor]

    @staticmethod
    def of(model: nn.Module, spec: BackboneSpec, provenance: Provenance) -> "Backbone":
        """Take the weights of a trained network (copied to CPU, floats to float32)."""
        weights = {
            name: tensor.detach()
            .to("cpu", torch.float32 if tensor.is_floating_point() else None)
            .clone(memory_format=torch.contiguous_format)
            for name, tensor in model.state_dict().items()
        }
        return Backbone(spec=spec, provenance=provenance, weights=weights)

    @property
    def method(self) -> str:
        """What distinguishes its pretraining: the methods of mixing, and further losses.

        `cutmix+mixup`, `gridmix rule cells`, `cutmix+rotation`; of a foreign file its source.
        """
        recipe = self.provenance.recipe or {}
        mixing = recipe.get("mixing", {})
        parts = [_method_title(options) for options in (mixing, *mixing.get("others", []))]
        parts += ["decoupled"] * (mixing.get("decoupled", 0) > 0)
        parts += ["rotation"] * (recipe.get("rotation", {}).get("weight", 0) > 0)
        return "+".join(filter(None, parts)) or self.provenance.source or "unknown"

    @property
    def name(self) -> str:
        """Architecture and method, as a table shows it."""
        return f"{self.spec.arch}, {self.method}"

    @property
    def notes(self) -> list[str]:
        """What a user must know of a foreign file: noticed in it, or assumed of its network."""
        stated = self.provenance.stated or {}
        assumed = [f"assumed: {text}" for text in stated.get("assumed", ())]
        return [*stated.get("notes", ()), *assumed]

    @property
    def output_names(self) -> tuple[str, ...]:
        """Classes of the classifier's outputs; () where they are not known.

        1,000 that the file does not name are ImageNet's synsets, sorted, as everybody trains.
        """
        if self.provenance.classes is not None:
            return tuple(self.provenance.classes)
        return tuple(ImageNetInfo().label_names()) if self.spec.num_classes == 1000 else ()

    @cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256(json.dumps(asdict(self.spec), sort_keys=True).encode())
        for name in sorted(self.weights):
            tensor = self.weights[name].contiguous()
            digest.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def fingerprint(self) -> str:
        """16 hex digits over spec, names, dtypes, shapes and bytes: equal is the same function."""
        return self._fingerprint

    @property
    def recipe_hash(self) -> str | None:
        """See `recipe_hash`; None where the recipe is unknown."""
        recipe = self.provenance.recipe
        return None if recipe is None else recipe_hash(recipe)

    def describe(self) -> dict[str, Any]:
        """What a result says about the backbone it used; `notes` where there are any."""
        return {
            "name": self.name,
            "arch": self.spec.arch,
            "model_args": dict(self.spec.model_args) or None,
            "method": self.method,
            "fingerprint": self.fingerprint(),
            "recipe": (self.provenance.recipe or {}).get("name"),
            "recipe_hash": self.recipe_hash,
            "dataset": self.provenance.dataset,
            "epochs": self.provenance.epochs,
            "seed": self.provenance.seed,
            "input_size": list(self.spec.input_size),
        } | ({"notes": self.notes} if self.notes else {})

    def build(self, num_classes: int | None = None, seed: int = 0) -> nn.Module:
        """The network with these weights, every one of them loaded.

        Args:
            num_classes: None keeps the trained classifier; 0 leaves it away (the network returns
                pooled features (N, C)); K replaces it by a new one of K outputs.
            seed: draws the weights of a new classifier.
        """
        outputs = self.spec.num_classes if num_classes is None else num_classes
        model = self.spec.create(outputs, seed)
        head = () if num_classes is None else classifier_patterns(model)
        load_strict(model, self.weights, new=head, left=head)
        return model

    def feature_network(self, indices: Sequence[int]) -> nn.Module:
        """A network from normalised images (N, 3, H, W) to the levels `indices`, fine to coarse."""
        return FeatureGetterNet(self.build(), out_indices=tuple(indices))

    @cached_property
    def _all_levels(self) -> nn.Module:
        return self.feature_network([level.index for level in self.spec.levels()]).eval()

    @torch.inference_mode()
    def features(self, images: Tensor) -> list[Tensor]:
        """Every feature level (N, C, H/stride, W/stride) of normalised images, evaluation mode."""
        return self._all_levels(images)

    def preprocess(self, train: bool = False, min_scale: float = 0.08) -> v2.Compose:
        """Transform from a PIL image or a uint8 tensor (..., 3, H, W) to the network's input.

        A PIL image is resized by PIL, a tensor by torch: they differ by up to two of 255 levels.
        Evaluation: short side to floor(input size / crop_pct), centre crop (timm's rule).
        Training: random resized crop and flip, from torch's ambient generator; a crop has at least
        `min_scale` of the image's area.
        """
        _, height, width = self.spec.input_size
        geometry = evaluation_crop(height, width, self.spec.crop_pct, self.spec.interpolation)
        if train:
            mode = InterpolationMode(self.spec.interpolation)
            crop = v2.RandomResizedCrop((height, width), (min_scale, 1.0), interpolation=mode)
            geometry = crop, v2.RandomHorizontalFlip()
        return v2.Compose([*geometry, v2.ToImage(), *self.spec.normalisation()])

    def save(self, path: Path) -> None:
        """Write the file, all of it or nothing."""
        content = {
            "format": FORMAT,
            "spec": json.loads(json.dumps(asdict(self.spec))),  # tuples as lists
            "provenance": asdict(self.provenance),
            "state_dict": dict(self.weights),
        }
        torch_file.write(Path(path), content)

    @staticmethod
    def load(path: Path) -> "Backbone":
        """Read a backbone file and check that its weights fit its architecture.

        Raises:
            UsageError: no such file, cut short, holding code, foreign, or not fitting.
        """
        return Backbone.of_content(torch_file.read(Path(path)), Path(path))

    @staticmethod
    def of_content(content: Any, path: Path) -> "Backbone":
        """The backbone in the content of a file; `path` is for the messages of `load`."""
        format_found = content.get("format") if isinstance(content, dict) else None
        if format_found != FORMAT:
            raise UsageError(_describe_foreign(path, content, format_found))
        try:
            names = {entry.name for entry in fields(BackboneSpec)}
            if difference := sorted(names ^ set(content["spec"])):
                raise UsageError(f"BackboneSpec: missing or unknown fields {difference}")
            spec, weights = BackboneSpec(**content["spec"]), content["state_dict"]
            provenance = Provenance.of(content["provenance"])
            if not all(isinstance(tensor, Tensor) for tensor in weights.values()):
                raise UsageError("state_dict holds something else than tensors")
            model = create_outline(spec.arch, num_classes=spec.num_classes, **spec.model_args)
            load_strict(model, weights)
        except (UsageError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(
                f"{path} is damaged or not written by this project: {error}"
            ) from error
        return Backbone(spec=spec, provenance=provenance, weights=weights)


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """8 hex digits over a pretraining's recipe: its replicates share them.

    Without name, seed, paths, what may change on resume, and what recipes once had no field for
    where it stands at its default.
    """
    known = _without_later(recipe)
    hashed = {key: value for key, value in known.items() if key not in _NOT_HASHED}
    hashed["init"] = recipe.get("init") is not None
    return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()[:8]


def _method_title(options: Mapping[str, Any]) -> str | None:
    arguments = [f"{name} {value}" for name, value in options.get("args", {}).items()]
    method = options.get("method")
    return None if method is None else " ".join([method, *arguments])


def _without_later(section: Mapping[str, Any], later: Mapping[str, Any] = _LATER) -> dict[str, Any]:
    kept = {key: value for key, value in section.items() if later.get(key, ...) != value}
    for key in _LATER_IN.keys() & kept.keys() if later is _LATER else ():
        kept[key] = _without_later(kept[key], _LATER_IN[key])
    if later is _LATER_IN["mixing"] and "others" in kept:
        kept["others"] = [_without_later(other, later) for other in kept["others"]]
    return kept


def _describe_foreign(path: Path, content: Any, format_found: object) -> str:
    if format_found == "checkpoint/1":
        return f"{path} is a checkpoint for resuming a run; give the RUN/backbone.pth beside it."
    if isinstance(format_found, str):
        return f"{path} has format {format_found!r}; a backbone ({FORMAT!r}) is needed."
    keys = sorted(map(str, content))[:6] if isinstance(content, dict) else type(content).__name__
    return (
        f"{path} was written by another program (it holds {keys}); a backbone of this project "
        f"({FORMAT!r}) is needed. python tools/pretrain.py makes one."
    )


def classifier_patterns(model: nn.Module) -> tuple[str, ...]:
    """Regular expressions for the names of the classifier's tensors, as timm describes them."""
    config: Any = model.default_cfg
    names = config["classifier"]
    names = (names,) if isinstance(names, str) else names
    return tuple(rf"{re.escape(name)}\..*" for name in names)
