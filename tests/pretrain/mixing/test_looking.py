"""Methods that look at the images, in training: with a guide, and resumed to the same bits."""

from dataclasses import replace

import pytest
import torch

from pretrain.backbone import Backbone, Provenance
from pretrain.config import MethodConfig, MixingConfig, ModelConfig
from pretrain.engine import train_step
from pretrain.errors import UsageError
from pretrain.mixing import AttentiveCutMix, SaliencyMix, SnapMix
from pretrain.setup import build, setup_training
from pretrain.training import make_fabric, micro_batches
from tests.pretrain.test_engine import config

STEPS = 4


def test_resumed_to_the_same_bits(worlds, monkeypatch):
    options = config(
        worlds["classification"],
        batch_size=12,
        accumulate=1,
        mixing=MixingConfig(
            method="snapmix",
            alpha=5.0,
            granularity="sample",
            others=[
                MethodConfig(method="attentive_cutmix", args={"cells": 12}),
                MethodConfig(method="saliencymix", args={"peak": "first"}),
            ],
        ),
        model=ModelConfig(arch="test_resnet", args={"output_stride": 8, "drop_rate": 0.2}),
    )
    fabric, used = make_fabric("cpu"), set()
    for method in (AttentiveCutMix, SaliencyMix, SnapMix):

        def call(self, *given, plain=method.__call__):
            used.add(type(self))
            return plain(self, *given)

        monkeypatch.setattr(method, "__call__", call)

    first = build(options)
    guide = Backbone.of(first.network, first.spec, Provenance())
    kept = []
    for starts in (0, 2):
        setup = build(options, guide=guide)
        state, loaders = setup_training(setup, options, fabric)
        if starts:
            model, optimizer, ema = kept[starts - 1]
            state.network.load_state_dict(model)
            state.optimizer.load_state_dict(optimizer)
            state.ema.load_state_dict(ema)
        batches = [*loaders.train.epoch(0)]
        for step in range(starts, STEPS):
            parts = micro_batches(step, [batches[step]], loaders.train, fabric, options.seed)
            train_step(state, loaders, setup, options, fabric, step, parts)
            saved = [state.network, state.optimizer, state.ema]
            kept.append([{**copied(part.state_dict())} for part in saved])
    assert used == {AttentiveCutMix, SaliencyMix, SnapMix}
    whole, resumed = kept[STEPS - 1][0], kept[-1][0]
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert whole["bn1.num_batches_tracked"] == STEPS  # by no further pass


def copied(state):
    """A state that training does not change."""
    if isinstance(state, dict):
        return {name: copied(value) for name, value in state.items()}
    if isinstance(state, list):
        return [copied(value) for value in state]
    return state.clone() if isinstance(state, torch.Tensor) else state


def test_a_guide_of_another_normalisation_is_noted(worlds):
    mixing = MixingConfig(method="attentive_cutmix")
    model = ModelConfig(arch="test_resnet", args={"output_stride": 8})
    options = config(worlds["classification"], mixing=mixing, model=model)
    first = build(options)
    for std, notes in ((first.spec.std, 0), ((0.5, 0.5, 0.5), 1)):
        guide = Backbone.of(first.network, replace(first.spec, std=std), Provenance())
        said = [note for note in build(options, guide=guide).notes if "mixing.guide" in note]
        assert len(said) == notes


def test_a_halved_batch_of_one_image_is_refused_before_training(worlds):
    mixing = MixingConfig(granularity="half")
    options = config(
        worlds["classification"],
        mixing=mixing,
        batch_size=2,
        accumulate=1,
        model=ModelConfig(arch="resnet10t", args={"channels": [8, 8, 8, 8], "stem_width": 8}),
    )
    fabric = make_fabric("cpu")
    with pytest.raises(UsageError, match="one image of 32 pixels, once halved"):
        setup_training(build(options), options, fabric)
    for allowed in (replace(options, mixing=MixingConfig()), replace(options, batch_size=4)):
        setup_training(build(allowed), allowed, fabric)


def test_what_cannot_be_mixed_is_refused_before_a_run_begins(worlds):
    """Whatever the schedule: the last features of 32 pixels are one cell at a stride of 32."""
    mixing = MixingConfig(method="none", others=[MethodConfig(method="attentive_cutmix")], ramp=3)
    options = config(worlds["classification"], mixing=mixing)
    with pytest.raises(UsageError, match="one cell"):
        build(replace(options, model=ModelConfig(arch="test_resnet")))
