"""Caption files as people keep them."""

import gzip
import json

import pytest

from pretrain.errors import UsageError
from transfer.captioning.scores.files import read_references, read_results
from transfer.captioning.scores.selection import choose, read_ids

COCO = {
    "images": [{"id": 7, "file_name": "7.jpg"}, {"id": 8, "file_name": "8.jpg"}, {"id": 9}],
    "annotations": [
        {"id": 1, "image_id": 7, "caption": "a dog"},
        {"id": 2, "image_id": 8, "caption": "a cat, asleep"},
        {"id": 3, "image_id": 7, "caption": "caf\xe9"},
    ],
}
WANTED = {"7": ["a dog", "caf\xe9"], "8": ["a cat, asleep"]}
WAYS = {
    "coco.json": json.dumps(COCO),
    "list.json": json.dumps(COCO["annotations"]),
    "plain.json": json.dumps(WANTED),
    "one.json": json.dumps({"7": ["a dog", "caf\xe9"], "8": "a cat, asleep"}),
    "lines.jsonl": "\n\n".join(json.dumps(entry) for entry in COCO["annotations"]),
    "several.ndjson": '{"id": "7", "captions": ["a dog", "caf\xe9"]}\n'
    '{"image": 8, "caption": "a cat, asleep"}\n',
    "table.csv": 'caption,image_id\na dog,7\n"a cat, asleep",8\n\ncaf\xe9,7\n',
    "flickr.csv": 'image,caption\n7,a dog\n7,caf\xe9\n8,"a cat, asleep"\n',
    "tabs.tsv": "id\tcaption\n7\ta dog\n8\ta cat, asleep\n7\tcaf\xe9\n",
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", WAYS)
def test_every_way_to_keep_references(name, packed, tmp_path):
    path = tmp_path / (name + ".gz" * packed)
    content = WAYS[name].encode("utf-8-sig" if name.endswith("csv") else "utf-8")
    path.write_bytes(gzip.compress(content) if packed else content)
    found = read_references(path)
    assert found.captions == WANTED
    assert found.file_names == ({"7": "7.jpg", "8": "8.jpg"} if name == "coco.json" else {})


def test_results(tmp_path):
    for name, text in (
        ("coco.json", '[{"image_id": 7, "caption": "a dog"}, {"image_id": "x", "caption": ""}]'),
        ("plain.json", '{"7": "a dog", "x": [""]}'),
        ("lines.jsonl", '{"id": 7, "caption": "a dog"}\n{"id": "x", "captions": [""]}'),
        ("table.csv", "id,caption\n7,a dog\nx,\n"),
    ):
        (tmp_path / name).write_text(text)
        assert read_results(tmp_path / name) == {"7": "a dog", "x": ""}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", b"{", "a.json is no JSON: Expecting"),
        ("a.json", b"", "is no JSON"),
        ("a.json", b"3", "holds a number; expected captions by id"),
        ("a.json", b"null", "holds nothing"),
        ("a.json", b"[]", "holds no captions"),
        ("a.json", b"{}", "holds no captions"),
        ("a.json", b'{"7": []}', "1 of 1 ids have no captions, the first is '7'"),
        ("a.json", b'{"7": ["a"], "7": ["b"]}', "the key '7' stands twice"),
        ("a.json", b'{"7": 3}', "id '7': the caption is 3; expected a text"),
        ("a.json", b'{"7": ["a", null]}', r"id '7': the caption is \['a', None\]"),
        ("a.json", b"[3]", 'entry 0: a number; expected {"image_id"'),
        ("a.json", b'[{"image_id": 7}]', "entry 0 has image_id; expected"),
        (
            "a.json",
            b'[{"image_id": 7.5, "caption": "a"}]',
            "entry 0: the id is 7.5; expected a number",
        ),
        ("a.json", b'[{"image_id": true, "caption": "a"}]', "the id is True"),
        ("a.json", b'[{"image_id": null, "caption": "a"}]', "the id is None"),
        ("a.json", b'{"annotations": [{"caption": "a"}]}', "annotation 0 has caption; expected"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.json", b"\xff\xfe{", "is not UTF-8: byte 0 is 0xff"),
        (
            "a.csv",
            "image_id,caption\n7,caf\xe9\n".encode("latin-1"),
            "is not UTF-8: byte 22 is 0xe9",
        ),
        ("a.jsonl", b'{"id": 7, "caption": "a"}\n{"id": 8', "line 2, is no JSON"),
        ("a.csv", b"", r"names the columns \(none\); expected image_id"),
        ("a.csv", b"a,b\n1,2\n", "names the columns a, b; expected"),
        (
            "a.csv",
            b"id,caption\n7,a cat, asleep\n",
            "line 2: 3 columns, but the first line names 2",
        ),
        ("a.csv", b'id,caption\n7,"a cat\n', "line 2: unexpected end of data"),
        ("a.txt", b"a", r"expected a name that ends in \.json, \.jsonl"),
        ("a.json.gz", b"no gzip", "cannot be unpacked"),
        ("a.json.gz", gzip.compress(b"{}", mtime=0)[:-6], "cannot be unpacked"),
    ],
)
def test_files_that_cannot_be_read(name, content, words, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=words):
        read_references(tmp_path / name)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"there is no file .*a\.json"):
        read_references(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(UsageError, match=r"b\.json is a folder"):
        read_results(tmp_path / "b.json")


def test_results_with_two_captions_of_an_image(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('[{"image_id": 7, "caption": "a"}, {"image_id": "7", "caption": "a"}]')
    with pytest.raises(
        UsageError, match="1 of 1 ids do not have one caption, the first is '7' with 2"
    ):
        read_results(path)
    path.write_text('{"7": []}')
    with pytest.raises(UsageError, match="the first is '7' with 0"):
        read_results(path)
    path.write_text("[]")
    with pytest.raises(UsageError, match="holds no captions"):
        read_results(path)


def test_which_images_are_scored(tmp_path):
    path = tmp_path / "refs.json"
    path.write_text(json.dumps({"1": ["a"], "2": ["b"], "3": ["c"]}))
    references = read_references(path)
    assert list(choose(references, {"3": "c", "1": "a", "2": "b"})) == ["1", "2", "3"]
    assert list(choose(references, {"3": "c", "1": "a"}, subset=True)) == ["1", "3"]
    assert list(choose(references, {"3": "c", "1": "a", "9": "?"}, ids=["3", "1"])) == ["3", "1"]
    with pytest.raises(UsageError, match=r"1 of 3 images have no caption .* id '2'\. .* --subset"):
        choose(references, {"1": "a", "3": "c"})
    with pytest.raises(
        UsageError, match=r"1 of 2 ids in the results are not in .* '9'; ids there look like '1'"
    ):
        choose(references, {"1": "a", "9": "x"}, subset=True)
    with pytest.raises(UsageError, match=r"1 of 2 ids asked for have no references .* '9'"):
        choose(references, {"1": "a"}, ids=["1", "9"])
    with pytest.raises(UsageError, match="none of the 2 images has a caption in the results"):
        choose(references, {"1": "a"}, ids=["2", "3"], subset=True)
    with pytest.raises(UsageError, match="1 of 2 images have no caption in the results"):
        choose(references, {"1": "a"}, ids=["1", "2"])


def test_lists_of_ids(tmp_path):
    (tmp_path / "a.json").write_text('[7, "8", 7]')
    (tmp_path / "a.txt").write_text("7\n\n 8 \n")
    assert read_ids(tmp_path / "a.json") == read_ids(tmp_path / "a.txt") == ["7", "8"]
    for name, text, words in (
        ("b.json", "{}", "is no list of ids but an object"),
        ("b.json", "[1.5]", "entry 0: the id is 1.5"),
        ("b.txt", "\n", "holds no ids"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(UsageError, match=words):
            read_ids(tmp_path / name)
