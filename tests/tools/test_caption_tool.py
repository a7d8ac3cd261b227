"""caption.py on folders as people have them, and what finetune_cap.py --dry-run says of data."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.errors import UsageError
from tests.tools.test_tools import demo, inside
from tools import finetune_cap
from tools.caption import main
from transfer.captioning.captioner import Captioner, build_decoder
from transfer.captioning.config import DecodingConfig, ModelConfig
from transfer.captioning.inference import image_files
from transfer.captioning.vocabulary import SPECIAL, Vocabulary


@pytest.fixture
def run(backbone, tmp_path, monkeypatch):
    """A captioner of no training in run/, and a function that captions photos/ with it."""
    monkeypatch.chdir(tmp_path)
    model = ModelConfig(embed_size=4, hidden_size=4)
    Path("run").mkdir()
    Captioner(
        backbone=backbone,
        model=model,
        decoding=DecodingConfig(beam=1, max_length=4),
        vocabulary=Vocabulary((*SPECIAL, "一", "犬"), "characters"),
        weights=build_decoder(512, 6, model).state_dict(),
    ).save(Path("run/captioner.pth"))
    Path("photos/more").mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8)
    for name, orientation in (("a.jpg", 6), ("b.JPG", 1), ("more/c.png", 3), ("e.bmp", None)):
        tag = Image.Exif()
        if orientation:
            tag[0x0112] = orientation
        Image.fromarray(pixels).save(Path("photos") / name, exif=tag)

    def caption(*words):
        main(["--captioner", "run", "--images", "photos", "--workers", "0", *words])
        return json.loads(Path("photos-captions/captions.json").read_text())

    return caption


def test_photos_with_an_orientation_are_turned_and_counted(run, capsys, monkeypatch):
    from transfer.captioning import inference

    asked = []
    real = inference.caption_files

    def spy(*args, **options):
        asked.append(options["apply_exif"])
        return real(*args, **options)

    monkeypatch.setattr(inference, "caption_files", spy)
    rows = run()
    assert [row["image_id"] for row in rows] == ["a.jpg", "b.JPG", "e.bmp", "more/c.png"]
    assert all(" " not in row["caption"] for row in rows)  # of characters
    err = capsys.readouterr().err
    assert "2 of 4 photos carry an EXIF orientation: turned as it says\n" in err
    run("--exif", "ignore")
    err = capsys.readouterr().err
    assert "2 of 4 photos carry an EXIF orientation: taken as they are stored (--exif ig" in err
    assert asked == [True, False]
    with pytest.raises(UsageError, match=r"--exif: invalid choice: 'maybe'"):
        main(["--captioner", "run", "--images", "photos", "--exif", "maybe"])


def test_nothing_is_left_out_in_silence(run, capsys):
    """What is no image by its name is counted and named; what is hidden is skipped."""
    for name in ("._a.jpg", "more/.hidden.png", "notes.txt", "clip.mov", "more/x.heic", "list.csv"):
        (Path("photos") / name).write_bytes(b"no picture")
    Path("photos/.thumbs").mkdir()
    shutil.copy("photos/a.jpg", "photos/.thumbs/a.jpg")
    Path("photos/a.jpg").unlink()
    assert len(run()) == 3
    err = capsys.readouterr().err
    assert "1 of 3 photos carry an EXIF orientation" in err  # the PNG
    (line,) = [x for x in err.splitlines() if "left out" in x]
    assert line == (
        "photos: 4 files are left out, no images by their names: 1 .mov (the first is clip.mov), "
        "1 .csv (the first is list.csv), 1 .heic (the first is more/x.heic), "
        "1 .txt (the first is notes.txt)"
    )
    assert [str(path) for path in image_files(Path("photos"))] == [
        "photos/b.JPG", "photos/e.bmp", "photos/more/c.png"
    ]  # fmt: skip


def test_a_dry_run_says_what_the_run_would(worlds, backbone_file, tmp_path, monkeypatch, capsys):
    """The reader's lines, notes, unknown words by a count by hand, and the refusal of a batch."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(worlds["captions"], "tree")
    path = Path("tree/annotations/captions_train2017.json")
    content = json.loads(path.read_text())
    for place, entry in enumerate(content["annotations"]):
        # 9 captions of 3 words, a full stop among them, and 50 of 2, of which one stands once
        entry["caption"] = "狗 在 ." if place < 9 else f"狗 w{place}"
    content["annotations"][-1]["caption"] = " "
    path.write_text(json.dumps(content))
    words = [*demo("captioning"), "--backbone", backbone_file]
    words += ["--data", "tree", "--dry-run", "--device", "cpu"]
    words += ["--dataset.tokenizer", "none", "--dataset.min_count", "2", "--meteor", "auto"]
    finetune_cap.main([*map(str, words), "--batch_size", "59"])
    printed = capsys.readouterr()
    assert "captions_train2017.json: left out 1 captions that are empty" in printed.err
    assert "# METEOR is left out: it is for English, and the tokenizer is none\n" in printed.out
    share = 50 / (9 * 3 + 50 * 2)
    said = f"unknown words (seen fewer than 2 times): {share:.1%} in the training and 100.0% in the"
    assert said in printed.out
    said = "batch_size is 60, but there are only 59 training samples. Give a smaller batch_size."
    code, error = inside("finetune_cap", *words, "--batch_size", "60", capsys=capsys)
    assert (code, error.splitlines()[-1]) == (2, f"error: {said}")
    assert os.listdir() == ["tree"]
