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
from transfer.captioning.scores.tokenizer import TOKENIZERS, TokenIds, Tokenizer

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


def tokenize_captions(captions: Sequence[str], tokenizer: str = "ptb") -> TokenizedCaptions:
    """Cut raw captions by a tokenizer of the scores."""
    words = Tokenizer(tokenizer)
    numbers = words.split(words.encode(captions))
    return TokenizedCaptions(tuple(words), numbers)


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner; a number is a position, the first four are special."""

    words: tuple[str, ...]
    tokenizer: str = "ptb"
    """What cut the captions that the words are from, a name of `scores.tokenizer.TOKENIZERS`."""

    def __post_init__(self) -> None:
        """Refuse what is no vocabulary of a captioner."""
        if self.tokenizer not in TOKENIZERS:
            raise UsageError(
                f"the tokenizer is {self.tokenizer!r}; expected {', '.join(TOKENIZERS)}."
            )
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
        """(N, T) numbers: each caption's first `max_words` words, END, and PAD behind it.

        A mark such as `<end>` that was left in a caption is an unknown word.
        """
        words, lengths = tokenized.captions.words, tokenized.captions.counts
        number = self._encode_words(tokenized)
        kept = np.minimum(lengths, max_words)
        position = np.arange(kept.max(initial=0) + 1)
        rows = np.where(position == kept[:, None], END, PAD)
        inside = position < kept[:, None]
        starts = np.cumsum(lengths) - lengths
        rows[inside] = number[words[(starts[:, None] + position)[inside]]]
        return rows

    def unknown_share(self, tokenized: TokenizedCaptions) -> float:
        """Share of the words of captions that are not among these."""
        unknown = self._encode_words(tokenized)[tokenized.captions.words] == UNKNOWN
        return float(unknown.mean()) if len(unknown) else 0.0

    def _encode_words(self, tokenized: TokenizedCaptions) -> Ints:
        """The number of each different word."""
        known = [UNKNOWN if w in SPECIAL else self.numbers.get(w, UNKNOWN) for w in tokenized.words]
        return np.array(known, np.int64)

    def split(self, caption: str) -> list[str]:
        """The words of a caption that `decode` made."""
        return list(caption) if self.tokenizer == "characters" else caption.split()

    def decode(self, numbers: Sequence[int]) -> str:
        """The words up to END as a caption: characters side by side, words with spaces between."""
        before_end = takewhile(lambda number: number != END, numbers)
        glue = "" if self.tokenizer == "characters" else " "
        return glue.join(self.words[number] for number in before_end if number not in (PAD, START))


def build_vocabulary(
    tokenized: TokenizedCaptions, min_count: int, tokenizer: str = "ptb"
) -> Vocabulary:
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
    return Vocabulary((*SPECIAL, *(word for _, word in kept)), tokenizer)
