"""The captions of a finished run, its images and references: what the report shows side by side.

No torch: it reads what the run has written, captions.json and its page captions.html.
"""

import base64
import binascii
import json
import re
from html import unescape

from transfer.task import Example

_PICTURE = re.compile(r'src="data:image/(?:jpeg|png|webp|gif|bmp);base64,([A-Za-z0-9+/=]+)"')


def read_examples(captions_json: bytes, captions_html: bytes) -> dict[str, Example]:
    """{image: its caption, with picture and references where it is on the run's page}.

    Those that the page shows whatever their score come first. Without readable captions there are
    none; a page that is none of ours only adds nothing.
    """
    try:
        rows = json.loads(captions_json)
        captions = {str(row["image_id"]): str(row["caption"]) for row in rows}
        "".join(captions.values()).encode()  # half of a surrogate pair cannot be written
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    figures: dict[str, Example] = {}
    for section in captions_html.decode("utf-8", "replace").split("<h2>"):
        is_typical = not section.startswith(("Best", "Worst"))
        for figure in section.split("<figure>")[1:]:
            named = re.search(r"image (.+?)\s*</small>", figure)
            name = unescape(named.group(1)) if named else ""
            if name not in captions or (name in figures and not is_typical):
                continue
            references = re.findall(r"<li>(.*?)</li>", figure, re.DOTALL)
            figures.pop(name, None)
            figures[name] = Example(
                captions[name],
                _decode(_PICTURE.search(figure)),
                tuple(unescape(text).strip() for text in references),
                is_typical,
            )
    typical = {name: example for name, example in figures.items() if example.is_typical}
    others = {name: Example(caption) for name, caption in captions.items()}
    return typical | others | figures


def _decode(source: re.Match[str] | None) -> bytes:
    try:
        return base64.b64decode(source.group(1)) if source else b""
    except binascii.Error:
        return b""
