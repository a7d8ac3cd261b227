"""ImageNet's variants on disk: which folder is which set, and which outputs its classes are.

    set               classes    images    what tells it
    ImageNet-A            200     7,500    its synsets (Hendrycks et al., CVPR 2021)
    ImageNet-O            200     2,000    its synsets; needs val beside it
    ImageNet-R            200    30,000    its synsets (Hendrycks et al., ICCV 2021)
    ImageNet-V2         1,000    10,000    folders 0 to 999, or its name (Recht et al., ICML 2019)
    ImageNet-Sketch     1,000    50,889    files named sketch_* (Wang et al., NeurIPS 2019)
    val, with ReaL      1,000    50,000    files named ILSVRC2012_val_* (Beyer et al., 2020)

Any other folder of synsets is a set too. The content says which set a folder is; its name says what
content does not, which of the three V2 it is. ImageNet's synsets, and those of -A and -R, are
timm's. timm has no list for -O: its folders are its classes, and a hash of their names tells it.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from timm.data.imagenet_info import ImageNetInfo

from pretrain.backbone import Backbone
from pretrain.backbone_evaluation import require_classifier
from pretrain.data import folders
from pretrain.data.images import ImageFiles
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError, shorten
from pretrain.images import class_folders
from transfer.evaluation.images import Labels

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
        total = sum(sizes.values())
        return {"name": self.name, "images": total, "images_of": sizes, "notes": list(self.notes)}


def find_variants(backbone: Backbone, root: Path, labels: Labels) -> Variants:
    """Find the sets in a folder and up to two levels below; what is named train is passed over.

    Args:
        backbone: its classifier's classes are ImageNet's synsets, or some of them.
        root: the data.
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
    if out is not None and (val is None or not len(images_inside(out, val))):
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


def images_inside(out: VariantSet, val: VariantSet) -> np.ndarray:
    """Numbers of val's images whose class is one of ImageNet-O's."""
    return np.flatnonzero(np.isin(val.images.labels, out.competing))
