"""Seeds: everything random is a function of where it stands, never of what ran before.

    order of the samples        (seed, epoch); in a window of shards (seed, epoch, window)
    augmentation of a sample    (seed, epoch, index)
    flips, colours, mixing      (seed, step, micro-batch of the step)
    captions sampled            (seed, step), a row an image of the step
    packing into shards         (seed)
    dropout, RPN sampling, ...  (seed, step, micro-batch): libraries draw from ambient generators

So any number of loader workers gives the same bits, as does any way to spread the micro-batches of
a step over processes, and a run can continue from any step. Seeds are hashed, never packed: torch's
CPU generator uses only the low 32 bits of a seed.
"""

import random
from collections.abc import Sequence
from itertools import permutations
from typing import Any, Literal, get_args

import numpy as np
import torch

Purpose = Literal[
    "order",
    "sample",
    "step",
    "mixing",
    "weights",
    "pixels",
    "rotation",
    "captions",
    "packing",
    "window",
]
_PURPOSES = get_args(Purpose)  # the place in the list is part of each seed: add at the end


def derive(seed: int, purpose: Purpose, *numbers: int) -> int:
    """A 32-bit seed for one purpose at one place; all numbers non-negative.

    NumPy fills what is short up with zeros: a purpose has always as many numbers.
    """
    words = [seed, _PURPOSES.index(purpose), *numbers]
    return int(np.random.SeedSequence(words).generate_state(1)[0])


def derive_each(seed: int, purpose: Purpose, number: int, last: Sequence[int]) -> list[int]:
    """`derive` for several places that differ in their last number, all below 2^32: at once.

    NumPy's SeedSequence written out for arrays (its results are fixed, NEP 19): one by one they
    would cost a loader process as much as reading the files.
    """
    words = [seed, _PURPOSES.index(purpose), number, np.array(last, np.uint32)]
    if seed >= 2**32:  # of several words there
        return [derive(seed, purpose, number, one) for one in last]
    factor = 0x43B0D7E5

    def hashed(value: Any) -> Any:
        nonlocal factor
        value = value ^ np.uint32(factor)
        factor = factor * 0x931E8875 % 2**32
        value = value * np.uint32(factor)
        return value ^ value >> np.uint32(16)

    pool = [hashed(np.atleast_1d(np.asarray(word, np.uint32))) for word in words]
    for source, target in permutations(range(4), 2):
        mixed = pool[target] * np.uint32(0xCA01F9DD) - hashed(pool[source]) * np.uint32(0x4973F715)
        pool[target] = mixed ^ mixed >> np.uint32(16)
    first = (pool[0] ^ np.uint32(0x8B51F9DD)) * np.uint32(0x8B51F9DD * 0x58F38DED % 2**32)
    seeds: list[int] = (first ^ first >> np.uint32(16)).tolist()
    return seeds


def generator(seed: int, purpose: Purpose, *numbers: int) -> torch.Generator:
    """A CPU generator for one purpose at one place."""
    return torch.Generator().manual_seed(derive(seed, purpose, *numbers))


def seed_ambient(value: int) -> None:
    """Seed every generator that a library may draw from: Python's, NumPy's, torch's.

    On the CPU and on CUDA; Apple's GPUs keep a generator of their own, so dropout there does not
    repeat.

    Cheap enough for each sample (torch.manual_seed alone would cost 114 us, this 15 us).
    """
    random.seed(value)
    np.random.seed(value)
    torch.default_generator.manual_seed(value)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(value)
