r"""What a file that is published must not tell: local paths, home folders, user and host names.

`clean` takes them out of plain values, where a path becomes its last name; `search` finds them in
files: in every text of a torch archive's pickles, of the header of safetensors, of JSON, YAML and
Markdown, and in the bytes. Private are paths of POSIX, Windows and file://, what begins with ~,
addresses within a network, passwords in addresses, and names (`private_names`) as whole words.
Every pattern takes time linear in the text.
"""

import getpass
import json
import os
import pickletools
import re
import socket
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

_HOMES = r"(?:/home|(?<![\\/])[\\/]+Users|/var/home)[\\/]+"
_BEHIND = ".,;:)"  # of a sentence
_HOME_BYTES = (b"/home/", b"/users/", b"\\users\\")
_WORD = r"""[^\s"'`|<>]"""
_PRIVATE = re.compile(
    rf"""
      (?P<address> \b (?!file:) [a-z][a-z0-9+]{{1,9}}:// {_WORD}* )
    | (?P<path>
        \b file: [\\/]+ {_WORD}*
      | (?<![\w.\\/]) ~ (?!\d) [\w.-]* [\\/] {_WORD}*
      | (?<![A-Za-z0-9]) [A-Za-z]: [\\/]+ (?=[\w.]) {_WORD}*
      | (?<!\\) \\\\+ [\w.-]+ \\+ {_WORD}*
      | {_HOMES} {_WORD}*
      | (?<![\w.\\/)\]<~@-]) (?: [\w.@-]+ : )? //?
        (?P<bare> (?! [\\/] | (?:m/0|g/1)\w+\b ) {_WORD}+ )
      )
    """,  # /m/01abc is a class of Open Images
    re.VERBOSE,
)
_INSIDE = re.compile(  # a host within a network, or a login
    r".*@.*|([^.:]+|[\d.]+|\[.*\]|.+\.(local|lan|internal|intranet|corp|home))(:\d+)?"
)
_SECRET = re.compile("token|signature|secret|password|key")
# of a user or a host that anybody may have, and what is too short to be looked for
_COMMON = re.compile(
    "admin|anonymous|data|debian|default|ec2-user|guest|home|host|jovyan|localhost|public|root|"
    "runner|shared|ubuntu|users?|vagrant|work|.{,2}"
)
_PATH_FIELDS = ("data", "init", "backbone", "out")  # relative ones too
_KEPT_FIELDS = ("arch", "classes")  # with another word in them they would be wrong


def private_names(value: Any) -> frozenset[str]:
    """Names of this machine and its user, and of the users whose home folders stand in a value."""
    found = {socket.gethostname(), socket.gethostname().partition(".")[0], Path.home().name}
    found |= {os.environ.get(name, "") for name in ("SUDO_USER", "HOSTNAME", "COMPUTERNAME")}
    with suppress(KeyError, OSError, ImportError):
        found.add(getpass.getuser())
    for text in _texts(value):
        found.update(re.findall(rf"{_HOMES}([^\\/\n\"'|<>]+)(?=[\\/]|$)", text))
    return frozenset(name for name in found if not _COMMON.fullmatch(name.lower()))


def clean(value: Any, names: Collection[str], log: Callable[[str], None], place: str = "") -> Any:
    """Plain values without what is private: a path becomes its last name, a name `private`.

    Keys, classes and architectures stay as they are: `search` finds what is private in them.

    Args:
        value: with dictionaries and lists of such values.
        names: see `private_names`.
        log: takes a line for each text that is replaced.
        place: of the value, such as recipe.data.
    """
    key = place.rpartition(".")[2]
    if key in _KEPT_FIELDS:
        return value
    if isinstance(value, dict):
        return {
            k: clean(inner, names, log, f"{place}.{k}".lstrip(".")) for k, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(inner, names, log, place) for inner in value]
    if not isinstance(value, str):
        return value

    def replace(private: str, by: str) -> str:
        if private != by:
            log(f"{place}: {private!r} becomes {by!r}")
        return by

    text = value.encode("utf-8", "replace").decode()
    if names:
        text = _any_of(names).sub(lambda found: replace(found[0], "private"), text)
    first = _PRIVATE.match(text)
    is_path = first is not None and first["path"] and not _is_public(first)
    is_path = is_path and "://" not in text.removeprefix("file://")
    if "\n" not in text and (is_path or (key in _PATH_FIELDS and not re.match(r"\w{2,}:", text))):
        return replace(text, _last_name(text))  # with the spaces in it
    return _PRIVATE.sub(
        lambda found: found[0] if _is_public(found) else replace(found[0], _last_name(found[0])),
        text,
    )


def find_names(text: str, names: Collection[str]) -> frozenset[str]:
    """Those of the names that stand in a text as words."""
    return frozenset(name for name in names if _any_of([name]).search(text))


def private_words(
    text: str, names: Collection[str] = (), public: Collection[str] = ()
) -> list[str]:
    """What is private in a text, without the dot or bracket of the sentence behind it.

    Args:
        text: any.
        names: see `private_names`.
        public: paths and addresses that may stand there.
    """
    words = [match[0] for match in _PRIVATE.finditer(text) if not _is_public(match)]
    words += _any_of(names).findall(text) if names else []
    allowed = {word.lower() for word in public}
    words = [word.rstrip(_BEHIND) for word in words if word.lower() not in allowed]
    return [word for word in words if word.lower() not in allowed]


def search(folder: Path, names: Collection[str], public: Collection[str] = ()) -> list[str]:
    """Where the files of a folder hold what is private: file, place and what.

    Args:
        folder: with the files.
        names: see `private_names`.
        public: paths and addresses that may stand there.
    """
    found: list[str] = []
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        content, before = path.read_bytes(), len(found)
        for place, text in _read(path, content):
            words = private_words(text, names, public)
            found += [f"{path.name}, {place}: {word!r}" for word in words]
        if len(found) == before:
            lower = content.lower()
            for text in filter(_PRIVATE.match, public):
                lower = lower.replace(text.lower().encode(), b" ")
            # a network's numbers may look like anything short
            long = (name.lower().encode() for name in names if len(name) > 5)
            held = [word for word in _HOME_BYTES if word in lower]
            held += [word for word in long if word in lower and _stands_in(word, lower)]
            found += [f"{path.name}, its bytes: {word!r}" for word in held]
    return list(dict.fromkeys(found))


def _read(path: Path, content: bytes) -> Iterator[tuple[str, str]]:
    """Every text in a file, and where it stands."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                yield "a member's name", member
                if member.endswith(".pkl"):
                    operations = pickletools.genops(archive.read(member))
                    yield from ((member, arg) for _, arg, _ in operations if isinstance(arg, str))
                elif "/data/" not in member:  # of tensors
                    yield member, archive.read(member).decode("latin-1")
    elif path.suffix == ".safetensors":
        header = content[8 : 8 + int.from_bytes(content[:8], "little")]
        yield from (("its header", text) for text in _texts(json.loads(header)))
    else:
        text = content.decode("utf-8")
        yield from ((f"line {number}", line) for number, line in enumerate(text.split("\n"), 1))
        if path.suffix in (".json", ".yaml"):
            value = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
            yield from (("its values", inner) for inner in _texts(value))


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain values, keys too, and in JSON inside a text."""
    if isinstance(value, dict):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value
        if value.startswith("{"):
            with suppress(ValueError):
                yield from _texts(json.loads(value))


def _any_of(names: Iterable[str]) -> re.Pattern[str]:
    """Names as whole words; an underscore parts words."""
    words = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])", re.IGNORECASE)


def _stands_in(word: bytes, content: bytes) -> bool:
    """Whether it is a word of its own, by letters of ASCII."""
    return re.search(rb"(?<![a-z0-9])" + re.escape(word) + rb"(?![a-z0-9])", content) is not None


def _is_public(found: re.Match[str]) -> bool:
    """Of a match of `_PRIVATE`: a path without a letter, or an address that anybody may see."""
    if found["path"] is not None:
        return found["bare"] is not None and not re.search(r"[^\W\d_]", found["bare"])
    address = found[0].lower().rstrip(_BEHIND)
    scheme, *others = address.split("://")
    hosts = [re.split("[/?#]", other, maxsplit=1)[0] for other in others]
    if scheme == "hf":  # an owner, no host
        del hosts[0]
    keys = (field.partition("=") for field in re.split("[?&#;]", address)[1:])
    has_secret = any(equals and _SECRET.search(key) for key, equals, _ in keys)
    return not has_secret and not any(map(_INSIDE.fullmatch, hosts))


def _last_name(path: str) -> str:
    """Of a path or an address; a home folder's own is its user's."""
    address = path.partition("?")[0] if "://" in path else path
    parts = [part for part in re.split(r"[\\/]+", address) if part.strip() not in ("", ".", "..")]
    is_home = re.fullmatch(rf"(file:)?[\\/]*(\w:)?{_HOMES}[^\\/]*[\\/]*|~[^\\/]*[\\/]*", path)
    return "home" if is_home or not parts else parts[-1]
