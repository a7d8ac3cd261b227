"""The options of every mixing method, as docs/mixing.md has them, read from the code.

python -m tests.mixing_options       prints the table
"""

import ast
import inspect
import re
import textwrap
from dataclasses import MISSING, Field, fields
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pretrain.config import MethodConfig
from pretrain.mixing.mixed import PairedMix
from pretrain.mixing.schedule import METHODS, NETWORK_PARTS
from tools.show_mixing import ABOUT

FLAT = {entry.name for entry in fields(MethodConfig)}
SHARED = {entry.name for entry in fields(PairedMix)}
WORDS = {float: "number", int: "integer", bool: "true, false", str: "text", NoneType: "null"}


def values(hint: Any) -> str:
    """What an option takes."""
    inner = get_args(hint)
    if get_origin(hint) is Literal:
        return ", ".join(map(str, inner))
    if get_origin(hint) is tuple:
        if inner[1:] == (...,):
            return f"list of {values(inner[0])}"
        return f"[{', '.join(map(values, inner))}]"
    return " or ".join(map(values, inner)) if inner else WORDS[hint]


def default(value: Any) -> str:
    """As it is written in a recipe."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(default, value))}]"
    if isinstance(value, bool | NoneType):
        return {True: "true", False: "false", None: "null"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def meanings(kind: type) -> dict[str, str]:
    """Field -> the text below it, on one line."""
    (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for line, below in zip(body.body, body.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
            assert isinstance(line.target, ast.Name)
            text = inspect.cleandoc(ast.literal_eval(below.value))
            text = re.sub(r"\.?\s*\n\n- ", ": ", text)
            texts[line.target.id] = " ".join(re.sub(r"\n- ", "; ", text).split())
    return texts


def rows(kind: type, method: str) -> list[str]:
    """A line for each option that a class adds to its bases."""
    hints, texts = get_type_hints(kind), meanings(kind)
    own: list[Field[Any]] = [entry for entry in fields(kind) if entry.name in texts]
    lines = []
    for entry in own:
        if entry.name in NETWORK_PARTS:
            continue
        assert entry.default is not MISSING, f"{method}: {entry.name} has no default"
        name = entry.name if entry.name in FLAT else f"args.{entry.name}"
        cells = (values(hints[entry.name]), default(entry.default), texts[entry.name])
        lines.append(f"| {method} | `{name}` | {' | '.join(cells)} |".replace("`See", "see"))
    return lines


def table() -> str:
    """The table, in Markdown."""
    lines = ["| method | `--mixing.` | values | default | meaning |", "|---|---|---|---|---|"]
    lines += rows(PairedMix, "all that pair images")
    names = {METHODS[name]: name for name in ABOUT}
    for kind, method in names.items():
        if method == "none":
            continue
        base = names.get(kind.__mro__[1])
        more = rows(kind, method)
        if base is not None:
            lines.append(f"| {method} | those of {base} | | | |")
        elif not more:
            lines.append(f"| {method} | no others | | | |")
        lines += more
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
