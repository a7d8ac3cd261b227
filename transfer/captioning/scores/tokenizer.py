r"""Captions to words, and whole lists of captions to arrays of word numbers.

Cutting text is local: what `lexer.lex` makes of a caption is, but for a few shapes that reach over
a space (`22 3/4`, telephone numbers, `No. 5`, `K. The`, tags), what it makes of its pieces between
spaces. A corpus repeats its pieces (words with the marks written onto them), so each is cut once
and remembered; of lists of captions all pieces are looked up at once.

Line breaks inside a caption are spaces, and a caption's words do not depend on its neighbours. The
reference reads one caption a line, so there `\r`, `\v`, `\f` and the Unicode line separators shift
all captions behind them, and `K.` at the end of a caption keeps its dot unless the next caption
begins with one of 46 words such as `A`; here a caption is followed by a new sentence.

All this is `ptb`, the default; `characters` and `none` are for languages that it is not made for.
"""

import re
import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import chain, pairwise
from typing import Any

import numpy as np

from pretrain.errors import UsageError
from transfer.captioning.scores.arrays import Ints, spread, starts_of
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
    r"|(?<![A-Za-z0-9])[A-Za-z]\.(?:\s|$)|\.\s[0-9]"
)
_NO_WIDTH = "\u200b\u2060\ufeff"
_LINES = str.maketrans(dict.fromkeys("\n\r\v\f\u2028\u2029", " "))
# spaces, beyond the usual, that must not simply part a caption
_ODD_SPACES = re.compile("[\0\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


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


def split_characters(text: str) -> list[str]:
    """Each character as a word, for languages without spaces: Chinese, Japanese, Thai.

    A character is a code point of `text.lower()`, so that case is folded as `tokenize` does.
    Left out is white space, the spaces of no width among it; marks stay, as with sacrebleu's
    `char`: a full stop is a word, and a vowel sign of Thai is one beside its consonant.
    """
    return [char for char in text.lower() if not char.isspace() and char not in _NO_WIDTH]


def split_spaces(text: str) -> list[str]:
    """What stands between white space, as it is: captions cut by another program, such as jieba."""
    return text.split()


Tokenize = Callable[[str], list[str]]
"""The words of a caption; any function of this kind can be given in place of a name."""
TOKENIZERS: dict[str, Tokenize] = {
    "ptb": tokenize,
    "characters": split_characters,
    "none": split_spaces,
}


def find_tokenizer(tokenizer: str | Tokenize) -> Tokenize:
    """The tokenizer of a name; a function is taken as it is.

    Raises:
        UsageError: there is none of that name.
    """
    found = TOKENIZERS.get(tokenizer) if isinstance(tokenizer, str) else tokenizer
    if not callable(found):
        names = ", ".join(TOKENIZERS)
        raise UsageError(
            f"tokenizer is {tokenizer!r}; expected {names} or a function from a caption to a list "
            "of words."
        )
    return found


@dataclass(frozen=True)
class TokenIds:
    """Captions as word numbers, one behind the other."""

    words: Ints
    """(T,) the words of all captions."""
    counts: Ints
    """(N,) how many each has."""

    def __len__(self) -> int:
        return len(self.counts)

    @cached_property
    def rows(self) -> list[Sequence[Any]]:
        """The words of each caption as characters of a text, which rapidfuzz compares fastest.

        As numbers where there are more words than characters.
        """
        whole: Any = self.words.tolist()
        if self.words.max(initial=0) <= sys.maxunicode:
            whole = self.words.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
        ends = np.cumsum(self.counts).tolist()
        return [whole[begin:end] for begin, end in pairwise([0, *ends])]

    @staticmethod
    def of(rows: Iterable[Sequence[int]]) -> "TokenIds":
        """From the numbers of each caption's words."""
        words, counts = array("q"), array("q")
        for row in rows:
            words.extend(row)
            counts.append(len(row))
        return TokenIds(np.array(words), np.array(counts))


class _Pieces(dict[str, list[int]]):
    """The words of pieces without spaces, as numbers."""

    def __init__(self, numbers: "Tokenizer") -> None:
        super().__init__()
        self._numbers = numbers
        self.reaching: set[str] = set()
        """Those that may belong together with their neighbours."""

    def __missing__(self, piece: str) -> list[int]:
        if not piece.isalpha() and _MAY_REACH.search(piece):
            self.reaching.add(piece)
        self[piece] = words = [self._numbers[word] for word in tokenize_piece(piece)]
        return words


class Tokenizer(dict[str, int]):
    """Words and their numbers, given in the order of arrival; remembers the pieces it has cut.

    Args:
        tokenizer: a name of `TOKENIZERS`, or a function from a caption to its words.
    """

    def __init__(self, tokenizer: str | Tokenize = "ptb") -> None:
        super().__init__()
        self._tokenize = find_tokenizer(tokenizer)
        self._parts: dict[int, list[int]] = {}  # of words with a space inside
        self._pieces = _Pieces(self)

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        if self._tokenize is tokenize and len(parts := word.split()) > 1:
            self._parts[number] = [self[part] for part in parts]
        return number

    def encode(self, captions: Sequence[str], tokenized: bool = False) -> TokenIds:
        """Raw captions as word numbers, or captions whose words stand between single spaces."""
        if tokenized:
            return TokenIds.of([[self[w] for w in text.split(" ") if w] for text in captions])
        if self._tokenize is not tokenize:
            return TokenIds.of([[self[w] for w in self._cut(text)] for text in captions])
        return TokenIds.of(map(self._glue, captions))

    def _glue(self, text: str) -> list[int]:
        """The words of a caption from those of its pieces: the same as by `tokenize`."""
        pieces = text.split()
        if text.isprintable() or not _ODD_SPACES.search(text):
            words = list(chain.from_iterable(map(self._pieces.__getitem__, pieces)))
            if self._pieces.reaching.isdisjoint(pieces) or not _REACHES.search(text):
                return words
        return [self[word] for word in _tokenize_whole(text)]

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

    def _cut(self, text: str) -> list[str]:
        words = self._tokenize(text)
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            raise UsageError(
                f"the tokenizer makes {words!r:.80} of {text!r:.80}; expected a list of words."
            )
        return [word for word in words if word]
