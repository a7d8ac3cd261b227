"""The options of the suites: --SUITE.FIELD on the command line of tools/evaluate.py."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RobustnessConfig:
    """Attacks, occlusion, samples in between, corruptions."""

    parts: list[str] = field(
        default_factory=lambda: ["attacks", "occlusion", "between", "corruptions"]
    )
    """What is measured."""
    eps: float = 8 / 255
    """FGSM and PGD: the largest change of a value, of pixels in [0, 1] and of normalised ones."""


@dataclass(frozen=True)
class OodConfig:
    """Detection of images of no known class."""

    foreign: list[str] = field(default_factory=list)
    """Folders of foreign images, at any depth."""


@dataclass(frozen=True)
class LocalisationConfig:
    """Boxes from class activation maps."""

    threshold: float = 0.15
    """Of the map's maximum: what is above belongs to the object."""


@dataclass(frozen=True)
class VariantsConfig:
    """ImageNet's variants."""


@dataclass(frozen=True)
class CalibrationConfig:
    """Confidence against accuracy."""

    bins: int = 15
    """Of equal width."""


@dataclass(frozen=True)
class OmniConfig:
    """Linear probes over a list of folders."""

    seed: int = 0
    """Of what is drawn."""
