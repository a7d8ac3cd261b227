"""The Transformer beside PyTorch's own modules, and its cache beside none."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tools.support.benchmarks._naive_beam import one_by_one
from tools.support.benchmarks._transformer_parts import Uncached
from transfer.captioning.attention_maps import _draw_map, attention_maps
from transfer.captioning.beam_search import beam_search
from transfer.captioning.config import DecodingConfig, ModelConfig
from transfer.captioning.dataset import read_coco
from transfer.captioning.decoder import caption_loss
from transfer.captioning.sampling import sample
from transfer.captioning.transformer import Transformer
from transfer.captioning.vocabulary import END, NOT_GENERATED, PAD, SPECIAL, START, Vocabulary

CONFIG = ModelConfig(
    kind="transformer", hidden_size=24, num_heads=4, ffn_size=40, num_layers=3, encoder_layers=2
)
WORDS, FEATURES, POSITIONS = 60, 7, 12


def transformer(dtype=torch.double, config=CONFIG):
    """Drawn weights, opinionated enough that beams differ from greedy and captions end."""
    torch.manual_seed(1)
    made = Transformer(FEATURES, WORDS, config).to(dtype)
    for name, parameter in made.named_parameters():
        parameter.data.mul_(2).add_(0.1 * torch.randn_like(parameter))  # biases and norms too
        if name.startswith("classify"):
            parameter.data.mul_(4)
    made.classify.bias.data[END] += 3
    return made, torch.randn(6, POSITIONS, FEATURES, dtype=dtype)


class Reference(nn.Module):
    """nn.TransformerEncoder and nn.TransformerDecoder, the rest as equations, and our weights."""

    def __init__(self, ours):
        super().__init__()
        size, config = CONFIG.hidden_size, CONFIG
        options = {"dropout": 0.0, "batch_first": True, "norm_first": True}
        sizes = (size, config.num_heads, config.ffn_size)
        self.rest = {name: getattr(ours, name) for name in ("project", "embed", "classify")}
        self.encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(*sizes, **options),
            config.encoder_layers,
            nn.LayerNorm(size),
            enable_nested_tensor=False,
        )
        self.decoder = nn.TransformerDecoder(
            nn.TransformerDecoderLayer(*sizes, **options), config.num_layers, nn.LayerNorm(size)
        )
        self.to(ours.classify.weight.dtype)
        self.pairs = [*self.pair(ours)]
        assert len(self.pairs) == 2 * len([*self.modules_with_weights()])
        for theirs, parts in self.pairs:
            theirs.data.copy_(torch.cat([part.data for part in parts]))
        shared = [part for module in self.rest.values() for part in module.parameters()]
        self.pairs += [(part, [part]) for part in shared]

    def modules_with_weights(self):
        """Weight and bias each; an attention's are of two linear layers, one of them within."""
        kinds = (nn.Linear, nn.LayerNorm, nn.MultiheadAttention)
        return [module for module in self.modules() if isinstance(module, kinds)]

    def pair(self, ours):
        """Our parameters that each of theirs consists of."""
        modules = [(self.encoder.norm, ours.encoder_norm), (self.decoder.norm, ours.decoder_norm)]
        for theirs, layer in zip(self.encoder.layers, ours.encoder, strict=True):
            modules += self.self_attention(theirs, layer.attend)
            modules += self.feed_forward(theirs, theirs.norm2, layer.feed_forward)
        for theirs, layer in zip(self.decoder.layers, ours.decoder, strict=True):
            modules += self.self_attention(theirs, layer.words)
            attention, image = theirs.multihead_attn, layer.image
            modules += [(theirs.norm2, image.norm), (attention.out_proj, image.output)]
            for name in ("weight", "bias"):
                parts = getattr(image.query, name), getattr(image.keys_values, name)
                yield getattr(attention, f"in_proj_{name}"), parts
            modules += self.feed_forward(theirs, theirs.norm3, layer.feed_forward)
        for theirs, own in modules:
            if isinstance(theirs, nn.MultiheadAttention):
                yield theirs.in_proj_weight, [own.weight]
                yield theirs.in_proj_bias, [own.bias]
            else:
                yield theirs.weight, [own.weight]
                yield theirs.bias, [own.bias]

    def self_attention(self, theirs, own):
        attention = theirs.self_attn
        return [(theirs.norm1, own.norm), (attention, own.qkv), (attention.out_proj, own.output)]

    def feed_forward(self, theirs, norm, own):
        return [(norm, own[0]), (theirs.linear1, own[1]), (theirs.linear2, own[3])]

    def forward(self, features, words):
        length, size = words.shape[1], CONFIG.hidden_size
        angles = [[t / 10000 ** (2 * (i // 2) / size) for i in range(size)] for t in range(length)]
        angles = torch.tensor(angles, dtype=features.dtype)
        positions = torch.where(torch.arange(size) % 2 == 0, angles.sin(), angles.cos())
        before = torch.cat([torch.full((len(words), 1), START), words[:, :-1]], dim=1)
        embedded = self.rest["embed"].weight[before] * size**0.5 + positions
        image = self.encoder(self.rest["project"](features))
        mask = nn.Transformer.generate_square_subsequent_mask(length, dtype=features.dtype)
        hidden = self.decoder(embedded, image, tgt_mask=mask, tgt_is_causal=True)
        return self.rest["classify"](hidden)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.double, 1e-9)])
def test_loss_and_gradients_are_those_of_pytorch_s_modules(dtype, tolerance):
    ours, features = transformer(dtype)
    reference = Reference(ours)
    words = torch.randint(4, WORDS, (6, 9))
    words[0, 4:], words[0, 3], words[1, -1] = PAD, END, END
    output, logits = ours(features, words), reference(features, words)
    torch.testing.assert_close(output.logits, logits, atol=20 * tolerance, rtol=tolerance)
    loss, expected = (
        nn.functional.cross_entropy(each.transpose(1, 2), words, ignore_index=PAD)
        for each in (output.logits, logits)
    )
    torch.testing.assert_close(loss, expected, atol=0, rtol=tolerance)
    minimised = caption_loss(output, words, coverage=1.0)
    torch.testing.assert_close(minimised[0], loss.float())
    assert minimised[0] is minimised[1]
    own = iter(torch.autograd.grad(loss, [part for _, parts in reference.pairs for part in parts]))
    theirs = torch.autograd.grad(expected, [parameter for parameter, _ in reference.pairs])
    scale = max(gradient.abs().max() for gradient in theirs)
    for gradient, (_, parts) in zip(theirs, reference.pairs, strict=True):
        found = torch.cat([next(own) for _ in parts])
        assert (found - gradient).abs().max() < tolerance * scale
        assert gradient.abs().max() > 0


def test_greedy_captions_are_those_of_pytorch_s_modules():
    """Each word from a pass over all words before."""
    ours, features = transformer()
    reference = Reference(ours).eval()
    words = torch.full((6, 0), PAD)
    with torch.inference_mode():
        for _ in range(8):
            last = reference(features, torch.cat([words, words.new_zeros(6, 1)], dim=1))[:, -1]
            last[:, NOT_GENERATED] = -torch.inf
            last = last.argmax(-1).masked_fill((words == END).any(1), PAD)
            words = torch.cat([words, last[:, None]], dim=1)
    found = sample(ours.eval(), features, 8)[0][:, 0]
    assert found.tolist() == words[:, : found.shape[1]].tolist()
    assert (words == END).any(1).sum() >= 2
    assert len({tuple(row) for row in found.tolist()}) >= 4


@pytest.mark.parametrize("width", [1, 3, 5])
@pytest.mark.parametrize(("power", "ngrams"), [(0.0, 0), (0.7, 0), (0.0, 2), (1.0, 3)])
def test_search_equals_a_naive_one_and_one_without_a_cache(width, power, ngrams):
    ours, features = transformer()
    options = {"length_normalisation": power, "block_ngrams": ngrams}
    config = DecodingConfig(beam=width, max_length=8, **options)
    found, expected = (beam_search(d, features, config) for d in (ours.eval(), Uncached(ours)))
    assert found.words.tolist() == expected.words.tolist()
    torch.testing.assert_close(found.scores, expected.scores, atol=1e-9, rtol=0)
    assert len({tuple(row) for row in found.words.tolist()}) >= 4
    with torch.inference_mode():
        words, score = one_by_one(ours, features[width], width, 8, **options)
    assert [word for word in found.words[width].tolist() if word != PAD] == words
    assert abs(float(found.scores[width]) - score) < 1e-9


def test_the_log_probabilities_of_samples_are_those_of_teacher_forcing():
    ours, features = transformer()
    words, logs = sample(ours.eval(), features, 8, draws=torch.rand(6, 4, 8))
    words, logs = words.flatten(0, 1), logs.flatten(0, 1)
    assert (words == PAD).any()
    logits = ours(features.repeat_interleave(4, 0), words).logits
    logits[..., NOT_GENERATED] = -torch.inf
    expected = logits.log_softmax(-1).gather(-1, words[..., None])[..., 0]
    torch.testing.assert_close(logs, expected.masked_fill(words == PAD, 0.0).float())


def test_the_cache_is_shared_by_the_hypotheses_of_an_image():
    ours, features = transformer()
    memory, state = ours.init_state(features)
    state = tuple(part.expand(6, 5, *part.shape[2:]) for part in state)
    for length in range(1, 4):
        logits, state = ours.step(torch.full((6, 5), START), memory, state)
        assert logits.shape == (6, 5, WORDS)
        assert {part.shape for part in state} == {(6, 5, length, 48)}
    assert {part.shape for part in memory} == {(6, POSITIONS, 48)}


def test_attention_weights_are_those_of_pytorch_s_last_layer():
    ours, features = transformer()
    reference = Reference(ours)
    words = torch.randint(4, WORDS, (6, 5))
    last, seen = reference.decoder.layers[-1].multihead_attn, []
    last.register_forward_pre_hook(lambda _, parts: seen.append(parts))
    reference(features, words)
    _, expected = last(*seen[0], need_weights=True, average_attn_weights=True)
    weights = ours.eval().attention_weights(features, words)
    torch.testing.assert_close(weights, expected)
    torch.testing.assert_close(weights.sum(-1), torch.ones(6, 5).double())


def test_a_page_shows_these_weights_at_each_word(worlds, backbone):
    ours, features = transformer(torch.float32)
    words = tuple(f"w{number}" for number in range(WORDS - 4))
    captioner = SimpleNamespace(backbone=backbone, vocabulary=Vocabulary((*SPECIAL, *words)))
    images = read_coco(worlds["captions"], "val2017")[:2]
    captions = {image.image_id: "w7 w3 w9" for image in images}
    found = attention_maps(captioner, ours.eval(), images, captions, [features[:2]])
    weights = ours.attention_weights(features[:2], torch.tensor([[11, 7, 13, END]] * 2))
    for maps, rows in zip(found.values(), weights.detach().numpy(), strict=True):
        assert [one.word for one in maps] == ["w7", "w3", "w9"]
        assert [one.map for one in maps] == [_draw_map(row, 1.0) for row in rows[:3]]
    nic = SimpleNamespace()
    assert attention_maps(captioner, nic, images, captions, [features[:2]]) == {}


def test_training_keeps_no_table_of_weights():
    """With dropout too, PyTorch's memory-efficient kernel takes every attention."""
    config = ModelConfig(**{**vars(CONFIG), "dropout": 0.3})
    ours, features = transformer(torch.float32, config)
    words = torch.randint(4, WORDS, (6, 9))
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        one, two = (ours(features, words).logits for _ in range(2))
        one.sum().backward()
    assert not torch.equal(one, two)


def test_positions_have_no_end():
    ours, features = transformer()
    words = torch.randint(4, WORDS, (1, 700))
    logits = ours(features[:1], words).logits[0, 600:]
    assert (logits - ours(features[:1], words.roll(1, 1)).logits[0, 600:]).abs().max() > 0.1
    assert logits.isfinite().all()
