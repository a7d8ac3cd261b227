"""Shards: what is read is what was packed, or an error that says what to do; tars of others."""

import io
import json
import os
import pickle
import re
import shutil
import signal
import tarfile
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from pretrain.cache import hash_content
from pretrain.config import DatasetConfig
from pretrain.data import open_data
from pretrain.errors import UsageError
from pretrain.shards import (
    Member,
    ShardedImage,
    ShardIndex,
    ShardReader,
    WindowOrder,
    find_store,
)
from pretrain.shards.index import Shard, save_columns, write_index


def png(number: int, size: int = 16) -> bytes:
    """A picture of one colour, which says its number however it is cropped."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), (number // 256, number % 256, 77)).save(file, "PNG")
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes], kind: int = tarfile.USTAR_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def make_split(
    root: Path, split: str, samples: list[tuple[str, bytes, int]], per_shard: int
) -> None:
    """Shards and their index; where members lie is found by tarfile."""
    shards, members = [], []
    for start in range(0, len(samples), per_shard):
        part = samples[start : start + per_shard]
        path = root / f"{split}-{len(shards):06d}.tar"
        content = {}
        for name, image, label in part:
            key, _, ending = name.rpartition(".")
            content |= {f"{key}.{ending}": image, f"{key}.cls": str(label).encode()}
        write_tar(path, content)
        with tarfile.open(path) as tar:
            for name, image, _ in part:
                info = tar.getmember(name)
                checksum = zlib.crc32(image)
                members.append(Member(len(shards), info.offset_data, info.size, checksum))
        shards.append(Shard(path.name, len(part), path.stat().st_size))
    names, _, labels = zip(*samples, strict=True)
    write_index(
        root / f"{split}.index", shards, names, members, classes=["a", "b", "c"], labels=labels
    )


def make_store(root: Path, train: int = 60, val: int = 10, per_shard: int = 7) -> Path:
    """Picture n has the colour n and the class n modulo 3; those of val go on counting."""
    for split, numbers in (("train", range(train)), ("val", range(train, train + val))):
        samples = [(f"{'abc'[n % 3]}/{n:04d}.png", png(n), n % 3) for n in numbers]
        make_split(root, split, samples, per_shard)
    return root


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    return make_store(tmp_path_factory.mktemp("packed") / "store")


@pytest.fixture
def store(packed, tmp_path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(packed, tmp_path / "store")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def train_of(root: Path) -> ShardReader:
    return find_store(root).splits["train"]


# ---- reading


def test_what_is_read_is_what_tarfile_reads(packed):
    reader = train_of(packed)
    wanted = {}
    for path in packed.glob("train-*.tar"):
        with tarfile.open(path) as tar:
            wanted |= {one.name: tar.extractfile(one).read() for one in tar if "png" in one.name}
    numbers = np.random.default_rng(0).permutation(len(reader.index))
    for number, content in zip(numbers, reader.read_many(numbers), strict=True):
        image = ShardedImage(reader, int(number))
        assert content == image.read_bytes() == wanted.pop(image.path)
        assert "abc"[reader.index.labels[number]] == image.path[0]
    assert not wanted


def test_a_byte_that_changed_is_named_and_its_neighbours_are_read(store):
    path, reader = store / "train-000001.tar", train_of(store)
    content = bytearray(path.read_bytes())
    with tarfile.open(path) as tar:
        info = tar.getmember("b/0010.png")
    content[info.offset_data + info.size // 2] ^= 1
    path.write_bytes(content)
    found = reader.read_many(range(7, 14))
    assert [isinstance(one, bytes) for one in found] == [True] * 3 + [False] + [True] * 3
    assert "b/0010.png" in str(found[3])
    assert "train-000001.tar is not what was packed: crc32 " in str(found[3])
    with pytest.raises(UsageError, match=r"pack.py --verify DIR"):
        reader.read(10)


def test_a_shard_that_is_cut_replaced_or_missing_is_named(store):
    path, reader = store / "train-000002.tar", train_of(store)
    os.truncate(path, path.stat().st_size - 10240)
    with pytest.raises(UsageError, match=r"train-000002.tar has [\d,]+ bytes, in its index [\d,]+"):
        reader.read(14)
    path.unlink()
    with pytest.raises(UsageError, match=r"there is no shard .*train-000002.tar, which train.inde"):
        reader.read(14)
    path.mkdir()
    with pytest.raises(UsageError, match=r"there is no shard .*train-000002.tar"):
        reader.read(14)
    assert reader.read(0)  # the others are read


def test_a_shard_that_is_cut_while_it_is_open(store):
    path, reader = store / "train-000000.tar", train_of(store)
    reader.read(0)
    os.truncate(path, 1024)
    with pytest.raises(UsageError, match=r"a/0006.png .* of 0 bytes, in its index"):
        reader.read(6)


def test_few_shards_are_open_and_all_are_closed(tmp_path):
    make_split(tmp_path, "train", [(f"a/{n}.png", b"%d" % n, 0) for n in range(150)], 1)
    reader = train_of(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        assert reader.read_many(range(150)) == [b"%d" % n for n in range(150)]
    assert 100 < len(os.listdir("/proc/self/fd")) - before <= 128
    del reader
    assert len(os.listdir("/proc/self/fd")) == before - 1  # the index is closed as well


def test_a_process_that_is_spawned_maps_the_index_itself(packed):
    data = open_data(packed, DatasetConfig()).train
    data.read(0)  # with a shard that is open
    text = pickle.dumps(data)
    assert len(text) < 1500
    there = pickle.loads(text)
    assert there.read(5).flatten(1)[:, 0].tolist() == [0, 5, 77]
    assert isinstance(there.labels, np.memmap)
    assert not there.labels.flags.owndata


def test_labels_and_names_are_mapped_and_places_are_not(packed):
    index = train_of(packed).index
    lines = Path("/proc/self/maps").read_text().splitlines()
    (line,) = [one for one in lines if str(index.path) in one]
    begin, end = (int(number, 16) for number in line.split()[0].split("-"))
    for column in index.columns.values():
        assert begin <= column.__array_interface__["data"][0] < end
    rows = index.rows(1)
    assert rows.shape == (7, 3)
    assert not begin <= rows.__array_interface__["data"][0] < end


# ---- the index


def test_names_of_any_bytes_come_back(tmp_path):
    names = ["a/\u00e9.png", os.fsdecode(b"a/\xe9.png"), "a/b\nc.png", "a/" + "x" * 300 + ".png"]
    make_split(tmp_path, "train", [(name, b"1", 0) for name in names[:1]], 1)
    path = tmp_path / "names.index"
    members = [Member(0, 512 * (n + 1), 5, n) for n in range(4)]
    write_index(path, [Shard("x.tar", 4, 10**4)], names, members)
    index = ShardIndex.open(path)
    assert [index.name(n) for n in range(4)] == names
    assert index.rows(0).tolist() == [[n + 1, 5, n] for n in range(4)]
    before = path.read_bytes()
    write_index(path, [Shard("x.tar", 4, 10**4)], names, members)
    assert path.read_bytes() == before


@pytest.mark.parametrize("member", [Member(0, 512, 2**32, 1), Member(0, 2**41, 5, 1)])
def test_what_does_not_fit_into_an_index_is_refused(tmp_path, member):
    with pytest.raises(UsageError, match=r"a/1.png has [\d,]+ bytes and begins at byte [\d,]+"):
        write_index(tmp_path / "train.index", [Shard("x.tar", 1, 2**42)], ["a/1.png"], [member])
    assert not (tmp_path / "train.index").exists()


def rewrite(path: Path, columns: dict = {}, head: dict = {}, without: str = "") -> None:  # noqa: B006
    """An index with other columns, or another head."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        before = json.loads(file.metadata()["index"])
    table = {name: one for name, one in (load_file(path) | columns).items() if name != without}
    save_file(table, path, {"index": json.dumps(before | head)})


FAULTS = {
    "crc32 has 59 rows": {"columns": {"crc32": np.zeros(59, np.uint32)}},
    "size is I32": {"columns": {"size": np.zeros(60, np.int32)}},
    "name_end is uint32 (60, 1)": {"columns": {"name_end": np.zeros((60, 1), np.uint32)}},
    "label is F32": {"columns": {"label": np.zeros(60, np.float32)}},
    "it lacks offset": {"without": "offset"},
    "it lacks label": {"without": "label"},
    "its shard ../x.tar lies elsewhere": {
        "head": {"shards": [{"file": "../x.tar", "samples": 60, "bytes": 9}]}
    },
    "its shard /x.tar lies elsewhere": {
        "head": {"shards": [{"file": "/x.tar", "samples": 60, "bytes": 9}]}
    },
    "its metadata: shards: ": {"head": {"shards": []}},
    "its metadata: format: ": {"head": {"format": "shards/2"}},
    "shards[0].samples: ": {"head": {"shards": [{"file": "x.tar", "samples": 0, "bytes": 9}]}},
}


@pytest.mark.parametrize("problem", FAULTS)
def test_an_index_that_does_not_fit_its_shards_is_refused(store, problem):
    rewrite(store / "train.index", **FAULTS[problem])
    with pytest.raises(UsageError) as caught:
        find_store(store)
    assert problem in str(caught.value)
    assert "train.index is no index of shards" in str(caught.value)
    assert "Fetch it again; `python tools/pack.py --index DIR`" in str(caught.value)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [("offset", 10**6, r"c/0011.png ends at byte 512,000,\d+ of train-000001.tar, which has"),
     ("size", 10**6, r"c/0011.png ends at byte 1,0\d\d,\d+ of train-000001.tar, which has"),
     ("label", 3, "it has class 3 of 3")],
)  # fmt: skip
def test_a_row_that_leads_outside_is_refused(store, column, value, problem):
    values = load_file(store / "train.index")[column]
    values[11] = value
    rewrite(store / "train.index", {column: values})
    reader = train_of(store)
    assert reader.read(0)
    with pytest.raises(UsageError, match=problem):
        reader.read(7)


def test_an_index_that_is_none_is_refused(store, full):
    """Cut anywhere, or with a changed byte, it is refused or reads what it can."""
    path = store / "train.index"
    content, draw = path.read_bytes(), np.random.default_rng(1)
    broken = [b"", b"x", b"\0" * 100, content[:-1], content + b"x", content[:40]]
    for place in draw.integers(0, len(content), 2000 if full else 60).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(draw.integers(8))
        broken.append(bytes(changed))
    refused = 0
    for one in broken:
        path.write_bytes(one)
        try:
            reader = train_of(store)
            refused += any(isinstance(one, UsageError) for one in reader.read_many(range(60)))
            assert len([reader.index.name(n) for n in range(60)]) == 60
        except UsageError:
            refused += 1
    assert refused > len(broken) / 3


def sign(store: Path) -> None:
    """What tools/pack.py says of the indexes."""
    splits = {}
    for split in ("train", "val"):
        with open(store / f"{split}.index", "rb", buffering=0) as file:
            entry = {"file": f"{split}.index", "blake2b": hash_content(file)}
        splits[split] = {"name": split, "num_samples": 1, "filenames": [], "index": entry}
    (store / "_info.json").write_text(json.dumps({"splits": splits}))


def test_a_label_that_was_changed_in_the_index_is_noticed(store):
    sign(store)
    assert len(train_of(store).index) == 60
    labels = load_file(store / "train.index")["label"]
    labels[5] ^= 1
    rewrite(store / "train.index", {"label": labels})
    with pytest.raises(UsageError, match=r"train.index is not what was packed with .*_info.json"):
        find_store(store)
    (store / "train.index").unlink()
    with pytest.raises(UsageError, match=r"train.index is missing"):
        find_store(store)
    (store / "_info.json").write_text("{")
    with pytest.raises(UsageError, match=r"_info.json: cannot be read as JSON"):
        find_store(store)


def test_a_store_that_is_not_packed_to_its_end_is_refused(store):
    (store / ".pack").mkdir()
    with pytest.raises(UsageError, match=r"are not all packed\. Give the command .* again"):
        find_store(store)
    sign(store)
    assert len(train_of(store).index) == 60


# ---- as data


def test_a_copy_elsewhere_is_the_same_data_and_another_store_is_not(store, packed, tmp_path):
    def digest(root: Path) -> str:
        return find_store(root).digest_files().digest["digest"]

    assert digest(store) == digest(packed)
    assert digest(make_store(tmp_path / "other", train=59)) != digest(packed)


def test_splits_of_a_store_are_those_of_the_folder_that_was_packed(packed):
    data = open_data(packed, DatasetConfig())
    assert (len(data.train), len(data.val)) == (60, 10)
    assert data.train.classes == data.val.classes == ("a", "b", "c")
    assert data.train.labels.tolist() == [n % 3 for n in range(60)]
    assert not data.notes
    assert data.train.read(8).tolist()[1] == [[8] * 16] * 16
    batch = data.train.ready([3, 9, 4])
    assert [batch.read(n)[1, 0, 0].item() for n in (9, 3, 4)] == [9, 3, 4]


def test_a_split_that_is_not_there_is_named(store):
    (store / "val.index").unlink()
    with pytest.raises(UsageError, match=r"has no shards of val \(it has train\)"):
        open_data(store, DatasetConfig())


# ---- tars of others


def make_tars(root: Path, names: dict[str, list[dict[str, bytes]]]) -> Path:
    for name, members in names.items():
        write_tar(root / name, {key: content for one in members for key, content in one.items()})
    return root


def sample(number: int, label: bytes | None = None, **more: bytes) -> dict[str, bytes]:
    key = f"{number:06d}"
    classes = {} if label is None else {f"{key}.cls": label}
    texts = {f"{key}.{ending}": content for ending, content in more.items()}
    return {f"{key}.png": png(number), **classes, **texts}


def numbered(first: int, count: int, labels: tuple[bytes, ...]) -> list[dict[str, bytes]]:
    return [sample(n, labels[n % len(labels)]) for n in range(first, first + count)]


NAMES = [
    ("train/00000.tar", "train/00001.tar", "val/00000.tar"),
    ("imagenet-train-000000.tar", "imagenet-train-000001.tar", "imagenet-validation-000000.tar"),
    ("data/train-0001.tar", "data/train-0002.tar", "data/val-0001.tar"),
    ("x-train-00000-of-00002.tar", "x-train-00001-of-00002.tar", "x-val-00000-of-00001.tar"),
    ("train/a-0.tar", "train/a-1.tar", "test/a-0.tar"),
]


@pytest.mark.parametrize("names", NAMES, ids=lambda names: names[0])
def test_tars_without_an_index_are_read_as_they_are_named(tmp_path, names):
    labels = b"2", b"0", b"10"
    parts = [numbered(0, 5, labels), numbered(5, 4, labels), numbered(9, 3, labels)]
    root = make_tars(tmp_path / "data", dict(zip(names, parts, strict=True)))
    (root / "VOCtrainval_11-May-2012.tar").write_bytes(b"an archive that is no shard")
    data = open_data(root, DatasetConfig())
    assert (len(data.train), len(data.val)) == (9, 3)
    assert data.train.classes == data.val.classes == ("0", "2", "10")
    assert [data.train.classes[n] for n in data.train.labels] == ["2", "0", "10"] * 3
    for split, first in ((data.train, 0), (data.val, 9)):
        assert [split.read(n)[1, 0, 0].item() for n in range(3)] == [*range(first, first + 3)]
    stem = Path(names[1]).stem
    assert str(ShardedImage(data.train.reader, 5)).endswith(f"train/{stem}/000005.png")
    assert not data.notes


def test_classes_are_words_or_have_names(tmp_path):
    root = make_tars(tmp_path, {"train-0.tar": numbered(0, 4, (b"cat\n", b"ant"))})
    assert train_of(root).index.classes == ("ant", "cat")
    assert train_of(root).index.labels.tolist() == [1, 0, 1, 0]
    make_tars(root, {"train-0.tar": numbered(0, 4, (b"2", b"0", b"1"))})
    assert train_of(root).index.classes == ("0", "1", "2")
    (root / "classes.txt").write_text("dog\nant\ncow\n")
    assert train_of(root).index.classes == ("dog", "ant", "cow")
    assert train_of(root).index.labels.tolist() == [2, 0, 1, 2]
    for text in ("dog\nant\n", "dog\nant\ndog\n"):
        (root / "classes.txt").write_text(text)
        with pytest.raises(UsageError, match=r"classes.txt must name classes 0 to 2, a line each"):
            find_store(root)


def test_captions_are_texts_and_what_is_left_out_is_noted(tmp_path):
    texts = [sample(n, txt=b"a ship %d" % n, json=b"{}") for n in range(3)]
    root = make_tars(tmp_path / "a", {"train-0.tar": texts})
    reader = train_of(root)
    assert (reader.index.text, reader.index.has_texts, reader.index.classes) == ("txt", True, ())
    assert reader.read(2, text=True) == b"a ship 2"
    assert reader.read(2) == png(2)
    assert find_store(root).notes == (
        f"{root}: 3 members .json of the shards of train are left out",
    )
    root = make_tars(tmp_path / "b", {"train-0.tar": [sample(n, json=b"[%d]" % n) for n in (0, 1)]})
    assert train_of(root).index.text == "json"
    assert train_of(root).read(1, text=True) == b"[1]"


FAULTY = {
    r"the sample 000001 in the shard .*train-0.tar has no images \(its members are .cls\)":
        [sample(0, b"0"), {"000001.cls": b"0"}],
    r"000001 in .* has 2 images \(its members are .png, .cls, .jpg\)":
        [sample(0, b"0"), sample(1, b"0", jpg=b"x")],
    r"000001 in .* has no .cls \(its members are .png\), which others of that shard have":
        [sample(0, b"0"), sample(1)],
    r"000001 in .* has no .txt": [sample(0, txt=b"x"), sample(1, json=b"x")],
    r"000000 in .* has the class ''": [sample(0, b" ")],
    r"000000 in .* has the class '.*udcff'; expected": [sample(0, b"\xff")],
    r"000000 in .* has the class '11111": [sample(0, b"1" * 5000)],
    r"train-0.tar holds two samples 000000.png":
        [sample(0, b"0"), sample(1, b"0"), sample(0, b"0")],
    r"train-0.tar holds no samples": [{".hidden.png": b"x"}],
}  # fmt: skip


@pytest.mark.parametrize("message", FAULTY)
def test_a_sample_that_cannot_be_used_is_named(tmp_path, message):
    make_tars(tmp_path, {"train-1.tar": [sample(7, b"0")]})
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:  # of any names, twice or not
        for one in FAULTY[message]:
            for name, content in one.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with pytest.raises(UsageError, match=message):
        find_store(tmp_path)


def test_members_are_grouped_as_webdataset_does(tmp_path):
    wds = pytest.importorskip("webdataset")
    draw, members = np.random.default_rng(3), dict[str, bytes]()
    folders = ["", "a/", "a.b/", "./", "a b/c.d/", "x/__y__/", "\u00e9/"]
    for number in range(80):
        key = f"{folders[draw.integers(7)]}{number}{draw.choice(['', 'A', ' b', '_', '-é', '%2E'])}"
        image = key + draw.choice([".png", ".PNG", ".x.png", ".JPG", ".jpeg", ".seg.webp"])
        others = {image: b"image %d" % number, f"{key}.cls": b"%d" % (number % 5)}
        others |= {f"{key}.Json": b"{}"} if number % 3 else {}
        members |= {name: others[name] for name in draw.permutation(list(others)).tolist()}
    members |= {"__meta__/x.png": b"2", "without": b"3", ".x.png": b"4", "__info__": b"5"}
    write_tar(tmp_path / "train-0.tar", members, tarfile.PAX_FORMAT)
    read = {
        one["__key__"]: (next(one[key] for key in one if key[-1] in "gp"), one["cls"])
        for one in wds.WebDataset(str(tmp_path / "train-0.tar"), shardshuffle=False)
    }
    reader = train_of(tmp_path)
    found = {}
    for number in range(len(reader.index)):
        name = reader.index.name(number).removeprefix("train-0/")
        key = name.removesuffix(re.search(r"\.[^/]*$", name)[0])
        label = reader.index.classes[reader.index.labels[number]].encode()
        found[key] = reader.read(number), label
    assert found == read
    assert len(found) == 80
    assert dict(reader.index.left_out) == {".json": 53, "hidden or without ending": 4}


SETS = {
    r"numbered 0 to 3; missing: 1, 2\. Fetch": ["train-0.tar", "train-3.tar"],
    r"numbered 0 to 4; missing: 2, 3, 4": ["train-0-of-5.tar", "train-1-of-5.tar"],
    r"several sets of shards are named train: .*/a-train-... \(1\), .*/b-train-... \(1\)":
        ["a-train-0.tar", "b-train-0.tar"],
    r"several sets of shards are named val": ["train-0.tar", "val/0.tar", "validation/0.tar"],
    r"holds shards that name no split: 00000.tar, 00001.tar. Move": ["00000.tar", "00001.tar"],
    r"compressed shards .*train-0.tar.gz. Unpack them: gunzip": ["train-0.tar.gz"],
    r"the shards of train have no sample of the classes 9": ["train-0.tar", "val-0.tar"],
    r"shards of train differ in having classes: ": ["train-0.tar", "train-1.tar"],
}  # fmt: skip


@pytest.mark.parametrize("message", SETS)
def test_sets_that_are_unclear_or_incomplete_are_refused(tmp_path, message):
    names = SETS[message]
    labels = {"val-0.tar": b"9", "train-1.tar": None}
    make_tars(tmp_path, {name: [sample(0, labels.get(name, b"0"))] for name in names})
    with pytest.raises(UsageError, match=message):
        find_store(tmp_path)


def test_archives_beside_what_they_held_are_no_shards(tmp_path):
    """As where a set came in parts: the folders are read, as ever."""
    split, bare = tmp_path / "split", tmp_path / "bare"
    for folder in (split / "train", split / "val", bare):
        for name in "ab":
            (folder / name).mkdir(parents=True)
            (folder / name / "0.png").write_bytes(png(0))
    make_tars(split, {f"train_{n}.tar": [sample(n)] for n in range(2)})
    make_tars(bare, {f"images_{n}.tar": [sample(n)] for n in range(2)})
    for root in (split, bare):
        assert find_store(root) is None
    assert len(open_data(split, DatasetConfig()).train) == 2
    shutil.rmtree(split / "val")  # val in shards alone, train in a folder: neither is the set
    make_tars(split, {"val_0.tar": [sample(0)]})
    with pytest.raises(UsageError, match="shards of val and, beside shards of train, a folder"):
        find_store(split)


def test_a_tar_that_is_cut_or_damaged_anywhere_is_named(tmp_path):
    path = tmp_path / "train-0.tar"
    make_tars(tmp_path, {path.name: numbered(0, 6, (b"0", b"1"))})
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        heads = [one.offset for one in tar]
    cuts = [content[:end] for head in heads[1:] for end in (head, head + 100, head + 600)]
    cuts += [content[:20], b""]
    damaged = []
    for head in heads:
        changed = bytearray(content)
        changed[head + 3] ^= 1
        damaged.append(bytes(changed))
    for one in (*cuts, *damaged, content + b"more"):
        path.write_bytes(one)
        with pytest.raises(
            UsageError, match=r"train-0.tar is cut or no tar \(.*\). Fetch it again"
        ):
            find_store(tmp_path)
    path.write_bytes(content)
    assert len(train_of(tmp_path).index) == 6


def test_links_are_refused(tmp_path):
    with tarfile.open(tmp_path / "train-0.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.SYMTYPE, "b.png"
        tar.addfile(info)
    with pytest.raises(UsageError, match=r"holds a.png as a link or a sparse file"):
        find_store(tmp_path)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_long_names_are_read(tmp_path, kind):
    name = "photos/" + "long" * 60 + "/\u00e9"
    write_tar(tmp_path / "train-0.tar", {f"{name}.PNG": png(3), f"{name}.cls": b"0"}, kind)
    reader = train_of(tmp_path)
    assert reader.index.name(0) == f"train-0/{name}.PNG"
    assert reader.read(0) == png(3)


def test_a_scan_goes_on_where_it_stood_and_is_made_anew_of_what_changed(
    tmp_path, cache, monkeypatch
):
    tars = {f"train-{n}.tar": numbered(4 * n, 4, (b"0", b"1")) for n in range(4)}
    root = make_tars(tmp_path / "data", tars)
    read = tmp_path / "read"
    real = tarfile.open

    def noted(*args, **options):  # in any process
        with open(read, "a") as file:
            file.write(Path(options["fileobj"].name).name + "\n")
        return real(*args, **options)

    def scanned() -> list[str]:
        """The tars that were read since."""
        try:
            return sorted(read.read_text().split())
        finally:
            read.unlink()

    content = (root / "train-2.tar").read_bytes()
    (root / "train-2.tar").write_bytes(content[:700])
    monkeypatch.setattr("pretrain.shards.scan.tarfile.open", noted)
    with pytest.raises(UsageError, match=r"train-2.tar is cut"):
        find_store(root)
    done = len(list((root / ".index" / "parts").glob("*.index")))
    assert done >= 2
    scanned()
    (root / "train-2.tar").write_bytes(content)
    first = find_store(root)
    assert len(scanned()) == 4 - done
    assert len(first.splits["train"].index) == 16
    assert not (root / ".index" / "parts").exists()
    before = first.index_files[0].read_bytes()
    assert find_store(root).index_files == first.index_files
    assert not read.exists()
    os.utime(root / "train-1.tar", (1, 1))
    second = find_store(root)
    assert scanned() == [f"train-{n}.tar" for n in range(4)]
    assert second.index_files != first.index_files
    assert second.index_files[0].read_bytes() == before  # so the digest of the data is the same
    assert not first.index_files[0].exists()
    assert not cache.joinpath("cutmix-transfer", "indexes").exists()
    monkeypatch.setattr("os.access", lambda *_: False)
    os.utime(root / "train-1.tar", (2, 2))
    third = find_store(root)
    assert third.index_files[0].is_relative_to(cache)
    assert third.splits["train"].read(9) == png(9)
    assert third.digest_files().digest == second.digest_files().digest


# ---- many samples


def test_an_index_of_15_million_samples_costs_a_machine_little(tmp_path, full):
    """Memory of a process and four forks that read random rows; what an epoch's order takes."""
    if not full:
        pytest.skip("an index of 800 MB; that columns are mapped is tested above; runs with --full")
    shards, rows = 15_000, 1000
    count = shards * rows
    places = np.full(count, 4, np.uint32)
    columns = {
        "offset": np.tile(np.arange(rows, dtype=np.uint32) * 16, shards),
        "size": places * 1000,
        "crc32": places,
        "label": np.arange(count, dtype=np.uint32).astype(np.uint16) % 10_000,
        "name_end": np.arange(1, count + 1, dtype=np.uint32) * 20,
        "names": np.full(count * 20, 65, np.uint8),
    }
    path = tmp_path / "train.index"
    of_each = [Shard(f"train-{number:06d}.tar", rows, rows * 8192) for number in range(shards)]
    save_columns(path, of_each, columns, [f"n{number:08d}" for number in range(10_000)], "json", {})
    del columns, places

    def work(index: ShardIndex, seed: int) -> None:
        draw = np.random.default_rng(seed)
        for _ in range(20):
            chosen = draw.integers(0, count, 256)
            assert index.labels[chosen].max() < 10_000
            for shard in np.searchsorted(index.starts, chosen, side="right") - 1:
                index.rows(int(shard))

    def forks(index: ShardIndex | None) -> float:
        """MiB of this process and of four forks."""
        pipes, processes = [os.pipe() for _ in range(4)], []
        for seed, (_, done) in enumerate(pipes):
            if (process := os.fork()) == 0:
                if index is not None:
                    work(index, seed)
                os.write(done, b"x")
                time.sleep(1000)
            processes.append(process)
        assert all(os.read(done, 1) for done, _ in pipes)
        texts = [Path(f"/proc/{n}/smaps_rollup").read_text() for n in (os.getpid(), *processes)]
        for process in processes:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
        return sum(int(re.search(r"Pss: +(\d+)", text)[1]) for text in texts) / 1024

    before = forks(None)
    index = ShardIndex.open(path)
    assert forks(index) - before < 100  # 30 of them the labels
    started = time.process_time()
    order = WindowOrder(index.starts, 32, seed=0)(0)
    assert len({*order[:256].tolist()}) == 256
    assert time.process_time() - started < 0.5
    seen = np.zeros(count, bool)
    for start in range(0, count, 1 << 16):
        seen[order[start : start + (1 << 16)]] = True
    assert seen.all()
    assert time.process_time() - started < 4


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ftp://host/store", "ftp:// is not supported; http://"),
        ("file:///tmp/store", "file:// is not supported"),
        ("S3://", "it names no host"),
        ("https://me:secret@host/store", "https://...@host/store"),
        ("https://host/store?token=secret", r"https://host/store\?... has a query"),
    ],
)
def test_addresses_that_hold_no_store(address, message):
    """Nothing is asked for, and no secret is repeated."""
    with pytest.raises(UsageError, match=message) as refused:
        find_store(address)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.symlink("nowhere", path)])
def test_a_shard_that_is_no_file_is_named(make, tmp_path):
    make_tars(tmp_path, {"train-0.tar": [sample(0, b"0")]})
    make(tmp_path / "train-1.tar")
    with pytest.raises(UsageError, match=r"train-1.tar is no file"):
        find_store(tmp_path)
