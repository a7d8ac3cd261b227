"""Characters by the way the tokenizer treats them.

The classes were found by putting each of the 65,536 characters of the basic plane into 53 contexts
and comparing what the reference tokenizer (Stanford PTB, CoreNLP 3.4.1) makes of them. It knows an
older Unicode than Python does, so letters and digits are those of Unicode less some blocks, which
characters.txt lists, as it does marks and symbols. What is none of these, and every character
beyond the basic plane, parts words and vanishes.
"""

import unicodedata
from collections import defaultdict
from functools import cache
from pathlib import Path

LETTER, MARK, DIGIT, SYMBOL, NOTHING = "\xe9", "\u0301", "\u0660", "\xa9", "\0"
SPACE = "\u2000"

# what the words of characters.txt stand for
_KINDS = {"nothing": NOTHING, "mark": MARK, "symbol": SYMBOL}

# the few that are a class of their own: characters, and the one that stands for them
_SPECIAL = {
    "\x92\u2019": "\u2019",  # closing quotes that are apostrophes too
    "\x91\u2018\u201b\u2039": "\u2018",
    "\u203a": "\u203a",
    "\x93\xab\u201c": "\u201c",
    "\x94\xbb\u201d": "\u201d",
    "\u201a\u201e\u201f": "\u201e",
    "\xb2\xb3\xb9\u2070\u2074\u2075\u2076\u2077\u2078\u2079": "\xb2",  # superscripts
    "".join(map(chr, range(0x2080, 0x208A))): "\u2080",  # subscripts
    "\x96\x97\u2013\u2014\u2015": "\u2013",  # dashes
    "\u058a\u2010\u2011": "\u2010",  # hyphens
    "\x80\xa4\u20a0\u20ac": "\u20ac",
    "\x85\u2026": "\u2026",
    "".join(map(chr, range(0x2000, 0x200B))) + "\u3000": SPACE,
    "\u066b\u066c": "\u066b",  # separators inside Arabic numbers
    **{char: char for char in "\xa0\xa2\xa3\xad\xbc\xbd\xbe\u2044\u2153\u2154\u3001"},
}


def shape(text: str) -> str:
    """`text` with each character replaced by the one that stands for its class; length kept."""
    return text.translate(_shapes())


@cache
def _shapes() -> defaultdict[int, str]:
    """For `str.translate`: ASCII as it is, the rest by its class."""
    shapes = defaultdict(lambda: NOTHING)
    for code in range(128, 1 << 16):
        category = unicodedata.category(chr(code))
        if category[0] == "L" or category == "Nd":
            shapes[code] = DIGIT if category == "Nd" else LETTER
    shapes |= {0x1885: LETTER, 0x1886: LETTER}
    for line in Path(__file__).with_suffix(".txt").read_text(encoding="ascii").splitlines():
        kind, *blocks = line.split()
        for block in blocks if kind in _KINDS else ():
            first, _, last = block.partition("-")
            codes = range(int(first, 16), int(last or first, 16) + 1)
            shapes |= dict.fromkeys(codes, _KINDS[kind])
    shapes |= {ord(char): kind for chars, kind in _SPECIAL.items() for char in chars}
    return shapes | {code: chr(code) for code in (9, *range(32, 127))}
