"""Captions on disk as people and programs write them: one reader for training and for scoring.

    coco       {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}
    karpathy   {"images": [{"filepath", "filename", "split", "cocoid", "sentences": [{"raw"}]}]}
    textcaps   {"data": [{"image_id", "set_name", "caption_str", "reference_strs"}]}
    list       [{"image_id", "caption"}]: results of MS-COCO; LAVIS ("image": a path); also a line
               each (.jsonl, .ndjson), such as Hugging Face's metadata.jsonl ("file_name", "text")
    ids        {"ID": ["caption", ...]}, or {"ID": "caption"}
    table      .csv, .tsv, .txt with a line of names: image_id, image, file_name ... and caption,
               text or comment; between them a comma, semicolon, tab or | as the first line has it
    tokens     .token, .txt: NAME.jpg#0<tab>caption, as Flickr8k and Flickr30k come

All may end in .gz and are UTF-8. An id is a whole number or a text; 7, "7" and 7.0 are the same.
"""

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from pretrain.safe_pickle import require_file

Id = int | str
Log = Callable[[str], None]

_NAMES = ("image", "file_name", "filename", "image_name", "image_path")
_IDS = ("image_id", "id", *_NAMES)
_TEXTS = ("reference_strs", "caption_str", "caption", "captions", "sentences", "text", "comment")
_EXPECTED = 'expected {"image_id": ID, "caption": "..."}'
_COLUMNS = "expected image_id (or image, file_name, id) and caption (or text)"
_KNOWN = ".json, .jsonl, .ndjson, .csv, .tsv, .txt, .token (or these .gz)"

_FILE = re.compile(r".*\.(jpe?g|png|webp|gif|bmp|tiff?)", re.IGNORECASE | re.DOTALL)
_JOINED = re.compile(r"\.\w{3,4}#\d+\t")  # of two lines with no break between them
_NUMBER = re.compile(r"(?:COCO_[a-z]+\d{4}_|coco_)?(\d+)")
_WHOLE = re.compile(r"(\d+)\.0*")
_FLOAT = re.compile(r"[+-]?\d*\.\d*(?:[eE][+-]?\d+)?|nan", re.IGNORECASE)
_LIST = re.compile(r"\s*\[\s*(['\"]).*\1\s*,?\s*\]\s*", re.DOTALL)


@dataclass
class ImageCaptions:
    """An image: what an entry of a file says of it, and then all that the file says."""

    where: str
    """Its first place, such as `line 3`."""
    image_id: Id
    file_name: str | None
    captions: list[Any]
    """Texts, or what stands in their place."""
    is_whole: bool = False
    """All captions of the image: it has no other entry."""
    is_listed: bool = False
    """Named on its own, as MS-COCO's `images` has it."""
    splits: list[str] = field(default_factory=list)
    """Where the file has splits: mostly one."""
    number: str | None = None
    """Of an entry's caption among those of its image."""


def read_images(
    path: Path, log: Log, faults: list[str] | None = None
) -> tuple[str, dict[str, ImageCaptions]]:
    """The layout of a file of captions, and its images by id as text, in the order of the file.

    Args:
        path: see the head of this file.
        log: takes a line for each kind of thing that is left out.
        faults: is filled with the entries that make no sense; None refuses them.

    Raises:
        UsageError: no file, no such format, an id that stands for several images, an entry that
            makes no sense; the message names it.
    """
    if not isinstance(path, str | Path):
        raise UsageError(f"a file of captions is named by a path, not by {path!r:.60}.")
    path = Path(path)
    layout, found, parse = _open(path, read_text(path), log)
    entries: list[ImageCaptions] = []
    for where, content in found:
        try:
            entry = parse(content, where)
            odd = [text for text in entry.captions if not isinstance(text, str)]
            if odd and faults is None:
                raise UsageError(
                    f"{where}: the caption is {odd[0]!r:.60}; expected a text or a list of texts."
                )
            entries.append(entry)
        except UsageError as error:
            if faults is None:
                raise UsageError(f"{path}, {error}") from None
            faults.append(str(error))
    return layout, _by_image(path, layout, entries)


def _by_image(
    path: Path, layout: str, entries: Iterable[ImageCaptions]
) -> dict[str, ImageCaptions]:
    """What belongs together; refuses ids that stand for several images."""
    images: dict[str, ImageCaptions] = {}
    numbers: set[tuple[str, str | None]] = set()
    repeated: dict[str, tuple[str, str]] = {}
    for entry in entries:
        for text in entry.captions:
            if isinstance(text, str) and "[" in text and _LIST.fullmatch(text):
                raise UsageError(
                    f"{path}, {entry.where}: the caption is {text!r:.60}, the text of a list. "
                    "Write each of its captions as an entry or row of its own (pandas: ast."
                    "literal_eval on the column, then explode), or a list in JSON."
                )
        key = str(entry.image_id)
        if key not in images:
            images[key] = entry
            numbers.add((key, entry.number))
            continue
        image = images[key]
        more = [split for split in entry.splits if split not in image.splits]
        if entry.file_name and image.file_name and entry.file_name != image.file_name:
            repeated.setdefault(key, (image.file_name, entry.file_name))
        elif more and entry.captions == image.captions:
            entry.captions = []  # one image in two splits
        elif (entry.is_whole and image.captions) or (entry.is_listed and image.is_listed):
            names = (image.file_name or image.where, entry.file_name or entry.where)
            repeated.setdefault(key, names)
        if entry.number is not None and (key, entry.number) in numbers:
            repeated.setdefault(key, (image.where, f"{entry.where}, number {entry.number}"))
        numbers.add((key, entry.number))
        image.captions += entry.captions
        image.file_name = image.file_name or entry.file_name
        image.is_listed |= entry.is_listed
        image.splits += more
    if repeated:
        key, (one, other) = next(iter(repeated.items()))
        anew = ', or remove "imgid": the file name is the id then' * (layout == "karpathy")
        raise UsageError(
            f"{path}: {len(repeated):,} of {len(images):,} ids stand more than once, the first is "
            f"{key!r}: {one} and {other}. Files that were merged may count from the same number: "
            f"give each image an id of its own{anew}, and each one entry."
        )
    return images


def log_left_out(log: Log, source: object, entries: Sequence[object], problem: str) -> None:
    """One line on entries that are left out, if there are any: how many, and the first."""
    if entries:
        log(f"{source}: left out {len(entries):,} {problem}, the first is {entries[0]!r:.80}")


# --------------------------------------------------------------------------------- names of images


def parse_id(value: Any, where: str) -> Id:
    """An id: a whole number or a text, 391895.0 (a column of pandas) being 391895.

    Raises:
        UsageError: what is none.
    """
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)
    if isinstance(value, str):
        value = value.strip()
        if match := _WHOLE.fullmatch(value):
            value = match[1]
        elif len(value) > 1 and _FLOAT.fullmatch(value):
            raise UsageError(
                f"{where}: the id is {value}; expected a whole number or a text. A column of "
                'pandas with gaps becomes floats: write it by astype("Int64").'
            )
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise UsageError(f"{where}: the id is {value!r:.60}; expected a whole number or a text.")
    return value


def is_file_name(name: object) -> bool:
    """Whether a text is the name of an image file."""
    return isinstance(name, str) and _FILE.fullmatch(name) is not None


def canonical_name(name: str) -> str:
    """What the names and ids of one image share.

    391895 of 391895, 000000391895, coco_391895, val2014/COCO_val2014_000000391895.jpg; otherwise
    the name without folders and ending.
    """
    stem = name.replace("\\", "/").rpartition("/")[2]
    if is_file_name(stem):
        stem = stem.rpartition(".")[0]
    match = _NUMBER.fullmatch(stem)
    return match[1].lstrip("0") or "0" if match else stem


# ------------------------------------------------------------------------------------------ layouts

_Parse = Callable[[Any, str], ImageCaptions]
_Found = Iterable[tuple[str, Any]]


def _open(path: Path, text: str, log: Log) -> tuple[str, _Found, _Parse]:
    """The layout of a file, what stands where in it, and what makes an entry of this."""
    suffix = unpacked(path).suffix
    lines = ((f"line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip())
    if suffix == ".json":
        return _open_json(path, parse_json(text, str(path)))
    if suffix in (".jsonl", ".ndjson"):
        objects = ((where, parse_json(line, f"{path}, {where},")) for where, line in lines)
        return "list", objects, _parse_entry
    if suffix not in (".csv", ".tsv", ".txt", ".token"):
        raise UsageError(f"{path}: expected a name that ends in {_KNOWN}.")
    first = text.lstrip().partition("\n")[0]
    is_token = suffix == ".token" or ".token." in path.name or re.search(r"#\d+\t", first)
    if suffix in (".token", ".txt") and is_token:
        return "tokens", lines, _parse_token
    return "table", _rows(path, text, suffix, log), _parse_entry


def _open_json(path: Path, content: Any) -> tuple[str, _Found, _Parse]:
    def numbered(kind: str, entries: list[Any]) -> Iterator[tuple[str, Any]]:
        return ((f"{kind} {number}", entry) for number, entry in enumerate(entries))

    if isinstance(content, list):
        return "list", numbered("entry", content), _parse_entry
    if not isinstance(content, dict):
        raise UsageError(
            f"{path} holds {kind_of(content)}; expected captions by id, or COCO's lists."
        )
    images, data = content.get("images"), content.get("data")
    if isinstance(content.get("annotations"), list):
        listed = numbered("image", images if isinstance(images, list) else [])
        return "coco", chain(listed, numbered("annotation", content["annotations"])), _parse_coco
    if isinstance(images, list) and any(isinstance(e, dict) and "sentences" in e for e in images):
        entries = [entry for entry in images if isinstance(entry, dict)]
        counts = {key: sum(key in entry for entry in entries) for key in ("cocoid", "imgid")}
        key = next((key for key in counts if 2 * counts[key] > len(entries)), "filename")
        return "karpathy", numbered("image", images), partial(_parse_karpathy, key=key)
    if isinstance(images, list):
        raise UsageError(f"{path} has images, but no annotations; expected COCO's or Karpathy's.")
    if isinstance(data, list) and all(isinstance(entry, dict) for entry in data):
        return "textcaps", _without_repetition(numbered("entry", data)), _parse_entry
    entries_by_id = ((f"id {key!r}", (key, texts)) for key, texts in content.items())
    return "ids", entries_by_id, _parse_item


def _without_repetition(entries: _Found) -> _Found:
    """TextCaps has an entry a caption, and all captions of the image in each."""
    seen: dict[str, Any] = {}
    for where, entry in entries:
        texts = entry.get("reference_strs")
        first = texts if texts is None else seen.setdefault(str(entry.get("image_id")), texts)
        if first is texts or first != texts:  # an id for two images: refused later
            yield where, entry


def _rows(path: Path, text: str, suffix: str, log: Log) -> _Found:
    """Rows of a table by their names."""
    head = text.partition("\n")[0]
    delimiter = "\t" if suffix == ".tsv" else max(",;|\t", key=head.count)  # , where none
    # Flickr30k's captions have quotes that stand for themselves
    source, is_piped = io.StringIO(text, newline=""), delimiter == "|"
    quoting: Any = csv.QUOTE_NONE if is_piped else csv.QUOTE_MINIMAL
    reader = csv.reader(source, delimiter=delimiter, quoting=quoting, strict=True)
    broken: list[str] = []
    try:
        names = [name.strip().lower() for name in next(reader, [])]
        used = [name for name in names if name in (*_IDS, *_TEXTS)]
        if not {*_IDS} & {*used} or not {*_TEXTS} & {*used} or len({*used}) < len(used):
            got = ", ".join(names) or "(none)"
            raise UsageError(f"{path}: the first line names the columns {got}; {_COLUMNS}.")
        for row in filter(None, reader):
            is_quoted = '"' in "".join(row)  # then two lines may have become one
            if len(row) > len(names) and suffix == ".txt" and names[-1] in _TEXTS and not is_quoted:
                # Kaggle's Flickr8k: what is behind the last name is the caption
                row = [*row[: len(names) - 1], delimiter.join(row[len(names) - 1 :])]
            if len(row) != len(names):
                if is_piped:  # Flickr30k has one such row: 2199200615.jpg| 4   A dog runs
                    broken.append(f"line {reader.line_num}: {'|'.join(row)}")
                    continue
                raise UsageError(
                    f"{path}, line {reader.line_num}: {len(row)} columns, but the first line names "
                    f"{len(names)}. A caption with a {delimiter!r} inside needs quotes."
                )
            if is_piped:
                row = [cell.strip() for cell in row]
            yield f"line {reader.line_num}", dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}.") from error
    log_left_out(log, path, broken, f"rows without {len(names)} columns between |")


# ------------------------------------------------------------------------------------------ entries


def _parse_entry(entry: Any, where: str) -> ImageCaptions:
    """An object, or a row, that names an image and has captions.

    An image's name stands above a number beside it: that is made up (LAVIS), or of the row.
    """
    _check_object(entry, where, _EXPECTED)
    named = next((key for key in (*_NAMES, "id") if entry.get(key) is not None), "id")
    key = "image_id" if "image_id" in entry and not is_file_name(entry.get("image")) else named
    text_key = next((key for key in _TEXTS if key in entry), "caption")
    _check_object(entry, where, _EXPECTED, key, text_key)
    image_id = parse_id(entry[key], where)
    name = next((entry[key] for key in _NAMES if is_file_name(entry.get(key))), image_id)
    number = entry.get("comment_number")
    return ImageCaptions(
        where,
        image_id,
        _as_path(name),
        _texts(entry[text_key]),
        is_whole=isinstance(entry[text_key], list),
        splits=_splits(entry),
        number=None if number is None else str(number),
    )


def _parse_item(item: Any, where: str) -> ImageCaptions:
    image_id = parse_id(item[0], where)
    return ImageCaptions(where, image_id, _as_path(image_id), _texts(item[1]), is_whole=True)


def _parse_coco(entry: Any, where: str) -> ImageCaptions:
    """Of `images`, or of `annotations`."""
    if where.startswith("image "):
        _check_object(entry, where, 'expected {"id": ID, "file_name": "..."}', "id")
        name = entry.get("file_name")
        image_id = parse_id(entry["id"], where)
        return ImageCaptions(where, image_id, _as_path(name, anything=True), [], is_listed=True)
    _check_object(entry, where, _EXPECTED, "image_id", "caption")
    return ImageCaptions(where, parse_id(entry["image_id"], where), None, _texts(entry["caption"]))


def _parse_karpathy(entry: Any, where: str, key: str) -> ImageCaptions:
    expected = f'expected {{"{key}", "filename", "split", "sentences": [{{"raw": "..."}}]}}'
    _check_object(entry, where, expected, key, "filename", "sentences")
    texts, name = _texts(entry["sentences"]), entry["filename"]
    if not (isinstance(name, str) and name.strip() and isinstance(entry["sentences"], list)):
        raise UsageError(f"{where}: {entry!r:.60}; {expected}.")
    folder = entry.get("filepath")
    path = f"{folder}/{name}" if isinstance(folder, str) and folder else name
    image_id = parse_id(entry[key], where)
    return ImageCaptions(where, image_id, path, texts, is_whole=True, splits=_splits(entry))


def _parse_token(line: str, where: str) -> ImageCaptions:
    label, tab, text = line.rstrip("\r").partition("\t")
    name, _, number = label.rpartition("#")
    if not tab or not name or not number.isdigit() or _JOINED.search(text):
        raise UsageError(f"{where}: {line!r:.60} is not NAME#NUMBER, tab, caption.")
    return ImageCaptions(where, name, name, [text], number=number)


def _check_object(entry: Any, where: str, expected: str, *keys: str) -> None:
    if not isinstance(entry, dict):
        raise UsageError(f"{where}: {kind_of(entry)}; {expected}.")
    if not {*keys} <= entry.keys():
        raise UsageError(f"{where} has {', '.join(map(str, entry)) or 'nothing'}; {expected}.")


def _texts(value: Any) -> list[Any]:
    """Captions, or what stands in their place; [{"caption": "..."}] as pycocoevalcap holds them."""
    texts = value if isinstance(value, list) else [value]
    return [t.get("caption", t.get("raw", t)) if isinstance(t, dict) else t for t in texts]


def _as_path(name: object, anything: bool = False) -> str | None:
    """The name of an image file, / between folders."""
    if not isinstance(name, str) or not (anything or is_file_name(name)):
        return None
    return name.replace("\\", "/")


def _splits(entry: dict[str, Any]) -> list[str]:
    split = entry.get("split", entry.get("set_name"))
    return [split.strip().lower()] if isinstance(split, str) and split.strip() else []


# --------------------------------------------------------------------------------------------- text


def unpacked(path: Path) -> Path:
    """The name of a file that may be packed, without the .gz."""
    return Path(path.name.removesuffix(".gz"))


def read_text(path: Path) -> str:
    """The text of a file, which may be packed by gzip.

    Raises:
        UsageError: no file, or no text in UTF-8.
    """
    require_file(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
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
        raise UsageError(f"{where} is no JSON: {error}. It may be cut short.") from error


def kind_of(value: Any) -> str:
    """What a value of JSON is, for a message."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "nothing" if value is None else "a number")
