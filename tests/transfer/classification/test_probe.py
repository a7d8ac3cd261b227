"""The probe against SciPy's optimum, the neighbours against a loop, the scores by hand."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from transfer.classification.config import KnnConfig
from transfer.classification.confusion import (
    confusion_matrix,
    draw_confusion,
    mean_per_class,
    most_confused,
    most_confused_classes,
    top1,
)
from transfer.classification.frozen import classify_by_neighbours
from transfer.classification.probe import SoftmaxRegression

PATH = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
CPU = torch.device("cpu")


def case(seed: int, images: int, features: int, classes: int):
    draw = np.random.default_rng(seed)
    x = np.abs(draw.normal(0, 1, (images, features))) * draw.uniform(0.01, 2, features)
    y = np.concatenate([np.arange(classes), draw.integers(0, classes, images - classes)])
    return x, y


def objective(v, x, y, classes, lam, kind):
    """Mean cross entropy + lam R(W) and its gradient, in NumPy, on the features as they are."""
    weight, bias = v[:-classes].reshape(classes, -1), v[-classes:]
    logits = x @ weight.T + bias
    logits -= logits.max(1, keepdims=True)
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    wrong = np.exp(log_probabilities)
    wrong[np.arange(len(y)), y] -= 1
    wrong /= len(y)
    squares = (weight**2).sum()
    if kind == "squared":
        size, slope = squares, 2 * weight
    else:
        size, slope = math.sqrt(squares), weight / max(math.sqrt(squares), 1e-300)
    loss = -log_probabilities[np.arange(len(y)), y].mean() + lam * size
    return loss, np.concatenate([(wrong.T @ x + lam * slope).ravel(), wrong.sum(0)])


def scipy_optimum(x, y, classes, lam, kind) -> float:
    start = np.random.default_rng(1).normal(0, 0.01, classes * (x.shape[1] + 1))
    options = {"maxiter": 20_000, "maxfun": 10**6, "ftol": 1e-15, "gtol": 1e-9, "maxcor": 30}
    result = minimize(
        objective, start, (x, y, classes, lam, kind), "L-BFGS-B", True, options=options
    )
    return float(result.fun)


@pytest.mark.parametrize("kind", ["squared", "norm"])
@pytest.mark.parametrize("size", [(60, 5, 3), (150, 30, 4), (20, 40, 3)])
def test_the_probe_is_the_optimum_that_scipy_finds(kind, size):
    x, y = case(sum(size), *size)
    problem = SoftmaxRegression(torch.from_numpy(x), torch.from_numpy(y), size[2], kind, CPU)
    probes: list = []
    for penalty in sorted(PATH, reverse=True):
        probes.append(problem.solve(penalty, 1e-6, 1000, probes[-1] if probes else None))
    assert [probe.penalty for probe in probes] == sorted(PATH, reverse=True)
    for probe in probes:
        assert probe.converged
        parameters = np.concatenate([probe.weight.numpy().ravel(), probe.bias.numpy()])
        own = objective(parameters, x, y, size[2], probe.penalty, kind)[0]
        assert own == pytest.approx(probe.objective, abs=1e-9)  # back in the given coordinates
        expected = scipy_optimum(x, y, size[2], probe.penalty, kind)
        if probe.weight.any():
            assert abs(own - expected) < 1e-6
        else:  # SciPy stalls at the kink; here is the proof that zero is the optimum
            assert own < expected + 1e-9
            slope = objective(parameters, x, y, size[2], 0.0, kind)[1]
            assert np.linalg.norm(slope[: -size[2]]) <= probe.penalty
            assert np.abs(slope[-size[2] :]).max() < 1e-12
        logits = x @ probe.weight.numpy().T + probe.bias.numpy()
        assert probe.predict(torch.from_numpy(x).float()).tolist() == logits.argmax(1).tolist()


def test_a_norm_that_no_direction_pays_for_gives_zero_weights():
    x, y = case(0, 50, 4, 3)
    problem = SoftmaxRegression(torch.from_numpy(x), torch.from_numpy(y), 3, "norm", CPU)
    probe = problem.solve(100.0, 1e-6, 100)
    assert not probe.weight.any()
    assert probe.converged
    counts = np.bincount(y) / len(y)
    assert probe.objective == pytest.approx(-(counts * np.log(counts)).sum())
    assert problem.solve(1e-3, 1e-6, 1000, probe).weight.any()


def test_blocks_change_nothing_and_too_few_iterations_are_said(monkeypatch):
    x, y = case(2, 60, 5, 3)
    problem = SoftmaxRegression(torch.from_numpy(x), torch.from_numpy(y), 3, "squared", CPU)
    whole = problem.solve(1e-3, 1e-6, 1000)
    monkeypatch.setattr("transfer.classification.probe._CHUNK", 21)  # seven rows
    parts = problem.solve(1e-3, 1e-6, 1000)
    torch.testing.assert_close(parts.weight, whole.weight, rtol=0, atol=1e-4)
    assert (
        parts.predict(torch.from_numpy(x)).tolist() == whole.predict(torch.from_numpy(x)).tolist()
    )
    assert not problem.solve(1e-3, 1e-6, 2).converged


# ------------------------------------------------------------------------------------------ k-NN


def naive(bank, labels, queries, classes, k, how, temperature) -> list[int]:
    """One image after another, as one would write it down."""
    predictions = []
    for query in queries:
        cosines = [float(query @ row / (query.norm() * row.norm())) for row in bank]
        order = sorted(range(len(bank)), key=lambda n: (-cosines[n], n))[:k]
        count = Counter()
        for n in order:
            count[labels[n]] += math.exp(cosines[n] / temperature) if how == "weighted" else 1
        predictions.append(max(range(classes), key=lambda c: (count[c], -c)))
    return predictions


def predict(bank, labels, queries, classes, ks, how, temperature=0.07):
    options = KnnConfig(vote=how, temperature=temperature)
    return classify_by_neighbours(bank, torch.tensor(labels), queries, classes, ks, options)


@pytest.mark.parametrize("how", ["weighted", "majority"])
def test_neighbours_equal_a_loop(how, monkeypatch):
    monkeypatch.setattr("transfer.classification.frozen._CHUNK", 130)  # three queries at once
    draw = torch.Generator().manual_seed(0)
    bank = torch.randn(40, 6, generator=draw)
    queries = torch.randn(25, 6, generator=draw)
    labels = torch.randint(0, 4, (40,), generator=draw).tolist()
    ks = [1, 2, 3, 8, 40]
    results = predict(bank, labels, queries, 4, ks, how)
    for k in ks:
        assert results[k].tolist() == naive(bank, labels, queries, 4, k, how, 0.07), k


def test_equal_neighbours_go_by_their_place_and_equal_votes_by_class():
    """Axes and signs: every similarity is -1, 0 or 1, so most of them are equal."""
    draw = np.random.default_rng(0)
    signs = torch.tensor(draw.choice([-1.0, 1.0], (60, 1))).float()
    bank = torch.eye(4)[draw.integers(0, 4, 60)] * signs
    queries = torch.eye(4) * 3
    labels = draw.integers(0, 3, 60).tolist()
    ks = [1, 2, 4, 7, 20, 31]
    for how in ("weighted", "majority"):
        results = predict(bank, labels, queries, 3, ks, how)
        for k in ks:
            assert results[k].tolist() == naive(bank, labels, queries, 3, k, how, 0.07), (how, k)
    results = predict(torch.ones(4, 2), [2, 1, 2, 1], torch.ones(1, 2), 3, [1, 2, 4], "majority")
    assert [results[k].item() for k in (1, 2, 4)] == [2, 1, 1]


def test_the_temperature_decides_between_one_near_and_two_far():
    bank = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.8, 0.6]])
    query = torch.tensor([[1.0, 0.0]])
    assert predict(bank, [1, 0, 0], query, 2, [3], "weighted", 0.07)[3].item() == 1
    assert predict(bank, [1, 0, 0], query, 2, [3], "weighted", 10.0)[3].item() == 0
    assert predict(bank, [1, 0, 0], query, 2, [3], "majority")[3].item() == 0


# ---------------------------------------------------------------------------------------- scores


def test_scores_by_hand():
    truth = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2])
    predictions = np.array([0, 0, 1, -1, 0, 1, 1, 1, 2])
    matrix = confusion_matrix(predictions, truth, 4)
    assert matrix.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 2, 1, 0], [0, 0, 0, 0]]
    assert top1(matrix) == pytest.approx(100 * 4 / 8)
    assert mean_per_class(matrix) == pytest.approx(100 * (2 / 3 + 1 / 2 + 1 / 3) / 3)
    pairs = most_confused(matrix, "abcd")
    assert [(pair["true"], pair["predicted"], pair["count"]) for pair in pairs] == [
        ("c", "b", 2),
        ("a", "b", 1),
        ("b", "a", 1),
    ]
    assert pairs[0]["share"] == 66.7
    assert most_confused(np.diag([3, 4]), "ab") == []


def test_of_many_classes_the_most_confused_are_shown(tmp_path):
    matrix = np.diag(np.full(60, 9))
    matrix[50, 3] = matrix[3, 40] = 5
    matrix[10, 11] = 4
    assert {3, 10, 11, 40, 50} <= set(most_confused_classes(matrix))
    assert len(most_confused_classes(matrix)) <= 30
    assert most_confused_classes(matrix[:50, :50]) == list(range(50))
    draw_confusion(matrix, [f"class {n}" for n in range(60)], "x", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 5000
