"""Other packages' evaluators, called as their documentation says. Nothing of this project here.

    python detection_evaluators.py CASE.npz

Run by detection_scores.py in an environment with the packages. Each function takes the truth
(M, 7): image, class, left, top, right, bottom, difficult; the detections (N, 7): the same with the
score last, by image and falling score; and the number of images. It returns AP50 and AP (.50 to
.95) in percent, nan where it is not computed.
"""

import contextlib
import importlib
import io
import json
import sys
import tempfile
import time
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np

NAN = float("nan")
THRESHOLDS = [0.5 + 0.05 * step for step in range(10)]


def split(rows: np.ndarray, images: int) -> list[np.ndarray]:
    """The rows of each image."""
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    return np.split(rows, np.searchsorted(rows[:, 0], np.arange(1, images)))


def write_coco(folder: Path, truth, detections, images: int) -> tuple[str, str]:
    """An instance file and a results file; numbers count from 1."""

    def row(one) -> dict:
        image, label, x0, y0, x1, y1, last = map(float, one)
        box = {"bbox": [x0, y0, x1 - x0, y1 - y0], "last": last}
        return box | {"image_id": int(image) + 1, "category_id": int(label) + 1}

    objects = []
    for number, one in enumerate(map(row, truth), 1):
        crowd, (_, _, w, h) = int(one.pop("last")), one["bbox"]
        objects.append(one | {"id": number, "iscrowd": crowd, "area": w * h, "segmentation": []})
    found = [one | {"score": one.pop("last")} for one in map(row, detections)]
    names = [{"id": n + 1, "name": f"class {n}"} for n in range(int(truth[:, 1].max()) + 1)]
    pictures = [
        {"id": n + 1, "file_name": f"{n}.jpg", "width": 500, "height": 500} for n in range(images)
    ]
    content = {"images": pictures, "categories": names, "annotations": objects}
    (folder / "truth.json").write_text(json.dumps(content), "utf-8")
    (folder / "found.json").write_text(json.dumps(found), "utf-8")
    return str(folder / "truth.json"), str(folder / "found.json")


def coco_api(dataset: str, evaluation: str):
    """An evaluator with pycocotools' interface, from two modules."""

    def evaluate(truth, detections, images):
        COCO, COCOeval = importlib.import_module(dataset).COCO, importlib.import_module(evaluation)
        COCOeval = getattr(COCOeval, "COCOeval", None) or COCOeval.COCOeval_faster
        with tempfile.TemporaryDirectory() as folder:
            files = write_coco(Path(folder), truth, detections, images)
            objects = COCO(files[0])
            run = COCOeval(objects, objects.loadRes(files[1]), "bbox")
            run.evaluate()
            run.accumulate()
            run.summarize()
        return 100 * float(run.stats[1]), 100 * float(run.stats[0])

    return evaluate


def torchmetrics(backend: str):
    def evaluate(truth, detections, images):
        import torch
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(backend=backend)
        for objects, found in zip(split(truth, images), split(detections, images), strict=True):
            objects, found = torch.from_numpy(objects), torch.from_numpy(found)
            boxes = {"boxes": objects[:, 2:6], "labels": objects[:, 1].long()}
            results = {"boxes": found[:, 2:6], "labels": found[:, 1].long(), "scores": found[:, 6]}
            metric.update([results], [boxes | {"iscrowd": objects[:, 6].long()}])
        values = metric.compute()
        return 100 * float(values["map_50"]), 100 * float(values["map"])

    return evaluate


def supervision(truth, detections, images):
    import supervision as sv
    from supervision.metrics import MeanAveragePrecision

    metric = MeanAveragePrecision()
    for objects, found in zip(split(truth, images), split(detections, images), strict=True):
        metric.update(
            sv.Detections(found[:, 2:6], class_id=found[:, 1].astype(int), confidence=found[:, 6]),
            sv.Detections(
                objects[:, 2:6],
                class_id=objects[:, 1].astype(int),
                data={"iscrowd": objects[:, 6].astype(int)},
            ),
        )
    values = metric.compute()
    return 100 * values.map50, 100 * values.map50_95


def globox(truth, detections, images):
    from globox import AnnotationSet, COCOEvaluator

    with tempfile.TemporaryDirectory() as folder:
        files = write_coco(Path(folder), truth, detections, images)
        objects = AnnotationSet.from_coco(files[0])
        run = COCOEvaluator(ground_truths=objects, predictions=objects.from_results(files[1]))
        return 100 * run.ap_50(), 100 * run.ap()


def mean_average_precision(truth, detections, images):
    from mean_average_precision import MetricBuilder

    metric = MetricBuilder.build_evaluation_metric("map_2d", num_classes=20)
    for objects, found in zip(split(truth, images), split(detections, images), strict=True):
        crowd = np.zeros((len(objects), 1))
        metric.add(found[:, [2, 3, 4, 5, 1, 6]], np.hstack([objects[:, [2, 3, 4, 5, 1, 6]], crowd]))
    return 100 * float(metric.value(iou_thresholds=0.5)["mAP"]), NAN


def object_detection_metrics(truth, detections, images):
    from podm.metrics import BoundingBox, MetricPerClass, get_pascal_voc_metrics

    objects = [BoundingBox.of_bbox(one[0], one[1], *one[2:6]) for one in truth]
    found = [BoundingBox.of_bbox(one[0], one[1], *one[2:6], one[6]) for one in detections]
    return 100 * float(MetricPerClass.mAP(get_pascal_voc_metrics(objects, found, 0.5))), NAN


def mapcalc(truth, detections, images):
    from mapcalc import calculate_map

    values = []
    for objects, found in zip(split(truth, images), split(detections, images), strict=True):
        if len(objects) and len(found):
            boxes = {"boxes": objects[:, 2:6].tolist(), "labels": objects[:, 1].tolist()}
            results = {"boxes": found[:, 2:6].tolist(), "labels": found[:, 1].tolist()}
            values.append(calculate_map(boxes, results | {"scores": found[:, 6].tolist()}, 0.5))
    return 100 * float(np.mean(values)), NAN


def map_boxes(truth, detections, images):
    from map_boxes import mean_average_precision_for_boxes

    columns = [0, 1, 2, 4, 3, 5]  # its own order: left, right, top, bottom
    objects, found = truth[:, columns], detections[:, [0, 1, 6, 2, 4, 3, 5]]
    values = [
        mean_average_precision_for_boxes(objects, found, iou_threshold=threshold, verbose=False)[0]
        for threshold in THRESHOLDS
    ]
    return 100 * float(values[0]), 100 * float(np.mean(values))


def map_boxes_rising(truth, detections, images):
    """The same rows, those of an image by rising score."""
    return map_boxes(truth, detections[::-1], images)


def ultralytics(truth, detections, images):
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import ap_per_class, box_iou

    settings, correct = SimpleNamespace(iouv=torch.linspace(0.5, 0.95, 10)), []
    for objects, found in zip(split(truth, images), split(detections, images), strict=True):
        objects, found = torch.from_numpy(objects), torch.from_numpy(found)
        overlap = box_iou(objects[:, 2:6], found[:, 2:6])
        hits = BaseValidator.match_predictions(settings, found[:, 1], objects[:, 1], overlap)
        correct.append(hits.numpy())
    found = np.concatenate(split(detections, images))
    values = ap_per_class(np.concatenate(correct), found[:, 6], found[:, 1], truth[:, 1])[5]
    return 100 * float(values[:, 0].mean()), 100 * float(values.mean())


def mmdet(truth, detections, images):
    # its package wants mmcv, a build with compiled parts; this function's module does not
    origin = Path(importlib.util.find_spec("mmdet").origin).parent / "evaluation/functional"
    sys.modules["functional"] = package = types.ModuleType("functional")
    package.__path__ = [str(origin)]
    eval_map = importlib.import_module("functional.mean_ap").eval_map
    objects, found = [], []
    for rows, results in zip(split(truth, images), split(detections, images), strict=True):
        hard = rows[:, 6] > 0
        one = {"bboxes": rows[~hard, 2:6], "labels": rows[~hard, 1].astype(int)}
        one |= {"bboxes_ignore": rows[hard, 2:6], "labels_ignore": rows[hard, 1].astype(int)}
        objects.append(one)
        found.append([results[results[:, 1] == label, 2:] for label in range(20)])
    values = [
        eval_map(found, objects, iou_thr=threshold, nproc=2, logger="silent")[0]
        for threshold in THRESHOLDS
    ]
    return 100 * float(values[0]), 100 * float(np.mean(values))


EVALUATORS = {
    "pycocotools": coco_api("pycocotools.coco", "pycocotools.cocoeval"),
    "faster-coco-eval": coco_api("faster_coco_eval", "faster_coco_eval"),
    "hotcoco": coco_api("hotcoco", "hotcoco"),
    "ultrafast-pycocotools": coco_api("ultrafast_pycocotools", "ultrafast_pycocotools"),
    "vernier": coco_api("pycocotools.coco", "vernier"),
    "torchmetrics": torchmetrics("pycocotools"),
    "torchmetrics, backend faster_coco_eval": torchmetrics("faster_coco_eval"),
    "supervision": supervision,
    "globox": globox,
    "mmdet": mmdet,
    "ultralytics": ultralytics,
    "map-boxes": map_boxes,
    "map-boxes, rows by rising score": map_boxes_rising,
    "object-detection-metrics": object_detection_metrics,
    "mean-average-precision": mean_average_precision,
    "mapcalc": mapcalc,
}

if __name__ == "__main__":
    case = np.load(sys.argv[1])
    for name in sys.argv[2:] or EVALUATORS:
        start, error = time.perf_counter(), None
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                ap50, ap = EVALUATORS[name](case["truth"], case["detections"], int(case["images"]))
            except Exception as raised:
                ap50, ap, error = NAN, NAN, f"{type(raised).__name__}: {raised}"[:200]
        seconds = time.perf_counter() - start
        print(json.dumps({"name": name, "values": [ap50, ap], "s": seconds, "error": error}))
