"""What travels with exported weights: spec, provenance and proof, as JSON.

It stands in the header of a safetensors file, beside the weights in a detectron2 pickle, in timm's
config.json, and in FILE.json next to a bare state dict, there tied to it by its SHA-256.
"""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import timm
import torch

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.spec import create_model, is_plain
from transfer.formats.files import Opened
from transfer.formats.reading import Beside
from transfer.formats.sources import of_timm

FORMAT = "passport/1"
KEY = "cutmix_transfer"
_MAX_JSON = 2**24  # bytes


@dataclass(frozen=True)
class Passport:
    """Spec and provenance from an exported file."""

    spec: BackboneSpec
    provenance: Provenance


def issue(backbone: Backbone, proof: Any, **more: str) -> dict[str, Any]:
    """The passport of an export as plain values."""
    return {
        "format": FORMAT,
        "fingerprint": backbone.fingerprint(),
        "spec": json.loads(json.dumps(asdict(backbone.spec))),
        "provenance": json.loads(json.dumps(asdict(backbone.provenance))),
        "proof": proof,
        **more,
    }


def find(opened: Opened) -> Passport | None:
    """The passport in or beside a file; None where it has none.

    Raises:
        UsageError: it has one that is damaged.
    """
    content: Any = None
    if KEY in opened.metadata:
        content = _json(opened.metadata[KEY], opened.path)
    elif isinstance(opened.content, dict) and KEY in opened.content:
        content = opened.content[KEY]
        content = _json(content, opened.path) if isinstance(content, str) else content
    else:
        config = opened.path.parent / "config.json"
        found = [_beside(path) for path in (opened.path.with_suffix(".json"), config)]
        content = next((held for held in found if held and held["sha256"] == opened.sha256), None)
    if content is None:
        return None
    try:
        if content["format"] != FORMAT:
            raise UsageError(f"format {content['format']!r}, expected {FORMAT!r}")
        spec = BackboneSpec(**content["spec"])
        known = {entry.name for entry in fields(Provenance)}
        said = {key: value for key, value in content["provenance"].items() if key in known}
        return Passport(spec, Provenance(**said))
    except (UsageError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{opened.path}: its passport is damaged ({error}).") from error


def _beside(path: Path) -> dict[str, Any] | None:
    """The passport in a JSON file of ours; other programs' files are none of our business."""
    if not path.is_file() or path.stat().st_size > _MAX_JSON:
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        return None
    held = content.get(KEY, content) if isinstance(content, dict) else None
    is_ours = isinstance(held, dict) and held.get("format") == FORMAT and "sha256" in held
    return held if is_ours else None


def timm_config(path: Path) -> Beside | None:
    """What timm's config.json says; None where there is none or it is another program's.

    Raises:
        UsageError: timm wrote it, but for no architecture of this timm.
    """
    if not path.is_file() or path.stat().st_size > _MAX_JSON:
        return None
    content = _json(path.read_text(encoding="utf-8", errors="replace"), path)
    if not isinstance(content, dict) or not isinstance(content.get("architecture"), str):
        return None
    arch: str = content["architecture"]
    own: Any = content.get("pretrained_cfg") or content
    if not timm.is_model(arch):
        raise UsageError(f"{path} names {arch!r}, which this timm ({timm.__version__}) lacks.")
    arguments = content.get("model_args") or {}
    if not isinstance(arguments, dict) or not is_plain(arguments):
        raise UsageError(f"{path}: model_args are {arguments!r}; plain values are needed.")
    try:
        convention = of_timm(arch, own, f"timm's config.json in {path.parent}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UsageError(f"{path} is no configuration of timm ({error}).") from error
    labels = content.get("label_names") or own.get("label_names")
    good = isinstance(labels, list) and all(isinstance(label, str) for label in labels)
    return Beside(arch, _beyond_defaults(arch, arguments), convention, labels if good else None)


def _beyond_defaults(arch: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Without what timm writes down of any network: classes, channels, and its usual pooling."""
    with torch.device("meta"):
        pool: Any = getattr(create_model(arch), "global_pool", None)
    usual = {"in_chans": 3, "global_pool": getattr(pool, "pool_type", pool)}
    return {
        key: value
        for key, value in arguments.items()
        if key != "num_classes" and not (key in usual and usual[key] == value)
    }


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: the JSON in it is damaged ({error}).") from error


def text(passport: dict[str, Any]) -> str:
    """A passport as a file of its own."""
    return json.dumps(passport, indent=2) + "\n"
