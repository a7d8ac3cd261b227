"""The same scores and logits through packages that measure OOD detection and calibration.

    python tests/peers/ood_and_calibration.py [--environment DIR] [--write FIXTURE]

The packages are installed from PyPI into an environment (in a temporary folder, or kept in DIR);
torch is borrowed from the one that runs this. Prints two Markdown tables: how far each is from ours
and why. --write puts their figures of small cases into tests/fixtures/evaluation. A minute.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from environments import make_environment  # noqa: E402

REQUIREMENTS = ("scikit-learn==1.9.1", "torchmetrics==1.9.0")
ALONE = ("pytorch-ood==0.4.0", "netcal==1.4.0", "pyro-ppl==1.9.2", "pyro-api==0.1.2",
         "opt-einsum==3.4.0", "gpytorch==1.15.2", "linear-operator==0.6.1", "jaxtyping==0.3.11",
         "wadler-lindig==0.1.8")  # fmt: skip
WHY = {
    "roc_curve, average_precision": "steps in place of trapezoids",
    "ODIN's way": "mean FPR of the thresholds of a grid with TPR 94.95 to 95.05 %; DTACC on it",
    "Lee et al.'s way": "threshold nearest to 95 %; equal scores in an order, known ones first",
    "torchmetrics": "bins closed below, and one more for confidences of 1",
    "torchmetrics, bfloat16 logits": "softmax in bfloat16: steps of 0.004 near 1",
    "scikit-learn": "log_loss clips at 2.2e-16",
    "temperature: netcal, float64": "clips at 2.2e-16; differences in place of derivatives",
    "temperature: netcal, float32": "its differences vanish in float32; it stays where it begins",
}


# ---- cases


def detection_cases():
    """name -> (known, foreign)."""
    draw = np.random.default_rng(0)
    known, foreign = draw.normal(1.5, 1, 2000), draw.normal(0, 1, 1500)
    # a softmax in float32 of an overconfident network: a third of the known ones are exactly 1
    sharp = [np.float32(1 / (1 + np.exp(-8 * scores))).astype(float) for scores in (known, foreign)]
    return {
        "no equal scores": (known, foreign),
        "rounded to 0.1": (known.round(1), foreign.round(1)),
        "float32 softmax": tuple(sharp),
    }


def calibration_cases():
    """name -> (logits float64, labels): labels are drawn from a softmax that is less sharp."""
    draw = torch.Generator().manual_seed(0)
    cases = {}
    for name, classes, factor in (("sharp", 10, 2.0), ("blunt", 10, 0.5), ("sharpest", 10, 12.0)):
        logits = 2 * torch.randn(2000, classes, generator=draw, dtype=torch.float64)
        labels = torch.multinomial(logits.softmax(1), 1, generator=draw)[:, 0]
        cases[name] = (logits * factor).float().double(), labels
    return cases


# ---- what runs in the environment


def detection_peers(known, foreign):
    """package -> {metric: percent}."""
    from pytorch_ood.metrics import OODMetrics
    from sklearn import metrics

    scores = np.concatenate([known, foreign])
    is_known = np.repeat([1, 0], [len(known), len(foreign)])
    fpr, tpr, _ = metrics.roc_curve(is_known, scores, drop_intermediate=False)
    back_fpr, back_tpr, _ = metrics.roc_curve(1 - is_known, -scores, drop_intermediate=False)
    areas = []
    for truth, values in ((is_known, scores), (1 - is_known, -scores)):
        precision, recall, _ = metrics.precision_recall_curve(truth, values)
        areas.append(metrics.auc(recall, precision))
    sklearn = {
        "tnr": 1 - fpr[np.argmax(tpr >= 0.95)],
        "auroc": metrics.roc_auc_score(is_known, scores),
        "detection_accuracy": (tpr + 1 - fpr).max() / 2,
        "aupr_in": areas[0],
        "aupr_out": areas[1],
        "fpr95_foreign": back_fpr[np.argmax(back_tpr >= 0.95)],
    }
    steps = {
        "aupr_in": metrics.average_precision_score(is_known, scores),
        "aupr_out": metrics.average_precision_score(1 - is_known, -scores),
    }
    collection = OODMetrics().update(torch.tensor(-scores), torch.tensor(is_known - 1))
    found = collection.compute()
    ood = {"auroc": "AUROC", "aupr_in": "AUPR-IN", "aupr_out": "AUPR-OUT",
           "fpr95_foreign": "FPR95TPR"}  # fmt: skip
    table = {
        "scikit-learn": sklearn,
        "roc_curve, average_precision": steps,
        "pytorch-ood": {name: found[key] for name, key in ood.items()},
        "ODIN's way": by_grid(known, foreign),
        "Lee et al.'s way": by_order(known, foreign),
    }
    return {name: {k: 100 * float(v) for k, v in row.items()} for name, row in table.items()}


def by_grid(known, foreign):
    """ODIN's calMetric.py, in our words: 100,000 thresholds, here over the scores' own range."""
    low, high = min(known.min(), foreign.min()), max(known.max(), foreign.max())
    grid = np.arange(low, high, (high - low) / 100_000)
    known, foreign = np.sort(known), np.sort(foreign)
    tpr = 1 - np.searchsorted(known, grid) / len(known)
    fpr = 1 - np.searchsorted(foreign, grid, "right") / len(foreign)  # above, not at
    near = (tpr >= 0.9495) & (tpr <= 0.9505)
    values = {"detection_accuracy": 1 - ((1 - tpr + fpr) / 2).min()}
    return values | ({"tnr": 1 - fpr[near].mean()} if near.any() else {})


def by_order(known, foreign):
    """calculate_log.py of deep_Mahalanobis_detector, in our words: image after image."""
    scores = np.concatenate([known, foreign])
    is_known = np.repeat([1, 0], [len(known), len(foreign)])
    order = np.lexsort((1 - is_known, scores))  # rising; of equal ones the known leave first
    tp = len(known) - np.append(0, np.cumsum(is_known[order]))
    fp = len(foreign) - np.append(0, np.cumsum(1 - is_known[order]))
    tpr, tnr = tp / len(known), 1 - fp / len(foreign)
    return {
        "tnr": tnr[np.abs(tpr - 0.95).argmin()],
        "auroc": np.trapezoid(tnr, -tpr),
        "detection_accuracy": ((tpr + tnr) / 2).max(),
    }


def calibration_peers(logits, labels, bins=15):
    """package -> {metric: percent, nats, or what it is}."""
    from netcal.metrics import ECE, MCE
    from netcal.scaling import TemperatureScaling
    from scipy.optimize import minimize_scalar
    from sklearn import metrics
    from sklearn.calibration import calibration_curve
    from torch.nn import functional
    from torchmetrics.functional.classification import multiclass_calibration_error

    softmax, truth = logits.softmax(1).numpy(), labels.numpy()
    confidence, right = softmax.max(1), softmax.argmax(1) == truth
    accuracy, mean = calibration_curve(right, confidence, n_bins=bins)
    count = np.histogram(confidence, np.linspace(0, 1, bins + 1))[0]
    gaps = np.abs(accuracy - mean)

    def torch_errors(values):
        return [
            100 * float(multiclass_calibration_error(values, labels, values.shape[1], bins, norm))
            for norm in ("l1", "max")
        ]

    def by_netcal(kind):
        scaling = TemperatureScaling()
        scaling.fit(softmax.astype(kind), truth)
        return 1 / float(np.squeeze(scaling.temperature))  # what it calls so is the inverse

    def nll(log_temperature):
        return float(functional.cross_entropy(logits / np.exp(log_temperature), labels))

    return {
        "scikit-learn": {
            "ece": 100 * gaps @ count[count > 0] / len(truth),
            "mce": 100 * gaps.max(),
            "nll": metrics.log_loss(truth, softmax),
            "brier": metrics.brier_score_loss(truth, softmax, scale_by_half=False),
        },
        "torch": {"nll": float(functional.cross_entropy(logits, labels))},
        "torchmetrics": dict(zip(("ece", "mce"), torch_errors(logits), strict=True)),
        "torchmetrics, bfloat16 logits": dict(
            zip(("ece", "mce"), torch_errors(logits.bfloat16()), strict=True)
        ),
        "netcal": {
            "ece": 100 * ECE(bins).measure(softmax, truth),
            "mce": 100 * MCE(bins).measure(softmax, truth),
        },
        "temperature: SciPy": {
            "temperature": float(np.exp(minimize_scalar(nll, bracket=(0, 1), tol=1e-12).x))
        },
        "temperature: netcal, float64": {"temperature": by_netcal(np.float64)},
        "temperature: netcal, float32": {"temperature": by_netcal(np.float32)},
    }


# ---- ours, and the tables


def our_calibration(logits, labels, bins=15):
    """The same metrics, from the functions of the suite."""
    from transfer.evaluation import calibration_metrics as ours

    softmax = logits.softmax(1)
    confidence = softmax.amax(1).numpy()
    right = (logits.argmax(1) == labels).double().numpy()
    even = ours.reliability(confidence, right, ours.equal_width(bins))
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1])
    return {
        "ece": 100 * even.ece,
        "mce": 100 * even.mce,
        "nll": float(-logits.log_softmax(1)[torch.arange(len(labels)), labels].mean()),
        "brier": float((softmax - one_hot).square().sum(1).mean()),
        "temperature": ours.fit_temperature(logits, labels),
    }


def print_table(rows, metrics):
    """Differences from ours; rows: (case, package, ours, theirs)."""
    print(f"| case | package | {' | '.join(metrics)} | why |")
    print("|---" * (len(metrics) + 3) + "|")
    for case, package, ours, theirs in rows:
        cells = [f"{ours[name]:.6g}" if theirs is ours else
                 f"{theirs[name] - ours[name]:+.1g}" if name in theirs else ""
                 for name in metrics]  # fmt: skip
        print(f"| {case} | {package} | {' | '.join(cells)} | {WHY.get(package, '')} |")
    print()


def compare() -> None:
    """Print both tables."""
    from transfer.evaluation.ood_metrics import METRICS, detection_metrics

    warnings.filterwarnings("ignore")
    rows = []
    for case, (known, foreign) in detection_cases().items():
        ours = detection_metrics(known, foreign)
        peers = {"here, percent": ours, **detection_peers(known, foreign)}
        rows += [(case, name, ours, theirs) for name, theirs in peers.items()]
    print_table(rows, METRICS)
    rows = []
    for case, (logits, labels) in calibration_cases().items():
        ours = our_calibration(logits, labels)
        peers = {"here": ours, **calibration_peers(logits, labels)}
        rows += [(case, name, ours, theirs) for name, theirs in peers.items()]
    print_table(rows, ("ece", "mce", "nll", "brier", "temperature"))


def fixture():
    """Small cases with what the packages say of them."""
    draw = np.random.default_rng(1)
    cases = {"detection": [], "calibration": []}
    for known, foreign, scale in ((60, 45, 100), (200, 150, 8), (7, 30, 3)):
        scores = [draw.normal(1, 1, known), draw.normal(0, 1, foreign)]
        known, foreign = (np.round(scale * values) / scale for values in scores)
        peers = detection_peers(known, foreign)
        peers = {name: peers[name] for name in ("scikit-learn", "pytorch-ood")}
        scores = {"known": known.tolist(), "foreign": foreign.tolist()}
        cases["detection"].append({**scores, "peers": peers})
    for factor in (0.4, 3.0):
        logits = torch.from_numpy(draw.normal(0, factor, (150, 4)).round(3))
        labels = torch.from_numpy((logits / factor * 2).softmax(1).numpy().cumsum(1) >
                                  draw.random((150, 1))).int().argmax(1)  # fmt: skip
        peers = calibration_peers(logits, labels)
        del peers["torchmetrics, bfloat16 logits"], peers["temperature: netcal, float32"]
        tensors = {"logits": logits.tolist(), "labels": labels.tolist()}
        cases["calibration"].append({**tensors, "peers": peers})
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep it here")
    parser.add_argument("--write", type=Path, metavar="FIXTURE")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        if options.write:
            options.write.write_text(json.dumps(fixture()) + "\n", encoding="utf-8")
        return compare()
    with tempfile.TemporaryDirectory() as work:
        folder = options.environment or Path(work, "environment")
        python = make_environment(folder, REQUIREMENTS, borrow=True, alone=ALONE)
        again = ["--write", options.write.resolve()] if options.write else []
        subprocess.run([python, __file__, "--inside", *again], check=True)
    return None


if __name__ == "__main__":
    main()
