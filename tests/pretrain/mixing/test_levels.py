"""Mixing inside of networks: against a pass that is cut at the level by hand, and in training."""

import copy
import json
import os
import subprocess
import sys

import pytest
import timm
import torch
from timm.layers.norm_act import convert_sync_batchnorm
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional

from pretrain import pictures
from pretrain.config import MethodConfig, MixingConfig, ModelConfig, OptimizerConfig
from pretrain.errors import Stopped, UsageError
from pretrain.mixing import (
    CutMix,
    FeatureCutMix,
    FeatureLevels,
    ManifoldMixup,
    Mixup,
    forward,
    mix_at,
    network_parts,
)
from pretrain.mixing.manifold_mixup import FeatureBlend
from pretrain.mixing.mixed import numpy_generator
from pretrain.mixing.network import token_grid
from pretrain.spec import create_outline
from tests.conftest import ROOT
from tests.pretrain.mixing import two_processes
from tests.pretrain.mixing.two_processes import CLASSES, batch, loss_of_micro_batch, seeded, small
from tests.pretrain.test_engine import assert_equal_runs, train

SWIN = {"embed_dim": 8, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2,
        "drop_path_rate": 0.0}  # fmt: skip


def network(arch: str, **options) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(arch, num_classes=CLASSES, **options).train()


def steps_of_resnet(model):
    stem = nn.Sequential(model.conv1, model.bn1, model.act1)
    layers = [model.layer2, model.layer3, model.layer4]
    names = ["act1", "layer1", "layer2", "layer3", "layer4"]
    return dict(
        zip(names, [stem, nn.Sequential(model.maxpool, model.layer1), *layers], strict=True)
    )


def steps_of_convnext(model):
    first = nn.Sequential(model.stem, model.stages[0])
    return {"stages.0": first} | {f"stages.{n}": model.stages[n] for n in (1, 2, 3)}


def steps_of_vit(model):
    def first(images):
        return model.blocks[0](model.norm_pre(model._pos_embed(model.patch_embed(images))))

    last = len(model.blocks) - 1
    rest = {f"blocks.{n}": model.blocks[n] for n in range(1, last)}
    return {
        "blocks.0": first,
        **rest,
        f"blocks.{last}": nn.Sequential(model.blocks[-1], model.norm),
    }


def steps_of_swin(model):
    first = nn.Sequential(model.patch_embed, model.layers[0])
    last = nn.Sequential(model.layers[3], model.norm)
    return {"layers.0": first, "layers.1": model.layers[1], "layers.2": model.layers[2]} | {
        "layers.3": last
    }


CASES = {
    "resnet": ("test_resnet", {}, steps_of_resnet, ("act1", "layer2")),
    "convnext": ("test_convnext", {}, steps_of_convnext, ("stages.0", "stages.2")),
    "vit": ("test_vit", {"img_size": (32, 48)}, steps_of_vit, ("blocks.0", "blocks.4")),
    "swin": (
        "swin_tiny_patch4_window7_224",
        {"img_size": (32, 48), **SWIN},
        steps_of_swin,
        ("layers.0", "layers.1"),
    ),
}


def cut_by_hand(model, steps, level, images, mix) -> Tensor:
    """Up to the level, `mix` on its features, and on."""
    features = images
    for name, step in steps(model).items():
        features = step(features)
        if name == level:
            features = mix(features)
    return model.forward_head(features)


@pytest.mark.parametrize("granularity", ["batch", "sample", "half"])
@pytest.mark.parametrize("case", CASES)
def test_manifold_mixup_equals_a_pass_cut_by_hand(case, granularity):
    arch, options, steps, levels = CASES[case]
    model = network(arch, **options)
    twin, hooked = copy.deepcopy(model), FeatureLevels(model)
    images, labels = batch(5, (32, 48))
    for level in levels:
        mix = ManifoldMixup(levels=hooked, at=(level,), granularity=granularity)
        mixed = mix(images, labels, CLASSES, seeded(3))
        logits, targets = forward(model, mixed)
        lam, partner = mixed.lam.tolist(), mixed.partner.tolist()

        def blend(features, lam=lam, partner=partner):
            rows = enumerate(zip(lam, partner, strict=True))
            return torch.stack(
                [share * features[i] + (1 - share) * features[j] for i, (share, j) in rows]
            )

        torch.testing.assert_close(
            logits, cut_by_hand(twin, steps, level, images, blend), atol=1e-5, rtol=1e-4
        )
        eye = torch.eye(CLASSES)[labels]
        torch.testing.assert_close(targets, blend(eye))
        assert 0 < min(lam) < 1
        assert mixed.note == level


@pytest.mark.parametrize("granularity", ["batch", "sample", "half"])
@pytest.mark.parametrize("case", CASES)
def test_feature_cutmix_equals_a_pass_cut_by_hand(case, granularity):
    """The same draws, put in by slices of rows and columns."""
    arch, options, steps, levels = CASES[case]
    model = network(arch, **options)
    twin, hooked = copy.deepcopy(model), FeatureLevels(model)
    images, labels = batch(5, (32, 48))
    pasted = 0
    for level, seed in zip(levels * 2, range(4), strict=True):
        mix = FeatureCutMix(levels=hooked, at=(level,), granularity=granularity)
        mixed = mix(images, labels, CLASSES, seeded(seed))
        if mixed.inside is None:
            assert (mixed.lam == 1).all()
            continue
        logits, targets = forward(model, mixed)
        lam = []

        def paste(features, mix=mix, seed=seed, lam=lam):
            tokens = case == "vit"
            prefix, cells = features[:, :1], features
            if tokens:  # a class token, then 2 x 3 patches of 16 pixels
                cells = features[:, 1:].unflatten(1, (2, 3))
            if case in ("vit", "swin"):
                cells = cells.movedim(3, 1)
            rng = numpy_generator(seeded(seed))
            rng.integers(1)
            pairs = mix.draw_pairs(len(cells), rng)
            boxes = pairs.spread(mix.draw_boxes(pairs.lam, *cells.shape[2:], rng), 0)
            pasted = cells[: len(boxes)].clone()
            for row, (top, left, bottom, right) in enumerate(boxes):
                other = cells[pairs.partner[row]]
                pasted[row, :, top:bottom, left:right] = other[:, top:bottom, left:right]
                lam.append(1 - (bottom - top) * (right - left) / cells[0, 0].numel())
            if case in ("vit", "swin"):
                pasted = pasted.movedim(1, 3)
            return torch.cat([prefix[: len(boxes)], pasted.flatten(1, 2)], 1) if tokens else pasted

        wanted = cut_by_hand(twin, steps, level, images, paste)
        torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(mixed.lam, torch.tensor(lam).float())
        assert torch.equal(targets, mixed.targets)
        pasted += sum(share < 1 for share in lam)
    assert pasted


def test_at_the_image_they_are_cutmix_and_mixup():
    hooked, (images, labels) = FeatureLevels(network("test_resnet")), batch(5)
    for plain, inside in ((Mixup, ManifoldMixup), (CutMix, FeatureCutMix)):
        generator = seeded(3)
        numpy_generator(generator)  # which drew the level
        wanted = plain(granularity="sample")(images, labels, CLASSES, generator)
        mixed = inside(levels=hooked, at=(0,), granularity="sample")(
            images, labels, CLASSES, seeded(3)
        )
        assert torch.equal(mixed.images, wanted.images)
        assert torch.equal(mixed.targets, wanted.targets)
        assert mixed.inside is None


LEVELS = {
    "test_resnet": (("act1",), ("layer1", "layer2", "layer3", "layer4")),
    "test_convnext": ((), ("stages.0", "stages.1", "stages.2", "stages.3")),
    "test_efficientnet": (("blocks.0",), ("blocks.1", "blocks.2", "blocks.3", "blocks.4")),
    "resnet20_cifar": ((), ("layer1", "layer2", "layer3")),
    "pyramidnet": ((), ("layer1", "layer2", "layer3")),
    "deit_tiny_patch16_224": ((), ("blocks.2", "blocks.5", "blocks.8", "blocks.11")),
}


@pytest.mark.parametrize("arch", LEVELS)
def test_levels_that_are_drawn(arch):
    """As the papers: image, act1 and all stages but the last; image and the first two stages."""
    stem, stages = LEVELS[arch]
    hooked = FeatureLevels(create_outline(arch, **{"depth": 11} if arch == "pyramidnet" else {}))
    assert (hooked.stem, hooked.stages) == (stem, stages)
    if arch not in ("test_resnet", "deit_tiny_patch16_224"):
        return
    images, labels = (
        torch.empty(4, 3, 224, 224, device="meta"),
        torch.zeros(4, device="meta").long(),
    )
    for method, wanted in (
        (ManifoldMixup, {"image", *stages[:2]}),
        (FeatureCutMix, {"image", *stem, *stages[:-1]}),
    ):
        mix, generator = method(levels=hooked), seeded(0)
        notes = {mix(images, labels, CLASSES, generator).note for _ in range(30)}
        assert notes == wanted


def test_grids_of_maps_and_tokens():
    assert token_grid(6, 32, 48) == (2, 3)
    assert token_grid(6, 48, 32) == (3, 2)
    assert token_grid(196, 224, 224) == (14, 14)
    assert token_grid(197, 224, 224) is None
    assert token_grid(0, 8, 8) is None
    small = {"depth": 2, "embed_dim": 12, "num_heads": 2}
    for arch, options, side, wanted in (
        ("vit_small_patch14_reg4_dinov2", small, 518, (37, 37, "NLC", 5)),
        ("cait_xxs24_224", small, 224, (14, 14, "NLC", 0)),  # its class token joins later
        ("swin_tiny_patch4_window7_224", SWIN | {"window_size": 7}, 224, (28, 28, "NHWC", 0)),
        ("samvit_base_patch16", small, 1024, (64, 64, "NHWC", 0)),
        ("mobilenetv3_small_050", {}, 225, (29, 29, "NCHW", 0)),
    ):
        hooked = FeatureLevels(create_outline(arch, **options))
        images = torch.empty(1, 3, side, side, device="meta")
        grid = hooked.grid(hooked.stages[1], images)
        assert (grid.rows, grid.columns, grid.layout, grid.prefix) == wanted


def test_what_a_network_lacks_is_said():
    model = network("test_resnet")
    hooked = FeatureLevels(model)
    for at in (("layer9",), (6,), ("act1", -1)):
        with pytest.raises(UsageError, match="ResNet are 0 image, 1 act1, 2 layer1"):
            ManifoldMixup(levels=hooked, at=at)
    with pytest.raises(UsageError, match="said to be layer1, head, but its modules are conv1"):
        FeatureLevels(model, ("layer1", "head"))
    with pytest.raises(UsageError, match=r"MultiScaleVit are said to be block\.0.*are patch_embed"):
        FeatureLevels(create_outline("mvitv2_tiny"))
    with pytest.raises(UsageError, match="Plain are said to be none"):
        FeatureLevels(Plain())
    for arch, level, fault, usable in (
        ("coat_lite_tiny", "serial_blocks1", "does not run it", "levels of image"),
        ("crossvit_9_240", "blocks.1", "gives no single tensor", "levels of image"),
    ):
        size = 240 if "240" in arch else 224
        images = torch.empty(4, 3, size, size, device="meta")
        mix = FeatureCutMix(levels=FeatureLevels(create_outline(arch)), at=(level,))
        with pytest.raises(UsageError, match=f"{level} cannot be mixed.* {fault}.*{usable}"):
            mix(images, torch.zeros(4, device="meta").long(), CLASSES, seeded(0))
    model.set_grad_checkpointing(True)
    with pytest.raises(UsageError, match="checkpointing"):
        FeatureLevels(model)


class Plain(nn.Module):
    """No network of timm."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, stride=2), nn.Linear(4, CLASSES)

    def forward(self, images):
        return self.second(self.first(images).mean((2, 3)))


def test_any_network_by_the_names_of_its_modules():
    model, (images, labels) = Plain(), batch(4)
    hooked = FeatureLevels(model, ("first", "second"))
    mixed = FeatureCutMix(levels=hooked, at=("first",))(images, labels, CLASSES, seeded(1))
    logits, _ = forward(model, mixed)
    assert not torch.equal(logits, model(images))
    with pytest.raises(UsageError, match=r"second have shape \(1, 5\), which has no rows"):
        FeatureCutMix(levels=hooked, at=("second",))(images, labels, CLASSES, seeded(1))


def test_hooks_that_were_lost_are_noticed():
    """A copy has hooks of its own; torch's conversion of BatchNorm makes modules without any."""
    model, (images, labels) = network("test_resnet"), batch(4)
    mixed = ManifoldMixup(levels=FeatureLevels(model), at=("layer1",))(
        images, labels, CLASSES, seeded(0)
    )
    with pytest.raises(UsageError, match="layer1 were mixed 0 times"):
        forward(copy.deepcopy(model), mixed)
    with pytest.raises(UsageError, match="layer1 were mixed 2 times"):
        forward(lambda images: model(images) + model(images), mixed)
    with pytest.raises(ZeroDivisionError):  # which is not covered up
        forward(lambda images: 1 / 0, mixed)
    dense = network("densenet121", growth_rate=2, block_config=(1, 1, 1, 1))
    mixes = [ManifoldMixup(levels=FeatureLevels(dense), at=("features.norm0",)) for _ in "ab"]
    assert mixes[0](images, labels, CLASSES, seeded(0)).inside is not None
    convert_sync_batchnorm(dense)
    with pytest.raises(UsageError, match=r"norm0 cannot be mixed.*sync_batch_norm"):
        mixes[1](images, labels, CLASSES, seeded(0))


def test_nothing_is_mixed_outside_of_the_pass(images_and_twin):
    """In evaluation, in an average of the weights, and after a fault in the pass."""
    model, twin, mixed = images_and_twin
    average = copy.deepcopy(model)
    with pytest.raises(RuntimeError):
        forward(lambda images: model(images[:, :2]), mixed)
    with mixed.inside:
        averaged = average.eval()(mixed.images)
        changed = model.eval()(mixed.images)
    assert not torch.equal(averaged, changed)
    assert torch.equal(averaged, twin.eval()(mixed.images))
    assert torch.equal(model.eval()(mixed.images), twin(mixed.images))


@pytest.fixture
def images_and_twin():
    model, (images, labels) = network("test_convnext"), batch(4)
    twin = copy.deepcopy(model)
    mix = ManifoldMixup(levels=FeatureLevels(model), at=("stages.1",), partner="other")
    return model, twin, mix(images, labels, CLASSES, seeded(0))


def test_the_pass_that_finds_the_sizes_leaves_no_trace():
    model, (images, _) = network("test_resnet", drop_rate=0.3), batch(4)
    model.layer2.eval()
    state, before = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    FeatureLevels(model).grid("layer3", images)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert model.training
    assert model.layer3.training
    assert not model.layer2.training


def test_bfloat16_features_are_blended_in_float32():
    lam = torch.tensor([0.999, 0.3])
    features = torch.tensor([[1.0], [300.0]], dtype=torch.bfloat16)
    blended = FeatureBlend(torch.tensor([1, 0]), lam)(features)
    wanted = lam[:, None] * features.float() + (1 - lam[:, None]) * features.flip(0).float()
    assert torch.equal(blended, wanted.bfloat16())


# ---- training


def test_compiled_has_one_graph_a_level_and_equals_plain():
    """Evaluation comes in between, and partners, lam and boxes are others at each step."""
    images, labels = batch(4)
    (model, methods), (twin, others) = small(), small()
    torch._dynamo.reset()
    counted = CompileCounterWithBackend("eager")
    model.compile(backend=counted)
    changes = set()
    for seed in range(14):
        outputs = []
        for net, mixes in ((model, methods), (twin, others)):
            mixed = mixes[seed % 2](images, labels, CLASSES, seeded(seed))
            logits, targets = forward(net.train(), mixed)
            functional.cross_entropy(logits, targets).backward()
            with torch.no_grad():
                outputs.append((logits, targets, net.eval()(images)))
            if mixed.inside is not None:
                changes.add((type(mixed.inside.change).__name__, mixed.note))
        for one, other in zip(*outputs, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3)
    assert len(changes) == 4
    assert counted.frame_count == len(changes) + 2  # and without a change, and in evaluation


def test_two_processes_have_the_gradients_of_accumulated_micro_batches(tmp_path):
    """Levels may differ between them; partners lie within a micro-batch."""
    command = [sys.executable, "-m", two_processes.__name__, str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT, check=True)
    model, methods = small(with_norm=False)
    for mix in methods:
        for number in (0, 1):
            (loss_of_micro_batch(number, mix, model) / 2).backward()
    for found in json.loads(done.stdout):
        for values, parameter in zip(found, model.parameters(), strict=True):
            torch.testing.assert_close(torch.tensor(values), parameter.grad)


RECIPE = {
    "model": ModelConfig(arch="test_vit", args={"img_size": 32, "patch_size": 8, "depth": 3}),
    "optimizer": OptimizerConfig(lr=0.05, ema=0.9),
    "mixing": MixingConfig(
        method="manifold_mixup",
        probability=0.9,
        others=[MethodConfig(method="feature_cutmix"), MethodConfig(method="transmix")],
    ),
}


def test_a_run_that_mixes_inside_is_resumed_to_the_same_bits(worlds, tmp_path):
    """With an average of the weights and two micro-batches a step."""
    world = worlds["classification"]
    whole = train(tmp_path / "whole", world=world, **RECIPE)
    with pytest.raises(Stopped):
        train(tmp_path / "run", world=world, stop_after=2, **RECIPE)
    assert_equal_runs(train(tmp_path / "run", world=world, **RECIPE), whole)


@pytest.mark.parametrize("method", ["manifold_mixup", "transmix"])
def test_a_batch_without_its_pass_is_noticed(method, recwarn):
    network = timm.create_model("test_vit", img_size=32, num_classes=4)
    args = {} if method == "transmix" else {"at": [1]}
    config = MixingConfig(method=method, args=args)
    mix = mix_at(config, 0, parts=network_parts(config, network))
    images, labels = torch.zeros(4, 3, 32, 32), torch.arange(4)
    for seed in range(2):
        mixed = mix(images, labels, 4, torch.Generator().manual_seed(seed))
        network.eval()(images)  # scored between
        forward(network.train(), mixed)
        network(images)
    assert not recwarn
    mixed = mix(images, labels, 4, torch.Generator().manual_seed(2))
    with pytest.warns(UserWarning, match=r"did not go through forward\(model, mixed\)"):
        network(mixed.images)


@pytest.mark.parametrize("method", ["manifold_mixup", "transmix"])
def test_one_pass_after_the_other(method):
    network = timm.create_model("test_vit", img_size=32, num_classes=4)
    args = {} if method == "transmix" else {"at": [1]}
    config = MixingConfig(method=method, args=args)
    mix = mix_at(config, 0, parts=network_parts(config, network))
    images, labels = torch.zeros(4, 3, 32, 32), torch.arange(4)
    first, second = (mix(images, labels, 4, torch.Generator().manual_seed(s)) for s in (1, 2))
    with first.inside:
        with pytest.raises(UsageError, match="one pass after the other"):
            forward(network, second)
        network(images)
    forward(network, second)


def test_a_picture_says_what_it_cannot_show(images_and_twin, monkeypatch, tmp_path):
    figures = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: figures.append(figure))
    mixed = images_and_twin[2]
    pictures.draw_mixed_batch(mixed, "abcdefghij", [0.5] * 3, [0.5] * 3, tmp_path)
    assert "mixes its features at stages.1" in figures[0].get_suptitle()
