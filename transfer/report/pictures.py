"""What runs have drawn, made small and part of the page: no picture is loaded from elsewhere."""

import base64
import binascii
import io
import json
import re
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from transfer.report.results import Finished
from transfer.report.table import Row, Setting, Table, row_of

_LARGEST_FILE = 32 * 2**20
_MOST_PIXELS = 40_000_000
_DATA = re.compile(r"data:image/(?:jpeg|png|webp|gif|bmp);base64,([A-Za-z0-9+/=]+)")
_NAMED = re.compile(r"\bimage (.+)$")


@dataclass(frozen=True)
class Picture:
    """A picture that stands in the page itself."""

    source: str
    """data:image/webp;base64,..."""
    width: int
    height: int
    alt: str


@dataclass(frozen=True)
class Drawn:
    """A picture of one run."""

    run: Finished
    picture: Picture


@dataclass(frozen=True)
class Example:
    """An image and what captioners from several backbones said about it."""

    name: str
    picture: Picture | None
    captions: tuple[tuple[str, str], ...]
    """(row as the table names it, caption)."""
    references: tuple[str, ...]


def drawn(
    table: Table, task: str, name: str, alt: str, *, width: int, limit: int
) -> tuple[list[Drawn], int]:
    """pictures/`name` of one run of each method and setting, and how many more there are.

    It is the run of the smallest seed; what cannot be read is left out.

    Args:
        table: with its runs.
        task: whose runs are looked at.
        name: of the file.
        alt: what it shows, with {method}, {recipe} and {seed} to be filled in.
        width: the largest, in pixels.
        limit: bytes that the pictures may have together.
    """
    chosen: dict[tuple[Setting, Row], tuple[Finished, Path]] = {}
    for setting, runs in table.runs.items():
        for run in sorted(runs, key=lambda run: run.result.seed) if setting.task == task else ():
            if run.path and (run.path / "pictures" / name).is_file():
                key = setting, row_of(run.result.backbone)
                chosen.setdefault(key, (run, run.path / "pictures" / name))
    found: list[Drawn] = []
    room = limit
    for place, (run, path) in enumerate(chosen.values()):
        picture = _small(_bytes(path), width)
        if picture is None:
            continue
        room -= len(picture.source)
        if room < 0:
            return found, len(chosen) - place
        recipe = run.result.config.get("name", "?")
        facts = {"method": run.result.backbone["name"], "recipe": recipe, "seed": run.result.seed}
        found.append(Drawn(run, replace(picture, alt=alt.format(**facts))))
    return found, 0


def examples(table: Table, setting: Setting, count: int) -> list[Example]:
    """The same images as several methods describe them, where at least two methods have captions.

    Of each row it is the run of the smallest seed. Pictures and references are those of the runs'
    own pages (captions.html).
    """
    chosen_runs: dict[Row, Finished] = {}
    for run in sorted(table.runs[setting], key=lambda run: run.result.seed):
        if run.path is not None:
            chosen_runs.setdefault(row_of(run.result.backbone), run)
    plain_first = sorted(chosen_runs, key=lambda row: (row.method != "none", table.name(row)))
    methods = {table.name(row): chosen_runs[row] for row in plain_first}
    said = {method: _captions(Path(run.path or ".")) for method, run in methods.items()}
    said = {method: captions for method, captions in said.items() if captions}
    if len(said) < 2:
        return []
    pages = [_page(Path(methods[method].path or ".")) for method in said]
    shared = set.intersection(*(set(captions) for captions in said.values()))
    on_all = shared.intersection(*(page.spread for page in pages))
    names = [name for name in pages[0].spread if name in on_all]
    names = names or sorted(shared)  # no page, or no image on all of them: captions alone
    chosen = [names[place * len(names) // count] for place in range(count)] if names else []
    found = []
    for name in dict.fromkeys(chosen):
        source, references = pages[0].found.get(name, ("", ()))
        captions = tuple((method, captions[name]) for method, captions in said.items())
        picture = _small(_decoded(source), 320)
        if picture is not None:
            picture = replace(picture, alt=f"image {name}, described below")
        found.append(Example(name, picture, captions, references))
    return found


def _captions(folder: Path) -> dict[str, str]:
    """{image: caption} of a run's captions.json; empty where that is none of ours."""
    content = _bytes(folder / "captions.json")
    try:
        rows = json.loads(content.decode("utf-8"))
        said = {str(row["image_id"]): str(row["caption"]) for row in rows}
        "".join(said.values()).encode("utf-8")  # half of a surrogate pair cannot be written
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
    return said


def _page(folder: Path) -> "_Figures":
    """The images of a run's captions.html; none where that is no page of ours."""
    reader = _Figures()
    try:
        reader.feed(_bytes(folder / "captions.html").decode("utf-8", "replace"))
    except AssertionError:  # how html.parser says that a page is broken
        return _Figures()
    return reader


class _Figures(HTMLParser):
    """Reads <figure><img src><b>caption</b><small>..., image NAME</small>...<li>reference</li>."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, tuple[str, ...]]] = {}
        """{image: (picture as data, references)}."""
        self.spread: list[str] = []
        """Images that were not put there for their score."""
        self._ranked = False
        self._source, self._name, self._words = "", "", ""
        self._references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a figure, or a text inside it."""
        if tag == "figure":
            self._source, self._name, self._references = "", "", []
        elif tag == "img" and not self._source:
            self._source = dict(attrs).get("src") or ""
        elif tag in ("small", "li", "h2"):
            self._words = ""

    def handle_data(self, data: str) -> None:
        """Collect text."""
        self._words += data

    def handle_endtag(self, tag: str) -> None:
        """Take what was collected."""
        if tag == "h2":
            self._ranked = self._words.startswith(("Best", "Worst"))
        elif tag == "small" and (named := _NAMED.search(self._words)):
            self._name = named.group(1)
        elif tag == "li":
            self._references.append(self._words)
        elif tag == "figure" and self._name:
            self.found.setdefault(self._name, (self._source, tuple(self._references)))
            if not self._ranked:
                self.spread.append(self._name)


def _decoded(source: str) -> bytes:
    match = _DATA.fullmatch(source)
    try:
        return base64.b64decode(match.group(1)) if match else b""
    except binascii.Error:
        return b""


def _bytes(path: Path) -> bytes:
    try:
        if path.is_file() and path.stat().st_size <= _LARGEST_FILE:
            return path.read_bytes()
    except OSError:
        pass
    return b""


def _small(content: bytes, width: int) -> Picture | None:
    """At most `width` pixels wide, as WebP; None where it is no picture or far too large."""
    if not content:
        return None
    try:
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > _MOST_PIXELS:
                return None
            image = opened.convert("RGB")
    except Exception:  # whatever a decoder says of a broken file
        return None
    if image.width > width:
        height = max(1, round(image.height * width / image.width))
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "webp", quality=82, method=4)
    data = base64.b64encode(packed.getvalue()).decode()
    return Picture(f"data:image/webp;base64,{data}", image.width, image.height, "")
