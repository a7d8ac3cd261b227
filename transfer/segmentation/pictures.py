"""Pictures of a segmentation run: image, truth, prediction, errors; the learning curve."""

from lightning_fabric import Fabric
from torch import nn

from pretrain.run import Run
from transfer.segmentation.config import SegmentationConfig
from transfer.segmentation.scores import SegmentationScores
from transfer.segmentation.setup import SegmentationSetup


def draw_all(
    model: nn.Module,
    setup: SegmentationSetup,
    config: SegmentationConfig,
    run: Run,
    fabric: Fabric,
    scores: SegmentationScores,
) -> None:
    """Every picture of a finished run."""
    raise NotImplementedError
