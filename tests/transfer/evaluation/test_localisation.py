"""Localisation: maps and boxes against the peers, layouts on disk, the suite as a whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from lightning_fabric import Fabric
from PIL import Image
from scipy import ndimage
from torch.nn import functional

from pretrain import synthetic
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from tests.conftest import FIXTURES
from tests.peers.activation_maps import (
    FEW,
    TinyNetwork,
    draw_boxes,
    draw_maps,
    ours_counts,
    tiny_images,
)
from transfer.evaluation import localisation
from transfer.evaluation.activation_maps import (
    METHODS,
    check_maps,
    class_maps,
    enlarge,
    to_unit_range,
    without_last_stride,
)
from transfer.evaluation.box_scores import map_box, overlaps
from transfer.evaluation.boxed_images import open_boxed
from transfer.evaluation.config import LocalisationConfig
from transfer.evaluation.images import Labels
from transfer.evaluation.map_boxes import find_boxes, find_regions
from transfer.evaluation.session import Session

SHAPES = sorted(synthetic.SHAPES)
PEERS = np.load(FIXTURES / "evaluation" / "activation_maps.npz")


@pytest.fixture(scope="module")
def shapes_backbone(backbone) -> Backbone:
    return replace(backbone, provenance=Provenance(classes=SHAPES))


@pytest.fixture
def no_picture(monkeypatch):
    monkeypatch.setattr(localisation, "draw_maps", lambda *_: None)


def session(folder: Path, batch_size: int = 4) -> Session:
    fabric = Fabric(accelerator="cpu", devices=1)
    return Session(
        fabric=fabric, folder=folder, suite="localisation", batch_size=batch_size, workers=0
    )


# maps


def test_maps_are_the_peers():
    network, images = TinyNetwork(0).eval().requires_grad_(False), tiny_images(0)
    classes = network(images).argmax(1)
    logits, maps = class_maps(network, images, classes, METHODS)
    assert torch.equal(logits, network(images))
    for method, key in (("cam", "cam"), ("grad-cam", "grad_cam")):
        np.testing.assert_allclose(maps[method], PEERS[key], rtol=1e-5, atol=1e-6)
    # pytorch-grad-cam enlarges by OpenCV and takes the lowest value away
    scaled = to_unit_range(enlarge(maps["grad-cam"], (24, 32)), "cam")
    np.testing.assert_allclose(scaled, PEERS["enlarged"], atol=2e-6)


def test_maps_by_the_formula(backbone):
    network, images = backbone.build().eval().requires_grad_(False), torch.randn(3, 3, 96, 64)
    classes = torch.tensor([0, 4, 9])
    logits, maps = class_maps(network, images, classes, METHODS)
    features = network.forward_features(images)
    weight, bias = network.fc.weight[classes], network.fc.bias[classes]
    cam = (features * weight[:, :, None, None]).sum(1)
    torch.testing.assert_close(maps["cam"], cam)
    # the mean of a map is the score
    torch.testing.assert_close(cam.mean((1, 2)) + bias, logits[torch.arange(3), classes])
    torch.testing.assert_close(maps["grad-cam"], cam.relu() / cam[0].numel())
    both = to_unit_range(torch.stack([torch.full((2, 2), 3.0), torch.tensor([[1.0, 2], [3, 5]])]),
                         "cam")  # fmt: skip
    assert both.tolist() == [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]]


@pytest.mark.parametrize("arch", ["resnet10t", "test_efficientnet"])
def test_dilated_stage_is_timms_output_stride(arch):
    network = timm.create_model(arch, num_classes=3).eval().requires_grad_(False)
    stock = timm.create_model(arch, num_classes=3, output_stride=16).eval()
    stock.load_state_dict(network.state_dict())
    images = torch.randn(1, 3, 64, 64)
    dilated = without_last_stride(network, (3, 64, 64), dilate=True)
    torch.testing.assert_close(dilated(images), stock(images), rtol=0, atol=1e-6)
    assert check_maps(network, (3, 64, 64), METHODS) == (2, 2)  # the given one stays as it is
    wide = without_last_stride(network, (3, 64, 64))
    assert check_maps(wide, (3, 64, 64), METHODS) == (4, 4)


def test_stride_of_a_stage_by_hand():
    """Of a plain ResNet: every position of the strided convolutions, nothing else changed."""
    network = timm.create_model("resnet10t", num_classes=3, avg_down=False).eval()
    wide = without_last_stride(network, (3, 64, 64))
    for conv in (network.layer4[0].conv1, network.layer4[0].downsample[0]):
        conv.stride = (1, 1)
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(wide(images), network(images))
    # nothing else is left to be removed
    again = without_last_stride(network, (3, 64, 64), dilate=True)
    assert check_maps(again, (3, 64, 64), METHODS) == (8, 8)
    assert not torch.equal(again(images), network(images))


def test_networks_without_maps(backbone):
    build = BackboneSpec(arch="resnet20_cifar", num_classes=3).create
    assert without_last_stride(build(3, 0).eval(), (3, 32, 32)) is None
    with pytest.raises(UsageError, match="channels x height x width"):
        check_maps(timm.create_model("test_vit").eval(), (3, 160, 160), METHODS)
    convnext = timm.create_model("test_convnext").eval()
    with pytest.raises(UsageError, match=r"--localisation.methods '\[grad-cam\]'"):
        check_maps(convnext, (3, 64, 64), METHODS)
    assert check_maps(convnext, (3, 64, 64), ["grad-cam"]) == (2, 2)
    with pytest.raises(UsageError, match=r"takes no images of 96 x 96 .*--localisation.size"):
        check_maps(timm.create_model("test_maxvit").eval(), (3, 96, 96), METHODS)


# boxes


@pytest.mark.parametrize("connectivity", [4, 8])
def test_regions_are_scipys(connectivity):
    structure = ndimage.generate_binary_structure(2, 1 + connectivity // 8)
    draw = np.random.default_rng(0)
    for size in [(1, 1), (1, 9), (9, 1), (13, 17), (16, 12)]:
        levels = draw.integers(0, 6, size)
        found = find_regions(levels, 5, connectivity)
        for threshold in range(5):
            labelled, _ = ndimage.label(levels > threshold, structure)
            boxes = [(x.start, y.start, x.stop, y.stop) for y, x in ndimage.find_objects(labelled)]
            ours = found.boxes[found.threshold == threshold]
            assert sorted(map(tuple, ours.tolist())) == sorted(boxes)


def test_largest_region_by_its_outline():
    rows = ["#####...####", "#...#...####", "#.#.#...####", "#...#.......", "#####......."]
    levels = np.array([[int(letter == "#") for letter in row] for row in rows])
    # the ring has fewer pixels than half of the block, but encloses more
    largest, boxes, of = find_boxes(levels, 1)
    assert largest.tolist() == [[0, 0, 5, 5]]
    # of the ring, what is in it, the block, and the ring's hole
    wanted = [[0, 0, 5, 5], [0, 0, 5, 5], [2, 2, 3, 3], [8, 0, 12, 3]]
    assert sorted(boxes.tolist()) == wanted
    assert of.tolist() == [0] * 4
    assert find_boxes(np.zeros((3, 3), int), 2).largest.tolist() == [[0] * 4] * 2


@pytest.mark.parametrize("every", [False, True])
def test_box_accuracy_is_wsolevaluations(every):
    ours = ours_counts(list(PEERS["maps"]), draw_boxes(FEW, 18), every)
    theirs = np.unpackbits(PEERS["best" if every else "largest"])[: ours.size].reshape(ours.shape)
    assert (ours == theirs.astype(bool)).all()
    assert 0.01 < theirs.mean() < 0.5
    np.testing.assert_allclose(PEERS["maps"], draw_maps(FEW, 18), atol=1e-6)


def test_box_at_a_threshold():
    scores = np.zeros((8, 8), np.float32)
    scores[1:4, 2:7], scores[6, 6], scores[2, 3] = 0.15, 0.5, 1.0
    assert map_box(scores, 0.15).tolist() == [2, 1, 7, 4]
    assert map_box(scores, 0.6).tolist() == [3, 2, 4, 3]
    assert map_box(np.zeros((4, 4)), 0.15).tolist() == [0, 0, 0, 0]
    boxes, truth = np.array([[0, 0, 4, 4]]), np.array([[2, 0, 6, 4], [8, 8, 9, 9]])
    np.testing.assert_allclose(overlaps(boxes, truth), [[1 / 3, 0]])


# layouts


def photo(path: Path, size: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)
    return path


def xml(path: Path, objects, size=(40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = [
        f"<object><name>{name}</name><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax>"
        f"<ymax>{d}</ymax></bndbox></object>"
        for name, a, b, c, d in objects
    ]
    width, height = size
    head = f"<size><width>{width}</width><height>{height}</height></size>"
    path.write_text(f"<annotation>{head}{''.join(parts)}</annotation>")


def voc_tree(root: Path) -> Path:
    for name in ("a", "b", "c", "d"):
        photo(root / f"JPEGImages/{name}.jpg")
    xml(root / "Annotations/a.xml", [("star", 1, 1, 10, 20), ("star", 11, 3, 40, 30)])
    xml(root / "Annotations/b.xml", [("star", 1, 1, 10, 20), ("heart", 11, 3, 40, 30)])
    xml(root / "Annotations/c.xml", [])
    xml(root / "Annotations/d.xml", [("ring", 2, 3, 40, 30)])
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/val.txt").write_text("a 1\nb -1\nc 1\nd 1\n")
    return root


def test_voc(tmp_path, shapes_backbone):
    data = open_boxed(voc_tree(tmp_path / "t"), shapes_backbone, Labels())
    assert [Path(path).name for path in data.images.paths] == ["a.jpg", "d.jpg"]
    assert [SHAPES[label] for label in data.images.labels] == ["star", "ring"]
    assert data.boxes[0].tolist() == [[0, 0, 10, 20], [10, 2, 40, 30]]
    assert data.sizes.tolist() == [[40, 30]] * 2
    assert "1 images with several classes and 1 without" in data.summary["notes"][0]
    assert data.read(1).shape == (3, 30, 40)
    counted_from_0 = open_boxed(tmp_path / "t", shapes_backbone, Labels(), first_pixel=0)
    assert counted_from_0.boxes[1].tolist() == [[2, 3, 40, 30]]


def test_cub(tmp_path, shapes_backbone):
    names = ["star/One_1.jpg", "ring/Two_2.jpg", "ring/Three_3.jpg"]
    for name in names:
        photo(tmp_path / "images" / name)
    lines = "".join(f"{n} {name}\n" for n, name in enumerate(names, 1))
    (tmp_path / "images.txt").write_text(lines)
    (tmp_path / "bounding_boxes.txt").write_text(
        "".join(f"{n} 3.0 4.0 20.0 {n}.0\n" for n in (1, 2, 3))
    )
    (tmp_path / "train_test_split.txt").write_text("1 0\n2 1\n3 0\n")
    data = open_boxed(tmp_path, shapes_backbone, Labels())
    assert [Path(path).name for path in data.images.paths] == ["One_1.jpg", "Three_3.jpg"]
    assert data.boxes[1].tolist() == [[3, 4, 23, 7]]
    assert [SHAPES[label] for label in data.images.labels] == ["star", "ring"]
    train = open_boxed(tmp_path, shapes_backbone, Labels(split="train"))
    assert len(train) == 1
    (tmp_path / "bounding_boxes.txt").write_text("1 3.0 4.0 20.0 5\n")
    with pytest.raises(UsageError, match=r"1 of 2 have nothing in .*image number 3"):
        open_boxed(tmp_path, shapes_backbone, Labels())


@pytest.mark.parametrize("form", ["kaggle", "xml", "beside"])
def test_imagenet(tmp_path, backbone, form):
    spec = replace(backbone.spec, num_classes=1000)
    of_imagenet = replace(backbone, spec=spec, provenance=Provenance())
    folder = tmp_path / ("ILSVRC/Data/CLS-LOC/val" if form != "beside" else "val")
    names = ["ILSVRC2012_val_00000001", "ILSVRC2012_val_00000002"]
    inner = "" if form == "kaggle" else "n01751748"
    for name in names:
        photo(folder / inner / f"{name}.JPEG")
    boxes = [
        [("n01751748", 11, 8, 41, 20)],
        [("n01440764", 4, 4, 9, 12), ("n01440764", 2, 6, 37, 20)],
    ]
    if form == "kaggle":
        rows = [" ".join(map(str, sum(of, ()))) for of in boxes]
        lines = [f"{name},{row} " for name, row in zip(names, rows, strict=True)]
        table = "\n".join(["ImageId,PredictionString", *lines])
        (tmp_path / "LOC_val_solution.csv").write_text(table)
    else:
        place = folder if form == "beside" else tmp_path / "ILSVRC/Annotations/CLS-LOC/val"
        for name, of in zip(names, boxes, strict=True):
            xml(place / f"{name}.xml", of)
    data = open_boxed(tmp_path, of_imagenet, Labels())
    assert data.images.labels.tolist() == [65, 0]
    assert data.boxes[1].tolist() == [[4, 4, 9, 12], [2, 6, 37, 20]]


def test_tables_that_cannot_be_read(tmp_path, backbone, shapes_backbone):
    spec = replace(backbone.spec, num_classes=1000)
    of_imagenet = replace(backbone, spec=spec, provenance=Provenance())
    table = tmp_path / "LOC_val_solution.csv"
    photo(tmp_path / "val/a.jpg")
    table.write_bytes(b"ImageId,PredictionString\ra,n01440764 1 2 3 4\r")  # of an old Macintosh
    assert open_boxed(tmp_path, of_imagenet, Labels()).boxes[0].tolist() == [[1, 2, 3, 4]]
    table.write_text("ImageId,PredictionString\na," + "n01440764 1 2 3 4 " * 10_000)
    with pytest.raises(UsageError, match=r"solution\.csv is no table that can be read"):
        open_boxed(tmp_path, of_imagenet, Labels())
    photo(tmp_path / "val/n01440764/a.jpg")
    with pytest.raises(UsageError, match=r"val/a\.jpg and .*n01440764/a\.jpg have one name"):
        open_boxed(tmp_path, of_imagenet, Labels())

    for number in (1, 2):
        photo(tmp_path / f"images/star/{number}.jpg")
    lines = {"images": "1 star/1.jpg\n2 star/2.jpg\n", "train_test_split": "1 0\n2 0\n",
             "bounding_boxes": "1 1 1 9 9\n2 1 1 9 9\n"}  # fmt: skip
    for cut in lines:
        for name, text in lines.items():
            (tmp_path / f"{name}.txt").write_text(text[: len(text) // 2] if name == cut else text)
        with pytest.raises(UsageError, match=f"1 of 2 have nothing in .*{cut}.txt: image number 2"):
            open_boxed(tmp_path, shapes_backbone, Labels())


def spoil(root: Path, what: str) -> None:
    if what == "class":
        xml(root / "Annotations/d.xml", [("dog", 2, 3, 40, 30)])
    elif what == "box":
        xml(root / "Annotations/d.xml", [("ring", 45, 3, 50, 30)])
    elif what == "number":
        xml(root / "Annotations/d.xml", [("ring", "x", 3, 50, 30)])
    elif what == "xml":
        (root / "Annotations/d.xml").write_text("<annotation>")
    elif what == "digits":
        size = f"<size><width>{'9' * 5000}</width><height>30</height></size>"
        text = (
            (root / "Annotations/d.xml").read_text().replace("<annotation>", f"<annotation>{size}")
        )
        (root / "Annotations/d.xml").write_text(text.replace("ring", "dog"))
    elif what == "no xml":
        (root / "Annotations/d.xml").unlink()
    elif what == "image":
        (root / "JPEGImages/d.jpg").write_bytes(b"no image")
    elif what == "no image":
        (root / "JPEGImages/d.jpg").unlink()
    elif what == "split":
        (root / "ImageSets/Main/val.txt").rename(root / "ImageSets/Main/minival.txt")
    elif what == "one class":
        (root / "ImageSets/Main/val.txt").write_text("b\n")
    else:
        (root / "JPEGImages").rename(root / "Photos")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("class", "1 of the 2 classes in .* are none of the classifier's 10: dog"),
        ("box", "d.xml: the box of a ring on d.jpg is 44, 2, 50, 30 .* 40 x 30"),
        ("number", "d.xml: the box of a ring: 'x 3 50 30' is no box"),
        ("xml", "d.xml is no XML"),
        ("digits", "none of the classifier's 10: dog"),
        ("no xml", "1 of 4 have nothing in any XML file"),
        ("image", "d.jpg is no image"),
        ("no image", "1 of 4 have nothing in .*JPEGImages: image d"),
        ("split", "no split test in .*; it has minival"),
        ("one class", "none of the 1 images shows one class"),
        ("layout", "no images with boxes of a known layout"),
    ],
)
def test_mistakes(tmp_path, shapes_backbone, what, message):
    root = voc_tree(tmp_path / "t")
    spoil(root, what)
    with pytest.raises(UsageError, match=message):
        open_boxed(root, shapes_backbone, Labels())


def test_outputs_without_names(tmp_path, backbone):
    tree = voc_tree(tmp_path / "t")
    with pytest.raises(UsageError, match="give --class-order"):
        open_boxed(tree, backbone, Labels())
    spec = replace(backbone.spec, num_classes=2)
    data = open_boxed(tree, replace(backbone, spec=spec), Labels(class_order="alphabetical"))
    assert data.images.labels.tolist() == [1, 0]


def test_photo_turned_by_its_tag(tmp_path, shapes_backbone):
    tree = voc_tree(tmp_path / "t")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(tree / "JPEGImages/d.jpg", exif=exif)
    data = open_boxed(tree, shapes_backbone, Labels())
    assert data.turned.tolist() == [False, True]
    assert data.sizes[1].tolist() == [40, 30]
    assert data.read(1).shape == (3, 30, 40)


# the suite


@pytest.fixture(scope="module")
def bright_tree(tmp_path_factory) -> Path:
    """Black images of several shapes with a white rectangle, the object."""
    root = tmp_path_factory.mktemp("bright")
    (root / "ImageSets/Main").mkdir(parents=True)
    draw, names = np.random.default_rng(0), []
    for number in range(6):
        height, width = draw.integers(90, 200, 2)
        pixels = np.zeros((height, width, 3), np.uint8)
        top, left = (int(side * 0.35) for side in (height, width))
        bottom, right = top + int(height * 0.4), left + int(width * 0.3)
        pixels[top:bottom, left:right] = 255
        names.append(f"{number}")
        Image.fromarray(pixels).save(photo(root / f"JPEGImages/{number}.png"))
        box = (SHAPES[number % 2], left + 1, top + 1, right, bottom)
        xml(root / f"Annotations/{number}.xml", [box], (int(width), int(height)))
    (root / "ImageSets/Main/test.txt").write_text("\n".join(names))
    return root


def by_brightness(network, images, classes, methods):
    """In place of `class_maps`: the image; even classes are predicted right."""
    light = images.mean(1)
    light = light - light.amin((1, 2), keepdim=True)
    return functional.one_hot(classes * 0, 10).float(), dict.fromkeys(methods, light)


@pytest.mark.parametrize("geometry", ["crop", "whole"])
def test_true_boxes_are_where_the_objects_are(
    tmp_path, shapes_backbone, bright_tree, geometry, monkeypatch, no_picture
):
    monkeypatch.setattr(localisation, "class_maps", by_brightness)
    options = LocalisationConfig(geometry=geometry, threshold=0.5)
    data = localisation.open_data(shapes_backbone, bright_tree, options, Labels())
    metrics = localisation.evaluate(shapes_backbone, data, options, session(tmp_path))
    assert metrics["images"] == 6
    assert metrics["top1"] == 50
    assert metrics["outside"] == 0
    assert metrics["cam_gt_known_loc"] == metrics["grad_cam_gt_known_loc"] == 100
    assert metrics["cam_top1_loc"] == 50
    # at IoU 0.7 too, at one threshold for all
    assert metrics["cam_max_box_acc"] == metrics["cam_max_box_acc_v2"] == 100


def test_an_object_outside_the_crop_is_not_found(
    tmp_path, shapes_backbone, monkeypatch, no_picture
):
    monkeypatch.setattr(localisation, "class_maps", by_brightness)
    tree = voc_tree(tmp_path / "t")
    photo(tree / "JPEGImages/d.jpg", (200, 50))
    xml(tree / "Annotations/d.xml", [("ring", 1, 1, 40, 50)], (200, 50))
    options = LocalisationConfig()
    data = localisation.open_data(shapes_backbone, tree, options, Labels())
    metrics = localisation.evaluate(shapes_backbone, data, options, session(tmp_path / "run"))
    assert metrics["outside"] == 1
    whole = replace(options, geometry="whole")
    again = localisation.evaluate(shapes_backbone, data, whole, session(tmp_path / "whole"))
    assert again["outside"] == 0


def test_suite_on_synthetic_shapes(tmp_path, shapes_backbone, monkeypatch):
    shown = []
    monkeypatch.setattr(localisation, "draw_maps", lambda *given: shown.append(given))
    tree = synthetic.detection(tmp_path, train=1, val=9, size=64, most_objects=1, smallest=0.15)
    assert len(open_boxed(tree, shapes_backbone, Labels(split="train"))) == 1
    options = LocalisationConfig()
    data = localisation.open_data(shapes_backbone, tree, options, Labels())
    assert data.summary["images"] == data.summary["boxes"] == 9
    assert "4 x 4 positions" in data.summary["notes"][-1]
    results = [
        localisation.evaluate(shapes_backbone, data, options, session(tmp_path / f"{size}", size))
        for size in (9, 2)
    ]
    assert results[0] == results[1]
    assert results[0]["cam_top1_loc"] <= results[0]["cam_gt_known_loc"] <= 100
    # a finished part is not measured again
    part = tmp_path / "9/parts/localisation/maps.json"
    part.write_text(part.read_text().replace('"images": 9', '"images": 8'))
    kept = localisation.evaluate(shapes_backbone, data, options, session(tmp_path / "9", 9))
    assert kept["images"] == 8
    images, threshold, path = shown[0]
    assert [len(given[0]) for given in shown] == [8] * 3
    monkeypatch.undo()
    localisation.draw_maps(images[:1], threshold, path)
    assert path == tmp_path / "9/pictures/localisation.png"
    assert path.is_file()


def test_no_classifier(tmp_path, shapes_backbone):
    tree = voc_tree(tmp_path / "t")
    none = replace(shapes_backbone, spec=replace(shapes_backbone.spec, num_classes=0))
    with pytest.raises(UsageError, match="no classifier"):
        localisation.open_data(none, tree, LocalisationConfig(), Labels())
