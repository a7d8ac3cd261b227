"""caption.py on folders as people have them, and what finetune_cap.py --dry-run says of data."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.errors import UsageError
from pretrain.images import decode
from tests.tools.test_tools import demo, inside
from tests.transfer.test_caption_decoding import PlainEnsemble
from tools import finetune_cap
from tools.caption import main
from tools.support.benchmarks._naive_beam import one_by_one
from transfer.captioning.captioner import Captioner, build_decoder
from transfer.captioning.config import DecodingConfig, ModelConfig
from transfer.captioning.ensemble import check_vocabularies
from transfer.captioning.inference import image_files
from transfer.captioning.vocabulary import SPECIAL, Vocabulary
from transfer.feature_cache import Encoder, with_image_size

WORDS = "一犬猫木水火"


def save_captioner(backbone, path, kind="nic", words="一犬", seed=0):
    """Of no training, but in no doubt about the words."""
    torch.manual_seed(seed)
    model = ModelConfig(kind=kind, embed_size=4, hidden_size=4, attention_size=4)
    weights = build_decoder(512, len(SPECIAL) + len(words), model).state_dict()
    weights["classify.weight"] *= 20
    captioner = Captioner(
        backbone=backbone,
        model=model,
        decoding=DecodingConfig(beam=1, max_length=4),
        vocabulary=Vocabulary((*SPECIAL, *words), "characters"),
        weights=weights,
    )
    captioner.save(Path(path))
    return captioner


@pytest.fixture
def run(backbone, tmp_path, monkeypatch):
    """A captioner of no training in run/, and a function that captions photos/ with it."""
    monkeypatch.chdir(tmp_path)
    Path("run").mkdir()
    save_captioner(backbone, "run/captioner.pth")
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


def test_several_captioners_are_searched_as_one(run, backbone, monkeypatch):
    """Of two kinds and input sizes, beside a plain loop over images and members."""
    kinds = {"a.pth": "attention", "b.pth": "attention", "c.pth": "nic"}
    small = with_image_size(backbone, 32)
    members = [
        save_captioner(small if kind == "nic" else backbone, name, kind, WORDS, seed)
        for seed, (name, kind) in enumerate(kinds.items())
    ]
    encoded = []
    forward = Encoder.forward
    monkeypatch.setattr(
        Encoder, "forward", lambda self, x: encoded.append(len(x)) or forward(self, x)
    )
    rows = run("--captioner", *kinds, "--beam", "3", "--max-length", "6")
    assert [count for count in encoded if count > 1] == [4, 4]  # equal encoders encode once
    built = [captioner.build() for captioner in members]
    encoders, decoders = zip(*built, strict=True)
    alone = []
    with torch.inference_mode():
        for row, path in zip(rows, image_files(Path("photos")), strict=True):
            image = decode(path, apply_exif=True)
            features = [
                encoder(captioner.backbone.preprocess()(image)[None])[0]
                for captioner, encoder in zip(members, encoders, strict=True)
            ]
            words, _ = one_by_one(PlainEnsemble(decoders, features), torch.empty(0), 3, 6)
            assert row["caption"] == members[0].vocabulary.decode(words)
            alone += [one_by_one(*one, 3, 6)[0] for one in zip(decoders, features, strict=True)]
            assert words not in alone


def test_captioners_of_other_words_are_refused(run, backbone):
    def said(what):
        return (
            f"run and other.pth differ in their vocabularies: {what} in the second. An ensemble "
            "has one: train all on the same captions, with the same dataset.min_count and "
            "dataset.tokenizer."
        )

    other = save_captioner(backbone, "other.pth", words="一猫")
    with pytest.raises(UsageError) as refusal:
        run("--captioner", "run", "run", "other.pth")
    assert str(refusal.value) == said("word 5 is '犬' in the first and '猫'")
    first = Captioner.load(Path("run"))
    for words, tokenizer, what in (
        ("一犬猫", "characters", "word 6 is '(no word)' in the first and '猫'"),
        ("一", "characters", "word 5 is '犬' in the first and '(no word)'"),
        ("一犬", "none", "the tokenizer is 'characters' in the first and 'none'"),
    ):
        other = replace(other, vocabulary=Vocabulary((*SPECIAL, *words), tokenizer))
        with pytest.raises(UsageError) as refusal:
            check_vocabularies([first, first, other], ["run", "run", "other.pth"])
        assert str(refusal.value) == said(what)


def test_the_search_is_the_captioner_s_but_for_what_is_given(run, backbone, monkeypatch):
    from transfer.captioning import inference

    asked = []
    real = inference.caption_files

    def spy(captioners, *args, **options):
        asked.append(captioners[0].decoding)
        return real(captioners, *args, **options)

    monkeypatch.setattr(inference, "caption_files", spy)
    save_captioner(backbone, "run/captioner.pth", words=WORDS)
    plain = run("--beam", "2")
    rows = run("--beam", "6", "--groups", "3", "--diversity", "2", "--all", "--max-length", "3",
               "--length-normalisation", "0.5", "--block-ngrams", "1")  # fmt: skip
    assert asked == [
        DecodingConfig(beam=2, max_length=4),
        DecodingConfig(beam=6, max_length=3, length_normalisation=0.5, block_ngrams=1, groups=3,
                       diversity=2.0),
    ]  # fmt: skip
    assert plain[0].keys() == {"image_id", "caption"}
    for row in rows:
        assert row["caption"] == row["captions"][0]
        assert len(row["captions"]) == 3
        assert len(set(row["captions"])) > 1
        assert all(len(set(text)) == len(text) <= 3 for text in row["captions"])
    page = Path("photos-captions/captions.html").read_text()
    assert all(text in page for row in rows for text in row["captions"])
    replace(Captioner.load(Path("run")), decoding=asked[1]).save(Path("run/captioner.pth"))
    assert run("--all") == rows
    assert run("--groups", "1", "--beam", "2", "--max-length", "4", "--length-normalisation", "0",
               "--block-ngrams", "0") == plain  # fmt: skip
    for words, said in {
        "--beam 4": "the beam is 4 and its groups are 3; it must be a multiple of them, such as "
        "--beam 6",
        "--beam 900 --groups 700": "the beam is 900 and its groups are 700; it must be a multiple "
        "of them, such as --beam 700",
        "--groups 1 --all": "--all wants groups; give them, such as --beam 6 --groups 3",
        "--groups 1 --diversity 1": "--diversity wants groups; give them, such as --beam 6 "
        "--groups 3",
        "--diversity -1": "--diversity is -1.0; it must be at least 0",
        "--length-normalisation 11": "--length-normalisation is 11.0; it must lie in [0, 10]",
        "--max-length 0": "--max-length is 0; it must lie in [1, 1000]",
    }.items():
        with pytest.raises(UsageError) as refusal:
            run(*words.split())
        assert str(refusal.value) == said


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
