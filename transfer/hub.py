"""From what a user types after --backbone to a Backbone.

    runs/x, x.pth              a file, or the folder of a run or of timm's layout
    timm:resnet50.a1_in1k      timm's list
    torchvision:resnet50/IMAGENET1K_V2
    hf:owner/name[@revision]   a Hugging Face repository in timm's layout
    https://...[#sha256=...]   any file that `transfer.formats` reads
    cutmix-resnet101           our own list, transfer/released.yaml

What is in the cache needs no network.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from transfer import formats
from transfer.download import Address, cached_path, fetch
from transfer.formats.files import sha256
from transfer.formats.sources import Given

LIST = Path(__file__).resolve().parent / "released.yaml"
ITSELF = "itself"


@dataclass(frozen=True, kw_only=True)
class Released:
    """One entry of our list."""

    name: str
    arch: str
    source: str
    """Whose conventions its file follows; `itself` where it is a backbone file, which says so."""
    recipe: str
    row: str
    """What the paper or its repository states."""
    origin: str
    licence: str
    sha256: str | None
    size: int | None
    url: str | None = None
    page: str | None = None
    """A web page that serves it, where no program can."""


def released(path: Path | None = None) -> dict[str, Released]:
    """Our list, or another file of its format, by name."""
    content = yaml.safe_load((path or LIST).read_text(encoding="utf-8"))
    return {
        name: Released(name=name, **{**content["defaults"], **entry})
        for name, entry in content["backbones"].items()
    }


def resolve(name: str, given: Given = Given(), *, trust: bool = False) -> Backbone:  # noqa: B008
    """The backbone that a name, path or address stands for.

    Args:
        name: see the head of this module.
        given: what the file does not say of itself.
        trust: download files whose hash is not known.

    Raises:
        UsageError: nothing there, not verified, or not a backbone.
    """
    path, facts = locate(name, trust=trust)
    backbone = formats.read(path, facts if given == Given() else given)
    if name == str(path) or Path(name).exists():
        return backbone
    return replace(backbone, provenance=replace(backbone.provenance, source=name))


def locate(name: str, *, trust: bool = False) -> tuple[Path, Given]:
    """The local file or folder behind a name, downloaded if need be, and what the name tells."""
    if Path(name).exists():
        return Path(name), Given()
    if name in (entries := released()):
        return _released(entries[name], trust)
    kind, colon, rest = name.partition(":")
    match kind:
        case "timm" if colon:
            return _timm(rest)
        case "torchvision" if colon:
            return _torchvision(rest)
        case "hf" if colon:
            return _hugging_face(rest), Given()
        case "http" | "https" if colon:
            return fetch(_address(name), trust=trust), Given()
    raise UsageError(_nothing(name, entries))


def _nothing(name: str, entries: Mapping[str, Released]) -> str:
    import difflib

    near = difflib.get_close_matches(name, entries, n=2)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return (
        f"there is no file {name}, and our list (python tools/download.py --list) has no such name."
        f"{hint} Other names begin with timm:, torchvision:, hf: or https://."
    )


def _released(entry: Released, trust: bool) -> tuple[Path, Given]:
    if entry.url is None:
        raise UsageError(
            f"{entry.name} is served by a web page only: open {entry.page} in a browser, download "
            "the checkpoint there and give its path. It is read as it is."
        )
    path = fetch(Address(entry.url, entry.sha256, entry.size, entry.name), trust=trust)
    says_itself = entry.source == ITSELF
    return path, Given() if says_itself else Given(arch=entry.arch, source=entry.source)


def _address(url: str) -> Address:
    plain, _, fragment = url.partition("#")
    if not fragment:
        return Address(plain)
    found = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if found is None:
        raise UsageError(f"{url}: behind # there may stand sha256= and 64 hexadecimal digits.")
    return Address(plain, found.group(1).lower())


def _torchvision(name: str) -> tuple[Path, Given]:
    from torchvision.models import get_model_weights, list_models

    arch, _, entry = name.partition("/")
    if arch not in list_models():
        raise UsageError(
            f"torchvision lists no model {arch!r} (torchvision:resnet50/IMAGENET1K_V2)."
        )
    choices: Any = get_model_weights(arch)
    weights = choices.DEFAULT if not entry else choices.__members__.get(entry)
    if weights is None:
        raise UsageError(f"torchvision:{arch} has {', '.join(choices.__members__)}, not {entry!r}.")
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", weights.url)
    path = fetch(Address(weights.url, digits.group(1) if digits else None))
    return path, Given()


def _timm(name: str) -> tuple[Path, Given]:
    import timm

    config: Any = timm.get_pretrained_cfg(name, allow_unregistered=False) if _listed(name) else None
    if config is None or not config.has_weights:
        raise UsageError(f"timm lists no weights {name!r} (timm:resnet50.a1_in1k).")
    if config.hf_hub_id:
        filename = config.hf_hub_filename
        return _hugging_face(config.hf_hub_id, filename), Given()
    digits = re.search(r"-([0-9a-f]{8,64})\.\w+$", str(config.url))
    path = fetch(Address(str(config.url), digits.group(1) if digits else None))
    return path, Given(arch=name.partition(".")[0], source="timm")


def _listed(name: str) -> bool:
    import timm

    return timm.is_model(name.partition(".")[0]) and (
        "." not in name or name in timm.list_pretrained(f"{name.partition('.')[0]}.*")
    )


def _hugging_face(name: str, filename: str | None = None) -> Path:
    """The weights, config.json beside them, from Hugging Face's own cache or its server."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = name.partition("@")
    chosen = {"repo_id": repository, "revision": revision or None}
    files = [filename] if filename else ["model.safetensors", "pytorch_model.bin"]
    try:
        _hf_file(hf_hub_download, "config.json", chosen)
        for file in files:
            try:
                return Path(_hf_file(hf_hub_download, file, chosen))
            except LocalEntryNotFoundError:
                raise
            except EntryNotFoundError:
                continue
    except (HFValidationError, HfHubHTTPError, OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise UsageError(
            f"hf:{name} cannot be had: {first} It must be owner/name of a repository in timm's "
            "layout, reachable or in the cache."
        ) from error
    raise UsageError(f"hf:{name} has none of {', '.join(files)}: it is not in timm's layout.")


def _hf_file(download: Any, file: str, chosen: Mapping[str, Any]) -> str:
    """From the cache without asking the server where it lies there."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return download(filename=file, local_files_only=True, **chosen)
    except LocalEntryNotFoundError:
        return download(filename=file, **chosen)


__all__ = ["Released", "cached_path", "locate", "released", "resolve", "sha256"]
