"""Which classes masks have: as given, as a file says, as Pascal VOC has them, or as found."""

import re
from pathlib import Path

from pretrain.errors import UsageError, shorten
from pretrain.progress import bar
from transfer.segmentation import voc
from transfer.segmentation.class_files import read_class_file
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.listing import Listing
from transfer.segmentation.masks import Coding, count_values

_SAMPLE = 100  # masks that are looked at where the classes are known
_VOC_NAME = re.compile(r"(.*/)?20\d\d_\d{6}")
_VOC_FOLDER = re.compile(r"VOC20\d\d")


def find_classes(
    root: Path, listing: Listing, config: DatasetConfig, notes: list[str]
) -> tuple[tuple[str, ...], Coding, tuple[Path, ...]]:
    """Names of the classes, what stands for them in masks, and the file that says so.

    Args:
        root: the tree.
        listing: what is trained on.
        config: the classes, where they are given.
        notes: whence the classes are is added.

    Raises:
        UsageError: the masks have one class alone, or more than can be.
    """
    masks = [pair.mask for pair in listing.pairs if pair.mask is not None]
    void, sources = config.void, tuple[Path, ...]()
    found = read_class_file(list(dict.fromkeys((root, listing.masks.parent, listing.masks))), void)
    if config.classes:
        classes, how = config.classes, "as given"
        coding = Coding(config.values or tuple(range(len(classes))), void)
        if found is not None and set(classes) <= set(found.classes):
            colors = [(color, n) for color, n in found.coding.colors if n != VOID]
            named = {found.classes[n]: color for color, n in colors}
            void_colors = [(color, n) for color, n in found.coding.colors if n == VOID]
            own = [(named[name], n) for n, name in enumerate(classes) if name in named]
            coding = Coding(coding.values, void, (*own, *void_colors))
            sources = (found.path,)
    elif found is not None:
        classes, coding, how = found.classes, found.coding, f"of {found.path.name}"
        sources = (found.path,)
    elif is_voc(root, listing):
        classes, coding = voc.CLASSES, Coding(tuple(range(len(voc.CLASSES))), void)
        how = "Pascal VOC's, as images and folders are named as there"
    else:
        counts = _count(masks, "reading masks for their classes")
        values = tuple(sorted(value for value in counts if value != void))
        if len(values) > VOID:
            raise UsageError(
                f"{listing.masks} has {len(values):,} different values, and at most {VOID} classes "
                "are trained on. Are the values numbers of objects, or edges drawn softly? Give "
                "masks with the number of a class for each pixel."
            )
        _refuse_binary(listing, counts, void)
        classes, coding = tuple(map(str, values)), Coding(values, void)
        how = "the values found in the training masks, as no file names them"
    notes.append(f"{len(classes)} classes ({how}): {', '.join(classes)}")
    if how[:3] != "the" and not coding.colors:
        step = max(1, len(masks) // _SAMPLE)
        counts = _count(masks[::step])
        if len(counts) > 1 and not set(counts) - {0, void}:
            counts = _count(masks, "reading masks")
        _refuse_binary(listing, counts, void)
    return classes, coding, sources


def is_voc(root: Path, listing: Listing) -> bool:
    """Whether a tree is Pascal VOC's own: its folder is called VOC2012 or so, or all its images.

    The images, too, must be called as there: 2007_000032.
    """
    named = _VOC_FOLDER.fullmatch(listing.masks.parent.name)
    return bool(named) or all(_VOC_NAME.fullmatch(pair.image_id) for pair in listing.pairs)


def _count(masks: list[Path], title: str = "") -> dict[int, int]:
    """Pixels of each value, over masks; one that cannot be read is left to be named in reading."""
    counts: dict[int, int] = {}
    with bar(title, len(masks), "masks", shown=bool(title)) as advance:
        for path in masks:
            try:
                found = count_values(path)
            except UsageError:
                if path == masks[0]:
                    raise
                found = {}
            for value, count in found.items():
                counts[value] = counts.get(value, 0) + count
            advance(1)
    return counts


def _refuse_binary(listing: Listing, counts: dict[int, int], void: int | None) -> None:
    """Raise where only one class, or none, occurs beside void."""
    values = sorted(counts)
    if void == 255 and values == [0, 255]:
        raise UsageError(
            f"{listing.masks}: the masks hold 0 and 255 alone, and 255 is taken for void, pixels "
            "without a class: there would be nothing to tell apart. Where 255 is an object give "
            "--dataset.values 0 255 --dataset.void null --dataset.classes background object."
        )
    if len(set(values) - {void}) < 2:
        raise UsageError(
            f"{listing.masks}: the masks hold {shorten(list(map(str, values))) or 'no value'} "
            "alone; two classes are needed to tell anything apart."
        )
