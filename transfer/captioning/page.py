"""Self-contained pages of images with their captions, for any browser."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.files import write_text
from transfer.captioning.dataset import CaptionedImage
from transfer.captioning.scores.summary import Id, Scores

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: .5rem; overflow: hidden; }
figure img, .none { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #8882; }
.none { display: grid; place-items: center; font-size: .85rem; opacity: .75; }
figcaption { padding: .6rem .8rem .8rem; overflow-wrap: anywhere; }
b { font-weight: 600; } small, details { opacity: .75; font-size: .85rem; }
.maps { display: flex; flex-wrap: wrap; gap: .25rem; margin-top: .4rem; font-size: .75rem; }
.maps span { width: 4.4rem; } .maps i { position: relative; display: block; }
.maps img { width: 4.4rem; aspect-ratio: 1; display: block; }
.maps img + img { position: absolute; inset: 0; mix-blend-mode: multiply; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; }
table { border-collapse: collapse; } td, th { padding: .1rem 1.2rem .1rem 0; text-align: left; }
"""
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
    image: Path | None
    """None where the file is not there."""
    caption: str
    references: Sequence[str] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    """Of the caption; some are shown."""
    maps: Sequence[AttentionMap] = ()
    """One for each word."""


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
    lead = "" if num_images is None else f"<p>{num_images:,} images</p>"
    if scores is not None:
        names = "".join(f"<th>{html.escape(name)}</th>" for name in scores)
        values = "".join(f"<td>{value:.4f}</td>" for value in scores.values())
        lead += f"<table><tr>{names}</tr><tr>{values}</tr></table>"
    with_images = any(figure.image for figures in sections.values() for figure in figures)
    body = "\n".join(
        (f"<h2>{html.escape(heading)}</h2>\n" if heading else "")
        + "\n".join(["<main>", *(_figure(figure, with_images) for figure in figures), "</main>"])
        for heading, figures in sections.items()
        if figures
    )
    text = f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(title)}</title><style>{_STYLE}</style>
<h1>{html.escape(title)}</h1>
{lead}
{body}
</html>
"""
    # a caption from JSON may hold half of a surrogate pair, which no file can
    write_text(path, text.encode("utf-8", "replace").decode("utf-8"))


def _figure(figure: Figure, with_images: bool) -> str:
    own = figure.scores
    scores = [f"{name}&nbsp;{own[name]:.2f}" for name in _PER_IMAGE if name in own]
    text = f"<b>{html.escape(figure.caption) or '<i>no words</i>'}</b>"
    text += f"<br><small>{', '.join([*scores, html.escape(figure.name)])}</small>"
    if figure.maps:
        cells = "".join(
            f'<span><i><img src="data:image/jpeg;base64,{one.view}" alt="">'
            f'<img src="data:image/png;base64,{one.map}" alt=""></i>{html.escape(one.word)}</span>'
            for one in figure.maps
        )
        text += f'<div class="maps">{cells}</div>'
    if figure.references:
        references = "".join(f"<li>{html.escape(text)}</li>" for text in figure.references)
        text += f"<details><summary>references</summary><ul>{references}</ul></details>"
    image = _image(figure) if with_images else ""
    return f"<figure>{image}<figcaption>{text}</figcaption></figure>"


def _image(figure: Figure) -> str:
    if figure.image is None:
        return '<div class="none">no picture</div>'
    content = figure.image.read_bytes()
    kind = next((kind for head, kind in _KINDS.items() if content.startswith(head)), None)
    if kind is None:
        raise UsageError(f"{figure.image} is no picture that a browser shows (JPEG, PNG, ...).")
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(figure.caption)}">'
