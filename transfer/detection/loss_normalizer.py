"""What RetinaNet's losses are divided by: the number of anchors on objects, averaged over steps.

detectron2's `DenseDetector._ema_update`: 0.9 of the average and 0.1 of the number in this
micro-batch; the average begins at 100. There it is an attribute of each process that no checkpoint
keeps. Here it is a buffer, and it moves once a step, by the mean over the micro-batches of all
processes: a run goes on to the same bits, and on another number of processes to the same but for
rounding, as long as its micro-batches have the same size.
"""

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

_MOMENTUM = 0.9


class LossNormalizer(nn.Module):
    """The average, and the numbers of this step."""

    average: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("average", torch.tensor(100.0))
        self.counts: list[Tensor] = []

    def forward(self, count: Tensor) -> Tensor:
        """The divisor for a micro-batch with so many anchors on objects; none counts as one."""
        self.counts.append(count.detach().clamp(min=1).float())
        return self._moved(self.counts[-1])

    def finish_step(self, fabric: Fabric) -> None:
        """Move the average; in every process at once."""
        mean = fabric.all_reduce(torch.stack(self.counts).mean(), reduce_op="mean")
        self.average.copy_(self._moved(torch.as_tensor(mean)))
        self.counts.clear()

    def _moved(self, count: Tensor) -> Tensor:
        return _MOMENTUM * self.average + (1 - _MOMENTUM) * count


def update_loss_normalizers(network: nn.Module, fabric: Fabric) -> None:
    """At the end of a step, move what the losses of a network are divided by, if there is such."""
    for module in network.modules():
        if isinstance(module, LossNormalizer):
            module.finish_step(fabric)
