"""Pictures of a run: which images, which colours, and that they are always the same bytes."""

from dataclasses import dataclass
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch

from pretrain.images import decode
from pretrain.palette import colour_map
from pretrain.run import Run
from pretrain.training import make_fabric
from transfer.segmentation import pictures
from transfer.segmentation.config import VOID, DatasetConfig, SegmentationConfig
from transfer.segmentation.label_maps import draw_overlay, write_label_map
from transfer.segmentation.pictures import (
    choose_records,
    draw_classes,
    draw_curve,
    draw_segmentations,
    to_rgb,
)
from transfer.segmentation.scores import SegmentationScores


@dataclass
class Given:
    """A record of noise, with stripes of classes and a void edge."""

    image_id: str
    height: int = 24
    width: int = 32
    classes: int = 3
    case: str = ""
    spacing: tuple[float, float] | None = None
    seed: int = 0

    def read_image(self):
        draw = torch.Generator().manual_seed(self.seed)
        if self.spacing:
            return torch.randn(1, self.height, self.width, generator=draw)
        size = (3, self.height, self.width)
        return torch.randint(0, 256, size, generator=draw, dtype=torch.uint8)

    def read_mask(self):
        mask = torch.arange(self.height)[:, None].expand(-1, self.width) % self.classes
        mask = mask.to(torch.uint8).clone()
        mask[:, -1] = VOID
        return mask


def test_colours_are_those_of_the_devkit():
    # http://host.robots.ox.ac.uk/pascal/VOC: VOClabelcolormap(256)
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 8: (64, 0, 0),
             15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    assert {value: tuple(colour_map()[value].tolist()) for value in known} == known
    assert len({tuple(colour) for colour in colour_map().tolist()}) == 256


@pytest.mark.parametrize("values", [(0, 255), (0, 1, 255), range(256)])
def test_a_label_map_on_disk_holds_its_values(tmp_path, values):
    from PIL import Image

    label_map = np.resize(np.array(values, np.uint8), (16, 20))
    write_label_map(tmp_path / "a.png", label_map)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), label_map)
        colours = np.asarray(image.convert("RGB"))
    assert np.array_equal(colours, colour_map()[label_map])


def test_an_overlay_leaves_the_background(tmp_path):
    image = np.full((2, 2, 3), 100, np.uint8)
    label_map = np.array([[0, 1], [0, 2]], np.uint8)
    for plain, first in ((0, 100), (None, 50)):
        draw_overlay(tmp_path / "a.png", image, label_map, plain)
        read = (matplotlib.image.imread(tmp_path / "a.png") * 255).round().astype(int)
        assert read[0, 0].tolist() == [first] * 3
        assert read[0, 1].tolist() == [50 + 64, 50, 50]


def test_images_are_spread_evenly_and_volumes_give_two_slices_each():
    records = [Given(str(number)) for number in range(100)]
    chosen = [int(record.image_id) for record in choose_records(records)]
    assert chosen == [0, 12, 25, 37, 50, 62, 75, 87]
    assert len(choose_records(records[:3])) == 3
    slices = [Given(f"{v}/{s}", case=f"v{v}") for v in range(20) for s in range(9)]
    ids = [record.image_id for record in choose_records(slices)]
    assert ids == ["0/3", "0/6", "5/3", "5/6", "10/3", "10/6", "15/3", "15/6"]
    assert len(choose_records([Given("a", case="v")])) == 2  # of one slice it twice


def test_a_slice_is_shown_in_grey():
    shown = to_rgb(Given("a", spacing=(1.0, 2.0)))
    assert shown.dtype == np.uint8
    assert shown.shape == (24, 32, 3)
    assert shown.min() == 0
    assert shown.max() == 255
    assert (shown == shown[..., :1]).all()
    flat = Given("a", spacing=(1.0, 1.0))
    flat.read_image = lambda: torch.zeros(1, 4, 4)
    assert to_rgb(flat).max() == 0


def test_colours_of_truth_prediction_and_errors_are_in_the_picture(tmp_path):
    record = Given("a", 24, 32, classes=2)
    wrong = np.full((24, 32), 5, np.uint8)
    classes = [f"class {number} with a very long name of its own" for number in range(80)]
    draw_segmentations([(record, wrong)], classes, tmp_path / "a.png")
    pixels = (matplotlib.image.imread(tmp_path / "a.png")[..., :3] * 255).round().astype(int)
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    shown = {tuple(c) for c, n in zip(colours.tolist(), counts.tolist(), strict=True) if n > 300}
    assert {(0, 0, 0), (128, 0, 0), (128, 0, 128), (224, 224, 192), (230, 25, 75)} <= shown
    assert (0, 128, 0) not in shown  # a class that does not occur is not in the legend


def test_pictures_of_any_size_are_always_the_same_bytes(tmp_path):
    names = ["background", "a$b", "c"]
    scores = SegmentationScores(
        mean_iou=None, iou=dict(zip(names, (90.0, None, 0.0), strict=True)), mean_dice=40.0,
        dice=dict(zip(names, (95.0, None, 0.0), strict=True)), pixel_accuracy=1.0, num_classes=2,
    )  # fmt: skip
    log = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "mIoU": 3.0, "Dice": 4.0}]
    records = [Given("$x_/" * 20, *shape) for shape in ((1, 1), (4, 200), (200, 4))]
    shown = [(record, record.read_mask().numpy()) for record in records]
    draw_segmentations([], names, tmp_path / "none.png")
    for time in "ab":
        draw_segmentations(shown, names, tmp_path / time / "segmentations.png")
        draw_classes(scores, tmp_path / time / "classes.png")
        draw_curve([*log, {**log[1], "epoch": 3}], tmp_path / time / "curve.png")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


class FirstChannels(torch.nn.Module):
    """Logits of two classes: red and green."""

    def forward(self, images):
        return {"out": images[:, :2].float()}


def test_a_run_shows_label_maps_of_its_images_less_unreadable_ones(monkeypatch, tmp_path):
    seen = []
    for name in ("draw_segmentations", "draw_classes", "draw_curve"):
        monkeypatch.setattr(pictures, name, lambda *given: seen.append(given))
    broken = Given("broken")
    broken.read_image = lambda: decode(tmp_path / "none.png")
    records = [Given("a", 12, 20), broken, Given("b", 20, 12, seed=1)]
    setup = SimpleNamespace(data=SimpleNamespace(val=records, classes=("a", "b")))
    config = SegmentationConfig(dataset=DatasetConfig())
    fabric = make_fabric("cpu")
    pictures.draw_all(FirstChannels(), setup, config, Run(tmp_path), fabric, None)
    (shown, _, path), _, _ = seen
    assert path == tmp_path / "pictures" / "segmentations.png"
    assert [record.image_id for record, _ in shown] == ["a", "b"]
    for record, label_map in shown:
        red, green = record.read_image()[:2]
        assert np.array_equal(label_map, (green > red).numpy())
