"""The Transformer captioner: its search beside one without a cache, its step beside PyTorch's."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pretrain.training import make_fabric
from tools.support.benchmarks._timing import peak_memory_mib
from transfer.captioning.beam_search import beam_search
from transfer.captioning.config import DecodingConfig, ModelConfig
from transfer.captioning.decoder import DecoderOutput, caption_loss
from transfer.captioning.transformer import Transformer
from transfer.captioning.vocabulary import END

Tensors = tuple[Tensor, ...]
Seconds = Callable[..., dict[str, float]]
_SIZE, _HEADS, _INNER, _LAYERS, _ENCODER_LAYERS = 512, 8, 2048, 6, 3
_FEATURES, _POSITIONS, _WORDS, _LENGTH, _CAPTIONS = 2048, 49, 10_000, 20, 20


class Uncached:
    """A Transformer whose state is the words alone: each step runs over all words before.

    Still all hypotheses at once, and the image's keys and values are computed once.
    """

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder

    def init_state(self, features: Tensor) -> tuple[Tensors, Tensors]:
        """The image's keys and values; no words (N, 1, 0)."""
        memory, _ = self.decoder.init_state(features)
        empty = torch.empty(len(features), 1, 0, dtype=torch.long, device=features.device)
        return memory, (empty,)

    def step(self, words: Tensor, memory: Tensors, state: Tensors) -> tuple[Tensor, Tensors]:
        """See transfer.captioning.decoder."""
        words = torch.cat([state[0], words[..., None]], dim=-1)
        outputs, _ = self.decoder.decode(words, memory)
        return self.decoder.classify(outputs[..., -1, :]), (words,)


class PlainTransformer(nn.Module):
    """The same network of nn.Transformer's modules, to be trained."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        options: Any = {"dropout": dropout, "batch_first": True, "norm_first": True}
        self.project = nn.Sequential(nn.LayerNorm(_FEATURES), nn.Linear(_FEATURES, _SIZE))
        self.embed = nn.Embedding(_WORDS, _SIZE)
        sizes = (_ENCODER_LAYERS, _LAYERS, _INNER)
        self.transformer = nn.Transformer(_SIZE, _HEADS, *sizes, **options)
        self.classify = nn.Linear(_SIZE, _WORDS)

    def forward(self, features: Tensor, words: Tensor) -> DecoderOutput:
        """Teacher forcing; without positions, which cost nothing."""
        mask = nn.Transformer.generate_square_subsequent_mask(words.shape[1], words.device)
        embedded = self.embed(words.roll(1, 1))
        grid = self.project(features)
        hidden = self.transformer(grid, embedded, tgt_mask=mask, tgt_is_causal=True)
        return DecoderOutput(self.classify(hidden), None)


def search_with_cache(options: Any, seconds: Seconds) -> tuple[list[str], list[list[str]]]:
    """All words are generated: the end is made unlikely."""
    make_fabric("cpu")  # memory that is freed is kept, as in the tools
    torch.manual_seed(0)
    decoder = _transformer(0.0).eval()
    decoder.classify.weight.data.mul_(10)
    decoder.classify.bias.data[END] = -1e4
    features = torch.randn(options.images, _POSITIONS, _FEATURES)
    rows = []
    for width in (1, 5):
        config = DecodingConfig(beam=width, max_length=_LENGTH)
        words: dict[str, list[list[int]]] = {}
        sides = {"without": Uncached(decoder), "cached": decoder}
        searches = {
            name: partial(_search, side, features, config, words, name)
            for name, side in sides.items()
        }
        without, cached = seconds(options, **searches).values()
        pairs = zip(*words.values(), strict=True)
        rows.append([
            f"Transformer {_SIZE}, {_LAYERS} layers, width {width}",
            f"{1000 * without / options.images:.1f}",
            f"{1000 * cached / options.images:.1f}",
            f"{without / cached:.1f}",
            f"{sum(one == two for one, two in pairs)} of {options.images}",
        ])  # fmt: skip
    head = ["", "without a cache, ms an image", "ours", "ratio", "equal captions"]
    return head, rows


def training_step(options: Any, seconds: Seconds) -> tuple[list[str], list[list[str]]]:
    """Forward, loss and backward, without and with dropout."""
    make_fabric("cpu")
    rows = []
    for dropout in (0.0, 0.1):
        steps = {
            "plain": partial(_step, PlainTransformer(dropout), *_batch()),
            "ours": partial(_step, _transformer(dropout), *_batch()),
        }
        plain, ours = seconds(options, **steps).values()
        memory = [
            peak_memory_mib(f"from {__name__} import memory\nmemory({name!r}, {dropout})", "cpu")
            for name in steps
        ]
        rows.append([
            f"{_CAPTIONS} captions of {_LENGTH} words, dropout {dropout}",
            f"{plain:.2f}", f"{ours:.2f}", f"{ours / plain:.2f}",
            *(f"{value:,.0f}" for value in memory),
        ])  # fmt: skip
    head = ["a step", "nn.Transformer, s", "ours", "ratio", "nn.Transformer, MiB", "ours"]
    return head, rows


def memory(side: str, dropout: float) -> None:
    """Two steps of a side, for a process of its own."""
    torch.set_num_threads(1)
    network = PlainTransformer(dropout) if side == "plain" else _transformer(dropout)
    for _ in range(2):
        _step(network, *_batch())


def _search(
    decoder: Any,
    features: Tensor,
    config: DecodingConfig,
    words: dict[str, list[list[int]]],
    name: str,
) -> None:
    words[name] = beam_search(decoder, features, config).words.tolist()


def _transformer(dropout: float) -> Transformer:
    config = ModelConfig(
        kind="transformer", hidden_size=_SIZE, num_layers=_LAYERS, encoder_layers=_ENCODER_LAYERS,
        num_heads=_HEADS, ffn_size=_INNER, dropout=dropout,
    )  # fmt: skip
    return Transformer(_FEATURES, _WORDS, config)


def _batch() -> Tensors:
    return (
        torch.randn(_CAPTIONS, _POSITIONS, _FEATURES),
        torch.randint(4, _WORDS, (_CAPTIONS, _LENGTH)),
    )


def _step(network: nn.Module, features: Tensor, words: Tensor) -> None:
    caption_loss(network(features, words), words, 0.0)[0].backward()
    network.zero_grad()
