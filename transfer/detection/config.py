"""The configuration of a detection run. No torch at import: `--help` is instant."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from math import inf
from typing import Any, Literal

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
    square: int | None = None
    """Images are resized to squares of this side, whatever their shape, as SSD does (300); null
    keeps their shape by short_side and long_side."""
    photometric: float = 0.0
    """Chance in training of other colours (SSD, section 3.2: brightness, contrast, saturation,
    hue)."""
    zoom_out: float = 0.0
    """Chance in training of a small picture on a canvas of up to 16 times its area (SSD)."""
    iou_crop: float = 0.0
    """Chance in training of a crop that overlaps an object by a drawn IoU (SSD)."""
    aspect_ratio_grouping: bool = True
    """A step has wide images or tall ones, so that less is padded."""

    def __post_init__(self) -> None:
        """Refuse sizes below one, a chance out of range, and a class named twice."""
        sides = dict.fromkeys(("short_side", "long_side"), "[1, 16384]")
        chances = dict.fromkeys(("flip", "photometric", "zoom_out", "iou_crop"), "[0, 1]")
        check_ranges("dataset", self, max_corrupt=">= 0", square="[32, 16384]", **chances, **sides)
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        if twice:
            raise UsageError(f"dataset.classes names {', '.join(twice)} twice")
        if not all(1 <= side <= 16384 for side in self.train_short_sides):
            drawn = list(self.train_short_sides)
            raise UsageError(f"dataset.train_short_sides is {drawn}; all must lie in [1, 16384]")
        if self.square is not None and self.train_short_sides:
            raise UsageError(
                "dataset.square gives images one size, and dataset.train_short_sides draws it: "
                "leave one of them out"
            )


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Mixing of images and their boxes in training; chances, of which each image draws one at most.

    What is asked for is what happens: a mixture that cannot be made of one partner is made of
    another.
    """

    mosaic: float = 0.0
    """Chance of four images around a drawn point, each at half its size (YOLOv4)."""
    mixup: float = 0.0
    """Chance of a weighted mean with another image; the objects of both count in full."""
    cutmix: float = 0.0
    """Chance of a rectangle of another image at its own place, with the objects in it."""
    copy_paste: float = 0.0
    """Chance of some objects of another image, cut out by their masks (Ghiasi et al., CVPR 2021);
    needs MS-COCO's segmentations."""
    mixup_alpha: float = 1.5
    """Of Beta(alpha, alpha), from which Mixup draws the weight of the image."""
    cutmix_alpha: float = 1.0
    """Of Beta(alpha, alpha), from which CutMix draws the share of the image that stays."""
    min_visible: float = 0.25
    """An object stays if so much of its area (its mask's, in copy-paste) is still to be seen; its
    box is then that of what is seen."""
    off_epoch: int | None = None
    """No mixing from this epoch on (0 is the first); null mixes to the end."""

    @property
    def chances(self) -> dict[str, float]:
        """By method."""
        return {name: getattr(self, name) for name in ("mosaic", "mixup", "cutmix", "copy_paste")}

    def __post_init__(self) -> None:
        """Refuse chances that are none, alone or together."""
        check_ranges("mixing", self, **dict.fromkeys(self.chances, "[0, 1]"))
        check_ranges("mixing", self, mixup_alpha="> 0", cutmix_alpha="> 0", min_visible="(0, 1]")
        check_ranges("mixing", self, off_epoch=">= 0")
        if (total := sum(self.chances.values())) > 1 + 1e-9:
            raise UsageError(
                f"the chances of mixing are {self.chances}, {total:g} together; they must be at "
                "most 1, as an image is mixed by one method at most"
            )


Kind = Literal["faster_rcnn", "retinanet", "fcos", "ssd"]
DETECTRON2_KINDS = ("faster_rcnn", "retinanet")
"""What detectron2 trains too."""
LOSSES: dict[Kind, tuple[str, ...]] = {
    "faster_rcnn": (
        "loss_classifier",
        "loss_box_reg",
        "loss_objectness",
        "loss_rpn_box_reg",
    ),
    "retinanet": ("loss_classifier", "loss_box_reg"),
    "fcos": ("loss_classifier", "loss_box_reg", "loss_centerness"),
    "ssd": ("loss_classifier", "loss_box_reg"),
}
"""What each kind of detector returns in training."""
# as people call them
_NAMES: dict[Kind, str] = {
    "faster_rcnn": "Faster R-CNN",
    "retinanet": "RetinaNet",
    "fcos": "FCOS",
    "ssd": "SSD",
}
_EVERY_KIND = {"kind", "freeze", "batch_norm"}
# what each kind of detector reads beside these
_READ = {
    "faster_rcnn": {
        "head",
        "fpn_channels",
        "head_channels",
        "anchor_sizes",
        "proposals_before_nms",
        "proposals",
        "test_proposals_before_nms",
        "test_proposals",
        "rois",
        "smooth_l1_beta",
    },
    "retinanet": {"fpn_channels", "head_convs", "anchor_sizes", "smooth_l1_beta"},
    "fcos": {"fpn_channels", "head_convs"},
    "ssd": {"layout", "box_scales"},
}


@dataclass(frozen=True, kw_only=True)
class DetectorConfig:
    """The detector. The defaults are detectron2's, SSD's its paper's."""

    kind: Kind = "faster_rcnn"
    """Two stages: faster_rcnn; one stage: retinanet, fcos (torchvision only) and ssd (torchvision
    only; wants dataset.square)."""
    head: Literal["fpn", "c4", "dc5"] = "fpn"
    """faster_rcnn: fpn: feature pyramid; c4: the last stage works on regions of the one before, as
    in the paper; dc5: regions of the dilated last stage (detectron2 only)."""
    freeze: Literal[0, 1, 2] = 2
    """Frozen from the input on: 0 nothing, 1 the stem, 2 the stem and the first stage."""
    batch_norm: Literal["frozen", "trained", "sync"] = "frozen"
    """BatchNorm of the backbone: statistics and scales fixed, trained on, or trained on with
    statistics of all processes."""
    fpn_channels: int = 256
    """Width of the feature pyramid, and of the heads of retinanet and fcos."""
    head_channels: int = 1024
    """faster_rcnn: width of the two fully connected layers of the box head; c4 has none."""
    head_convs: int = 4
    """retinanet, fcos: convolutions of each head before the last."""
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    """Pixels; with a pyramid one for each level (faster_rcnn: strides 4 to 64; retinanet: 8 to 128,
    each at three sizes a third of an octave apart), otherwise all on the one level."""
    proposals_before_nms: int = 2000
    """faster_rcnn: in training; with fpn of each level."""
    proposals: int = 1000
    """faster_rcnn: kept after non-maximum suppression in training."""
    test_proposals_before_nms: int = 1000
    test_proposals: int = 1000
    rois: int = 512
    """faster_rcnn: regions sampled for the box head, an image; a quarter of them on objects."""
    smooth_l1_beta: float = 0.0
    """faster_rcnn, retinanet: where the loss of boxes turns from square to linear. faster_rcnn: 0
    in detectron2, 1/9 in torchvision; retinanet: 0 in torchvision and in detectron2's recipes, 0.1
    in its defaults."""
    layout: Literal["levels", "stride8"] = "levels"
    """ssd: levels: the backbone's levels at strides 8, 16 and 32, then further layers; stride8: the
    last stage is left out and the one before works at stride 8, as in NVIDIA's examples (ResNets
    only)."""
    box_scales: tuple[float, ...] = ()
    """ssd: sizes of the default boxes, shares of the image's side, one more than there are levels;
    empty takes Pascal VOC's: 0.1, then evenly 0.2 to 0.88, and 1.05."""

    @property
    def has_pyramid(self) -> bool:
        """Whether one anchor size belongs to each of five levels."""
        return self.kind == "retinanet" or (self.kind == "faster_rcnn" and self.head == "fpn")

    def __post_init__(self) -> None:
        """Refuse counts below one, and options of another kind of detector."""
        counts = ["fpn_channels", "head_channels", "proposals_before_nms", "proposals", "rois"]
        counts += ["test_proposals_before_nms", "test_proposals"]
        check_ranges("detector", self, **dict.fromkeys(counts, "[1, 65536]"), smooth_l1_beta=">= 0")
        check_ranges("detector", self, head_convs="[1, 64]")
        sides = list(self.anchor_sizes)
        if not sides or not all(0 < side < inf for side in sides):
            raise UsageError(f"detector.anchor_sizes is {sides}; all must be above 0")
        if self.has_pyramid and len(sides) != 5:
            name = "head fpn" if self.kind == "faster_rcnn" else self.kind
            raise UsageError(f"detector.anchor_sizes is {sides}; with {name} it must have five")
        scales = self.box_scales
        if not all(small < large for small, large in pairwise((0, *scales, inf))):
            raise UsageError(f"detector.box_scales is {list(scales)}; they must rise from above 0")
        for entry in fields(self):
            read = entry.name in _EVERY_KIND | _READ[self.kind]
            if not read and getattr(self, entry.name) != entry.default:
                kinds = " and ".join(kind for kind in _READ if entry.name in _READ[kind])
                raise UsageError(
                    f"detector.{entry.name} is of {kinds}, and detector.kind is {self.kind}: leave "
                    "it out, or take a recipe of this kind from configs/detection"
                )


_OPTIMIZER = OptimizerConfig(name="momentum", lr=0.02, no_decay="norms", milestones=())


@dataclass(frozen=True, kw_only=True)
class DetectionConfig(TrainerConfig):
    """One detection run. The optimizer's defaults are detectron2's."""

    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    random_init: bool = False
    """Take the backbone's architecture and preprocessing with random weights: what it was worth."""
    engine: Literal["auto", "detectron2", "torchvision"] = "auto"
    """The library that trains; auto takes detectron2 where it is installed and has this kind."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
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
        kind = self.detector.kind
        if self.engine == "torchvision" and self.detector.head == "dc5":
            raise UsageError("detector.head dc5 is detectron2's alone; with torchvision: fpn or c4")
        if self.engine == "detectron2" and kind not in DETECTRON2_KINDS:
            raise UsageError(
                f"detector.kind {kind} is torchvision's alone; give --engine torchvision"
            )
        if kind == "ssd" and self.dataset.square is None:
            raise UsageError(
                "detector.kind ssd wants images of one size: give --dataset.square 300"
            )


def detector_name(config: Mapping[str, Any]) -> str:
    """What people call the detector of a configuration as a result holds it; empty if unknown."""
    detector = config.get("detector")
    kind = detector.get("kind") if isinstance(detector, dict) else None
    return next((name for known, name in _NAMES.items() if known == kind), "")
