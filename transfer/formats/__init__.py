"""Checkpoints of the field in and out: the one door is `read`, the one way out `write`.

files          what kind of file, read without code and within its own size
wrappings      where the weights lie in it, and what it says of itself
names          the field's names for the tensors of a ResNet, as tables
architectures  which network names and shapes belong to
sources        how a network is fed, where the file does not say so
reading        all of that, proved by strict loading
passports      what travels with an export
writing        the others' formats, each proved at the border before it gets its name
"""

from pathlib import Path

import timm
import torch

from pretrain.backbone import FORMAT, Backbone
from pretrain.errors import UsageError
from pretrain.models import register
from transfer.formats import passports
from transfer.formats.archives import read_npz
from transfer.formats.files import Opened, open_file
from transfer.formats.names import TABLES
from transfer.formats.reading import finish, fit, understand
from transfer.formats.sources import Given
from transfer.formats.wrappings import unwrap
from transfer.formats.writing import write

_IN_A_FOLDER = ("backbone.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth")


def read(path: str | Path, given: Given = Given()) -> Backbone:  # noqa: B008  (frozen)
    """Read a checkpoint file, or a folder that timm or a pretraining run of ours has written.

    Args:
        path: the file or folder.
        given: what the file does not say of itself.

    Raises:
        UsageError: not understood, not complete, or not saying how its network is fed.
    """
    file = locate(Path(path))
    opened = open_file(file)
    if is_ours(opened):
        _refuse_given(given, opened)
        return Backbone.of_content(opened.content, file)
    if (passport := passports.find(opened)) is not None:
        _refuse_given(given, opened)
        return _with_passport(opened, passport)
    return finish_foreign(opened, given)


def finish_foreign(opened: Opened, given: Given) -> Backbone:
    """A file without a passport."""
    register()
    beside = passports.timm_config(opened.path.parent / "config.json")
    if opened.container == "npz":
        return read_npz(opened, given)
    return finish(understand(opened, given, beside), opened)


def locate(path: Path) -> Path:
    """The file that is meant by a file or a folder."""
    if not path.is_dir():
        return path
    for name in _IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
    raise UsageError(
        f"the folder {path} has no backbone.pth, so it is no finished pretraining run, and no "
        "model.safetensors, so timm has not written it. Give a backbone file."
    )


def is_ours(opened: Opened) -> bool:
    """True for a file that says in our own words what it is (a backbone, or something else)."""
    found = opened.content.get("format") if isinstance(opened.content, dict) else None
    return isinstance(found, str) and found.partition("/")[0] in (
        FORMAT.partition("/")[0],
        "checkpoint",
        "detector",
        "captioner",
    )


def _refuse_given(given: Given, opened: Opened) -> None:
    if given != Given():
        raise UsageError(
            f"{opened.path} says itself what it is: leave --arch, --source, --mean, --std, "
            "--channels and --prefix away."
        )


def _with_passport(opened: Opened, passport: passports.Passport) -> Backbone:
    """Weights of an export, back under our names, bit for bit."""
    register()
    spec = passport.spec
    content = opened.content
    rest = content.get("rest", {}) if isinstance(content, dict) else {}
    weights = unwrap(content, opened.path).weights
    beside = unwrap(rest, opened.path).weights if rest else {}
    refusal = ""
    for table in TABLES.values():
        renamed = table.read(weights)
        if renamed is None:
            continue
        try:
            fitted, _ = fit(renamed | beside, spec.arch, spec.model_args)
        except UsageError as error:
            refusal = refusal or str(error)
            continue
        backbone = Backbone(spec=spec, provenance=passport.provenance, weights=fitted)
        head = timm.get_pretrained_cfg_value(spec.arch, "classifier")
        found = fitted.get(f"{head}.weight", torch.empty(0)).shape[0]
        if found != spec.num_classes:
            raise UsageError(
                f"{opened.path}: its passport names {spec.num_classes} classes, the file has "
                f"{found}."
            )
        return backbone
    raise UsageError(
        f"{opened.path} is damaged: its weights are not what its passport says. {refusal}"
    )


__all__ = ["Given", "is_ours", "locate", "read", "write"]
