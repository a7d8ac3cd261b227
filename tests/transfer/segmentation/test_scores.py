"""Scores of label maps beside torchmetrics and scikit-learn (peers/segmentation_scores.py)."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import FIXTURES
from transfer.segmentation.config import VOID
from transfer.segmentation.scores import confusion_matrix, evaluate

CASES = json.loads((FIXTURES / "segmentation_scores.json").read_text())["cases"]
NAMES = [case["name"] for case in CASES]


def label_maps(rows: list[list[str]]) -> torch.Tensor:
    volumes = [[[VOID if v == "." else int(v) for v in row] for row in one] for one in rows]
    return torch.tensor(volumes, dtype=torch.uint8)


def confusions(case: dict) -> torch.Tensor:
    pairs = zip(label_maps(case["predicted"]), label_maps(case["truth"]), strict=True)
    return torch.stack([confusion_matrix(*pair, case["classes"]) for pair in pairs])


def same(ours: list[float | None], theirs: list[float | None]) -> None:
    assert [one is None for one in ours] == [one is None for one in theirs]
    found = [one for one in ours if one is not None]
    wanted = [100 * one for one in theirs if one is not None]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9)


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_figures_are_those_of_torchmetrics_and_scikit_learn(case):
    matrices, names = confusions(case), [f"class {k}" for k in range(case["classes"])]
    pooled = evaluate(matrices.sum(0, keepdim=True), names)
    iou, dice = [*pooled.iou.values()], [*pooled.dice.values()]
    for package in ("sklearn", "torchmetrics"):
        if f"{package} confusion" in case:
            assert matrices.sum(0).tolist() == case[f"{package} confusion"]
        if f"{package} iou" in case:  # where a class does not occur both have 0
            same([value or 0.0 for value in iou], case[f"{package} iou"])
    if "torchmetrics mean iou" in case:
        same([pooled.mean_iou], [case["torchmetrics mean iou"]])
    if "sklearn f1" in case:
        same(dice, case["sklearn f1"])
        by_volume = [*zip(*case["sklearn f1 of volumes"], strict=True)]
        of_volumes = evaluate(matrices, names)
        assert (of_volumes.iou, of_volumes.mean_iou) == (pooled.iou, pooled.mean_iou)
        same([*of_volumes.dice.values()], [mean(values) for values in by_volume])
        same([of_volumes.mean_dice], [mean([mean(values) for values in by_volume])])
    if "torchmetrics dice" in case:
        same(dice, case["torchmetrics dice"])
        of_volumes = evaluate(matrices, names)
        same([*of_volumes.dice.values()], case["torchmetrics dice of volumes"])
    if "torchmetrics MeanIoU" in case:
        same([pooled.mean_iou], [case["torchmetrics MeanIoU"]])
    assert pooled.num_classes == sum(value is not None for value in iou)


def test_background_is_not_in_the_mean_dice():
    matrix = torch.tensor([[[90, 0, 5], [0, 3, 1], [1, 0, 0]]])
    scores = evaluate(matrix, ["background", "one", "two"])
    assert scores.dice["one"] == pytest.approx(600 / 7)
    assert scores.mean_dice == pytest.approx(300 / 7)
    assert scores.pixel_accuracy == pytest.approx(93)
    other = evaluate(matrix, ["sky", "one", "two"])
    assert other.mean_dice == pytest.approx((180 / 186 * 100 + 600 / 7) / 3)
    assert evaluate(matrix[:, :1, :1], ["background"]).mean_dice is None


def test_without_a_pixel_there_are_no_figures():
    scores = evaluate(torch.zeros(2, 3, 3, dtype=torch.int64), ["background", "one", "two"])
    assert scores.mean_iou is scores.mean_dice is scores.pixel_accuracy is None
    assert set(scores.iou.values()) == set(scores.dice.values()) == {None}
    assert scores.num_classes == 0


def test_counts_beyond_float32_are_exact():
    matrix = torch.tensor([[[2**24, 1], [0, 2]]])
    scores = evaluate(matrix, ["a", "b"])
    assert scores.iou["a"] == pytest.approx(100 * 2**24 / (2**24 + 1), abs=1e-12)
    assert scores.pixel_accuracy == pytest.approx(100 * (1 - 1 / (2**24 + 3)), abs=1e-12)
    counted = confusion_matrix(torch.zeros(3, 4, dtype=torch.uint8), torch.ones(3, 4).byte(), 2)
    assert counted.tolist() == [[0, 0], [12, 0]]
    assert counted.dtype == torch.int64
