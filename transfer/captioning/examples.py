"""The captions of a finished run, its images and references: what the report shows side by side.

    RUN/captions.json             MS-COCO's results, each with file_name and references
    RUN/pictures/example_N.webp   a few of the images, small; `picture` of their captions

No torch at import.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from msgspec import Meta
from PIL import Image

from pretrain.files import atomic, write_text
from pretrain.reading import check
from pretrain.run import Run
from transfer.task import Example

if TYPE_CHECKING:
    from transfer.captioning.image_files import CaptionedImage

Id = int | str
_WIDTH = 320


class _Row(TypedDict):
    image_id: int | str
    caption: str
    references: NotRequired[list[str]]
    picture: NotRequired[Annotated[str, Meta(pattern=r"^\w+\.\w+$")]]


def write_examples(
    run: Run,
    images: "Sequence[CaptionedImage]",
    captions: Mapping[Id, str],
    shown: Collection[Id],
) -> None:
    """Write captions.json, and a picture of each image in `shown`."""
    from pretrain.images import decode

    rows: list[dict[str, Any]] = []
    for image in images:
        row: dict[str, Any] = {
            "image_id": image.image_id,
            "caption": captions[image.image_id],
            "file_name": image.path.name,
            "references": image.captions,
        }
        if image.image_id in shown:
            row["picture"] = f"example_{len(rows)}.webp"
            picture = Image.fromarray(decode(image.path).permute(1, 2, 0).numpy())
            picture.thumbnail((_WIDTH, _WIDTH))
            with atomic(run.picture(row["picture"])) as temporary:
                picture.save(temporary, "webp")
        rows.append(row)
    write_text(run.folder / "captions.json", json.dumps(rows))


def read_examples(content: Any, name: str) -> dict[str, Example]:
    """{image: its caption, picture and references} of a captions.json.

    Raises:
        UsageError: it is none of ours; the message begins with `name`.
    """
    return {
        str(row["image_id"]): Example(
            row["caption"], row.get("picture", ""), tuple(row.get("references", ()))
        )
        for row in check(content, list[_Row], name)
    }
