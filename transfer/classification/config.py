"""The configuration of a classification run. No torch at import: `--help` is instant."""

from dataclasses import dataclass, field
from typing import Literal

from pretrain.config import LoaderConfig, OptimizerConfig, TrainerConfig
from pretrain.errors import UsageError, check_ranges

MODES = ("linear", "knn", "full")
"""What can be measured, in the order in which it is run."""


@dataclass(frozen=True, kw_only=True)
class DatasetConfig:
    """Which images, and how the backbone sees them."""

    train: str | None = None
    """Folder of the training images; null looks for train."""
    val: str | None = None
    """Folder of the validation images; null looks for val, valid or validation."""
    test: str | None = None
    """Folder of the test images; null looks for test."""
    val_fraction: float = 0.2
    """Share held out by a hash of the file's name: of the data where it has no splits, and of the
    training images where penalty and k have no images of their own to be chosen on."""
    image_size: int | None = None
    """Side of the network's input in pixels; null takes the size the backbone was trained at."""
    crop_pct: float | None = None
    """Evaluation resizes the short side to image_size / crop_pct; null takes the backbone's own."""
    interpolation: Literal["bilinear", "bicubic"] | None = None
    """For resizing; null takes the backbone's own."""
    min_scale: float = 0.08
    """Least share of the image's area in a training crop of full fine-tuning."""
    max_corrupt: int = 0
    """Images that may be broken, and are then named and left out."""

    def __post_init__(self) -> None:
        """Refuse sizes and shares out of range."""
        check_ranges("dataset", self, image_size="[8, 8192]", max_corrupt=">= 0")
        check_ranges("dataset", self, val_fraction="(0, 1)", crop_pct="(0, 1]", min_scale="(0, 1]")


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """The linear probe: mean cross entropy + penalty * R(W), the bias free."""

    penalty: Literal["squared", "norm"] = "squared"
    """R: the sum of the squared weights, or its square root, as OmniBenchmark."""
    penalties: tuple[float, ...] = (1e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0)
    """The path; one is chosen, of equals the strongest. These are OmniBenchmark's values."""
    tolerance: float = 1e-6
    """Largest entry of the gradient, in coordinates in which the curvature is about one."""
    max_iterations: int = 1000
    """Of L-BFGS, for each value; the run says where they were too few."""

    def __post_init__(self) -> None:
        """Refuse an empty path and penalties that are none."""
        values = list(self.penalties)
        if not values or not min(values) > 0:
            raise UsageError(f"linear.penalties is {values}; give one or more, all above 0")
        check_ranges("linear", self, tolerance="> 0", max_iterations=">= 1")


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """k nearest neighbours by cosine similarity s."""

    ks: tuple[int, ...] = (1, 5, 10, 20, 50, 100, 200)
    """One is chosen, of equals the largest; those above the number of images are skipped."""
    vote: Literal["weighted", "majority"] = "weighted"
    """A neighbour counts exp(s / temperature), or one."""
    temperature: float = 0.07

    def __post_init__(self) -> None:
        """Refuse neighbours that cannot be counted."""
        values = list(self.ks)
        if not values or min(values) < 1:
            raise UsageError(f"knn.ks is {values}; give one or more, all at least 1")
        check_ranges("knn", self, temperature="> 0.01")


@dataclass(frozen=True, kw_only=True)
class FinetuneOptimizerConfig(OptimizerConfig):
    """Of full fine-tuning: lr is the backbone's."""

    head_lr: float = 0.1
    """Peak learning rate of the new classifier."""

    def __post_init__(self) -> None:
        """Refuse rates that cannot learn."""
        super().__post_init__()
        check_ranges("optimizer", self, head_lr="> 0")


@dataclass(frozen=True, kw_only=True)
class ClassificationConfig(TrainerConfig):
    """One classification run. Length, batch, optimizer and precision are of full fine-tuning."""

    backbone: str | None = None
    """A backbone file, or the folder of a pretraining run."""
    random_init: bool = False
    """Take the backbone's architecture and preprocessing with random weights: what it was worth."""
    mode: str = "linear,knn,full"
    """What is measured: linear (a linear probe), knn (nearest neighbours), full (fine-tuning), or
    several with commas. The first of these that is asked for gives the headline."""
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    knn: KnnConfig = field(default_factory=KnnConfig)
    optimizer: FinetuneOptimizerConfig = field(
        default_factory=lambda: FinetuneOptimizerConfig(
            lr=0.01, no_decay="norms_and_biases", schedule="cosine", milestones=()
        )
    )
    label_smoothing: float = 0.0
    loader: LoaderConfig = field(default_factory=lambda: LoaderConfig(workers=1))
    epochs: int | None = 30
    batch_size: int = 64
    cache: str = "runs/features"
    """Folder of the features of frozen encoders, shared by runs."""

    def __post_init__(self) -> None:
        """Refuse unknown modes and counts below one; modes in their order, each once."""
        super().__post_init__()
        asked = [word.strip() for word in self.mode.split(",")]
        unknown = [word for word in asked if word not in MODES]
        if unknown:
            raise UsageError(
                f"mode is {self.mode!r}; {unknown[0]!r} is none of {', '.join(MODES)} "
                "(several with commas)"
            )
        object.__setattr__(self, "mode", ",".join(mode for mode in MODES if mode in asked))
        check_ranges("", self, label_smoothing="[0, 1)")

    @property
    def modes(self) -> list[str]:
        """What is measured, in order."""
        return self.mode.split(",")
