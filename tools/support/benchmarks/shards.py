"""Shards against plain files and other streaming engines: reading, loader, index, order.

python tools/bench.py shards --images DIR [--parts reading loader index order]
    [--python INTERPRETER]      of an environment with the others that are to be measured:
                                litdata, mosaicml-streaming, webdataset and timm, nvidia-dali

reading: small samples by number, warm. loader: the photographs of DIR (class folders) to normalised
batches, random resized crop and flip; pre-resized are they as tools/pack.py does, to a
short side of 256, JPEG quality 90.
index, order: of a synthetic store of many samples. Each side is a process of its own; they take
turns, and the best round counts, by the processor time of all threads of the process: one thread
works, and other programs may use the cores. A side whose library is not there is left out.
"""

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import heading, in_new_process, table
from tools.support.command import Parser

PARTS = ("reading", "loader", "index", "order")
_PARTS_FILE = Path(__file__).with_name("_shards_parts.py")
_SHORT_SIDE, _CLASSES = 256, 10_450
"""Pixels; of ImageNet-21k in its winter release, less the rare ones."""


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    parser = Parser(__doc__)
    parser.add_argument("--images", type=Path, help="Class folders of photographs, for loader.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--python", help="Interpreter of the environment that has the others.")
    numbers = {
        "samples": 20_000,
        "bytes": 4_250,
        "per_shard": 1_000,
        "window": 4,
        "size": 224,
        "batch": 16,
        "rounds": 5,
        "rows": 15_000_000,
    }
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse(argv)
    check_ranges("--", options, **dict.fromkeys(numbers, ">= 1"))
    check_ranges("--", options, size="[1, 8192]")
    if "loader" in options.parts and not (options.images and options.images.is_dir()):
        raise UsageError(f"there is no folder {options.images}. Give --images DIR.")
    print(heading("shards", argv) + "\n")
    for part in options.parts:
        with tempfile.TemporaryDirectory() as folder:
            print(globals()[f"measure_{part}"](options, Path(folder)) + "\n", flush=True)


def measure_reading(options: Any, folder: Path) -> str:
    """Samples a second and core, by number."""
    from pretrain.shards import WindowOrder, find_store

    draw = np.random.default_rng(0)
    files, shards = folder / "files", folder / "shards"
    samples = [
        (f"c{number % 10}/{number:06}.jpg", draw.bytes(options.bytes), number % 10)
        for number in range(options.samples)
    ]
    for name, content, _ in samples:
        path = files / f"{name[3:9]}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_store(shards, samples, [f"c{number}" for number in range(10)], options.per_shard)
    store = find_store(shards)
    assert store is not None
    starts = store.splits["train"].index.starts
    mixed = WindowOrder(starts, options.window, 0)(0)
    in_turn = [np.arange(starts[shard], starts[shard + 1]) for shard in mixed.shards]
    orders = {"mixed": mixed[0 : len(mixed)], "in turn": np.concatenate(in_turn)}
    for name, order in orders.items():
        (folder / f"{name}.json").write_text(json.dumps(order.tolist()), "utf-8")
    given = {name: options[name] for name in ("bytes", "per_shard")}
    given |= {"files": files, "shards": shards}

    def side(name: str, order: str = "mixed", python: str | None = None) -> Any:
        own = {"order": folder / f"{order}.json", "work": folder / f"{name}, {order}"}
        return name, python, {**given, **own}

    theirs = options.python or sys.executable
    sides = {
        "ours": side("ours"),
        "ours, a shard after another": side("ours", "in turn"),
        "plain files": side("plain files"),
        "litdata": side("litdata", "mixed", theirs),
        "litdata, a chunk after another": side("litdata", "in turn", theirs),
        "mosaicml-streaming": side("mosaicml-streaming", "mixed", theirs),
        "webdataset, its own iteration": side("webdataset", "in turn", theirs),
    }
    speed = rates(sides, options.rounds, options.samples)
    ours = next(iter(speed.values()))
    rows = [[name, f"{value:,.0f}", f"{ours / value:.1f}"] for name, value in speed.items()]
    return (
        f"Reading {options.samples:,} samples of {options.bytes:,} bytes, "
        f"{options.per_shard:,} a shard, warm; mixed within windows of {options.window} shards "
        "where nothing else is said, ours with crc32:\n\n"
        + table(["", "samples a second and core", "ours in it"], rows)
    )


def measure_loader(options: Any, folder: Path) -> str:
    """Images a second and core, from files or shards to batches that a network takes."""
    original, resized = folder / "original", folder / "resized"
    pack_folder(options.images, original)
    pack_folder(options.images, resized, _SHORT_SIDE)
    small = folder / "folder"
    unpack(resized, small)
    theirs = options.python or sys.executable

    def side(name: str, data: Path, python: str | None = None, layout: str = "HWC") -> Any:
        split = "train" if data in (original, resized) else "."
        words = {"size": options.size, "batch": options.batch, "layout": layout}
        return name, python, {**words, "data": data, "split": split}

    sides = {
        "ours, folder": side("our loader", options.images),
        "ours, shards": side("our loader", original),
        "ours, shards, pre-resized": side("our loader", resized),
        "ours, folder, pre-resized": side("our loader", small),
        "timm, folder": side("timm", options.images),
        "timm, folder, pre-resized": side("timm", small),
        "timm's ReaderWds, our shards, pre-resized": side("timm", resized, theirs),
        "DALI, folder": side("DALI", options.images, theirs),
        "DALI, folder, pre-resized": side("DALI", small, theirs),
        "DALI, our shards, pre-resized": side("DALI", resized, theirs),
        "DALI, our shards, pre-resized, CHW": side("DALI", resized, theirs, "CHW"),
    }
    speed = rates(sides, options.rounds)
    rows = [
        [name, f"{value:,.0f}", *(f"{value / speed[one]:.2f}" for one in _BESIDE)]
        for name, value in speed.items()
    ]
    sizes = ", ".join(
        f"{name} {_mean_size(path):,.0f}"
        for name, path in (("original", original), ("pre-resized", resized))
    )
    return (
        f"Loader: {options.images.name} to normalised batches of {options.size} pixels, random "
        f"resized crop and flip; bytes an image: {sizes}:\n\n"
        + table(["", "images a second and core", *(f"times {one}" for one in _BESIDE)], rows)
    )


_BESIDE = ("ours, folder", "timm, folder")


def measure_index(options: Any, folder: Path) -> str:
    """Time and memory of opening a large index and of reading rows of it."""
    path = folder / "train.index"
    write_large_index(path, options.rows, options.per_shard)
    code = f"import sys; from {__name__} import use_index as use; use(*sys.argv[1:])"
    best: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        found = json.loads(in_new_process("-c", code, str(path)).splitlines()[-1])
        for name, (milliseconds, mib) in found.items():
            time, memory = best.get(name, (float("inf"), 0.0))
            best[name] = [min(time, milliseconds), max(memory, mib)]
    rows = [[name, f"{ms:,.1f}", f"{mib:,.0f}"] for name, (ms, mib) in best.items()]
    head = ["", "ms", "MiB of 5 processes together"]
    return (
        f"Index of {options.rows:,} samples in {options.rows // options.per_shard:,} shards, "
        f"{path.stat().st_size / 2**20:,.0f} MiB on disk; memory is the sum of PSS beyond the same "
        f"processes without an index:\n\n" + table(head, rows)
    )


def use_index(path: str) -> None:
    """Open an index, read of it in four forked processes, print ms and MiB as JSON."""
    import os
    import time

    from pretrain.shards import ShardIndex

    found: dict[str, tuple[float, float]] = {}

    def step(name: str, index: ShardIndex | None, work: Any) -> None:
        """Of `work` in each of four processes that are forked now; the slowest one's time."""
        pipes = []
        for worker in range(4):
            answer, done = os.pipe(), os.pipe()
            if not os.fork():
                started = time.process_time()
                work(index, worker)
                os.write(answer[1], json.dumps(time.process_time() - started).encode())
                os.close(done[1])
                os.read(done[0], 1)
                os._exit(0)
            os.close(done[0])
            pipes.append((answer[0], done[1]))
        seconds = max(float(os.read(answer, 64)) for answer, _ in pipes)
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text("utf-8").split()
        memory = sum(_pss_mib(process) for process in ("self", *children))
        for pipe in pipes:
            for end in pipe:  # each worker holds the ends of those before it: all, then wait
                os.close(end)
        for _ in pipes:
            os.wait()
        found[name] = 1000 * seconds, memory

    def rows(shards: int) -> Any:
        def read(index: ShardIndex, worker: int) -> None:
            draw = np.random.default_rng(worker)
            for shard in draw.integers(0, len(index.shards), shards).tolist():
                kept.append(index.rows(shard).tobytes())  # as the reader has them of open shards
                index.labels[index.starts[shard] : index.starts[shard + 1]].sum()

        return read

    def every(index: ShardIndex, worker: int) -> None:
        del worker
        for shard in range(len(index.shards)):
            index.rows(shard)
        index.labels.max()

    kept: list[bytes] = []
    step("nothing", None, lambda *_: None)
    _, before = found.pop("nothing")
    started = time.process_time()
    index = ShardIndex.open(Path(path))
    assert len(index) > 0
    opening = time.process_time() - started
    step("opening", index, lambda *_: None)
    found["opening"] = 1000 * opening, found["opening"][1]
    step("rows of 32 random shards, in each of 4", index, rows(32))
    step("rows of 128 random shards, in each of 4", index, rows(128))
    step("all rows and labels, in each of 4", index, every)
    print(json.dumps({name: (ms, mib - before) for name, (ms, mib) in found.items()}))


def _pss_mib(process: str) -> float:
    """Proportional resident size: a page that n processes share counts 1/n in each."""
    for line in Path(f"/proc/{process}/smaps_rollup").read_text("utf-8").splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def measure_order(options: Any, folder: Path) -> str:
    """Seconds and memory of an epoch's order."""
    given = {"samples": options.rows, "per_shard": options.per_shard, "window": 32}
    theirs = options.python or sys.executable
    sides = {
        "ours, windows of 32 shards": ("our order", None, given),
        "ours, one window": ("our order", None, {**given, "window": 10**6}),
        "torch.randperm of all": ("torch.randperm", None, given),
        "mosaicml-streaming, py1e": ("mosaicml-streaming's order", theirs, given),
    }
    speed = rates(sides, options.rounds, options.rows)
    rows = [[name, f"{options.rows / value:.2f}"] for name, value in speed.items()]
    return f"The order of an epoch of {options.rows:,} samples:\n\n" + table(["", "s"], rows)


# ---- sides


def rates(
    sides: Mapping[str, tuple[str, str | None, Mapping[str, Any]]],
    rounds: int,
    expected: int | None = None,
) -> dict[str, float]:
    """Samples a second of processor time, of each side's best round.

    Args:
        sides: what is to be called what: a name of `_shards_parts.SIDES`, the interpreter (None is
            this one), its options.
        rounds: how often; one before does not count.
        expected: samples that a round must give.
    """
    best: dict[str, float] = {}
    with ExitStack() as stack:
        running = {}
        for name, (side, python, options) in sides.items():
            one_round = stack.enter_context(_side(side, python, options))
            if isinstance(one_round, str):
                print(f"left out: {name} ({one_round})")
            else:
                running[name] = one_round
        for number in range(rounds + 1):
            for name, one_round in running.items():
                seconds, found = one_round()
                if expected not in (None, found):
                    raise UsageError(f"{name} gave {found:,} samples of {expected:,}.")
                if number:
                    best[name] = max(best.get(name, 0.0), found / max(seconds, 1e-9))
    return best


@contextmanager
def _side(side: str, python: str | None, options: Mapping[str, Any]) -> Iterator[Any]:
    """A function that runs one round in a process; or why the library is not there."""
    words = [python or sys.executable, str(_PARTS_FILE), side, json.dumps(options, default=str)]
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
        assert process.stdin is not None
        assert process.stdout is not None

        def answer() -> Any:
            line = process.stdout.readline()  # type: ignore[union-attr]
            if not line:
                errors.seek(0)
                raise UsageError(f"the side {side} failed:\n{errors.read().strip()[-2000:]}")
            return json.loads(line)

        def one_round() -> Any:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
            return answer()

        try:
            lacking = answer()
            yield lacking[0] if lacking else one_round
        finally:
            process.stdin.close()
            process.wait()
            process.stdout.close()


# ---- what is measured on


def write_store(
    folder: Path,
    samples: Iterable[tuple[str, bytes, int]],
    classes: list[str],
    per_shard: int = 1000,
) -> None:
    """Shards with an index of (name, content, label), as `tools/pack.py` lays them out."""
    from pretrain.shards.index import Member, Shard, write_index

    folder.mkdir(parents=True)
    rest, names, labels = iter(samples), list[str](), list[int]()
    shards, members = list[Shard](), list[Member]()
    while part := list(islice(rest, per_shard)):
        path = folder / f"train-{len(shards):06}.tar"
        with tarfile.open(path, "w") as tar:
            for name, content, label in part:
                key = name.rpartition(".")[0]
                header = tarfile.TarInfo(f"{key}.jpg")
                header.size = len(content)
                members.append(
                    Member(len(shards), tar.offset + 512, len(content), zlib.crc32(content))
                )
                tar.addfile(header, io.BytesIO(content))
                text = b"%d" % label
                header = tarfile.TarInfo(f"{key}.cls")
                header.size = len(text)
                tar.addfile(header, io.BytesIO(text))
                names.append(name)
                labels.append(label)
        shards.append(Shard(path.name, len(part), path.stat().st_size))
    write_index(folder / "train.index", shards, names, members, classes=classes, labels=labels)
    split = {
        "name": "train",
        "num_samples": len(names),
        "filenames": [shard.file for shard in shards],
        "shard_lengths": [shard.samples for shard in shards],
    }
    (folder / "_info.json").write_text(json.dumps({"splits": {"train": split}}), "utf-8")


def pack_folder(images: Path, folder: Path, short_side: int | None = None) -> None:
    """Class folders as shards, as `tools/pack.py` makes them."""
    from pretrain.images import list_classes
    from pretrain.shards.pack import PackOptions, PackSplit, pack

    found = list_classes(images)
    split = PackSplit(
        split="train",
        names=[os.path.relpath(path, images) for path in found.paths],
        read=partial(_read_file, found.paths),
        sizes=np.array([os.path.getsize(path) for path in found.paths]),
        classes=tuple(found.images),
        labels=np.array(found.labels),
    )
    pack([split], folder, PackOptions(samples_per_shard=128, short_side=short_side))


def _read_file(paths: list[str], number: int) -> bytes:
    return Path(paths[number]).read_bytes()


def unpack(store: Path, folder: Path) -> None:
    """The images of shards as class folders."""
    from pretrain.shards import find_store

    found = find_store(store)
    assert found is not None
    reader = found.splits["train"]
    for number in range(len(reader.index)):
        path = folder / reader.index.name(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(reader.read(number))


def _mean_size(store: Path) -> float:
    from pretrain.shards import ShardIndex

    return float(ShardIndex.open(store / "train.index").columns["size"].mean())


def write_large_index(path: Path, rows: int, per_shard: int) -> None:
    """An index of as many samples, with names as ImageNet's, without a Python object a sample."""
    from pretrain.shards.index import Shard, save_columns

    draw = np.random.default_rng(0)
    size = draw.integers(20_000, 160_000, rows, dtype=np.uint32)
    counts = np.diff(np.append(np.arange(0, rows, per_shard), rows))
    blocks = np.split(size // 512 + 4, np.cumsum(counts)[:-1])
    name = np.frombuffer(b"n01440764/n01440764_10026.JPEG", np.uint8)
    columns: dict[str, np.ndarray] = {
        "offset": np.concatenate([np.cumsum(part) for part in blocks], dtype=np.uint32),
        "size": size,
        "crc32": draw.integers(0, 2**32, rows, dtype=np.uint32),
        "label": draw.integers(0, _CLASSES, rows, dtype=np.uint16),
        "name_end": np.arange(1, rows + 1, dtype=np.uint32) * np.uint32(len(name)),
        "names": np.tile(name, rows),
    }
    shards = [
        Shard(f"train-{number:06}.tar", int(count), 2**27) for number, count in enumerate(counts)
    ]
    classes = [f"n{number:08}" for number in range(_CLASSES)]
    save_columns(path, shards, columns, classes, "json", {})
