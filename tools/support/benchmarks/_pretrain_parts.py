"""What the pretraining benchmark measures: this project and timm's train.py, on one device.

`options` are those of tools/support/benchmarks/pretrain.py.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain, count, islice, product, repeat
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

import numpy as np
import timm
import torch
from timm.data.dataset_factory import create_dataset
from timm.data.loader import create_loader
from timm.data.mixup import Mixup as TimmMixup
from timm.loss.cross_entropy import SoftTargetCrossEntropy
from timm.optim._optim_factory import create_optimizer_v2
from torch.nn import functional

from pretrain import config
from pretrain.engine import train_step
from pretrain.images import class_folders
from pretrain.setup import Loaders, build, setup_training
from pretrain.training import make_fabric, micro_batches
from tools.support.benchmarks._timing import peak_memory_mib, table, take_turns, wait

Step = Callable[[Any], None]
"""A training step on a batch."""
OURS, TIMM_LAST, TIMM = SIDES = ("ours", "timm, channels_last", "timm")


def measure_loader(options: Any) -> str:
    """Images a second and core, from files to batches that a network takes.

    One thread, as every loader process has.
    """
    (loaders, _), theirs = our_training(options, 0), timm_loader(options, 0)
    num_images = len(loaders.train) * options.batch  # both leave out what does not fill a batch

    def read_ours() -> None:
        rng = np.random.default_rng(0)
        for images, _ in loaders.train.epoch(0):
            loaders.pixels.augmented(images, rng)

    sides = {OURS: read_ours, TIMM: lambda: deque(theirs, maxlen=0)}
    torch.set_num_threads(1)
    best = take_turns(sides, options.rounds, clock=time.process_time)
    torch.set_num_threads(options.threads)
    rows = [[n, f"{num_images / best[n]:.0f}", f"{best[TIMM] / best[n]:.2f}"] for n in sides]
    return (
        f"Loader: {num_images} photographs of {options.images.name} to normalised batches of "
        f"{options.size} pixels, random resized crop and flip, one thread, by processor time:\n\n"
        + table(["", "images a second and core", "times timm"], rows)
    )


def measure_step(options: Any) -> str:
    """A training step on a batch that is there."""
    draws = torch.Generator().manual_seed(0)
    shape = (options.batch, 3, options.size, options.size)
    pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draws).to(options.device)
    classes = len(class_folders(options.images))
    labels = torch.randint(0, classes, (options.batch,), generator=draws).to(options.device)
    loaders, ours = our_training(options, 0)
    last = loaders.pixels.normalised(pixels)
    first = last.contiguous()
    theirs_last, theirs = (open_side(side, options, 0)[1] for side in (TIMM_LAST, TIMM))
    # forward, backward and optimizer of the same network
    bare = timm_step(options, torch.channels_last, functional.cross_entropy, lambda *batch: batch)
    sides: dict[str, Callable[[], object]] = {
        OURS: lambda: ours((pixels, labels)),
        TIMM_LAST: lambda: theirs_last((last.clone(), labels)),
        TIMM: lambda: theirs((first.clone(), labels)),
        "the network alone": lambda: bare((last, labels)),
    }
    best = take_turns(sides, options.rounds)
    rest = 100 * (1 - best.pop("the network alone") / best[OURS])
    return (
        f"Training step, {_setting(options)} (ours from bytes, with normalisation and flip; timm's "
        f"from normalised images):\n\n{_ratios(best, options.batch)}\n\n"
        f"Not the network (forward, backward, optimizer): {rest:.1f} % of our step."
    )


def measure_pipeline(options: Any) -> str:
    """From files to updated weights, loader processes beside the training."""

    def take_steps(batches: Iterator[Any], step: Step) -> None:
        for batch in islice(batches, options.steps):
            step(batch)

    sides = {s: partial(take_steps, *open_side(s, options, options.workers)) for s in SIDES}
    best = take_turns(sides, options.rounds)
    return (
        f"Whole pipeline, {_setting(options)}, {options.workers} loader process(es), rounds of "
        f"{options.steps} steps:\n\n" + _ratios(best, options.batch * options.steps)
    )


def measure_memory(options: Any) -> str:
    """Peak of processes of their own that make three steps each, files included.

    Several, because the allocator of a CPU makes one process need some 200 MiB more than the next.
    """
    code = f"import sys; from {__name__} import take_three_steps as take; take(*sys.argv[1:])"
    values = json.dumps(vars(options), default=str)
    peaks: dict[str, list[float]] = {side: [] for side in SIDES}
    for _, side in product(range(options.rounds), SIDES):
        peaks[side].append(peak_memory_mib(code, options.device, side, values))
    rows = [
        [side, *(f"{value:,.0f}" for value in (min(mib), median(mib), max(mib)))]
        for side, mib in peaks.items()
    ]
    return (
        f"Peak memory of a training process, {_setting(options)}, {options.rounds} process(es) a "
        "side:\n\n" + table(["MiB", "least", "median", "most"], rows)
    )


def take_three_steps(side: str, values: str) -> None:
    """One side alone, for its memory; `values` are the options as JSON."""
    options = SimpleNamespace(**json.loads(values))
    options.images = Path(options.images)
    torch.set_num_threads(options.threads)
    batches, step = open_side(side, options, 0)
    for batch in islice(batches, 3):
        step(batch)


def our_training(options: Any, workers: int, split: str = ".") -> tuple[Loaders, Step]:
    """Our loaders of a split, and a step of our engine on (uint8 images, labels)."""
    recipe = config.PretrainConfig(
        data=str(options.images),
        dataset=config.DatasetConfig(train=split, val=split, image_size=options.size),
        loader=config.LoaderConfig(workers=workers),
        model=config.ModelConfig(arch=options.arch),
        optimizer=config.OptimizerConfig(no_decay="norms_and_biases"),
        precision=options.precision,
        batch_size=options.batch,
    )
    fabric, setup = make_fabric(options.device, options.precision), build(recipe)
    state, loaders = setup_training(setup, recipe, fabric)
    state.model.train()
    numbers = count()

    def step(batch: Any) -> None:
        number = next(numbers)
        parts = micro_batches(number, [batch], loaders.train, fabric, recipe.seed)
        train_step(state, loaders, setup, recipe, fabric, number, parts)
        wait(options.device)

    return loaders, step


def timm_loader(options: Any, workers: int) -> Any:
    """Timm's loader as its train.py makes it: normalised batches on the device."""
    dataset = create_dataset("", root=str(options.images), split="train", search_split=False)
    return create_loader(
        dataset,
        input_size=(3, options.size, options.size),
        batch_size=options.batch,
        is_training=True,
        hflip=0.5,
        color_jitter=None,  # type: ignore[arg-type]
        interpolation="bilinear",
        num_workers=workers,
        device=torch.device(options.device),
        persistent_workers=workers > 0,
    )


def open_side(side: str, options: Any, workers: int) -> tuple[Iterator[Any], Step]:
    """Batches, epoch after epoch, and a step on them: (uint8 or normalised images, labels)."""
    if side == OURS:
        loaders, step = our_training(options, workers)
        return chain.from_iterable(map(loaders.train.epoch, count())), step
    layout = torch.channels_last if side == TIMM_LAST else torch.contiguous_format
    classes = len(class_folders(options.images))
    mixup = TimmMixup(mixup_alpha=0, cutmix_alpha=1.0, label_smoothing=0, num_classes=classes)
    batches = chain.from_iterable(repeat(timm_loader(options, workers)))
    return batches, timm_step(options, layout, SoftTargetCrossEntropy(), mixup)


def timm_step(options: Any, layout: Any, loss_function: Any, mix: Callable[..., Any]) -> Step:
    """A step as timm's train.py makes it on (normalised images, labels)."""
    model: Any = timm.create_model(options.arch, num_classes=len(class_folders(options.images)))
    model = model.to(options.device, memory_format=layout).train()
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.1, momentum=0.9, weight_decay=1e-4)
    half = options.precision == "bf16-mixed"

    def step(batch: Any) -> None:
        images, labels = mix(*batch)
        images = images.contiguous(memory_format=layout)
        with torch.autocast(options.device, torch.bfloat16, enabled=half):
            loss = loss_function(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        wait(options.device)

    return step


def _setting(o: Any) -> str:
    return f"{o.arch}, {o.size} pixels, batch {o.batch}, {o.precision}, CutMix"


def _ratios(best: dict[str, float], images: int) -> str:
    speed = {name: images / seconds for name, seconds in best.items()}
    rows = [
        [name, f"{value:.4g}", f"{value / speed[TIMM]:.2f}", f"{value / speed[TIMM_LAST]:.2f}"]
        for name, value in speed.items()
    ]
    return table(["", "images/s", "times timm", "times timm, channels_last"], rows)
