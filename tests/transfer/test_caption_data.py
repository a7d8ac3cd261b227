"""Layouts on disk, vocabulary, and the cache of features."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.training import make_fabric
from transfer.captioning.check import check_coco
from transfer.captioning.config import CaptioningConfig, DatasetConfig
from transfer.captioning.dataset import (
    CaptionedImage,
    choose_splits,
    coco_splits,
    open_captions,
    read_coco,
    split_by_hash,
)
from transfer.captioning.scores import tokenize
from transfer.captioning.setup import build
from transfer.captioning.vocabulary import (
    END,
    PAD,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    tokenize_captions,
)
from transfer.feature_cache import Encoder, FeatureCache, with_image_size


def test_reads_what_is_on_disk(worlds):
    tree = worlds["captions"]
    assert choose_splits(tree, coco_splits(tree), DatasetConfig()) == ("train2017", "val2017")
    dataset = open_captions(tree, DatasetConfig())
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (12, 6, 0)
    assert all(len(image.captions) == 5 and image.path.exists() for image in dataset.train)


def test_real_coco(unpacked):
    dataset = open_captions(unpacked("data/coco-mini.tar") / "coco-mini", DatasetConfig())
    assert (len(dataset.train), len(dataset.val)) == (80, 79)


def test_real_captions_become_the_numbers_of_their_words(shared):
    import gzip

    path = shared / "data" / "captions_val2017.json.gz"
    content = json.loads(gzip.decompress(path.read_bytes()))
    captions = [entry["caption"] for entry in content["annotations"][:4000]]
    tokenized = tokenize_captions(captions)
    vocabulary = build_vocabulary(tokenized, 5)
    rows = vocabulary.encode(tokenized, 12)
    for row, caption in zip(rows.tolist(), captions, strict=True):
        words = " ".join(tokenize(caption)).split()[:12]
        numbers = [vocabulary.numbers.get(word, UNKNOWN) for word in words]
        assert row == [*numbers, END, *[PAD] * (12 - len(words))]


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("no tree", "there is no folder"),
        ("no annotations", "no captions that are known .it holds train2017"),
        ("no split", r"no file .*captions_night\.json; the splits there are train2017, val2017"),
        ("two splits", r"2 captions files .*--dataset\.train SPLIT"),
        ("broken json", "is no JSON: .*cut short"),
        ("other json", "no COCO captions file; expected"),
        ("no captions", "no image with a caption"),
        ("no image", r"1 of 12 images .*000000000001\.jpg\. .*--dataset\.max_corrupt 1"),
        ("no images", "12 of 12 images .* are not there"),
        ("same split", "are not different ones"),
        ("captions alone", r"6 of 6 images .*val2017/000001000001\.jpg"),
        ("empty val", r"captions_val2017\.json has no image with a caption"),
    ],
)
def test_trees_as_users_give_them(trouble, words, worlds, tmp_path):
    tree, options = tmp_path / "tree", DatasetConfig()
    if trouble != "no tree":
        shutil.copytree(worlds["captions"], tree)
    file = tree / "annotations" / "captions_train2017.json"
    if trouble == "no annotations":
        shutil.rmtree(tree / "annotations")
    if trouble == "captions alone":
        shutil.rmtree(tree / "val2017")
    if trouble == "empty val":
        (tree / "annotations" / "captions_val2017.json").write_text(
            json.dumps({"images": [], "annotations": []})
        )
    if trouble == "no split":
        options = DatasetConfig(train="night")
    if trouble == "same split":
        options = DatasetConfig(train="val2017")
    if trouble == "two splits":
        shutil.copy(file, tree / "annotations" / "captions_train2014.json")
    if trouble == "broken json":
        file.write_text(file.read_text()[:100])
    if trouble == "other json":
        file.write_text("[]")
    if trouble == "no captions":
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    if trouble == "no image":
        (tree / "train2017" / "000000000001.jpg").unlink()
    if trouble == "no images":
        shutil.rmtree(tree / "train2017")
    with pytest.raises(UsageError, match=words):
        open_captions(tree, options)


def test_bad_entries_are_named_and_counted(worlds, tmp_path, capsys):
    tree = tmp_path / "tree"
    shutil.copytree(worlds["captions"], tree)
    file = tree / "annotations" / "captions_train2017.json"
    content = json.loads(file.read_text())
    content["annotations"] += [
        {"image_id": 1, "caption": "  "},
        {"image_id": 2, "caption": None},
        {"image_id": 99, "caption": "a"},
        {"caption": "a"},
        {"image_id": 1},
        "nothing",
    ]
    content["images"] += [{"id": 77, "file_name": "x.jpg"}, {"id": 78}]
    file.write_text(json.dumps(content))
    (tree / "train2017" / "000000000004.jpg").unlink()
    images = read_coco(tree, "train2017", max_corrupt=1)
    assert len(images) == 11
    assert sum(len(image.captions) for image in images) == 55
    logged = capsys.readouterr().err
    assert "left out 2 captions that are empty or no text, the first is \"image 1: '  '\"" in logged
    assert "left out 1 annotations of images that are not listed" in logged
    # three annotations, and the image without a name
    assert "left out 4 entries that make no sense, the first is 'annotation 63 has cap" in logged
    assert "left out 1 images without captions, the first is 77" in logged
    assert "left out 1 images whose file is missing" in logged


def test_karpathy_s_split_of_either_year(worlds, tmp_path):
    source = read_coco(worlds["captions"], "train2017")
    for folder, year in (("a", 2014), ("b", 2017)):
        entries = []
        for index, image in enumerate(source):
            split = ("train", "restval", "val", "test")[index % 4]
            old = f"COCO_val2014_{image.path.name}"
            target = f"val2014/{old}" if year == 2014 else f"val2017/{image.path.name}"
            (tmp_path / folder / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image.path, tmp_path / folder / target)
            sentences = [{"raw": text} for text in image.captions]
            entries.append({"filepath": "val2014", "filename": old, "split": split,
                            "cocoid": image.image_id, "sentences": sentences})  # fmt: skip
        path = tmp_path / folder / "dataset_coco.json"
        path.write_text(json.dumps({"dataset": "coco", "images": entries}))
        dataset = open_captions(tmp_path / folder, DatasetConfig())
        assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (6, 3, 3)
        assert dataset.train[1].captions == source[1].captions
        assert dataset.test[0].image_id == source[3].image_id


def test_flickr_s_tokens_and_lists(worlds, tmp_path, capsys):
    folder = tmp_path / "Flicker8k_Dataset"
    shutil.copytree(worlds["captions"] / "train2017", folder)
    names = sorted(path.name for path in folder.iterdir())
    lines = [f"{name}#{index}\tA dog {index}." for name in names for index in range(5)]
    (tmp_path / "Flickr8k.token.txt").write_text("\n".join([*lines, "no tab"]))
    (tmp_path / "Flickr8k.lemma.token.txt").write_text("other")
    for word, chosen in (("train", names[:6]), ("dev", names[6:9]), ("test", names[9:])):
        text = "\n".join([*chosen, "gone.jpg"] if word == "test" else chosen)
        (tmp_path / f"Flickr_8k.{word}Images.txt").write_text(text)
    dataset = open_captions(tmp_path, DatasetConfig())
    assert [len(part) for part in (dataset.train, dataset.val, dataset.test)] == [6, 3, 3]
    assert dataset.train[0].captions == tuple(f"A dog {index}." for index in range(5))
    logged = capsys.readouterr().err
    (tmp_path / "Flickr_8k.devImages.txt").write_text("")
    with pytest.raises(UsageError, match="the val split is empty"):
        open_captions(tmp_path, DatasetConfig())
    assert "left out 1 entries that make no sense, the first is \"line 61: 'no tab'" in logged
    assert "1 names without an image or captions, the first is 'gone.jpg'" in logged


def test_a_folder_with_captions_is_cut_by_name(worlds, tmp_path):
    shutil.copytree(worlds["captions"] / "train2017", tmp_path / "images")
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    (tmp_path / "captions.json").write_text(json.dumps({name: ["a dog"] for name in names}))
    dataset = open_captions(tmp_path, DatasetConfig(val_fraction=0.4))
    val = {image.image_id for image in dataset.val}
    assert len(dataset.train) + len(dataset.val) == 12
    assert dataset.val
    # fewer images: the same ones are held out
    (tmp_path / "captions.json").write_text(json.dumps({name: ["a dog"] for name in names[1:]}))
    again = open_captions(tmp_path, DatasetConfig(val_fraction=0.4))
    assert {image.image_id for image in again.val} == val - {names[0]}
    with pytest.raises(UsageError, match=r"held out by --dataset\.val_fraction 1e-06"):
        open_captions(tmp_path, DatasetConfig(val_fraction=1e-6))


# ------------------------------------------------------------------- as other programs write them


def paint(path, shade: int) -> None:
    """An image of one shade: files of two shades differ."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (shade, shade, shade)).save(path, "JPEG")


def write_json(path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def coco(ids, names=None) -> dict:
    names = names or [f"{number:012}.jpg" for number in ids]
    return {
        "images": [{"id": i, "file_name": n} for i, n in zip(ids, names, strict=True)],
        "annotations": [{"image_id": number, "caption": f"image {number}"} for number in ids],
    }


def karpathy(names, splits, key="imgid", ids=None) -> dict:
    ids = ids or range(len(names))
    return {"images": [
        {"filename": name, "split": split, key: number, "sentences": [{"raw": f"in {name}"}]}
        for name, split, number in zip(names, splits, ids, strict=True)
    ]}  # fmt: skip


def read(part) -> dict:
    """What was read: the file of each image, and its captions."""
    return {image.path.name: image.captions for image in part}


def test_merged_files_are_refused(tmp_path):
    for number, name in enumerate("abcd"):
        paint(tmp_path / f"{name}.jpg", 50 * number)
    merged = karpathy(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], ["train", "val"] * 2, ids=[0, 1, 0, 1])
    write_json(tmp_path / "dataset_both.json", merged)
    with pytest.raises(UsageError, match=r"2 of 2 ids .* '0': a\.jpg and c\.jpg.*remove \"imgid\""):
        open_captions(tmp_path, DatasetConfig())
    for entry in merged["images"]:  # the remedy
        del entry["imgid"]
    write_json(tmp_path / "dataset_both.json", merged)
    dataset = open_captions(tmp_path, DatasetConfig())
    assert read(dataset.train) == {"a.jpg": ("in a.jpg",), "c.jpg": ("in c.jpg",)}
    (tmp_path / "dataset_both.json").unlink()
    write_json(tmp_path / "annotations" / "captions_train.json", coco([1, 2], ["a.jpg", "b.jpg"]))
    write_json(tmp_path / "annotations" / "captions_val.json", coco([1, 1], ["c.jpg", "d.jpg"]))
    words = r"captions_val\.json: 1 of 1 ids stand more than once, .* '1': c\.jpg and d\.jpg"
    with pytest.raises(UsageError, match=words):
        open_captions(tmp_path, DatasetConfig())
    assert "ids stand more than once" in "".join(line.text for line in check_coco(tmp_path, 0))
    write_json(tmp_path / "annotations" / "captions_val.json", coco([3, 4], ["c.jpg", "c.jpg"]))
    with pytest.raises(UsageError, match=r"the images 3 and 4 are one file, .*c\.jpg"):
        open_captions(tmp_path, DatasetConfig())


def test_images_that_are_trained_on_and_scored_are_said(backbone, tmp_path):
    train = [9, 25, 30, 391895]
    write_json(tmp_path / "annotations" / "captions_train2017.json", coco(train))
    old = [f"COCO_val2014_{number:012}.jpg" for number in (30, 391895)]
    write_json(tmp_path / "annotations" / "captions_val2014.json", coco([30, 391895], old))
    for number in train:
        paint(tmp_path / "train2017" / f"{number:012}.jpg", number % 200)
    for number, name in zip((30, 391895), old, strict=True):
        paint(tmp_path / "val2014" / name, number % 100 + 100)  # another file: the number decides
    (note,) = open_captions(tmp_path, DatasetConfig()).notes
    assert "val: 2 of 2 images are trained on, the first is " in note
    assert "val2014/COCO_val2014_000000000030.jpg (id 30; in train " in note
    options = DatasetConfig(min_count=1)
    setup = build(backbone, CaptioningConfig(data=str(tmp_path), dataset=options, batch_size=2))
    assert note in setup.notes  # of the dry run, the log and the result
    notes = [line.text for line in check_coco(tmp_path, 0) if line.state == "note"]
    assert "train2017 and val2014: 2 of 2 images are trained on" in notes[0]
    # with ids of their own, by the names alone
    write_json(tmp_path / "annotations" / "captions_val2014.json", coco([1, 2], old))
    (note,) = open_captions(tmp_path, DatasetConfig()).notes
    assert "2 of 2 images are trained on" in note
    # a release beside itself
    write_json(tmp_path / "annotations" / "captions_val2014.json", coco([7, 8]))
    paint(tmp_path / "val2014" / "000000000007.jpg", 9)
    paint(tmp_path / "val2014" / "000000000008.jpg", 9)
    assert open_captions(tmp_path, DatasetConfig()).notes == ()


def test_an_image_in_two_splits_of_karpathy_s(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        paint(tmp_path / f"{name}.jpg", 50 * number)
    content = karpathy(["a.jpg", "b.jpg", "c.jpg"], ["train", "val", "test"])
    content["images"].append({**content["images"][0], "split": "test"})
    write_json(tmp_path / "dataset_x.json", content)
    dataset = open_captions(tmp_path, DatasetConfig())
    assert read(dataset.test) == {"a.jpg": ("in a.jpg",), "c.jpg": ("in c.jpg",)}
    assert ["x, test: 1 of 2 images are trained on" in note for note in dataset.notes] == [True]
    (file,) = [line.text for line in check_coco(tmp_path, 0) if line.state == "note"]
    assert "1 of 2 images are trained on" in file


def test_numbers_that_start_again_in_each_split_are_other_images(tmp_path):
    for split, shade in (("train", 10), ("val", 90)):
        names = ["0001.jpg", "0002.jpg"]
        write_json(tmp_path / "annotations" / f"captions_{split}.json", coco([1, 2], names))
        for number, name in enumerate(names):
            paint(tmp_path / split / name, shade + 40 * number)
    (note,) = open_captions(tmp_path, DatasetConfig()).notes
    assert "val: 2 of 2 images share an id or a name with another picture" in note
    shutil.copy(tmp_path / "train" / "0001.jpg", tmp_path / "val" / "0002.jpg")
    shared = open_captions(tmp_path, DatasetConfig()).notes
    assert "share an id or a name" in shared[0]  # id and name are another's
    shutil.copy(tmp_path / "train" / "0002.jpg", tmp_path / "val" / "0002.jpg")
    trained, other = open_captions(tmp_path, DatasetConfig()).notes
    assert "1 of 2 images are trained on" in trained
    assert "1 of 2 images share an id" in other


HF = '{{"file_name": "{0}.jpg", "text": "in {0}.jpg"}}\n'
ROWS = {
    "captions.txt": ("image,caption\n", "{0}.jpg,in {0}.jpg\n"),
    "results.csv": ("image_name| comment_number| comment\n", "{0}.jpg| 0| in {0}.jpg\n"),
    "metadata.jsonl": ("", HF),
    "metadata.csv": ("file_name,text\n", "{0}.jpg,in {0}.jpg\n"),
    "results_20130124.token": ("", "{0}.jpg#0\tin {0}.jpg\n"),
    "data.csv": ("id,image,caption\n", "5,{0}.jpg,in {0}.jpg\n"),
}


@pytest.mark.parametrize("inside", ["", "Images", "flickr30k_images", "elsewhere"])
@pytest.mark.parametrize("name", ROWS)
def test_one_file_of_another_program(name, inside, tmp_path):
    letters = "abcdefgh"
    folder = tmp_path / inside if inside == "elsewhere" else tmp_path / "data" / inside
    for number, letter in enumerate(letters):
        paint(folder / f"{letter}.jpg", 20 * number)
    head, row = ROWS[name]
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / name).write_text(head + "".join(map(row.format, letters)))
    config = DatasetConfig(val_fraction=0.4)
    if inside == "elsewhere":
        with pytest.raises(UsageError, match=r"8 of 8 images .* by --dataset\.images DIR"):
            open_captions(tmp_path / "data", config)
        config = replace(config, images=str(folder))
    dataset = open_captions(tmp_path / "data", config)
    everything = read((*dataset.train, *dataset.val))
    assert everything == {f"{letter}.jpg": (f"in {letter}.jpg",) for letter in letters}
    assert {image.path.parent for image in dataset.train} == {folder}


@pytest.mark.parametrize(
    ("files", "splits"),
    [
        # Hugging Face: a file a split, or one whose names begin with it
        ({f"{split}/metadata.jsonl": HF.format(name) for split, name in
          (("train", "a"), ("validation", "b"), ("test", "c"))}, "a/b/c"),
        ({"metadata.jsonl": "".join(HF.format(name).replace(": \"", f": \"{split}/", 1)
          for split, name in (("train", "a"), ("validation", "b"), ("test", "c")))}, "a/b/c"),
        ({"metadata.jsonl": "".join(HF.format(name).replace(": \"", f": \"{split}/", 1)
          for split, name in (("train", "a"), ("test", "c")))}, "a/c/"),
        # LAVIS
        ({f"annotations/coco_karpathy_{split}.json": json.dumps(
            [{"image": f"coco/images/x/{name}.jpg", "caption": f"in {name}.jpg",
              "image_id": f"coco_{number}"}])
          for number, (split, name) in enumerate((("train", "a"), ("val", "b"), ("test", "c")))},
         "a/b/c"),
        # TextCaps
        ({f"TextCaps_0.1_{split}.json": json.dumps({"data": [
            {"image_id": name, "image_path": f"train/{name}.jpg", "set_name": split,
             "caption_str": f"in {name}.jpg", "reference_strs": [f"in {name}.jpg"]}]})
          for split, name in (("train", "a"), ("val", "b"))}, "a/b/"),
        ({"data.csv": "id,image,split,caption\n0,a.jpg,train,in a.jpg\n1,b.jpg,dev,in b.jpg\n"},
         "a/b/"),
    ],
    ids=["hf folders", "hf names", "hf train and test", "lavis", "textcaps", "column"],
)  # fmt: skip
def test_splits_that_the_files_say(files, splits, tmp_path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    hf = {"a": "train", "b": "validation", "c": "test"}
    for number, name in enumerate("abc"):
        folder = {"T": "train_images", "m": hf[name], "t": hf[name], "v": hf[name]}
        start = next(iter(files))[0]
        paint(tmp_path / folder.get(start, "images/x" if start == "a" else "") / f"{name}.jpg",
              50 * number)  # fmt: skip
    dataset = open_captions(tmp_path, DatasetConfig())
    for part, names in zip(
        (dataset.train, dataset.val, dataset.test), splits.split("/"), strict=True
    ):
        assert read(part) == {f"{name}.jpg": (f"in {name}.jpg",) for name in names}
    has_note = any("no validation split" in note for note in dataset.notes)
    assert has_note == (splits == "a/c/")


def test_lavis_and_coco_in_a_folder_elsewhere(tmp_path):
    old = [f"COCO_val2014_{number:012}.jpg" for number in (7, 8)]
    for split, name in zip(("train", "val"), old, strict=True):
        entry = {"image": f"val2014/{name}", "caption": [f"in {name}"]}
        write_json(tmp_path / "lavis" / f"coco_karpathy_{split}.json", [entry])
    for number in (7, 8):  # the images of 2017
        paint(tmp_path / "pictures" / "val2017" / f"{number:012}.jpg", number)
    config = DatasetConfig(images=str(tmp_path / "pictures"))
    dataset = open_captions(tmp_path / "lavis", config)
    assert read(dataset.train) == {"000000000007.jpg": (f"in {old[0]}",)}
    assert read(dataset.val) == {"000000000008.jpg": (f"in {old[1]}",)}
    for split, number in (("train2017", 7), ("val2017", 8)):
        file = tmp_path / "coco" / "annotations" / f"captions_{split}.json"
        write_json(file, coco([number]))
    paint(tmp_path / "pictures" / "train2017" / "000000000007.jpg", 7)
    dataset = open_captions(tmp_path / "coco", config)
    assert read(dataset.val) == {"000000000008.jpg": ("image 8",)}
    with pytest.raises(UsageError, match=r"there is no folder nowhere, which --dataset\.images"):
        open_captions(tmp_path / "coco", DatasetConfig(images="nowhere"))


def test_files_that_leave_a_choice_are_refused(tmp_path):
    paint(tmp_path / "a.jpg", 1)
    for name in ("dataset_coco.json", "dataset_flickr8k.json"):
        write_json(tmp_path / name, karpathy(["a.jpg"], ["train"]))
    words = r"dataset_coco\.json, dataset_flickr8k\.json; name one by --dataset\.splits FILE"
    with pytest.raises(UsageError, match=words):
        open_captions(tmp_path, DatasetConfig())
    for name in ("captions.json", "captions.csv"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match=r"2 files of captions, captions\.csv, captions\.json;"):
        open_captions(tmp_path, DatasetConfig(layout="folder"))
    (tmp_path / "a.token").write_text("a.jpg#0\ta dog")
    (tmp_path / "b.trainImages.txt").write_text("a.jpg\na.jpg\n")
    with pytest.raises(UsageError, match=r"has b\.trainImages\.txt, but no \*devImages\.txt; add"):
        open_captions(tmp_path, DatasetConfig(layout="flickr"))
    (tmp_path / "b.devImages.txt").write_text("a.jpg\n")
    with pytest.raises(UsageError, match=r"b\.trainImages\.txt: 'a\.jpg' stands 2 times"):
        open_captions(tmp_path, DatasetConfig(layout="flickr"))


def test_the_text_of_a_list_is_no_caption(tmp_path):
    paint(tmp_path / "a.jpg", 1)
    (tmp_path / "captions.csv").write_text("image,caption\na.jpg,\"['a dog', 'one dog']\"\n")
    with pytest.raises(UsageError, match=r"captions\.csv, line 2: .*the text of a list"):
        open_captions(tmp_path, DatasetConfig())


def test_wrong_types_are_refused_in_words(tmp_path):
    for root in (["a.jpg"], None, {"a.jpg": "a dog"}):
        with pytest.raises(UsageError, match="opened by the path of its folder; this is a"):
            open_captions(root, DatasetConfig())
    with pytest.raises(UsageError, match="expected a DatasetConfig; this is a dict"):
        open_captions(tmp_path, {"layout": "coco"})


def test_the_share_held_out_is_the_one_asked_for():
    images = tuple(CaptionedImage(number, Path("x.jpg"), ("a",)) for number in range(4000))
    assert 920 < len(split_by_hash("x", images, 0.25).val) < 1080  # three deviations


def test_vocabulary_counts_and_comes_back():
    tokenized = tokenize_captions(["A cat sat.", "a cat", "the cat"])
    vocabulary = build_vocabulary(tokenized, min_count=2)
    assert vocabulary.words == ("<pad>", "<start>", "<end>", "<unk>", "cat", "a")
    rows = vocabulary.encode(tokenize_captions(["The cat, a cat!", "", "a"]), 3)
    assert rows.tolist() == [[UNKNOWN, 4, 5, END], [END, PAD, PAD, PAD], [5, END, PAD, PAD]]
    assert vocabulary.decode([5, 4, END, 4, PAD]) == "a cat"
    with pytest.raises(UsageError, match="no word stands 9 times"):
        build_vocabulary(tokenize_captions(["a"]), min_count=9)
    with pytest.raises(UsageError, match="no vocabulary of a captioner"):
        Vocabulary(("a", "b"))


# ---------------------------------------------------------------------------------------- features


@pytest.fixture
def pictures(worlds, tmp_path):
    shutil.copytree(worlds["captions"] / "train2017", tmp_path / "pictures")
    return sorted((tmp_path / "pictures").iterdir())


def features(backbone, paths, root, view="pooled", workers=0):
    cache = FeatureCache(root / "cache", backbone, view)
    return cache, cache.features(paths, make_fabric("cpu"), workers=workers, batch_size=5)


@pytest.fixture
def encoded(monkeypatch):
    """How many images each call has encoded."""
    counts = []
    real = FeatureCache._encode

    def counting(self, encoder, paths, *rest):
        counts.append(len(paths))
        return real(self, encoder, paths, *rest)

    monkeypatch.setattr(FeatureCache, "_encode", counting)
    return counts


def test_features_are_those_of_the_backbone(backbone, pictures, tmp_path):
    from pretrain.images import decode

    images = torch.stack([backbone.preprocess()(decode(path)) for path in pictures])
    level = backbone.features(images)[-1]
    _, pooled = features(backbone, pictures, tmp_path, workers=1)
    everything = np.arange(len(pictures))
    torch.testing.assert_close(pooled.select(everything), level.mean((2, 3)))
    _, grid = features(backbone, pictures, tmp_path, "grid")
    expected = level.flatten(2).transpose(1, 2)
    torch.testing.assert_close(grid.select(everything), expected, atol=1e-3, rtol=1e-3)
    encoder = Encoder(backbone, "grid")
    assert grid.select(everything).shape == (12, *encoder.feature_shape(backbone))
    assert not any(module.training for module in encoder.train().modules())  # statistics stay


def test_what_changes_is_encoded_again_and_nothing_else(backbone, pictures, tmp_path, encoded):
    _, first = features(backbone, pictures[:8], tmp_path)
    features(backbone, pictures[:8], tmp_path)
    _, more = features(backbone, pictures, tmp_path)
    assert encoded == [8, 4]
    assert torch.equal(first.select(np.arange(8)), more.select(np.arange(8)))
    before = more.select(np.arange(12))
    shutil.copy(pictures[0], pictures[1])  # the content of another: its row is there already
    _, changed = features(backbone, pictures, tmp_path)
    assert encoded == [8, 4]
    assert torch.equal(changed.select(np.array([1])), before[:1])
    features(with_image_size(backbone, 96), pictures, tmp_path)
    features(backbone, pictures, tmp_path, "grid")
    assert encoded == [8, 4, 11, 11]
    assert torch.equal(
        features(backbone, pictures, tmp_path)[1].select(np.arange(12)),
        changed.select(np.arange(12)),
    )
    # one weight moved: another backbone, which finds nothing of the first's
    weights = {name: tensor.clone() for name, tensor in backbone.weights.items()}
    weights["conv1.0.weight"][0, 0, 0, 0] += 1.0
    other = Backbone(spec=backbone.spec, provenance=backbone.provenance, weights=weights)
    _, theirs = features(other, pictures, tmp_path)
    assert encoded == [8, 4, 11, 11, 11]
    assert not torch.equal(theirs.select(np.arange(12)), changed.select(np.arange(12)))
    features(backbone, pictures, tmp_path)  # and the first's are still there
    assert encoded == [8, 4, 11, 11, 11]


def test_what_is_encoded_before_a_stop_is_kept(backbone, pictures, tmp_path, encoded, monkeypatch):
    calls = []
    real = Encoder.forward

    def stopping(self, images):
        calls.append(len(images))
        if calls == [1, 5, 5]:  # the first tells the shape
            raise KeyboardInterrupt
        return real(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(Encoder, "forward", stopping)
        with pytest.raises(KeyboardInterrupt):
            features(backbone, pictures, tmp_path)
    _, cached = features(backbone, pictures, tmp_path)
    assert encoded == [12, 7]
    _, alone = features(backbone, pictures, tmp_path / "other")
    torch.testing.assert_close(cached.select(np.arange(12)), alone.select(np.arange(12)))


def test_a_cache_cut_short_is_told_and_mended(backbone, pictures, tmp_path, encoded, capsys):
    cache, first = features(backbone, pictures, tmp_path)
    expected = first.select(np.arange(12)).clone()
    size = cache._rows.stat().st_size
    with open(cache._rows, "r+b") as handle:
        handle.truncate(size // 2 + 7)
    _, again = features(backbone, pictures, tmp_path)
    assert "cut short: 6 of 12 rows are gone" in capsys.readouterr().err
    torch.testing.assert_close(again.select(np.arange(12)), expected)
    assert encoded == [12, 6]
    # a kill between rows and index: rows that no entry promises
    with open(cache._rows, "ab") as handle:
        handle.write(b"x" * 999)
    _, again = features(backbone, pictures, tmp_path)
    torch.testing.assert_close(again.select(np.arange(12)), expected)
    assert encoded == [12, 6]
    (cache.folder / "meta.json").write_text("{")
    features(backbone, pictures, tmp_path)
    assert "is damaged (meta.json)" in capsys.readouterr().err
    assert encoded == [12, 6, 12]


def test_a_broken_image_in_the_middle_keeps_the_others(backbone, pictures, tmp_path, encoded):
    pictures[5].write_bytes(b"no picture")
    pictures[7].unlink()
    _, cached = features(backbone, pictures, tmp_path)
    assert sorted(cached.corrupt) == [5, 7]
    assert (cached.row_of < 0).nonzero()[0].tolist() == [5, 7]
    features(backbone, pictures, tmp_path)
    assert encoded == [11, 1]  # only what cannot be read is tried again


def test_features_do_not_depend_on_what_is_encoded_beside_them(
    backbone, pictures, tmp_path, monkeypatch
):
    sizes, forward = [], Encoder.forward

    def counted(self, images):
        sizes.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Encoder, "forward", counted)
    _, whole = features(backbone, pictures, tmp_path / "whole")
    for part in (pictures[:3], pictures[:8], pictures):
        _, pieces = features(backbone, part, tmp_path / "pieces")
    assert np.array_equal(whole.rows[whole.row_of], pieces.rows[pieces.row_of])
    # the last bits depend on the size of a batch, though not on every machine
    assert set(sizes) == {1, 5}  # 1: the shape of a row
