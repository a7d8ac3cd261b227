"""What the README and the recipes promise."""

import json
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from scipy.stats import ttest_1samp

from pretrain.config import PretrainConfig
from tests.conftest import ROOT
from tools.support.command import load_config
from transfer.captioning.config import CaptioningConfig
from transfer.classification.config import ClassificationConfig
from transfer.detection.config import DetectionConfig
from transfer.report import read_runs, tabulate, to_markdown
from transfer.report.comparisons import Comparison, compare_all
from transfer.report.crossing import TIMES, crossing_files
from transfer.report.markdown import find_tables
from transfer.segmentation.config import SegmentationConfig

README = (ROOT / "README.md").read_text(encoding="utf-8")
PRIMARY = "cutmix - none: top1, imagenette_cpu"
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "configs").rglob("*.yaml"))
# in docs/results
RUNS = {"embedded_grid": 16, "imagenette": 124, "imagenette_rates": 6,
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


def study_differences() -> dict[str, dict[int, float]]:
    """{cell: {seed: CutMix - none, last epoch}} of the committed study."""
    cells: dict[str, dict[int, float]] = {}
    for plain in (ROOT / "docs/results/imagenette").glob("*/pretrain/none-seed*/result.json"):
        mixed = plain.parent.with_name(plain.parent.name.replace("none", "cutmix")) / plain.name
        top1 = [json.loads(path.read_text())["metrics"]["top1"] for path in (mixed, plain)]
        cell, seed = plain.parts[-4], int(plain.parent.name.rpartition("seed")[2])
        cells.setdefault(cell, {})[seed] = top1[0] - top1[1]
    return cells


def test_what_the_text_says_of_the_study_is_what_its_results_say():
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    cells = study_differences()
    named = sorted(cells["300x80"].values())
    assert f"every pair between {named[0]:+.1f} and {named[-1]:+.1f})" in text
    cell = rf"\w+ {TIMES} \d+"
    lines = re.findall(rf"\| ({cell}), minus ({cell}): ([^|]*) \| (?:< )?([\d.]+) \|", text)
    assert len(lines) == 5
    for one, other, difference, p in lines:
        ours, theirs = (
            cells[name.replace(f" {TIMES} ", "x").replace("allx", "all")] for name in (one, other)
        )
        between = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        test = ttest_1samp(between, 0)
        low, high = test.confidence_interval(0.95)
        assert difference == f"{(low + high) / 2:+.1f} ± {(high - low) / 2:.1f}"
        assert float(p) == pytest.approx(max(test.pvalue, 0.001), abs=0.0005)


# row of the text -> (task or suite, metric, data) of each figure in it
CARRIED = {
    "CIFAR-10, linear": [
        ("classification", "linear_top1", "cifar10"),
        ("classification", "knn_top1", "cifar10"),
    ],
    "flowers: linear": [
        ("classification", "linear_top1", "flowers"),
        ("classification", "knn_top1", "flowers"),
        ("classification", "full_top1", "flowers"),
    ],
    "Faster R-CNN, AP50": [("detection", "AP50", "BCCD"), ("detection", "AP50", "cardsvoc")],
    "captions, BLEU-4": [("captioning", "Bleu_4", "coco-mini"), ("captioning", "Bleu_4", "coco1")],
    "captions, CIDEr": [("captioning", "CIDEr", "coco-mini"), ("captioning", "CIDEr", "coco1")],
    "FGSM, top-1": [
        ("robustness", "fgsm_pixels_top1", "imagenette112"),
        ("robustness", "fgsm_normalised_top1", "imagenette112"),
    ],
    "flowers and CIFAR-10": [("ood", "auroc_without_noise", "imagenette112")],
    "the same, with two sets": [("ood", "auroc", "imagenette112")],
    "calibration error": [
        ("calibration", "ece", "imagenette112"),
        ("calibration", "ece_scaled", "imagenette112"),
    ],
}


@pytest.mark.parametrize("name", CARRIED)
def test_what_the_text_says_of_transfers_is_what_their_results_say(name):
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name}"))
    _, _, figures, verdict, *_ = line.split("|")
    found = [one for key in CARRIED[name] for one in study_comparisons() if is_of(one, key)]
    differences = [one.difference for one in found]
    assert [one.n for one in differences] == [5] * len(CARRIED[name])
    assert figures.strip() == "; ".join(
        f"{one.mean:+.1f} ± {one.half_width:.1f}" for one in differences
    )
    shown = dict.fromkeys("shown" if one.is_shown else "not shown" for one in found)
    words = re.sub(r"better, |worse, |\*", "", verdict)
    assert dict.fromkeys(part.strip() for part in words.split(";")) == shown


@cache
def study_comparisons() -> list[Comparison]:
    """CutMix - none in the named cell."""
    found = compare_all(tabulate(read_runs(ROOT / "docs/results/imagenette")), PRIMARY)
    return [
        one for one in found if (one.row.method, one.row.recipe) == ("cutmix", "imagenette_cpu")
    ]


def is_of(one: Comparison, key: tuple[str, str, str]) -> bool:
    setting = one.column.setting
    return (setting.task, one.column.metric.key) == key[:2] and setting.data.startswith(key[2])


@pytest.mark.parametrize(("cell", "said"), [("300x80", "52 or 53"), ("100x80", "46 to 52")])
def test_from_when_on_the_plain_networks_fit_their_images(cell, said):
    logs = (ROOT / "docs/results/imagenette" / cell / "pretrain").glob("none-seed*/log.jsonl")
    first = set()
    for log in logs:
        lines = map(json.loads, log.read_text().splitlines())
        first.add(1 + max(one["epoch"] for one in lines if one["train_accuracy"] < 99))
    assert f"{min(first)}" == said.split()[0]
    assert f"{max(first)}" == said.split()[-1]
    assert f"(above 99 % from epoch {said} on)" in (ROOT / "docs/results.md").read_text()
    if cell == "300x80":
        assert f"fits (above 99 %) for the last {80 - max(first) + 1}." in README


def test_the_picture_in_the_readme_is_that_of_the_committed_results():
    study = ROOT / "docs/results/imagenette"
    compared = compare_all(tabulate(read_runs(study)), PRIMARY)
    for theme, picture in crossing_files(compared).items():
        path = ROOT / f"docs/crossing_{theme}.svg"
        assert path.read_text() == picture, "python tools/report.py ... --crossing docs/crossing"
        assert f"docs/{path.name}" in README
