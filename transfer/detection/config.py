"""The configuration of a detection run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Literal

from pretrain.errors import UserError


@dataclass(frozen=True, kw_only=True)
class VocConfig:
    """A Pascal VOC tree: DATA/{JPEGImages,Annotations,ImageSets/Main}."""

    train: str | None = None
    """Split for training; null takes trainval where there is a test split, otherwise train."""
    test: str | None = None
    """Split for scoring; null takes test, or else val."""
    flip: float = 0.5
    """Chance of a horizontal flip in training."""

    def __post_init__(self) -> None:
        """Refuse a chance out of range."""
        if not 0 <= self.flip <= 1:
            raise UserError(f"voc.flip is {self.flip}; it must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Faster R-CNN with a feature pyramid."""

    short_side: int = 600
    """Images are resized so that the short side has so many pixels."""
    long_side: int = 1000
    """Unless the long side would exceed this."""
    freeze: int = 2
    """Frozen from the input on: 0 nothing, 1 the stem, 2 the stem and the first stage."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """BatchNorm of the backbone: statistics and scales fixed, or trained on."""
    fpn_channels: int = 256
    head_channels: int = 1024
    """Width of the two fully connected layers of the box head."""
    anchor_scale: float = 8.0
    """Anchor side in units of the level's stride; 8 gives 32 to 512 pixels."""
    proposals: int = 1000
    """Kept after non-maximum suppression, in training and in scoring."""
    rois: int = 512
    """Regions sampled for the box head, an image."""

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        counts = ("short_side", "long_side", "fpn_channels", "head_channels", "proposals", "rois")
        for name in counts:
            if getattr(self, name) < 1:
                raise UserError(f"detector.{name} is {getattr(self, name)}; it must be positive")
        if self.freeze not in (0, 1, 2):
            raise UserError(f"detector.freeze is {self.freeze}; it must be 0, 1 or 2")


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """The optimiser and its schedule."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    lr: float = 0.01
    """Peak learning rate."""
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step"] = "step"
    """Cosine to zero, or times 0.1 at each milestone."""
    milestones: tuple[float, ...] = ()
    """Epochs of the step schedule."""
    warmup_epochs: float = 0.0
    """Epochs of linear rise to the peak."""
    clip: float | None = 10.0
    """Largest norm of the gradient; null for no limit."""

    def __post_init__(self) -> None:
        """Refuse a learning rate that cannot learn."""
        if not self.lr > 0:
            raise UserError(f"solver.lr is {self.lr}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """One detection run."""

    name: str = "custom"
    """Name of the recipe: runs with another name stand in another table."""
    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    data: str | None = None
    """A Pascal VOC tree; without it the shape world is drawn and used."""
    engine: Literal["auto", "torchvision"] = "auto"
    """The library that trains; auto takes torchvision."""
    voc: VocConfig = field(default_factory=VocConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    epochs: int = 12
    batch_size: int = 8
    """Images in an optimiser step."""
    workers: int = 2
    """Loader processes; any number gives the same bits."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    seed: int = 0
    """The one seed: heads, order, flips and sampling follow from it."""

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        for name, least in (("epochs", 1), ("batch_size", 1), ("workers", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
