"""References prepared once, to score captions against them again and again.

prepared = References({1: ["A dog runs.", ...], ...})
prepared.score({1: "a dog running", ...})          after every epoch
prepared.cider_d([1, 1, 2], [caption, ...])        rewards, several captions an image
scores = ScoreAccumulator(prepared); scores.add({1: ...}); scores.add({2: ...}); scores.compute()
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, Protocol

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores import cider
from transfer.captioning.scores.arrays import Floats, Ints, changes, find_sorted, spread, starts_of
from transfer.captioning.scores.bleu import sufficient_stats as bleu_stats
from transfer.captioning.scores.cider import DocumentFrequencies
from transfer.captioning.scores.ngrams import ORDERS, Ngrams, count_ngrams
from transfer.captioning.scores.rouge import rouge_l
from transfer.captioning.scores.summary import Id, Scores, SufficientStats, compute_scores
from transfer.captioning.scores.tokenizer import (
    TokenIds,
    Tokenize,
    Tokenizer,
    find_tokenizer,
    tokenize,
)


class PreparedMeteor(Protocol):
    """References prepared for METEOR."""

    def sufficient_stats(self, captions: TokenIds, names: Sequence[str], image: Ints) -> Ints:
        """(C, 23) counts of each caption beside the reference that suits it best."""


class MeteorBackend(Protocol):
    """What computes METEOR: `meteor.Meteor`, or the jar by `meteor.jar.MeteorJar`."""

    def prepare(self, captions: TokenIds, names: Sequence[str], sizes: Ints) -> PreparedMeteor:
        """Prepare references: all captions image by image, the words by number, (I,) how many."""


def score(
    references: Mapping[Id, Sequence[str]],
    hypotheses: Mapping[Id, str],
    *,
    frequencies: DocumentFrequencies | None = None,
    meteor: MeteorBackend | None = None,
    tokenizer: str | Tokenize = "ptb",
) -> Scores[Id]:
    """Score one raw caption an image against its raw reference captions.

    Args:
        references: {id: [caption, ...]}, at least one caption for each hypothesis; further ids
            are ignored.
        hypotheses: {id: caption}; an empty caption counts and shares nothing.
        frequencies: document frequencies for CIDEr from a larger corpus.
        meteor: computes METEOR too, such as `Meteor.open()`.
        tokenizer: see `References`.

    Raises:
        UsageError: no hypotheses, one without a reference, or something that is no text.
    """
    _check_mapping("the references", references, "{id: [caption, ...]}")
    _check_mapping("the captions", hypotheses, "{id: caption}")
    _check_captions(list(hypotheses), list(hypotheses.values()), references)
    if not hypotheses:
        raise UsageError("there are no captions to score")
    chosen = {image_id: references[image_id] for image_id in hypotheses}
    prepared = References(chosen, frequencies=frequencies, meteor=meteor, tokenizer=tokenizer)
    return prepared.score(hypotheses)


class References(Generic[Id]):
    """The references of a set of images, prepared.

    Args:
        references: {id: [caption, ...]}, at least one caption an image.
        frequencies: document frequencies for CIDEr from a larger corpus; by default they come from
            these references, all of them, whichever images are scored later.
        meteor: computes METEOR too, which takes some seconds for thousands of images.
        tokenized: the captions are cut already, words between single spaces (for rewards on a
            captioner's own words: add the end token to both sides as a word, without which captions
            learn to end in "with a").
        tokenizer: what cuts references and captions: "ptb"; "characters" for languages without
            spaces; "none" for captions that are cut already; or a function from a caption to the
            list of its words. METEOR is for English, and there with "ptb" alone.

    Raises:
        UsageError: no images, an image without captions, something that is no text, an unknown
            tokenizer, or METEOR with another one than "ptb".
    """

    def __init__(
        self,
        references: Mapping[Id, Sequence[str]],
        *,
        frequencies: DocumentFrequencies | None = None,
        meteor: MeteorBackend | None = None,
        tokenized: bool = False,
        tokenizer: str | Tokenize = "ptb",
    ) -> None:
        if meteor is not None and find_tokenizer(tokenizer) is not tokenize:
            raise UsageError(
                "METEOR matches English words of the tokenizer ptb; leave it out with another "
                f"tokenizer (got {tokenizer!r})."
            )
        _check_mapping("the references", references, "{id: [caption, ...]}")
        if not references:
            raise UsageError("there are no references")
        for image_id, captions in references.items():
            is_list = isinstance(captions, Iterable) and not isinstance(captions, str)
            if not is_list or not {*map(type, captions)} <= {str}:
                text = f"{captions!r:.80}; expected a list of texts"
                raise UsageError(f"the references of id {image_id!r} are {text}")
            if not captions:
                raise UsageError(f"id {image_id!r} has no reference captions")
        self.captions = {image_id: tuple(captions) for image_id, captions in references.items()}
        self._position = {image_id: position for position, image_id in enumerate(self.captions)}
        self._tokenized = tokenized
        self._tokenizer = Tokenizer(tokenizer)
        flat = [caption for captions in self.captions.values() for caption in captions]
        self._whole = self._tokenizer.encode(flat, tokenized)
        split = self._tokenizer.split(self._whole)
        # words by alphabet: sums do not depend on the order of images
        names = sorted(self._tokenizer)
        self._rank = np.empty(len(names), np.int64)
        self._rank[[self._tokenizer[name] for name in names]] = np.arange(len(names))
        sizes = np.array([len(captions) for captions in self.captions.values()])
        ranked = TokenIds(self._rank[split.words], split.counts)
        self._index = _ReferenceIndex(ranked, sizes, names, frequencies)
        self._meteor: PreparedMeteor | None = None
        if meteor is not None:
            self._meteor = meteor.prepare(self._whole, list(self._tokenizer), sizes)

    @property
    def known_words(self) -> float:
        """Share of the references' different words that the document frequencies know."""
        return float(np.mean(self._index.word_numbers >= 0)) if len(self._rank) else 1.0

    def score(self, hypotheses: Mapping[Id, str]) -> Scores[Id]:
        """Score one caption for each image, or for some of the images.

        Raises:
            UsageError: no captions, one whose id has no references, or one that is no text.
        """
        scores = ScoreAccumulator(self)
        scores.add(hypotheses)
        return scores.compute()

    def cider_d(self, ids: Sequence[Id], captions: Sequence[str]) -> Floats:
        """(C,) CIDEr-D of each caption, in [0, 10]: rewards. An id may come several times."""
        image, _, split, unseen = self._encode(ids, captions)
        return self._index.compare(split, image, unseen)[1]

    def sufficient_stats(self, ids: Sequence[Id], captions: Sequence[str]) -> SufficientStats:
        """What all scores of captions are made of; an id may come several times."""
        image, whole, split, unseen = self._encode(ids, captions)
        caption, reference = self._index.pairs(image)
        matches, cider_d = self._index.compare(split, image, unseen)
        meteor = None
        if self._meteor is not None:
            meteor = self._meteor.sufficient_stats(whole, list(self._tokenizer), image)
        return SufficientStats(
            bleu_stats(split.counts, self._index.counts[reference], caption, matches),
            rouge_l(whole, self._whole, caption, reference),
            cider_d,
            meteor,
        )

    def _encode(
        self, ids: Sequence[Id], captions: Sequence[str]
    ) -> tuple[Ints, TokenIds, TokenIds, list[str]]:
        """Captions to score, as numbers.

        Returns:
            (C,) the position of each caption's image; the captions as ROUGE-L compares them; as
            BLEU and CIDEr count them, words numbered by alphabet, those of the references first;
            the words that stand in no reference, numbered behind the others.
        """
        _check_captions(ids, captions, self._position)
        image = np.array([self._position[image_id] for image_id in ids], np.int64)
        whole = self._tokenizer.encode(captions, self._tokenized)
        split = self._tokenizer.split(whole)
        known = len(self._rank)
        new = np.unique(split.words[split.words >= known])
        rank, unseen = self._rank, []
        if len(new):
            names = list(self._tokenizer)
            new = np.array(sorted(new.tolist(), key=names.__getitem__))
            unseen = [names[number] for number in new]
            rank = np.append(rank, np.zeros(len(names) - known, np.int64))
            rank[new] = known + np.arange(len(new))
        return image, whole, TokenIds(rank[split.words], split.counts), unseen


class ScoreAccumulator(Generic[Id]):
    """Scores of captions that come bit by bit, as batches are decoded."""

    def __init__(self, references: References[Id]) -> None:
        self._references = references
        self._ids: dict[Id, None] = {}
        self._parts: list[SufficientStats] = []

    def add(self, hypotheses: Mapping[Id, str]) -> None:
        """Add captions of images that have none yet.

        Raises:
            UsageError: an image's second caption, one without references, or one that is no text.
        """
        _check_mapping("the captions", hypotheses, "{id: caption}")
        if twice := [image_id for image_id in hypotheses if image_id in self._ids]:
            raise UsageError(
                f"{len(twice)} of {len(hypotheses)} images have a caption already, the first has "
                f"id {twice[0]!r}"
            )
        if hypotheses:
            ids, captions = list(hypotheses), list(hypotheses.values())
            self._parts.append(self._references.sufficient_stats(ids, captions))
            self._ids |= dict.fromkeys(ids)

    def compute(self) -> Scores[Id]:
        """The scores so far.

        Raises:
            UsageError: there are no captions yet.
        """
        return compute_scores(self._ids, SufficientStats.join(self._parts))


# ---- the n-grams of all references, arranged to be compared with captions
#
# I images, W references, C captions, P pairs of a caption and a reference of its image, R runs of
# equal n-grams, Q (n-gram, image), E (n-gram, reference)


class _Order(NamedTuple):
    """One order's n-grams by image."""

    keys: Ints
    """(Q,) ascending: run times I plus image."""
    most: Ints
    """(Q,) the largest number of times a reference of the image has the n-gram."""
    heads: Ints
    """(Q + 1,) where its entries begin."""
    entries: Ngrams
    """Whose E entries are the references' n-grams by image."""


class _ReferenceIndex:
    """References whose words are numbered from 0 on, image by image."""

    def __init__(
        self,
        references: TokenIds,
        sizes: Ints,
        names: Sequence[str],
        frequencies: DocumentFrequencies | None,
    ) -> None:
        """Count the n-grams.

        Args:
            references: W references.
            sizes: (I,) how many each image has.
            names: the words by number.
            frequencies: of a larger corpus; None counts the images here.
        """
        self.counts, self._sizes, self._starts = references.counts, sizes, starts_of(sizes)
        ngrams = count_ngrams(references)
        words = {name: number for number, name in enumerate(names)}
        self._own = DocumentFrequencies.of(words, ngrams, sizes)
        self._frequencies = frequencies or self._own
        self.word_numbers = self._frequencies.word_numbers(names)
        self._norms = cider.norms(ngrams, self._look_up(ngrams, [])[1], len(references))
        image = np.repeat(np.arange(len(sizes)), sizes)
        self._orders = []
        for grams in ngrams:
            keys = grams.run.astype(np.int64) * len(sizes) + image[grams.caption]
            heads = np.flatnonzero(changes(keys))
            most = np.maximum.reduceat(grams.times, heads) if len(heads) else heads
            ends = np.append(heads, len(keys))
            self._orders.append(_Order(keys[heads], most, ends, grams))

    def pairs(self, image: Ints) -> tuple[Ints, Ints]:
        """(P,) and (P,) each caption of the images `image` (C,) beside each reference of its image.

        The captions ascend, and so do the references of each.
        """
        return spread(self._starts[image], self._sizes[image])

    def compare(self, captions: TokenIds, image: Ints, unseen: list[str]) -> tuple[Ints, Floats]:
        """Compare captions with the references of their images.

        Args:
            captions: C captions, their words numbered as in the references.
            image: (C,) the image of each.
            unseen: the words that stand in no reference, numbered behind those that do.

        Returns:
            (C, 4) n-grams shared, each at most as often as the reference with most of it has it;
            (C,) CIDEr-D.
        """
        caption_of, reference_of = self.pairs(image)
        # from a reference of a caption's image to their pair
        shift = starts_of(self._sizes[image]) - self._starts[image]
        ngrams = count_ngrams(captions)
        runs, idf = self._look_up(ngrams, unseen)
        matches = np.zeros((len(captions), len(ORDERS)), np.int64)
        products = np.zeros((len(caption_of), len(ORDERS)))
        for column, (grams, run, weights, order) in enumerate(
            zip(ngrams, runs, idf, self._orders, strict=True)
        ):
            keys = run[grams.run] * len(self._sizes) + image[grams.caption]  # -1: keys below 0
            group = find_sorted(order.keys, keys)
            known = np.flatnonzero(group >= 0)
            group = group[known]
            caption, times = grams.caption[known], grams.times[known]
            matches[:, column] = np.bincount(
                caption, np.minimum(times, order.most[group]), len(captions)
            )
            # every entry of the n-gram in a reference of the same image
            which, entry = spread(order.heads[group], order.heads[group + 1] - order.heads[group])
            weight = weights[grams.run[known]][which]
            own, other = times[which] * weight, order.entries.times[entry] * weight
            products[:, column] = np.bincount(
                order.entries.caption[entry] + shift[caption][which],
                np.minimum(own, other) * other,
                len(caption_of),
            )
        similar = cider.similarity(
            products,
            cider.norms(ngrams, idf, len(captions))[caption_of],
            self._norms[reference_of],
            captions.counts[caption_of] - self.counts[reference_of],
        )
        return matches, np.bincount(caption_of, similar, len(captions)) / self._sizes[image]

    def _look_up(self, ngrams: list[Ngrams], unseen: list[str]) -> tuple[list[Ints], list[Floats]]:
        """Of captions' n-grams, by order: the run among the references (or -1), and the weight."""
        words = np.append(np.arange(len(self.word_numbers)), np.full(len(unseen), -1))
        runs = self._own.table.find(ngrams, words)
        if self._frequencies is self._own:
            return runs, self._own.idf(runs)
        numbers = np.append(self.word_numbers, self._frequencies.word_numbers(unseen))
        return runs, self._frequencies.idf(self._frequencies.table.find(ngrams, numbers))


def _check_mapping(name: str, value: object, expected: str) -> None:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} are a {type(value).__name__}, {value!r:.60}; expected {expected}")


def _check_captions(
    ids: Sequence[Id], captions: Sequence[str], references: Mapping[Id, object]
) -> None:
    """Raise UsageError where captions cannot be scored."""
    for name, values in (("ids", ids), ("captions", captions)):
        if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
            raise UsageError(f"the {name} are {values!r:.60}; expected a list")
    if strange := [image_id for image_id in ids if not isinstance(image_id, Hashable)]:
        raise UsageError(f"an id is {strange[0]!r:.60}; expected a number or a text")
    if len(ids) != len(captions):
        raise UsageError(f"{len(ids)} ids were given for {len(captions)} captions")
    if lone := [image_id for image_id in ids if image_id not in references]:
        known = f"; ids of references look like {next(iter(references))!r}" if references else ""
        counts = f"{len(lone)} of {len(ids)} captions have no reference"
        raise UsageError(f"{counts}, the first has id {lone[0]!r}{known}")
    for image_id, text in zip(ids, captions, strict=True):
        if type(text) is not str:
            raise UsageError(f"the caption of id {image_id!r} is {text!r:.80}; expected one text")
