"""Robustness of a classifier: attacks, occlusion, samples in between, corruptions.

Four parts, the CutMix paper's section 4.4 and ImageNet-C's corruptions:

    attacks      FGSM and PGD by the classifier's own gradient
    occlusion    zeros in a hole at the centre, or all but it; from no hole to the whole image
    between      two images blended (Mixup), or one in a hole at the centre of the other (CutMix):
                 how often the answer is the label of neither
    corruptions  15, each of 5 severities (transfer/evaluation/corruptions)

Every image is decoded once for a part (for a corruption); all variants of a batch are made of it on
the device, one after another in the same memory. Nothing but counts outlives a batch.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from timm.data.imagenet_info import ImageNetInfo
from torch import Tensor, nn

from pretrain.backbone import Backbone
from pretrain.data import Images
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError
from pretrain.spec import BackboneSpec
from pretrain.training import generator
from transfer.evaluation.attacks import fgsm, input_gradient, pgd, uniform_start
from transfer.evaluation.config import RobustnessConfig
from transfer.evaluation.corruption_scores import corruption_scores
from transfer.evaluation.corruptions import NAMES, SEVERITIES, corrupt, find_frost, read_frost
from transfer.evaluation.holes import Hole, centre_holes, heights, pasted
from transfer.evaluation.images import LabelledImages, Labels, open_labelled
from transfer.evaluation.robustness_pictures import AttackedImage, draw_attacks, draw_curves
from transfer.evaluation.session import Session, normalise, to_unit

BLENDS = tuple(step / 10 for step in range(11))
"""Mixup's weights of the first image."""
EXAMPLES = 5
"""Of attacked images, taken at equal distances."""


def open_data(
    backbone: Backbone, root: str | Path, options: RobustnessConfig, labels: Labels
) -> LabelledImages:
    """The labelled images.

    Raises:
        UsageError: see open_labelled; one class and nothing between.
    """
    if backbone.spec.num_classes == 1:
        raise UsageError("the classifier has one output: it is right about whatever it sees.")
    data = open_labelled(backbone, root, labels)
    if "between" in options.parts and len(np.unique(data.images.labels)) < 2:
        raise UsageError(
            f"{root} has images of one class, and the part between needs two. Leave it out: "
            "--robustness.parts '[attacks, occlusion, corruptions]'."
        )
    if "corruptions" not in options.parts:
        return data
    images, frost = data.images, find_frost(options.frost)
    if not frost:
        note = "frost is left out of the corruptions: its photographs are not installed, and "
        note += "--robustness.frost names no folder with them."
        images = replace(images, notes=(*images.notes, note))
    roots = (Path(root), *{path.parent for path in frost})
    files = DataFiles(roots, images.paths, (*images.annotations, *frost))
    return replace(data, images=images, files=files)


def evaluate(
    backbone: Backbone, data: LabelledImages, options: RobustnessConfig, session: Session
) -> dict[str, Any]:
    """Measure the parts that are asked for; `_Measurement` says the values of each."""
    measurement = _Measurement(
        network=session.network(backbone),
        spec=backbone.spec,
        classes=_class_names(backbone),
        images=data.images,
        options=options,
        session=session,
        overflows=torch.zeros((), dtype=torch.int64, device=session.device),
    )
    metrics = dict[str, Any]()
    for part in ("attacks", "occlusion", "between"):
        if part in options.parts:
            metrics |= session.part(part, getattr(measurement, part))
    if "corruptions" in options.parts:
        seen = len(np.unique(data.images.labels))
        is_imagenet = _knows_imagenet(backbone) and seen == backbone.spec.num_classes
        metrics |= corruption_scores(measurement.corruptions(), is_imagenet)
    draw_curves(metrics, session.picture("robustness.png"))
    return metrics


def consecutive(batches: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """Batches in which each row has its neighbour, the last row of all the first.

    A batch begins with the last row of the one before; after all comes the last row with the first.
    So n rows make n pairs (row, next row), whatever the size of the batches.
    """
    first: list[Tensor] = []
    last: list[Tensor] = []
    for batch in batches:
        if first:
            yield tuple(map(torch.cat, zip(last, batch, strict=True)))
        else:
            first = [rows[:1].clone() for rows in batch]
            yield batch
        last = [rows[-1:].clone() for rows in batch]
    if first:
        yield tuple(map(torch.cat, zip(last, first, strict=True)))


@dataclass(frozen=True, eq=False)
class _Measurement:
    """The parts; each reads all images."""

    network: nn.Module
    spec: BackboneSpec
    classes: Sequence[str]
    images: Images
    options: RobustnessConfig
    session: Session
    overflows: Tensor
    """How many rows of outputs so far are no numbers: half precision may overflow."""

    def attacks(self) -> dict[str, Any]:
        """Top-1 as it is and under attack; of the images that were right, the percent led astray.

        FGSM changes pixels in [0, 1] by eps, clamped to that range; or normalised values by eps,
        once without a clamp (the likely reading of the paper, which states neither) and once with.
        All three share one gradient. PGD changes pixels.

        In float32 whatever the precision of the run: gradients of half precision lose signs.
        """
        names = ("clean", "fgsm_pixels", "fgsm_normalised", "fgsm_normalised_clamped", "pgd")
        options, eps = self.options, self.options.eps
        std = torch.tensor(self.spec.std, device=self.session.device)[:, None, None]
        chosen = range(0, len(self.images), max(1, len(self.images) // EXAMPLES))[:EXAMPLES]
        examples: list[AttackedImage] = []

        def classify(pixels: Tensor) -> Tensor:
            logits: Tensor = self.network(normalise(pixels, self.spec))
            return logits

        totals, count = torch.zeros(2, len(names), device=self.session.device).long(), 0
        for batch, labels, numbers in self._batches("attacks"):
            pixels = to_unit(batch)
            start = uniform_start(options.seed, numbers.tolist(), pixels, eps)
            logits, gradient = input_gradient(classify, pixels, labels)
            attacks = (
                partial(fgsm, pixels, gradient, eps),
                partial(fgsm, pixels, gradient, eps * std, clamp=False),
                partial(fgsm, pixels, gradient, eps * std),
                partial(pgd, classify, pixels, labels, start, eps=eps,
                        step_size=options.pgd_step_size, steps=options.pgd_steps),
            )  # fmt: skip
            answers = [logits.argmax(1)]
            rows = [row for row, number in enumerate(numbers.tolist()) if number in chosen]
            shown = [pixels[rows].cpu()] if rows else []
            for attack in attacks:
                attacked = attack()
                with torch.inference_mode():
                    answers.append(classify(attacked).argmax(1))
                if rows:  # a copy to the CPU waits for the device
                    shown.append(attacked[rows].cpu())
            table = torch.stack(answers)
            right = table == labels
            totals += torch.stack([right.sum(1), (right[0] & ~right).sum(1)])
            count += len(labels)
            for place, row in enumerate(rows):
                images = [images[place] for images in shown]
                examples.append(AttackedImage(int(labels[row]), images, table[:, row].tolist()))
        top1, astray = _percent(totals[0], count), _percent(totals[1], max(1, int(totals[0, 0])))
        if examples:
            draw_attacks(examples, names, self.classes, self.session.picture("attacks.png"))
        values = {f"{name}_top1": value for name, value in zip(names, top1, strict=True)}
        rates = zip(names[1:], astray[1:], strict=True)
        values |= {f"{name}_success": value for name, value in rates}
        return {"images": count, **values}

    def occlusion(self) -> dict[str, Any]:
        """Top-1 by the side of a hole, zeros inside or outside it, and the mean of each curve.

        A hole as large as the image leaves nothing of it, or all.
        """
        holes = self._holes
        zero = torch.zeros(3, 1, 1, device=self.session.device)
        if self.options.fill == "black":
            zero = normalise(zero, self.spec)

        def views(batch: Tensor, _: Tensor) -> Iterator[Tensor]:
            image = normalise(to_unit(batch), self.spec)
            blank = zero.expand_as(image)
            yield from pasted(image, blank, holes)
            yield from pasted(blank, image, holes[1:-1])

        top1 = self._top1("occlusion", views)
        centre, rest = top1[: len(holes)], top1[len(holes) :]
        boundary = [centre[-1], *rest, centre[0]]
        return {
            "occlusion_centre": mean(centre),
            "occlusion_boundary": mean(boundary),
            "occlusion_sides": heights(holes),
            "occlusion_centre_top1": centre,
            "occlusion_boundary_top1": boundary,
        }

    def between(self) -> dict[str, Any]:
        """Percent of pairs for which the answer is the label of neither image; the curves' means.

        By Mixup's weight of the first image, and by the side of CutMix's hole at the centre of the
        first, which shows the second. A pair is an image and the next one in a permutation by the
        seed; between two images of one class there is nothing, and such pairs are left out.
        """
        holes, blends = self._holes, BLENDS[1:-1]

        def views(first: Tensor, second: Tensor) -> Iterator[Tensor]:
            yield from (torch.lerp(second, first, weight) for weight in blends)
            yield from pasted(first, second, holes[1:-1])

        totals = torch.zeros(3 + len(blends) + len(holes[1:-1]), device=self.session.device).long()
        for batch, labels, answers in consecutive(self._answered()):
            if len(batch) == 1:  # the first batch of all
                continue
            with torch.inference_mode():
                image = normalise(to_unit(batch), self.spec)
                mixed = map(self._answer, views(image[:-1], image[1:]))
                given = torch.stack([answers[:-1], answers[1:], *mixed])
                is_pair = labels[:-1] != labels[1:]
                missed = (given != labels[:-1]) & (given != labels[1:]) & is_pair
                totals += torch.cat([missed.sum(1), is_pair.sum()[None]])
        pairs = int(totals[-1])
        first, second, *rest = _percent(totals[:-1], pairs)
        mixup = [second, *rest[: len(blends)], first]
        cutmix = [first, *rest[len(blends) :], second]
        return {
            "between_mixup": mean(mixup),
            "between_cutmix": mean(cutmix),
            "between_pairs": pairs,
            "between_mixup_weights": BLENDS,
            "between_mixup_neither": mixup,
            "between_cutmix_sides": heights(holes),
            "between_cutmix_neither": cutmix,
        }

    def corruptions(self) -> dict[str, list[float]]:
        """Top-1 of each corruption by severity; each a part of its own. Frost where it can be."""
        options, (_, height, width) = self.options, self.spec.input_size
        frost = read_frost(find_frost(options.frost), height, width)

        def views(name: str, batch: Tensor, numbers: Tensor) -> Iterator[Tensor]:
            for severity in SEVERITIES:
                made = corrupt(name, severity, batch, options.seed, numbers.tolist(), frost)
                yield normalise(to_unit(made), self.spec)

        def measure(name: str) -> dict[str, list[float]]:
            return {name: self._top1(name, partial(views, name))}

        top1 = dict[str, list[float]]()
        for name in NAMES:
            if name != "frost" or frost:
                top1 |= self.session.part(f"corruption_{name}", partial(measure, name))
        return top1

    @property
    def _holes(self) -> list[Hole]:
        _, height, width = self.spec.input_size
        return centre_holes(height, width, self.options.sizes)

    def _batches(
        self, title: str, order: np.ndarray | None = None
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """uint8 images and their labels on the device, and their numbers on the CPU."""
        labels = torch.from_numpy(self.images.labels)
        for batch, numbers in self.session.batches(self.images, self.spec, title, order):
            yield batch, self.session.fabric.to_device(labels[numbers]), numbers
        if lost := int(self.overflows):
            raise UsageError(
                f"{lost} outputs of the network are nan or infinite in this precision. Give "
                "--precision 32-true, or bf16-mixed, which has its range."
            )

    def _answered(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Images in the order of the pairs, labels, and what the network answers."""
        draw = generator(self.options.seed, "order")
        order = torch.randperm(len(self.images), generator=draw).numpy()
        for batch, labels, _ in self._batches("between", order):
            with torch.inference_mode():
                answers = self._answer(normalise(to_unit(batch), self.spec))
            yield batch, labels, answers

    def _answer(self, image: Tensor) -> Tensor:
        """The network's answers (B,) on normalised images, which are made in float32."""
        with self.session.fabric.autocast():
            logits: Tensor = self.network(image)
        self.overflows.add_((~logits.isfinite()).any(1).sum())
        return logits.argmax(1)

    def _top1(self, title: str, views: Callable[[Tensor, Tensor], Iterator[Tensor]]) -> list[float]:
        """Top-1 on each view that (uint8 images, their numbers) give: normalised images."""
        totals, count = torch.zeros(1, device=self.session.device).long(), 0
        for batch, labels, numbers in self._batches(title):
            with torch.inference_mode():
                answers = map(self._answer, views(batch, numbers))
                totals = totals + torch.stack([(answer == labels).sum() for answer in answers])
            count += len(labels)
        return _percent(totals, count)


def _knows_imagenet(backbone: Backbone) -> bool:
    return list(backbone.output_names) == ImageNetInfo().label_names()


def _class_names(backbone: Backbone) -> Sequence[str]:
    """Of the outputs, in words where they are ImageNet's synsets; their numbers without names."""
    if _knows_imagenet(backbone):
        return list(ImageNetInfo().label_descriptions())
    return backbone.output_names or list(map(str, range(backbone.spec.num_classes)))


def _percent(counts: Tensor, whole: int) -> list[float]:
    if not whole:
        raise UsageError("none of the images can be read, or no two of different classes.")
    return [100 * count / whole for count in counts.tolist()]
