"""What every loop of ours needs once: seeds, batches, schedules, stopping and resuming, devices."""

from pretrain.training.course import Course
from pretrain.training.devices import Device, Precision, make_fabric
from pretrain.training.loader import Loader, Samples
from pretrain.training.schedule import schedule
from pretrain.training.seeds import derive, generator, seed_ambient

__all__ = [
    "Course",
    "Device",
    "Loader",
    "Precision",
    "Samples",
    "derive",
    "generator",
    "make_fabric",
    "schedule",
    "seed_ambient",
]
