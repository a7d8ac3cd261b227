"""Self-contained pages of pictures with their sentences, to be looked at in any browser."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UserError
from pretrain.run import write_text
from transfer.captioning.coco import CaptionedImage
from transfer.captioning.scores import Scores

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: .5rem; overflow: hidden; }
figure img, .none { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #8882; }
.none { display: grid; place-items: center; font-size: .85rem; opacity: .75; }
figcaption { padding: .6rem .8rem .8rem; overflow-wrap: anywhere; }
b { font-weight: 600; } small, details { opacity: .75; font-size: .85rem; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; }
table { border-collapse: collapse; } td, th { padding: .1rem 1.2rem .1rem 0; text-align: left; }
"""
# what a file begins with -> its kind, for browsers
_KINDS = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclass(frozen=True)
class Shown:
    """What a page shows of an image."""

    name: str
    picture: Path | None
    """None where there is no picture."""
    caption: str
    references: Sequence[str]
    scores: Mapping[str, float]


def write_page(
    path: Path,
    images: Sequence[CaptionedImage],
    said: Mapping[int | str, str],
    scores: Scores[int | str],
    name: str,
    num_images: int = 24,
) -> None:
    """Images spread evenly over the set, best CIDEr first; pictures are part of the file."""
    count = min(num_images, len(images))
    chosen = [images[place * len(images) // count] for place in range(count)]
    chosen.sort(key=lambda image: -scores.per_image[image.image_id]["CIDEr"])
    corpus = "  ".join(f"{key} {value:.3f}" for key, value in scores.corpus.items())
    shown = [
        Shown(
            f"image {image.image_id}",
            image.path,
            said[image.image_id],
            image.captions,
            {"CIDEr": scores.per_image[image.image_id]["CIDEr"]},
        )
        for image in chosen
    ]
    lead = (
        f"<p>{count} of {len(images)} images, spread evenly over the set and sorted by CIDEr.\n"
        f"All images: {corpus}</p>"
    )
    _write(path, f"Captions from {name}", lead, [("", shown)])


def write_extremes(
    path: Path,
    title: str,
    corpus: Mapping[str, float],
    best: Sequence[Shown],
    worst: Sequence[Shown],
) -> None:
    """The best and the worst captions beside their pictures, under the scores of all."""
    heads = "".join(f"<th>{html.escape(key)}</th>" for key in corpus)
    values = "".join(f"<td>{value:.4f}</td>" for value in corpus.values())
    lead = f"<table><tr>{heads}</tr><tr>{values}</tr></table>"
    _write(path, title, lead, [("Best", best), ("Worst", worst)])


def _write(
    path: Path, title: str, lead: str, sections: Sequence[tuple[str, Sequence[Shown]]]
) -> None:
    with_pictures = any(image.picture is not None for _, shown in sections for image in shown)
    body = "\n".join(
        (f"<h2>{html.escape(head)}</h2>\n" if head else "")
        + "<main>\n"
        + "\n".join(_figure(image, with_pictures) for image in shown)
        + "\n</main>"
        for head, shown in sections
        if shown
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


def _figure(image: Shown, with_pictures: bool) -> str:
    references = "".join(f"<li>{html.escape(text)}</li>" for text in image.references)
    shown = html.escape(image.caption) or "<i>no words</i>"
    scores = ", ".join(f"{name}&nbsp;{value:.2f}" for name, value in image.scores.items())
    return (
        f"<figure>{_picture(image) if with_pictures else ''}"
        f"<figcaption><b>{shown}</b><br><small>{scores}, {html.escape(image.name)}</small>"
        f"<details><summary>references</summary><ul>{references}</ul></details>"
        "</figcaption></figure>"
    )


def _picture(image: Shown) -> str:
    if image.picture is None:
        return '<div class="none">no picture</div>'
    content = image.picture.read_bytes()
    kind = next((kind for head, kind in _KINDS.items() if content.startswith(head)), None)
    if kind is None:
        raise UserError(f"{image.picture} is no picture that a browser shows (JPEG, PNG, ...).")
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(image.caption)}">'
