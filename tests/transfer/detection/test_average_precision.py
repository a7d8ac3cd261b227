"""The evaluator against detectron2's figures, a naive loop, and cases worked out by hand."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from pretrain.errors import UsageError
from transfer.detection.average_precision import (
    THRESHOLDS,
    best_overlaps,
    evaluate,
    match_detections,
)
from transfer.detection.records import Record, Records
from transfer.detection.voc import read_voc


def records(images: dict[str, list[tuple]], classes=("cat", "dog")) -> Records:
    """{image: [(class, box, difficult)]} as records."""
    return Records(
        classes=tuple(classes),
        images=tuple(record(name, things, classes) for name, things in images.items()),
    )


def record(name: str, things: list[tuple], classes=("cat", "dog")) -> Record:
    return Record(
        image_id=name,
        path=Path(name),
        width=100,
        height=100,
        boxes=np.array([thing[1] for thing in things], dtype=float).reshape(-1, 4),
        labels=np.array([classes.index(thing[0]) for thing in things], dtype=np.int64),
        difficult=np.array([thing[2] for thing in things], dtype=bool),
        crowd=np.zeros(len(things), dtype=bool),
    )


def found(image: str, category: str, box: tuple, score: float) -> dict:
    left, top, right, bottom = box
    return {
        "image_id": image,
        "category": category,
        "score": score,
        "bbox": [left, top, right - left, bottom - top],
    }


BOX, FAR = (10, 10, 30, 30), (60, 60, 90, 90)


def ap50(truth: Records, rows: list[dict], name: str = "cat") -> tuple:
    scores = evaluate(truth, rows)
    return scores.voc07["0.50"][name], scores.area["0.50"][name]


@pytest.mark.parametrize("which", ["tiefree", "full"])
def test_equals_detectron2(which, shared, unpacked):
    """Every class, threshold and metric of the reference case, 4,952 images."""
    folder = shared / "golden" / "voc_eval"
    tree = unpacked("golden/voc_eval/voc.tar.xz") / "VOC"
    truth = read_voc(tree, "test", images=False, cached=False)
    name = "detections_tiefree.json.gz" if which == "tiefree" else "detections.json.gz"
    rows = json.loads(gzip.decompress((folder / name).read_bytes()))
    wanted = json.loads((folder / f"detectron2_{which}.json").read_text())
    scores = evaluate(truth, rows, rounding=True)
    # with ties its own sort is unstable: only the means can be compared, loosely
    for metric in ("voc07", "area"):
        ours = np.array(
            [[getattr(scores, metric)[t][c] for c in wanted["classes"]] for t in THRESHOLDS]
        )
        theirs = np.array([wanted[metric][t] for t in THRESHOLDS])
        if which == "tiefree":
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
        else:
            np.testing.assert_allclose(ours.mean(1), theirs.mean(1), atol=0.06)
    if which == "full":
        assert evaluate(truth, rows).mean["voc07"]["AP50"] == pytest.approx(54.33, abs=0.01)


def naive_ap(truth: Records, rows: list[dict], name: str, threshold: float, metric: str) -> float:
    """Pascal VOC's definition, one detection after the other."""
    label = truth.classes.index(name)
    things = {
        r.image_id: [
            (b, d) for b, la, d in zip(r.boxes, r.labels, r.difficult, strict=True) if la == label
        ]
        for r in truth.images
    }
    taken = {image: [False] * len(held) for image, held in things.items()}
    mine = sorted((r for r in rows if r["category"] == name), key=lambda r: -r["score"])
    hits, to_find = [], sum(not d for held in things.values() for _, d in held)
    for row in mine:
        x, y, w, h = row["bbox"]
        overlaps = []
        for box, _ in things[row["image_id"]]:
            across = min(x + w, box[2]) - max(x, box[0])
            down = min(y + h, box[3]) - max(y, box[1])
            shared = max(across, 0) * max(down, 0)
            area = (box[2] - box[0]) * (box[3] - box[1])
            overlaps.append(shared / (w * h + area - shared))
        best = int(np.argmax(overlaps)) if overlaps else -1
        if best < 0 or overlaps[best] <= threshold:
            hits.append(0)
        elif not things[row["image_id"]][best][1]:
            hits.append(0 if taken[row["image_id"]][best] else 1)
            taken[row["image_id"]][best] = True
    true = np.cumsum(hits)
    recall, precision = true / to_find, true / np.arange(1, len(hits) + 1)
    if metric == "voc07":
        points = [
            max([p for r, p in zip(recall, precision, strict=True) if r >= t], default=0)
            for t in np.arange(0, 1.1, 0.1)
        ]
        return 100 * sum(points) / 11
    total, last = 0.0, 0.0
    for place in range(len(hits)):
        total += (recall[place] - last) * max(precision[place:])
        last = recall[place]
    return 100 * total


def random_case(seed: int) -> tuple[Records, list[dict]]:
    draw = np.random.default_rng(seed)
    images: dict[str, list[tuple]] = {}
    rows = []
    for number in range(12):
        things = []
        for _ in range(int(draw.integers(0, 6))):
            left, top = draw.uniform(0, 60, 2)
            right, bottom = np.array([left, top]) + draw.uniform(5, 40, 2)
            box = (left, top, right, bottom)
            name = str(draw.choice(["cat", "dog"]))
            things.append((name, box, draw.random() < 0.2))
            for _ in range(int(draw.integers(0, 3))):
                moved = np.array(box) + draw.normal(0, 3, 4)
                moved[2:] = np.maximum(moved[:2], moved[2:])  # some without area
                rows.append(found(str(number), name, tuple(moved), float(draw.random())))
        images[str(number)] = things
    images["all"] = [("cat", BOX, False), ("dog", BOX, False)]
    return records(images), rows


@pytest.mark.parametrize("seed", range(10))
def test_equals_a_naive_loop(seed):
    truth, rows = random_case(seed)
    scores = evaluate(truth, rows)
    for metric in ("voc07", "area"):
        for threshold in THRESHOLDS:
            for name in truth.classes:
                wanted = naive_ap(truth, rows, name, float(threshold), metric)
                ours = getattr(scores, metric)[threshold][name]
                assert ours == pytest.approx(wanted, abs=1e-9)


def test_perfect_and_empty():
    truth = records({"a": [("cat", BOX, False)], "b": []})
    assert ap50(truth, [found("a", "cat", BOX, 0.9)]) == (100, 100)
    assert ap50(truth, []) == (0, 0)
    assert ap50(truth, [found("b", "cat", BOX, 0.9)]) == (0, 0)


def test_second_hit_on_an_object_is_a_false_positive():
    truth = records({"a": [("cat", BOX, False), ("cat", FAR, False)]})
    rows = [found("a", "cat", BOX, 0.9), found("a", "cat", BOX, 0.8), found("a", "cat", FAR, 0.7)]
    # precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1
    assert ap50(truth, rows)[1] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))


def test_overlap_must_exceed_the_threshold():
    """Half the box is exactly 0.5: no hit."""
    truth = records({"a": [("cat", (0, 0, 10, 10), False)]})
    assert ap50(truth, [found("a", "cat", (0, 0, 10, 5), 1)]) == (0, 0)
    assert ap50(truth, [found("a", "cat", (0, 0, 10, 5.01), 1)]) == (100, 100)


def test_difficult_objects_count_neither_way():
    truth = records({"a": [("cat", BOX, True), ("cat", FAR, False)]})
    rows = [found("a", "cat", BOX, 0.9), found("a", "cat", BOX, 0.8), found("a", "cat", FAR, 0.7)]
    assert ap50(truth, rows) == (100, 100)


def test_classes_without_objects_stay_out_of_the_mean():
    truth = records({"a": [("cat", BOX, False), ("dog", FAR, True)]})
    scores = evaluate(truth, [found("a", "cat", BOX, 0.9), found("a", "dog", BOX, 0.9)])
    assert scores.voc07["0.50"] == {"cat": 100, "dog": None}
    assert scores.mean["area"] == {"AP": 100, "AP50": 100, "AP75": 100}
    assert scores.num_classes == 1
    scores = evaluate(records({"a": [("dog", FAR, True)]}), [])
    assert scores.mean["voc07"] == {"AP": None, "AP50": None, "AP75": None}
    assert scores.num_classes == 0


def test_equal_scores_keep_their_order():
    truth = records({"a": [("cat", BOX, False)]})
    right, wrong = found("a", "cat", BOX, 0.5), found("a", "cat", FAR, 0.5)
    assert ap50(truth, [right, wrong])[1] == 100
    assert ap50(truth, [wrong, right])[1] == 50
    scores = np.random.default_rng(0).integers(0, 7, 1000).tolist()  # of few, chance keeps it
    matches = match_detections(truth, [found("a", "cat", BOX, score) for score in scores])
    wanted = sorted(range(len(scores)), key=lambda number: -scores[number])
    assert matches["cat"].rows.tolist() == wanted


def test_unknown_image_or_class_is_named():
    truth = records({"a": [("cat", BOX, False)]})
    with pytest.raises(UsageError, match="'b'"):
        evaluate(truth, [found("b", "cat", BOX, 1)])
    with pytest.raises(UsageError, match="'horse'"):
        evaluate(truth, [found("a", "horse", BOX, 1)])


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [1, 2, 3]},
        {"bbox": [1, 2, -3, 4]},
        {"bbox": [1, 2, float("nan"), 4]},
        {"score": None},
        {"score": float("inf")},
        {"image_id": ["a"]},
    ],
)
def test_what_is_no_detection_is_named(change):
    truth = records({"a": [("cat", BOX, False)]})
    good = found("a", "cat", BOX, 1)
    with pytest.raises(UsageError, match=r"number 1 of the detections is .* it must have image_id"):
        evaluate(truth, [good, {**good, **change}])
    with pytest.raises(UsageError, match="number 1 of the detections"):  # eight numbers in all
        evaluate(truth, [good, {**good, "bbox": [1, 2, 3]}, {**good, "bbox": [1, 2, 3, 4, 5]}])


def test_best_overlap_takes_the_first_of_equals():
    boxes = np.array([[0.0, 0, 10, 10], [0, 0, 10, 10]])
    overlap, target = best_overlaps(
        boxes[:1], np.array([1]), np.concatenate([boxes, boxes]), np.array([0, 1, 1, 2])
    )
    assert overlap.tolist() == [1]
    assert target.tolist() == [1]
