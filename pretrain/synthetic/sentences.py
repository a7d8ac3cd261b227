"""Five varied sentences about a scene of one or two objects, all of them true."""

import numpy as np

from pretrain.synthetic.scene import Scene, SceneObject

# before the colour, or behind the shape
_TEXTURES = {
    "plain": ("", ""),
    "striped": ("striped ", " with stripes"),
    "dotted": ("dotted ", " with dots"),
    "checkered": ("checkered ", " with a checkered pattern"),
}


def describe_scene(scene: Scene, rng: np.random.Generator, count: int = 5) -> list[str]:
    """`count` different sentences, of the six that any scene gives."""
    one, *others = scene.objects
    where, short = _where(one), _a(_short(one))
    if others:
        two = others[0]
        relation, second = _relation(one, two), _a(_short(two))
        phrases = [
            f"{_full(one, rng)} {relation} {second}",
            f"{second} and {_full(one, rng)}",
            f"there is {_pattern(one, rng)} {where} and {second} {_where(two)}",
            f"the picture shows {short} and {second}",
            f"{short} is {relation} {_full(two, rng)}",
            f"two things: {_pattern(two, rng)} and {short}",
        ]
    else:
        full, pattern = _full(one, rng), _pattern(one, rng)
        phrases = [
            f"{full} {where}",
            f"there is {pattern} {where}",
            f"{short} on a cluttered background",
            f"the picture shows {full}",
            f"{pattern} lies {where} of the picture",
            f"a single {_short(one)} can be seen {where}",
        ]
    order = rng.permutation(len(phrases))[:count]
    return [phrases[number][0].upper() + phrases[number][1:] + "." for number in sorted(order)]


def _size(item: SceneObject, rng: np.random.Generator) -> str:
    if 0.15 <= item.radius <= 0.23:
        return ""
    usual, rare = ("small ", "little ") if item.radius < 0.15 else ("large ", "big ")
    return usual if rng.random() < 0.7 else rare


def _short(item: SceneObject) -> str:
    return f"{item.colour} {item.shape}"


def _full(item: SceneObject, rng: np.random.Generator) -> str:
    return _a(f"{_size(item, rng)}{_TEXTURES[item.texture][0]}{_short(item)}")


def _pattern(item: SceneObject, rng: np.random.Generator) -> str:
    return _a(f"{_size(item, rng)}{_short(item)}{_TEXTURES[item.texture][1]}")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _where(item: SceneObject) -> str:
    x, y = item.centre
    across = "left" if x < 0.38 else "right" if x > 0.62 else ""
    down = "top" if y < 0.38 else "bottom" if y > 0.62 else ""
    if across and down:
        return f"in the {down} {across} corner"
    return f"on the {across} side" if across else f"at the {down}" if down else "in the middle"


def _relation(one: SceneObject, two: SceneObject) -> str:
    across, down = two.centre[0] - one.centre[0], two.centre[1] - one.centre[1]
    if abs(across) > abs(down):
        return "to the left of" if across > 0 else "to the right of"
    return "above" if down > 0 else "below"
