#!/usr/bin/env bash
# Package:   datasets 5.2.0 (Hugging Face), load_dataset("webdataset", data_files=...)
# Behaviour: the columns are those of the first five samples. A later sample whose image has another
#            ending gets None in their column, and its own member is dropped. No warning, no error,
#            streamed or not.
# Seen:      a tar of 20 samples, 000.jpg and 000.cls to 019, in which 007 and 012 are .png: 20 rows
#            with the columns jpg and cls; rows 7 and 12 keep their class and have no image.
# Hurts:     a data set with a few PNG or WebP files among its JPEGs, packed as it is, loses them in
#            a training that skips what is None, and stops one that does not, after hours. Where two
#            endings are among the first five samples, the same builder refuses the tar.
# Way out:   one ending for all images of a set, whatever they are (decoders go by the content).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 pandas==3.1.1 pillow==13.0.0

cat > see.py <<'PYTHON'
import io
import tarfile

from datasets import disable_progress_bars, load_dataset
from PIL import Image

OTHERS = 7, 12


def add(tar, name, content):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


with tarfile.open("train-000000.tar", "w") as tar:
    for n in range(20):
        file, ending = io.BytesIO(), "png" if n in OTHERS else "jpg"
        Image.new("RGB", (8, 8), (n, n, n)).save(file, "PNG" if n in OTHERS else "JPEG")
        add(tar, f"{n:03d}.{ending}", file.getvalue())
        add(tar, f"{n:03d}.cls", b"%d" % n)

disable_progress_bars()
for streaming in (False, True):
    rows = list(
        load_dataset(
            "webdataset",
            data_files={"train": "train-000000.tar"},
            split="train",
            streaming=streaming,
        )
    )
    without = [row["cls"] for row in rows if row["jpg"] is None]
    columns = sorted({name for row in rows for name in row if name[0] != "_"})
    print(f"streaming {streaming}: {len(rows)} rows of {columns}; without an image: {without}")
    assert len(rows) == 20
    assert columns == ["cls", "jpg"]
    assert without == [*OTHERS]
PYTHON
env/bin/python see.py
