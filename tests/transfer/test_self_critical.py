"""Training on rewards, beside REINFORCE written out; going on from a captioner."""

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from pretrain.config import LoaderConfig
from pretrain.errors import Stopped, UsageError
from pretrain.images import decode
from pretrain.run import Result, Run
from pretrain.training import MicroBatch, generator, make_fabric, make_train_state
from tests.transfer.test_captioning import same
from transfer.captioning import engine, self_critical, setup, start
from transfer.captioning.beam_search import generate_captions
from transfer.captioning.captioner import Captioner, build_decoder, feature_kind
from transfer.captioning.config import (
    CaptioningConfig,
    DatasetConfig,
    DecodingConfig,
    EncoderConfig,
    ModelConfig,
    SelfCriticalConfig,
)
from transfer.captioning.dataset import read_coco
from transfer.captioning.sampling import sample
from transfer.captioning.scores import score
from transfer.captioning.setup import CaptioningNetwork
from transfer.captioning.vocabulary import END, NOT_GENERATED, PAD, SPECIAL, UNKNOWN, Vocabulary
from transfer.feature_cache import Encoder, Features, with_image_size

KINDS = ("nic", "attention", "transformer")
FABRIC = make_fabric("cpu")


def model(kind, **sizes):
    tiny = {"embed_size": 8, "hidden_size": 12, "attention_size": 6, "num_layers": 2,
            "encoder_layers": 1, "num_heads": 3, "ffn_size": 16, "dropout": 0.5}  # fmt: skip
    return ModelConfig(kind=kind, **(tiny | sizes))


def rewarded(batch_size, samples, length=5, **changes):
    """A configuration of the steps alone."""
    options = SelfCriticalConfig(samples=samples, **changes.pop("self_critical", {}))
    return CaptioningConfig(
        start_from="somewhere",
        objective="self_critical",
        batch_size=batch_size,
        self_critical=options,
        decoding=DecodingConfig(max_length=length),
        **changes,
    )


def step(config, decoder, features, references, parts=1):
    """The gradients of one step, and what it returns; the weights stay."""
    fabric = make_fabric("cpu", config.precision)
    network = CaptioningNetwork(decoder, None)
    state = make_train_state(
        network, replace(config, accumulate=parts), fabric, steps_per_epoch=1, parts=[decoder]
    )
    state.model.train()
    self_critical.use_policy(state.model)
    found = []
    state.optimizer.step = lambda: found.extend(p.grad.clone() for p in decoder.parameters())
    images = np.arange(len(features))
    batches = [
        MicroBatch(number, (features[part], part.tolist()), number == parts - 1)
        for number, part in enumerate(np.split(images, parts))
    ]
    metrics = self_critical.train_step(state, config, fabric, 7, batches, False, references)
    return found, metrics


def make_decoder(kind, words, seed=0, channels=5, scale=2.0):
    torch.manual_seed(seed)
    decoder = build_decoder(channels, words, model(kind))
    for parameter in decoder.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(scale)
    shape = (channels,) if kind == "nic" else (4, channels)
    return decoder, torch.randn(6, *shape)


def log_prob(decoder, feature, caption):
    """Of one caption, word by word, what is never generated left out."""
    logits = decoder(feature[None], torch.tensor([caption])).logits[0]
    allowed = [word for word in range(logits.shape[-1]) if word not in NOT_GENERATED]
    rows = logits[:, allowed].log_softmax(-1)
    return sum(row[allowed.index(word)] for row, word in zip(rows, caption, strict=True))


class Table:
    """Rewards that are any function of image and caption."""

    def __init__(self, reward):
        self.reward = reward

    def cider_d(self, ids, captions):
        return np.array([self.reward(*pair) for pair in zip(ids, captions, strict=True)])


def test_the_expected_gradient_is_that_of_the_expected_reward():
    """All captions of three words, up to length 3; the step draws 12,000 of them."""
    words = (END, 4, 5)
    captions = [
        caption
        for length in (1, 2, 3)
        for caption in product(words, repeat=length)
        if END not in caption[:-1] and (caption[-1] == END or length == 3)
    ]
    assert len(captions) == 1 + 2 + 4 * 3
    draw = torch.Generator().manual_seed(5)
    values = (3 * torch.rand(len(captions), generator=draw)).tolist()
    table = {
        " ".join(map(str, words)): value for words, value in zip(captions, values, strict=True)
    }
    decoder, features = make_decoder("nic", 6)
    decoder.eval()
    logs = [log_prob(decoder, features[0], list(caption)) for caption in captions]
    assert float(sum(one.detach().exp() for one in logs)) == pytest.approx(1, abs=1e-5)
    expected = -sum(one.exp() * value for one, value in zip(logs, values, strict=True))
    wanted = torch.autograd.grad(expected, list(decoder.parameters()), allow_unused=True)
    for baseline, samples in (("mean", 2), ("greedy", 1)):
        config = rewarded(12_000, samples, 3, self_critical={"baseline": baseline})
        repeated = features[:1].expand(12_000 // samples, -1)
        found, metrics = step(config, decoder, repeated, Table(lambda _, text: table[text]))
        assert float(metrics[1]) == pytest.approx(-float(expected.detach()), abs=0.04)
        for gradient, right in zip(found, wanted, strict=True):
            right = torch.zeros_like(gradient) if right is None else right
            assert float((gradient - right).abs().max()) < 0.04
    assert max(float(one.abs().max()) for one in wanted if one is not None) > 0.2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("baseline", ["mean", "greedy"])
def test_a_step_is_reinforce_written_out(kind, baseline):
    """Caption by caption, from the same draws; a step of two parts is one of one part."""
    decoder, features = make_decoder(kind, 9)
    config = rewarded(18, 3, self_critical={"baseline": baseline})

    def reward(image, text):
        return math.sin(image + 3 * len(text) + int(text[0]))

    found, metrics = step(config, decoder, features, Table(reward))
    decoder.eval()
    draws = torch.rand(6, 3, 5, generator=generator(0, "captions", 7))
    sampled, _ = sample(decoder, features, 5, draws)
    greedy, _ = sample(decoder, features, 5)
    texts = [
        [[word for word in caption if word != PAD] for caption in image]
        for image in torch.cat([sampled, torch.nn.functional.pad(
            greedy, (0, sampled.shape[-1] - greedy.shape[-1]))], dim=1).tolist()
    ]  # fmt: skip
    rewards = [
        [reward(image, " ".join(map(str, words))) for words in row]
        for image, row in enumerate(texts)
    ]
    loss, baselines = 0.0, []
    for image, row in enumerate(texts):
        for place, caption in enumerate(row[:3]):
            others = [rewards[image][other] for other in range(3) if other != place]
            base = sum(others) / 2 if baseline == "mean" else rewards[image][3]
            advantage = rewards[image][place] - base
            loss = loss - advantage * log_prob(decoder, features[image], caption) / 18
            baselines.append(base)
    wanted = torch.autograd.grad(loss, list(decoder.parameters()), allow_unused=True)
    for gradient, right in zip(found, wanted, strict=True):
        if right is not None:
            torch.testing.assert_close(gradient, right, atol=1e-5, rtol=1e-4)
    of_samples = [value for row in rewards for value in row[:3]]
    unended = np.mean([END not in caption for row in texts for caption in row[:3]])
    assert metrics.tolist() == pytest.approx(
        [float(loss.detach()), np.mean(of_samples), np.mean(baselines), unended], abs=1e-5
    )
    parts, sums = step(config, decoder, features, Table(reward), parts=2)
    torch.testing.assert_close(sums / 2, metrics)
    for gradient, right in zip(parts, found, strict=True):
        torch.testing.assert_close(gradient, right, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["attention", "transformer"])
def test_a_step_in_bfloat16(kind):
    """Not every CPU has an LSTM in it."""
    decoder, features = make_decoder(kind, 9, scale=1.0)
    config = rewarded(30, 5)
    reward = Table(lambda image, text: float(len(text)))
    found, (loss, *_) = step(replace(config, precision="bf16-mixed"), decoder, features, reward)
    assert torch.isfinite(loss)
    assert all(torch.isfinite(gradient).all() for gradient in found)
    assert any(gradient.any() for gradient in found)


def cider_d(said, references, documents):
    """CIDEr-D of one caption as ruotianluo/cider counts it (ciderD_scorer.py), on lists of words.

    documents: n-grams of all images' references, a set for each image.
    """

    def vector(words):
        counts = Counter(
            tuple(words[at : at + n]) for n in range(1, 5) for at in range(len(words) - n + 1)
        )
        idf = {
            gram: math.log(len(documents)) - math.log(max(1, sum(gram in one for one in documents)))
            for gram in counts
        }
        return {gram: times * idf[gram] for gram, times in counts.items()}

    def norm(weights, n):
        return math.sqrt(sum(w**2 for gram, w in weights.items() if len(gram) == n))

    own, total = vector(said), 0.0
    for words in references:
        other = vector(words)
        delta = (len(said) - 1) - (len(words) - 1)  # lengths are counted in bigrams
        for n in range(1, 5):
            value = sum(
                min(weight, other.get(gram, 0)) * other.get(gram, 0)
                for gram, weight in own.items()
                if len(gram) == n
            )
            if norm(own, n) and norm(other, n):
                value /= norm(own, n) * norm(other, n)
            total += value * math.exp(-(delta**2) / (2 * 6.0**2)) / 4
    return 10 * total / len(references)


def test_rewards_count_the_end_and_the_unknown_word():
    """As ruotianluo: numbers of words, the end and the unknown word among them."""
    draw = np.random.default_rng(0)
    captions = [[*draw.integers(UNKNOWN, 8, draw.integers(1, 7)).tolist(), END] for _ in range(12)]
    image_of = np.repeat(np.arange(4), 3)
    words = np.array([row + [PAD] * (8 - len(row)) for row in captions])
    references = self_critical.reward_references(words, image_of)
    sampled = draw.integers(4, 8, (3, 2, 7))
    sampled[0, 0, 3:] = [END, PAD, PAD, PAD]
    sampled[1, 0, :] = [END, *[PAD] * 6]
    sampled[2, 1, -1] = END
    images = [3, 0, 1]
    found = self_critical.rewards(references, images, torch.from_numpy(sampled))
    grams = [
        {tuple(row[at : at + n]) for row in captions[3 * image : 3 * image + 3]
         for n in range(1, 5) for at in range(len(row) - n + 1)}
        for image in range(4)
    ]  # fmt: skip
    for image, rows, values in zip(images, sampled.tolist(), found, strict=True):
        wanted = captions[3 * image : 3 * image + 3]
        for row, value in zip(rows, values, strict=True):
            said = [word for word in row if word != PAD]
            assert float(value) == pytest.approx(cider_d(said, wanted, grams), abs=1e-5)
    perfect = torch.tensor([[words[0].tolist()], [words[0].tolist()]])
    cut = perfect.masked_fill(perfect == END, PAD)
    assert (self_critical.rewards(references, [0, 0], cut) < self_critical.rewards(
        references, [0, 0], perfect)).all()  # fmt: skip


def test_cudnn_has_gradients_of_what_was_sampled():
    """It keeps what they need of an LSTM in training mode alone; nothing else is in it."""
    decoder = build_decoder(5, 9, model("nic", dropout=0.5)).train()
    self_critical.use_policy(decoder)
    assert [name for name, one in decoder.named_modules() if one.training] == ["lstm"]


def test_the_mean_of_the_others():
    found = self_critical.mean_of_others(torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 3.0]]))
    assert found.tolist() == [[4.0, 3.5, 1.5], [1.5, 1.5, 0.0]]


# ---- going on from a captioner


def config(tree, cache, **changes):
    return CaptioningConfig(
        **{
            "name": "test",
            "data": str(tree),
            "epochs": 2,
            "batch_size": 12,
            "loader": LoaderConfig(workers=0),
            "meteor": "off",
            "cache": str(cache),
            "decoding": DecodingConfig(beam=1, max_length=8),
            "self_critical": SelfCriticalConfig(samples=2),
            **changes,
        }
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def small(backbone):
    """For inputs of 32 pixels."""
    return with_image_size(backbone, 32)


WORDS = (*SPECIAL, "a", "red", "green", "blue", "circle", "ring", "square", "on", "the", "shows")


def captioner(backbone, kind, seed=0, **sizes):
    """Untrained."""
    torch.manual_seed(seed)
    shape = Encoder(backbone, feature_kind(model(kind))).feature_shape(backbone)
    decoder = build_decoder(shape[-1], len(WORDS), model(kind, **sizes))
    return Captioner(
        backbone=backbone,
        model=model(kind, **sizes),
        decoding=DecodingConfig(),
        vocabulary=Vocabulary(WORDS),
        weights=decoder.state_dict(),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", [None, 0, 1])
def test_stopped_and_resumed_equals_uninterrupted(
    kind, encoder, worlds, small, cache, tmp_path, full
):
    if not full and (kind, encoder) != ("transformer", 0):
        pytest.skip("with --full")
    captioner(small, kind).save(tmp_path / "start.pth")
    options = config(
        worlds["captions"],
        cache,
        start_from=str(tmp_path / "start.pth"),
        objective="self_critical",
        encoder=EncoderConfig(from_epoch=encoder, lr=1e-3),
        self_critical=SelfCriticalConfig(samples=2, baseline="greedy"),
        epochs=2 if full else 1,
    )
    whole = engine.finetune(small, options, Run(tmp_path / "whole"), FABRIC)
    for place in (1, 3) if full else (1,):
        with pytest.raises(Stopped, match=f"step {place} of "):
            engine.finetune(small, options, Run(tmp_path / "cut"), FABRIC, stop_after=place)
    cut = engine.finetune(small, options, Run(tmp_path / "cut"), FABRIC)
    assert same(tmp_path / "whole", tmp_path / "cut")
    assert whole.metrics == cut.metrics
    log = Run(tmp_path / "whole").read_log()
    assert [*log[-1]][:6] == ["epoch", "step", *self_critical.METRICS]
    assert {record["val_CIDEr_start"] for record in log} == {whole.metrics["val_CIDEr_start"]}
    assert whole.config["model"] == whole.config["model"] | {"kind": kind, "hidden_size": 12}


def test_an_image_is_encoded_once_and_its_encoder_learns(worlds, small, cache, tmp_path):
    captioner(small, "attention").save(tmp_path / "start.pth")
    encoder = EncoderConfig(from_epoch=0, lr=1e-3)
    options = config(
        worlds["captions"], cache, start_from=str(tmp_path / "start.pth"),
        objective="self_critical", encoder=encoder,
    )  # fmt: skip
    made = setup.build(small, options)
    state, data = setup.setup_training(made, made.config, FABRIC)
    (features, numbers), *_ = data.train.epoch(0)
    assert features.shape == (6, 3, 32, 32)
    assert sorted(number for _, part in data.train.epoch(0) for number in part) == list(range(12))
    sizes = []
    state.network.encoder.register_forward_hook(lambda _, args, __: sizes.append(len(args[0])))
    before = {name: value.clone() for name, value in state.network.state_dict().items()}
    state.model.train()
    self_critical.use_policy(state.model)
    batch = MicroBatch(0, (features, numbers), True)
    self_critical.train_step(state, made.config, FABRIC, 0, [batch], True, data.rewards)
    assert sizes == [6]
    moved = {
        name for name, value in state.network.state_dict().items()
        if not torch.equal(value, before[name])
    }  # fmt: skip
    assert any(name.startswith("encoder.") and "conv" in name for name in moved)
    assert not any("running" in name for name in moved)


def test_images_that_cannot_be_read_move_no_numbers(worlds, small, cache, tmp_path):
    captioner(small, "nic").save(tmp_path / "start.pth")
    start_file = str(tmp_path / "start.pth")
    options = config(worlds["captions"], cache, start_from=start_file, objective="self_critical")
    made = setup.build(small, options)
    shape = Encoder(small, "pooled").feature_shape(small)
    count = sum(len(images) for images in (made.data.train, made.data.val, made.data.test))
    row_of = np.zeros(count, np.int64)
    row_of[1] = -1
    features = Features(np.zeros((1, *shape), np.float32), row_of, {})
    _, data = setup.setup_training(made, made.config, FABRIC, features)
    assert data.train.take(np.array([0, 1, 2])) == [0, 2, 3]


def test_what_a_start_decides(worlds, small, cache, tmp_path):
    """Weights, words, model, image size and tokenizer; options at their default are filled in."""
    begun = captioner(small, "nic", embed_size=16)
    begun.save(tmp_path / "captioner.pth")
    options = config(worlds["captions"], cache, start_from=str(tmp_path))
    made = setup.build(with_image_size(small, 64), options)
    assert made.config.model == begun.model
    assert made.config.dataset.image_size == 32
    assert made.vocabulary.words == WORDS
    assert made.backbone.fingerprint() == small.fingerprint()
    assert start.resolved(options) == made.config == start.resolved(made.config)
    for name, value in made.decoder.state_dict().items():
        assert torch.equal(value, begun.weights[name])
    others = replace(options, model=ModelConfig(hidden_size=13))
    said = r"model.hidden_size 13, there 12.*--model.hidden_size 12"
    with pytest.raises(UsageError, match=said):
        start.take_over(others, begun)
    others = replace(options, dataset=DatasetConfig(tokenizer="characters", image_size=64))
    with pytest.raises(UsageError, match=r"size 64, there 32; dataset.tokenizer 'characters'"):
        start.take_over(others, begun)


def test_a_start_that_is_not_there():
    with pytest.raises(UsageError, match=r"no such run.*--start_from RUN"):
        start.load("runs/nowhere")


def test_a_start_brings_its_encoder():
    with pytest.raises(UsageError, match=r"random_init .* start_from is runs/a.*one of them out"):
        CaptioningConfig(start_from="runs/a", random_init=True)


def test_a_start_whose_encoder_was_trained(worlds, small, cache, tmp_path):
    """Its run knows the backbone that it was trained from; going on takes the trained one."""
    weights = {name: value + 0.01 if "conv1" in name else value
               for name, value in small.weights.items()}  # fmt: skip
    begun = captioner(replace(small, weights=weights), "nic")
    begun.save(tmp_path / "first/captioner.pth")
    options = config(
        worlds["captions"], cache, start_from=str(tmp_path / "first"), objective="self_critical",
        epochs=1, decoding=DecodingConfig(beam=1, max_length=4),
    )  # fmt: skip
    with pytest.raises(UsageError, match=rf"--backbone is .* \({small.fingerprint()}\), but"):
        setup.build(small, options)
    facts = {"task": "captioning", "metric": "CIDEr", "metrics": {}, "data": {"name": ""}}
    facts |= {"seed": 0, "config": {}, "seconds": 0, "environment": {}}
    Run(tmp_path / "first").finish(Result(**facts, backbone=small.describe()))
    with pytest.raises(Stopped):
        engine.finetune(small, options, Run(tmp_path / "run"), FABRIC, stop_after=1)
    kept = (tmp_path / "first/captioner.pth").read_bytes()
    captioner(begun.backbone, "nic", seed=1).save(tmp_path / "first/captioner.pth")
    with pytest.raises(UsageError, match=r"data has changed .* \(start: files of the same names"):
        engine.finetune(small, options, Run(tmp_path / "run"), FABRIC)
    (tmp_path / "first/captioner.pth").write_bytes(kept)
    result = engine.finetune(small, options, Run(tmp_path / "run"), FABRIC)
    images = read_coco(worlds["captions"], "val2017")
    encoder, decoder = begun.build()
    see = begun.backbone.preprocess()
    with torch.inference_mode():
        features = encoder(torch.stack([see(decode(image.path)) for image in images]))
    said = generate_captions(decoder, [features], begun.vocabulary, options.decoding)
    wanted = score({n: one.captions for n, one in enumerate(images)}, dict(enumerate(said)))
    assert result.metrics["val_CIDEr_start"] == pytest.approx(wanted.corpus["CIDEr"])
    assert result.backbone["fingerprint"] == small.fingerprint()
    held = Captioner.load(tmp_path / "run")
    assert held.backbone.fingerprint() == begun.backbone.fingerprint()
    assert held.vocabulary == begun.vocabulary
    setup.build(small, replace(options, start_from=str(tmp_path / "run")))


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "said"),
    [(10, 2, r"batch_size is 10; it must be a multiple of 4 \(self_critical.samples 2 x accum"),
     (26, 1, r"batch_size is 26, 2 samples of each of 13 images, but there are only 12 training")],
)  # fmt: skip
def test_batches_that_cannot_be(batch_size, accumulate, said, worlds, small, cache, tmp_path):
    captioner(small, "nic").save(tmp_path / "start.pth")
    options = config(
        worlds["captions"], cache, start_from=str(tmp_path / "start.pth"),
        objective="self_critical", batch_size=batch_size, accumulate=accumulate,
    )  # fmt: skip
    with pytest.raises(UsageError, match=said):
        setup.build(small, options)


def test_captions_that_teach_little(worlds, small, cache, tmp_path):
    """One image alone gives no reward; of other words than the start's hardly any is known."""
    captioner(small, "nic").save(tmp_path / "start.pth")
    tree = shutil.copytree(worlds["captions"], tmp_path / "tree")
    file = tree / "annotations/captions_train2017.json"
    content = json.loads(file.read_text())
    options = config(tree, cache, start_from=str(tmp_path / "start.pth"), objective="self_critical")
    for text, share in (("a red ring on the square", None), ("a Ring im Kreis", "50%")):
        others = [{**one, "caption": text} for one in content["annotations"]]
        file.write_text(json.dumps(content | {"annotations": others}))
        notes = [note for note in setup.build(small, options).notes if "vocabulary" in note]
        assert [note.split()[0] for note in notes] == ([share] if share else [])
    first = content["images"][0]["id"]
    captions = [one for one in others if one["image_id"] == first]
    file.write_text(
        json.dumps(content | {"annotations": captions, "images": content["images"][:1]})
    )
    with pytest.raises(UsageError, match="wants two training images or more, and there is one"):
        setup.build(small, replace(options, batch_size=2))
