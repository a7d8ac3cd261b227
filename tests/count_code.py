"""How large the tree is: lines of code, and what importing an engine brings.

    python tests/count_code.py [--files]

A line of code is one of Python outside tests that is neither blank, nor a comment, nor part of a
docstring; every file is formatted at 100 columns (`ruff format`, which CI checks). Our templates
and JavaScript count too, less their blank lines and comments. What an import brings
is all lines of our own files that load at any depth, imports inside functions and names given as
strings to `import_module` included: what a reader may have to open.
"""

import argparse
import ast
import io
import re
import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENGINES = {
    "pretrain": "pretrain.engine",
    "detection": "transfer.detection.engine",
    "captioning": "transfer.captioning.engine",
    "classification": "transfer.classification.engine",
    "segmentation": "transfer.segmentation.engine",
}
PACKAGES = ("pretrain", "transfer", "tools")
OTHER = (".js", ".html", ".jinja")


def python_code(text: str) -> int:
    """The lines of a Python source that hold a token which is neither comment nor docstring."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
        else:
            first = None
        # a text that stands alone documents what is before it (a field), or is the docstring
        texts = [first] if first is not None else []
        if isinstance(node, ast.ClassDef):
            texts += node.body
        for item in texts:
            if (
                isinstance(item, ast.Expr)
                and isinstance(item.value, ast.Constant)
                and isinstance(item.value.value, str)
            ):
                skipped.update(range(item.lineno, item.end_lineno + 1))
    code: set[int] = set()
    quiet = (
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
        tokenize.ENCODING,
    )
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in quiet:
            code.update(range(token.start[0], token.end[0] + 1))
    blank = {n for n, line in enumerate(text.splitlines(), 1) if not line.strip()}
    return len(code - skipped - blank)


def other_code(text: str) -> int:
    """The lines of a template, style sheet or script, less blank ones and comments."""
    text = re.sub(r"/\*.*?\*/|\{#.*?#\}|<!--.*?-->", "", text, flags=re.DOTALL)
    lines = (line.strip() for line in text.splitlines())
    return sum(1 for line in lines if line and not line.startswith("//"))


def code_lines() -> dict[str, int]:
    """Lines of code of each file, by its path from the repository's root."""
    counts = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix == ".py":
                counts[name] = python_code(path.read_text(encoding="utf-8"))
            elif path.suffix in OTHER:
                counts[name] = other_code(path.read_text(encoding="utf-8"))
    return counts


def imported_files(module: str) -> set[Path]:
    """The files of ours that importing a module can load, its own among them, at any depth.

    Imports inside functions count, as do names given as texts to `import_module`.
    """
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        parts = waiting.pop().split(".")
        for length in range(1, len(parts) + 1):  # a package's __init__ comes before what is in it
            base = ROOT.joinpath(*parts[:length])
            for path in (base / "__init__.py", base.with_suffix(".py")):
                if path.exists() and path not in found:
                    found.add(path)
                    waiting += imports(path)
    return found


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at any depth of its code."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name for alias in aliases}
            case ast.ImportFrom(module=str(module), names=aliases, level=0):
                names |= {f"{module}.{alias.name}" for alias in aliases}
            case ast.Call(func=ast.Name(id="import_module"), args=[ast.Constant(value=str(name))]):
                names.add(name)
    return names


def import_lines() -> dict[str, int]:
    """All lines that importing each engine brings, and of all engines together."""
    brought = {engine: imported_files(module) for engine, module in ENGINES.items()}
    brought["together"] = set().union(*brought.values())
    return {
        engine: sum(path.read_text(encoding="utf-8").count("\n") for path in paths)
        for engine, paths in brought.items()
    }


def main() -> None:
    """Print the count of each folder, or of each file, and what importing each engine brings."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", action="store_true")
    each = parser.parse_args().files
    counts = code_lines()
    groups: Counter[str] = Counter()
    for name, count in counts.items():
        parts = name.split("/")
        groups[name if each else "/".join(parts[: min(2, len(parts) - 1)])] += count
    for name, count in sorted(groups.items()):
        print(f"{count:6,}  {name}")
    print(f"{sum(counts.values()):6,}  lines of code in all\n")
    for engine, lines in import_lines().items():
        print(f"{lines:6,}  lines that importing the engine brings: {engine}")


if __name__ == "__main__":
    main()
