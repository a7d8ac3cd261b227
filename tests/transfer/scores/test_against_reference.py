"""Random MS-COCO captions, spoilt ones among them, against real pycocoevalcap with Java.

CUTMIX_FRESH_SEEDS=N draws anew, N times, instead of taking the fixed seeds.
"""

import gzip
import json
import os
import random
import re
import secrets

import pytest

from tests.transfer.scores.reference import scored, tokenized, why_not
from transfer.captioning.scores import References, tokenize

pytestmark = pytest.mark.skipif(
    why_not() is not None, reason=f"pycocoevalcap with Java: {why_not()}"
)
FRESH = int(os.environ.get("CUTMIX_FRESH_SEEDS", "0"))
SEEDS = [secrets.randbelow(2**32) for _ in range(FRESH)] or [1]
# the words of such a caption depend on the next one in the reference
LAST_LETTER = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]\.\s*$")


@pytest.fixture(scope="module")
def captions(shared):
    content = gzip.decompress((shared / "data" / "captions_val2017.json.gz").read_bytes())
    by_id: dict[int, list[str]] = {}
    for entry in json.loads(content)["annotations"]:
        by_id.setdefault(entry["image_id"], []).append(entry["caption"].replace("\n", " "))
    return by_id


def spoil(text: str, draw: random.Random, pieces: list[str]) -> str:
    """A caption with characters and pieces put in, taken out and changed in case."""
    chars = list(text)
    for _ in range(draw.choice((1, 1, 2, 3, 5))):
        place = draw.randrange(len(chars) + 1)
        kind = draw.random()
        if kind < 0.6:
            chars[place:place] = draw.choice(pieces)
        elif kind < 0.8:
            del chars[place : place + 1]
        else:
            chars[place : place + 1] = [char.swapcase() for char in chars[place : place + 1]]
    spoilt = "".join(chars)
    return text if LAST_LETTER.search(spoilt) else spoilt


def shuffled_words(text: str, draw: random.Random) -> str:
    """A caption with words left out, twice, and elsewhere."""
    words = text.split()
    for _ in range(draw.randrange(4)):
        place, other = draw.randrange(len(words)), draw.randrange(len(words))
        words[place : place + 1] = [words[other]] * draw.randrange(3)
        words = words or ["a"]
    return " ".join(words)


ASCII = [chr(code) for code in range(32, 127)]
PIECES = (
    "'s|n't| ' |\"|...| . |-|--|/|&|1|22 |3/4|(|)|$|%|St. |Mr. |U.S. |. The |@|#|:)|http://|.com|"
    "<b>|</b>|&amp;|No. |etc. |\u2019|\u201c|\u201d|\xe9|\u2014|\u2026|\xbd|\xa3|\u20ac|\xb2|"
    "\U0001f600|\u3000|\u732b"
)


@pytest.mark.parametrize("seed", SEEDS)
def test_words_of_spoilt_captions(seed, captions):
    """20,000 captions; the few differences are of one kind, exotic abbreviations."""
    draw = random.Random(seed)
    every = [text for texts in captions.values() for text in texts if not LAST_LETTER.search(text)]
    ascii_only = [spoil(draw.choice(every), draw, ASCII) for _ in range(14_000)]
    with_pieces = [spoil(draw.choice(every), draw, PIECES.split("|")) for _ in range(6000)]
    for texts, most in ((ascii_only, 1), (with_pieces, 6)):
        theirs = tokenized(texts)
        differing = [
            (text, theirs, ours)
            for text, theirs in zip(texts, theirs, strict=True)
            if (ours := " ".join(tokenize(text))) != theirs
        ]
        assert len(differing) <= most, (seed, differing)


def test_every_character_of_the_basic_plane():
    """Between letters; but for line separators, which break the reference's protocol."""
    codes = [code for code in range(1, 0x10000) if not 0xD800 <= code < 0xE000]
    chars = [char for char in map(chr, codes) if char not in "\n\r\v\f\x85\u2028\u2029"]
    texts = [f"a{char}b" for char in chars]
    differing = [
        (text, words, theirs)
        for text, theirs in zip(texts, tokenized(texts), strict=True)
        if (words := " ".join(tokenize(text))) != theirs
    ]
    assert differing == []


@pytest.mark.parametrize("seed", SEEDS)
def test_scores_of_random_subsets(seed, captions, meteor, full):
    """Whole with --full: METEOR's jar takes ten seconds to start; test_meteor has started it."""
    if not FRESH and not full:
        pytest.skip("run with --full")
    draw = random.Random(seed)
    ids = draw.sample(sorted(captions), 120)
    pool = [text for texts in captions.values() for text in texts]
    wanted, said = {}, {}
    for image_id in ids:
        texts = [text for text in captions[image_id] if not LAST_LETTER.search(text)]
        draw.shuffle(texts)
        keep = draw.randint(1, len(texts))
        wanted[image_id] = [
            spoil(text, draw, ASCII) if draw.random() < 0.2 else text for text in texts[:keep]
        ]
        said[image_id] = draw.choice(
            [
                texts[-1],
                shuffled_words(draw.choice(texts), draw),
                spoil(draw.choice(texts), draw, ASCII),
                shuffled_words(draw.choice(pool), draw),
                "",
                draw.choice(texts).upper(),
            ]
        )
        if LAST_LETTER.search(said[image_id]):
            said[image_id] = ""
    found = References(wanted, meteor=meteor).score(said)
    theirs = scored(list(wanted.values()), list(said.values()))
    for name, value in theirs["corpus"].items():
        assert abs(found.corpus[name] - value) <= 1e-9, (seed, name)
        for image_id, one in zip(ids, theirs["per_image"][name], strict=True):
            assert abs(found.per_image[image_id][name] - one) <= 1e-9, (seed, name, image_id)
