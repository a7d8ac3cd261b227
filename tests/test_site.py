"""The documentation builds without a warning, and all that its pages refer to is there."""

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent
TAG = re.compile(r"<(\w+) ([^<>]*)>")
ATTRIBUTE = re.compile(r'\b(id|name|src|srcset|href)="([^"]*)"')


def test_the_site_is_complete_and_needs_no_network(tmp_path):
    pytest.importorskip("mkdocstrings_handlers.python", reason="needs cutmix-transfer[docs]")
    # no --quiet: it would hide warnings from --strict
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", tmp_path]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr

    names: dict[Path, set[str]] = {}
    references: list[tuple[Path, str, str]] = []
    for page in set(tmp_path.rglob("*.html")) - {tmp_path / "404.html"}:  # it is for the root
        tags = TAG.findall(page.read_text("utf-8"))
        found = [(tag, *pair) for tag, text in tags for pair in ATTRIBUTE.findall(text)]
        names[page] = {value for _, kind, value in found if kind in ("id", "name")}
        references += [(page, tag, v) for tag, kind, v in found if kind not in ("id", "name")]
    assert len(names) > 80
    for page, tag, target in references:
        if re.match(r"\w+:|//", target):
            assert tag == "a", f"{page} fetches {target}"
            continue
        path, _, name = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        there = there / "index.html" if there.is_dir() else there
        assert there.is_file(), f"{page} refers to {target}"
        assert not name or there not in names or name in names[there], f"{page}: {target}"
