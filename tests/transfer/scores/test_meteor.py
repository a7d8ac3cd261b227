"""METEOR 1.5 without Java: the jar's figures, cutting and alignments."""

import gzip
import multiprocessing
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pretrain.errors import UsageError
from tests.conftest import ROOT
from transfer.captioning.scores import Meteor, References, score
from transfer.captioning.scores.meteor.align import Match, align
from transfer.captioning.scores.meteor.data import (
    MeteorData,
    cache_folder,
    read_arrays,
    read_prefixes,
    write_arrays,
)
from transfer.captioning.scores.meteor.lexicon import normalize
from transfer.captioning.scores.meteor.score import corpus_scores, segment_scores


def close(ours: float, theirs: float, what: object = "") -> None:
    assert abs(ours - theirs) <= 1e-9, (what, ours, theirs)


# ---------------------------------------------------------------------------------------- figures


def test_our_own_captions(own, meteor):
    wanted, said, scored = own
    found = score(wanted, said, meteor=meteor)
    close(found.corpus["METEOR"], scored["corpus"]["METEOR"])
    for image_id, theirs in scored["per_image"].items():
        close(found.per_image[image_id]["METEOR"], theirs["METEOR"], image_id)


@pytest.mark.parametrize("which", ["human", "noisy", "constant", "nn_tfidf", "nn_single"])
def test_coco(which, coco, meteor):
    """Corpora of 2,500 and of 200 images, and the 200 images one by one."""
    references, captions, sets = coco
    by_id = references[sets[which]["refs"].removeprefix("refs_")]
    said = captions[which]
    prepared = References({image_id: by_id[image_id] for image_id in said}, meteor=meteor)
    found = prepared.score(said)
    close(found.corpus["METEOR"], sets[which]["METEOR"])
    some = [int(image_id) for image_id in sets[which]["per_image"]]
    for image_id in some:
        theirs = sets[which]["per_image"][str(image_id)]["METEOR"]
        close(found.per_image[image_id]["METEOR"], theirs, image_id)
    part = prepared.score({image_id: said[image_id] for image_id in some})
    close(part.corpus["METEOR"], sets[which + "/subset200_own_corpus"]["METEOR"])


def test_edge_cases(golden, meteor):
    for what, case in golden("edge_cases.json.gz").items():
        found = score(dict(enumerate(case["refs"])), dict(enumerate(case["hyps"])), meteor=meteor)
        close(found.corpus["METEOR"], case["scores"]["METEOR"], what)


def test_order_and_pieces_change_nothing(own, meteor):
    wanted, said, _ = own
    whole = score(wanted, said, meteor=meteor)
    back = dict(reversed(said.items()))
    turned = score({place: wanted[place] for place in back}, back, meteor=meteor)
    assert turned.corpus == whole.corpus
    assert turned.per_image == whole.per_image
    prepared = References(wanted, meteor=meteor)
    for place, caption in said.items():
        alone = prepared.score({place: caption})
        assert alone.per_image[place]["METEOR"] == whole.per_image[place]["METEOR"]


def test_the_formula():
    """A row of counts by hand: 'a dog ran fast' for 'a dog ran quickly today'."""
    row = np.zeros((1, 23), np.int64)
    row[0, :8] = [5, 4, 1, 1, 2, 2, 1, 1]  # words and function words; exact content and function
    row[0, 16:20] = [1, 1, 0, 0]  # paraphrase
    row[0, 20:] = [1, 4, 4]
    above = 0.75 * 2 + 0.25 * 1 + 0.6 * 0.75
    precision, recall = above / (0.75 * 4 + 0.25), above / (0.75 * 3 + 0.25)
    mean = precision * recall / (0.85 * precision + 0.15 * recall)
    assert segment_scores(row)[0] == pytest.approx(mean * (1 - 0.6 * (1 / 4) ** 0.2), abs=1e-15)


def test_chunks_of_perfect_segments_are_left_out_of_the_corpus():
    perfect = np.zeros(23, np.int64)
    perfect[:8] = [4, 4, 1, 1, 3, 3, 1, 1]
    perfect[20:] = [1, 4, 4]
    assert segment_scores(perfect[None])[0] == 1
    broken = perfect.copy()
    broken[20] = 3
    rows = np.stack([perfect, broken])
    expected = 1 - 0.6 * (3 / 8) ** 0.2
    assert corpus_scores(rows, np.ones((1, 2)))[0] == pytest.approx(expected, abs=1e-15)


# ---------------------------------------------------------------------------------------- cutting


PREFIXES = read_prefixes("# titles\nMr\nSt\n\npp #NUMERIC_ONLY#\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a man 's black-and-white dog", "a man ' s black and white dog"),
        ("do n't it's rock 'n' roll '90s", "do n 't it 's rock ' n ' roll ' 90s"),
        ("in the u.s. at 5:54 p.m.", "in the us at 5 : 54 pm"),
        ("a.b.c i.e. x ph.d. y", "a.b.c ie x phd y"),
        ("St. John st. john. x. Y 1. a", "st. john st. john. x . y 1. a"),
        ("pp. 5 pp. V x. 5", "pp. 5 pp . v x . 5"),
        ("1,000 a,b a,1 1,1,1", "1,000 a , b a , 1 1,1,1"),
        ("a-b-c a--b -a a- 1-1-1-1", "a b-c a b -a a- 1 1-1 1"),
        ("wait ... a..b ?!", "wait ... a .. b ? !"),
        ("x\u2019y \u201cx\u201d `x` ''", "x 'y \" x \" ' x ' \""),
        ("22\xa03/4 caf\xe9\u3000\u732b\u732b $ #tag", "22 3 / 4 caf\xe9 \u732b \u732b $ # tag"),
        ("-lrb- a_b \U0001f600", "-lrb- a _ b \U0001f600"),
        ("x. a x. zoo x. \xe9t\xe9 the 90's", "x. a x. zoo x . \xe9t\xe9 the 90 's"),
        ("", ""),
    ],
)
def test_normalization(text, words):
    """As the jar shows it with -norm -writeAlignments."""
    assert " ".join(normalize(text, PREFIXES)) == words


# ---------------------------------------------------------------------------------------- aligning


def exact(one: str, two: str) -> list[Match]:
    """The exact matches of two sentences, as METEOR lists them."""
    left, right = one.split(), two.split()
    pairs = [(i, j) for j, b in enumerate(right) for i, a in enumerate(left) if a == b]
    return [
        Match(j, i, j + 1, i + 1, 1 << i, 1 << j, 2,
              left.count(left[i]) == 1 == right.count(right[j]))
        for i, j in pairs
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("one", "two", "pairs"),
    [
        # the jar's alignments: places in the first and in the second sentence
        ("a b c", "a b c", [(0, 0), (1, 1), (2, 2)]),
        ("b", "x b", [(0, 1)]),
        ("b", "b b", [(0, 1)]),  # nothing between them in distance: the chunk still open goes first
        ("u b", "b b u", [(0, 2), (1, 0)]),
        ("a b", "c b b b b", [(1, 2)]),
        ("c a", "a a b b c c", [(1, 0), (0, 4)]),
        ("c a c a", "b c c c", [(0, 1), (2, 3)]),
        ("a a a c b", "b a b b b", [(4, 0), (0, 1)]),
        ("c c c", "c b a a", [(0, 0)]),
        ("b a c a", "b a a c", [(0, 0), (1, 1), (3, 2), (2, 3)]),
        ("x y", "v w", []),
    ],
)
def test_alignments(one, two, pairs):
    matches = exact(one, two)
    taken = sorted(align(matches)) if matches else []
    assert sorted((matches[k].start_one, matches[k].start_two) for k in taken) == sorted(pairs)


# ---------------------------------------------------------------------------------------- the data


def small(folder: Path) -> Path:
    """A METEOR folder with a few words and a table of three entries."""
    (folder / "data").mkdir(parents=True)
    with zipfile.ZipFile(folder / "meteor-1.5.jar", "w") as jar:
        jar.writestr("function/english.words", "a\nthe\nof\nsome\nand\n")
        jar.writestr("nonbreaking/english.prefixes", "# titles\nMr\n")
        jar.writestr("synonym/english.synsets", "goose\n00012\nbird\n00012 00013\nbe\n00014\n")
        jar.writestr("synonym/english.exceptions", "goose\ngeese\nbe\nwas were\n")
    entries = "0.5\na dog\nthe hound\n0.5\na dog\nhound\n0.4\nhound\na dog of some size and age\n"
    (folder / "data" / "paraphrase-en.gz").write_bytes(gzip.compress(entries.encode()))
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A METEOR folder of a few words, and an empty cache."""
    pytest.importorskip("snowballstemmer", reason="the stemmer of the meteor extra is missing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return small(tmp_path / "meteor")


def open_index(folder: Path) -> int:
    """In a process of its own: make or read the index."""
    return len(MeteorData.open(folder).index["phrases"])


def test_processes_make_one_index_together(tiny):
    """At the same time; nothing is left but the index."""
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(open_index, [tiny] * 6, chunksize=1) == [4] * 6
    assert len(list(cache_folder().iterdir())) == 1


def test_a_damaged_index_is_made_again(tiny, tmp_path):
    said: list[str] = []
    first = MeteorData.open(tiny, said.append)
    contents = {name: array.tolist() for name, array in first.index.items()}
    (index,) = cache_folder().iterdir()
    assert len(said) == 1
    MeteorData.open(tiny, said.append)
    assert len(said) == 1
    for damage in (index.read_bytes()[:-200], b"", b"no index\n"):
        (tmp_path / "damaged").write_bytes(damage)
        os.replace(tmp_path / "damaged", index)  # not in place: `first` still maps the old file
        again = MeteorData.open(tiny, said.append)
        assert {name: array.tolist() for name, array in again.index.items()} == contents
    assert len(said) == 4


def test_another_table_gets_another_index(tiny):
    MeteorData.open(tiny)
    table = tiny / "data" / "paraphrase-en.gz"
    table.write_bytes(gzip.compress(b"0.5\na cat\nfelix\n"))
    assert len(MeteorData.open(tiny).index["phrases"]) == 2
    assert len(list(cache_folder().iterdir())) == 2


def test_synsets_of_inflected_words(tiny):
    """An irregular form by the list, a regular one by the first ending that leaves a word."""
    data = MeteorData.open(tiny)
    words = ["geese", "goose", "birds", "was", "birder", "boss", "beed", "be", "s", "nowhere"]
    found = [data.synsets_of(word) for word in words]
    wanted = [{12}, {12}, {12, 13}, {14}, {12, 13}, set(), {14}, {14}, set(), set()]
    assert [set(synsets) for synsets in found] == wanted


def test_paraphrases_of_a_small_table(tiny):
    references = {1: ["see the hound"], 2: ["see hound"]}
    stats = References(references, meteor=Meteor.open(tiny)).sufficient_stats(
        [1, 2, 2, 2], ["see a dog", "see a dog", "see a dog of some size and age", "see a cat"]
    )
    assert stats.meteor is not None
    matched = stats.meteor[:, 16:20].tolist()  # content and function words of both, by paraphrase
    assert matched == [[1, 1, 1, 1], [1, 1, 1, 0], [3, 1, 4, 0], [0, 0, 0, 0]]


def test_where_there_is_no_data(tmp_path, monkeypatch):
    from transfer.captioning.scores.meteor import data

    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"no pycocoevalcap .* pip install pycocoevalcap"):
        Meteor.open()
    with pytest.raises(UsageError, match=r"no METEOR folder: it has no meteor-1.5.jar"):
        Meteor.open(tmp_path)


@pytest.mark.parametrize(
    ("stems", "words"),
    [
        (lambda words: ["add" for _ in words], "makes 'add' of 'added', METEOR 'ad'"),
        (None, "there is no snowballstemmer"),
    ],
)
def test_another_stemmer_is_refused(stems, words, tiny, monkeypatch):
    """With an index that is there already, too: nothing else may bear METEOR's name."""
    from transfer.captioning.scores.meteor import data

    def missing(words):
        raise ImportError

    MeteorData.open(tiny)
    monkeypatch.setattr(data, "stem_words", stems or missing)
    with pytest.raises(
        UsageError, match=f"{words}.* pip install pycocoevalcap 'snowballstemmer<3'"
    ):
        MeteorData.open(tiny)
    if data.find_folder() is not None:
        assert words in str(data.why_not())


def test_where_the_data_is_something_else(tmp_path, monkeypatch):
    pytest.importorskip("snowballstemmer", reason="the stemmer of the meteor extra is missing")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jar, table = tmp_path / "meteor-1.5.jar", tmp_path / "data" / "paraphrase-en.gz"
    table.parent.mkdir()
    table.write_bytes(b"")
    jar.write_bytes(b"no jar")
    with pytest.raises(UsageError, match="is no jar"):
        Meteor.open(tmp_path)
    with zipfile.ZipFile(jar, "w") as archive:
        archive.writestr("function/english.words", "a\nthe\n")
    with pytest.raises(UsageError, match=r"does not hold METEOR 1\.5's data"):
        Meteor.open(tmp_path)
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def test_a_cache_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    """Said before the data is read, which takes some ten seconds."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said: list[str] = []
    with pytest.raises(UsageError, match=r"cannot be written: .* by XDG_CACHE_HOME"):
        MeteorData.open(tiny, said.append)
    assert not said


def test_arrays_in_a_file(tmp_path):
    arrays = {
        "a": np.arange(5, dtype=np.int32),
        "empty": np.zeros(0, np.uint64),
        "b": np.array([b"x", b"yz"]),
        "words": np.array("\xe9\nx".encode()),
    }
    write_arrays(tmp_path / "file", arrays)
    found = read_arrays(tmp_path / "file")
    assert found["words"].item().decode() == "\xe9\nx"
    assert {name: array.tolist() for name, array in found.items()} == {
        name: array.tolist() for name, array in arrays.items()
    }
    assert os.listdir(tmp_path) == ["file"]


def test_arrays_are_written_whole_or_not_at_all(tmp_path):
    write_arrays(tmp_path / "file", {"a": np.arange(3)})

    class Full:
        """An array in the middle of which the disk is full."""

        dtype, shape, nbytes = np.dtype(np.int64), (4,), 32

        def __array__(self, dtype=None, copy=None):
            raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        write_arrays(tmp_path / "file", {"a": np.arange(9), "b": Full()})
    assert read_arrays(tmp_path / "file")["a"].tolist() == [0, 1, 2]
    assert os.listdir(tmp_path) == ["file"]


def test_help_for_those_without_the_extra():
    """The name of the extra is that of the project file."""
    assert '\nmeteor = ["pycocoevalcap' in (ROOT / "pyproject.toml").read_text()
