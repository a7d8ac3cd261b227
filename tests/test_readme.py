"""What the README and the recipes promise."""

import re
import shlex
from pathlib import Path

import pytest

from pretrain.config import PretrainConfig
from tests.conftest import ROOT
from tools.support.command import load_config
from transfer.captioning.config import CaptioningConfig
from transfer.classification.config import ClassificationConfig
from transfer.detection.config import DetectionConfig
from transfer.report import read_runs, tabulate, to_markdown
from transfer.report.comparisons import compare_all
from transfer.report.crossing import crossing_files
from transfer.report.markdown import find_tables
from transfer.segmentation.config import SegmentationConfig

README = (ROOT / "README.md").read_text(encoding="utf-8")
PRIMARY = "cutmix - none: top1, imagenette_cpu"
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
# in docs/results
RUNS = {"embedded_grid": 16, "imagenette": 314, "imagenette_rates": 6,
        "evaluation_suites": 18, "hard_grid": 16, "lite0_transfer": 16,
        "localisation_shapes": 6, "mixing_family": 28, "rewards": 6,
        "segmentation": 41, "ssd": 12}  # fmt: skip
KINDS = {
    "pretrain": PretrainConfig,
    "detection": DetectionConfig,
    "captioning": CaptioningConfig,
    "classification": ClassificationConfig,
    "segmentation": SegmentationConfig,
}


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_every_recipe_parses_and_says_its_source_and_cost(path):
    if path.parts[1] in KINDS:  # studies and sweeps have tests of their own
        assert load_config(KINDS[path.parts[1]], ROOT / path).name == path.stem
    head = "".join(line for line in (ROOT / path).open() if line.startswith("#"))
    assert "Source:" in head or "as demo.yaml" in head
    assert "Cost:" in head


def test_the_first_screen_has_two_commands():
    screen = "\n".join(README.splitlines()[:45])
    blocks = re.findall(r"```(?:sh|bash)\n(.*?)```", screen, re.DOTALL)
    assert len(blocks) == 2
    assert "tools/transfer.py" in blocks[0]
    assert "pytest" in blocks[1]


def test_commands_name_tools_and_recipes_that_exist():
    text = README + (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    commands = re.findall(r"python (tools/\w+\.py[^\n`]*)", text)
    assert len(commands) > 5
    for command in commands:
        words = shlex.split(command.replace("\\", ""), comments=True)
        assert (ROOT / words[0]).exists(), command
        for word in words:
            if word.startswith("configs/") and "X.yaml" not in word:
                assert (ROOT / word).exists(), command


def test_files_that_are_linked_exist():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
            if not link.startswith("http"):
                assert (document.parent / link).exists(), f"{document.name}: {link}"


def test_the_tables_in_the_docs_are_those_of_the_committed_results():
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    places = find_tables(text, "docs/results.md")
    folders = {path for path in (ROOT / "docs" / "results").iterdir() if path.is_dir()}
    folders.remove(ROOT / "docs" / "results" / "sweep_cifar10")  # tests/tools/test_sweep.py
    assert {ROOT / "docs" / place.folder for place in places} == folders
    for name, primary, inside in places:
        found = read_runs(ROOT / "docs" / name)
        assert len(found.runs) == RUNS[Path(name).name], name
        assert not found.complaints, name
        assert text[inside].strip() == to_markdown(tabulate(found), found, primary).strip(), name


def test_the_picture_in_the_readme_is_that_of_the_committed_results():
    study = ROOT / "docs/results/imagenette"
    compared = compare_all(tabulate(read_runs(study)), PRIMARY)
    for theme, picture in crossing_files(compared).items():
        path = ROOT / f"docs/crossing_{theme}.svg"
        assert path.read_text() == picture, "python tools/report.py ... --crossing docs/crossing"
        assert f"docs/{path.name}" in README
