"""FCN and DeepLabV3 against torchvision's, U-Net against segmentation-models-pytorch's."""

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import ResNet
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.resnet import Bottleneck
from torchvision.models.segmentation import FCN, DeepLabV3, deeplabv3_resnet50, fcn_resnet50
from torchvision.models.segmentation.deeplabv3 import DeepLabHead
from torchvision.models.segmentation.fcn import FCNHead

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from tests.conftest import FIXTURES
from transfer.segmentation.config import SegmenterConfig
from transfer.segmentation.network import dilate
from transfer.segmentation.setup import build_model

DECODER = (16, 12, 8, 8, 4)
SIZES = {"even": (64, 64), "odd": (45, 61)}  # smp refuses the second, and computes it all the same
SMALL = {"layers": [1, 1, 2, 2], "channels": [16, 32, 64, 128]}
NARROW = {"widths": [4, 8, 8, 16, 16]}
TWO_HEADS = {"aux_weight": 0.5}


class Narrow(Bottleneck):
    """As timm's with a quarter of the channels."""

    expansion = 1


def backbone_of(arch: str, **model_args) -> Backbone:
    spec = BackboneSpec(arch=arch, model_args=model_args, num_classes=2)
    return Backbone.of(spec.create(2, 0), spec, Provenance())


def image(size: tuple[int, int]) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


def draw_weights(model: nn.Module) -> None:
    """The same tensors wherever the same layers follow each other, whatever their names."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.dim() > 1:
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith("running_mean") or name.endswith("bias"):
            tensor.uniform_(-0.2, 0.2, generator=generator)
        elif tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5, generator=generator)


def sampled(logits: torch.Tensor) -> list:
    return logits[..., ::8, ::8].tolist()


def torchvision_twin(kind: str, backbone: nn.Module, width: int) -> nn.Module:
    """The class of torchvision around its own network, at output stride 8."""
    body = IntermediateLayerGetter(backbone, {"layer4": "out", "layer3": "aux"})
    head = {"fcn": FCNHead, "deeplabv3": DeepLabHead}[kind](width, 5)
    return {"fcn": FCN, "deeplabv3": DeepLabV3}[kind](body, head, FCNHead(width // 2, 5))


def take_weights(target: nn.Module, source: nn.Module) -> None:
    """torchvision's names, once the names of our parts and the classifier are taken away."""
    renamed = {k.removeprefix("backbone.body.model."): v for k, v in source.state_dict().items()}
    ours = {f"backbone.{k}" if "classifier" not in k else k: v for k, v in renamed.items()}
    target.load_state_dict(ours)


def assert_equal_functions(ours: nn.Module, theirs: nn.Module, size: tuple[int, int]) -> None:
    """Logits of both modes, losses and gradients; dropout draws the same."""
    images, masks = image(size), torch.randint(0, 5, (2, *size))
    masks[:, :7] = 255
    with torch.inference_mode():
        logits, expected = ours.eval()(images), theirs.eval()(images)["out"]
    assert list(logits) == ["out"]
    torch.testing.assert_close(logits["out"], expected, rtol=1e-5, atol=1e-5)
    losses = []
    for model in (ours.train(), theirs.train()):
        torch.manual_seed(0)
        found = model(images)
        one, two = (functional.cross_entropy(found[k], masks, ignore_index=255) for k in found)
        losses.append(one + 0.5 * two)
        losses[-1].backward()
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-6)
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        scale = other.grad.abs().max().clamp(min=1e-3)
        assert (mine.grad - other.grad).abs().max() <= 1e-4 * scale, name


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3"])
def test_logits_losses_and_gradients_are_torchvisions(kind):
    ours = build_model(backbone_of("resnet26", **SMALL), SegmenterConfig(kind=kind, **TWO_HEADS), 5)
    draw_weights(ours)
    dilated = {"replace_stride_with_dilation": [False, True, True], "width_per_group": 16}
    theirs = torchvision_twin(kind, ResNet(Narrow, SMALL["layers"], **dilated), 512)
    take_weights(theirs, ours)
    assert_equal_functions(ours, theirs, (45, 61))


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3"])
def test_whole_networks_are_torchvisions(kind, full):
    if not full:
        pytest.skip("half a minute: --full")
    ours = build_model(backbone_of("resnet50"), SegmenterConfig(kind=kind, **TWO_HEADS), 5)
    build = {"fcn": fcn_resnet50, "deeplabv3": deeplabv3_resnet50}[kind]
    theirs = build(weights=None, weights_backbone=None, num_classes=5, aux_loss=True)
    take_weights(theirs, ours)
    assert_equal_functions(ours, theirs, (97, 130))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    config = SegmenterConfig(kind="unet", decoder_channels=DECODER, dropout=0)
    model = build_model(backbone_of("resnet10t"), config, 2)
    draw_weights(model)
    return model


@pytest.fixture(scope="module")
def of_smp() -> dict:
    return json.loads((FIXTURES / "segmentation_unet.json").read_text())


@pytest.mark.parametrize("name", SIZES)
def test_u_net_is_segmentation_models_pytorchs(unet, of_smp, name):
    with torch.inference_mode():
        logits = unet.eval()(image(SIZES[name]))["out"]
    assert logits.shape == (2, 2, *SIZES[name])
    expected = torch.tensor(of_smp[name]["eval"])
    torch.testing.assert_close(torch.tensor(sampled(logits)), expected, rtol=1e-5, atol=1e-5)


def test_u_net_trains_as_segmentation_models_pytorchs(unet, of_smp):
    model = copy.deepcopy(unet).train()
    logits = model(image(SIZES["even"]))["out"]
    logits.square().mean().backward()
    expected, norms = (torch.tensor(of_smp["train"][key]) for key in ("logits", "norms"))
    torch.testing.assert_close(torch.tensor(sampled(logits)), expected, rtol=1e-5, atol=1e-5)
    found = torch.stack([parameter.grad.norm() for parameter in model.parameters()])
    torch.testing.assert_close(found, norms, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["fcn", "unet"])
def test_images_of_every_kind(backbone, kind):
    spec = replace(backbone.spec, mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    model = build_model(replace(backbone, spec=spec), SegmenterConfig(kind=kind), 3).eval()
    pixels = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8)
    mean, std = (torch.tensor(values)[:, None, None] for values in (spec.mean, spec.std))
    slices = torch.randn(1, 1, 40, 56)
    with torch.inference_mode():
        of_pixels, normalised = model(pixels)["out"], model((pixels / 255 - mean) / std)["out"]
        of_slices, of_three = model(slices)["out"], model(slices.repeat(1, 3, 1, 1))["out"]
    torch.testing.assert_close(of_pixels, normalised, rtol=1e-4, atol=1e-5)
    assert torch.equal(of_slices, of_three)


def test_what_is_frozen_stays_and_the_head_learns(backbone):
    config = SegmenterConfig(freeze=2, batch_norm="frozen", **TWO_HEADS)
    model = build_model(backbone, config, 3).train()
    before = copy.deepcopy(model.state_dict())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sum(output.square().mean() for output in model(image((32, 32))).values()).backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if (tensor != before[name]).any()}
    inside = {name.removeprefix("backbone.body.model.") for name in moved if "backbone" in name}
    assert {name.split(".")[0] for name in inside} == {"layer2", "layer3", "layer4"}
    assert not any("bn" in name for name in inside)
    statistics = {f"{head}.1.running_mean" for head in ("classifier", "aux_classifier")}
    assert statistics <= moved


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3", "unet"])
def test_synchronised_norms_are_those_of_the_heads_too(backbone, kind):
    model = build_model(backbone, SegmenterConfig(kind=kind, batch_norm="sync"), 3)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert any(not name.startswith("backbone") for name, m in model.named_modules() if m in norms)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3", "unet"])
def test_mixed_precision_and_memory_format(backbone, kind):
    model = build_model(backbone, SegmenterConfig(kind=kind), 3).eval()
    with torch.inference_mode():
        expected = model(image((24, 40)))["out"]
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(image((24, 40)))["out"]
        model.to(memory_format=torch.channels_last)
        other = model(image((24, 40)))["out"]
    assert rounded.dtype == torch.float32
    assert (rounded - expected).abs().max() < 0.1 * expected.abs().max()
    torch.testing.assert_close(other, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["fcn", "deeplabv3", "unet"])
def test_compiled_networks_are_the_same(backbone, kind, full):
    if not full:
        pytest.skip("a minute: --full")
    model = build_model(backbone, SegmenterConfig(kind=kind), 3).eval()
    with torch.inference_mode():
        expected = model(image((40, 56)))["out"]
        found = torch.compile(model)(image((40, 56)))["out"]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "arch", ["efficientnet_lite0", "convnext_atto", "regnety_002", "resnet20_cifar"]
)
@pytest.mark.parametrize("stride", [8, 16])
def test_levels_have_the_strides_that_they_say(arch, stride):
    dilated = dilate(backbone_of(arch), stride)
    levels = dilated.spec.levels()
    assert levels[-1].stride == min(stride, backbone_of(arch).spec.levels()[-1].stride)
    last = dilated.feature_network([levels[-1].index]).eval()(image((64, 96)))[0]
    assert last.shape[2:] == (64 // levels[-1].stride, 96 // levels[-1].stride)


@pytest.mark.parametrize(
    ("arch", "config", "said"),
    [
        ("edgenext_xx_small", {}, r"take --segmenter.output_stride 32, which is its own, or --seg"),
        ("ghostnet_050", {}, r"timm cannot dilate ghostnet_050: "),
        ("mobilenetv3_small_050", {}, r"cannot dilate mobilenetv3_small_050"),
        ("vit_tiny_patch16_224", {"output_stride": 16}, r"no images of any size.*resnet18"),
        ("convnext_atto", {"kind": "unet"}, r"4 levels at strides above 1 .*'\[256, 128, 64, 32\]"),
    ],
)
def test_what_cannot_be_built_is_named(arch, config, said):
    with pytest.raises(UsageError, match=said):
        build_model(backbone_of(arch), SegmenterConfig(**config), 3)


@pytest.mark.parametrize(
    ("arch", "config"),
    [
        ("edgenext_xx_small", {"output_stride": 32}),
        ("convnext_atto", {"kind": "unet", "decoder_channels": (32, 16, 8, 8)}),
        ("resnet20_cifar", {"kind": "unet", "decoder_channels": (16, 8)}),
    ],
)
def test_the_remedies_work(arch, config):
    model = build_model(backbone_of(arch), SegmenterConfig(**config), 3).eval()
    assert model(image((33, 47)))["out"].shape == (2, 3, 33, 47)


def test_new_parts_are_of_the_seed(backbone):
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(
            build_model(backbone, SegmenterConfig(), 3).classifier.state_dict()["0.weight"]
        )
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_weights_of_a_decoder_begin_as_segmentation_models(tiny_backbone):
    """Its `initialize_decoder` and `initialize_head`: uniform by He and by Glorot."""
    options = SegmenterConfig(kind="unet", decoder_channels=DECODER)
    model = build_model(tiny_backbone, options, 3)
    head = model.classifier[1]
    fan = head.weight[0].numel()
    bounds = {id(head): (6 / (fan + 9 * len(head.weight))) ** 0.5}
    for module in (*model.decoder.modules(), head):
        if isinstance(module, nn.Conv2d):
            bound = bounds.get(id(module), (6 / module.weight[0].numel()) ** 0.5)
            assert 0.9 * bound < module.weight.abs().max() <= bound
    assert not head.bias.any()


@pytest.mark.parametrize(
    ("arch", "model_args", "config"),
    [
        ("resnet20_cifar", {}, TWO_HEADS),
        ("efficientnet_lite0", {}, TWO_HEADS),
        ("convnext_atto", {}, {"kind": "deeplabv3"}),
        ("unet_encoder", NARROW, {"kind": "unet", "decoder_channels": (16, 8, 8, 4)}),
    ],
)
def test_every_parameter_learns(arch, model_args, config):
    """DDP stops where one does not."""
    model = build_model(backbone_of(arch, **model_args), SegmenterConfig(**config), 3)
    sum(output.square().mean() for output in model(image((37, 50))).values()).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
