"""The attention of a captioner at each word, as small images for a page."""

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
from transfer.captioning.dataset import CaptionedImage, Id
from transfer.captioning.page import AttentionMap
from transfer.captioning.vocabulary import END

_SIDE = 96  # pixels of a small image


@torch.inference_mode()
def attention_maps(
    captioner: Captioner,
    decoder: Any,
    images: Sequence[CaptionedImage],
    captions: Mapping[Id, str],
    batches: Iterable[Tensor],
) -> dict[Id, list[AttentionMap]]:
    """A map for each word of each caption; none where the decoder has no `attention_weights`.

    Args:
        captioner: its vocabulary and preprocessing.
        decoder: in evaluation mode.
        images: to show.
        captions: of these images.
        batches: their features, in order.
    """
    if not hasattr(decoder, "attention_weights"):
        return {}
    # without the normalisation: what the network saw of an image
    geometry = v2.Compose(captioner.backbone.preprocess().transforms[:-2])
    _, height, width = captioner.backbone.spec.input_size
    maps: dict[Id, list[AttentionMap]] = {}
    for image, features in zip(images, torch.cat(list(batches)), strict=True):
        words = captioner.vocabulary.split(captions[image.image_id])
        numbers = [*(captioner.vocabulary.numbers[word] for word in words), END]
        weights = decoder.attention_weights(
            features[None], torch.tensor([numbers], device=features.device)
        )
        pixels = geometry(decode(image.path)).permute(1, 2, 0).numpy()
        view = _encode(Image.fromarray(pixels).resize((_SIDE, _SIDE)), "JPEG")
        maps[image.image_id] = [
            AttentionMap(word, view, _draw_map(row, height / width))
            for word, row in zip(words, weights[0].cpu().numpy(), strict=False)
        ]
    return maps


def _draw_map(weights: np.ndarray, aspect: float) -> str:
    """The weights (P,) of a grid of that height / width, brightest at the largest, smooth."""
    divisors = [rows for rows in range(1, len(weights) + 1) if len(weights) % rows == 0]
    num_rows = min(divisors, key=lambda rows: abs(rows - round((len(weights) * aspect) ** 0.5)))
    grid = weights.reshape(num_rows, -1) / weights.max()
    drawn = Image.fromarray(np.uint8(255 * (0.15 + 0.85 * grid)))
    return _encode(drawn.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC), "PNG")


def _encode(image: Image.Image, file_format: str) -> str:
    content = io.BytesIO()
    image.save(content, file_format)
    return base64.b64encode(content.getvalue()).decode()
