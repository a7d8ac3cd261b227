"""Other packages' "CutMix, alpha 1", called as their documentation says, and what each does.

    python mixing_calls.py NAME ...

Run by mixing_packages.py, each in the environment of its package; nothing of this project here.
Image i of a batch has the value i in every pixel and the label i, so what comes back shows who owns
each pixel. Prints a JSON object a line: the name and what `measure` returns, or the error.
"""

import contextlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np

BATCH, SIDE, ROUNDS = 64, 64, 400
Batch = tuple[np.ndarray, np.ndarray]  # owners of pixels (N, H, W), label weights (N, N)


def measure(mix: Callable[[], Batch]) -> dict:
    """What many batches show.

    error: share of an image's label that lies on classes other than its pixels do, mean.
    pixels, label: of the image itself, means.
    lam: who shares a draw of it.
    border: share of the boxes that touch the border: most of those that are clipped at it.
    """
    own, rows, found = np.arange(BATCH), [], []
    for _ in range(ROUNDS):
        images, labels = mix()
        owner = np.rint(images).astype(int)
        assert np.abs(images - owner).max() < 1e-3, "the pixels are blended"
        shares = np.stack([np.bincount(one.ravel(), minlength=BATCH) for one in owner]) / SIDE**2
        rows.append((np.abs(labels - shares).sum(1) / 2, shares[own, own], labels[own, own]))
        foreign = owner != own[:, None, None]
        found.append([_box(one) for one in foreign if one.any()])
    error, pixels, label = (np.concatenate(column).mean() for column in zip(*rows, strict=True))
    touch = [0 in box[:2] or SIDE in box[2:] for boxes in found for box in boxes]
    sizes = [len({(box[2] - box[0], box[3] - box[1]) for box in boxes}) for boxes in found]
    most = max(sizes)
    lam = "batch" if most == 1 else "pair" if most <= BATCH // 2 else "image"
    return {"error": error, "pixels": pixels, "label": label, "lam": lam, "border": np.mean(touch)}


def _box(mask: np.ndarray) -> tuple[int, ...]:
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return rows[0], columns[0], rows[-1] + 1, columns[-1] + 1


def batch(dtype: str = "float32"):
    """Images (N, 3, H, W) and labels (N,), for torch."""
    import torch

    number = torch.arange(BATCH)
    images = number.to(getattr(torch, dtype)).view(-1, 1, 1, 1).expand(-1, 3, SIDE, SIDE)
    return images.contiguous(), number


def one_hot(labels):
    import torch

    return torch.nn.functional.one_hot(labels, BATCH).float()


def told(images, labels) -> Batch:
    """As NumPy; one channel."""
    return images[:, 0].double().numpy(), labels.double().numpy()


def torchvision() -> Batch:
    from torchvision.transforms import v2

    return told(*v2.CutMix(num_classes=BATCH, alpha=1.0)(*batch()))


def timm(mode: str, dtype: str = "float32") -> Callable[[], Batch]:
    def mix() -> Batch:
        from timm.data import Mixup

        options = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "label_smoothing": 0.0}
        return told(*Mixup(**options, mode=mode, num_classes=BATCH)(*batch(dtype)))

    return mix


def timm_collate(mode: str) -> Callable[[], Batch]:
    def mix() -> Batch:
        from timm.data import FastCollateMixup

        options = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "label_smoothing": 0.0}
        collate = FastCollateMixup(**options, mode=mode, num_classes=BATCH)
        images, labels = batch("uint8")
        return told(*collate(list(zip(images.numpy(), labels.tolist(), strict=True))))

    return mix


def kornia(**options: bool) -> Callable[[], Batch]:
    def mix() -> Batch:
        from kornia.augmentation import RandomCutMixV2

        images, labels = RandomCutMixV2(data_keys=["input", "class"], **options)(*batch())
        own, partner, lam = labels[0].T
        weight = lam[:, None]
        return told(images, weight * one_hot(own.long()) + (1 - weight) * one_hot(partner.long()))

    return mix


def composer() -> Batch:
    """As its documentation: loss = area * loss(y) + (1 - area) * loss(y of the partner)."""
    import composer.functional as cf

    images, labels = batch()
    mixed, partner, area, _ = cf.cutmix_batch(images, labels, alpha=1.0)
    return told(mixed, area * one_hot(labels) + (1 - area) * one_hot(partner))


def fastai() -> Batch:
    """In its training loop; the gradient of the loss at equal logits tells the label weights."""
    import torch
    from fastai.vision.all import CrossEntropyLossFlat, CutMix, DataLoaders, Learner

    class Recorder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            logits = torch.zeros(BATCH, BATCH) + self.bias
            if self.training:
                self.images, self.logits = images.clone(), logits
                logits.retain_grad()
            return logits

    images, labels = batch()
    loader = torch.utils.data.DataLoader(list(zip(images, labels, strict=True)), batch_size=BATCH)
    network = Recorder()
    learn = Learner(
        DataLoaders(loader, loader, device="cpu"),
        network,
        loss_func=CrossEntropyLossFlat(),
        cbs=CutMix(1.0),
    )
    with learn.no_bar(), learn.no_logging():
        learn.fit(1, lr=0.0)
    return told(network.images, 1 / BATCH - BATCH * network.logits.grad)


def mmpretrain() -> Batch:
    from mmpretrain.models import RandomBatchAugment

    images, labels = batch()
    return told(*RandomBatchAugment([{"type": "CutMix", "alpha": 1.0}])(images, one_hot(labels)))


def keras() -> Batch:
    import keras

    return _keras(keras.layers.CutMix(factor=1.0))


def keras_cv() -> Batch:
    import keras_cv

    return _keras(keras_cv.layers.CutMix(alpha=1.0))


def _keras(layer) -> Batch:
    images = np.arange(BATCH, dtype="float32").reshape(-1, 1, 1, 1)
    images = np.broadcast_to(images, (BATCH, SIDE, SIDE, 3))
    mixed = layer({"images": images, "labels": np.eye(BATCH, dtype="float32")}, training=True)
    return np.asarray(mixed["images"])[..., 0].astype(float), np.asarray(mixed["labels"])


def monai() -> Batch:
    from monai.transforms import CutMix

    images, labels = batch()
    return told(*CutMix(batch_size=BATCH, alpha=1.0)(images, one_hot(labels)))


def ultralytics(objects: int) -> Callable[[], dict]:
    """Its training set with `cutmix=1.0` and all else off; so many objects of .15 to .45 a side."""

    def see() -> dict:
        import cv2
        from ultralytics.cfg import get_cfg
        from ultralytics.data.dataset import YOLODataset

        others = ("mosaic", "translate", "scale", "fliplr", "hsv_h", "hsv_s", "hsv_v", "erasing")
        options = get_cfg(overrides={"cutmix": 1.0} | dict.fromkeys(others, 0.0))
        rng, share = np.random.default_rng(0), []
        with tempfile.TemporaryDirectory() as folder:
            for name in ("images", "labels"):
                Path(folder, name).mkdir()
            for number in range(BATCH):
                picture = np.full((SIDE, SIDE, 3), number, np.uint8)
                cv2.imwrite(f"{folder}/images/{number:03}.png", picture)
                sides = rng.uniform(0.15, 0.45, (objects, 2))
                centres = sides / 2 + rng.random((objects, 2)) * (1 - sides)
                boxes = np.concatenate([np.full((objects, 1), number), centres, sides], 1)
                np.savetxt(f"{folder}/labels/{number:03}.txt", boxes, "%g")
            data = {"names": dict(enumerate(map(str, range(BATCH)))), "nc": BATCH, "channels": 3}
            dataset = YOLODataset(f"{folder}/images", imgsz=SIDE, data=data, hyp=options)
            for number in [*range(BATCH)] * (ROUNDS // 8):
                share.append((dataset[number]["img"] == number).double().mean())
        return {"mixed": np.mean(np.array(share) < 1), "pixels": np.mean(share)}

    return see


CALLS: dict[str, tuple[str, str, Callable]] = {
    "torchvision": ("torchvision", "`v2.CutMix(num_classes=K, alpha=1.0)`", torchvision),
    "timm batch": (
        "timm",
        "`Mixup(0.0, 1.0, label_smoothing=0.0, num_classes=K)`, floats",
        timm("batch"),
    ),
    "timm pair": ("timm", "the same, `mode='pair'`", timm("pair")),
    "timm elem": ("timm", "the same, `mode='elem'`", timm("elem")),
    "timm pair bytes": ("timm", "`mode='pair'`, uint8 tensors", timm("pair", "uint8")),
    "timm elem bytes": ("timm", "`mode='elem'`, uint8 tensors", timm("elem", "uint8")),
    "timm collate": ("timm", "`FastCollateMixup`, `mode='elem'`", timm_collate("elem")),
    "kornia": ("kornia", "`RandomCutMixV2(data_keys=['input', 'class'])`", kornia()),
    "kornia correct": (
        "kornia",
        "the same, `use_correct_lambda=True`",
        kornia(use_correct_lambda=True),
    ),
    "composer": ("mosaicml", "`composer.functional.cutmix_batch(X, y, alpha=1.0)`", composer),
    "fastai": ("fastai", "`Learner(..., cbs=CutMix(1.))`", fastai),
    "mmpretrain": ("mmpretrain", "`dict(type='CutMix', alpha=1.)`", mmpretrain),
    "keras": ("keras", "`layers.CutMix(factor=1.0)`", keras),
    "keras_cv": ("keras-cv", "`layers.CutMix(alpha=1.0)`", keras_cv),
    "monai": ("monai", "`CutMix(batch_size=N, alpha=1.0)(x, one_hot)`", monai),
    "ultralytics 1": ("ultralytics", "detection, `cutmix=1.0`, 1 object", ultralytics(1)),
    "ultralytics 5": ("ultralytics", "detection, `cutmix=1.0`, 5 objects", ultralytics(5)),
}
"""Short name -> (name on PyPI, the call, the function)."""


def seed(value: int) -> None:
    """Of every generator that a package may draw from."""
    import random

    random.seed(value)
    np.random.seed(value)
    for name in ("torch", "keras"):
        with contextlib.suppress(ImportError):
            module = __import__(name)
            module.manual_seed(value) if name == "torch" else module.utils.set_random_seed(value)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "torch")
    for name in sys.argv[1:]:
        package, call, function = CALLS[name]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                seed(0)
                found = function() if package == "ultralytics" else measure(function)
            numbers = {k: v if isinstance(v, str) else float(v) for k, v in found.items()}
            line = {"version": version(package)} | numbers
        except Exception as error:
            line = {"failure": f"{type(error).__name__}: {error}"}
        print(json.dumps({"name": name, "package": package, "call": call} | line), flush=True)
