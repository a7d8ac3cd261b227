"""Every tool that writes, on a disk that becomes full: one message, nothing torn, and it goes on.

The kernel refuses bytes behind a point of one file (RLIMIT_FSIZE), so that each library meets its
own error; other points are a folder, a sync and a renaming that fail.
"""

import contextlib
import errno
import functools
import importlib
import io
import json
import os
import pickle
import random
import re
import shutil
import subprocess
import tarfile
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from pretrain import files, synthetic
from pretrain.data.cifar import LAYOUTS
from pretrain.errors import UsageError
from tests.conftest import ROOT, limited
from tests.serving import Quiet, serving
from tests.tools.test_transfer_tool import STUB, TINY, job
from tools.support import grid_run

SMALL = "--loader.workers 0 --device cpu --out out"
RUNS = {
    "pretrain": f"pretrain --data {{classification}} {SMALL} --model.arch test_resnet --epochs 2 "
    "--dataset.image_size 32 --batch_size 60",
    "pretrain_more": f"pretrain --data {{classification}} {SMALL} --model.arch test_resnet "
    "--epochs 2 --dataset.image_size 32 --checkpoints.best true --tensorboard true",
    "classification": f"finetune_cls --backbone {{backbone}} --data {{classification}} {SMALL} "
    "--epochs 1 --batch_size 10 --dataset.image_size 32",
    "detection": f"finetune_det --backbone {{resnet}} --data {{detection}} {SMALL} "
    "--config {configs}/detection/grid.yaml --epochs 1 --batch_size 4 --engine torchvision "
    "--dataset.short_side 64",
    "segmentation": f"finetune_seg --backbone {{backbone}} --data {{segmentation}} {SMALL} "
    "--config {configs}/segmentation/quick.yaml --epochs 1 --batch_size 4",
    "captioning": f"finetune_cap --backbone {{resnet}} --data {{captions}} {SMALL} "
    "--config {tiny} --cache features",
}
# what is written over an older output of the same command
OVER = {
    "report": "report {runs} --out out",
    "detect": "detect --detector {detector} --images {images} --device cpu --out out",
    "caption": "caption --captioner {captioner} --images {images} --workers 0 --out out",
    "score_captions": "score_captions --references {references} --results {said} --meteor off "
    "--out out/scores.json",
    "score_detections": "score_detections --data {detection} --split val --results {found} "
    "--out out/scores.json",
    "show_mixing": "show_mixing --images {classification}/train --count 2 --size 32 "
    "--method cutmix --out out/mixing.png",
}
NEW = {
    "export": "export --backbone {backbone} --to timm,safetensors,onnx,backbone --out out",
    "export_others": "export --backbone {resnet18} --to detectron2,torchvision --out out",
    "report_docs": "report {runs} --out out --docs page.md",
    "release": "release --backbone {backbone} --name ours --licence MIT --allow-unknown --out out "
    "--to copy",
    "evaluate": "evaluate --backbone {backbone} --data {classification} --workers 0 --device cpu "
    "--out out",
    "suites": "evaluate --backbone {backbone} --suite calibration,ood --workers 0 --device cpu "
    "--data calibration={classification} ood={classification} --out out",
    "voc": "prepare_data voc --data data --val-fraction 0.3",
    "yolo": "prepare_data yolo --data data",
    "imagenet": "prepare_data imagenet --check data --repair --sample 0",
    "cifar": "prepare_data cifar --check data --repair",
    "download": "download {url} --trust",
    "pack": "pack --data {classification} --out out --samples-per-shard 40 --workers 1",
    "synthetic": "synthetic",
}
TOOLS = RUNS | OVER | NEW
SAMPLE = {"pretrain": 1, "score_captions": 2, "voc": 2, "synthetic": 2}  # points without --full


# ---- what the tools are given


@pytest.fixture(scope="module")
def given(worlds, backbone_file, tmp_path_factory):
    """A function from a word of a command to its file, made when it is first asked for."""
    made: dict[str, Any] = {}
    folder, stack = tmp_path_factory.mktemp("given"), contextlib.ExitStack()

    def trained(name: str) -> Path:
        place = folder / name
        place.mkdir()
        with contextlib.chdir(place):
            assert call(name, look_up) == (0, "")
        return place / "out"

    def write(name: str, content: str) -> Path:
        (folder / name).write_text(content)
        return folder / name

    def resnet18() -> Path:
        from tests.transfer.formats.making import tame

        tame("resnet18").save(folder / "resnet18.pth")
        return folder / "resnet18.pth"

    def url() -> str:
        handler = functools.partial(Quiet, directory=str(backbone_file.parent))
        return f"{stack.enter_context(serving(handler))}/{backbone_file.name}"

    makers = {
        **{name: lambda path=path: path for name, path in worlds.items()},
        "configs": lambda: ROOT / "configs",
        "resnet": lambda: backbone_file,
        "resnet18": resnet18,
        "url": url,
        "runs": lambda: ROOT / "docs" / "results" / "embedded_grid",
        "images": lambda: worlds["detection"] / "JPEGImages",
        "tiny": lambda: write("tiny.yaml", TINY),
        "references": lambda: write("references.json", json.dumps({"1": ["a dog", "one dog"]})),
        "said": lambda: write("said.json", json.dumps({"1": "a dog"})),
        "found": lambda: look_up("detector") / "detections.json",
        "backbone": lambda: trained("pretrain") / "backbone.pth",
        "detector": lambda: trained("detection"),
        "captioner": lambda: trained("captioning"),
    }

    def look_up(word: str) -> Any:
        if word not in made:
            made[word] = makers[word]()
        return made[word]

    with stack:
        yield look_up


def prepare(name: str, look_up) -> None:
    """What a tool changes, in the working directory."""
    if name == "report_docs":
        Path("page.md").write_text("<!-- report -->\n<!-- /report -->\n")
    if name == "cifar":
        Path("data").mkdir()
        layout, pixels = LAYOUTS[0], np.zeros((2, 3072), np.uint8)
        batch = {"data": pixels, layout.labels: [0, 1]}
        with tarfile.open("data/cifar-10-python.tar.gz", "w:gz") as archive:
            for file in (layout.meta, *layout.train, layout.test):
                content = {layout.names: ["a", "b"]} if file == layout.meta else batch
                packed = io.BytesIO(pickle.dumps(content, protocol=2))
                entry = tarfile.TarInfo(f"{layout.folder}/{file}")
                entry.size = len(packed.getbuffer())
                archive.addfile(entry, packed)
    if name == "voc":
        shutil.copytree(look_up("detection"), "data", ignore=shutil.ignore_patterns("ImageSets"))
    if name == "yolo":
        for split in ("train", "val"):
            for kind in ("images", "labels"):
                Path("data", kind, split).mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(f"data/images/{split}/a.png")
            Path(f"data/labels/{split}/a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
        Path("data/data.yaml").write_text(
            "path: .\ntrain: images/train\nval: images/val\nnames: [cat]\n"
        )
    if name == "imagenet":
        Path("data/train").mkdir(parents=True)
        Path("data/val").mkdir()
        for number in (1, 2):
            image = f"ILSVRC2012_val_{number:08d}.JPEG"
            Image.effect_noise((32, 32), 50).save(f"data/val/{image}")
            with tarfile.open(f"data/train/n0000000{number}.tar", "w") as archive:
                archive.add(f"data/val/{image}", f"n0000000{number}_1.JPEG")
        Path("data/val.txt").write_text(
            "".join(f"ILSVRC2012_val_{n:08d}.JPEG {n - 1}\n" for n in (1, 2))
        )


# ---- a call, and what it leaves


def call(name: str, look_up, *more: str) -> tuple[int, str]:
    """Run a tool in this process: its exit code and its last `error: ` line."""
    from tools.support.command import run_main

    tool, *words = TOOLS[name].split()
    words = [re.sub(r"\{(\w+)\}", lambda match: str(look_up(match[1])), word) for word in words]
    if tool == "synthetic":

        def main(_):
            synthetic.classification(Path("out"), train=10, val=10, size=32)
            synthetic.detection(Path("out"), train=2, val=1, size=32)
            synthetic.captions(Path("out"), train=2, val=1, size=32)
            synthetic.segmentation(Path("out"), train=2, val=1, size=32)
    else:
        main = importlib.import_module(f"tools.{tool}").main
    said, code = io.StringIO(), 0
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            run_main(lambda: main([*words, *more]))
        except SystemExit as ended:
            code = int(ended.code or 0)
    if name in ("imagenet", "cifar") and code == 1:  # repaired, but these are not all its images
        code = 0
    assert "Traceback" not in said.getvalue()
    errors = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    assert len(errors) == (code == 2), said.getvalue()
    return code, "".join(errors)


def whole(path: Path) -> bool:
    """Whether a file is complete, by its own format."""
    match path.suffix:
        case ".json":
            json.loads(path.read_text())
        case ".jsonl":
            [json.loads(line) for line in path.read_text().splitlines()]
        case ".yaml":
            yaml.safe_load(path.read_text())
        case ".pth":
            torch.load(path, weights_only=True)
        case ".png" | ".jpg" | ".JPEG":
            Image.open(path).load()
        case ".html":
            return path.read_text().rstrip().endswith("</html>")
        case ".md" if path.name == "page.md":
            return path.read_text().endswith("<!-- /report -->\n")
    return True


def contents() -> dict[str, bytes]:
    """Every file of the working directory that is not a cache's or a lock."""
    return {
        str(path): path.read_bytes()
        for path in sorted(Path().rglob("*"))
        if path.is_file()
        and not path.name.endswith(".lock")
        and path.parts[0] not in ("cache", "features")
    }


def essence() -> dict[str, object]:
    """What two runs of a command have in common: files, weights, figures."""
    found: dict[str, object] = {}
    for name, content in contents().items():
        path = Path(name)
        assert whole(path), name
        if "tfevents" in name:
            continue
        found[name] = None
        if path.name == "result.json":
            metrics = json.loads(content)["metrics"]
            found[name] = {k: v for k, v in metrics.items() if not re.search("second|time", k)}
        elif path.suffix == ".pth" and "checkpoints" not in path.parts:
            held = torch.load(path, weights_only=True)
            state = held.get("state_dict", held)
            found[name] = {k: v.numpy().tobytes() for k, v in state.items()}
    return found


# ---- the disk


class Disk:
    """Notes what is written; refuses the write of number `at` in the way `kind`."""

    def __init__(self, at: int = -1, kind: str = "", limit: int = 0) -> None:
        self.at, self.kind, self.limit = at, kind, limit
        self.points: list[tuple[int, str, int, int]] = []
        self.number = -1

    @contextlib.contextmanager
    def draft(self, path: Path, size: int | None = None):
        if path.name.endswith(".lock") or "cache" in path.parts or "features" in path.parts:
            with REAL(path, size) as temporary:
                yield temporary
            return
        self.number += 1
        number, called = self.number, set()
        before = os.stat(path) if path.is_file() else None
        with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
            for name in ("fsync", "sync", "replace", "mkdir"):
                patch.setattr(os, name, self._wrap(name, number, called))
            if number == self.at and self.kind == "bytes":
                stack.enter_context(limited(self.limit))
            with REAL(path, size) as temporary:
                yield temporary
                written = [file for top in (temporary, path) for file in (top, *top.rglob("*"))]
                after = max((f.stat().st_size for f in written if f.is_file()), default=0)
        start = 0
        if before and path.exists() and os.stat(path).st_ino == before.st_ino:  # appended
            start = before.st_size
        self.points += [(number, kind, start, after) for kind in sorted(called)]
        if after > start:
            self.points += [(number, "bytes", start, after)] * 3

    def _wrap(self, name: str, number: int, called: set[str]):
        real = getattr(os, name)

        def wrapped(*args, **options):
            elsewhere = name == "mkdir" and os.path.isabs(args[0])
            if number == self.at and name == self.kind and not elsewhere:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            result = real(*args, **options)
            # not where a folder is there already, and not what a library keeps elsewhere
            if not elsewhere:
                called.add(name)
            return result

        return wrapped


REAL = files.draft
SOURCES = [path for top in ("pretrain", "transfer", "tools") for path in (ROOT / top).rglob("*.py")]
MODULES = [  # each has the name of its own
    importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for path in SOURCES
    if re.search(r"^(from pretrain\.files import .*\bdraft\b|def draft\()", path.read_text(), re.M)
]


@pytest.fixture
def on(monkeypatch):
    """A function that puts the writes of all modules on a disk."""

    def use(disk: Disk) -> Disk:
        for module in MODULES:
            monkeypatch.setattr(module, "draft", disk.draft)
        return disk

    return use


def again(name: str, error: str, look_up) -> None:
    """Do as the message says."""
    resumed = re.search(r"with --resume (\S+)\.$", error)
    assert call(name, look_up, *(["--resume", resumed[1]] if resumed else [])) == (0, "")


@pytest.mark.parametrize("name", TOOLS)
def test_a_full_disk_is_a_message(name, given, on, tmp_path, monkeypatch, full):
    if not full and name not in SAMPLE:
        pytest.skip("--full runs all tools")
    # a download is written to the cache, which is not looked at otherwise
    monkeypatch.setenv("XDG_CACHE_HOME", "out" if name == "download" else str(tmp_path / "cache"))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)  # archives by one thread, as Disk is

    def new(folder: str) -> None:
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        prepare(name, given)

    for word in re.findall(r"\{(\w+)\}", TOOLS[name]):
        given(word)  # made on a disk with room
    new("reference")
    disk = on(Disk())
    assert call(name, given) == (0, "")
    wanted = essence()
    # where an older output lies, its folder is not made
    points = [point for point in disk.points if point[1] != "mkdir" or name not in OVER]
    draw = random.Random(name)
    for turn in range(10 if full else SAMPLE[name]):
        number, kind, start, end = draw.choice(points)
        limit = draw.randrange(start, end) if kind == "bytes" else 0
        point = f"{name}, write {number}, {kind}, {limit} of {start}-{end}"
        new(f"turn{turn}")
        if name in OVER:
            on(Disk())
            assert call(name, given) == (0, "")
        older = contents()
        on(Disk(number, kind, limit))
        code, error = call(name, given)
        if code == 0:  # an image was moved, whatever its size
            assert name == "imagenet", point
            assert essence() == wanted, point
            continue
        assert code == 2, point
        assert re.search(r"error: .* cannot be written: ", error), (point, error)
        assert ".tmp" not in error, (point, error)
        if kind != "bytes":
            assert re.search(r"It needs .* bytes.* are left", error), (point, error)
        left = contents()
        assert "export" not in name or not Path("out").exists(), point
        assert not [path for path in left if ".tmp" in path], point
        assert all(whole(Path(path)) for path in left), point
        if name in OVER:
            assert left.keys() == older.keys(), point
        on(Disk())
        again(name, error, given)
        assert essence() == wanted, point
        shutil.rmtree(tmp_path / f"turn{turn}")


@pytest.fixture
def small_disk(tmp_path, full):
    """A file system of 12 MB, and a function that makes it larger."""
    if not full:
        pytest.skip("--full mounts a file system")
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if subprocess.run([*mount, "size=12m", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    yield place, lambda: subprocess.run([*mount, "remount,size=1g", "tmpfs", place], check=True)
    subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.parametrize("name", TOOLS)
def test_a_real_file_system(name, given, small_disk, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "out" if name == "download" else str(tmp_path / "cache"))
    for word in re.findall(r"\{(\w+)\}", TOOLS[name]):
        given(word)
    (tmp_path / "reference").mkdir()
    monkeypatch.chdir(tmp_path / "reference")
    prepare(name, given)
    before = pages()
    assert call(name, given) == (0, "")
    wanted, needed = essence(), pages() - before

    place, enlarge = small_disk
    monkeypatch.chdir(place)
    prepare(name, given)
    room = min(random.Random(name).randrange(max(1, needed)) * 4096, shutil.disk_usage(".").free)
    Path("filler").write_bytes(bytes(shutil.disk_usage(".").free - room))
    code, error = call(name, given)
    assert code == 2
    assert re.search(r" cannot be written: .* bytes.* are left on its disk\.", error), error
    assert not [path for path in contents() if ".tmp" in path]
    enlarge()
    Path("filler").unlink()
    again(name, error, given)
    assert essence() == wanted


def pages() -> int:
    """Blocks of 4,096 bytes of all files in the working directory."""
    return sum(-(-path.stat().st_size // 4096) for path in Path().rglob("*") if path.is_file())


# ---- a grid: its own files, and those of its jobs

LIMITED = f"""
import os, resource, runpy, sys
sys.path[0] = {str(ROOT)!r}
from tools.support.command import run_main
limits = int(os.environ["LIMIT"]), resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
run_main(lambda: runpy.run_path(__file__ + ".stub"))
"""


def test_a_grid_on_a_full_disk(tmp_path, monkeypatch, on, full):
    """A job's line says it, its log being cut; the grid's own is a message; the same call goes on.

    The tools are stubs.
    """
    if not full:
        pytest.skip("--full runs all tools")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    tools, jobs = tmp_path / "tools", [job(0), job(1)]
    tools.mkdir()
    (tools / "finetune_det.py").write_text(LIMITED)
    (tools / "finetune_det.py.stub").write_text(STUB)

    def run(disk: Disk, limit: int = -1) -> list[dict]:
        on(disk)
        monkeypatch.setenv("LIMIT", str(limit))
        options = Namespace(out=Path("out"), jobs=1, devices=[], slurm=None)
        grid_run.run_grid(jobs, options, tools)
        return json.loads(Path("out/grid.json").read_text())["jobs"]

    (tmp_path / "reference").mkdir()
    monkeypatch.chdir(tmp_path / "reference")
    run(disk := Disk())
    wanted = essence()
    needed = Path("out", jobs[0].folder, "result.json").stat().st_size
    draw = random.Random("grid")
    for turn in range(20):
        number, kind, start, end = draw.choice(disk.points)
        (tmp_path / f"turn{turn}").mkdir()
        monkeypatch.chdir(tmp_path / f"turn{turn}")
        if turn % 2:
            limit = draw.randrange(start, end) if kind == "bytes" else 0
            with pytest.raises(UsageError, match=r"grid\.json cannot be written: "):
                run(Disk(number, kind, limit))
        else:
            limit = draw.randrange(needed)
            for row in run(Disk(), limit):
                assert row["state"] == "failed", limit
                assert limit < 400 or "cannot be written: " in row["why"], (limit, row)
        left = contents()
        assert not [path for path in left if ".tmp" in path]
        assert all(whole(Path(path)) for path in left)
        assert {row["state"] for row in run(Disk())} == {"done"}
        assert essence() == wanted
