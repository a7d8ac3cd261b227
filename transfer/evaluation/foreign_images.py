"""Images of no known class: sets of a user's, and noise.

Noise is that of ODIN's code (ShiyuLiang/odin-pytorch, calData.py), from where the sets of CutMix's
appendix E come: pixels uniform in [0, 1], and Gaussian of mean 0.5 and standard deviation 1,
clipped to [0, 1]; at the network's input size, each value on its own. Here they are rounded to the
256 levels of a picture.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor

from pretrain.cache import hash_sample
from pretrain.data import Images
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.images import ImageFiles, ImageShards
from pretrain.errors import UsageError
from pretrain.images import SUFFIXES, ImageSource, describe_others, list_images
from pretrain.shards import ShardedImage
from pretrain.training import generator
from transfer.stores import refuse_store

NOISE = ("uniform", "gaussian")


@dataclass(frozen=True)
class NoiseImages:
    """Images of noise, each a function of the seed and its number."""

    kind: str
    """Of NOISE."""
    count: int
    height: int
    width: int
    seed: int

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Tensor:
        """Image `index` as uint8 (3, H, W)."""
        draw = generator(self.seed, "sample", NOISE.index(self.kind), index)
        shape = (3, self.height, self.width)
        if self.kind == "uniform":
            return torch.randint(256, shape, dtype=torch.uint8, generator=draw)
        pixels = torch.randn(shape, generator=draw).add_(0.5).clamp_(0, 1)
        return pixels.mul_(255).round_().to(torch.uint8)


def name_and_folder(text: str) -> tuple[str, Path]:
    """What DIR or NAME=DIR says; a set without a name is called as its folder is.

    Raises:
        UsageError: it names no folder.
    """
    name, equals, folder = text.partition("=")
    if not (folder if equals else name):
        raise UsageError(f"--ood.foreign is {text!r}; it must be DIR or NAME=DIR.")
    if equals and name and not os.path.exists(text):
        return name, Path(folder)
    return Path(text).resolve().name, Path(text)


def open_foreign(folder: Path) -> Images:
    """The images in a folder and in all below it, or the test images of CIFAR's pickles.

    Raises:
        UsageError: there is no such folder, or no image in it.
    """
    refuse_store(folder, "--ood.foreign takes folders")
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "is not there"
        raise UsageError(f"--ood.foreign: {folder} {problem}; a folder of images is needed.")
    if (cifar := find_cifar(folder)) is not None:
        return open_cifar(*cifar)[1]
    paths, others = list_images(folder)
    if not paths:
        raise UsageError(
            f"--ood.foreign: there are no images ({', '.join(SUFFIXES)}) in {folder} or below it."
        )
    return ImageFiles.of(["foreign"], paths, [0] * len(paths), describe_others(folder, others))


def content_files(images: Images) -> list[ImageSource]:
    """The files that hold the images, one each, or where they lie in shards; CIFAR's pickles."""
    if isinstance(images, ImageShards):
        return [ShardedImage(images.reader, number) for number in range(len(images))]
    return [*map(Path, images.paths)] or [*images.annotations]


def files_by_size(files: Iterable[ImageSource]) -> dict[int, list[ImageSource]]:
    """Files that can be read, by their bytes."""
    sizes = defaultdict[int, list[ImageSource]](list)
    for file in files:
        if isinstance(file, ShardedImage):
            sizes[int(file.reader.index.columns["size"][file.number])].append(file)
        elif os.path.isfile(str(file)):
            sizes[os.path.getsize(str(file))].append(file)
    return sizes


def count_shared(files: Iterable[ImageSource], known: Mapping[int, list[ImageSource]]) -> int:
    """How many files have the content of a known one, as the digest of the data sees it.

    Args:
        files: see `content_files`.
        known: see `files_by_size`; of these only files of a size that is met are read.
    """
    shared = 0
    for size, same_size in files_by_size(files).items():
        if size in known:
            contents = set(map(_content, known[size]))
            shared += sum(_content(file) in contents for file in same_size)
    return shared


def _content(file: ImageSource) -> str:
    if isinstance(file, ShardedImage):
        return hash_sample(BytesIO(file.read_bytes()))
    with open(str(file), "rb", buffering=0) as opened:
        return hash_sample(opened)
