"""The configuration of a detection run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Literal

from pretrain.config import Duration, LoaderConfig, OptimizerConfig, TrainerConfig, parse_duration
from pretrain.errors import UsageError, check_ranges


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What is read of a tree, and the sizes and flips of its images.

    A tree is Pascal VOC's layout, a folder of such trees, or MS-COCO's. The same pixels go into
    either library.
    """

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
    similar_names: Literal["refuse", "join"] = "refuse"
    """What to do with class names that differ by space or case alone; join takes the first."""
    first_pixel: Literal[0, 1] = 1
    """Pascal VOC: the number of an image's first pixel in the whole tree. 1: boxes are 1-based and
    inclusive, as in the challenge; 0: continuous and 0-based, as most of today's programs write."""
    exif: Literal["auto", "apply", "ignore"] = "auto"
    """Photos with an EXIF orientation: turned as it says, or taken as stored; auto decides by the
    size that is written with the boxes, and refuses where that does not say."""
    no_annotation: Literal["refuse", "empty"] = "refuse"
    """Pascal VOC: an image without an XML file is refused, or has no objects."""
    max_corrupt: int = 0
    """So many images may be broken or missing; they are named and left out."""
    short_side: int = 800
    """In scoring, images are resized so that the short side has so many pixels (PIL, bilinear)."""
    long_side: int = 1333
    """Unless the long side would exceed this."""
    train_short_sides: tuple[int, ...] = ()
    """In training one of these is drawn for each image; empty takes short_side."""
    flip: float = 0.5
    """Chance of a horizontal flip in training."""
    aspect_ratio_grouping: bool = True
    """A step has wide images or tall ones, so that less is padded."""

    def __post_init__(self) -> None:
        """Refuse sizes below one, a chance out of range, and a class named twice."""
        sides = dict.fromkeys(("short_side", "long_side"), "[1, 16384]")
        check_ranges("dataset", self, max_corrupt=">= 0", flip="[0, 1]", **sides)
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise UsageError(f"dataset.classes names {', '.join(twice)} twice")
        if not all(1 <= side <= 16384 for side in self.train_short_sides):
            drawn = list(self.train_short_sides)
            raise UsageError(f"dataset.train_short_sides is {drawn}; all must lie in [1, 16384]")


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
        check_ranges("detector", self, **dict.fromkeys(counts, "[1, 65536]"), smooth_l1_beta=">= 0")
        sides = list(self.anchor_sizes)
        if not sides or min(sides) <= 0:
            raise UsageError(f"detector.anchor_sizes is {sides}; all must be above 0")
        if self.head == "fpn" and len(sides) != 5:
            raise UsageError(f"detector.anchor_sizes is {sides}; with head fpn it must have five")


_OPTIMIZER = OptimizerConfig(name="momentum", lr=0.02, no_decay="norms", milestones=())


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainerConfig):
    """One detection run. The optimizer's defaults are detectron2's."""

    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    random_init: bool = False
    """Take the backbone's architecture and preprocessing with random weights: what it was worth."""
    engine: Literal["auto", "detectron2", "torchvision"] = "auto"
    """The library that trains; auto takes detectron2 where it is installed."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    optimizer: OptimizerConfig = _OPTIMIZER
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    epochs: int | None = 12
    batch_size: int = 8
    score_every: Duration = 0.0
    """Score the test split each time so much has been trained (at the end of the epoch in which it
    falls), for a learning curve; 0 only at the end."""

    def __post_init__(self) -> None:
        """Refuse counts below one, and what one engine cannot do."""
        super().__post_init__()
        parse_duration("score_every", self.score_every)
        if self.engine == "torchvision" and self.detector.head == "dc5":
            raise UsageError("detector.head dc5 is detectron2's alone; with torchvision: fpn or c4")
