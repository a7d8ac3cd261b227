"""The gallery of mixing, as a user calls it, and the guide of what it draws."""

import importlib
import re
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
import timm
import torch

from pretrain.backbone import Backbone, Provenance
from pretrain.config import WITHOUT_PARTNERS, Method, MethodConfig, MixingConfig
from pretrain.gallery import Viewer, view_through
from pretrain.mixing.schedule import METHODS, NETWORK_PARTS
from pretrain.spec import BackboneSpec
from tests.conftest import ROOT
from tests.mixing_options import table
from tests.tools.test_tools import fails
from tools.show_mixing import ABOUT
from transfer.detection.config import MixingConfig as BoxMixing

GUIDE = (ROOT / "docs" / "mixing.md").read_text(encoding="utf-8")
LOOKING = [
    name for name, kind in METHODS.items() if NETWORK_PARTS & {entry.name for entry in fields(kind)}
]


def run(*words: object) -> None:
    importlib.import_module("tools.show_mixing").main([str(word) for word in words])


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    """A small network of ten classes without names."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=10)
    spec = BackboneSpec(arch="test_resnet", num_classes=10, input_size=(3, 64, 64))
    return Backbone.of(network, spec, Provenance())


def batch(size: int = 32):
    """Images that are their number everywhere, of four classes."""
    number = torch.arange(4.0)
    images = (number / 4)[:, None, None, None].expand(4, 3, size, size)
    return images, torch.arange(4), ("a", "b", "c", "d")


def test_a_gallery_of_every_method(capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrain.gallery.draw_gallery", lambda rows, classes, path: None)
    monkeypatch.setattr("pretrain.gallery._ROUNDS", 1)
    run("--images", worlds["classification"] / "train", "--size", 32, "--count", 3)
    said = capsys.readouterr()
    assert f"note: left out without --backbone: {', '.join(LOOKING)}\n" in said.err
    for method in METHODS.keys() - LOOKING:
        assert f"\n{method}\n" in f"\n{said.out}"
        assert f"  {method}\n" in said.err  # progress
        draws = f"\n{method}\n  mean lam 0" in said.out
        assert draws == (method not in WITHOUT_PARTNERS), method


def test_variants_of_the_methods_that_have_them(capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    run("--images", worlds["classification"] / "train" / "star", "--count", 5, "--size", 24,
        "--method", "cutmix", "fmix", "--granularity", "half", "--probability", 0.4,
        "--partner", "any", "--args.label", "one_hot", "--args.decay_power=5",
        "--out", "half.png")  # fmt: skip
    said = capsys.readouterr().out
    shared = "probability 0.4, granularity half, partner any"
    assert f"cutmix, {shared}, label one_hot\n" in said
    assert f"fmix, {shared}, decay_power 5\n" in said
    assert 56 < float(said.split("fmix")[1].split("draws, ")[1].split(" %")[0]) < 64
    assert Path("half.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_methods_that_look_through_a_network(backbone, capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrain.gallery.draw_gallery", lambda rows, classes, path: None)
    monkeypatch.setattr("pretrain.gallery._ROUNDS", 1)
    backbone.save(Path("backbone.pth"))
    run("--images", worlds["classification"] / "train", "--count", 3,
        "--backbone", "backbone.pth", "--method", *sorted({*LOOKING} - {"transmix"}))  # fmt: skip
    said = capsys.readouterr()
    for method in ("manifold_mixup", "feature_cutmix"):
        assert re.search(f"{method}: level layer[12], drawn as pixels of its ", said.out)
    for method in ("puzzlemix", "snapmix"):
        assert f"{method}: looks through a classifier that is new and untrained\n" in said.out
    assert "a new, untrained one" in said.err


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "swin_tiny_patch4_window7_224"])
def test_features_are_shown_by_the_pixels_of_their_cells(arch):
    options = {"depths": (1, 1), "embed_dim": 24, "num_heads": (1, 1)} if "swin" in arch else {}
    options |= {} if "resnet" in arch else {"img_size": 32}
    network = timm.create_model(arch, num_classes=4, **options).eval()
    viewer = Viewer(mean=(0, 0, 0), std=(1, 1, 1), network=network)
    images, labels, classes = batch()
    recipe = MixingConfig(method="feature_cutmix", granularity="sample", args={"at": [1]})
    row = viewer.mix(recipe, (images, labels, classes), seed=1)
    assert re.match(r"level [\w.]+, drawn as pixels of its \d+ x \d+ cells", row.note)
    assert (row.mixed.lam < 1).any()
    seen = row.mixed.images[:, 0].mul(4).round().long()
    owned = torch.stack([(seen == own).float().mean((1, 2)) for own in range(4)], 1)
    torch.testing.assert_close(owned, row.mixed.targets)


def test_labels_that_a_pass_of_the_network_gives():
    network = timm.create_model("test_vit", num_classes=4, img_size=32).eval()
    viewer = Viewer(network=network)
    images, labels, classes = batch()
    images = torch.rand(images.shape, generator=torch.Generator().manual_seed(0))
    row = viewer.mix(MixingConfig(method="transmix"), (images, labels, classes), seed=3)
    own = row.mixed.targets[labels, labels]
    assert (own != row.mixed.lam).any()
    torch.testing.assert_close(row.mixed.targets.sum(1), torch.ones(4))


def test_a_network_that_knows_the_classes_keeps_its_classifier(backbone):
    names = [*"zydcbaxwvu"]
    known = Backbone(
        spec=backbone.spec, provenance=Provenance(classes=names), weights=backbone.weights
    )
    viewer, (_, labels, classes) = view_through(known, batch())
    assert [classes[label] for label in labels] == [*"abcd"]
    assert torch.equal(viewer.network.get_classifier().weight, backbone.weights["fc.weight"])


def test_a_network_that_takes_no_images_of_this_size():
    facts = {"num_classes": 4, "model_args": {"img_size": 32, "depth": 1}}
    spec = BackboneSpec(arch="vit_tiny_patch16_224", input_size=(3, 32, 32), **facts)
    vit = Backbone.of(spec.create(4, 0), spec, Provenance())
    with pytest.raises(ValueError, match=r"takes no images of 48 x 48 pixels .* Give --size 32"):
        view_through(vit, batch(48))


def test_every_method_is_listed(capsys):
    run("--list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*ABOUT]
    assert {*ABOUT} == {*get_args(Method)}
    for line in lines:
        name, about = line.split(maxsplit=1)
        assert about.split("; ")[0] == ABOUT[name]
        assert ("; needs a" in line or "; needs the" in line) == (name in LOOKING)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--images", "nowhere"], "there is no folder nowhere"),
        (["--images", "."], "holds 0 images, 8 are needed"),
        (["--count", "0"], "--count is 0"),
        (["--count", "1024", "--size", "8192"], "pixels; give less of one"),
        (["--alpha", "0", "--images", "WORLD"], "mixing.alpha is 0.0"),
        (["--out", "x.jpg"], "the picture is a .png"),
        (["--side", "2", "--images", "WORLD"], "mixing.side is 2.0"),
        (["--method", "snapmix"], "snapmix needs a network: give --backbone"),
        (["--args.decay", "2"], "--args has decay; the arguments of none, cutmix"),
        (["--method", "cutmix", "--args.label", "two_hot"], "mixing.args.label is 'two_hot'"),
        (["--method", "fmix", "--args.decay_power", "soft"], "decay_power is 'soft'"),
        (["--backbone", "nowhere.pth"], "there is no file nowhere.pth"),
    ],
)
def test_mistakes_with_the_gallery(words, said, capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    world = worlds["classification"] / "train"
    if "--images" not in words:
        words = [*words, "--images", "WORLD"]
    words = [world if word == "WORLD" else word for word in words]
    fails("show_mixing", *words, capsys=capsys, said=said)
    assert list(tmp_path.iterdir()) == []


# ---- detectors


def test_a_gallery_of_mixing_for_detectors(capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    run("--task", "detection", "--data", worlds["detection"], "--count", 2, "--size", 48)
    said = capsys.readouterr()
    assert re.search(
        r"^mosaic: \d+ objects whole, \d+ cut, \d+ dropped \(under 0\.25\)$", said.out, re.M
    )
    assert re.search(r"^mixup: \d+ objects whole, 0 cut, 0 dropped", said.out, re.M)
    assert "note: left out: copy_paste: mixing.copy_paste needs masks, and none of 10" in said.err
    assert Path("mixing.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_the_gallery_for_detectors_counts_and_draws(tmp_path, monkeypatch):
    from matplotlib.patches import Rectangle

    from transfer.detection import gallery
    from transfer.detection.mixing import Mixture
    from transfer.detection.sample import Sample

    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 5, 5], [2, 2, 6, 6], [3, 3, 3, 3]])
    one = Sample(torch.zeros(3, 8, 8, dtype=torch.uint8), boxes, torch.ones(4, dtype=torch.int64))
    mixture = Mixture(one, torch.tensor([1.0, 0.6, 0.2, 0.0]))
    pairs = [(one.select(torch.tensor([0])), mixture)]
    assert gallery.count_objects(pairs, 0.25) == (1, 1, 2)
    figures = []
    monkeypatch.setattr(gallery, "save_figure", lambda figure, path: figures.append(figure))
    gallery.draw_gallery({"cutmix": pairs}, 0.25, tmp_path / "x.png")
    drawn = [
        (patch.get_xy(), patch.get_linestyle())
        for axes in figures[0].axes
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    ]
    assert [(place, style == "-") for place, style in drawn] == [
        ((0, 0), True), ((0, 0), True), ((1, 1), True), ((2, 2), False)
    ]  # fmt: skip
    assert [text.get_text() for text in figures[0].axes[1].texts] == ["60 %", "20 %"]


def test_methods_for_detectors_are_listed(capsys):
    run("--task", "detection", "--list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*BoxMixing().chances]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "fmix"], "--method fmix is not of detection: mosaic, mixup, cutmix, copy_p"),
        (["--method", "copy_paste", "--data", "WORLD"], "needs masks, and none of 10 training"),
        (["--images", "."], "is detection: leave it out, or give --data"),
        (["--alpha", "2"], "--alpha is of --task classification, and the task is detection"),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--mixing.min_visible", "0"], "mixing.min_visible is 0"),
        (["--task", "classification", "--data", "."], "--data is of --task detection, and"),
        (["--task", "classification", "--method", "copy_paste"], "copy_paste is not of classif"),
        (
            ["--task", "classification", "--mixing.cutmix_alpha", "3"],
            "--mixing.cutmix_alpha is of --task detection",
        ),
    ],
)
def test_mistakes_with_the_gallery_for_detectors(
    words, said, capsys, tmp_path, monkeypatch, worlds
):
    monkeypatch.chdir(tmp_path)
    words = [worlds["detection"] if word == "WORLD" else word for word in words]
    task = [] if "--task" in words else ["--task", "detection"]
    fails("show_mixing", *task, *words, capsys=capsys, said=said)


# ---- segmenters


@pytest.mark.parametrize("size", [["--size", 48], []], ids=["given", "of the images"])
def test_a_gallery_of_mixing_for_segmenters(size, capsys, tmp_path, monkeypatch, worlds):
    monkeypatch.chdir(tmp_path)
    run("--task", "segmentation", "--data", worlds["segmentation"], "--count", 3, *size,
        "--dataset.scales", 1, 1, "--mixing.alpha", 2)  # fmt: skip
    said = capsys.readouterr().out
    for method in ("cutmix", "mosaic"):
        pasted = r": \d+ % of the pixels are of another image; void 0 % before, 0 % after"
        assert re.search(f"^{method}{pasted}$", said, re.M)
    assert Path("mixing.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("method", ["cutmix", "mosaic"])
def test_what_the_gallery_for_segmenters_draws(method, tmp_path, monkeypatch):
    from transfer.segmentation import gallery
    from transfer.segmentation.config import MixingConfig as MaskMixing

    number = torch.arange(4)[:, None, None].expand(4, 20, 20)
    images = number[:, None].float() - 1.5  # a slice of a volume
    row = gallery.make_row(images, number.byte(), MaskMixing(**{method: 1.0}), seed=3)
    assert torch.equal(row.mixed[:, 0], row.mixed_masks - 1.5)
    assert row.pasted == pytest.approx(float((row.mixed != images).float().mean()))
    assert row.pasted > 0.1
    figures = []
    monkeypatch.setattr(gallery, "save_figure", lambda figure, path: figures.append(figure))
    gallery.draw_gallery({method: row}, tmp_path / "x.png")
    above, below = [figures[0].axes[start : start + 8] for start in (0, 8)]
    for place, cell in enumerate(above):
        shown = cell.images[0].get_array()[..., 0]
        wanted = (row.images, row.mixed)[place % 2][place // 2, 0]
        assert shown.tolist() == ((wanted + 1.5) * 85).int().tolist()
        mask = below[place].images[0].get_array()
        assert mask[0, 0].tolist() == gallery.colour_map()[int(wanted[0, 0] + 1.5)].tolist()


def test_methods_for_segmenters_are_listed(capsys):
    run("--task", "segmentation", "--list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["cutmix", "mosaic"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "mixup"], "--method mixup is not of segmentation: cutmix, mosaic"),
        (["--alpha", "2"], "--alpha is of --task classification, and the task is segmentation"),
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--data", "WORLD", "--count", "1"], "--count is 1; two mix"),
        (["--mixing.alpha", "0"], "mixing.alpha is 0"),
    ],
)
def test_mistakes_with_the_gallery_for_segmenters(
    words, said, capsys, tmp_path, monkeypatch, worlds
):
    monkeypatch.chdir(tmp_path)
    words = [worlds["segmentation"] if word == "WORLD" else word for word in words]
    fails("show_mixing", "--task", "segmentation", *words, capsys=capsys, said=said)


# ---- docs/mixing.md


def test_the_table_of_options_is_that_of_the_code():
    (shown,) = re.findall(r"<!-- options -->\n(.*?)\n<!-- /options -->", GUIDE, re.S)
    assert shown.strip() == table()


def test_options_that_all_methods_share_have_one_default():
    flat = MethodConfig()
    for name, kind in METHODS.items():
        for entry in fields(kind):
            if name != "none" and hasattr(flat, entry.name):
                assert entry.default == getattr(flat, entry.name), f"{name}: {entry.name}"


def test_the_guide_says_what_the_list_says():
    said = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|.* \|.* \|.* \|$", GUIDE, re.M))
    rows = [(name, text) for name, text in said.items() if name in ABOUT]
    assert rows == [(name, text) for name, text in ABOUT.items() if name != "none"]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 8 worker processes")
@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", GUIDE, re.S))
def test_python_of_the_guide_runs_as_it_stands(block):
    torch.manual_seed(0)
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)
    names = {"images": images, "labels": labels, "loader": [(images, labels)] * 2}
    names["data"] = [(image, label) for image, label in zip(images, labels, strict=True)]
    names["model"] = timm.create_model("test_resnet", num_classes=1000)
    exec(block, names)
    if "loss" in names:
        assert names["loss"].isfinite()
        return
    if "mixed_loader" in names:
        loader = names["mixed_loader"]
        names["mixed_images"], names["targets"] = loader.collate_fn(names["data"])
    assert not torch.equal(names["mixed_images"], images)
    torch.testing.assert_close(names["targets"].sum(1), torch.ones(4))
