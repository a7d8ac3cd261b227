"""Self-contained pages of images with their captions, for any browser."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.images import ImageSource
from transfer.captioning.dataset import CaptionedImage
from transfer.captioning.scores.summary import Id, Scores

_HERE = Path(__file__).parent
TYPICAL = "Spread evenly over the set"
"""The section of images that are chosen without a look at their scores."""
_PER_IMAGE = ("CIDEr", "METEOR", "Bleu_4")
# what a file begins with -> its kind, for browsers
_KINDS = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclass(frozen=True)
class AttentionMap:
    """One word and the attention at it; both images as data for a page."""

    word: str
    view: str
    """What the network saw of the image: JPEG in base64."""
    map: str
    """White where the weights are large, dark elsewhere: PNG in base64, to be multiplied onto the
    view."""


@dataclass(frozen=True)
class Figure:
    """What a page shows of an image."""

    name: str
    image: ImageSource | None
    """None where the file is not there."""
    caption: str
    references: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the caption; some are shown."""
    maps: Sequence[AttentionMap] = ()
    """One for each word."""
    others: Sequence[str] = ()
    """Further captions."""


def sections(scores: Scores[Id], count: int = 8) -> dict[str, list[Id]]:
    """The ids of a page's images by title: best, worst, and spread evenly over the set."""
    ids = list(scores.per_image)
    ranked = sorted(ids, key=lambda image_id: -scores.per_image[image_id]["CIDEr"])
    count = min(count, len(ids))
    return {
        "Best by CIDEr": ranked[:count],
        "Worst by CIDEr": ranked[::-1][: min(count, len(ids) - count)],
        TYPICAL: [ids[n * len(ids) // count] for n in range(count)],
    }


def write_page(
    path: Path,
    images: Sequence[CaptionedImage],
    captions: Mapping[Id, str],
    scores: Scores[Id],
    name: str,
    maps: Mapping[Id, Sequence[AttentionMap]] | None = None,
) -> None:
    """The scores of all, and images by `sections`.

    Args:
        path: of the page.
        images: all.
        captions: of each.
        scores: of these captions.
        name: of the backbone.
        maps: of the images on the page, where there is attention.
    """
    by_id: dict[Any, CaptionedImage] = {image.image_id: image for image in images}

    def figure(key: Id) -> Figure:
        image, caption, own = by_id[key], captions[key], scores.per_image[key]
        drawn = (maps or {}).get(key, ())
        return Figure(f"image {key}", image.path, caption, image.captions, own, drawn)

    shown = {title: list(map(figure, ids)) for title, ids in sections(scores).items()}
    write_figures(path, f"Captions from {name}", shown, len(images), scores.corpus)


def write_figures(
    path: Path,
    title: str,
    sections: Mapping[str, Sequence[Figure]],
    num_images: int | None = None,
    scores: Mapping[str, float] | None = None,
) -> None:
    """A page of figures; the images are part of the file.

    Args:
        path: of the page.
        title: of the page.
        sections: figures by their heading, which may be empty.
        num_images: of the whole set, to be stated at the top.
        scores: of the whole set, to be stated at the top.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, trim_blocks=True, undefined=StrictUndefined
    )
    page = environment.get_template("page.html").render(
        title=title,
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        sections=sections,
        num_images=num_images,
        scores=scores or {},
        shown_scores=_PER_IMAGE,
        with_images=any(figure.image for figures in sections.values() for figure in figures),
        source=_source,
    )
    # a caption from JSON may hold half of a surrogate pair, which no file can
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def _source(path: ImageSource) -> str:
    """An image file as a part of the page."""
    content = path.read_bytes()
    kind = next((kind for head, kind in _KINDS.items() if content.startswith(head)), None)
    if kind is None:
        raise UsageError(f"{path} is no picture that a browser shows (JPEG, PNG, ...).")
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
