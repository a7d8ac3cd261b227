"""Hearts in short-axis slices, with what is around them, as cine MRI shows them.

Lengths are millimetres, angles are seen from the centre of the left ventricle. Cavity and wall of
the left ventricle are closed curves around it, smaller towards the apex; the right ventricle is
what an ellipse beside it has in common with their outside. Between end-diastole and end-systole the
cavities shrink and the wall keeps its area. The hearts are of ACDC's five groups, which differ in
cavity, wall, contraction and right ventricle.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

FRAMES = 5  # of a heartbeat; ACDC has 12 to 35


@dataclass(frozen=True)
class _Group:
    """What the hearts of a group are like; millimetres."""

    cavity: float
    """Radius of the left ventricle's cavity at the base."""
    wall: float
    contraction: float
    """Radius of the cavities at end-systole, share of that at end-diastole."""
    right: float
    """Size of the right ventricle, 1 is usual."""
    scar: float = 1.0
    """Share of the wall's thickness that a sector of it has."""


GROUPS = {
    "DCM": _Group(cavity=31, wall=7, contraction=0.86, right=1.05),
    "HCM": _Group(cavity=20, wall=14, contraction=0.6, right=0.95),
    "MINF": _Group(cavity=27, wall=8, contraction=0.85, right=1.0, scar=0.5),
    "NOR": _Group(cavity=23, wall=8.5, contraction=0.7, right=1.0),
    "RV": _Group(cavity=22, wall=8, contraction=0.72, right=1.35),
}


@dataclass(frozen=True)
class Grid:
    """Positions of pixels of a slice in millimetres from its middle, (rows, columns)."""

    x: np.ndarray
    y: np.ndarray
    pixel: float


class Heart:
    """One heart and its surroundings; what is drawn once for all frames is drawn here."""

    def __init__(self, rng: np.random.Generator, group: str, size: int, slices: int) -> None:
        self.rng, self.group, self.slices = rng, group, slices
        usual = GROUPS[group]
        scale = rng.uniform(0.88, 1.12)
        self.cavity = usual.cavity * scale * rng.uniform(0.93, 1.07)
        self.wall = usual.wall * scale * rng.uniform(0.9, 1.1)
        self.contraction = usual.contraction * rng.uniform(0.94, 1.06)
        self.right = usual.right * scale * rng.uniform(0.92, 1.08)
        self.scar, self.scar_at = usual.scar, rng.uniform(-math.pi, math.pi)
        self.pixel = rng.uniform(1.37, 1.68) * 128 / size
        self.thickness = float(rng.choice([5.0, 6.5, 8.0, 10.0])) * max(1.0, 64 / size)
        rows = size * 7 // 8
        y, x = np.indices((rows, size)) - np.array([rows - 1, size - 1])[:, None, None] / 2
        self.grid = Grid(x * self.pixel, y * self.pixel, self.pixel)
        self.centre = rng.normal((6, 0), 6)
        self.tilt = rng.normal(0, 1.5, 2)  # of the axis: how far the centre moves from base to apex
        self.turn = rng.normal(0, 0.25)
        self.waves = rng.normal(0, 0.025, (3, 2))
        self.apex = rng.uniform(0.93, 1.06)  # depth of the last slice; beyond 1 there is no heart
        self.surroundings = _surroundings(rng, self.grid)
        self.bias = np.exp(_smooth(rng, self.grid, 90, 0.2))
        self.end_systole = int(rng.integers(3, FRAMES))

    def draw(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Image int16 and labels uint8 (slices, rows, columns) of a frame, counted from 1."""
        cycle = self.end_systole - 1
        late = min(frame - 1, cycle) / cycle  # 0 at end-diastole, 1 at end-systole
        if frame > self.end_systole:
            late = 1 - (frame - self.end_systole) / (FRAMES + 1 - self.end_systole)
        contraction = 1 - (1 - self.contraction) * (1 - math.cos(math.pi * late)) / 2
        depths = np.linspace(0.03, self.apex, self.slices)
        pairs = [self._slice(depth, contraction) for depth in depths]
        image = np.stack([one for one, _ in pairs]) * self.bias
        noise = self.rng.normal(0, 11, (2, *image.shape))
        image = np.hypot(image + noise[0], noise[1])
        return image.round().astype(np.int16), np.stack([one for _, one in pairs])

    def _slice(self, depth: float, contraction: float) -> tuple[np.ndarray, np.ndarray]:
        """Signal and labels (rows, columns) at a depth: 0 at the base, 1 at the apex."""
        grid, image = self.grid, self.surroundings.copy()
        labels = np.zeros(image.shape, np.uint8)
        if depth >= 1:
            return image, labels
        x, y = grid.x - self.centre[0] - self.tilt[0] * depth, grid.y - self.centre[1]
        y = y - self.tilt[1] * depth
        radius, angle = np.hypot(x, y), np.arctan2(y, x)
        shape = math.sqrt(1 - depth**2)
        bumps = sum(
            wave * function((order + 2) * angle)
            for order, pair in enumerate(self.waves)
            for wave, function in zip(pair, (np.cos, np.sin), strict=True)
        )
        sector = np.exp(-((np.angle(np.exp(1j * (angle - self.scar_at))) / 0.7) ** 2))
        wall = self.wall * (1 - (1 - self.scar) * sector) * (0.6 + 0.4 * shape)
        rest = self.cavity * shape * (1 + bumps)
        cavity = rest * contraction
        outside = np.sqrt((rest + wall) ** 2 - rest**2 + cavity**2)  # the wall keeps its area
        outside = np.where(rest > 0, outside, wall)
        inner, outer = radius - cavity, radius - outside
        # the right ventricle lies to the left in the picture, and ends before the apex
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        across, along = x * cos + y * sin, y * cos - x * sin
        small = math.sqrt(max(0.0, 1 - (depth / 0.82) ** 2)) * self.right
        half = np.array([32 * contraction, 18 * (1 + contraction)]) * small
        right = np.full(image.shape, 99.0)
        if small > 0.2:
            place = -0.75 * outside.mean()
            ellipse = np.hypot((across - place) / half[0], along / half[1]) - 1
            right = np.maximum(ellipse * half.min(), 1.0 - outer)
        for distance, signal in ((right - 2.5, 70), (right, 205), (outer, 78), (inner, 215)):
            cover = np.clip(0.5 - distance / grid.pixel, 0, 1)
            image = image * (1 - cover) + signal * cover
        labels[right < 0] = 1
        labels[outer < 0] = 2
        labels[inner < 0] = 3
        return self._with_papillaries(image, x, y, cavity), labels

    def _with_papillaries(
        self, image: np.ndarray, x: np.ndarray, y: np.ndarray, cavity: np.ndarray
    ) -> np.ndarray:
        """Two dark muscles in the cavity, which are labelled as part of it."""
        for angle in (0.9, -1.0):
            at = 0.62 * cavity
            away = np.hypot(x - at * math.cos(angle), y - at * math.sin(angle))
            cover = np.clip(0.5 - (away - 0.14 * self.cavity) / self.grid.pixel, 0, 1) * 0.8
            cover = np.where(np.hypot(x, y) < cavity, cover, 0)
            image = image * (1 - cover) + 85 * cover
        return image


def _surroundings(rng: np.random.Generator, grid: Grid) -> np.ndarray:
    """Chest wall with fat around it, lungs, and bright and dark organs; no two are alike."""
    span = np.array([grid.x.max(), grid.y.max()])
    body = np.hypot(grid.x / (span[0] * 1.02), grid.y / (span[1] * 1.04)) + _smooth(
        rng, grid, 40, 0.04
    )
    image = np.full(body.shape, 6.0) + (body < 1.05) * 160
    image = np.where(body < 0.97, 95, image)
    image = np.where(body < 0.86, 28, image)
    for _ in range(9):
        angle, away = rng.uniform(-math.pi, math.pi), rng.uniform(0.45, 0.9)
        x, y = away * span * (math.cos(angle), math.sin(angle))
        size = rng.uniform(5, 26, 2)
        organ = np.hypot((grid.x - x) / size[0], (grid.y - y) / size[1])
        image = np.where(organ + _smooth(rng, grid, 20, 0.15) < 1, rng.uniform(45, 215), image)
    return ndimage.gaussian_filter(image * (1 + _smooth(rng, grid, 8, 0.12)), 0.6)


def _smooth(rng: np.random.Generator, grid: Grid, length: float, deviation: float) -> np.ndarray:
    """A smooth random field around 0."""
    noise = rng.normal(0, 1, grid.x.shape)
    field = ndimage.gaussian_filter(noise, length / grid.pixel / 2, mode="reflect")
    return deviation * (field - field.mean()) / max(field.std(), 1e-9)
