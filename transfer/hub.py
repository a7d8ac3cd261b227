"""From what a user types after --backbone to a Backbone.

    runs/x, x.pth              a file, or the folder of a run or of timm's layout
    timm:resnet50.a1_in1k      timm's list
    torchvision:resnet50/IMAGENET1K_V2
    hf:owner/name[@revision]   a Hugging Face repository in timm's or transformers' layout
    https://...[#sha256=...]   any file that `transfer.formats` reads; s3://, gs:// and hf:// too
    cutmix-resnet101           our own list, transfer/released.yaml

What is in the cache needs no network.
"""

import difflib
import os
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import timm
import torchvision

from pretrain.backbone import Backbone
from pretrain.errors import UsageError, first_line
from pretrain.progress import log
from pretrain.reading import check, read_yaml
from transfer import formats
from transfer.download import Address, Sha256, fetch
from transfer.formats.architectures import RESNET_SHAPES
from transfer.formats.sources import SOURCES, Overrides, digits_in
from transfer.formats.transformers_config import PREPROCESSOR
from transfer.network_maps import TORCHVISION

LIST = Path(__file__).resolve().parent / "released.yaml"
ITSELF = "itself"
Text = Annotated[str, msgspec.Meta(pattern=r"^[^\x00-\x1f\x7f-\x9f]*\S\Z")]


@dataclass(frozen=True, kw_only=True)
class ReleasedBackbone:
    """One entry of our list."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][\w.-]*\Z")]
    arch: Text
    source: Text
    """Whose preprocessing its file follows; `itself` for a backbone file, which says so."""
    recipe: Text
    row: Text
    """What the paper or its repository states."""
    origin: Text
    licence: Text
    sha256: Sha256 | None
    size: Annotated[int, msgspec.Meta(gt=0)] | None
    url: Text | None = None
    page: Text | None = None
    """A web page that serves it, where no program can."""

    def __post_init__(self) -> None:
        """Refuse what the fields contradict."""
        if self.url is not None and self.page is not None:
            raise UsageError("it has both url and page; page is for what only a web page serves")
        if self.source not in (*SOURCES, "timm", ITSELF):
            raise UsageError(f"source is {self.source!r}")
        if self.url is not None:
            self.address  # noqa: B018  (raises)

    @property
    def address(self) -> Address:
        """Where a program fetches it."""
        assert self.url is not None
        return Address(self.url, self.sha256, self.size, self.name)


def read_list(path: Path) -> tuple[dict[str, ReleasedBackbone], list[str]]:
    """The good entries of a list in the format of ours, by name, and what is wrong with others.

    Raises:
        UsageError: it is no list.
    """
    content = check(read_yaml(path), dict[str, Any], str(path))
    defaults, found = (
        check(content.get(key), dict[Any, Any], f"{path}, {key}")
        for key in ("defaults", "backbones")
    )
    entries, problems = {}, []
    for name, entry in found.items():
        try:
            place = f"{path}, {name!r}"
            facts = {**defaults, **check(entry, dict[str, Any], place), "name": name}
            entries[name] = check(facts, ReleasedBackbone, place)
        except UsageError as error:
            problems.append(str(error))
    return entries, problems


def released() -> dict[str, ReleasedBackbone]:
    """Our list by name, without the entries that are wrong, which are logged."""
    entries, problems = read_list(LIST)
    for problem in problems:
        log(f"left out: {problem}")
    return entries


def resolve(name: str, overrides: Overrides = Overrides(), *, trust: bool = False) -> Backbone:  # noqa: B008
    """The backbone that a name, path or address stands for.

    Args:
        name: see the head of this module.
        overrides: what the file does not say of itself.
        trust: download files whose hash is not known.

    Raises:
        UsageError: nothing there, not verified, or not a backbone.
    """
    path, known = locate(name, trust=trust)
    backbone = formats.read(path, known if overrides == Overrides() else overrides)
    if name == str(path) or os.path.exists(name):
        return backbone
    return replace(backbone, provenance=replace(backbone.provenance, source=name))


def locate(name: str, *, trust: bool = False) -> tuple[Path, Overrides]:
    """The local file or folder behind a name, downloaded if need be, and what the name tells."""
    if os.path.exists(name):  # no error for what cannot be a path
        return Path(name), Overrides()
    if re.match(r"[A-Za-z][\w+.-]*://", name):
        return fetch(parse_address(name), trust=trust), Overrides()
    match name.partition(":"):
        case "timm", ":", rest:
            return _locate_timm(rest)
        case "torchvision", ":", rest:
            return _locate_torchvision(rest), Overrides()
        case "hf", ":", rest:
            return _locate_hugging_face(rest), Overrides()
    entries = released()
    if entry := entries.get(name):
        if entry.url is None and entry.page is None:
            raise UsageError(f"{name} has no url in {LIST} yet. Give the path of its file.")
        if entry.url is None:
            raise UsageError(
                f"{name} is served by a web page only: open {entry.page} in a browser, download "
                "the checkpoint there and give its path. It is read as it is."
            )
        path = fetch(entry.address, trust=trust)
        if entry.source == ITSELF:
            return path, Overrides()
        return path, Overrides(arch=entry.arch, source=entry.source)
    near = difflib.get_close_matches(name, entries, n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise UsageError(
        f"there is no file {name}, and our list (python tools/download.py --list) has no such "
        f"name.{hint} Other names begin with timm:, torchvision:, hf:, https://, s3:// or gs://."
    )


def parse_address(url: str) -> Address:
    """URL, or URL#sha256=DIGITS."""
    plain, _, fragment = url.partition("#")
    scheme, separator, rest = plain.partition("://")
    plain = scheme.lower() + separator + rest  # as fsspec wants it
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if fragment and match is None:
        raise UsageError(f"{url}: behind # there may stand sha256= and 64 hexadecimal digits.")
    return Address(plain, match.group(1).lower() if match else None)


def _locate_torchvision(name: str) -> Path:
    arch, _, entry = name.partition("/")
    if arch not in torchvision.models.list_models():
        raise UsageError(
            f"torchvision lists no model {arch!r} (torchvision:resnet50/IMAGENET1K_V2)."
        )
    if arch not in TORCHVISION and arch not in RESNET_SHAPES:
        listed = sorted(RESNET_SHAPES.keys() & set(torchvision.models.list_models()))
        raise UsageError(
            f"torchvision:{arch} is not read: timm has no network of its function that its names "
            f"lead to. Read are {', '.join([*listed, *TORCHVISION])}."
        )
    choices: Any = torchvision.models.get_model_weights(arch)
    weights = choices.DEFAULT if not entry else choices.__members__.get(entry)
    if weights is None:
        raise UsageError(f"torchvision:{arch} has {', '.join(choices.__members__)}, not {entry!r}.")
    return fetch(Address(weights.url, digits_in(weights.url)))


def _locate_timm(name: str) -> tuple[Path, Overrides]:
    arch, _, tag = name.partition(".")
    listed = timm.is_model(arch) and (not tag or name in timm.list_pretrained(f"{arch}.*"))
    config: Any = timm.get_pretrained_cfg(name, allow_unregistered=False) if listed else None
    if config is None or not config.has_weights:
        raise UsageError(f"timm lists no weights {name!r} (timm:resnet50.a1_in1k).")
    if config.hf_hub_id:
        return _locate_hugging_face(config.hf_hub_id, config.hf_hub_filename), Overrides()
    path = fetch(Address(str(config.url), digits_in(config.url)))
    return path, Overrides(arch=arch, source=f"timm:{arch}{f'.{config.tag}' if config.tag else ''}")


def _locate_hugging_face(name: str, filename: str | None = None) -> Path:
    """The weights, config.json beside them, from Hugging Face's own cache or its server."""
    from huggingface_hub import errors, hf_hub_download

    repository, _, revision = name.partition("@")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise UsageError(f"hf:{name} names no repository; it must be hf:owner/name.")

    def download(file: str) -> Path:
        """From the cache without asking the server where it is there."""
        chosen: Any = {"repo_id": repository, "filename": file, "revision": revision or None}
        try:
            return Path(hf_hub_download(**chosen, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            return Path(hf_hub_download(**chosen))

    files = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    try:
        download("config.json")
        with suppress(errors.EntryNotFoundError):  # transformers keeps mean and std there
            download(PREPROCESSOR)
        for file in files:
            try:
                return download(file)
            except errors.EntryNotFoundError as error:
                if isinstance(error, errors.LocalEntryNotFoundError):
                    raise
    except (errors.HFValidationError, errors.HfHubHTTPError, OSError, ValueError) as error:
        raise UsageError(
            f"hf:{name} cannot be had: {first_line(error)} It must be a repository in timm's or "
            "transformers' layout, reachable or in the cache."
        ) from error
    raise UsageError(f"hf:{name} has none of {', '.join(files)}: it is not in timm's layout.")
