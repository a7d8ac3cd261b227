"""What the mixing benchmark measures; `options` are those of tools/support/benchmarks/mixing.py."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from functools import partial
from itertools import chain
from typing import Any, get_args

import numpy as np
import timm
import torch
from timm.data.loader import fast_collate
from timm.data.mixup import FastCollateMixup
from timm.data.mixup import Mixup as TimmMixup
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from pretrain.config import MixingConfig
from pretrain.data.pixels import Pixels
from pretrain.mixing import Granularity, Mix, forward, mix_at, network_parts
from pretrain.mixing.schedule import METHODS, NETWORK_PARTS
from tools.support.benchmarks._timing import make_available, table, take_turns, wait

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 1000
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
SLOW = ("saliencymix",)
"""Without a network, but to be compared with a step of one."""
TRANSFORMER = "deit_tiny_patch16_224"
Pass = Callable[[Tensor, Tensor], object]
"""From images, uint8 (N, 3, H, W), and labels (N,) to a mixed batch of normalised floats."""


def measure_pixels(options: Any) -> str:
    """Each way to mix, in times of `base`, in both memory layouts."""
    rows: dict[str, list[str]] = {}
    kornia = {"kornia CutMix, sample": "RandomCutMixV2", "kornia MixUp, sample": "RandomMixUpV2"}
    of_kornia = make_available(lambda name: kornia_pass(kornia[name], options.device), kornia)
    for layout in LAYOUTS.values():
        images, labels = random_batch(options, options.batch)
        images = images.contiguous(memory_format=layout)
        pixels = Pixels(mean=MEAN, std=STD, flip=0.5, memory_format=layout)
        passes = our_passes(options, pixels) | other_passes(options, layout) | of_kornia
        sides = {
            name: partial(several, one_pass, options, images, labels)
            for name, one_pass in passes.items()
        }
        best = take_turns(sides, options.rounds)
        for name, seconds in best.items():
            speed = options.draws * options.batch / seconds
            figures = f"{seconds / best['base']:.2f}", f"{1e3 * seconds / options.draws:.1f}"
            rows.setdefault(name, [name]).extend([*figures, f"{speed:,.0f}"])
    shape = f"{options.batch} x 3 x {options.size} x {options.size}"
    heads = [f"{layout}: times base|ms|images/s".split("|") for layout in LAYOUTS]
    return (
        f"From {shape} uint8 to mixed float32 on {options.device}, memory {options.memory}; base: "
        "cast, flip, normalise:\n\n" + table(["", *chain(*heads)], list(rows.values()))
    )


def random_batch(options: Any, count: int) -> tuple[Tensor, Tensor]:
    """Images of noise (N, 3, H, W), uint8, and labels (N,), on the device."""
    draws = torch.Generator().manual_seed(0)
    size = (count, 3, options.size, options.size)
    images = torch.randint(0, 256, size, dtype=torch.uint8, generator=draws)
    labels = torch.randint(0, CLASSES, (count,), generator=draws)
    return images.to(options.device), labels.to(options.device)


def several(one_pass: Pass, options: Any, images: Tensor, labels: Tensor) -> None:
    """`draws` passes, the same in every round; others draw from the global generators."""
    torch.manual_seed(0)
    np.random.seed(0)
    for _ in range(options.draws):
        one_pass(images, labels)
    wait(options.device)


def our_passes(options: Any, pixels: Pixels) -> dict[str, Pass]:
    """`base`, and our methods at each granularity that they have."""

    def base(images: Tensor, labels: Tensor) -> object:
        return pixels.augmented(images, np.random.default_rng(int(torch.randint(2**31, ()))))

    def mixed(mix: Mix, images: Tensor, labels: Tensor) -> object:
        seed = int(torch.randint(2**31, ()))
        generator = torch.Generator().manual_seed(seed)
        draw = np.random.default_rng(seed)
        return pixels.mixed(mix, images, labels, CLASSES, draw, generator)

    passes: dict[str, Pass] = {"base": base}
    for method in options.methods:
        names = {entry.name for entry in fields(METHODS[method])}
        if names & NETWORK_PARTS or method in SLOW:
            continue
        for granularity in get_args(Granularity) if "granularity" in names else (None,):
            given: Any = {"granularity": granularity} if granularity else {}
            title = f"{method}, {granularity}" if granularity else method
            mix = mix_at(MixingConfig(method=method, **given), 0)
            passes[title] = partial(mixed, mix)
    return passes


def other_passes(options: Any, layout: torch.memory_format) -> dict[str, Pass]:
    """Those of timm and torchvision, each as it is documented.

    timm's loader gives contiguous batches, and its train.py changes the layout of mixed ones.
    """
    device = options.device
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    v2_floats = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])

    def timm_device(mixup: Any, images: Tensor, labels: Tensor) -> object:
        floats = images.contiguous().to(torch.float32).sub_(mean).div_(std)
        mixed, targets = mixup(floats, labels)
        return mixed.contiguous(memory_format=layout), targets

    def timm_collate(mixup: Any, images: Tensor, labels: Tensor) -> object:
        samples = list(zip(images.contiguous().numpy(), labels.tolist(), strict=True))
        mixed, targets = mixup(samples)
        floats = mixed.to(torch.float32).sub_(mean).div_(std)
        return floats.contiguous(memory_format=layout), targets

    def torchvision(mix: Any, images: Tensor, labels: Tensor) -> object:
        return mix(v2_floats(images), labels)

    passes: dict[str, Pass] = {}
    for name, alphas in {"CutMix": (0.0, 1.0), "Mixup": (1.0, 0.0)}.items():
        for mode in ("batch", "pair", "elem"):
            mixup = TimmMixup(*alphas, mode=mode, num_classes=CLASSES)
            passes[f"timm {name}, {mode}"] = partial(timm_device, mixup)
        for mode in ("batch", "pair", "elem", "half") if device == "cpu" else ():
            mixup = FastCollateMixup(*alphas, mode=mode, num_classes=CLASSES)
            passes[f"timm {name} in collate, {mode}"] = partial(timm_collate, mixup)
    passes["timm, unmixed"] = partial(timm_device, lambda *batch: batch)
    if device == "cpu":
        passes["timm, unmixed, from samples"] = partial(timm_collate, fast_collate)
    passes["torchvision CutMix, batch"] = partial(torchvision, v2.CutMix(num_classes=CLASSES))
    passes["torchvision MixUp, batch"] = partial(torchvision, v2.MixUp(num_classes=CLASSES))
    return passes


def kornia_pass(name: str, device: str) -> Pass:
    """One of kornia's, behind its normalisation."""
    from kornia import augmentation

    mix = getattr(augmentation, name)(p=1.0, data_keys=["input", "class"])
    mean, std = (torch.tensor(values, device=device) for values in (MEAN, STD))
    normalise = augmentation.Normalize(mean, std)
    return lambda images, labels: mix(normalise(images.float() / 255), labels)


def measure_network(options: Any) -> str:
    """Training steps with what needs a network, in times of one without mixing."""
    rows = []
    asked = {m: {entry.name for entry in fields(METHODS[m])} for m in options.methods}
    needy = [m for m in asked if asked[m] & NETWORK_PARTS or m in SLOW]
    for arch in (options.arch, TRANSFORMER):
        names = [m for m in needy if ("attention" in asked[m]) == (arch == TRANSFORMER)]
        if not names:
            continue
        steps = dict(training_steps(options, arch, ["none", "cutmix", *names]))
        best = take_turns(steps, options.rounds)
        for name, seconds in best.items():
            milliseconds = f"{1e3 * seconds / options.draws:,.0f}"
            rows.append([name, arch, f"{seconds / best['none']:.2f}", milliseconds])
    return (
        f"Training steps (forward, backward, SGD) of batches of {options.network_batch}, "
        f"{options.size} pixels, float32, {options.device}:\n\n"
        + table(["", "network", "times none", "ms"], rows)
    )


def training_steps(
    options: Any, arch: str, methods: Sequence[Any]
) -> Iterator[tuple[str, Callable[[], object]]]:
    """(method, `draws` training steps with it) of one network each."""
    images, labels = random_batch(options, options.network_batch)
    pixels = Pixels(mean=MEAN, std=STD, flip=0.5, memory_format=torch.channels_last)
    for method in methods:
        config = MixingConfig(method=method)
        size = {"img_size": options.size} if arch == TRANSFORMER else {}
        model: Any = timm.create_model(arch, num_classes=CLASSES, **size)
        model = model.to(options.device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        mix = mix_at(config, 0, parts=network_parts(config, model))

        def step(
            images: Tensor, labels: Tensor, mix: Mix = mix, model: Any = model, sgd: Any = optimizer
        ) -> None:
            generator = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
            draw = np.random.default_rng(0)
            mixed = pixels.mixed(mix, images, labels, CLASSES, draw, generator)
            logits, targets = forward(model, mixed)
            functional.cross_entropy(logits, targets).backward()
            sgd.step()
            sgd.zero_grad()

        yield method, partial(several, step, options, images, labels)
