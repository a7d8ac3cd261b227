"""From features to captions: beam search, all images at once, in groups where diversity is wanted.

Any decoder with `init_state` and `step` (see `decoder`), any device. PAD, START and UNKNOWN are
never generated: their probability goes to the other words.

N images, G groups, W hypotheses of a group, K = G * W of an image, L words at most, V vocabulary.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from transfer.captioning.config import DecodingConfig
from transfer.captioning.continuations import extend_groups, mask_repeats
from transfer.captioning.decoder import FeaturesT, StepDecoder
from transfer.captioning.vocabulary import END, NOT_GENERATED, PAD, START, Vocabulary

_MAX_HYPOTHESES = 1000  # searched together


def generate_captions(
    decoder: StepDecoder[FeaturesT],
    batches: Iterable[FeaturesT],
    vocabulary: Vocabulary,
    config: DecodingConfig,
) -> list[str]:
    """The caption of each image, from batches of features (N, ...) in order.

    Args:
        decoder: in evaluation mode.
        batches: on the decoder's device.
        vocabulary: the decoder's.
        config: how to search.
    """
    return [captions[0] for captions in generate_groups(decoder, batches, vocabulary, config)]


def generate_groups(
    decoder: StepDecoder[FeaturesT],
    batches: Iterable[FeaturesT],
    vocabulary: Vocabulary,
    config: DecodingConfig,
) -> list[list[str]]:
    """Like `generate_captions`, but the best caption of each group, likeliest first."""
    captions = []
    for features in batches:
        found = beam_search(decoder, features, config).groups.tolist()
        captions += [list(map(vocabulary.decode, groups)) for groups in found]
    return captions


def images_at_once(width: int) -> int:
    """How many images a search of that width should be given together."""
    return max(1, _MAX_HYPOTHESES // width)


class BeamSearchOutput(NamedTuple):
    """The best caption of each group of each image, likeliest first.

    A caption that was cut at L words stands behind those that have ended.
    """

    groups: Tensor
    """(N, G, at most L) words; PAD behind END. A caption without END was cut at L words."""
    group_scores: Tensor
    """(N, G) log-probability, divided by length ** config.length_normalisation."""

    @property
    def words(self) -> Tensor:
        """(N, at most L): the best caption of each image."""
        return self.groups[:, 0]

    @property
    def scores(self) -> Tensor:
        """(N,): of these."""
        return self.group_scores[:, 0]


@torch.inference_mode()
def beam_search(
    decoder: StepDecoder[FeaturesT], features: FeaturesT, config: DecodingConfig
) -> BeamSearchOutput:
    """The best caption that a beam of K = `config.beam` hypotheses finds for each image.

    Of all continuations by one word the 2 K best are compared. Those among the first K that end
    are captions; the K best of the others go on. The result is the best caption, and the best
    hypothesis where none has ended after `max_length` words. Of equal continuations the earlier
    hypothesis comes first, then the smaller word (END, then the more frequent one). An image is
    done as soon as no hypothesis could still become better than its best caption, which is exact: a
    log-probability only falls with further words.

    With `config.groups` above 1 this is diverse beam search (Vijayakumar et al., AAAI 2018, arXiv
    1610.02424, with Hamming diversity). Each group searches by itself with K / G hypotheses, but
    at each place `config.diversity` times the number of hypotheses of earlier groups that go on
    with a word at this place is taken from its log-probability. As in the authors' code, in
    ruotianluo's and in transformers', what has been taken stays in the sums by which a group
    compares its own; between groups, and in the scores returned, it is left out. As in
    transformers, END is never counted, since a caption leaves the beam. There a group that is done
    counts as so many hypotheses that go on with the padding; here it goes on to the last word of
    the image, as if every search ran to the greatest length.

    Args:
        decoder: in evaluation mode.
        features: (N, ...), or a tuple of such.
        config: width, length, how captions of different lengths are compared, what may repeat.
    """
    first = features if isinstance(features, Tensor) else features[0]
    count, device, groups = len(first), first.device, config.groups
    width, max_length, power = config.beam // groups, config.max_length, config.length_normalisation
    memory, state = decoder.init_state(features)
    state = tuple(part.expand(count, config.beam, *part.shape[2:]) for part in state)
    first_of_group = torch.arange(0, config.beam, width, device=device)[:, None]
    words = torch.full((count, groups, width), START, device=device)
    history = torch.full((count, groups, width, max_length), PAD, device=device)
    scores = first.new_full((count, groups, width), -torch.inf)
    scores[..., 0] = 0.0  # at first there is one hypothesis
    sums = scores.clone()  # of log-probabilities, from which nothing is taken
    active = torch.arange(count, device=device)  # images that are not done
    best_words, best_scores = history[:, :, 0].clone(), first.new_full((count, groups), -torch.inf)
    best_sums = best_scores.clone()
    for length in range(1, max_length + 1):
        logits, state = decoder.step(words.flatten(1), memory, state)
        logits[..., NOT_GENERATED] = -torch.inf
        if 0 < config.block_ngrams < length:
            so_far = history.flatten(1, 2)[..., : length - 1]
            mask_repeats(logits, so_far, config.block_ngrams)
        log_probs = torch.log_softmax(logits, dim=-1).unflatten(1, (groups, width))
        values, parents, words = extend_groups(log_probs, scores, config.diversity)
        chosen = log_probs.flatten(2).gather(2, parents * logits.shape[-1] + words)
        sums = sums.gather(2, parents) + chosen
        is_end = words == END

        # ---- captions: the best of those that end among the first of the group
        ended = values.masked_fill(~is_end, -torch.inf)[..., :width] / length**power
        value, position = ended.max(dim=2)
        image, group = (value > best_scores[active]).nonzero(as_tuple=True)
        position = position[image, group]
        captions = history[image, group, parents[image, group, position]]
        captions[:, length - 1] = END
        best_words[active[image], group] = captions
        best_scores[active[image], group] = value[image, group]
        best_sums[active[image], group] = sums[image, group, position] / length**power

        # ---- hypotheses: the first that do not end, in order
        order = is_end.long().argsort(dim=2, stable=True)[..., :width]
        scores = values.masked_fill(is_end, -torch.inf).gather(2, order)
        parents, words, sums = (part.gather(2, order) for part in (parents, words, sums))
        history = history.gather(2, parents[..., None].expand_as(history))
        history[..., length - 1] = words

        # ---- images that are done leave
        reach = scores[..., 0] / max_length**power
        going = (reach > best_scores[active]).any(1).nonzero()[:, 0]
        rows = going[:, None] * config.beam + (parents + first_of_group).flatten(1)[going]
        state = tuple(_take_rows(part, rows) for part in state)
        if len(going) < len(active):
            active, words, scores, sums = active[going], words[going], scores[going], sums[going]
            history, memory = history[going], tuple(part[going] for part in memory)
        if not len(active):
            break
    is_cut = best_scores.isneginf()
    image, group = is_cut[active].nonzero(as_tuple=True)
    best_words[active[image], group] = history[image, group, 0]
    best_sums[active[image], group] = sums[image, group, 0] / max_length**power
    order = best_sums.argsort(dim=1, descending=True, stable=True)
    order = order.gather(1, is_cut.gather(1, order).long().argsort(dim=1, stable=True))
    best_words = best_words.gather(1, order[..., None].expand_as(best_words))
    longest = int((best_words != PAD).any(0).any(0).sum())
    return BeamSearchOutput(best_words[..., : max(1, longest)], best_sums.gather(1, order))


def _take_rows(part: Tensor, rows: Tensor) -> Tensor:
    """Hypotheses (N, K, ...) by numbers (n, K) among N * K; twice as fast as indexing both."""
    return part.flatten(0, 1).index_select(0, rows.flatten()).unflatten(0, rows.shape)
