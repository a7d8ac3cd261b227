"""The captioner: an artifact that carries everything needed to caption an image.

One .pth of plain dicts and tensors: {"format": "captioner/2", "backbone": {...}, "model": {...},
"level": 4, "decoding": {...}, "words": [...], "tokenizer": "ptb", "state_dict": {name: tensor}};
`backbone` is what a backbone file holds, so its preprocessing comes along, and the vocabulary can
be no other model's. captioner/1, which has no tokenizer, is ptb. Files of before have no level.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pretrain import torch_file
from pretrain.audit import load_strict
from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer.captioning.attention import Attention
from transfer.captioning.config import DecodingConfig, ModelConfig
from transfer.captioning.nic import Nic
from transfer.captioning.transformer import Transformer
from transfer.captioning.vocabulary import Vocabulary
from transfer.feature_cache import Encoder, FeatureKind, is_numbered_apart, last_level

FORMAT = "captioner/2"
_FORMATS = ("captioner/1", FORMAT)
_DECODERS: dict[str, type[Nic | Attention | Transformer]] = {
    "nic": Nic,
    "attention": Attention,
    "transformer": Transformer,
}


def feature_kind(config: ModelConfig) -> FeatureKind:
    """What the decoder needs from the encoder."""
    return _DECODERS[config.kind].feature_kind


def _attends(config: ModelConfig) -> bool:
    return feature_kind(config) == "grid"


def build_decoder(num_features: int, num_words: int, config: ModelConfig) -> nn.Module:
    """The decoder of a configuration, its weights from torch's own generator."""
    return _DECODERS[config.kind](num_features, num_words, config)


@dataclass(frozen=True, kw_only=True, eq=False)
class Captioner:
    """A trained captioner, on the CPU."""

    backbone: Backbone
    """With the input size and the weights it was trained with."""
    model: ModelConfig
    decoding: DecodingConfig
    vocabulary: Vocabulary
    weights: Mapping[str, Tensor]
    """Of the decoder."""

    def build(self) -> tuple[Encoder, Any]:
        """(encoder, decoder) in evaluation mode, with every weight loaded.

        Raises:
            UsageError: the weights do not fit: the vocabulary or the widths are another model's.
        """
        encoder = Encoder(self.backbone, feature_kind(self.model))
        width = encoder.feature_shape(self.backbone)[-1]
        decoder = build_decoder(width, len(self.vocabulary), self.model)
        load_strict(decoder, self.weights)
        return encoder, decoder.eval()

    def save(self, path: Path) -> None:
        """Write the file whole or not at all."""
        content = {
            "format": FORMAT,
            "backbone": {
                "spec": json.loads(json.dumps(asdict(self.backbone.spec))),
                "provenance": asdict(self.backbone.provenance),
                "state_dict": dict(self.backbone.weights),
            },
            "model": asdict(self.model),
            "level": last_level(self.backbone) if _attends(self.model) else None,
            "decoding": asdict(self.decoding),
            "words": list(self.vocabulary.words),
            "tokenizer": self.vocabulary.tokenizer,
            "state_dict": {name: tensor.cpu() for name, tensor in self.weights.items()},
        }
        torch_file.write(path, content)

    @staticmethod
    def load(path: Path) -> "Captioner":
        """Read a captioner, from its file or from the folder of its run.

        Raises:
            UsageError: no such file, no captioner, or parts that do not belong together.
        """
        file = path / "captioner.pth" if path.is_dir() else path
        if path.is_dir() and not file.exists():
            raise UsageError(
                f"{path} holds no captioner.pth: it is no finished captioning run. "
                "python tools/finetune_cap.py makes one."
            )
        content = torch_file.read(file)
        actual = content.get("format") if isinstance(content, dict) else None
        if actual not in _FORMATS:
            raise UsageError(f"{file} has format {actual!r}; a captioner ({FORMAT!r}) is needed.")
        try:
            captioner = Captioner(
                backbone=Backbone.of_content({"format": "backbone/1", **content["backbone"]}, file),
                model=ModelConfig(**content["model"]),
                decoding=DecodingConfig(**content["decoding"]),
                vocabulary=Vocabulary(
                    tuple(content["words"]),
                    "ptb" if actual == "captioner/1" else content["tokenizer"],
                ),
                weights=content["state_dict"],
            )
            if (
                "level" not in content
                and _attends(captioner.model)
                and is_numbered_apart(captioner.backbone)
            ):
                arch = captioner.backbone.spec.arch
                raise UsageError(
                    f"it was trained on a block near the input of {arch}, which was taken for the "
                    "last one. Train it again"
                )
            with torch.random.fork_rng(devices=[]):
                captioner.build()
        except (KeyError, TypeError, AttributeError, UsageError) as error:
            raise UsageError(f"{file} is damaged or put together from two: {error}") from error
        return captioner
