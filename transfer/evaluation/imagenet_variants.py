"""ImageNet's variants: a classifier of its classes on test sets that were made for it.

    set               classes    images    what tells it
    ImageNet-A            200     7,500    its synsets (Hendrycks et al., CVPR 2021)
    ImageNet-O            200     2,000    its synsets; needs val beside it
    ImageNet-R            200    30,000    its synsets (Hendrycks et al., ICCV 2021)
    ImageNet-V2         1,000    10,000    folders 0 to 999, or its name (Recht et al., ICML 2019)
    ImageNet-Sketch     1,000    50,889    files named sketch_* (Wang et al., NeurIPS 2019)
    val, with ReaL      1,000    50,000    files named ILSVRC2012_val_* (Beyer et al., 2020)

Any other folder of synsets is scored too. The content says which set a folder is; its name says
what content does not, which of the three V2 it is.

A set of fewer classes is scored among these alone, as natural-adv-examples (Hendrycks) and timm's
validate.py do: the logits of all others are left out. top1_all is that of all outputs.

ImageNet's synsets, those of -A and -R, and ReaL's labels are timm's. timm has no list for -O: its
folders are its classes, and a hash of their names tells it. Average precision is scikit-learn's
definition, written here because that package is not installed with this project.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import torch
from timm.data.imagenet_info import ImageNetInfo
from timm.data.real_labels import RealLabelsImagenet
from torch import Tensor, nn
from torch.nn import functional

from pretrain.backbone import Backbone
from pretrain.data import folders
from pretrain.data.images import ImageFiles
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError, shorten
from pretrain.images import class_folders
from pretrain.spec import BackboneSpec
from transfer.evaluation.config import VariantsConfig
from transfer.evaluation.images import Labels, require_classifier
from transfer.evaluation.session import Session, normalise, to_unit

_SYNSET, _VAL = re.compile(r"n\d{8}"), re.compile(r"ILSVRC2012_val_(\d{8})\.\w+")
_O_SYNSETS = "39f8e64e8f89efad"
"""SHA-256 of the sorted synsets of ImageNet-O, joined by line breaks: its first 16 digits."""
_V2 = {
    "matched-frequency": "imagenet_v2_matched_frequency",
    "threshold": "imagenet_v2_threshold07",
    "top-images": "imagenet_v2_top_images",
}
"""What its folder's name holds -> which of the three ImageNet-V2 it is."""


class Published(NamedTuple):
    """A set that figures are published of."""

    title: str
    images: int
    own: bool = False
    """Its own classes compete, not all 1,000."""


PUBLISHED = {
    "imagenet_a": Published("ImageNet-A", 7_500, own=True),
    "imagenet_o": Published("ImageNet-O", 2_000, own=True),
    "imagenet_r": Published("ImageNet-R", 30_000, own=True),
    "imagenet_v2_matched_frequency": Published("ImageNet-V2, matched frequency", 10_000),
    "imagenet_v2_threshold07": Published("ImageNet-V2, threshold 0.7", 10_000),
    "imagenet_v2_top_images": Published("ImageNet-V2, top images", 10_000),
    "imagenet_v2": Published("ImageNet-V2", 10_000),
    "sketch": Published("ImageNet-Sketch", 50_889),
    "val": Published("ImageNet val", 50_000),
}
"""By what their metrics begin with."""


@dataclass(frozen=True, eq=False)
class VariantSet:
    """The images of one folder whose classes the classifier has."""

    key: str | None
    """Of PUBLISHED; None where it is none of these."""
    images: ImageFiles
    """Its `labels` are outputs of the classifier."""
    competing: tuple[int, ...]
    """The outputs that compete."""


@dataclass(frozen=True, eq=False)
class Variants:
    """All sets that were found."""

    name: str
    sets: dict[str, VariantSet]
    """By folder, relative to the data's."""
    output_of: dict[str, int]
    """Synset -> output of the classifier."""
    files: DataFiles
    notes: tuple[str, ...]

    @property
    def summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        sizes = {place: len(found.images) for place, found in self.sets.items()}
        total = {"images": sum(sizes.values()), "sets": len(sizes)}
        return {"name": self.name, **total, "images_of": sizes, "notes": list(self.notes)}


# ---- which sets there are


def open_data(backbone: Backbone, root: Path, options: VariantsConfig, labels: Labels) -> Variants:
    """Find the sets in a folder and up to two levels below; what is named train is passed over.

    Args:
        backbone: its classifier's classes are ImageNet's synsets, or some of them.
        root: the data.
        options: none so far.
        labels: `val_labels`, for a val without class folders.

    Raises:
        UsageError: a classifier of other classes, no set at all, or two folders of the same.
    """
    require_classifier(backbone)
    synsets = imagenet_synsets()
    output_of = {name: n for n, name in enumerate(backbone.output_names) if name in {*synsets}}
    if not output_of:
        own = shorten(backbone.output_names) or f"{backbone.spec.num_classes} without names"
        raise UsageError(
            "none of the classifier's outputs is a synset of ImageNet, such as n01440764; they "
            f"are {own}. Take a backbone that was trained on ImageNet."
        )
    base, sets, notes = Path(os.path.abspath(root)), dict[str, VariantSet](), list[str]()
    if len(output_of) < len(synsets):
        notes.append(
            f"the classifier has {len(output_of):,} of ImageNet's 1,000 classes: images of others "
            "are left out, and no figure compares with published ones"
        )
    for folder in _find_sets(base, depth=2):
        place = base.name if folder == base else os.path.relpath(folder, base)
        found = sets[place] = _open_set(folder, output_of, labels, notes)
        if found.key and (twice := [one for one in sets if sets[one].key == found.key])[1:]:
            raise UsageError(
                f"{root} holds {PUBLISHED[found.key].title} twice: {' and '.join(twice)}. Leave "
                "one of them out."
            )
    places = {place.split(os.sep)[0] for place in sets}
    if others := [
        name for name in class_folders(base) if name not in places and base.name not in sets
    ]:
        notes.append(f"{shorten(others)}: left out, as there are no class folders named by synsets")
    of_key = {found.key: found for found in sets.values()}
    out, val = of_key.get("imagenet_o"), of_key.get("val")
    if out is not None and (val is None or not len(_inside(out, val))):
        sets = {place: found for place, found in sets.items() if found is not out}
        notes.append(
            "ImageNet-O is left out: its images are told from ImageNet's validation images of its "
            f"200 classes, and there are none. Put them beside it: {root}/val"
        )
    if not sets:
        titles = ", ".join(published.title for published in PUBLISHED.values())
        raise UsageError(
            f"{root} holds nothing that can be scored. Expected in it or below it: {titles}, or "
            f"class folders named by synsets, such as {synsets[0]}."
            + "".join(f" {note}." for note in notes)
        )
    images = [found.images for found in sets.values()]
    data = DataFiles(
        (root,),
        [path for one in images for path in one.paths],
        [path for one in images for path in one.annotations],
    )
    return Variants(base.name, sets, output_of, data, tuple(notes))


def _find_sets(folder: Path, depth: int) -> Iterator[Path]:
    """Folders of synsets, of numbers, or of val's images alone; in alphabetical order."""
    names = class_folders(folder)
    has_val = any(_VAL.fullmatch(name) for name in os.listdir(folder))
    if has_val or _are_numbers(names) or any(map(_SYNSET.fullmatch, names)):
        yield folder
    elif depth:
        for name in names:
            if name != "train":
                yield from _find_sets(folder / name, depth - 1)


def _are_numbers(names: Sequence[str]) -> bool:
    """Whether they are 0 to 999, as ImageNet-V2 names its classes."""
    return {*names} == {*map(str, range(1000))}


def _open_set(
    folder: Path, output_of: dict[str, int], labels: Labels, notes: list[str]
) -> VariantSet:
    """List the images; what is to be said of them comes behind `notes`."""
    synsets = imagenet_synsets()
    if class_folders(folder):
        images = folders.open_folder(folder.parent, folder.name)
    else:
        images = folders.open_flat(
            folder.parent, folder.name, synsets, labels.val_labels, "--val-labels"
        )
    classes: Sequence[str] = images.classes
    if _are_numbers(classes):  # sorted as texts, 10 comes before 2
        classes = [synsets[int(number)] for number in classes]
    notes += images.notes
    key = _recognise(folder.name, images, classes)
    if key is not None and len(images) > PUBLISHED[key].images:
        notes.append(
            f"{folder.name} has the classes of {PUBLISHED[key].title}, but {len(images):,} images "
            f"where that has {PUBLISHED[key].images:,}: it is scored as a folder of its own"
        )
        key = None
    elif key is not None and len(images) < PUBLISHED[key].images:
        notes.append(
            f"{folder.name} is a part of {PUBLISHED[key].title}: {len(images):,} of "
            f"{PUBLISHED[key].images:,} images"
        )
    numbers = np.array([output_of.get(name, -1) for name in classes])[images.labels]
    known = numbers >= 0
    if not known.any():
        raise UsageError(f"none of the classes in {folder} is an output of the classifier.")
    if not known.all():
        notes.append(
            f"{folder.name}: {np.sum(~known):,} of {len(known):,} images are left out, of classes "
            "that the classifier does not have"
        )
    competing = classes if key is None or PUBLISHED[key].own else synsets
    return VariantSet(
        key,
        replace(images, labels=numbers[known], names=images.names[known]),
        tuple(sorted(output_of[name] for name in competing if name in output_of)),
    )


def _recognise(name: str, images: ImageFiles, classes: Sequence[str]) -> str | None:
    """Which published set has these classes and files, whatever their number."""
    v2 = next((key for words, key in _V2.items() if words in name.replace("_", "-")), None)
    if _are_numbers(images.classes):
        return v2 or "imagenet_v2"
    file_names = [os.path.basename(path) for path in images.paths]
    if all(map(_VAL.fullmatch, file_names)):
        return "val"
    if len(classes) == 1000:  # V2 was once given out with folders named by synsets
        return "sketch" if all(file.startswith("sketch_") for file in file_names) else v2
    for key in ("imagenet_a", "imagenet_r"):
        if {*classes} == {*timm_synsets(key)}:
            return key
    text = "\n".join(sorted(classes))
    is_o = hashlib.sha256(text.encode()).hexdigest()[:16] == _O_SYNSETS
    return "imagenet_o" if is_o else None


@cache
def imagenet_synsets() -> tuple[str, ...]:
    """The 1,000, in the order of everybody's outputs."""
    return tuple(ImageNetInfo().label_names())


@cache
def timm_synsets(name: str) -> tuple[str, ...]:
    """The classes of imagenet_a or imagenet_r."""
    return tuple((files("timm.data") / "_info" / f"{name}_synsets.txt").read_text().split())


# ---- what a classifier scores on them


def evaluate(
    backbone: Backbone, data: Variants, options: VariantsConfig, session: Session
) -> dict[str, Any]:
    """Score every set.

    Returns:
        Of each published set KEY_top1, KEY_top5, KEY_images and, where not all outputs compete,
        KEY_top1_all; of val also real_top1, real_top5 and real_images; of ImageNet-O
        imagenet_o_aupr. `folders` has the same of every other folder by its name, others_top1 the
        mean of their top-1. Percent.
    """
    network, metrics = session.network(backbone), dict[str, Any]()
    others = dict[str, dict[str, float]]()
    of_key = {found.key: found for found in data.sets.values()}
    for place, found in data.sets.items():
        last = backbone.spec, f"scoring {place}", session
        if found.key == "imagenet_o":
            compute = partial(score_anomalies, network, found, of_key["val"], *last)
        else:
            real = real_labels(found.images, data.output_of) if found.key == "val" else None
            compute = partial(score_classes, network, found, real, *last)
        scores = session.part(quote(place, safe=""), compute)
        if found.key is None:
            others[place] = scores
        else:
            metrics |= {
                name if name.startswith("real_") else f"{found.key}_{name}": value
                for name, value in scores.items()
            }
    if others:
        metrics["others_top1"] = sum(scores["top1"] for scores in others.values()) / len(others)
        metrics["folders"] = others
    return metrics


def real_labels(images: ImageFiles, output_of: dict[str, int]) -> np.ndarray:
    """ReaL's labels of val's images, as outputs: (N, L), -1 where an image has fewer than L."""
    synsets = imagenet_synsets()
    by_name = RealLabelsImagenet(range(50_000)).real_labels
    names = [os.path.splitext(os.path.basename(path))[0] for path in images.paths]
    rows = [
        [output_of[synset] for n in by_name[f"{name}.JPEG"] if (synset := synsets[n]) in output_of]
        for name in names
    ]
    table = np.full((len(rows), max(1, *map(len, rows))), -1)
    for row, outputs in zip(table, rows, strict=True):
        row[: len(outputs)] = outputs
    return table


@torch.inference_mode()
def score_classes(
    network: nn.Module,
    found: VariantSet,
    real: np.ndarray | None,
    spec: BackboneSpec,
    title: str,
    session: Session,
) -> dict[str, float]:
    """How often a classifier is right, in percent.

    Args:
        network: with its classifier, on the device.
        found: the images.
        real: labels of ReaL, see real_labels: a prediction is right if it is one of them.
        spec: of the backbone.
        title: of the progress bar.
        session: device and loading.

    Returns:
        top1 and top5 among the outputs that compete, images; top1_all among all outputs, where
        these are more; real_top1, real_top5 and real_images, of images that ReaL has labels for.
    """
    device, has_real = session.device, real is not None
    competing = torch.tensor(found.competing, device=device)
    labels = torch.from_numpy(found.images.labels).to(device)
    table = torch.from_numpy(real).to(device) if has_real else labels.new_full((len(labels), 1), -1)
    counts = torch.zeros(7, dtype=torch.int64, device=device)
    for batch, numbers in session.batches(found.images, spec, title):
        with session.fabric.autocast():
            logits = network(normalise(to_unit(batch), spec)).float()
        best = competing[logits[:, competing].topk(min(5, len(competing))).indices]
        numbers = numbers.to(device)
        own, sets = labels[numbers, None], table[numbers]
        right, real_right = best == own, (best[:, :, None] == sets[:, None]).any(2)
        columns = [own >= 0, right[:, :1], right, logits.argmax(1, keepdim=True) == own]
        columns += [sets >= 0, real_right[:, :1], real_right]
        counts += torch.stack([column.any(1) for column in columns]).sum(1)
    images, top1, top5, top1_all, real_images, real_top1, real_top5 = counts.tolist()
    scores = {"top1": 100 * top1 / max(images, 1), "top5": 100 * top5 / max(images, 1)}
    if len(competing) < spec.num_classes:
        scores["top1_all"] = 100 * top1_all / max(images, 1)
    if has_real:
        scores["real_top1"] = 100 * real_top1 / max(real_images, 1)
        scores["real_top5"] = 100 * real_top5 / max(real_images, 1)
        scores["real_images"] = real_images
    return scores | {"images": images}


@torch.inference_mode()
def score_anomalies(
    network: nn.Module,
    out: VariantSet,
    val: VariantSet,
    spec: BackboneSpec,
    title: str,
    session: Session,
) -> dict[str, float]:
    """How well ImageNet-O is told from val's images of its classes; arguments as score_classes.

    An image is the more anomalous, the smaller its largest probability among these classes is.

    Returns:
        aupr in percent, ImageNet-O being what is to be found; images, val_images.
    """
    competing = torch.tensor(out.competing, device=session.device)

    def scores(images: ImageFiles, order: np.ndarray | None) -> np.ndarray:
        found = list[Tensor]()
        for batch, _ in session.batches(images, spec, title, order):
            with session.fabric.autocast():
                logits = network(normalise(to_unit(batch), spec)).float()
            found.append(-functional.softmax(logits[:, competing], 1).amax(1))
        return torch.cat(found).cpu().numpy()

    anomalies, normal = scores(out.images, None), scores(val.images, _inside(out, val))
    aupr = 100 * average_precision(anomalies, normal)
    return {"aupr": aupr, "images": len(anomalies), "val_images": len(normal)}


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the precision-recall steps, as scikit-learn's average_precision_score.

    Args:
        positive: scores of what is to be found; the larger, the surer.
        negative: scores of the rest. Equal scores are found together.
    """
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(order < len(positive))
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision, recall = found[last] / (last + 1), found[last] / len(positive)
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def _inside(out: VariantSet, val: VariantSet) -> np.ndarray:
    """Numbers of val's images whose class is one of ImageNet-O's."""
    return np.flatnonzero(np.isin(val.images.labels, out.competing))
