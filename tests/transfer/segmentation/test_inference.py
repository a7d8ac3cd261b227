"""Segmenter files, and label maps of large images."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.training import make_fabric
from tests.transfer.segmentation.test_pictures import Given
from transfer.segmentation.config import VOID, DatasetConfig, SegmentationConfig, SegmenterConfig
from transfer.segmentation.inference import (
    SegmenterFile,
    load_segmenter,
    predict,
    scoring_loader,
    segment,
    to_label_map,
)
from transfer.segmentation.setup import build_model

CONFIG = SegmentationConfig(
    segmenter=SegmenterConfig(kind="unet", freeze=5, decoder_channels=(8, 8, 8, 8, 8)),
    dataset=DatasetConfig(short_side=32),
)


@pytest.fixture(scope="module")
def segmenter(tiny_backbone, tmp_path_factory):
    """The folder of a run, and its network."""
    torch.manual_seed(0)
    model = build_model(tiny_backbone, CONFIG.segmenter, 3).eval()
    folder = tmp_path_factory.mktemp("run")
    SegmenterFile(model, tiny_backbone, CONFIG, ("background", "a", "b"), False).save(
        folder / "segmenter.pth"
    )
    return folder, model


@pytest.mark.parametrize("classes", [1, 2, 8, 9, 21, 150, 255])
@pytest.mark.parametrize("size", [(60, 83), (7, 5), (20, 31), (150, 140), (1, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_make_the_label_map_of_the_whole(classes, size, layout):
    draw = torch.Generator().manual_seed(classes)
    logits = torch.randn(1, classes, 20, 31, generator=draw).round(decimals=1)
    if classes > 20:
        logits[:, 17] = logits[:, 3]  # equal ones: the first is taken
    whole = functional.interpolate(logits, size, mode="bilinear").argmax(1)[0]
    label_map = to_label_map(logits.to(memory_format=layout)[0], size)
    assert label_map.dtype == torch.uint8
    assert torch.equal(label_map.long(), whole)


def test_no_more_than_a_few_classes_are_enlarged_at_once(monkeypatch):
    enlarge, seen = functional.interpolate, []

    def watched(logits, size, **options):
        seen.append(logits.shape[1])
        return enlarge(logits, size, **options)

    monkeypatch.setattr(functional, "interpolate", watched)
    to_label_map(torch.zeros(150, 8, 8), (64, 64))
    assert sum(seen) == 150
    assert max(seen) <= 8


def test_a_file_read_back_is_the_same_network(segmenter):
    folder, model = segmenter
    for path in (folder, folder / "segmenter.pth"):
        read = load_segmenter(path)
        assert (read.classes, read.volumes) == (("background", "a", "b"), False)
        assert read.dataset == CONFIG.dataset
        assert not read.model.training
        image = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
        with torch.inference_mode():
            assert torch.equal(read.model(image)["out"], model(image)["out"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.pop("spec"), "is damaged: KeyError('spec')"),
        (lambda c: c.update(format="detector/3"), "format 'detector/3', not 'segmenter/1'"),
        (lambda c: c.update(classes=5), "is damaged"),
        (lambda c: c.update(classes=["background", "a"]), "classifier"),
        (lambda c: c.update(config=None), "is damaged"),
        (lambda c: c["config"].update(dataset=[]), "is damaged"),
        (lambda c: c["config"]["dataset"].update(scales=[1]), "is damaged"),
        (lambda c: c["config"]["dataset"].update(new=1), "is damaged"),
        (lambda c: c["config"]["segmenter"].update(kind="swin"), "is damaged: KeyError('swin')"),
        (lambda c: c["spec"].update(arch="no"), "no"),
        (lambda c: c["state_dict"].popitem(), "classifier"),
        (lambda c: c.pop("volumes"), "is damaged: KeyError('volumes')"),
    ],
)
def test_a_damaged_file_is_named(segmenter, tmp_path, change, said):
    content = torch.load(segmenter[0] / "segmenter.pth", weights_only=True)
    content = copy.deepcopy(content)
    change(content)
    torch.save(content, tmp_path / "segmenter.pth")
    with pytest.raises(UsageError) as error:
        load_segmenter(tmp_path)
    assert said in str(error.value)


def test_what_is_no_segmenter(tmp_path):
    with pytest.raises(UsageError, match=r"there is no segmenter .*segmenter\.pth"):
        load_segmenter(tmp_path)
    (tmp_path / "segmenter.pth").write_bytes(b"PK")
    with pytest.raises(UsageError, match="cut short"):
        load_segmenter(tmp_path)
    torch.save([1], tmp_path / "segmenter.pth")
    with pytest.raises(UsageError, match="no segmenter of this project: format None"):
        load_segmenter(tmp_path)


class Counting(nn.Module):
    """Logits by the brightness of a pixel; notes the sizes of its batches."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, images):
        self.batches.append(tuple(images.shape))
        bright = images.float().mean(1, keepdim=True) - 127
        return {"out": torch.cat([-bright, bright], 1)}


def test_images_larger_than_training_crops_are_not_all_stacked(monkeypatch):
    monkeypatch.setattr("transfer.segmentation.inference._PIXELS_AT_ONCE", 1300)
    records = [Given(str(k), *size) for k, size in enumerate([(20, 30)] * 3 + [(40, 60)] * 2)]
    fabric, model = make_fabric("cpu"), Counting()
    loader = scoring_loader(records, DatasetConfig(), fabric, batch_size=5)
    seen = []
    segment(model, loader, fabric, lambda index, label_map, mask: seen.append(index))
    assert [shape[0] for shape in model.batches] == [2, 1, 1, 1]
    assert sorted(seen) == [0, 1, 2, 3, 4]


def test_images_of_one_size_go_in_one_batch_and_come_back_in_their_own():
    sizes = [(20, 30), (30, 20), (20, 30), (40, 60), (20, 30)]
    records = [Given(str(k), *size, seed=k) for k, size in enumerate(sizes)]
    fabric, model = make_fabric("cpu"), Counting()
    dataset = DatasetConfig(short_side=20)
    loader = scoring_loader(records, dataset, fabric, batch_size=4)
    seen = {}
    segment(model, loader, fabric, lambda *one: seen.update({one[0]: one[1:]}))
    assert model.batches == [(3, 3, 20, 30), (1, 3, 30, 20), (1, 3, 20, 30)]
    for index, (label_map, mask) in seen.items():
        assert label_map.shape == mask.shape == sizes[index]
        again = predict(model, records[index], dataset, fabric)
        assert torch.equal(label_map, torch.from_numpy(again))
        assert (mask == VOID).any()
    bright = records[0].read_image().float().mean(0) > 127
    assert torch.equal(seen[0][0].bool(), bright)
