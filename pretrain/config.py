"""The configuration of a pretraining run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Any, Literal

from pretrain.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Image folders: DATA/SPLIT/CLASS/*.jpg."""

    train: str = "train"
    """Folder of the training images, a folder of images for each class."""
    val: str | None = None
    """Folder of the validation images; null takes `val` or else `test`."""
    image_size: int = 224
    """Side of the network's input in pixels."""
    crop_pct: float = 0.875
    """Evaluation resizes the short side to image_size / crop_pct and crops the centre."""
    crop: Literal["resized", "padded"] = "resized"
    """Training crop: RandomResizedCrop, or (CIFAR) a crop of the image padded by an eighth."""
    min_scale: float = 0.08
    """Smallest share of the area that a resized crop shows."""
    flip: float = 0.5
    """Chance of a horizontal flip."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB, of pixels in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """RGB, of pixels in [0, 1]."""

    def __post_init__(self) -> None:
        """Refuse sizes and shares out of range."""
        _at_least("dataset.image_size", self.image_size, 8)
        _share("dataset.crop_pct", self.crop_pct)
        _share("dataset.min_scale", self.min_scale)
        if not 0 <= self.flip <= 1:
            raise UserError(f"dataset.flip is {self.flip}; it must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    arch: str = "resnet50"
    """Any timm architecture."""
    args: dict[str, Any] = field(default_factory=dict)
    """Plain values passed to its constructor, such as {drop_path_rate: 0.1}."""


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """How a batch is mixed."""

    method: Literal["none", "cutmix", "mixup", "cutout"] = "cutmix"
    """The mixing method."""
    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha), for cutmix and mixup."""
    probability: float = 1.0
    """Chance that a batch is mixed."""
    box: Literal["paper", "official"] = "paper"
    """CutMix box: the paper's, or the official code's (which loses pixels to rounding)."""
    granularity: Literal["batch", "sample"] = "batch"
    """One lam and box for the batch (the paper's), or one for each sample."""
    side: float = 0.5
    """Side of a Cutout square as a share of the image's."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """SGD with Nesterov momentum; weight decay on every parameter, as the paper's code."""

    lr: float = 0.1
    """Peak learning rate."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    schedule: Literal["cosine", "step"] = "step"
    """Cosine to zero, or times 0.1 at each milestone."""
    milestones: tuple[float, ...] = (75, 150, 225)
    """Epochs of the step schedule."""
    warmup_epochs: float = 0.0
    """Epochs of linear rise to the peak."""
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a learning rate that cannot learn."""
        if not self.lr > 0:
            raise UserError(f"optimizer.lr is {self.lr}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """One pretraining run. The defaults are the paper's for ImageNet (section 4.1.1)."""

    name: str = "imagenet_cutmix"
    """Name of the recipe: runs with another name stand in another table."""
    data: str | None = None
    """Folder with the image folders; without it the shape world is drawn and used."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    epochs: int = 300
    batch_size: int = 256
    """Images in an optimiser step."""
    workers: int = 2
    """Loader processes; any number gives the same bits."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    channels_last: bool = True
    """Memory layout of images and weights: faster, other rounding."""
    seed: int = 0
    """The one seed: weights, order, augmentation, mixing and dropout follow from it."""

    def __post_init__(self) -> None:
        """Refuse counts below one and contradictions."""
        _at_least("epochs", self.epochs, 1)
        _at_least("batch_size", self.batch_size, 1)
        _at_least("workers", self.workers, 0)
        _at_least("seed", self.seed, 0)
        if self.optimizer.warmup_epochs > self.epochs:
            raise UserError(
                f"optimizer.warmup_epochs is {self.optimizer.warmup_epochs}, longer "
                f"than the run of {self.epochs} epochs"
            )


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UserError(f"{name} is {value}; it must be at least {least}")


def _share(name: str, value: float) -> None:
    if not 0 < value <= 1:
        raise UserError(f"{name} is {value}; it must lie in (0, 1]")
