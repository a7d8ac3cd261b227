"""The configuration of a captioning run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Literal

from pretrain.errors import UserError


@dataclass(frozen=True, kw_only=True)
class CocoConfig:
    """An MS-COCO tree: DATA/annotations/captions_SPLIT.json and DATA/SPLIT/*.jpg."""

    train: str | None = None
    """Split for training, such as train2017; null takes the one whose name begins with train."""
    val: str | None = None
    """Split for scoring; null takes the one whose name begins with val."""
    image_size: int | None = None
    """Side of the encoder's input in pixels; null takes the size the backbone was trained at."""
    min_count: int = 5
    """A word seen fewer times in the training captions is unknown."""

    def __post_init__(self) -> None:
        """Refuse sizes out of range."""
        if self.image_size is not None and self.image_size < 8:
            raise UserError(f"coco.image_size is {self.image_size}; it must be at least 8")


@dataclass(frozen=True, kw_only=True)
class NicConfig:
    """Show and Tell (Vinyals et al., CVPR 2015) on frozen features."""

    embed_size: int = 512
    """Width of the word and image embedding."""
    hidden_size: int = 512
    """Width of the LSTM."""
    dropout: float = 0.0
    """On the words going in and on the LSTM's outputs."""
    max_length: int = 20
    """Most words of a generated caption."""

    def __post_init__(self) -> None:
        """Refuse widths below one."""
        for name in ("embed_size", "hidden_size", "max_length"):
            if getattr(self, name) < 1:
                raise UserError(f"nic.{name} is {getattr(self, name)}; it must be positive")
        if not 0 <= self.dropout < 1:
            raise UserError(f"nic.dropout is {self.dropout}; it must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class AdamConfig:
    """Adam and its schedule."""

    lr: float = 1e-3
    """Peak learning rate."""
    schedule: Literal["cosine", "step"] = "step"
    """Cosine to zero, or times 0.1 at each milestone."""
    milestones: tuple[float, ...] = ()
    """Epochs of the step schedule."""
    clip: float | None = 5.0
    """Largest norm of the gradient; null for no limit."""

    def __post_init__(self) -> None:
        """Refuse a learning rate that cannot learn."""
        if not self.lr > 0:
            raise UserError(f"adam.lr is {self.lr}; it must be above 0")


@dataclass(frozen=True, kw_only=True)
class CaptioningConfig:
    """One captioning run."""

    name: str = "custom"
    """Name of the recipe: runs with another name stand in another table."""
    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    data: str | None = None
    """An MS-COCO tree; without it the shape world is drawn and used."""
    coco: CocoConfig = field(default_factory=CocoConfig)
    nic: NicConfig = field(default_factory=NicConfig)
    adam: AdamConfig = field(default_factory=AdamConfig)
    epochs: int = 20
    batch_size: int = 20
    """Captions in an optimiser step."""
    workers: int = 1
    """Loader processes for the images; any number gives the same bits."""
    seed: int = 0
    """The one seed: weights, order and dropout follow from it."""

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        for name, least in (("epochs", 1), ("batch_size", 2), ("workers", 0), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least {least}")
