"""Mixing in other people's loops: one object in place of torchvision's and timm's.

K classes, N images in, M rows out (fewer than N with granularity "half" alone).

    from pretrain.mixing import Choice, CutMix, Mixup
    from pretrain.mixing.drop_in import BatchMix

In the loop, in place of torchvision's `v2.CutMix` (or inside `v2.RandomChoice`):

    mix = BatchMix(CutMix(), num_classes=100)
    images, targets = mix(images, labels)  # then cross_entropy(model(images), targets)

In a loader's workers, in place of a collate function around it, or of timm's `FastCollateMixup`:

    mix = BatchMix(CutMix(), num_classes=100)
    loader = DataLoader(data, batch_size=256, num_workers=8, collate_fn=mix.collate)

In place of timm's `Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1)`:

    both = Choice(mixes=(Mixup(alpha=0.8), CutMix()), weights=(0.5, 0.5))
    mixup_fn = BatchMix(both, num_classes=1000, label_smoothing=0.1)

Any method of `pretrain.mixing` goes in. Those that do something inside the network have no images
and targets to give before its pass; such a loop calls them itself:

    mixed = mix(images, labels, num_classes, generator)
    logits, targets = forward(model, mixed)

How it differs: the inputs stay as they are (timm overwrites the images), batches may be odd, and
the labels may be integers or (N, K) weights whether or not anything is mixed. One method is drawn
for a batch, where timm's mode "elem" draws one for a sample.
"""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from pretrain.errors import UsageError, check_ranges
from pretrain.mixing.mixed import Mix, smooth_targets, soft_labels
from pretrain.mixing.schedule import INSIDE_PARTS, NETWORK_PARTS


class BatchMix:
    """From a batch to a mixed one.

    What is drawn follows from `seed`, the number of the call and, in a loader's worker, the seed
    that torch gives it. So workers and epochs differ, a loader with the same `generator` (or under
    the same `torch.manual_seed`) repeats, and whoever seeds torch or NumPy elsewhere, as for each
    sample, changes nothing.
    """

    def __init__(
        self,
        mix: Mix,
        num_classes: int | None = None,
        *,
        seed: int = 0,
        label_smoothing: float = 0.0,
    ) -> None:
        """Nothing is drawn yet.

        Args:
            mix: any method, or a Choice of several.
            num_classes: K; not needed where labels are (N, K).
            seed: not negative; another one in each process of a distributed run.
            label_smoothing: timm's: each label is 1 - smoothing + smoothing / K, all others
                smoothing / K, before they are mixed.

        Raises:
            UsageError: a smoothing outside [0, 1), a negative seed, or a method at work inside the
                network.
        """
        self.mix, self.num_classes = mix, num_classes
        self.seed, self.label_smoothing = seed, label_smoothing
        check_ranges("", self, seed=">= 0", label_smoothing="[0, 1)")
        self._enabled = torch.tensor(True).share_memory_()  # the workers' too, once they run
        self._calls = 0
        parts = _network_parts(mix)
        if parts & INSIDE_PARTS:
            raise _works_inside(mix)
        self._uses_network = bool(parts)

    @property
    def mixup_enabled(self) -> bool:
        """Whether anything is mixed: timm's name for it.

        Set it in the training process; workers see it from the next batch that they begin, also
        where they outlive an epoch. timm's loader sets only the switch of its own class.
        """
        return bool(self._enabled)

    @mixup_enabled.setter
    def mixup_enabled(self, value: bool) -> None:
        self._enabled.fill_(value)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix a batch on any device: images (M, C, H, W), targets (M, K) float32.

        Args:
            images: (N, C, H, W), floating or uint8.
            labels: (N,) integers or (N, K) weights.

        Raises:
            UsageError: no such batch, or a method at work inside the network.
        """
        outputs = self._check(images, labels)
        if self.mixup_enabled:
            mixed = self.mix(images, labels, outputs, self._draws())
            if mixed.inside is not None:
                raise _works_inside(self.mix)
            images, targets = mixed.images, mixed.targets
        else:
            targets = soft_labels(labels, outputs)
        return images, smooth_targets(targets, self.label_smoothing)

    def collate(self, samples: Sequence[Any]) -> tuple[Tensor, Tensor]:
        """Mix the samples (image, label) of a batch, as torch's default_collate stacks them.

        Raises:
            UsageError: see the call; or a method that looks at the images through a network, of
                which a worker would have a copy that learns nothing.
        """
        if self._uses_network:
            raise UsageError(
                f"{type(self.mix).__name__} needs the network, of which a loader's worker would "
                "have a copy that learns nothing. Mix in the loop: images, targets = mix(images, "
                "labels)."
            )
        batch = default_collate(list(samples))
        if len(batch) != 2:
            raise UsageError(f"a sample has {len(batch)} parts; it must be (image, label)")
        return self(*batch)

    def _check(self, images: Tensor, labels: Tensor) -> int:
        """The number of classes of a batch that can be mixed."""
        if images.ndim != 4 or labels.ndim not in (1, 2) or len(images) != len(labels):
            raise UsageError(
                f"images have shape {tuple(images.shape)} and labels {tuple(labels.shape)}; they "
                "must be (N, C, H, W), and (N,) or (N, K)"
            )
        outputs = labels.shape[1] if labels.ndim == 2 else self.num_classes
        if outputs is None:
            raise UsageError("labels are integers, and num_classes is not given: BatchMix(mix, K)")
        if self.num_classes not in (None, outputs):
            raise UsageError(f"labels have {outputs} columns; num_classes is {self.num_classes}")
        if labels.ndim == 1:
            if labels.is_floating_point():
                raise UsageError(
                    f"labels (N,) are {labels.dtype}; they must be integers, or weights (N, K)"
                )
            # not on a device, which would be waited for
            if labels.device.type == "cpu" and not all(0 <= n < outputs for n in labels.tolist()):
                raise UsageError(
                    f"labels are {labels.min()} to {labels.max()}; with num_classes {outputs} they "
                    f"must be 0 to {outputs - 1}"
                )
        return outputs

    def _draws(self) -> torch.Generator:
        """The generator of the next batch."""
        self._calls += 1
        worker = get_worker_info()
        words = [self.seed, self._calls, *([] if worker is None else [worker.seed])]
        # hashed, as torch's CPU generator takes only the low 32 bits of a seed
        state = int(np.random.SeedSequence(words).generate_state(1)[0])
        return torch.Generator().manual_seed(state)


def _network_parts(mix: Any) -> set[str]:
    """Names of the parts of a network that a method, or one of a choice, has been given."""
    return {
        entry.name
        for one in getattr(mix, "mixes", (mix,))
        for entry in (fields(one) if is_dataclass(one) else ())
        if entry.name in NETWORK_PARTS and getattr(one, entry.name) is not None
    }


def _works_inside(mix: Mix) -> UsageError:
    return UsageError(
        f"{type(mix).__name__} mixes inside the network, so there are no mixed images and targets "
        "before its pass. Call it in the loop: mixed = mix(images, labels, num_classes, "
        "generator); logits, targets = forward(model, mixed)."
    )
