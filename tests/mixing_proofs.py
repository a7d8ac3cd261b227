"""What is true of every mixing method, and the table that docs/mixing.md has of it.

    python -m tests.mixing_proofs       prints the table

Image i of a batch is i everywhere in its first channel, i^2 in its second, and texture in its
third; its label is i. So a row of targets says what each image should own of the result, and the
means of the first two channels say what it does own: pasted or blended, resized or moved.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from torch import Tensor

from pretrain.config import MixingConfig
from pretrain.mixing import Mix, mix_at, network_parts

COUNTS = (1, 2, 7)
SIZES = ((24, 24), (33, 20), (8, 57))
GRANULARITIES = ("batch", "pair", "half", "sample")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A method with its options, and what is to be true of it."""

    method: str
    options: dict[str, Any] = field(default_factory=dict)
    weight: str = "share of pixels"
    """The rule of the label weights; other rules are tested by themselves."""
    sums_to_one: bool = True
    pairs: bool = True
    """Whether images meet, so that granularity is an option."""
    arch: str = "test_resnet"
    """Of the network of those that need one."""
    takes_bytes: bool = True
    looks: bool = False
    """Whether what is pasted depends on the bytes that are there."""
    fills: bool = False
    """Whether pixels are replaced by what is of no image."""
    equals: str = ""
    """Who has the same result under the same draws."""

    @property
    def title(self) -> str:
        """The method and its options."""
        flat = {**self.options, **self.options.get("args", {})}
        flat.pop("args", None)
        options = ", ".join(f"{name} {value}" for name, value in flat.items())
        return f"{self.method}, {options}" if options else self.method

    def make(self, size: tuple[int, int], device: str = "cpu", **more: Any) -> Mix:
        """The method, by its configuration, with a small network where it needs one."""
        config = MixingConfig(method=self.method, **{**self.options, **more})
        return mix_at(config, 0, parts=parts(self.method, self.arch, size, device))


def case(method: str, **given: Any) -> Case:
    """A case; what is no field of Case is an argument of the method."""
    known = {name: given.pop(name) for name in [*given] if name in Case.__dataclass_fields__}
    return Case(method=method, options={"args": given} if given else {}, **known)


CASES = (
    Case(method="cutmix", equals="torchvision, timm, official code"),
    Case(method="cutmix", options={"box": "official"}, equals="official code"),
    Case(method="cutmix", options={"alpha": 0.1}),
    Case(method="cutmix", options={"probability": 0.5, "partner": "other"}),
    case("cutmix", centre="gaussian"),
    case("cutmix", lam=0.75),
    case("cutmix", sides=(0.2, 0.8), inside=True, equals="timm's cutmix_minmax"),
    case("cutmix", inside=True),
    case("cutmix", aspect=(0.5, 2.0)),
    case("cutmix", label="one_hot", weight="1 for the larger part"),
    case("cutmix", label="complete", weight="1/2 each"),
    case("mixup", weight="share of the blend", equals="torchvision, timm"),
    case("cutout", fills=True, weight="1", pairs=False),
    case("gridmask", fills=True, weight="1", pairs=False, equals="the authors' code"),
    case("random_erasing", fills=True, weight="1", pairs=False, equals="timm"),
    case("random_erasing", fills=True, fill="rand", weight="1", pairs=False),
    case("random_erasing", fills=True, fill="const", weight="1", pairs=False),
    case("resizemix"),
    case("resizemix", place="official", equals="the authors' code"),
    case(
        "resizemix",
        draws="share",
        place="clipped",
        interpolation="bilinear",
        equals="mmpretrain",
    ),
    case("cut_thumbnail", equals="the authors' code"),
    case("cut_thumbnail", mode="double"),
    case("cut_thumbnail", mode="self", weight="1"),
    case("mosaic", equals="Darknet's rule"),
    case("fmix", equals="the authors' code, from the same noise"),
    case("fmix", max_soft=0.3, weight="share of the blend"),
    case("gridmix", equals="openmixup"),
    case("gridmix", rule="cells"),
    case("smoothmix", weight="share of the blend", equals="openmixup's images"),
    case("saliencymix", looks=True, equals="OpenCV's saliency, the authors' boxes"),
    case("attentive_cutmix", takes_bytes=False, equals="openmixup"),
    case(
        "puzzlemix",
        block_num=2,
        weight="share of the blend",
        takes_bytes=False,
        equals="the authors' code",
    ),
    case(
        "snapmix",
        weight="share of the class activation",
        sums_to_one=False,
        takes_bytes=False,
        equals="the authors' code",
    ),
    case(
        "transmix", weight="half area, half attention", arch="test_vit", equals="timm's attention"
    ),
    case(
        "manifold_mixup",
        weight="share of the blend of features",
        takes_bytes=False,
        equals="a pass cut by hand",
    ),
    case(
        "feature_cutmix",
        weight="share of the level's cells",
        takes_bytes=False,
        equals="a pass cut by hand",
    ),
)


@cache
def parts(method: str, arch: str, size: tuple[int, int], device: str) -> dict[str, Any]:
    """What a method needs of a small untrained network for images of a size."""
    torch.manual_seed(0)
    options: dict[str, Any] = {"img_size": size} if "vit" in arch else {"output_stride": 8}
    network = timm.create_model(arch, num_classes=max(COUNTS), **options).eval().to(device)
    return network_parts(MixingConfig(method=method), network)


def coded(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Images (N, 3, H, W), whole numbers from 0 to 255, as the module says."""
    code = torch.arange(count, dtype=torch.float32)
    texture = torch.randint(256, (count, *size), generator=seeded(seed)).float()
    flat = torch.stack([code, code**2], 1)[:, :, None, None].expand(-1, -1, *size)
    return torch.cat([flat, texture[:, None]], 1)


def textured(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    """Images (N, 3, H, W) of noise, whole numbers from 0 to 255."""
    return torch.randint(256, (count, 3, *size), generator=seeded(seed)).float()


def seeded(seed: int) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def draws(case: Case, full: bool) -> Iterator[tuple[Mix, int, tuple[int, int], int]]:
    """(method, images, size, seed): every count, size and granularity."""
    sharing = GRANULARITIES if case.pairs else ("batch",)
    for granularity in sharing:
        for count in COUNTS:
            for size in SIZES:
                for seed in range(20 if full else 1):
                    yield case.make(size, granularity=granularity), count, size, seed


def check_weights(case: Case, full: bool) -> None:
    """Targets are what each image owns; they sum to one; lam is the weight of the own label."""
    for mix, count, size, seed in draws(case, full):
        images, labels = coded(count, size, seed), torch.arange(count)
        mixed = mix(images, labels, count, seeded(seed))
        rows = (count + 1) // 2 if getattr(mix, "granularity", "") == "half" else count
        assert mixed.targets.shape == (rows, count)
        assert mixed.targets.dtype == mixed.lam.dtype == torch.float32
        assert mixed.images.shape[1:] == images.shape[1:]
        assert len(mixed.partner) == rows
        assert (mixed.targets >= 0).all()
        if case.sums_to_one:
            torch.testing.assert_close(mixed.targets.sum(1), torch.ones(rows))
        if case.weight in ("share of pixels", "share of the blend"):
            owned = mixed.images[:, :2].mean((2, 3), dtype=torch.float64)
            wanted = mixed.targets.double() @ images[:, :2, 0, 0].double()
            torch.testing.assert_close(owned, wanted, atol=2e-5, rtol=2e-6)
        if case.weight == "1":
            assert torch.equal(mixed.targets, torch.eye(count)[:rows])
        alone = (mixed.partner.view(rows, -1) == torch.arange(rows)[:, None]).any(1)
        own = mixed.targets[torch.arange(rows), torch.arange(rows)]
        torch.testing.assert_close(own[~alone], mixed.lam.cpu()[~alone])


def check_purity(case: Case, full: bool) -> None:
    """Inputs stay, the generator is all that is drawn from, and equal draws give equal results."""
    size = SIZES[1]
    for mix in [case.make(size, granularity=g) for g in GRANULARITIES[:: 1 if full else 3]]:
        images, labels = textured(7, size), torch.arange(7)
        kept, before = images.clone(), (torch.get_rng_state(), np.random.get_state()[1].copy())
        results = [mix(images, labels, 7, seeded(seed)) for seed in (3, 3, *range(4, 12))]
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()
        assert torch.equal(images, kept)
        one, two, *others = results
        assert torch.equal(one.images, two.images)
        assert torch.equal(one.targets, two.targets)
        # partners of pairs are not drawn, nor is the share of Attentive CutMix
        if one.inside is None and getattr(mix, "granularity", "batch") in ("batch", "sample"):
            assert not all(torch.equal(one.images, other.images) for other in others)


def check_dtypes(case: Case, full: bool) -> None:
    """Bytes and bfloat16 are mixed as float32: equal where pixels only move, else rounded once."""
    size = SIZES[1]
    images, labels = textured(7, size), torch.arange(7)
    for mix in [case.make(size, granularity=g) for g in GRANULARITIES]:
        for seed in range(10 if full else 2):
            wanted = mix(images, labels, 7, seeded(seed))
            for dtype in (torch.uint8, torch.bfloat16)[not case.takes_bytes :]:
                mixed = mix(images.to(dtype), labels, 7, seeded(seed))
                assert mixed.images.dtype == dtype
                if mix.on_bytes:
                    assert torch.equal(mixed.images.float(), wanted.images)
                    assert torch.equal(mixed.targets, wanted.targets)
                elif case.fills:
                    kept = wanted.images == images
                    assert torch.equal(mixed.images.float()[kept], images[kept])
                else:
                    close = {"atol": 0.502, "rtol": 0.0}
                    torch.testing.assert_close(mixed.images.float(), wanted.images, **close)


def check_masks(case: Case, full: bool) -> None:
    """What a CPU does by slices and an accelerator by masks is the same."""
    for mix, count, size, seed in draws(case, full):
        if count == 1 and not full:
            continue
        images, labels = textured(count, size, seed), torch.arange(count)
        wanted = mix(images, labels, count, seeded(seed))
        with on_a_device():
            mixed = mix(images, labels, count, seeded(seed))
        close = {"atol": 0.0, "rtol": 0.0} if mix.on_bytes else {"atol": 1e-3, "rtol": 1e-5}
        torch.testing.assert_close(mixed.images, wanted.images, **close)
        torch.testing.assert_close(mixed.targets, wanted.targets, atol=1e-6, rtol=0)


def check_waits(case: Case, full: bool) -> None:
    """No accelerator is waited for: tensors on `meta` have no values that could be asked for."""
    size = SIZES[1]
    images = torch.empty(7, 3, *size, device="meta")
    labels = torch.zeros(7, dtype=torch.int64, device="meta")
    sharing = GRANULARITIES if full else ("half", "sample")
    for mix in [case.make(size, "meta", granularity=granularity) for granularity in sharing]:
        for seed in range(10 if full else 1):
            mixed = mix(images, labels, 7, seeded(seed))
            assert mixed.images.device.type == mixed.targets.device.type == "meta"


@contextmanager
def on_a_device() -> Iterator[None]:
    """Every method takes the way of an accelerator."""
    modules = [module for name, module in sys.modules.items() if name.startswith("pretrain.mixing")]
    patches = [
        mock.patch.object(module, "by_slices", return_value=False)
        for module in modules
        if hasattr(module, "by_slices")
    ]
    for patch in patches:
        patch.start()
    try:
        yield
    finally:
        for patch in patches:
            patch.stop()


CHECKS = (check_weights, check_purity, check_dtypes, check_masks, check_waits)


def table() -> str:
    """The table, in Markdown; every line of it is a test."""
    sizes = ", ".join(f"{height} x {width}" for height, width in SIZES)
    lines = [
        "| method | label weight | weights sum to 1 | bytes before normalisation | equal to |",
        "|---|---|---|---|---|",
    ]
    for case in CASES:
        mix = case.make(SIZES[1])
        if mix.on_bytes:
            on_bytes = "the same bits" + (", its peak is theirs" if case.looks else "")
        else:
            on_bytes = "rounded once" if case.takes_bytes else "needs floats"
        if case.fills:
            on_bytes = "the fill is of floats"
        sums = "yes" if case.sums_to_one else "no: the paper's rule"
        lines.append(f"| {case.title} | {case.weight} | {sums} | {on_bytes} | {case.equals} |")
    counts = ", ".join(map(str, COUNTS))
    shown = (
        "Weights and what is counted in the pixels agree to two in a million. "
        f"Of each line is tested: batches of {counts} images of {sizes} pixels at every "
        "granularity; float32, bfloat16 and uint8; slices (CPU) equal to masks (accelerators); no "
        "accelerator waited for; inputs untouched; nothing drawn but from the given generator."
    )
    return "\n".join([*lines, "", shown])


if __name__ == "__main__":
    print(table())
