"""How much a corpus score depends on the images that happen to be in it.

Images are drawn with replacement and the corpus score is computed of each draw (Efron and
Tibshirani, 1993, chapter 13; for such scores Koehn, EMNLP 2004). What an image contributes stays as
it is: document frequencies are not counted anew.

Letters: N images, D draws.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Floats
from transfer.captioning.scores.bleu import bleu
from transfer.captioning.scores.meteor.score import corpus_scores as meteor_scores
from transfer.captioning.scores.summary import METEOR, NAMES, SufficientStats, corpus_scores

_CELLS = 1 << 21  # images times draws at a time


@dataclass(frozen=True)
class Interval:
    """A score and the interval that 95 % of the draws fall into."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference(Interval):
    """A score of one system minus that of another on the same images."""

    p: float
    """Two-sided: how often two systems that do not differ would differ at least as much."""


def intervals(stats: SufficientStats, draws: int, seed: int) -> dict[str, Interval]:
    """The percentile interval of each corpus score."""
    drawn = _score_draws(stats, _draw(len(stats), draws, seed))
    return {
        name: Interval(value, *_percentiles(drawn[name]))
        for name, value in corpus_scores(stats).items()
    }


def compare(
    one: SufficientStats, other: SufficientStats, draws: int, seed: int
) -> dict[str, Difference]:
    """Paired: both systems on the same draws of images.

    The interval is that of the differences. The p value comes from swapping the two systems' rows
    image by image at random (approximate randomisation, Noreen 1989), which needs no assumption on
    the score.

    Raises:
        UsageError: the rows are of different numbers of images.
    """
    if len(one) != len(other):
        raise UsageError(f"{len(one)} images cannot be paired with {len(other)}")
    both, result = SufficientStats.join([one, other]), {}
    drawn = [_score_draws(stats, _draw(len(one), draws, seed)) for stats in (one, other)]
    swapped = [_score_draws(both, _swap(len(one), draws, seed, flag)) for flag in (False, True)]
    second = corpus_scores(other)
    for name, first in corpus_scores(one).items():
        value = first - second[name]
        by_chance = np.abs(swapped[0][name] - swapped[1][name])
        as_large = int((by_chance >= abs(value) - 1e-12).sum())
        low, high = _percentiles(drawn[0][name] - drawn[1][name])
        result[name] = Difference(value, low, high, (as_large + 1) / (draws + 1))
    return result


def _draw(num_images: int, draws: int, seed: int) -> Iterator[Floats]:
    """How often each image is drawn, (D, N) in blocks of D."""
    generator = np.random.default_rng([seed, 0])
    for size in _blocks(draws, num_images):
        images = generator.integers(num_images, size=(size, num_images))
        images += np.arange(size)[:, None] * num_images
        counts = np.bincount(images.ravel(), minlength=images.size)
        yield counts.reshape(images.shape).astype(np.float64)


def _swap(num_images: int, draws: int, seed: int, other: bool) -> Iterator[Floats]:
    """Which system's row each image has in one corpus or the other, (D, 2 N) in blocks of D."""
    generator = np.random.default_rng([seed, 1])
    for size in _blocks(draws, 2 * num_images):
        swap = (generator.random((size, num_images)) < 0.5) != other
        yield np.concatenate([~swap, swap], axis=1).astype(np.float64)


def _blocks(draws: int, width: int) -> Iterator[int]:
    size = max(1, _CELLS // width)
    for begin in range(0, draws, size):
        yield min(size, draws - begin)


def _score_draws(stats: SufficientStats, weights: Iterable[Floats]) -> dict[str, Floats]:
    """(D,) of each score, of corpora that hold each image as often as `weights` (D, N) say."""
    blocks = []
    for block in weights:  # of whole numbers: sums of counts are exact
        total = block.sum(axis=1)
        columns = [*bleu((block @ stats.bleu).astype(np.int64)).T]
        columns += [block @ column / total for column in (stats.rouge, stats.cider)]
        if stats.meteor is not None:
            columns.append(meteor_scores(stats.meteor, block))
        blocks.append(np.stack(columns))
    return dict(zip((*NAMES, METEOR), np.concatenate(blocks, axis=1), strict=False))


def _percentiles(values: Floats) -> tuple[float, float]:
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)
