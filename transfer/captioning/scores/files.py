"""Captions on disk, as people keep them.

    COCO JSON    {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
                 or the list of {"image_id", "caption"} that its results are
    plain JSON   {"ID": ["caption", ...]}, or {"ID": "caption"}
    JSON lines   {"image_id": ID, "caption": "..."} a line, or "captions": [...]
    CSV, TSV     with a line of names: image_id (or id, image) and caption

All may end in .gz and are UTF-8. An id is a number or a text; 7 and "7" are the same.
"""

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError

_ID_NAMES = ("image_id", "id", "image")
_EXPECTED = 'expected {"image_id": ID, "caption": "..."}'


@dataclass(frozen=True)
class CaptionFile:
    """The captions of a file, by id in the order of the file."""

    path: Path
    captions: dict[str, list[str]]
    file_names: dict[str, str] = field(default_factory=dict)
    """Of the images, where the file has them."""


def read_references(path: Path) -> CaptionFile:
    """The reference captions of each image.

    Raises:
        UsageError: no file, no such format, or an image without captions; the message names the
            entry.
    """
    found = _read(path)
    if not found.captions:
        raise UsageError(f"{path} holds no captions.")
    if bare := [image_id for image_id, captions in found.captions.items() if not captions]:
        raise UsageError(
            f"{path}: {len(bare)} of {len(found.captions)} ids have no captions, the first is "
            f"{bare[0]!r}."
        )
    return found


def read_results(path: Path) -> dict[str, str]:
    """The one caption of each image.

    Raises:
        UsageError: as `read_references`, and where an id stands twice.
    """
    found = _read(path).captions
    if not found:
        raise UsageError(f"{path} holds no captions.")
    if several := [image_id for image_id, captions in found.items() if len(captions) != 1]:
        raise UsageError(
            f"{path}: {len(several)} of {len(found)} ids do not have one caption, the first is "
            f"{several[0]!r} with {len(found[several[0]])}. Results hold one caption an image."
        )
    return {image_id: captions[0] for image_id, captions in found.items()}


def read_ids(path: Path) -> list[str]:
    """Ids from a file: a JSON list, or one a line."""
    text = _text(path)
    if path.name.removesuffix(".gz").endswith(".json"):
        content = _json(path, text)
        if not isinstance(content, list):
            raise UsageError(f"{path} is no list of ids but {_kind(content)}.")
        ids = [_id(path, f"entry {place}", value) for place, value in enumerate(content)]
    else:
        ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise UsageError(f"{path} holds no ids.")
    return list(dict.fromkeys(ids))


def choose(
    references: CaptionFile,
    results: Mapping[str, str],
    ids: Sequence[str] | None = None,
    subset: bool = False,
    name: object = "the results",
) -> dict[str, list[str]]:
    """The references of the images to score, in their order.

    Args:
        references: all there are.
        results: the captions to score.
        ids: score these images only; each needs references.
        subset: leave out the images without a caption; otherwise they are an error.
        name: what a message calls the results.

    Raises:
        UsageError: images without a caption, or captions without references.
    """
    wanted = references.captions
    if ids is not None:
        if lone := [image_id for image_id in ids if image_id not in wanted]:
            raise UsageError(
                f"{len(lone)} of {len(ids)} ids asked for have no references in {references.path}, "
                f"the first is {lone[0]!r}."
            )
        wanted = {image_id: wanted[image_id] for image_id in ids}
    elif lone := [image_id for image_id in results if image_id not in wanted]:
        raise UsageError(
            f"{len(lone)} of {len(results)} ids in {name} are not in {references.path}, the first "
            f"is {lone[0]!r}; ids there look like {next(iter(wanted))!r}."
        )
    if missing := [image_id for image_id in wanted if image_id not in results]:
        if not subset:
            raise UsageError(
                f"{len(missing)} of {len(wanted)} images have no caption in {name}, the first has "
                f"id {missing[0]!r}. Give captions for all, or --subset to score those that have "
                "one."
            )
        if len(missing) == len(wanted):
            raise UsageError(f"none of the {len(wanted)} images has a caption in {name}.")
        wanted = {image_id: texts for image_id, texts in wanted.items() if image_id in results}
    return wanted


def _read(path: Path) -> CaptionFile:
    if path.is_dir():
        raise UsageError(f"{path} is a folder; expected a file of captions.")
    name = path.name.removesuffix(".gz")
    readers: dict[str, Callable[[Path, str], CaptionFile]] = {
        ".json": _read_json,
        ".jsonl": _read_lines,
        ".ndjson": _read_lines,
        ".csv": _read_table,
        ".tsv": _read_table,
    }
    if Path(name).suffix not in readers:
        raise UsageError(
            f"{path}: expected a name that ends in {', '.join(readers)} (or these .gz)."
        )
    return readers[Path(name).suffix](path, _text(path))


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"there is no file {path}.") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; expected a file of captions.") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8: byte {error.start} is {error.object[error.start]:#04x}. "
            "Save it as UTF-8."
        ) from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}.") from error


def _json(path: Path, text: str, place: str = "") -> Any:
    try:
        return json.loads(text, object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}{place} is no JSON: {error}.") from error


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(
            f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands twice"
        )
    return content


def _read_json(path: Path, text: str) -> CaptionFile:
    content = _json(path, text)
    if isinstance(content, list):
        return _collect(path, ((f"entry {place}", entry) for place, entry in enumerate(content)))
    if not isinstance(content, dict):
        raise UsageError(
            f"{path} holds {_kind(content)}; expected captions by id, or COCO's lists."
        )
    if isinstance(entries := content.get("annotations"), list):
        named = [(f"annotation {place}", entry) for place, entry in enumerate(entries)]
        found = _collect(path, iter(named))
        images = content.get("images", [])
        names = {
            str(image["id"]): str(image["file_name"])
            for image in (images if isinstance(images, list) else [])
            if isinstance(image, dict) and {"id", "file_name"} <= image.keys()
        }
        return CaptionFile(path, found.captions, names)
    return CaptionFile(
        path,
        {image_id: _texts(path, f"id {image_id!r}", value) for image_id, value in content.items()},
    )


def _read_lines(path: Path, text: str) -> CaptionFile:
    def entries() -> Iterator[tuple[str, Any]]:
        for number, line in enumerate(io.StringIO(text), start=1):
            if line.strip():
                yield f"line {number}", _json(path, line, f", line {number},")

    return _collect(path, entries())


def _read_table(path: Path, text: str) -> CaptionFile:
    delimiter = "\t" if path.name.removesuffix(".gz").endswith(".tsv") else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    captions: dict[str, list[str]] = {}
    try:
        names = [name.strip() for name in next(reader, [])]
        id_name = next((name for name in _ID_NAMES if name in names), None)
        if id_name is None or "caption" not in names:
            raise UsageError(
                f"{path}: the first line names the columns {', '.join(names) or '(none)'}; "
                "expected image_id (or id, image) and caption."
            )
        columns = names.index(id_name), names.index("caption")
        for row in reader:
            if not row:
                continue
            if len(row) != len(names):
                raise UsageError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, but the first line names "
                    f"{len(names)}. A caption with a {delimiter!r} inside needs quotes."
                )
            captions.setdefault(row[columns[0]].strip(), []).append(row[columns[1]])
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from error
    return CaptionFile(path, captions)


def _collect(path: Path, entries: Iterator[tuple[str, Any]]) -> CaptionFile:
    """Entries of an id and a caption, or several, by id."""
    captions: dict[str, list[str]] = {}
    for place, entry in entries:
        if not isinstance(entry, dict):
            raise UsageError(f"{path}, {place}: {_kind(entry)}; {_EXPECTED}.")
        key = next((name for name in _ID_NAMES if name in entry), None)
        text = next((name for name in ("caption", "captions") if name in entry), None)
        if key is None or text is None:
            raise UsageError(f"{path}, {place} has {', '.join(entry) or 'nothing'}; {_EXPECTED}.")
        image_id = _id(path, place, entry[key])
        captions.setdefault(image_id, []).extend(_texts(path, place, entry[text]))
    return CaptionFile(path, captions)


def _id(path: Path, place: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UsageError(f"{path}, {place}: the id is {value!r:.60}; expected a number or a text.")
    return str(value)


def _texts(path: Path, place: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"{path}, {place}: the caption is {value!r:.60}; expected a text or a list of texts."
        )
    return texts


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "nothing" if value is None else "a number")
