"""TransMix against timm's own attention map and the authors' rule for labels."""

import copy
import math

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn

from pretrain.errors import UsageError
from pretrain.mixing import AttentionRecorder, TransMix, forward
from pretrain.mixing.mixed import Mixed
from pretrain.mixing.transmix import AttentionLabels, token_mask
from tests.pretrain.mixing.two_processes import CLASSES, batch, seeded

SMALL = {"embed_dim": 12, "depth": 2, "num_heads": 2, "num_classes": CLASSES}


def network(arch: str = "vit_tiny_patch16_224", **options) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(arch, **{**SMALL, "img_size": (32, 48), "patch_size": 8, **options})
    for parameter in model.parameters():  # attention that is not even
        parameter.data += torch.randn_like(parameter) * 0.3
    return model.train()


def map_of(model: nn.Module, images: Tensor) -> Tensor:
    """timm's own map of the last block, unfused: (N, heads, tokens, tokens)."""
    attention = copy.deepcopy(model)
    last = attention.blocks[-1].attn
    last.fused_attn = False
    seen = []
    last.attn_drop.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        attention(images)
    return seen[0]


ARCHITECTURES = {
    "vit_tiny_patch16_224": {},
    "deit_tiny_distilled_patch16_224": {},
    "vit_small_patch14_reg4_dinov2": {"qk_norm": True},
}


@pytest.mark.parametrize("granularity", ["batch", "half", "sample"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_labels_are_weighed_by_timm_s_attention(arch, granularity):
    """Of the pass that trains: 4 x 6 tokens behind 1, 2 or 5 others; the boxes from the images."""
    model, (images, labels) = network(arch, **ARCHITECTURES[arch]), batch(5, (32, 48))
    recorder, own_code = AttentionRecorder(model), torch.arange(5.0)[:, None, None, None]
    for weight, seed in ((0.5, 1), (1.0, 2), (0.0, 3)):
        mix = TransMix(attention=recorder, attention_weight=weight, granularity=granularity)
        mixed = mix(images, labels, CLASSES, seeded(seed))
        coded = mix(own_code.expand(5, 1, 32, 48), labels, CLASSES, seeded(seed)).images
        pasted = coded[:, 0] != own_code[: len(coded), 0]
        logits, targets = forward(model, mixed)
        assert recorder.attention is None
        attention = map_of(model, mixed.images).mean(1)[:, 0, model.num_prefix_tokens :]
        inside = pasted[:, ::8, ::8].flatten(1)
        share = (attention * inside).sum(1) / attention.sum(1)
        own = 1 - weight * share - (1 - weight) * pasted.float().mean((1, 2))
        eye = torch.eye(CLASSES)[labels]
        wanted = own[:, None] * eye[: len(own)] + (1 - own)[:, None] * eye[mixed.partner]
        torch.testing.assert_close(targets, wanted, atol=1e-5, rtol=1e-4)
        assert not targets.requires_grad
        assert torch.equal(logits, logits)
        assert weight == 0 or not torch.allclose(share, pasted.float().mean((1, 2)))


@pytest.mark.parametrize(
    "box", [(0, 0, 224, 224), (17, 3, 100, 64), (5, 5, 9, 9), (50, 120, 224, 224)]
)
def test_labels_are_those_of_the_authors_rule(box):
    """transmix_label of github.com/Beckschen/TransMix (0e4d31e), written out with its own steps."""
    top, left, bottom, right = box
    attention = torch.rand(3, 196, generator=seeded(1))
    mask = torch.zeros(1, 1, 224, 224)
    mask[:, :, top:bottom, left:right] = 1
    mask = nn.Upsample(size=int(math.sqrt(196)))(mask).int().view(1, -1)
    ours = token_mask(np.array([box]), 224, 224, 14, 14)
    assert torch.equal(torch.from_numpy(ours).int(), mask)
    recorder = AttentionRecorder(network())
    labels, partner = torch.tensor([0, 1, 2]), torch.tensor([2, 1, 0])
    area = (bottom - top) * (right - left) / 224**2
    outside, inside = ((1 - mask) * attention).sum(1), (mask * attention).sum(1)
    theirs = (area + inside / (outside + inside)) / 2
    eye = torch.eye(CLASSES)[labels]
    wanted = eye * (1 - theirs)[:, None] + eye[partner] * theirs[:, None]
    lam = torch.full((3,), 1 - area)
    mixed = Mixed(torch.empty(3, 3, 224, 224), eye, lam, partner)
    found = AttentionLabels(recorder, 0.5, np.array([box] * 3), labels)
    recorder.attention = attention
    torch.testing.assert_close(found.targets(mixed), wanted)


def test_what_it_does_to_the_pass_and_to_others():
    """Nothing is recorded but for a mixed batch, not in a copy, and not without the hooks."""
    model, (images, labels) = network(), batch(4, (32, 48))
    plain = copy.deepcopy(model)
    recorder = AttentionRecorder(model)
    mixed = TransMix(attention=recorder, partner="other")(images, labels, CLASSES, seeded(1))
    logits, _ = forward(model, mixed)
    assert torch.equal(logits, plain(mixed.images))
    model.eval()(images)
    assert recorder.attention is None
    with pytest.raises(UsageError, match="without the hooks"):
        forward(copy.deepcopy(model), mixed)
    none = TransMix(attention=recorder, probability=0.0)(images, labels, CLASSES, seeded(1))
    assert none.inside is None


@pytest.mark.parametrize(
    ("arch", "options"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"class_token": False, "global_pool": "avg"}),
        ("test_resnet", None),
        ("eva02_tiny_patch14_224", {"embed_dim": 16}),  # rotated positions
    ],
)
def test_networks_without_such_attention_are_refused(arch, options):
    model = timm.create_model(arch) if options is None else network(arch, **options)
    with pytest.raises(UsageError, match=r"by its class token, such as vit_tiny.*this \w+ has no"):
        AttentionRecorder(model)


def test_other_rules_for_labels_are_refused():
    recorder = AttentionRecorder(network())
    with pytest.raises(UsageError, match="attention_weight is 2"):
        TransMix(attention=recorder, attention_weight=2)
    with pytest.raises(UsageError, match="label is one_hot"):
        TransMix(attention=recorder, label="one_hot")


def test_compiled_equals_plain():
    model, (images, labels) = network(depth=1), batch(4, (32, 48))
    compiled = copy.deepcopy(model)
    outputs = []
    for net in (model, compiled):
        mix = TransMix(attention=AttentionRecorder(net))
        if net is compiled:
            net.compile(backend="eager")
        for seed in (1, 2):
            outputs.append(forward(net, mix(images, labels, CLASSES, seeded(seed))))
            with torch.no_grad():
                net(images)
    for one, other in zip(outputs[:2], outputs[2:], strict=True):
        for left, right in zip(one, other, strict=True):
            torch.testing.assert_close(left, right)
