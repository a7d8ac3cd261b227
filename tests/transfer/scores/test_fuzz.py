"""Strings of anything: no crash, all in range, whatever the order or process.

Ten thousand with --full, else a fifth of them.
"""

import json
import random
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from transfer.captioning.scores import References, score, tokenize


@pytest.fixture(scope="module")
def count(full) -> int:
    return 10_000 if full else 2000


def generated(seed: int, count: int) -> list[str]:
    """Strings from all of Unicode, lone surrogates too, and from what captions are made of."""
    draw = random.Random(seed)
    words = (
        "a the dog dogs ran running big large sofa couch two couple of photo picture . , - ' 22 3/4"
    )

    def char() -> str:
        kind = draw.random()
        if kind < 0.4:
            return chr(draw.randrange(32, 127))
        return chr(draw.randrange(0x300) if kind < 0.6 else draw.randrange(0x110000))

    texts = []
    for _ in range(count):
        kind = draw.random()
        if kind < 0.3:
            texts.append(" ".join(draw.choices(words.split(), k=draw.randrange(15))))
        elif kind < 0.97:
            texts.append("".join(char() for _ in range(draw.randrange(30))))
        else:
            texts.append(char() * draw.choice((1, 70, 700)))
    return texts


def images(texts: list[str]) -> tuple[dict[int, list[str]], dict[int, str]]:
    """A caption and one to four references each."""
    draw = random.Random(0)
    wanted, said, place = {}, {}, 0
    while place + 5 <= len(texts):
        count = draw.randint(1, 4)
        said[place] = texts[place]
        wanted[place] = texts[place + 1 : place + 1 + count]
        place += count + 1
    return wanted, said


def in_range(scores) -> None:
    for values in (scores.corpus, *scores.per_image.values()):
        for name, value in values.items():
            assert 0 <= value <= (10 if name == "CIDEr" else 1) + 1e-12, (name, value)


def test_any_text_has_words(count):
    for text in generated(0, count):
        words = tokenize(text)
        assert all(word and word == word.lower() and "\n" not in word for word in words), ascii(
            text
        )


def test_any_text_has_scores_in_range_and_order_does_not_matter(count):
    wanted, said = images(generated(1, count))
    found = score(wanted, said)
    in_range(found)
    ids = list(said)
    random.Random(1).shuffle(ids)
    again = score({i: wanted[i] for i in ids}, {i: said[i] for i in ids})
    assert again.corpus == found.corpus
    assert again.per_image == found.per_image
    prepared = References(wanted)
    for image_id in ids[:50]:
        assert (
            prepared.score({image_id: said[image_id]}).per_image[image_id]
            == found.per_image[image_id]
        )


def test_meteor_of_any_text(meteor, count):
    wanted, said = images(generated(2, count))
    found = score(wanted, said, meteor=meteor)
    in_range(found)
    ids = list(reversed(said))
    again = score({i: wanted[i] for i in ids}, {i: said[i] for i in ids}, meteor=meteor)
    assert again.corpus == found.corpus
    assert again.per_image == found.per_image


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_another_process_says_the_same(hash_seed):
    texts = [text for text in generated(3, 2000) if text.isprintable()]
    wanted, said = images(texts)
    code = (
        "import json, sys; from transfer.captioning.scores import score\n"
        "wanted, said = json.load(sys.stdin)\n"
        "print(json.dumps(score(wanted, said).corpus))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([wanted, said]),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": hash_seed, "PATH": ""},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == score(wanted, said).corpus
