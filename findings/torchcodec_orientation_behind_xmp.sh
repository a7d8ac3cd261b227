#!/usr/bin/env bash
# Package:   torchcodec 0.17.0, decoders.decode_image, where torchvision 0.29 sends its users
# Behaviour: "EXIF orientation is always applied", and there is no option. It is looked for in the
#            first APP1 segment alone, whatever that is: behind a segment of XMP it is not found.
#            In a PNG it is not found behind the pixels, where the format allows it.
# Seen:      one photo of 34 x 26 with the tag 6 (on its side), written four ways: EXIF first, XMP
#            first, a PNG with the tag before or behind its pixels. Pillow's exif_transpose turns all
#            four to 26 x 34; decode_image the first and the third.
# Hurts:     code that moved from torchvision, which turns nothing unless asked, gets a mixture: most
#            photos turned, some not, so boxes that were drawn on stored pixels no longer fit, and
#            those drawn on turned ones do not fit the rest. Turning the result back by the tag, as
#            Pillow or ExifTool read it, lays down just the photos that were never turned.
# Way out:   hide the tag before decoding (APP1 -> APP15) and turn by a reader of one's own.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    torch==2.11.0 torchcodec==0.17.0 numpy==2.4.6 pillow==13.0.0

cat > see.py <<'PYTHON'
import io
import struct
import zlib

from PIL import Image, ImageOps
from torchcodec.decoders import decode_image

exif = Image.Exif()
exif[0x0112] = 6
tags = exif.tobytes().removeprefix(b"Exif\0\0")


def written(kind):
    file = io.BytesIO()
    Image.linear_gradient("L").resize((34, 26)).convert("RGB").save(file, kind)
    return file.getvalue()


def segment(name, content):
    return b"\xff\xe1" + struct.pack(">H", 2 + len(name) + len(content)) + name + content


jpeg, png = written("JPEG"), written("PNG")
exif_segment = segment(b"Exif\0\0", tags)
xmp = segment(b"http://ns.adobe.com/xap/1.0/\0", b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>")
chunk = struct.pack(">I", len(tags)) + b"eXIf" + tags
chunk += struct.pack(">I", zlib.crc32(chunk[4:]))
files = {
    "JPEG, EXIF then XMP": jpeg[:20] + exif_segment + xmp + jpeg[20:],
    "JPEG, XMP then EXIF": jpeg[:20] + xmp + exif_segment + jpeg[20:],
    "PNG, before its pixels": png[:33] + chunk + png[33:],
    "PNG, behind its pixels": png[:-12] + chunk + png[-12:],
}
sizes = {}
for name, content in files.items():
    with Image.open(io.BytesIO(content)) as image:
        by_pillow = ImageOps.exif_transpose(image).size
    height, width = decode_image(content).shape[-2:]
    sizes[name] = by_pillow, (width, height)
    print(f"{name}: Pillow {by_pillow}, TorchCodec {(width, height)}")
assert all(by_pillow == (26, 34) for by_pillow, _ in sizes.values())
assert [size for _, size in sizes.values()] == [(26, 34), (34, 26)] * 2, "the behaviour has changed"
PYTHON
env/bin/python see.py
