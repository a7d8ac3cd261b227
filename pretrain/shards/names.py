"""Under which key a sample stands in its tar: the path of its image, so that no reader loses it.

WebDataset joins the members of a sample by their key, the path up to the first dot of the base
name: a.b.jpg and a.c.jpg would be one sample, .a.jpg would lose its name; it drops without a word
what lies in a first folder such as __background__. So `%`, control characters and bytes that are
no UTF-8 are written %XX everywhere, dots in the base name, and the first underscore of such a
folder. Two images that would have one key (a.jpg, a.png) keep their endings: a%2Ejpg, a%2Epng.
"""

import os
import re
from collections import Counter
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from pretrain.errors import UsageError, shorten
from pretrain.images import SUFFIXES

_ANYWHERE = re.compile(r"[%\x00-\x1f\x7f\udc80-\udcff]")
_IN_BASE_NAME = re.compile(r"[%.\x00-\x1f\x7f\udc80-\udcff]")
_SKIPPED = re.compile(r"^_(?=_[^/]*__/)")  # webdataset's skip_meta


def member_keys(names: Sequence[str]) -> list[str]:
    """A key for each sample of a split, all different.

    Args:
        names: paths of the images in the split, all different, such as CLASS/a.b.JPEG.

    Raises:
        UsageError: a name that is there twice, or leads out of the split.
    """
    if bad := [name for name in names if not {"", ".", ".."}.isdisjoint(name.split("/"))]:
        raise UsageError(
            f"{len(bad):,} names lead elsewhere, such as {bad[0]!r}; expected CLASS/NAME.jpg, "
            "without '..', '//' or a '/' at its beginning. Pack the archive again without them."
        )
    if len({*names}) < len(names):
        twice = [name for name, count in Counter(names).items() if count > 1]
        raise UsageError(f"there twice: {shorten(twice)}. Remove one of each.")
    keys = [possible_keys(name)[0] for name in names]
    # a key with its ending may meet that of another in turn: a.jpg, a.png and a.png.jpg
    while len({*keys}) < len(keys):
        counts = Counter(keys)
        for number in [number for number, key in enumerate(keys) if counts[key] > 1]:
            keys[number] = possible_keys(names[number])[1]
    return keys


def possible_keys(name: str) -> tuple[str, str]:
    """The key of a sample, and the one that it has where another sample has that."""
    return _escape(split_ending(name)[0]), _escape(name)


def escaped(keys: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]]:
    """(name, key) of the samples whose key is not simply the name without its ending."""
    pairs = zip(names, keys, strict=True)
    return [(name, key) for name, key in pairs if key != split_ending(name)[0]]


def _escape(path: str) -> str:
    folder, slash, base = path.rpartition("/")
    folder = _ANYWHERE.sub(_percent, folder)
    return _SKIPPED.sub("%5F", folder + slash, 1) + _IN_BASE_NAME.sub(_percent, base)


def _percent(letter: re.Match[str]) -> str:
    return f"%{ord(letter[0]) & 0xFF:02X}"  # Python has a byte that is no UTF-8 as U+DC80 to U+DCFF


def split_ending(name: str) -> tuple[str, str]:
    """The path of an image and what it ends in, such as .JPEG; nothing where that is no format."""
    stem, ending = os.path.splitext(name)
    return (stem, ending) if ending.lower() in SUFFIXES else (name, "")


def readable(text: str) -> str:
    """A text in which bytes that are no UTF-8, as Python reads them in names, are written out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def unescape(key: str) -> str:
    """The path that a key was made of."""
    return os.fsdecode(unquote_to_bytes(os.fsencode(key)))
