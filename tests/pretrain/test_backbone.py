"""The artifact: built, saved, loaded, opened by timm, refused when it is not what it says."""

import dataclasses
import re
import zipfile

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform

from pretrain.audit import load_strict
from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.config import PretrainConfig
from pretrain.errors import UsageError
from pretrain.run import plain
from tests.forked import call


def of(arch: str, **options) -> Backbone:
    spec = BackboneSpec(arch=arch, num_classes=7, **options)
    return Backbone.of(spec.create(7, seed=1), spec, Provenance())


def test_saved_and_loaded_is_the_same(backbone, tmp_path):
    backbone.save(tmp_path / "b.pth")
    again = Backbone.load(tmp_path / "b.pth")
    assert again.spec == backbone.spec
    assert again.provenance == backbone.provenance
    assert again.fingerprint() == backbone.fingerprint()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(again.build().eval()(images), backbone.build().eval()(images))
    again.save(tmp_path / "c.pth")
    assert (tmp_path / "b.pth").read_bytes() == (tmp_path / "c.pth").read_bytes()


def test_fingerprint_sees_every_change(backbone):
    prints = {backbone.fingerprint()}
    for name in ("conv1.0.weight", "layer4.0.bn2.running_var", "fc.bias"):
        changed = {key: tensor.clone() for key, tensor in backbone.weights.items()}
        changed[name].view(-1)[0] += 1e-6
        prints.add(dataclasses.replace(backbone, weights=changed).fingerprint())
    spec = dataclasses.replace(backbone.spec, std=(0.2, 0.2, 0.2))
    prints.add(dataclasses.replace(backbone, spec=spec).fingerprint())
    assert len(prints) == 5
    unchanged = dataclasses.replace(backbone, provenance=Provenance(seed=99))
    assert unchanged.fingerprint() == backbone.fingerprint()


def test_timm_opens_the_file_as_it_stands(backbone, tmp_path):
    backbone.save(tmp_path / "b.pth")
    theirs = timm.create_model("resnet10t", checkpoint_path=tmp_path / "b.pth", num_classes=10)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(theirs.eval()(images), backbone.build().eval()(images))


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        *((arch, {}) for arch in ("resnet18", "resnet10t", "convnext_atto")),
        ("mobilenetv3_small_050", {}),
        # their levels are not numbered 0, 1, 2, ...
        ("test_vit", {"img_size": (64, 96)}),
        ("dla46x_c", {}),
    ],
)
def test_features_equal_timm_s(arch, options):
    ours = of(arch, model_args=options)
    images = torch.randn(1, 3, 64, 96)
    found = ours.features(images)
    levels = ours.spec.levels()
    for level, feature in zip(levels, found, strict=True):
        assert feature.shape[1] == level.channels
        assert feature.shape[2:] == (64 // level.stride, 96 // level.stride)
    # timm's own way: the list of layers, filled from the classifier
    theirs = timm.create_model(arch, features_only=True, **options).eval()
    own = theirs.state_dict()
    flat = {re.sub(r"^(stages|stem|body)\.", r"\1_", k): v for k, v in ours.weights.items()}
    whole = {f"model.{name}": tensor for name, tensor in ours.weights.items()}
    source = {**flat, **ours.weights, **whole}
    theirs.load_state_dict({name: source[name] for name in own})
    for wanted, feature in zip(theirs(images), found, strict=True):
        torch.testing.assert_close(feature, wanted)


def test_classifier_kept_replaced_or_left_away(backbone):
    images = torch.randn(2, 3, 64, 64)
    assert backbone.build()(images).shape == (2, 10)
    assert backbone.build(num_classes=0)(images).shape == (2, 512)
    new = backbone.build(num_classes=10, seed=1)
    assert not torch.equal(new.fc.weight, backbone.weights["fc.weight"])
    assert torch.equal(new.layer1[0].conv1.weight, backbone.weights["layer1.0.conv1.weight"])
    again = backbone.build(num_classes=10, seed=1)
    assert torch.equal(new.fc.weight, again.fc.weight)


def test_building_leaves_the_ambient_generator_alone(backbone):
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    backbone.build(num_classes=4)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize(("size", "crop_pct"), [((80, 100), 1.0), ((70, 64), 0.875)])
def test_preprocessing_equals_timm_s(size, crop_pct):
    spec = BackboneSpec(
        arch="resnet10t",
        input_size=(3, 64, 64),
        crop_pct=crop_pct,
        interpolation="bicubic",
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.3, 0.4),
    )
    ours = Backbone.of(spec.create(3, 0), dataclasses.replace(spec, num_classes=3), Provenance())
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    theirs = create_transform(
        spec.input_size, crop_pct=crop_pct, mean=spec.mean, std=spec.std, interpolation="bicubic"
    )
    found = ours.preprocess()(image)
    torch.testing.assert_close(found, theirs(image), atol=1e-5, rtol=0)
    # a decoded tensor is resized without PIL: at most two of 255 levels away
    pixels = torch.from_numpy(noise).permute(2, 0, 1)
    assert ((ours.preprocess()(pixels) - found).abs() * min(spec.std) * 255).max() < 2.5


def test_refused_when_cut_short(backbone_file, tmp_path):
    whole = backbone_file.read_bytes()
    for length in (0, 10, 1000, len(whole) // 2, len(whole) - 1):
        path = tmp_path / f"cut{length}.pth"
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="cut short or no torch file"):
            Backbone.load(path)


def test_refused_when_holding_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("code was run",))

    for name, content in {
        "a": Trap(),
        "b": {"state_dict": Trap()},
        "c": torch.nn.Linear(1, 1),
    }.items():
        path = tmp_path / f"{name}.pth"
        torch.save(content, path)
        with pytest.raises(UsageError, match="can run code"):
            Backbone.load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"epoch": 3, "arch": "resnet50", "state_dict": {}}, "another program.*arch"),
        ({"conv1.weight": torch.zeros(1)}, "another program.*conv1"),
        ([1, 2], "another program.*list"),
        ({"format": "checkpoint/1"}, "checkpoint for resuming"),
        ({"format": "detector/1"}, "detector/1"),
        ({"format": "backbone/1"}, "damaged"),
        (
            {"format": "backbone/1", "spec": {"arch": "x"}, "provenance": {}, "state_dict": {}},
            "BackboneSpec",
        ),
    ],
)
def test_refused_when_foreign(content, words, tmp_path):
    torch.save(content, tmp_path / "f.pth")
    with pytest.raises(UsageError, match=words):
        Backbone.load(tmp_path / "f.pth")


def test_refused_when_it_does_not_fit(backbone, tmp_path):
    for change in ("missing", "surplus", "shape", "arch"):
        weights, spec = dict(backbone.weights), backbone.spec
        if change == "missing":
            del weights["layer3.0.conv1.weight"]
        if change == "surplus":
            weights["extra.weight"] = torch.zeros(1)
        if change == "shape":
            weights["fc.weight"] = torch.zeros(11, 512)
        if change == "arch":
            spec = dataclasses.replace(spec, arch="resnet18")
        dataclasses.replace(backbone, spec=spec, weights=weights).save(tmp_path / "x.pth")
        with pytest.raises(UsageError, match="do not fit") as caught:
            Backbone.load(tmp_path / "x.pth")
        name = {
            "missing": "layer3.0.conv1.weight",
            "surplus": "extra.weight",
            "shape": "(11, 512), network (10, 512)",
            "arch": "conv1",
        }[change]
        assert name in str(caught.value)


def test_a_renamed_member_is_no_backbone(backbone_file, tmp_path):
    path = tmp_path / "renamed.pth"
    with zipfile.ZipFile(backbone_file) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.namelist():
            target.writestr(member.replace("data.pkl", "../data.pkl"), source.read(member))
    with pytest.raises(UsageError):
        Backbone.load(path)


def test_no_file_and_a_folder(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        Backbone.load(tmp_path / "none.pth")
    with pytest.raises(UsageError, match="is a folder"):
        Backbone.load(tmp_path)


def test_unknown_architecture_names_its_neighbours():
    with pytest.raises(UsageError, match=r"Did you mean resnet50"):
        BackboneSpec(arch="resnet5O").create(10, 0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"std": (0, 1, 1)},
        {"mean": (1, 2)},
        {"crop_pct": 0},
        {"num_classes": -1},
        {"interpolation": "wavelet"},
        {"input_size": (1, 8, 8)},
        {"model_args": {"a": object()}},
    ],
)
def test_impossible_specs_are_refused(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BackboneSpec(arch="resnet18", **wrong)


def test_loading_places_all_or_nothing():
    model = torch.nn.Linear(2, 2)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match=r"in the file, not in the network \(1\):\s+scale"):
        load_strict(
            model, {"weight": torch.ones(2, 2), "bias": torch.ones(2), "scale": torch.ones(1)}
        )
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    load_strict(
        model,
        {"weight": torch.ones(2, 2), "old.head": torch.ones(1)},
        new=["bias"],
        left=[r"old\..*"],
    )
    assert torch.equal(model.weight, torch.ones(2, 2))
    assert torch.equal(model.bias, before["bias"])


def test_importing_takes_no_device(tmp_path):
    """Of what is imported before a fork."""
    code = "import pretrain.engine, torch; assert not torch.cuda.is_initialized()"
    (tmp_path / "script.py").write_text(code)
    assert call(str(tmp_path / "script")).returncode == 0


def test_a_result_says_at_which_size_its_backbone_was_trained(backbone):
    assert backbone.describe()["input_size"] == list(backbone.spec.input_size)


def test_a_variant_is_a_recipe_without_what_replicates_may_differ_in(backbone):
    recipe = plain(PretrainConfig(data="a"))

    def recipe_hash(**changes) -> str | None:
        provenance = Provenance(recipe={**recipe, **changes})
        return dataclasses.replace(backbone, provenance=provenance).describe()["recipe_hash"]

    same = {"seed": 3, "name": "x", "data": "b", "accumulate": 4, "workers": 9, "tensorboard": True}
    assert recipe_hash(**same) == recipe_hash()
    assert re.fullmatch("[0-9a-f]{8}", recipe_hash())
    assert recipe_hash(mixing={**recipe["mixing"], "alpha": 0.5}) != recipe_hash()
    assert recipe_hash(init="a.pth") == recipe_hash(init="b.pth") != recipe_hash()
    assert recipe_hash(optimizer={**recipe["optimizer"], "lr": 0.5}) != recipe_hash()
    later = {"rotation": {"weight": 0.0, "angles": "all"}, "score_every": 1.0}
    mixing = {**recipe["mixing"], "args": {}, "decoupled": 0.0, "guide": None}
    assert recipe_hash(**later, mixing=mixing) == recipe_hash()
    assert recipe_hash(mixing={**mixing, "args": {"label": "one_hot"}}) != recipe_hash()
    assert recipe_hash(rotation={"weight": 0.5, "angles": "all"}) != recipe_hash()
    assert dataclasses.replace(backbone, provenance=Provenance()).recipe_hash is None


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ({"mixing": {"method": "cutmix"}}, "cutmix"),
        ({"mixing": {"method": "cutmix", "args": {"label": "one_hot"}}}, "cutmix label one_hot"),
        (
            {"mixing": {"method": "cutmix", "others": [{"method": "fmix", "args": {"alpha": 2}}]}},
            "cutmix+fmix alpha 2",
        ),
        ({"mixing": {"method": "none"}, "rotation": {"weight": 0.5}}, "none+rotation"),
        ({"mixing": {"method": "mixup", "decoupled": 0.1}}, "mixup+decoupled"),
        (None, "unknown"),
    ],
)
def test_what_distinguishes_a_pretraining(backbone, recipe, method):
    provenance = Provenance(recipe=recipe)
    assert dataclasses.replace(backbone, provenance=provenance).method == method
