"""ImageNet as it is downloaded: archives, parquet, Tiny ImageNet; killed, damaged, hostile."""

import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.config import DatasetConfig
from pretrain.data import check, open_data, unpack
from pretrain.data.check import check_imagenet, repair_imagenet
from pretrain.data.parquet import imagenet_classes
from pretrain.errors import UsageError
from tools import prepare_data
from transfer.classification.config import DatasetConfig as FolderConfig
from transfer.classification.folders import open_image_folders

SYNSETS = ("n01440764", "n01443537", "n02102040")
# of the validation images by their names
VAL = [SYNSETS[place] for place in (2, 0, 1, 0, 2)]
TRAIN_NAMES = {synset: [f"{synset}_{n}.JPEG" for n in (18, 7, 3)] for synset in SYNSETS}
VAL_NAMES = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in range(1, 6)]


def picture(name: str) -> bytes:
    """A JPEG that is its name's own."""
    draw = np.random.default_rng(list(name.encode()))
    content = io.BytesIO()
    Image.fromarray(draw.integers(0, 256, (9, 8, 3), np.uint8)).save(content, "JPEG")
    return content.getvalue()


def tar(files: dict[str, bytes], path: Path | None = None, mode: str = "w") -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, held in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(held)
            archive.addfile(entry, io.BytesIO(held))
    if path is not None:
        path.write_bytes(content.getvalue())
    return content.getvalue()


def write_archives(root: Path) -> None:
    """The three files as ImageNet's authors give them, of three classes."""
    savemat = pytest.importorskip("scipy.io").savemat
    root.mkdir()
    classes = {
        f"{synset}.tar": tar({name: picture(name) for name in names})
        for synset, names in reversed(TRAIN_NAMES.items())
    }
    tar(classes, root / unpack.TRAIN)
    tar({name: picture(name) for name in reversed(VAL_NAMES)}, root / unpack.VAL)
    fields = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")
    ids = {SYNSETS[0]: 449, SYNSETS[1]: 450, SYNSETS[2]: 7}
    rows = [(number, name, f"{name}, word", "", 0) for name, number in ids.items()]
    rows.append((1001, "n00001740", "entity", "", 3))  # a node above the classes
    table = np.array(rows, [(field, object) for field in fields]).reshape(-1, 1)
    savemat(meta := io.BytesIO(), {"synsets": table})
    truth = "".join(f"{ids[synset]}\n" for synset in VAL).encode()
    folder = "ILSVRC2012_devkit_t12/data/"
    kit = {folder + "meta.mat": meta.getvalue()}
    kit[folder + "ILSVRC2012_validation_ground_truth.txt"] = truth
    tar(kit, root / unpack.DEVKIT, "w:gz")


def publish(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Let the archives that lie there be the published ones."""
    found = {name: (root / name).read_bytes() for name in unpack.PUBLISHED}
    hashes = {name: hashlib.md5(content).hexdigest() for name, content in found.items()}
    patch.setattr(unpack, "PUBLISHED", {n: (len(found[n]), hashes[n]) for n in found})
    kinds = zip(("train", "val", "devkit"), hashes.items(), strict=True)
    patch.setattr("torchvision.datasets.imagenet.ARCHIVE_META", dict(kinds))


@pytest.fixture
def archives(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "imagenet"
    write_archives(root)
    publish(root, monkeypatch)
    monkeypatch.setattr(unpack, "_IMAGES", 2)
    return root


@pytest.fixture(autouse=True)
def without_sync(monkeypatch):
    """What else the machine writes would be waited for."""
    monkeypatch.setattr(os, "sync", lambda: None)


def tree(root: Path) -> dict[str, bytes]:
    """Every file of the splits, and of folders that should not be there."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.parent != root and "devkit" not in str(path)
        and path.suffix != ".parquet"
    }  # fmt: skip


WANTED = {f"train/{synset}/{n}": picture(n) for synset, names in TRAIN_NAMES.items() for n in names}
WANTED |= {f"val/{s}/{n}": picture(n) for s, n in zip(VAL, VAL_NAMES, strict=True)}


# ---- the archives


def test_the_hashes_are_torchvision_s():
    from torchvision.datasets.imagenet import ARCHIVE_META

    assert {name: md5 for name, md5 in ARCHIVE_META.values()} == {
        name: md5 for name, (_, md5) in unpack.PUBLISHED.items()
    }


def test_the_tree_is_the_one_that_torchvision_makes(archives, tmp_path):
    from torchvision.datasets import imagenet

    theirs = tmp_path / "theirs"
    shutil.copytree(archives, theirs)
    imagenet.parse_devkit_archive(theirs)
    imagenet.parse_train_archive(theirs)
    imagenet.parse_val_archive(theirs)
    lines = repair_imagenet(archives)
    assert [line.text.split(" unpacked from ")[1][:22] for line in lines] == [
        "ILSVRC2012_img_train.t", "ILSVRC2012_img_val.tar",
    ]  # fmt: skip
    assert tree(archives) == tree(theirs) == WANTED
    assert repair_imagenet(archives)[0].text == "nothing to repair"
    data = open_data(archives, DatasetConfig())
    assert data.train.classes == SYNSETS
    assert (len(data.train), len(data.val)) == (9, 5)
    assert len(open_image_folders(archives, FolderConfig()).paths) == 14


def test_the_tool_takes_the_folder_once(archives, capsys):
    with pytest.raises(UsageError, match="both name a folder"):
        prepare_data.main(["imagenet", "--check", ".", "--repair", str(archives)])
    with pytest.raises(SystemExit):  # three classes
        prepare_data.main(["imagenet", "--check", str(archives), "--repair"])
    assert tree(archives) == WANTED
    said = capsys.readouterr().out
    assert f"ok    {archives / 'train'} unpacked from {unpack.TRAIN}, which can be removed" in said
    assert f"note  {archives / unpack.TRAIN} is there: --repair unpacks it where" in said


def killed(root: Path, at: int) -> bool:
    """Repair in a process that is killed before its change of number `at` to the disk."""
    if process := os.fork():
        status = os.waitpid(process, 0)[1]
        assert status in (0, signal.SIGKILL)
        return status != 0
    changes = 0

    def counted(change):
        def wrapped(*words, **options):
            nonlocal changes
            changes += 1
            if changes > at:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*words, **options)

        return wrapped

    for module, name in ((os, "replace"), (os, "rmdir"), (Path, "touch"), (Path, "write_bytes")):
        setattr(module, name, counted(getattr(module, name)))
    try:
        repair_imagenet(root)
    except BaseException:
        os._exit(1)
    os._exit(0)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("source", ["archives", "shards"])
def test_killed_anywhere_it_goes_on(source, request, tmp_path, monkeypatch):
    root, read = request.getfixturevalue(source), list[str]()
    content, rows = unpack._content, unpack.read_shard
    monkeypatch.setattr(unpack, "_content", lambda a, m: read.append(m.name) or content(a, m))
    monkeypatch.setattr(unpack, "read_shard", lambda path: read.append(path.stem) or rows(path))
    for at in (1, 4, 9, 14, 18, 22, 99):
        victim = tmp_path / f"victim{at}"
        shutil.copytree(root, victim)
        if not killed(victim, at):
            break
        done = {mark.name for mark in victim.glob(".*.unpacking/done/*")}
        for split in ("train", "val"):
            if (victim / split).exists():
                held = {k: v for k, v in tree(victim).items() if k.startswith(split)}
                assert held == {k: v for k, v in WANTED.items() if k.startswith(split)}, at
        read.clear()
        repair_imagenet(victim)
        assert tree(victim) == WANTED, at
        assert not [name for name in read if f"{name.split('_')[0]}.tar" in done or name in done]
        assert not list(victim.glob(".*.unpacking"))
    assert at == 99


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (
            unpack.TRAIN,
            lambda held: held[:-700],
            "train.tar has .* bytes, the published one .*cut short",
        ),
        (unpack.VAL, lambda held: held[:-700], "val.tar has .*cut short: go on with"),
        (unpack.VAL, lambda held: held + b"more", "val.tar has .*another: repeat"),
        (unpack.TRAIN, lambda held: held.replace(b"_7.", b"_8."), "its MD5 is .*Download it again"),
        (unpack.DEVKIT, lambda held: held + b"0", "devkit_t12.tar.gz .*its MD5 is"),
    ],
)
def test_archives_that_are_not_the_published_ones(name, change, said, archives):
    path = archives / name
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(UsageError, match=said):
        repair_imagenet(archives)
    assert tree(archives) == {}
    assert not list(archives.glob(".*.unpacking"))


def test_a_class_less_is_seen(archives, monkeypatch):
    """In archives whose hashes nobody knows: those of the classes, unpacked by hand."""
    (archives / "train").mkdir()
    with tarfile.open(archives / unpack.TRAIN) as outer:
        outer.extractall(archives / "train", filter="data")
    (archives / unpack.TRAIN).unlink()
    (archives / "train" / f"{SYNSETS[1]}.tar").unlink()
    repair_imagenet(archives)
    monkeypatch.setattr(check, "SIZES", {"ImageNet": (3, 9, 5)})
    texts = {line.text: line.state for line in check_imagenet(archives, 10)}
    assert (
        texts["2 classes in train, 3 expected"] == texts["6 images in train, 9 expected"] == "wrong"
    )
    assert texts[f"1 classes are in one of train and val only: {SYNSETS[1]}"] == "wrong"
    assert texts["5 images in val"] == "ok"


@pytest.mark.parametrize("kind", ["symlink", "link", "device", "above", "absolute", "hidden"])
def test_nothing_but_files_comes_out_of_an_archive(kind, archives, tmp_path, monkeypatch):
    names = {"above": "../../escaped", "absolute": str(tmp_path / "escaped"), "hidden": ".x.JPEG"}
    entry = tarfile.TarInfo(names.get(kind, "x.JPEG"))
    types = {"symlink": tarfile.SYMTYPE, "link": tarfile.LNKTYPE, "device": tarfile.CHRTYPE}
    entry.type, entry.linkname = types.get(kind, tarfile.REGTYPE), "/etc/passwd"
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.addfile(entry)
    tar({"n01440764.tar": content.getvalue()}, archives / unpack.TRAIN)
    publish(archives, monkeypatch)
    with pytest.raises(
        UsageError, match=f"cannot be unpacked: '{re.escape(entry.name)}' is no image"
    ):
        repair_imagenet(archives)
    if kind in types:  # by hand
        (archives / "train").mkdir()
        (archives / "train" / "n01440764.tar").write_bytes(content.getvalue())
        with pytest.raises(UsageError, match=r"'x\.JPEG' is a link or a device"):
            repair_imagenet(archives)
    assert not [name for name in tree(archives) if "x.JPEG" in name or "passwd" in name]
    assert not (tmp_path / "escaped").exists()


def test_a_full_disk(archives, monkeypatch):
    usage = shutil.disk_usage(archives)._replace(free=9)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage)
        with pytest.raises(UsageError, match=r"train cannot be written: No space left .* It needs "
                           r"[\d,]+ bytes; 9 are left on its disk\. Make room"):  # fmt: skip
            repair_imagenet(archives)
    assert tree(archives) == {}
    write, count = Path.write_bytes, 0

    def full(path, content):
        nonlocal count
        count += 1
        write(path, content[:50] if count > 4 else content)
        if count > 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UsageError, match="train cannot be written: No space left"):
            repair_imagenet(archives)
    held = tree(archives)
    assert not (archives / "train").exists()
    assert not [name for name in held if name.endswith(".tmp")]
    repair_imagenet(archives)
    assert tree(archives) == WANTED


def test_val_needs_its_labels(archives):
    (archives / unpack.DEVKIT).unlink()
    with pytest.raises(UsageError, match=r"devkit_t12\.tar\.gz: with that in .*--repair"):
        repair_imagenet(archives)
    assert tree(archives) == {}
    place, rows = [*imagenet_classes()].index, zip(VAL_NAMES, VAL, strict=True)
    (archives / "val.txt").write_text("".join(f"{name} {place(s)}\n" for name, s in rows))
    (archives / unpack.TRAIN).unlink()  # val alone, as evaluation needs it
    (archives / "val").mkdir()  # an empty folder is none
    repair_imagenet(archives)
    assert tree(archives) == {k: v for k, v in WANTED.items() if k.startswith("val")}


# ---- parquet


def write_shard(path: Path, rows: list[tuple[str | None, bytes, int]], names=None) -> None:
    """As datasets writes it."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    image = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    images = [{"bytes": content, "path": name} for name, content, _ in rows]
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    schema = pa.schema({"image": image, "label": pa.int64()})
    if names is not None:
        about = {"huggingface": json.dumps({"info": {"features": features}})}
        schema = schema.with_metadata(about)
    labels = [label for _, _, label in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": pa.array(images, image), "label": labels}, schema)
    parquet.write_table(table, path, row_group_size=2)


def labelled(named: bool = True) -> dict[str, list[tuple[str | None, bytes, int]]]:
    """Rows of train and val as Hugging Face's ImageNet has them."""
    place = [*imagenet_classes()].index
    rows = {
        "train": [(s, name) for s, names in TRAIN_NAMES.items() for name in names][::-1],
        "validation": [*zip(VAL, VAL_NAMES, strict=True)],
    }
    return {
        split: [
            (name.replace(".JPEG", f"_{s}.JPEG") if named else None, picture(name), place(s))
            for s, name in pairs
        ]
        for split, pairs in rows.items()
    }


def words() -> list[str]:
    return [*imagenet_classes().values()]


@pytest.fixture
def shards(tmp_path) -> Path:
    root, rows = tmp_path / "parquet", labelled()
    for number in range(3):
        part = rows["train"][number::3]
        write_shard(root / f"data/train-{number:05d}-of-00003.parquet", part, words())
    write_shard(root / "data/validation-00000-of-00001.parquet", rows["validation"], words())
    unlabelled = [("ILSVRC2012_test_00000001.JPEG", picture("t"), -1)]
    write_shard(root / "data/test-00000-of-00001.parquet", unlabelled, words())
    return root


def test_parquet_gives_the_tree_of_the_archives(shards):
    assert [line.state for line in repair_imagenet(shards)] == ["ok", "ok"]
    assert tree(shards) == WANTED
    data = open_data(shards, DatasetConfig())
    assert data.train.classes == SYNSETS


def test_parquet_of_resized_copies_has_no_names(tmp_path):
    """The hub's own conversion, without a count in the names."""
    rows = labelled(named=False)
    write_shard(tmp_path / "default/train/0000.parquet", rows["train"][:4], None)
    write_shard(tmp_path / "default/train/0001.parquet", rows["train"][4:], None)
    write_shard(tmp_path / "default/validation/0000.parquet", rows["validation"], None)
    repair_imagenet(tmp_path)
    by_class = {}
    for name, content in tree(tmp_path).items():
        by_class.setdefault(name.rpartition("/")[0], set()).add(content)
    wanted = {}
    for name, content in WANTED.items():
        wanted.setdefault(name.rpartition("/")[0], set()).add(content)
    assert by_class == wanted


def test_parquet_of_other_classes(tmp_path):
    """Their order is kept, whatever they are called; synsets are folders as they stand."""
    rows = [(None, picture(str(n)), n) for n in range(3)]
    write_shard(tmp_path / "a/train.parquet", rows, ["../up", "crane", "crane"])
    write_shard(tmp_path / "a/test.parquet", rows, ["../up", "crane", "crane"])
    repair_imagenet(tmp_path / "a")
    data = open_data(tmp_path / "a", DatasetConfig())
    assert data.train.classes == data.val.classes == ("0000__up", "0001_crane", "0002_crane")
    write_shard(tmp_path / "b/train.parquet", rows, [*SYNSETS[::-1]])
    repair_imagenet(tmp_path / "b")
    assert (tmp_path / "b/train" / SYNSETS[2] / "train_000000.jpg").read_bytes() == rows[0][1]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (Path.unlink, r"has 2 files like .*, whose names count 3; missing: 00000\. Download"),
        (cut, "train-00000-of-00003.parquet cannot be read: .*Download it again"),
        (lambda path: write_shard(path, [(None, b"x", 1000)]), "label is 1000, .*below 1000"),
        (lambda path: write_shard(path, [(None, None, 1)]), "its image NoneType"),
        (lambda path: write_shard(path, [("n01440764_1.JPEG", b"x", 1)]), "no known order"),
        (lambda path: shutil.copytree(path.parent, path.parents[1] / "b"), "/b, .*/data hold"),
    ],
)  # fmt: skip
def test_parquet_that_cannot_be_used(spoil, said, shards):
    spoil(shards / "data/train-00000-of-00003.parquet")
    with pytest.raises(UsageError, match=said):
        repair_imagenet(shards)
    assert not (shards / "train").exists()


# ---- Tiny ImageNet


@pytest.fixture
def tiny(tmp_path) -> Path:
    """As it is unpacked."""
    root = tmp_path / "tiny-imagenet-200"
    for synset, names in TRAIN_NAMES.items():
        (root / "train" / synset / "images").mkdir(parents=True)
        (root / "train" / synset / f"{synset}_boxes.txt").write_text("")
        for name in names:
            (root / "train" / synset / "images" / name).write_bytes(picture(name))
    for split in ("val", "test"):
        (root / split / "images").mkdir(parents=True)
        for number in range(5):
            path = root / split / "images" / f"{split}_{number}.JPEG"
            path.write_bytes(picture(path.name))
    rows = [f"val_{n}.JPEG\t{synset}\t0\t1\t5\t6\n" for n, synset in enumerate(VAL)]
    (root / "val" / "val_annotations.txt").write_text("".join(reversed(rows)))
    (root / "wnids.txt").write_text("\n".join(SYNSETS))
    return root


def test_tiny_imagenet_is_read_as_it_is(tiny, monkeypatch):
    wanted = dict(zip((f"val_{n}.JPEG" for n in range(5)), VAL, strict=True))
    data = open_data(tiny, DatasetConfig())
    assert data.train.classes == data.val.classes == SYNSETS
    found = {data.val.path(n).name: SYNSETS[label] for n, label in enumerate(data.val.labels)}
    assert found == wanted
    assert data.val.annotations == (tiny / "val/val_annotations.txt",)
    folders = open_image_folders(tiny, FolderConfig())
    assert folders.scored_name == "val"
    scored = {folders.paths[n].name: SYNSETS[folders.labels[n]] for n in folders.scored}
    assert scored == wanted
    assert folders.annotations == data.val.annotations
    assert f"{tiny / 'test'} is left out: its images have no labels" in folders.notes
    monkeypatch.setattr(check, "SIZES", {"Tiny ImageNet": (3, 9, 5)})
    assert not [line for line in check_imagenet(tiny, 20) if line.state == "wrong"]
    (tiny / "val/images/new.JPEG").write_bytes(picture("new"))
    with pytest.raises(UsageError, match=r"val_annotations\.txt names no class of .*new\.JPEG"):
        open_data(tiny, DatasetConfig())


# ---- other trees


def pack_zip(source: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for file in source.rglob("*"):
            archive.write(file, file.relative_to(source.parent))


def kaggle(root: Path, source: Path) -> None:
    """The tree of Kaggle's archive."""
    inner = root / "ILSVRC/Data/CLS-LOC"
    shutil.copytree(source / "train", inner / "train")
    (inner / "val").mkdir()
    lines = ["ImageId,PredictionString"]
    for synset, name in zip(VAL, VAL_NAMES, strict=True):
        (inner / "val" / name).write_bytes(picture(name))
        lines.append(f"{name.removesuffix('.JPEG')},{synset} 1 2 3 4")
    (root / "LOC_val_solution.csv").write_text("\n".join(lines))


@pytest.mark.parametrize(
    "tree", ["archives", "classes", "shards", "zip", "tar", "nested", "kaggle"]
)
def test_the_message_for_another_tree_says_what_helps(tree, request, tiny, tmp_path):
    """Doing what each message says ends in a data set."""
    root = tmp_path / "some data"
    if tree in ("archives", "shards"):
        shutil.copytree(request.getfixturevalue(tree), root)
    elif tree == "classes":
        shutil.copytree(request.getfixturevalue("archives"), root)
        with tarfile.open(root / unpack.TRAIN) as outer:
            outer.extractall(root / "train", filter="data")
        (root / unpack.TRAIN).unlink()
    else:
        root.mkdir()
        if tree == "zip":
            pack_zip(tiny, root / "tiny-imagenet-200.zip")
        elif tree == "tar":
            with tarfile.open(root / "tiny.tar.gz", "w:gz") as archive:
                archive.add(tiny, "tiny-imagenet-200")
        elif tree == "nested":
            shutil.copytree(tiny, root / "deep" / tiny.name)
        else:
            kaggle(root, tiny)
    for reader in (open_image_folders, open_data):
        options, place = FolderConfig() if reader is open_image_folders else DatasetConfig(), root
        for _ in range(4):
            try:
                data = reader(place, options)
                break
            except UsageError as error:
                text = str(error)
            for command in re.findall("`(.*?)`", text):
                if "prepare_data.py" in command:
                    with pytest.raises(SystemExit):  # incomplete: three classes
                        prepare_data.main(shlex.split(command)[2:])
                else:
                    subprocess.run(command, shell=True, check=True)
            if named := re.search(r"name ('.*?'|\S+) instead of", text):
                place = Path(shlex.split(named[1])[0])
        assert (data.train.classes if reader is open_data else data.classes) == SYNSETS
