"""The same detections through the evaluators that people use, beside Pascal VOC's own metric.

    python tests/peers/detection_scores.py [--environment DIR] [--quick]

The packages are installed from PyPI into an environment (in a temporary folder, or kept in DIR);
torch and torchvision are borrowed from the one that runs this. The case is golden/voc_eval of the
reference data: $CUTMIX_SHARED, or ../shared. Prints a Markdown table; --quick leaves out the large
set. Seven minutes of CPU, most of them mmdet and pycocotools.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np
from environments import make_environment

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

REQUIREMENTS = (
    "pycocotools==2.0.11",
    "faster-coco-eval==1.8.0",
    "hotcoco==1.3.0",
    "ultrafast-pycocotools==0.1.14",
    "vernier==0.5.4",
    "torchmetrics==1.9.0",
    "supervision==0.31.2",
    "globox==2.9.0",
    "mean-average-precision==2024.1.5.0",
    "object-detection-metrics==0.4.post1",
    "mapcalc==0.2.2",
    "map-boxes==1.0.6",
    "ultralytics==8.4.190",
    "mmdet==3.3.0",
    "mmengine==0.10.7",
)
COCO = ("pycocotools", "faster-coco-eval", "hotcoco", "ultrafast-pycocotools", "vernier")
SLOW = ("torchmetrics", "torchmetrics, backend faster_coco_eval", "supervision")
# (difficult objects as, evaluators, why)
PLAN = (
    ("ignored", ("mmdet",), "VOC's rules, IoU >= threshold"),
    ("crowd", COCO + SLOW, "101 points; the best object still free"),
    ("drop", COCO, "hits on difficult objects are wrong"),
    ("keep", COCO, "effects cancel, by chance"),
    ("keep", ("globox",), "reads no flag, nor `iscrowd`"),
    ("crowd, left and top not moved", ("pycocotools",), "boxes of the XML taken as from 0"),
    ("drop", ("ultralytics",), "no difficult; the best object still free; 101 points"),
    ("keep", ("ultralytics",), ""),
    ("drop", ("map-boxes",), "no difficult; skips images without objects"),
    ("keep", ("map-boxes",), ""),
    ("keep", ("map-boxes, rows by rising score",), "matches in the order of the rows"),
    ("drop", ("object-detection-metrics",), "no difficult; otherwise VOC's rules"),
    ("keep", ("object-detection-metrics",), ""),
    ("its column", ("mean-average-precision",), "counted as objects; flags transposed; + 1 pixel"),
    ("drop", ("mapcalc",), "mean over images; scores are never looked at"),
)


def read_case(folder: Path, name: str):
    """Our records; truth and detections as arrays (see detection_evaluators.py); the list."""
    from transfer.detection.voc import read_voc

    records = read_voc(folder / "VOC", "test", images=False)
    number = {record.image_id: n for n, record in enumerate(records.images)}
    label = {name: n for n, name in enumerate(records.classes)}
    truth = [
        (n, *one)
        for n, record in enumerate(records.images)
        for one in np.column_stack([record.labels, record.boxes, record.difficult])
    ]
    with gzip.open(folder / f"{name}.json.gz") as file:
        rows = json.load(file)
    found = np.array(
        [
            (number[row["image_id"]], label[row["category"]], *row["bbox"], row["score"])
            for row in rows
        ]
    )
    found[:, 4:6] += found[:, 2:4]
    return records, np.array(truth), found[np.lexsort((-found[:, 6], found[:, 0]))], rows


def treat(truth: np.ndarray, how: str) -> np.ndarray:
    """The truth with its difficult objects treated so."""
    truth = truth[truth[:, 6] == 0] if how == "drop" else truth.copy()
    if how == "keep":
        truth[:, 6] = 0
    if how.endswith("not moved"):
        truth[:, 2:4] += 1
    return truth


def run(python: Path, folder: Path, case: tuple, names: tuple[str, ...]) -> dict:
    """{evaluator: (AP50, AP)}."""
    records, truth, found, _ = case
    np.savez(folder / "case.npz", truth=truth, detections=found, images=len(records))
    command = [
        python,
        Path(__file__).parent / "detection_evaluators.py",
        folder / "case.npz",
        *names,
    ]
    variables = os.environ | {"YOLO_CONFIG_DIR": str(folder), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(command, env=variables, check=True, stdout=subprocess.PIPE, text=True)
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    for line in lines:
        print(f"{line['name']}: {line['s']:.0f} s {line['error'] or ''}", file=sys.stderr)
    return {line["name"]: tuple(line["values"]) for line in lines}


def show(values: tuple[float, float] | None) -> str:
    """AP50 / AP."""
    if values is None:
        return ""
    return f"{values[0]:.2f}" + ("" if np.isnan(values[1]) else f" / {values[1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep it here")
    parser.add_argument("--quick", action="store_true", help="the small set only")
    options = parser.parse_args()
    from transfer.detection.average_precision import evaluate

    golden = Path(os.environ.get("CUTMIX_SHARED", ROOT.parent / "shared")) / "golden/voc_eval"
    names = ["detections_tiefree"] + ([] if options.quick else ["detections"])
    version = dict(one.split("==") for one in REQUIREMENTS)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        python = make_environment(
            options.environment or folder / "environment", REQUIREMENTS, borrow=True
        )
        with tarfile.open(golden / "voc.tar.xz") as archive:
            archive.extractall(folder, filter="data")
        for name in names:
            (folder / f"{name}.json.gz").write_bytes((golden / f"{name}.json.gz").read_bytes())
        cases = [read_case(folder, name) for name in names]
        print("| package | difficult as | 19,000 detections | 67,869 | AP50 less area's | why |")
        print("|---" * 6 + "|")
        scores = [evaluate(records, rows).mean for records, _, _, rows in cases]
        reference = [score["area"]["AP50"] for score in scores]
        for metric, why in (("area", "VOC 2010 on"), ("voc07", "11 points")):
            values = [(score[metric]["AP50"], score[metric]["AP"]) for score in scores]
            print_row(f"here, {metric}", "ignored", values, reference, why)
        for how, evaluators, why in PLAN:
            results = [
                run(python, folder, (case[0], treat(case[1], how), *case[2:]), evaluators)
                for case in cases
            ]
            groups: dict[tuple[str, ...], list[str]] = {}
            for evaluator in evaluators:
                values = tuple(show(result[evaluator]) for result in results)
                groups.setdefault(values, []).append(evaluator)
            for group in groups.values():
                values = [result[group[0]] for result in results]
                titles = [
                    re.sub("^[^,]*", lambda it: f"{it[0]} {version[it[0]]}", one) for one in group
                ]
                print_row(", ".join(titles), how, values, reference, why)


def print_row(name: str, how: str, values: list, reference: list[float], why: str) -> None:
    """A line of the table; the difference is that of the last set."""
    last = f"{values[-1][0] - reference[-1]:+.2f}"
    cells = [show(value) for value in values] + [""] * (2 - len(values))
    print(f"| {name} | {how} | {cells[0]} | {cells[1]} | {last} | {why} |", flush=True)


if __name__ == "__main__":
    main()
