"""Image files: one way of listing and of decoding them for every task.

    JPEG, PNG, WebP               by torchvision, by TorchCodec, or by Pillow: the same bits
    GIF, BMP, TIFF, PNM, AVIF,    by Pillow
    what may be turned or moves

torchvision deprecates its decoder from 0.29 on, for TorchCodec. So torchvision decodes up to 0.28;
from 0.29 on TorchCodec where it is installed, otherwise torchvision as long as it can, otherwise
Pillow. TorchCodec turns every picture by its EXIF tag and plays animations: it is given none of
them, and no EXIF.

The content decides, not the name. Transparency is dropped, grey and palettes become RGB, of an
animation or a file of several pages the first picture is taken. More than 8 bits a channel are
refused: which part of their range is meant, the file does not say.

Pixels come as they are stored. A photo's EXIF orientation says how they are to be turned for
display; published benchmarks ignore it, and so does `decode` unless asked.
"""

import os
import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
import torchvision
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from pretrain.data_hints import describe
from pretrain.errors import UsageError, first_line, shorten

SUFFIXES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif"),
    *(".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".avif"),
)
"""What the name of an image ends in, in any case."""
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
_SWAPS_SIDES = (5, 6, 7, 8)
_MOST_ASPECT = 200
"""Resizing by the short side takes memory by the long one; no photograph comes near it."""


class ImageHeader(NamedTuple):
    """What the head of an image file says."""

    size: tuple[int, int]
    """Width and height of the stored pixels."""
    orientation: int
    """EXIF's: 1 as stored, 2 mirrored, 3 upside down, 4 both, 5 to 8 with sides swapped."""

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Width and height once turned."""
        width, height = self.size
        return (height, width) if self.orientation in _SWAPS_SIDES else (width, height)


class ImageSource(Protocol):
    """What images are read from: a path, or a place in a shard. `str` names it in messages."""

    @property
    def name(self) -> str:
        """Of the file."""

    def read_bytes(self) -> bytes:
        """Its content; UsageError where that is not what was packed."""


def decode(source: ImageSource, apply_exif: bool = False) -> Tensor:
    """Read an image file as RGB uint8 (3, H, W).

    Args:
        source: the file, or where its content lies.
        apply_exif: turn the pixels as the EXIF orientation says.

    Raises:
        UsageError: missing, no file but a pipe, broken, cut short, more than 8 bits a channel, a
            side more than 200 times the other, no supported format.
    """
    if isinstance(source, Path) and not os.path.isfile(source):  # a pipe would block
        is_there = os.path.exists(source)
        problem = f"image {source} is no file." if is_there else f"there is no image {source}."
        raise UsageError(problem)
    try:
        content = bytearray(source.read_bytes())
    except OSError as error:
        raise _undecodable(source, error) from error
    return decode_bytes(content, source, apply_exif)


def decode_bytes(content: bytearray, source: object, apply_exif: bool = False) -> Tensor:
    """The same of a file's content, which may be changed; `source` names it in messages."""
    header = _read_header(BytesIO(content)) if apply_exif else None  # decoding may change it
    try:
        decoder = _decoder() if _is_plain(content) else None
        image = decoder(content) if decoder else _by_pillow(source, content)
    except UsageError:
        raise
    except Exception as error:  # of a broken file, whatever it is; AVIF's are RuntimeErrors
        raise _undecodable(source, error) from error
    height, width = image.shape[-2:]
    if max(height, width) > _MOST_ASPECT * min(height, width):
        limit = f"a side may have at most {_MOST_ASPECT} times the pixels of the other"
        raise UsageError(f"image {source} has {width} x {height} pixels; {limit}.")
    return image if header is None else turn(image, header.orientation)


def _undecodable(source: object, error: Exception) -> UsageError:
    is_unknown = isinstance(error, UnidentifiedImageError)
    reason = "no format that is known" if is_unknown else first_line(error).rstrip(".")
    return UsageError(
        f"image {source} cannot be decoded ({reason}). It may be cut short or no image; "
        f"supported are {', '.join(SUFFIXES)}. Replace or remove it."
    )


def read_header(path: Path) -> ImageHeader | None:
    """Size and orientation of an image; None where it is no image, or cut short in its head."""
    if not os.path.isfile(path):  # a pipe would block
        return None
    try:
        with open(path, "rb") as file:
            return _read_header(file)
    except OSError:
        return None


def _read_header(file: BinaryIO) -> ImageHeader | None:
    try:
        with Image.open(file) as image:
            return _header(image, file)
    except Exception:  # whatever a broken file makes Pillow raise
        return None


def turn(image: Tensor, orientation: int) -> Tensor:
    """Stored pixels (..., H, W) as they are displayed; EXIF 2.32, tag 0x0112."""
    if orientation in _SWAPS_SIDES:
        image = image.transpose(-1, -2)
    mirrored = {2: [-1], 3: [-2, -1], 4: [-2], 6: [-1], 7: [-2, -1], 8: [-2]}.get(orientation)
    return image.flip(mirrored) if mirrored else image.contiguous()


def list_images(folder: Path) -> tuple[list[str], list[str]]:
    """Paths of the images in a folder and in folders below it, and of all other files; sorted.

    What is hidden, file or folder, is in neither: `._a.jpg` is no image but a companion file. Links
    are followed, but not back into a folder that they lie in.

    Raises:
        UsageError: a folder that cannot be read.
    """
    images, others = list[str](), list[str]()
    open_folders: list[tuple[str, frozenset[tuple[int, int]]]] = [(str(folder), frozenset())]
    while open_folders:
        path, above = open_folders.pop()
        try:
            status = os.stat(path)
            entries = os.scandir(path)
        except OSError as error:
            raise UsageError(f"the folder {path} cannot be read ({error.strerror}).") from error
        if (here := (status.st_dev, status.st_ino)) in above:
            continue
        with entries:
            for entry in entries:
                name = entry.name
                if name[0] == ".":
                    continue
                if _is_folder(entry):
                    open_folders.append((entry.path, above | {here}))
                else:
                    (images if name.lower().endswith(SUFFIXES) else others).append(entry.path)
    return sorted(images), sorted(others)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Of a link, where it leads; one to itself leads nowhere."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def describe_endings(paths: Sequence[str], folder: Path) -> str:
    """What files end in, for a message: `3 .heic (the first is a/1.heic), 1 .txt (...)`."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(os.path.splitext(path)[1].lower() or "without ending", []).append(path)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))
    return shorten(
        [
            f"{len(group):,} {ending} (the first is {os.path.relpath(group[0], folder)})"
            for ending, group in largest
        ]
    )


@dataclass(frozen=True)
class ClassFolders:
    """What is in FOLDER/CLASS."""

    folder: Path
    images: dict[str, list[str]]
    """Class -> paths, both in alphabetical order. Folders in a class folder are of that class."""
    others: list[str]
    """Paths of files that are no images by their names."""
    beside: list[str]
    """Paths of images that lie in no class folder."""
    annotations: tuple[Path, ...] = ()
    """Files that say the classes."""

    @property
    def paths(self) -> list[str]:
        """Of all images, class by class."""
        return [*chain.from_iterable(self.images.values())]

    @property
    def labels(self) -> list[int]:
        """The number of each image's class."""
        return [label for label, paths in enumerate(self.images.values()) for _ in paths]

    def check(self) -> None:
        """Raise UsageError where there is no class, or one without images."""
        folder, endings = self.folder, ", ".join(SUFFIXES)
        others = f"; other files: {describe_endings(self.others, folder)}" if self.others else ""
        if not any(self.images.values()):
            raise UsageError(
                f"{folder} has no images in class folders; it holds "
                f"{shorten(sorted(os.listdir(folder))) or 'nothing'}. "
                f"Expected {folder}/CLASS/*.jpg ({endings}){others}.{describe(folder)}"
            )
        if empty := [name for name, paths in self.images.items() if not paths]:
            raise UsageError(
                f"{folder}: no images ({endings}) in class {shorten(empty)}. "
                f"Fill or remove these folders{others}."
            )

    def refuse_splits(self, has_test: bool = True) -> None:
        """Raise UsageError where classes are named as splits are: training_set, Test.

        Args:
            has_test: whether there is an option for test; else val may be that.
        """
        splits = {
            split: name
            for split in ("train", "test", "val")
            if (name := next((n for n in self.images if n.lower().startswith(split)), None))
        }
        if not has_test and "test" in splits:
            splits = {"val": splits["test"]} | splits
            del splits["test"]
        if "train" in splits and len(splits) > 1:
            options = " ".join(f"--dataset.{split} {name}" for split, name in splits.items())
            raise UsageError(
                f"{self.folder} holds {' and '.join(splits.values())}, which look like splits and "
                f"not like classes. Give {options}, or rename the folders."
            )

    def notes(self) -> list[str]:
        """What a run says about the files: those left out, and those in folders further down."""
        notes = describe_others(self.folder, self.others)
        if self.beside:
            notes.append(
                f"{self.folder}: {len(self.beside):,} images are left out, as they lie in no class "
                f"folder; the first is {Path(self.beside[0]).name}"
            )
        depth = os.path.join(self.folder, "").count(os.sep) + 1
        if deep := [path for path in self.paths if path.count(os.sep) > depth]:
            notes.append(
                f"{self.folder}: {len(deep):,} images in folders of a class folder are read as of "
                f"that class; the first is {os.path.relpath(deep[0], self.folder)}"
            )
        return notes


def describe_others(folder: Path, others: Sequence[str]) -> list[str]:
    """A note on files that are left out, if there are any."""
    if not others:
        return []
    endings = describe_endings(others, folder)
    return [f"{folder}: {len(others):,} files are left out, no images by their names: {endings}"]


def list_classes(folder: Path) -> ClassFolders:
    """The class folders of a folder and their images, unchecked.

    Tiny ImageNet's validation images lie in one folder, `images`; a file beside it says classes.
    """
    paths, others = list_images(folder)
    names, file = class_folders(folder), folder / "val_annotations.txt"
    if names == ["images"] and file.is_file():
        others.remove(str(file))
        return ClassFolders(folder, _group(paths, file), others, [], (file,))
    images = dict[str, list[str]]()
    for name in names:
        # sorted, the paths of a folder lie side by side, and "0" comes next after "/"
        first, end = (bisect_left(paths, os.path.join(folder, name) + mark) for mark in "/0")
        images[name] = paths[first:end]
    beside = list[str]()
    if sum(map(len, images.values())) < len(paths):
        beside = [path for path in paths if os.path.dirname(path) == str(folder)]
    return ClassFolders(folder, images, others, beside)


def _group(paths: list[str], file: Path) -> dict[str, list[str]]:
    """Images by class, of lines `val_0.JPEG<tab>n03444034<tab>0<tab>32<tab>44<tab>62`."""
    text = file.read_text(encoding="utf-8", errors="replace")
    class_of = dict(re.findall(r"^([^\t\n]+)\t([^\t\n]+)", text, re.MULTILINE))
    images = {name: list[str]() for name in sorted({*class_of.values()})}
    for path in paths:
        if not (name := class_of.get(os.path.basename(path))):
            raise UsageError(f"{file} names no class of {path}. Add it, or remove the image.")
        images[name].append(path)
    return images


def class_folders(folder: Path) -> list[str]:
    """Names of the folders in a folder, in alphabetical order; hidden ones are no classes."""
    entries = os.scandir(folder)
    return sorted(entry.name for entry in entries if entry.name[0] != "." and _is_folder(entry))


def _is_plain(content: bytearray) -> bool:
    """Whether all decoders read it alike: JPEG; PNG and WebP of 8 bits, neither moving nor turned.

    An extended WebP (VP8X) may be both.
    """
    if content.startswith(_PNG):
        return content[24:25] != b"\x10" and b"eXIf" not in content
    is_webp = content[8:12] == b"WEBP" and content[12:16] != b"VP8X"
    return is_webp or content.startswith(_JPEG)


@cache
def _decoder() -> Callable[[bytearray], Tensor] | None:
    """What reads a plain file to its stored pixels (3, H, W), of torchvision or TorchCodec."""
    by_torchvision = _by_torchvision if hasattr(torch.ops.image, "decode_image") else None
    release = [int(number) for number in torchvision.__version__.split(".")[:2]]
    if by_torchvision and release < [0, 29]:
        return by_torchvision
    try:
        from torchcodec.decoders import decode_image  # type: ignore[attr-defined]
    except (ImportError, RuntimeError, OSError):  # not installed, or built for another torch
        return by_torchvision
    return lambda content: decode_image(_tensor(_without_exif(content)))


def _by_torchvision(content: bytearray) -> Tensor:
    # the operator behind torchvision.io.decode_image, which warns at each image; 3 is RGB
    return torch.ops.image.decode_image(_tensor(content), 3)


def _tensor(content: bytearray) -> Tensor:
    return torch.frombuffer(content, dtype=torch.uint8)


def _without_exif(content: bytearray) -> bytearray:
    """In place: the APP1 segments of a JPEG become APP15, which no decoder looks at."""
    place = 2
    while content.startswith(_JPEG) and place < len(content) - 3:
        marker = content[place + 1]
        if content[place] != 0xFF or not 0xC0 <= marker < 0xFF:  # filling, or rubbish
            place += 1
        elif marker == 0xDA:  # the pixels begin
            break
        else:
            if marker == 0xE1:
                content[place + 1] = 0xEF
            place += 2 + int.from_bytes(content[place + 2 : place + 4])
    return content


def _by_pillow(source: object, content: bytearray) -> Tensor:
    """The stored pixels (3, H, W) of any file."""
    file = BytesIO(content)
    with Image.open(file) as image:
        if not _has_eight_bits(image, content):
            raise UsageError(
                f"image {source} has the mode {image.mode}; 8 bits a channel are read: convert it."
            )
        # Pillow turns TIFF, and TIFF alone, when it loads the pixels: back to the stored
        turned = _header(image, file).orientation if image.format == "TIFF" else 1
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
        return turn(pixels, {6: 8, 8: 6}.get(turned, turned))


def _header(image: Image.Image, file: BinaryIO) -> ImageHeader:
    """Before the pixels are loaded."""
    has_tag = image.format != "PNG" or "exif" in image.info or _has_late_exif(file)
    tag = image.getexif().get(ExifTags.Base.Orientation, 1) if has_tag else 1
    orientation = tag if tag in range(1, 9) else 1
    width, height = image.size
    if image.format == "TIFF" and orientation in _SWAPS_SIDES:  # Pillow gives the displayed size
        width, height = height, width
    return ImageHeader((width, height), int(orientation))


def _has_late_exif(file: BinaryIO) -> bool:
    """Whether a PNG has EXIF data behind its pixels; Pillow would decode these to look for it."""
    place = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            if head[4:] == b"eXIf":
                return True
            file.seek(int.from_bytes(head[:4]) + 4, os.SEEK_CUR)  # its content and checksum
    finally:
        file.seek(place)  # from where Pillow goes on
    return False


def _has_eight_bits(image: Image.Image, content: bytearray) -> bool:
    bits = getattr(image, "tag_v2", {}).get(ExifTags.Base.BitsPerSample, 8)
    if image.format == "PNG":
        bits = content[24]
    # Pillow cuts TIFF and PNG of 16 bits and three colours to 8, without a word
    return image.mode in _EIGHT_BITS and max(bits if isinstance(bits, tuple) else (bits,)) <= 8
