"""The configuration of a segmentation run. No torch at import: `--help` is instant."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from pretrain.config import Duration, LoaderConfig, OptimizerConfig, TrainerConfig, parse_duration
from pretrain.errors import UsageError, check_ranges

VOID = 255
"""In masks as they are trained on and scored: a pixel that has no class and counts nowhere."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """What is read of a tree of images and masks, and the geometry of its samples.

    A tree is Pascal VOC's (SegmentationClass), a folder of images and one of masks, or ACDC's
    volumes.
    """

    layout: Literal["auto", "voc", "folders", "acdc"] = "auto"
    """auto: by what is in the folder."""
    train: str | None = None
    """Split for training; null takes train. ACDC: training, and what `fold` leaves of it."""
    val: str | None = None
    """Split for scoring; null takes val. ACDC: testing, or the patients of `fold`."""
    masks: str | None = None
    """Folder of the masks, such as SegmentationClassAug; null takes the usual one."""
    classes: tuple[str, ...] = ()
    """Class names in the order of the masks' values; empty takes what the tree says (classes.txt,
    labelmap.txt, Pascal VOC's, ACDC's), otherwise the values found, as names."""
    values: tuple[int, ...] = ()
    """The masks' value of each class, where it is not 0, 1, 2, ...: [0, 255] for binary masks."""
    void: int | None = 255
    """The masks' value of pixels without a class; null if there is none."""
    exif: Literal["auto", "apply", "ignore"] = "auto"
    """Photos with an EXIF orientation: turned as it says, or taken as stored; auto decides by the
    mask's size, and refuses where that does not say."""
    max_corrupt: int = 0
    """So many images may be broken, or miss their mask; they are named and left out."""
    short_side: int | None = None
    """Images are resized to this short side before all else (PIL, bilinear; masks: nearest); null
    leaves them as they are. Scores are those of masks in their own size."""
    spacing: float | None = None
    """Volumes: millimetres of a pixel after resizing, in both directions of a slice."""
    scales: tuple[float, float] = (0.5, 2.0)
    """In training the size is multiplied by a factor of this range, uniformly drawn."""
    crop_size: int = 480
    """Side of the training crop; what lies outside of the image is black (0 of a volume) and
    void."""
    flip: float = 0.5
    """Chance of a horizontal flip in training."""
    vertical_flip: float = 0.0
    """Chance of a vertical one."""
    rotation: float = 0.0
    """In training images are turned by up to so many degrees either way, uniformly drawn."""
    labels: Literal["masks", "scribbles"] = "masks"
    """ACDC: what is trained on; scored are always the masks."""
    phases: tuple[Literal["ED", "ES"], ...] = ("ED", "ES")
    """ACDC: the frames of a patient."""
    fold: int | None = None
    """ACDC: score the patients of this fold (0 is the first) of `training`, train on the others;
    null trains on all of them and scores `testing`."""
    folds: int = 5
    """ACDC: so many, each with as many patients of each group as can be."""

    def __post_init__(self) -> None:
        """Refuse sizes below one, chances out of range, and contradictions."""
        chances = dict.fromkeys(("flip", "vertical_flip"), "[0, 1]")
        check_ranges("dataset", self, max_corrupt=">= 0", void="[0, 65535]", **chances)
        check_ranges("dataset", self, short_side="[1, 16384]", crop_size="[8, 16384]")
        check_ranges("dataset", self, spacing="(0, 100]", rotation="[0, 180]", folds="[2, 1000]")
        check_ranges("dataset", self, fold=f"[0, {self.folds - 1}]")
        low, high = self.scales
        if not 0 < low <= high <= 16:
            raise UsageError(
                f"dataset.scales is {list(self.scales)}; give two numbers above 0 and at most 16, "
                "the smaller first"
            )
        if not self.phases:
            raise UsageError("dataset.phases is empty; give ED, ES or both")
        for name in ("classes", "values", "phases"):
            given: tuple[Any, ...] = getattr(self, name)
            if twice := sorted({one for one in given if given.count(one) > 1}):
                raise UsageError(f"dataset.{name} has {twice[0]} twice")
        if len(self.classes) > VOID:
            raise UsageError(f"dataset.classes has {len(self.classes)}; at most {VOID} are read")
        if self.values and len(self.values) != len(self.classes):
            raise UsageError(
                f"dataset.values has {len(self.values)} and dataset.classes {len(self.classes)}; "
                "give a value for each class"
            )
        if outside := [value for value in self.values if not 0 <= value < 2**16]:
            raise UsageError(f"dataset.values has {outside[0]}; all must lie in [0, 65535]")
        if self.void is not None and self.void in self._class_values:
            raise UsageError(
                f"dataset.void is {self.void}, which is the value of a class too; give "
                "--dataset.void null if no pixel is without a class"
            )

    @property
    def _class_values(self) -> tuple[int, ...]:
        return self.values or tuple(range(len(self.classes)))


@dataclass(frozen=True, kw_only=True)
class MixingConfig:
    """Mixing of images and masks in training: each batch is mixed by one method at most."""

    cutmix: float = 0.0
    """Chance of CutMix: a box of another image at its own place, with its part of the mask."""
    mosaic: float = 0.0
    """Chance of Mosaic: an image, and quarters of three others around a drawn centre."""
    alpha: float = 1.0
    """CutMix: the share of the image that stays is drawn from Beta(alpha, alpha)."""
    off_epoch: int | None = None
    """No mixing from this epoch on (0 is the first); null mixes to the end."""

    def __post_init__(self) -> None:
        """Refuse chances that are none, alone or together."""
        check_ranges("mixing", self, cutmix="[0, 1]", mosaic="[0, 1]", alpha="> 0")
        check_ranges("mixing", self, off_epoch=">= 0")
        if (total := self.cutmix + self.mosaic) > 1 + 1e-9:
            raise UsageError(
                f"mixing.cutmix and mixing.mosaic are {total:g} together; they must be at most 1, "
                "as a batch is mixed by one method at most"
            )


Kind = Literal["fcn", "deeplabv3", "unet"]
NAMES: dict[Kind, str] = {"fcn": "FCN", "deeplabv3": "DeepLabV3", "unet": "U-Net"}
"""As people call them."""
# what each kind of segmenter reads beside kind, freeze, batch_norm and dropout
_READ = {
    "fcn": {"output_stride", "aux_weight"},
    "deeplabv3": {"output_stride", "aux_weight", "atrous_rates"},
    "unet": {"decoder_channels"},
}


@dataclass(frozen=True, kw_only=True)
class SegmenterConfig:
    """The network: a backbone, and what makes classes of its levels."""

    kind: Kind = "fcn"
    """FCN and DeepLabV3 (torchvision's heads), or U-Net's decoder."""
    freeze: int = 0
    """The first parts of the backbone that are not trained: 1 the stem, 2 the first stage too."""
    batch_norm: Literal["frozen", "trained", "sync"] = "trained"
    """The backbone's BatchNorm: as it was, trained, or trained over all processes (then the head's
    is too, which is otherwise each process's own)."""
    output_stride: Literal[8, 16, 32] = 8
    """fcn, deeplabv3: pixels of the image in one of the last level; the last stages are dilated
    instead of strided where the backbone has fewer. 8 is torchvision's."""
    aux_weight: float = 0.0
    """fcn, deeplabv3: weight of the loss of a second FCN head on the level before the last; 0.5 in
    torchvision's reference training."""
    atrous_rates: tuple[int, ...] = (12, 24, 36)
    """deeplabv3: dilations of the pyramid; the paper's at stride 8, halved at 16."""
    decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)
    """unet: of the blocks, coarse to fine; as many as the backbone has levels at strides above
    1."""
    dropout: float = 0.1
    """Before the last convolution of a head; deeplabv3: of the second head alone, as torchvision
    drops half in the pyramid."""

    def __post_init__(self) -> None:
        """Refuse options of another kind, and sizes that build nothing."""
        check_ranges("segmenter", self, freeze="[0, 64]", aux_weight=">= 0", dropout="[0, 1)")
        for name in ("atrous_rates", "decoder_channels"):
            sizes = getattr(self, name)
            if not sizes or not all(1 <= size <= 16384 for size in sizes):
                raise UsageError(f"segmenter.{name} is {list(sizes)}; all must lie in [1, 16384]")
        known = set().union(*_READ.values())
        for entry in fields(self):
            of_other = entry.name in known - _READ[self.kind]
            if of_other and getattr(self, entry.name) != entry.default:
                kinds = " and ".join(kind for kind in _READ if entry.name in _READ[kind])
                raise UsageError(
                    f"segmenter.{entry.name} is of {kinds}, and segmenter.kind is {self.kind}: "
                    "leave it out, or take a recipe of this kind from configs/segmentation"
                )


@dataclass(frozen=True, kw_only=True)
class SegmentationOptimizerConfig(OptimizerConfig):
    """The defaults are those of torchvision's reference training."""

    name: str = "momentum"
    lr: float = 0.01
    """Peak learning rate of backbone and head, for the whole batch_size."""
    schedule: Literal["step", "cosine", "poly", "tanh", "constant"] = "poly"
    milestones: tuple[Duration, ...] = ()
    power: float = 0.9
    """Of the schedule poly: lr (1 - step / steps)^power."""
    aux_lr: float | None = None
    """Peak learning rate of the second head; null takes ten times lr, as torchvision."""

    def __post_init__(self) -> None:
        """Refuse rates that cannot learn."""
        super().__post_init__()
        check_ranges("optimizer", self, power="> 0", aux_lr="> 0")


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig(TrainerConfig):
    """One segmentation run. The defaults are those of torchvision's reference training."""

    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    random_init: bool = False
    """Take the backbone's architecture and preprocessing with random weights: what it was worth."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)
    optimizer: SegmentationOptimizerConfig = field(default_factory=SegmentationOptimizerConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    epochs: int | None = 30
    batch_size: int = 8
    score_every: Duration = 0.0
    """Score the validation split each time so much has been trained (at the end of the epoch in
    which it falls), for a learning curve; 0 only at the end."""

    def __post_init__(self) -> None:
        """Refuse what no run allows."""
        super().__post_init__()
        parse_duration("score_every", self.score_every)


def segmenter_name(config: Mapping[str, Any]) -> str:
    """What people call the network of a configuration as a result holds it; empty if unknown."""
    segmenter = config.get("segmenter")
    kind = segmenter.get("kind") if isinstance(segmenter, dict) else None
    return next((name for known, name in NAMES.items() if known == kind), "")
