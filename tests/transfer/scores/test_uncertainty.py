"""Intervals over images, and pairs of systems."""

import numpy as np
import pytest

from pretrain.errors import UsageError
from transfer.captioning.scores import References
from transfer.captioning.scores.summary import SufficientStats, corpus_scores
from transfer.captioning.scores.uncertainty import _draw, _score_draws, compare, intervals


@pytest.fixture(scope="module")
def rows(coco):
    """300 images, captioned by people, and by a nearest neighbour."""
    references, captions, _ = coco
    ids = list(captions["human"])[:300]
    prepared = References({image_id: references["all"][image_id] for image_id in ids})
    return tuple(
        prepared.sufficient_stats(ids, [captions[name][image_id] for image_id in ids])
        for name in ("nn_tfidf", "nn_single")
    )


def take(stats, rows):
    """Some of the rows, or the same one several times."""
    assert stats.meteor is None
    return SufficientStats(stats.bleu[rows], stats.rouge[rows], stats.cider[rows], None)


def test_a_draw_is_scored_as_the_corpus_it_is(rows):
    """Counts of images against the rows themselves, repeated."""
    counts = next(_draw(300, 5, 0))
    assert (counts.sum(axis=1) == 300).all()
    found = _score_draws(rows[0], iter([counts]))
    for draw, row in enumerate(counts.astype(int)):
        repeated = corpus_scores(take(rows[0], np.repeat(np.arange(300), row)))
        for name, value in repeated.items():
            assert found[name][draw] == pytest.approx(value, abs=1e-12)


def test_an_interval_is_about_the_standard_error(rows):
    """For a mean over images the theory is known: 1.96 standard errors to each side."""
    found = intervals(rows[0], 2000, seed=0)
    values = corpus_scores(rows[0])
    assert list(found) == list(values)
    for name, column in (("ROUGE_L", rows[0].rouge), ("CIDEr", rows[0].cider)):
        half = 1.96 * column.std() / np.sqrt(300)
        assert found[name].value == values[name]
        assert found[name].low == pytest.approx(values[name] - half, abs=0.15 * half)
        assert found[name].high == pytest.approx(values[name] + half, abs=0.15 * half)
    assert found["Bleu_4"].low < values["Bleu_4"] < found["Bleu_4"].high


def test_the_seed_decides(rows):
    assert intervals(rows[0], 50, seed=3) == intervals(rows[0], 50, seed=3)
    assert intervals(rows[0], 50, seed=3) != intervals(rows[0], 50, seed=4)


def test_a_better_system_is_found_and_the_same_one_is_not(rows):
    better, other = rows
    found = compare(better, other, 500, seed=0)
    for name, entry in found.items():
        assert entry.value == corpus_scores(better)[name] - corpus_scores(other)[name] > 0
        assert 0 < entry.low < entry.value < entry.high
        assert entry.p == pytest.approx(1 / 501)
    for entry in compare(other, other, 200, seed=0).values():
        assert (entry.value, entry.low, entry.high, entry.p) == (0, 0, 0, 1)


def test_p_is_uniform_where_nothing_differs(rows):
    """Two systems that are one, its rows dealt out by chance: small p are as rare as they say."""
    better, other = rows
    generator = np.random.default_rng(0)
    ps = []
    for seed in range(60):
        swap = generator.random(300) < 0.5
        pick = np.where(swap, 300, 0) + np.arange(300)
        both = SufficientStats.join([better, other])
        one, two = take(both, pick), take(both, (pick + 300) % 600)
        ps.append(compare(one, two, 60, seed)["CIDEr"].p)
    assert 0.3 < np.mean(ps) < 0.7
    assert np.mean(np.array(ps) < 0.1) < 0.25


def test_pairs_need_the_same_images(rows):
    with pytest.raises(UsageError, match="300 images cannot be paired with 299"):
        compare(rows[0], take(rows[1], np.arange(299)), 10, seed=0)
