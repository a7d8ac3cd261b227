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
from collections.abc import Iterable, Iterator
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
    content = _read(path)
    if bare := [image_id for image_id, captions in content.captions.items() if not captions]:
        count = f"{len(bare)} of {len(content.captions)}"
        raise UsageError(f"{path}: {count} ids have no captions, the first is {bare[0]!r}.")
    return content


def read_results(path: Path) -> dict[str, str]:
    """The one caption of each image.

    Raises:
        UsageError: as `read_references`, and where an id stands twice.
    """
    by_id = _read(path).captions
    if several := [image_id for image_id, captions in by_id.items() if len(captions) != 1]:
        raise UsageError(
            f"{path}: {len(several)} of {len(by_id)} ids do not have one caption, the first is "
            f"{several[0]!r} with {len(by_id[several[0]])}. Results hold one caption an image."
        )
    return {image_id: captions[0] for image_id, captions in by_id.items()}


def _read(path: Path) -> CaptionFile:
    text = read_text(path)
    file_names: dict[str, str] = {}
    entries: Iterable[tuple[str, Any]]
    match suffix_of(path):
        case ".json":
            entries = _json_entries(path, text, file_names)
        case ".jsonl" | ".ndjson":
            entries = _line_entries(path, text)
        case ".csv" | ".tsv":
            entries = _table_entries(path, text)
        case _:
            known = ".json, .jsonl, .ndjson, .csv, .tsv (or these .gz)"
            raise UsageError(f"{path}: expected a name that ends in {known}.")
    captions: dict[str, list[str]] = {}
    for entry_name, entry in entries:
        where = f"{path}, {entry_name}"
        if not isinstance(entry, dict):
            raise UsageError(f"{where}: {kind_of(entry)}; {_EXPECTED}.")
        key = next((name for name in _ID_NAMES if name in entry), None)
        texts = entry.get("caption", entry.get("captions", ...))
        if key is None or texts is ...:
            raise UsageError(f"{where} has {', '.join(entry) or 'nothing'}; {_EXPECTED}.")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            got = f"the caption is {texts!r:.60}"
            raise UsageError(f"{where}: {got}; expected a text or a list of texts.")
        captions.setdefault(parse_id(entry[key], where), []).extend(texts)
    if not captions:
        raise UsageError(f"{path} holds no captions.")
    return CaptionFile(path, captions, file_names)


def suffix_of(path: Path) -> str:
    """Of a file that may be packed."""
    return Path(path.name.removesuffix(".gz")).suffix


def read_text(path: Path) -> str:
    """The text of a file, which may be packed by gzip.

    Raises:
        UsageError: no file, or no text in UTF-8.
    """
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
        got = f"byte {error.start} is {error.object[error.start]:#04x}"
        raise UsageError(f"{path} is not UTF-8: {got}. Save it as UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UsageError(f"{path} cannot be unpacked: {error}.") from error


def parse_json(text: str, where: str) -> Any:
    """The content of a JSON text, no key twice in an object; UsageError where it is none."""

    def refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content: dict[str, Any] = {}
        for key, value in pairs:
            if key in content:
                raise ValueError(f"the key {key!r} stands twice")
            content[key] = value
        return content

    try:
        return json.loads(text, object_pairs_hook=refuse_duplicates)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is no JSON: {error}.") from error


# each of these gives where an entry stands, and {"image_id": ID, "caption": "..."} or what is there


def _json_entries(path: Path, text: str, file_names: dict[str, str]) -> Iterator[tuple[str, Any]]:
    """Of COCO's lists, or captions by id; fills in the images' file names."""
    content, kind = parse_json(text, str(path)), "entry"
    if isinstance(content, dict) and isinstance(content.get("annotations"), list):
        images = content.get("images")
        for image in images if isinstance(images, list) else []:
            if isinstance(image, dict) and {"id", "file_name"} <= image.keys():
                file_names[str(image["id"])] = str(image["file_name"])
        content, kind = content["annotations"], "annotation"
    if isinstance(content, list):
        yield from ((f"{kind} {n}", entry) for n, entry in enumerate(content))
    elif isinstance(content, dict):
        for image_id, texts in content.items():
            yield f"id {image_id!r}", {"id": image_id, "captions": texts}
    else:
        got = kind_of(content)
        raise UsageError(f"{path} holds {got}; expected captions by id, or COCO's lists.")


def _line_entries(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if line.strip():
            yield f"line {number}", parse_json(line, f"{path}, line {number},")


def _table_entries(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    delimiter = "\t" if suffix_of(path) == ".tsv" else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
        key = next((name for name in _ID_NAMES if name in names), None)
        if key is None or "caption" not in names:
            raise UsageError(
                f"{path}: the first line names the columns {', '.join(names) or '(none)'}; "
                "expected image_id (or id, image) and caption."
            )
        for row in filter(None, reader):
            if len(row) != len(names):
                raise UsageError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, but the first line names "
                    f"{len(names)}. A caption with a {delimiter!r} inside needs quotes."
                )
            entry = dict(zip(names, row, strict=True))
            yield f"line {reader.line_num}", {**entry, key: entry[key].strip()}
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from error


def parse_id(value: Any, where: str) -> str:
    """An id as text; UsageError where it is no id."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise UsageError(f"{where}: the id is {value!r:.60}; expected a number or a text.")
    return str(value)


def kind_of(value: Any) -> str:
    """What a value of JSON is, for a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "nothing" if value is None else "a number")
