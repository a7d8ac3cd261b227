"""What the options of suites refuse, before data are opened."""

import pytest

from pretrain.errors import UsageError
from transfer.evaluation.config import (
    CalibrationConfig,
    LocalisationConfig,
    OmniConfig,
    OodConfig,
    RobustnessConfig,
)

INFINITE, NAN = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (RobustnessConfig, {"eps": 0.0}, "--robustness.eps is 0.0"),
        (RobustnessConfig, {"eps": 8.0}, r"must lie in \(0, 1\]"),
        (RobustnessConfig, {"pgd_steps": 0}, "--robustness.pgd_steps is 0"),
        (RobustnessConfig, {"pgd_step_size": NAN}, "--robustness.pgd_step_size is nan"),
        (RobustnessConfig, {"sizes": 0}, "--robustness.sizes is 0"),
        (RobustnessConfig, {"seed": -1}, "--robustness.seed is -1"),
        (RobustnessConfig, {"parts": []}, "--robustness.parts is empty"),
        (OodConfig, {"noise": -1}, "--ood.noise is -1"),
        (OodConfig, {"seed": -1}, "--ood.seed is -1"),
        (LocalisationConfig, {"threshold": 0.0}, "--localisation.threshold is 0.0"),
        (LocalisationConfig, {"size": 7}, "--localisation.size is 7"),
        (LocalisationConfig, {"methods": []}, "--localisation.methods is empty"),
        (CalibrationConfig, {"bins": 0}, "--calibration.bins is 0"),
        (CalibrationConfig, {"held_out": 1}, "--calibration.held_out is 1"),
        (OmniConfig, {"image_size": 4}, "--omnibenchmark.image_size is 4"),
        (OmniConfig, {"penalties": ()}, "all above 0"),
        (OmniConfig, {"penalties": (0.1, 0.0)}, r"penalties is \[0.1, 0.0\]"),
        (OmniConfig, {"penalties": (0.1, INFINITE)}, "all above 0"),
        (OmniConfig, {"penalties": (0.1, NAN)}, "all above 0"),
        (OmniConfig, {"penalties": (0.1, 5e-324)}, "all above 0"),  # a tenth of it is 0
    ],
)
def test_mistakes(kind, options, message):
    with pytest.raises(UsageError, match=message):
        kind(**options)
