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
from pathlib import Path

import torch
from torch import Tensor

from pretrain.cache import hash_sample
from pretrain.data import Images
from pretrain.data.cifar import find_cifar, open_cifar
from pretrain.data.images import ImageFiles
from pretrain.errors import UsageError
from pretrain.images import SUFFIXES, describe_others, list_images
from pretrain.training import generator

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


def content_files(images: Images) -> list[str]:
    """The files that hold the images: one each, or CIFAR's pickles."""
    return [*images.paths] or [str(path) for path in images.annotations]


def files_by_size(paths: Iterable[str]) -> dict[int, list[str]]:
    """Files that can be read, by their bytes."""
    sizes = defaultdict[int, list[str]](list)
    for path in paths:
        if os.path.isfile(path):
            sizes[os.path.getsize(path)].append(path)
    return sizes


def count_shared(paths: Iterable[str], known: Mapping[int, list[str]]) -> int:
    """How many files have the content of a known one, as the digest of the data sees it.

    Args:
        paths: of files.
        known: see `files_by_size`; of these only files of a size that is met are read.
    """
    shared = 0
    for size, same_size in files_by_size(paths).items():
        if size in known:
            contents = set(map(_content, known[size]))
            shared += sum(_content(path) in contents for path in same_size)
    return shared


def _content(path: str) -> str:
    with open(path, "rb", buffering=0) as file:
        return hash_sample(file)
