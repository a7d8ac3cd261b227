"""A step of self-critical training beside one of cross-entropy on as many captions."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from pretrain.training import MicroBatch, make_fabric, make_train_state
from transfer.captioning import engine, self_critical
from transfer.captioning.captioner import build_decoder
from transfer.captioning.config import (
    CaptioningConfig,
    DecodingConfig,
    ModelConfig,
    SelfCriticalConfig,
)
from transfer.captioning.sampling import sample
from transfer.captioning.setup import CaptioningNetwork
from transfer.captioning.vocabulary import END, PAD

Seconds = Callable[..., dict[str, float]]
_WORDS, _FEATURES, _POSITIONS, _SAMPLES, _LENGTH = 10_000, 2048, 49, 5, 20
_REFERENCES = 5000  # images whose captions count for the rewards
HEAD = ["", "cross-entropy, s", "self-critical, s", "ratio", "rewards, ms", "share of a step",
        "words a caption"]  # fmt: skip


def rewards(seconds: Seconds, images: int) -> list[list[str]]:
    """The rows of NIC and the Transformer."""
    return [_row(kind, seconds, images) for kind in ("nic", "transformer")]


def _row(kind: Any, seconds: Seconds, images: int) -> list[str]:
    config = CaptioningConfig(
        model=ModelConfig(kind=kind),
        decoding=DecodingConfig(max_length=_LENGTH),
        objective="self_critical",
        start_from="drawn",
        self_critical=SelfCriticalConfig(samples=_SAMPLES),
        batch_size=images * _SAMPLES,
    )
    torch.manual_seed(0)
    decoder: Any = build_decoder(_FEATURES, _WORDS, config.model)
    decoder.classify.bias.data[END] += 6.5  # captions of about ten words
    fabric = make_fabric("cpu")
    state = make_train_state(
        CaptioningNetwork(decoder, None), config, fabric, steps_per_epoch=1, parts=[decoder]
    )
    for group in state.optimizer.param_groups:
        group["lr"] = 0.0  # the same captions in each round
    shape = (_FEATURES,) if kind == "nic" else (_POSITIONS, _FEATURES)
    features = torch.randn(images, *shape)
    image_of = np.repeat(np.arange(_REFERENCES), 5)
    lengths = np.random.default_rng(0).integers(8, 15, len(image_of))[:, None]
    drawn = np.random.default_rng(1).zipf(1.3, (len(image_of), _LENGTH)) % (_WORDS - 4) + 4
    places = np.arange(_LENGTH)
    texts = np.where(places < lengths, drawn, np.where(places == lengths, END, PAD))
    references = self_critical.reward_references(texts, image_of)
    self_critical.use_policy(state.model)
    numbers = list(range(images))
    draws = torch.rand(images, _SAMPLES, _LENGTH)
    words, _ = sample(decoder, features, _LENGTH, draws)
    captions = words.flatten(0, 1)
    repeated = features.repeat_interleave(_SAMPLES, 0)

    def cross_entropy() -> None:
        batch = MicroBatch(0, (repeated, captions), True)
        engine.train_step(state, config, fabric, 0, [batch], False)

    def on_rewards() -> None:
        batch = MicroBatch(0, (features, numbers), True)
        self_critical.train_step(state, config, fabric, 0, [batch], False, references)

    found = seconds(
        cross_entropy=cross_entropy,
        rewards=partial(self_critical.rewards, references, numbers, words),
        on_rewards=on_rewards,
    )
    one, reward, other = found["cross_entropy"], found["rewards"], found["on_rewards"]
    length = float((captions != PAD).sum(1).float().mean())
    return [
        f"{kind}, {images} images x {_SAMPLES}",
        f"{one:.2f}",
        f"{other:.2f}",
        f"{other / one:.2f}",
        f"{1000 * reward:.1f}",
        f"{reward / other:.1%}",
        f"{length:.1f}",
    ]
