"""What is segmented: an image, or a slice of a volume, and its mask; read when it is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor


class Record(Protocol):
    """One sample of a data set."""

    @property
    def image_id(self) -> str:
        """Unique in its split: a path in the tree without its ending, or volume and slice."""

    @property
    def case(self) -> str:
        """The volume of a slice; of an image "", as the whole split is scored together."""

    @property
    def spacing(self) -> tuple[float, float] | None:
        """Millimetres of a pixel down and across; None of what has none."""

    def read_image(self) -> Tensor:
        """uint8 RGB (3, H, W); or float32 (1, H, W), standardised, in place of three equal ones.

        Raises:
            UsageError: missing, broken, no image.
        """

    def read_mask(self) -> Tensor:
        """uint8 (H, W) of the size of the image: classes from 0, and VOID.

        Raises:
            UsageError: missing, broken, of another size, or with a value that no class has.
        """


@dataclass(frozen=True)
class SegmentationData:
    """Training and validation samples of one tree."""

    name: str
    classes: tuple[str, ...]
    train: Sequence[Record]
    val: Sequence[Record]
    """What is scored; of volumes with their masks, whatever is trained on."""
    splits: tuple[str, str]
    """What is trained on and what is scored, as the tree names them."""
    volumes: bool
    """Records are slices: scores are of their volumes."""
    paths: tuple[Path, ...]
    """Every image: changed ones are told by samples of their bytes."""
    annotations: tuple[Path, ...]
    """Masks, lists and whatever else was read: compared whole."""
    notes: tuple[str, ...]
    """For the log: classes, what was left out, what is both trained on and scored."""
