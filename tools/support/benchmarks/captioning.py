"""Speed of captioning: beam search, epochs from kept features, words.

python tools/bench.py captioning [--parts search,epochs,words,cache,step,rewards]
    [--data DIR] [--captions FILE]

search    all images at once, beside one image after another: every hypothesis by itself (the tests'
          reference), and the hypotheses of an image as one batch. Decoders have drawn weights and a
          tendency to end; vocabulary and sizes are MS-COCO's
epochs    an epoch of training from kept features, beside one that encodes the image of each caption
          in its batch, as is usual, and one that encodes each image once before the first batch;
          images and captions of DIR, a ResNet-50 at 224 pixels, batches of 20 captions
words     tokenising, vocabulary and numbers of the captions in FILE
cache     the Transformer's search (hidden size 512, 6 layers, 10,000 words, 20 generated), beside
          the same of the same decoder that runs over all words before at each step
step      forward, loss and backward of the Transformer, beside nn.Transformer's modules of the same
          size; peak memory of a process of each
rewards   a step of self-critical training beside one of cross-entropy on as many captions, the same
          ones: 5 samples of each image, 10,000 words, captions of 5,000 images to compare with

With one thread, times are of the processor, so that other programs count little.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import hardware, table, take_turns
from tools.support.command import Parser

_SIZES = {"NIC 100/300": (100, 300), "NIC 512/512": (512, 512)}
_WORDS = 9491
_FEATURES = 2048


def main(argv: list[str]) -> None:
    """Run the parts that are asked for, and print Markdown."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--parts", default="search", help="Comma-separated (default: search).")
    add("--data", type=Path, metavar="DIR", help="Images with captions, for epochs.")
    add("--captions", type=Path, metavar="FILE", help="Captions, for words.")
    add("--images", type=int, default=16, help="Images to search, and to train on (default: 16).")
    add("--rounds", type=int, default=3, help="Rounds (default: 3).")
    add("--threads", type=int, default=1, help="Threads (default: 1).")
    options = parser.parse_args(argv)
    check_ranges("--", options, images=">= 1", rounds=">= 1", threads="[1, 1024]")
    parts = options.parts.split(",")
    known = {
        "search": _search, "epochs": _epochs, "words": _words, "cache": _cache, "step": _step,
        "rewards": _rewards,
    }  # fmt: skip
    if unknown := set(parts) - set(known):
        raise UsageError(f"--parts: there is no {', '.join(unknown)}; there are {tuple(known)}.")
    for part, option in (("epochs", "data DIR"), ("words", "captions FILE")):
        if part in parts and options[option.split()[0]] is None:
            raise UsageError(f"the part {part} needs --{option}.")

    import torch

    torch.set_num_threads(options.threads)
    print(f"python tools/bench.py captioning {' '.join(argv)}\n")
    print(f"{hardware(options.threads)}; best of {options.rounds} rounds\n")
    if options.threads == 1:
        print("seconds of the processor\n")
    for part in parts:
        print(table(*known[part](options)) + "\n")


def _seconds(options: Any, **sides: Callable[[], object]) -> dict[str, float]:
    clock = time.process_time if options.threads == 1 else time.perf_counter
    return take_turns(sides, options.rounds, clock)


def _search(options: Any) -> tuple[list[str], list[list[str]]]:
    import torch

    from tools.support.benchmarks._naive_beam import image_by_image, one_by_one
    from transfer.captioning.beam_search import beam_search
    from transfer.captioning.config import DecodingConfig, ModelConfig
    from transfer.captioning.nic import Nic
    from transfer.captioning.vocabulary import END

    @torch.inference_mode()
    def each(search: Callable[..., Any], decoder: Nic, features: Any, width: int) -> list[Any]:
        return [search(decoder, feature, width, 20) for feature in features]

    rows = []
    for name, (embed, hidden) in _SIZES.items():
        torch.manual_seed(0)
        decoder = Nic(_FEATURES, _WORDS, ModelConfig(embed_size=embed, hidden_size=hidden)).eval()
        decoder.embed.weight.data.mul_(4)
        decoder.classify.weight.data.mul_(25)  # as sure of the next word as a trained decoder
        decoder.classify.bias.data[END] += 5.0
        features = torch.randn(options.images, _FEATURES)
        for width in (3, 20):
            config = DecodingConfig(beam=width)
            captions = beam_search(decoder, features, config).words.tolist()
            expected = [words for words, _ in each(one_by_one, decoder, features, width)]
            equal = sum(
                [word for word in row if word] == words
                for row, words in zip(captions, expected, strict=True)
            )
            seconds = _seconds(
                options,
                one_by_one=partial(each, one_by_one, decoder, features, width),
                image_by_image=partial(each, image_by_image, decoder, features, width),
                ours=partial(beam_search, decoder, features, config),
            )
            times = [1000 * value / options.images for value in seconds.values()]
            rows.append([
                f"{name}, width {width}",
                *(f"{value:.1f}" for value in times),
                *(f"{value / times[-1]:.1f}" for value in times[:-1]),
                f"{equal} of {options.images}",
                f"{sum(map(len, expected)) / len(expected):.1f}",
            ])  # fmt: skip
    head = ["", "one by one, ms an image", "image by image", "ours", "ratio to one by one",
            "to image by image", "equal captions", "words a caption"]  # fmt: skip
    return head, rows


def _epochs(options: Any) -> tuple[list[str], list[list[str]]]:
    head = ["an epoch", "encodes for each caption, s", "each image once, s", "kept features, s",
            "ratio to each caption", "to each image once"]  # fmt: skip
    return head, [_epoch(name, *sizes, options) for name, sizes in _SIZES.items()]


def _epoch(name: str, embed: int, hidden: int, options: Any) -> list[str]:
    """The row of a decoder's size."""
    import numpy as np
    import torch
    from torch import Tensor

    from pretrain.backbone import Backbone, BackboneSpec, Provenance
    from pretrain.training import BatchSampler, make_fabric
    from transfer.captioning.batches import CaptionBatches, take_words
    from transfer.captioning.config import CaptioningConfig, DatasetConfig, ModelConfig
    from transfer.captioning.decoder import caption_loss
    from transfer.captioning.setup import build
    from transfer.feature_cache import Encoder, FeatureCache, Features, ImageDataset

    spec = BackboneSpec(arch="resnet50", num_classes=1000)
    backbone = Backbone.of(spec.create(1000, 0), spec, Provenance())
    encoder = Encoder(backbone, "pooled")
    config = CaptioningConfig(
        data=str(options.data),
        dataset=DatasetConfig(min_count=1),
        model=ModelConfig(embed_size=embed, hidden_size=hidden),
    )
    setup = build(backbone, config)
    paths = [image.path for image in setup.data.train[: options.images]]
    chosen = setup.image_of < len(paths)
    words, image_of = setup.words[chosen], setup.image_of[chosen]
    images = ImageDataset(paths, backbone.preprocess())
    batches = BatchSampler(len(words), batch_size=20, seed=0, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(setup.decoder.parameters())

    @torch.no_grad()
    def encode(indices: Any) -> Tensor:
        return encoder(torch.stack([images[index][1] for index in indices]))

    def step(features: Tensor, captions: Tensor) -> None:
        caption_loss(setup.decoder(features, captions), captions, 0.0)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    def from_features(features: Features) -> None:
        take = partial(take_words, words)
        for batch in CaptionBatches(features, image_of, take, batches).epoch(0):
            step(*batch)

    def each_caption() -> None:
        for keys in batches:
            part = np.array([index for _, index in keys])
            step(encode(image_of[part]), take_words(words, part))

    def each_image() -> None:
        indices = np.arange(len(paths))
        parts = np.array_split(indices, max(1, len(paths) // 20))
        from_features(Features(torch.cat(list(map(encode, parts))).numpy(), indices, {}))

    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), backbone, "pooled")
        kept = cache.features(paths, make_fabric("cpu"), workers=0)
        seconds = [*_seconds(options, caption=each_caption, image=each_image,
                             kept=partial(from_features, kept)).values()]  # fmt: skip
    label = f"{name}, {len(words)} captions of {len(paths)} images"
    ratios = [f"{value / seconds[-1]:.1f}" for value in seconds[:-1]]
    return [label, *(f"{value:.2f}" for value in seconds), *ratios]


def _cache(options: Any) -> tuple[list[str], list[list[str]]]:
    from tools.support.benchmarks._transformer_parts import search_with_cache

    return search_with_cache(options, _seconds)


def _step(options: Any) -> tuple[list[str], list[list[str]]]:
    from tools.support.benchmarks._transformer_parts import training_step

    return training_step(options, _seconds)


def _rewards(options: Any) -> tuple[list[str], list[list[str]]]:
    from tools.support.benchmarks._reward_parts import HEAD, rewards

    return HEAD, rewards(partial(_seconds, options), options.images)


def _words(options: Any) -> tuple[list[str], list[list[str]]]:
    from transfer.captioning.scores.files import read_references
    from transfer.captioning.vocabulary import build_vocabulary, tokenize_captions

    references = read_references(options.captions).captions
    captions = [text for texts in references.values() for text in texts]

    def to_numbers() -> object:
        tokenized = tokenize_captions(captions)
        return build_vocabulary(tokenized, 5).encode(tokenized, 30)

    seconds = _seconds(options, ours=to_numbers)["ours"]
    return [f"{len(captions):,} captions", "seconds"], [["to numbers", f"{seconds:.3f}"]]
