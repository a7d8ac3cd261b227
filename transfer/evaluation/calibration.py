"""Calibration: is the classifier as often right as it says? Before and after temperature scaling.

Some images are held out by a hash of their names; the temperature is fitted on them and on nothing
else (Guo et al., ICML 2017). All figures are of the other images, before and after, so they are
never of what the temperature has seen. It changes no prediction. `calibration_metrics` says what
the figures are.

Logits of the held-out images are kept until the temperature is found; of the others a few numbers
an image, and one for each class and bin.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from pretrain.backbone import Backbone
from pretrain.data import Images
from pretrain.data.images import ImageShards
from pretrain.errors import UsageError
from pretrain.files import save_figure
from pretrain.held_out import hold_out
from pretrain.progress import log
from transfer.evaluation.calibration_metrics import (
    Reliability,
    equal_mass,
    equal_width,
    fit_temperature,
    reliability,
)
from transfer.evaluation.config import CalibrationConfig
from transfer.evaluation.images import LabelledImages, Labels, open_labelled
from transfer.evaluation.logits import logits
from transfer.evaluation.session import Session

MOST_FITTED = 5000
"""Images for one number."""


def open_data(
    backbone: Backbone, root: str | Path, options: CalibrationConfig, labels: Labels
) -> LabelledImages:
    """The labelled images.

    Raises:
        UsageError: see `open_labelled`; a classifier of one output, or a single image.
    """
    if backbone.spec.num_classes == 1:
        raise UsageError("the classifier has one output: its softmax is 1 for whatever it sees.")
    data = open_labelled(backbone, root, labels)
    if len(data.images) < 2:
        raise UsageError(
            f"{root} has one image; one to fit the temperature on and one to score are the least."
        )
    return data


def evaluate(
    backbone: Backbone, data: LabelledImages, options: CalibrationConfig, session: Session
) -> dict[str, Any]:
    """Percent: top1, confidence, ece, mce, adaptive_ece, classwise_ece; nll in nats; brier.

    The same with `_scaled` at the end after division by `temperature`; where no temperature above 0
    and below infinity is best, `no_temperature` says why instead. `bins` is what the picture shows.
    """
    network, images, spec = session.network(backbone), data.images, backbone.spec
    labels = torch.from_numpy(images.labels).to(session.device)
    scored, held = split(images, options.held_out)

    def fit() -> dict[str, Any]:
        batches = list(logits(network, images, spec, session, "images held out", held))
        rows, numbers = torch.cat([one for one, _ in batches]), torch.cat([n for _, n in batches])
        targets = labels.to(rows.device)[numbers.to(rows.device)]
        return {"temperature": fit_temperature(rows, targets), "images": len(numbers)}

    fitted = session.part("temperature", fit)
    temperature = fitted["temperature"]
    temperatures = {"": 1.0}
    metrics: dict[str, Any] = {"images_held_out": fitted["images"]}
    if 0 < temperature < np.inf:
        temperatures["_scaled"] = metrics["temperature"] = temperature
    else:
        metrics["no_temperature"] = (
            "no image held out has an output above that of its label"
            if temperature == 0
            else "the classifier is not better than chance on the images held out"
        )
        log(f"calibration: no temperature: {metrics['no_temperature']}")

    def score() -> dict[str, Tensor]:
        left = session.max_corrupt - (len(held) - fitted["images"])
        within = replace(session, max_corrupt=left)
        batches = logits(network, images, spec, within, "images scored", scored)
        return _score(batches, labels, temperatures, options.bins)

    kept = {name: tensor.numpy() for name, tensor in session.tensors("scored", score).items()}
    metrics |= {"images": len(kept["right"]), "top1": 100 * float(kept["right"].mean())}
    shown, bins = dict[str, Reliability](), dict[str, Any]()
    for ending, degree in temperatures.items():
        confidence = kept[f"confidence{ending}"]
        even = reliability(confidence, kept["right"], equal_width(options.bins))
        mass = reliability(confidence, kept["right"], equal_mass(confidence, options.bins))
        classwise = np.abs(kept[f"classwise{ending}"]).sum(1).mean() / len(confidence)
        values = {"confidence": confidence.mean(), "ece": even.ece, "mce": even.mce,
                  "adaptive_ece": mass.ece, "classwise_ece": classwise}  # fmt: skip
        metrics |= {name + ending: 100 * float(value) for name, value in values.items()}
        metrics |= {name + ending: float(kept[name + ending].mean()) for name in ("nll", "brier")}
        bins[ending.strip("_") or "unscaled"] = {
            "images": even.count.tolist(),
            "accuracy": (100 * even.accuracy).tolist(),
            "confidence": (100 * even.confidence).tolist(),
        }
        name = f"temperature {degree:.3g}" if ending else "as it is"
        shown[f"{name}: ECE {100 * even.ece:.1f} %"] = even
    draw_reliability(shown, session.picture("reliability.png"))
    return metrics | {"bins": bins}


def split(images: Images, share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Numbers of the images to score, and of those to fit the temperature on.

    The latter by a hash of CLASS/NAME, wherever the data lies; of CIFAR's pickles by the number.
    """
    count = len(images)
    paths = images.paths
    if isinstance(images, ImageShards):
        paths = map(images.reader.index.name, range(count))
    files = [os.path.basename(path) for path in paths] or [f"{n}" for n in range(count)]
    names = [f"{images.classes[k]}/{file}" for k, file in zip(images.labels, files, strict=True)]
    # not class by class: where each has one image, none would be left to fit on
    share, together = min(share, MOST_FITTED / count), np.zeros(count, np.int64)
    return hold_out(names, together, np.arange(count), share, "choose")


def _score(
    batches: Iterator[tuple[Tensor, Tensor]],
    labels: Tensor,
    temperatures: Mapping[str, float],
    bins: int,
) -> dict[str, Tensor]:
    """Of each image right, confidence, nll and brier; of each class and bin softmax - label."""
    columns, sums = dict[str, list[Tensor]](), dict[str, Tensor]()
    for outputs, numbers in batches:
        device, num_classes = outputs.device, outputs.shape[1]
        targets = labels.to(device)[numbers.to(device)][:, None]
        inner_edges = torch.from_numpy(equal_width(bins)).to(device)
        first_bin = torch.arange(num_classes, device=device) * bins
        row = {"right": (outputs.argmax(1) == targets[:, 0]).double()}
        for ending, temperature in temperatures.items():
            logs = (outputs / temperature).log_softmax(1)
            shares, log_of_label = logs.exp(), logs.gather(1, targets)[:, 0]
            gaps = shares.scatter_add(1, targets, -torch.ones_like(shares[:, :1]))
            row[f"confidence{ending}"] = shares.amax(1)
            row[f"nll{ending}"] = -log_of_label
            row[f"brier{ending}"] = gaps.square().sum(1)
            cells = torch.bucketize(shares, inner_edges) + first_bin
            sums.setdefault(f"classwise{ending}", gaps.new_zeros(num_classes * bins)).index_add_(
                0, cells.flatten(), gaps.flatten()
            )
        for name, values in row.items():
            columns.setdefault(name, []).append(values)
    tables = {name: table.view(-1, bins) for name, table in sums.items()}
    return tables | {name: torch.cat(values) for name, values in columns.items()}


def draw_reliability(shown: Mapping[str, Reliability], path: Path) -> None:
    """Accuracy over confidence with the gaps, below it how many images have it.

    Args:
        shown: by title.
        path: of the PNG.
    """
    figure = Figure(figsize=(4.6 * len(shown), 4.8), layout="constrained")
    grid = figure.subplots(2, len(shown), squeeze=False, sharex=True, sharey="row",
                           height_ratios=[3, 1])  # fmt: skip
    for (upper, lower), (title, one) in zip(grid.T, shown.items(), strict=True):
        width = 100 / len(one.count)
        centres, some = (np.arange(len(one.count)) + 0.5) * width, one.count > 0
        bars = {"x": centres[some], "width": width}
        accuracy, gap = 100 * one.accuracy[some], 100 * (one.confidence - one.accuracy)[some]
        upper.bar(height=accuracy, color="#7fa8d1", edgecolor="white", label="accuracy", **bars)
        upper.bar(height=gap, bottom=accuracy, color="none", edgecolor="C3", hatch="////", lw=0.8,
                  label="gap to the confidence", **bars)  # fmt: skip
        upper.plot([0, 100], [0, 100], "--", color="0.4", lw=1)
        upper.set_title(title, fontsize=10)
        share = 100 * one.count[some] / one.count.sum()
        lower.bar(height=share, color="0.6", edgecolor="white", **bars)
        lower.set(xlabel="confidence, %", xlim=(0, 100))
    grid[0, 0].set(ylabel="accuracy, %", ylim=(0, 100))
    grid[0, 0].legend(loc="upper left", fontsize=8)
    grid[1, 0].set(ylabel="% of images")
    save_figure(figure, path)
