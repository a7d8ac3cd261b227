"""BLEU, ROUGE-L and CIDEr: the reference's figures, however one asks for them."""

import math
import random

import numpy as np
import pytest

from pretrain.errors import UsageError
from transfer.captioning.scores import References, ScoreAccumulator, score, tokenize
from transfer.captioning.scores.frequencies import count_frequencies
from transfer.captioning.scores.rouge import lcs_lengths
from transfer.captioning.scores.tokenizer import TokenIds, Tokenizer

NAMES = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")
SETS = ("human", "noisy", "constant", "nn_tfidf", "nn_single")


def close(ours: float, theirs: float, what: object = "") -> None:
    assert abs(ours - theirs) <= 1e-9, (what, ours, theirs)


def test_our_own_captions(own):
    """Committed: twenty images, figures of pycocoevalcap 1.2."""
    wanted, said, scored = own
    found = score(wanted, said)
    assert len(said) == len(scored["per_image"]) == 20
    for name in NAMES:
        close(found.corpus[name], scored["corpus"][name], name)
        for image_id, theirs in scored["per_image"].items():
            close(found.per_image[image_id][name], theirs[name], (name, image_id))


@pytest.mark.parametrize("subset", [False, True], ids=["2500 images", "200 images"])
@pytest.mark.parametrize("which", SETS)
def test_coco(which, subset, coco):
    """Corpus and per image, CIDEr-D, and CIDEr-D with given document frequencies."""
    references, captions, sets = coco
    wanted = sets[which + ("/subset200_own_corpus" if subset else "")]
    by_id = references[wanted["refs"].removeprefix("refs_")]
    said = captions[which]
    if subset:
        said = {int(image_id): said[int(image_id)] for image_id in wanted["per_image"]}
    ids, texts = list(said), list(said.values())
    prepared = References({image_id: by_id[image_id] for image_id in ids})
    found = prepared.score(said)
    frequencies = count_frequencies(references["all"])
    given = References({image_id: by_id[image_id] for image_id in ids}, frequencies=frequencies)
    more = {
        "CIDErD_ruotianluo_corpus": prepared.cider_d(ids, texts),
        "CIDErD_df_file": given.cider_d(ids, texts),
    }
    for name in NAMES:
        close(found.corpus[name], wanted[name], name)
    for name, values in more.items():
        close(math.fsum(values) / len(values), wanted[name], name)
    for image_id, theirs in wanted["per_image"].items():
        place = ids.index(int(image_id))
        for name, value in theirs.items():
            if name in NAMES:
                close(found.per_image[int(image_id)][name], value, (name, image_id))
            elif name in more:
                close(more[name][place], value, (name, image_id))


def test_edge_cases(golden):
    """25 small corpora: empty, one word, one image, repeated, very long, Unicode ..."""
    cases = golden("edge_cases.json.gz")
    assert len(cases) == 25
    for what, case in cases.items():
        found = score(dict(enumerate(case["refs"])), dict(enumerate(case["hyps"])))
        for name in NAMES:
            close(found.corpus[name], case["scores"][name], (what, name))


def test_bleu_equals_nltk_without_smoothing():
    translate = pytest.importorskip("nltk.translate.bleu_score")
    draw = random.Random(0)
    for _ in range(20):
        said = [draw.choices("bcdef", k=draw.randint(8, 15)) for _ in range(30)]
        wanted = [[draw.choices("bcdef", k=draw.randint(8, 15)) for _ in range(3)] for _ in said]
        theirs = translate.corpus_bleu(wanted, said)
        references = {k: [" ".join(words) for words in image] for k, image in enumerate(wanted)}
        prepared = References(references, tokenized=True)
        found = prepared.score({k: " ".join(words) for k, words in enumerate(said)})
        assert found.corpus["Bleu_4"] == pytest.approx(theirs, abs=1e-6)


CHINESE = {
    1: ["一个男人骑着一匹马。", "男人在草地上骑马"],
    2: ["两只猫坐在沙发上", "两只 猫 在看电视。", "沙发上有两只猫"],
    3: ["街道上停着许多汽车", "一辆红色的BMW停在路边"],
}
SAID = {1: "一个女人骑着马。", 2: "两只猫在沙发上", 3: "一辆红色的bmw汽车"}


@pytest.mark.parametrize("tokenizer", ["characters", list, lambda text: [*text.lower()]])
def test_characters_are_what_the_references_scorers_make_of_them(tokenizer):
    """pycocoevalcap's scorers, to which the characters are given with spaces between."""
    pytest.importorskip("pycocoevalcap.cider.cider")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    def cut(text):
        fold = text if tokenizer is list else text.lower()
        return " ".join(char for char in fold if char != " ")

    references = {k: [text.replace(" ", "") for text in texts] for k, texts in CHINESE.items()}
    wanted = {k: [cut(text) for text in texts] for k, texts in references.items()}
    said = {k: [cut(text)] for k, text in SAID.items()}
    given = CHINESE if tokenizer == "characters" else references  # which leaves out spaces
    found = score(given, SAID, tokenizer=tokenizer)
    bleu, bleu_of = Bleu(4).compute_score(wanted, said, verbose=0)
    theirs = dict(zip(NAMES, zip(bleu, bleu_of, strict=True), strict=False))
    theirs |= {"ROUGE_L": Rouge().compute_score(wanted, said)}
    theirs |= {"CIDEr": Cider().compute_score(wanted, said)}
    for name, (corpus, of_images) in theirs.items():
        close(found.corpus[name], corpus, name)
        for image_id, value in zip(SAID, of_images, strict=True):
            close(found.per_image[image_id][name], value, (name, image_id))
    # as sentences, these captions share next to nothing
    assert score(CHINESE, SAID).corpus["Bleu_1"] < 0.3 < 0.8 < found.corpus["Bleu_1"]


def test_characters_by_hand():
    """6 of 7 characters in the reference of 8: 6 / 7 x e^(1 - 8 / 7); BLEU-2: 4 of 6 pairs."""
    found = score({1: ["一只棕色的狗跑。"]}, {1: "一只白色的狗跑"}, tokenizer="characters").corpus
    assert found["Bleu_1"] == pytest.approx(6 / 7 * math.exp(-1 / 7))
    assert found["Bleu_2"] == pytest.approx(math.sqrt(6 / 7 * 4 / 6) * math.exp(-1 / 7))


def test_words_that_another_program_has_cut():
    """As by another program: what stands between spaces, no case folded, no mark taken off."""
    references = {1: ["一只 棕色 的 狗 。"], 2: ["A Dog runs ."]}
    said = {1: "一只 白色 的 狗 。", 2: "a Dog runs ."}
    found = score(references, said, tokenizer="none").per_image
    assert found[1]["Bleu_1"] == pytest.approx(4 / 5)
    assert found[2]["Bleu_1"] == pytest.approx(3 / 4)


def test_document_frequencies_of_characters():
    """Those of a corpus and of the references are one where the corpus is the references."""
    ids, texts = list(SAID), list(SAID.values())
    own = References(CHINESE, tokenizer="characters")
    same = count_frequencies(CHINESE, tokenizer="characters")
    given = References(CHINESE, tokenizer="characters", frequencies=same)
    assert given.cider_d(ids, texts).tolist() == own.cider_d(ids, texts).tolist()
    assert (own.known_words, given.known_words) == (1, 1)
    other = References(CHINESE, tokenizer="characters", frequencies=count_frequencies(CHINESE))
    assert other.known_words < 0.2  # a sentence is no character


def test_meteor_is_for_english():
    class Meteor:
        def prepare(self, captions, names, sizes):
            return None

    assert References({1: ["a"]}, meteor=Meteor(), tokenizer=tokenize)
    for tokenizer in ("characters", "none", str.split):
        with pytest.raises(UsageError, match="METEOR matches English words of the tokenizer ptb"):
            References({1: ["a"]}, meteor=Meteor(), tokenizer=tokenizer)


def naive_lcs(one: list[int], two: list[int]) -> int:
    before = [0] * (len(two) + 1)
    for word in one:
        now = [0]
        for place, other in enumerate(two):
            now.append(before[place] + 1 if word == other else max(before[place + 1], now[-1]))
        before = now
    return before[-1]


@pytest.mark.parametrize("first", [0, 0xD7FF, 0x10FFFF])
def test_common_subsequences_of_any_length(first):
    """Against the textbook's table; numbers of words up to and beyond those of characters."""
    draw = random.Random(1)
    lengths = [0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 90, 200]
    texts = [" ".join(draw.choices("abcde", k=draw.choice(lengths))) for _ in range(120)]
    words = Tokenizer()
    cut = words.encode(texts, tokenized=True)
    cut = TokenIds(cut.words + first, cut.counts)
    one, two = np.repeat(np.arange(60), 2), np.array([draw.randrange(60, 120) for _ in range(120)])
    found = lcs_lengths(cut, cut, one, two)
    for place, (left, right) in enumerate(zip(one.tolist(), two.tolist(), strict=True)):
        wanted = naive_lcs(texts[left].split(), texts[right].split())
        assert found[place] == wanted, (texts[left], texts[right])


def test_prepared_batch_and_incremental_are_one(coco):
    """The same bits: prepared again and again, image by image, in any order."""
    references, captions, _ = coco
    ids = list(captions["human"])[:300]
    wanted = {image_id: references["all"][image_id] for image_id in ids}
    said = {image_id: captions["human"][image_id] for image_id in ids}
    whole = score(wanted, said)
    prepared = References(wanted)
    prepared.score({image_id: captions["noisy"][image_id] for image_id in ids})  # meets new words
    accumulator = ScoreAccumulator(prepared)
    for begin in range(0, 300, 7):
        accumulator.add({image_id: said[image_id] for image_id in ids[begin : begin + 7]})
    mixed = ids[:]
    random.Random(0).shuffle(mixed)
    shuffled = score(
        {image_id: wanted[image_id] for image_id in mixed},
        {image_id: said[image_id] for image_id in mixed},
    )
    for other in (prepared.score(said), accumulator.compute(), shuffled):
        assert other.corpus == whole.corpus
        assert {image_id: other.per_image[image_id] for image_id in ids} == whole.per_image


def test_rewards_are_the_scores_of_single_captions(coco):
    """Several captions an image, in any order, against frequencies of all references."""
    references, captions, _ = coco
    ids = list(captions["human"])[:50]
    wanted = {image_id: references["all"][image_id] for image_id in ids}
    prepared = References(wanted)
    asked = [(image_id, captions[name][image_id]) for image_id in ids for name in SETS]
    random.Random(0).shuffle(asked)
    rewards = prepared.cider_d(*map(list, zip(*asked, strict=True)))
    for name in SETS:
        scores = prepared.score({image_id: captions[name][image_id] for image_id in ids})
        for image_id in ids:
            place = asked.index((image_id, captions[name][image_id]))
            assert rewards[place] == scores.per_image[image_id]["CIDEr"]
    assert len(prepared.cider_d([], [])) == 0


def test_words_that_are_cut_already():
    """A captioner's own words, with the end of a sentence as one of them."""
    prepared = References({1: ["a dog . <end>"], 2: ["a cat <end>", "Cats <end>"]}, tokenized=True)
    same = prepared.cider_d([1, 2], ["a dog . <end>", "a cat <end>"])
    assert same[0] == pytest.approx(10)
    unfinished = prepared.cider_d([1, 2], ["a dog .", "a cat"])
    assert (unfinished < same).all()
    assert prepared.cider_d([2], ["cats <end>"]) < prepared.cider_d([2], ["Cats <end>"])


def test_what_the_scores_say():
    found = score(
        {7: ["A dog runs.", "The dog is running!"], 8: ["Two cats sleep"], 9: ["unused"]},
        {7: "a dog runs", 8: "two cats"},
    )
    assert list(found.corpus) == list(NAMES)
    assert set(found.per_image) == {7, 8}
    assert found.per_image[7]["Bleu_1"] == pytest.approx(1)
    assert found.per_image[8]["Bleu_1"] < 1  # too short
    assert score({1: ["a b"], 2: ["c"]}, {1: "", 2: ""}).corpus["CIDEr"] == 0
    assert score({1: ["a b"]}, {1: "a b"}).corpus["CIDEr"] == 0  # one image: no n-gram is rare


def test_rouge_of_no_words_beside_no_words():
    """The reference implementation sees an empty word on both sides."""
    rouge = score({1: ["..."], 2: ["a", "."], 3: ["a"]}, {1: "!", 2: "", 3: ""}).per_image
    assert [rouge[image_id]["ROUGE_L"] for image_id in (1, 2, 3)] == [1, 1, 0]


def test_frequencies_belong_to_the_prepared_references():
    """Scoring some of the images does not change what is rare."""
    references = {1: ["a dog"], 2: ["a cat"], 3: ["the cat"]}
    prepared = References(references)
    alone = prepared.score({1: "a dog"}).per_image[1]["CIDEr"]
    assert alone == prepared.score({1: "a dog", 2: "a cat", 3: "x"}).per_image[1]["CIDEr"] > 0
    assert score(references, {1: "a dog"}).corpus["CIDEr"] == 0


@pytest.mark.parametrize(
    ("references", "hypotheses", "words"),
    [
        ({1: ["a"]}, {}, "no captions"),
        ({}, {1: "a"}, "1 of 1 captions have no reference, the first has id 1"),
        (
            {1: ["a"]},
            {1: "a", 2: "a", 3: "b"},
            "2 of 3 captions have no reference, the first has id 2",
        ),
        ({"1": ["a"]}, {1: "a"}, "first has id 1; ids of references look like '1'"),
        ({1: []}, {1: "a"}, "id 1 has no reference captions"),
        ({1: "a dog"}, {1: "a"}, "id 1 are 'a dog'; expected a list of texts"),
        ({1: ["a", None]}, {1: "a"}, "id 1 are .*None.*; expected a list"),
        ({1: ["a"]}, {1: ["a"]}, r"caption of id 1 is \['a'\]; expected one text"),
        ({1: ["a"], 2: ["b"]}, {1: "a", 2: None}, "caption of id 2 is None"),
    ],
)
def test_what_cannot_be_scored_is_said(references, hypotheses, words):
    with pytest.raises(UsageError, match=words):
        score(references, hypotheses)


def test_an_accumulator_takes_one_caption_an_image():
    accumulator = ScoreAccumulator(References({1: ["a"], 2: ["b"]}))
    with pytest.raises(UsageError, match="no captions"):
        accumulator.compute()
    accumulator.add({1: "a"})
    accumulator.add({})
    with pytest.raises(
        UsageError, match="1 of 2 images have a caption already, the first has id 1"
    ):
        accumulator.add({2: "b", 1: "a"})
    assert list(accumulator.compute().per_image) == [1]
    with pytest.raises(UsageError, match="2 ids were given for 1 captions"):
        References({1: ["a"]}).cider_d([1, 1], ["a"])
