"""Activation maps against pytorch-grad-cam and torchcam; boxes and their scores against OpenCV
and wsolevaluation.

    python tests/peers/activation_maps.py --environments DIR --wsolevaluation DIR
        [--backbone FILE --images DIR] [--fixture FILE]

--wsolevaluation is a checkout of github.com/clovaai/wsolevaluation (96f4b88). With --backbone and
--images the maps are also compared on photographs. Prints a Markdown table; --fixture writes what
the tests read.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[2]

PACKAGES = ("grad-cam==1.5.7", "torchcam==0.5.0", "opencv-python-headless==5.0.0.93",
            "scikit-learn==1.9.1", "ttach==0.0.3", "narwhals==2.29.0", "joblib==1.6.0",
            "threadpoolctl==3.8.0")  # fmt: skip


FEW = 9
"""Maps of the fixture."""


class TinyNetwork(nn.Module):
    """Two convolutions, the mean, a linear layer, as timm names them; weights by NumPy."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, 2, 1))
        self.fc = nn.Linear(12, 5)
        self.num_features = 12
        draw = np.random.RandomState(seed)
        for tensor in self.state_dict().values():
            tensor.copy_(torch.from_numpy(draw.normal(0, 0.3, tuple(tensor.shape))))

    def get_classifier(self) -> nn.Linear:
        return self.fc

    def forward_features(self, images: torch.Tensor) -> torch.Tensor:
        return self.body(images)

    def forward_head(self, features: torch.Tensor) -> torch.Tensor:
        return self.fc(features.mean((2, 3)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.forward_head(self.forward_features(images))


def tiny_images(seed: int) -> torch.Tensor:
    """Three images of 24 x 32."""
    draw = np.random.RandomState(seed)
    return torch.from_numpy(draw.normal(0, 1, (3, 3, 24, 32)).astype(np.float32))


def draw_maps(count: int, size: int) -> list[np.ndarray]:
    """Maps from 0 to 1 in turn of noise and of few positions enlarged."""
    draw, maps = np.random.RandomState(0), []
    for number in range(count):
        cells = (size, 4, 7)[number % 3]
        small = torch.from_numpy(draw.uniform(0, 1, (1, 1, cells, cells)).astype(np.float32))
        one = functional.interpolate(small, (size, size), mode="bilinear", align_corners=False)
        one = one[0, 0] - one.min()
        maps.append((one / one.max()).numpy())
    return maps


def draw_boxes(count: int, size: int) -> list[np.ndarray]:
    """One to three boxes for each map."""
    draw, found = np.random.RandomState(1), []
    for number in range(count):
        corners = draw.uniform(0, size, (1 + number % 3, 2, 2))
        found.append(np.concatenate([corners.min(1), corners.max(1)], axis=1))
    return found


def peers_maps(network: Any, layer: nn.Module, images: torch.Tensor, classes: list[int]) -> Any:
    """torchcam's CAM and Grad-CAM as they are; pytorch-grad-cam's Grad-CAM, enlarged, 0 to 1."""
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
    from torchcam import methods

    network.requires_grad_(True)
    with GradCAM(model=network, target_layers=[layer]) as extractor:
        enlarged = extractor(images, [ClassifierOutputTarget(one) for one in classes])
    raw = {}
    if isinstance(network.get_classifier(), nn.Linear):
        with methods.CAM(network, layer, network.get_classifier()) as cam:
            network(images)
            raw["cam"] = cam(classes, normalized=False)[0].numpy()
    with methods.GradCAM(network, layer) as grad_cam:
        raw["grad-cam"] = grad_cam(classes, network(images), normalized=False)[0].detach().numpy()
    network.requires_grad_(False)
    return raw, enlarged


def wsol_counts(maps: list[np.ndarray], boxes: list[np.ndarray], every: bool) -> np.ndarray:
    """Whether each map is right at each overlap and threshold (N, 3, 100), by their evaluator."""
    for name, kind in (("float", float), ("int", int)):
        setattr(np, name, kind)  # NumPy had these names until 1.24
    import evaluation

    rows = []
    for one, truth in zip(maps, boxes, strict=True):
        evaluator = evaluation.BoxEvaluator.__new__(evaluation.BoxEvaluator)
        evaluator.cam_threshold_list = list(np.arange(0, 1, 0.01))
        evaluator.iou_threshold_list = [30, 50, 70]
        evaluator.multi_contour_eval, evaluator.cnt = every, 0
        evaluator.num_correct = {iou: np.zeros(100) for iou in (30, 50, 70)}
        evaluator.gt_bboxes = {"": [tuple(map(int, box)) for box in truth.tolist()]}
        evaluator.accumulate(one.astype(np.float64), "")
        rows.append(np.stack([evaluator.num_correct[iou] for iou in (30, 50, 70)]))
    return np.stack(rows).astype(bool)


def ours_counts(maps: list[np.ndarray], boxes: list[np.ndarray], every: bool) -> np.ndarray:
    """The same by this project."""
    from transfer.evaluation.box_scores import IOUS, box_accuracy

    best = [box_accuracy(one, truth)[every] for one, truth in zip(maps, boxes, strict=True)]
    return np.stack([np.stack([row >= iou for iou in IOUS]) for row in best])


def contours_differ(maps: list[np.ndarray]) -> int:
    """At how many thresholds the largest box, or the set of boxes, is not OpenCV's."""
    import cv2

    from transfer.evaluation.map_boxes import find_boxes

    wrong = 0
    for one in maps:
        pixels = (one * 255).astype(np.uint8)
        cuts = np.arange(0, 255, 5)
        levels = np.searchsorted(cuts, pixels, side="left")
        largest, boxes, of_cut = find_boxes(levels, len(cuts))
        for number, cut in enumerate(cuts.tolist()):
            binary = cv2.threshold(pixels, cut, 255, cv2.THRESH_BINARY)[1]
            contours = cv2.findContours(binary, cv2.RETR_TREE, cv2.CHAIN_APPROX_SIMPLE)[0]
            rects = [cv2.boundingRect(one) for one in contours]
            theirs = [(x, y, x + width, y + height) for x, y, width, height in rects]
            areas = [cv2.contourArea(one) for one in contours]
            first = theirs[int(np.argmax(areas))] if areas else (0, 0, 0, 0)
            same = sorted(theirs) == sorted(map(tuple, boxes[of_cut == number].tolist()))
            wrong += not (same and first == tuple(largest[number].tolist()))
    return wrong


def compare(options: argparse.Namespace) -> None:
    """Everything, in the environment of the peers."""
    from transfer.evaluation.activation_maps import METHODS, class_maps, enlarge, to_unit_range

    def row(name: str, peer: str, figure: str) -> None:
        print(f"| {name} | {peer} | {figure} |", flush=True)

    def maps_rows(kind: str, network: Any, layer: nn.Module, images: torch.Tensor) -> Any:
        classes = network(images).argmax(1)
        raw, enlarged = peers_maps(network, layer, images, classes.tolist())
        _, ours = class_maps(network, images, classes, METHODS)
        for method, theirs in raw.items():
            gap = np.abs(ours[method].numpy() - theirs).max() / np.abs(theirs).max()
            row(f"{method}, {kind}", "torchcam", f"{gap:.1e} of the maximum")
        size = (images.shape[2], images.shape[3])
        # theirs take the lowest value away too
        scaled = to_unit_range(enlarge(ours["grad-cam"], size), "cam")
        gap = np.abs(scaled.numpy() - enlarged).max()
        row(f"grad-cam enlarged, {kind}", "pytorch-grad-cam", f"{gap:.1e}")
        return raw, enlarged

    print("| what | peer | largest difference |\n|---|---|---|")
    tiny, images = TinyNetwork(0), tiny_images(0)
    with torch.enable_grad():
        raw, enlarged = maps_rows("tiny network", tiny, tiny.body, images)
    if options.backbone:
        from PIL import Image

        from pretrain.backbone import Backbone

        backbone = Backbone.load(options.backbone)
        prepare, network = backbone.preprocess(), backbone.build().eval()
        files = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in
                       (".jpg", ".jpeg"))[:8]  # fmt: skip
        photos = torch.stack([prepare(Image.open(path).convert("RGB")) for path in files])
        last = [one for one in network.modules() if isinstance(one, nn.BatchNorm2d)][-1]
        maps_rows(f"{backbone.spec.arch}, {len(files)} photographs", network, last, photos)
        _, ours = class_maps(network, photos, network(photos).argmax(1), METHODS)
        scaled = to_unit_range(enlarge(ours["cam"], tuple(photos.shape[2:])), "cam")
        real = list(scaled.numpy())
        row("contours of these maps", "OpenCV", f"{contours_differ(real)} of {51 * len(real)}")
        boxes = draw_boxes(len(real), photos.shape[2])
        for name, every in (("MaxBoxAcc", False), ("MaxBoxAccV2", True)):
            theirs = wsol_counts(real, boxes, every)
            wrong = int((theirs != ours_counts(real, boxes, every)).sum())
            row(f"{name}, these maps", "wsolevaluation", f"{wrong} of {theirs.size} answers")
    many = draw_maps(60, 56)
    row("contours, 60 random maps", "OpenCV", f"{contours_differ(many)} of {51 * 60}")
    boxes = draw_boxes(60, 56)
    for name, every in (("MaxBoxAcc", False), ("MaxBoxAccV2", True)):
        theirs = wsol_counts(many, boxes, every)
        wrong = int((theirs != ours_counts(many, boxes, every)).sum())
        row(f"{name}, 60 random maps", "wsolevaluation", f"{wrong} of {theirs.size} answers")
    if options.fixture:
        few, truth = draw_maps(FEW, 18), draw_boxes(FEW, 18)
        np.savez_compressed(
            options.fixture,
            cam=raw["cam"],
            grad_cam=raw["grad-cam"],
            enlarged=enlarged,
            maps=np.stack(few),
            largest=np.packbits(wsol_counts(few, truth, False)),
            best=np.packbits(wsol_counts(few, truth, True)),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--wsolevaluation", type=Path, required=True)
    parser.add_argument("--backbone", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--fixture", type=Path)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT), str(options.wsolevaluation)]
    if options.inside:
        compare(options)
        return
    from tests.peers.environments import make_environment

    folder = options.environments / "activation_maps"
    python = make_environment(folder, ["munch==4.0.0"], borrow=True, alone=PACKAGES)
    subprocess.run([python, *sys.argv, "--inside"], check=True)


if __name__ == "__main__":
    main()
