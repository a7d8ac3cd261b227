"""The run that ties data, features, decoder and search together, and what it leaves."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pretrain.errors import Stopped, UserError
from pretrain.run import Result, Run
from pretrain.training import make_fabric
from transfer.captioning import engine, preparation
from transfer.captioning.captioner import Captioner
from transfer.captioning.coco import read_coco
from transfer.captioning.config import (
    AdamConfig,
    CaptioningConfig,
    DatasetConfig,
    DecodingConfig,
    EncoderConfig,
    ModelConfig,
)
from transfer.captioning.inference import caption_files
from transfer.captioning.page import write_page
from transfer.captioning.records import CaptionedImage
from transfer.captioning.scores import References, score


def config(tree: Path, cache: Path, **changes) -> CaptioningConfig:
    tiny = CaptioningConfig(
        name="test",
        data=str(tree),
        epochs=2,
        batch_size=10,
        workers=0,
        meteor="off",
        cache=str(cache),
        dataset=DatasetConfig(min_count=1),
        model=ModelConfig(embed_size=16, hidden_size=24, attention_size=8, dropout=0.1),
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
    assert result.metrics["scored"] == "val"
    assert (folder / "captions.html").stat().st_size > 0
    log = Run(folder).read_log()
    assert result.metrics["val_CIDEr_best"] == max(record["val_CIDEr"] for record in log)


def test_the_captioner_alone_says_the_same(first, worlds):
    """From pixels through the saved file, beside the run's cached features."""
    _, folder = first
    paths = [image.path for image in read_coco(worlds["captions"], "val2017")]
    said, broken = caption_files(Captioner.load(folder), paths, make_fabric("cpu"))
    rows = json.loads((folder / "captions.json").read_text())
    assert list(said.values()) == [row["caption"] for row in rows]
    assert not broken


@pytest.mark.parametrize("kind", ["nic", "attention"])
@pytest.mark.parametrize("start", [None, 1])
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
        trained = torch.load(tmp_path / "cut/checkpoints/last.pth", weights_only=True)["also"]
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
    with pytest.raises(UserError, match="another vocabulary"):
        engine.finetune(backbone, options, Run(tmp_path), make_fabric("cpu"))


def test_a_broken_picture_in_the_middle(worlds, backbone, tmp_path, capsys):
    """Named, nothing half-written, the others encoded once; allowed for, it is in no sentence."""
    tree = tmp_path / "tree"
    shutil.copytree(worlds["captions"], tree)
    (tree / "train2017" / "000000000006.jpg").write_bytes(b"no picture")
    (tree / "val2017" / "000001000003.jpg").write_bytes(b"no picture")
    options = config(tree, tmp_path / "cache", epochs=1)
    fabric = make_fabric("cpu")
    with pytest.raises(UserError, match=r"^2 of 18 images .*000000000006\.jpg.*max_broken 2 goes"):
        engine.finetune(backbone, options, Run(tmp_path / "run"), fabric)
    assert not (tmp_path / "run").exists()
    (rows,) = (tmp_path / "cache").glob("*/rows.bin")
    kept = rows.read_bytes()
    assert len(kept) == 16 * 512 * 4
    options = replace(options, dataset=replace(options.dataset, max_broken=2))
    ready = preparation.prepare(backbone, options)
    gear = preparation.equip(ready, options, fabric)
    assert gear.train.batches.steps == 11 * 5 // 10
    assert [image.image_id for image in gear.settling.images] == [n for n in range(1, 13) if n != 6]
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
    with pytest.raises(UserError, match=r"memory for 10 captions at once .*--accumulate 2"):
        engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))


def test_early_stopping_counts_from_the_best(tmp_path):
    run = Run(tmp_path)
    for epoch, cider in enumerate([0.1, 0.3, 0.2, 0.3], 1):
        run.log({"epoch": epoch, "val_CIDEr": cider})
    assert engine._is_stale(run, 2)
    assert not engine._is_stale(run, 3)
    assert not engine._is_stale(run, None)


def test_the_best_epoch_is_kept(first, worlds, backbone, cache, tmp_path, monkeypatch):
    """Scores that fall: the captioner is the first epoch's, the log has both."""
    options = config(worlds["captions"], cache)
    real = References.score
    factors = iter([1.0, 0.1, 1.0])

    def falling(self, said):
        scores = real(self, said)
        return replace(scores, corpus=scores.corpus | {"CIDEr": next(factors)})

    monkeypatch.setattr(References, "score", falling)
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["best_epoch"] == 1
    assert result.metrics["val_CIDEr_last"] == 0.1
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
        adam=AdamConfig(lr=5e-3, schedule="cosine"),
        model=ModelConfig(embed_size=64, hidden_size=128),
        decoding=DecodingConfig(beam=3),
        patience=40,
    )
    result = engine.finetune(backbone, options, Run(tmp_path / "run"), make_fabric("cpu"))
    assert result.metrics["CIDEr"] > 1
    assert result.metrics["different_captions"] > 6


def test_parts_of_two_captioners_do_not_pass(first, tmp_path):
    content = torch.load(first[1] / "captioner.pth", weights_only=True)
    torch.save({**content, "words": content["words"][:-2]}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"put together from two.*\n.*of another shape"):
        Captioner.load(tmp_path / "a.pth")
    torch.save({**content, "words": content["words"][1:]}, tmp_path / "b.pth")
    with pytest.raises(UserError, match="no vocabulary of a captioner"):
        Captioner.load(tmp_path / "b.pth")
    with pytest.raises(UserError, match=r"a captioner .'captioner/1'. is needed"):
        Captioner.load(first[1] / "checkpoints" / "last.pth")
    with pytest.raises(UserError, match=r"no captioner\.pth"):
        Captioner.load(tmp_path)


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


# ------------------------------------------------------------------- another NIC, in plain PyTorch


class PlainNic(nn.Module):
    """NIC as a tutorial writes it: cells stepped by hand, one caption after another."""

    def __init__(self, features: int, words: int, embed: int, hidden: int) -> None:
        super().__init__()
        self.linear = nn.Linear(features, embed)
        self.bn = nn.BatchNorm1d(embed, momentum=0.01)
        self.table = nn.Parameter(torch.zeros(words, embed))
        self.cell = nn.LSTMCell(embed, hidden)
        self.out = nn.Linear(hidden, words)

    def loss(self, features, captions):
        inputs, total, count = self.bn(self.linear(features)), 0.0, 0
        for feature, caption in zip(inputs, captions, strict=True):
            state = self.cell(feature[None])
            for last, word in zip([1, *caption], [*caption, 2], strict=False):
                state = self.cell(self.table[last][None], state)
                total = total - torch.log_softmax(self.out(state[0])[0], 0)[word]
                count += 1
        return total / count

    def greedy(self, features, longest):
        said = []
        for feature in self.bn(self.linear(features)):
            state, word, caption = self.cell(feature[None]), 1, []
            while len(caption) < longest and word != 2:
                state = self.cell(self.table[word][None], state)
                logits = self.out(state[0])[0]
                logits[[0, 1, 3]] = -torch.inf
                word = int(logits.argmax())
                caption.append(word)
            said.append(caption)
        return said


def test_loss_gradients_and_greedy_equal_a_plain_nic():
    from transfer.captioning.decode import greedy
    from transfer.captioning.decoder import caption_loss
    from transfer.captioning.nic import Nic

    torch.manual_seed(0)
    ours = Nic(7, 13, ModelConfig(embed_size=5, hidden_size=6))
    theirs = PlainNic(7, 13, 5, 6)
    names = {
        "linear.weight": "project.weight", "linear.bias": "project.bias",
        "bn.weight": "norm.weight", "bn.bias": "norm.bias", "table": "embed.weight",
        "cell.weight_ih": "lstm.weight_ih_l0", "cell.weight_hh": "lstm.weight_hh_l0",
        "cell.bias_ih": "lstm.bias_ih_l0", "cell.bias_hh": "lstm.bias_hh_l0",
        "out.weight": "classify.weight", "out.bias": "classify.bias",
    }  # fmt: skip
    own = dict(ours.named_parameters())
    assert sorted(names.values()) == sorted(own)
    for name, parameter in theirs.named_parameters():
        parameter.data.copy_(own[names[name]].data)
    captions = [torch.randint(3, 13, (n,)).tolist() for n in (4, 1, 6, 3)]
    words = torch.zeros(4, 7, dtype=torch.long)
    for row, caption in enumerate(captions):
        words[row, : len(caption) + 1] = torch.tensor([*caption, 2])
    features = torch.randn(4, 7)
    loss, likelihood = caption_loss(ours(features, words), words, 1.0)
    loss.backward()
    wanted = theirs.loss(features, captions)
    wanted.backward()
    assert abs(loss.item() - wanted.item()) < 1e-5
    assert loss.item() == likelihood.item()
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(own[names[name]].grad, parameter.grad, atol=1e-5, rtol=0)
    ours.eval(), theirs.eval()
    for _ in range(5):
        features = torch.randn(9, 7)
        found = [[w for w in row if w] for row in greedy(ours, features, 8).tolist()]
        assert found == theirs.greedy(features, 8)
