"""What a split of a tree lists, before anything of it is opened: images and their masks."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError, shorten
from pretrain.images import list_images

# between the name of an image and what its mask's name ends in
_SUFFIXES = ("_mask", "_masks", "-mask", "_label", "_labels", "_gt", "_GT", "_seg",
             "_segmentation", "_L", "_labelTrainIds", "_gtFine_labelTrainIds")  # fmt: skip


class Pair(NamedTuple):
    """An image and its mask."""

    image_id: str
    """Path in the folder of images, without ending; of several trees with the tree in front."""
    image: Path
    mask: Path | None
    """None where there is none."""


class Listing(NamedTuple):
    """A split."""

    pairs: tuple[Pair, ...]
    masks: Path
    """The folder of the masks."""
    lists: tuple[Path, ...] = ()
    """Files that name the images."""
    notes: tuple[str, ...] = ()


def match_folders(images: Path, masks: Path) -> Listing:
    """Every image of a folder and of those below, with the mask of its name.

    The name is that of the image, or that and one of a few endings such as _mask. Both may lie in
    one folder.

    Raises:
        UsageError: two images or two masks of a name, several endings, or no mask at all.
    """
    found = index_images(images)
    of_mask = index_images(masks)
    if images == masks:  # what is a mask of another is no image
        found = {
            name: path
            for name, path in found.items()
            if not any(name.endswith(s) and name.removesuffix(s) in found for s in _SUFFIXES)
        }
    hits = {
        suffix: count
        for suffix in (*([""] if images != masks else []), *_SUFFIXES)
        if (count := sum(f"{name}{suffix}" in of_mask for name in found))
    }
    if len(hits) > 1:
        raise UsageError(
            f"{masks} has masks of the same images with several endings: "
            f"{', '.join(f'{count:,} x NAME{suffix}' for suffix, count in hits.items())}. Leave "
            "one kind there, or name a folder with one kind by --dataset.masks."
        )
    if not hits:
        raise UsageError(
            f"{masks} has no mask of the name of an image in {images}: there are "
            f"{shorten(sorted(found), 3) or 'no'} images and {shorten(sorted(of_mask), 3) or 'no'} "
            "masks. A mask has the name of its image, or that with _mask behind."
        )
    (suffix,) = hits
    pairs = tuple(
        Pair(name, path, of_mask.get(f"{name}{suffix}")) for name, path in sorted(found.items())
    )
    notes = []
    used = {f"{name}{suffix}" for name in found}
    if alone := sorted(of_mask.keys() - used - (found.keys() if images == masks else set())):
        notes.append(f"{masks}: {len(alone):,} masks have no image: {shorten(alone, 2)}")
    return Listing(pairs, masks, notes=tuple(notes))


def index_images(folder: Path) -> dict[str, Path]:
    """{path in the folder without ending: the image}; UsageError where two have one name."""
    start, index = len(os.path.join(folder, "")), dict[str, Path]()
    for path in list_images(folder)[0]:
        name = path[start:].rpartition(".")[0].replace(os.sep, "/")
        if name in index:
            raise UsageError(
                f"{path} and {index[name]} have one name; which of them is meant? Remove one."
            )
        index[name] = Path(path)
    return index


def join(listings: Sequence[Listing], names: Sequence[str]) -> Listing:
    """Several splits as one, each image once; where two images share a name, with the split's."""
    pairs = dict[Path, Pair]()
    ids = [pair.image_id for listing in listings for pair in listing.pairs]
    images = {pair.image for listing in listings for pair in listing.pairs}
    is_shared = len({*ids}) < len(images)
    for listing, name in zip(listings, names, strict=True):
        for pair in listing.pairs:
            full = f"{name}/{pair.image_id}" if is_shared and len(names) > 1 else pair.image_id
            pairs.setdefault(pair.image, pair._replace(image_id=full))
    return Listing(
        tuple(pairs.values()),
        listings[0].masks,
        tuple(dict.fromkeys(path for listing in listings for path in listing.lists)),
        tuple(dict.fromkeys(note for listing in listings for note in listing.notes)),
    )
