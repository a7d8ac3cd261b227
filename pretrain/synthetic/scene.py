"""A scene of synthetic shapes and its picture. Lengths are shares of the image side in [0, 1]."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

COLOURS = {
    "red": (208, 44, 44),
    "orange": (238, 138, 32),
    "yellow": (240, 216, 60),
    "green": (52, 158, 72),
    "blue": (46, 92, 206),
    "purple": (136, 62, 176),
    "white": (240, 240, 240),
    "black": (26, 26, 28),
}
TEXTURES = ("plain", "striped", "dotted", "checkered")
_OVERSAMPLING = 4  # edges are drawn so much larger and averaged down


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One shape in a scene."""

    shape: str
    colour: str
    texture: str
    radius: float
    """Half its extent."""
    centre: tuple[float, float]
    """x, y."""
    angle: float
    """Radians."""
    stretch: float
    """Width over height, before turning."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What is in a picture; `clutter` seeds its background."""

    objects: tuple[SceneObject, ...]
    clutter: int


def _polar(angle: np.ndarray, radius: float | np.ndarray) -> np.ndarray:
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _arc(start: float, stop: float, radius: float = 1.0) -> np.ndarray:
    return _polar(np.linspace(start, stop, 40), radius)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * math.pi, 60)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return np.stack([x, y], axis=1) / 16.5


def _crescent() -> np.ndarray:
    outer = _arc(math.radians(50), math.radians(310))
    x, y = outer[-1] - np.array([0.5, 0])  # where the arcs meet, seen from the inner one's centre
    bend = math.atan2(y, x) % (2 * math.pi)
    inner = _arc(bend, 2 * math.pi - bend, math.hypot(x, y)) + np.array([0.5, 0])
    return np.concatenate([outer, inner]) + np.array([0.12, 0])


_ARROW = [(1, 0), (0.15, -0.8), (0.15, -0.3), (-1, -0.3), (-1, 0.3), (0.15, 0.3), (0.15, 0.8)]
# one arm and the corners beside it, clockwise
_CROSS = np.array([(-1, -1), (-1, -3), (1, -3), (1, -1), (3, -1), (3, 1)]) / 3

# name -> outline, and the hole in it where there is one; unit size, y downwards
SHAPES: dict[str, tuple[np.ndarray, ...]] = {
    "arrow": (np.array(_ARROW),),
    "circle": (_arc(0, 2 * math.pi, 0.95),),
    "crescent": (_crescent(),),
    "cross": (np.concatenate([_CROSS, -_CROSS]),),
    "heart": (_heart(),),
    "ring": (_arc(0, 2 * math.pi), _arc(0, 2 * math.pi, 0.55)),
    "semicircle": (_arc(math.pi, 2 * math.pi) + np.array([0, 0.5]),),
    "square": (np.array([(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)]),),
    "star": (_polar(np.arange(10) * math.pi / 5 - math.pi / 2, np.tile([1, 0.42], 5)),),
    "triangle": (np.array([(0, -1), (0.95, 0.8), (-0.95, 0.8)]),),
}


def make_scene(
    rng: np.random.Generator,
    *,
    shapes: list[str],
    smallest: float,
    largest: float,
    truncation: float = 0.0,
) -> Scene:
    """Place objects of these shapes (the first one always fits) so that they hardly touch.

    Args:
        rng: the only source of chance.
        shapes: in order; a later one that finds no room is left out.
        smallest: least radius, share of the side; sizes are uniform in the logarithm.
        largest: greatest radius.
        truncation: share of its radius by which an object may reach out of the picture.
    """
    objects: list[SceneObject] = []
    for shape in shapes:
        for _ in range(20):
            radius = float(np.exp(rng.uniform(np.log(smallest), np.log(largest))))
            margin = radius * (1.15 - truncation)
            x, y = rng.uniform(margin, 1 - margin, 2).tolist()
            item = SceneObject(
                shape=shape,
                colour=str(rng.choice(list(COLOURS))),
                texture=str(rng.choice(TEXTURES, p=(0.4, 0.2, 0.2, 0.2))),
                radius=radius,
                centre=(x, y),
                angle=float(rng.uniform(-0.4, 0.4)),
                stretch=float(rng.uniform(0.85, 1.15)),
            )
            apart = (
                max(abs(x - o.centre[0]), abs(y - o.centre[1])) > radius + o.radius for o in objects
            )
            if all(apart):
                objects.append(item)
                break
    return Scene(objects=tuple(objects), clutter=int(rng.integers(2**32)))


def draw_scene(
    scene: Scene, size: int, *, noise: float = 6.0, occlusion: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw a scene. `noise` and `occlusion` change nothing but what they are about.

    Args:
        scene: what is in the picture.
        size: side in pixels.
        noise: standard deviation of the grey noise, in steps of 0 to 255.
        occlusion: share of its pixels in the picture that each object lacks, on a random side.

    Returns:
        image (size, size, 3) uint8 RGB; boxes (objects, 4) int64 left, top, right, bottom in
        pixels, 0-based, half-open, tight around the visible pixels. An object of which nothing is
        visible keeps the box of all of it. owners (size, size) int64: which object's visible part
        covers more than half of a pixel, the later one's of two; -1 where none does.
    """
    rng, side = np.random.default_rng(scene.clutter), np.random.default_rng([scene.clutter, 1])
    image = _background(rng, size)
    boxes, owners = [], np.full((size, size), -1)
    for number, item in enumerate(scene.objects):
        mask, corner = _mask(item, size)
        paint = _paint(item, size, mask.shape, corner, rng)
        visible = _hide(mask, item.radius * size, occlusion, side) if occlusion else mask
        image.paste(Image.fromarray(paint), corner, Image.fromarray(visible))
        window = tuple(slice(at, at + n) for at, n in zip(corner[::-1], mask.shape, strict=True))
        owners[window][visible > 127] = number
        seen = (visible > 127, visible > 0, mask > 127, mask > 0)
        box = Image.fromarray(next(pixels for pixels in seen if pixels.any())).getbbox()
        assert box
        boxes.append(np.add(box, corner * 2))
    grey = rng.normal(0, noise, (size, size, 1))
    drawn = np.clip(np.asarray(image) + grey, 0, 255).astype(np.uint8)
    return drawn, np.array(boxes), owners


def _mask(item: SceneObject, size: int) -> tuple[np.ndarray, tuple[int, int]]:
    """How much of each pixel the object covers: (H, W) uint8; and the window's left and top."""
    cos, sin = math.cos(item.angle), math.sin(item.angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    scale = item.radius * np.array([math.sqrt(item.stretch), 1 / math.sqrt(item.stretch)])
    outlines = [
        (outline * scale @ turn + item.centre) * size * _OVERSAMPLING
        for outline in SHAPES[item.shape]
    ]
    # drawn in the whole picture: Pillow's single-precision edges depend on where they are
    canvas = Image.new("L", (size * _OVERSAMPLING, size * _OVERSAMPLING))
    pen = ImageDraw.Draw(canvas)
    for points, fill in zip(outlines, (255, 0), strict=False):
        pen.polygon(points.ravel().tolist(), fill=fill)
    # with a pixel of margin
    left, top = np.clip(outlines[0].min(0) // _OVERSAMPLING - 1, 0, size).astype(int).tolist()
    right, bottom = np.clip(outlines[0].max(0) // _OVERSAMPLING + 2, 0, size).astype(int).tolist()
    window = [edge * _OVERSAMPLING for edge in (left, top, right, bottom)]
    return np.asarray(canvas.reduce(_OVERSAMPLING, tuple(window))), (left, top)


def _hide(mask: np.ndarray, radius: float, share: float, rng: np.random.Generator) -> np.ndarray:
    """The mask without `share` of the pixels it touches: those on one side, along a wavy line.

    The background shows there, so that nothing tells where a hidden object is, nor its size; no
    outline of a shape is wavy, so that half a circle is no semicircle.
    """
    angle, phase = rng.uniform(0, 2 * math.pi, 2)
    y, x = np.indices(mask.shape) / radius
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    depth = along + 0.15 * np.sin(6 * across + phase)
    return np.where(depth > np.quantile(depth[mask > 0], share), mask, 0).astype(np.uint8)


def _paint(
    item: SceneObject,
    size: int,
    window: tuple[int, ...],
    corner: tuple[int, int],
    rng: np.random.Generator,
) -> np.ndarray:
    """The object's colour and texture over its window: (H, W, 3) uint8."""
    colour = np.array(COLOURS[item.colour]) + rng.normal(0, 10, 3)
    other = colour * 0.45 if colour.mean() > 90 else colour + 110
    height, width = window
    left, top = corner
    x, y = np.arange(left, left + width), np.arange(top, top + height)[:, None]
    period = max(4.0, item.radius * size * rng.uniform(0.4, 0.6))
    angle = rng.uniform(0, math.pi)
    u = (x * math.cos(angle) + y * math.sin(angle)) / period % 1
    v = (y * math.cos(angle) - x * math.sin(angle)) / period % 1
    second = {
        "plain": u < 0,
        "striped": u < 0.45,
        "dotted": (u - 0.5) ** 2 + (v - 0.5) ** 2 < 0.09,
        "checkered": (u < 0.5) ^ (v < 0.5),
    }[item.texture]
    paint = np.where(second[:, :, None], other, colour)
    shade = 1 + 0.12 * (y - item.centre[1] * size) / size
    return np.clip(paint * shade[:, :, None], 0, 255).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> Image.Image:
    """Soft colour fields, strokes and scraps: nothing that is a shape, much that is in the way."""
    cells = int(rng.integers(2, 7))
    field = rng.uniform(70, 190) + rng.uniform(-45, 45, (cells, cells, 3))  # muted, any brightness
    small = Image.fromarray(np.clip(field, 0, 255).astype(np.uint8))
    image = small.resize((size, size), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(4, 12))):
        colour = tuple(rng.integers(20, 236, 3).tolist())
        start = rng.uniform(0, size, 2)
        if rng.random() < 0.6:  # a stroke
            stop = start + rng.normal(0, size / 4, 2)
            width = int(rng.integers(1, 2 + size // 40))
            pen.line([tuple(start.tolist()), tuple(stop.tolist())], fill=colour, width=width)
        else:  # a scrap: a small random polygon
            corners = start + rng.normal(0, size / 25, (int(rng.integers(3, 6)), 2))
            pen.polygon([tuple(corner) for corner in corners.tolist()], fill=colour)
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, size / 120))))
