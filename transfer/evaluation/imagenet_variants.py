"""ImageNet's variants: a classifier of its classes on test sets that were made for it.

A set of fewer classes is scored among these alone, as natural-adv-examples (Hendrycks) and timm's
validate.py do: the logits of all others are left out. top1_all is that of all outputs. Which sets
there are, and how they are known, says `imagenet_sets`.

ReaL's labels are timm's. Average precision is scikit-learn's definition, written here because that
package is not installed with this project.
"""

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from timm.data.real_labels import RealLabelsImagenet
from torch import Tensor, nn
from torch.nn import functional

from pretrain.backbone import Backbone
from pretrain.data.images import ImageFiles
from pretrain.spec import BackboneSpec
from transfer.evaluation.config import VariantsConfig
from transfer.evaluation.imagenet_sets import (
    Variants,
    VariantSet,
    find_variants,
    imagenet_synsets,
    images_inside,
)
from transfer.evaluation.images import Labels
from transfer.evaluation.logits import logits
from transfer.evaluation.session import Session


def open_data(backbone: Backbone, root: Path, options: VariantsConfig, labels: Labels) -> Variants:
    """See find_variants; there are no options so far."""
    return find_variants(backbone, root, labels)


def evaluate(
    backbone: Backbone, data: Variants, options: VariantsConfig, session: Session
) -> dict[str, Any]:
    """Score every set.

    Returns:
        Of each published set KEY_top1, KEY_top5, KEY_images and, where not all outputs compete,
        KEY_top1_all; of val also real_top1, real_top5 and real_images; of ImageNet-O
        imagenet_o_aupr. `folders` has the same of every other folder by its name, others_top1 the
        mean of their top-1. Percent.
    """
    network, metrics = session.network(backbone), dict[str, Any]()
    others = dict[str, dict[str, float]]()
    of_key = {found.key: found for found in data.sets.values()}
    for number, (place, found) in enumerate(data.sets.items()):
        last = backbone.spec, f"scoring {place}", session
        if found.key == "imagenet_o":
            compute = partial(score_anomalies, network, found, of_key["val"], *last)
        else:
            real = real_labels(found.images, data.output_of) if found.key == "val" else None
            compute = partial(score_classes, network, found, real, *last)
        # cut, since a letter of a name can come to nine
        scores = session.part(f"{number}-{quote(place, safe='')[:60]}", compute)
        if found.key is None:
            others[place] = scores
        else:
            metrics |= {
                name if name.startswith("real_") else f"{found.key}_{name}": value
                for name, value in scores.items()
            }
    if others:
        metrics["others_top1"] = sum(scores["top1"] for scores in others.values()) / len(others)
        metrics["folders"] = others
    return metrics


def real_labels(images: ImageFiles, output_of: dict[str, int]) -> np.ndarray:
    """ReaL's labels of val's images, as outputs: (N, L), -1 where an image has fewer than L."""
    synsets = imagenet_synsets()
    by_name = RealLabelsImagenet(range(50_000)).real_labels
    names = [os.path.splitext(os.path.basename(path))[0] for path in images.paths]
    rows = [
        [output_of[synset] for n in known if (synset := synsets[n]) in output_of]
        for known in (by_name.get(f"{name}.JPEG", []) for name in names)
    ]
    table = np.full((len(rows), max(1, *map(len, rows))), -1)
    for row, outputs in zip(table, rows, strict=True):
        row[: len(outputs)] = outputs
    return table


@torch.inference_mode()
def score_classes(
    network: nn.Module,
    found: VariantSet,
    real: np.ndarray | None,
    spec: BackboneSpec,
    title: str,
    session: Session,
) -> dict[str, float]:
    """How often a classifier is right, in percent.

    Args:
        network: with its classifier, on the device.
        found: the images.
        real: labels of ReaL, see real_labels: a prediction is right if it is one of them.
        spec: of the backbone.
        title: of the progress bar.
        session: device and loading.

    Returns:
        top1 and top5 among the outputs that compete, images; top1_all among all outputs, where
        these are more; real_top1, real_top5 and real_images, of images that ReaL has labels for.
    """
    device, has_real = session.device, real is not None
    competing = torch.tensor(found.competing, device=device)
    labels = torch.from_numpy(found.images.labels).to(device)
    table = torch.from_numpy(real).to(device) if has_real else labels.new_full((len(labels), 1), -1)
    counts = torch.zeros(7, dtype=torch.int64, device=device)
    for outputs, numbers in logits(network, found.images, spec, session, title):
        outputs = outputs.to(device, torch.float32)
        best = competing[outputs[:, competing].topk(min(5, len(competing))).indices]
        numbers = numbers.to(device)
        own, sets = labels[numbers, None], table[numbers]
        right, real_right = best == own, (best[:, :, None] == sets[:, None]).any(2)
        columns = [own >= 0, right[:, :1], right, outputs.argmax(1, keepdim=True) == own]
        columns += [sets >= 0, real_right[:, :1], real_right]
        counts += torch.stack([column.any(1) for column in columns]).sum(1)
    images, top1, top5, top1_all, real_images, real_top1, real_top5 = counts.tolist()
    scores = {"top1": 100 * top1 / images, "top5": 100 * top5 / images}
    if len(competing) < spec.num_classes:
        scores["top1_all"] = 100 * top1_all / images
    if real_images:
        scores["real_top1"] = 100 * real_top1 / real_images
        scores["real_top5"] = 100 * real_top5 / real_images
        scores["real_images"] = real_images
    return scores | {"images": images}


@torch.inference_mode()
def score_anomalies(
    network: nn.Module,
    out: VariantSet,
    val: VariantSet,
    spec: BackboneSpec,
    title: str,
    session: Session,
) -> dict[str, float]:
    """How well ImageNet-O is told from val's images of its classes; arguments as score_classes.

    An image is the more anomalous, the smaller its largest probability among these classes is.

    Returns:
        aupr in percent, ImageNet-O being what is to be found; images, val_images.
    """
    competing = torch.tensor(out.competing, device=session.device)

    def scores(images: ImageFiles, order: np.ndarray | None) -> np.ndarray:
        found = list[Tensor]()
        for outputs, _ in logits(network, images, spec, session, title, order):
            found.append(-functional.softmax(outputs[:, competing.to(outputs.device)], 1).amax(1))
        return torch.cat(found).cpu().numpy()

    anomalies, normal = scores(out.images, None), scores(val.images, images_inside(out, val))
    aupr = 100 * average_precision(anomalies, normal)
    return {"aupr": aupr, "images": len(anomalies), "val_images": len(normal)}


def average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the precision-recall steps, as scikit-learn's average_precision_score.

    Args:
        positive: scores of what is to be found; the larger, the surer.
        negative: scores of the rest. Equal scores are found together.
    """
    scores = np.concatenate([positive, negative])
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(order < len(positive))
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    precision, recall = found[last] / (last + 1), found[last] / len(positive)
    return float(np.sum(np.diff(recall, prepend=0) * precision))
