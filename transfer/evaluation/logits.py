"""The classifier's outputs on images, batch by batch, in double precision."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.errors import UsageError
from pretrain.spec import BackboneSpec
from transfer.evaluation.session import ReadableImages, Session, normalise, to_unit


def logits(
    network: nn.Module,
    images: ReadableImages,
    spec: BackboneSpec,
    session: Session,
    title: str,
    order: Sequence[int] | np.ndarray | None = None,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The outputs of a network for images.

    The network runs in the precision of the session. What follows is computed in float64: in
    float32 a softmax of 1 - 3e-8 and more is 1, and images that differ become equal.

    Args:
        network: of `session.network`.
        images: to be read.
        spec: how they are fed.
        session: device, precision, loading.
        title: of the progress bar.
        order: see `Session.batches`.
        transform: see `Session.batches`.

    Yields:
        float64 logits (B, K) on the device (Apple's GPUs have no such: there on the CPU), and the
        images' numbers (B,) on the CPU.

    Raises:
        UsageError: no image can be read; or, at the end, some outputs are infinite or nan.
    """
    count, bad = 0, torch.zeros((), dtype=torch.int64, device=session.device)
    for batch, numbers in session.batches(images, spec, title, order, transform):
        with torch.inference_mode(), session.fabric.autocast():
            outputs = network(normalise(to_unit(batch), spec))
            bad += (~outputs.isfinite()).any(1).sum()
            count += len(numbers)
            exact = (outputs.cpu() if outputs.device.type == "mps" else outputs).double()
        yield exact, numbers
    if not count:
        raise UsageError(f"{title}: none of the images can be read.")
    if bad:
        raise UsageError(
            f"{title}: the outputs for {int(bad):,} of {count:,} images are infinite or nan. Give "
            "--precision 32-true; where that is the precision, the weights are to blame."
        )
