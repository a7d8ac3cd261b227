"""Caption files as people keep them."""

import gzip
import json
import os
from pathlib import Path

import pytest

from pretrain.errors import UsageError
from transfer.captioning.scores import References, ScoreAccumulator, score
from transfer.captioning.scores.files import (
    CaptionFile,
    choose,
    match_ids,
    read_ids,
    read_references,
    read_results,
)

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
        ("a.json", b'{"7": ["a", null]}', "id '7': the caption is None; expected"),
        ("a.json", b"[3]", 'entry 0: a number; expected {"image_id"'),
        ("a.json", b'[{"image_id": 7}]', "entry 0 has image_id; expected"),
        (
            "a.json",
            b'[{"image_id": 7.5, "caption": "a"}]',
            "entry 0: the id is 7.5; expected a whole number",
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
        ("a.docx", b"a", r"expected a name that ends in \.json, \.jsonl"),
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
    with pytest.raises(UsageError, match="is a pipe or a device"):
        read_ids(Path(os.devnull))


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


# ------------------------------------------------------------------- as other programs write them

KARPATHY = {
    "dataset": "coco",
    "images": [
        {"filepath": "val2014", "filename": f"COCO_val2014_{number:012}.jpg", "split": split,
         "cocoid": number, "imgid": place, "sentids": [0, 1],
         "sentences": [{"raw": text, "tokens": text.split()} for text in texts]}
        for place, (number, split, texts) in enumerate(
            [(7, "train", ["a dog", "one dog"]), (391895, "test", ["a cat, asleep"])]
        )
    ],
}  # fmt: skip
TEXTCAPS = {
    "dataset_name": "textcaps",
    "data": [
        {"caption_str": text, "caption_id": place, "image_id": "0a7", "set_name": "val",
         "image_path": "train/0a7.jpg", "image_name": "0a7", "reference_strs": ["a sign", "stop"]}
        for place, text in enumerate(["a sign", "stop"])
    ],
}  # fmt: skip
OTHERS = {
    "dataset_coco.json": (json.dumps(KARPATHY),
        {"7": ["a dog", "one dog"], "391895": ["a cat, asleep"]},
        {"7": "val2014/COCO_val2014_000000000007.jpg",
         "391895": "val2014/COCO_val2014_000000391895.jpg"}),
    "Flickr8k.token.txt": ("a.jpg#0\tA dog .\r\na.jpg#1\tA\u2028dog#2\tout .\nb.jpg#0\tCats .",
        {"a.jpg": ["A dog .", "A\u2028dog#2\tout ."], "b.jpg": ["Cats ."]},
        {"a.jpg": "a.jpg", "b.jpg": "b.jpg"}),
    "results_20130124.token": ("a.jpg#0\tA dog .", {"a.jpg": ["A dog ."]}, {"a.jpg": "a.jpg"}),
    "captions.txt": ('image,caption\na.jpg,A dog .\na.jpg,"A dog, ""out"" ."\na.jpg,A dog, out .\n',
        {"a.jpg": ["A dog .", 'A dog, "out" .', "A dog, out ."]}, {"a.jpg": "a.jpg"}),
    "metadata.jsonl": ('{"file_name": "train/a.png", "text": "a dog"}\n',
        {"train/a.png": ["a dog"]}, {"train/a.png": "train/a.png"}),
    "metadata.csv": ("file_name,text\na.png,a dog\nb.png,a cat\n",
        {"a.png": ["a dog"], "b.png": ["a cat"]}, {"a.png": "a.png", "b.png": "b.png"}),
    "coco_karpathy_train.json": (
        # the id is made up, as in LAVIS, and even wrong
        json.dumps([{"caption": text, "image": "val2014/COCO_val2014_000000000009.jpg",
                     "image_id": f"coco_{place}"} for place, text in enumerate(["a", "b"])]),
        {"val2014/COCO_val2014_000000000009.jpg": ["a", "b"]},
        {"val2014/COCO_val2014_000000000009.jpg": "val2014/COCO_val2014_000000000009.jpg"}),
    "coco_karpathy_val.json": (
        json.dumps([{"image": "coco\\images\\a.jpg", "caption": ["a", "b"]}]),
        {"coco\\images\\a.jpg": ["a", "b"]}, {"coco\\images\\a.jpg": "coco/images/a.jpg"}),
    "coco_karpathy_val_gt.json": (
        json.dumps({"images": [{"id": 9}], "annotations": [{"image_id": 9, "caption": "a",
                                                            "id": 0}]}), {"9": ["a"]}, {}),
    "TextCaps_0.1_val.json": (json.dumps(TEXTCAPS),
        {"0a7": ["a sign", "stop"]}, {"0a7": "train/0a7.jpg"}),
    "gts.json": ('{"7": [{"image_id": 7, "caption": "a", "id": 1}, {"caption": "b"}]}',
        {"7": ["a", "b"]}, {}),
    "rows.csv": ("id,image,caption\n0,a.jpg,a dog\n1,a.jpg,one dog\n2,b.jpg,a cat\n",
        {"a.jpg": ["a dog", "one dog"], "b.jpg": ["a cat"]}, {"a.jpg": "a.jpg", "b.jpg": "b.jpg"}),
    "numbers.csv": ("id,image,caption\n0,7,a dog\n1,7,one dog\n", {"7": ["a dog", "one dog"]}, {}),
    "index.csv": (",image_id,caption\n0,391895.0,a dog\n1,391895,one dog\n",
        {"391895": ["a dog", "one dog"]}, {}),
    "floats.json": ('[{"image_id": 391895.0, "caption": "a"}, {"image_id": 7.0, "caption": "b"}]',
        {"391895": ["a"], "7": ["b"]}, {}),
    "excel.csv": ("image_id;caption\n7;a dog, out\n", {"7": ["a dog, out"]}, {}),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_programs(name, tmp_path):
    content, captions, file_names = OTHERS[name]
    (tmp_path / name).write_text(content, newline="", encoding="utf-8")
    found = read_references(tmp_path / name)
    assert found.captions == captions
    assert found.file_names == file_names
    first = {key: texts[0] for key, texts in captions.items()}
    assert read_results(tmp_path / name, take="first") == first


def test_an_entry_does_not_change_the_ids_of_all(tmp_path):
    path = tmp_path / "dataset_flickr8k.json"
    images = [
        {"filename": f"{place}.jpg", "imgid": place, "sentences": [{"raw": "a"}]}
        for place in range(3)
    ]
    images[0]["cocoid"] = 77
    path.write_text(json.dumps({"images": images}))
    assert list(read_references(path).captions) == ["0", "1", "2"]
    del images[2]["imgid"]
    path.write_text(json.dumps({"images": images}))
    with pytest.raises(UsageError, match=r'image 2 has filename, sentences; expected \{"imgid"'):
        read_references(path)


def test_the_broken_row_of_flickr30k_is_named(tmp_path, capsys):
    (tmp_path / "results.csv").write_text(
        "image_name| comment_number| comment\n"
        '1.jpg| 0| Two "young" guys , outside .\n'
        "1.jpg| 4   A dog runs across the grass .\n"
        "2.jpg| 0| A dog .\n"
    )
    found = read_references(tmp_path / "results.csv")
    assert found.captions == {"1.jpg": ['Two "young" guys , outside .'], "2.jpg": ["A dog ."]}
    logged = capsys.readouterr().err
    assert "left out 1 rows without 3 columns" in logged
    assert "line 3: 1.jpg| 4   A dog runs" in logged


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        # merged: imgid starts again
        (
            "k.json",
            json.dumps(
                {
                    "images": [
                        {
                            "filename": name,
                            "imgid": number,
                            "split": "train",
                            "sentences": [{"raw": "a"}],
                        }
                        for name, number in (("a.jpg", 0), ("b.jpg", 1), ("c.jpg", 0), ("d.jpg", 1))
                    ]
                }
            ),
            r"2 of 2 ids stand more than once, .* '0': a\.jpg and c\.jpg\..* remove \"imgid",
        ),
        (
            "k.json",
            json.dumps({"images": KARPATHY["images"][:1] * 2}),
            r"1 of 1 ids .* '7': val2014/COCO_val2014_0+7\.jpg and val2014/COCO_val2014_0+7\.jpg",
        ),
        (
            "c.json",
            '{"images": [{"id": 7, "file_name": "a.jpg"}, {"id": 8, "file_name": "b.jpg"}, '
            '{"id": 7, "file_name": "c.jpg"}], "annotations": [{"image_id": 7, "caption": "a"}]}',
            r"1 of 2 ids .* '7': a\.jpg and c\.jpg\. .* an id of its own",
        ),
        (
            "c.json",
            '{"images": [{"id": 7}, {"id": 7}], "annotations": [{"image_id": 7, "caption": "a"}]}',
            "'7': image 0 and image 1",
        ),
        ("a.token", "a.jpg#0\tA dog .\na.jpg#0\tA cat .", "'a.jpg': line 1 and line 2, number 0"),
        (
            "results.csv",
            "image_name| comment_number| comment\na.jpg| 0| A dog\na.jpg| 0| A cat\n",
            "'a.jpg': line 2 and line 3, number 0",
        ),
        ("a.json", '{"7": ["a"], "7.0": ["b"]}', "'7': id '7' and id '7.0'"),
        (
            "a.jsonl",
            '{"id": 7, "captions": ["a"]}\n{"id": 7, "captions": ["b"]}',
            "line 1 and line 2",
        ),
        (
            "a.jsonl",
            '{"image_id": 7, "file_name": "a.jpg", "text": "a"}\n'
            '{"image_id": 7, "file_name": "b.jpg", "text": "b"}',
            r"'7': a\.jpg and b\.jpg",
        ),
        (
            "t.json",
            '{"data": [{"image_id": "a", "reference_strs": ["x"]}, '
            '{"image_id": "a", "reference_strs": ["y"]}]}',
            "'a': entry 0 and entry 1",
        ),
    ],
)
def test_ids_of_several_images_are_refused(name, content, words, tmp_path):
    (tmp_path / name).write_text(content)
    for read in (read_references, read_results):
        with pytest.raises(UsageError, match=words):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "image_id,caption\n7,\"['a dog', 'one dog']\"\n", r"line 2: .*list.*explode"),
        ("a.csv", "image_id,caption\n7,\"['a dog'\n 'one dog']\"\n", "text of a list"),  # NumPy's
        ("a.csv", "filename,raw\na.jpg,\"[\"\"a dog\"\", \"\"a\"\"]\"\n", "columns filename, raw"),
        ("a.json", '{"7": "[\'a dog\']"}', "id '7': .*text of a list"),
        ("a.csv", "image_id,caption\n391895.5,a\n", r"the id is 391895\.5; .*Int64"),
        ("a.csv", "image_id,caption\nnan,a\n", "the id is nan; expected a whole"),
        ("a.csv", "image_id,caption\n,a\n", "the id is ''; expected a whole"),
        ("a.json", '[{"image_id": 1e300, "caption": "a"}]', r"the id is 1e\+300"),
        ("a.json", '[{"image_id": NaN, "caption": "a"}]', "the id is nan"),
        ("a.csv", "caption,id,caption\na,7,b\n", "names the columns caption, id, caption"),
        ("a.json", '{"annotations": [{"id": 7, "caption": "a"}]}', "annotation 0 has id, caption"),
        ("a.json", '{"images": [{"id": 7, "file_name": "a.jpg"}]}', "images, but no annotations"),
        ("a.txt", "a.jpg A dog", "the first line names the columns a.jpg a dog; expected image_id"),
        ("a.token", "a.jpg A dog", "line 1: 'a.jpg A dog' is not NAME#NUMBER, tab, caption"),
        ("a.json", '{"images": [{"filename": "a.jpg", "sentences": "a"}]}', "image 0: .*expected"),
    ],
)  # fmt: skip
def test_files_that_mean_something_else(name, content, words, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=words):
        read_references(tmp_path / name)


def test_the_first_of_several_captions(tmp_path, capsys):
    path = tmp_path / "beams.json"
    path.write_text(
        '[{"image_id": 7, "caption": "best"}, {"image_id": 8, "caption": "one"}, '
        '{"image_id": 7, "caption": "next"}]'
    )
    with pytest.raises(UsageError, match=r"the first is '7' with 2.* --take first takes"):
        read_results(path)
    assert read_results(path, take="first") == {"7": "best", "8": "one"}
    assert "1 of 2 ids have several captions, the first is taken" in capsys.readouterr().err
    with pytest.raises(UsageError, match="take is 'last'; expected 'first'"):
        read_results(path, take="last")
    path.write_text('{"7": []}')
    with pytest.raises(UsageError, match="'7' with 0"):
        read_results(path, take="first")
    for wrong in (["a"], None, {"7": "a"}):
        with pytest.raises(UsageError, match="named by a path, not by"):
            read_results(wrong)


def references(captions: dict, file_names: dict | None = None) -> CaptionFile:
    return CaptionFile("refs", {key: ["a"] for key in captions}, file_names or {})


@pytest.mark.parametrize(
    ("known", "file_names", "given", "expected"),
    [
        (["391895", "7"], {}, ["000000391895", "COCO_val2014_000000000007.jpg"], ["391895", "7"]),
        (["391895"], {}, ["val2014/COCO_val2014_000000391895.jpg"], ["391895"]),
        (["COCO_val2014_000000391895.jpg"], {}, ["391895"], ["COCO_val2014_000000391895.jpg"]),
        (["val2014/COCO_val2014_000000391895.jpg"], {}, ["coco_391895"],
         ["val2014/COCO_val2014_000000391895.jpg"]),
        (["a.jpg"], {}, ["images/a.png"], ["a.jpg"]),
        # ids that count the images: the name decides, also where it looks like another's id
        (["1", "2"], {"1": "0002.jpg", "2": "0005.jpg"}, ["0002.jpg", "x/0005.jpg"], ["1", "2"]),
        (["1", "2"], {"1": "b.jpg", "2": "a.jpg"}, ["a", "b"], ["2", "1"]),
        # what fits exactly stays; so does what nothing fits
        (["7", "007"], {}, ["7", "007", "x"], ["7", "007", "x"]),
    ],
)  # fmt: skip
def test_ids_that_are_written_otherwise(known, file_names, given, expected, capsys):
    matched = match_ids(references(known, file_names), {key: key for key in given}, "results.json")
    assert matched == dict(zip(expected, given, strict=True))
    count = sum(one != other for one, other in zip(given, expected, strict=True))
    logged = capsys.readouterr().err
    assert (f"results.json: {count} of {len(given)} ids are written otherwise" in logged) == (
        count > 0
    )


@pytest.mark.parametrize(
    ("known", "file_names", "given", "words"),
    [
        (["7", "007"], {}, ["0007"], "the id '0007' fits '007' and '7' of refs"),
        (["a/1.jpg", "b/1.jpg"], {}, ["1"], "fits 'a/1.jpg' and 'b/1.jpg'"),
        (["7"], {}, ["7", "007.jpg"], "the ids '7' and '007.jpg' are one image, '7'"),
        # 0002: the second image, or the image 0002.jpg?
        (["1", "2"], {"1": "0002.jpg", "2": "0005.jpg"}, ["0002"], "fits '1' and '2'"),
    ],
)
def test_ids_that_fit_several_images_are_refused(known, file_names, given, words):
    with pytest.raises(UsageError, match=words):
        match_ids(references(known, file_names), dict.fromkeys(given))


def test_wrong_types_are_refused_in_words():
    prepared = References({7: ["a dog"]})
    for call, words in (
        (lambda: References([["a dog"]]), r"the references are a list, .*expected \{id: \[caption"),
        (
            lambda: References({7: None}),
            "the references of id 7 are None; expected a list of texts",
        ),
        (lambda: References({7: 3}), "the references of id 7 are 3; expected a list of texts"),
        (lambda: score([["a dog"]], ["a dog"]), "the references are a list"),
        (lambda: score({7: ["a dog"]}, ["a dog"]), r"the captions are a list, .*\{id: caption\}"),
        (lambda: prepared.score(["a dog"]), "the captions are a list"),
        (lambda: ScoreAccumulator(prepared).add("a dog"), "the captions are a str"),
        (lambda: prepared.cider_d(7, "a dog"), "the ids are 7; expected a list"),
        (lambda: prepared.cider_d([7], "a dog"), "the captions are 'a dog'; expected a list"),
        (
            lambda: prepared.cider_d([[7]], ["a dog"]),
            r"an id is \[7\]; expected a number or a text",
        ),
    ):
        with pytest.raises(UsageError, match=words):
            call()
