"""Search and sampling, beside a naive reference; attention beside its equations."""

import pytest
import torch

from tools.support.benchmarks._naive_beam import group_by_group, one_by_one
from transfer.captioning.attention import Attention
from transfer.captioning.beam_search import beam_search
from transfer.captioning.config import DecodingConfig, ModelConfig
from transfer.captioning.continuations import extend
from transfer.captioning.decoder import DecoderOutput, caption_loss
from transfer.captioning.ensemble import Ensemble
from transfer.captioning.nic import Nic
from transfer.captioning.sampling import sample
from transfer.captioning.transformer import Transformer
from transfer.captioning.vocabulary import END, PAD, START, UNKNOWN


def decoder(kind, num_words, seed):
    """Random, in double precision, opinionated enough that beams differ from greedy."""
    torch.manual_seed(seed)
    config = ModelConfig(embed_size=8, hidden_size=9, attention_size=5,
                         num_heads=3, ffn_size=8, num_layers=2, encoder_layers=1)  # fmt: skip
    made = kind(7, num_words, config).double().eval()
    for parameter in made.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(6)
    made.classify.bias.data.normal_()
    made.classify.bias.data[END] += 1.5
    shape = (7, 7) if kind is Nic else (7, 4, 7)
    return made, torch.randn(*shape, dtype=torch.double)


@pytest.mark.parametrize("kind", [Nic, Attention])
@pytest.mark.parametrize("num_words", [11, 150, 700])
@pytest.mark.parametrize("width", [1, 3, 20])
@pytest.mark.parametrize(("power", "ngrams"), [(0.0, 0), (0.7, 0), (0.0, 2), (1.0, 3)])
def test_beam_search_equals_a_naive_one(kind, num_words, width, power, ngrams):
    made, features = decoder(kind, num_words, seed=num_words + width)
    options = {"length_normalisation": power, "block_ngrams": ngrams}
    best = search(made, features, width, 8, **options)
    with torch.inference_mode():
        for row, value, feature in zip(best.words, best.scores, features, strict=True):
            words, expected = one_by_one(made, feature, width, 8, **options)
            assert [word for word in row.tolist() if word != PAD] == words
            assert abs(float(value) - expected) < 1e-9


def search(made, features, width, max_length, **options):
    return beam_search(made, features, DecodingConfig(beam=width, max_length=max_length, **options))


class Table:
    """Logits by image and last word alone, of few values: full of exact ties."""

    def init_state(self, features):
        return (features,), (features.new_zeros(len(features), 1, 1),)

    def step(self, words, memory, state):
        (tables,) = memory
        return tables[torch.arange(len(tables))[:, None], words], state


@pytest.mark.parametrize("num_words", [11, 150, 700])
@pytest.mark.parametrize("width", [1, 3, 20])
@pytest.mark.parametrize(("power", "ngrams"), [(0.0, 0), (0.7, 0), (1.0, 2)])
def test_of_equal_continuations_the_first_is_taken(num_words, width, power, ngrams):
    """Earlier hypothesis, then smaller word: as the naive search, whose sorts are stable."""
    draw = torch.Generator().manual_seed(num_words + width)
    tables = torch.randint(0, 3, (6, num_words, num_words), generator=draw).double() * 3
    tables[..., END] += 3
    options = {"length_normalisation": power, "block_ngrams": ngrams}
    best = search(Table(), tables, width, 6, **options)
    with torch.inference_mode():
        for row, value, table in zip(best.words, best.scores, tables, strict=True):
            words, expected = one_by_one(Table(), table, width, 6, **options)
            assert [word for word in row.tolist() if word != PAD] == words
            assert float(value) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "num_words"), [(Nic, 300), (Transformer, 8), (Table, 8), (Table, 150)]
)
@pytest.mark.parametrize(("width", "groups"), [(6, 3), (4, 4)])
@pytest.mark.parametrize(("power", "ngrams", "diversity"), [(0.0, 0, 0.5), (0.7, 2, 1.5)])
def test_diverse_search_equals_a_naive_one(
    kind, num_words, width, groups, power, ngrams, diversity
):
    if kind is Table:  # a diversity of 1.5 keeps its ties
        draw = torch.Generator().manual_seed(width)
        features = torch.randint(0, 3, (4, num_words, num_words), generator=draw).double() * 3
        features[..., END] += 3
        made = Table()
    else:
        made, features = decoder(kind, num_words, seed=groups)
    options = {"length_normalisation": power, "block_ngrams": ngrams}
    options |= {"groups": groups, "diversity": diversity}
    found = search(made, features[:3], width, 5, **options)
    assert found.groups.shape[1] == groups
    with torch.inference_mode():
        for rows, values, feature in zip(found.groups, found.group_scores, features, strict=False):
            expected = group_by_group(made, feature, width, 5, **options)
            assert [[w for w in row if w != PAD] for row in rows.tolist()] == [
                words for words, _ in expected
            ]
            assert values.tolist() == pytest.approx([score for _, score in expected], abs=1e-9)


class PlainEnsemble:
    """The mean of the probabilities of decoders, for one image, written down once more."""

    def __init__(self, decoders, features):
        self.decoders, self.features = decoders, features

    def init_state(self, _):
        started = [d.init_state(f[None]) for d, f in zip(self.decoders, self.features, strict=True)]
        self.memories = [memory for memory, _ in started]
        return None, [state for _, state in started]

    def step(self, words, _, states):
        steps = [
            decoder.step(words, memory, state)
            for decoder, memory, state in zip(self.decoders, self.memories, states, strict=True)
        ]
        mean = sum(logits.softmax(-1) for logits, _ in steps) / len(steps)
        return mean.log(), [state for _, state in steps]


@pytest.mark.parametrize("options", [{}, {"groups": 2, "diversity": 1.0}])
def test_an_ensemble_is_a_plain_loop_over_its_members(options):
    made = [decoder(kind, 50, seed) for seed, kind in enumerate((Nic, Transformer, Attention))]
    made = [(member, features[:4]) for member, features in made]
    members, features = zip(*made, strict=True)
    found = search(Ensemble(members), features, 4, 6, **options)
    with torch.inference_mode():
        for row, value, *own in zip(found.words, found.scores, *features, strict=True):
            loop = PlainEnsemble(members, own)
            words, expected = one_by_one(loop, torch.empty(0), 4, 6, **options)
            assert [word for word in row.tolist() if word != PAD] == words
            assert abs(float(value) - expected) < 1e-9
    apart = [search(member, own, 4, 6, **options) for member, own in made]
    assert not any(torch.equal(found.words, one.words) for one in apart)
    for (member, own), one in zip(made, apart, strict=True):
        alone = search(Ensemble([member]), (own,), 4, 6, **options)
        assert torch.equal(alone.groups, one.groups)
        assert torch.equal(alone.group_scores, one.group_scores)
        twice = search(Ensemble([member] * 2), (own, own), 4, 6, **options)
        assert torch.equal(twice.groups, one.groups)
        torch.testing.assert_close(twice.group_scores, one.group_scores)


def test_a_wider_beam_finds_likelier_captions_and_one_is_greedy():
    made, features = decoder(Nic, 150, seed=5)
    one, many = (search(made, features, width, 8) for width in (1, 20))
    assert torch.equal(one.words, sample(made, features, 8)[0][:, 0])
    assert (many.scores >= one.scores).all()
    assert (many.scores > one.scores).any()


@pytest.mark.parametrize("num_words", [70, 128, 199, 700])
def test_the_best_continuations_are_topk_s(num_words):
    logs = torch.randn(5, 3, num_words).log_softmax(-1)
    logs[2, 1, num_words - 1] = logs[3, 2, num_words // 64 * 64 - 1] = 0.5  # ends of the blocks
    logs[4, 0, min(num_words - 1, num_words // 64 * 64)] = 0.5
    scores = -torch.rand(5, 3)
    values, parents, words = extend(logs, scores, 6)
    expected, positions = (logs + scores[..., None]).flatten(1).topk(6, dim=1)
    assert torch.equal(values, expected)
    assert torch.equal(parents * num_words + words, positions)


@pytest.mark.parametrize("num_words", [70, 700])
def test_equal_continuations_stand_in_the_order_of_their_words(num_words):
    """Ties among the best, at the border, and none."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        logs = -torch.rand(1, 4, num_words, generator=draw)
        scores = torch.zeros(1, 4)
        for equal in (0, 3, 12):
            positions = torch.randperm(4 * num_words, generator=draw)[:equal]
            logs.flatten(1)[:, positions] = 0.5
            expected, order = logs.flatten(1).sort(dim=1, descending=True, stable=True)
            values, parents, words = extend(logs, scores, 6)
            assert torch.equal(values, expected[:, :6])
            assert torch.equal(parents * num_words + words, order[:, :6])


def test_an_image_does_not_depend_on_its_neighbours():
    made, features = decoder(Attention, 150, seed=6)
    together = search(made, features, 3, 8).words
    for row, feature in zip(together, features, strict=True):
        alone = search(made, feature[None], 3, 8).words[0]
        assert row.tolist()[: len(alone)] == alone.tolist()


@pytest.mark.parametrize(("kind", "temperature"), [(Nic, 1.0), (Nic, 2.5), (Attention, 1.0)])
def test_samples_follow_the_distribution(kind, temperature):
    made, features = decoder(kind, 11, seed=2)
    draws = torch.rand(1, 20000, 1, generator=torch.Generator().manual_seed(0))
    words, logs = sample(made, features[:1], 1, draws, temperature=temperature)
    memory, state = made.init_state(features[:1])
    logits, _ = made.step(torch.tensor([[START]]), memory, state)
    logits[..., [PAD, START, UNKNOWN]] = -torch.inf
    expected = (logits[0, 0] / temperature).softmax(-1)
    share = torch.bincount(words.flatten(), minlength=11) / 20000
    assert (share - expected).abs().max() < 0.02
    torch.testing.assert_close(logs[0, :, 0], expected.log().float()[words[0, :, 0]])


def test_samples_are_drawn_by_sums_of_integers(monkeypatch):
    """CUDA has none of floats where --deterministic is on, and Apple's GPUs have no float64."""
    summed, cumsum = [], torch.Tensor.cumsum

    def spy(values, *args, **kwargs):
        summed.append(values.dtype)
        return cumsum(values, *args, **kwargs)

    monkeypatch.setattr(torch.Tensor, "cumsum", spy)
    made, features = decoder(Nic, 11, seed=2)
    # the first and the last draw there is
    words, _ = sample(made, features[:1], 1, torch.tensor([0.0, 1 - 2**-24])[None, :, None])
    assert set(summed) == {torch.int64}
    assert words.flatten().tolist() == [END, 10]


@pytest.mark.parametrize("kind", [Nic, Attention])
def test_samples_depend_on_their_own_draws_and_end_with_end(kind):
    """Neither on the other samples, nor on the other images."""
    made, features = decoder(kind, 50, seed=3)
    draws = torch.rand(7, 4, 8, generator=torch.Generator().manual_seed(1))
    one = sample(made, features, 8, draws)[0]
    for image, number in ((0, 0), (4, 2), (6, 3)):
        alone = sample(made, features[[image]], 8, draws[[image], number, None])[0][0, 0]
        assert torch.equal(alone, one[image, number, : len(alone)])
        assert not one[image, number, len(alone) :].any()
    behind = one.roll(1, -1)
    behind[..., 0] = START
    ended = (behind == END) | (behind == PAD)
    assert torch.equal(ended, one == PAD)


@pytest.mark.parametrize("kind", [Nic, Attention])
def test_the_log_probabilities_of_samples_are_those_of_teacher_forcing(kind):
    made, features = decoder(kind, 50, seed=3)
    draws = torch.rand(7, 4, 8, generator=torch.Generator().manual_seed(1))
    words, logs = sample(made, features, 8, draws)
    assert (words == PAD).any()
    logits = made(features.repeat_interleave(4, 0), words.flatten(0, 1)).logits
    logits[..., [PAD, START, UNKNOWN]] = -torch.inf
    expected = logits.log_softmax(-1).gather(-1, words.flatten(0, 1)[..., None])[..., 0]
    expected = expected.masked_fill(words.flatten(0, 1) == PAD, 0.0)
    torch.testing.assert_close(logs.flatten(0, 1), expected.float())


@pytest.mark.parametrize("kind", [Nic, Attention])
def test_teacher_forcing_equals_word_by_word(kind):
    made, features = decoder(kind, 50, seed=4)
    words = torch.randint(4, 50, (7, 6))
    output = made(features, words)
    memory, state = made.init_state(features)
    last = torch.full((7, 1), START)
    for step in range(6):
        logits, state = made.step(last, memory, state)
        torch.testing.assert_close(output.logits[:, step], logits[:, 0])
        last = words[:, step, None]


def test_attention_is_the_paper_s():
    """Additive scores, a softmax over positions (section 3.1.2), the gate (4.2.1), the deep output.

    One image and the first word by hand.
    """
    made, features = decoder(Attention, 50, seed=7)
    output = made(features, torch.randint(4, 50, (7, 2)))
    positions = made.normalise(features[0])
    hidden, cell = torch.tanh(made.start(positions.mean(0))).chunk(2)
    scores = torch.stack(
        [
            made.compare(torch.tanh(made.keys(position) + made.query(hidden)))[0]
            for position in positions
        ]
    )
    torch.testing.assert_close(output.attention[0, 0], scores.softmax(0))
    torch.testing.assert_close(output.attention.sum(-1), torch.ones(7, 2).double())
    context = sum(w * position for w, position in zip(scores.softmax(0), positions, strict=True))
    context = context * torch.sigmoid(made.gate(hidden))
    word = made.embed.weight[START]
    lstm = made.lstm
    gates = lstm.weight_ih_l0 @ torch.cat([word, context]) + lstm.bias_ih_l0
    gates = gates + lstm.weight_hh_l0 @ hidden + lstm.bias_hh_l0
    enters, stays, new, leaves = gates.chunk(4)
    cell = torch.sigmoid(stays) * cell + torch.sigmoid(enters) * torch.tanh(new)
    hidden = torch.sigmoid(leaves) * torch.tanh(cell)
    deep_output = torch.tanh(word + made.from_state(hidden) + made.from_places(context))
    torch.testing.assert_close(output.logits[0, 0], made.classify(deep_output))


def test_the_penalty_is_equation_14_without_padding():
    attention = torch.tensor([[[0.7, 0.3], [0.5, 0.5], [0.9, 0.1]]])
    words = torch.tensor([[5, END, PAD]])
    output = DecoderOutput(torch.zeros(1, 3, 8), attention)
    loss, likelihood = caption_loss(output, words, 2.0)
    penalty = ((1 - 1.2) ** 2 + (1 - 0.8) ** 2) / 2
    torch.testing.assert_close(loss - likelihood, torch.tensor(2 * penalty))
