"""SSD of torchvision's parts on the levels of any Backbone (Liu et al., ECCV 2016).

torchvision's own SSD takes VGG-16. There is no published layout for other networks; the two here:

- `levels`: the backbone's levels at strides 8, 16 and 32, each through a BatchNorm of its own, then
  extra blocks down to one position. 300 pixels: maps of 38, 19, 10, 5, 3, 1; 8,732 default boxes.
  The BatchNorm does what the L2 norm of its first level does in the paper: backbones differ in
  scale (EfficientNet's levels are ten times a ResNet's), and the head is drawn for one.
- `stride8`: NVIDIA's DeepLearningExamples (SSD300 v1.1): a ResNet without its last stage, the one
  before at stride 8, then extra blocks. The same maps and default boxes.

Default boxes, head, the choice of detections and the initialisation of new layers are
torchvision's; the loss has its figures (see `ssd_loss`). New layers have BatchNorm, but for the
last: its map has one position, of which a batch of one image has no statistics.

N images, C channels, H height, W width, A default boxes.
"""

from typing import Any

import torch
from timm.layers.norm_act import convert_sync_batchnorm
from timm.models.resnet import ResNet
from torch import Tensor, nn
from torchvision.models.detection import ssd
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from pretrain.backbone import Backbone, BackboneSpec
from pretrain.errors import UsageError
from transfer.detection.body import DetectorBackbone
from transfer.detection.config import DetectorConfig
from transfer.detection.padding import PaddedBatch
from transfer.detection.ssd_loss import ssd_loss

Tensors = dict[str, Tensor]


class SSD(ssd.SSD):
    """torchvision's SSD for images that are squares already, normalised as the backbone wants.

    In training: images and targets to {loss: scalar}. In evaluation: images to a list of {"boxes"
    (K, 4), "labels" (K,) from 1, "scores" (K,)}, in pixels of the images as given: of each class
    the 400 best above 0.01, without those that overlap a better one by 0.45; 200 in all.
    """

    default_boxes: Tensor

    def __init__(
        self,
        backbone: DetectorBackbone,
        norms: nn.ModuleList,
        extra: nn.ModuleList,
        head: ssd.SSDHead,
        generator: DefaultBoxGenerator,
        sizes: list[int],
        side: int,
        spec: BackboneSpec,
    ) -> None:
        """`norms` of the backbone's levels; `sizes` of all, for images of `side` x `side`."""
        super().__init__(backbone, generator, (side, side), 0, head=head)
        self.norms, self.extra, self.side = norms, extra, side
        self.pad = PaddedBatch(spec, 1)
        image = ImageList(torch.empty(1, 3, side, side), [(side, side)])
        boxes = generator(image, [torch.empty(1, 1, size, size) for size in sizes])[0]
        self.register_buffer("default_boxes", boxes, persistent=False)

    def forward(
        self, images: list[Tensor], targets: list[Tensors] | None = None
    ) -> Tensors | list[Tensors]:
        """Images: N uint8 RGB (3, side, side); UsageError for others.

        Targets: {"boxes" (K, 4), "labels" (K,) from 1}, K may be 0.
        """
        if other := [image for image in images if image.shape[1:] != (self.side, self.side)]:
            height, width = other[0].shape[1:]
            raise UsageError(
                f"an image has {width} x {height} pixels; this SSD takes squares of {self.side}. "
                f"Resize it, or give --dataset.square {self.side}."
            )
        batch = self.pad(images)
        own = self.backbone(batch.tensors).values()
        levels = [norm(level) for norm, level in zip(self.norms, own, strict=True)]
        for block in self.extra:
            levels.append(block(levels[-1]))
        outputs = {name: output.float() for name, output in self.head(levels).items()}
        if targets is not None and self.training:
            return ssd_loss(outputs, targets, self.default_boxes)
        same = [self.default_boxes] * len(images)
        found: list[Tensors] = self.postprocess_detections(outputs, same, batch.image_sizes)
        return found


def build_detector(backbone: Backbone, config: DetectorConfig, num_classes: int, side: int) -> SSD:
    """A detector for `num_classes` classes in squares of `side` pixels; label 0 is the background.

    New parts are drawn from torch's ambient generator.

    Raises:
        UsageError: the backbone lacks levels, is no ResNet where the layout wants one, or there are
            too few or too many `box_scales`.
    """
    strides, wide = ((8, 16, 32), 1) if config.layout == "levels" else ((16,), 2)
    body = DetectorBackbone(backbone, config, strides)
    steps: list[float] = [8, 16, 32]
    norms = nn.ModuleList(nn.BatchNorm2d(channels) for channels in body.level_channels)
    if config.layout == "stride8":
        keep_stride_8(body, backbone)
        steps, norms = [8], nn.ModuleList([nn.Identity()])
    channels, sizes = list(body.level_channels), level_sizes(body, side)

    # ---- extra blocks, each about half as large as what is before it
    extra = nn.ModuleList()
    while sizes[-1] > 1:
        is_padded = sizes[-1] not in (3, 5)
        size = (sizes[-1] + 1) // 2 if is_padded else sizes[-1] - 2
        width = 512 if len(extra) < wide else 256
        extra.append(extra_block(channels[-1], width, is_padded, has_norm=size > 1))
        steps.append(2 * steps[-1] if is_padded and size > 1 else side / size)
        sizes.append(size)
        channels.append(width)
    if config.batch_norm == "sync":
        norms, extra = convert_sync_batchnorm(norms), convert_sync_batchnorm(extra)

    # ---- default boxes, and the head that classifies and moves them
    count = len(sizes)
    scales = config.box_scales or pascal_voc_scales(count)
    if len(scales) != count + 1:
        raise UsageError(
            f"detector.box_scales has {len(scales)} sizes; with {backbone.spec.arch} and squares "
            f"of {side} there are {count} levels (maps of {', '.join(map(str, sizes))}), which "
            f"want {count + 1}"
        )
    ratios = [[2], *[[2, 3]] * (count - 3), [2], [2]]
    generator = DefaultBoxGenerator(ratios, scales=list(scales), steps=steps)
    head = ssd.SSDHead(channels, generator.num_anchors_per_location(), num_classes + 1)
    return SSD(body, norms, extra, head, generator, sizes, side, backbone.spec)


def pascal_voc_scales(levels: int) -> list[float]:
    """Sizes of the default boxes as shares of the side: 0.1, evenly 0.2 to 0.88, and 1.05.

    The paper's for Pascal VOC (section 2.2), with the authors' last one.
    """
    return [0.1, *(0.2 + 0.68 * k / (levels - 2) for k in range(levels - 1)), 1.05]


def extra_block(channels: int, width: int, is_padded: bool, has_norm: bool) -> nn.Sequential:
    """1x1 and 3x3 convolution, the second at stride 2 or without padding."""
    stride, padding = (2, 1) if is_padded else (1, 0)
    narrow = width // 2
    block = nn.Sequential(
        nn.Conv2d(channels, narrow, 1, bias=False),
        nn.BatchNorm2d(narrow),
        nn.ReLU(inplace=True),
        nn.Conv2d(narrow, width, 3, stride, padding, bias=not has_norm),
        nn.BatchNorm2d(width) if has_norm else nn.Identity(),
        nn.ReLU(inplace=True),
    )
    for layer in block:
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return block


def keep_stride_8(body: DetectorBackbone, backbone: Backbone) -> None:
    """Take the stride from the first block of a ResNet's third stage, as NVIDIA does.

    Raises:
        UsageError: no ResNet, or one that is smaller by other means than its convolutions.
    """
    network: Any = body.body.model  # inside timm's feature wrapper
    is_resnet = isinstance(network, ResNet)
    first: Any = network.layer3[0] if is_resnet else None
    if first is None or first.downsample is None or not isinstance(first.aa, nn.Identity):
        raise UsageError(
            f"{backbone.spec.arch} is no ResNet whose third stage could work at stride 8, which "
            "detector.layout stride8 needs. Use --detector.layout levels."
        )
    for module in first.modules():
        if isinstance(module, nn.Conv2d):
            module.stride = (1, 1)
    if isinstance(first.downsample[0], nn.AvgPool2d):
        first.downsample[0] = nn.Identity()  # as timm's own at stride 1


@torch.no_grad()
def level_sizes(body: DetectorBackbone, side: int) -> list[int]:
    """Height of each level for squares of that side: networks round in their own ways."""
    was_training = body.training
    levels = body.eval()(torch.zeros(1, 3, side, side))
    body.train(was_training)
    return [level.shape[-1] for level in levels.values()]
