"""References prepared once, to score captions against them again and again.

prepared = References({1: ["A dog runs.", ...], ...})
prepared.score({1: "a dog running", ...})          after every epoch
prepared.cider_d([1, 1, 2], [caption, ...])        rewards, several captions an image
tally = Tally(prepared); tally.add({1: ...}); tally.add({2: ...}); tally.scores()
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores import bleu, cider
from transfer.captioning.scores.arrays import Floats, Ints
from transfer.captioning.scores.frequencies import DocumentFrequencies
from transfer.captioning.scores.index import Index, Matches, Pairs
from transfer.captioning.scores.rouge import rouge_l
from transfer.captioning.scores.summary import Rows, Scores, summarise
from transfer.captioning.scores.words import Captions, Words

Id = TypeVar("Id", bound=Hashable)


class PreparedMeteor(Protocol):
    """References prepared for METEOR."""

    def rows(self, captions: Captions, names: Sequence[str], image: Ints) -> Ints:
        """(C, 23) counts of each caption beside the reference that suits it best."""


class MeteorBackend(Protocol):
    """What computes METEOR: `meteor.Meteor`, or the jar by `meteor.jar.MeteorJar`."""

    def prepare(self, captions: Captions, names: Sequence[str], sizes: Ints) -> PreparedMeteor:
        """Prepare references: all captions image by image, the words by number, (I,) how many."""


class References(Generic[Id]):
    """The references of a set of images, prepared.

    Args:
        references: {id: [caption, ...]}, at least one caption an image.
        frequencies: document frequencies for CIDEr from a larger corpus; by default they come from
            these references, all of them, whichever images are scored later.
        meteor: computes METEOR too, which takes some seconds for thousands of images.
        tokenized: the captions are cut already, words between single spaces (for rewards on a
            captioner's own words: add the end token to both sides as a word).

    Raises:
        UsageError: no images, an image without captions, or something that is no text.
    """

    def __init__(
        self,
        references: Mapping[Id, Sequence[str]],
        *,
        frequencies: DocumentFrequencies | None = None,
        meteor: MeteorBackend | None = None,
        tokenized: bool = False,
    ) -> None:
        check_references(references)
        self.captions: dict[Id, tuple[str, ...]] = {
            image_id: tuple(captions) for image_id, captions in references.items()
        }
        self._places = {image_id: place for place, image_id in enumerate(self.captions)}
        self._tokenized = tokenized
        flat = [caption for captions in self.captions.values() for caption in captions]
        self._words = Words()
        self._whole = self._words.cut(flat, tokenized)
        split = self._words.split(self._whole)
        # words by alphabet: sums do not depend on the order of images
        names = sorted(self._words)
        numbers = np.fromiter(map(self._words.__getitem__, names), np.int64)
        self._rank = np.empty(len(numbers), np.int64)
        self._rank[numbers] = np.arange(len(numbers))
        sizes = np.array([len(captions) for captions in self.captions.values()])
        self._index = Index(
            Captions(self._rank[split.words], split.counts), sizes, names, frequencies
        )
        self._meteor: PreparedMeteor | None = None
        if meteor is not None:
            self._meteor = meteor.prepare(self._whole, list(self._words), sizes)

    def __len__(self) -> int:
        return len(self.captions)

    def score(self, hypotheses: Mapping[Id, str]) -> Scores[Id]:
        """Score one caption for each image, or for some of the images.

        Raises:
            UsageError: no captions, one whose id has no references, or one that is no text.
        """
        tally = Tally(self)
        tally.add(hypotheses)
        return tally.scores()

    def cider_d(self, ids: Sequence[Id], captions: Sequence[str]) -> Floats:
        """(C,) CIDEr-D of each caption, in [0, 10]: rewards. An id may come several times."""
        return self._cider(ids, captions, clipped=True)

    def cider_plain(self, ids: Sequence[Id], captions: Sequence[str]) -> Floats:
        """(C,) CIDEr of each caption without clipping and length penalty, in [0, 10]."""
        return self._cider(ids, captions, clipped=False)

    def rows(self, ids: Sequence[Id], captions: Sequence[str]) -> Rows:
        """What all scores of captions are made of; an id may come several times."""
        said = self._prepare(ids, captions)
        pairs, matches = self._match(said, clipped=True)
        meteor = None
        if self._meteor is not None:
            meteor = self._meteor.rows(said.whole, list(self._words), said.image)
        wanted = self._index.counts[pairs.wanted]
        return Rows(
            bleu.statistics(said.split.counts, wanted, pairs.said, matches.counts),
            rouge_l(said.whole, self._whole, pairs.said, pairs.wanted),
            self._average(said, pairs, matches, clipped=True),
            meteor,
        )

    def _cider(self, ids: Sequence[Id], captions: Sequence[str], clipped: bool) -> Floats:
        said = self._prepare(ids, captions)
        return self._average(said, *self._match(said, clipped), clipped)

    def _match(self, said: "_Said", clipped: bool) -> tuple[Pairs, Matches]:
        pairs = self._index.pairs(said.image)
        return pairs, self._index.match(said.split, said.image, pairs, said.unseen, clipped)

    def _average(self, said: "_Said", pairs: Pairs, matches: Matches, clipped: bool) -> Floats:
        """(C,) CIDEr from what captions share with each of their references."""
        own, wanted = said.split.counts, self._index.counts
        similar = cider.similarity(
            matches.products,
            matches.norms[pairs.said],
            self._index.norms[pairs.wanted],
            own[pairs.said] - wanted[pairs.wanted] if clipped else None,
        )
        return np.bincount(pairs.said, similar, len(own)) / self._index.sizes[said.image]

    def _prepare(self, ids: Sequence[Id], captions: Sequence[str]) -> "_Said":
        check_captions(ids, captions, self._places)
        image = np.fromiter(map(self._places.__getitem__, ids), np.int64, len(ids))
        whole = self._words.cut(captions, self._tokenized)
        split = self._words.split(whole)
        known = len(self._rank)
        new = np.unique(split.words[split.words >= known])
        rank, unseen = self._rank, []
        if len(new):
            names = list(self._words)
            order = sorted(range(len(new)), key=lambda place: names[new[place]])
            unseen = [names[number] for number in new[order]]
            rank = np.concatenate([rank, np.zeros(len(names) - known, np.int64)])
            rank[new[order]] = known + np.arange(len(new))
        return _Said(image, whole, Captions(rank[split.words], split.counts), unseen)


@dataclass(frozen=True)
class _Said:
    """Captions to score, as numbers."""

    image: Ints
    """(C,) the place of each caption's image."""
    whole: Captions
    """As ROUGE-L compares them."""
    split: Captions
    """As BLEU and CIDEr count them, words numbered by alphabet, those of the references first."""
    unseen: list[str]
    """The words that stand in no reference, numbered behind the others."""


class Tally(Generic[Id]):
    """Scores of captions that come bit by bit, as batches are decoded."""

    def __init__(self, references: References[Id]) -> None:
        self._references = references
        self._parts: dict[Id, int] = {}
        self._rows: list[Rows] = []

    def add(self, hypotheses: Mapping[Id, str]) -> None:
        """Add captions of images that have none yet.

        Raises:
            UsageError: an image's second caption, one without references, or one that is no text.
        """
        if twice := [image_id for image_id in hypotheses if image_id in self._parts]:
            raise UsageError(
                f"{len(twice)} of {len(hypotheses)} images have a caption already, the first has "
                f"id {twice[0]!r}"
            )
        if hypotheses:
            rows = self._references.rows(list(hypotheses), list(hypotheses.values()))
            self._parts.update(dict.fromkeys(hypotheses, len(self._rows)))
            self._rows.append(rows)

    def rows(self) -> Rows:
        """The rows of all captions so far."""
        if not self._rows:
            raise UsageError("there are no captions to score")
        return Rows.join(self._rows)

    def scores(self) -> Scores[Id]:
        """The scores so far."""
        return summarise(self._parts, self.rows())


def check_references(references: Mapping[Id, Sequence[str]]) -> None:
    """Raise UsageError where there is nothing to compare with."""
    if not references:
        raise UsageError("there are no references")
    for image_id, captions in references.items():
        if isinstance(captions, str) or not {*map(type, captions)} <= {str}:
            raise UsageError(
                f"the references of id {image_id!r} are {captions!r:.80}; expected a list of texts"
            )
        if not captions:
            raise UsageError(f"id {image_id!r} has no reference captions")


def check_captions(
    ids: Sequence[Id], captions: Sequence[str], references: Mapping[Id, object]
) -> None:
    """Raise UsageError where captions cannot be scored."""
    if len(ids) != len(captions):
        raise UsageError(f"{len(ids)} ids were given for {len(captions)} captions")
    if lone := [image_id for image_id in ids if image_id not in references]:
        known = f"; ids of references look like {next(iter(references))!r}" if references else ""
        raise UsageError(
            f"{len(lone)} of {len(ids)} captions have no reference, the first has id {lone[0]!r}"
            f"{known}"
        )
    if not {*map(type, captions)} <= {str}:
        place = next(place for place, text in enumerate(captions) if type(text) is not str)
        raise UsageError(
            f"the caption of id {ids[place]!r} is {captions[place]!r:.80}; expected one text"
        )
