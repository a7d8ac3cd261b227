"""tools/pack.py: every kind of source into a store that trainers read as they read the source."""

import bz2
import gzip
import io
import json
import os
import pickle
import random
import shutil
import signal
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.config import DatasetConfig
from pretrain.data import open_data
from pretrain.data.cifar import LAYOUTS
from pretrain.errors import UsageError
from pretrain.shards import find_store
from tests.tools.test_tools import fails
from tools import pack
from transfer.captioning.config import DatasetConfig as CaptionData
from transfer.captioning.dataset import open_captions


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nothing here survives the machine's end; a sync waits for what others write."""
    monkeypatch.setattr("pretrain.files._sync", lambda _: None)


def run(*words: object, capsys) -> str:
    pack.main([*map(str, words), "--workers", "1"])
    return capsys.readouterr().out


def check(store: Path, capsys) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        pack.main(["--verify", str(store), "--workers", "1"])
    return int(ended.value.code or 0), capsys.readouterr().out


def samples(store: Path, split: str) -> dict[str, tuple[bytes, str]]:
    """Content and class by name."""
    reader = find_store(store).splits[split]
    index = reader.index
    return {
        index.name(n): (reader.read(n), index.classes[index.labels[n]]) for n in range(len(index))
    }


def files(folder: Path) -> dict[str, tuple[bytes, str]]:
    """The same of class folders."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.relative_to(folder).as_posix(): path for path in paths}
    return {name: (path.read_bytes(), name.partition("/")[0]) for name, path in names.items()}


def contents(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir() if path.is_file()}


def write_tar(path: Path, folder: Path, top: str = "") -> Path:
    with tarfile.open(path, "w") as archive:
        archive.add(folder, top or ".")
    return path


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Class folders of train, val and test."""
    root = tmp_path_factory.mktemp("tree") / "photos"
    for number in range(30):
        split = "train" if number < 18 else "val" if number < 24 else "test"
        path = root / split / f"c{number % 3}" / f"p.{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number, 7, 7)).save(path)
    return root


@pytest.fixture(scope="module")
def store(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("store") / "store"
    pack.main(["--data", str(tree), "--out", str(out), "--samples-per-shard", "5"])
    return out


def test_class_folders_with_all_their_splits(tree, store, tmp_path, capsys):
    for split in ("train", "val", "test"):
        assert samples(store, split) == files(tree / split)
    assert check(store, capsys) == (0, f"{store} is complete\n")
    from_folder, from_store = (open_data(root, DatasetConfig()) for root in (tree, store))
    assert from_folder.val.classes == from_store.val.classes
    assert from_folder.val.labels.tolist() == from_store.val.labels.tolist()
    for number in range(6):
        assert (from_folder.val.read(number) == from_store.val.read(number)).all()
    text = run("--data", tree, "--out", tmp_path / "a", "--splits", "val", capsys=capsys)
    assert text.startswith("val      6 images, 3 classes, 1 shards, ")
    assert "6 keys escaped: c0/p.18.png is c0/p%2E18\n" in text
    assert text.endswith(f"python tools/pretrain.py --data {tmp_path / 'a'}\n")
    assert [*find_store(tmp_path / "a").splits] == ["val"]


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2"])
def test_a_tar_file_gives_the_bytes_that_its_folder_gives(ending, tree, store, tmp_path, capsys):
    top = {"tar": "", "tar.gz": "photos", "tar.bz2": "./photos"}[ending]
    path = write_tar(tmp_path / "photos.tar", tree, top)
    if ending != "tar":
        opened = {"tar.gz": gzip, "tar.bz2": bz2}[ending].compress(path.read_bytes())
        path = tmp_path / f"photos.{ending}"
        path.write_bytes(opened)
    out = tmp_path / "store"
    run("--data", path, "--out", out, "--samples-per-shard", 5, capsys=capsys)
    assert contents(out) == contents(store)
    assert {path.name for path in out.iterdir()} == {*contents(store)}


def test_a_tree_without_splits_holds_out_what_the_folder_does(tree, tmp_path, capsys):
    data = open_data(tree / "train", DatasetConfig())
    path = write_tar(tmp_path / "x.tar", tree / "train")
    for name, source in (("a", tree / "train"), ("b", path)):
        run("--data", source, "--out", tmp_path / name, capsys=capsys)
        for split, images in (("train", data.train), ("val", data.val)):
            wanted = {str(Path(one).relative_to(tree / "train")) for one in images.paths}
            assert {*samples(tmp_path / name, split)} == wanted
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shards_of_others_and_our_own_are_packed_again(store, tmp_path, capsys):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for name in ("train", "val"):
        with tarfile.open(theirs / f"{name}-000000.tar", "w") as archive:
            for number in range(7):
                buffer = io.BytesIO()
                Image.new("RGB", (12, 10), (number, 7, 7)).save(buffer, "PNG")
                for ending, content in (("png", buffer.getvalue()), ("cls", b"%d" % (number % 2))):
                    info = tarfile.TarInfo(f"{number:04d}.{ending}")
                    info.size = len(content)
                    archive.addfile(info, io.BytesIO(content))
    assert "train.index" in run("--index", theirs, capsys=capsys)
    assert "train.index" in run("--index", theirs, capsys=capsys)
    assert check(theirs, capsys)[0] == 0
    for source, size in ((theirs, 7), (store, 18)):
        out = tmp_path / f"of-{source.name}"
        run("--data", source, "--out", out, "--samples-per-shard", 4, capsys=capsys)
        assert samples(out, "train") == samples(source, "train")
        assert len(samples(out, "train")) == size
        assert check(out, capsys)[0] == 0
    assert "train.index" in run("--index", out, capsys=capsys)
    fails("pack", "--index", tmp_path, capsys=capsys, said="holds no shards, such as train-000000")


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.folder)
def test_cifar_is_packed_without_loss(layout, tmp_path, capsys):
    folder, draw = tmp_path / "data" / layout.folder, np.random.default_rng(0)
    folder.mkdir(parents=True)
    pixels = draw.integers(0, 256, (4, 3072), np.uint8)
    for file in (layout.meta, *layout.train, layout.test):
        batch = {"data": pixels, layout.labels: [0, 1, 1, 0]}
        content = {layout.names: ["cat", "dog"]} if file == layout.meta else batch
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    text = run("--data", tmp_path / "data", "--out", tmp_path / "out", capsys=capsys)
    assert f"train    {4 * len(layout.train)} images, 2 classes, 1 shards, " in text
    source, packed = (open_data(root, DatasetConfig()) for root in (folder, tmp_path / "out"))
    assert packed.val.reader.index.name(1) == "dog/00001.png"
    for number in range(4):
        assert (source.val.read(number) == packed.val.read(number)).all()
        assert source.val.labels[number] == packed.val.labels[number]
    assert {*map(bytes, (packed.train.read(n).numpy() for n in range(len(packed.train))))} == {
        *map(bytes, pixels)
    }


def test_captions_stand_beside_their_images(worlds, tmp_path, capsys):
    out = tmp_path / "out"
    text = run("--data", worlds["captions"], "--out", out, "--short-side", 32, capsys=capsys)
    assert "train    12 images, captions, 1 shards, " in text
    assert "12 resized" in text
    assert text.endswith(f"python tools/finetune_cap.py --data {out}\n")
    data = open_captions(worlds["captions"], CaptionData(), log=lambda _: None)
    for split in ("train", "val"):
        reader = find_store(out).splits[split]
        found = [json.loads(reader.read(n, text=True)) for n in range(len(reader.index))]
        by_id = {one["image_id"]: one for one in found}
        assert len(by_id) == len(getattr(data, split))
        for image in getattr(data, split):
            one = by_id[image.image_id]
            assert one["captions"] == [*image.captions]
            assert one["file_name"] == image.path.name
        assert min(Image.open(io.BytesIO(reader.read(0))).size) == 32
    assert check(out, capsys)[0] == 0


# ---- refusals


def test_an_image_of_captions_that_is_not_there(tmp_path, capsys):
    """The option that the message names leaves it out."""
    root = tmp_path / "captioned"
    root.mkdir()
    for number in range(19):
        Image.new("RGB", (12, 10), (number, 7, 7)).save(root / f"{number}.png")
    (root / "captions.csv").write_text(
        "image,caption\n" + "".join(f"{number}.png,a dog\n" for number in range(20))
    )
    words = "--data", root, "--out", tmp_path / "out", "--val-fraction", 0.4
    with pytest.raises(UsageError, match="give --max-corrupt 1 to"):
        run(*words, capsys=capsys)
    run(*words, "--max-corrupt", 1, capsys=capsys)
    splits = find_store(tmp_path / "out").splits.values()
    assert sum(len(reader.index) for reader in splits) == 19


def test_what_fits_two_kinds_is_asked(worlds, tree, tmp_path, capsys):
    root = shutil.copytree(tree, tmp_path / "both")
    (root / "captions.json").write_text("{}")
    said = "holds class folders and captions (captions.json). Say by --kind classes or --kind"
    fails("pack", "--data", root, "--out", tmp_path / "o", capsys=capsys, said=said)
    run("--data", root, "--out", tmp_path / "o", "--kind", "classes", capsys=capsys)
    assert samples(tmp_path / "o", "train") == files(tree / "train")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "give one of --data DIR --out STORE, --verify STORE and --index SHARDS."),
        ("--data {tree}", "give one of --data DIR --out STORE"),
        ("--data {tree} --out o --verify o", "give one of --data DIR --out STORE"),
        ("--data nowhere --out o", "there is no folder or tar file nowhere."),
        ("--data {tree} --out {tree}/o", "lies in --data"),
        ("--data {tree} --out full", "full holds a.txt; shards come into a folder of their own."),
        (
            "--data {tree} --out o --splits dev",
            "--splits has 'dev'; it must be of train, val, test",
        ),
        ("--data {tree} --out o --quality 0", "--quality is 0; it must lie in [1, 100]"),
        ("--data {tree} --out o --short-side 4", "--short-side is 4; it must lie in [8, 8192]"),
        ("--data {tree} --out o --workers 0", "--workers is 0; it must lie in [1, 512]"),
        ("--data {tree} --out o --train gone", "there is no folder"),
        ("--data empty.tar --out o", "holds no images in class folders (nothing)."),
        ("--data cut.tar --out o", "cannot be read as a tar file"),
        ("--data cut.tar.gz --out o", "cannot be unpacked"),
        ("--data text.tar --out o", "cannot be read as a tar file"),
        ("--data short.tar --out o", "without the end mark of a tar"),
        ("--data shard.tar --out o", "is a shard of WebDataset: give the folder that holds all"),
        ("--data class.tar --out o", "no images (.jpg"),
        ("--data other.tar --out o", "train and val of other.tar name different classes: c1, c2"),
        ("--data two.tar --out o", "holds train, val, valid; expected train, at most one of val"),
        ("--data cut.tar.bz2 --out o", "cut.tar.bz2 cannot be unpacked: Invalid data stream"),
        ("--data joined.tar --out o", "what follows at byte"),
        ("--data plain.tar --out o --test x", "--test is x, but --data is a tar file"),
        ("--data {tree} --out o --layout coco", "--layout is coco, but --data is a folder of"),
        ("--data {tree} --out o --test x", "no folder {tree}/x"),
        ("--data {tree}/train --out o --test x", "--test is x, but {tree}/train has no splits"),
        ("--data {tree} --out o --train x", "name the folder by --train NAME."),
        ("--data {tree} --out s3://bucket/o", "--out is an address, s3://...; it must be a path"),
        ("--data https://me:secret@host/o --out o", "'https://...@host/o' cannot be fetched"),
        ("--index nowhere", "--index nowhere is no folder"),
        ("--verify nowhere", "nowhere holds no shards. `python tools/pack.py --data DIR` packs"),
    ],
)
def test_what_is_refused(words, said, tree, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/a.txt").touch()
    name = next((word for word in words.split() if ".tar" in word), "")
    if name:
        write_archive(name, tree)
    text = said.format(tree=tree)
    fails("pack", *words.format(tree=tree).split(), capsys=capsys, said=text)
    assert not [*tmp_path.glob("o/*.tar")]


def write_archive(name: str, tree: Path) -> None:
    """An archive that cannot be packed."""
    content = write_tar(Path("whole.tar"), tree).read_bytes()
    members = {"shard.tar": ("a/x.png", "a/x.cls"), "class.tar": ("train/a/x.png", "train/b/x.txt")}
    if name in members:
        with tarfile.open(name, "w") as archive:
            for member in members[name]:
                archive.addfile(tarfile.TarInfo(member))
    elif name in ("other.tar", "two.tar", "empty.tar"):
        with tarfile.open(name, "w") as archive:
            if name == "other.tar":
                archive.add(tree / "train", "train")
                archive.add(tree / "val" / "c0", "val/c0")
            elif name == "two.tar":
                for split in ("train", "val", "valid"):
                    archive.add(tree / "val", split)
    else:
        half = content[: len(content) // 1024 * 512 + 100]
        end = content.rstrip(b"\0")
        contents = {
            "cut.tar": half,
            "cut.tar.gz": gzip.compress(content)[:-100],
            "cut.tar.bz2": bz2.compress(content)[:40] + bytes(40),
            "joined.tar": content + content,
            "plain.tar": content,
            "text.tar": b"no archive" * 100,
            "short.tar": end + bytes(-len(end) % 512),
        }
        Path(name).write_bytes(contents[name])


# ---- in the middle


def fork(words: list[str]) -> int:
    """The tool at work in a process of its own, which has no imports to wait for."""
    if (child := os.fork()) == 0:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(1, 2)
            pack.main(words)
        finally:
            os._exit(0)
    return child


def test_killed_at_any_moment_it_goes_on_to_the_same_bytes(tree, store, tmp_path, full):
    """By SIGKILL, with processes of its own; the next command finds no lock and no process."""
    draw, out = random.Random(0), tmp_path / "out"
    words = ["--data", str(tree), "--out", str(out), "--samples-per-shard", "5", "--workers", "2"]
    for _ in range(40 if full else 6):
        child = fork(words)
        time.sleep(draw.uniform(0, 0.15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    pack.main(words)
    assert contents(out) == contents(store)
    assert not (out / ".pack").exists()
