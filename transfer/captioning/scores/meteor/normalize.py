"""How METEOR cuts text with -norm: quotes, marks, commas, dots, hyphens, apostrophes.

The steps are those of the tokenizer of the Moses translation toolkit, which METEOR's documentation
names, in the order and with the exceptions that the reference shows on 100,000 short strings: it
parts words at hyphens, takes the dots out of abbreviations, and knows as letters Latin, Cyrillic
and few others.
"""

import re
from collections.abc import Mapping

_LETTERS = "A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\u017e\u0400-\u0527\u1d00-\u1d7f\ua640-\ua66e\ua67e-\ua697"
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "`": "'", "\u201c": '"', "\u201d": '"'})
_MARK = re.compile(f"[^{_LETTERS}0-9 \t\n\x0b\f\r.',-]")
_DOTS = re.compile(r"\.{2,}")
_COMMAS = tuple(
    re.compile(f"([{left}]),([{right}])")
    for left, right in (("^0-9", "^0-9"), ("0-9", "^0-9"), ("^0-9", "0-9"))
)
_HYPHEN = re.compile(f"([{_LETTERS}0-9.])-([{_LETTERS}0-9])")
_APOSTROPHES = (
    (re.compile(f"([^{_LETTERS}])'([^{_LETTERS}])"), r"\1 ' \2"),
    (re.compile(f"([^{_LETTERS}0-9])'([{_LETTERS}])"), r"\1 ' \2"),
    (re.compile(f"([{_LETTERS}])'([^{_LETTERS}])"), r"\1 ' \2"),
    (re.compile(f"([{_LETTERS}])'([{_LETTERS}])"), r"\1 '\2"),
    (re.compile("([0-9])'(s)"), r"\1 '\2"),
)
_SPACES = re.compile(r"[ \t\n\f\r]+")
_LETTER = re.compile(f"[{_LETTERS}]")
_DOTTED = re.compile(r"(?:[^.]*\.){2,}")
# a run of dots, hidden while single dots are looked at
_HIDDEN = "\ufdd0"
# what the reference shows as spaces in the end; on the way they are marks
_VANISHING = "\xa0\u2000-\u200a\u202f\u205f\u3000"
_ONLY_SPACE = re.compile(f"[{_VANISHING}]+")

# a word that may be followed by a dot within a sentence; True: only before a number
Prefixes = Mapping[str, bool]


def read_prefixes(text: str) -> dict[str, bool]:
    """The table from a file with a word a line, comments behind #."""
    table = {}
    for line in text.splitlines():
        word, _, note = line.partition("#")
        if word.strip():
            table[word.strip()] = note.strip().startswith("NUMERIC_ONLY")
    return table


def normalize(text: str, prefixes: Prefixes) -> list[str]:
    """The lower-case words and marks of a sentence, as METEOR compares them."""
    text = f" {text} ".translate(_QUOTES).replace("''", '"')
    text = _MARK.sub(r" \g<0> ", text)
    text = _DOTS.sub(lambda match: f" {_HIDDEN * len(match[0])} ", text)
    for comma in _COMMAS:
        text = comma.sub(r"\1 , \2", text)
    text = _HYPHEN.sub(r"\1 \2", text.replace("--", "-"))
    for apostrophe, parted in _APOSTROPHES:
        text = apostrophe.sub(parted, text)
    words = [word for word in _SPACES.split(text) if word]
    parts: list[str] = []
    for word, following in zip(words, [*words, ""][1:], strict=True):
        parts += _part_from_dot(word, following, prefixes)
    return [
        part.replace(_HIDDEN, ".").lower()
        for word in parts
        if (part := word.replace(".", "") if _is_abbreviation(word) else word)
        and not _ONLY_SPACE.fullmatch(part)
    ]


def _part_from_dot(word: str, following: str, prefixes: Prefixes) -> list[str]:
    """A word and the dot behind it, parted where the dot ends a sentence."""
    if not word.endswith(".") or len(word) == 1:
        return [word]
    stem = word[:-1]
    stays = (
        ("." in stem and _LETTER.search(stem) is not None)
        or "a" <= following[:1] <= "z"
        or (stem in prefixes and (not prefixes[stem] or following[:1].isdecimal()))
    )
    return [word] if stays else [stem, "."]


def _is_abbreviation(word: str) -> bool:
    return _DOTTED.fullmatch(word) is not None and _LETTER.search(word) is not None
