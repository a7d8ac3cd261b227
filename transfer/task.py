"""What a task is, written once: the grid, the report, releases and the tools read it here.

A new task is a folder under transfer/ (its configuration, `build` and `finetune`), a tool, a recipe
configs/TASK/demo.yaml, and one entry in TASKS. No torch at import: what needs it is named as
"module:name", and `load` imports it where it is used.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pretrain.errors import UsageError


@dataclass(frozen=True)
class Metric:
    """One number of a result, a column of the tables."""

    key: str
    """In `Result.metrics`."""
    title: str
    factor: float = 1
    """From the unit of the result to the one shown."""
    main: bool = True
    """Also in the short tables: Markdown and LaTeX."""
    always: bool = False
    """Has a column, and is 'not measured', even where no run of the setting holds it."""
    decimals: int = 1
    less: bool = False
    """Less is better."""
    highest: float = 100
    """Of what is shown; the lowest is 0. Others are no such number, and a result is not read."""


@dataclass(frozen=True)
class GridPart:
    """A task in an embedded grid."""

    recipe: str
    """In configs/TASK."""
    data: Mapping[str, Any]
    """Arguments of `DemoData.draw`."""
    seconds: float
    """What a job takes, about: what is left is told by it until one is done."""


@dataclass(frozen=True)
class DemoData:
    """The synthetic shapes that a task takes where no data is given."""

    draw: str
    """The function of `pretrain.synthetic` that writes the data set: "module:name"."""
    tool: Mapping[str, Any]
    """Its arguments for the task's own tool and configs/TASK/demo.yaml: train, val, size, ..."""
    grids: Mapping[str, GridPart]
    """By the name of the embedded grid, one of GRIDS; a task without one is not in that grid."""


@dataclass(frozen=True)
class Picture:
    """A picture that each run of a task leaves; the report shows it once for each method."""

    file: str
    """In RUN/pictures."""
    section: str
    """Identifier of its section on the report's page."""
    title: str
    """Of that section."""
    lead: str
    """What stands above the pictures."""
    alt: str
    """What it shows, for who cannot see it; with {recipe}, {method}, {seed}."""
    width: int
    """As shown, in CSS pixels."""


@dataclass(frozen=True)
class Example:
    """An input, and what the network of one run answered."""

    answer: str
    picture: str = ""
    """A file in RUN/pictures, which only inputs chosen without a look at their score have."""
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Examples:
    """The same inputs as the networks of several methods answer them: a section of the report."""

    file: str
    """In RUN, a JSON file."""
    read: str
    """"module:function": (its content, its name for messages) -> {name of the input: Example};
    UsageError where that is not what a run writes."""
    section: str
    """Identifier of its section on the report's page."""
    title: str
    """Of that section."""
    lead: str
    """What stands above the examples."""
    missing: str
    """What stands there if no two methods have any."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One thing that a backbone is carried into, or its own training."""

    name: str
    """Names its package, its recipes' folder and `Result.task`."""
    tool: str
    """The script that runs it: a name in tools/, or a path."""
    config: str
    """Its configuration's dataclass, "module:name"."""
    build: str
    """(backbone, config) -> setup: reads the data and builds the network, so that every mistake of
    a user shows before anything is trained. `setup.data_summary` is what the result says of the
    data, as far as it is known by then; `setup.files`, a `pretrain.data_digest.DataFiles`, what it
    was read from: by their digest the grid tells whether a result is of this data."""
    finetune: str
    """(backbone, config, run, fabric, *, stop_after) -> Result."""
    metrics: tuple[Metric, ...]
    curve: Metric | None
    """Its key is that of a record of log.jsonl: drawn over the epochs."""
    demo: DemoData
    network: str | None = None
    """config -> what people call the network, "module:name", where a task has several kinds: they
    never share a column, and those with a name are none of the paper's that have none."""
    resolve: str | None = None
    """config -> config with what the machine decides filled in, such as the library that trains."""
    pictures: tuple[Picture, ...] = ()
    examples: Examples | None = None

    def metric(self, key: str) -> Metric | None:
        """The metric of that key in `Result.metrics`."""
        return next((metric for metric in self.metrics if metric.key == key), None)


GRIDS = {
    "hard": "Hard shapes: pretraining on 1,000 images of large shapes, each seen 40 times and "
    "never cropped; in the transfers a fifth of each object is hidden.",
    "easy": "Easy shapes: pretraining on 5,000 images of shapes of many sizes, each seen 9 times; "
    "in the transfers the objects are whole.",
    "quick": "A quick look: the whole chain on very little; its figures say that it works.",
}
"""The embedded grids, and what is said of each beside its table."""

_IMAGES = {"train": 5000, "val": 1000, "size": 64}
_FEW_IMAGES = {"train": 300, "val": 500, "size": 64, "seed": 1, "smallest": 0.1, "largest": 0.2}
_HIDDEN = {"occlusion": 0.2}
_SMALL = {"smallest": 0.14, "largest": 0.24}
_LARGE = {"smallest": 0.2, "largest": 0.4}
_FEW_MASKS = {"train": 500, "val": 200, "size": 64, **_LARGE}
_LARGEST = {"smallest": 0.28, "largest": 0.42}

PRETRAIN = Task(
    name="pretrain",
    tool="pretrain.py",
    config="pretrain.config:PretrainConfig",
    build="pretrain.setup:build",
    finetune="pretrain.engine:pretrain",
    metrics=(Metric("top1", "top-1 %, last", always=True), Metric("top1_best", "top-1 %, best")),
    curve=Metric("top1", "top-1 % on validation"),
    demo=DemoData(
        "pretrain.synthetic:classification",
        tool=_IMAGES,
        grids={
            "hard": GridPart("grid_hard", {**_IMAGES, "train": 1000, **_LARGEST}, 35),
            "easy": GridPart("grid", _IMAGES, 90),
            "quick": GridPart("quick", {"train": 800, "val": 200, "size": 32, **_LARGE}, 10),
        },
    ),
    pictures=(
        Picture(
            "mixed_batch.png",
            section="mixed",
            title="What pretraining saw",
            lead="A batch as the network saw it, of the smallest seed of each method.",
            alt="A batch after mixing, with its labels: {recipe}, {method}, seed {seed}",
            width=720,
        ),
    ),
)
"""A row of every table, no transfer task: it makes the backbone."""

TASKS: tuple[Task, ...] = (
    Task(
        name="classification",
        tool="finetune_cls.py",
        config="transfer.classification.config:ClassificationConfig",
        build="transfer.classification.setup:build",
        finetune="transfer.classification.engine:finetune",
        metrics=(
            Metric("linear_top1", "linear %"),
            Metric("knn_top1", "k-NN %"),
            Metric("full_top1", "fine-tuned %"),
            Metric("full_top1_best", "fine-tuned %, best"),
        ),
        curve=Metric("val_top1", "top-1 % on validation"),
        demo=DemoData(
            "pretrain.synthetic:classification",
            tool=_FEW_IMAGES,
            grids={
                "hard": GridPart("grid", {**_FEW_IMAGES, **_HIDDEN, **_SMALL}, 10),
                "easy": GridPart("grid", _FEW_IMAGES, 10),
                "quick": GridPart(
                    "quick", {"train": 100, "val": 100, "size": 32, "seed": 1, **_LARGE}, 3
                ),
            },
        ),
        pictures=(
            Picture(
                "confusion.png",
                section="confusion",
                title="Confusion",
                lead="The classifier of the smallest seed of each method.",
                alt="Confusion matrix, predicted over true classes: {recipe} from {method}, "
                "seed {seed}",
                width=600,
            ),
        ),
    ),
    Task(
        name="detection",
        tool="finetune_det.py",
        config="transfer.detection.config:DetectionConfig",
        build="transfer.detection.setup:build",
        finetune="transfer.detection.engine:finetune",
        network="transfer.detection.config:detector_name",
        resolve="transfer.detection.setup:resolved",
        metrics=(
            Metric("AP50", "AP50", always=True),
            Metric("AP50_best", "AP50, best", main=False),
            Metric("AP", "AP"),
        ),
        curve=Metric("AP50", "AP50"),
        demo=DemoData(
            "pretrain.synthetic:detection",
            tool={"train": 1000, "val": 300, "size": 128},
            grids={
                "hard": GridPart("grid", {"train": 500, "val": 200, "size": 96, **_HIDDEN}, 45),
                "easy": GridPart("grid", {"train": 500, "val": 200, "size": 96}, 45),
                "quick": GridPart("quick", {"train": 100, "val": 40, "size": 64, **_LARGE}, 8),
            },
        ),
        pictures=(
            Picture(
                "precision_recall.png",
                section="precision-recall",
                title="Precision and recall",
                lead="The detector of the smallest seed of each method.",
                alt="Precision over recall of each class at an overlap of 0.5: {recipe} from "
                "{method}, seed {seed}",
                width=600,
            ),
        ),
    ),
    Task(
        name="segmentation",
        tool="finetune_seg.py",
        config="transfer.segmentation.config:SegmentationConfig",
        build="transfer.segmentation.setup:build",
        finetune="transfer.segmentation.engine:finetune",
        network="transfer.segmentation.config:segmenter_name",
        metrics=(
            Metric("mIoU", "mIoU", always=True),
            Metric("mIoU_best", "mIoU, best", main=False),
            Metric("Dice", "Dice"),
            Metric("Dice_3D", "3D Dice"),
            Metric("Dice_3D_best", "3D Dice, best", main=False),
            Metric("boundary_F", "boundary F", main=False),
        ),
        curve=Metric("mIoU", "mIoU"),
        demo=DemoData(
            "pretrain.synthetic:segmentation",
            tool=_FEW_MASKS,
            grids={
                "hard": GridPart("grid", {**_FEW_MASKS, **_HIDDEN}, 35),
                "easy": GridPart("grid", _FEW_MASKS, 35),
                "quick": GridPart("quick", {**_FEW_MASKS, "train": 100, "val": 40}, 5),
            },
        ),
        pictures=(
            Picture(
                "segmentations.png",
                section="segmentations",
                title="Segmentations",
                lead="Images, their masks, and the label maps of the segmenter of the smallest "
                "seed of each method.",
                alt="Images, masks, label maps and their errors: {recipe} from {method}, "
                "seed {seed}",
                width=720,
            ),
        ),
    ),
    Task(
        name="captioning",
        tool="finetune_cap.py",
        config="transfer.captioning.config:CaptioningConfig",
        build="transfer.captioning.setup:build",
        finetune="transfer.captioning.engine:finetune",
        network="transfer.captioning.config:captioner_name",
        resolve="transfer.captioning.start:resolved",
        metrics=(
            Metric("Bleu_1", "BLEU-1", 100, main=False),
            Metric("Bleu_2", "BLEU-2", 100, main=False),
            Metric("Bleu_3", "BLEU-3", 100, main=False),
            Metric("Bleu_4", "BLEU-4", 100),
            Metric("METEOR", "METEOR", 100),
            Metric("ROUGE_L", "ROUGE-L", 100, main=False),
            Metric("CIDEr", "CIDEr", 100, always=True, highest=1000),
            Metric("val_CIDEr_last", "CIDEr on val, last", 100, main=False, highest=1000),
            Metric("val_CIDEr_best", "CIDEr on val, best", 100, main=False, highest=1000),
        ),
        curve=Metric("val_CIDEr", "CIDEr on validation", 100),
        demo=DemoData(
            draw="pretrain.synthetic:captions",
            tool={"train": 4000, "val": 500, "size": 96},
            grids={
                "hard": GridPart("grid", {"train": 1500, "val": 300, "size": 96, **_HIDDEN}, 50),
                "easy": GridPart("grid", {"train": 1500, "val": 300, "size": 96}, 50),
                "quick": GridPart("quick", {"train": 300, "val": 60, "size": 64, **_LARGE}, 6),
            },
        ),
        examples=Examples(
            file="captions.json",
            read="transfer.captioning.examples:read_examples",
            section="captions",
            title="Captions side by side",
            lead="The same images, spread evenly over the set whatever their captions, as the "
            "captioner of the smallest seed of each method describes them.",
            missing="No two methods here have left captions of the same images.",
        ),
    ),
)
"""The transfer tasks, in the order of the report. Read at each call: `from transfer import task`,
`task.TASKS`."""


def names() -> list[str]:
    """Of the transfer tasks."""
    return [task.name for task in TASKS]


def position(name: str) -> int:
    """Of a task in the order of the tables, pretraining first."""
    return ["pretrain", *names()].index(name)


def by_name(name: str, where: str = "") -> Task:
    """A task, or pretraining.

    Raises:
        UsageError: there is no such task; the message begins with `where`.
    """
    known = {task.name: task for task in (PRETRAIN, *TASKS)}
    if name not in known:
        raise UsageError(f"{where}there is no task {name!r}; there are {', '.join(known)}.")
    return known[name]


def load(reference: str) -> Any:
    """What "module:name" names."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)
