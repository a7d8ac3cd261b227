"""Pictures of the robustness suite: its curves, and images with what an attack adds to them."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from torch import Tensor

from pretrain.files import save_figure
from transfer.evaluation.corruptions import NAMES, SEVERITIES

KINDS = {"noise": NAMES[:3], "blur": NAMES[3:7], "weather": NAMES[7:11], "digital": NAMES[11:]}
"""ImageNet-C's."""
COLOURS = ("#b4451f", "#1d6fa5", "#2f7d4f", "#7a4a9e")
GREY = "#5d6269"
LOUDER = 10
"""Times what an attack adds, so that it is seen."""


class AttackedImage(NamedTuple):
    """An image, as it is and under several attacks."""

    label: int
    versions: list[Tensor]
    """(3, H, W), pixels in [0, 1]; the first is the image as it is."""
    answers: list[int]
    """Of the classifier, to each of them."""


def draw_curves(metrics: dict[str, Any], path: Path) -> None:
    """A chart of each part that has curves; no file where there is none."""
    charts = [
        draw
        for key, draw in (
            ("occlusion_sides", _draw_occlusion),
            ("between_pairs", _draw_between),
            ("corruptions", _draw_corruptions),
        )
        if key in metrics
    ]
    if not charts:
        return
    figure = Figure(figsize=(3.6 * len(charts), 3.5), layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
        draw(axes, metrics)
        axes.set_ylim(-2, 102)
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)


def _draw_occlusion(axes: Any, metrics: dict[str, Any]) -> None:
    sides = metrics["occlusion_sides"]
    axes.plot(sides, metrics["occlusion_centre_top1"], ".-", c=COLOURS[0], label="inside: centre")
    axes.plot(
        sides, metrics["occlusion_boundary_top1"], ".-", c=COLOURS[1], label="outside: boundary"
    )
    axes.set_title("top-1 %, zeros in or round a hole", fontsize=10)
    axes.set_xlabel("side of the hole, pixels")


def _draw_between(axes: Any, metrics: dict[str, Any]) -> None:
    sides = metrics["between_cutmix_sides"]
    shares = [side / sides[-1] for side in sides]
    weights = [1 - weight for weight in metrics["between_mixup_weights"]]
    axes.plot(weights, metrics["between_mixup_neither"], ".-", c=COLOURS[2], label="Mixup: weight")
    axes.plot(shares, metrics["between_cutmix_neither"], ".-", c=COLOURS[3], label="CutMix: side")
    axes.set_title("neither label, % of the pairs", fontsize=10)
    axes.set_xlabel("weight or side of the second image")


def _draw_corruptions(axes: Any, metrics: dict[str, Any]) -> None:
    curves = metrics["corruptions"]
    for colour, (kind, names) in zip(COLOURS, KINDS.items(), strict=True):
        if of_kind := [curves[name] for name in names if name in curves]:
            axes.plot(SEVERITIES, _means(of_kind), ".-", c=colour, lw=1, label=kind)
    axes.plot(SEVERITIES, _means([*curves.values()]), c=GREY, lw=2.5, label="all")
    axes.set_title("top-1 %, corruptions", fontsize=10)
    axes.set_xlabel("severity")
    axes.set_xticks(SEVERITIES)


def _means(curves: Sequence[Sequence[float]]) -> list[float]:
    return [mean(values) for values in zip(*curves, strict=True)]


def draw_attacks(
    images: Sequence[AttackedImage], attacks: Sequence[str], classes: Sequence[str], path: Path
) -> None:
    """A column each: the image; of FGSM and PGD what is added, ten times, and what comes of it.

    Args:
        images: at least one.
        attacks: names of their versions; the first is of none.
        classes: names of the classifier's outputs.
        path: of the PNG.
    """
    shown = {"FGSM": attacks.index("fgsm_pixels"), "PGD": attacks.index("pgd")}
    figure = Figure(figsize=(1.75 * len(images), 2.05 * 5), layout="constrained")
    for column, one in zip(figure.subplots(5, len(images), squeeze=False).T, images, strict=True):
        _show(column[0], one.versions[0], _answer(one, 0, classes))
        for upper, lower, (name, place) in zip(
            column[1::2], column[2::2], shown.items(), strict=True
        ):
            added = one.versions[place] - one.versions[0]
            _show(upper, 0.5 + LOUDER * added, f"{name}, added x {LOUDER}")
            _show(lower, one.versions[place], _answer(one, place, classes))
    save_figure(figure, path)


def _show(axes: Any, pixels: Tensor, title: str) -> None:
    axes.imshow(pixels.clamp(0, 1).permute(1, 2, 0).numpy())
    axes.set_axis_off()
    axes.set_title(title, fontsize=8)


def _answer(one: AttackedImage, place: int, classes: Sequence[str]) -> str:
    name = classes[one.answers[place]].split(",")[0]
    short = name if len(name) <= 18 else f"{name[:17]}…"
    return f"{short}, {'right' if one.answers[place] == one.label else 'wrong'}"
