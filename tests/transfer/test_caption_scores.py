"""BLEU and CIDEr against MS-COCO's evaluation code and nltk."""

import gzip
import json
import random

import pytest

from pretrain.errors import UserError
from tests.conftest import FIXTURES
from transfer.captioning.scores import bleu, cider, score, tokenize

NAMES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


def load(path):
    return json.loads(gzip.decompress(path.read_bytes()))


def check(case: dict, wanted: list, said: list) -> None:
    corpus, per_image = bleu(wanted, said)
    mean, images = cider(wanted, said)
    for name, value in zip((*NAMES, "CIDEr"), (*corpus, mean), strict=True):
        assert value == pytest.approx(case["corpus"][name], abs=1e-9), name
    for place, (values, value) in enumerate(zip(per_image, images, strict=True)):
        for name, ours in zip((*NAMES, "CIDEr"), (*values, value), strict=True):
            assert ours == pytest.approx(case["per_image"][name][place], abs=1e-9), (name, place)


def test_equals_the_reference_on_our_own_sentences():
    """Committed: shape-world sentences with the figures of pycocoevalcap 1.2."""
    case = json.loads((FIXTURES / "caption_scores.json").read_text())
    wanted = [[text.split() for text in image] for image in case["references"]]
    check(case, wanted, [text.split() for text in case["hypotheses"]])


def test_simple_tokens_of_our_own_sentences():
    case = json.loads((FIXTURES / "caption_scores.json").read_text())
    for raw, words in zip(case["raw"], case["hypotheses"], strict=True):
        assert tokenize(raw) == words.split()


def test_equals_the_reference_on_edge_cases(shared):
    """25 small corpora: empty, one word, one image, repeated, very long, Unicode ..."""
    cases = load(shared / "golden" / "captions" / "edge_cases.json.gz")
    assert len(cases) >= 25
    for name, case in cases.items():
        said, wanted = tokenized(case)
        corpus, _ = bleu(wanted, said)
        mean, _ = cider(wanted, said)
        for key, value in zip((*NAMES, "CIDEr"), (*corpus, mean), strict=True):
            assert value == pytest.approx(case["scores"][key], abs=1e-9), (name, key)


def tokenized(case: dict) -> tuple[list, list]:
    said = [text.split() for text in case["hyps_tokenized"]]
    return said, [[text.split() for text in image] for image in case["refs_tokenized"]]


@pytest.mark.parametrize("which", ["human", "constant", "nn_tfidf", "nn_single"])
def test_equals_the_reference_on_coco(which, shared):
    folder = shared / "golden" / "captions"
    words = {row[2]: row[3].split() for row in load(folder / "tok_coco_val2017.json.gz")["rows"]}
    refs = load(folder / "coco_a" / f"refs_{'minus_one' if which == 'human' else 'all'}.json.gz")
    said = {
        row["image_id"]: row["caption"] for row in load(folder / "coco_a" / f"hyp_{which}.json.gz")
    }
    wanted: dict = {image_id: [] for image_id in said}
    for row in refs["annotations"]:
        wanted[row["image_id"]].append(words[row["caption"]])
    golden = load(folder / "coco_a" / "scores.json.gz")["sets"][which]
    spoken = [words.get(text) or tokenize(text) for text in said.values()]  # one is lower-cased
    corpus, per_image = bleu(list(wanted.values()), spoken)
    mean, images = cider(list(wanted.values()), spoken)
    for name, value in zip((*NAMES, "CIDEr"), (*corpus, mean), strict=True):
        assert value == pytest.approx(golden[name], abs=1e-9)
    for image_id, values, value in zip(said, per_image, images, strict=True):
        if (theirs := golden["per_image"].get(str(image_id))) is not None:
            for name, ours in zip((*NAMES, "CIDEr"), (*values, value), strict=True):
                assert ours == pytest.approx(theirs[name], abs=1e-9)


def test_the_simple_tokenizer_differs_rarely(shared):
    """From the reference's on 12,445 real captions; an exact one replaces it."""
    rows = load(shared / "golden" / "captions" / "tok_coco_val2017.json.gz")["rows"]
    different = sum(tokenize(row[2]) != row[3].split() for row in rows)
    assert different <= 15


def test_bleu_equals_nltk_without_smoothing():
    translate = pytest.importorskip("nltk.translate.bleu_score")
    draw = random.Random(0)
    for _ in range(20):
        said = [draw.choices("abcde", k=draw.randint(8, 15)) for _ in range(30)]
        wanted = [[draw.choices("abcde", k=draw.randint(8, 15)) for _ in range(3)] for _ in said]
        theirs = translate.corpus_bleu(wanted, said)
        assert bleu(wanted, said)[0][3] == pytest.approx(theirs, abs=1e-6)


def test_score_takes_raw_captions():
    references = {7: ["A dog runs.", "The dog is running!"], 8: ["Two cats sleep"], 9: ["unused"]}
    scores = score(references, {7: "a dog runs", 8: "two cats"})
    assert set(scores.corpus) == {*NAMES, "CIDEr"}
    assert set(scores.per_image) == {7, 8}
    assert scores.per_image[7]["Bleu_1"] == pytest.approx(1)
    assert scores.per_image[8]["Bleu_1"] < 1  # too short
    assert score({1: ["a b"], 2: ["c"]}, {1: "", 2: ""}).corpus["CIDEr"] == 0


def test_what_cannot_be_scored_is_said():
    with pytest.raises(UserError, match="no captions"):
        score({1: ["a"]}, {})
    with pytest.raises(UserError, match="id 2"):
        score({1: ["a"]}, {2: "a"})
    with pytest.raises(UserError, match="id 1"):
        score({1: []}, {1: "a"})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A man's dog, running!", "a man 's dog running"),
        ("They can't stop.", "they ca n't stop"),
        ("black-and-white photo", "black-and-white photo"),
        ("5:54 a.m. 3.5 feet", "5:54 a.m 3.5 feet"),
        ("sink,toilet 1,000", "sink toilet 1,000"),
        ("", ""),
        ("...", ""),
    ],
)
def test_tokens(text, words):
    assert tokenize(text) == words.split()
