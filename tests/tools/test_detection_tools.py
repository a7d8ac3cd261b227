"""Detection from the command line: training, its mistakes, resuming, processes, inference."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import ExifTags, Image, ImageOps

from pretrain.errors import UsageError
from tests.conftest import ROOT
from tests.forked import call, start, start_ranks, text_of
from tests.tools.test_tools import demo, fails
from tools import detect, finetune_det
from tools.support.command import load_config
from transfer.detection.config import DatasetConfig, DetectionConfig
from transfer.detection.data import open_data
from transfer.detection.dataset import output_shape
from transfer.detection.inference import find_images

SMALL = [*demo("detection"), "--dataset.short_side", "64",
         "--epochs", "1", "--loader.workers", "0", "--device", "cpu", "--batch_size", "4",
         "--engine", "torchvision"]  # fmt: skip


@pytest.fixture(scope="module")
def trained(worlds, backbone_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("trained")
    done = call("finetune_det", "--backbone", backbone_file, "--data", worlds["detection"], *SMALL,
                "--out", "run", "--epochs", "2", "--stop-after", "3", cwd=out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "stopped after step 3 of 4" in done.stderr
    done = call("finetune_det", "--resume", "run", "--device", "cpu", cwd=out)
    assert done.returncode == 0, done.stderr
    assert "resuming run after epoch 1, step 1" in done.stderr
    assert "Faster R-CNN (torchvision) from resnet10t" in done.stdout
    return out / "run"


def test_a_run_in_slots_of_time_ends_as_any_other(trained):
    result = json.loads((trained / "result.json").read_text())
    assert result["config"]["engine"] == "torchvision"
    assert len((trained / "log.jsonl").read_text().splitlines()) == 2
    for name in ("detections", "precision_recall", "mistakes", "curve"):
        assert (trained / "pictures" / f"{name}.png").stat().st_size > 5000


@pytest.mark.parametrize("kind", ["faster_rcnn", "retinanet"])
def test_two_processes_take_the_steps_of_one(worlds, backbone_file, tmp_path, full, kind):
    if kind != "faster_rcnn" and not full:
        pytest.skip("half a minute; --full")
    retinanet = ["--config", ROOT / "configs" / "detection" / "retinanet_small.yaml"]
    small = [*retinanet, *SMALL[2:]] if kind == "retinanet" else SMALL
    words = ["--backbone", backbone_file, "--data", worlds["detection"], *small]
    with open(tmp_path / "said", "w+") as said:
        options = {"cwd": tmp_path, "stdout": said, "stderr": said}
        for ranks in (
            start_ranks(2, "finetune_det", *words, "--out", "two", **options),
            [start("finetune_det", *words, "--accumulate", 2, "--out", "one", **options)],
        ):
            assert not any([rank.wait(timeout=300) for rank in ranks]), text_of(said)
    two, one = (
        torch.load(tmp_path / name / "detector.pth", weights_only=True)["state_dict"]
        for name in ("two", "one")
    )
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3, msg=name)
    rows = [
        json.loads((tmp_path / name / "detections.json").read_text()) for name in ("two", "one")
    ]
    assert abs(len(rows[0]) - len(rows[1])) < 10
    images = [row["image_id"] for row in rows[0]]
    assert images == sorted(images)  # both shares, in order of the split


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (["--data", "nowhere"], "there is no folder nowhere"),
        (["--data", "empty"], "empty is no Pascal VOC tree: it has no Annotations"),
        (["--data", "no_sets"], "has no ImageSets/Main"),
        (
            ["--dataset.train", "trian"],
            "has no split 'trian'; it has train, val. Did you mean train?",
        ),
        (["--dataset.classes", "[strar]"], "unknown class"),
        (["--dataset.max_corrupt", "-1"], "dataset.max_corrupt is -1"),
        (["--batch_size", "99"], "batch_size is 99, but there are only 10 training images"),
        (["--backbone", "vit.pth"], "vit_tiny_patch16_224 has feature levels of stride"),
        (["--backbone", "DETECTOR"], "format 'detector/3'"),
        (["--detector.anchor_sizes", "[8, 16]"], "it must have five"),
        (["--detector.anchor_sizes", "[.nan, 8, 9, 10, 11]"], "all must be above 0"),
        (["--detector.kind", "ssd", "--detector.box_scales", "[0.1, .nan]"], "must rise from"),
        (["--detector.kind", "ssd", "--detector.box_scales", "[0.1, .inf]"], "must rise from"),
        (["--detector.head", "dc5"], "detectron2's alone"),
        (["--detector.fpn_chanels", "3"], "fpn_chanels"),
        (["--dataset.flip", "2"], "dataset.flip is 2"),
        (["--stop-after", "0"], "--stop-after is 0"),
    ],
)
def test_mistakes(change, said, trained, worlds, backbone_file, tmp_path, monkeypatch, capsys):
    from pretrain.backbone import Backbone, BackboneSpec, Provenance

    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    if "no_sets" in change:
        shutil.copytree(worlds["detection"], "no_sets")
        shutil.rmtree("no_sets/ImageSets")
    if "vit.pth" in change:
        spec = BackboneSpec(arch="vit_tiny_patch16_224", num_classes=2)
        Backbone.of(spec.create(2, 0), spec, Provenance()).save(Path("vit.pth"))
    change = [str(trained / "detector.pth") if word == "DETECTOR" else word for word in change]
    words = ["--backbone", backbone_file, "--data", worlds["detection"], *SMALL, *change]
    fails("finetune_det", *words, capsys=capsys, said=said)
    assert not Path("runs").exists()


def test_detectron2_where_it_is_missing(worlds, backbone_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("transfer.detection.setup.find_spec", lambda name: None)
    words = ["--backbone", backbone_file, "--data", worlds["detection"], *SMALL]
    said = "engine is detectron2, which is not installed here"
    fails("finetune_det", *words, "--engine", "detectron2", capsys=capsys, said=said)


def test_what_a_detector_finds(trained, worlds, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(worlds["detection"] / "JPEGImages", folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("no image")
    done = call("detect", "--detector", trained, "--images", folder, "--out", tmp_path / "out",
                "--least-score", "0.0", "--device", "cpu")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "16 images" in done.stdout
    assert "broken.jpg is no image" in done.stderr
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    wanted = json.loads((trained / "detections.json").read_text())
    assert sum(row["image_id"].startswith("val") for row in rows) == len(wanted)
    pictures = list((tmp_path / "out" / "pictures").iterdir())
    assert len(pictures) == len({row["image_id"] for row in rows})
    if pictures:
        assert Image.open(pictures[0]).size == (128, 128)


def test_mistakes_of_detect(trained, backbone_file, tmp_path, capsys):
    for words, said in (
        (["--detector", tmp_path, "--images", tmp_path], "there is no detector"),
        (["--detector", backbone_file, "--images", tmp_path], "no detector of this project"),
        (["--detector", trained, "--images", tmp_path], "no folder with images"),
        (["--detector", trained, "--images", "x", "--least-score", "7"], "--least-score is 7.0"),
    ):
        fails("detect", *words, capsys=capsys, said=said)


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "detection").glob("*.yaml")), ids=str)
def test_recipes_build_their_detector(path, worlds, backbone):
    """Each recipe on the test's tree, as far as the first step would go."""
    from dataclasses import replace

    from pretrain.backbone import Backbone, BackboneSpec, Provenance
    from transfer.detection.setup import build

    config = load_config(DetectionConfig, path, data=str(worlds["detection"]), batch_size=2)
    plain = replace(config.dataset, train="train", test="val")
    if config.detector.head == "c4":
        spec = BackboneSpec(arch="resnet26", num_classes=2)
        backbone = Backbone.of(spec.create(2, 0), spec, Provenance())
    setup = build(backbone, replace(config, dataset=plain, engine="torchvision"))
    assert setup.steps_per_epoch == 5


def test_the_benchmark_of_detections_runs(worlds, tmp_path):
    from tests.transfer.detection.test_scores_tool import perfect

    results = tmp_path / "r.json"
    results.write_text(json.dumps(perfect(worlds["detection"])))
    done = call("bench", "detections", "--data", worlds["detection"], "--split", "val",
                "--results", results, "--rounds", 1)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| ours, records at hand |" in done.stdout
    assert "voc07 AP50 100.0000" in done.stdout


def photo(path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image = Image.new("RGB", (60, 40))
    image.paste((255, 255, 255), (4, 4, 30, 16))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, exif=exif, quality=95)


def test_images_as_people_keep_them(tmp_path, capsys):
    """Photos turned, folders, hidden files, and what is no image."""
    for name in ("a.jpg", "b/a.JPG", ".hidden/c.jpg", "b/._a.JPG", "d.png"):
        photo(tmp_path / name, 6 if name[0] in "ab" else 1)
    (tmp_path / "note.txt").write_text("no image")
    (tmp_path / "e.jpg").write_bytes(b"no picture")
    (tmp_path / "f.jpg").symlink_to("f.jpg")
    for exif, size in (("apply", (40, 60)), ("ignore", (60, 40))):
        records = find_images(tmp_path, exif)
        held = {record.image_id: (record.width, record.height) for record in records}
        assert held == {"a": size, "b/a": size, "d": (60, 40)}
        assert [r.apply_exif for r in records] == [exif == "apply"] * 2 + [False]
        how = {"apply": "turned as it says", "ignore": "taken as stored"}[exif]
        said = capsys.readouterr().err
        assert f"note: 2 photos have an EXIF orientation and are {how}: a, b/a" in said
        assert "1 .txt (the first is note.txt)" in said
        assert "e.jpg is no image" in said
        assert "f.jpg is no image" in said
        assert "hidden" not in said
    assert [r.image_id for r in find_images(tmp_path / "b/a.JPG")] == ["a"]
    photo(tmp_path / "a.png", 1)
    with pytest.raises(UsageError, match="two images called a"):
        find_images(tmp_path)
    with pytest.raises(UsageError, match=r"no file or folder .*nowhere with images"):
        find_images(tmp_path / "nowhere")


def test_images_of_one_row_or_column_cost_no_call(trained, tmp_path, capsys):
    """They are a line each, as is a file that cannot be decoded."""
    assert output_shape(1, 150, 64, 64) == (1, 64)
    folder = tmp_path / "in"
    photo(folder / "plain.png", 1)
    Image.effect_noise((300, 200), 60).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:9000])
    for name, size in (("flat", (3000, 1)), ("tall", (1, 3000))):
        Image.new("RGB", size).save(folder / f"{name}.png")
    words = ["--detector", trained, "--images", folder, "--out", tmp_path / "out"]
    detect.main([*map(str, words), "--device", "cpu", "--no-pictures", "--least-score", "0"])
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["image_id"] for row in rows} == {"plain"}
    said = capsys.readouterr().err
    assert all(f"{name}.png" in said for name in ("cut", "flat", "tall"))


def test_a_turned_photo_is_detected_as_it_is_displayed(trained, tmp_path):
    """What is found in it is what is found in the same picture, stored as it is displayed."""
    photo(tmp_path / "in/turned.png", 6)
    ImageOps.exif_transpose(Image.open(tmp_path / "in/turned.png")).save(tmp_path / "in/plain.png")
    for exif in ("apply", "ignore"):
        words = ["--detector", trained, "--images", tmp_path / "in", "--out", tmp_path / exif]
        detect.main([*map(str, words), "--device", "cpu", "--no-pictures", "--exif", exif])
        rows: dict[str, list] = {"turned": [], "plain": []}
        for row in json.loads((tmp_path / exif / "detections.json").read_text()):
            rows[row.pop("image_id")].append(row)
        assert rows["plain"]
        assert (rows["turned"] == rows["plain"]) == (exif == "apply")


def test_a_dry_run_shows_the_notes_of_the_run(worlds, backbone_file, tmp_path, capsys):
    tree = Path(shutil.copytree(worlds["detection"], tmp_path / "tree"))
    xml = tree / "Annotations/train_000000.xml"
    text = xml.read_text()
    corner = text[text.index("<xmin>") : text.index("</xmin>")]
    xml.write_text(text.replace(corner, "<xmin>0", 1))
    (tree / "ImageSets/Main/val.txt").write_text("train_000000\nval_000000\n")
    words = ["--backbone", backbone_file, "--data", tree, *SMALL, "--dry-run"]
    finetune_det.main(list(map(str, words)))
    shown = capsys.readouterr().out
    notes = open_data(tree, DatasetConfig()).notes
    assert len(notes) == 4
    assert all(f"# note: {note}\n" in shown for note in notes)
    assert "give --dataset.first_pixel 0" in shown


def test_a_run_without_a_class_to_average(worlds, backbone_file, tmp_path, capsys, monkeypatch):
    """The test split holds difficult objects alone: a dash, and no figure that is none."""
    monkeypatch.chdir(tmp_path)
    tree = Path(shutil.copytree(worlds["detection"], tmp_path / "tree"))
    for xml in tree.glob("Annotations/val_*.xml"):
        xml.write_text(xml.read_text().replace("<difficult>0<", "<difficult>1<"))
    words = ["--backbone", backbone_file, "--data", tree, *SMALL, "--out", "run"]
    words += ["--detector.test_proposals", "20", "--detector.rois", "16", "--batch_size", "8"]
    words += ["--detector.proposals", "20", "--detector.head_channels", "32"]
    finetune_det.main([str(word) for word in words])
    shown, logged = capsys.readouterr()
    assert "note: val: no object to find that is not difficult, so there is no score" in logged
    assert "AP50       - (VOC07 11-point)       - (area)   over 0 classes" in shown
    assert "no mean: no class has an object to find" in shown
    metrics = json.loads(Path("run/result.json").read_text())["metrics"]
    assert metrics["classes_in_mean"] == 0
    assert not {"AP50", "AP_area", "AP50_best"} & metrics.keys()
