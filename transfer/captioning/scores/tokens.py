"""A simple tokenizer: lower case, words with their inner apostrophes, hyphens and points.

Like the reference's (Stanford PTB) it splits `'s` and `n't` off and drops punctuation.
"""

import re

_WORD = re.compile(r"[^\W_]+(?:(?:[-.:/'\u2019]|(?<=\d),(?=\d))[^\W_]+)*")
_CLITIC = re.compile(r"(?<=\w)(n['\u2019]t|['\u2019](?:s|m|d|ll|re|ve))$")


def tokenize(text: str) -> list[str]:
    """The words of a caption."""
    words = []
    for word in _WORD.findall(text.lower()):
        clitic = _CLITIC.search(word)
        words += [word[: clitic.start()], clitic[0]] if clitic else [word]
    return words
