#!/usr/bin/env bash
# Package:   segmentation-models-pytorch 0.6.0, metrics.iou_score and f1_score
# Behaviour: with reduction="macro" or "macro-imagewise" a class that is neither in truth nor in
#            prediction counts as 1 (zero_division=1.0 is the default), in each image anew.
# Seen:      21 classes, 50 images of background and one object of 30 % of the pixels. A prediction of
#            nothing but background: macro-imagewise IoU 0.94; the mean over the classes that occur is
#            0.35. Images of class 0 predicted as class 1 throughout: macro 0.90, not 0.
# Hurts:     an image of Pascal VOC has two or three of 21 classes, so an untrained network starts at
#            0.9, and what it learns is a change in the second digit. Compared with published mean
#            IoUs, which leave out absent classes, all looks excellent.
# Way out:   zero_division=float("nan"), then nanmean of reduction="none"; or torchmetrics, which
#            leaves such classes out.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check segmentation-models-pytorch==0.6.0 \
    torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from segmentation_models_pytorch import metrics

CLASSES = 21
truth = torch.zeros(50, 64, 64, dtype=torch.long)
for number, image in enumerate(truth):
    image[:38, :32] = 1 + number % 20  # 30 %
nothing = torch.zeros_like(truth)


def stats(predicted, truth):
    return metrics.get_stats(predicted, truth, mode="multiclass", num_classes=CLASSES)


counts = stats(nothing, truth)
by_default = float(metrics.iou_score(*counts, reduction="macro-imagewise"))
each = metrics.iou_score(*counts, reduction="none", zero_division=float("nan"))
of_those_that_occur = float(each.nanmean(1).mean())
print(f"background only: macro-imagewise {by_default:.2f}, classes that occur {of_those_that_occur:.2f}")
assert by_default > 0.9 and of_those_that_occur < 0.4, "the behaviour has changed"

wrong = stats(torch.ones_like(truth), torch.zeros_like(truth))
for score in (metrics.iou_score, metrics.f1_score):
    value = float(score(*wrong, reduction="macro"))
    print(f"all wrong: {score.__name__} {value:.2f}")
    assert value > 0.9, "the behaviour has changed"
PYTHON
env/bin/python see.py
