"""Exports: written into a draft folder, compared in the other library, and only then named."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pretrain.backbone import Backbone
from pretrain.cache import file_sha256
from pretrain.errors import UsageError
from pretrain.files import draft_folder, publish, remove
from pretrain.models import register
from transfer.detectron2_resnet import Head
from transfer.formats import sidecar, to_detectron2, to_onnx, to_timm
from transfer.parity import ParityError, ParityReport

Format = Literal["detectron2", "torchvision", "timm", "safetensors", "onnx", "backbone"]
FORMATS: tuple[Format, ...] = get_args(Format)
SUFFIX: dict[Format, str] = {
    "detectron2": ".pkl",
    "torchvision": ".pth",
    "timm": "",
    "safetensors": ".safetensors",
    "onnx": ".onnx",
    "backbone": ".pth",
}


@dataclass(frozen=True)
class Export:
    """What an export left."""

    files: tuple[Path, ...]
    reports: tuple[ParityReport, ...]
    notes: tuple[str, ...]


def write(
    backbone: Backbone,
    to: Format,
    path: str | Path,
    *,
    heads: Sequence[Head] | None = None,
    python: str | None = None,
    unverified: bool = False,
) -> Export:
    """Write a backbone in another library's format and compare it there, or write nothing.

    Args:
        backbone: the network.
        to: the format.
        path: the file (for timm: the folder). It must not exist.
        heads: for detectron2: a YAML for each; None writes all that are possible.
        python: for detectron2: the interpreter of the environment where it is installed.
        unverified: write without comparing where the other library is missing and no test of ours
            has verified the mapping of this architecture.

    Raises:
        UsageError: the format cannot hold this network.
        ParityError: the other library computes another function.
    """
    path = Path(path)
    check(backbone, to, path, heads)
    reports: list[ParityReport] = []
    note = ""
    with draft_folder(path) as folder:
        draft = folder / path.name
        match to:
            case "detectron2":
                reports, note = to_detectron2.export(
                    backbone, draft, path, heads, python, unverified
                )
            case "timm":
                to_timm.write_timm(backbone, draft)
                reports = [to_timm.verify_timm(backbone, draft)]
                to_timm.add_sidecar(backbone, draft, reports)
            case "torchvision":
                to_timm.write_torchvision(backbone, draft)
                reports = [to_timm.verify_torchvision(backbone, draft)]
                content = sidecar.describe(backbone, reports, sha256=file_sha256(draft))
                draft.with_suffix(".json").write_text(json.dumps(content, indent=2) + "\n")
            case "safetensors":
                to_timm.write_safetensors(backbone, draft, sidecar.describe(backbone, None))
                reports = [to_timm.verify_safetensors(backbone, draft)]
                to_timm.write_safetensors(backbone, draft, sidecar.describe(backbone, reports))
            case "onnx":
                to_onnx.write_onnx(backbone, draft)
                reports = to_onnx.verify_onnx(backbone, draft)
                if not reports and not unverified:
                    raise UsageError(
                        "onnxruntime is missing, so the graph cannot be compared: pip install "
                        "onnxruntime, or give --unverified."
                    )
                note = "" if reports else "UNVERIFIED: onnxruntime is missing"
            case "backbone":
                backbone.save(draft)
                again = Backbone.load(draft).fingerprint()
                if again != backbone.fingerprint():
                    raise UsageError(f"{path} would read back as {again}; nothing was written.")
                note = "read back: the same fingerprint"
        if not all(report.passed for report in reports):
            raise ParityError(reports)
        files = _targets(backbone, to, path, heads)
        try:
            for file in reversed(files):  # the weights last: they do not stand without the others
                publish(folder / file.name, file)
        except OSError:
            for file in files:
                remove(file)
            raise
    return Export(tuple(files), tuple(reports), (note,) if note else ())


def check(backbone: Backbone, to: Format, path: Path, heads: Sequence[Head] | None = None) -> None:
    """Refuse what cannot be written, before anything is."""
    register()
    if to not in FORMATS:
        raise UsageError(f"--to has {to!r}; it must be of {', '.join(FORMATS)}.")
    for file in _targets(backbone, to, path, heads):
        if file.exists():
            raise UsageError(f"{file} exists. Give another --out, or remove it.")
    if SUFFIX[to] and path.suffix != SUFFIX[to]:
        raise UsageError(f"--out is {path}; a file for {to} ends in {SUFFIX[to]}.")
    if to == "timm":
        if path.suffix and path.suffix in SUFFIX.values():
            raise UsageError(
                f"--out is {path}; timm's layout is a folder: give a name without ending."
            )
        to_timm.refuse_ours(backbone)
    if to == "torchvision":
        to_timm.torchvision_network(backbone)


def _targets(
    backbone: Backbone, to: Format, path: Path, heads: Sequence[Head] | None
) -> list[Path]:
    """The files of an export, the weights first."""
    if to == "detectron2":
        return [path, *to_detectron2.config_paths(backbone, path, heads).values()]
    return [path, path.with_suffix(".json")] if to == "torchvision" else [path]
