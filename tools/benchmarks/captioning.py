"""Speed of captioning: beam search, epochs from kept features, words.

python tools/bench.py captioning [--parts search,epochs,words] [--data DIR] [--captions FILE]

search    all images at once, beside one image after another: every hypothesis by itself (the tests'
          reference), and the hypotheses of an image as one batch. Decoders have drawn weights and a
          tendency to end; vocabulary and sizes are MS-COCO's
epochs    an epoch of training from kept features, beside one that encodes the image of each caption
          in its batch, as is usual, and one that encodes each image once before the first batch;
          images and captions of DIR, a ResNet-50 at 224 pixels, batches of 20 captions
words     tokenising, vocabulary and numbers of the captions in FILE

With one thread, times are of the processor, so that other programs count little.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError

_PARTS = ("search", "epochs", "words")
_SIZES = {"NIC 100/300": (100, 300), "NIC 512/512": (512, 512)}
_WORDS = 9491
_FEATURES = 2048


def main(argv: list[str]) -> None:
    """Run the parts that are asked for, and print Markdown."""
    parser = argparse.ArgumentParser(
        prog="bench.py captioning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--parts", default="search", help="Comma-separated (default: search).")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="Images with captions, for epochs."
    )
    parser.add_argument("--captions", type=Path, metavar="FILE", help="Captions, for words.")
    parser.add_argument(
        "--images", type=int, default=16, help="Images to search, and to train on (default: 16)."
    )
    parser.add_argument("--rounds", type=int, default=3, help="Rounds (default: 3).")
    parser.add_argument("--threads", type=int, default=1, help="Threads (default: 1).")
    options = parser.parse_args(argv)
    parts = options.parts.split(",")
    if unknown := set(parts) - set(_PARTS):
        raise UsageError(f"--parts: there is no {', '.join(unknown)}; there are {_PARTS}.")
    if "epochs" in parts and options.data is None:
        raise UsageError("the part epochs needs --data DIR.")
    if "words" in parts and options.captions is None:
        raise UsageError("the part words needs --captions FILE.")

    import torch

    from tools.benchmarks._timing import hardware

    torch.set_num_threads(options.threads)
    print(f"python tools/bench.py captioning {' '.join(argv)}\n")
    print(f"{hardware(options.threads)}; best of {options.rounds} rounds\n")
    if options.threads == 1:
        print("seconds of the processor\n")
    for part in parts:
        {"search": _search, "epochs": _epochs, "words": _words}[part](options)


def _clock(options: argparse.Namespace) -> Callable[[], float]:
    return time.process_time if options.threads == 1 else time.perf_counter


def _search(options: argparse.Namespace) -> None:
    import torch

    from tools.benchmarks._naive_beam import every_image, image_by_image, one_by_one
    from tools.benchmarks._timing import table, take_turns
    from transfer.captioning.config import ModelConfig
    from transfer.captioning.decode import beam_search
    from transfer.captioning.nic import Nic
    from transfer.captioning.vocabulary import END

    rows = []
    for name, (embed, hidden) in _SIZES.items():
        torch.manual_seed(0)
        made = Nic(_FEATURES, _WORDS, ModelConfig(embed_size=embed, hidden_size=hidden)).eval()
        made.embed.weight.data.mul_(4)
        made.classify.weight.data.mul_(25)  # as sure of the next word as a trained decoder
        made.classify.bias.data[END] += 5.0
        features = torch.randn(options.images, _FEATURES)
        for width in (3, 20):
            found = beam_search(made, features, width, 20).words
            with torch.inference_mode():
                wanted = [one_by_one(made, feature, width, 20)[0] for feature in features]
            same = sum(
                [word for word in row.tolist() if word] == words
                for row, words in zip(found, wanted, strict=True)
            )
            length = sum(map(len, wanted)) / len(wanted)

            def alone(feature: Any, made: Any = made, width: int = width) -> object:
                return one_by_one(made, feature, width, 20)

            def batch(feature: Any, made: Any = made, width: int = width) -> object:
                return image_by_image(made, feature, width, 20)

            def ours(made: Any = made, features: Any = features, width: int = width) -> object:
                return beam_search(made, features, width, 20)

            sides: dict[str, Callable[[], object]] = {
                "one by one": every_image(alone, features),
                "image by image": every_image(batch, features),
                "ours": ours,
            }
            seconds = take_turns(sides, options.rounds, _clock(options))
            times = [1000 * seconds[side] / options.images for side in sides]
            rows.append([
                f"{name}, width {width}",
                *(f"{value:.1f}" for value in times),
                *(f"{value / times[-1]:.1f}" for value in times[:-1]),
                f"{same} of {options.images}",
                f"{length:.1f}",
            ])  # fmt: skip
    head = ["", "one by one, ms an image", "image by image", "ours", "ratio to one by one",
            "to image by image", "equal captions", "words a caption"]  # fmt: skip
    print(table(head, rows) + "\n")


def _epochs(options: argparse.Namespace) -> None:
    from tools.benchmarks._timing import table

    rows = [_epoch(name, *sizes, options) for name, sizes in _SIZES.items()]
    head = ["an epoch", "encodes for each caption, s", "each image once, s", "kept features, s",
            "ratio to each caption", "to each image once"]  # fmt: skip
    print(table(head, rows) + "\n")


def _epoch(name: str, embed: int, hidden: int, options: argparse.Namespace) -> list[str]:
    """The row of a decoder's size."""
    import numpy as np
    import torch
    from torch import Tensor

    from pretrain.backbone import Backbone, BackboneSpec, Provenance
    from pretrain.training import BatchSampler, make_fabric
    from tools.benchmarks._timing import take_turns
    from transfer.captioning.config import CaptioningConfig, DatasetConfig, ModelConfig
    from transfer.captioning.decoder import caption_loss
    from transfer.captioning.sentences import FeatureBatches, trimmed
    from transfer.captioning.setup import build
    from transfer.encoder import Encoder
    from transfer.feature_cache import FeatureCache, Features, ImageDataset

    spec = BackboneSpec(arch="resnet50", num_classes=1000)
    backbone = Backbone.of(spec.create(1000, 0), spec, Provenance())
    encoder = Encoder(backbone, "pooled")
    model = ModelConfig(embed_size=embed, hidden_size=hidden)
    dataset = DatasetConfig(min_count=1)
    setup = build(backbone, CaptioningConfig(data=str(options.data), dataset=dataset, model=model))
    paths = [image.path for image in setup.data.train[: options.images]]
    chosen = setup.image_of < len(paths)
    words, image_of = setup.words[chosen], setup.image_of[chosen]
    pictures = ImageDataset(paths, backbone.preprocess())
    batches = BatchSampler(len(words), batch_size=20, seed=0, shuffle=True, drop_last=True)
    optimizer = torch.optim.Adam(setup.decoder.parameters())

    @torch.no_grad()
    def encoded(numbers: Any) -> Tensor:
        return encoder(torch.stack([pictures[number][1] for number in numbers]))

    def step(seen: Tensor, said: Tensor) -> None:
        caption_loss(setup.decoder(seen, said), said, 0.0)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    def from_features(features: Features) -> None:
        for seen, said in FeatureBatches(features, image_of, words, batches).epoch(0):
            step(seen, said)

    def each_caption() -> None:
        for keys in batches:
            part = np.array([index for _, index in keys])
            step(encoded(image_of[part]), trimmed(words[part]))

    def each_image() -> None:
        parts = np.array_split(np.arange(len(paths)), max(1, len(paths) // 20))
        found = torch.cat([encoded(part) for part in parts]).numpy()
        from_features(Features(found, np.arange(len(paths)), {}))

    with tempfile.TemporaryDirectory() as folder:
        cache = FeatureCache(Path(folder), backbone, "pooled")
        kept = cache.features(paths, make_fabric("cpu"), workers=0)
        sides: dict[str, Callable[[], object]] = {
            "each caption": each_caption,
            "each image": each_image,
            "kept": lambda: from_features(kept),
        }
        seconds = take_turns(sides, options.rounds, _clock(options))
    return [
        f"{name}, {len(words)} captions of {len(paths)} images",
        *(f"{value:.2f}" for value in seconds.values()),
        *(f"{seconds[side] / seconds['kept']:.1f}" for side in ("each caption", "each image")),
    ]


def _words(options: argparse.Namespace) -> None:
    from tools.benchmarks._timing import table, take_turns
    from transfer.captioning.scores.files import read_references
    from transfer.captioning.vocabulary import Cut, build_vocabulary

    held = read_references(options.captions).captions
    captions = [text for texts in held.values() for text in texts]

    def ours() -> object:
        cut = Cut.of(captions)
        return build_vocabulary(cut, 5).encode(cut, 30)

    seconds = take_turns({"ours": ours}, options.rounds, _clock(options))["ours"]
    print(table([f"{len(captions):,} captions", "seconds"], [["to numbers", f"{seconds:.3f}"]]))
