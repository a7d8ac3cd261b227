"""Images that a user gives a trained network: one file, or a folder of them."""

from pathlib import Path
from typing import NamedTuple

from pretrain.errors import UsageError, shorten
from pretrain.images import SUFFIXES, describe_others, list_images, read_header
from pretrain.progress import log


class ImageFile(NamedTuple):
    """An image whose head can be read."""

    name: str
    """Its path in the folder, without its ending."""
    path: Path
    width: int
    """Of the pixels as they are read, as `height`."""
    height: int
    apply_exif: bool
    """It is to be turned by its EXIF orientation."""


def find_images(path: Path, exif: str = "apply") -> list[ImageFile]:
    """An image, or those of a folder and of folders in it.

    Hidden files are passed over; other files, and what is no image, are logged.

    Args:
        path: of the image or the folder.
        exif: apply turns photos as their EXIF orientation says; ignore leaves them as stored.

    Raises:
        UsageError: nothing there, or two files of one name but for the ending.
    """
    if not path.exists():
        raise UsageError(f"there is no file or folder {path} with images.")
    folder = path if path.is_dir() else path.parent
    files, others = list_images(path) if path.is_dir() else ([str(path)], [])
    for note in describe_others(folder, others):
        log(f"note: {note}")
    images: dict[str, ImageFile] = {}
    turned: list[str] = []
    for file in map(Path, files):
        name, header = file.relative_to(folder).with_suffix("").as_posix(), read_header(file)
        if header is None:
            log(f"left out: {file} is no image, or cut short")
            continue
        if name in images:
            raise UsageError(f"{path} has two images called {name}; they would be one image_id.")
        turned += [name] if header.orientation != 1 else []
        is_turned = exif == "apply" and header.orientation != 1
        width, height = header.displayed_size if is_turned else header.size
        images[name] = ImageFile(name, file, width, height, is_turned)
    if not images:
        raise UsageError(f"{path} is no image and no folder with images ({', '.join(SUFFIXES)}).")
    if turned:
        how = "turned as it says" if exif == "apply" else "taken as stored"
        names = shorten(turned, 2)
        log(f"note: {len(turned):,} photos have an EXIF orientation and are {how}: {names}")
    return list(images.values())
