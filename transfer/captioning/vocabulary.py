"""Words as numbers."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from pretrain.errors import UserError
from transfer.captioning.scores import tokenize

PAD, START, END, UNKNOWN = range(4)
_SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")


@dataclass(frozen=True)
class Vocabulary:
    """The words of a captioner; a number is a position, the first four are special."""

    words: tuple[str, ...]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {word: number for number, word in enumerate(self.words)}

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, caption: str) -> list[int]:
        """The numbers of a caption's words, END behind them."""
        return [self._numbers.get(word, UNKNOWN) for word in tokenize(caption)] + [END]

    def decode(self, numbers: Sequence[int]) -> str:
        """The words up to END, joined by spaces."""
        words = []
        for number in numbers:
            if number == END:
                break
            if number not in (PAD, START):
                words.append(self.words[number])
        return " ".join(words)


def build_vocabulary(captions: Iterable[str], min_count: int) -> Vocabulary:
    """The words seen at least `min_count` times, most frequent first, ties by alphabet."""
    counts = Counter(word for caption in captions for word in tokenize(caption))
    kept = sorted((-count, word) for word, count in counts.items() if count >= min_count)
    if not kept:
        raise UserError(
            f"no word stands {min_count} times in the training captions ({len(counts)} words in "
            "all). Give a smaller --coco.min_count."
        )
    return Vocabulary((*_SPECIAL, *(word for _, word in kept)))
