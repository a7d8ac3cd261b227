#!/usr/bin/env bash
# Package:   pycocotools 2.0.11, COCOeval for boxes
# Behaviour: params.maxDets = [1, 10, 100] is documented as "thresholds on max detections per
#            image". It is applied to each image and class apart: 80 classes may have 8,000
#            detections in one image, and AR1 allows one detection of every class.
# Seen:      one image with 75 objects of each of two classes. The 100 most confident detections, all
#            right: AP 0.663, AR100 0.667. All 150 of them: AP 1.000, AR100 1.000. AR1 is that of
#            one detection per class: 1/75 and not 1/150.
# Hurts:     frameworks cut to 100 detections per image before they evaluate, because that is what
#            the protocol seems to say. A detector without that cut scores higher with the very same
#            boxes and scores, so AP depends on an export or post-processing setting, and
#            AR1 and AR10 do not mean what tables say, the more so the more classes there are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check pycocotools==2.0.11 numpy==2.4.6

cat > see.py <<'PYTHON'
import contextlib
import inspect
import io

from pycocotools import cocoeval
from pycocotools.coco import COCO

boxes = [[20 * (n % 15), 20 * (n // 15), 10, 10] for n in range(150)]
objects = [
    {"id": n + 1, "image_id": 1, "category_id": 1 + n % 2, "bbox": box, "area": 100, "iscrowd": 0}
    for n, box in enumerate(boxes)
]
detections = [
    {"image_id": 1, "category_id": 1 + n % 2, "bbox": box, "score": 1 - n / 1000}
    for n, box in enumerate(boxes)
]


def evaluate(kept):
    """AP, AR1 and AR100 of the `kept` most confident detections."""
    truth = COCO()
    truth.dataset = {
        "images": [{"id": 1, "width": 400, "height": 400}],
        "annotations": [dict(one) for one in objects],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        results = truth.loadRes([dict(one) for one in detections[:kept]])
        evaluation = cocoeval.COCOeval(truth, results, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    ap, ar1, ar100 = (round(float(evaluation.stats[n]), 4) for n in (0, 6, 8))
    print(f"{kept} detections: AP {ap:.3f}, AR1 {ar1:.4f}, AR100 {ar100:.3f}")
    return ap, ar1, ar100


documented = "max detections per image" in inspect.getsource(cocoeval)
cut, everything = evaluate(100), evaluate(150)
expected = cut == (0.6634, 0.0133, 0.6667) and everything == (1.0, 0.0133, 1.0)
raise SystemExit(0 if documented and expected else "the behaviour has changed")
PYTHON
env/bin/python see.py
