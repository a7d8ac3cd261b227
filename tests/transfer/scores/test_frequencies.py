"""Document frequencies from elsewhere."""

import os
import pickle
from collections import defaultdict
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from transfer.captioning.scores import References, tokenize
from transfer.captioning.scores.frequencies import count_frequencies, read_frequencies

CORPUS = {
    1: ["A dog runs.", "The dog is running in a park"],
    2: ["Two cats sleep, two cats", "Cats sleeping"],
    3: ["a dog and a cat", "A cat with a dog in a park"],
    4: ["A park."],
}


def frequencies_file(path, **changes):
    """As ruotianluo's cider writes it."""
    counts: defaultdict = defaultdict(float)
    for captions in CORPUS.values():
        held = set()
        for caption in captions:
            words = tokenize(caption)
            held |= {
                tuple(words[i : i + n]) for n in (1, 2, 3, 4) for i in range(len(words) - n + 1)
            }
        for ngram in held:
            counts[ngram] += 1
    content = {"document_frequency": counts, "ref_len": float(len(CORPUS)), **changes}
    path.write_bytes(pickle.dumps(content, protocol=2))
    return path


def test_a_file_of_frequencies_equals_counting(tmp_path):
    read = read_frequencies(frequencies_file(tmp_path / "df.p"))
    counted = count_frequencies(CORPUS)
    references = {"x": ["a dog in the snow", "A dog runs in a park."], "y": ["unheard-of words"]}
    said = {"x": "a dog runs in a forest, a forest", "y": "two cats sleep"}
    values = [
        References(references, frequencies=frequencies).cider_d(list(said), list(said.values()))
        for frequencies in (read, counted)
    ]
    assert values[0].tolist() == values[1].tolist()
    assert values[0][0] > 0
    assert values[0].tolist() != References(references).cider_d(*zip(*said.items())).tolist()  # noqa: B905


def test_its_own_references_as_the_corpus_change_nothing():
    captions = {image_id: texts[0] for image_id, texts in CORPUS.items()}
    own = References(CORPUS).score(captions)
    given = References(CORPUS, frequencies=count_frequencies(CORPUS)).score(captions)
    for image_id, scores in own.per_image.items():
        assert given.per_image[image_id] == pytest.approx(scores, abs=1e-12)


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_files_that_hold_something_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no file .*none\.p"):
        read_frequencies(tmp_path / "none.p")
    with pytest.raises(UsageError, match="is a pipe or a device"):
        read_frequencies(Path(os.devnull))
    for name, content in (
        ("evil.p", pickle.dumps({"document_frequency": Evil(), "ref_len": 1.0})),
        ("list.p", pickle.dumps([1, 2])),
        ("other.p", pickle.dumps({"ref_len": 1.0})),
        ("text.p", pickle.dumps({"document_frequency": "abc", "ref_len": 1.0})),
        ("cut.p", frequencies_file(tmp_path / "df.p").read_bytes()[:50]),
        ("no.p", b"hello"),
        ("empty.p", b""),
        ("zero.p", frequencies_file(tmp_path / "df.p", ref_len=0.0).read_bytes()),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name} holds no document frequencies"):
            read_frequencies(tmp_path / name)
    assert not (tmp_path / "evil").exists()
    with pytest.raises(UsageError, match="no captions"):
        count_frequencies({})
