"""From a folder to what is trained on and what is scored, whatever its layout."""

from pathlib import Path

from transfer.segmentation.config import DatasetConfig
from transfer.segmentation.records import SegmentationData


def open_data(root: Path, config: DatasetConfig) -> SegmentationData:
    """Read the splits that the configuration names, or those that are usual.

    Raises:
        UsageError: no such tree or split, or what the rules refuse.
    """
    raise NotImplementedError
