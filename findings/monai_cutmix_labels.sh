#!/usr/bin/env bash
# Package:   MONAI 1.6.1, transforms.CutMix and CutMixd on labels of shape (batch, classes)
# Behaviour: the documented call, images, labels = CutMix(batch_size=8)(images, labels), does not mix
#            one-hot labels. Each picture gets the whole label of its partner, however small the
#            pasted box is. The method that would mix them, apply_on_labels, is never called.
#            (Masks with height and width are cut and pasted rightly.)
# Seen:      800 pictures of 32 x 32, alpha 1. The 690 that are not their own partner keep 80 % of
#            their pixels on average and 0 % of their label; 282 of them keep more than 90 %.
# Hurts:     a classifier is trained on labels that are mostly not in the picture. They sum to one and
#            the loss falls, so nothing looks wrong but the accuracy: CutMix seems not to help, which
#            is the very thing that such an experiment asks.
# Way out:   torchvision.transforms.v2.CutMix. (apply_on_labels weighs by the box before it is clipped
#            at the border, which is not the share of the pixels.)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check monai==1.6.1 torch==2.13.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import torch
from monai.transforms import CutMix, CutMixd

BATCH, SIZE = 8, 32
number = torch.arange(BATCH)
images = number.view(-1, 1, 1, 1).expand(BATCH, 3, SIZE, SIZE).float()  # each shows its number
one_hot = torch.eye(BATCH)
plain = CutMix(batch_size=BATCH, alpha=1.0).set_random_state(0)
by_keys = CutMixd(["image"], BATCH, label_keys=["label"], alpha=1.0).set_random_state(0)


def mix_by_keys(images, labels):
    mixed = by_keys({"image": images, "label": labels})
    return mixed["image"], mixed["label"]


def measure(mix):
    """The share of its own pixels and its own label that each picture with a partner keeps."""
    pixels, label = [], []
    for _ in range(100):
        mixed, labels = mix(images, one_hot)
        partner = labels.argmax(1)
        assert ((mixed == images) | (mixed == partner.view(-1, 1, 1, 1))).all()
        pixels.append((mixed == images).float().mean(dim=(1, 2, 3))[partner != number])
        label.append(labels.diagonal()[partner != number])
    return torch.cat(pixels), torch.cat(label)


for name, mix in {"CutMix": plain, "CutMixd": mix_by_keys}.items():
    pixels, label = measure(mix)
    print(
        f"{name}: {len(pixels)} pictures keep {pixels.mean():.2f} of their pixels and "
        f"{label.mean():.2f} of their label; {(pixels > 0.9).sum()} keep more than 0.9 of the pixels"
    )
    assert pixels.mean() > 0.75 and label.max() == 0, "the behaviour has changed"
PYTHON
env/bin/python see.py
