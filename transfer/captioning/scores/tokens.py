r"""Captions to words, and whole lists of captions to arrays of word numbers.

Cutting text is local: what `lexer.lex` makes of a caption is, but for a few shapes that reach over
a space (`22 3/4`, telephone numbers, `No. 5`, `K. The`, tags), what it makes of its pieces between
spaces. Pieces repeat, so each is cut once and remembered.

Line breaks inside a caption are spaces, and a caption's words do not depend on its neighbours. The
reference reads one caption a line, so there `\r`, `\v`, `\f` and the Unicode line separators shift
all captions behind them, and `K.` at the end of a caption keeps its dot unless the next caption
begins with one of 46 words such as `A`; here a caption is followed by a new sentence.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

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
_ODD_SPACES = re.compile("[\0\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]")


def tokenize(text: str) -> list[str]:
    r"""The words of a caption as MS-COCO's evaluation sees them: lower case, no punctuation.

    They are what the Stanford PTB tokenizer gives with the evaluation's list of punctuation removed
    (docs/caption_scores.md lists the known differences). A word may hold a no-break space:
    `tokenize("22 3/4")` is `["22\xa03/4"]`.
    """
    pieces = text.split()
    if has_odd_spaces(text) or (any(map(may_reach, pieces)) and reaches(text)):
        return cut_whole(text)
    return [word for piece in pieces for word in cut_piece(piece)]


def cut_whole(text: str) -> list[str]:
    """The words of a caption by all the rules."""
    return lex(text.translate(_LINES))


@lru_cache(maxsize=1 << 16)
def cut_piece(piece: str) -> Sequence[str]:
    """The words of a piece without spaces."""
    if (word := plain_word(piece)) is not None:
        return (word,)
    if (match := _NEARLY_PLAIN.fullmatch(piece)) is not None:
        return [part.lower() for part in match.groups() if part]
    return lex(piece)


def plain_word(piece: str) -> str | None:
    """The word of a piece that is one word of ASCII letters, with or without a mark behind it."""
    word = piece[:-1] if piece[-1] in _MARKS else piece
    if word.isalpha() and word.isascii() and (low := word.lower()) not in _NOT_PLAIN:
        return low
    return None


def may_reach(piece: str) -> bool:
    """Whether a piece has a shape that sometimes belongs together with its neighbours."""
    return _MAY_REACH.search(piece) is not None


def reaches(text: str) -> bool:
    """Whether a caption with such a piece has to be cut as a whole."""
    return _REACHES.search(text) is not None


def has_odd_spaces(text: str) -> bool:
    """Whether a caption holds spaces, beyond the usual, that must not simply part it."""
    return _ODD_SPACES.search(text) is not None
