"""MS-COCO's measure, results files, and tools/score_detections.py as a user calls it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pretrain.errors import UsageError
from tests.transfer.detection.test_average_precision import BOX, FAR, found, records
from tools import score_detections
from tools.support.command import run_main
from transfer.detection.coco_average_precision import evaluate_coco
from transfer.detection.detections_file import read_detections, read_names
from transfer.detection.records import Record, Records
from transfer.detection.voc import read_voc


def perfect(tree: Path, split: str = "val") -> list[dict]:
    held = read_voc(tree, split)
    return [
        found(r.image_id, held.classes[label], tuple(box), 0.9)
        for r in held.images
        for box, label in zip(r.boxes.tolist(), r.labels, strict=True)
    ]


# ------------------------------------------------------------------------------ MS-COCO's measure


def test_coco_by_hand():
    pytest.importorskip("pycocotools")
    truth = records({"a": [("cat", BOX, False), ("cat", FAR, True)], "b": []})
    rows = [found("a", "cat", BOX, 0.9), found("a", "cat", FAR, 0.8)]
    scores = evaluate_coco(truth, rows)
    assert scores["AP"] == pytest.approx(100)  # the difficult one is left out
    assert scores["AP_large"] is None
    half = found("a", "cat", (10, 10, 30, 20), 0.9)  # an overlap of exactly 0.5 counts here
    assert evaluate_coco(truth, [half])["AP50"] == pytest.approx(100)
    assert evaluate_coco(truth, [])["AP50"] == 0


def test_coco_of_the_reference_case(shared, unpacked, monkeypatch, full):
    """57.4163 and 26.6199: pycocotools on a file made from the same XML by others."""
    if not full:
        pytest.skip("run with --full")
    import gzip

    parameters = pytest.importorskip("pycocotools.cocoeval").Params
    whole = parameters.setDetParams

    def two_thresholds_of_all_sizes(self) -> None:
        whole(self)
        self.iouThrs = np.array([0.5, 0.75])
        self.areaRng, self.areaRngLbl = self.areaRng[:1], ["all"]

    monkeypatch.setattr(parameters, "setDetParams", two_thresholds_of_all_sizes)
    tree = unpacked("golden/voc_eval/voc.tar.xz") / "VOC"
    truth = read_voc(tree, "test", images=False, cached=False)
    packed = (shared / "golden/voc_eval/detections.json.gz").read_bytes()
    scores = evaluate_coco(truth, json.loads(gzip.decompress(packed)))
    ours = [scores[key] for key in ("AP50", "AP75")]
    np.testing.assert_allclose(ours, [57.4163, 26.6199], atol=1e-4)


# ------------------------------------------------------------------------------------ results files


def write(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_categories_by_number(tmp_path):
    truth = records({"000007": [("cat", BOX, False)]})
    row = {"image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4], "score": 1}
    path = write(tmp_path / "r.json", [row])
    (read,) = read_detections(path, truth, {5: "cat"})
    assert (read["category"], read["image_id"]) == ("cat", "000007")
    with pytest.raises(UsageError, match=r"--categories FILE.*\"1\": \"cat\", \"2\": \"dog\""):
        read_detections(path, truth)
    with pytest.raises(UsageError, match="number 0 has category_id 5; known are 4 cat"):
        read_detections(path, truth, {4: "cat"})


def test_maps_of_categories(tmp_path):
    plain = write(tmp_path / "a.json", {"1": "cat"})
    coco = write(tmp_path / "b.json", {"categories": [{"id": 1, "name": "cat"}]})
    assert read_names(plain) == read_names(coco) == {1: "cat"}
    with pytest.raises(UsageError, match="no map of categories"):
        read_names(write(tmp_path / "c.json", ["cat"]))


def read_rows(folder: Path, truth: Records, **change) -> list[dict]:
    row = {"image_id": 5, "category": "cat", "bbox": [1, 2, 3, 4], "score": 0.5} | change
    row = {key: value for key, value in row.items() if value is not ...}
    return read_detections(write(folder / "r.json", [row]), truth)


def named(*ids: str | int) -> Records:
    """Images without objects, 100 x 80, of files 0001.jpg, 0002.jpg, ..."""
    listed = [
        Record(image_id=one, path=Path(f"train/{number:04}.jpg"), width=100, height=80)
        for number, one in enumerate(ids, 1)
    ]
    return Records(classes=("cat", "traffic light"), images=tuple(listed), category_ids=(1, 3))


@pytest.mark.parametrize(
    ("given", "meant"),
    [(5, 5), ("5", 5), (5.0, 5), ("0005", 5), ("0001.jpg", 5), ("train/0001.jpg", 5),
     ("C:\\data\\0001.png", 5), ("0002", 9), (2, 9), ("other", "other"), ("0003.jpg", "0003.jpg")],
)  # fmt: skip
def test_what_images_are_called(given, meant, tmp_path):
    (row,) = read_rows(tmp_path, named(5, 9), image_id=given)
    assert row["image_id"] == meant


def test_an_image_that_may_be_two(tmp_path):
    """A file's number and another image's id."""
    truth = named(2, 9)
    with pytest.raises(UsageError, match=r"image '0002', which may be any of 2, 9\. Give the ids"):
        read_rows(tmp_path, truth, image_id="0002")
    assert read_rows(tmp_path, truth, image_id="0002.jpg")[0]["image_id"] == 9


def test_spellings_of_a_class_are_joined_if_asked(tmp_path):
    path = write(tmp_path / "r.json", [found(2, " CAT ", BOX, 0.5), found(2, 7, BOX, 0.5)])
    rows = read_detections(path, named(2), join=True)
    assert [row["category"] for row in rows] == ["cat", 7]
    with pytest.raises(UsageError, match=r"' CAT ' for 'cat'.*or --similar-names join"):
        read_detections(path, named(2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score": ...}, "number 0 has the score None; it must be a number"),
        ({"score": "0.9"}, "the score '0.9'"),
        ({"score": float("nan")}, "the score nan"),
        ({"score": True}, "the score True"),
        ({"bbox": ...}, "the bbox None; it must be x, y, width, height in pixels"),
        ({"bbox": [1, 2, 3]}, "the bbox .1, 2, 3."),
        ({"bbox": [1, 2, 3, "4"]}, "the bbox .1, 2, 3, '4'."),
        ({"category": "Cat"}, "another spelling than the ground truth: 'Cat' for 'cat'"),
        ({"category": "trafficlight"}, "'trafficlight' for 'traffic light'"),
        ({"category": ..., "category_id": 2}, "has category_id 2; known are 1 cat, 3 traffic"),
        ({"bbox": [0.1, 0.2, 0.5, 0.5]}, "fractions of the image, .* number 0: 0.1, 0.2"),
        ({"bbox": [40, 30, 90, 70]}, "x1, y1, x2, y2, .*: 1 of 1 .* number 0: 40, 30, 90, 70 of 1"),
        ({"bbox": [400, 30, 90, 70]}, "1 of 1 boxes reach .* pixels of a resized image"),
    ],
)
def test_entries_that_are_no_detections(change, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        read_rows(tmp_path, named(5, 9), **change)


def test_categories_written_as_text(tmp_path):
    for number in (3, "3", 3.0):
        (row,) = read_rows(tmp_path, named(5), category=..., category_id=number)
        assert row["category"] == "traffic light"


def test_corners_of_drawn_shapes(worlds, tmp_path):
    """Refused as corners, and not as they are."""
    truth, rows = read_voc(worlds["detection"], "train"), perfect(worlds["detection"], "train")
    assert read_detections(write(tmp_path / "r.json", rows), truth) == rows
    for row in rows:
        x, y, width, height = row["bbox"]
        row["bbox"] = [x, y, x + width, y + height]
    with pytest.raises(UsageError, match="bbox is x1, y1, x2, y2, it seems"):
        read_detections(write(tmp_path / "r.json", rows), truth)


# ---------------------------------------------------------------------------------------- the tool


def call(*words, capsys, code: int | None = None) -> str:
    def tool() -> None:
        score_detections.main([str(word) for word in words])

    if code is None:
        run_main(tool)
        return capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        run_main(tool)
    assert stop.value.code == code
    return capsys.readouterr().err


def test_perfect_detections_score_a_hundred(worlds, tmp_path, capsys):
    tree, out = worlds["detection"], tmp_path / "scores.json"
    path = write(tmp_path / "r.json", perfect(tree))
    text = call("--data", tree, "--split", "val", "--results", path, "--out", out, capsys=capsys)
    assert "AP50             100.00  100.00" in text
    held = json.loads(out.read_text())
    assert held["mean"]["voc07"] == {"AP": 100, "AP50": 100, "AP75": 100}
    assert set(held["area"]) == {f"0.{k}" for k in range(50, 100, 5)}
    classes = read_voc(tree, "val").classes
    assert set(held["voc07"]["0.75"]) == set(classes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"--data": "nowhere"}, "there is no folder nowhere"),
        ({"--split": "vall"}, "has no split 'vall'; it has train, val. Did you mean val?"),
        ({"--results": "none.json"}, "there is no file none.json"),
        ({"--results": "torn.json"}, "torn.json:1: it is no JSON"),
        ({"--results": "object.json"}, "is no results list"),
        ({"--results": "truth.json"}, "is an annotation file"),
        ({"--results": "far.json"}, "names image 'x', which is not among the 6 images"),
        ({"--results": "class.json"}, "more classes than the split, name all of them: --classes"),
        ({"--classes": "cat"}, "unknown class"),
    ],
)
def test_mistakes(change, said, worlds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = perfect(worlds["detection"])
    write(Path("good.json"), rows)
    Path("torn.json").write_text("[{")
    write(Path("object.json"), {"a": 1})
    write(Path("truth.json"), {"annotations": [], "images": []})
    write(Path("far.json"), [{**rows[0], "image_id": "x"}])
    write(Path("class.json"), [{**rows[0], "category": "kat"}])
    options = {"--data": worlds["detection"], "--split": "val", "--results": "good.json"}
    words = [word for pair in (options | change).items() for word in pair]
    assert said in call(*words, capsys=capsys, code=2)


def test_help_needs_no_torch():
    import subprocess

    code = (
        "import sys; sys.argv = ['x', '--help']\n"
        "sys.path.insert(0, 'tools')\n"
        "import runpy\n"
        "try: runpy.run_path('tools/score_detections.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    root = Path(__file__).resolve().parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, capture_output=True)
