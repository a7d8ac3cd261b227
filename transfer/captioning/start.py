"""The captioner that a run begins with: what is taken over from it, and what must agree with it."""

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pretrain.backbone import Backbone
from pretrain.errors import UsageError
from pretrain.run import Result
from transfer.captioning.captioner import Captioner
from transfer.captioning.config import CaptioningConfig
from transfer.feature_cache import with_image_size


def resolved(config: CaptioningConfig) -> CaptioningConfig:
    """The configuration as it is with its start, if it has one; see `take_over`."""
    return config if config.start_from is None else take_over(config, load(config.start_from))


def load(start: str) -> Captioner:
    """The captioner of a finished run, or of a file.

    Raises:
        UsageError: there is none.
    """
    if not Path(start).exists():
        raise UsageError(
            f"start_from is {start}, and there is no such run. Train it first, by a recipe of "
            "cross-entropy with that --out, or name another: --start_from RUN"
        )
    return Captioner.load(Path(start))


def file_of(start: str) -> Path:
    """Where its weights lie."""
    path = Path(start)
    return path / "captioner.pth" if path.is_dir() else path


def take_over(config: CaptioningConfig, captioner: Captioner) -> CaptioningConfig:
    """The configuration with the model, the image size and the tokenizer of the start.

    Raises:
        UsageError: an option is neither the start's nor at its default.
    """
    held = {f"model.{name}": value for name, value in asdict(captioner.model).items()}
    _, height, width = captioner.backbone.spec.input_size
    if height == width:  # another is the backbone's own, and cannot be asked for
        held["dataset.image_size"] = width
    held["dataset.tokenizer"] = captioner.vocabulary.tokenizer
    usual = CaptioningConfig()
    others = {
        name: (given, value)
        for name, value in held.items()
        if (given := _value(config, name)) not in (value, _value(usual, name))
    }
    if others:
        pairs = "; ".join(f"{name} {one!r}, there {two!r}" for name, (one, two) in others.items())
        words = " ".join(f"--{name} {two}" for name, (_, two) in others.items())
        raise UsageError(
            f"the start {config.start_from} is another captioner (here {pairs}). Leave these "
            f"options out, or give {words}"
        )
    dataset = {
        name.partition(".")[2]: value for name, value in held.items() if name.startswith("dataset.")
    }
    return replace(config, model=captioner.model, dataset=replace(config.dataset, **dataset))


def _value(config: CaptioningConfig, name: str) -> Any:
    section, _, field = name.partition(".")
    return getattr(getattr(config, section), field)


def check_backbone(start: str, captioner: Captioner, backbone: Backbone) -> None:
    """Raise UsageError where a start was not trained from this backbone.

    Its own is that one, or what became of it in training: then its run's result knows which it was.

    Args:
        start: the name of the run or file.
        captioner: what it holds.
        backbone: as it was given.
    """
    height, width = captioner.backbone.spec.input_size[1:]
    resized = with_image_size(backbone, width if height == width else None)
    if resized.fingerprint() == captioner.backbone.fingerprint():
        return
    name, number = captioner.backbone.name, captioner.backbone.fingerprint()
    result = file_of(start).with_name("result.json")
    if os.path.lexists(result):
        facts = Result.read(result).backbone
        name, number = facts["name"], facts["fingerprint"]
        if number == backbone.fingerprint():
            return
    raise UsageError(
        f"--backbone is {backbone.name} ({backbone.fingerprint()}), but the captioner of {start} "
        f"was trained from {name} ({number}). Give that one."
    )
