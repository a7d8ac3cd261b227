"""How well a score tells known images from foreign ones.

N known and M foreign images, each with a score that is larger for what looks more like the known
ones. An image counts as known where its score is at least a threshold, so equal scores fall on the
same side; thresholds are the scores that occur, and one above all. All figures follow from the
counts at these thresholds, exactly, and are percent.

    tnr                 foreign images below the largest threshold that at least 95 % of the known
                        ones reach; 100 - this is the FPR95 of ODIN (Liang et al. 2018) and Energy
    auroc               known above foreign, of all pairs; equal ones count half
    detection_accuracy  largest (TPR + TNR) / 2 of all thresholds: both kinds weigh the same
    aupr_in, aupr_out   area under precision over recall, by trapezoids from (recall 0, precision
                        1); known or foreign images are what is to be found
    fpr95_foreign       known images among those called foreign where at least 95 % of the foreign
                        ones are: the FPR95 of OpenOOD 1.5 and pytorch-ood

ODIN's code takes 100,000 thresholds from 1 / K to 1 and averages what lies between 94.95 and
95.05 % (nothing, of few images); that of Lee et al. (2018) takes the threshold nearest to 95 %, on
either side of it, and puts equal scores in an order. On many images without equal scores the three
differ by what a few images make.

Written here: scikit-learn has the curves, but is no dependency, and of five lines each.
"""

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Counts = NDArray[np.int64]
METRICS = ("tnr", "auroc", "detection_accuracy", "aupr_in", "aupr_out", "fpr95_foreign")


def detection_metrics(known: Scores, foreign: Scores) -> dict[str, float]:
    """See the module: every one of METRICS, in percent.

    Args:
        known: (N,) without nan, N >= 1.
        foreign: (M,) without nan, M >= 1.
    """
    n, m = len(known), len(foreign)
    tp, fp = counts(known, foreign)
    tn, fn = m - fp, n - tp
    values = {
        "tnr": tn[np.argmax(tp / n >= 0.95)] / m,
        "auroc": np.trapezoid(tp, fp) / (n * m),
        "detection_accuracy": (tp / n + tn / m).max() / 2,
        "aupr_in": _aupr(tp, fp),
        "aupr_out": _aupr(tn[::-1], fn[::-1]),
        "fpr95_foreign": fn[::-1][np.argmax(tn[::-1] / m >= 0.95)] / n,
    }
    return {name: 100 * float(value) for name, value in values.items()}


def counts(known: Scores, foreign: Scores) -> tuple[Counts, Counts]:
    """Known and foreign images at or above each threshold, which falls: from (0, 0) to (N, M)."""
    thresholds = np.unique(np.concatenate([known, foreign]))[::-1]
    above, also = (
        np.append(0, len(scores) - np.searchsorted(np.sort(scores), thresholds))
        for scores in (known, foreign)
    )
    return above, also


def _aupr(found: Counts, wrong: Counts) -> float:
    """Area under precision over recall, from counts that begin with nothing."""
    precision = np.append(1, found[1:] / (found[1:] + wrong[1:]))
    return float(np.trapezoid(precision, found / found[-1]))
