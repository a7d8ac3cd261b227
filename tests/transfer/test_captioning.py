"""The run that ties data, features, decoder and search together, and what it leaves."""

import base64
import io
import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.config import LoaderConfig
from pretrain.errors import Stopped, UsageError
from pretrain.images import decode
from pretrain.run import Result, Run
from pretrain.training import MicroBatch, make_fabric
from transfer.captioning import engine
from transfer.captioning import setup as task_setup
from transfer.captioning.attention_maps import _draw_map
from transfer.captioning.captioner import Captioner, build_decoder
from transfer.captioning.check import check_coco
from transfer.captioning.config import (
    CaptioningConfig,
    DatasetConfig,
    DecodingConfig,
    EncoderConfig,
    ModelConfig,
)
from transfer.captioning.dataset import CaptionedImage, read_coco
from transfer.captioning.decoder import caption_loss
from transfer.captioning.inference import caption_files
from transfer.captioning.page import write_page
from transfer.captioning.scores import References, score, tokenize
from transfer.captioning.vocabulary import (
    END,
    PAD,
    SPECIAL,
    UNKNOWN,
    Vocabulary,
    build_vocabulary,
    tokenize_captions,
)
from transfer.feature_cache import ImageDataset

OPTIMIZER = CaptioningConfig().optimizer


def config(tree: Path, cache: Path, **changes) -> CaptioningConfig:
    tiny = CaptioningConfig(
        name="test",
        data=str(tree),
        epochs=2,
        batch_size=10,
        loader=LoaderConfig(workers=0),
        meteor="off",
        cache=str(cache),
        dataset=DatasetConfig(min_count=1),
        model=ModelConfig(
            embed_size=16,
            hidden_size=24,
            attention_size=8,
            dropout=0.1,
            num_layers=2,
            encoder_layers=1,
            ffn_size=32,
        ),
    )
    return replace(tiny, **changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def first(worlds, backbone, cache, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    options = config(worlds["captions"], cache)
    return engine.finetune(backbone, options, Run(folder), make_fabric("cpu")), folder


def state(folder: Path) -> dict:
    """Every tensor that a run leaves."""
    found = {}
    for name in ("checkpoints/last.pth", "checkpoints/best.pth", "captioner.pth"):
        content = torch.load(folder / name, weights_only=True)
        stack = [(name, content)]
        while stack:
            at, value = stack.pop()
            if isinstance(value, dict):
                stack += [(f"{at}.{key}", inner) for key, inner in value.items()]
            elif isinstance(value, torch.Tensor):
                found[at] = value
    return found


def same(one: Path, two: Path) -> bool:
    left, right = state(one), state(two)
    return left.keys() == right.keys() and all(torch.equal(t, right[n]) for n, t in left.items())


def test_a_run_leaves_what_it_promises(first, worlds, backbone):
    result, folder = first
    assert Result.read(folder / "result.json") == result
    assert result.backbone["fingerprint"] == backbone.fingerprint()
    said = {
        row["image_id"]: row["caption"]
        for row in json.loads((folder / "captions.json").read_text())
    }
    wanted = {image.image_id: image.captions for image in read_coco(worlds["captions"], "val2017")}
    again = score(wanted, said).corpus
    assert {key: result.metrics[key] for key in again} == again
    rows = json.loads((folder / "captions.json").read_text())
    assert {row["image_id"]: tuple(row["references"]) for row in rows} == wanted
    assert all((worlds["captions"] / "val2017" / row["file_name"]).exists() for row in rows)
    pictures = [folder / "pictures" / row["picture"] for row in rows if "picture" in row]
    assert len(pictures) == 6
    assert all(Image.open(path).size == (48, 48) for path in pictures)
    assert result.metrics["scored"] == "val"
    assert (folder / "captions.html").stat().st_size > 0
    log = Run(folder).read_log()
    assert result.metrics["val_CIDEr_best"] == max(record["val_CIDEr"] for record in log)


def test_the_captioner_alone_says_the_same(first, worlds):
    """From pixels through the saved file, beside the run's cached features."""
    _, folder = first
    paths = [image.path for image in read_coco(worlds["captions"], "val2017")]
    said, corrupt = caption_files([Captioner.load(folder)], paths, make_fabric("cpu"))
    rows = json.loads((folder / "captions.json").read_text())
    assert list(said.values()) == [[row["caption"]] for row in rows]
    assert not corrupt


@pytest.mark.parametrize(
    ("kind", "start"),
    [("nic", None), ("nic", 1), ("attention", None), ("attention", 1), ("transformer", None)],
)
def test_stopped_and_resumed_equals_uninterrupted(kind, start, worlds, backbone, cache, tmp_path):
    options = config(worlds["captions"], cache, encoder=EncoderConfig(from_epoch=start, lr=1e-3))
    options = replace(options, model=replace(options.model, kind=kind))
    fabric = make_fabric("cpu")
    engine.finetune(backbone, options, Run(tmp_path / "whole"), fabric)
    for step in (4, 8):
        with pytest.raises(Stopped, match=f"step {step} of 12"):
            engine.finetune(backbone, options, Run(tmp_path / "cut"), fabric, stop_after=step)
    engine.finetune(backbone, options, Run(tmp_path / "cut"), fabric)
    assert same(tmp_path / "whole", tmp_path / "cut")
    if start is not None:
        trained = torch.load(tmp_path / "cut/checkpoints/last.pth", weights_only=True)
        moved = [
            not torch.equal(tensor, backbone.weights[own])
            for name, tensor in trained["encoder"].items()
            if (own := name.removeprefix("network.").removeprefix("model.")) in backbone.weights
            and own.endswith("conv1.weight")
        ]
        assert moved
        assert all(moved)
        for name, tensor in trained["encoder"].items():  # statistics stay
            own = name.removeprefix("network.").removeprefix("model.")
            if "running" in name and own in backbone.weights:
                assert torch.equal(tensor, backbone.weights[own])


def test_a_frozen_encoder_is_the_backbone_bit_for_bit(first, backbone):
    held = Captioner.load(first[1]).backbone
    assert held.fingerprint() == backbone.fingerprint()


def test_a_trained_encoder_goes_with_the_captioner(worlds, backbone, cache, tmp_path):
    """Its weights are the trained ones, its classifier the old one; pixels say the same again."""
    encoder = EncoderConfig(from_epoch=0, lr=3e-3)
    options = config(worlds["captions"], cache, epochs=1, encoder=encoder)
    engine.finetune(backbone, options, Run(tmp_path), make_fabric("cpu"))
    captioner = Captioner.load(tmp_path)
    last = torch.load(tmp_path / "checkpoints/last.pth", weights_only=True)["encoder"]
    held = captioner.backbone.weights
    assert held.keys() == backbone.weights.keys()
    for name, tensor in held.items():
        if name.startswith("fc."):
            assert torch.equal(tensor, backbone.weights[name])
        else:
            assert torch.equal(tensor, last[f"network.{name}"])
    paths = [image.path for image in read_coco(worlds["captions"], "val2017")]
    fabric = make_fabric("cpu")
    said, _ = caption_files([captioner], paths, fabric)
    rows = json.loads((tmp_path / "captions.json").read_text())
    assert list(said.values()) == [[row["caption"]] for row in rows]
    frozen = replace(captioner, backbone=backbone)
    assert said != caption_files([frozen], paths, fabric)[0]


@pytest.mark.parametrize("clip", [None, 1e-3])
def test_a_step_has_the_mean_gradient_of_its_parts(clip, worlds, backbone, cache, monkeypatch):
    options = config(
        worlds["captions"], cache, accumulate=2, optimizer=replace(OPTIMIZER, clip_norm=clip)
    )
    model = replace(options.model, kind="attention", dropout=0.0)
    options = replace(options, model=model)
    fabric = make_fabric("cpu")
    state, data = task_setup.setup_training(task_setup.build(backbone, options), options, fabric)
    batches = [batch for batch, _ in zip(data.train.epoch(0), range(2), strict=False)]
    parts = [MicroBatch(place, batch, place == 1) for place, batch in enumerate(batches)]
    assert [len(words) for _, words in batches] == [5, 5]
    losses = [
        caption_loss(state.model(*batch), batch[1], options.model.coverage) for batch in batches
    ]
    parameters = list(state.model.parameters())
    wanted = torch.autograd.grad(sum(loss for loss, _ in losses) / 2, parameters)
    found = []
    monkeypatch.setattr(
        state.optimizer, "step", lambda: found.extend(p.grad.clone() for p in parameters)
    )
    sums = engine.train_step(state, options, fabric, 0, parts, trains_encoder=False)
    torch.testing.assert_close(sums, sum(torch.stack(pair).detach() for pair in losses))
    norm = torch.stack([gradient.norm() for gradient in wanted]).norm()
    scale = 1.0 if clip is None else clip / norm
    for gradient, right in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, right * scale, atol=1e-7, rtol=1e-4)


def test_norms_are_settled_where_the_encoder_is_trained_too(worlds, backbone, cache, tmp_path):
    options = config(worlds["captions"], cache, encoder=EncoderConfig(from_epoch=0, lr=1e-3))
    engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    encoder, decoder = Captioner.load(tmp_path / "run").build()
    setup = task_setup.build(backbone, options)
    see = setup.backbone.preprocess()
    with torch.no_grad():
        images = torch.stack([see(decode(image.path)) for image in setup.data.train])
        projected = decoder.project(encoder(images))
    torch.testing.assert_close(decoder.norm.running_mean, projected.mean(0), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(decoder.norm.running_var, projected.var(0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("places", "shape", "rows"), [(27, 1 / 3, 3), (49, 1.0, 7), (12, 3.0, 6)])
def test_attention_is_drawn_on_the_grid_that_was_looked_at(places, shape, rows):
    weights = np.zeros(places)
    weights[: places // rows] = 1.0  # the first row of the grid
    drawn = Image.open(io.BytesIO(base64.b64decode(_draw_map(weights, shape))))
    bright = np.asarray(drawn) > 128
    assert bright[:, :2].mean() == pytest.approx(1 / rows, abs=0.06)
    assert bright[0].all()


def test_another_seed_gives_other_weights(first, worlds, backbone, cache, tmp_path):
    options = config(worlds["captions"], cache, seed=1)
    engine.finetune(backbone, options, Run(tmp_path / "b"), make_fabric("cpu"))
    assert not same(first[1], tmp_path / "b")


def test_a_run_goes_on_with_its_own_words_only(worlds, backbone, cache, tmp_path):
    options = config(worlds["captions"], cache)
    with pytest.raises(Stopped):
        engine.finetune(backbone, options, Run(tmp_path), make_fabric("cpu"), stop_after=1)
    words = json.loads((tmp_path / "vocabulary.json").read_text())
    (tmp_path / "vocabulary.json").write_text(json.dumps(words[:-1]))
    with pytest.raises(UsageError, match="another vocabulary"):
        engine.finetune(backbone, options, Run(tmp_path), make_fabric("cpu"))


def test_a_corrupt_picture_in_the_middle(worlds, backbone, tmp_path, capsys):
    """Named, nothing half-written, the others encoded once; allowed for, it is in no sentence."""
    tree = tmp_path / "tree"
    shutil.copytree(worlds["captions"], tree)
    (tree / "train2017" / "000000000006.jpg").write_bytes(b"no picture")
    (tree / "val2017" / "000001000003.jpg").write_bytes(b"no picture")
    options = config(tree, tmp_path / "cache", epochs=1)
    fabric = make_fabric("cpu")
    with pytest.raises(
        UsageError, match=r"^2 of 18 images .*000000000006\.jpg.*max_corrupt 2 goes"
    ):
        engine.finetune(backbone, options, Run(tmp_path / "run"), fabric)
    assert not (tmp_path / "run").exists()
    (rows,) = (tmp_path / "cache").glob("*/rows.bin")
    kept = rows.read_bytes()
    assert len(kept) == 16 * 512 * 4
    options = replace(options, dataset=replace(options.dataset, max_corrupt=2))
    setup = task_setup.build(backbone, options)
    _, data = task_setup.setup_training(setup, options, fabric)
    assert data.train.batches.steps == 11 * 5 // 10
    assert [image.image_id for image in data.batch_norm.images] == [
        n for n in range(1, 13) if n != 6
    ]
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), fabric)
    assert "left out (2 of at most 2): " in capsys.readouterr().err
    assert (result.metrics["images_left_out"], result.data["val"]) == (2, 5)
    said = json.loads((tmp_path / "run/captions.json").read_text())
    assert [row["image_id"] for row in said] == [1_000_001, 1_000_002, *range(1_000_004, 1_000_007)]
    assert rows.read_bytes() == kept


def test_memory_that_runs_out_says_what_to_do(worlds, backbone, cache, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "train_step", full)
    options = config(worlds["captions"], cache)
    with pytest.raises(UsageError, match=r"memory for 10 captions at once .*--accumulate 2"):
        engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))


def test_early_stopping_counts_from_the_best(tmp_path):
    run = Run(tmp_path)
    for epoch, cider in enumerate([0.1, 0.3, 0.2, 0.3], 1):
        run.log({"epoch": epoch, "val_CIDEr": cider})
    assert engine._is_stale(run, 2)
    assert not engine._is_stale(run, 3)
    assert not engine._is_stale(run, None)


@pytest.mark.parametrize("second", [0.1, 1.0])
def test_the_best_epoch_is_kept(second, worlds, backbone, cache, tmp_path, monkeypatch):
    """Scores that fall or stay: the captioner is the first epoch's, the log has both."""
    options = config(worlds["captions"], cache)
    real = References.score
    factors = iter([1.0, second, 1.0])

    def falling(self, said):
        scores = real(self, said)
        return replace(scores, corpus=scores.corpus | {"CIDEr": next(factors)})

    monkeypatch.setattr(References, "score", falling)
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["best_epoch"] == 1
    assert result.metrics["val_CIDEr_last"] == second
    kept = torch.load(tmp_path / "run/captioner.pth", weights_only=True)["state_dict"]
    last = torch.load(tmp_path / "run/checkpoints/last.pth", weights_only=True)["model"]
    assert not all(torch.equal(tensor, last[name]) for name, tensor in kept.items())


def test_a_captioner_can_learn(worlds, backbone, cache, tmp_path):
    """Twelve pictures by heart: CIDEr above 1 on them."""
    tree = tmp_path / "tree"
    (tree / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (tree / split).symlink_to(worlds["captions"] / "train2017")
        (tree / "annotations" / f"captions_{split}.json").symlink_to(
            worlds["captions"] / "annotations" / "captions_train2017.json"
        )
    options = config(
        tree,
        cache,
        epochs=60,
        optimizer=replace(OPTIMIZER, lr=5e-3, schedule="cosine"),
        model=ModelConfig(embed_size=64, hidden_size=128),
        decoding=DecodingConfig(beam=3),
        patience=40,
    )
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["CIDEr"] > 1
    assert result.metrics["different_captions"] > 6
    assert result.metrics["epochs_above_chance"] == 0


def test_parts_of_two_captioners_do_not_pass(first, tmp_path):
    content = torch.load(first[1] / "captioner.pth", weights_only=True)
    torch.save({**content, "words": content["words"][:-2]}, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"put together from two.*\n.*of another shape"):
        Captioner.load(tmp_path / "a.pth")
    torch.save({**content, "words": content["words"][1:]}, tmp_path / "b.pth")
    with pytest.raises(UsageError, match="no vocabulary of a captioner"):
        Captioner.load(tmp_path / "b.pth")
    torch.save({**content, "tokenizer": "jieba"}, tmp_path / "c.pth")
    with pytest.raises(UsageError, match="the tokenizer is 'jieba'; expected ptb, characters"):
        Captioner.load(tmp_path / "c.pth")
    del content["tokenizer"]
    torch.save(content, tmp_path / "d.pth")
    with pytest.raises(UsageError, match="tokenizer"):
        Captioner.load(tmp_path / "d.pth")
    torch.save({**content, "format": "captioner/1"}, tmp_path / "old.pth")  # as of before
    assert Captioner.load(tmp_path / "old.pth").vocabulary == Captioner.load(first[1]).vocabulary
    with pytest.raises(UsageError, match=r"a captioner .'captioner/2'. is needed"):
        Captioner.load(first[1] / "checkpoints" / "last.pth")
    with pytest.raises(UsageError, match=r"no captioner\.pth"):
        Captioner.load(tmp_path)


def test_a_captioner_of_what_was_not_the_last_level_is_refused(tmp_path):
    """Of a vision transformer it was once block 2 of 12, as its levels were counted from 0."""
    spec = BackboneSpec(arch="test_vit", input_size=(3, 160, 160), num_classes=0)
    backbone = Backbone.of(spec.create(0, seed=0), spec, Provenance())
    words, model = (
        Vocabulary((*SPECIAL, "a", "b"), "ptb"),
        ModelConfig(kind="attention", hidden_size=8),
    )
    decoder = build_decoder(64, len(words), model)
    captioner = Captioner(
        backbone=backbone,
        model=model,
        decoding=DecodingConfig(),
        vocabulary=words,
        weights=decoder.state_dict(),
    )
    captioner.save(tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content["level"] == 5
    assert Captioner.load(tmp_path / "a.pth").backbone.spec == spec
    del content["level"]
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(UsageError, match=r"a block near the input of test_vit.*Train it again"):
        Captioner.load(tmp_path / "a.pth")


@pytest.fixture(scope="module")
def chinese(worlds, tmp_path_factory):
    """The same images with captions of the same words, each of them one of Chinese, unspaced."""
    tree = tmp_path_factory.mktemp("chinese") / "tree"
    shutil.copytree(worlds["captions"], tree)
    signs = {}
    for path in (tree / "annotations").iterdir():
        content = json.loads(path.read_text())
        for entry in content["annotations"]:
            words = entry["caption"].rstrip(".").lower().split()
            entry["caption"] = "".join(signs.setdefault(w, chr(0x5000 + len(signs))) for w in words)
        path.write_text(json.dumps(content))
    return tree


def test_captions_without_spaces(chinese, backbone, cache, tmp_path, capsys):
    """Trained on characters, generated without spaces, scored by characters, kept so."""
    options = config(chinese, cache, epochs=1, meteor="auto")
    dataset = replace(options.dataset, tokenizer="characters")
    options = replace(options, dataset=dataset, model=replace(options.model, kind="attention"))
    result = engine.finetune(backbone, options, Run(tmp_path), make_fabric("cpu"))
    rows = json.loads((tmp_path / "captions.json").read_text())
    said = {row["image_id"]: row["caption"] for row in rows}
    assert all(text and " " not in text for text in said.values())
    images = read_coco(chinese, "val2017")
    wanted = {image.image_id: image.captions for image in images}
    scores = score(wanted, said, tokenizer="characters").corpus
    assert {name: result.metrics[name] for name in scores} == scores
    assert "METEOR" not in result.metrics
    note = "METEOR is left out: it is for English, and the tokenizer is characters"
    assert result.data["notes"] == [note]
    assert note in capsys.readouterr().err
    captioner = Captioner.load(tmp_path)
    assert captioner.vocabulary.tokenizer == "characters"
    assert all(len(word) == 1 for word in captioner.vocabulary.words[4:])
    again, _ = caption_files([captioner], [image.path for image in images], make_fabric("cpu"))
    assert [text for (text,) in again.values()] == list(said.values())
    record = Run(tmp_path).read_log()[0]  # of each epoch too, with a beam of 1
    greedy = replace(captioner, decoding=DecodingConfig(beam=1))
    again, _ = caption_files([greedy], [image.path for image in images], make_fabric("cpu"))
    own = score(
        wanted,
        dict(zip(wanted, [text for (text,) in again.values()], strict=True)),
        tokenizer="characters",
    )
    assert record["val_CIDEr"] == own.corpus["CIDEr"]


def test_what_is_odd_about_captions_is_said_before_training(chinese, backbone, cache, tmp_path):
    """By `build`, so in a dry run too: sentences as words, marks, one caption, cut captions."""
    tree = tmp_path / "tree"
    shutil.copytree(chinese, tree)
    path = tree / "annotations" / "captions_val2017.json"
    content = json.loads(path.read_text())
    for entry in content["annotations"]:
        entry["caption"] = "<start> a dog <end>"
    path.write_text(json.dumps(content))
    setup = task_setup.build(backbone, config(tree, cache))
    unspaced, marks, same, *more = setup.notes
    assert unspaced.startswith("tree, train: 60 of 60 captions have almost no spaces")
    assert "--dataset.tokenizer characters takes" in unspaced
    assert marks.startswith("tree, val: 30 of 30 captions hold marks of a program (<")
    assert same == "tree, val: all 6 images have the same caption, '<start> a dog <end>'."
    assert not more
    assert (setup.unknown_words("train"), setup.unknown_words("val")) == (0, 1)
    checked = [result.text for result in check_coco(tree, 1) if result.state == "note"]
    assert checked == [note.removeprefix("tree, ").replace(":", "2017:", 1) for note in setup.notes]
    decoding = DecodingConfig(max_length=4)
    dataset = DatasetConfig(min_count=1, tokenizer="characters")
    options = config(chinese, cache, decoding=decoding, dataset=dataset)
    (note,) = task_setup.build(backbone, options).notes
    assert re.fullmatch(
        r"\d+% of the training captions have more than 3 words, and such are cut or never "
        r"generated: --dataset.max_words and --decoding.max_length allow more",
        note,
    )


def test_shares_of_unknown_words(worlds, backbone, cache):
    """Against a count of words by hand."""
    options = config(worlds["captions"], cache, dataset=DatasetConfig(min_count=12))
    setup = task_setup.build(backbone, options)
    splits = {
        split: [word for one in images for text in one.captions for word in tokenize(text)]
        for split, images in (("train", setup.data.train), ("val", setup.data.val))
    }
    counts = Counter(splits["train"])
    for split, words in splits.items():
        share = sum(counts[word] < 12 for word in words) / len(words)
        assert 0 < share < 1
        assert setup.unknown_words(split) == pytest.approx(share)


def test_fewer_captions_than_a_batch(worlds, backbone, cache, tmp_path):
    """A dry run, which builds, says what the run says."""
    options = config(worlds["captions"], cache, batch_size=64)
    said = r"batch_size is 64, but there are only 60 training samples"
    with pytest.raises(UsageError, match=said):
        task_setup.build(backbone, options)
    with pytest.raises(UsageError, match=said):
        engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert not (tmp_path / "run").exists()


def test_marks_in_training_captions_are_unknown_words():
    tokenized = tokenize_captions(["<start> a dog <end>", "a dog"])
    vocabulary = build_vocabulary(tokenized, 1)
    assert vocabulary.words == (*SPECIAL, "a", "dog")
    assert vocabulary.encode(tokenized, 9).tolist() == [
        [UNKNOWN, 4, 5, UNKNOWN, END], [4, 5, END, PAD, PAD]
    ]  # fmt: skip


def test_photos_are_captioned_as_they_are_displayed(first, tmp_path):
    """A photo with a tag is captioned as the one that was turned, or as the one without."""
    pixels = np.random.default_rng(0).integers(0, 255, (8, 12, 3), np.uint8).repeat(4, 0)
    stored = Image.fromarray(pixels)
    tag = Image.Exif()
    tag[0x0112] = 6
    stored.save(tmp_path / "tagged.png", exif=tag)
    stored.save(tmp_path / "stored.png")
    stored.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "turned.png")
    paths = [tmp_path / f"{name}.png" for name in ("tagged", "stored", "turned")]
    captioner = Captioner.load(first[1])
    features = {}
    for apply_exif in (False, True):
        images = ImageDataset(paths, captioner.backbone.preprocess(), apply_exif=apply_exif)
        features[apply_exif] = [images[n][1] for n in range(3)]
        said, _ = caption_files([captioner], paths, make_fabric("cpu"), apply_exif=apply_exif)
        assert said[0] == said[2 if apply_exif else 1]
    for apply_exif, (tagged, plain, turned) in features.items():
        assert torch.equal(tagged, turned if apply_exif else plain)
        assert not torch.equal(plain, turned)


def test_the_page_holds_its_pictures_and_escapes_text(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    image = CaptionedImage("<id>", path, ("a <b>bold</b> dog",))
    said = {"<id>": "a <script>"}
    scores = score({"<id>": image.captions}, said)
    write_page(tmp_path / "page.html", [image], said, scores, "x & y")
    page = (tmp_path / "page.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "<script>" not in page
    assert "&lt;b&gt;bold" in page
    assert "http" not in page
