"""Five varied sentences about a scene of one or two things, all of them true."""

import numpy as np

from pretrain.synthetic.scene import Scene, Thing

_ADJECTIVE = {"plain": "", "striped": "striped ", "dotted": "dotted ", "checkered": "checkered "}
_WITH = {
    "plain": "",
    "striped": " with stripes",
    "dotted": " with dots",
    "checkered": " with a checkered pattern",
}


def sentences(scene: Scene, rng: np.random.Generator, count: int = 5) -> list[str]:
    """`count` different sentences; UsageError is impossible: every scene has enough to say."""
    first = scene.things[0]
    said = (
        _about_two(first, scene.things[1], rng) if len(scene.things) > 1 else _about_one(first, rng)
    )
    order = rng.permutation(len(said))[:count]
    return [said[number][0].upper() + said[number][1:] + "." for number in sorted(order)]


def _about_one(thing: Thing, rng: np.random.Generator) -> list[str]:
    full, pattern, short = _full(thing, rng), _pattern(thing, rng), _short(thing)
    place = _place(thing)
    return [
        f"{_a(full)} {place}",
        f"there is {_a(pattern)} {place}",
        f"{_a(short)} on a cluttered background",
        f"the picture shows {_a(full)}",
        f"{_a(pattern)} lies {place} of the picture",
        f"a single {short} can be seen {place}",
    ]


def _about_two(one: Thing, two: Thing, rng: np.random.Generator) -> list[str]:
    relation = _relation(one, two)
    return [
        f"{_a(_full(one, rng))} {relation} {_a(_short(two))}",
        f"{_a(_short(two))} and {_a(_full(one, rng))}",
        f"there is {_a(_pattern(one, rng))} {_place(one)} and {_a(_short(two))} {_place(two)}",
        f"the picture shows {_a(_short(one))} and {_a(_short(two))}",
        f"{_a(_short(one))} is {relation} {_a(_full(two, rng))}",
        f"two things: {_a(_pattern(two, rng))} and {_a(_short(one))}",
    ]


def _size(thing: Thing, rng: np.random.Generator) -> str:
    if thing.radius < 0.15:
        return "small " if rng.random() < 0.7 else "little "
    if thing.radius > 0.23:
        return "large " if rng.random() < 0.7 else "big "
    return ""


def _short(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _full(thing: Thing, rng: np.random.Generator) -> str:
    return f"{_size(thing, rng)}{_ADJECTIVE[thing.texture]}{_short(thing)}"


def _pattern(thing: Thing, rng: np.random.Generator) -> str:
    return f"{_size(thing, rng)}{_short(thing)}{_WITH[thing.texture]}"


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _place(thing: Thing) -> str:
    x, y = thing.centre
    across = "left" if x < 0.38 else "right" if x > 0.62 else ""
    down = "top" if y < 0.38 else "bottom" if y > 0.62 else ""
    if not across and not down:
        return "in the middle"
    if across and down:
        return f"in the {down} {across} corner"
    return f"on the {across} side" if across else f"at the {down}"


def _relation(one: Thing, two: Thing) -> str:
    across, down = two.centre[0] - one.centre[0], two.centre[1] - one.centre[1]
    if abs(across) > abs(down):
        return "to the left of" if across > 0 else "to the right of"
    return "above" if down > 0 else "below"
