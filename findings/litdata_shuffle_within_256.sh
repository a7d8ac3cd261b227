#!/usr/bin/env bash
# Package:   litdata 0.2.76, StreamingDataset(shuffle=True) (torch 2.11.0)
# Behaviour: shuffle=True shuffles the chunks, and in a chunk not its items but each aligned block of
#            256 neighbours by itself (item_shuffle_window, None is 256). Items that lie side by side
#            in the store come side by side in the epoch, and a batch of 256 of one worker is one
#            such block, or two halves of them. optimize() writes what it is given in its order,
#            which of class folders is class by class.
# Seen:      8 classes of 300 samples each, written in this order, 640 samples a chunk (64 MB of
#            100 kB each): batches of 256 hold 2.4 classes on average, at most 4, with 0 and with 2
#            workers. A permutation has all 8 in each. item_shuffle_window="all" has 3.3 (a chunk
#            holds no more); batches of a store that was written in random order have all 8.
# Hurts:     ImageNet, optimised from its folders, has 1,300 images a class: a batch of 256 shows one
#            or two of 1,000 classes, another pair in the next. BatchNorm's statistics and the
#            gradient are those of a class; the run trains badly, and nothing warns.
# Way out:   shuffle the inputs before optimize().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    litdata==0.2.76 torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import random

import numpy as np
from litdata import StreamingDataLoader, StreamingDataset, optimize


def sample(number):
    return {"image": bytes(100), "label": number // 300}


def classes_per_batch(folder, workers=0, epochs=1, **options):
    dataset = StreamingDataset(folder, shuffle=True, **options)
    loader = StreamingDataLoader(dataset, batch_size=256, num_workers=workers)
    counts = [
        len(set(batch["label"].tolist()))
        for _ in range(epochs)
        for batch in loader
        if len(batch["label"]) == 256
    ]
    print(folder, workers, "workers", options, "classes in batches of 256:", counts, flush=True)
    return counts


if __name__ == "__main__":
    numbers = list(range(2400))
    optimize(sample, numbers, output_dir="by_class", chunk_size=640, num_workers=1)
    random.Random(0).shuffle(numbers)
    optimize(sample, numbers, output_dir="mixed", chunk_size=640, num_workers=1)
    for workers in (0, 2):
        found = classes_per_batch("by_class", workers, epochs=2)
        assert max(found) <= 4, "the behaviour has changed"
        assert np.mean(found) < 3, "the behaviour has changed"
    found = classes_per_batch("by_class", item_shuffle_window="all")
    assert np.mean(found) < 4, "the behaviour has changed"
    assert min(classes_per_batch("mixed")) == 8, "the behaviour has changed"
PYTHON
env/bin/python see.py 2>log || { tail -20 log; exit 1; }
