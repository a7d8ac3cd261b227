"""Label maps of images and volumes from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from pretrain.errors import UsageError
from pretrain.training import make_fabric
from tests.tools.test_tools import fails
from tools import segment as tool
from transfer.image_files import find_images
from transfer.segmentation.config import DatasetConfig, SegmentationConfig, SegmenterConfig
from transfer.segmentation.inference import (
    SegmenterFile,
    UnlabelledImage,
    load_segmenter,
    predict,
)
from transfer.segmentation.nifti import read_volume
from transfer.segmentation.setup import build_model
from transfer.segmentation.volumes import find_volumes, read_slices

CLASSES = ("background", "ring", "star")


def save(folder: Path, backbone, volumes: bool, **dataset) -> Path:
    """An untrained segmenter, whose label maps are no more uniform than those of a trained one."""
    config = SegmentationConfig(
        segmenter=SegmenterConfig(kind="unet", decoder_channels=(8, 8, 8, 8, 8)),
        dataset=DatasetConfig(**dataset),
    )
    torch.manual_seed(1)
    model = build_model(backbone, config.segmenter, len(CLASSES))
    SegmenterFile(model, backbone, config, CLASSES, volumes).save(folder / "segmenter.pth")
    return folder


@pytest.fixture(scope="module")
def segmenter(tiny_backbone, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("images"), tiny_backbone, False, short_side=48)


@pytest.fixture(scope="module")
def of_volumes(tiny_backbone, tmp_path_factory) -> Path:
    return save(tmp_path_factory.mktemp("volumes"), tiny_backbone, True, spacing=2.0)


def call(segmenter: Path, images: Path, out: Path, *words: str) -> None:
    options = ["--segmenter", segmenter, "--images", images, "--out", out, "--device", "cpu"]
    tool.main([str(word) for word in (*options, *words)])


def noise(path: Path, height: int, width: int, **options) -> None:
    draw = np.random.default_rng(height)
    small = Image.fromarray(draw.integers(0, 256, (6, 7, 3), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    small.resize((width, height)).save(path, **options)


@pytest.fixture
def photos(tmp_path) -> Path:
    """As people keep them: folders, a turned photo, hidden and broken files, notes."""
    folder, exif = tmp_path / "photos", Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise(folder / "a.png", 60, 90)
    noise(folder / "b" / "a.png", 90, 60)
    noise(folder / "turned.jpg", 50, 80, exif=exif)
    noise(folder / ".hidden.png", 9, 9)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:300])
    (folder / "notes.txt").write_text("no image")
    return folder


def test_label_maps_of_a_folder(segmenter, photos, tmp_path, capsys):
    out = tmp_path / "out"
    call(segmenter, photos, out)
    said = capsys.readouterr()
    assert "3 images of 3 classes: " in said.out
    assert "broken.jpg is no image" in said.err
    assert "cut.png" in said.err
    written = {p.relative_to(out / "masks").as_posix(): p for p in (out / "masks").rglob("*.png")}
    assert sorted(written) == ["a.png", "b/a.png", "turned.png"]
    network, fabric = load_segmenter(segmenter), make_fabric("cpu")
    counts = np.zeros(3)
    with pytest.raises(UsageError, match="cut short"):
        predict(network.model, UnlabelledImage(find_images(photos / "cut.png")[0]),
                network.dataset, fabric)  # fmt: skip
    for name, size in (("a", (90, 60)), ("b/a", (60, 90)), ("turned", (50, 80))):
        with Image.open(written[f"{name}.png"]) as image:
            assert (image.mode, image.size) == ("P", size)
            labels = np.asarray(image)
        record = {one.name: UnlabelledImage(one) for one in find_images(photos)}[name]
        wanted = predict(network.model, record, network.dataset, fabric)
        assert np.array_equal(labels, wanted)
        assert len(np.unique(labels)) > 1
        counts += np.bincount(labels.ravel(), minlength=3)
        with Image.open(out / "pictures" / f"{name}.png") as picture:
            assert (picture.mode, picture.size) == ("RGB", size)
    rows = json.loads((out / "classes.json").read_text())
    assert [row["name"] for row in rows] == list(CLASSES)
    assert [row["share"] for row in rows] == pytest.approx(counts / counts.sum())
    assert rows[1] == {**rows[1], "value": 1, "colour": [128, 0, 0]}


def test_one_image_as_stored_without_pictures(segmenter, photos, tmp_path):
    words = ("--exif", "ignore", "--no-pictures")
    call(segmenter, photos / "turned.jpg", tmp_path / "out", *words)
    with Image.open(tmp_path / "out" / "masks" / "turned.png") as image:
        assert image.size == (80, 50)
    assert not (tmp_path / "out" / "pictures").exists()


def test_label_volumes_lie_in_the_grid_of_their_images(of_volumes, worlds_of_hearts, tmp_path):
    import nibabel

    out, patient = tmp_path / "out", worlds_of_hearts / "training" / "patient001"
    call(of_volumes, worlds_of_hearts / "training", out)
    files = find_volumes(worlds_of_hearts / "training")
    assert len(files) == 2 * len(list((worlds_of_hearts / "training").iterdir()))
    network, fabric = load_segmenter(of_volumes), make_fabric("cpu")
    first = next(file for file in files if file.path.parent == patient)
    slices = read_slices(first)
    wanted = np.stack([predict(network.model, s, network.dataset, fabric) for s in slices])
    written = out / "masks" / f"{first.name}_segmentation.nii.gz"
    image, labels = nibabel.load(first.path), nibabel.load(written)
    assert labels.shape == image.shape
    assert labels.get_data_dtype() == np.uint8
    assert np.array_equal(labels.affine, image.affine)
    assert labels.header.get_zooms() == image.header.get_zooms()
    # the same turn as that of the image leads from the file to the slices that were labelled
    assert np.array_equal(read_volume(written).voxels, wanted)
    assert len(np.unique(wanted)) > 1
    assert len(list((out / "pictures" / first.name).iterdir())) == len(slices)


@pytest.fixture(scope="module")
def worlds_of_hearts(tmp_path_factory) -> Path:
    from pretrain.synthetic import heart

    return heart(tmp_path_factory.mktemp("hearts"), patients=2, size=32, slices=3)


def test_volumes_of_a_folder_as_people_keep_them(of_volumes, worlds_of_hearts, tmp_path, capsys):
    patient = worlds_of_hearts / "training" / "patient001"
    source = next(patient.glob("*_frame01.nii.gz"))
    folder = tmp_path / "volumes"
    (folder / "b").mkdir(parents=True)
    shutil.copy(source, folder / "a.nii.gz")
    shutil.copy(source, folder / "b" / "a.nii.gz")
    shutil.copy(source, folder / "a_gt.nii.gz")
    shutil.copy(source, folder / ".hidden.nii.gz")
    (folder / "cut.nii.gz").write_bytes(source.read_bytes()[:200])
    call(of_volumes, folder, tmp_path / "out", "--no-pictures")
    said = capsys.readouterr()
    assert "2 volumes of 3 classes" in said.out
    assert "left out: " in said.err
    masks = tmp_path / "out" / "masks"
    assert sorted(p.relative_to(masks).as_posix() for p in masks.rglob("*.gz")) == [
        "a_segmentation.nii.gz", "b/a_segmentation.nii.gz",
    ]  # fmt: skip
    (folder / "a.nii").write_bytes(b"")
    with pytest.raises(UsageError, match="two volumes called a"):
        find_volumes(folder)


def test_mistakes(segmenter, of_volumes, photos, worlds_of_hearts, tmp_path, capsys):
    patient = worlds_of_hearts / "training" / "patient001"
    volume = next(patient.glob("*_frame01.nii.gz"))
    empty = tmp_path / "empty"
    empty.mkdir()
    out = ["--out", tmp_path / "out", "--device", "cpu"]
    for words, said in (
        (["--segmenter", empty, "--images", photos], "there is no segmenter"),
        (["--segmenter", segmenter, "--images", empty], "no folder with images"),
        (["--segmenter", segmenter, "--images", volume], "was trained on images"),
        (["--segmenter", segmenter, "--images", patient], "was trained on images"),
        (["--segmenter", of_volumes, "--images", photos], "was trained on slices of volumes"),
        (["--segmenter", of_volumes, "--images", photos / "no"], "there is no file or folder"),
        (["--segmenter", of_volumes, "--images", photos / "a.png"], "slices of volumes"),
        (["--segmenter", segmenter, "--images", photos, "--workers", "-1"], "--workers is -1"),
        (["--segmenter", segmenter, "--images", photos, "--out", photos / "x"], "lies in --images"),
    ):
        fails("segment", *out, *words, capsys=capsys, said=said)
    noise(photos / "a.jpg", 20, 20)
    words = ["--segmenter", segmenter, "--images", photos]
    fails("segment", *out, *words, capsys=capsys, said="two images called a")
    (empty / "a.png").write_bytes((photos / "a.png").read_bytes()[:300])
    words = ["--segmenter", segmenter, "--images", empty]
    with pytest.raises(UsageError, match=r"none of the images of .* can be read"):
        tool.main([str(word) for word in [*out, *words]])
    assert not (tmp_path / "out").exists()
