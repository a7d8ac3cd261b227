"""What is measured on frozen features: the linear probe (solved in `probe`) and k-NN.

k nearest neighbours by cosine similarity, with the weighted vote of instance discrimination: each
of the k most similar training images votes for its class with exp(s / T), T = 0.07 (Wu et al., CVPR
2018, section 3.4; DINO, Caron et al., ICCV 2021, evaluates so), or with 1. Equal similarities: the
image that comes first is nearer. Equal votes: the first class wins. Features are divided by their
length and by nothing else. Q queries, N training images, F features, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.progress import bar, log
from transfer.classification.config import ClassificationConfig, KnnConfig
from transfer.classification.confusion import confusion_matrix, mean_per_class, top1
from transfer.classification.folders import ClassificationData, Indices
from transfer.classification.probe import SoftmaxRegression
from transfer.classification.setup import ClassificationSetup
from transfer.feature_cache import FeatureCache, Features

_CHUNK = 2**25  # similarities in memory at once


@dataclass(frozen=True)
class ModeResult:
    """What one mode has measured: the content of RUN/modes/MODE.json."""

    metrics: dict[str, Any]
    predicted: list[int]
    """The class of each scored image; -1 for one left out."""
    left_out: list[str]
    """Files that cannot be read."""

    @staticmethod
    def of(
        mode: str,
        data: ClassificationData,
        predictions: Indices,
        left_out: set[str],
        metrics: dict[str, Any],
    ) -> "ModeResult":
        """Score the predictions for the scored images; `metrics` come behind the scores."""
        matrix = confusion_matrix(predictions, data.labels[data.scored], len(data.classes))
        scores = {f"{mode}_top1": top1(matrix), f"{mode}_mean_per_class": mean_per_class(matrix)}
        return ModeResult(scores | metrics, predictions.tolist(), sorted(left_out))


@dataclass(frozen=True)
class FrozenFeatures:
    """Features of the images that could be read, by split."""

    data: ClassificationData
    features: Features
    device: torch.device

    def select(self, indices: Indices) -> tuple[Tensor, Tensor]:
        """Of the readable images: features (N, F) on the device, labels (N,) on the CPU."""
        readable = indices[self.features.row_of[indices] >= 0]
        labels = torch.from_numpy(self.data.labels[readable])
        return self.features.select(readable).to(self.device), labels

    def result(self, mode: str, predictions: Tensor, metrics: dict[str, Any]) -> ModeResult:
        """Score predictions for the readable scored images."""
        predicted = np.full(len(self.data.scored), -1, np.int64)
        predicted[self.features.row_of[self.data.scored] >= 0] = predictions.numpy()
        left_out = {self.data.names[index] for index in self.features.corrupt}
        return ModeResult.of(mode, self.data, predicted, left_out, metrics)


def encode(
    setup: ClassificationSetup,
    config: ClassificationConfig,
    fabric: Fabric,
    max_corrupt_option: str = "--dataset.max_corrupt",
) -> FrozenFeatures:
    """Encode what is not in the cache.

    Raises:
        UsageError: too many broken images, or none left of a class. Features are kept.
    """
    data = setup.data
    cache = FeatureCache(Path(config.cache), setup.backbone, "pooled")
    with fabric.rank_zero_first():  # the others find everything there
        features = cache.features(data.paths, fabric, workers=config.loader.workers)
    features.check_corrupt(
        config.dataset.max_corrupt, verbose=fabric.is_global_zero, option=max_corrupt_option
    )
    readable = features.row_of >= 0
    first = next(iter(features.corrupt.values()), "")
    if not readable[data.choose].any():
        raise UsageError(
            f"none of the images that penalty and k are chosen on can be read. {first}"
        )
    for indices, split in ((data.fit, "training"), (data.scored, data.scored_name)):
        gone = np.setdiff1d(data.labels[indices], data.labels[indices[readable[indices]]])
        if len(gone):
            raise UsageError(
                f"no {split} image of class {data.classes[gone[0]]} can be read. {first}"
            )
    # equal files have one row
    both = np.intersect1d(features.row_of[data.train], features.row_of[data.scored])
    if fabric.is_global_zero and (count := int((both >= 0).sum())):
        log(
            f"note: {count:,} images are both trained on and scored, byte for byte: the "
            "figures say less than they seem to"
        )
    return FrozenFeatures(data, features, fabric.device)


def linear_probe(frozen: FrozenFeatures, config: ClassificationConfig) -> ModeResult:
    """The penalty that is best on `choose`, then the probe at that penalty on `train`."""
    data, options = frozen.data, config.linear
    device = torch.device("cpu") if frozen.device.type == "mps" else frozen.device

    def regression(indices: Indices) -> SoftmaxRegression:
        features, labels = frozen.select(indices)
        return SoftmaxRegression(features, labels, len(data.classes), options.penalty, device)

    features, labels = frozen.select(data.choose)
    problem, probe, best = regression(data.fit), None, None
    path, unsolved = {}, []
    penalties = sorted(set(options.penalties), reverse=True)
    limits = options.tolerance, options.max_iterations
    with bar("linear probe", len(penalties) + 1, "fits") as advance:
        for penalty in penalties:
            probe = problem.solve(penalty, *limits, start=probe)
            path[penalty] = _percent(probe.predict(features), labels)
            unsolved += [] if probe.converged else [penalty]
            # of equals the stronger, which was first
            best = probe if best is None or path[penalty] > path[best.penalty] else best
            advance(1, f"penalty {penalty:g}: {path[penalty]:.1f} %")
        assert best is not None
        if data.fit is not data.train:
            best = regression(data.train).solve(best.penalty, *limits, best)
            advance(1)
    if unsolved or not best.converged:
        failed = ", ".join(f"{value:g}" for value in unsolved or [best.penalty])
        log(
            f"note: the probe has not converged at penalty {failed} in {options.max_iterations} "
            "iterations: give more by --linear.max_iterations"
        )
    features, _ = frozen.select(data.scored)
    metrics = {
        "linear_penalty": best.penalty,
        "linear_path": {f"{value:g}": round(top, 2) for value, top in sorted(path.items())},
        "linear_converged": best.converged and not unsolved,
        "linear_iterations": best.iterations,
        "linear_objective": best.objective,
    }
    return frozen.result("linear", best.predict(features), metrics)


def knn(frozen: FrozenFeatures, config: ClassificationConfig) -> ModeResult:
    """The k that is best on `choose` with neighbours of `fit`, then that k with all of `train`."""
    data, options = frozen.data, config.knn
    neighbours, (queries, labels) = frozen.select(data.fit), frozen.select(data.choose)
    usable, num_classes = len(neighbours[1]), len(data.classes)
    ks = sorted({k for k in options.ks if k <= usable})
    if skipped := sorted({*options.ks} - {*ks}):
        values = ", ".join(map(str, skipped))
        log(f"note: k = {values} skipped: there are {usable:,} neighbours while k is chosen")
    if not ks:
        raise UsageError(f"no k of knn.ks is at most {usable}, the number of readable images")
    with bar("nearest neighbours", 2, "searches") as advance:
        tried = classify_by_neighbours(*neighbours, queries, num_classes, ks, options)
        path = {k: _percent(predictions, labels) for k, predictions in tried.items()}
        best = max(ks, key=lambda k: (path[k], k))
        advance(1)
        neighbours, (queries, _) = frozen.select(data.train), frozen.select(data.scored)
        chosen = classify_by_neighbours(*neighbours, queries, num_classes, [best], options)
        advance(1)
    metrics = {
        "knn_k": best,
        "knn_path": {str(k): round(top, 2) for k, top in path.items()},
        "knn_skipped": skipped,
    }
    return frozen.result("knn", chosen[best], metrics)


def _percent(predictions: Tensor, labels: Tensor) -> float:
    return 100 * float((predictions == labels).double().mean())


@torch.no_grad()
def classify_by_neighbours(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    num_classes: int,
    ks: Sequence[int],
    options: KnnConfig,
) -> dict[int, Tensor]:
    """The class that wins among the k nearest rows of the bank, for several k.

    Args:
        bank: (N, F).
        labels: (N,) of its rows, on the CPU.
        queries: (Q, F), on the device of the bank.
        num_classes: K.
        ks: each at most N.
        options: what a neighbour counts.

    Returns:
        k -> (Q,) classes, on the CPU.
    """
    bank = functional.normalize(bank.float(), dim=1)
    predictions: dict[int, list[Tensor]] = {k: [] for k in sorted(set(ks))}
    for chunk in queries.split(max(1, _CHUNK // len(bank))):
        similarities, indices = _nearest(
            functional.normalize(chunk.float(), dim=1) @ bank.T, max(ks)
        )
        weights, classes = similarities.cpu().double(), labels[indices.cpu()]
        weighted = options.vote == "weighted"
        weights = (weights / options.temperature).exp() if weighted else torch.ones_like(weights)
        votes, counted = weights.new_zeros(len(chunk), num_classes), 0
        for k, winners in predictions.items():
            votes.scatter_add_(1, classes[:, counted:k], weights[:, counted:k])
            winners.append(votes.argmax(1))
            counted = k
    return {k: torch.cat(winners) for k, winners in predictions.items()}


def _nearest(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row, falling, and their columns: of equals the lower comes first."""
    values, indices = similarities.topk(k, dim=1)
    # topk may take any of those that equal the last one
    last = values[:, -1:]
    cut = (similarities == last).sum(1) > (values == last).sum(1)
    if cut.any():
        ordered = similarities[cut].sort(dim=1, descending=True, stable=True)
        values[cut], indices[cut] = ordered.values[:, :k], ordered.indices[:, :k]
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return values, indices.gather(1, order)
