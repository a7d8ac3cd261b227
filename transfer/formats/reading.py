"""The one function that reads a checkpoint of any kind."""

from pathlib import Path

from pretrain.backbone import FORMAT, Backbone, BackboneSpec, Provenance
from pretrain.errors import UsageError
from pretrain.models import register
from transfer.formats import distributed, sidecar
from transfer.formats.files import CheckpointFile, describe_program, open_file
from transfer.formats.layouts import find_weights
from transfer.formats.parsing import fit, parse, rename, to_backbone
from transfer.formats.sources import Overrides

_IN_A_FOLDER = (
    *("backbone.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth"),
    *("model.safetensors.index.json", "pytorch_model.bin.index.json"),
)
# what our own files are, by the beginning of their `format`
_OURS = (FORMAT.partition("/")[0], "checkpoint", "detector", "captioner")


def read(path: str | Path, overrides: Overrides = Overrides()) -> Backbone:  # noqa: B008  (frozen)
    """Read a checkpoint file, or a folder that timm or a pretraining run of ours has written.

    Args:
        path: the file or folder.
        overrides: what the file does not say of itself.

    Raises:
        UsageError: not understood, incomplete, or not saying how its network is fed.
    """
    register()
    file = open_checkpoint(Path(path))
    facts = None if is_ours(file) else sidecar.find(file)
    if is_ours(file) or facts:
        if overrides != Overrides():
            raise UsageError(
                f"{file.path} says itself what it is: leave --arch, --source, --mean, --std, "
                "--channels and what else is given of it away."
            )
        return _restore(file, *facts) if facts else Backbone.of_content(file.content, file.path)
    return to_backbone(parse(file, overrides), file)


def open_checkpoint(path: Path) -> CheckpointFile:
    """The content of a file, or of what a folder holds."""
    located = locate(path)
    return distributed.open_folder(located) if located.is_dir() else open_file(located)


def locate(path: Path) -> Path:
    """The file that is meant by a file or a folder; a distributed checkpoint is a folder."""
    if path.is_file() and (path.name == distributed.METADATA or path.suffix == ".distcp"):
        path = path.parent
    if not path.is_dir() or (path / distributed.METADATA).is_file():
        return path
    for name in _IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
    if program := describe_program(sorted(entry.name for entry in path.iterdir()), path):
        raise UsageError(program)
    raise UsageError(
        f"the folder {path} has none of {', '.join(_IN_A_FOLDER)}: it is neither a finished "
        "pretraining run, nor written by timm, transformers or torch. Give a checkpoint file."
    )


def is_ours(file: CheckpointFile) -> bool:
    """True for a file of this project (a backbone, or something else)."""
    kind = file.content.get("format") if isinstance(file.content, dict) else None
    return isinstance(kind, str) and kind.partition("/")[0] in _OURS


def _restore(file: CheckpointFile, spec: BackboneSpec, provenance: Provenance) -> Backbone:
    """The weights of an export under our names again, bit for bit."""
    weights = find_weights(file.content, file.path).weights
    rest = file.content.get("rest") if isinstance(file.content, dict) else None
    rest = find_weights(rest, file.path).weights if rest else {}
    refusal = ""
    for _, renamed in rename(weights):
        try:
            fitted, _ = fit(renamed | rest, spec.arch, spec.model_args, spec.num_classes)
            return Backbone(spec=spec, provenance=provenance, weights=fitted)
        except UsageError as error:
            refusal = refusal or str(error)
    raise UsageError(
        f"{file.path} is damaged: its weights are not what its metadata says. {refusal}"
    )
