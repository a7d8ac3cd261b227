"""Image files: pixels of every decoder against Pillow, orientation against ImageOps, listing."""

import os
import struct
import sys
import tarfile
import warnings
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.datasets import ImageFolder

from pretrain import images
from pretrain.errors import UsageError
from pretrain.images import decode, list_classes, list_images, read_header

ROWS, COLUMNS = np.mgrid[0:26, 0:34]
RGB = Image.fromarray(np.stack([ROWS * 9, COLUMNS * 7, (ROWS + COLUMNS) * 4], -1).astype(np.uint8))
GREY, PALETTE, CMYK = RGB.convert("L"), RGB.quantize(16), RGB.convert("CMYK")
RGBA, LA = RGB.copy(), RGB.convert("LA")
RGBA.putalpha(GREY)
LA.putalpha(GREY)
OTHERS = [Image.fromarray(np.roll(np.array(RGB), place, 0)) for place in (5, 9)]
PAGES = {"save_all": True, "append_images": OTHERS}
WIDE = Image.fromarray((COLUMNS * 1000).astype(np.uint16))


def array(path: Path, apply_exif: bool = False) -> np.ndarray:
    return decode(path, apply_exif).permute(1, 2, 0).numpy()


def save(image: Image.Image, path: Path, kind: str, **options) -> None:
    """Copies: Pillow leaves in an image how it was encoded, and takes it for another format's."""
    if "append_images" in options:
        options["append_images"] = [other.copy() for other in OTHERS]
    image.copy().save(path, kind, **options)


def by_pillow(path: Path, apply_exif: bool = False) -> np.ndarray:
    with Image.open(path) as image:
        return np.array((ImageOps.exif_transpose(image) if apply_exif else image).convert("RGB"))


@pytest.fixture(params=["torchvision", "TorchCodec", "Pillow"])
def decoder(request, monkeypatch) -> str:
    """`decode` with each decoder that is installed, whichever it would choose here."""
    choose = images._decoder.__wrapped__
    if request.param == "Pillow":
        monkeypatch.setattr(images, "_decoder", lambda: None)
        return request.param
    release = "0.28.0" if request.param == "torchvision" else "0.29.0"
    monkeypatch.setattr(images.torchvision, "__version__", release)
    chosen = choose()
    if (chosen is images._by_torchvision) != (request.param == "torchvision"):
        pytest.skip(f"{request.param} is not installed, or decodes no images")
    monkeypatch.setattr(images, "_decoder", lambda: chosen)
    return request.param


FILES = {
    "JPEG": [(RGB, {}), (RGB, {"progressive": True}), (GREY, {}), (CMYK, {})],
    "PNG": [(RGB, {}), (GREY, {}), (RGBA, {}), (LA, {}), (PALETTE, {}), (RGB.convert("1"), {}),
            (PALETTE, {"transparency": 3}), (RGB, {"transparency": (0, 0, 0)}), (RGB, PAGES)],
    "WEBP": [(RGB, {}), (RGB, {"lossless": True}), (RGBA, {}), (RGB, {"lossless": True, **PAGES})],
    "GIF": [(PALETTE, {}), (GREY, {}), (PALETTE, {"transparency": 3}), (PALETTE, PAGES)],
    "BMP": [(RGB, {}), (GREY, {}), (RGBA, {}), (PALETTE, {}), (RGB.convert("1"), {})],
    "TIFF": [(RGB, {}), (GREY, {}), (RGBA, {}), (PALETTE, {}), (CMYK, {}), (RGB.convert("1"), {}),
             (RGB, {"compression": "jpeg"}), (RGB, PAGES)],
    "PPM": [(RGB, {}), (GREY, {})],
    "AVIF": [(RGB, {}), (RGBA, {}), (GREY, {}), (RGB, PAGES)],
    "MPO": [(RGB, PAGES)],
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.usefixtures("decoder")
def test_stored_pixels_are_pillow_s_of_the_first_picture_whatever_the_name(kind, tmp_path):
    for number, (image, options) in enumerate(FILES[kind]):
        path = tmp_path / f"{number}.png"
        save(image, path, kind, **options)
        assert np.array_equal(array(path), by_pillow(path)), (image.mode, options)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "MPO"])
@pytest.mark.usefixtures("decoder")
def test_a_file_that_is_cut_short_is_refused(kind, tmp_path):
    """Or all of the first picture is there, as of an animation or a PNG without its end."""
    for image, options in FILES[kind]:
        path = tmp_path / "cut"
        save(image, path, kind, **options)
        whole, content = array(path), path.read_bytes()
        for share in (0.1, 0.6, 0.9):
            path.write_bytes(content[: int(share * len(content))])
            try:
                found = array(path)
            except UsageError:
                continue
            assert share > 0.5 or "append_images" in options
            assert np.array_equal(found, whole)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {}),
        ("AVIF", {}),
        ("MPO", PAGES),
    ],
)
@pytest.mark.usefixtures("decoder")
def test_photos_are_turned_as_pillow_turns_them(kind, options, tmp_path):
    """1 to 8, and what is no orientation; a header says both sizes."""
    for tag in range(10):
        path = tmp_path / str(tag)
        exif = Image.Exif()
        exif[0x0112] = tag
        save(RGB, path, kind, exif=exif, **options)
        turned, header = by_pillow(path, apply_exif=True), read_header(path)
        assert np.array_equal(array(path, apply_exif=True), turned), tag
        assert array(path).shape == (26, 34, 3)
        assert header.size == (34, 26)
        assert header.displayed_size == turned.shape[1::-1]
        assert header.orientation == (tag if 1 <= tag <= 8 else 1)
    if kind == "TIFF":  # which Pillow turns whenever it is read
        assert np.array_equal(array(tmp_path / "6"), np.array(RGB))


def segment(content: bytes, name: bytes = b"Exif\0\0") -> bytes:
    return b"\xff\xe1" + struct.pack(">H", 2 + len(name) + len(content)) + name + content


@pytest.mark.usefixtures("decoder")
def test_stored_pixels_do_not_depend_on_where_a_jpeg_says_how_it_lies(tmp_path):
    """TorchCodec turns by EXIF in the first APP1; XMP may come before it, or be all there is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    exif = segment(exif.tobytes().removeprefix(b"Exif\0\0"))
    xmp = segment(b'<x tiff:Orientation="6"/>', b"http://ns.adobe.com/xap/1.0/\0")
    RGB.save(tmp_path / "plain.jpg")
    plain, stored = (tmp_path / "plain.jpg").read_bytes(), by_pillow(tmp_path / "plain.jpg")
    for number, head in enumerate([exif, xmp, exif + xmp, xmp + exif, b"\xff\xff" + exif,
                                   b"\xff\xfe\0\4hi" + exif]):  # fmt: skip
        path = tmp_path / f"{number}.jpg"
        for place in (2, 20):  # before and behind JFIF's segment
            path.write_bytes(plain[:place] + head + plain[place:])
            assert np.array_equal(array(path), stored), (number, place)


@pytest.mark.usefixtures("decoder")
def test_photographs_are_decoded_as_pillow_decodes_them(shared, tmp_path):
    """With EXIF, of CMYK, and a PNG by content among them; nothing warns."""
    with tarfile.open(shared / "data/imagenet-photos.tar") as archive:
        files = [member for member in archive if member.isfile()][::14]
        archive.extractall(tmp_path, files, filter="data")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for file in files:
            assert np.array_equal(array(tmp_path / file.name), by_pillow(tmp_path / file.name))


@pytest.mark.parametrize(
    ("release", "installed", "has_operator", "chosen"),
    [
        ("0.28.0+cpu", True, True, "torchvision"),
        ("0.29.1", True, True, "TorchCodec"),
        ("0.29.1", False, True, "torchvision"),
        ("1.0.0a0", True, False, "TorchCodec"),
        ("1.0.0a0", False, False, "Pillow"),
    ],
)
def test_the_decoder_that_is_chosen(release, installed, has_operator, chosen, monkeypatch):
    package = SimpleNamespace(decode_image=lambda content: content)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", package if installed else None)
    monkeypatch.setattr(images.torchvision, "__version__", release)
    names = SimpleNamespace(image=SimpleNamespace(**{"decode_image": None} if has_operator else {}))
    monkeypatch.setattr(images.torch, "ops", names)
    found = images._decoder.__wrapped__()
    by_torchvision = found is images._by_torchvision
    assert chosen == ("Pillow" if found is None else ["TorchCodec", "torchvision"][by_torchvision])


@pytest.mark.usefixtures("decoder")
def test_the_orientation_of_a_png_may_stand_behind_its_pixels(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    RGB.save(tmp_path / "plain.png")
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(content)) + b"eXIf" + content
    chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
    plain, late = (tmp_path / "plain.png").read_bytes(), tmp_path / "late.png"
    late.write_bytes(plain[:-12] + chunk + plain[-12:])
    assert read_header(late) == ((34, 26), 6)
    assert np.array_equal(array(late, apply_exif=True), by_pillow(late, apply_exif=True))
    assert read_header(tmp_path / "plain.png") == ((34, 26), 1)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("16.png", WIDE),
        ("16.tif", WIDE),
        ("16.pgm", WIDE),
        ("float.tif", Image.fromarray((COLUMNS / 40).astype(np.float32))),
        ("lab.tif", RGB.convert("LAB")),
    ],
)
@pytest.mark.usefixtures("decoder")
def test_more_than_eight_bits_are_refused(name, image, tmp_path):
    image.save(tmp_path / name)
    with pytest.raises(UsageError, match=r"convert it"):
        decode(tmp_path / name)


def test_sixteen_bits_of_a_colour_tiff_are_refused(tmp_path):
    """Pillow opens it as RGB and drops half of the bits."""
    strip = np.array(RGB).astype("<u2").tobytes()
    bits = struct.pack("<HHH", 16, 16, 16)
    tags = [(256, 3, 1, 34), (257, 3, 1, 26), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2),
            (273, 4, 1, 14), (277, 3, 1, 3), (278, 3, 1, 26), (279, 4, 1, len(strip))]  # fmt: skip
    head = b"II*\0" + struct.pack("<I", 14 + len(strip)) + bits
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "deep.tif").write_bytes(head + strip + directory)
    with Image.open(tmp_path / "deep.tif") as image:
        assert image.mode == "RGB"
    with pytest.raises(UsageError, match=r"deep\.tif .*8 bits a channel are read"):
        decode(tmp_path / "deep.tif")


def test_what_is_no_image_is_named(tmp_path):
    for content in (b"", b"GIF8", b"no picture", b"\xff\xd8\xff"):
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(UsageError, match=r"a\.jpg cannot be decoded .*Replace or remove it"):
            decode(tmp_path / "a.jpg")
        assert read_header(tmp_path / "a.jpg") is None
    with pytest.raises(UsageError, match="there is no image"):
        decode(tmp_path / "none.jpg")


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        RGB.resize((4, 4)).save(root / name, "PNG")
    return root


def test_images_and_classes_are_those_of_image_folder(tmp_path):
    """Every ending that it reads, in any case, folders in class folders, links to folders."""
    endings = ("jpg", "JPEG", "png", "ppm", "bmp", "pgm", "tif", "TIFF", "webp")
    tree(tmp_path, *(f"{c}/{n}.{e}" for c in ("cat", "cat0", "dog", "10", "9") for n, e in
                     enumerate(endings)))  # fmt: skip
    tree(tmp_path, "cat/b/1.jpg", "cat/b/c/2.bmp", "cat/a.b/3.jpg", "dog/b/1.jpg", "cat.jpg/1.jpg")
    (tmp_path / "dog/linked").symlink_to(tmp_path / "cat/b")
    theirs = ImageFolder(str(tmp_path))
    ours = list_classes(tmp_path)
    assert [*ours.images] == theirs.classes
    labelled = [(p, label) for label, paths in enumerate(ours.images.values()) for p in paths]
    assert sorted(labelled) == sorted(theirs.samples)
    assert len(labelled) == 5 * 9 + 5 + 2
    (note,) = ours.notes()
    assert "6 images in folders of a class folder" in note
    assert "the first is cat/a.b/3.jpg" in note


def test_what_is_left_out_is_counted_and_named(tmp_path):
    tree(tmp_path, "a/1.jpg", "b/1.gif", "b/2.AVIF")  # the last two are none of ImageFolder's
    tree(tmp_path, "a/IMG_1.HEIC", "b/IMG_2.heic", "a/1.jpg.1", "labels", "beside.png")
    tree(tmp_path, "a/._1.jpg", "a/.cache/1.jpg", ".hidden/1.jpg", ".DS_Store")
    listed = list_classes(tmp_path)
    assert {name: len(paths) for name, paths in listed.images.items()} == {"a": 1, "b": 2}
    files, beside = listed.notes()
    assert files == (
        f"{tmp_path}: 4 files are left out, no images by their names: 2 .heic (the first is "
        "a/IMG_1.HEIC), 1 .1 (the first is a/1.jpg.1), 1 without ending (the first is labels)"
    )
    assert "1 images are left out, as they lie in no class folder; the first is beside" in beside


def test_links_that_lead_back_end(tmp_path, monkeypatch):
    tree(tmp_path, "data/a/1.jpg", "data/b/1.jpg")
    (tmp_path / "data/a/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/a/b").symlink_to(tmp_path / "data/b")
    (tmp_path / "data/b/a").symlink_to(tmp_path / "data/a")
    for name in ("data/itself", "data/a/itself.jpg"):
        (tmp_path / name).symlink_to(tmp_path / name)
    images, others = list_images(tmp_path / "data")
    assert others == [str(tmp_path / "data/itself")]
    images = [path for path in images if "itself" not in path]
    assert {os.path.realpath(path) for path in images} == {
        str((tmp_path / f"data/{c}/1.jpg").resolve()) for c in "ab"
    }
    assert len(images) == 4
    monkeypatch.chdir(tmp_path / "data")
    here = list_classes(Path())
    assert {name: len(paths) for name, paths in here.images.items()} == {"a": 3, "b": 3}
    with pytest.raises(UsageError, match=r"^there is no image a/itself\.jpg"):
        decode(Path("a/itself.jpg"))


def test_a_device_or_a_pipe_is_not_opened(monkeypatch):
    monkeypatch.setattr(Image, "open", None)
    assert read_header(Path(os.devnull)) is None
    with pytest.raises(UsageError, match=f"^image {os.devnull} is no file"):
        decode(Path(os.devnull))


@pytest.mark.parametrize("size", [(1, 200), (200, 1), (1, 201), (201, 1)])
def test_an_image_may_be_so_narrow(size, tmp_path):
    Image.new("RGB", size).save(tmp_path / "a.png")
    if max(size) == 200:
        assert decode(tmp_path / "a.png").shape == (3, *size[::-1])
        return
    with pytest.raises(UsageError, match=f"has {size[0]} x {size[1]} pixels; .* at most 200 times"):
        decode(tmp_path / "a.png")


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"folder .*none cannot be read \(No such file"):
        list_images(tmp_path / "none")
