"""Trees of images and masks as programs write them: the right classes, or refused with a remedy."""

import os
import shutil
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from torchvision.datasets import VOCSegmentation

from pretrain.errors import UsageError
from tools import prepare_data
from transfer.segmentation import classes, voc
from transfer.segmentation.check import check_masks
from transfer.segmentation.config import VOID, DatasetConfig
from transfer.segmentation.data import choose_splits, open_data
from transfer.segmentation.masks import Coding, read_mask
from transfer.segmentation.records import SegmentationData
from transfer.segmentation.setup import check_scored

SIZE = (9, 6)  # width, height
VALUES = np.arange(54, dtype=np.uint8).reshape(6, 9) % 3
PALETTE = [(0, 0, 0), (0, 128, 0), (128, 0, 0)]
BINARY = {"values": (0, 255), "void": None, "classes": ("background", "object")}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def save_image(path: Path, size: tuple[int, int] = SIZE, orientation: int = 1, seed: int = 0):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([seed, *path.name.encode()]).integers(0, 256, (*size[::-1], 3))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)


def save_mask(path: Path, values: np.ndarray = VALUES, mode: str = "L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "P":
        image = Image.fromarray(values.astype(np.uint8))
        image.putpalette([channel for color in PALETTE for channel in color])
    else:
        image = Image.fromarray(values)
    image.save(path)


def tree(
    root: Path,
    names: Sequence[str] = ("images/train/a", "images/train/b", "images/val/c"),
    values: np.ndarray = VALUES,
    **masks: np.ndarray,
) -> Path:
    """Images in folders, their masks where `images` reads masks; masks given by last name."""
    for name in names:
        save_image(root / f"{name}.png")
        path = root / f"{name.replace('images', 'masks')}.png"
        save_mask(path, masks.get(path.stem, values))
    return root


def opened(root: Path, **changes: Any) -> SegmentationData:
    return open_data(root, DatasetConfig(**changes))


def refused(root: Path, match: str, **changes: Any) -> None:
    with pytest.raises(UsageError, match=f"(?s){match}"):
        opened(root, **changes)


def ids(data: SegmentationData) -> tuple[list[str], list[str]]:
    return [one.image_id for one in data.train], [one.image_id for one in data.val]


# ------------------------------------------------------------------------------------------- masks


def png_of_4_bits(path: Path, values: np.ndarray) -> None:
    """Grey of 4 bits, which Pillow does not write: by hand."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width = values.shape
    padded = np.pad(values, ((0, 0), (0, width % 2)))
    rows = padded[:, ::2] << 4 | padded[:, 1::2]
    lines = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, 4, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize(
    ("mode", "ending"),
    [
        *(("L", "png"), ("L", "tif"), ("L", "bmp"), ("P", "png"), ("P", "bmp"), ("4 bits", "png")),
        *(("16 bits", "png"), ("16 bits", "tif"), ("32 bits", "tif"), ("gray RGB", "png")),
    ],
)
def test_every_kind_of_mask_is_its_numbers(mode, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    types = {"16 bits": np.uint16, "32 bits": np.int32}
    if mode == "4 bits":
        png_of_4_bits(path, VALUES)
    elif mode == "gray RGB":
        save_mask(path, np.repeat(VALUES[..., None], 3, 2))
    else:
        save_mask(path, VALUES.astype(types.get(mode, np.uint8)), mode)
    mask = read_mask(path, Coding((0, 1, 2)))
    assert mask.dtype == torch.uint8
    assert np.array_equal(mask, VALUES)


def test_black_and_white_is_0_and_1(tmp_path):
    Image.fromarray(VALUES == 1).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(tmp_path / "a.png", Coding((0, 1))), VALUES == 1)


def test_values_are_mapped_and_void_is_kept(tmp_path):
    wide = np.array([[0, 7, 255], [40_000, 40_000, 7]], np.uint16)
    save_mask(tmp_path / "a.png", wide)
    mask = read_mask(tmp_path / "a.png", Coding((7, 40_000), (255, 0)))
    assert mask.tolist() == [[VOID, 0, VOID], [1, 1, 0]]
    all_255 = read_mask(tmp_path / "a.png", Coding((0, 7, 40_000, 255), ()))
    assert all_255.tolist() == [[0, 1, 3], [2, 2, 1]]


@pytest.mark.parametrize(
    ("ending", "pixels", "match"),
    [
        ("jpg", VALUES, "is a JPEG, which changes the values"),
        ("webp", np.repeat(VALUES[..., None], 3, 2), "is a WEBP"),
        ("png", np.stack([VALUES, VALUES, 2 * VALUES], 2), "is in colour.*labelmap.txt"),
        (
            "png",
            5 * VALUES,
            r"values that no class has: (5|10) \(18 pixels\), (5|10) \(18 pixels\)",
        ),
        ("tif", VALUES.astype(np.float32), "the mode F"),
        ("tif", VALUES.astype(np.int32) - 1, "values from -1 to 1"),
        ("png", None, "cannot be decoded"),
    ],
)
def test_masks_that_are_refused(ending, pixels, match, tmp_path):
    path = tmp_path / f"a.{ending}"
    if pixels is None:
        path.write_bytes(b"no picture")
    else:
        save_mask(path, pixels)
    with pytest.raises(UsageError, match=f"mask .*{path.name} .*{match}"):
        read_mask(path, Coding((0, 1, 2)))
    with pytest.raises(UsageError, match="there is no mask"):
        read_mask(tmp_path / "b.png", Coding((0, 1, 2)))


def test_a_value_without_a_class_is_refused_before_training_and_has_its_remedies(tmp_path):
    root = tree(tmp_path, a=VALUES + 1)
    match = r"a\.png has values that no class has: 3 \(18 pixels\); the classes have 0 to 2"
    refused(root, match, classes=("x", "y", "z"))
    assert len(opened(root, classes=("x", "y", "z", "w")).train) == 2
    assert len(opened(root, classes=("x", "y", "z"), void=3).train) == 2
    assert len(opened(root, classes=("x", "y", "z"), max_corrupt=1).train) == 2  # the loader's
    late = opened(tree(tmp_path / "late", c=VALUES + 1), classes=("x", "y", "z"))
    with pytest.raises(UsageError, match=r"c\.png has values that no class has: 3"):
        check_scored(late.val, max_corrupt=0)
    check_scored(late.val, max_corrupt=1)


# ------------------------------------------------------------------------------------------ binary


@pytest.mark.parametrize("given", [{}, {"classes": ("background", "object")}])
def test_a_binary_mask_is_refused_with_options_that_work(given, tmp_path, capsys):
    root = tree(tmp_path, values=(VALUES > 1).astype(np.uint8) * 255)
    refused(root, r"hold 0 and 255 alone, and 255 is void", **given)
    with pytest.raises(UsageError) as error:
        opened(root, **given)
    words = str(error.value).partition(" give ")[2].rstrip(".").split()
    with pytest.raises(SystemExit) as ended:
        prepare_data.main(["masks", "--check", str(root), *words])
    assert ended.value.code == 0
    assert "66.7% background, 33.3% object" in capsys.readouterr().out
    data = opened(root, **BINARY)
    assert np.array_equal(data.train[0].read_mask(), VALUES > 1)


def test_masks_with_one_class_are_refused_wherever_the_second_may_be(tmp_path, monkeypatch):
    monkeypatch.setattr(classes, "_SAMPLE", 2)
    names = [f"images/train/{number}" for number in range(9)]
    root = tree(tmp_path, [*names, "images/val/x"], values=0 * VALUES)
    refused(root, "hold 0 alone; two classes", classes=("a", "b"))
    refused(root, "hold 0 alone; two classes")
    save_mask(root / "masks/train/7.png", VALUES)
    assert opened(root, classes=("a", "b", "c")).classes == ("a", "b", "c")
    refused(tree(tmp_path / "void", values=0 * VALUES + 255), r"hold 255 \(void\) alone")


# ------------------------------------------------------------------------------------------ layouts


LAYOUTS: Mapping[str, tuple[Sequence[str], str, str]] = {
    # images, and what becomes of their path in that of the mask
    "images and masks": (("images/train/a", "images/val/b"), "images", "masks"),
    "ADE20K": (("images/training/a", "images/validation/b"), "images", "annotations"),
    "mmseg": (("img_dir/train/a", "img_dir/val/b"), "img_dir", "ann_dir"),
    "splits": (("train/images/a", "valid/images/b"), "images", "labels"),
    "MS-COCO": (("train2017/a", "val2017/b"), "", "masks/"),
    "MS-COCO, images": (("images/train2017/a", "images/val2017/b"), "images", "masks"),
    "CamVid": (("train/a", "test/b"), "/", "annot/"),
    "Carvana": (("train/a", "val/b"), "/", "_masks/"),
    "deeper": (("images/train/x/a", "images/val/y/z/b"), "images", "masks"),
    "one folder of masks": (("images/train/a", "images/val/b"), "images/train", "masks"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_folders(name, tmp_path):
    images, before, after = LAYOUTS[name]
    for place, image in enumerate(images):
        save_image(tmp_path / f"{image}.jpg")
        mask = image.replace(before, after, 1) if before else after + image
        if name == "one folder of masks":
            mask = f"masks/{image[-1]}"
        save_mask(tmp_path / f"{mask}.png", (VALUES + place) % 3)
    data = opened(tmp_path)
    assert [len(data.train), len(data.val)] == [1, 1]
    assert (data.train[0].image_id[-1], data.val[0].image_id[-1]) == ("a", "b")
    assert np.array_equal(data.val[0].read_mask(), (VALUES + 1) % 3)
    assert data.splits[0].startswith("train")
    assert not data.volumes
    assert {path.suffix for path in data.annotations} == {".png"}
    assert len(data.paths) == 2


@pytest.mark.parametrize("suffix", ["_mask", "_gt", "-mask", "_labels"])
def test_masks_with_an_ending_also_beside_their_images(suffix, tmp_path):
    for name in ("train/a", "train/a_b", "val/c"):
        save_image(tmp_path / f"images/{name}.jpg")
        save_mask(tmp_path / f"masks/{name}{suffix}.png")
        save_image(tmp_path / f"beside/{name}.jpg")
        save_mask(tmp_path / f"beside/{name}_mask.png")
    assert ids(opened(tmp_path)) == (["a", "a_b"], ["c"])
    (tmp_path / "beside/_classes.csv").write_text("Pixel Value, Class\n0, background\n1, a\n2, b\n")
    data = opened(tmp_path / "beside")
    assert ids(data) == (["a", "a_b"], ["c"])
    assert data.classes == ("background", "a", "b")
    save_mask(tmp_path / "masks/train/a.png")
    refused(tmp_path, f"several endings: 1 x NAME, 2 x NAME{suffix}.*--dataset.masks")


def test_a_tree_without_splits_holds_out_a_fifth_by_name(tmp_path):
    names = [f"images/{number}" for number in range(30)]
    data = opened(tree(tmp_path, names))
    train, val = ids(data)
    assert sorted((*train, *val), key=int) == [str(number) for number in range(30)]
    assert 3 <= len(val) <= 10
    assert data.splits == ("train", "held out")
    assert f"no split to score: {len(val)} images are held out of the others" in data.notes
    assert ids(opened(tree(tmp_path, [*names, "images/x"])))[1][:3] == val[:3]  # with one more
    only = tree(tmp_path / "only", [f"images/train/{number}" for number in range(20)])
    assert opened(only).splits == ("train", "held out")
    refused(tree(tmp_path / "one", ["images/a"]), "has 1 masks, so none can be held out")


def test_splits_that_are_given(tmp_path):
    root = tree(
        tmp_path, [f"images/{split}/{split}" for split in ("train", "extra", "test", "val")]
    )
    assert ids(opened(root)) == (["train"], ["val"])
    assert ids(opened(root, train="train+extra", val="test")) == (["train", "extra"], ["test"])
    refused(root, "no split 'dev'; there are: test, train, val", val="dev")
    both = opened(root, val="train")
    assert any("1 of 1 images are trained on too" in note for note in both.notes)
    assert choose_splits(["a", "train_2", "train", "testing"], None, None) == ("train", "testing")
    assert choose_splits(["val"], None, None) == ("val", None)
    with pytest.raises(UsageError, match="say which to train on"):
        choose_splits(["a", "b"], None, None)


def test_the_same_picture_under_another_name_is_told(tmp_path):
    root = tree(tmp_path)
    assert not any("trained on too" in note for note in opened(root).notes)
    shutil.copy(root / "images/train/b.png", root / "images/val/c.png")
    assert any("1 of 1 images are trained on too, the first is" in n for n in opened(root).notes)


def test_folders_that_cannot_be_meant(tmp_path):
    refused(tmp_path / "none", "there is no folder")
    refused(tmp_path, "no images with a folder of masks; it holds nothing")
    set_of_above = tree(tmp_path / "above" / "set")
    refused(tmp_path / "above", f"name {set_of_above} instead of {tmp_path / 'above'}\\.")
    opened(set_of_above)
    root = tree(tmp_path, ["images/a", "images/b"])
    shutil.copytree(root / "masks", root / "labels")
    refused(root, "labels and masks; which of them is meant.*--dataset.masks")
    shutil.copytree(root / "masks", root / "more/masks")
    for folder in ("labels", "more/masks"):
        assert sum(map(len, ids(opened(root, masks=folder)))) == 2
    refused(root, "masks called none", masks="none")
    for name in ("a", "b"):
        (root / f"more/masks/{name}.png").rename(root / f"more/masks/other_{name}.png")
    refused(root, "no mask of the name of an image", masks="more/masks")


def test_what_an_image_lacks(tmp_path):
    root = tree(tmp_path, [f"images/train/{n}" for n in "abcdef"] + ["images/val/x"])
    save_mask(root / "masks/train/extra.png")
    (root / "masks/train/a.png").unlink()
    save_mask(root / "masks/train/b.png", VALUES[:, 1:])
    (root / "images/train/c.png").write_bytes(b"no picture")
    (root / "masks/train/d.png").write_bytes(b"no picture")
    refused(root, r"4 of 6 images cannot be used.*a\.png: no mask of its name.*--dataset.max_corr")
    refused(root, r"b\.png: the image is 9 x 6, its mask 8 x 6.*c\.png: no image.*d\.png: no im")
    data = opened(root, max_corrupt=4)
    assert ids(data)[0] == ["e", "f"]
    assert any("4 images left out, as asked" in note for note in data.notes)
    assert any("1 masks have no image: extra" in note for note in data.notes)


def test_a_photo_is_turned_as_its_mask_is(tmp_path):
    for name, orientation in (("train/stored", 6), ("train/shown", 6), ("val/x", 1)):
        save_image(tmp_path / f"images/{name}.jpg", orientation=orientation)
        shown = name == "train/shown"
        save_mask(tmp_path / f"masks/{name}.png", VALUES.T.copy() if shown else VALUES)
    data = opened(tmp_path)
    sizes = {one.image_id: tuple(one.read_image().shape[1:]) for one in data.train}
    assert sizes == {"shown": (9, 6), "stored": (6, 9)}
    assert all(one.read_image().shape[1:] == one.read_mask().shape for one in data.train)
    text = " ".join(data.notes)
    assert "1 photos are turned by their" in text
    assert "1 photos are taken as stored, in spite of their EXIF" in text
    refused(tmp_path, r"stored\.jpg: the image is 6 x 9, its mask 9 x 6", exif="apply")
    refused(tmp_path, r"shown\.jpg: the image is 9 x 6, its mask 6 x 9", exif="ignore")


def test_a_photo_whose_mask_does_not_say_is_refused(tmp_path):
    save_image(tmp_path / "images/train/a.jpg", orientation=3)
    save_mask(tmp_path / "masks/train/a.png")
    save_image(tmp_path / "images/val/b.jpg")
    save_mask(tmp_path / "masks/val/b.png")
    refused(tmp_path, r"do not say.*a\.jpg: orientation 3, 9 x 6.*--dataset.exif apply")
    upright = opened(tmp_path, exif="ignore").train[0].read_image()
    turned = opened(tmp_path, exif="apply").train[0].read_image()
    assert torch.equal(turned, upright.flip(1, 2))


# ------------------------------------------------------------------------------------------ classes


def test_classes_are_the_values_found_where_nothing_names_them(tmp_path):
    root = tree(tmp_path, values=np.array([9, 255, 7], np.uint8)[VALUES])
    data = opened(root)
    assert data.classes == ("7", "9")
    assert np.array_equal(data.train[0].read_mask(), np.array([1, VOID, 0])[VALUES])
    assert any("the values in the masks, as no file names them" in note for note in data.notes)
    ramp = np.arange(54, dtype=np.uint16).reshape(6, 9)
    names = [f"images/train/{n}" for n in "abcdef"]
    masks = {name[-1]: ramp + 54 * place for place, name in enumerate(names)}
    refused(tree(tmp_path / "many", [*names, "images/val/x"], **masks), "masks with 323 values")


def test_names_beside_the_masks(tmp_path):
    root = tree(tmp_path)
    (root / "classes.txt").write_text("_background_\ncat\n\ndog\n")
    data = opened(root)
    assert data.classes == ("background", "cat", "dog")
    assert root / "classes.txt" in data.annotations
    assert any("of classes.txt" in note for note in data.notes)
    assert opened(root, classes=("x", "y", "z")).classes == ("x", "y", "z")
    (root / "classes.txt").write_text("cat\ncat\ndog\n")
    refused(root, "names 3 classes; give 1 to 255, each once")
    (root / "classes.txt").unlink()
    (root / "objectInfo150.txt").write_text(
        "Idx\tRatio\tName\n1\t0.2\twall\n2\t0.1\tedifice, house\n"
    )
    data = opened(root)  # ADE20K's 0 is of no class
    assert data.classes == ("wall", "edifice")
    assert np.array_equal(data.train[0].read_mask(), np.array([VOID, 0, 1])[VALUES])
    (root / "objectInfo150.txt").write_text("Idx\n")
    refused(root, "names 0 classes")


LABELMAP = """# label:color_rgb:parts:actions
background:0,0,0::
cat:128,0,0::
dog:0,128,0::
ignored:224,224,192::
"""


@pytest.mark.parametrize("kind", ["colour", "palette"])
def test_colours_of_a_labelmap(kind, tmp_path):
    """As CVAT and datumaro write them, here with cat before dog, unlike the palette's order."""
    root = tree(tmp_path, ["images/train/a", "images/train/b", "images/val/c"])
    (root / "labelmap.txt").write_text(LABELMAP)
    colors = np.array(PALETTE, np.uint8)[VALUES]  # dog's is the second
    for path in root.glob("masks/*/*.png"):
        save_mask(path, *((colors,) if kind == "colour" else (VALUES, "P")))
    data = opened(root)
    assert data.classes == ("background", "cat", "dog")
    assert np.array_equal(data.train[0].read_mask(), np.array([0, 2, 1])[VALUES])
    data = opened(root, classes=("dog", "cat", "background"))
    assert np.array_equal(data.train[0].read_mask(), np.array([2, 0, 1])[VALUES])
    save_mask(
        root / "masks/val/c.png",
        np.array([(0, 0, 0), (128, 0, 0), (224, 224, 192)], np.uint8)[VALUES],
    )
    assert np.array_equal(opened(root).val[0].read_mask(), np.array([0, 1, VOID])[VALUES])
    save_mask(root / "masks/train/a.png", colors + np.uint8([[[0, 0, 1]]]))
    refused(root, r"labelmap.txt does not name: .*128,0,1 \(18 pixels\).*Add a line")


def test_colours_that_nothing_names_are_refused_with_a_remedy_that_works(tmp_path):
    root = tree(tmp_path, values=np.array(PALETTE, np.uint8)[VALUES])
    refused(root, r"a\.png is in colour, and nothing says the classes of its colours.*labelmap")
    refused(root, r"a\.png is in colour", classes=("background", "cat", "dog"))
    (root / "labelmap.txt").write_text("background:0,0,0::\ndog:0,128,0::\ncat:128,0,0::\n")
    assert np.array_equal(opened(root).train[0].read_mask(), VALUES)


def test_values_that_no_mask_can_hold(tmp_path):
    root = tree(tmp_path)
    (root / "_classes.csv").write_text("Pixel Value, Class\n0, a\n65536, b\n")
    refused(root, r"_classes.csv has the value 65536; all must lie in \[0, 65535\]")
    with pytest.raises(UsageError, match=r"dataset\.values has -1"):
        DatasetConfig(values=(-1, 0), classes=("a", "b"))


def test_numbers_under_a_labelmap(tmp_path):
    root = tree(tmp_path)
    (root / "labelmap.txt").write_text(LABELMAP)
    assert np.array_equal(opened(root).train[0].read_mask(), VALUES)
    (root / "labelmap.txt").write_text("background:::\nvoid:::\ncat:::\n")
    data = opened(root)
    assert data.classes == ("background", "cat")
    assert np.array_equal(data.train[0].read_mask(), np.array([0, VOID, 1])[VALUES])
    (root / "labelmap.txt").write_text("background:0,0::\ncat:1,1,1::\n")
    refused(root, "labelmap.txt does not name classes .*is not NAME:R,G,B::")


# --------------------------------------------------------------------------------------- Pascal VOC


def voc_tree(
    root: Path, names: Mapping[str, Sequence[str]], masks: str = "SegmentationClass"
) -> Path:
    """{split: names}, drawn with Pascal VOC's palette."""
    lists = root / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    for split, listed in names.items():
        (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in listed))
        for name in listed:
            save_image(root / f"JPEGImages/{name}.jpg")
            save_mask(root / f"{masks}/{name}.png", VALUES, "P")
    save_image(root / "JPEGImages/without_mask.jpg")
    return root


def test_pascal_voc_is_what_torchvision_reads(tmp_path):
    splits = {"train": ["2007_000033", "2007_000032"], "val": ["2008_000001"]}
    root = voc_tree(tmp_path / "VOCdevkit/VOC2012", splits)
    data = opened(tmp_path)
    assert data.classes == voc.CLASSES
    assert any("Pascal VOC's, as the tree is named as theirs" in note for note in data.notes)
    for split, records in (("train", data.train), ("val", data.val)):
        theirs = VOCSegmentation(str(tmp_path), "2012", split)
        assert len(theirs) == len(records)
        for record, (image, mask) in zip(records, theirs, strict=True):
            assert np.array_equal(record.read_mask(), np.array(mask))
            assert np.array_equal(record.read_image().permute(1, 2, 0), np.array(image))
    assert opened(root).splits == ("train", "val")
    assert root / "ImageSets/Segmentation/train.txt" in data.annotations


def test_lists_as_others_write_them(tmp_path):
    root = voc_tree(tmp_path, {"train": ["a", "b"], "val": ["c"]})
    save_mask(root / "SegmentationClassAug/a.png", (VALUES + 1) % 3)
    lists = root / "ImageSets/Segmentation"
    (lists / "trainaug.txt").write_text("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n")
    (lists / "quoted.txt").write_text('"a"\nb.jpg\n')
    assert ids(opened(root, train="quoted")) == (["a", "b"], ["c"])
    data = opened(root, train="trainaug", val="trainaug", masks="SegmentationClassAug")
    assert np.array_equal(data.train[0].read_mask(), (VALUES + 1) % 3)
    assert data.classes == ("0", "1", "2")  # no name says that it is Pascal VOC's
    refused(root, "no folder Masks; it has", masks="Masks")
    (lists / "trainaug.txt").write_text("a\nb\n")
    options = {"train": "trainaug", "masks": "SegmentationClassAug"}
    refused(root, r"1 of 2 images.*b\.jpg: no mask.*--dataset.masks names another", **options)
    (lists / "none.txt").write_text("without_mask\n")
    refused(root, "no mask of the 1 images to train on", train="none")
    (lists / "train.txt").write_text("a\nmissing\n")
    refused(root, r"train\.txt:2: there is no image .*JPEGImages/missing\.jpg")
    (lists / "train.txt").write_text("\n")
    refused(root, r"train\.txt is empty")


def test_two_trees_of_a_devkit_are_joined(tmp_path):
    for year in ("VOC2007", "VOC2012"):
        voc_tree(tmp_path / year, {"train": ["a"], "val": ["b"]})
        save_image(tmp_path / year / "JPEGImages/a.jpg", seed=int(year[3:]))
    refused(tmp_path, "there are the splits VOC2007/train, VOC2007/val, VOC2012/train")
    data = opened(tmp_path, train="VOC2007/train+VOC2012/train", val="VOC2012/val")
    assert ids(data) == (["VOC2007/train/a", "VOC2012/train/a"], ["b"])
    assert len({one.image_id for one in data.train}) == 2


def test_an_export_of_cvat_is_read(tmp_path):
    """One list, default.txt, and labelmap.txt: a fifth is held out."""
    root = voc_tree(tmp_path, {"default": [f"frame {number}" for number in range(20)]})
    (root / "labelmap.txt").write_text(LABELMAP)
    data = opened(root)
    assert data.splits == ("default", "held out")
    assert data.classes == ("background", "cat", "dog")
    shutil.rmtree(root / "JPEGImages")
    refused(root, "has no folder JPEGImages; it has ImageSets, SegmentationClass")


# -------------------------------------------------------------------------------------- many, check


def test_values_of_many_masks_by_processes_and_from_the_cache(tmp_path, monkeypatch):
    root = tree(tmp_path, [f"images/train/{number}" for number in range(8)] + ["images/val/x"])
    before = opened(root)
    monkeypatch.setattr(classes, "_LEAST", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert opened(root).classes == before.classes
    monkeypatch.setattr(classes, "count_values", None)  # nothing is read again
    assert opened(root).classes == before.classes


def test_the_check_reads_every_mask(tmp_path):
    root = tree(tmp_path, [f"images/train/{n}" for n in "abcd"] + ["images/val/x"])
    results = check_masks(root, 2)
    assert {result.state for result in results} == {"ok", "note"}
    assert "train: pixels: 33.3% 0, 33.3% 1, 33.3% 2" in [result.text for result in results]
    save_mask(root / "masks/val/x.png", VALUES * 0 + np.uint8(3))
    texts = [f"{result.state} {result.text}" for result in check_masks(root, 2)]
    assert any(text.startswith("wrong 1 of val cannot be used") for text in texts)
    assert "note val: no pixel of 0, 1, 2" in texts
    results = check_masks(root, 2, DatasetConfig(classes=("a", "b")))
    assert [result.state for result in results] == ["wrong"]


def test_what_would_be_passed_over_is_refused(tmp_path):
    root = tree(tmp_path / "tree", ["images/train/a", "images/train/b", "images/val/c"])
    for option in ({"fold": 1}, {"spacing": 1.5}, {"labels": "scribbles"}, {"phases": ("ED",)}):
        refused(root, f"dataset.{next(iter(option))} is of ACDC's volumes", **option)
    save_mask(root / "masks/train/b.png", np.stack([VALUES, VALUES, 2 * VALUES], 2))
    refused(root, r"b\.png is in colour")  # not in the midst of the training
    assert len(opened(root, max_corrupt=1).classes) == 3
    save_mask(root / "masks/train/b.png")
    (root / "classes.txt").write_text("ground\ncat\ndog\n")
    refused(root, r"dataset.void is 2, which .*classes\.txt calls dog", void=2)
    (root / "classes.txt").unlink()
    (root / "_classes.csv").write_text("Pixel Value, Class\n0, ground\n1, cat\n1, dog\n")
    refused(root, "gives the value 1 to two classes")
    (root / "_classes.csv").unlink()
    shutil.rmtree(root / "masks")
    with pytest.raises(UsageError) as error:
        opened(root)
    assert "instead of" not in str(error.value)
