"""Words as numbers, whole lists of captions at once.

N captions, T positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError
from transfer.captioning.scores.words import Captions, Words

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
UNSAYABLE = (PAD, START, UNKNOWN)
"""What no caption may hold."""

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Cut:
    """Captions cut into words, as the scores cut them."""

    words: tuple[str, ...]
    """Every word once, in the order of arrival."""
    captions: Captions
    """Numbers are places in `words`."""

    @staticmethod
    def of(captions: Sequence[str]) -> "Cut":
        """Tokenise."""
        words = Words()
        found = words.split(words.cut(captions))
        return Cut(tuple(words), found)


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner; a number is a position, the first four are special."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what is no vocabulary of ours."""
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) < len(self.words):
            raise UsageError(
                f"this is no vocabulary of a captioner: it begins with {self.words[:4]}; expected "
                f"{SPECIAL} and then each word once."
            )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, cut: Cut, max_words: int) -> Ints:
        """(N, T) numbers: each caption's first `max_words` words, END, and PAD behind it."""
        own = self._numbers
        number = np.array([own.get(word, UNKNOWN) for word in cut.words], np.int64)
        counts = np.minimum(cut.captions.counts, max_words)
        width = int(counts.max(initial=0)) + 1
        found = np.full((len(counts), width), PAD, np.int64)
        starts = np.cumsum(cut.captions.counts) - cut.captions.counts
        place = np.arange(width)[None, :]
        inside = place < counts[:, None]
        found[inside] = number[cut.captions.words[(starts[:, None] + place)[inside]]]
        found[np.arange(len(counts)), counts] = END
        return found

    def decode(self, numbers: Sequence[int]) -> str:
        """The words up to END, joined by spaces."""
        words = []
        for number in numbers:
            if number == END:
                break
            if number not in (PAD, START):
                words.append(self.words[number])
        return " ".join(words)


def build_vocabulary(cut: Cut, min_count: int) -> Vocabulary:
    """The words seen at least `min_count` times, most frequent first, ties by alphabet."""
    counts = np.bincount(cut.captions.words, minlength=len(cut.words)).tolist()
    kept = sorted(
        (-count, word) for count, word in zip(counts, cut.words, strict=True) if count >= min_count
    )
    kept = [(count, word) for count, word in kept if word not in SPECIAL]
    if not kept:
        raise UsageError(
            f"no word stands {min_count} times in the training captions ({len(counts)} words in "
            "all). Give a smaller --dataset.min_count."
        )
    return Vocabulary((*SPECIAL, *(word for _, word in kept)))
