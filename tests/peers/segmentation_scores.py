"""The scores of small label maps by torchmetrics and scikit-learn: tests/fixtures.

    python tests/peers/segmentation_scores.py [--environment DIR]

The packages are installed from PyPI into an environment (in a temporary folder, or kept in DIR);
torch is borrowed from the one that runs this. Writes tests/fixtures/segmentation_scores.json: label
maps as rows of digits, "." for void, and each package's figures, null where it has none (NaN).
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "segmentation_scores.json"
REQUIREMENTS = ("torchmetrics==1.9.0", "scikit-learn==1.9.1")
VOID = 255


def make_cases() -> dict:
    """Name -> (number of classes, predictions (C, H, W), truths (C, H, W)) of C volumes."""
    import numpy as np

    rng = np.random.default_rng(0)

    def draw(*shape: int, of: int | list[int]):
        return rng.choice(of, shape)

    truth = draw(1, 8, 13, of=5)
    noisy = np.where(rng.random(truth.shape) < 0.7, truth, draw(1, 8, 13, of=5))
    with_void = np.where(rng.random(truth.shape) < 0.3, VOID, truth)
    void = np.full((1, 3, 4), VOID)
    volumes = np.stack([draw(6, 7, of=of) for of in ([0, 1, 2, 3], [0, 1], [0, 2, 3])])
    found = np.stack([draw(6, 7, of=of) for of in ([0, 1, 2, 3], [0, 1, 2], [0, 2])])
    hidden = np.stack([volumes[0], np.full((6, 7), VOID), truth[0, :6, :7] % 4])
    return {
        "random": (5, noisy, truth),
        "random, with void": (5, noisy, with_void),
        "perfect": (5, truth, truth),
        "a class in neither": (6, noisy, with_void),
        "a class that is never predicted": (5, np.where(noisy == 3, 0, noisy), with_void),
        "a class that is only predicted": (5, noisy, np.where(truth == 3, VOID, truth)),
        "a class that is predicted in void alone": (4, draw(1, 3, 4, of=[3]), void),
        "nothing but void": (3, draw(1, 3, 4, of=3), void),
        "one pixel, found": (3, np.full((1, 1, 1), 2), np.full((1, 1, 1), 2)),
        "one pixel, missed": (3, np.full((1, 1, 1), 1), np.full((1, 1, 1), 2)),
        "one class": (1, np.zeros((1, 2, 3), int), np.array([[[0, 0, VOID], [0, 0, 0]]])),
        "volumes": (4, found, volumes),
        "volumes, one all void": (4, found, hidden),
    }  # fmt: skip


def measure(num_classes: int, predicted, truth) -> dict:
    """Every figure of one case."""
    import numpy as np
    import torch
    from sklearn.metrics import confusion_matrix, f1_score, jaccard_score
    from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex
    from torchmetrics.segmentation import DiceScore, MeanIoU

    torch.Tensor.float = torch.Tensor.double  # torchmetrics divides in single precision
    labels, known = list(range(num_classes)), truth != VOID
    by_sklearn = {"labels": labels, "average": None, "zero_division": np.nan}
    flat = truth[known], predicted[known]
    volumes = [(t[k], p[k]) for t, p, k in zip(truth, predicted, known, strict=True) if k.any()]
    ours, theirs = torch.tensor(predicted), torch.tensor(truth)
    figures = {}
    if volumes:  # scikit-learn refuses to score nothing
        figures |= {
            "sklearn confusion": confusion_matrix(*flat, labels=labels),
            "sklearn iou": jaccard_score(*flat, **by_sklearn | {"zero_division": 0}),  # no NaN
            "sklearn f1": f1_score(*flat, **by_sklearn),
            "sklearn f1 of volumes": [f1_score(*volume, **by_sklearn) for volume in volumes],
        }
    if num_classes > 1:  # torchmetrics refuses one
        options = {"num_classes": num_classes, "ignore_index": VOID}
        figures |= {
            "torchmetrics confusion": MulticlassConfusionMatrix(**options)(ours, theirs),
            "torchmetrics iou": MulticlassJaccardIndex(**options, average=None)(ours, theirs),
            "torchmetrics mean iou": MulticlassJaccardIndex(**options)(ours, theirs),
        }
    if known.all():  # these know no void
        options = {"num_classes": num_classes, "input_format": "index"}
        whole = {**options, "average": None, "aggregation_level": "global"}
        figures |= {
            "torchmetrics dice": DiceScore(**whole)(ours, theirs),
            "torchmetrics dice of volumes": DiceScore(**options, average=None)(ours, theirs),
        }
        if len(truth) == 1:
            metric = MeanIoU(**options).set_dtype(torch.float64)
            figures["torchmetrics MeanIoU"] = metric(ours, theirs)
    return {name: plain(value) for name, value in figures.items()}


def plain(value):
    """As JSON has it."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if value != value else value


def digits(labels) -> list[list[str]]:
    """Label maps (C, H, W) as rows of text."""
    return [["".join("." if v == VOID else str(v) for v in row) for row in one] for one in labels]


def write() -> None:
    """The fixture."""
    import warnings

    warnings.simplefilter("ignore")
    cases = [
        {
            "name": name,
            "classes": count,
            "predicted": digits(predicted),
            "truth": digits(truth),
            **measure(count, predicted, truth),
        }
        for name, (count, predicted, truth) in make_cases().items()
    ]
    lines = ",\n".join(json.dumps(case) for case in cases)
    versions = json.dumps(REQUIREMENTS)
    FIXTURE.write_text(f'{{"versions": {versions},\n"cases": [\n{lines}\n]}}\n', encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep it here")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        write()
        return
    from environments import make_environment

    with tempfile.TemporaryDirectory() as work:
        folder = options.environment or Path(work) / "environment"
        python = make_environment(folder, REQUIREMENTS, borrow=True)
        subprocess.run([python, __file__, "--inside"], check=True)


if __name__ == "__main__":
    main()
