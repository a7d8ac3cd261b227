"""COCO trees, vocabulary, NIC and the run that ties them together."""

import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from pretrain.errors import Stopped, UserError
from pretrain.run import Result, Run
from pretrain.training import make_fabric
from transfer.captioning import engine
from transfer.captioning.coco import CaptionedImage, choose_splits, read_coco
from transfer.captioning.config import AdamConfig, CaptioningConfig, CocoConfig, NicConfig
from transfer.captioning.features import encode_images
from transfer.captioning.nic import Nic, greedy
from transfer.captioning.page import write_page
from transfer.captioning.scores import score
from transfer.captioning.vocabulary import END, PAD, START, UNKNOWN, build_vocabulary


def config(tree: Path, **changes) -> CaptioningConfig:
    tiny = CaptioningConfig(
        name="test",
        data=str(tree),
        epochs=2,
        batch_size=10,
        workers=0,
        coco=CocoConfig(min_count=1),
        nic=NicConfig(embed_size=16, hidden_size=24, dropout=0.1),
    )
    return replace(tiny, **changes)


# ---------------------------------------------------------------------------------------- the tree


def test_reads_what_is_on_disk(worlds):
    tree = worlds["captions"]
    assert choose_splits(tree, None, None) == ("train2017", "val2017")
    images = read_coco(tree, "train2017")
    assert len(images) == 12
    assert all(len(image.captions) == 5 and image.path.exists() for image in images)


def test_real_coco(unpacked):
    tree = unpacked("data/coco-mini.tar") / "coco-mini"
    train, val = (read_coco(tree, split) for split in choose_splits(tree, None, None))
    assert (len(train), len(val)) == (80, 79)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("no tree", "there is no folder"),
        ("no annotations", "no annotations .it holds train2017"),
        ("no split", "no file .*captions_night.json; the splits there are train2017, val2017"),
        ("two splits", "2 captions files .*--coco.train SPLIT"),
        ("broken json", "no COCO captions file"),
        ("other json", "no COCO captions file .*'image_id'"),
        ("unknown image", "1 images have captions but no entry"),
        ("no captions", "no image with a caption"),
        ("no image", r"1 of 12 images .*000000000001\.jpg"),
    ],
)
def test_trees_as_users_give_them(trouble, words, worlds, tmp_path):
    tree, split = tmp_path / "tree", None
    if trouble != "no tree":
        shutil.copytree(worlds["captions"], tree)
    file = tree / "annotations" / "captions_train2017.json"
    content = json.loads(file.read_text()) if file.exists() else {}
    if trouble == "no annotations":
        shutil.rmtree(tree / "annotations")
    if trouble == "no split":
        split = "night"
    if trouble == "two splits":
        shutil.copy(file, tree / "annotations" / "captions_train2014.json")
    if trouble == "broken json":
        file.write_text(file.read_text()[:100])
    if trouble == "other json":
        content["annotations"][0].pop("image_id")
    if trouble == "unknown image":
        content["annotations"].append({"image_id": 99, "caption": "a"})
    if trouble == "no captions":
        content["annotations"] = []
    if trouble in ("other json", "unknown image", "no captions"):
        file.write_text(json.dumps(content))
    if trouble == "no image":
        (tree / "train2017" / "000000000001.jpg").unlink()
    with pytest.raises(UserError, match=words):
        read_coco(tree, choose_splits(tree, split, None)[0])


def test_vocabulary_counts_and_comes_back():
    held = build_vocabulary(["A cat sat.", "a cat", "the cat"], min_count=2)
    assert held.words == ("<pad>", "<start>", "<end>", "<unk>", "cat", "a")
    assert held.encode("The cat, a cat!") == [UNKNOWN, 4, 5, 4, END]
    assert held.decode([5, 4, END, 4, PAD]) == "a cat"
    with pytest.raises(UserError, match="no word stands 9 times"):
        build_vocabulary(["a"], min_count=9)


# ---------------------------------------------------------------------------------------- the model


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Nic(7, 11, NicConfig(embed_size=5, hidden_size=6))


def test_teacher_forcing_equals_word_by_word(model):
    """Against an LSTM cell stepped by hand: image first, its output unused, then START."""
    model.eval()
    features, words = torch.randn(3, 7), torch.randint(4, 11, (3, 5))
    cell = torch.nn.LSTMCell(5, 6)
    cell.load_state_dict(
        {name.removesuffix("_l0"): t for name, t in model.lstm.state_dict().items()}
    )
    state = cell(
        functional.batch_norm(
            features @ model.project.weight.T + model.project.bias,
            model.norm.running_mean,
            model.norm.running_var,
            model.norm.weight,
            model.norm.bias,
        )
    )
    inputs = torch.cat([torch.full((3, 1), START), words[:, :-1]], dim=1)
    for place in range(5):
        state = cell(model.embed.weight[inputs[:, place]], state)
        wanted = state[0] @ model.classify.weight.T + model.classify.bias
        torch.testing.assert_close(model(features, words)[:, place], wanted)


def test_no_word_sees_itself(model):
    """The logits at t do not change with the words from t on."""
    model.eval()
    features, words = torch.randn(2, 7), torch.randint(4, 11, (2, 6))
    changed = words.clone()
    changed[:, 3:] = torch.randint(4, 11, (2, 3))
    one, two = model(features, words), model(features, changed)
    assert torch.equal(one[:, :4], two[:, :4])
    assert not torch.equal(one[:, 4:], two[:, 4:])


def test_greedy_equals_one_image_at_a_time(model):
    model.eval()
    features = torch.randn(20, 7)
    together = greedy(model, features, 9)
    for row, feature in zip(together.tolist(), features, strict=True):
        state, word, said = model.begin(feature[None]), torch.tensor([START]), []
        while len(said) < 9:
            logits, state = model.step(word, state)
            logits[:, [PAD, START]] = -torch.inf
            word = logits.argmax(1)
            said.append(int(word))
            if said[-1] == END:
                break
        assert row[: len(said)] == said
        assert set(row[len(said) :]) <= {PAD}


# ---------------------------------------------------------------------------------------- features


def test_features_are_the_pooled_backbone(backbone, worlds):
    paths = [image.path for image in read_coco(worlds["captions"], "train2017")]
    found = encode_images(
        backbone, paths, make_fabric("cpu"), image_size=None, workers=1, batch_size=5
    )
    assert found.shape == (12, 512)
    transform = backbone.preprocess()
    from pretrain.images import decode

    images = torch.stack([transform(decode(path)) for path in paths])
    torch.testing.assert_close(found, backbone.features(images)[-1].mean((2, 3)))
    larger = encode_images(backbone, paths[:2], make_fabric("cpu"), image_size=96, workers=0)
    assert not torch.allclose(larger, found[:2])


# ---------------------------------------------------------------------------------------- the run


@pytest.fixture(scope="module")
def first(worlds, backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "run"
    return engine.finetune(
        backbone, config(worlds["captions"]), Run(folder), make_fabric("cpu")
    ), folder


def weights(folder: Path) -> dict:
    return torch.load(folder / "captioner.pth", weights_only=True)["state_dict"]


def same(one: dict, two: dict) -> bool:
    return all(torch.equal(tensor, two[name]) for name, tensor in one.items())


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
    assert (folder / "captions.html").stat().st_size > 0


def test_the_same_seed_gives_the_same_bits(first, worlds, backbone, tmp_path):
    options = config(worlds["captions"], workers=1)
    engine.finetune(backbone, options, Run(tmp_path / "a"), make_fabric("cpu"))
    assert same(weights(first[1]), weights(tmp_path / "a"))
    options = config(worlds["captions"], seed=1)
    engine.finetune(backbone, options, Run(tmp_path / "b"), make_fabric("cpu"))
    assert not same(weights(first[1]), weights(tmp_path / "b"))


def test_stopped_and_resumed_equals_uninterrupted(first, worlds, backbone, tmp_path, monkeypatch):
    count, real = 0, functional.cross_entropy

    def stopping(*arguments, **named):
        nonlocal count
        count += 1
        if count == 8:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments, **named)

    monkeypatch.setattr("transfer.captioning.engine.functional.cross_entropy", stopping)
    with pytest.raises(Stopped, match="step 8 of 12"):
        engine.finetune(
            backbone, config(worlds["captions"]), Run(tmp_path / "run"), make_fabric("cpu")
        )
    engine.finetune(backbone, config(worlds["captions"]), Run(tmp_path / "run"), make_fabric("cpu"))
    assert same(weights(first[1]), weights(tmp_path / "run"))


def test_a_captioner_can_learn(worlds, backbone, tmp_path):
    """Twelve pictures by heart: CIDEr above 1 on them."""
    tree = tmp_path / "tree"
    shutil.copytree(worlds["captions"], tree)
    shutil.rmtree(tree / "val2017")
    shutil.move(tree / "train2017", tree / "val2017")
    shutil.copy(
        tree / "annotations/captions_train2017.json", tree / "annotations/captions_val2017.json"
    )
    shutil.copytree(tree / "val2017", tree / "train2017")
    options = config(
        tree,
        epochs=150,
        adam=AdamConfig(lr=5e-3, schedule="cosine"),
        nic=NicConfig(embed_size=64, hidden_size=128),
    )
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["CIDEr"] > 1
    assert result.metrics["different_captions"] > 6


def test_the_page_holds_its_pictures_and_escapes_text(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    image = CaptionedImage("<id>", path, ("a <b>bold</b> dog",))
    said = {"<id>": "a <script>"}
    write_page(
        tmp_path / "page.html", [image], said, score({"<id>": image.captions}, said), "x & y"
    )
    page = (tmp_path / "page.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "<script>" not in page
    assert "&lt;b&gt;bold" in page
    assert "http" not in page
