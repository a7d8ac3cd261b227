"""Every pretraining recipe builds its network and makes a step; what is known to hurt is said."""

from dataclasses import replace

import pytest
import torch

from pretrain.advice import advice
from pretrain.config import LoaderConfig, MethodConfig, MixingConfig, ModelConfig, PretrainConfig
from pretrain.engine import train_step
from pretrain.setup import build, setup_training
from pretrain.training import make_fabric, micro_batches
from tests.conftest import ROOT
from tools.support.command import load_config

RECIPES = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_makes_a_step(path, worlds):
    config = load_config(PretrainConfig, path, data=str(worlds["classification"]))
    small = replace(config, batch_size=2, loader=LoaderConfig(workers=0))
    fabric = make_fabric("cpu", small.precision)
    setup = build(small)
    state, loaders = setup_training(setup, small, fabric)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    batch = next(iter(loaders.train.epoch(0)))
    sums = train_step(
        state, loaders, setup, small, fabric, 0, micro_batches(0, [batch], loaders.train, fabric, 0)
    )
    assert torch.isfinite(sums).all()
    after = state.network.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    side = config.dataset.image_size
    assert batch[0].shape == (2, 3, side, side)
    assert batch[0].dtype == torch.uint8


def test_the_paper_s_rows_are_there_with_the_paper_s_numbers():
    rows = {"baseline": "23.68", "mixup": "22.58", "cutout": "22.93", "cutmix": "21.40"}
    for row, error in rows.items():
        path = ROOT / "configs" / "pretrain" / f"imagenet_resnet50_{row}.yaml"
        config = load_config(PretrainConfig, path)
        assert f"top-1 error {error} %" in path.read_text()
        assert (config.epochs, config.batch_size) == (300, 256)
        assert (config.optimizer.name, config.optimizer.lr) == ("sgd", 0.1)
        assert config.optimizer.milestones == (75, 150, 225)
        assert config.optimizer.weight_decay == 1e-4
        assert config.mixing.probability == 1.0
        assert config.mixing.method == ("none" if row == "baseline" else row)


def said(
    parameters: int = 11_000_000, images: int = 1000, cpu: bool = False, **changes
) -> list[str]:
    config = replace(PretrainConfig(epochs=30, model=ModelConfig(arch="resnet18")), **changes)
    return advice(config, parameters=parameters, images=images, on_cpu=cpu)


def test_small_networks_on_short_schedules_are_warned_once_with_the_source():
    (line,) = said()
    assert "openmixup" in line
    assert "--mixing.probability 0.5" in line
    assert "CutMix on 100% of the batches" in line
    both = MixingConfig(method="mixup", others=[MethodConfig(method="cutmix")])
    assert said(mixing=both) == []  # half of the batches
    (line,) = said(mixing=replace(both, weight=0.25), epochs=1)
    assert "CutMix on 80% of the batches" in line
    assert "for 1 epoch:" in line
    assert said(mixing=MixingConfig(probability=0.5)) == []
    assert said(mixing=MixingConfig(method="mixup")) == []
    assert said(mixing=MixingConfig(ramp=30)) == []
    assert said(epochs=300) == []
    assert said(parameters=25_000_000) == []


def test_a_schedule_beyond_the_end_is_noticed():
    for options, words in (({"ramp": 31}, "never rises"), ({"off_after": 31}, "changes nothing")):
        (line,) = said(mixing=MixingConfig(method="mixup", **options))
        assert "is 31, beyond the end of this run of 30 epochs: " in line
        assert words in line
    assert said(mixing=MixingConfig(method="mixup", ramp=30, off_after=30)) == []


def test_days_on_a_cpu_are_announced():
    imagenet = {"parameters": 25_000_000, "images": 1_281_167, "epochs": 300}
    (line,) = said(cpu=True, **imagenet)
    assert "take days on a CPU" in line
    assert "--dry-run" in line
    assert said(cpu=False, **imagenet) == []
    assert said(cpu=True, parameters=25_000_000, images=5000) == []
