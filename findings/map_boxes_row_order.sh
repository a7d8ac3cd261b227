#!/usr/bin/env bash
# Package:   map-boxes 1.0.6, mean_average_precision_for_boxes
# Behaviour: detections of an image are matched in the order of their rows; scores are sorted only
#            afterwards. Nothing says that rows must come by falling score. Detections in images
#            without objects are not counted at all.
# Seen:      one object, an exact detection of confidence 0.9 and a loose one of 0.1. Exact one
#            first: mAP 1.0. The same two rows the other way round: 0.5. And 1,000 wrong detections
#            of confidence 0.95 in images without objects leave mAP at 1.0.
# Hurts:     tables of detections come from CSV files, merges and pandas sorts. On 67,869 realistic
#            detections the order alone moved AP50 from 52.9 to 39.2, and a detector that
#            fires on empty images looks perfect.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check map-boxes==1.0.6 numpy==2.4.6 pandas==2.3.3

cat > see.py <<'PYTHON'
from map_boxes import mean_average_precision_for_boxes

truth = [["a", "cat", 0, 10, 0, 10]]  # image, class, left, right, top, bottom
exact = ["a", "cat", 0.9, 0, 10, 0, 10]  # image, class, confidence, box
loose = ["a", "cat", 0.1, 0, 10, 0, 7]
wrong = [[f"empty {n}", "cat", 0.95, 0, 10, 0, 10] for n in range(1000)]


def score(*rows):
    return round(float(mean_average_precision_for_boxes(truth, [*rows], verbose=False)[0]), 4)


falling, rising, empty = score(exact, loose), score(loose, exact), score(exact, *wrong)
print(f"falling score {falling}, rising score {rising}, wrong ones in empty images {empty}")
raise SystemExit(0 if (falling, rising, empty) == (1, 0.5, 1) else "the behaviour has changed")
PYTHON
env/bin/python see.py
