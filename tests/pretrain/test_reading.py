"""Files that users write: what a short one may come to."""

import json
import os

import pytest

from pretrain.cache import cached_json
from pretrain.errors import UsageError
from pretrain.reading import Number, check, read_yaml


def test_references_are_followed_to_an_end(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\n")
    a = {"x": 1, "y": [2]}
    assert read_yaml(path) == {"a": a, "b": a, "c": {**a, "x": 3}}


@pytest.mark.parametrize(
    ("first", "line", "said"),
    [
        ("[x]", "[" + ", ".join(["*r{0}"] * 9) + "]", "come to too many values"),
        ("{{k: 1}}", "{{<<: [" + ", ".join(["*r{0}"] * 9) + "]}}", "come to too many values"),
        ("[x]", "[*r{1}]", "stands inside what it refers to"),
        ("[x]", "[*r{0}]", "nested too deeply"),
        ("[x]", "[*none]", "undefined alias"),
    ],
)
def test_references_without_end_are_refused(first, line, said, tmp_path):
    path = tmp_path / "a.yaml"
    lines = [f"r{n + 1}: &r{n + 1} {line.format(n, n + 1)}\n" for n in range(60)]
    path.write_text(f"r0: &r0 {first.format()}\n{''.join(lines)}")
    with pytest.raises(UsageError, match=rf"a\.yaml: .*{said}"):
        read_yaml(path)


def test_a_cache_that_cannot_be_used_is_computed_anew(tmp_path):
    def value(path):
        return cached_json(path, lambda rows: tuple(rows), lambda: ("new",))

    for name, content in {"torn": "[1", "null": "null", "number": "7", "good": "[1, 2]"}.items():
        (tmp_path / name).write_text(content)
        assert value(tmp_path / name) == ((1, 2) if name == "good" else ("new",)), name
    assert json.loads((tmp_path / "torn").read_text()) == ["new"]
    os.mkfifo(tmp_path / "pipe")  # to read it would not end
    assert value(tmp_path / "pipe") == ("new",)
    assert value(None) == ("new",)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"a": {"b": [1, 2.5]}}, "x: a.b[1]: expected `int`, got 2.5"),
        ({"a": {}, "c": {"b": "no"}}, "x: c.b: expected `array`, got 'no'"),
        ({"a": None}, "x: a: expected `object`, got None"),
    ],
)
def test_the_place_of_a_wrong_value_is_named_below_any_key(content, said):
    with pytest.raises(UsageError) as error:
        check(content, dict[str, dict[str, list[int]]], "x")
    assert str(error.value) == said


def test_no_other_value_is_taken_for_one_of_a_wrong_size():
    with pytest.raises(UsageError) as error:
        check({"good": 1.0, "bad": float("nan")}, dict[str, Number], "x")
    assert str(error.value) == "x: [...]: expected a finite number of at most 1e12 in size"
