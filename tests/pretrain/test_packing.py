"""Packing: what others read of a store is what was packed, under any name; a store read again."""

import io
import json
import os
import random
import re
import shutil
import signal
import tarfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from pretrain.errors import UsageError
from pretrain.files import lock
from pretrain.images import decode_bytes
from pretrain.shards import find_store
from pretrain.shards.names import member_keys, split_ending, unescape
from pretrain.shards.pack import PackOptions, PackSplit, encode, member_head, pack
from pretrain.shards.restore import restore_indexes
from pretrain.shards.verify import verify

HOSTILE = [
    "__background__/x.jpg",  # which webdataset skips
    "____/x.jpg",
    "%5F_background__/x.jpg",
    "a.b/c.d.e.jpg",
    "a.b/c.d.f.JPG",
    "a.b/.hidden.jpg",
    "a.b/..two.jpg",
    "a.b/c..jpg",
    "a/a.jpg",
    "a/a.png",
    "a/a.png.jpg",
    "a/a%2Epng.jpg",
    "a/a.JPEG",
    "a/A.jpg",
    "a/with space .jpg",
    "a/100%.jpg",
    "a/100%25.jpg",
    "a/line\nbreak.jpg",
    "a.x\ny/break.jpg",
    "a/tab\there.jpg",
    "a/back\\slash.jpg",
    "a/quote'\".jpg",
    "a/日本語.jpg",
    "a/e\u0301.jpg",
    "a/\u00e9.jpg",
    "a/latin1-\udce9.jpg",
    "a/😀.jpg",
    "a/" + "n" * 99 + ".jpg",
    "a/" + "n" * 100 + ".jpg",
    "a/" + "n.n" * 80 + ".jpg",  # longer than 255 with its dots escaped
    "/".join(["deep" * 20] * 5) + "/x.jpg",
    "a/~!@#$^&*()[]{}.cls.jpg",
    "a/x.cls",
    "a/noending",
    "train/x.jpg",
]


def picture(number: int, kind: str = "PNG", size: tuple[int, int] = (8, 8), **options) -> bytes:
    """A picture that says its number."""
    file = io.BytesIO()
    Image.new("RGB", size, (number // 256, number % 256, 77)).save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int, kind: str = "PNG", seed: int = 0, **options) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    file = io.BytesIO()
    image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    """Nothing here survives the machine's end; a sync waits for what others write."""
    monkeypatch.setattr("pretrain.files._sync", lambda _: None)


class Killed(BaseException):
    pass


class Contents:
    """Read by number, as `PackSplit.read` is; after so many it is killed."""

    def __init__(self, files: dict[str, bytes], most: int = 10**9) -> None:
        self.contents, self.most, self.count = [*files.values()], most, 0

    def __call__(self, number: int) -> bytes:
        if self.count == self.most:
            raise Killed
        self.count += 1
        return self.contents[number]


def split_of(split: str, files: dict[str, bytes], **more) -> PackSplit:
    classes = tuple(sorted({name.split("/", 1)[0] for name in files}))
    labels = np.array([classes.index(name.split("/", 1)[0]) for name in files])
    sizes = np.array([len(content) for content in files.values()])
    fields = {"classes": classes, "labels": labels, "read": Contents(files), "sizes": sizes}
    return PackSplit(split=split, names=[*files], **fields | more)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """A store of pictures under hostile names."""
    out = tmp_path_factory.mktemp("hostile") / "store"
    files = {name: picture(number) for number, name in enumerate(HOSTILE)}
    pack([split_of("train", files), split_of("val", files)], out, PackOptions(samples_per_shard=20))
    return out, files


def test_webdataset_reads_each_sample_of_hostile_names(hostile):
    wds = pytest.importorskip("webdataset")
    out, files = hostile
    urls = sorted(map(str, out.glob("train-*.tar")))
    assert len(urls) == 2
    found = [*wds.WebDataset(urls, shardshuffle=False)]
    split, classes = split_of("train", files), split_of("train", files).classes
    by_key = {key: name for key, name in zip(split.keys, files, strict=True)}
    endings = ("jpg", "png")
    read = {by_key[one["__key__"]]: next(one[e] for e in endings if e in one) for one in found}
    assert read == files
    for sample in found:
        name = by_key[sample["__key__"]]
        assert classes[int(sample["cls"])] == name.split("/", 1)[0]


def test_timm_reads_each_sample_of_hostile_names(hostile):
    pytest.importorskip("webdataset")
    from timm.data import create_dataset

    out, files = hostile
    dataset = create_dataset("wds/", root=str(out), split="val", is_training=False, batch_size=1)
    assert len(dataset) == len(files)
    classes = split_of("val", files).classes
    numbers = {name: number for number, name in enumerate(files)}
    found = {}
    for image, target in dataset:
        red, green, _ = image.getpixel((0, 0))
        found[red * 256 + green] = classes[target]
    assert found == {number: name.split("/", 1)[0] for name, number in numbers.items()}


def test_our_reader_and_names(hostile):
    out, files = hostile
    for reader in find_store(out).splits.values():
        index = reader.index
        names = [index.name(number) for number in range(len(index))]
        assert {name: reader.read(number) for number, name in enumerate(names)} == files
        assert [index.classes[n] for n in index.labels] == [name.split("/", 1)[0] for name in names]
    assert names == [*files]  # val is in order
    assert verify(out) == []


def test_an_index_that_is_lost_is_made_anew_to_the_byte(tmp_path):
    # names end in one way each, as ImageNet's do
    names = [name for name in HOSTILE if name.endswith(".jpg")]
    files = {name: picture(number) for number, name in enumerate(names)}
    pack([split_of("train", files)], tmp_path / "store", PackOptions(samples_per_shard=9))
    path = tmp_path / "store" / "train.index"
    before = path.read_bytes()
    path.unlink()
    assert "train.index is missing" in verify(tmp_path / "store")[0]
    assert restore_indexes(tmp_path / "store") == [path]
    assert path.read_bytes() == before


def test_an_index_that_keys_do_not_say_is_not_made(hostile):
    before = (hostile[0] / "train.index").read_bytes()
    with pytest.raises(
        UsageError, match="cannot be made of the shards alone: names of train ended"
    ):
        restore_indexes(hostile[0])
    assert (hostile[0] / "train.index").read_bytes() == before


def test_keys_differ_wherever_names_do(full):
    letters = ["a", "A", ".", "%", "/", "_", "2E", "\n", ".jpg", ".png", "é"]
    draw = random.Random(0)
    names = {
        "".join(draw.choices(letters, k=draw.randint(1, 7)))
        for _ in range(40_000 if full else 4000)
    }
    names = sorted(n for n in names if {"", ".", ".."}.isdisjoint(n.split("/")))
    keys = member_keys(names)
    assert len({*keys}) == len(names)
    for name, key in zip(names, keys, strict=True):
        assert unescape(key) in (name, split_ending(name)[0])
        assert "." not in key.rpartition("/")[2]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/x.jpg", "a/x.jpg"], "there twice: a/x.jpg"),
        (["a/../x.jpg"], "'a/../x.jpg'; expected CLASS/NAME.jpg"),
        (["/a/x.jpg"], "1 names lead elsewhere, such as '/a/x.jpg'"),
    ],
)
def test_names_that_cannot_be_packed(names, message):
    with pytest.raises(UsageError, match=message.replace("/", "/")):
        member_keys(names)


@pytest.mark.parametrize("length", [5, 99, 100, 101, 154, 155, 156, 200, 255, 256, 300])
def test_heads_are_python_s_own(length):
    """The members of a tar that tarfile writes, USTAR where it can, and GNU tar lists."""
    for name in ("n" * length, "d/" * (length // 2), "é" * (length // 2)):
        name = f"{name}x.jpg"
        with tarfile.open(fileobj=io.BytesIO(member_head(name, 0) + bytes(1024))) as archive:
            (member,) = archive.getmembers()
        facts = (member.name, member.mode, member.mtime, member.uid, member.gid, member.uname)
        assert facts == (name, 0o644, 0, 0, 0, "")
        is_plain = name.isascii() and len(name) <= 100
        assert not is_plain or len(member_head(name, 0)) == 512


# ---- pixels


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG", "BMP", "TIFF"])
def test_images_that_are_not_larger_are_packed_as_they_are(kind):
    content, options = picture(3, kind, (40, 32)), PackOptions(short_side=32)
    ending = {"JPEG": "jpg", "TIFF": "tiff"}.get(kind, kind.lower())
    assert encode(content, f"a/x.{kind}", options) == (content, ending, False)
    assert encode(content, f"a/x.{kind}", PackOptions()) == (content, ending, False)


def test_the_name_says_the_ending_and_without_one_the_content():
    png = picture(1, size=(20, 20))
    assert encode(png, "a/n02105855_2933.JPEG", PackOptions()) == (png, "jpg", False)
    written, ending, _ = encode(png, "a/n02105855_2933.JPEG", PackOptions(short_side=8))
    assert (ending, written[:3]) == ("jpg", b"\xff\xd8\xff")
    assert encode(png, "a/1.2", PackOptions())[1] == "png"
    assert encode(picture(1, "JPEG"), "a/x", PackOptions())[1] == "jpg"


@pytest.mark.parametrize("size", [(100, 64), (64, 100), (64, 64), (333, 50), (51, 97)])
def test_resizing_is_pillow_s(size):
    options = PackOptions(short_side=48)
    content = noise(*size)
    written, ending, is_resized = encode(content, "a/x.png", options)
    assert (ending, is_resized) == ("png", True)
    from torchvision.transforms import v2

    wanted = v2.Resize(48, v2.InterpolationMode.BICUBIC)(Image.open(io.BytesIO(content)))
    assert np.array_equal(Image.open(io.BytesIO(written)), wanted)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_images_become_jpeg_of_the_stated_quality(kind):
    content = noise(90, 60, kind, quality=95)
    written, ending, _ = encode(content, f"a/x.{kind}", PackOptions(short_side=30, quality=70))
    with Image.open(io.BytesIO(content)) as image, Image.open(io.BytesIO(written)) as found:
        assert (ending, found.format, found.size) == ("jpg", "JPEG", (45, 30))
        expected = io.BytesIO()
        resized = image.convert("RGB").resize((45, 30), Image.Resampling.BICUBIC)
        resized.save(expected, "JPEG", quality=70, subsampling="4:2:0")
    assert written == expected.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_pixels_are_the_stored_ones_and_nothing_turns_them(kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    content = noise(80, 60, kind, exif=exif)
    plain = decode_bytes(bytearray(content), "x")
    assert plain.shape == (3, 60, 80)
    written, _, is_resized = encode(content, f"a/x.{kind}", PackOptions(short_side=30))
    with Image.open(io.BytesIO(written)) as image:
        assert is_resized
        assert image.size == (40, 30)
        assert not image.getexif()
        assert not {"exif", "icc_profile"} & image.info.keys()
        stored = Image.fromarray(plain.permute(1, 2, 0).numpy()).resize((40, 30))
        assert np.abs(np.asarray(image, np.int16) - np.asarray(stored, np.int16)).mean() < 30


# ---- a store


def files_of(count: int, classes: int = 3) -> dict[str, bytes]:
    names = [f"c{number % classes}/{number:03d}.png" for number in range(count)]
    return {name: picture(n) for n, name in enumerate(sorted(names))}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_train_is_shuffled_and_evenly_filled(tmp_path):
    files = files_of(101)
    options = PackOptions(samples_per_shard=40)
    info = pack([split_of("train", files), split_of("val", files)], tmp_path / "a", options)
    train, val = info["splits"]["train"], info["splits"]["val"]
    assert train["shard_lengths"] == val["shard_lengths"] == [34, 34, 33]
    index = find_store(tmp_path / "a").splits["train"].index
    first = [int(index.labels[n]) for n in range(34)]
    assert {*first} == {0, 1, 2}
    other = PackOptions(samples_per_shard=40, seed=1)
    pack([split_of("train", files)], tmp_path / "b", other)
    again = find_store(tmp_path / "b").splits["train"].index
    assert [index.name(n) for n in range(101)] != [again.name(n) for n in range(101)]


def test_any_number_of_processes_writes_the_same_bytes(tmp_path):
    splits = [split_of("train", files_of(20)), split_of("val", files_of(5))]
    options = PackOptions(samples_per_shard=7, short_side=4)
    for workers in (1, 3):
        pack(splits, tmp_path / str(workers), options, workers=workers)
    assert contents(tmp_path / "1") == contents(tmp_path / "3")
    assert [*contents(tmp_path / "1")][:2] == ["_info.json", "train-000000.tar"]


@pytest.mark.parametrize("most", [0, 8, 15])
def test_killed_anywhere_it_goes_on_to_the_same_bytes(most, tmp_path):
    files, options, out = files_of(16), PackOptions(samples_per_shard=8), tmp_path / "out"
    splits = [split_of("train", files), split_of("val", files_of(3))]
    pack(splits, tmp_path / "whole", options)
    with pytest.raises(Killed):
        pack([split_of("train", files, read=Contents(files, most)), splits[1]], out, options)
    there = contents(out)
    assert len(there) == most // 8
    (out / ".train-000004.tar.1.tmp").write_bytes(b"of a process that was killed")
    again = Contents(files)
    pack([split_of("train", files, read=again), splits[1]], out, options)
    assert again.count == 16 - 8 * (most // 8)
    assert contents(out) == contents(tmp_path / "whole")
    assert contents(out).items() >= there.items()


def test_killed_before_the_end_is_published_nothing_is_read_twice(tmp_path, monkeypatch):
    files, options, out = files_of(9), PackOptions(samples_per_shard=8), tmp_path / "out"

    def kill(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("pretrain.shards.pack.file_hash", kill)
        with pytest.raises(Killed):
            pack([split_of("train", files)], out, options)
    with pytest.raises(UsageError, match="are not all packed"):
        find_store(out)
    split = split_of("train", files)
    pack([split], out, options)
    assert split.read.count == 0
    assert verify(out) == []


def test_another_command_is_refused_with_what_differs(tmp_path):
    files, out, options = files_of(20), tmp_path / "out", PackOptions(samples_per_shard=5)
    with pytest.raises(Killed):
        pack([split_of("val", files, read=Contents(files, 12))], out, options)
    changed = files | {"c0/000.png": picture(7, size=(90, 90))}
    val = split_of("val", files)
    for split, chosen, message in (
        (val, PackOptions(samples_per_shard=6), "samples per shard 5, now 6"),
        (val, PackOptions(samples_per_shard=5, short_side=4), "short side None, now 4"),
        (val, PackOptions(samples_per_shard=5, seed=3), "seed 0, now 3"),
        (split_of("val", files_of(21)), options, "samples of val 20, now 21"),
        (split_of("val", changed), options, "files of val [0-9a-f]+, now [0-9a-f]+"),
        (split_of("train", files), options, "samples of train none, now 20, files of train none"),
    ):
        with pytest.raises(UsageError, match=rf"another command or of other files: .*{message}"):
            pack([split], out, chosen)
    late = split_of("val", files, changed=2e10, newest="a/x.png")
    with pytest.raises(UsageError, match=r"a/x.png was changed since packing into .* began"):
        pack([late], out, options)
    info = pack([val], out, options)
    assert info == pack([val], out, options) == json.loads((out / "_info.json").read_text())
    with pytest.raises(UsageError, match="samples per shard 5, now 6"):
        pack([val], out, PackOptions(samples_per_shard=6))
    assert not (out / ".pack").exists()
    assert verify(out) == []


def test_images_that_are_no_images(tmp_path):
    files = files_of(20)
    broken = files | {"c0/000.png": b"no image", "c2/008.png": picture(8)[:40]}
    options, out = PackOptions(samples_per_shard=5), tmp_path / "out"
    with pytest.raises(UsageError, match="cannot be packed, 0 may be left out; the first: image c"):
        pack([split_of("val", broken)], out, options)
    with pytest.raises(UsageError, match="2 images of val cannot be packed, 1 may be left out"):
        pack([split_of("val", broken)], out, options, max_corrupt=1)
    info = pack([split_of("val", broken)], out, options, max_corrupt=2)
    assert info["left_out"] == {"val": ["c0/000.png", "c2/008.png"]}
    assert info["splits"]["val"]["shard_lengths"] == [4, 5, 5, 4]
    assert verify(out) == []
    reader = find_store(out).splits["val"]
    left = {reader.index.name(n): reader.read(n) for n in range(18)}
    assert left == {n: content for n, content in files.items() if n not in info["left_out"]["val"]}


def test_a_shard_or_a_class_of_broken_images_alone(tmp_path):
    files = {f"a/{n}.png": picture(n) for n in range(6)} | {"b/0.png": picture(9)}
    first = files | {f"a/{n}.png": b"no image" for n in range(4)}
    info = pack(
        [split_of("val", first)], tmp_path / "a", PackOptions(samples_per_shard=4), max_corrupt=4
    )
    assert info["splits"]["val"]["filenames"] == ["val-000001.tar"]
    assert verify(tmp_path / "a") == []
    last = files | {"b/0.png": b"no image"}
    with pytest.raises(UsageError, match="val: no image of class b can be packed"):
        pack([split_of("val", last)], tmp_path / "b", PackOptions(), max_corrupt=4)


def test_a_shard_that_was_lost_is_written_again(tmp_path):
    """By the command that messages name, to the same bytes; else nothing is."""
    out, splits = tmp_path / "out", [split_of("val", files_of(9))]
    pack(splits, out, PackOptions(samples_per_shard=5))
    shard, index = out / "val-000001.tar", out / "val.index"
    before = shard.read_bytes()
    for lose in (shard.unlink, lambda: os.truncate(shard, 700)):
        lose()
        pack(splits, out, PackOptions(samples_per_shard=5))
        assert shard.read_bytes() == before
        assert verify(out) == []
    shard.unlink()
    changed = split_of("val", files_of(9))
    changed = replace(changed, read=lambda number: picture(number + 1))
    with pytest.raises(UsageError, match=r"val-000001.tar is lost, and its images are not what"):
        pack([changed], out, PackOptions(samples_per_shard=5))
    assert not shard.exists()
    pack(splits, out, PackOptions(samples_per_shard=5))
    index.unlink()
    with pytest.raises(UsageError, match=r"val\.index is missing"):
        pack(splits, out, PackOptions(samples_per_shard=5))


def test_names_that_are_no_utf8(tmp_path):
    """Of an image that is left out; of a class they are refused before anything is written."""
    files = files_of(4) | {"c0/\udcff.png": b"no image"}
    info = pack([split_of("val", files)], tmp_path / "a", PackOptions(), max_corrupt=1)
    assert info["left_out"] == {"val": ["c0/\\udcff.png"]}
    assert verify(tmp_path / "a") == []
    with pytest.raises(UsageError, match=r"the class \\udcff of val is no text in UTF-8"):
        pack([split_of("val", {"\udcff/0.png": picture(0)})], tmp_path / "b", PackOptions())
    assert not (tmp_path / "b").exists()


def test_one_pack_at_a_time(tmp_path):
    out, (told, tell) = tmp_path / "out", os.pipe()
    if (child := os.fork()) == 0:
        with lock(out / ".pack" / "lock", "busy"):
            os.write(tell, b".")
            time.sleep(60)
        os._exit(0)
    try:
        os.read(told, 1)
        with pytest.raises(UsageError, match=rf"another pack writes into .* .process {child} on"):
            pack([split_of("val", files_of(4))], out, PackOptions())
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    pack([split_of("val", files_of(4))], out, PackOptions())


def test_no_room_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    files = files_of(40)
    splits = [split_of("val", files, sizes=np.full(40, 10**6))]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=20 * 10**6))
    with pytest.raises(UsageError, match=r"It needs 40,\d+,\d+ bytes; 20,000,000 are left"):
        pack(splits, tmp_path / "out", PackOptions())
    assert not [*(tmp_path / "out").glob("*.tar")]
    # resized, they are a share of that
    large = {f"a/{n}.png": noise(300, 200, seed=n) for n in range(3)}
    sizes = np.full(3, 10**7)
    pack([split_of("val", large, sizes=sizes)], tmp_path / "out", PackOptions(short_side=20))


# ---- a store read again


def edit(path: Path, change) -> None:
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)


def flip(content: bytearray, place: int) -> None:
    content[place] ^= 1


def swap(content: bytearray, old: bytes, new: bytes) -> None:
    assert content.count(old)
    place = content.index(old)
    content[place : place + len(old)] = new


def rehead(content: bytearray, old: str, new: str) -> None:
    """Give a member another name, in a head that is right."""
    place = content.index(old.encode() + b"\0")
    size = tarfile.TarInfo.frombuf(bytes(content[place : place + 512]), "utf-8", "strict").size
    content[place : place + 512] = member_head(new, size)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda c: flip(c, 512 + 20), "sample c0/000.png: the crc32 of its image is"),
        (lambda c: swap(c, b"0".ljust(512, b"\0"), b"2".ljust(512, b"\0")),
         "sample c0/000.png: its .cls says '2', its class is 0"),
        (lambda c: rehead(c, "c0/003.png", "c0/004.png"),
         "sample c0/003.png: its image is called c0/004.png, its key is c0/003"),
        (lambda c: rehead(c, "c0/003.cls", "c0/004.cls"), "no member c0/003.cls follows its image"),
        (lambda c: c.__delitem__(slice(-600, None)), "it has 10,664 bytes, in the index 11,264"),
        (lambda c: c.__delitem__(slice(0, 1024)),
         "sample c0/000.png: its image should be a member of"),
        (lambda c: flip(c, len(c) - 1), "its hash is"),
        (lambda c: flip(c, 100), "its hash is|bad checksum|sample"),
        (lambda c: c.__setitem__(slice(-1024, None), member_head("more.cls", 0) + bytes(512)),
         "its member more.cls is in no index"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_shard(change, problem, tmp_path):
    out, files = tmp_path / "out", files_of(9)
    pack([split_of("val", files)], out, PackOptions(samples_per_shard=5))
    edit(out / "val-000000.tar", change)
    problems = verify(out)
    assert any(re.search(problem, line) for line in problems), problems
    assert {line.partition(":")[0] for line in problems} == {str(out / "val-000000.tar")}


def test_a_missing_shard_and_another_info(tmp_path):
    out, files = tmp_path / "out", files_of(9)
    pack([split_of("val", files)], out, PackOptions(samples_per_shard=5))
    info = json.loads((out / "_info.json").read_text())
    info["splits"]["val"]["num_samples"] = 8
    (out / "_info.json").write_text(json.dumps(info))
    (out / "val-000001.tar").unlink()
    first, second = verify(out, workers=2)
    assert first == "_info.json counts 8 samples of val, 9 are in val.index"
    assert second == f"{out / 'val-000001.tar'} cannot be read: No such file or directory"
    edit(out / "val.index", lambda content: flip(content, len(content) - 1))
    assert re.search("val.index is not what was packed", verify(out)[0])
    with pytest.raises(
        UsageError, match=r"holds no shards\. `python tools/pack.py --data DIR` packs"
    ):
        verify(tmp_path)


def test_an_info_that_does_not_fit_its_indexes(tmp_path):
    out = tmp_path / "out"
    info = pack([split_of("val", files_of(9))], out, PackOptions(samples_per_shard=5))
    val = info["splits"]["val"]
    shutil.copy(out / "val-000000.tar", out / "val-000002.tar")
    assert verify(out) == [f"{out / 'val-000002.tar'} is in no index"]
    (out / "val-000002.tar").unlink()
    for change, problem in (
        ({"splits": {}}, "_info.json or val.index: only one of them has val"),
        ({"splits": {"val": val, "more": val}}, "_info.json or more.index: only one of them has"),
        ({"splits": {"val": val | {"blake2b": []}}}, "its hashes of val are not one a shard"),
        ({"classes": ["x"]}, "its classes are not those of val.index"),
    ):
        (out / "_info.json").write_text(json.dumps(info | change))
        assert any(problem in line for line in verify(out)), change
    (out / "_info.json").write_text(json.dumps(info))
    (out / "val-000000.tar").unlink()
    os.mkfifo(out / "val-000000.tar")
    assert verify(out) == [f"{out / 'val-000000.tar'} is no file"]
