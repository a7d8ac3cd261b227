"""Mixing of boxes: pixels by plain NumPy, boxes by counting pixels, rates by counting images."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from pycocotools import mask as coco

from pretrain.errors import UsageError
from pretrain.mixing.boxes import paper_boxes
from pretrain.training import Loader
from transfer.coco_masks import may_belong, rasterize
from transfer.detection.coco import read_coco
from transfer.detection.config import DatasetConfig, DetectionConfig, MixingConfig
from transfer.detection.data import open_data
from transfer.detection.dataset import DetectionDataset, check_mixing, collate
from transfer.detection.mixing import (
    Mixture,
    copy_paste,
    cutmix,
    draw_method,
    draw_rectangle,
    mixup,
    mosaic,
    seen_around,
    seen_of_masks,
)
from transfer.detection.records import Record
from transfer.detection.sample import Sample
from transfer.detection.setup import build

# pycocotools 2.0.11 and NumPy 2.4
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
METHODS = ("mosaic", "mixup", "cutmix", "copy_paste")


def draws(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sample(seed: int, height: int, width: int, count: int = 3, value: int | None = None) -> Sample:
    """Noise, or one value, with objects at whole pixels; masks are random parts of their boxes."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (3, height, width), np.uint8)
    if value is not None:
        image[:] = value
    boxes, masks = [], np.zeros((count, height, width), bool)
    for mask in masks:
        left, top = rng.integers(0, (width - 2, height - 2))
        right, bottom = rng.integers((left + 2, top + 2), (width + 1, height + 1))
        boxes.append([left, top, right, bottom])
        mask[top:bottom, left:right] = rng.random((bottom - top, right - left)) < 0.6
        mask[top, left] = mask[bottom - 1, right - 1] = True  # so that the box is the mask's
    tensor = torch.tensor(np.array(boxes).reshape(-1, 4), dtype=torch.float32)
    labels = torch.arange(1, count + 1) + 10 * seed
    return Sample(torch.from_numpy(image), tensor, labels, torch.from_numpy(masks))


def edges(pixels: np.ndarray) -> list[int]:
    """The box of the pixels that are true."""
    rows, columns = np.flatnonzero(pixels.any(1)), np.flatnonzero(pixels.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def whole_box(box: torch.Tensor, shape: tuple[int, int]) -> np.ndarray:
    left, top, right, bottom = box.int().tolist()
    pixels = np.zeros(shape, bool)
    pixels[top:bottom, left:right] = True
    return pixels


def even(boxes: torch.Tensor) -> torch.Tensor:
    """Larger boxes, at even pixels."""
    return torch.cat([(boxes[:, :2] / 2).floor(), (boxes[:, 2:] / 2).ceil()], dim=1) * 2


def assert_seen(mixture: Mixture, place: int, before: np.ndarray, after: np.ndarray) -> None:
    """An object's share and box are those of its pixels that are left."""
    assert float(mixture.visible[place]) == pytest.approx(after.sum() / before.sum())
    if after.any():
        assert mixture.sample.boxes[place].tolist() == edges(after)


# ------------------------------------------------------------------------------------------ methods


def test_mosaic_is_that_of_ultralytics_without_its_affine():
    """Places are those of `_mosaic4` in ultralytics/data/augment.py, on a canvas of half its size.

    Boxes by counting pixels: of images that are even, halves are exact.
    """
    samples = [
        sample(k, 2 * h, 2 * w) for k, (h, w) in enumerate([(8, 9), (6, 12), (9, 5), (5, 8)])
    ]
    samples = [replace(s, boxes=even(s.boxes)) for s in samples]
    height, width = samples[0].size
    points = set()
    for seed in range(20):
        found = mosaic(samples, draws(seed))
        canvas, seen = np.full((3, height, width), 114, np.uint8), []
        point = draws(seed)
        yc, xc = (int(torch.randint(n // 4, n - n // 4 + 1, (), generator=point))
                  for n in (height, width))  # fmt: skip
        points.add((yc, xc))
        for place, one in enumerate(samples):
            half = np.asarray(Image.fromarray(one.image.permute(1, 2, 0).numpy()).resize(
                (one.size[1] // 2, one.size[0] // 2), Image.Resampling.BILINEAR))  # fmt: skip
            h, w = half.shape[:2]
            if place == 0:
                x1a, y1a, x2a, y2a = max(xc - w, 0), max(yc - h, 0), xc, yc
                x1b, y1b, x2b, y2b = w - (x2a - x1a), h - (y2a - y1a), w, h
            elif place == 1:
                x1a, y1a, x2a, y2a = xc, max(yc - h, 0), min(xc + w, width), yc
                x1b, y1b, x2b, y2b = 0, h - (y2a - y1a), min(w, x2a - x1a), h
            elif place == 2:
                x1a, y1a, x2a, y2a = max(xc - w, 0), yc, xc, min(height, yc + h)
                x1b, y1b, x2b, y2b = w - (x2a - x1a), 0, w, min(y2a - y1a, h)
            else:
                x1a, y1a, x2a, y2a = xc, yc, min(xc + w, width), min(height, yc + h)
                x1b, y1b, x2b, y2b = 0, 0, min(w, x2a - x1a), min(y2a - y1a, h)
            canvas[:, y1a:y2a, x1a:x2a] = half[y1b:y2b, x1b:x2b].transpose(2, 0, 1)
            for box in one.boxes:
                object_pixels = whole_box(box / 2, (h, w))
                after = np.zeros((height, width), bool)
                after[y1a:y2a, x1a:x2a] = object_pixels[y1b:y2b, x1b:x2b]
                seen.append((object_pixels, after))
        assert np.array_equal(found.sample.image.numpy(), canvas)
        assert found.sample.labels.tolist() == [1, 2, 3, 11, 12, 13, 21, 22, 23, 31, 32, 33]
        for place, (before, after) in enumerate(seen):
            assert_seen(found, place, before, after)
    assert len(points) > 15


def test_mixup_is_that_of_gluoncv():
    """gluoncv/data/mixup/detection.py, __getitem__; objects count in full."""
    own, other = sample(0, 10, 14), sample(1, 12, 9)
    for seed in range(5):
        found = mixup(own, other, 1.5, draws(seed))
        lambd = np.random.default_rng(
            int(torch.randint(2**63 - 1, (), generator=draws(seed)))
        ).beta(1.5, 1.5)
        mixed = np.zeros((12, 14, 3), dtype="float32")
        img1, img2 = (s.image.permute(1, 2, 0).numpy() for s in (own, other))
        mixed[: img1.shape[0], : img1.shape[1], :] = img1.astype("float32") * np.float32(lambd)
        mixed[: img2.shape[0], : img2.shape[1], :] += img2.astype("float32") * np.float32(1 - lambd)
        difference = found.sample.image.permute(1, 2, 0).numpy() - mixed.astype("uint8")
        assert (difference != 0).mean() < 0.01  # the product of a pixel, cut off beside an integer
        assert torch.equal(found.sample.boxes, torch.cat([own.boxes, other.boxes]))
        assert found.sample.labels.tolist() == [1, 2, 3, 11, 12, 13]
        assert found.visible.tolist() == [1] * 6


def test_cutmix_by_counting_pixels():
    counts = np.zeros(3, int)
    for seed in range(60):
        own, other = sample(seed, 9, 14, value=1), sample(seed + 1, 12, 8, value=2)
        found = cutmix(own, other, 1.0, draws(seed))
        pasted = found.sample.image[0].numpy() == 2
        left, top, right, bottom = edges(pasted)
        assert pasted.sum() == (right - left) * (bottom - top)  # a rectangle, never empty
        assert right <= 8  # in the part that both have
        assert pasted.shape == (9, 14)
        for place, box in enumerate(own.boxes):
            before = whole_box(box, (9, 14))
            assert_seen(found, place, before, before & ~pasted)
        for place, box in enumerate(other.boxes, 3):
            before = whole_box(box, (12, 8))
            after = np.zeros((9, 14), bool)
            after[:, :8] = before[:9]
            assert_seen(found, place, before, after & pasted)
        assert found.sample.labels.tolist() == [*own.labels, *other.labels]
        share = found.visible[:3].numpy()
        counts += [(share == 0).sum(), ((share > 0) & (share < 1)).sum(), (share == 1).sum()]
        kept = found.keep(0.25)
        assert kept.labels.tolist() == found.sample.labels[found.visible >= 0.25].tolist()
    assert (counts > 5).all()


def test_the_rectangle_is_that_of_pretraining():
    for seed in range(30):
        found = draw_rectangle(200, 300, 0.7, np.random.default_rng(seed))
        rng = np.random.default_rng(seed)
        wanted = paper_boxes(np.array([rng.beta(0.7, 0.7)]), 200, 300, rng)[0].tolist()
        if wanted[0] < wanted[2] and wanted[1] < wanted[3]:
            assert list(found) == wanted
    draws_of_one = [draw_rectangle(1, 1, 1.0, np.random.default_rng(seed)) for seed in range(20)]
    assert set(draws_of_one) == {(0, 0, 1, 1)}


def test_copy_paste_by_counting_pixels():
    numbers, hidden = set(), 0
    for seed in range(60):
        own, other = sample(seed, 9, 14, value=1), sample(seed + 1, 12, 8, value=2)
        own.masks[0] = False  # its box stands for it
        other.masks[1] = False  # it is never pasted
        found = copy_paste(own, other, 0.4, draws(seed))
        room = [float(mask[:9].sum() / max(mask.sum(), 1)) for mask in other.masks]
        able = [k for k in range(3) if room[k] >= 0.4 and k != 1]
        if found is None:
            assert able == []
            continue
        chosen = [int(label) - 10 * (seed + 1) - 1 for label in found.sample.labels[3:]]
        assert set(chosen) <= set(able)
        assert chosen == sorted(chosen)
        numbers.add((len(chosen), len(able)))
        pasted = np.zeros((9, 14), bool)
        pasted[:, :8] = other.masks[chosen, :9].any(0).numpy()
        assert np.array_equal(found.sample.image[0].numpy(), np.where(pasted, 2, 1))
        for place, mask in enumerate(own.masks):
            before = mask.numpy() if place else whole_box(own.boxes[0], (9, 14))
            assert_seen(found, place, before, before & ~pasted)
            hidden += (before & pasted).any()
        for place, number in enumerate(chosen, 3):
            before = other.masks[number].numpy()
            after = np.zeros((9, 14), bool)
            after[:, :8] = before[:9]
            assert_seen(found, place, before, after)
    assert numbers >= {(1, 1), (1, 2), (2, 2)}
    assert hidden > 20


def test_a_box_stays_as_it_is_where_a_corner_alone_is_covered():
    own = replace(sample(0, 8, 8, count=1), boxes=torch.tensor([[0.5, 1.25, 6.5, 7]]))
    boxes, share = seen_around(own.boxes, (4, 3, 8, 8))
    assert torch.equal(boxes, own.boxes)
    assert float(share) == 1 - 3.5 * 3 / (6 * 5.75)
    assert seen_around(own.boxes, (4, 0, 8, 8))[0].tolist() == [[0.5, 1.25, 6.5, 4]]


def test_a_box_of_which_all_is_seen_stays_although_its_mask_has_another():
    own = sample(0, 9, 14)
    boxes = own.boxes + 0.25
    found, share = seen_of_masks(boxes, own.masks, own.masks)
    assert torch.equal(found, boxes)
    assert share.tolist() == [1, 1, 1]


def test_an_image_may_end_up_without_objects():
    own = sample(0, 8, 8, count=2)
    covered = Mixture(own, torch.tensor([0.0, 0.2])).keep(0.25)
    assert covered.boxes.shape == (0, 4)
    assert covered.labels.shape == (0,)
    for method in (mosaic, mixup, cutmix):
        rest = [1.0] if method is not mosaic else []
        args = ([covered] * 4,) if method is mosaic else (covered, covered)
        found = method(*args, *rest, draws(1)).keep(0.25)
        assert found.boxes.shape == (0, 4)


# --------------------------------------------------------------------------------- the data set

COLOURS = tuple(range(20, 200, 18))  # of ten images, each of one


@pytest.fixture
def records(monkeypatch) -> list[Record]:
    """Ten images of one colour each; 3 is broken, 0 to 4 have a mask, 5 one of another size."""

    def decode(path: Path, _: bool) -> torch.Tensor:
        if path.name == "3":
            raise UsageError("image 3 cannot be decoded.")
        return torch.full((3, 12, 12), COLOURS[int(path.name)], dtype=torch.uint8)

    monkeypatch.setattr("transfer.detection.dataset.decode", decode)
    square = json.dumps([[3, 3, 9, 3, 9, 9, 3, 9]])
    masks = [*[square] * 5, json.dumps({"size": [5, 5], "counts": [9, 16]}), *[None] * 4]
    return [
        Record(image_id=k, path=Path(f"{k}"), width=12, height=12, boxes=np.array([[3.0, 3, 9, 9]]),
               labels=np.array([k]), segmentations=(masks[k],))
        for k in range(10)
    ]  # fmt: skip


def dataset(records: list[Record], **mixing) -> DetectionDataset:
    config = DatasetConfig(short_side=12, flip=0.5)
    return DetectionDataset(records, config, train=True, mixing=MixingConfig(**mixing))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_asked_for_is_what_happens(method, records):
    """Whatever the partners are worth: the image is not its own, one is broken, five lack masks."""
    samples, count, mixed, partners = dataset(records, **{method: 0.3}, mixup_alpha=8), 450, 0, []
    torch.manual_seed(0)
    for _ in range(count):
        colours = set(samples[0][0].unique().tolist())
        mixed += colours != {COLOURS[0]}
        if method in ("cutmix", "copy_paste"):
            partners += [COLOURS.index(c) for c in colours & {*COLOURS[1:]}]
    assert abs(mixed / count - 0.3) < 4 * (0.3 * 0.7 / count) ** 0.5
    if partners:
        usable = {1, 2, 4} | ({5, 6, 7, 8, 9} if method == "cutmix" else set())
        shares = np.bincount(partners, minlength=10)[sorted(usable)] / mixed
        assert {*partners} == usable
        assert abs(shares - 1 / len(usable)).max() < 4 * (0.25 / mixed) ** 0.5


@pytest.mark.parametrize("method", METHODS[1:])
def test_an_image_is_not_its_own_partner(method, records):
    samples = dataset(records[:2], **{method: 1.0}, mixup_alpha=8)
    torch.manual_seed(0)
    assert not any((samples[0][0] == COLOURS[0]).all() for _ in range(30))


def test_a_partner_with_nothing_to_paste_is_drawn_again(records):
    samples = dataset([records[k] for k in (0, 1, 5)], copy_paste=1.0)
    torch.manual_seed(0)
    assert not any((samples[0][0] == COLOURS[0]).all() for _ in range(30))


def test_methods_are_drawn_by_their_chances():
    config = MixingConfig(mosaic=0.1, mixup=0.2, cutmix=0.3, copy_paste=0.4)
    draw = draws(0)
    found = [draw_method(config, draw) for _ in range(4000)]
    for method, chance in config.chances.items():
        share = found.count(method) / 4000
        assert abs(share - chance) < 4 * (chance * (1 - chance) / 4000) ** 0.5
    assert None not in found  # they are 1 together
    state = draw.get_state()
    assert draw_method(MixingConfig(), draw) is None
    assert torch.equal(draw.get_state(), state)


def test_the_same_bits_for_any_workers_from_any_step_and_none_mixed_from_off_epoch_on(records):
    half = {"mosaic": 0.3, "cutmix": 0.3, "copy_paste": 0.2, "off_epoch": 1}
    mixing, plain = dataset(records, **half), dataset(records)

    def batches(samples: DetectionDataset, epoch: int, workers: int = 0, first: int = 0) -> list:
        loader = Loader(samples, workers=workers, at_epoch=samples.at_epoch, collate=collate,
                        batch_size=2, seed=1, shuffle=True, drop_last=True, max_corrupt=1,
                        pin_memory=False)  # fmt: skip
        found = list(loader.epoch(epoch, first))
        assert all(message.startswith("image 3 ") for message in loader.corrupt.values())
        return found

    def same(one: list, two: list) -> bool:
        pairs = [
            (a, b) for x, y in zip(one, two, strict=True) for a, b in zip(x[0], y[0], strict=True)
        ]
        return all(torch.equal(a, b) for a, b in pairs)

    whole = batches(mixing, 0)
    assert same(whole, batches(mixing, 0, workers=2))
    assert same(whole[3:], batches(mixing, 0, first=3))
    assert not same(whole, batches(plain, 0))
    assert same(batches(mixing, 1), batches(plain, 1))


def test_a_second_image_is_needed_and_masks(records, worlds, backbone, monkeypatch):
    with pytest.raises(UsageError, match=r"mixing\.mixup needs a second training image"):
        check_mixing(records[:1], MixingConfig(mixup=1.0))
    with pytest.raises(UsageError, match=r"and 1 of 5 training.*mixing\.copy_paste at 0"):
        check_mixing(records[5:], MixingConfig(copy_paste=0.5))
    check_mixing(records, MixingConfig(copy_paste=0.5, mosaic=0.5))
    check_mixing(records[:1], MixingConfig())
    config = DetectionConfig(data=str(worlds["detection"]), mixing=MixingConfig(copy_paste=0.5))
    with pytest.raises(UsageError, match=r"needs masks, and none of 10 .*Pascal VOC's have not"):
        build(backbone, config)
    monkeypatch.setattr("transfer.detection.dataset.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="copy_paste needs pycocotools: pip install"):
        check_mixing(records, MixingConfig(copy_paste=0.5))
    check_mixing(records, MixingConfig(cutmix=0.5))


def test_where_hardly_a_partner_can_be_read_an_image_stays_as_it_is(records):
    samples = dataset([records[0], records[3]], cutmix=1.0)
    assert samples[0][0].unique().tolist() == [COLOURS[0]]


# ---------------------------------------------------------------------------------------- masks


def test_polygons_and_runs_are_those_of_pycocotools_and_pillow():
    rng = np.random.default_rng(0)
    for _ in range(20):
        corners = rng.integers(0, 30, (2, 5, 2))
        polygons = [one.ravel().tolist() for one in corners]
        runs = coco.merge(coco.frPyObjects(polygons, 24, 32))
        wanted = coco.decode(runs).astype(bool)
        lengths = np.diff(np.flatnonzero(np.diff(wanted.ravel("F"), prepend=False, append=True)))
        start = np.argmax(wanted.ravel("F"))
        lengths = [int(start), *map(int, lengths)]
        lengths[-1] += wanted.size - sum(lengths)
        compressed = {"size": [24, 32], "counts": runs["counts"].decode()}
        found = rasterize([polygons, compressed, [*polygons, [1, 2, 3, 4]]], 24, 32)
        for mask in found:
            assert np.array_equal(mask.numpy(), wanted)
        if not wanted[-1, -1]:
            plain = {"size": [24, 32], "counts": lengths}
            assert np.array_equal(rasterize([plain], 24, 32)[0].numpy(), wanted)
        convex = [[5, 4, 25, 6, 20, 20, 6, 17]]
        drawn = Image.new("1", (32, 24))
        ImageDraw.Draw(drawn).polygon(convex[0], fill=1)
        differ = rasterize([convex], 24, 32)[0].numpy() ^ np.asarray(drawn)
        assert differ.sum() < 40  # a line of pixels: Pillow's edges belong to the outline


@pytest.mark.parametrize("segmentation", [
    None, [], [[]], [[1, 2, 3, 4]], [[1, 2, 3, 4, 5]], [["a"] * 6], [[1e300] * 6], "PnW1", {},
    {"size": [8, 8], "counts": [10, 10]},  # they end too early
    {"size": [8, 8], "counts": [10, 10, 100]},
    {"size": [8, 8], "counts": [10, -10, 64]},
    {"size": [9, 8], "counts": [10, 62]},  # of another size
    {"size": [8, 8], "counts": "01:000"},
    {"size": [8, 8], "counts": ""},
])  # fmt: skip
def test_what_is_no_mask_is_an_empty_one(segmentation):
    assert not rasterize([segmentation], 8, 8).any()


@pytest.mark.parametrize(("segmentation", "may"), [
    ([[2, 2, 6, 2, 6, 6, 2, 6]], True),
    ([[0.2, 0.2, 0.6, 0.2, 0.6, 0.6]], False),  # in shares of the image
    ([[20, 2, 60, 2, 60, 6], [1, 2, 3, 4]], False),  # of an image that was resized later
    ({"size": [8, 9], "counts": [72]}, True),
    ({"size": [9, 8], "counts": [72]}, False),
])  # fmt: skip
def test_the_mask_of_another_object_or_size_is_none(segmentation, may):
    assert may_belong(segmentation, (1, 1, 5, 5), (9, 8)) == may
    assert may_belong(segmentation, (1, 1, 5, 5), (0, 0)) == (may or "size" in segmentation)


@pytest.fixture
def tree(tmp_path) -> Path:
    """Two images of 8 x 8; objects with polygon, runs, none, and a crowd."""
    (tmp_path / "annotations").mkdir()
    images = [{"id": k, "file_name": f"{k}.png", "width": 8, "height": 8} for k in (1, 2)]
    square = [[2, 2, 6, 2, 6, 6, 2, 6]]
    given = [(1, square, 0), (1, [], 0), (2, {"size": [8, 8], "counts": [8, 16, 40]}, 0),
             (2, {"size": [8, 8], "counts": [0, 64]}, 1)]  # fmt: skip
    objects = [
        {"id": k, "image_id": image, "category_id": 1, "bbox": [1, 1, 5 - k, 5], "iscrowd": crowd,
         "segmentation": segmentation} for k, (image, segmentation, crowd) in enumerate(given)
    ]  # fmt: skip
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / f"annotations/instances_{split}.json").write_text(json.dumps(content))
        for image in images:
            Image.new("RGB", (8, 8)).save(tmp_path / split / image["file_name"])
    return tmp_path


def test_masks_are_read_where_they_are_asked_for(tree):
    plain, asked = read_coco(tree, "train"), read_coco(tree, "train", masks=True)
    assert not any(any(record.segmentations) for record in plain.images)
    assert plain.issues == ()
    assert [issue.kind for issue in asked.issues] == ["object without a mask"]
    first, second = asked.for_training().images
    assert len(first.segmentations) == 2
    assert first.segmentations[1] is None
    assert len(second.segmentations) == len(second.labels) == 1  # no crowd
    data = open_data(tree, DatasetConfig(), masks=True)
    assert any("1 x object without a mask (never pasted" in note for note in data.notes)
    samples = DetectionDataset(data.train.images, DatasetConfig(square=32, flip=0.0), train=True)
    first, second = samples.read(0, masks=True)[0], samples.read(1, masks=True)[0]
    assert edges(first.masks[0].numpy()) == [8, 8, 24, 24]
    assert not first.masks[1].any()
    assert edges(second.masks[0].numpy()) == [4, 0, 12, 32]  # runs go down the columns
