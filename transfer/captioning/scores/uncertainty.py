"""How much a corpus score depends on the images that happen to be in it.

Images are drawn with replacement and the corpus score is computed of each draw (Efron and
Tibshirani, 1993, chapter 13; for such scores Koehn, EMNLP 2004). What an image contributes stays as
it is: document frequencies are not counted anew.

Letters: N images, D draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Floats
from transfer.captioning.scores.bleu import bleu
from transfer.captioning.scores.meteor.score import corpus_scores as meteor_scores
from transfer.captioning.scores.summary import METEOR, NAMES, Rows, corpus_scores

_BORDERS = (0.025, 0.975)
_CELLS = 1 << 21  # images times draws at a time


@dataclass(frozen=True)
class Interval:
    """A score and the interval that 95 % of the draws fall into."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A score of one system minus that of another on the same images."""

    value: float
    low: float
    high: float
    p: float
    """Two-sided: how often two systems that do not differ would differ at least as much."""


def intervals(rows: Rows, draws: int, seed: int) -> dict[str, Interval]:
    """The percentile interval of each corpus score."""
    values = corpus_scores(rows)
    drawn = _scores_of(rows, _drawn(len(rows), draws, seed))
    return {name: Interval(values[name], *_percentiles(drawn[name])) for name in values}


def compare(one: Rows, other: Rows, draws: int, seed: int) -> dict[str, Difference]:
    """Paired: both systems on the same draws of images.

    The interval is that of the differences. The p value comes from swapping the two systems' rows
    image by image at random (approximate randomisation, Noreen 1989), which needs no assumption on
    the score.

    Raises:
        UsageError: the rows are of different numbers of images.
    """
    if len(one) != len(other):
        raise UsageError(f"{len(one)} images cannot be paired with {len(other)}")
    first, second = corpus_scores(one), corpus_scores(other)
    drawn_one = _scores_of(one, _drawn(len(one), draws, seed))
    drawn_other = _scores_of(other, _drawn(len(one), draws, seed))
    both = Rows.join([one, other])
    left = _scores_of(both, _swapped(len(one), draws, seed, False))
    right = _scores_of(both, _swapped(len(one), draws, seed, True))
    result = {}
    for name in first:
        value = first[name] - second[name]
        as_large = int((np.abs(left[name] - right[name]) >= abs(value) - 1e-12).sum())
        low, high = _percentiles(drawn_one[name] - drawn_other[name])
        result[name] = Difference(value, low, high, (as_large + 1) / (draws + 1))
    return result


def _drawn(num_images: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, (D, N) in blocks of D."""
    generator = np.random.default_rng([seed, 0])
    for size in _blocks(draws, num_images):
        images = generator.integers(num_images, size=(size, num_images))
        images += np.arange(size)[:, None] * num_images
        counts = np.bincount(images.ravel(), minlength=size * num_images)
        yield counts.reshape(size, num_images).astype(np.float64)


def _swapped(num_images: int, draws: int, seed: int, other: bool) -> Iterator[Floats]:
    """Which system's row each image has in one corpus or the other, (D, 2 N) in blocks of D."""
    generator = np.random.default_rng([seed, 1])
    for size in _blocks(draws, 2 * num_images):
        swap = (generator.random((size, num_images)) < 0.5) != other
        yield np.concatenate([~swap, swap], axis=1).astype(np.float64)


def _blocks(draws: int, width: int) -> Iterator[int]:
    size = max(1, _CELLS // width)
    for begin in range(0, draws, size):
        yield min(size, draws - begin)


def _scores_of(rows: Rows, weights: Iterator[Floats]) -> dict[str, Floats]:
    """(D,) of each score, of corpora that hold each image as often as `weights` (D, N) say."""
    parts: dict[str, list[Floats]] = {}
    for block in weights:  # of whole numbers: sums of counts are exact
        total = block.sum(axis=1)
        four = bleu((block @ rows.bleu).astype(np.int64)).T
        means = [block @ column / total for column in (rows.rouge, rows.cider)]
        columns = dict(zip(NAMES, [*four, *means], strict=True))
        if rows.meteor is not None:
            columns[METEOR] = meteor_scores(rows.meteor, block)
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, _BORDERS)
    return float(low), float(high)
