"""The metadata sidecar that travels with exported weights: spec, provenance and parity, as JSON.

It is in the header of a safetensors file, beside the model in a detectron2 pickle, in timm's
config.json, and in FILE.json next to a bare state dict, there tied to it by its SHA-256.
"""

from pathlib import Path
from typing import Any

from pretrain.backbone import Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.reading import read_json
from pretrain.run import plain
from transfer.formats.files import CheckpointFile
from transfer.formats.sources import MAX_JSON, load_json
from transfer.parity import ParityReport

FORMAT = "passport/1"
KEY = "cutmix_transfer"


def describe(
    backbone: Backbone, parity: list[ParityReport] | str | None, **more: str
) -> dict[str, Any]:
    """The sidecar of an export as plain values.

    Args:
        backbone: what is exported.
        parity: the comparisons, or a text instead; None where there is none yet.
        more: further entries.
    """
    return {
        "format": FORMAT,
        "fingerprint": backbone.fingerprint(),
        "spec": plain(backbone.spec),
        "provenance": plain(backbone.provenance),
        "proof": [report.to_dict() for report in parity] if isinstance(parity, list) else parity,
        **more,
    }


def find(file: CheckpointFile) -> tuple[BackboneSpec, Provenance] | None:
    """What the sidecar in or beside a file says; None where it has none.

    Raises:
        UsageError: it has one that is damaged.
    """
    held = file.content if isinstance(file.content, dict) else {}
    content: Any = file.metadata.get(KEY, held.get(KEY))
    for path in (file.path.with_suffix(".json"), file.path.parent / "config.json"):
        content = content if content is not None else _read_beside(path, file.sha256)
    if content is None:
        return None
    if isinstance(content, str):
        content = load_json(content, file.path)
    try:
        if content["format"] != FORMAT:
            raise UsageError(f"format {content['format']!r}, expected {FORMAT!r}")
        return BackboneSpec(**content["spec"]), Provenance.of(content["provenance"])
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{file.path}: its metadata sidecar is damaged ({error}).") from error


def _read_beside(path: Path, sha256: str) -> dict[str, Any] | None:
    """The sidecar in a JSON file beside the weights, where it is theirs; others are ignored."""
    if not path.is_file():
        return None
    try:
        content = read_json(path, largest=MAX_JSON)
    except UsageError as error:
        log(f"left out: {error}")
        return None
    found = content.get(KEY, content) if isinstance(content, dict) else None
    is_its = isinstance(found, dict) and (found.get("format"), found.get("sha256")) == (
        FORMAT,
        sha256,
    )
    return found if is_its else None
