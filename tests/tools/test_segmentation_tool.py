"""Segmentation transfer from the command line: what it shows, says and leaves, and its mistakes."""

import importlib
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.tools.test_tools import demo, fails, inside
from transfer import task
from transfer.report import read_runs, tabulate, to_html
from transfer.segmentation.config import segmenter_name

SMALL = [*demo("segmentation"), "--dataset.crop_size", "32", "--loader.workers", "0",
         "--device", "cpu", "--batch_size", "4"]  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_a_folder_to_figures_and_a_page(here, worlds, backbone_file, capsys):
    """Stopped and resumed; every picture that the report looks for is there."""
    words = ["--backbone", backbone_file, "--data", worlds["segmentation"], *SMALL]
    words = [str(word) for word in [*words, "--epochs", "2", "--out", "runs/mine"]]
    code, error = inside("finetune_seg", *words, "--stop-after", "4", capsys=capsys)
    assert code == 0, error
    assert "stopped after step 4 of 6" in error
    importlib.import_module("tools.finetune_seg").main(["--resume", "runs/mine", "--device", "cpu"])
    out = capsys.readouterr().out
    result = json.loads(Path("runs/mine/result.json").read_text())
    metrics = result["metrics"]
    assert result["task"] == "segmentation"
    assert f"{metrics['mIoU']:.1f}" in out.split("  mean")[1].split()[0]
    for said in ("FCN from resnet10t", "IoU    Dice", "background", "boundary F", "segmenter.pth"):
        assert said in out
    assert out.count("\n  ") >= 11 + 4  # a line for each class
    assert {one.key for one in task.by_name("segmentation").metrics if one.main} - {
        "Dice_3D"
    } <= metrics.keys()
    found = read_runs(Path("runs"))
    page = to_html(tabulate(found), found)
    assert "Segmentations" in page
    assert "No segmentation run here has left" not in page
    assert "Images, masks, label maps and their errors: " in page


def test_a_result_of_volumes_is_told_as_such(here, capsys):
    from pretrain.run import Result, Run
    from tools.finetune_seg import summarize

    scores = {"RV": 80.0, "MYO": None}
    result = Result(
        task="segmentation",
        metric="Dice_3D",
        metrics={"Dice_3D": 80.0, "per_class_Dice_3D": scores, "per_class_IoU": scores,
                 "epochs": 3, "classes_in_mean": 1, "images_left_out": 2},
        backbone={"name": "net", "fingerprint": "f" * 16},
        data={"name": "ACDC", "train": 40, "val": 9},
        seed=0,
        config={"segmenter": {"kind": "unet"}},
        seconds=60.0,
        environment={},
    )  # fmt: skip
    text = summarize(result, Run(here / "run"))
    assert "U-Net from net" in text
    assert "IoU 3D Dice" in text
    assert "9 slices; 2 images could not be read" in text
    assert "MYO                    -       -" in text
    assert segmenter_name({"segmenter": 3}) == ""


def test_mistakes_of_options_and_data(here, worlds, backbone_file, capsys):
    words = ["--backbone", backbone_file, "--data", worlds["segmentation"], *SMALL]
    for more, said in (
        (["--segmenter.decoder_channels", "[8]"], "segmenter.decoder_channels is of unet"),
        (["--segmenter.kind", "mask2former"], "segmenter.kind"),
        (["--segmenter.output_stride", "4"], "output_stride is 4; it must be one of 8, 16, 32"),
        (["--mixing.cutmix", "0.8", "--mixing.mosaic", "0.8"], "1.6 together"),
        (["--dataset.val", "none"], "there is no split 'none'"),
        (["--batch_size", "99"], "there are only 12 training images"),
    ):
        fails("finetune_seg", *words, *more, capsys=capsys, said=said)
    shutil.copytree(worlds["segmentation"], "tree")
    Image.new("L", (9, 9)).save("tree/masks/train/000001.png")
    fails("finetune_seg", *words, "--data", "tree", capsys=capsys, said="its mask 9 x 9")
    assert [path.name for path in here.iterdir()] == ["tree"]
