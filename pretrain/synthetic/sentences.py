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
    first, *others = scene.objects
    phrases = _about_two(first, others[0], rng) if others else _about_one(first, rng)
    order = rng.permutation(len(phrases))[:count]
    return [phrases[number][0].upper() + phrases[number][1:] + "." for number in sorted(order)]


def _about_one(item: SceneObject, rng: np.random.Generator) -> list[str]:
    full, pattern, short = _full(item, rng), _pattern(item, rng), _short(item)
    where = _where(item)
    return [
        f"{full} {where}",
        f"there is {pattern} {where}",
        f"{_a(short)} on a cluttered background",
        f"the picture shows {full}",
        f"{pattern} lies {where} of the picture",
        f"a single {short} can be seen {where}",
    ]


def _about_two(one: SceneObject, two: SceneObject, rng: np.random.Generator) -> list[str]:
    first, second = _a(_short(one)), _a(_short(two))
    relation = _relation(one, two)
    return [
        f"{_full(one, rng)} {relation} {second}",
        f"{second} and {_full(one, rng)}",
        f"there is {_pattern(one, rng)} {_where(one)} and {second} {_where(two)}",
        f"the picture shows {first} and {second}",
        f"{first} is {relation} {_full(two, rng)}",
        f"two things: {_pattern(two, rng)} and {first}",
    ]


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
