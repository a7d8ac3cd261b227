"""Trains a tiny network on DATA and prints the memory of its processes on the way, as JSON.

python -m tests.steady_memory DATA STEPS AT: after AT steps and at the end, MiB of the training
process and of each of its two loader processes; what they share is divided among them (PSS).
"""

import json
import sys
import tempfile
from pathlib import Path

import torch

from pretrain.config import (
    DatasetConfig,
    LoaderConfig,
    MixingConfig,
    ModelConfig,
    OptimizerConfig,
    PretrainConfig,
)
from pretrain.engine import train_step
from pretrain.run import Run
from pretrain.setup import build, setup_training
from pretrain.training import TrainLoop, make_fabric


def proportional_set_size(process: int) -> float:
    """MiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(data: str, steps: int, after: int) -> dict[int, list[float]]:
    """Memory by step."""
    config = PretrainConfig(
        data=data,
        duration=f"{steps} steps",
        batch_size=4,
        loader=LoaderConfig(workers=2),
        dataset=DatasetConfig(image_size=16, crop_pct=1.0),
        model=ModelConfig(arch="test_resnet"),
        optimizer=OptimizerConfig(lr=1e-3, clip_norm=1.0, ema=0.9),
        mixing=MixingConfig(),
    )
    fabric, setup = make_fabric("cpu"), build(config)
    state, loaders = setup_training(setup, config, fabric)
    state.model.train()
    run, found = Run(Path(tempfile.mkdtemp()) / "run"), {}
    run.start({}, None, {})
    loop = TrainLoop(run, fabric, state, loaders.train, config, num_metrics=2)
    with loop.running("memory"):
        for epoch in loop.epochs():
            for step, parts in loop.steps(epoch):
                loop.finish_step(train_step(state, loaders, setup, config, fabric, step, parts))
                if step + 1 in (after, steps):
                    workers = loaders.train._loader._iterator._workers  # type: ignore[union-attr]
                    processes = ["self", *(worker.pid for worker in workers)]
                    found[step + 1] = [round(proportional_set_size(p), 1) for p in processes]
            loop.finish_epoch({"loss": loop.means()[0]})
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
