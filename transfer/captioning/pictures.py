"""Where a captioner with attention looked for each word, as small pictures."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from pretrain.images import decode
from transfer.captioning.captioner import Captioner
from transfer.captioning.page import Look
from transfer.captioning.records import CaptionedImage, Id
from transfer.captioning.vocabulary import END

_SIDE = 96  # pixels of a small picture


@torch.inference_mode()
def looks_of(
    captioner: Captioner,
    decoder: Any,
    images: Sequence[CaptionedImage],
    said: Mapping[Id, str],
    batches: Iterable[Tensor],
) -> dict[Id, list[Look]]:
    """The looks for the words of captions; none where the decoder has no attention.

    Args:
        captioner: its vocabulary and preprocessing.
        decoder: in evaluation mode.
        images: to show.
        said: their captions.
        batches: their features, in order.
    """
    if captioner.model.kind != "attention":
        return {}
    numbers = {word: number for number, word in enumerate(captioner.vocabulary.words)}
    found: dict[Id, list[Look]] = {}
    features = torch.cat(list(batches))
    _, height, width = captioner.backbone.spec.input_size
    for image, feature in zip(images, features, strict=True):
        words = said[image.image_id].split()
        row = torch.tensor([[*(numbers[word] for word in words), END]], device=feature.device)
        attention = decoder(feature[None], row).attention[0].cpu().numpy()
        view = _view(captioner, image)
        found[image.image_id] = [
            Look(word, view, _map(weights, height / width))
            for word, weights in zip(words, attention, strict=False)
        ]
    return found


def _view(captioner: Captioner, image: CaptionedImage) -> str:
    """The part of the image that the network saw, without normalisation."""
    geometry = v2.Compose(captioner.backbone.preprocess().transforms[:-2])
    seen = np.asarray(geometry(decode(image.path)).permute(1, 2, 0))
    return _data(Image.fromarray(seen).resize((_SIDE, _SIDE)), "JPEG")


def _map(weights: np.ndarray, shape: float) -> str:
    """The weights (P,) of a grid of that height / width, brightest at the largest, smooth."""
    rows = max(1, round((len(weights) * shape) ** 0.5))
    rows = min((r for r in range(1, len(weights) + 1) if len(weights) % r == 0),
               key=lambda r: abs(r - rows))  # fmt: skip
    grid = weights.reshape(rows, -1) / weights.max()
    picture = Image.fromarray(np.uint8(255 * (0.15 + 0.85 * grid)))
    return _data(picture.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), "PNG")


def _data(picture: Image.Image, kind: str) -> str:
    content = io.BytesIO()
    picture.save(content, kind)
    return base64.b64encode(content.getvalue()).decode()
