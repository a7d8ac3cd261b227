"""Which classes masks have: as given, as a file says, as Pascal VOC has them, or as found."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pretrain.errors import UsageError
from pretrain.images import read_header
from pretrain.progress import bar
from transfer.file_scan import scan_files
from transfer.segmentation import voc
from transfer.segmentation.class_files import ClassFile, read_class_file
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.listing import Listing
from transfer.segmentation.masks import Coding, count_values, read_mask

_SAMPLE = 100  # masks that are read before training begins, where the classes are known
_LEAST = 200  # a mask takes some milliseconds
_VOC_FOLDER = re.compile(r"VOC20\d\d")
_VOC_NAME = re.compile(r"(.*/)?20\d\d_\d{6}")


class Classes(NamedTuple):
    """The classes of a tree."""

    names: tuple[str, ...]
    coding: Coding
    source: str
    """Whence they are, for the log."""
    files: tuple[Path, ...] = ()
    """What says so."""

    @property
    def note(self) -> str:
        """For the log."""
        return f"{len(self.names)} classes ({self.source}): {', '.join(self.names)}"


def find_classes(root: Path, listing: Listing, config: DatasetConfig, is_voc: bool) -> Classes:
    """The classes, checked by a sample of the masks; where nothing names them, by all.

    Args:
        root: the tree.
        listing: what is trained on.
        config: the classes, where they are given.
        is_voc: the tree has Pascal VOC's lists. Its 21 classes are taken where its folder is called
            as there (VOC2012), or all images are (2007_000032), and no file names classes.

    Raises:
        UsageError: the masks have no second class, or values that are none.
    """
    voids = () if config.void is None else (config.void,)
    file = read_class_file(
        list(dict.fromkeys((root, listing.masks.parent, listing.masks))), config.void
    )
    masks = [pair.mask for pair in listing.pairs if pair.mask is not None]
    if not masks:
        raise UsageError(
            f"{listing.masks} has no mask of the {len(listing.pairs):,} images to train on, such "
            f"as {listing.pairs[0].image}; --dataset.masks names another folder."
        )
    if config.classes:
        values = config.values or tuple(range(len(config.classes)))
        colors, files = _colors_of(config.classes, file)
        found = Classes(config.classes, Coding(values, voids, colors), "as given", files)
    elif file is not None:
        if config.void != VOID and config.void in file.coding.values:
            name = file.classes[file.coding.values.index(config.void)]
            raise UsageError(
                f"dataset.void is {config.void}, which {file.path} calls {name}: call it void "
                "there, or leave --dataset.void out"
            )
        found = Classes(file.classes, file.coding, f"of {file.path.name}", (file.path,))
    elif is_voc and _is_named_as_voc(listing):
        coding = Coding(tuple(range(len(voc.CLASSES))), voids)
        found = Classes(voc.CLASSES, coding, "Pascal VOC's, as the tree is named as theirs")
    else:
        values = _values_in(masks, listing, voids, config.max_corrupt)
        source = "the values in the masks, as no file names them"
        return Classes(tuple(map(str, values)), Coding(values, voids), source)
    _check_sample(masks, found, config)
    return found


def _colors_of(
    classes: Sequence[str], file: ClassFile | None
) -> tuple[tuple[tuple[tuple[int, int, int], int], ...], tuple[Path, ...]]:
    """Colours that a file has for classes that are given, and this file; of all of them or none."""
    if file is None or not {*classes} <= {*file.classes}:
        return (), ()
    number_of = {file.classes.index(name): number for number, name in enumerate(classes)}
    number_of[VOID] = VOID
    colors = file.coding.colors
    return tuple((one, number_of[n]) for one, n in colors if n in number_of), (file.path,)


def _is_named_as_voc(listing: Listing) -> bool:
    folder = listing.masks.parent.resolve().name
    names = (pair.image_id for pair in listing.pairs)
    return bool(_VOC_FOLDER.fullmatch(folder)) or all(map(_VOC_NAME.fullmatch, names))


def _values_in(
    masks: Sequence[Path], listing: Listing, voids: Sequence[int], max_corrupt: int
) -> tuple[int, ...]:
    """All values of masks but void."""
    counts = scan_files(
        [*map(str, masks)],
        _count,
        lambda row: {int(value): count for value, count in row.items()},
        kind="mask_values",
        least=_LEAST,
        title="reading masks",
    )
    found = sorted({value for one in counts for value in one})
    unread = [mask for mask, one in zip(masks, counts, strict=True) if not one]
    # without a head they are told with all images that cannot be used
    broken = [mask for mask in unread if read_header(mask)] if found else unread
    if len(broken) > max_corrupt or not found:
        count_values(broken[0])  # which says what is wrong with it
    values = tuple(value for value in found if value not in voids)
    if len(values) > VOID:
        raise UsageError(
            f"{listing.masks} has masks with {len(values):,} values, and {VOID} classes at most "
            "are trained on. Are they numbers of objects, or do edges fade? Give masks with the "
            "number of a class in each pixel."
        )
    if len(values) < 2:
        _refuse(masks, (), voids, found)
    return values


def _count(path: str) -> dict[int, int]:
    """Pixels of each value; none where the mask cannot be read."""
    try:
        return count_values(Path(path))
    except UsageError:
        return {}


def _check_sample(masks: Sequence[Path], classes: Classes, config: DatasetConfig) -> None:
    """Read some masks; and more, where these have no second class."""
    step = -(-len(masks) // _SAMPLE)
    first = masks[::step]
    others = [mask for place, mask in enumerate(masks) if place % step]
    seen, faults = np.zeros(VOID + 1, bool), list[UsageError]()
    with bar("reading masks", len(masks), "files") as advance:
        for number, mask in enumerate((*first, *others)):
            if number >= len(first) and seen[:VOID].sum() > 1:
                break
            try:
                seen[read_mask(mask, classes.coding).numpy()] = True
            except UsageError as error:
                faults.append(error)
                if len(faults) > config.max_corrupt:
                    raise
            advance(1)
    if seen[:VOID].sum() < 2 and len(faults) < len(masks):
        values = [classes.coding.values[number] for number in np.flatnonzero(seen[:VOID])]
        voids = classes.coding.void if seen[VOID] else ()
        _refuse(masks, classes.names, classes.coding.void, sorted({*values, *voids}))


def _refuse(
    masks: Sequence[Path], names: Sequence[str], voids: Sequence[int], found: Sequence[int]
) -> None:
    """Raise for masks with one class, or with none."""
    folder = masks[0].parent
    if [*found] == [0, 255] and 255 in voids:
        names = names if len(names) == 2 else ("background", "object")
        raise UsageError(
            f"the masks in {folder} hold 0 and 255 alone, and 255 is void: pixels without a class. "
            "Nothing would be left to tell apart. Where 255 is an object give --dataset.values 0 "
            f"255 --dataset.void null --dataset.classes {' '.join(names)}."
        )
    raise UsageError(
        f"the masks in {folder} hold {' and '.join(map(str, found))}"
        f"{' (void)' if [*found] == [*voids] else ''} alone; two classes are needed, to tell "
        "anything apart. Are these the masks? --dataset.masks names their folder."
    )
