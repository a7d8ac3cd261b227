"""A self-contained page of pictures with their sentences, to be looked at in any browser."""

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from pretrain.run import write_text
from transfer.captioning.coco import CaptionedImage
from transfer.captioning.scores import Scores

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.45 system-ui, sans-serif; }
body { margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1.2rem; }
figure { margin: 0; border: 1px solid #8884; border-radius: .5rem; overflow: hidden; }
figure img { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; background: #8882; }
figcaption { padding: .6rem .8rem .8rem; }
b { font-weight: 600; } small, details { opacity: .75; font-size: .85rem; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; }
"""


def write_page(
    path: Path,
    images: Sequence[CaptionedImage],
    said: Mapping[int | str, str],
    scores: Scores[int | str],
    name: str,
    num_images: int = 24,
) -> None:
    """Images spread evenly over the set, best CIDEr first; pictures are part of the file."""
    shown = min(num_images, len(images))
    chosen = [images[place * len(images) // shown] for place in range(shown)]
    chosen.sort(key=lambda image: -scores.per_image[image.image_id]["CIDEr"])
    corpus = "  ".join(f"{key} {value:.3f}" for key, value in scores.corpus.items())
    figures = "\n".join(
        _figure(image, said[image.image_id], scores.per_image[image.image_id]["CIDEr"])
        for image in chosen
    )
    write_text(
        path,
        f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Captions from {html.escape(name)}</title><style>{_STYLE}</style>
<h1>Captions from {html.escape(name)}</h1>
<p>{shown} of {len(images)} images, spread evenly over the set and sorted by CIDEr.
All images: {corpus}</p>
<main>
{figures}
</main></html>
""",
    )


def _figure(image: CaptionedImage, caption: str, cider: float) -> str:
    kind = "png" if image.path.suffix.lower() == ".png" else "jpeg"
    data = base64.b64encode(image.path.read_bytes()).decode()
    references = "".join(f"<li>{html.escape(text)}</li>" for text in image.captions)
    shown = html.escape(caption) or "<i>no words</i>"
    return (
        f'<figure><img src="data:image/{kind};base64,{data}" alt="{html.escape(caption)}">'
        f"<figcaption><b>{shown}</b><br><small>CIDEr {cider:.2f}, image {image.image_id}</small>"
        f"<details><summary>references</summary><ul>{references}</ul></details>"
        "</figcaption></figure>"
    )
