"""Boundary F beside its definition, pixel by pixel, and beside what void must not change."""

import numpy as np
import pytest

from transfer.segmentation.boundaries import BoundaryF
from transfer.segmentation.config import VOID


def edge(labels: np.ndarray, label: int) -> list[tuple[int, int]]:
    """Pixels of a class with a neighbour of another."""
    height, width = labels.shape
    found = []
    for y, x in np.argwhere(labels == label):
        around = ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1))
        inside = [(a, b) for a, b in around if 0 <= a < height and 0 <= b < width]
        if any(labels[place] != label for place in inside):
            found.append((int(y), int(x)))
    return found


def near(points: list, others: list, distance: float) -> list[bool]:
    return [any(np.hypot(y - a, x - b) < distance for a, b in others) for y, x in points]


def by_definition(pairs: list, num_classes: int, tolerance: float) -> float | None:
    """Csurka et al., section 3, and MATLAB's bfscore; no void."""
    found: list[list[float]] = [[] for _ in range(num_classes)]
    for predicted, truth in pairs:
        distance = tolerance * np.hypot(*truth.shape)
        for label in range(num_classes):
            ours, theirs = edge(predicted, label), edge(truth, label)
            if ours and theirs:
                precision = np.mean(near(ours, theirs, distance))
                recall = np.mean(near(theirs, ours, distance))
                total = precision + recall
                found[label].append(2 * precision * recall / total if total else 0.0)
            elif ours or theirs:
                found[label].append(0.0)
    means = [np.mean(one) for one in found if one]
    return 100 * float(np.mean(means)) if means else None


def blobs(rng: np.random.Generator, size: tuple[int, int], num_classes: int) -> np.ndarray:
    """Large areas with rugged edges."""
    coarse = rng.integers(num_classes, size=(size[0] // 5 + 1, size[1] // 5 + 1))
    labels = np.kron(coarse, np.ones((5, 5), int))[: size[0], : size[1]]
    noise = rng.random(size) < 0.05
    return np.where(noise, rng.integers(num_classes, size=size), labels).astype(np.uint8)


def score(pairs: list, tolerance: float = 0.0075) -> float | None:
    boundaries = BoundaryF(tolerance)
    for predicted, truth in pairs:
        boundaries.see(predicted, truth)
    return boundaries.mean


@pytest.mark.parametrize("tolerance", [0.0075, 0.05, 0.1])
def test_it_is_the_definition(tolerance):
    rng = np.random.default_rng(0)
    for size in ((17, 20), (22, 11)):
        truths = [blobs(rng, size, 4) for _ in range(2)]
        pairs = [(np.roll(t, k, 1), t) for k, t in enumerate(truths)]
        pairs += [(blobs(rng, size, 3), truths[0]), (truths[0], np.zeros_like(truths[0]))]
        found = score(pairs, tolerance)
        assert found == pytest.approx(by_definition(pairs, 6, tolerance), abs=1e-9)
        assert 0 < found < 100


def test_a_boundary_at_the_distance_itself_is_not_found():
    """The paper's is d < theta: here 3 pixels, of a diagonal of 50."""
    truth, moved = np.zeros((30, 40), np.uint8), np.zeros((30, 40), np.uint8)
    truth[:, 20:], moved[:, 23:] = 1, 1
    assert score([(moved, truth)], 0.06) == 0
    assert score([(moved, truth)], 0.0601) == 100


def test_without_a_boundary_there_is_no_figure():
    """Edges of the image are none; a class that is missed or made up has 0."""
    plain, half = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    half[:, 4:] = 1
    assert score([]) is None
    assert score([(plain, plain)]) is None
    assert score([(plain + 1, plain)]) is None
    assert score([(half, plain)]) == score([(plain, half)]) == 0
    assert score([(half, half), (plain, plain)]) == 100
    assert score([(half, half), (half, plain)]) == 50


def test_the_mean_is_over_images_then_over_classes():
    one, two = np.zeros((6, 8), np.uint8), np.zeros((6, 8), np.uint8)
    one[:, 4:], two[:3] = 1, 2
    pairs = [(one, one), (np.zeros_like(one), one), (two, two)]  # class 0: 1, 0, 1; 1: 1, 0; 2: 1
    assert score(pairs) == pytest.approx(100 * (2 / 3 + 1 / 2 + 1) / 3)


def banded(truth: np.ndarray, width: int) -> np.ndarray:
    """Pascal VOC's masks: void around every contour."""
    contour = np.zeros(truth.shape, bool)
    contour[1:] |= truth[1:] != truth[:-1]
    contour[:, 1:] |= truth[:, 1:] != truth[:, :-1]
    band = np.zeros_like(contour)
    for y, x in np.argwhere(contour):
        band[max(0, y - width) : y + width, max(0, x - width) : x + width] = True
    return np.where(band, VOID, truth).astype(np.uint8)


def test_the_contour_of_a_void_band_lies_in_its_middle():
    truth = np.zeros((60, 80), np.uint8)
    truth[20:45, 25:60] = 1
    masked = banded(truth, 2)
    assert (masked[18:22, 40] == VOID).all()
    assert set(masked[[17, 22], 40]) == {0, 1}
    assert score([(truth, masked)], 0.03) == 100  # 3 pixels
    moved = np.roll(truth, 12, 1)
    wanted = score([(moved, truth)], 0.03)
    assert wanted < 80
    assert score([(moved, masked)], 0.03) == pytest.approx(wanted, abs=5)
    assert score([(np.zeros_like(truth), masked)], 0.03) == 0


def test_in_void_nothing_is_wrong():
    """An object that the annotators left out: whether it is found or not, and where."""
    truth = np.zeros((60, 80), np.uint8)
    truth[5:20, 5:20] = 1
    found = truth.copy()
    found[32:50, 40:70] = 2
    left_out = truth.copy()
    left_out[30:55, 35:75] = VOID
    assert score([(found, left_out)]) == score([(truth, left_out)]) == 100
    assert score([(found, truth)]) < 70
    assert score([(found, np.full_like(truth, VOID))]) is None
    outside = truth.copy()
    outside[2:4, 30:70] = 2  # as wrong as it would be without void
    assert score([(outside, left_out)]) == score([(outside, truth)]) < 70


def test_deep_in_void_no_contour_is_asked_for():
    """Where a contour runs through a part that the annotators left out."""
    truth = np.zeros((60, 80), np.uint8)
    truth[:, 40:] = 1
    left_out = truth.copy()
    left_out[20:40, 30:50] = VOID
    found = truth.copy()
    found[24:36, 40:48] = 0
    assert score([(found, left_out)], 0.03) == 100  # 3 pixels
    assert score([(found, truth)], 0.03) < 90
    found[10:24, 40:48] = 0  # beyond it too
    assert score([(found, left_out)], 0.03) < 95
