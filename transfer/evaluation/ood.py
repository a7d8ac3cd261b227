"""Out-of-distribution detection: does the classifier know what it does not know?

Of each image three scores are taken, larger for what looks known: the largest softmax (Hendrycks
and Gimpel, ICLR 2017; the only one in CutMix's appendix E), the largest logit, and the energy
logsumexp(logits) at temperature 1 (Liu et al., NeurIPS 2020, who give it the other sign). Known are
labelled images of the classifier's own classes, whether it is right about them or not; foreign are
sets of other images, and noise. `ood_metrics` says how well a score tells one from the other.

Averages are over the sets, whatever their sizes, as in the paper; once with the two noise sets and
once without them, since half of the paper's gain is noise.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torchvision.transforms import v2

from pretrain.backbone import Backbone
from pretrain.data import Images
from pretrain.data_digest import DataFiles
from pretrain.errors import UsageError, printable
from pretrain.files import save_figure
from transfer.evaluation.config import OodConfig
from transfer.evaluation.foreign_images import (
    NOISE,
    NoiseImages,
    content_files,
    count_shared,
    files_by_size,
    name_and_folder,
    open_foreign,
)
from transfer.evaluation.images import LabelledImages, Labels, open_labelled
from transfer.evaluation.logits import logits
from transfer.evaluation.ood_metrics import METRICS, Scores, counts, detection_metrics
from transfer.evaluation.session import Session

SCORES = ("max_softmax", "max_logit", "energy")
KNOWN = "known"


@dataclass(frozen=True, eq=False)
class OodData:
    """Known and foreign images."""

    known: LabelledImages
    foreign: dict[str, Images]
    """By name of the set."""
    noise: dict[str, NoiseImages]
    files: DataFiles
    notes: list[str]

    @property
    def summary(self) -> dict[str, Any]:
        """What the result says of the data."""
        sizes = {name: len(images) for name, images in self.others.items()}
        return self.known.summary | {"foreign": sizes, "notes": self.notes}

    @property
    def others(self) -> dict[str, Images | NoiseImages]:
        """All sets but the known images."""
        return {**self.foreign, **self.noise}


def open_data(backbone: Backbone, root: str | Path, options: OodConfig, labels: Labels) -> OodData:
    """List the images of all sets.

    Raises:
        UsageError: see `open_labelled`; a classifier of one output; nothing foreign; a foreign set
            that is not there, empty, called as another, or the known one.
    """
    if backbone.spec.num_classes == 1:
        raise UsageError("the classifier has one output: its softmax is 1 for whatever it sees.")
    known = open_labelled(backbone, root, labels)
    count = len(known.images) if options.noise is None else options.noise
    size = backbone.spec.input_size[1:]
    noise = {kind: NoiseImages(kind, count, *size, options.seed) for kind in NOISE if count}
    foreign, folders, notes = dict[str, Images](), [Path(root)], list(known.images.notes)
    known_files = files_by_size(content_files(known.images))
    for text in options.foreign:
        name, folder = name_and_folder(text)
        if name in foreign or name in (KNOWN, *NOISE):
            raise UsageError(
                f"--ood.foreign: {folder} is called {name!r}, as another set is. Give it a name of "
                f"its own: --ood.foreign NAME={folder}."
            )
        images = open_foreign(folder)
        files = content_files(images)
        shared = count_shared(files, known_files)
        if shared == len(files):
            raise UsageError(
                f"--ood.foreign: what is in {folder} is in {root} too, file for file. Foreign "
                "images show none of the classes that the classifier knows; give others."
            )
        if shared:
            notes.append(f"{shared:,} of the {len(files):,} files in {folder} are known ones too")
        foreign[name] = images
        folders.append(folder)
        notes += images.notes
    if not foreign and not noise:
        raise UsageError("there are no foreign images: give --ood.foreign DIR DIR.")
    if not foreign:
        notes.append("nothing but noise is foreign here: --ood.foreign DIR DIR adds images")
    if len(known.images) < 20:
        count = len(known.images)
        notes.append(f"{count} known images: TPR 95 keeps all of them; give 20 or more")
    sets = [known.images, *foreign.values()]
    paths = chain.from_iterable([*images.paths] for images in sets)
    annotations = [path for images in sets for path in images.annotations]
    return OodData(known, foreign, noise, DataFiles(tuple(folders), paths, annotations), notes)


def evaluate(
    backbone: Backbone, data: OodData, options: OodConfig, session: Session
) -> dict[str, Any]:
    """Each of METRICS for max-softmax, and SCORE_METRIC for the others: means over sets, percent.

    METRIC_without_noise is the mean over the foreign sets alone, where there are any; `sets` has
    every score on every set; `top1` is the classifier's accuracy on the known images.
    """
    network, left = session.network(backbone), session.max_corrupt
    sets: dict[str, Images | NoiseImages] = {KNOWN: data.known.images, **data.others}
    kept = dict[str, dict[str, Tensor]]()
    for number, (name, images) in enumerate(sets.items()):
        place = name if name in (KNOWN, *NOISE) else f"foreign-{number}"
        transform = v2.Identity() if isinstance(images, NoiseImages) else None
        within = replace(session, max_corrupt=left)
        batches = logits(
            network, images, backbone.spec, within, f"{name} images", transform=transform
        )
        kept[name] = session.tensors(place, lambda: _score(batches))  # noqa: B023
        left -= len(images) - len(kept[name]["number"])
    known = kept.pop(KNOWN)
    right = known["predicted"].numpy() == data.known.images.labels[known["number"]]
    pairs = {
        score: {name: (known[score].numpy(), one[score].numpy()) for name, one in kept.items()}
        for score in SCORES
    }
    draw_scores(pairs[SCORES[0]], session.picture("ood.png"))
    tables = {
        score: {name: detection_metrics(*pair) for name, pair in of_sets.items()}
        for score, of_sets in pairs.items()
    }
    return {
        **_means(tables, [*kept], ""),
        **_means(tables, [*data.foreign], "_without_noise"),
        "top1": 100 * float(right.mean()),
        "known_images": len(right),
        "sets": {
            name: {"images": len(one["number"])} | {score: tables[score][name] for score in SCORES}
            for name, one in kept.items()
        },
    }


def _score(batches: Iterator[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Of each image its number, the predicted class, and SCORES in float64: all that is kept."""
    scores, classes, numbers = list[Tensor](), list[Tensor](), list[Tensor]()
    for outputs, number in batches:
        largest, predicted = outputs.max(1)
        energy = outputs.logsumexp(1)
        scores.append(torch.stack([(largest - energy).exp(), largest, energy]))
        classes.append(predicted)
        numbers.append(number)
    columns = dict(zip(SCORES, torch.cat(scores, 1), strict=True))
    return columns | {"predicted": torch.cat(classes), "number": torch.cat(numbers)}


def _means(
    tables: Mapping[str, Mapping[str, Mapping[str, float]]], names: Sequence[str], ending: str
) -> dict[str, float]:
    """Over the sets of these names; nothing where there are none."""
    return {
        ("" if score == SCORES[0] else f"{score}_") + metric + ending: float(
            np.mean([table[name][metric] for name in names])
        )
        for score, table in tables.items()
        for metric in METRICS
        if names
    }


def draw_scores(pairs: Mapping[str, tuple[Scores, Scores]], path: Path) -> None:
    """How the largest softmax spreads over known and foreign images, and the ROC curves.

    Args:
        pairs: name of the set -> scores of the known images, of its own.
        path: of the PNG.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    known = next(iter(pairs.values()))[0]
    bins = np.linspace(0, 1, 41)
    left.hist(known, bins, weights=np.full(len(known), 100 / len(known)), color="0.85")
    left.axvline(np.sort(known)[len(known) // 20], color="0.4", lw=0.8, ls=":")
    for number, (name, (_, scores)) in enumerate(pairs.items()):
        look = {"color": f"C{number % 10}", "ls": "--" if name in NOISE else "-", "lw": 1.4}
        share = 100 * np.histogram(scores, bins)[0] / len(scores)
        left.stairs(share, bins, **look)
        tp, fp = counts(known, scores)
        metrics = detection_metrics(known, scores)
        label = f"{printable(name, 28)}: AUROC {metrics['auroc']:.1f}, TNR {metrics['tnr']:.1f}"
        right.plot(100 * fp / fp[-1], 100 * tp / tp[-1], label=label, **look)
    right.axhline(95, color="0.4", lw=0.8, ls=":")
    left.set(xlabel="largest softmax; grey: known, dotted: 95 % of them", ylabel="% of the images")
    right.set(xlabel="foreign taken for known, %", ylabel="known taken for known, %")
    right.legend(fontsize=8, loc="lower right")
    save_figure(figure, path)
