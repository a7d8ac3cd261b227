"""Self-contained pages of pictures with their sentences, to be looked at in any browser."""

import base64
import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.run import write_text
from transfer.captioning.records import CaptionedImage
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
.looks { display: flex; flex-wrap: wrap; gap: .25rem; margin-top: .4rem; font-size: .75rem; }
.looks span { width: 4.4rem; } .looks i { position: relative; display: block; }
.looks img { width: 4.4rem; aspect-ratio: 1; display: block; }
.looks img + img { position: absolute; inset: 0; mix-blend-mode: multiply; }
ul { margin: .3rem 0 0; padding-left: 1.1rem; }
table { border-collapse: collapse; } td, th { padding: .1rem 1.2rem .1rem 0; text-align: left; }
"""
_PER_IMAGE = ("CIDEr", "METEOR", "Bleu_4")
# what a file begins with -> its kind, for browsers
_KINDS = {b"\xff\xd8": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"RIFF": "webp", b"BM": "bmp"}


@dataclass(frozen=True)
class Look:
    """One word, and where the captioner looked for it; both pictures as data for a page."""

    word: str
    view: str
    """What the network saw of the image: JPEG in base64."""
    map: str
    """White where it looked, dark elsewhere: PNG in base64, to be multiplied onto the view."""


@dataclass(frozen=True)
class Shown:
    """What a page shows of an image."""

    name: str
    picture: Path | None
    """None where there is no picture."""
    caption: str
    references: Sequence[str]
    scores: Mapping[str, float]
    looks: Sequence[Look] = ()
    """Where the captioner looked for each word."""


def sections(
    images: Sequence[CaptionedImage], scores: Scores[int | str], count: int = 8
) -> dict[str, list[CaptionedImage]]:
    """The images of a page by title: best, worst, and spread evenly over the set."""
    ranked = sorted(images, key=lambda image: -scores.per_image[image.image_id]["CIDEr"])
    count = min(count, len(images))
    return {
        "Best by CIDEr": ranked[:count],
        "Worst by CIDEr": ranked[::-1][: min(count, len(images) - count)],
        "Spread evenly over the set": [
            images[place * len(images) // count] for place in range(count)
        ],
    }


def write_page(
    path: Path,
    images: Sequence[CaptionedImage],
    said: Mapping[int | str, str],
    scores: Scores[int | str],
    name: str,
    looks: Mapping[int | str, Sequence[Look]] | None = None,
) -> None:
    """The scores of all, and images by `sections`; pictures are part of the file.

    Args:
        path: of the page.
        images: all.
        said: the caption of each.
        scores: of these captions.
        name: of the backbone.
        looks: of the images on the page, where there is attention.
    """
    shown = [
        (
            title,
            [
                Shown(
                    f"image {image.image_id}",
                    image.path,
                    said[image.image_id],
                    image.captions,
                    {
                        key: scores.per_image[image.image_id][key]
                        for key in _PER_IMAGE
                        if key in scores.corpus
                    },
                    (looks or {}).get(image.image_id, ()),
                )
                for image in chosen
            ],
        )
        for title, chosen in sections(images, scores).items()
    ]
    lead = f"<p>{len(images):,} images</p>{_scores(scores.corpus)}"
    _write(path, f"Captions from {name}", lead, shown)


def write_extremes(
    path: Path,
    title: str,
    corpus: Mapping[str, float],
    best: Sequence[Shown],
    worst: Sequence[Shown],
) -> None:
    """The best and the worst captions beside their pictures, under the scores of all."""
    _write(path, title, _scores(corpus), [("Best", best), ("Worst", worst)])


def write_pictures(path: Path, title: str, shown: Sequence[Shown]) -> None:
    """Pictures with their captions, nothing to compare with."""
    _write(path, title, f"<p>{len(shown):,} images</p>", [("", shown)])


def _scores(corpus: Mapping[str, float]) -> str:
    heads = "".join(f"<th>{html.escape(key)}</th>" for key in corpus)
    values = "".join(f"<td>{value:.4f}</td>" for value in corpus.values())
    return f"<table><tr>{heads}</tr><tr>{values}</tr></table>"


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
    told = [f"{name}&nbsp;{value:.2f}" for name, value in image.scores.items()]
    small = ", ".join([*told, html.escape(image.name)])
    listed = f"<details><summary>references</summary><ul>{references}</ul></details>"
    return (
        f"<figure>{_picture(image) if with_pictures else ''}"
        f"<figcaption><b>{shown}</b><br><small>{small}</small>"
        f"{_looks(image.looks)}"
        f"{listed if image.references else ''}"
        "</figcaption></figure>"
    )


def _looks(looks: Sequence[Look]) -> str:
    if not looks:
        return ""
    cells = "".join(
        f'<span><i><img src="data:image/jpeg;base64,{look.view}" alt="">'
        f'<img src="data:image/png;base64,{look.map}" alt=""></i>{html.escape(look.word)}</span>'
        for look in looks
    )
    return f'<div class="looks">{cells}</div>'


def _picture(image: Shown) -> str:
    if image.picture is None:
        return '<div class="none">no picture</div>'
    content = image.picture.read_bytes()
    kind = next((kind for head, kind in _KINDS.items() if content.startswith(head)), None)
    if kind is None:
        raise UsageError(f"{image.picture} is no picture that a browser shows (JPEG, PNG, ...).")
    data = base64.b64encode(content).decode()
    return f'<img src="data:image/{kind};base64,{data}" alt="{html.escape(image.caption)}">'
