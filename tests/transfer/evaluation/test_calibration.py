"""Calibration: errors and temperature against packages, the split, the suite as it runs."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import minimize_scalar
from torch.nn import functional

from pretrain.errors import UsageError
from tests.transfer.evaluation.test_ood import LABELS, PEERS, session_in
from transfer.evaluation.calibration import _score, evaluate, open_data, split
from transfer.evaluation.calibration_metrics import (
    equal_mass,
    equal_width,
    fit_temperature,
    reliability,
)
from transfer.evaluation.config import CalibrationConfig
from transfer.evaluation.images import Labels


@pytest.fixture(params=PEERS["calibration"], ids=["blunt", "sharp"])
def case(request):
    """Logits, labels, and what the packages say of them."""
    logits = torch.tensor(request.param["logits"], dtype=torch.float64)
    return logits, torch.tensor(request.param["labels"]), request.param["peers"]


def confidence_and_right(logits, labels):
    confidence, predicted = logits.softmax(1).max(1)
    return confidence.numpy(), (predicted == labels).double().numpy()


# ---- the errors


def test_equal_to_packages(case):
    logits, labels, peers = case
    even = reliability(*confidence_and_right(logits, labels), equal_width(15))
    ours = {"ece": 100 * even.ece, "mce": 100 * even.mce}
    for name, precision in (("scikit-learn", 1e-9), ("netcal", 1e-9), ("torchmetrics", 1e-4)):
        theirs = {key: peers[name][key] for key in ours}  # torchmetrics computes in float32
        assert ours == pytest.approx(theirs, abs=precision), name


def test_bins_are_closed_above():
    """Guo et al.: above b / B and up to (b + 1) / B, so 1 is in the last bin, and 0.2 in the first.

    torchmetrics has 0.2 in the second bin of five, and a sixth for 1.
    """
    confidence = np.array([0.2, 0.20001, 0.4, 1, 1])
    counts = reliability(confidence, np.ones(5), equal_width(5)).count
    assert counts.tolist() == [1, 2, 0, 0, 2]
    for bins in (10, 15):  # b / B as it is written, for every b
        edges = np.array([b / bins for b in range(1, bins + 1)])
        assert reliability(edges, edges, equal_width(bins)).count.tolist() == [1] * bins


def test_bins_of_each_class_are_closed_above():
    batches = iter([(torch.zeros(1, 2, dtype=torch.float64), torch.tensor([0]))])
    tables = _score(batches, torch.tensor([1]), {"": 1.0}, bins=2)
    assert tables["classwise"].tolist() == [[0.5, 0], [-0.5, 0]]  # softmax 1/2 - label


def test_bins_of_equally_many_images():
    draw = np.random.default_rng(0)
    confidence, right = draw.random(103), draw.integers(0, 2, 103)
    one = reliability(confidence, right, equal_mass(confidence, 10))
    assert sorted(set(one.count)) == [10, 11]
    parts = np.split(np.argsort(confidence), np.cumsum(one.count[:-1]).astype(int))
    gaps = [abs(confidence[part].mean() - right[part].mean()) * len(part) for part in parts]
    assert one.ece == pytest.approx(sum(gaps) / 103, abs=1e-12)


def test_equal_confidences_stay_together_and_empty_bins_count_nothing():
    confidence = np.array([0.5] * 7 + [0.9])
    one = reliability(confidence, np.array([1, 0, 1, 0, 1, 0, 1, 1]), equal_mass(confidence, 4))
    assert sorted(one.count) == [0, 0, 1, 7]
    assert one.ece == pytest.approx((7 * abs(4 / 7 - 0.5) + 0.1) / 8)
    assert one.mce == pytest.approx(0.1)
    few = reliability(np.array([0.7]), np.ones(1), equal_mass(np.array([0.7]), 15))
    assert few.ece == few.mce == pytest.approx(0.3)


# ---- the temperature


def test_temperature_is_the_optimum(case):
    logits, labels, peers = case
    ours = fit_temperature(logits, labels)
    assert ours == pytest.approx(peers["temperature: SciPy"]["temperature"], rel=1e-6)
    assert ours == pytest.approx(peers["temperature: netcal, float64"]["temperature"], rel=1e-4)

    def nll(log):
        return float(functional.cross_entropy(logits / np.exp(log), labels))

    found = minimize_scalar(nll, bracket=(np.log(ours) - 1, np.log(ours) + 1), tol=1e-13)
    assert ours == pytest.approx(np.exp(found.x), rel=1e-6)
    for factor in (1e-4, 30):  # another unit of the logits is another unit of the temperature
        assert fit_temperature(factor * logits, labels) == pytest.approx(factor * ours, rel=1e-9)
    assert fit_temperature(logits + 7, labels) == pytest.approx(ours, rel=1e-9)


def test_temperatures_that_are_none(case):
    logits, _, _ = case
    assert fit_temperature(logits, logits.argmax(1)) == 0
    assert fit_temperature(logits, logits.argmin(1)) == np.inf
    assert fit_temperature(torch.zeros(4, 3, dtype=torch.float64), torch.zeros(4).long()) == 0


# ---- the split


def test_split(backbone, worlds, tmp_path):
    images = open_data(backbone, worlds["classification"], CalibrationConfig(), LABELS).images
    scored, held = split(images, 0.4)
    assert sorted([*scored, *held]) == [*range(len(images))]
    assert min(len(scored), len(held)) > 3
    assert held.tolist() == split(images, 0.4)[1].tolist()
    assert set(split(images, 0.2)[1]) <= set(held)
    for number in range(10):  # one image a class: some are held out all the same
        (tmp_path / f"{number}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{number}" / "a.png")
    data = open_data(backbone, tmp_path, CalibrationConfig(), Labels(class_order="number"))
    scored, held = split(data.images, 0.5)
    assert min(len(scored), len(held)) >= 1


# ---- the suite


def logits_of(backbone, data, session):
    """Of all images, in float64, and their labels."""
    network = session.network(backbone)
    mean, std = (torch.tensor(values)[:, None, None] for values in
                 (backbone.spec.mean, backbone.spec.std))  # fmt: skip
    rows = [
        network((batch / 255 - mean) / std).double()
        for batch, _ in session.batches(data.images, backbone.spec, "")
    ]
    return torch.cat(rows), torch.from_numpy(data.images.labels)


def test_values_of_a_run(backbone, worlds, tmp_path):
    data = open_data(backbone, worlds["classification"], CalibrationConfig(), LABELS)
    session = session_in(tmp_path, "calibration")
    logits, _ = logits_of(backbone, data, session)
    order = logits.argsort(1, descending=True)  # two of three images are right
    labels = order[torch.arange(len(order)), torch.arange(len(order)) % 3 // 2]
    data = replace(data, images=replace(data.images, labels=labels.numpy()))
    options = CalibrationConfig(bins=5, held_out=0.5)
    metrics = evaluate(backbone, data, options, session)
    json.dumps(metrics, allow_nan=False)
    assert (tmp_path / "pictures" / "reliability.png").stat().st_size > 5000

    scored, held = split(data.images, 0.5)
    temperature = fit_temperature(logits[held], labels[held])
    assert metrics["temperature"] == pytest.approx(temperature, rel=1e-4)
    for ending, degree in (("", 1), ("_scaled", metrics["temperature"])):
        softmax = (logits[scored] / degree).softmax(1)
        truth = functional.one_hot(labels[scored], 10)
        one = reliability(*confidence_and_right(logits[scored] / degree, labels[scored]),
                          equal_width(5))  # fmt: skip
        by_class = [reliability(softmax[:, k].numpy(), truth[:, k].numpy(), equal_width(5)).ece
                    for k in range(10)]  # fmt: skip
        wanted = {
            "ece": 100 * one.ece,
            "mce": 100 * one.mce,
            "confidence": 100 * float(softmax.amax(1).mean()),
            "classwise_ece": 100 * np.mean(by_class),
            "nll": float(functional.cross_entropy(logits[scored] / degree, labels[scored])),
            "brier": float((softmax - truth).square().sum(1).mean()),
        }
        assert {key: metrics[key + ending] for key in wanted} == pytest.approx(wanted, rel=1e-4)
    assert metrics["top1"] == 100 * float((logits.argmax(1) == labels)[scored].double().mean())
    for shown in metrics["bins"].values():  # the temperature changes no prediction
        right = np.dot(shown["images"], shown["accuracy"]) / sum(shown["images"])
        assert right == pytest.approx(metrics["top1"])
    assert evaluate(backbone, data, options, session) == metrics  # of what is kept


@pytest.mark.parametrize(
    ("pick", "said"),
    [("argmax", "no image held out has an output above"), ("argmin", "than chance")],
)
def test_no_temperature(pick, said, backbone, worlds, tmp_path, monkeypatch):
    monkeypatch.setattr("transfer.evaluation.calibration.draw_reliability", lambda *_: None)
    data = open_data(backbone, worlds["classification"], CalibrationConfig(), LABELS)
    logits, _ = logits_of(backbone, data, session_in(tmp_path))
    labels = getattr(logits, pick)(1).numpy()
    data = replace(data, images=replace(data.images, labels=labels))
    metrics = evaluate(backbone, data, CalibrationConfig(), session_in(tmp_path, "calibration"))
    assert said in metrics["no_temperature"]
    assert metrics["top1"] == (100 if pick == "argmax" else 0)
    assert not any(key == "temperature" or key.endswith("_scaled") for key in metrics)


def test_mistakes(backbone, worlds, tmp_path):
    (tmp_path / "circle").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "circle" / "a.png")
    known = worlds["classification"]
    named = replace(backbone.provenance, classes=("circle", *"abcdefghi"))
    for network, root, options, said in (
        (replace(backbone, spec=replace(backbone.spec, num_classes=1)), known,
         CalibrationConfig(), "has one output"),
        (replace(backbone, spec=replace(backbone.spec, num_classes=0)), known,
         CalibrationConfig(), "no classifier of its own"),
        (replace(backbone, provenance=named), tmp_path, CalibrationConfig(), "has one image"),
    ):  # fmt: skip
        labels = LABELS if root == known else Labels()
        with pytest.raises(UsageError, match=said):
            open_data(network, root, options, labels)


def test_nothing_that_can_be_read(backbone, worlds, tmp_path):
    for number, name in enumerate(["a", "b"]):
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / f"{name}.png").write_bytes(b"no image")
    labels = Labels(class_order="number")
    data = open_data(backbone, tmp_path, CalibrationConfig(), labels)
    session = session_in(tmp_path, "calibration", max_corrupt=2)
    with pytest.raises(UsageError, match="images held out: none of the images can be read"):
        evaluate(backbone, data, CalibrationConfig(), session)
