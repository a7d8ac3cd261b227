"""RotNet's task as an auxiliary head: turns, gradients, what is kept, and resuming."""

import pytest
import torch
from torchvision.transforms.v2 import functional as v2

from pretrain.backbone import Backbone
from pretrain.config import MixingConfig, RotationConfig
from pretrain.engine import pretrain
from pretrain.errors import Stopped, UsageError
from pretrain.rotation import RotationNetwork, plain_network, turn
from pretrain.run import Run
from pretrain.setup import build
from pretrain.spec import create_model
from pretrain.training import derive, make_fabric
from tests.pretrain.test_engine import assert_equal_runs, config


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_images_are_turned_as_torch_and_torchvision_do(layout):
    images = torch.randn(3, 3, 8, 8).contiguous(memory_format=layout)
    kept = images.clone()
    turned, turns = turn(images, "all", seeded())
    assert turns.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert turned.is_contiguous(memory_format=layout)
    for row, quarters in enumerate(turns.tolist()):
        image = images[row % 3]
        assert torch.equal(turned[row], image.rot90(quarters, (1, 2)))
        assert torch.equal(turned[row], v2.rotate(image, 90.0 * quarters))
    assert torch.equal(images, kept)


def test_one_turn_for_each_image_is_drawn_evenly():
    images = torch.arange(400.0)[:, None, None, None].expand(400, 1, 2, 2).clone()
    images[:, 0, 0, 0] += 0.5  # a corner that tells the turn
    turned, turns = turn(images, "one", seeded())
    assert sorted(turned.mean((1, 2, 3)).tolist()) == images.mean((1, 2, 3)).tolist()
    place = (turned - turned.amin((2, 3), keepdim=True)).flatten(1).argmax(1)
    assert place.tolist() == [[0, 2, 3, 1][quarters] for quarters in turns.tolist()]
    assert all(70 < count < 130 for count in turns.bincount().tolist())
    assert torch.equal(turn(images, "one", seeded())[0], turned)
    assert not torch.equal(turn(images, "one", seeded(1))[0], turned)


def test_what_cannot_be_turned_is_refused(worlds):
    with pytest.raises(UsageError, match="8 x 10 pixels"):
        turn(torch.zeros(1, 3, 8, 10), "all", seeded())
    with pytest.raises(UsageError, match=r"Identity has no pooled .*--rotation\.weight 0"):
        RotationNetwork(torch.nn.Identity(), 0)
    with pytest.raises(UsageError, match=r"rotation\.weight"):
        RotationConfig(weight=-1.0)
    inside = MixingConfig(method="manifold_mixup")
    options = config(worlds["classification"], rotation=RotationConfig(weight=0.5), mixing=inside)
    with pytest.raises(UsageError, match="manifold_mixup, which mixes inside the network"):
        build(options)


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit"])
def test_the_head_sees_the_pooled_features_and_both_are_taught(arch):
    network = create_model(arch, num_classes=5)
    size = network.default_cfg["input_size"][-1]
    both = RotationNetwork(network, 3)
    images, turned = torch.randn(2, 3, size, size), torch.randn(3, 3, size, size)
    both.eval()
    logits, turns = both(images, turned)
    torch.testing.assert_close(logits, network(images))
    torch.testing.assert_close(both(images), network(images))
    pooled = network.forward_head(network.forward_features(turned), pre_logits=True)
    torch.testing.assert_close(turns, both.rotation(pooled))
    turns.sum().backward()
    body = next(network.parameters())
    assert body.grad.abs().sum() > 0
    assert both.rotation.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in network.get_classifier().parameters())
    again = RotationNetwork(network, 3)
    assert torch.equal(again.rotation.weight, both.rotation.weight)
    assert plain_network(both) is network is plain_network(network)


def test_a_run_with_the_task_resumes_to_the_same_bits(worlds, tmp_path):
    """With average, accumulation and the decoupled loss; the backbone has no such head."""
    options = config(
        worlds["classification"],
        rotation=RotationConfig(weight=0.5, angles="one"),
        mixing=MixingConfig(decoupled=0.1, partner="other"),
        batch_size=30,
        epochs=1,
    )
    fabric = make_fabric("cpu")
    whole = pretrain(options, Run(tmp_path / "whole"), fabric)
    with pytest.raises(Stopped):
        pretrain(options, Run(tmp_path / "cut"), fabric, stop_after=1)
    state = torch.load(tmp_path / "cut" / "checkpoints" / "last.pth", weights_only=True)
    head = RotationNetwork(build(options).network, derive(0, "rotation")).rotation
    assert not torch.equal(state["model"]["rotation.weight"], head.weight)  # it learns
    resumed = pretrain(options, Run(tmp_path / "cut"), fabric)
    assert_equal_runs(resumed, whole)
    accuracy = whole.metrics["train_rotation_accuracy"]
    assert 5 < accuracy < 100
    assert resumed.metrics["train_rotation_accuracy"] == accuracy
    assert Run(tmp_path / "whole").read_log()[-1]["train_rotation_accuracy"] == accuracy
    backbone = Backbone.load(tmp_path / "whole" / "backbone.pth")
    assert not any("rotation" in name or name.startswith("network") for name in backbone.weights)
