"""Five varied sentences about a scene of one or two objects, all of them true."""

import numpy as np

from pretrain.synthetic.scene import Scene, SceneObject

_ADJECTIVE = {"plain": "", "striped": "striped ", "dotted": "dotted ", "checkered": "checkered "}
_WITH = {
    "plain": "",
    "striped": " with stripes",
    "dotted": " with dots",
    "checkered": " with a checkered pattern",
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
        f"{_a(full)} {where}",
        f"there is {_a(pattern)} {where}",
        f"{_a(short)} on a cluttered background",
        f"the picture shows {_a(full)}",
        f"{_a(pattern)} lies {where} of the picture",
        f"a single {short} can be seen {where}",
    ]


def _about_two(one: SceneObject, two: SceneObject, rng: np.random.Generator) -> list[str]:
    relation = _relation(one, two)
    return [
        f"{_a(_full(one, rng))} {relation} {_a(_short(two))}",
        f"{_a(_short(two))} and {_a(_full(one, rng))}",
        f"there is {_a(_pattern(one, rng))} {_where(one)} and {_a(_short(two))} {_where(two)}",
        f"the picture shows {_a(_short(one))} and {_a(_short(two))}",
        f"{_a(_short(one))} is {relation} {_a(_full(two, rng))}",
        f"two things: {_a(_pattern(two, rng))} and {_a(_short(one))}",
    ]


def _size(item: SceneObject, rng: np.random.Generator) -> str:
    if item.radius < 0.15:
        return "small " if rng.random() < 0.7 else "little "
    if item.radius > 0.23:
        return "large " if rng.random() < 0.7 else "big "
    return ""


def _short(item: SceneObject) -> str:
    return f"{item.colour} {item.shape}"


def _full(item: SceneObject, rng: np.random.Generator) -> str:
    return f"{_size(item, rng)}{_ADJECTIVE[item.texture]}{_short(item)}"


def _pattern(item: SceneObject, rng: np.random.Generator) -> str:
    return f"{_size(item, rng)}{_short(item)}{_WITH[item.texture]}"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _where(item: SceneObject) -> str:
    x, y = item.centre
    across = "left" if x < 0.38 else "right" if x > 0.62 else ""
    down = "top" if y < 0.38 else "bottom" if y > 0.62 else ""
    if not across and not down:
        return "in the middle"
    if across and down:
        return f"in the {down} {across} corner"
    return f"on the {across} side" if across else f"at the {down}"


def _relation(one: SceneObject, two: SceneObject) -> str:
    across, down = two.centre[0] - one.centre[0], two.centre[1] - one.centre[1]
    if abs(across) > abs(down):
        return "to the left of" if across > 0 else "to the right of"
    return "above" if down > 0 else "below"
