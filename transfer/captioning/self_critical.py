"""Self-critical sequence training (Rennie et al., CVPR 2017, arXiv 1612.00563).

Of each image K captions are drawn; a caption's reward is its CIDEr-D, and the gradient that of

    -(reward - baseline) * sum over its words of log p(word),     the mean over the captions,

which is REINFORCE's: without bias that of minus the expected reward. The baseline is the mean
reward of the image's other samples (Luo, arXiv 2003.09971), or the reward of the greedy caption as
in the paper. ruotianluo/self-critical.pytorch divides by the number of words where this divides by
that of captions: the same direction but for the draw of the number, a tenth of the size, and
another mean where a step is cut into parts.

Rewards are counted on the vocabulary's words, as there: an unknown word is a word, and so is the
end, in samples, references and document frequencies; without it captions end in "with a". A caption
that was cut at the greatest length has no end. Document frequencies are the training images'.

Captions are drawn and learned from in evaluation mode, without dropout, norms as they are, so the
gradient is that of what was sampled. What is drawn depends on seed, step and the image's place in
it: as many parts and processes as may be draw the same.

N images, K samples of each, T words, S captions of the data set.
"""

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional

from pretrain.training import MicroBatch, TrainState, generator, optimizer_step
from transfer.captioning.config import CaptioningConfig
from transfer.captioning.sampling import sample
from transfer.captioning.scores import References
from transfer.captioning.vocabulary import END, NOT_GENERATED, PAD, Ints

METRICS = ("loss", "reward", "baseline", "unended")
"""Of an epoch: the loss, the mean CIDEr-D of the samples and of what they are compared with, the
share of the samples that have no end."""


def reward_references(words: Ints, image_of: Ints) -> References[int]:
    """What captions are rewarded by: the training captions (S, T) by the image of each, (S,)."""
    references: dict[int, list[str]] = {}
    for image, text in zip(image_of.tolist(), _texts(words.tolist()), strict=True):
        references.setdefault(image, []).append(text)
    return References(references, tokenized=True)


def rewards(references: References[int], images: Sequence[int], words: Tensor) -> Tensor:
    """(N, K) CIDEr-D, float32, of captions (N, K, T) on the CPU; `images`: the image of each."""
    ids = np.repeat(np.array(images, np.int64), words.shape[1]).tolist()
    scores = references.cider_d(ids, _texts(words.flatten(0, 1).tolist()))
    return torch.from_numpy(scores).view(words.shape[:2]).float()


def mean_of_others(values: Tensor) -> Tensor:
    """Of each of (N, K) the mean of the others in its row."""
    return (values.sum(1, keepdim=True) - values) / (values.shape[1] - 1)


def use_policy(decoder: nn.Module) -> None:
    """Put a decoder into the mode in which it is sampled, and has gradients."""
    decoder.eval()
    for module in decoder.modules():
        if isinstance(module, nn.RNNBase):  # cuDNN keeps what gradients need in training alone;
            module.train()  # with one layer that changes nothing else


def train_step(
    state: TrainState,
    config: CaptioningConfig,
    fabric: Fabric,
    step: int,
    micro_batches: Iterable[MicroBatch],
    trains_encoder: bool,
    references: References[int],
) -> Tensor:
    """One optimizer step from micro-batches of features, or images, and the images' numbers.

    Returns (4,): METRICS, each summed over the micro-batches.
    """
    network: Any = state.network
    options, decoder, device = config.self_critical, network.decoder, fabric.device
    num_samples, length = options.samples, config.decoding.max_length
    num_images = config.batch_size // num_samples
    draws = torch.rand(
        num_images, num_samples, length, generator=generator(config.seed, "captions", step)
    )

    def loss_function(batch: MicroBatch) -> tuple[Tensor, Tensor]:
        features, images = batch.data
        if trains_encoder:
            features = state.more_models[0](features)
        seen, first = features.detach(), batch.number * len(images)
        with fabric.autocast():
            words, _ = sample(decoder, seen, length, draws[first : first + len(images)])
            greedy = sample(decoder, seen, length)[0] if options.baseline == "greedy" else None
        on_cpu, greedy = words.cpu(), None if greedy is None else greedy.cpu()

        # a GPU computes this while the rewards are counted
        flat = words.flatten(0, 1)
        logits = state.model(features.repeat_interleave(num_samples, 0), flat).logits
        logits[..., NOT_GENERATED] = -torch.inf
        surprise = functional.cross_entropy(
            logits.flatten(0, 1).float(), flat.flatten(), ignore_index=PAD, reduction="none"
        )
        surprise = surprise.view_as(flat).sum(1)  # minus log p of each caption

        reward = rewards(references, images, on_cpu)
        if greedy is None:
            baseline = mean_of_others(reward)
        else:
            baseline = rewards(references, images, greedy).expand_as(reward)
        loss = ((reward - baseline).flatten().to(device) * surprise).mean()
        unended = 1 - (on_cpu == END).any(-1).float().mean()
        metrics = torch.stack([reward.mean(), baseline.mean(), unended]).to(device)
        return loss, torch.cat([loss.detach()[None], metrics])

    return optimizer_step(state, fabric, micro_batches, loss_function, step)


def _texts(captions: Iterable[Sequence[int]]) -> list[str]:
    """The numbers of each caption's words, END among them, with spaces between."""
    return [" ".join(map(str, takewhile(PAD.__ne__, caption))) for caption in captions]
