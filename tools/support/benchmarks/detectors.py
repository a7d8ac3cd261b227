"""Training steps of a detector: this project's two engines, torchvision's reference, detectron2.

python tools/bench.py detectors --data VOC [--kind faster_rcnn] [--arch resnet18] [--size 320]
    [--batch 2] [--rois 512] [--device cpu] [--rounds 5] [--parts step memory]

Every side takes the same images, resized before the clock counts: forward, backward, SGD. A library
that is not installed is left out. On a CPU the clock is the processor's.

faster_rcnn: with a feature pyramid, the stem and first stage frozen, BatchNorm frozen.
torchvision's side is its FasterRCNN on resnet_fpn_backbone in its reference's training loop;
detectron2's is build_model on its Pascal VOC configuration in the step of its SimpleTrainer.

ssd (squares of --size): nothing frozen. torchvision's side is its SSD on the same body, extra
layers, default boxes and head, in its reference's training loop.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pretrain.errors import check_ranges
from tools.support.benchmarks._timing import (
    heading,
    make_available,
    peak_memory_mib,
    table,
    take_turns,
    wait,
)
from tools.support.command import Parser

PARTS = ["step", "memory"]
ARCHS = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    options = parse(argv)
    print(heading("detectors", argv, options.threads) + "\n")
    sides = SIDES[options.kind]
    steps = make_available(partial(make, options=options), sides)
    if "step" in options.parts:
        clock = time.process_time if options.device == "cpu" else time.perf_counter
        best = take_turns(steps, options.rounds, clock)
        rows = [
            [n, f"{value:.3f}", f"{value / best[sides[n][1]]:.2f}"] for n, value in best.items()
        ]
        print(table(["one step", "seconds", "in its library's own"], rows) + "\n", flush=True)
    if "memory" in options.parts:
        code = f"import sys; from {__name__} import take_three_steps as take; take(*sys.argv[1:])"
        memory = {n: peak_memory_mib(code, options.device, n, *argv) for n in steps}
        rows = [[n, f"{mib:,.0f}", f"{mib / memory[sides[n][1]]:.2f}"] for n, mib in memory.items()]
        print(table(["peak memory, three steps", "MiB", "in its library's own"], rows))


def take_three_steps(name: str, *argv: str) -> None:
    """What a process of its own does, whose memory is measured."""
    step = make(name, parse(argv))
    for _ in range(3):
        step()


def make(name: str, options: Any) -> Callable[[], None]:
    """A function that takes one step of that side."""
    import torch

    from transfer.detection.config import DatasetConfig
    from transfer.detection.data import open_data
    from transfer.detection.dataset import DetectionDataset, collate

    square = options.size if options.kind == "ssd" else None
    config = DatasetConfig(short_side=options.size, long_side=2 * options.size, square=square)
    samples = DetectionDataset(open_data(options.data, config).train.images, config, train=False)
    images, targets = collate([samples[k] for k in range(options.batch)])
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    return SIDES[options.kind][name][0](images, targets, options)


def _backbone(options: Any) -> Any:
    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    spec = BackboneSpec(arch=options.arch, num_classes=2)
    return Backbone.of(_calm(spec.create(2, 0)), spec, Provenance())


def _ours(images: list[Any], targets: list[Any], options: Any, engine: Any) -> Callable[[], None]:
    """The step of engine.py."""
    from pretrain.training import MicroBatch, make_fabric, make_train_state
    from transfer.detection.config import LOSSES, DetectionConfig
    from transfer.detection.engine import train_step
    from transfer.detection.setup import build_model

    kind, size = _detector(options), options.size
    network: Any = build_model(_backbone(options), kind, options.classes, engine, size)
    if engine == "detectron2":  # other weights propose other regions, at another cost
        network.model.load_state_dict(_stock(options)[0].state_dict())
    fabric = make_fabric(options.device)
    config = DetectionConfig(batch_size=options.batch)
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-4))
    state = make_train_state(network, config, fabric, steps_per_epoch=1)
    state.model.train()

    def step() -> None:
        batch = MicroBatch(0, fabric.to_device((images, targets)), last=True)
        train_step(state, LOSSES[options.kind], fabric, 0, [batch])
        wait(options.device)

    return step


def _detector(options: Any) -> Any:
    from transfer.detection.config import DetectorConfig

    if options.kind == "ssd":
        return DetectorConfig(kind="ssd", freeze=0, batch_norm="trained")
    return DetectorConfig(rois=options.rois)


def _torchvision(images: list[Any], targets: list[Any], options: Any) -> Callable[[], None]:
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    body: Any = resnet_fpn_backbone(backbone_name=options.arch, weights=None, trainable_layers=3)
    _calm(body)
    sizes = {"min_size": options.size, "max_size": 2 * options.size}
    rois = {"rpn_post_nms_top_n_train": 1000, "box_batch_size_per_image": options.rois}
    model: Any = FasterRCNN(body, options.classes + 1, **sizes, **rois)
    return _torchvision_step(model, images, targets, options)


def _torchvision_ssd(images: list[Any], targets: list[Any], options: Any) -> Callable[[], None]:
    from torch import nn
    from torchvision.models.detection.ssd import SSD

    from transfer.detection.ssd import build_detector

    side, classes, held = options.size, options.classes, _backbone(options)
    ours = build_detector(held, _detector(options), classes, side)

    class Levels(nn.Module):
        """The same layers as a backbone of torchvision's."""

        def __init__(self) -> None:
            super().__init__()
            self.backbone, self.norms, self.extra = ours.backbone, ours.norms, ours.extra

        def forward(self, images: Any) -> dict[str, Any]:
            own = self.backbone(images).values()
            levels = [norm(level) for norm, level in zip(self.norms, own, strict=True)]
            for block in self.extra:
                levels.append(block(levels[-1]))
            return {str(number): level for number, level in enumerate(levels)}

    mean_std = list(held.spec.mean), list(held.spec.std)
    boxes: Any = ours.anchor_generator
    model = SSD(Levels(), boxes, (side, side), classes + 1, *mean_std, head=ours.head)
    return _torchvision_step(model, images, targets, options)


def _torchvision_step(
    model: Any, images: list[Any], targets: list[Any], options: Any
) -> Callable[[], None]:
    import torch

    model.to(options.device).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-4)
    floats = [image / 255 for image in images]

    def losses() -> Any:
        batch = [image.to(options.device) for image in floats]
        return model(batch, [{k: v.to(options.device) for k, v in t.items()} for t in targets])

    return _reference_step(losses, optimizer, options)


def _detectron2(images: list[Any], targets: list[Any], options: Any) -> Callable[[], None]:
    from detectron2.solver import build_optimizer
    from detectron2.utils.events import EventStorage

    from transfer.detection.detectron2_model import training_inputs

    model, cfg = _stock(options)
    optimizer = build_optimizer(cfg, model)
    data = training_inputs(images, targets)

    def losses() -> Any:
        with EventStorage(0):
            return model(data)

    return _reference_step(losses, optimizer, options)


def _reference_step(
    losses: Callable[[], dict[str, Any]], optimizer: Any, options: Any
) -> Callable[[], None]:
    """A step as both libraries' own loops take it; they look at the losses in every one."""

    def step() -> None:
        total: Any = sum(losses().values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        total.item()
        wait(options.device)

    return step


def _stock(options: Any) -> tuple[Any, Any]:
    """detectron2's own model and configuration, the input scaled as ours."""
    import torch
    from detectron2.modeling import build_model

    from transfer.detection.config import DetectorConfig
    from transfer.detection.detectron2_model import configuration

    cfg = configuration(_backbone(options), DetectorConfig(rois=options.rois), options.classes)
    cfg.MODEL.DEVICE, cfg.SOLVER.BASE_LR = options.device, 1e-4
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = True  # its default
    torch.manual_seed(0)
    return _calm(build_model(cfg).train()), cfg


def _calm(model: Any) -> Any:
    """Random weights under frozen norms explode: scale every block's last norm."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("bn2.weight", "bn3.weight", "conv2.norm.weight", "conv3.norm.weight")):
            tensor.fill_(0.3)
    return model


def parse(argv: Sequence[str]) -> Any:
    """The options of this benchmark."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="A Pascal VOC tree.")
    parser.add_argument("--kind", choices=list(SIDES), default="faster_rcnn")
    parser.add_argument("--arch", choices=ARCHS, default="resnet18")
    parser.add_argument("--size", type=int, default=320, help="Short side in pixels.")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse(argv)
    counts = dict.fromkeys(("size", "batch", "rois", "classes", "rounds"), ">= 1")
    check_ranges("--", options, threads="[1, 1024]", **counts)
    return options


# by kind: each side, and the one of its library to compare it with
SIDES: dict[str, dict[str, tuple[Callable[..., Callable[[], None]], str]]] = {
    "faster_rcnn": {
        "ours, torchvision engine": (
            partial(_ours, engine="torchvision"),
            "torchvision's reference",
        ),
        "torchvision's reference": (_torchvision, "torchvision's reference"),
        "ours, detectron2 engine": (partial(_ours, engine="detectron2"), "stock detectron2"),
        "stock detectron2": (_detectron2, "stock detectron2"),
    },
    "ssd": {
        "ours": (partial(_ours, engine="torchvision"), "torchvision's SSD"),
        "torchvision's SSD": (_torchvision_ssd, "torchvision's SSD"),
    },
}
