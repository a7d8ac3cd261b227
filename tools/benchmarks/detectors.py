"""Training steps of a detector: this project's two engines, torchvision's reference, detectron2.

python tools/bench.py detectors --data VOC [--arch resnet18] [--size 320] [--batch 2] [--rois 512]
    [--device cpu] [--rounds 5] [--parts step memory]

Every side takes the same images, resized before the clock counts, through Faster R-CNN with a
feature pyramid, the stem and first stage frozen, BatchNorm frozen: forward, backward, SGD.
torchvision's side is its FasterRCNN on resnet_fpn_backbone in its reference's training loop;
detectron2's is build_model on its Pascal VOC configuration in the step of its SimpleTrainer. A
library that is not installed is left out. On a CPU the clock is the processor's.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from tools.benchmarks._timing import hardware, peak_memory_mib, table, take_turns, wait
from tools.command import Parser

PARTS = ["step", "memory"]
ARCHS = [f"resnet{depth}" for depth in (18, 34, 50, 101, 152)]


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    options = parse(argv)
    import torch

    torch.set_num_threads(options.threads)
    command = "python tools/bench.py detectors " + " ".join(argv)
    print(f"`{command}`: {hardware(options.threads)}\n")
    steps = {}
    for name in SIDES:
        try:
            steps[name] = make(name, options)
        except ImportError as error:
            print(f"left out: {name} ({error})")
    if "step" in options.parts:
        clock = time.process_time if options.device == "cpu" else time.perf_counter
        best = take_turns(steps, options.rounds, clock)
        rows = [
            [n, f"{value:.3f}", f"{value / best[SIDES[n][1]]:.2f}"] for n, value in best.items()
        ]
        print(table(["one step", "seconds", "in its library's own"], rows) + "\n", flush=True)
    if "memory" in options.parts:
        code = (
            "import sys, json, torch\n"
            "from tools.benchmarks.detectors import make, parse\n"
            "name, words = json.loads(sys.argv[1])\n"
            "options = parse(words); torch.set_num_threads(options.threads)\n"
            "step = make(name, options)\n"
            "for _ in range(3): step()"
        )
        memory = {n: peak_memory_mib(code, options.device, json.dumps([n, argv])) for n in steps}
        rows = [[n, f"{mib:,.0f}", f"{mib / memory[SIDES[n][1]]:.2f}"] for n, mib in memory.items()]
        print(table(["peak memory, three steps", "MiB", "in its library's own"], rows))


def make(name: str, options: Any) -> Callable[[], None]:
    """A function that takes one step of that side."""
    import torch

    from transfer.detection.config import DatasetConfig
    from transfer.detection.data import open_data
    from transfer.detection.dataset import DetectionDataset, collate

    config = DatasetConfig(short_side=options.size, long_side=2 * options.size)
    samples = DetectionDataset(open_data(options.data, config).train.images, config, train=False)
    images, targets = collate([samples[k] for k in range(options.batch)])
    torch.manual_seed(0)
    return SIDES[name][0](images, targets, options)


def _ours(images: list[Any], targets: list[Any], options: Any, engine: Any) -> Callable[[], None]:
    """The step of engine.py."""
    from dataclasses import replace

    from pretrain.backbone import Backbone, BackboneSpec, Provenance
    from pretrain.training import MicroBatch, make_fabric, make_train_state
    from transfer.detection.config import DetectionConfig, DetectorConfig
    from transfer.detection.engine import train_step
    from transfer.detection.setup import build_model

    spec = BackboneSpec(arch=options.arch, num_classes=2)
    backbone = Backbone.of(_calm(spec.create(2, 0)), spec, Provenance())
    network: Any = build_model(backbone, DetectorConfig(rois=options.rois), options.classes, engine)
    if engine == "detectron2":  # other weights propose other regions, at another cost
        network.model.load_state_dict(_stock(options)[0].state_dict())
    fabric = make_fabric(options.device)
    config = DetectionConfig(batch_size=options.batch)
    config = replace(config, optimizer=replace(config.optimizer, lr=1e-4))
    state = make_train_state(network, config, fabric, steps_per_epoch=1)
    state.model.train()

    def step() -> None:
        batch = MicroBatch(0, fabric.to_device((images, targets)), last=True)
        train_step(state, fabric, 0, [batch])
        wait(options.device)

    return step


def _torchvision(images: list[Any], targets: list[Any], options: Any) -> Callable[[], None]:
    import torch
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    body: Any = resnet_fpn_backbone(backbone_name=options.arch, weights=None, trainable_layers=3)
    _calm(body)
    model: Any = FasterRCNN(
        body,
        options.classes + 1,
        min_size=options.size,
        max_size=2 * options.size,
        rpn_post_nms_top_n_train=1000,
        box_batch_size_per_image=options.rois,
    )
    model.to(options.device).train()
    free = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(free, lr=1e-4, momentum=0.9, weight_decay=1e-4)
    floats = [image / 255 for image in images]

    def step() -> None:
        batch = [image.to(options.device) for image in floats]
        truth = [{k: v.to(options.device) for k, v in one.items()} for one in targets]
        losses = sum(model(batch, truth).values())
        optimizer.zero_grad()
        losses.backward()
        optimizer.step()
        losses.item()  # its reference looks at the value in every step
        wait(options.device)

    return step


def _detectron2(images: list[Any], targets: list[Any], options: Any) -> Callable[[], None]:
    import torch
    from detectron2.solver import build_optimizer
    from detectron2.structures import Boxes, Instances
    from detectron2.utils.events import EventStorage

    model, cfg = _stock(options)
    optimizer = build_optimizer(cfg, model)
    data = []
    for image, target in zip(images, targets, strict=True):
        instances = Instances((image.shape[-2], image.shape[-1]))
        instances.gt_boxes, instances.gt_classes = Boxes(target["boxes"]), target["labels"] - 1
        data.append({"image": image, "instances": instances})

    def step() -> None:
        with EventStorage(0):
            losses = model(data)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        total.item()  # it writes its metrics in every step
        wait(options.device)

    return step


def _stock(options: Any) -> tuple[Any, Any]:
    """detectron2's own model and configuration, the input scaled as ours."""
    import torch
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from pretrain.spec import IMAGENET_MEAN, IMAGENET_STD
    from transfer.detectron2_resnet import HEAD_CONFIG

    cfg = get_cfg()
    cfg.MODEL.merge_from_other_cfg(type(cfg)(dict(HEAD_CONFIG["fpn"])))
    cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.DEPTH = int(options.arch.removeprefix("resnet"))
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if cfg.MODEL.RESNETS.DEPTH < 50 else 256
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = options.classes
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = options.rois
    cfg.MODEL.PIXEL_MEAN = [255 * value for value in IMAGENET_MEAN]
    cfg.MODEL.PIXEL_STD = [255 * value for value in IMAGENET_STD]
    cfg.MODEL.DEVICE, cfg.SOLVER.BASE_LR = options.device, 1e-4
    torch.manual_seed(0)
    return _calm(build_model(cfg).train()), cfg


def _calm(model: Any) -> Any:
    """Random weights under frozen norms explode: scale every block's last norm."""
    for name, tensor in model.state_dict().items():
        if name.endswith(("bn2.weight", "bn3.weight", "conv2.norm.weight", "conv3.norm.weight")):
            tensor.fill_(0.3)
    return model


def parse(argv: list[str]) -> Any:
    """The options of this benchmark."""
    parser = Parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="A Pascal VOC tree.")
    parser.add_argument("--arch", choices=ARCHS, default="resnet18")
    parser.add_argument("--size", type=int, default=320, help="Short side in pixels.")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    return parser.parse(argv)


# each side, and the one of its library to compare it with
SIDES: dict[str, tuple[Callable[..., Callable[[], None]], str]] = {
    "ours, torchvision engine": (partial(_ours, engine="torchvision"), "torchvision's reference"),
    "torchvision's reference": (_torchvision, "torchvision's reference"),
    "ours, detectron2 engine": (partial(_ours, engine="detectron2"), "stock detectron2"),
    "stock detectron2": (_detectron2, "stock detectron2"),
}
