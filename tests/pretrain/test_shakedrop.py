"""What disturbs branches in training: by the papers' equations, and what is known of the draws."""

import numpy as np
import pytest
import torch
from timm.layers.drop import DropPath
from torch import nn
from torchvision.ops import drop_block2d

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.errors import UsageError
from pretrain.models.dropblock import DropBlock
from pretrain.models.shakedrop import ShakeDrop
from pretrain.spec import create_model
from tests.pretrain.test_pyramidnet import by_hand
from tests.transfer.formats.making import tame

SMALL = {"depth": 29, "alpha": 48}


class PaperFunction(torch.autograd.Function):
    """Equation 6 of the paper, over given draws: b for the batch, alpha and beta for each image."""

    @staticmethod
    def forward(ctx, x, b, alpha, beta):
        ctx.b, ctx.beta = b, beta
        return (b + alpha - b * alpha)[:, None, None, None] * x

    @staticmethod
    def backward(ctx, grad):
        factor = ctx.b + ctx.beta - ctx.b * ctx.beta
        return factor[:, None, None, None] * grad, None, None, None


def factors(layer: ShakeDrop, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """What four images and their gradients are multiplied by; the same all over an image."""
    torch.manual_seed(seed)
    x = torch.ones(4, 2, 3, 3, requires_grad=True)
    y = layer.train()(x)
    y.sum().backward()
    for found in (y, x.grad):
        assert torch.equal(found, found[:, :1, :1, :1].expand_as(found))
    return y.detach()[:, 0, 0, 0], x.grad[:, 0, 0, 0]


def test_shakedrop_s_draws():
    kept = shaken = 0
    forth, back = [], []
    for seed in range(300):
        alpha, beta = factors(ShakeDrop(0.3), seed)
        if (alpha == 1).all():
            assert (beta == 1).all()
            kept += 1
        else:
            shaken += 1
            forth.append(alpha)
            back.append(beta)
    assert shaken / (kept + shaken) == pytest.approx(0.3, abs=0.08)
    alpha, beta = torch.cat(forth).numpy(), torch.cat(back).numpy()
    for values, low, high in ((alpha, -1, 1), (beta, 0, 1)):
        assert low <= values.min() < low + 0.05
        assert high - 0.05 < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.1)
        assert len(np.unique(values)) > 0.99 * len(values)  # each image has its own
    assert abs(np.corrcoef(alpha, beta)[0, 1]) < 0.2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_are_those_of_the_paper_s_function(dtype):
    """Through a convolution in front and one behind, for draws of either kind."""
    seen = set()
    for seed in range(6):
        alpha, beta = factors(ShakeDrop(0.5), seed)
        b = float((alpha == 1).all())
        seen.add(b)
        draw = torch.Generator().manual_seed(seed)
        first, second = (torch.randn(3, 3, 3, 3, generator=draw).to(dtype) for _ in "ab")
        images = torch.randn(4, 3, 8, 8, generator=draw).to(dtype)
        grads = []
        for side in ("ours", "paper's"):
            weights = [w.clone().requires_grad_() for w in (first, second)]
            x = torch.conv2d(images, weights[0])
            torch.manual_seed(seed)
            if side == "ours":
                y = ShakeDrop(0.5).train()(x)
            else:
                y = PaperFunction.apply(x, b, alpha.to(dtype), beta.to(dtype))
            assert y.dtype == dtype
            out = torch.conv2d(y + x, weights[1])
            out.square().mean().backward()
            grads.append([w.grad for w in weights])
        tolerance = {"rtol": 2e-2, "atol": 1e-2} if dtype == torch.bfloat16 else {}
        for ours, paper in zip(*grads, strict=True):
            torch.testing.assert_close(ours, paper, **tolerance)
    assert seen == {0.0, 1.0}


def test_evaluation_is_the_mean_of_training():
    layer, x = ShakeDrop(0.4), torch.full((100_000, 1, 1, 1), 2.0)
    torch.manual_seed(0)
    with torch.no_grad():
        drawn = torch.stack([layer.train()(x).mean() for _ in range(300)])
    assert layer.eval()(x)[0].item() == pytest.approx(1.2)
    assert drawn.mean().item() == pytest.approx(1.2, abs=0.15)


@torch.inference_mode()
@pytest.mark.parametrize(("bottleneck", "depth"), [(True, 29), (False, 20)])
def test_a_shaken_pyramidnet_by_hand(bottleneck, depth):
    """In evaluation, block l of L adds 1 - 0.5 l / L of its branch."""
    arguments = {"depth": depth, "alpha": 48, "bottleneck": bottleneck, "shakedrop_rate": 0.5}
    net = tame("pyramidnet", model_args=arguments, input_size=(3, 32, 32))
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shares = [1 - 0.5 * number / 9 for number in range(1, 10)]
    *levels, logits = by_hand(dict(net.weights), images, 3 if bottleneck else 2, 3, shares)
    for ours, expected in zip(net.features(images), levels, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.build().eval()(images), logits, rtol=1e-4, atol=1e-5)


def test_rates_rise_from_block_to_block():
    """github.com/owruby/shake-drop_pytorch, shake_pyramidnet.py: its list of rates."""
    rate, units = 0.5, 3
    theirs = [1 - (1.0 - (rate / (3 * units)) * (i + 1)) for i in range(3 * units)]
    model = create_model("pyramidnet", **SMALL, shakedrop_rate=rate, drop_path_rate=0.25)
    ours = [layer.rate for layer in model.modules() if isinstance(layer, ShakeDrop)]
    assert ours == pytest.approx(theirs)
    dropped = [layer.drop_prob for layer in model.modules() if isinstance(layer, DropPath)]
    assert dropped == pytest.approx([0.25 * number / 9 for number in range(1, 10)])


def test_noise_has_no_weights_and_changes_no_draw_of_them(tmp_path):
    noise = {"shakedrop_rate": 0.5, "drop_path_rate": 0.25, "drop_block_rate": 0.1}
    plain, noisy = (
        BackboneSpec(arch="pyramidnet", model_args=arguments, num_classes=10)
        for arguments in (SMALL, SMALL | noise)
    )
    one, other = (spec.create(10, seed=1).state_dict() for spec in (plain, noisy))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    net = tame("pyramidnet", model_args=SMALL | noise)
    net.save(tmp_path / "b.pth")
    again = Backbone.load(tmp_path / "b.pth")
    assert again.spec.model_args == SMALL | noise  # the rate is a part of the function
    assert again.fingerprint() == net.fingerprint()
    assert again.fingerprint() != tame("pyramidnet", model_args=SMALL).fingerprint()


def test_ambient_seeds_repeat_the_noise():
    noise = {"shakedrop_rate": 0.5, "drop_path_rate": 0.25, "drop_block_rate": 0.1}
    model = create_model("pyramidnet", **SMALL, **noise, num_classes=3).train()
    images, outputs = torch.randn(4, 3, 16, 16), []
    for seed in (5, 5, 6):
        torch.manual_seed(seed)
        outputs.append(model(images))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2], rtol=0.01)
    assert torch.equal(model.eval()(images), model(images))


@pytest.mark.parametrize(
    "wrong",
    [{"shakedrop_rate": 1.0}, {"drop_path_rate": -0.1}, {"drop_block_size": 0}, {"shakedrop": 0.5}],
    ids=str,
)
def test_noise_that_cannot_be(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))), torch.device("meta"):
        create_model("pyramidnet", **SMALL, **wrong)


@pytest.mark.parametrize(("size", "side"), [(4, 8), (4, 16), (7, 7), (7, 14), (3, 7)])
def test_dropblock_drops_what_is_asked_for_in_whole_blocks(size, side):
    torch.manual_seed(0)
    y = DropBlock(0.1, size).train()(torch.ones(400, 8, side, side))
    gone = y == 0
    # overlaps leave a little less; timm's figures are 0.15 to 0.93
    assert 0.085 < gone.float().mean().item() < 0.105
    assert y.mean().item() == pytest.approx(1, abs=1e-4)
    assert y[~gone].unique().numel() == 1
    blocks = gone.float().unfold(2, size, 1).unfold(3, size, 1).amin((-1, -2))  # whole ones
    covered = torch.nn.functional.max_pool2d(
        torch.nn.functional.pad(blocks, (size - 1,) * 4), size, 1
    )
    assert torch.equal(covered, gone.float())
    masks = gone[:, 0] == gone[:, 1]
    assert not masks.all()  # each channel has its own


def test_dropblock_beside_torchvision_s():
    """Which has odd blocks only: the same share, and as often none at all in a channel."""
    x = torch.ones(1000, 4, 14, 14)
    torch.manual_seed(0)
    ours, theirs = DropBlock(0.1, 5).train()(x) == 0, drop_block2d(x, 0.1, 5) == 0
    for measure in (lambda gone: gone, lambda gone: ~gone.any(-1).any(-1)):
        pair = [measure(gone).float().mean().item() for gone in (ours, theirs)]
        assert pair[0] == pytest.approx(pair[1], rel=0.08)
    x = torch.randn(2, 3, 9, 9)
    assert torch.equal(DropBlock(0.5, 3).eval()(x), x)


def test_where_the_dropblocks_of_a_resnet_are():
    """tensorflow/tpu: four places in each block of groups 3 and 4, of which 3 has a quarter."""
    arguments = {"layers": (1, 1, 2, 2), "num_classes": 3}
    model = create_model("resnet50_dropblock", **arguments)
    stock = create_model("resnet50", **arguments)
    assert list(model.state_dict()) == list(stock.state_dict())
    calls: dict[str, list[tuple[float, int]]] = {}

    def note(name: str, layer: nn.Module):
        def hook(module, inputs, output):
            calls.setdefault(name, []).append((layer.rate, inputs[0].shape[1]))

        return hook

    named = {id(m): (name, m) for name, m in model.named_modules() if isinstance(m, DropBlock)}
    for name, layer in named.values():
        layer.register_forward_hook(note(".".join(name.split(".")[:2]), layer))
    model.train()(torch.randn(2, 3, 224, 224))
    # shortcuts and the three convolutions, whatever their order
    assert {name: sorted(found) for name, found in calls.items()} == {
        f"layer{stage}.{block}": sorted(
            (rate, width) for width in (inner, inner, 4 * inner, 4 * inner)
        )
        for stage, rate, inner in ((3, 0.025, 256), (4, 0.1, 512))
        for block in (0, 1)
    }
    model.load_state_dict(stock.state_dict())
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(images), stock.eval()(images))
