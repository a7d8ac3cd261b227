"""Boundary F of label maps (Csurka et al., BMVC 2013, section 3)."""

import numpy as np


class BoundaryF:
    """Collects the F of each class in each image; `mean` is over images, then over classes."""

    def __init__(self, num_classes: int, tolerance: float = 0.0075) -> None:
        """`tolerance`: share of the image's diagonal within which a boundary counts as found."""
        self.num_classes, self.tolerance = num_classes, tolerance

    def see(self, predicted: np.ndarray, truth: np.ndarray) -> None:
        """Add an image: label maps (H, W) uint8."""
        raise NotImplementedError

    def share(self) -> None:
        """Add what other processes have seen."""
        raise NotImplementedError

    @property
    def mean(self) -> float | None:
        """Percent; None where no class has a boundary."""
        raise NotImplementedError
