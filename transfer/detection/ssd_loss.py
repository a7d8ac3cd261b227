"""SSD's loss: default boxes matched with objects, three hard negatives for each that has one.

The figures are those of torchvision's SSD (`compute_loss`), for all images at once and without
waiting for the device. Two rules differ where they would show: of two objects with the same best
default box the last has it on every device (on CUDA torchvision leaves it to chance), and a default
box with an object is never drawn as a negative too (there it is, where more than a quarter have
one).

N images, K objects of the image that has most, A default boxes, C classes with the background.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

IOU = 0.5
"""From which on a default box belongs to an object."""
NEGATIVES = 3
"""For each default box with an object."""
CODER = BoxCoder(weights=(10.0, 10.0, 5.0, 5.0))
"""What is learned of a box: centre and logarithms of width and height, over the variances."""


def ssd_loss(
    outputs: Mapping[str, Tensor], targets: Sequence[Mapping[str, Tensor]], default_boxes: Tensor
) -> dict[str, Tensor]:
    """Smooth L1 and cross-entropy, summed and divided by the default boxes that have an object.

    Args:
        outputs: torchvision's SSDHead's, float32: "bbox_regression" (N, A, 4), "cls_logits"
            (N, A, C).
        targets: N of {"boxes" (objects, 4), "labels" (objects,) from 1}.
        default_boxes: (A, 4).
    """
    # one object more than there are, of label 0: there may be none
    boxes = functional.pad(
        pad_sequence([target["boxes"] for target in targets], batch_first=True), (0, 0, 0, 1)
    )
    labels = functional.pad(
        pad_sequence([target["labels"] for target in targets], batch_first=True), (0, 1)
    )
    matched = match(boxes, labels > 0, default_boxes)
    positive = matched >= 0
    chosen = matched.clamp(min=0)
    label = torch.where(positive, labels.gather(1, chosen), 0)
    box = boxes.gather(1, chosen[:, :, None].expand(-1, -1, 4))
    box = torch.where(positive[:, :, None], box, default_boxes)
    count = positive.sum(1, keepdim=True)

    corrections, logits = outputs["bbox_regression"], outputs["cls_logits"]
    wanted = CODER.encode_single(box.flatten(0, 1), default_boxes.repeat(len(box), 1))
    box_loss = functional.smooth_l1_loss(corrections, wanted.view_as(box), reduction="none").sum(2)
    class_loss = functional.cross_entropy(
        logits.flatten(0, 1), label.flatten(), reduction="none"
    ).view_as(label)
    hardest = class_loss.masked_fill(positive, 0).sort(1, descending=True).values
    is_drawn = torch.arange(hardest.shape[1], device=hardest.device) < NEGATIVES * count
    divisor = count.sum().clamp(min=1)
    return {
        "loss_classifier": ((class_loss * positive).sum() + (hardest * is_drawn).sum()) / divisor,
        "loss_box_reg": (box_loss * positive).sum() / divisor,
    }


def match(boxes: Tensor, is_object: Tensor, default_boxes: Tensor) -> Tensor:
    """(N, A): the object of each default box, or -1.

    It is the one that overlaps it most, by IOU at least; and every object has the default box that
    overlaps it most.

    Args:
        boxes: (N, K, 4), K at least 1.
        is_object: (N, K), which of them are any.
        default_boxes: (A, 4).
    """
    (images, objects), count = is_object.shape, len(default_boxes)
    overlap = box_iou(boxes.flatten(0, 1), default_boxes).view(images, objects, count)
    largest, matched = overlap.max(1)
    matched = matched.masked_fill(largest < IOU, -1)
    best = overlap.argmax(2).masked_fill(~is_object, count)  # one place more, for what is none
    number = torch.arange(objects, device=boxes.device).expand(images, -1)
    own = torch.full((images, count + 1), -1, device=boxes.device)
    own = own.scatter_reduce(1, best, number, "amax")[:, :count]
    return torch.where(own >= 0, own, matched)
