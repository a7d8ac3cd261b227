"""Which recipe is taken for data that comes without one: `summarize` looks, `choose` decides.

It is the recipe of the benchmark that the data is, as it stands, or of the one that the data is
most like, fitted to it: sizes by the images, epochs and batch by their number, the learning rate by
the batch. README.md has the rules in a table.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from pretrain.config import Duration, parse_duration
from pretrain.errors import UsageError
from pretrain.reading import read_yaml
from tools.support.command import ROOT, usable_cores
from transfer.captioning.config import ModelConfig
from transfer.segmentation.config import NAMES, SegmentationOptimizerConfig, SegmenterConfig

_LOOKED_AT = 64  # images, for their size
_SYNSET = re.compile(r"n\d{8}")
_MANY = 100_000  # images from which on a ResNet-50 is trained
_CACHE = 4 * 2**30  # bytes of decoded images that may stay in memory
_VOC_SPLITS = ("VOC2007/trainval+VOC2012/trainval", "VOC2007/test")
_PAPER_SPLITS = ("train2014", "val2014")  # of its captions
# detectron2's recipes: images, and images seen
_VOC, _COCO = (16_551, 18_000 * 16), (117_266, 90_000 * 16)
_POWER = math.log(_COCO[1] / _VOC[1]) / math.log(_COCO[0] / _VOC[0])
_CPU_GIB = 4  # for the images of a micro-batch
_KINDS = {
    "detection": "detector.kind",
    "segmentation": "segmenter.kind",
    "captioning": "model.kind",
}
# of the synthetic shapes; other kinds take demo
_DEMOS = {
    "retinanet": "retinanet_small",
    "fcos": "fcos_small",
    "ssd": "ssd_small",
    "transformer": "transformer_small",
}
_MANY_MASKS = 1_000  # images from which on a GPU trains as on Pascal VOC's 1,464
_TORCHVISION = asdict(SegmentationOptimizerConfig())  # of recipes that say nothing of it
_CAPTIONERS = {
    "nic": ("paper_nic", "the paper's NIC"),
    "attention": ("attention_karpathy", "Show, Attend and Tell"),
    "transformer": ("transformer_karpathy", "a Transformer"),
}


@dataclass(frozen=True, kw_only=True)
class _DetectorRecipe:
    """Of a kind of detector."""

    name: str
    source: str
    fitted: str
    """What it is called once it is fitted to other data."""
    seen: int = _VOC[1]
    """Images in its training on Pascal VOC 07+12."""
    batch: int = 16
    lr: float
    decays: tuple[float, ...] = (2 / 3, 8 / 9)
    """Parts of the training after which the learning rate falls."""
    gib: float = 2
    """Of a GPU, for an image in training."""


_DETECTORS = {
    "faster_rcnn": _DetectorRecipe(
        name="voc0712_detectron2_fpn",
        source="detectron2's FPN recipe",
        fitted="detectron2_fpn_fitted",
        lr=0.02,
    ),
    "ssd": _DetectorRecipe(
        name="voc0712_paper_ssd300",
        source="the paper's SSD300 recipe",
        fitted="ssd300_fitted",
        seen=120_000 * 32,
        batch=32,
        lr=0.001,
        decays=(2 / 3, 5 / 6),
        gib=0.25,
    ),
    **{
        kind: _DetectorRecipe(
            name="coco_detectron2_retinanet",
            source="detectron2's RetinaNet recipe",
            fitted=f"{kind}_fitted",
            lr=0.01,
        )
        for kind in ("retinanet", "fcos")
    },
}


@dataclass(frozen=True, kw_only=True)
class DataSummary:
    """What a recipe is chosen by."""

    layout: str
    """CIFAR-10, CIFAR-100, image folders, Pascal VOC, MS-COCO, masks, ACDC or captions."""
    num_images: int
    """In training."""
    classes: tuple[str, ...] = ()
    short_side: int = 0
    """Of the images: the median in pixels."""
    splits: tuple[str | None, ...] = ()
    """What is trained and what is scored on; None for the one that is usual."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What trains."""

    device: str = "cpu"
    """cpu, cuda or mps."""
    processes: int = 1
    cores: int = 2
    """For each process."""
    gpu_gib: int = 0
    """Memory of a GPU."""


@dataclass(frozen=True)
class Choice:
    """A recipe, what is changed in it, and why."""

    recipe: str
    """TASK/NAME, of a file in configs."""
    changes: Mapping[str, Any]
    """Option -> value."""
    reasons: tuple[str, ...]

    @property
    def path(self) -> Path:
        """Of the recipe."""
        return ROOT / "configs" / f"{self.recipe}.yaml"

    @property
    def words(self) -> list[str]:
        """The changes on a command line."""
        return [word for item in self.changes.items() for word in option_words(*item)]

    def __str__(self) -> str:
        fitted = " fitted" if "name" in self.changes else ""
        return f"recipe configs/{self.recipe}.yaml{fitted}: {'; '.join(self.reasons)}"


def option_words(name: str, value: Any) -> tuple[str, str]:
    """An option and its value on a command line."""
    return f"--{name}", value if isinstance(value, str) else json.dumps(value)


def choose(
    task: str, data: DataSummary, machine: Machine, given: Mapping[str, Any] | None = None
) -> Choice:
    """The recipe for data: the same for the same arguments.

    Args:
        task: pretrain, classification, detection, segmentation or captioning.
        data: what it is.
        machine: what trains.
        given: options that a user gave, with their values. They stand, and what depends on them
            follows: a schedule the length, a learning rate the batch.
    """
    given, rule = given or {}, _RULES[task]
    name, changes, reasons = rule(data, machine, given)
    cores = machine.cores if machine.device == "cuda" else machine.cores // 2
    changes["loader.workers"] = min(8, max(1, cores))
    if "duration" in given:
        changes.pop("epochs", None)
    left = {key: value for key, value in changes.items() if key not in given}
    return Choice(f"{task}/{name}", left, tuple(reasons))


def choose_demo(task: str, given: Mapping[str, Any]) -> Choice:
    """The recipe for the synthetic shapes: demo, or that of the kind of network; see `choose`."""
    kind = given.get(_KINDS.get(task, ""))
    recipe, changes = _DEMOS.get(str(kind), "demo"), dict[str, Any]()
    if recipe == "transformer_small":  # whose lengths are those of a few dozen images
        changes |= {"epochs": 4, "batch_size": 50, "decoding.max_length": 24}
    if kind == "unet":  # which has no stride of its own
        changes["segmenter.output_stride"] = SegmenterConfig().output_stride
    if "start_from" in given:
        recipe, changes = "demo", _start_decides()
        if given.get("objective") == "self_critical":
            changes |= {"name": "demo_scst", "optimizer.lr": 1e-4}
    return Choice(f"{task}/{recipe}", {k: v for k, v in changes.items() if k not in given}, ())


_Rule = tuple[str, dict[str, Any], list[str]]  # recipe, changes, reasons


def _pretraining(data: DataSummary, machine: Machine, given: Mapping[str, Any]) -> _Rule:
    side, images, synsets = data.short_side, data.num_images, 0
    if all(map(_SYNSET.fullmatch, data.classes)):
        synsets = len(data.classes)
    if data.layout.startswith("CIFAR"):
        if machine.device == "cpu":
            why = "the usual ResNet-18: the paper's PyramidNet-200 takes weeks on a CPU"
            return "cifar10_resnet18_cutmix", {}, [f"{data.layout}, {why}"]
        return "cifar_pyramidnet200_cutmix", {}, [f"{data.layout}, the paper's network"]
    if synsets == 1000 and side >= 224:
        why = f"ImageNet (1,000 synsets, {images:,} images), the paper's row"
        return "imagenet_resnet50_cutmix", {}, [why]
    if synsets == 200 and side == 64:
        why = "Tiny ImageNet (200 synsets of 64 pixels), openmixup's ResNet-18"
        return "tinyimagenet_resnet18_cutmix", {}, [why]

    if side < 96:  # small images
        like = "cifar10_resnet18_cutmix" if side < 64 else "tinyimagenet_resnet18_cutmix"
        arch, fits = "resnet18_cifar", max(32, side // 8 * 8) if side < 64 else 64
    else:
        like, arch = "imagenet_resnet50_cutmix", "resnet50" if images >= _MANY else "resnet18"
        fits = side // 32 * 32
    arch, own_arch = given.get("model.arch", arch), "model.arch" in given
    own, is_fixed = _input_size(arch) if side >= 96 or own_arch else (fits, False)
    size = given.get("dataset.image_size", own if is_fixed else min(fits, own))
    lengths, reasons = _fit(
        f"pretrain/{like}", images, machine, given, seen=(1e6, 384e6), most=1000
    )
    changes = {
        "name": f"{arch}_fitted",
        "model.arch": arch,
        "dataset.image_size": size,
        "dataset.crop_pct": 0.875 if 0.875 * side >= size and side >= 96 else 1.0,
        "optimizer.schedule": "cosine",
        **lengths,
    }
    if side < 64:
        changes["dataset.cache"] = 3 * size**2 * images < _CACHE
    first = f"{images:,} images of {side} pixels (median short side)"
    is_light = arch == "resnet18"
    few = f", as for less than {_MANY:,} images" if is_light and not own_arch else ""
    reasons = [first, f"{arch}{few}, at {size} pixels", *reasons]
    if is_light and not {"mixing.method", "mixing.probability"} & given.keys():
        changes["mixing.probability"] = 0.5
        reasons.append("CutMix on half of the batches, as its authors for light networks")
    return like, changes, reasons


def _classification(data: DataSummary, machine: Machine, given: Mapping[str, Any]) -> _Rule:
    lengths, reasons = _fit(
        "classification/finetune", data.num_images, machine, given, seen=(5e4, 5.12e6), most=200
    )
    changes = {"name": "finetune_fitted", "dataset.image_size": None, **lengths}
    changes["optimizer.warmup"] = _part(lengths, given, 0.04)
    if machine.device == "cpu":
        changes["precision"] = "32-true"
    how = "probe, k-NN and fine-tuning at the backbone's own input size"
    return "finetune", changes, [f"{data.num_images:,} images, {how}", *reasons]


def _detection(data: DataSummary, machine: Machine, given: Mapping[str, Any]) -> _Rule:
    images, changes = data.num_images, dict[str, Any]()
    kind = given.get("detector.kind", "faster_rcnn")
    recipe = _DETECTORS.get(kind, _DETECTORS["faster_rcnn"])  # the configuration refuses others
    reasons = [f"{data.layout}, {images:,} images, {recipe.source}"]
    batch = given.get("batch_size", recipe.batch)
    fits = data.splits == _VOC_SPLITS and recipe.name.startswith("voc0712")
    if not fits or {"epochs", "duration", "batch_size"} & given.keys():
        batch = given.get("batch_size") or _batch(recipe.batch, 1, images, machine)
        seen = recipe.seen * (images / _VOC[0]) ** _POWER
        changes |= {"epochs": max(1, round(seen / images)), "batch_size": batch}
        rate = _rate(given.get("optimizer.lr", recipe.lr), batch, recipe.batch)
        reasons += [_in_words(changes, given, images), rate]
        changes |= {
            "name": recipe.fitted,
            "dataset.train": data.splits[0],
            "dataset.test": data.splits[1],
            "optimizer.warmup": _part(changes, given, min(0.1, 1600 / seen)),
            "optimizer.milestones": [_part(changes, given, part) for part in recipe.decays],
        }
    own = max(1, batch // machine.processes)
    fit = max(2, int((machine.gpu_gib or _CPU_GIB) / recipe.gib))
    changes["accumulate"] = next(n for n in range(1, own + 1) if own % n == 0 and own <= fit * n)
    return recipe.name, changes, reasons


def _segmentation(data: DataSummary, machine: Machine, given: Mapping[str, Any]) -> _Rule:
    images, side, kind = data.num_images, data.short_side, given.get("segmenter.kind")
    if data.layout == "ACDC":
        recipe = f"acdc_{given.get('dataset.labels', 'masks')}"
        fitted = {"name": f"{recipe}_{kind}", **_segmenter_of(kind)} if kind else {}
        fitted = {} if kind == "unet" else fitted
        return recipe, fitted, [f"ACDC, {images:,} slices, {NAMES[kind or 'unet']}"]
    large = f"voc2012_{kind if kind in NAMES else 'fcn'}_resnet50"
    if data.layout == "Pascal VOC 2012":
        why = f"{data.layout}, {images:,} images, {NAMES[kind or 'fcn']} as torchvision's"
        return large, {}, [why]
    is_small = machine.device == "cpu" or images < _MANY_MASKS
    like = "small" if is_small else large
    seen = (6e3, 6e4) if is_small else (44e3, 320e3)
    written = read_yaml(ROOT / f"configs/segmentation/{like}.yaml")["dataset"]
    lengths, reasons = _fit(f"segmentation/{like}", images, machine, given, seen=seen, most=400)
    changes = {"name": f"{like}_fitted", "dataset.layout": "auto", **lengths}
    changes["dataset.short_side"] = written["short_side"] if side > written["short_side"] else None
    changes["dataset.crop_size"] = min(written["crop_size"], -(-side // 32) * 32)
    changes |= _segmenter_of(kind) if kind and is_small and kind != "unet" else {}
    network = NAMES[kind or ("unet" if is_small else "fcn")]
    first = f"{images:,} images of {side} pixels (median short side), {network}"
    return like, changes, [first, *reasons]


def _segmenter_of(kind: str) -> dict[str, Any]:
    """A kind, and what recipes for another one say at its default."""
    options = asdict(SegmenterConfig())
    kept = ("freeze", "batch_norm", "dropout")
    others = {f"segmenter.{name}": value for name, value in options.items() if name not in kept}
    return {**others, "segmenter.kind": kind}


def _captioning(data: DataSummary, machine: Machine, given: Mapping[str, Any]) -> _Rule:
    kind = given.get("model.kind") or _kind_of(given.get("start_from"))
    recipe, network = _CAPTIONERS.get(kind, _CAPTIONERS["nic"])  # the configuration refuses others
    size = given.get("dataset.image_size", 224)
    why = f"{network} on a frozen encoder, {size} pixels"
    changes = {"name": kind, "dataset.train": None, "dataset.val": None, "dataset.layout": "auto"}
    if "start_from" in given:
        changes |= _start_decides()
        why = f"{network} that goes on from {given['start_from']}"
        if given.get("objective") == "self_critical":
            recipe = f"{'show_and_tell' if kind == 'nic' else kind}_karpathy_scst"
            changes["name"] = f"{kind}_scst"
            why = f"{network} from {given['start_from']}, on rewards"
    elif kind == "nic" and data.splits == _PAPER_SPLITS:
        changes = {}
    if machine.device == "cpu" and changes:
        changes["precision"] = "32-true"
    if recipe == "transformer_karpathy":
        changes["optimizer.warmup"] = _part({"epochs": 15}, given, 0.12)
    return recipe, changes, [f"captions of {data.num_images:,} images, {why}"]


def _start_decides() -> dict[str, Any]:
    """What is left to the captioner that a run begins with, at its default."""
    model = {f"model.{name}": value for name, value in asdict(ModelConfig()).items()}
    return {**model, "dataset.image_size": None}


def _kind_of(start: str | None) -> str:
    """Of the captioner that a run begins with, as far as its folder says it."""
    recipe = Path(start or "", "config.yaml")
    written = read_yaml(recipe) if start and recipe.is_file() else {}
    kind = written["model"].get("kind") if isinstance(written.get("model"), dict) else None
    return kind if kind in _CAPTIONERS else "nic"


_RULES = {
    "pretrain": _pretraining,
    "classification": _classification,
    "detection": _detection,
    "segmentation": _segmentation,
    "captioning": _captioning,
}
TASKS = frozenset(_RULES)
"""Those that have a rule."""


def _fit(
    recipe: str,
    images: int,
    machine: Machine,
    given: Mapping[str, Any],
    *,
    seen: tuple[float, float],
    most: int,
) -> tuple[dict[str, Any], list[str]]:
    """Epochs and batch for so many images, and what is said of them.

    The recipe's epochs; more, up to `most`, where fewer images than seen[0] would be seen, fewer
    where more than seen[1] would.
    """
    written = read_yaml(ROOT / "configs" / f"{recipe}.yaml")
    usual = written["batch_size"]
    lr = given.get("optimizer.lr") or written.get("optimizer", _TORCHVISION)["lr"]
    least, largest = seen[0] / images, seen[1] / images
    epochs = min(max(written["epochs"], min(most, round(least))), max(1, round(largest)))
    batch = given.get("batch_size") or _batch(usual, 8, images, machine)
    changes = {"epochs": epochs, "batch_size": batch, "optimizer.lr_batch": usual}
    return changes, [_in_words(changes, given, images), _rate(lr, batch, usual)]


def _batch(usual: int, least: int, images: int, machine: Machine) -> int:
    """The usual one, halved until an epoch has 16 steps; a multiple of the processes."""
    while usual > least and usual * 16 > images:
        usual = max(least, usual // 2)
    return max(1, min(usual, images) // machine.processes) * machine.processes


def _rate(lr: float, batch: int, usual: int) -> str:
    return f"learning rate {lr * batch / usual:.3g} ({lr:g} for {usual})"


def _length(changes: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[float, str]:
    """Number and unit of the length that a user gave, or else of the one that is chosen."""
    length: Duration = given.get("duration") or given.get("epochs") or changes["epochs"]
    return parse_duration("duration", length)


def _part(changes: Mapping[str, Any], given: Mapping[str, Any], share: float) -> str:
    """A part of the length, as a duration."""
    number, unit = _length(changes, given)
    return f"{number * share:.6g} {unit}s"


def _in_words(changes: Mapping[str, Any], given: Mapping[str, Any], images: int) -> str:
    number, unit = _length(changes, given)
    seen = number * {"epoch": images, "step": changes["batch_size"], "image": 1}[unit]
    return f"{number:,g} {unit}s, {seen:,.0f} images seen, batch {changes['batch_size']}"


def _input_size(arch: str) -> tuple[int, bool]:
    """The side that timm gives an architecture, and whether it takes no other."""
    from timm.models import get_pretrained_cfg

    from pretrain.models import register

    register()
    known = get_pretrained_cfg(arch)
    return (known.input_size[-1], known.fixed_input_size) if known else (224, False)


# ---- what is looked at


def choose_for(
    task: str,
    root: str | Path,
    dataset: Any,
    device: str = "auto",
    given: Mapping[str, Any] | None = None,
) -> Choice:
    """The recipe for data and this machine; see `summarize` and `choose`."""
    return choose(task, summarize(task, root, dataset), this_machine(device), given)


def this_machine(device: str) -> Machine:
    """The machine that this process runs on.

    Args:
        device: as --device.
    """
    import torch

    processes = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_WORLD_SIZE", processes))
    share = {"processes": processes, "cores": max(1, usable_cores() // local)}
    if device in ("auto", "cuda") and torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory
        return Machine(device="cuda", gpu_gib=round(memory / 2**30), **share)
    on_mps = device in ("auto", "mps") and torch.backends.mps.is_available()
    return Machine(device="mps" if on_mps else "cpu", **share)


def summarize(task: str, root: str | Path, dataset: Any) -> DataSummary:
    """Open the training data of a task.

    Args:
        task: one of TASKS.
        root: its folder, or the address of shards.
        dataset: the section of the task's configuration that says how it is read.

    Raises:
        UsageError: as the run itself would.
    """
    looks = {
        "pretrain": _labelled_images,
        "classification": _classes,
        "detection": _objects,
        "segmentation": _masks,
        "captioning": _captions,
    }
    return looks[task](root, dataset)


def _labelled_images(root: str | Path, dataset: Any) -> DataSummary:
    from pretrain.data import open_data
    from pretrain.data.cifar import find_cifar
    from pretrain.data.images import ImageShards

    train = open_data(root, dataset).train
    count, sides = len(train), []
    looked_at = min(count, _LOOKED_AT)
    # of shards the first alone: one that is far away is fetched as a whole
    spread = looked_at if isinstance(train, ImageShards) else count
    for place in range(looked_at):
        try:
            sides.append(min(train.read(place * spread // looked_at).shape[-2:]))
        except UsageError:
            continue  # the run names it
    layout = f"CIFAR-{len(train.classes)}" if find_cifar(Path(root)) else "image folders"
    side = int(median(sides)) if sides else 0
    return DataSummary(layout=layout, num_images=count, classes=train.classes, short_side=side)


def _classes(root: str | Path, dataset: Any) -> DataSummary:
    from transfer.classification.folders import open_image_folders

    data = open_image_folders(root, dataset)
    return DataSummary(layout="image folders", num_images=len(data.train))


def _objects(root: str | Path, dataset: Any) -> DataSummary:
    from transfer.detection import coco, voc_layout
    from transfer.detection.data import open_data, reader_of

    is_coco = reader_of(root) is coco.read_coco
    splits: tuple[str | None, ...] = (dataset.train, dataset.test)
    if not is_coco and splits == (None, None):  # a folder of years, as one data set
        names = voc_layout.list_splits(Path(root))
        years = [
            "+".join(n for n in names if n.endswith(f"/{end}")) for end in ("trainval", "test")
        ]
        splits = tuple(years) if all(years) else splits
    train = open_data(root, replace(dataset, train=splits[0], test=splits[1])).train
    layout = "MS-COCO's layout" if is_coco else "Pascal VOC's layout"
    return DataSummary(layout=layout, num_images=len(train), splits=splits)


def _masks(root: str | Path, dataset: Any) -> DataSummary:
    from transfer.segmentation import voc
    from transfer.segmentation.data import open_data

    data = open_data(root, dataset)
    count, sides = len(data.train), []
    if data.volumes:
        return DataSummary(layout="ACDC", num_images=count, classes=data.classes)
    for place in range(min(count, _LOOKED_AT)):
        with suppress(UsageError):  # the run names it
            record = data.train[place * count // min(count, _LOOKED_AT)]
            sides.append(min(record.read_image().shape[-2:]))
    layout = "Pascal VOC 2012" if data.classes == voc.CLASSES else "masks"
    side = int(median(sides)) if sides else 0
    return DataSummary(layout=layout, num_images=count, classes=data.classes, short_side=side)


def _captions(root: str | Path, dataset: Any) -> DataSummary:
    from transfer.captioning.dataset import coco_splits, open_captions

    splits = dataset.train, dataset.val
    if splits == (None, None) and {*_PAPER_SPLITS} <= {*coco_splits(Path(root))}:
        splits = _PAPER_SPLITS
    options = replace(dataset, train=splits[0], val=splits[1])
    data = open_captions(root, options, log=lambda line: None)  # the run logs it
    # Karpathy's splits come before those of MS-COCO's files
    read = {f"captions_{split}.json" for split in splits} <= {path.name for path in data.files}
    return DataSummary(layout="captions", num_images=len(data.train), splits=splits if read else ())
