"""Gradients of two processes that mix features, each with its own micro-batch.

    python -m tests.pretrain.mixing.two_processes FOLDER

prints those of both as JSON. A program of its own, since a test run that has compiled a network
cannot be forked.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from pretrain.mixing import FeatureCutMix, FeatureLevels, ManifoldMixup, forward

CLASSES = 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(count: int, size: tuple[int, int] = (32, 32)) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, *size, generator=seeded(7)), torch.arange(count) % CLASSES


class Small(nn.Module):
    """Three levels, one of them with BatchNorm behind it; no augmentation inside."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 4, 3, stride=2), nn.Conv2d(4, 6, 3)
        self.norm, self.fc = nn.BatchNorm2d(6), nn.Linear(6, CLASSES)

    def forward(self, images):
        features = self.norm(self.conv2(self.conv1(images).relu())).relu()
        return self.fc(features.mean((2, 3)))


def small(with_norm: bool = True) -> tuple[nn.Module, list]:
    """The network and both methods at both levels."""
    torch.manual_seed(0)
    model = Small()
    if not with_norm:
        model.norm = nn.Identity()
    hooked = FeatureLevels(model, ("conv1", "conv2"))
    options = {"levels": hooked, "granularity": "sample"}
    return model, [ManifoldMixup(**options), FeatureCutMix(at=(0, 1, 2), **options)]


def loss_of_micro_batch(number: int, mix: Any, model: Any) -> Tensor:
    """Of four of eight images, mixed with one another."""
    images, labels = batch(8)
    part = slice(4 * number, 4 * number + 4)
    mixed = mix(images[part], labels[part], CLASSES, seeded(20 + number))
    return functional.cross_entropy(*forward(model, mixed))


def gradients(process: int, folder: Path, queue: Any) -> None:
    """Of one of the processes, after all methods."""
    place = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=place, rank=process, world_size=2)
    model, methods = small(with_norm=False)
    wrapped = DistributedDataParallel(model)
    for mix in methods:
        loss_of_micro_batch(process, mix, wrapped).backward()
    queue.put([parameter.grad.tolist() for parameter in model.parameters()])
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    for process in (0, 1):
        context.Process(target=gradients, args=(process, Path(sys.argv[1]), queue)).start()
    print(json.dumps([queue.get(timeout=60) for _ in (0, 1)]))
