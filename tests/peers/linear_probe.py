"""OmniBenchmark's probe and ImageNet-O's measure against scikit-learn, SciPy and the authors' loop.

    python tests/peers/linear_probe.py --environments DIR [--fixture FILE]

Prints a Markdown table. With --fixture it writes the average precisions that the tests read.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from environments import make_environment
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from transfer.classification.probe import SoftmaxRegression
from transfer.evaluation.imagenet_variants import average_precision

_SKLEARN = """
import json, sys
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

given = json.load(sys.stdin)
answer = {}
for name, (positive, negative) in given["scores"].items():
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    answer[name] = average_precision_score(labels, np.array(positive + negative))
features, labels = np.array(given["features"]), np.array(given["labels"])
for penalty in given["penalties"]:
    # (1 / N) sum of losses + penalty |W|^2 is, times C = 1 / (2 N penalty), scikit-learn's
    strength = 1 / (2 * len(labels) * penalty)
    solver = LogisticRegression(C=strength, tol=1e-10, max_iter=100_000)
    probabilities = solver.fit(features, labels).predict_proba(features)
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    answer[f"squared {penalty:g}"] = losses.mean() + penalty * np.square(solver.coef_).sum()
json.dump(answer, sys.stdout)
"""


def draw_scores() -> dict[str, tuple[list[float], list[float]]]:
    """Positive and negative scores of several kinds."""
    draw = np.random.default_rng(0)
    return {
        "random": (draw.normal(0.5, 1, 40).tolist(), draw.normal(0, 1, 60).tolist()),
        "ties": (draw.integers(2, 6, 40).tolist(), draw.integers(0, 5, 60).tolist()),
        "all_equal": ([1.0] * 3, [1.0] * 5),
        "one": ([0.5], [0.25, 0.5, 0.75]),
    }


def objective(weight: torch.Tensor, bias: torch.Tensor, data: tuple, lam: float) -> float:
    """What the authors' loop minimises, the ten parts being of one size."""
    weight, bias = weight.detach().double(), bias.detach().double()
    features, labels = data
    loss = functional.cross_entropy(features @ weight.T + bias, labels)
    return float(10 * loss + lam * weight.norm())


def authors_loop(data: tuple, num_classes: int, lam: float, calls: int) -> nn.Linear:
    """As linear_probe/main.py trains: ten parts, L-BFGS of torch as it comes."""
    features, labels = data
    torch.manual_seed(0)
    net = nn.Linear(features.shape[1], num_classes)
    optimizer = torch.optim.LBFGS(net.parameters())
    parts = list(zip(features.float().chunk(10), labels.chunk(10), strict=True))

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        for number, (part, classes) in enumerate(parts):
            loss = functional.cross_entropy(net(part), classes)
            if number == 9:
                loss = loss + lam * torch.norm(net.weight)
            loss.backward()
        return loss

    for _ in range(calls):
        optimizer.step(closure)
    return net


def by_scipy(data: tuple, num_classes: int, lam: float) -> float:
    """The optimum of 10 CE + lam |W| by SciPy's L-BFGS-B, on the features as they are."""
    from scipy.optimize import minimize

    features, labels = data
    size = num_classes * features.shape[1]

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(flat, requires_grad=True)
        weight = point[:size].view(num_classes, -1)
        loss = functional.cross_entropy(features @ weight.T + point[size:], labels)
        total = 10 * loss + lam * weight.norm()
        total.backward()
        return total.item(), point.grad.numpy()

    start = np.random.default_rng(0).normal(0, 1e-2, size + num_classes)
    limits = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-9}
    return float(minimize(value, start, jac=True, method="L-BFGS-B", options=limits).fun)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--fixture", type=Path)
    options = parser.parse_args()
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 4
    centres = torch.randn(4, 8, generator=draw, dtype=torch.float64)
    noise = torch.randn(200, 8, generator=draw, dtype=torch.float64)
    features = (centres[labels] + 1.5 * noise).relu()
    data, scores = (features, labels), draw_scores()
    squared = [1e-3, 1e-2, 1e-1]

    python = make_environment(options.environments / "sklearn", ["scikit-learn==1.9.0"], True)
    given = {"scores": scores, "penalties": squared}
    given |= {"features": features.tolist(), "labels": labels.tolist()}
    command = [str(python), "-c", _SKLEARN]
    done = subprocess.run(
        command, input=json.dumps(given), capture_output=True, text=True, check=True
    )
    peer = json.loads(done.stdout)

    print("| what | peer | ours | peer minus ours |\n|---|---|---|---|")

    def row(what: str, theirs: float, ours: float) -> None:
        print(f"| {what} | {theirs:.9f} | {ours:.9f} | {theirs - ours:+.1e} |")

    for name, pair in scores.items():
        ours = average_precision(*map(np.array, pair))
        row(f"average precision, {name}: scikit-learn", peer[name], ours)
    problem = SoftmaxRegression(features, labels, 4, "squared", torch.device("cpu"))
    for penalty in squared:
        ours = problem.solve(penalty, 1e-9, 10_000).objective
        row(f"CE + {penalty:g} W²: scikit-learn", peer[f"squared {penalty:g}"], ours)
    problem = SoftmaxRegression(features, labels, 4, "norm", torch.device("cpu"))
    for lam in (1e-5, 1e-4, 3e-4, 1e-3, 1e-2, 1e-1, 1.0):
        ours = 10 * problem.solve(lam / 10, 1e-9, 10_000).objective
        row(f"lam {lam:g}: SciPy", by_scipy(data, 4, lam), ours)
        net = authors_loop(data, 4, lam, calls=100)
        found = objective(net.weight, net.bias, data, lam)
        row(f"lam {lam:g}: the authors' loop", found, ours)
    if options.fixture:
        known = {
            name: {"positive": positive, "negative": negative, "value": peer[name]}
            for name, (positive, negative) in scores.items()
        }
        options.fixture.write_text(json.dumps(known) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
