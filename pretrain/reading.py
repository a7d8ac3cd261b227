"""Every file of ours is read here: torn, foreign, hostile, huge or no file, it is one message.

Each function names the file and says why it cannot be used, so that whoever reads many leaves that
one out. No torch at import.
"""

import json
import os
import re
import reprlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import yaml

from pretrain.errors import UsageError, first_line

LARGEST = 16 * 2**20
"""Bytes; our own files have ten thousand."""
_LARGEST_YAML = 256 * 2**10  # a configuration has two thousand, and parsing is slow
_MOST_NODES = 2**18  # more than such a file has without references
_DEEPEST = 50
_MOST_DIGITS = 1000  # Python refuses to show much longer ones

Number = Annotated[float, msgspec.Meta(ge=-1e12, le=1e12)]
"""What a schema (see `check`) takes for a number: finite, and of a size that can be shown."""
Integer = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""A whole number for a schema."""
_LIMIT = re.compile(r"`float` [<>]= -?1000000000000\.0")  # what msgspec says of a Number


def read_bytes(path: Path, name: str | None = None, largest: int = LARGEST) -> bytes:
    """The content of a file.

    Args:
        path: where it lies.
        name: what the message calls it; its path where that is not given.
        largest: bytes that are read at most.

    Raises:
        UsageError: it is none (a folder, or a pipe, which would block), too large or unreadable.
    """
    name = name or str(path)
    try:
        facts = os.stat(path)
        if not stat.S_ISREG(facts.st_mode):
            raise UsageError(f"{name}: is no file")
        if facts.st_size > largest:
            raise UsageError(f"{name}: has {facts.st_size:,} bytes; at most {largest:,} are read")
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from error


def read_text(path: Path, name: str | None = None, largest: int = LARGEST) -> str:
    """The content of a text file; UsageError where it is none, see `read_bytes`."""
    try:
        return read_bytes(path, name, largest).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name or path}: holds bytes that are no text in UTF-8") from error


def read_json(path: Path, name: str | None = None, largest: int = LARGEST) -> Any:
    """What a JSON file holds; UsageError where it cannot be read, see `read_bytes`."""
    text, name = read_text(path, name, largest), name or str(path)
    try:
        content = json.loads(text)
        # half of a surrogate pair passes for JSON, and no file can hold it
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"{name}: holds characters that are no text in UTF-8") from error
    except ValueError as error:
        raise UsageError(f"{name}: cannot be read as JSON: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{name}: is nested too deeply") from error
    return _check_depth(content, name)


def read_yaml(path: Path, name: str | None = None) -> Any:
    """What a YAML file holds; UsageError where it cannot be read, see `read_bytes`."""
    text, name = read_text(path, name, _LARGEST_YAML), name or str(path)
    try:
        content = yaml.load(text, _Loader)
    except RecursionError as error:
        raise UsageError(f"{name}: is nested too deeply") from error
    except Exception as error:  # PyYAML raises several of its own, and what a wrong tag leads to
        why = first_line(error)
        if isinstance(error, yaml.MarkedYAMLError) and error.problem and error.problem_mark:
            why = f"line {error.problem_mark.line + 1}: {error.problem}"
        raise UsageError(f"{name}: cannot be read as YAML: {why}") from error
    return _check_depth(content, name)


class _Loader(yaml.SafeLoader):
    """References (*name) count as what they refer to: a few of them make a file without end.

    Depth ends it early: time grows with its square.
    """

    depth = nodes = 0

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.nodes_of = dict[str, int]()

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        is_reference, before = isinstance(event, yaml.AliasEvent), self.nodes
        if is_reference and event.anchor in self.anchors.keys() - self.nodes_of.keys():
            raise yaml.YAMLError(f"*{event.anchor} stands inside what it refers to")
        self.nodes += self.nodes_of.get(event.anchor, 0) if is_reference else 1
        if self.nodes > _MOST_NODES:
            raise yaml.YAMLError("its references (*name) come to too many values")
        self.depth += 1
        if self.depth > _DEEPEST + 1:
            raise RecursionError
        node = super().compose_node(parent, index)
        self.depth -= 1
        if event.anchor and not is_reference:
            self.nodes_of[event.anchor] = self.nodes - before
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set[tuple[str, str]]()  # PyYAML takes the last of equal keys, without a word
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and (key.tag, key.value) in seen:
                line = key.start_mark.line + 1
                raise yaml.YAMLError(f"line {line}: {key.value} stands there a second time")
            seen |= {(key.tag, str(key.value))}
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: Any) -> Any:
        text = super().construct_scalar(node)
        if node.tag.endswith(":int") and len(text) > _MOST_DIGITS:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(
                f"line {line}: a number of {len(text):,} digits; at most {_MOST_DIGITS} are read"
            )
        text.encode("utf-8")  # half of a surrogate pair passes for YAML, and no file can hold it
        return text


def check(content: Any, kind: Any, name: str) -> Any:
    """The value, converted to a type; UsageError, beginning with `name`, where it is not of it.

    Args:
        content: plain values, from JSON or YAML.
        kind: a type that msgspec knows, such as a TypedDict; keys that it does not name may hold
            anything.
        name: of the file, or of what is looked at.
    """
    try:
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        what, _, place = str(error).partition(" - at ")
        in_keys, place = place.startswith("`key` in "), place.removeprefix("`key` in ")
        place = place.strip("`").removeprefix("$").removeprefix(".")
        if in_keys:
            what = f"a key: e{what[1:]}. Write it in quotes: YAML takes no, on and 1 for no text"
        elif what.startswith("Expected "):
            expected, _, got = what.partition(", got ")
            expected = _LIMIT.sub("a finite number of at most 1e12 in size", expected)
            kind, steps = got.strip("`"), re.findall(r"[^.\[\]]+|\.{3}", place)
            for here, value in _values_at(content, steps):
                # of several at "..." the first of the wrong type; of a wrong size it is not known
                if _JSON_TYPES.get(type(value)) == kind or not (kind or "..." in steps):
                    place, got = here.removeprefix("."), reprlib.repr(value)
                    break
            what = f"e{expected[1:]}" + (f", got {got}" if got else "")
        raise UsageError(": ".join(filter(None, (name, place, what)))) from error


_JSON_TYPES = {
    int: "int", float: "float", bool: "bool", str: "str", type(None): "null",
    list: "array", dict: "object",
}  # fmt: skip
"""What msgspec calls them."""


def _values_at(content: Any, steps: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """What may stand at a place such as jobs, 3, name; msgspec says `...` for any key."""
    if not steps:
        yield "", content
    elif isinstance(content, dict | list):
        keys = range(len(content)) if isinstance(content, list) else [*content]
        for key in (key for key in keys if steps[0] in ("...", str(key))):
            for place, value in _values_at(content[key], steps[1:]):
                yield f"[{key}]{place}" if isinstance(content, list) else f".{key}{place}", value


def _check_depth(content: Any, name: str) -> Any:
    level, depth = [content], 0
    while level and depth <= _DEEPEST:
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        depth += 1
    if level:
        raise UsageError(f"{name}: is nested too deeply")
    return content
