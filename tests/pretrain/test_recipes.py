"""Every pretraining recipe builds its network and makes a step; what is known to hurt is said."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch

from pretrain.advice import advice
from pretrain.config import LoaderConfig, MethodConfig, MixingConfig, ModelConfig, PretrainConfig
from pretrain.engine import train_step
from pretrain.setup import build, setup_training
from pretrain.training import make_fabric, micro_batches
from tests.conftest import ROOT
from tools.support.benchmarks import recipes as costs
from tools.support.command import Parser, build_config
from transfer.report import read_runs, tabulate
from transfer.report.comparisons import compare_all

RECIPES = sorted((ROOT / "configs" / "pretrain").glob("*.yaml"))
DOC = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
# arguments that make a large network small; all of it is there still
_NARROW = {"layers": [1, 1, 1, 1], "channels": [16, 32, 64, 128]}
SMALLER = {
    "resnet18_cifar": _NARROW,
    "resnet50": _NARROW,
    "resnet50_dropblock": _NARROW,
    "resnet101": _NARROW,
    "resnet152": _NARROW,
    "resnext101_32x4d": _NARROW,
    "pyramidnet200_a240": {"depth": 11, "alpha": 6},
    "pyramidnet110_a64": {"depth": 11, "alpha": 6},
    "resnet110_cifar_bottleneck": {"depth": 11},
}
# (table, row): top-1 error in percent, as the paper (and, of ResNet-152, the release) prints it
PAPER = {
    ("3", "Baseline"): "23.68", ("3", "Cutout"): "22.93", ("3", "StochDepth"): "22.46",
    ("3", "Mixup"): "22.58", ("3", "Manifold Mixup"): "22.50", ("3", "DropBlock"): "21.87",
    ("3", "Feature CutMix"): "21.80", ("3", "CutMix"): "21.40",
    ("4", "ResNet-101"): "21.87", ("4", "ResNet-101 + Cutout"): "20.72",
    ("4", "ResNet-101 + Mixup"): "20.52", ("4", "ResNet-101 + CutMix"): "20.17",
    ("4", "ResNeXt-101"): "21.18", ("4", "ResNeXt-101 + CutMix"): "19.47",
    ("release", "ResNet-152 + CutMix"): "19.20",
    ("5", "Baseline"): "16.45", ("5", "StochDepth"): "15.86", ("5", "Label smoothing"): "16.73",
    ("5", "Cutout"): "16.53", ("5", "Cutout + label smoothing"): "15.61",
    ("5", "DropBlock"): "15.73", ("5", "DropBlock + label smoothing"): "15.16",
    ("5", "Mixup (alpha 0.5)"): "15.78", ("5", "Mixup (alpha 1.0)"): "15.63",
    ("5", "Manifold Mixup (alpha 1.0)"): "16.14", ("5", "Cutout + Mixup"): "15.46",
    ("5", "Cutout + Manifold Mixup"): "15.09", ("5", "ShakeDrop"): "15.08",
    ("5", "CutMix"): "14.47", ("5", "CutMix + ShakeDrop"): "13.81",
    ("6", "PyramidNet-110"): "19.85", ("6", "PyramidNet-110 + CutMix"): "17.97",
    ("6", "ResNet-110"): "23.14", ("6", "ResNet-110 + CutMix"): "20.11",
    ("7", "Baseline"): "3.85", ("7", "Cutout"): "3.10", ("7", "Mixup (alpha 1.0)"): "3.09",
    ("7", "Manifold Mixup (alpha 1.0)"): "3.15", ("7", "CutMix"): "2.88",
    ("8", "CutMix"): "14.47", ("8", "Center Gaussian CutMix"): "15.95",
    ("8", "Fixed-size CutMix"): "14.97", ("8", "One-hot CutMix"): "15.89",
    ("8", "Scheduled CutMix"): "14.72", ("8", "Complete-label CutMix"): "15.17",
}  # fmt: skip


@cache
def parser() -> Parser:
    """Made once: it takes longer than to read a recipe."""
    made = Parser()
    made.add_configuration(PretrainConfig, str(RECIPES[0]))
    return made


@cache
def load(path: Path) -> PretrainConfig:
    return build_config(PretrainConfig, parser(), parser().parse(["--config", str(path)]))


def reduced(config: PretrainConfig) -> PretrainConfig:
    """With a small network, and small images of a large data set."""
    model = replace(config.model, args=config.model.args | SMALLER.get(config.model.arch, {}))
    dataset = config.dataset
    if dataset.image_size >= 160:
        sizes = replace(dataset.progressive, smallest=32 if dataset.progressive.smallest else None)
        dataset = replace(dataset, image_size=64, progressive=sizes)
    return replace(config, model=model, dataset=dataset)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_makes_a_step(path, worlds, full):
    config = replace(load(path), data=str(worlds["classification"]))
    assert path.stem == config.name
    config = config if full else reduced(config)
    small = replace(config, batch_size=2, loader=LoaderConfig(workers=0))
    fabric = make_fabric("cpu", small.precision)
    setup = build(small)
    state, loaders = setup_training(setup, small, fabric)
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    batch = next(iter(loaders.train.epoch(0)))
    sums = train_step(
        state, loaders, setup, small, fabric, 0, micro_batches(0, [batch], loaders.train, fabric, 0)
    )
    assert torch.isfinite(sums).all()
    after = state.network.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    side = small.dataset.size_at(0)
    assert batch[0].shape == (2, 3, side, side)
    assert batch[0].dtype == torch.uint8


def table_rows() -> list[list[str]]:
    """Cells of the rows of docs/recipes.md that have a recipe, below the rows of leaderboards."""
    rows = DOC.partition("## ImageNet, 300 epochs")[2].splitlines()
    lines = [line for line in rows if line.startswith("|") and ".yaml)" in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def recipe_of(cells: list[str]) -> str:
    (name,) = re.findall(r"\[`(\w+)`\]\(\.\./configs/pretrain/\1\.yaml\)", cells[4])
    return name


def test_the_table_has_every_row_of_the_paper_and_every_recipe():
    rows = {(cells[0], cells[1]): cells[2].split(" ")[0] for cells in table_rows()}
    assert {place: rows.get(place) for place in PAPER} == PAPER
    assert len(rows) == len(table_rows())
    named = {recipe_of(cells) for cells in table_rows()}
    of_paper = {path.stem for path in RECIPES if re.match("imagenet_|cifar_", path.stem)}
    assert named == of_paper


@pytest.mark.parametrize("cells", table_rows(), ids=lambda cells: f"{cells[0]}-{cells[1]}")
def test_a_row_and_its_recipe_say_the_same(cells, full):
    name = recipe_of(cells)
    path = ROOT / "configs" / "pretrain" / f"{name}.yaml"
    text = " ".join(path.read_text().replace("\n#", " ").split())
    head = text.partition(f" name: {name} ")[0]
    assert cells[2].split(" ")[0] + " %" in head
    for word in ("Source:", "Expected:", "Cost:"):
        assert word in head
    config = load(path)
    assert f"{costs.trained(name, config) / 1e6:,.0f}" == cells[5]
    if full or "resnet110" in name:
        work = costs.operations(name, config) / 1e15
        assert f"{work:,.0f}" == cells[6]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_protocol_of_the_paper(path):
    """Section 4.1, and by the authors: rate 0.1 of ResNet-110, half of the batches on CIFAR."""
    config, name = load(path), path.stem
    if not re.match("imagenet_|cifar_", name) or name.endswith("88epochs"):
        return
    optimizer, on_cifar = config.optimizer, name.startswith("cifar_")
    assert (optimizer.name, optimizer.momentum, optimizer.no_decay) == ("sgd", 0.9, "nothing")
    assert (optimizer.weight_decay, optimizer.decay_rate, optimizer.warmup) == (1e-4, 0.1, 0)
    assert (config.epochs, config.batch_size) == (300, 64 if on_cifar else 256)
    assert optimizer.milestones == ((150, 225) if on_cifar else (75, 150, 225))
    assert optimizer.lr == (0.25 if "pyramidnet" in name else 0.1)
    assert config.label_smoothing == (0.1 if "label_smoothing" in name else 0)
    mixing = config.mixing
    half = mixing.method == "cutmix" and "pyramidnet" in name and mixing.ramp == 0
    assert mixing.probability == (0.5 if half else 1.0)
    assert mixing.granularity == "batch"
    if on_cifar:
        assert config.dataset.crop == "padded"
        assert config.dataset.mean == pytest.approx(
            [v / 255 for v in (125.3, 123, 113.9)], abs=1e-4
        )
        assert config.dataset.std == pytest.approx([v / 255 for v in (63, 62.1, 66.7)], abs=1e-4)


def test_operations_are_those_that_others_count():
    """torchvision's metadata, from fvcore: there a product and its sum are one."""
    from torchvision.models import get_model_weights

    stated = {
        arch: get_model_weights(arch).IMAGENET1K_V1.meta["_ops"] * 1e9
        for arch in ("resnet50", "vgg16")
    }
    assert costs.count("resnet50", (), 1000, 224) == pytest.approx(2 * stated["resnet50"], rel=2e-3)
    # VGG-16 without its three fully connected layers, with two of its own
    other = 14 * 14 * 9 * 512 * 1024 + 1024 * 1000 - (25088 * 4096 + 4096 * 4096 + 4096 * 1000)
    counted = costs.count("vgg16_gap", (), 1000, 224)
    assert counted == pytest.approx(2 * (stated["vgg16"] + other), rel=2e-3)


def said(
    parameters: int = 11_000_000, images: int = 1000, cpu: bool = False, **changes
) -> list[str]:
    config = replace(PretrainConfig(epochs=30, model=ModelConfig(arch="resnet18")), **changes)
    return advice(config, parameters=parameters, images=images, on_cpu=cpu)


def test_small_networks_on_short_schedules_are_warned_once_with_the_source():
    (line,) = said()
    assert "openmixup" in line
    assert "--mixing.probability 0.5" in line
    assert "CutMix on 100% of the batches" in line
    both = MixingConfig(method="mixup", others=[MethodConfig(method="cutmix")])
    assert said(mixing=both) == []  # half of the batches
    (line,) = said(mixing=replace(both, weight=0.25), epochs=1)
    assert "CutMix on 80% of the batches" in line
    assert "for 1 epoch of 1,000 images:" in line
    assert said(mixing=MixingConfig(probability=0.5)) == []
    assert said(mixing=MixingConfig(method="mixup")) == []
    assert said(mixing=MixingConfig(ramp=30)) == []
    assert said(epochs=300) == []
    assert said(parameters=25_000_000) == []
    # where a gain was measured, or beyond
    assert said(parameters=4_900_000, images=3000, epochs=80) == []
    assert said(parameters=11_000_000, images=6000, epochs=90) == []
    for less in ({"epochs": 79}, {"images": 2900}, {"images": 50_000}, {"parameters": 4_000_000}):
        assert len(said(**{"parameters": 4_900_000, "images": 3000, "epochs": 80} | less)) == 1


def test_what_the_advice_calls_measured_is_what_the_committed_results_say():
    found = tabulate(read_runs(ROOT / "docs/results/imagenette"))
    differences = {
        one.row.recipe: one.difference
        for one in compare_all(found, "")
        if one.row.method == "cutmix" and one.column.metric.key == "top1"
    }
    means = {name: f"{one.mean:+.1f} ± {one.half_width:.1f}" for name, one in differences.items()}
    assert differences["imagenette_cpu"].n == 5
    (line,) = said()
    ten = means["imagenette_cpu_300x10"], means["imagenette_cpu_all10"]
    assert f"{ten[0]} and {ten[1]} after 10 epochs of 3,000 and 9,469 images" in line
    assert f"{means['imagenette_cpu']} after 80 of 3,000" in line
    for name in ("imagenette_cpu_300x30", "imagenette_cpu_100x80"):  # no difference shown
        assert abs(differences[name].mean) < differences[name].half_width


def test_a_schedule_beyond_the_end_is_noticed():
    for options, words in (({"ramp": 31}, "never rises"), ({"off_after": 31}, "changes nothing")):
        (line,) = said(mixing=MixingConfig(method="mixup", **options))
        assert "is 31, beyond the end of this run of 30 epochs: " in line
        assert words in line
    assert said(mixing=MixingConfig(method="mixup", ramp=30, off_after=30)) == []


def test_days_on_a_cpu_are_announced():
    imagenet = {"parameters": 25_000_000, "images": 1_281_167, "epochs": 300}
    (line,) = said(cpu=True, **imagenet)
    assert "take days on a CPU" in line
    assert "--dry-run" in line
    assert said(cpu=False, **imagenet) == []
    assert said(cpu=True, parameters=25_000_000, images=5000) == []
