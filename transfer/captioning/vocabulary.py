"""Words as numbers, whole lists of captions at once.

N captions, T words.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import takewhile
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pretrain.errors import UsageError
from transfer.captioning.scores.tokenizer import TokenIds, Tokenizer

PAD, START, END, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")
NOT_GENERATED = [PAD, START, UNKNOWN]
"""What no caption may hold."""

Ints = NDArray[np.int64]


class TokenizedCaptions(NamedTuple):
    """Captions cut into words, as the scores cut them."""

    words: tuple[str, ...]
    """Every word once, in the order of arrival."""
    captions: TokenIds
    """Numbers are positions in `words`."""


def tokenize_captions(captions: Sequence[str]) -> TokenizedCaptions:
    """Cut raw captions."""
    tokenizer = Tokenizer()
    numbers = tokenizer.split(tokenizer.encode(captions))
    return TokenizedCaptions(tuple(tokenizer), numbers)


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner; a number is a position, the first four are special."""

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse what is no vocabulary of a captioner."""
        if self.words[: len(SPECIAL)] != SPECIAL or len(set(self.words)) < len(self.words):
            raise UsageError(
                f"this is no vocabulary of a captioner: it begins with {self.words[:4]}; expected "
                f"{SPECIAL} and then each word once."
            )

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Word -> number."""
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, tokenized: TokenizedCaptions, max_words: int) -> Ints:
        """(N, T) numbers: each caption's first `max_words` words, END, and PAD behind it."""
        words, lengths = tokenized.captions.words, tokenized.captions.counts
        number = np.array([self.numbers.get(word, UNKNOWN) for word in tokenized.words], np.int64)
        kept = np.minimum(lengths, max_words)
        position = np.arange(kept.max(initial=0) + 1)
        rows = np.where(position == kept[:, None], END, PAD)
        inside = position < kept[:, None]
        starts = np.cumsum(lengths) - lengths
        rows[inside] = number[words[(starts[:, None] + position)[inside]]]
        return rows

    def decode(self, numbers: Sequence[int]) -> str:
        """The words up to END, joined by spaces."""
        before_end = takewhile(lambda number: number != END, numbers)
        return " ".join(self.words[number] for number in before_end if number not in (PAD, START))


def build_vocabulary(tokenized: TokenizedCaptions, min_count: int) -> Vocabulary:
    """The words seen at least `min_count` times, most frequent first, ties by alphabet."""
    counts = np.bincount(tokenized.captions.words, minlength=len(tokenized.words)).tolist()
    kept = sorted(
        (-count, word)
        for count, word in zip(counts, tokenized.words, strict=True)
        if count >= min_count and word not in SPECIAL
    )
    if not kept:
        raise UsageError(
            f"no word stands {min_count} times in the training captions ({len(counts)} words in "
            "all). Give a smaller --dataset.min_count."
        )
    return Vocabulary((*SPECIAL, *(word for _, word in kept)))
