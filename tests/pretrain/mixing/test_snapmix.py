"""SnapMix against Shaoli-Huang/SnapMix (commit 245bda4): snapmix.npz."""

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.mixing import SnapMix
from pretrain.mixing.snapmix import activation_maps, paste_by_maps
from tests.conftest import ROOT

REFERENCE = {
    name: torch.from_numpy(array)
    for name, array in np.load(ROOT / "tests/fixtures/mixing/snapmix.npz").items()
}
IMAGES = torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 3, 2, 3])


def network(arch="test_resnet", **options):
    torch.manual_seed(0)
    return timm.create_model(arch, num_classes=5, **options)


class Recorded(nn.Module):
    """The features and the classifier that the reference was given."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.classifier = nn.Linear(5, 4)
        self.classifier.weight.data = REFERENCE["weight"]
        self.classifier.bias.data = REFERENCE["bias"]

    def forward_features(self, images):
        return REFERENCE["features"]

    def get_classifier(self):
        return self.classifier


def test_activation_maps_are_the_references():
    maps = activation_maps(Recorded(), torch.zeros(3, 3, 14, 14), REFERENCE["cam_labels"])
    maps = maps / maps.sum((1, 2), keepdim=True)
    torch.testing.assert_close(maps, REFERENCE["cam"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_equals_the_reference_under_the_same_draws(case):
    """Case 0 has a pair of one class, 1 also images that meet themselves, 2 an empty box."""
    maps = REFERENCE["maps"].nan_to_num(0)  # flat maps become NaN there
    boxes, sources = (np.tile(box, (4, 1)) for box in REFERENCE[f"boxes{case}"].numpy())
    partner, labels = REFERENCE[f"partner{case}"], REFERENCE["labels"]
    targets = functional.one_hot(labels, 3).float()
    mixed = paste_by_maps(REFERENCE["images"], targets, boxes, sources, partner, maps)
    torch.testing.assert_close(mixed.images, REFERENCE[f"mixed{case}"])
    own, other = REFERENCE[f"own{case}"], REFERENCE[f"other{case}"]
    wanted = own[:, None] * targets + other[:, None] * targets[partner]
    torch.testing.assert_close(mixed.targets, wanted)
    torch.testing.assert_close(mixed.lam, own)


def test_activation_map_explains_the_logit():
    """With the mean over the image before it, the classifier's output is the map's mean."""
    model = network().eval()
    features = model.forward_features(IMAGES)
    raw = functional.conv2d(features, model.fc.weight[:, :, None, None])[range(4), LABELS]
    wanted = model(IMAGES)[range(4), LABELS] - model.fc.bias[LABELS]
    torch.testing.assert_close(raw.mean((1, 2)), wanted)
    large = functional.interpolate(raw[:, None], (64, 96), mode="bilinear")[:, 0]
    wanted = large - large.amin((1, 2), keepdim=True)
    found = activation_maps(model, IMAGES, LABELS)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    soft = activation_maps(model, IMAGES, functional.one_hot(LABELS, 5).float())
    torch.testing.assert_close(soft, found)


def test_one_class_counts_twice_or_once():
    options = {"network": network(), "partner": "other", "granularity": "pair", "alpha": 5.0}
    labels = torch.tensor([1, 0, 4, 1])
    twice, once = (
        SnapMix(**options, same_class=how)(IMAGES, labels, 5, torch.Generator().manual_seed(1))
        for how in ("twice", "once")
    )
    assert torch.equal(twice.targets[1:3], once.targets[1:3])
    torch.testing.assert_close(twice.targets[[0, 3]], 2 * once.targets[[0, 3]])
    assert once.targets[:, 1].sum() > 0.1


def test_a_flat_map_gives_the_share_of_pixels():
    """One cell of features says nothing of where."""
    images = IMAGES[:, :, :32, :32]
    mixed = SnapMix(network=network(), same_class="once", partner="other", granularity="sample")(
        images, LABELS, 5, torch.Generator().manual_seed(0)
    )
    share = (mixed.images == images).all(1).float().mean((1, 2))
    assert (share < 0.95).any()
    torch.testing.assert_close(mixed.lam, share, atol=2e-3, rtol=0)
    torch.testing.assert_close(mixed.targets.sum(1), torch.ones(4))


def test_autocast_changes_weights_little_and_takes_no_gradient():
    """Weights that autocast kept in bfloat16 from a pass without gradients would have none."""
    model, draws = network(), torch.Generator()
    mix = SnapMix(network=model, granularity="sample", partner="other")
    exact = mix(IMAGES, LABELS, 5, draws.manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = mix(IMAGES, LABELS, 5, draws.manual_seed(0))
        loss = model(found.images).float().sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert found.targets.dtype == torch.float32
    assert torch.equal(found.images, exact.images)
    torch.testing.assert_close(found.targets, exact.targets, atol=0.02, rtol=0)


@pytest.mark.parametrize("arch", ["mobilenetv3_small_050", "test_resnet"])
def test_refuses_a_network_without_a_linear_classifier(arch):
    model = network(arch)
    if arch == "test_resnet":
        model.reset_classifier(0)
    with pytest.raises(UsageError, match=r"linear classifier of the network's \d+ pooled features"):
        SnapMix(network=model)
