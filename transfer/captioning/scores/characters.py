"""Characters by the way the tokenizer treats them.

The classes were found by putting each of the 65,536 characters of the basic plane into 53 contexts
and comparing what the reference tokenizer (Stanford PTB, CoreNLP 3.4.1) makes of them. It knows an
older Unicode than Python does, so letters and digits are those of Unicode less some blocks, and
marks and symbols are written out. What is none of these, and every character beyond the basic
plane, parts words and vanishes.
"""

import unicodedata
from collections import defaultdict

LETTER, MARK, DIGIT, SYMBOL, NOTHING = "\xe9", "\u0301", "\u0660", "\xa9", "\0"
SPACE = "\u2000"

# blocks of letters and digits that the reference does not know as such: most are newer
_UNKNOWN = """
37e-385 528-530 557-558 55a-560 588-5cf 5eb-5ef 859-89f 8a1 8ad-903 978 980-984 9f2-a04 af0-b04 c34
c5a-c5f c70-c84 cbe-cdd cf3-d04 d4f-d5f dc7-e00 e85-e86 e89 e8b-e8c e8e-e93 e98 ea0 ea8-ea9 eac
13f5-1400 16eb-16ff 170d 1712-171f 1878-187f 191d-1945 19ac-19c0 19c8-19cf 1b4c-1b4f 1c7e-1ce8
1cf2-1cf4 1cf7-1cff 208f 209d-209f 2c2f 2c5f 312e-3130 31bb-31ef 4db6-4dff 9fcd-9fff a698-a69f a78f
a794-a79f a7ab-a7f7 a8fc-a8ff a9da-a9ff aa7b-aa7f ab2f-abbf
"""
_MARKS = """
2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2
5c4-5c5 5c7 615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903
93c 93e-94e 951-955 962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f
a81-a83 abc abe-acf b82 bbe-bc2 bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a
e47-e4e eb1 eb4-ebc ec8-ecd
"""
_SYMBOLS = """
a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b
61e-61f 66a 66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b
203e-2042 207a-207e 208a-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125
2127 2129 212e 213a-213b 2140-2144 214a-214d 214f 2155-215e 2190-2bff 3002 3012 30fb ff01-ff0f
ff1a-ff20 ff3b-ff40 ff5b-ff65 ffe0-ffe1 ffe5-ffe6
"""

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

# a table for str.translate: ASCII as it is, the rest by its class
_SHAPES: defaultdict[int, str] = defaultdict(lambda: NOTHING)
for _code in range(128, 1 << 16):
    _category = unicodedata.category(chr(_code))
    if _category[0] == "L" or _category == "Nd":
        _SHAPES[_code] = DIGIT if _category == "Nd" else LETTER
_SHAPES |= {0x1885: LETTER, 0x1886: LETTER}
for _blocks, _kind in ((_UNKNOWN, NOTHING), (_MARKS, MARK), (_SYMBOLS, SYMBOL)):
    for _block in _blocks.split():
        _first, _, _last = _block.partition("-")
        _SHAPES |= dict.fromkeys(range(int(_first, 16), int(_last or _first, 16) + 1), _kind)
_SHAPES |= {ord(char): kind for chars, kind in _SPECIAL.items() for char in chars}
_SHAPES |= {code: chr(code) for code in (9, *range(32, 127))}


def shape(text: str) -> str:
    """`text` with each character replaced by the one that stands for its class; length kept."""
    return text.translate(_SHAPES)
