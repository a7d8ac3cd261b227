#!/usr/bin/env bash
# Package:   timm 1.0.31, FastCollateMixup in create_loader, as train.py has it (torch 2.11.0)
# Behaviour: loader.mixup_enabled = False is what train.py does at --mixup-off-epoch. It is set on
#            the object of the training process; the loader's workers have copies, and they outlive
#            the epoch, because create_loader's persistent_workers is True. They go on mixing to the
#            end, and loader.mixup_enabled says False.
# Seen:      Mixup at alpha 1, switched off after 2 of 4 epochs: batches with mixed labels are 4, 4,
#            4, 4 of 4 an epoch; with persistent_workers=False they are 4, 4, 0, 0.
# Hurts:     recipes that end with epochs of whole images (--mixup-off-epoch, DeiT-like and
#            fine-tuning schedules) never have them; loss and accuracy look as before, and an
#            ablation of that option compares two equal trainings. No warning. The way without the
#            prefetcher (--no-prefetcher, timm's Mixup in the loop) does switch off.
# Way out:   persistent_workers=False, or Mixup in the training loop.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    timm==1.0.31 torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import numpy as np
import torch
from timm.data import FastCollateMixup, create_loader
from torch.utils.data import Dataset


class Solid(Dataset):
    transform = None

    def __len__(self):
        return 32

    def __getitem__(self, index):
        return np.full((3, 8, 8), index, dtype=np.uint8), index % 32


def mixed_batches(**options):
    collate = FastCollateMixup(mixup_alpha=1.0, label_smoothing=0.0, num_classes=32)
    loader = create_loader(
        Solid(),
        input_size=(3, 8, 8),
        batch_size=8,
        is_training=True,
        no_aug=True,
        num_workers=1,
        collate_fn=collate,
        device=torch.device("cpu"),
        **options,
    )
    counts = []
    for epoch in range(4):
        if epoch >= 2 and loader.mixup_enabled:  # as in train.py
            loader.mixup_enabled = False
        counts.append(sum(bool((targets.max(1).values < 1).any()) for _, targets in loader))
    assert not loader.mixup_enabled
    return counts


found, without = mixed_batches(), mixed_batches(persistent_workers=False)
print("mixed batches of 4 in each epoch, switched off after 2:")
print("create_loader as it is   ", found)
print("persistent_workers=False ", without)
assert found == [4, 4, 4, 4], "the behaviour has changed"
assert without == [4, 4, 0, 0], "the behaviour has changed"
PYTHON
env/bin/python see.py
