#!/usr/bin/env bash
# Package:   pylabel 0.1.55, dataset.export.ExportToCoco
# Behaviour: for each image without objects the annotation written last is written once more, with
#            the same id and image_id.
# Seen:      one image with one object and two images without: three annotations, all of the first
#            image. A detector that finds the object exactly has AP 0.337 instead of 1.000 by
#            pycocotools.
# Hurts:     pictures of background are ordinary. After a trip through pylabel each of them adds a
#            copy of an object elsewhere: recall can no longer reach 1, and training weighs those
#            objects more. No warning, and the counts look plausible.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pylabel==0.1.55 pandas==2.3.3 \
  numpy==2.4.6 pycocotools==2.0.11

cat > see.py <<'PYTHON'
import contextlib
import io
import json
import warnings

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from pylabel import importer

warnings.simplefilter("ignore")
box = {"bbox": [1.0, 2.0, 3.0, 4.0], "area": 12.0, "iscrowd": 0}
data = {
    "images": [{"id": n, "file_name": f"{n}.jpg", "width": 9, "height": 9} for n in (1, 2, 3)],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **box}],
}
with open("before.json", "w") as file:
    json.dump(data, file)
importer.ImportCoco("before.json").export.ExportToCoco("after.json")


def measure(path):
    """Annotations, and AP of an exact detection."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(path)
        for one in truth.dataset["annotations"]:
            one["id"] += 1  # pycocotools never matches an annotation of id 0
        truth.createIndex()
        found = [{"image_id": 1, "category_id": 1, "bbox": box["bbox"], "score": 0.9}]
        run = COCOeval(truth, truth.loadRes(found), "bbox")
        run.evaluate()
        run.accumulate()
        run.summarize()
    return len(truth.dataset["annotations"]), round(float(run.stats[0]), 3)


before, after = measure("before.json"), measure("after.json")
print(f"(annotations, AP) before {before}, after the export {after}")
expected = before == (1, 1.0) and after == (3, 0.337)
raise SystemExit(0 if expected else "the behaviour has changed")
PYTHON
env/bin/python see.py 2> log.txt || { cat log.txt; exit 1; }
