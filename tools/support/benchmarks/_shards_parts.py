"""The sides of the benchmark of shards: each runs in a process of its own, in any environment.

python tools/support/benchmarks/_shards_parts.py SIDE OPTIONS     OPTIONS are JSON

It says `[]` when it is set up; then each line of input is one round, answered by
`[seconds of processor, samples]`. A library that is not there is answered by `["its error"]`.
Nothing of this project is imported on the side of others, nor of them on ours.
"""

import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

Round = Callable[[], int]
"""Reads everything once; returns the number of samples."""


def _order(options: Any) -> list[int]:
    """The numbers of all samples in the order in which every side reads them."""
    numbers: list[int] = json.loads(Path(options.order).read_text("utf-8"))
    return numbers


# ---- reading: small samples by number


def read_ours(options: Any) -> Round:
    """As the loader does: a batch at once, each crc32 checked."""
    import numpy as np

    from pretrain.shards import find_store

    store = find_store(options.shards)
    assert store is not None
    reader, order = store.splits["train"], np.array(_order(options))

    def one_round() -> int:
        found = 0
        for first in range(0, len(order), 256):
            for content in reader.read_many(order[first : first + 256]):
                found += isinstance(content, bytes)
        return found

    return one_round


def read_files(options: Any) -> Round:
    """Plain files, opened and read."""
    names = sorted(os.path.join(p, n) for p, _, files in os.walk(options.files) for n in files)
    order = _order(options)

    def one_round() -> int:
        found = 0
        for number in order:
            with open(names[number], "rb", buffering=0) as file:
                found += len(file.read()) > 0
        return found

    return one_round


def read_litdata(options: Any) -> Round:
    """`dataset[number]` of litdata's own chunks; it was made for the order of its chunks."""
    from litdata import StreamingDataset
    from litdata.streaming.writer import BinaryWriter

    folder = Path(options.work) / "litdata"
    writer = BinaryWriter(str(folder), chunk_size=options.per_shard)
    for number, content in enumerate(_contents(options)):
        writer.add_item(number, {"image": content, "label": number % 10})
    writer.done()
    writer.merge(1)
    return _by_number(StreamingDataset(str(folder), shuffle=False), options)


def read_mosaicml(options: Any) -> Round:
    """`dataset[number]` of mosaicml-streaming's MDS."""
    from streaming import MDSWriter, StreamingDataset

    folder = str(Path(options.work) / "mds")
    columns = {"image": "bytes", "label": "int"}
    limit = options.per_shard * (options.bytes + 16)
    with MDSWriter(out=folder, columns=columns, size_limit=limit) as writer:
        for number, content in enumerate(_contents(options)):
            writer.write({"image": content, "label": number % 10})
    return _by_number(StreamingDataset(local=folder, shuffle=False, batch_size=1), options)


def read_webdataset(options: Any) -> Round:
    """Its own iteration over our shards, nothing decoded."""
    import webdataset

    paths = sorted(map(str, Path(options.shards).glob("*.tar")))

    def one_round() -> int:
        dataset = webdataset.WebDataset(paths, shardshuffle=False)
        return sum(len(sample["jpg"]) > 0 for sample in dataset)

    return one_round


def _contents(options: Any) -> Iterator[bytes]:
    for path in sorted(Path(options.files).rglob("*.jpg")):
        yield path.read_bytes()


def _by_number(dataset: Any, options: Any) -> Round:
    order = _order(options)
    return lambda: sum(len(dataset[number]["image"]) > 0 for number in order)


# ---- loader: images to normalised batches


def load_ours(options: Any) -> Round:
    """Our loader and our pixels, as in training."""
    import numpy as np
    import torch

    from tools.support.benchmarks._pretrain_parts import our_training

    torch.set_num_threads(1)
    recipe = SimpleNamespace(
        images=options.data,
        size=options.size,
        batch=options.batch,
        arch="test_resnet",
        precision="32-true",
        device="cpu",
    )
    loaders, _ = our_training(recipe, 0, options.split)
    epochs = count()

    def one_round() -> int:
        rng, found = np.random.default_rng(0), 0
        for images, _ in loaders.train.epoch(next(epochs)):
            found += len(loaders.pixels.augmented(images, rng))
        return found

    return one_round


def load_timm(options: Any) -> Round:
    """Timm's loader as its train.py makes it, of a folder or of our shards (by ReaderWds)."""
    import torch
    from timm.data.dataset_factory import create_dataset
    from timm.data.loader import create_loader

    torch.set_num_threads(1)
    if options.split == "train":
        import webdataset  # noqa: F401 (timm says of its absence only that it has no such reader)

        dataset = create_dataset(
            "wds/",
            root=options.data,
            split="train",
            is_training=True,
            batch_size=options.batch,
        )
    else:
        dataset = create_dataset("", root=options.data, split="train", search_split=False)
    loader = create_loader(
        dataset,
        input_size=(3, options.size, options.size),
        batch_size=options.batch,
        is_training=True,
        hflip=0.5,
        color_jitter=None,  # type: ignore[arg-type]
        interpolation="bilinear",
        num_workers=0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    return lambda: sum(len(images) for images, _ in loader)


def load_dali(options: Any) -> Round:
    """NVIDIA DALI's CPU pipeline with one thread: it decodes no more than what is cropped."""
    from nvidia.dali import fn, pipeline_def, types

    @pipeline_def(batch_size=options.batch, num_threads=1, device_id=None, seed=0)
    def pipeline() -> Any:
        shuffled = {"random_shuffle": True, "name": "reader"}
        if options.split == "train":
            paths = sorted(map(str, Path(options.data).glob("train-*.tar")))
            jpegs, labels = fn.readers.webdataset(
                paths=paths, ext=["jpg", "cls"], missing_component_behavior="error", **shuffled
            )
        else:
            jpegs, labels = fn.readers.file(file_root=options.data, **shuffled)
        images = fn.decoders.image_random_crop(
            jpegs, random_aspect_ratio=[3 / 4, 4 / 3], random_area=[0.08, 1.0], num_attempts=10
        )
        images = fn.resize(
            images, size=(options.size, options.size), interp_type=types.INTERP_LINEAR
        )
        images = fn.crop_mirror_normalize(
            images,
            dtype=types.FLOAT,
            output_layout=options.layout,
            mean=[0.485 * 255, 0.456 * 255, 0.406 * 255],
            std=[0.229 * 255, 0.224 * 255, 0.225 * 255],
            mirror=fn.random.coin_flip(probability=0.5),
        )
        return images, labels

    running = pipeline()
    running.build()
    steps = running.epoch_size("reader") // options.batch

    def one_round() -> int:
        deque((running.run() for _ in range(steps)), maxlen=0)
        time.sleep(0.2)  # the batches that are made ahead belong to a round, too
        return steps * options.batch

    return one_round


# ---- order: the numbers of an epoch's samples


def order_ours(options: Any) -> Round:
    """All windows of an epoch, one after another."""
    import numpy as np

    from pretrain.shards import WindowOrder

    starts = np.arange(0, options.samples + 1, options.per_shard)
    order, epochs = WindowOrder(starts, options.window, 0), count()

    def one_round() -> int:
        epoch, found = order(next(epochs)), 0
        for first in range(0, len(epoch), 256):
            found += len(epoch[first : first + 256])
        return found

    return one_round


def order_torch(options: Any) -> Round:
    """The permutation of everything that folders have."""
    import torch

    return lambda: len(torch.randperm(options.samples).numpy())


def order_mosaicml(options: Any) -> Round:
    """What StreamingDataset makes of an epoch for one process, by its default algorithms."""
    import numpy as np
    from streaming.base.partition import get_partitions
    from streaming.base.shuffle import get_shuffle

    sizes = np.full(options.samples // options.per_shard, options.per_shard)
    epochs = count()

    def one_round() -> int:
        parts = get_partitions("relaxed", options.samples, 1, 1, 1, 4, 256)
        ids = get_shuffle("py1e", sizes, 1, 0, next(epochs), 4_000_000)
        return int((np.where(parts < 0, -1, ids[parts]) >= 0).sum())

    return one_round


SIDES: dict[str, Callable[[Any], Round]] = {
    "ours": read_ours,
    "plain files": read_files,
    "litdata": read_litdata,
    "mosaicml-streaming": read_mosaicml,
    "webdataset": read_webdataset,
    "our loader": load_ours,
    "timm": load_timm,
    "DALI": load_dali,
    "our order": order_ours,
    "torch.randperm": order_torch,
    "mosaicml-streaming's order": order_mosaicml,
}


def main() -> None:
    """Set one side up, then run a round for each line of input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer

    def answer(*values: Any) -> None:
        print(json.dumps(values), file=answers, flush=True)

    try:
        one_round = SIDES[sys.argv[1]](SimpleNamespace(**json.loads(sys.argv[2])))
    except ImportError as error:
        answer(str(error))
        return
    answer()
    for _ in sys.stdin:
        started = time.process_time()
        found = one_round()
        answer(time.process_time() - started, found)


if __name__ == "__main__":
    # this script's own folder comes first on the path; the packages lie three above
    sys.path[0] = str(Path(__file__).resolve().parents[3])
    main()
