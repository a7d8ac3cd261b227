"""What the trainers share of their configurations, and the configuration of pretraining.

No torch at import: `--help` is instant. A duration is a number of epochs, or a text with its unit:
`120000 steps`, `960000 images`, `1.5 epochs`; `steps_of` turns all of them into optimizer steps.
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from pretrain.errors import UsageError, check_ranges

Duration = float | str
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]
_DURATION = re.compile(r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(epoch|step|image)s?\s*", re.I)
_LONGEST = 1e15  # of a duration, in any unit


def parse_duration(name: str, value: Duration) -> tuple[float, str]:
    """(number, "epoch", "step" or "image") of a duration.

    Args:
        name: of the option, for the message.
        value: a number of epochs, or a text with a unit.

    Raises:
        UsageError: a unit that is none, or a negative number.
    """
    match = _DURATION.fullmatch(value if isinstance(value, str) else f"{value} epochs")
    if match is None:
        raise UsageError(
            f"{name} is {value!r:.40}; give a number of epochs, or a number with its unit: "
            "'120000 steps', '960000 images', '2 epochs'"
        )
    if (number := float(match[1])) > _LONGEST:
        raise UsageError(f"{name} is {value!s:.40}; it must be at most {_LONGEST:.0e}")
    return number, match[2].lower()


def steps_of(value: Duration, *, steps_per_epoch: int, batch_size: int) -> int:
    """Optimizer steps of a duration, rounded to the nearest."""
    number, unit = parse_duration("duration", value)
    return round(number * {"epoch": steps_per_epoch, "step": 1, "image": 1 / batch_size}[unit])


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """One of timm's optimizers and its schedule.

    The defaults are the paper's for pretraining: SGD with Nesterov momentum, weight decay on every
    parameter.
    """

    name: str = "sgd"
    """Any of timm's optimizers: sgd has Nesterov momentum, momentum is SGD without, adam, adamw."""
    lr: float = 0.1
    """Peak learning rate, for the whole batch_size."""
    lr_batch: int | None = None
    """lr is multiplied by batch_size / lr_batch (linear scaling); null takes lr as it stands."""
    momentum: float = 0.9
    weight_decay: float = 1e-4
    no_decay: Literal["nothing", "norms", "norms_and_biases"] = "nothing"
    """What is not decayed: nothing is left out (the official code), normalization layers
    (detectron2), or these and all biases (timm's habit)."""
    args: dict[str, Any] = field(default_factory=dict)
    """Plain values passed to the optimizer, such as {betas: [0.9, 0.95]}."""
    schedule: Literal["step", "cosine", "poly", "tanh", "constant"] = "step"
    """Times decay_rate at each milestone, one of timm's curves down to min_lr, or constant."""
    milestones: tuple[Duration, ...] = (75, 150, 225)
    """Durations from the start, for the step schedule."""
    decay_rate: float = 0.1
    """Factor at a milestone."""
    min_lr: float = 0.0
    """End of the curves."""
    warmup: Duration = 0.0
    """Duration of the linear rise from a thousandth of the peak."""
    clip_norm: float | None = None
    """Largest norm of the gradient; null for no limit."""
    ema: float | None = None
    """Decay a step of an exponential moving average of the weights, such as 0.9999, which is then
    what is evaluated and kept; null for none. It begins smaller, as timm's warm-up."""

    def __post_init__(self) -> None:
        """Refuse rates that cannot learn."""
        check_ranges("optimizer", self, lr="> 0", decay_rate="[0, 1)", weight_decay=">= 0")
        check_ranges("optimizer", self, min_lr=">= 0", momentum=">= 0", lr_batch=">= 1")
        check_ranges("optimizer", self, clip_norm="> 0", ema="(0, 1)")
        for value in (*self.milestones, self.warmup):
            parse_duration("optimizer.warmup or milestones", value)


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How samples are read: nothing here changes a bit of the result."""

    workers: int = 2
    """Loader processes, for each training process; 0 reads in the training process."""
    prefetch: int = 2
    """Batches that each loader process reads ahead."""
    shard_cache: float = 64.0
    """Largest size in GiB of what is kept of remote shards on this machine, for all its
    processes; it must hold two windows of shards."""

    def __post_init__(self) -> None:
        """Refuse more processes than any machine runs, and negative counts."""
        check_ranges("loader", self, workers="[0, 512]", prefetch="[1, 1024]", shard_cache="> 0")

    @property
    def processes(self) -> dict[str, Any]:
        """The arguments of Loader that say who reads."""
        return {"workers": self.workers, "prefetch": self.prefetch}


@dataclass(frozen=True, kw_only=True)
class CheckpointsConfig:
    """What a run leaves on the way: the state for resuming always, after every epoch."""

    every_steps: int = 0
    """Save the state also after every so many steps; 0 only after epochs."""
    best: bool = True
    """Keep the network of the best epoch so far: checkpoints/best.pth."""
    every_epochs: int = 0
    """Keep the network of every so many epochs: checkpoints/epoch-0010.pth; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse negative periods."""
        check_ranges("checkpoints", self, every_steps=">= 0", every_epochs=">= 0")


@dataclass(frozen=True, kw_only=True)
class TrainerConfig:
    """What every trainer has."""

    name: str = "custom"
    """Name of the recipe: runs with another name stand in another table."""
    data: str | None = None
    """Folder with the data, or the address of a store of shards (s3://, gs://, https://, hf://);
    without it synthetic shapes are drawn and used."""
    digest: Literal["sample", "bytes"] = "sample"
    """How much of each image tells whether data has changed: name, size and three samples of its
    bytes, or all bytes too. Annotations are always compared whole."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    checkpoints: CheckpointsConfig = field(default_factory=CheckpointsConfig)
    epochs: int | None = 300
    """Length of the run; null where duration gives it."""
    duration: str | None = None
    """Length of the run with its unit, such as '120000 steps' or '960000 images', in place of
    epochs."""
    batch_size: int = 256
    """Samples in an optimizer step, over all processes."""
    accumulate: int = 1
    """Micro-batches in a step: the batch is cut into so many (times the processes), which need
    less memory."""
    precision: Precision = "32-true"
    compile: bool = False
    """torch.compile the network: a minute or more before the first step, faster on a GPU."""
    tensorboard: bool = False
    """Curves in RUN/tensorboard, beside log.jsonl (needs the extra of that name)."""
    deterministic: bool = False
    """Algorithms of CUDA that give the same bits each time: slower. A CPU needs nothing."""
    seed: int = 0
    """The one seed: weights, order, augmentation and dropout follow from it."""

    def __post_init__(self) -> None:
        """Refuse counts below one and contradictions."""
        check_ranges("", self, batch_size=">= 1", accumulate=">= 1", seed=">= 0", epochs=">= 1")
        if self.duration is not None:
            if not parse_duration("duration", self.duration)[0] > 0:
                raise UsageError(f"duration is {self.duration!r}; it must be above 0")
            object.__setattr__(self, "epochs", None)
        elif self.epochs is None:
            raise UsageError("epochs is null; give --epochs, or --duration '120000 steps'")
        length = self.duration or f"{self.epochs} epochs"
        warmup, unit = parse_duration("optimizer.warmup", self.optimizer.warmup)
        total, unit_of_total = parse_duration("duration", length)
        if unit == unit_of_total and warmup > total:
            raise UsageError(
                f"optimizer.warmup is {self.optimizer.warmup}, longer than the run of {length}"
            )

    def steps(self, steps_per_epoch: int, duration: Duration | None = None) -> int:
        """Optimizer steps of a duration, or of the whole run."""
        if duration is None:
            duration = self.duration or float(self.epochs or 0)
        return steps_of(duration, steps_per_epoch=steps_per_epoch, batch_size=self.batch_size)


@dataclass(frozen=True, kw_only=True)
class ProgressiveConfig:
    """Progressive resizing: smaller images first, which train faster.

    As Howard's DAWNBench entry (fast.ai, 2018) and FFCV's ResNet-50, whose rule this is: of 88
    epochs smallest 160, start 65, end 76, image_size 192 (there scored at 256). Tan and Le
    (EfficientNetV2, 2021: 128 to 300) raise dropout and augmentation with the size; here they stay.
    """

    smallest: int | None = None
    """Side in pixels of the first epochs; null trains on image_size throughout."""
    start: float = 0.0
    """Epochs (from 0) up to this one have the smallest size; then it rises evenly."""
    end: float | None = None
    """Epochs from this one on have image_size."""
    multiple: int = 32
    """Sizes in between are rounded to a multiple of this: few sizes, as each costs torch.compile
    and cuDNN's search some time."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Shards, ImageNet's layout, CIFAR's pickles, or image folders DATA/SPLIT/CLASS/*.jpg."""

    train: str = "train"
    """Folder of the training images, a folder of images for each class."""
    val: str | None = None
    """Folder of the validation images; null takes `val`, `valid`, `validation` or else `test`."""
    val_labels: str | None = None
    """Labels of a validation folder without class folders; null looks for the known files."""
    image_size: int = 224
    """Side of the network's input in pixels."""
    crop_pct: float = 0.875
    """Evaluation resizes the short side to image_size / crop_pct and crops the centre."""
    crop: Literal["resized", "padded", "whole"] = "resized"
    """Training crop: RandomResizedCrop, (CIFAR) a crop of the image padded by an eighth, or none:
    the whole image, its short side cut from the centre."""
    progressive: ProgressiveConfig = field(default_factory=ProgressiveConfig)
    min_scale: float = 0.08
    """Smallest share of the area that a resized crop shows."""
    flip: float = 0.5
    """Chance of a horizontal flip."""
    color_jitter: float = 0.0
    """Largest change of brightness, contrast and saturation; the official code has 0.4."""
    lighting: float = 0.0
    """Standard deviation of the PCA lighting noise (AlexNet); the official code has 0.1."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """RGB, of pixels in [0, 1]."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """RGB, of pixels in [0, 1]."""
    cache: bool = False
    """Decode every image once and keep it in memory, on a GPU where it has room (padded or
    no crops)."""
    max_corrupt: int = 0
    """Images that cannot be decoded are named and left out, up to so many; then the run stops."""
    per_class: int | None = None
    """Train on so many images of each class, the same ones whatever the seed; null on all. Not of
    shards."""
    shard_window: int = 32
    """Shards whose samples are shuffled together, of shards in random order; 1,000,000 shuffles
    all, as for folders."""

    def __post_init__(self) -> None:
        """Refuse sizes and shares out of range."""
        check_ranges("dataset", self, shard_window=">= 1", per_class=">= 1")
        check_ranges("dataset", self, image_size="[8, 8192]", max_corrupt=">= 0", lighting=">= 0")
        check_ranges("dataset", self, crop_pct="(0, 1]", min_scale="(0, 1]")
        check_ranges("dataset", self, flip="[0, 1]", color_jitter="[0, 1]")
        if self.cache and self.crop == "resized":
            raise UsageError(
                "dataset.cache keeps images of one size, so it needs dataset.crop: padded, or "
                "whole; resized crops are cut from the whole image anew in each epoch"
            )
        if self.progressive.smallest is not None:
            self._check_progressive()

    def size_at(self, epoch: int) -> int:
        """Side in pixels of the training images in an epoch, from 0."""
        smallest, start, end = (getattr(self.progressive, n) for n in ("smallest", "start", "end"))
        if smallest is None or epoch >= end:
            return self.image_size
        if epoch <= start:
            return int(smallest)
        risen = smallest + (self.image_size - smallest) * (epoch - start) / (end - start)
        nearest = round(risen / self.progressive.multiple) * self.progressive.multiple
        return max(smallest, min(self.image_size, nearest))

    def _check_progressive(self) -> None:
        section, most = self.progressive, self.image_size
        name = "dataset.progressive"
        check_ranges(name, section, smallest=f"[8, {most}]", multiple=">= 1")
        check_ranges(name, section, start=">= 0", end=">= 0")
        if section.end is None or section.end < section.start:
            raise UsageError(
                f"{name}.smallest is {section.smallest} with {name}.start {section.start} and end "
                f"{section.end}; give the epoch from which on images have image_size, not before "
                f"start: --{name}.end N"
            )
        if self.crop == "padded" or self.cache:
            option = "cache true" if self.cache else "crop padded"
            raise UsageError(
                f"{name}.smallest is {section.smallest} with dataset.{option}, where images are of "
                f"one size. Give --{name}.smallest null, or --dataset.cache false and "
                "--dataset.crop resized (or whole)."
            )


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network."""

    arch: str = "resnet50"
    """Any timm architecture, or resnet18_cifar, resnet34_cifar, resnet50_cifar."""
    args: dict[str, Any] = field(default_factory=dict)
    """Plain values passed to its constructor, such as {drop_path_rate: 0.1}."""


Method = Literal[
    "none",
    "cutmix",
    "mixup",
    "cutout",
    "resizemix",
    "fmix",
    "gridmix",
    "smoothmix",
    "cut_thumbnail",
    "mosaic",
    "gridmask",
    "random_erasing",
    "saliencymix",
    "attentive_cutmix",
    "puzzlemix",
    "snapmix",
    "transmix",
    "manifold_mixup",
    "feature_cutmix",
]
WITHOUT_PARTNERS = ("none", "cutout", "gridmask", "random_erasing")
"""Methods under which every image keeps its label."""
_NOT_OF_PAIRS = ("mosaic", "snapmix", "transmix")
"""Methods with several partners, or with weights of their own for the labels."""


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """One way to mix."""

    method: Method = "cutmix"
    """The mixing method."""
    alpha: float = 1.0
    """lam ~ Beta(alpha, alpha), for the methods that draw it so. SnapMix's paper has 5."""
    probability: float = 1.0
    """Chance that a draw mixes at all. Cut-Thumbnail's authors have 0.8."""
    box: Literal["paper", "official"] = "paper"
    """CutMix box: the paper's, or the official code's (which loses pixels to rounding)."""
    granularity: Literal["batch", "pair", "half", "sample"] = "batch"
    """Who shares a draw of lam and box: the whole batch (the paper's); two images, each other's
    partners; the same, but only half of the batch is returned; nobody."""
    partner: Literal["any", "other"] = "any"
    """any: a permutation, in which an image may meet itself (the paper's); other: it cannot."""
    side: float = 0.5
    """Side of Cutout's square, or of a thumbnail of Cut-Thumbnail, as a share of the image's."""
    args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of the method, such as {decay_power: 3} of fmix: docs/mixing.md."""
    weight: float = 1.0
    """Share of the batches, where there are several methods."""

    def __post_init__(self) -> None:
        """Refuse what no draw allows."""
        check_ranges("mixing", self, alpha="> 0", probability="[0, 1]", side="(0, 1]")
        check_ranges("mixing", self, weight=">= 0")


@dataclass(frozen=True, kw_only=True)
class MixingConfig(MethodConfig):
    """How a batch is mixed."""

    others: list[MethodConfig] = field(default_factory=list)
    """Further methods: for each batch one is drawn by the weights."""
    ramp: Duration = 0.0
    """The probability rises from 0 over this duration (the paper's Scheduled CutMix: all)."""
    off_after: Duration | None = None
    """From here on nothing is mixed; null mixes to the end."""
    guide: str | None = None
    """A trained backbone whose features say what Attentive CutMix pastes; null takes the network
    that is trained."""
    decoupled: float = 0.0
    """Weight (eta; 0.1 in its paper) of a second loss, in which each of the two classes of a mixed
    image is compared with all classes but the other; 0 for none. Not for mosaic, snapmix, transmix,
    cut_thumbnail's double and self, nor where nothing is mixed in pairs."""

    def __post_init__(self) -> None:
        """Refuse a schedule that goes backwards, and chances that are none."""
        super().__post_init__()
        check_ranges("mixing", self, decoupled=">= 0")
        methods = [method.method for method in (self, *self.others)]
        refused = [name for name in methods if name in _NOT_OF_PAIRS]
        refused += [m.method for m in (self, *self.others) if m.args.get("mode") == "double"]
        if self.decoupled and refused:
            raise UsageError(
                f"mixing.decoupled is {self.decoupled} with the method {refused[0]}, whose labels "
                "are not those of two images, shared by lam. Give 0, or another method."
            )
        if self.decoupled and all(map(_keeps_labels, (self, *self.others))):
            raise UsageError(
                f"mixing.decoupled is {self.decoupled}, but nothing is mixed in pairs by "
                f"{', '.join(methods)}. Give 0, or a method such as cutmix."
            )
        if not sum(method.weight for method in (self, *self.others)) > 0:
            raise UsageError("mixing.weight is 0 for every method; one must be above 0")
        parse_duration("mixing.ramp", self.ramp)
        if self.off_after is not None:
            parse_duration("mixing.off_after", self.off_after)


def _keeps_labels(options: MethodConfig) -> bool:
    """Whether every image keeps its label, so that there are no pairs."""
    return options.method in WITHOUT_PARTNERS or options.args.get("mode") == "self"


@dataclass(frozen=True, kw_only=True)
class RotationConfig:
    """RotNet's task beside classification: a second head says by how much an image was turned."""

    weight: float = 0.0
    """Of its loss (0.5 in Hendrycks et al., 2019); 0 for none."""
    angles: Literal["all", "one"] = "all"
    """all: each image turned by 0, 90, 180 and 270 degrees (the papers'), so that five times the
    images of a step go through the network; one: by one of these, drawn for each: twice."""

    def __post_init__(self) -> None:
        """Refuse a weight that teaches the opposite."""
        check_ranges("rotation", self, weight=">= 0")


@dataclass(frozen=True, kw_only=True)
class PretrainConfig(TrainerConfig):
    """One pretraining run. The defaults are the paper's for ImageNet (section 4.1.1)."""

    name: str = "imagenet_cutmix"
    init: str | None = None
    """A backbone to start from (its classifier is kept where the classes are as many)."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    mixing: MixingConfig = field(default_factory=MixingConfig)
    rotation: RotationConfig = field(default_factory=RotationConfig)
    label_smoothing: float = 0.0
    score_every: Duration = 1.0
    """Score the validation images each time so much has been trained (at the end of the epoch in
    which it falls); 0 only at the end."""
    channels_last: bool = True
    """Memory layout of images and weights: faster, other rounding."""
    sync_batch_norm: bool = False
    """BatchNorm statistics over all processes (CUDA)."""

    def __post_init__(self) -> None:
        """Refuse what no target allows."""
        super().__post_init__()
        parse_duration("score_every", self.score_every)
        check_ranges("", self, label_smoothing="[0, 1)")
