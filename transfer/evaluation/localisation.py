"""Weakly supervised localisation: boxes from class activation maps, though no box was trained on.

The paper's protocol (table 9, appendix B): the last stage has stride 1; the box is the tightest
round the largest region of the map that is at least 0.15 of its maximum; top-1 loc counts images
whose class is right and whose box overlaps a true one by IoU 0.5. GT-known loc takes the class as
given. One map serves both, that of the true class: where the prediction is right, it is the same.

MaxBoxAcc and MaxBoxAccV2 take the best of a hundred thresholds instead: see `box_scores`.

A true box is carried into the crop that the network sees, and cut at its edges; an object outside
the crop counts as not found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2

from pretrain.backbone import Backbone
from pretrain.backbone_evaluation import resizing
from pretrain.errors import UsageError
from pretrain.files import save_figure
from pretrain.spec import BackboneSpec, evaluation_crop
from pretrain.training import generator
from transfer.evaluation.activation_maps import (
    check_maps,
    class_maps,
    enlarge,
    to_unit_range,
    without_last_stride,
)
from transfer.evaluation.box_scores import IOU, BoxCounts, map_box, overlaps
from transfer.evaluation.boxed_images import BoxedImages, open_boxed
from transfer.evaluation.config import LocalisationConfig
from transfer.evaluation.images import Labels
from transfer.evaluation.session import Session, normalise, to_unit

_SHOWN = 8


def open_data(
    backbone: Backbone, root: Path, options: LocalisationConfig, labels: Labels
) -> BoxedImages:
    """The images with their boxes.

    Raises:
        UsageError: see `open_boxed`; a network that has no such maps.
    """
    data = open_boxed(root, backbone, labels, options.first_pixel)
    _, size, note = _prepare(_resized(backbone, options.size), options)
    notes = (*data.images.notes, f"activation maps have {size[0]} x {size[1]} positions{note}")
    return replace(data, images=replace(data.images, notes=notes))


def _resized(backbone: Backbone, size: int | None) -> Backbone:
    """The backbone, seeing images of another size."""
    shape = backbone.spec.input_size if size is None else (3, size, size)
    return replace(backbone, spec=replace(backbone.spec, input_size=shape))


def _prepare(
    backbone: Backbone, options: LocalisationConfig
) -> tuple[nn.Module, tuple[int, int], str]:
    """The network as it is measured, the size of its map, and what is to be said of it."""
    network, size = backbone.build().eval(), backbone.spec.input_size
    check_maps(network, size, options.methods)
    note = ""
    if options.last_stage != "own":
        wider = without_last_stride(network, size, options.last_stage == "dilated")
        network = wider or network
        note = "" if wider else "; the last stage keeps its stride: no convolution alone makes it"
    return network, check_maps(network, size, options.methods), note


def evaluate(
    backbone: Backbone, data: BoxedImages, options: LocalisationConfig, session: Session
) -> dict[str, Any]:
    """Percent of images, by method (`cam_`, `grad_cam_`): see the module.

    top1_loc, gt_known_loc, max_box_acc, max_box_acc_v2; `threshold`, of which max_box_acc is;
    `box_acc`, at all of `box_scores.THRESHOLDS`. Also top1; images, and how many of them have no
    object in the crop (`outside`); `map`, the positions of a map before it is enlarged.
    """
    backbone = _resized(backbone, options.size)
    network, size, _ = _prepare(backbone, options)
    network = session.place(network)
    geometry = _geometry(backbone.spec, options.geometry)
    transform = resizing(geometry, session.by_pil)
    truth = [_carry(boxes, wh, geometry) for boxes, wh in zip(data.boxes, data.sizes, strict=True)]
    labels = torch.from_numpy(data.images.labels)

    def score() -> dict[str, Any]:
        counts = {str(method): BoxCounts() for method in options.methods}
        images = right = outside = 0
        for batch, numbers in session.batches(data, backbone.spec, "maps", transform=transform):
            classes = labels[numbers].to(session.device)
            logits, maps = _maps(network, batch, classes, backbone.spec, options.methods, session)
            is_right = (logits.argmax(1) == classes).tolist()
            for method, ours in maps.items():
                for one, number, hit in zip(ours, numbers.tolist(), is_right, strict=True):
                    counts[method].add(one, truth[number], hit, options.threshold)
            images += len(numbers)
            right += sum(is_right)
            outside += sum(not len(truth[number]) for number in numbers.tolist())
        if not images:
            raise UsageError("localisation: none of the images can be read.")
        metrics = {"images": images, "top1": 100 * right / images, "outside": outside}
        for method, count in counts.items():
            values = count.percent(images)
            metrics |= {f"{method.replace('-', '_')}_{key}": v for key, v in values.items()}
        return metrics

    metrics = session.part("maps", score)
    # chosen before anything is known of them
    draw = generator(options.seed, "order")
    chosen = torch.randperm(len(data), generator=draw)[:_SHOWN].sort().values.tolist()
    within = replace(session, workers=0)
    shown = []
    for batch, numbers in within.batches(data, backbone.spec, "picture", chosen, transform):
        classes = labels[numbers].to(session.device)
        logits, maps = _maps(network, batch, classes, backbone.spec, options.methods, session)
        names = [data.images.classes[k] for k in logits.argmax(1).tolist()]
        for place, number in enumerate(numbers.tolist()):
            of_image = {method: ours[place] for method, ours in maps.items()}
            is_right = names[place] == data.images.classes[int(labels[number])]
            image = batch[place].permute(1, 2, 0).cpu().numpy()
            shown.append((image, of_image, truth[number], names[place], is_right))
    if shown:
        draw_maps(shown, options.threshold, session.picture("localisation.png"))
    return metrics | {"map": list(size)}


def _geometry(spec: BackboneSpec, geometry: str) -> Sequence[nn.Module]:
    """The resizing, and the crop where there is one."""
    _, height, width = spec.input_size
    if geometry == "crop":
        return evaluation_crop(height, width, spec.crop_pct, spec.interpolation)
    mode = InterpolationMode(spec.interpolation)
    return [v2.Resize((height, width), interpolation=mode, antialias=True)]


def _carry(boxes: np.ndarray, size: np.ndarray, geometry: Sequence[nn.Module]) -> np.ndarray:
    """Boxes of an image (K, 4) in what the network sees of it, those with something in it."""
    width, height = size.tolist()
    boxed: Any = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(height, width))
    for step in geometry:
        boxed = step(boxed)
    carried = boxed.numpy()
    return carried[(carried[:, 2] > carried[:, 0]) & (carried[:, 3] > carried[:, 1])]


def _maps(
    network: nn.Module,
    batch: Tensor,
    classes: Tensor,
    spec: BackboneSpec,
    methods: Sequence[str],
    session: Session,
) -> tuple[Tensor, dict[str, np.ndarray]]:
    """The outputs, and by method maps (N, H, W) from 0 to 1 of the input's size."""
    with session.fabric.autocast():
        logits, maps = class_maps(network, normalise(to_unit(batch), spec), classes, methods)
    size = (batch.shape[2], batch.shape[3])
    return logits, {
        method: to_unit_range(enlarge(one, size), method).cpu().numpy()
        for method, one in maps.items()
    }


_Shown = tuple[np.ndarray, Mapping[str, np.ndarray], np.ndarray, str, bool]


def draw_maps(shown: Sequence[_Shown], threshold: float, path: Path) -> None:
    """Images with their maps; true boxes are white, those found green (IoU 0.5) or red.

    Args:
        shown: image (H, W, 3), maps by method, true boxes, the predicted class, whether it is so.
        threshold: of the boxes found.
        path: of the PNG.
    """
    panels = 1 + len(shown[0][1])
    columns = 2 * panels
    rows = -(-len(shown) // 2)
    figure = Figure(figsize=(1.9 * columns, 2.2 * rows + 0.4), layout="constrained")
    figure.suptitle("maps of the true class; true boxes white, found green (IoU >= 0.5) or red")
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for place, (image, maps, truth, name, is_right) in enumerate(shown):
        first, *others = grid.reshape(-1, panels)[place]
        first.imshow(image)
        first.set_title(f"{name}, {'right' if is_right else 'wrong'}"[-28:], fontsize=8)
        _draw_boxes(first, truth, "white")
        for axes, (method, scores) in zip(others, maps.items(), strict=True):
            box = map_box(scores, threshold)[None]
            iou = overlaps(box, truth).max(initial=0)
            axes.imshow(image.mean(2), cmap="gray", vmin=0, vmax=255)
            axes.imshow(scores, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
            axes.set_title(f"{method}, IoU {iou:.2f}", fontsize=8)
            _draw_boxes(axes, truth, "white")
            _draw_boxes(axes, box, "lime" if iou >= IOU else "red")
    save_figure(figure, path, dpi=80)


def _draw_boxes(axes: Any, boxes: np.ndarray, colour: str) -> None:
    for left, top, right, bottom in boxes.tolist():
        corner, size = (left - 0.5, top - 0.5), (right - left, bottom - top)
        axes.add_patch(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=1.4))
