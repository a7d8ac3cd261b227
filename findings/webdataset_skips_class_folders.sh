#!/usr/bin/env bash
# Package:   webdataset 1.0.2 (WebDataset and, with it, timm's reader of "wds/")
# Behaviour: what lies in a first folder whose name begins and ends with two underscores is skipped
#            (skip_meta of tariterators), wherever it stands in a tar. No warning, no error; keys of
#            webdataset's own TarWriter as well.
# Seen:      20 samples written by TarWriter under cat/00, __background__/01, cat/02, ...: all 40
#            members are in the tar, 10 samples are read, none of __background__.
# Hurts:     a class folder named as data sets name their rest class (__background__, __unknown__,
#            __ignore__) is trained without that class: fewer steps, a class that is never seen or
#            never scored, and an accuracy that is higher for it.
# Way out:   another name in the tars, such as %5F_background__ or background.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check webdataset==1.0.2 numpy==2.4.6

cat > see.py <<'PYTHON'
import tarfile
from collections import Counter

import webdataset

CLASSES = "cat", "__background__"
with webdataset.TarWriter("train-000000.tar") as tar:
    for number in range(20):
        key = f"{CLASSES[number % 2]}/{number:02d}"
        tar.write({"__key__": key, "jpg": b"any bytes", "cls": number % 2})
with tarfile.open("train-000000.tar") as tar:
    written = Counter(member.name.partition("/")[0] for member in tar)
read = [sample["__key__"] for sample in webdataset.WebDataset("train-000000.tar", shardshuffle=False)]
found = Counter(key.partition("/")[0] for key in read)
print(f"members written: {dict(written)}; samples read: {dict(found)}")
assert written == {"cat": 20, "__background__": 20}
assert found == {"cat": 10}, "the behaviour has changed"
PYTHON
env/bin/python see.py
