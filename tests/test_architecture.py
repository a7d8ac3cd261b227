"""The arrows of the house, read from the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOORS = {
    "backbone",
    "spec",
    "run",
    "training",
    "synthetic",
    "errors",
    "check_results",
    "audit",
    "progress",
    "images",
    "models",
    "torch_file",
    "safe_pickle",
}
CLI = {"jsonargparse", "argparse"}
FILES = sorted(
    path.relative_to(ROOT)
    for room in ("pretrain", "transfer", "tools")
    for path in (ROOT / room).rglob("*.py")
)


def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def violations(path: Path, names: set[str]) -> list[str]:
    """The imports of `path` that go against an arrow."""
    room, *inner = path.with_suffix("").parts
    bad = []
    for name in names:
        top, *rest = name.split(".")
        if top == "tools" and room != "tools":
            bad.append(name)
        if room == "pretrain":
            if top in {"transfer", "detectron2", "pycocotools", "nltk", *CLI}:
                bad.append(name)
            is_door = inner[0] in DOORS
            if top == "pretrain" and is_door and rest and rest[0] not in DOORS:
                bad.append(name)
        if room == "transfer":
            if top in CLI or (top == "detectron2" and inner[0] != "detection"):
                bad.append(name)
            if top == "pretrain" and rest[0] not in DOORS:
                bad.append(name)
            tasks = {"classification", "detection", "captioning"}
            is_other = top == "transfer" and rest[0] in tasks and rest[0] != inner[0]
            if is_other or (top == "transfer" and inner[0] in tasks and rest[0] == "report"):
                bad.append(name)
    return bad


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_follow_the_arrows(path):
    assert violations(path, imports(path)) == []


def test_the_rule_can_be_broken():
    task = Path("transfer/detection/engine.py")
    assert violations(task, {"transfer.captioning.nic"})
    assert violations(task, {"pretrain.mixing.CutMix"})
    assert violations(task, {"tools.command"})
    assert violations(Path("pretrain/run.py"), {"pretrain.engine"})
    assert violations(Path("pretrain/engine.py"), {"transfer.hub"})
    assert violations(Path("transfer/hub.py"), {"detectron2.modeling"})
    assert not violations(task, {"pretrain.backbone.Backbone", "detectron2.modeling"})


@pytest.mark.parametrize("path", FILES, ids=str)
def test_files_stay_readable(path):
    lines = (ROOT / path).read_text(encoding="utf-8").count("\n")
    assert lines <= 350, f"{path} has {lines} lines"


def test_from_the_tool_to_the_score_in_six_short_files():
    """A reader's way from tools/finetune_det.py to the number it prints."""
    way = [
        "tools/finetune_det.py",
        "transfer/detection/engine.py",
        "transfer/detection/voc.py",
        "transfer/detection/faster_rcnn.py",
        "transfer/detection/dataset.py",
        "transfer/detection/average_precision.py",
    ]
    assert len(way) <= 6
    for step in way:
        assert (ROOT / step).read_text(encoding="utf-8").count("\n") < 300
    assert "transfer.detection.engine.finetune" in imports(Path(way[0]))
    assert "transfer.detection.average_precision.evaluate" in imports(Path(way[1]))
