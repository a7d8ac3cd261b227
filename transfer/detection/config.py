"""The configuration of a detection run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Literal

from pretrain.errors import UsageError, at_least

Engine = Literal["detectron2", "torchvision"]


@dataclass(frozen=True, kw_only=True)
class VocConfig:
    """What is read of a tree: Pascal VOC's layout, a folder of such trees, or MS-COCO's."""

    train: str | None = None
    """Split for training, or several joined by +, such as VOC2007/trainval+VOC2012/trainval; null
    takes trainval where there is a test split, otherwise train."""
    test: str | None = None
    """Split for scoring; null takes test, or else val."""
    classes: tuple[str, ...] = ()
    """Class names in the order of their labels; empty takes those of the training split, sorted."""
    other_classes: Literal["refuse", "drop"] = "refuse"
    """What to do with objects of none of the classes."""
    difficult: bool = True
    """Train on objects marked difficult too, as detectron2 and torchvision do."""
    max_corrupt: int = 0
    """So many images may be broken or missing; they are named and left out."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        at_least("voc", self, max_corrupt=0)
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise UsageError(f"voc.classes names {', '.join(twice)} twice")


@dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """Sizes, flips and grouping; the same pixels go into either library."""

    short_side: int = 800
    """In scoring, images are resized so that the short side has so many pixels (PIL, bilinear)."""
    long_side: int = 1333
    """Unless the long side would exceed this."""
    train_short_sides: tuple[int, ...] = ()
    """In training one of these is drawn for each image; empty takes short_side."""
    flip: float = 0.5
    """Chance of a horizontal flip in training."""
    group: bool = True
    """A step has wide images or tall ones, so that less is padded."""

    def __post_init__(self) -> None:
        """Refuse sizes below one and a chance out of range."""
        at_least("images", self, short_side=1, long_side=1)
        if any(side < 1 for side in self.train_short_sides):
            sides = list(self.train_short_sides)
            raise UsageError(f"images.train_short_sides is {sides}; all must be at least 1")
        if not 0 <= self.flip <= 1:
            raise UsageError(f"images.flip is {self.flip}; it must lie in [0, 1]")


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """Faster R-CNN. The defaults are detectron2's."""

    head: Literal["fpn", "c4", "dc5"] = "fpn"
    """fpn: feature pyramid; c4: the last stage works on regions of the one before, as in the paper;
    dc5: regions of the dilated last stage (detectron2 only)."""
    freeze: Literal[0, 1, 2] = 2
    """Frozen from the input on: 0 nothing, 1 the stem, 2 the stem and the first stage."""
    batch_norm: Literal["frozen", "trained", "sync"] = "frozen"
    """BatchNorm of the backbone: statistics and scales fixed, trained on, or trained on with
    statistics of all processes."""
    fpn_channels: int = 256
    head_channels: int = 1024
    """Width of the two fully connected layers of the box head; c4 has none."""
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    """Pixels; with fpn one for each level from stride 4 to 64, otherwise all on the one level."""
    proposals_before_nms: int = 2000
    """In training; with fpn of each level."""
    proposals: int = 1000
    """Kept after non-maximum suppression in training."""
    test_proposals_before_nms: int = 1000
    test_proposals: int = 1000
    rois: int = 512
    """Regions sampled for the box head, an image; a quarter of them on objects."""
    smooth_l1_beta: float = 0.0
    """Where the loss of boxes turns from square to linear: 0 in detectron2, 1/9 in torchvision."""

    def __post_init__(self) -> None:
        """Refuse counts below one."""
        counts = ["fpn_channels", "head_channels", "proposals_before_nms", "proposals", "rois"]
        counts += ["test_proposals_before_nms", "test_proposals"]
        at_least("detector", self, **dict.fromkeys(counts, 1))
        sides = list(self.anchor_sizes)
        if not sides or min(sides) <= 0:
            raise UsageError(f"detector.anchor_sizes is {sides}; all must be above 0")
        if self.head == "fpn" and len(sides) != 5:
            raise UsageError(f"detector.anchor_sizes is {sides}; with head fpn it must have five")
        if self.smooth_l1_beta < 0:
            raise UsageError(f"detector.smooth_l1_beta is {self.smooth_l1_beta}; it must be >= 0")


@dataclass(frozen=True, kw_only=True)
class SolverConfig:
    """The optimiser and its schedule."""

    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum 0.9, or AdamW."""
    lr: float = 0.02
    """Peak learning rate, of a batch of lr_batch images."""
    lr_batch: int | None = None
    """The rate is multiplied by batch_size / lr_batch; null takes it as it stands."""
    weight_decay: float = 1e-4
    """Of all weights but those of norms."""
    schedule: Literal["cosine", "step"] = "step"
    """Cosine to zero, or times 0.1 at each milestone."""
    milestones: tuple[float, ...] = ()
    """Epochs of the step schedule."""
    warmup_epochs: float = 0.0
    """Epochs of linear rise to the peak, from a thousandth."""
    clip: float | None = None
    """Largest norm of the gradient; null for no limit."""

    def __post_init__(self) -> None:
        """Refuse a learning rate that cannot learn."""
        if not self.lr > 0:
            raise UsageError(f"solver.lr is {self.lr}; it must be above 0")
        if self.lr_batch is not None:
            at_least("solver", self, lr_batch=1)
        if self.clip is not None and not self.clip > 0:
            raise UsageError(f"solver.clip is {self.clip}; it must be above 0, or null")

    def peak(self, batch_size: int) -> float:
        """The peak learning rate of that batch."""
        return self.lr if self.lr_batch is None else self.lr * batch_size / self.lr_batch


@dataclass(frozen=True, kw_only=True)
class DetectionConfig:
    """One detection run."""

    name: str = "custom"
    """Name of the recipe: runs with another name stand in another table."""
    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    scratch: bool = False
    """Take the backbone's architecture and preprocessing with random weights: what it was worth."""
    data: str | None = None
    """A Pascal VOC or MS-COCO tree; without it the shape world is drawn and used."""
    engine: Literal["auto", "detectron2", "torchvision"] = "auto"
    """The library that trains; auto takes detectron2 where it is installed."""
    voc: VocConfig = field(default_factory=VocConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    epochs: int = 12
    batch_size: int = 8
    """Images in an optimiser step, over all processes."""
    accumulate: int = 1
    """Micro-batches that make a step: more of them need less memory."""
    score_every: int = 0
    """Score the test split after so many epochs too, for a learning curve; 0 only at the end."""
    workers: int = 2
    """Loader processes; any number gives the same bits."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    deterministic: bool = False
    """On CUDA, algorithms that give the same bits each time."""
    seed: int = 0
    """The one seed: heads, order, flips and sampling follow from it."""

    def __post_init__(self) -> None:
        """Refuse counts below one, and what one engine cannot do."""
        at_least("", self, epochs=1, batch_size=1, accumulate=1, score_every=0, workers=0, seed=0)
        if self.engine == "torchvision" and self.detector.head == "dc5":
            raise UsageError("detector.head dc5 is detectron2's alone; with torchvision: fpn or c4")
