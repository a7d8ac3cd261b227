"""Decoupled mixup (Liu et al., NeurIPS 2023, arXiv 2203.10761, equations 5 and 6): a second loss.

The cross-entropy with mixed labels makes the two classes of a mixed image compete: what one gains,
the other loses, as lam says, though both are plainly to be seen. Here each of them is compared with
all classes but the other. With logits z and the classes a != b of the two images,

    loss = soft cross-entropy + eta (h(a without b) + h(b without a))
    h(a without b) = -z_a + log sum over c != b of exp z_c

No lam is in the second part, which is 0 where the labels are one, or one image fills the picture.
Label rule: the targets of the method stay as they are. Further passes of the network: none.

Reference: Westlake-AI/openmixup, soft_mix_cross_entropy. Equal to it, but for lam = 0.5, where the
reference leaves the second part out because it finds the classes by their different weights. It
takes one lam a batch; here every row has its own. Label smoothing acts on the first part alone.
"""

import torch
from torch import Tensor
from torch.nn import functional

from pretrain.errors import UsageError
from pretrain.mixing.mixed import soft_labels, to_device


def decoupled_loss(logits: Tensor, labels: Tensor, partner: Tensor, lam: Tensor) -> Tensor:
    """The part of the loss that eta multiplies, the mean over M rows of a batch of K classes.

    Args:
        logits: (M, K).
        labels: (N,) integers, N >= M, on the device of the logits: of the images before mixing.
        partner: (M,) rows of `labels`.
        lam: (M,) weights of the own label.

    Raises:
        UsageError: soft labels, or several partners.
    """
    if labels.ndim != 1 or partner.ndim != 1:
        raise UsageError(
            f"labels have shape {tuple(labels.shape)} and partners {tuple(partner.shape)}; the "
            "decoupled loss is of two classes: integer labels (N,), one partner each (M,). Give "
            "--mixing.decoupled 0."
        )
    labels = labels.long()
    own, other = labels[: len(logits)], labels[to_device(partner, labels.device)]
    lam = to_device(lam, logits.device)
    pairs = (own != other) & (lam > 0) & (lam < 1)
    losses = _without(logits, own, other, pairs) + _without(logits, other, own, pairs)
    return (losses * pairs).mean()


def _without(logits: Tensor, kept: Tensor, left: Tensor, pairs: Tensor) -> Tensor:
    """Cross-entropy (M,) of the class `kept` among all but `left`; among all where not `pairs`."""
    hidden = soft_labels(left, logits.shape[1]).bool() & pairs[:, None]
    return functional.cross_entropy(logits.masked_fill(hidden, -torch.inf), kept, reduction="none")
