"""What every loop of ours needs once: seeds, batches, schedules, stopping and resuming, devices."""

from pretrain.training.course import Course, Part, parts_of
from pretrain.training.devices import Device, Precision, make_fabric, memory_in_words
from pretrain.training.loader import Batches, Loader, ResidentLoader, Samples
from pretrain.training.schedule import schedule
from pretrain.training.seeds import derive, generator, seed_ambient

__all__ = [
    "Batches",
    "Course",
    "Device",
    "Loader",
    "Part",
    "Precision",
    "ResidentLoader",
    "Samples",
    "derive",
    "generator",
    "make_fabric",
    "memory_in_words",
    "parts_of",
    "schedule",
    "seed_ambient",
]
