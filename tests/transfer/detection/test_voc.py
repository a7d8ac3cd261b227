"""Pascal VOC as programs and phones write it: the right boxes in the right pixels, or refused."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from pretrain.errors import UsageError
from tests.transfer.detection.test_average_precision import found
from tools import score_detections
from transfer.detection.average_precision import evaluate
from transfer.detection.check import check_voc
from transfer.detection.config import DatasetConfig
from transfer.detection.data import open_data
from transfer.detection.dataset import DetectionDataset
from transfer.detection.records import Records, summarize_issues
from transfer.detection.splits import match_files
from transfer.detection.voc import read_voc
from transfer.detection.voc_layout import list_splits

WIDTH, HEIGHT = 50, 40
BOX = (11, 6, 20, 15)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def thing(box: Sequence[Any] = BOX, name: str = "cat", more: str = "") -> str:
    """An object; corners as they are given."""
    tags = zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)
    corners = "".join(f"\n<{tag}>{value}</{tag}>" for tag, value in tags)
    return f"<object>\n<name>{name}</name>{more}<bndbox>{corners}\n</bndbox>\n</object>\n"


def annotation(*things: str, size: tuple[Any, Any] | None = (WIDTH, HEIGHT), head: str = "") -> str:
    sides = "" if size is None else "<size><width>{}</width><height>{}</height></size>"
    written = "" if size is None else sides.format(*size)
    return f"<annotation>{head}{written}\n{''.join(things)}</annotation>\n"


def tree(root: Path, xml: str | bytes | dict = "", **images: Image.Image) -> Path:
    """A tree whose one split `train` lists the XML files, each with a black image."""
    files = xml if isinstance(xml, dict) else {"a": xml or annotation(thing())}
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        data = text if isinstance(text, bytes) else text.encode()
        (root / "Annotations" / f"{name}.xml").write_bytes(data)
        image = images.get(name) or Image.new("RGB", (WIDTH, HEIGHT))
        image.save(root / "JPEGImages" / f"{name}.png", exif=image.getexif())
    (root / "ImageSets/Main/train.txt").write_text("\n".join(files) + "\n")
    return root


def kinds(records: Records) -> list[str]:
    return [issue.kind for issue in records.issues]


def refused(root: Path, match: str, **changes: Any) -> None:
    with pytest.raises(UsageError, match=f"(?s){match}"):
        read_voc(root, "train", config=DatasetConfig(**changes))


def boxes(root: Path, **changes: Any) -> list:
    records = read_voc(root, "train", config=DatasetConfig(**changes))
    return [box for record in records.images for box in record.boxes.tolist()]


# ---------------------------------------------------------------------------------- turned photos


def photo(size: tuple[int, int], orientation: int) -> Image.Image:
    """Stored pixels with a white object that is in no axis of symmetry."""
    image = Image.new("RGB", size)
    image.paste((255, 255, 255), (3, 2, 14, 8))
    image.getexif()[ExifTags.Base.Orientation] = orientation
    return image


def white_box(image: Image.Image) -> tuple[int, ...]:
    """Of the pixels as they are, counted from 1."""
    left, top, right, bottom = image.convert("L").getbbox()
    return left + 1, top + 1, right, bottom


def brightness(records: Records) -> float:
    """Inside the box of the object, in the pixels that a detector is given."""
    whole = DatasetConfig(short_side=min(records.images[0].width, records.images[0].height))
    image, target = DetectionDataset(records.images, whole, train=False)[0]
    left, top, right, bottom = target["boxes"][0].round().int().tolist()
    assert (image == 255).sum() == 3 * (right - left) * (bottom - top)  # nowhere else
    return float(image[:, top:bottom, left:right].float().mean())


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, HEIGHT)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_displayed_picture(orientation, size, tmp_path):
    image = photo(size, orientation)
    displayed = ImageOps.exif_transpose(image)
    written = annotation(thing(white_box(displayed)), size=displayed.size)
    root = tree(tmp_path, written, a=image)
    config = DatasetConfig()
    if orientation > 1 and displayed.size == image.size:  # the size does not say
        refused(root, rf"a\.xml: EXIF .*orientation {orientation}, .*dataset\.exif apply, or")
        config = DatasetConfig(exif="apply")
    records = read_voc(root, "train", config=config)
    assert brightness(records) == 255
    assert (records.images[0].width, records.images[0].height) == displayed.size
    said = ["1 x photo turned (by its EXIF orientation): " + str(root / "Annotations/a.xml")]
    assert summarize_issues(records.issues) == (said if orientation > 1 else [])


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (HEIGHT, HEIGHT)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_of_the_stored_pixels(orientation, size, tmp_path):
    image = photo(size, orientation)
    root = tree(tmp_path, annotation(thing(white_box(image)), size=size), a=image)
    sides_are_swapped = orientation > 4 and size[0] != size[1]
    config = DatasetConfig(exif="auto" if sides_are_swapped else "ignore")
    records = read_voc(root, "train", config=config)
    assert brightness(records) == 255
    assert kinds(records) == (["photo as stored"] if orientation > 1 else [])


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ((WIDTH, HEIGHT), "stored as 50 x 40, .*which the boxes do not fit"),
        ((25, 20), "displayed as 40 x 50, written as 25 x 20"),
        (None, "written as 0 x 0"),
    ],
)
def test_sizes_that_do_not_say_which_pixels(size, said, tmp_path):
    """The first is what Label Studio writes: the stored size, boxes of the displayed picture."""
    image = photo((WIDTH, HEIGHT), 6)
    box = white_box(ImageOps.exif_transpose(image))
    root = tree(tmp_path, annotation(thing(box), thing((20, 30, 30, 48)), size=size), a=image)
    refused(root, f"{said}.*--dataset.exif apply, or to the stored pixels, --dataset.exif ignore")
    records = read_voc(root, "train", config=DatasetConfig(exif="apply"))
    assert brightness(records) == 255
    # the option says which pixels; that boxes are of a smaller picture is another matter
    other = ["size of another image"] if size == (25, 20) else []
    assert kinds(records) == ["photo turned", *other]


# ------------------------------------------------------------------------------ the first pixel


@pytest.mark.parametrize(("side", "ap_from_1"), [(8, 60), (12, 80), (16, 80)])
@pytest.mark.parametrize("rounding", [False, True])
def test_exact_detections_of_boxes_from_0(side, ap_from_1, rounding, tmp_path):
    """Continuous, 0-based boxes: AP 100 if read as such."""
    left, top = 7, 5
    written = (float(left), float(top), left + side, top + side)
    root = tree(tmp_path, annotation(thing(written)))
    rows = [found("a", "cat", (left, top, left + side, top + side), 0.9)]
    for first_pixel, score in ((0, 100), (1, ap_from_1)):
        records = read_voc(root, "train", config=DatasetConfig(first_pixel=first_pixel))
        means = evaluate(records, rows, rounding).mean["area"]
        assert means["AP"] == pytest.approx(score), first_pixel
        assert records.issues == ()


def test_a_written_0_is_said_and_changes_nothing(tmp_path):
    listed = {"a": annotation(thing((0, 4, 10, 12)), thing((5, 0.4, 10, 12))), "b": annotation()}
    root = tree(tmp_path, listed | {"c": annotation(thing((3, 0, WIDTH, HEIGHT)))})
    records = read_voc(root, "train")
    assert records.images[0].boxes.tolist() == [[0, 3, 10, 12], [4, 0, 10, 12]]
    assert summarize_issues(records.issues) == [
        "3 x box at pixel 0 (then boxes are counted from 0: give --dataset.first_pixel 0): "
        f"{root}/Annotations/a.xml:2, {root}/Annotations/a.xml:10, ..."
    ]
    whole = DatasetConfig(first_pixel=0)
    assert read_voc(root, "train", config=whole).issues == ()
    assert boxes(root, first_pixel=0)[-1] == [3, 0, 50, 40]


def test_a_box_over_two_edges_is_said_of_the_other_edge(tmp_path):
    root = tree(tmp_path, annotation(thing((0, 4, 60, 12)), thing((-3, 4, 10, 12))))
    assert kinds(read_voc(root, "train")) == [
        "box at pixel 0", "box over the edge", "box over the edge"
    ]  # fmt: skip


# ------------------------------------------------------------------------------- what is written


@pytest.mark.parametrize("value", ["0", "0.0", "False", "NO", "Unspecified", "", " 0 ", "<!-- -->"])
def test_a_flag_that_is_not_set(value, tmp_path):
    root = tree(tmp_path, annotation(thing(more=f"<difficult>{value}</difficult>")))
    assert not read_voc(root, "train").images[0].difficult.any()
    bare = tree(tmp_path / "bare", annotation(thing(more="<difficult/><pose/><truncated/>")))
    assert not read_voc(bare, "train").images[0].difficult.any()


@pytest.mark.parametrize("value", ["1", "1.0", "True", "yes", " 1\n"])
def test_a_flag_that_is_set(value, tmp_path):
    root = tree(tmp_path, annotation(thing(more=f"<difficult>{value}</difficult>")))
    assert read_voc(root, "train").images[0].difficult.all()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (thing(more="<difficult>maybe</difficult>"), "a.xml:2: .*difficult of a cat: 'maybe' is"),
        (thing(more="<difficult>2</difficult>"), "a.xml:2: broken annotation: .*'2' is no flag"),
        (
            thing().replace("</object>", "<bndbox><xmin>1</xmin></bndbox></object>"),
            r"a\.xml:2: .*an object has 2 <bndbox> \(line 3, 9\)",
        ),
        (thing(more="<name>dog</name>"), r"an object has 2 <name> \(line 3, 3\)"),
        (thing().replace("<ymin>6", "<xmin>6"), "no ymin|has 2 <xmin>|no XML"),
        (thing().replace("bndbox", "robndbox"), "a cat has no bndbox but <robndbox>; boxes alone"),
        (thing().replace("bndbox", "polygon"), "a.xml:2: .*a cat has no bndbox but <polygon>"),
        (
            "<object><name>cat</name><bndbox><x>1</x><y>2</y><w>3</w><h>4</h></bndbox></object>",
            "the box of a cat has no xmin but x, y, w, h",
        ),
        (thing().replace("bndbox", "BndBox"), "has <BndBox>, which must be <bndbox>"),
        (f"<objects>{thing()}</objects>", "a.xml:2: .*<objects> is not read; an object is"),
        (thing().replace("object", "item"), "a.xml:2: .*<item> is not read"),
        (thing().replace("</object>", f"{thing()}</object>"), "an object stands in an object"),
        (thing((0.22, 0.1, 0.4, 0.375)), "a.xml:2: box in fractions: .*Multiply xmin and xmax"),
        (thing((5, 5, "inf", 9)), "xmax of a cat is 'inf'"),
        (thing((5, 5, "1,5", 9)), "xmax of a cat is '1,5', no number"),
    ],
)
def test_other_forms_are_refused_with_their_line(broken, said, tmp_path):
    refused(tree(tmp_path, annotation(broken)), said)


@pytest.mark.parametrize("root_tag", ["annotations", "doc", "CVAT"])
def test_another_root(root_tag, tmp_path):
    """Its objects are read where they are those of Pascal VOC; none are never nothing."""
    text = annotation(thing()).replace("annotation>", f"{root_tag}>")
    assert boxes(tree(tmp_path / "a", text)) == [[10, 5, 20, 15]]
    said = rf"a\.xml:1: .*it is a file of <{root_tag}>, not of <annotation>"
    refused(tree(tmp_path / "b", f"<{root_tag}><size/></{root_tag}>"), said)
    text = f"<{root_tag}>\n<image><box xtl='1' ytl='2'/></image></{root_tag}>"
    refused(tree(tmp_path / "c", text), r"a\.xml:2: .*<image> is not read")


@pytest.mark.parametrize(
    "text",
    [
        annotation(thing()).replace("<annotation>", '<annotation xmlns="http://example/voc">'),
        annotation(thing()).replace("object>", "v:object>").replace("n>", "n>", 1)
        .replace("<annotation>", '<annotation xmlns:v="http://example/voc">'),
        annotation(thing(more="<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>")),
        annotation(thing(more="<attributes><attribute>red</attribute></attributes>")),
        annotation(thing(), head="<weather>rain</weather><source><image>x</image></source>"),
        annotation(thing()).replace("cat", "\n   cat\n  "),
        annotation(thing(), size=None),
        annotation(thing(), size=("", "")),
        annotation(thing(), size=("50.0", 40)),
        annotation(thing(("11.0", "6.0", "20.0000004", 15))),
    ],
)  # fmt: skip
def test_forms_that_are_read(text, tmp_path):
    records = read_voc(tree(tmp_path, text), "train")
    assert records.classes == ("cat",)
    np.testing.assert_allclose(records.images[0].boxes, [[10, 5, 20, 15]], atol=1e-6)
    assert records.issues == ()


def test_a_box_at_the_edge_of_a_float32(tmp_path):
    root = tree(tmp_path, annotation(thing((40.5, 6.25, 50.000003814697266, 40.0000019))))
    assert read_voc(root, "train").issues == ()
    assert boxes(root)[0][2:] == [50, 40]


@pytest.mark.parametrize(
    "encoding", ["gb2312", "gbk", "utf-16", "shift_jis", "cp1251", "utf-8-sig"]
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_encodings_of_xml(encoding, mark, tmp_path):
    name = {"cp1251": "кот"}.get(encoding, "猫")
    text = f'<?xml version="1.0" encoding="{encoding}"?>\n{annotation(thing(name=name))}'
    if mark:
        text, encoding = text.replace(encoding, "utf-8"), "utf-8"
    root = tree(tmp_path, mark + text.encode(encoding))
    assert read_voc(root, "train").classes == (name,)
    refused(tree(tmp_path, mark + text.replace("20<", "x<").encode(encoding)), r"a\.xml:3: .*'x'")


def test_an_encoding_that_is_none(tmp_path):
    text = '<?xml version="1.0" encoding="klingon"?>' + annotation(thing())
    refused(tree(tmp_path, text), r"a\.xml:1: .*encoding cannot be read .*klingon")


def test_a_device_or_a_pipe_is_no_annotation(tmp_path):
    root = tree(tmp_path)
    (root / "Annotations/a.xml").unlink()
    (root / "Annotations/a.xml").symlink_to(os.devnull)
    refused(root, r"a\.xml: is no file")


# --------------------------------------------------------------------------------- class names


@pytest.mark.parametrize("other", ["Car", "car ", "CAR", "c ar"])
def test_names_that_differ_by_space_or_case(other, tmp_path):
    listed = {"a": annotation(thing(name="car")), "b": annotation(thing(), thing(name=other))}
    root = tree(tmp_path, listed)
    places = r"(a\.xml:2: similar .*b\.xml:10|b\.xml:10: similar .*a\.xml:2)\n"
    refused(root, f"{places}.*join them with --dataset.similar_names join")
    records = read_voc(root, "train", config=DatasetConfig(similar_names="join"))
    assert len(records.classes) == 2
    assert kinds(records) == ["class names joined"]
    assert "car " not in records.classes
    (line,) = summarize_issues(records.issues)  # both names are in it
    assert "'car'" in line
    assert repr(other) in line
    assert records.num_objects == 3
    with pytest.raises(UsageError, match=f"'{other}' beside 'car', "):
        read_voc(root, "train", ["car", "cat"])
    join = DatasetConfig(similar_names="join")
    labels = [r.labels.tolist() for r in read_voc(root, "train", ["car", "cat"], join).images]
    assert labels == [[0], [1, 0]]


# ----------------------------------------------------------------------------------------- lists


@pytest.mark.parametrize("names", [("scan 0", "scan 1"), ("a -1", "b  1"), ("3 0", "3 1")])
def test_names_that_end_in_a_number(names, tmp_path):
    root = tree(tmp_path, dict.fromkeys(names, annotation(thing())))
    assert [r.image_id for r in read_voc(root, "train").images] == list(names)
    assert len(read_voc(root, "train", images=False)) == 2


def test_a_class_wise_list_is_one_in_every_line(tmp_path):
    root = tree(tmp_path, dict.fromkeys("abc", annotation(thing())))
    path = root / "ImageSets/Main/train.txt"
    path.write_text("a  1\nb -1\nc  0\n")
    assert [r.image_id for r in read_voc(root, "train").images] == ["a", "c"]
    path.write_text("a  1\nb\nc  0\n")
    refused(root, r"train\.txt:1: no annotation: there is no .*/a  1\.xml")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "utf-8"])
def test_encodings_of_lists(encoding, tmp_path):
    root = tree(tmp_path, {"猫": annotation(thing())})
    (root / "ImageSets/Main/train.txt").write_text("猫\r\n", encoding)
    assert len(read_voc(root, "train")) == 1


@pytest.mark.parametrize("encoding", ["utf-16-le", "gb2312"])
def test_lists_that_do_not_say_their_encoding(encoding, tmp_path):
    root = tree(tmp_path, {"训练": annotation(thing())})
    (root / "ImageSets/Main/train.txt").write_text("训练\n", encoding)
    refused(root, r"train\.txt is no text in UTF-8; save it so")


# ----------------------------------------------------------------------------------- the way in


@pytest.mark.parametrize(
    ("annotations", "images", "lists"),
    [
        ("annotations", "images", "imagesets/main"),
        ("xmls", "Images", "ImageSets"),
        ("labels", "imgs", "ImageSets/Main"),
        ("Annotations", "", "ImageSets/Main"),
        ("", "", "ImageSets/Main"),
        ("Annotations", "Annotations", "ImageSets/Main"),
        ("Annotations/part/one", "JPEGImages/part/one", "ImageSets/Main"),
        ("Annotations", "JPEGImages/deep", "ImageSets/Main"),
        ("Annotations/deep", "JPEGImages", "ImageSets/Main"),
    ],
)
def test_folders_as_people_name_them(annotations, images, lists, tmp_path):
    usual, root = tree(tmp_path / "usual", {"a": annotation(thing()), "b": annotation()}), tmp_path
    for folder, place in (("Annotations", annotations), ("JPEGImages", images)):
        shutil.copytree(usual / folder, root / "tree" / place, dirs_exist_ok=True)
    shutil.copytree(usual / "ImageSets/Main", root / "tree" / lists)
    assert list_splits(root / "tree") == ["train"]
    records = read_voc(root / "tree", "train")
    assert [record.image_id for record in records.images] == ["a", "b"]
    assert all(record.path.is_file() for record in records.images)
    assert match_files(root / "tree") == (sorted(_names(root / "tree")), [], [])


def _names(root: Path) -> list[str]:
    """Paths of the XML files in their folder, without ending."""
    files = [path for path in root.rglob("*.xml")]
    top = min((path.parent for path in files), key=lambda path: len(path.parts))
    while top.name in ("one", "part", "deep"):
        top = top.parent
    return [path.relative_to(top).with_suffix("").as_posix() for path in files]


@pytest.mark.parametrize("name", ["part/a", "part/a.png", "JPEGImages/part/a.png", "a", "x\\a.png"])
def test_names_with_folders_and_endings(name, tmp_path):
    root = tree(tmp_path)
    for folder, ending in (("Annotations", "xml"), ("JPEGImages", "png")):
        (root / folder / "part").mkdir()
        (root / folder / f"a.{ending}").rename(root / folder / f"part/a.{ending}")
    (root / "ImageSets/Main/train.txt").write_text(f"{name}\n")
    (record,) = read_voc(root, "train").images
    assert record.path == root / "JPEGImages/part/a.png"
    assert len(record.labels) == 1


def test_an_image_under_the_name_that_is_written(tmp_path):
    root = tree(tmp_path, annotation(thing(), head="<folder>x</folder><filename>b.png</filename>"))
    (root / "JPEGImages/a.png").rename(root / "JPEGImages/b.png")
    records = read_voc(root, "train")
    assert records.images[0].path.name == "b.png"
    assert kinds(records) == ["image by its last name"]
    assert match_files(root) == (["a"], [], [])


def test_two_images_of_one_name(tmp_path):
    root = tree(tmp_path)
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "JPEGImages/a.JPG")
    refused(root, r"train\.txt:1: two images of one name: .*a\.JPG and .*a\.png.*max_corrupt 1")
    tree(tmp_path, annotation(thing(), head="<filename>a.JPG</filename>"))
    assert read_voc(root, "train").images[0].path.name == "a.JPG"


def test_one_image_under_two_names(tmp_path):
    written = annotation(thing(), head="<filename>a.png</filename>")
    root = tree(tmp_path, {"a": written, "b": written})
    (root / "JPEGImages/b.png").unlink()
    refused(root, r"train\.txt:2: one image, two ids: .*a\.png is that of .*train\.txt:1 too")


def test_folders_that_are_splits(tmp_path):
    """XML files beside the images, in train and valid: as Roboflow exports."""
    usual = tree(tmp_path / "usual", {"a": annotation(thing()), "b": annotation(thing())})
    for split in ("train", "valid"):
        for folder in ("Annotations", "JPEGImages"):
            shutil.copytree(usual / folder, tmp_path / "root" / split, dirs_exist_ok=True)
    data = open_data(tmp_path / "root", DatasetConfig())
    assert (data.train_split, data.test_split) == ("train", "valid")
    assert (data.train.num_objects, data.test.num_objects) == (2, 2)
    (tmp_path / "root/train/b.xml").unlink()
    with pytest.raises(UsageError, match=r"train: no annotation: .*b\.xml"):
        open_data(tmp_path / "root", DatasetConfig())


def test_all_that_is_missing_is_named_at_once(tmp_path):
    (tmp_path / "notes").mkdir()
    said = r"no Annotations \(.*no JPEGImages \(.*no ImageSets/Main \(.*; it holds notes\."
    with pytest.raises(UsageError, match=said):
        list_splits(tmp_path)
    usual = tree(tmp_path / "tree")
    shutil.rmtree(usual / "ImageSets")
    command = rf"python tools/prepare_data\.py voc --data {usual} --val-fraction 0\.2 --seed 0"
    with pytest.raises(UsageError, match=rf"it has no ImageSets/Main \(.*{command}"):
        open_data(usual, DatasetConfig())


def test_the_layout_of_yolo_is_known(tmp_path):
    """With the command that converts it, unless a tree of Pascal VOC is there as well."""
    root = tmp_path / "yolo"
    (root / "labels").mkdir(parents=True)
    (root / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (root / "data.yaml").write_text("names: [cat]\n")
    for read in (lambda: open_data(root, DatasetConfig()), lambda: score(root, [])):
        with pytest.raises(UsageError, match=rf"python tools/prepare_data\.py yolo --data {root}"):
            read()
    (tree(root) / "Annotations").rename(root / "annotations")
    score(root, [])


def test_two_folders_that_could_be_meant(tmp_path):
    root = tree(tmp_path)
    (root / "JPEGImages").rename(root / "images")
    (root / "imgs").mkdir()
    refused(root, "has the folders images and imgs; .*Rename it to JPEGImages")


def test_images_without_an_annotation(tmp_path):
    root = tree(tmp_path, {"a": annotation(thing()), "b": annotation()})
    (root / "Annotations/b.xml").unlink()
    refused(root, r"train\.txt:2: no annotation: .*b\.xml.*--dataset\.no_annotation empty")
    for images in (True, False):
        config = DatasetConfig(no_annotation="empty")
        records = read_voc(root, "train", config=config, images=images)
        assert [len(record.labels) for record in records.images] == [1, 0]
        assert kinds(records) == ["image without an annotation"]
    (root / "JPEGImages/b.png").unlink()
    refused(root, r"train\.txt:2: no image", no_annotation="empty")
    assert match_files(root) == (["a"], [], [])


# ------------------------------------------------------------------------------- both splits


def test_the_remedy_counts_both_splits(tmp_path):
    """A second run with that number gets through."""
    root = tree(tmp_path, dict.fromkeys("abcdef", annotation(thing())))
    (root / "ImageSets/Main/val.txt").write_text("d\ne\nf\n")
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nc\n")
    for name in "ae":
        (root / f"Annotations/{name}.xml").write_text("<annotation>")
    (root / "JPEGImages/f.png").write_bytes(b"no picture")
    with pytest.raises(UsageError, match=r"(?s)a\.xml.*e\.xml.*f\.png.*--dataset.max_corrupt 3"):
        open_data(root, DatasetConfig(max_corrupt=2))
    data = open_data(root, DatasetConfig(max_corrupt=3))
    assert (len(data.train), len(data.test)) == (2, 1)
    texts = [line.text for line in check_voc(root, 0) if line.state == "wrong"]
    assert "finetune_det.py --dataset.max_corrupt N" in texts[0]


@pytest.mark.parametrize(
    ("others", "images", "is_refused"),
    [(1, 1, False), (1, 4, False), (2, 4, False), (2, 3, True), (3, 4, True), (4, 4, True)],
)
def test_most_images_of_another_size(others, images, is_refused, tmp_path):
    sizes = [(25, 20)] * others + [(WIDTH, HEIGHT)] * (images - others)
    listed = {f"i{n}": annotation(thing(), size=size) for n, size in enumerate(sizes)}
    root = tree(tmp_path, listed)
    if is_refused:
        refused(
            root,
            r"resized after labelling: 25 x 20 is written, the image is 50 x 40.*Scale the boxes",
        )
    else:
        assert kinds(read_voc(root, "train")) == ["size of another image"] * others


def test_a_check_says_what_a_run_says(tmp_path):
    image = photo((WIDTH, HEIGHT), 6)
    box = white_box(ImageOps.exif_transpose(image))
    listed = {"a": annotation(thing(box), size=(40, 50)), "b": annotation(thing((0, 1, 5, 9)))}
    root = tree(tmp_path, listed, a=image)
    shutil.copy(root / "ImageSets/Main/train.txt", root / "ImageSets/Main/val.txt")
    notes = [note.replace("train: ", "") for note in open_data(root, DatasetConfig()).notes]
    checked = [line.text for line in check_voc(root, 9) if line.state == "note"]
    assert any("1 x photo turned" in text for text in checked)
    assert any("finetune_det.py --dataset.first_pixel 0" in text for text in checked)
    assert all(any(kind in note for note in notes) for kind in ("photo turned", "at pixel 0"))


# --------------------------------------------------------------------------------- scoring alone


def score(root: Path, rows: list[dict], *words: str) -> None:
    (root / "r.json").write_text(json.dumps(rows))
    usual = ["--data", root, "--split", "train", "--results", root / "r.json", *words]
    score_detections.main([str(word) for word in usual])


def test_scoring_counts_pixels_as_it_is_told(tmp_path, capsys):
    root = tree(tmp_path, annotation(thing((0, 5, 8, 13))))
    rows = [found("a", "cat", (0, 5, 8, 13), 0.9)]
    score(root, rows, "--first-pixel", "0", "--rounding", "detectron2")
    printed = capsys.readouterr()
    assert "AP               100.00  100.00" in printed.out
    assert printed.err == ""
    score(root, rows)
    printed = capsys.readouterr()
    assert "AP               100.00" not in printed.out
    assert "1 x box at pixel 0 (then boxes are counted from 0: give --first-pixel 0)" in printed.err


def test_no_class_to_average(tmp_path, capsys):
    pytest.importorskip("pycocotools")
    root = tree(tmp_path, annotation(thing(more="<difficult>1</difficult>")))
    rows = [found("a", "cat", (10, 5, 20, 15), 0.9)]
    score(root, rows, "--out", str(tmp_path / "s.json"))
    printed = capsys.readouterr().out
    assert "AP50                  -       -\n" in printed
    assert "MS-COCO's measure (another one): -\n" in printed
    assert "no mean: no class has an object to find that is not difficult" in printed
    assert json.loads((tmp_path / "s.json").read_text())["mean"]["area"]["AP50"] is None


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({"a": annotation(thing(name="Cat")), "b": annotation(thing())}, "--similar-names join"),
        ({"a": annotation(thing()), "b": "<annotation>"}, "--max-corrupt 1"),
    ],
)
def test_scoring_names_its_own_options(listed, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        score(tree(tmp_path, listed), [])
    words = said.split()
    score(tmp_path, [], *words)
