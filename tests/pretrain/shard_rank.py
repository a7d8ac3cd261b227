"""One of several processes that read a store as a training does: which samples in which step.

    python shard_rank.py STORE OUT WORKERS ACCUMULATE EPOCH FIRST [STEPS]

Each sample is a picture whose colour says its number (see test_shards.make_store). OUT/RANK.txt
has a line for each micro-batch. After STEPS it only waits, to be killed.
"""

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import distributed

from pretrain.config import DatasetConfig, LoaderConfig, ModelConfig, PretrainConfig
from pretrain.setup import _loaders, build

store, out, workers, accumulate, epoch, first, *most = sys.argv[1:]
config = PretrainConfig(
    data=store,
    batch_size=12,
    accumulate=int(accumulate),
    model=ModelConfig(arch="test_byobnet"),
    dataset=DatasetConfig(image_size=32, shard_window=3),
    loader=LoaderConfig(workers=int(workers)),
)
distributed.init_process_group("gloo")
rank, ranks = distributed.get_rank(), distributed.get_world_size()
fabric = SimpleNamespace(global_rank=rank, world_size=ranks, device=torch.device("cpu"))
train, _ = _loaders(build(config), config, fabric)
with open(Path(out, f"{rank}.txt"), "w") as file:
    for step, (images, labels) in enumerate(train.epoch(int(epoch), int(first)), 1):
        numbers = images[:, 0, 8, 8].int() * 256 + images[:, 1, 8, 8].int()
        assert (numbers % 3 == labels).all()
        print(*numbers.tolist(), file=file, flush=True)
        if most and step == int(most[0]):
            time.sleep(600)
distributed.barrier()
distributed.destroy_process_group()
