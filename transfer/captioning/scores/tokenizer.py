r"""Captions to words, and whole lists of captions to arrays of word numbers.

Cutting text is local: what `lexer.lex` makes of a caption is, but for a few shapes that reach over
a space (`22 3/4`, telephone numbers, `No. 5`, `K. The`, tags), what it makes of its pieces between
spaces. A corpus repeats its pieces (words with the marks written onto them), so each is cut once
and remembered; for lists of captions they are found and looked up on the bytes of all at once.

Line breaks inside a caption are spaces, and a caption's words do not depend on its neighbours. The
reference reads one caption a line, so there `\r`, `\v`, `\f` and the Unicode line separators shift
all captions behind them, and `K.` at the end of a caption keeps its dot unless the next caption
begins with one of 46 words such as `A`; here a caption is followed by a new sentence.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

import numpy as np

from transfer.captioning.scores.arrays import Ints, spread, starts_of, token_spans
from transfer.captioning.scores.lexer import ABBREVIATIONS, TWO_WORDS, lex

# pieces that need no rules: a word of letters and a mark that vanishes, unless the word is one of
# these; and words with hyphens or 's
_MARKS = frozenset('.,!?;:"')
_NOT_PLAIN = TWO_WORDS | ABBREVIATIONS | frozenset("abcdefghijklmnopqrstuvwxyz")
_NEARLY_PLAIN = re.compile("([A-Za-z]{2,}(?:-[A-Za-z]+)+|[A-Za-z]{2,}(?='s))('s)?[.,!?;:\"]?")

# a piece of such a shape may belong together with its neighbours ...
_MAY_REACH = re.compile(
    r"[0-9]\\?[/\u2044][0-9]|^\(?[0-9]{2}|<|^\.[0-9]|(?:^|[^A-Za-z0-9])[A-Za-z]\.$"
    r"|(?:art|ca|figs?|nos?|op|pp|prop)\.$",
    re.IGNORECASE,
)
# ... and does where the caption has one of these
_REACHES = re.compile(
    r"[0-9]\s[0-9]{1,4}\\?[/\u2044][0-9]|[0-9)]\s[0-9]{3}|<[^>\s]*\s[^>]*>|\.\s+\.[0-9]"
    r"|(?<![A-Za-z0-9])[A-Za-z]\.(?:\s|$)|\.\s[0-9]",
)
_LINES = str.maketrans(dict.fromkeys("\n\r\v\f\u2028\u2029", " "))
# spaces, beyond the usual, that must not simply part a caption
_ODD_SPACES = re.compile("[\0\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")

_HASH = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F))
_FIRST_BYTES = np.array([(1 << 8 * length) - 1 for length in range(9)], np.uint64)
LONGEST = 16  # bytes behind the last piece that a text must have


def tokenize(text: str) -> list[str]:
    r"""The words of a caption as MS-COCO's evaluation sees them: lower case, no punctuation.

    They are what the Stanford PTB tokenizer gives with the evaluation's list of punctuation removed
    (docs/caption_scores.md lists the known differences). A word may hold a no-break space:
    `tokenize("22 3/4")` is `["22\xa03/4"]`.
    """
    pieces = text.split()
    if _ODD_SPACES.search(text) or (any(map(_MAY_REACH.search, pieces)) and _REACHES.search(text)):
        return _tokenize_whole(text)
    return [word for piece in pieces for word in tokenize_piece(piece)]


def _tokenize_whole(text: str) -> list[str]:
    """By all the rules."""
    return lex(text.translate(_LINES))


@lru_cache(maxsize=1 << 16)
def tokenize_piece(piece: str) -> Sequence[str]:
    """The words of a piece without spaces."""
    word = piece[:-1] if piece[-1] in _MARKS else piece
    if word.isalpha() and word.isascii() and (lower := word.lower()) not in _NOT_PLAIN:
        return (lower,)
    if (match := _NEARLY_PLAIN.fullmatch(piece)) is not None:
        return [part.lower() for part in match.groups() if part]
    return lex(piece)


@dataclass(frozen=True)
class TokenIds:
    """Captions as word numbers, one behind the other."""

    words: Ints
    """(T,) the words of all captions."""
    counts: Ints
    """(N,) how many each has."""

    def __len__(self) -> int:
        return len(self.counts)

    @staticmethod
    def of(rows: Sequence[Sequence[int]]) -> "TokenIds":
        """From a list a caption."""
        counts = np.fromiter(map(len, rows), np.int64, len(rows))
        words = np.fromiter(chain.from_iterable(rows), np.int64, int(counts.sum()))
        return TokenIds(words, counts)


class TokenCache(dict[str, int]):
    """From a piece of text to its number, millions at a time on their bytes.

    Beside the dictionary stands a table for pieces of up to 16 bytes: the bytes as two integers, in
    the slot that a hash of them names, and the number. A piece whose slot another one has taken is
    looked up in the dictionary.

    Args:
        number: gives a new piece its number; by default they are counted.
        slot_bits: the table has 2 ** slot_bits slots.
    """

    def __init__(self, number: Callable[[str], int] | None = None, slot_bits: int = 17) -> None:
        super().__init__()
        self._number, self._slot_bits = number, slot_bits
        self._keys = np.zeros((2, 1 << slot_bits), np.uint64)
        self._numbers = np.full(1 << slot_bits, -1)

    def __missing__(self, piece: str) -> int:
        self[piece] = number = len(self) if self._number is None else self._number(piece)
        return number

    def find(self, text: bytes, starts: Ints, lengths: Ints) -> Ints:
        """The numbers of the pieces text[start : start + length].

        Pieces hold no zero bytes; behind the last one `text` goes on for LONGEST bytes.
        """
        eights = np.ndarray((len(text) - 7,), "<u8", text, strides=(1,))
        low = eights[starts] & _FIRST_BYTES[np.minimum(lengths, 8)]
        high = np.zeros_like(low)
        longer = np.flatnonzero(lengths > 8)
        rest = np.minimum(lengths[longer] - 8, 8)
        high[longer] = eights[starts[longer] + 8] & _FIRST_BYTES[rest]
        mixed = (low * _HASH[0]) ^ (high * _HASH[1])
        slots = (mixed >> np.uint64(64 - self._slot_bits)).astype(np.int64)

        def look_up(positions: Ints) -> Ints:
            slot = slots[positions]
            same = (self._keys[0][slot] == low[positions]) & (
                self._keys[1][slot] == high[positions]
            )
            return np.where(same, self._numbers[slot], -1)

        def piece(position: int) -> str:
            start = int(starts[position])
            return text[start : start + int(lengths[position])].decode("utf-8", "surrogatepass")

        numbers = look_up(np.arange(len(starts)))
        numbers[lengths > LONGEST] = -1
        new = np.flatnonzero((numbers < 0) & (lengths <= LONGEST) & (self._numbers[slots] < 0))
        if len(new):
            first = np.full(1 << self._slot_bits, -1)
            first[slots[new[::-1]]] = new[::-1]  # of each free slot, the first piece that wants it
            settlers = np.sort(first[first >= 0])
            self._numbers[slots[settlers]] = [self[piece(n)] for n in settlers.tolist()]
            self._keys[0][slots[settlers]] = low[settlers]
            self._keys[1][slots[settlers]] = high[settlers]
            numbers[new] = look_up(new)
        for position in np.flatnonzero(numbers < 0).tolist():
            numbers[position] = self[piece(position)]
        return numbers


class Tokenizer(dict[str, int]):
    """Words and their numbers, given in the order of arrival; remembers the pieces it has cut."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: dict[int, list[int]] = {}  # of words with a space inside
        self._cache = TokenCache(self._add_piece)
        self._may_reach: list[int] = []
        self._whole: dict[str, int] = {}  # captions that have to be cut as a whole
        # the words of each piece or whole caption; new ones are not in the arrays yet
        self._rows = TokenIds.of([])
        self._starts: Ints = np.zeros(0, np.int64)
        self._new_rows: list[list[int]] = []

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        if len(parts := word.split()) > 1:
            self._parts[number] = [self[part] for part in parts]
        return number

    def encode(self, captions: Sequence[str], tokenized: bool = False) -> TokenIds:
        """Raw captions as word numbers, or captions whose words stand between single spaces."""
        if tokenized:
            return TokenIds.of([[self[w] for w in text.split(" ") if w] for text in captions])
        if not captions:
            return TokenIds.of([])
        row, caption = self._find_rows(captions)
        if self._new_rows:
            new = TokenIds.of(self._new_rows)
            self._rows = TokenIds(
                np.concatenate([self._rows.words, new.words]),
                np.concatenate([self._rows.counts, new.counts]),
            )
            self._starts, self._new_rows = starts_of(self._rows.counts), []
        lengths = self._rows.counts[row]
        words = self._rows.words[spread(self._starts[row], lengths)[1]]
        return TokenIds(words, np.bincount(caption, lengths, len(captions)).astype(np.int64))

    def split(self, captions: TokenIds) -> TokenIds:
        r"""The same with words such as `22\xa03/4` taken apart, as BLEU and CIDEr do."""
        flags = np.zeros(len(self), bool)
        flags[list(self._parts)] = True
        odd = np.flatnonzero(flags[captions.words])
        if not len(odd):
            return captions
        parts = TokenIds.of([self._parts[number] for number in captions.words[odd].tolist()])
        more = parts.counts - 1
        words = np.insert(captions.words, np.repeat(odd, more), 0)
        words[spread(odd + starts_of(more), parts.counts)[1]] = parts.words
        caption = np.searchsorted(np.cumsum(captions.counts), odd, side="right")
        added = np.bincount(caption, more, len(captions)).astype(np.int64)
        return TokenIds(words, captions.counts + added)

    def _add_row(self, words: Iterable[str]) -> int:
        self._new_rows.append([self[word] for word in words])
        return len(self._rows) + len(self._new_rows) - 1

    def _add_piece(self, piece: str) -> int:
        row = self._add_row(tokenize_piece(piece))
        if _MAY_REACH.search(piece):
            self._may_reach.append(row)
        return row

    def _find_rows(self, captions: Sequence[str]) -> tuple[Ints, Ints]:
        """The rows of the captions' words, and the caption of each row."""
        joined = "\0".join(captions)
        odd: set[int] = set()
        plain = joined.isascii() and joined.count("\0") == len(captions) - 1
        if not plain or any(char in joined for char in "\x1c\x1d\x1e\x1f"):
            odd = {number for number, text in enumerate(captions) if _ODD_SPACES.search(text)}
            joined = "\0".join("\1" if n in odd else text for n, text in enumerate(captions))
        text = (joined + "\0" * LONGEST).encode("utf-8", "surrogatepass")
        chars = np.frombuffer(text, np.uint8)
        starts, lengths = token_spans((chars == 32) | (chars == 0) | ((chars >= 9) & (chars <= 13)))
        rows = self._cache.find(text, starts, lengths)
        ends = np.searchsorted(starts, np.flatnonzero(chars == 0)[: len(captions)])
        begins = np.concatenate([[0], ends[:-1]])
        keep = np.ones(len(rows), bool)
        reaching = np.flatnonzero(np.isin(rows, self._may_reach))
        for caption in odd.union(np.searchsorted(ends, reaching, side="right").tolist()):
            text_here = captions[caption]
            if caption in odd or _REACHES.search(text_here):
                if text_here not in self._whole:
                    self._whole[text_here] = self._add_row(_tokenize_whole(text_here))
                rows[begins[caption]] = self._whole[text_here]
                keep[begins[caption] + 1 : ends[caption]] = False
        caption_of = np.repeat(np.arange(len(captions)), ends - begins)
        return rows[keep], caption_of[keep]
