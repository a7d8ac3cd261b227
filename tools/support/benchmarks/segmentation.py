"""Training steps of a segmenter: this project's engine beside torchvision's reference training.

python tools/bench.py segmentation [--kind fcn] [--arch resnet50] [--crop 128] [--batch 4]
    [--stride 8] [--device cpu] [--rounds 9] [--parts step memory score]

Both sides have the same network with the same weights, two heads, and take the same batch: forward,
both losses, backward, SGD. torchvision's side is its own model in the loop of its
references/segmentation/train.py. Ours takes bytes and normalises them, theirs floats that are
normalised before the clock counts. torchvision cannot dilate resnet18 and resnet34: --stride 32.

score: what an image costs when a split is scored, in parts; the image has the size that VOC's often
have. On a CPU the clock is the processor's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import heading, peak_memory_mib, table, take_turns, wait
from tools.support.command import Parser

PARTS = ["step", "memory", "score"]
ARCHS = [f"resnet{depth}" for depth in (18, 34, 50, 101)]
SCORED = (375, 500)


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    options = parse(argv)
    print(heading("segmentation", argv, options.threads) + "\n")
    clock = time.process_time if options.device == "cpu" else time.perf_counter
    if "step" in options.parts:
        best = take_turns({n: make(n, options) for n in SIDES}, options.rounds, clock)
        rows = [[n, f"{value:.3f}", f"{value / best[THEIRS]:.2f}"] for n, value in best.items()]
        print(table(["one step", "seconds", "in torchvision's"], rows) + "\n", flush=True)
    if "memory" in options.parts:
        code = f"import sys; from {__name__} import take_three_steps as take; take(*sys.argv[1:])"
        memory = {n: peak_memory_mib(code, options.device, n, *argv) for n in SIDES}
        rows = [[n, f"{mib:,.0f}", f"{mib / memory[THEIRS]:.2f}"] for n, mib in memory.items()]
        head = ["peak memory, three steps", "MiB", "in torchvision's"]
        print(table(head, rows) + "\n", flush=True)
    if "score" in options.parts:
        best = take_turns(_scoring(options), options.rounds, clock)
        whole = sum(best.values())
        rows = [[n, f"{1000 * v:.1f}", f"{100 * v / whole:.1f} %"] for n, v in best.items()]
        print(table([f"scoring an image of {SCORED[1]} x {SCORED[0]}", "ms", "share"], rows))


def take_three_steps(name: str, *argv: str) -> None:
    """What a process of its own does, whose memory is measured."""
    step = make(name, parse(argv))
    for _ in range(3):
        step()


def make(name: str, options: Any) -> Callable[[], None]:
    """A function that takes one step of that side."""
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    shape = (options.batch, 3, options.crop, options.crop)
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    masks = torch.randint(0, options.classes, (options.batch, *shape[2:]), dtype=torch.uint8)
    masks[:, : options.crop // 8] = 255
    return SIDES[name](images, masks, options)


def _config(options: Any) -> Any:
    from transfer.segmentation.config import SegmentationConfig, SegmenterConfig

    segmenter = SegmenterConfig(
        kind=options.kind, aux_weight=0.5, output_stride=options.stride, dropout=0.1
    )
    config = SegmentationConfig(batch_size=options.batch, segmenter=segmenter)
    return replace(config, optimizer=replace(config.optimizer, lr=1e-4))


def _network(options: Any) -> Any:
    import torch

    from pretrain.backbone import Backbone, BackboneSpec, Provenance
    from transfer.segmentation.setup import build_model

    spec = BackboneSpec(arch=options.arch, num_classes=2)
    backbone = Backbone.of(spec.create(2, 0), spec, Provenance())
    torch.manual_seed(0)
    return build_model(backbone, _config(options).segmenter, options.classes)


def _ours(images: Any, masks: Any, options: Any) -> Callable[[], None]:
    """The step of engine.py, on what setup.py makes."""
    from pretrain.training import MicroBatch, make_fabric, make_train_state
    from transfer.segmentation.engine import train_step
    from transfer.segmentation.setup import lay_out

    config, fabric = _config(options), make_fabric(options.device)
    network = lay_out(_network(options), fabric.device)
    state = make_train_state(
        network,
        config,
        fabric,
        steps_per_epoch=1,
        lr_of=lambda name: 1e-3 if name.startswith("aux_classifier.") else None,
        power=config.optimizer.power,
    )
    state.model.train()

    def step() -> None:
        batch = MicroBatch(0, fabric.to_device((images, masks)), last=True)
        train_step(state, config, config.mixing, fabric, 0, [batch])
        wait(options.device)

    return step


def _torchvision(images: Any, masks: Any, options: Any) -> Callable[[], None]:
    """As `train_one_epoch`, which looks at the loss in every step."""
    import torch
    from torch.nn import functional

    model = _torchvision_network(options).to(options.device).train()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    floats = (images / 255 - mean[:, None, None]) / std[:, None, None]
    targets = masks.long()
    of_aux = list(model.aux_classifier.parameters())
    others = [p for name, p in model.named_parameters() if not name.startswith("aux_")]
    groups: list[dict[str, Any]] = [{"params": others}, {"params": of_aux, "lr": 1e-3}]
    optimizer = torch.optim.SGD(groups, lr=1e-4, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        image, target = floats.to(options.device), targets.to(options.device)
        output = model(image)
        losses = {
            name: functional.cross_entropy(x, target, ignore_index=255)
            for name, x in output.items()
        }
        loss = losses["out"] + 0.5 * losses["aux"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()
        wait(options.device)

    return step


def _torchvision_network(options: Any) -> Any:
    """The model of torchvision with the weights of ours."""
    from torchvision import models
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation import FCN, DeepLabV3
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead
    from torchvision.models.segmentation.fcn import FCNHead

    dilated = {8: [False, True, True], 16: [False, False, True], 32: None}[options.stride]
    network = getattr(models, options.arch)(weights=None, replace_stride_with_dilation=dilated)
    body = IntermediateLayerGetter(network, {"layer4": "out", "layer3": "aux"})
    model_class, head = {"fcn": (FCN, FCNHead), "deeplabv3": (DeepLabV3, DeepLabHead)}[options.kind]
    width = network.fc.in_features
    model = model_class(body, head(width, options.classes), FCNHead(width // 2, options.classes))
    weights = _network(options).state_dict()
    model.load_state_dict(
        {k.replace("backbone.body.model.", "backbone."): weights[k] for k in weights}
    )
    return model


def _scoring(options: Any) -> dict[str, Callable[[], object]]:
    import torch

    from transfer.segmentation.boundaries import BoundaryF
    from transfer.segmentation.inference import to_label_map
    from transfer.segmentation.scores import confusion_matrix

    torch.manual_seed(0)
    network = _network(options).to(options.device, memory_format=torch.channels_last).eval()
    image = torch.randint(0, 256, (1, 3, *SCORED), dtype=torch.uint8, device=options.device)
    # regions of some size, as the outlines of objects are
    cells = torch.rand(1, options.classes, 6, 8, device=options.device)
    logits = torch.nn.functional.interpolate(cells, SCORED, mode="bilinear")[0]
    mask = to_label_map(logits.roll(7, 2), SCORED)
    boundaries = BoundaryF(options.classes)

    @torch.inference_mode()
    def forward() -> None:
        network(image)
        wait(options.device)

    @torch.inference_mode()
    def count() -> None:
        confusion_matrix(to_label_map(logits, SCORED), mask, options.classes)
        wait(options.device)

    found, truth = (one.cpu().numpy() for one in (to_label_map(logits, SCORED), mask))
    return {
        "network": forward,
        "label map and confusion matrix": count,
        "boundary F": lambda: boundaries.see(found, truth),
    }


def parse(argv: Sequence[str]) -> Any:
    """The options of this benchmark."""
    parser = Parser(__doc__)
    parser.add_argument("--kind", choices=["fcn", "deeplabv3"], default="fcn")
    parser.add_argument("--arch", choices=ARCHS, default="resnet50")
    parser.add_argument("--crop", type=int, default=128, help="Side of the images.")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--stride", type=int, choices=[8, 16, 32], default=8)
    parser.add_argument("--classes", type=int, default=21)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse(argv)
    counts = dict.fromkeys(("batch", "classes", "rounds"), ">= 1")
    check_ranges("--", options, threads="[1, 1024]", crop="[8, 16384]", **counts)
    if options.arch in ("resnet18", "resnet34") and options.stride < 32:
        raise UsageError(f"torchvision cannot dilate {options.arch}: give --stride 32")
    return options


THEIRS = "torchvision's reference"
SIDES: dict[str, Callable[..., Callable[[], None]]] = {"ours": _ours, THEIRS: _torchvision}
