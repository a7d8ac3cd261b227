"""What every loop of ours needs once: seeds, batches, schedules, stopping and resuming, devices."""

from pretrain.training.devices import Device, Precision, make_fabric, out_of_memory_hint
from pretrain.training.loader import BatchSampler, InMemoryLoader, Loader, Samples
from pretrain.training.schedule import schedule
from pretrain.training.seeds import derive, generator, seed_ambient
from pretrain.training.train_loop import MicroBatch, TrainLoop, micro_batches

__all__ = [
    "BatchSampler",
    "Device",
    "InMemoryLoader",
    "Loader",
    "MicroBatch",
    "Precision",
    "Samples",
    "TrainLoop",
    "derive",
    "generator",
    "make_fabric",
    "micro_batches",
    "out_of_memory_hint",
    "schedule",
    "seed_ambient",
]
