"""Images and masks as records: each image with a mask of its size, and turned as the mask is."""

from collections import Counter
from collections.abc import Sequence

from pretrain.errors import UsageError
from pretrain.images import ImageHeader
from transfer.image_headers import read_headers
from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.listing import Listing
from transfer.segmentation.masks import Coding, ImageRecord


def make_records(
    listing: Listing, coding: Coding, config: DatasetConfig, split: str, notes: list[str]
) -> tuple[ImageRecord, ...]:
    """The records of a split, in the order of the listing.

    Args:
        listing: of the split.
        coding: of its masks.
        config: what may be left out, and how photos are turned.
        split: its name, for messages.
        notes: what was left out and turned is added.

    Raises:
        UsageError: images without mask, broken, of another size than their mask, or turned photos
            whose mask does not say which way it lies.
    """
    notes += [f"{split}: {note}" for note in listing.notes]
    headers = read_headers([str(pair.image) for pair in listing.pairs])
    masks = [str(pair.mask) for pair in listing.pairs if pair.mask is not None]
    header_of = dict(zip(masks, read_headers(masks), strict=True))
    records, broken, unclear = list[ImageRecord](), list[str](), list[str]()
    turned = Counter[bool]()
    for pair, header in zip(listing.pairs, headers, strict=True):
        mask_header = header_of.get(str(pair.mask))
        if pair.mask is None:
            broken.append(f"{pair.image}: no mask of its name in {listing.masks}")
        elif header is None or mask_header is None:
            path = pair.image if header is None else pair.mask
            broken.append(f"{path}: no image, or cut short")
        else:
            turn = _is_turned(header, mask_header.size, config.exif)
            size = header.displayed_size if turn else header.size
            if turn is None:
                unclear.append(f"{pair.image}: orientation {header.orientation}, {_text(size)}")
            elif mask_header.size != size:
                sizes = f"{_text(size)}, its mask {_text(mask_header.size)}"
                broken.append(f"{pair.image}: the image is {sizes}")
            else:
                if header.orientation != 1:
                    turned[turn] += 1
                records.append(ImageRecord(pair.image_id, pair.image, pair.mask, coding, turn))
    if unclear:
        raise UsageError(
            f"{split}: the masks of {len(unclear):,} photos do not say whether they lie as these "
            f"are displayed or as they are stored:{_first(unclear)}\nGive --dataset.exif apply for "
            "masks drawn on the photo as it is displayed, --dataset.exif ignore for the stored "
            "pixels."
        )
    if len(broken) > config.max_corrupt:
        raise UsageError(
            f"{split}: {len(broken):,} of {len(listing.pairs):,} images cannot be used:"
            f"{_first(broken)}\nMend them (a mask has the size of its image: write it anew, or "
            "resize it by the nearest pixel; --dataset.masks names another folder), or leave so "
            f"many images out with --dataset.max_corrupt {len(broken)}."
        )
    if not records:
        raise UsageError(f"{split}: no image is left, all {len(broken):,} are broken.")
    if broken:
        notes.append(f"{split}: {len(broken):,} images left out, as asked:{_first(broken, 2)}")
    for turn, count in turned.items():
        how = "turned by" if turn else "taken as stored, in spite of"
        notes.append(f"{split}: {count:,} photos are {how} their EXIF orientation")
    return tuple(records)


def _is_turned(header: ImageHeader, mask_size: tuple[int, int], exif: str) -> bool | None:
    """Whether a mask belongs to the photo as displayed; None where its size does not say."""
    if header.orientation == 1 or exif != "auto":
        return exif == "apply" and header.orientation != 1
    if header.size == header.displayed_size:
        return None
    return mask_size == header.displayed_size


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _first(faults: Sequence[str], most: int = 10) -> str:
    more = f"\n  and {len(faults) - most} more" if len(faults) > most else ""
    return "".join(f"\n  {fault}" for fault in faults[:most]) + more
