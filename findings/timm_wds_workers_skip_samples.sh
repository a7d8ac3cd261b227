#!/usr/bin/env bash
# Package:   timm 1.0.31 with webdataset 1.0.2, the reader of "wds/" data sets (torch 2.11.0)
# Behaviour: in training each loader worker gives an equal number of samples, but whole shards are
#            dealt out to workers. Where workers x processes do not divide the shards, one worker
#            stops before the end of its shards and another begins its own again; one without a shard
#            gives nothing. len(loader) knows of neither.
# Seen:      300 samples in 3 shards, batch 16. 0, 1 and 3 workers: all 300, the rest to full batches
#            twice. 2 workers: 320 samples, 260 different ones, in each epoch. 4 workers: 240
#            samples where len(loader) is 20 batches (320), which steps of a schedule are counted by.
# Hurts:     each epoch leaves out up to a shard's part of the data and shows another part twice, by
#            a number of workers that is chosen for the machine: 2 and 3 workers train on other data.
#            With a worker too many the schedule of train.py counts steps that never come. No
#            warning; a folder of the same images gives each once.
# Way out:   a number of shards that workers x processes divide.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    timm==1.0.31 webdataset==1.0.2 torch==2.11.0 torchvision==0.26.0 numpy==2.4.6

cat > see.py <<'PYTHON'
import json
import logging
from io import BytesIO
from pathlib import Path

import webdataset
from PIL import Image
from timm.data import create_dataset, create_loader

SHARDS, PER_SHARD = 3, 100
logging.basicConfig(level=logging.WARNING)
picture = BytesIO()
Image.new("RGB", (32, 32)).save(picture, "JPEG")
Path("store").mkdir()
names = [f"train-{shard:06}.tar" for shard in range(SHARDS)]
for shard, name in enumerate(names):
    with webdataset.TarWriter(f"store/{name}") as tar:
        for number in range(shard * PER_SHARD, (shard + 1) * PER_SHARD):
            tar.write({"__key__": f"{number:06}", "jpg": picture.getvalue(), "cls": number})
split = {"name": "train", "num_samples": SHARDS * PER_SHARD, "filenames": names,
         "shard_lengths": [PER_SHARD] * SHARDS}
Path("store/_info.json").write_text(json.dumps({"splits": {"train": split}}))

found = {}
for workers in (0, 1, 2, 3, 4):
    dataset = create_dataset("wds/", root="store", split="train", is_training=True, batch_size=16)
    loader = create_loader(
        dataset,
        input_size=(3, 32, 32),
        batch_size=16,
        is_training=True,
        no_aug=True,
        num_workers=workers,
        use_prefetcher=False,
        persistent_workers=workers > 0,
    )
    for epoch in range(2):
        given = [number for _, numbers in loader for number in numbers.tolist()]
        found[workers, epoch] = len(loader) * 16, len(given), len(set(given))
        print(f"{workers} workers, epoch {epoch}: len {found[workers, epoch][0]}, "
              f"given {len(given)}, different {len(set(given))}", flush=True)
for (workers, _), (said, given, different) in found.items():
    if workers == 2:
        assert (said, given) == (320, 320), "the behaviour has changed"
        assert different == 260, "the behaviour has changed"
    elif workers == 4:
        assert (said, given, different) == (320, 240, 240), "the behaviour has changed"
    else:
        assert said == given, "the behaviour has changed"
        assert different == 300, "the behaviour has changed"
PYTHON
env/bin/python see.py
