"""A phantom of the heart in ACDC's layout: short-axis slices through a left and a right ventricle.

Lengths are millimetres, angles are seen from the centre of the left ventricle. Cavity and wall of
the left ventricle are closed curves around it, thicker towards the base; the right ventricle is
what an ellipse beside it has in common with their outside. Between end-diastole and end-systole the
cavities shrink and the wall keeps its area. The patients are of ACDC's five groups, which differ
in cavity, wall, contraction and right ventricle.

Scribbles, drawn from the masks: of a structure the pixels whose depth in it is 0.7 of the largest
in the slice, give or take half a pixel, over a drawn 60 to 90 % of the directions (of a tiny one
all); of the background a wavy curve around the heart, 8 to 30 mm away. All other pixels are 4, as
in the scribbles of Valvano et al.
"""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from pretrain.errors import UsageError
from pretrain.files import write_text
from pretrain.synthetic.trees import draw_tree, Samples

_VERSION = 1
_FRAMES = 5  # of the volumes over time; ACDC has 12 to 35
_UNLABELLED = 4


@dataclass(frozen=True)
class _Group:
    """What a group of patients is like: millimetres, and end-systole's share of end-diastole's."""

    cavity: float
    wall: float
    contraction: float
    """Radius of the left ventricle's cavity."""
    right: float
    """Size of the right ventricle, 1 is usual."""
    scar: float = 1.0
    """Share of the wall's thickness that a sector of it has."""


_GROUPS = {
    "DCM": _Group(cavity=31, wall=7, contraction=0.86, right=1.05),
    "HCM": _Group(cavity=20, wall=14, contraction=0.6, right=0.95),
    "MINF": _Group(cavity=27, wall=8, contraction=0.85, right=1.0, scar=0.5),
    "NOR": _Group(cavity=23, wall=8.5, contraction=0.7, right=1.0),
    "RV": _Group(cavity=22, wall=8, contraction=0.72, right=1.35),
}


@dataclass(frozen=True)
class _Grid:
    """Positions of pixels of a slice in millimetres from its middle, (rows, columns)."""

    x: np.ndarray
    y: np.ndarray
    pixel: float


def heart(root: Path, *, patients: int, size: int, slices: int, seed: int = 0) -> Path:
    """ACDC's tree TREE/{training,testing}/patientNNN, half as many patients in `testing`.

    Each has Info.cfg, the volumes over time, and of the frames ED and ES image, labels and
    scribbles. A pixel is 1.37 to 1.68 mm at 128 columns, and accordingly more where there are
    fewer; slices are 5 to 10 mm thick, more below 64 columns. The headers are like ACDC's, which
    give the size of a voxel in `pixdim` and 1 mm in the affine.

    Args:
        root: the tree's parent.
        patients: number of them in `training`.
        size: columns of a slice; it has seven eighths as many rows.
        slices: of a volume, from base to apex.
        seed: another one is other hearts.

    Raises:
        UsageError: nibabel is not installed; too small.
    """
    if size < 32 or slices < 2 or patients < 1:
        raise UsageError("a phantom has at least 1 patient, 2 slices and 32 columns")

    def fill(tree: Path, samples: Samples) -> None:
        for split, number, rng in samples:
            name = f"patient{number + 1 + (patients if split == 'testing' else 0):03d}"
            group = list(_GROUPS)[number % len(_GROUPS)]
            _Patient(rng, group, size, slices).write(tree / split / name)

    name = f"heart{_VERSION}-{size}px-{patients}x{slices}-seed{seed}"
    splits = {"training": patients, "testing": (patients + 1) // 2}
    return draw_tree(root / name, splits, [seed, 4], fill)


class _Patient:
    """One heart and its surroundings; what is drawn once for all frames is drawn here."""

    def __init__(self, rng: np.random.Generator, group: str, size: int, slices: int) -> None:
        self.rng, self.group, self.slices = rng, group, slices
        usual = _GROUPS[group]
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
        self.grid = _Grid(x * self.pixel, y * self.pixel, self.pixel)
        self.centre = rng.normal((6, 0), 6)
        self.tilt = rng.normal(0, 1.5, 2)  # of the axis: how far the centre moves from base to apex
        self.turn = rng.normal(0, 0.25)
        self.waves = rng.normal(0, 0.025, (3, 2))
        self.apex = rng.uniform(0.93, 1.06)  # depth of the last slice; beyond 1 there is no heart
        self.surroundings = _surroundings(rng, self.grid)
        self.bias = np.exp(_smooth(rng, self.grid, 90, 0.2))
        self.end_systole = int(rng.integers(3, _FRAMES))

    def write(self, folder: Path) -> None:
        """Every file of the patient."""
        drawn = [self.draw(frame) for frame in range(1, _FRAMES + 1)]
        images = np.stack([image for image, _ in drawn])
        folder.mkdir(parents=True)
        info = {"ED": 1, "ES": self.end_systole, "Group": self.group}
        weight = round(self.rng.normal(75, 10), 1)
        info |= {"Height": round(self.rng.normal(170, 8), 1), "NbFrame": _FRAMES, "Weight": weight}
        write_text(folder / "Info.cfg", "".join(f"{key}: {value}\n" for key, value in info.items()))
        self._save(images, folder / f"{folder.name}_4d.nii.gz")
        for number in (1, self.end_systole):
            image, labels = drawn[number - 1]
            stem = f"{folder.name}_frame{number:02d}"
            scribbles = np.stack([_scribble(one, self.grid, self.rng) for one in labels])
            self._save(image, folder / f"{stem}.nii.gz")
            self._save(labels, folder / f"{stem}_gt.nii.gz")
            self._save(scribbles, folder / f"{stem}_scribble.nii.gz", scribble=True)

    def draw(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """Image int16 and labels uint8 (slices, rows, columns) of a frame, counted from 1."""
        cycle = self.end_systole - 1
        late = min(frame - 1, cycle) / cycle  # 0 at end-diastole, 1 at end-systole
        if frame > self.end_systole:
            late = 1 - (frame - self.end_systole) / (_FRAMES + 1 - self.end_systole)
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

    def _save(self, voxels: np.ndarray, path: Path, scribble: bool = False) -> None:
        zooms = (self.pixel, self.pixel, self.thickness)
        path.write_bytes(_nifti(voxels.T, zooms, scribble))


def _surroundings(rng: np.random.Generator, grid: _Grid) -> np.ndarray:
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


def _smooth(rng: np.random.Generator, grid: _Grid, length: float, deviation: float) -> np.ndarray:
    """A smooth random field around 0."""
    noise = rng.normal(0, 1, grid.x.shape)
    field = ndimage.gaussian_filter(noise, length / grid.pixel / 2, mode="reflect")
    return deviation * (field - field.mean()) / max(field.std(), 1e-9)


def _scribble(labels: np.ndarray, grid: _Grid, rng: np.random.Generator) -> np.ndarray:
    """Scribbles uint16 of a slice, by the rule above."""
    scribble = np.full(labels.shape, _UNLABELLED, np.uint16)
    middle = [grid.y, grid.x]
    for label in (1, 2, 3):
        inside = labels == label
        if not inside.any():
            continue
        depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
        curve = inside & (abs(depth - max(1.0, 0.7 * depth.max())) <= 0.5)
        y, x = (axis - axis[inside].mean() for axis in middle)
        angle = (np.arctan2(y, x) + rng.uniform(0, 2 * math.pi)) % (2 * math.pi)
        part = curve & (angle < 2 * math.pi * rng.uniform(0.6, 0.9))
        scribble[part if part.any() else curve] = label
    heart = labels > 0
    if not heart.any():
        heart = np.hypot(grid.x, grid.y) < 12
    y, x = (axis - axis[heart].mean() for axis in middle)
    away = ndimage.distance_transform_edt(~heart) * grid.pixel
    wave = np.sin(rng.integers(2, 6) * np.arctan2(y, x) + rng.uniform(0, 2 * math.pi))
    scribble[(labels == 0) & (abs(away - 19 - 11 * wave) <= 0.5 * grid.pixel)] = 0
    return scribble


def _nifti(voxels: np.ndarray, zooms: tuple[float, ...], scribble: bool) -> bytes:
    """A file as ACDC's, or of scribbles as Valvano's; always the same bytes."""
    try:
        import nibabel
    except ImportError as error:
        raise UsageError("volumes are written by nibabel: pip install nibabel") from error
    header: Any = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    if scribble:
        header.set_qform(np.diag([-zooms[0], -zooms[1], zooms[2], 1]), code=1)
        header.set_xyzt_units("mm")
    else:
        header.set_zooms(zooms + (1.0,) * (voxels.ndim - 3))
        header.set_sform(np.diag([-1.0, -1, 1, 1]), code=2)
    content = nibabel.Nifti1Image(voxels, None, header).to_bytes()
    return gzip.compress(content, 1, mtime=0)
