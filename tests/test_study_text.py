"""What docs/results.md and the README say of the study, computed from its committed results."""

import json
import re
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest
from scipy.stats import chi2, ttest_1samp
from scipy.stats import t as students

from tests.conftest import ROOT
from tests.test_readme import PRIMARY, README
from transfer.report import read_runs, tabulate
from transfer.report.comparisons import Comparison, compare_all
from transfer.report.crossing import TIMES, crossings
from transfer.report.order import orders, published_values
from transfer.report.table import RANDOM, Setting, Table
from transfer.statistics import Difference, holm, pairs_needed

STUDY = ROOT / "docs/results/imagenette"
BOARD = STUDY / "board"
TEXT = (ROOT / "docs/results.md").read_text(encoding="utf-8")
FLAT = " ".join(TEXT.split())


def study_differences() -> dict[str, dict[int, float]]:
    """{cell: {seed: CutMix - none, last epoch}} of the committed study."""
    cells: dict[str, dict[int, float]] = {}
    for plain in STUDY.glob("*/pretrain/none-seed*/result.json"):
        mixed = plain.parent.with_name(plain.parent.name.replace("none", "cutmix")) / plain.name
        top1 = [json.loads(path.read_text())["metrics"]["top1"] for path in (mixed, plain)]
        cell, seed = plain.parts[-4], int(plain.parent.name.rpartition("seed")[2])
        cells.setdefault(cell, {})[seed] = top1[0] - top1[1]
    return cells


def test_what_the_text_says_of_the_study_is_what_its_results_say():
    cells = study_differences()
    named = sorted(cells["300x80"].values())
    assert f"every pair between {named[0]:+.1f} and {named[-1]:+.1f})" in TEXT
    cell = rf"\w+ {TIMES} \d+"
    lines = re.findall(rf"\| ({cell}), minus ({cell}): ([^|]*) \| (?:< )?([\d.]+) \|", TEXT)
    assert len(lines) == 5
    found = []
    for one, other, difference, p in lines:
        ours, theirs = (
            cells[name.replace(f" {TIMES} ", "x").replace("allx", "all")] for name in (one, other)
        )
        between = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
        test = ttest_1samp(between, 0)
        low, high = test.confidence_interval(0.95)
        assert difference == f"{(low + high) / 2:+.1f} ± {(high - low) / 2:.1f}"
        assert float(p) == pytest.approx(max(test.pvalue, 0.001), abs=0.0005)
        found.append(float(test.pvalue))
    assert [p <= 0.05 for p in holm(found)] == [True, True, False, False, False]
    assert "after Holm over these five only the two rows of *longer* stand" in TEXT


@cache
def study_table() -> Table:
    return tabulate(read_runs(STUDY))


@cache
def every_comparison() -> list[Comparison]:
    return compare_all(study_table(), PRIMARY)


@cache
def steps_of_the_study() -> set[Setting]:
    """Of the columns in which all its methods stand, unlike those of the board alone."""
    return {one.column.setting for one in every_comparison() if one.row.method == "mixup"}


def study_comparisons(method: str = "cutmix") -> list[Comparison]:
    """The method - none in the named cell, of three pairs or more."""
    named = (method, "imagenette_cpu")
    return [
        one
        for one in every_comparison()
        if (one.row.method, one.row.recipe) == named
        and one.has_test
        and one.column.setting in steps_of_the_study()
    ]


def is_of(one: Comparison, key: tuple[str, str, str]) -> bool:
    setting = one.column.setting
    return (setting.task, one.column.metric.key) == key[:2] and setting.data.startswith(key[2])


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


OTHERS = ("mixup", "cutout", "resizemix")


def in_text(difference: Difference) -> str:
    """Mean and half of the 95 % interval."""
    return f"{difference.mean:+.1f} ± {difference.half_width:.1f}"


def lines_under(head: str) -> list[str]:
    """Of the table whose first line begins so."""
    after = TEXT[TEXT.index(f"\n{head}") + 1 :].partition("\n\n")[0]
    return after.splitlines()[2:]


@pytest.mark.parametrize("name", CARRIED)
def test_what_the_text_says_of_transfers_is_what_their_results_say(name):
    lines = lines_under("| | CutMix - none | | the paper |")
    (line,) = (line for line in lines if line.startswith(f"| {name}"))
    figures, verdict, papers = (cell.strip(" *") for cell in line.split("|")[2:5])
    found = [one for key in CARRIED[name] for one in study_comparisons() if is_of(one, key)]
    differences = [one.difference for one in found]
    assert [one.n for one in differences] == [5] * len(CARRIED[name])
    assert figures == "; ".join(map(in_text, differences))
    is_better = [(one.difference.mean > 0) != one.column.metric.less for one in found]
    verdicts = [
        f"{'better' if better else 'worse'}, shown" if one.is_shown else "not shown"
        for one, better in zip(found, is_better, strict=True)
    ]
    assert verdict.replace("*", "") == "; ".join(verdicts if len({*verdicts}) > 1 else verdicts[:1])
    published = [values for one in found for _, values in published_values(one.column)]
    gains = {f"{values['cutmix'] - values['none']:+.1f}" for values in published}
    assert {papers} == (gains or {""})


@pytest.mark.parametrize("name", ["Imagenette, top-1", *CARRIED])
def test_what_the_text_says_of_the_other_methods_is_what_their_results_say(name):
    lines = lines_under("| | Mixup - none | Cutout - none | ResizeMix - none |")
    (line,) = (line for line in lines if line.startswith(f"| {name}"))
    keys = CARRIED.get(name, [("pretrain", "top1", "imagenette112")])
    for method, cell in zip(OTHERS, line.split("|")[2:5], strict=True):
        found = [one for key in keys for one in study_comparisons(method) if is_of(one, key)]
        assert [one.difference.n for one in found] == [3] * len(keys)
        texts = [in_text(one.difference) for one in found]
        marks = ["**" if one.is_shown else "" for one in found]
        said = "; ".join(f"{mark}{text}{mark}" for mark, text in zip(marks, texts, strict=True))
        assert cell.strip() == said


def test_what_the_text_says_of_the_papers_orders():
    found = {
        (one.column.setting.task, one.column.metric.key, one.column.setting.data.split(" ")[0]): one
        for one in orders(study_table())
    }
    assert {one.n for one in found.values()} == {3}
    top1 = found["pretrain", "top1_best", "imagenette112"]
    assert (top1.agreeing, len(top1.pairs)) == (6, 6)
    values = ", ".join(f"{name} {value:.1f}" for name, value in top1.ours.items())
    assert f"in full, {values}, though" in TEXT.lower()
    smears, cards = (found["detection", "AP50", data].ours for data in ("BCCD", "cardsvoc"))
    assert [*smears].index("mixup") == 1
    assert next(iter(cards)) == "none"
    assert f"the cards {cards['none'] - cards['mixup']:.1f} behind the plain network" in TEXT
    keys = CARRIED["Faster R-CNN, AP50"]
    able = [one.difference.detectable for key in keys for one in study_comparisons("mixup")
            if is_of(one, key)]  # fmt: skip
    assert f"found {able[0]:.1f} and {able[1]:.1f} points four times out of five" in TEXT
    for key in ("fgsm_pixels_top1", "fgsm_normalised_top1"):
        fgsm = found["robustness", key, "imagenette112"]
        first, *_, last = fgsm.ours
        assert (first, last, fgsm.agreeing) == ("none", "cutmix", 0)
        (pair,) = (one for one in fgsm.pairs if (one.better, one.worse) == ("cutmix", "none"))
        assert pair.is_shown
        assert pair.difference.mean < 0
    foreign = found["ood", "auroc", "imagenette112"]
    first, *_, last = foreign.ours
    assert (first, last) == ("cutout", "cutmix")
    assert not any(pair.is_shown for one in (top1, foreign) for pair in one.pairs)


def test_figures_between_the_tables():
    found = [one for key in CARRIED["Faster R-CNN, AP50"] for one in study_comparisons()
             if is_of(one, key)]  # fmt: skip
    smears, cards = (one.pairs_needed for one in found)
    assert f"by {smears} such pairs on the blood smears and {cards} on the cards" in FLAT
    ranges = [
        " to ".join(f"{pairs_needed(one.difference.deviation * factor)}" for factor in
                    (4 / chi2.isf([0.025, 0.975], 4)) ** 0.5)
        for one in found
    ]  # fmt: skip
    assert f"({ranges[0]} and {ranges[1]}, as five pairs do not know" in FLAT
    (error,) = (one for one in study_comparisons() if is_of(one, CARRIED["calibration error"][0]))
    plain, mixed = (error.table.cells[row, error.column].mean for row in (error.other, error.row))
    assert f"({plain:.1f} to {mixed:.1f} %)" in FLAT


def value(folder: Path, key: str) -> float:
    """Of a result, as the tables show it."""
    found = json.loads((folder / "result.json").read_text())
    for part in f"metrics.{key}".split("."):
        found = found[part]
    return found * (100 if "CIDEr" in key or "Bleu" in key else 1)


def interval(pairs: list[float]) -> tuple[str, float]:
    """Mean and half of the 95 % interval; p."""
    test = ttest_1samp(pairs, 0)
    low, high = test.confidence_interval(0.95)
    return f"{(low + high) / 2:+.1f} ± {(high - low) / 2:.1f}", test.pvalue


def between(step: str, key: str, method: str, other: str = "none", n: int = 3) -> tuple[str, float]:
    """The interval of method - other, seeds 1 to n of the named cell."""
    runs = STUDY / "300x80" / step
    return interval([
        value(runs / f"{method}-seed{seed}", key) - value(runs / f"{other}-seed{seed}", key)
        for seed in range(1, n + 1)
    ])  # fmt: skip


def test_what_the_text_says_of_the_last_epoch_of_captions():
    shapes, p = between("shapes", "val_CIDEr_last", "cutmix", n=5)
    photographs, _ = between("coco", "val_CIDEr_last", "cutmix", n=5)
    assert f"differs by {shapes} (p = {p:.3f} before correction)" in TEXT
    assert f"of MS-COCO by {photographs}." in TEXT
    runs = [json.loads(run.read_text()) for run in STUDY.glob("300x80/coco/*/result.json")]
    scores = {one["seed"]: one["metrics"]["Bleu_4"] for one in runs
              if one["backbone"]["method"] == "none"}  # fmt: skip
    different = sorted(one["metrics"]["different_captions"] for one in runs)
    assert (len(runs), different[:2], different[2] > 10) == (19, [4, 6], True)
    assert f"two networks of {len(runs)} are best with 4 and 6 different captions" in FLAT
    assert scores[4] == pytest.approx(0, abs=1e-5)
    (low, *_), mixed = sorted(scores.values()), [
        one for one in runs if one["backbone"]["method"] == "cutmix" and one["seed"] != 4
    ]  # fmt: skip
    assert low == scores.pop(4)
    rest = fmean(100 * (one["metrics"]["Bleu_4"] - scores[one["seed"]]) for one in mixed)
    assert f"without which +1.1 would be {rest:+.1f}." in TEXT


def test_what_the_text_says_of_occlusion():
    centre, boundary = (
        {name: between("suites", f"robustness.occlusion_{part}", name, n=n)[0]
         for name, n in (("cutmix", 5), *((name, 3) for name in OTHERS))}
        for part in ("centre", "boundary")
    )  # fmt: skip
    assert f"costs CutMix less ({centre['cutmix']}), all but the centre more " in FLAT
    assert f"({boundary['cutmix']}), beside the plain network" in FLAT
    assert f"Cutout gains {centre['cutout']} and {boundary['cutout']}, Mixup" in FLAT
    assert f"Mixup {centre['mixup']} and {boundary['mixup']}, ResizeMix" in FLAT
    assert f"ResizeMix {centre['resizemix']} and {boundary['resizemix']}." in FLAT


def test_cutmix_beside_the_other_methods():
    tests = {method: between("pretrain", "top1", "cutmix", method) for method in OTHERS}
    mixup, cutout, resizemix = (text for text, _ in tests.values())
    p = tests["resizemix"][1]
    best, _ = between("pretrain", "top1_best", "cutmix", "resizemix")
    assert (
        f"better than Cutout or Mixup: top-1 of the last epoch {cutout} and {mixup}. Beside "
        f"ResizeMix it is {resizemix} (p = {p:.3f}, which stands after Holm over these three, "
        f"not over all tests; of the best epoch {best})." in FLAT
    )
    assert [one <= 0.05 for one in holm([p for _, p in tests.values()])] == [False, False, True]
    assert p * sum(one.has_test for one in every_comparison()) > 0.05
    beside = {name: between("pretrain", "top1", name)[0] for name in OTHERS}
    assert (
        f"Cutout ({beside['cutout']} beside the plain network, three seeds) or Mixup "
        f"({beside['mixup']}), nor over all tests than ResizeMix ({beside['resizemix']})."
        in " ".join(README.split())
    )
    count = sum(one.has_test and not one.is_primary for one in every_comparison())
    assert students.isf(0.05 / count / 2, 2) == pytest.approx(50, abs=5)
    assert "differences of some 50 standard errors" in FLAT


def test_columns_of_the_board_that_three_pairs_of_ours_have():
    found = [
        one
        for one in every_comparison()
        if (one.row.method, one.other.method) == ("cutmix", "none")
        and one.row.recipe == "imagenette_cpu"
        and one.column.setting not in steps_of_the_study()
        and one.has_test
    ]
    texts = {one.column.metric.key: in_text(one.difference) for one in found}
    (tuned,) = (one for one in found if one.column.metric.key == "full_top1")
    assert (
        f"tenth of the rates fine-tuning on flowers differs by {texts['full_top1']} (p = "
        f"{tuned.difference.p:.3f} before correction), at 128 pixels its probe by "
        f"{texts['linear_top1']}." in FLAT
    )
    assert {one.difference.n for one in found} == {3}
    assert not any(one.is_shown for one in found)


def test_foreign_images_that_share_no_class_with_the_known_ones():
    flowers, _ = between("suites", "ood.sets.flowers.max_softmax.auroc", "cutmix", n=5)
    assert f"flowers alone the AUROC differs by {flowers}." in FLAT


def test_the_one_cell_that_is_shown_over_all_tests():
    cells = {
        one.row.recipe
        for one in every_comparison()
        if one.is_shown and one.column.metric.key == "top1"
    }
    assert cells == {"imagenette_cpu", "imagenette_cpu_all10"}
    assert f"only that of all {TIMES} 10 is" in TEXT


def test_the_cells_of_the_study_are_those_of_the_picture():
    (chart,) = crossings(every_comparison())
    rows = re.findall(rf"^\| (.+ {TIMES} \d+) \|.*\| ([\d.]+) %.*\| (.*) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 5
    for name, fitted, said in rows:
        cell = name.replace(" (9,469)", "")
        drawn = re.search(rf"cutmix, {cell}: (\S+) ± (\S+), n=\d", chart.svg)
        mean, half = float(drawn[1]), float(drawn[2])
        shown = "shown" if abs(mean) > half else "not shown"
        is_primary = cell == f"300 {TIMES} 80"
        assert said == f"{drawn[1]}, {'named beforehand' if is_primary else shown}"
        folder = cell.replace(f" {TIMES} ", "x").replace("allx", "all")
        runs = (STUDY / folder / "pretrain").glob("none-*/result.json")
        ends = [json.loads(run.read_text())["metrics"]["train_accuracy"] for run in runs]
        assert f"{fmean(ends):.{len(fitted.partition('.')[2])}f}" == fitted


@pytest.mark.parametrize(("cell", "said"), [("300x80", "52 or 53"), ("100x80", "46 to 52")])
def test_from_when_on_the_plain_networks_fit_their_images(cell, said):
    logs = (STUDY / cell / "pretrain").glob("none-seed*/log.jsonl")
    first = set()
    for log in logs:
        lines = map(json.loads, log.read_text().splitlines())
        first.add(1 + max(one["epoch"] for one in lines if one["train_accuracy"] < 99))
    assert f"{min(first)}" == said.split()[0]
    assert f"{max(first)}" == said.split()[-1]
    assert f"(above 99 % from epoch {said} on)" in TEXT
    if cell == "300x80":
        assert f"fits (above 99 %) for the last {80 - max(first) + 1}." in README


# column of the board -> (results of published and of their random weights, results of ours,
#                         metric) of each figure in it
ON_BOARD = {
    "CIFAR-10: probe; k-NN": [
        ("others/classification", "300x80/cifar10", "linear_top1"),
        ("others/classification", "300x80/cifar10", "knn_top1"),
    ],
    "flowers: probe; k-NN": [
        ("flowers/classification", "300x80/flowers", "linear_top1"),
        ("flowers/classification", "300x80/flowers", "knn_top1"),
    ],
    "at 128 pixels": [
        ("flowers128/classification", "board/flowers128_own/classification", "linear_top1"),
        ("flowers128/classification", "board/flowers128_own/classification", "knn_top1"),
    ],
    "fine-tuned; a tenth of the rates": [
        ("flowers/classification", "300x80/flowers", "full_top1"),
        ("flowers_slow/classification", "board/flowers_slow_own/classification", "full_top1"),
    ],
    "AP50: smears; cards": [
        ("photographs/detection", "300x80/bccd", "AP50"),
        ("others/detection", "300x80/cards", "AP50"),
    ],
    "CIDEr: MS-COCO; shapes": [
        ("photographs/captioning", "300x80/coco", "CIDEr"),
        ("others/captioning", "300x80/shapes", "CIDEr"),
    ],
}
NETWORKS = {
    "EfficientNet-Lite0": ("lite0", "tf_efficientnet_lite0"),
    "EfficientNet-Lite1": ("lite1", "tf_efficientnet_lite1"),
    "EfficientNet-Lite2": ("lite2", "tf_efficientnet_lite2"),
    "MobileNetV2": ("mobilenetv2", "mobilenetv2_100"),
}


@cache
def board() -> dict[str, dict[str, list[list[float]]]]:
    """{row: {column: for each figure in it, the values of its runs}}."""
    heads = {name: f"{run}-seed1" for name, (run, _) in NETWORKS.items()}
    heads |= {f"{name}, random": f"{arch}-random-seed1" for name, (_, arch) in NETWORKS.items()}
    ours = {f"ResNet-10-T, {name}": name for name in ("none", "cutmix", "random")}

    def runs(name: str, theirs: str, own: str) -> list[Path]:
        if name in heads:
            return [*(BOARD / theirs).glob(heads[name])]
        if ours[name] == "random":
            folders = {BOARD / "random" / Path(own).name: "", STUDY / own: "resnet10t-"}
        else:
            folders = {STUDY / own: ""}
        return sorted(
            run
            for folder, prefix in folders.items()
            for run in folder.glob(f"{prefix}{ours[name]}-seed[123]")
        )

    return {
        name: {
            head: [[value(run, key) for run in runs(name, *of)] for *of, key in column]
            for head, column in ON_BOARD.items()
        }
        for name in (*heads, *ours)
    }


def board_line(name: str) -> str:
    """As the text has it; a figure that was not measured is "not run"."""
    cells = []
    for column in board()[name].values():
        figures = [f"{fmean(values):.1f}" if values else "not run" for values in column]
        cells.append("; ".join(figures if any(column) else figures[:1]))
    return f"| {' | '.join([name, *cells])} |"


def test_the_board_of_published_backbones():
    lines = lines_under(f"| | {' | '.join(ON_BOARD)} |")
    assert lines == [board_line(name) for name in board()]


def test_what_the_text_says_of_random_weights_of_our_network():
    plain, random = (board()[f"ResNet-10-T, {name}"] for name in ("none", "random"))
    (cifar10, _), (probe, _), (big, _), (tuned, slow), (smears, cards), (coco, shapes) = (
        [
            interval([one - other for one, other in zip(*values, strict=True)])[0]
            for values in zip(plain[column], random[column], strict=True)
        ]
        for column in ON_BOARD
    )
    assert f"probes of CIFAR-10 {cifar10} and of flowers {probe} (at 128 pixels {big})" in FLAT
    assert f"fine-tuned on flowers {tuned} (at a tenth of the rates {slow}), CIDEr" in FLAT
    assert f"CIDEr of MS-COCO {coco} and of the shapes {shapes}. Detectors" in FLAT
    assert f"on the cards {cards}, on the blood smears {smears}, where" in FLAT
    (values, _) = random["AP50: smears; cards"]
    assert f"random weights (AP50 {fmean(values):.1f}) are above all five methods" in FLAT
    for method in ("none", "cutmix", *OTHERS):
        runs = (STUDY / "300x80/bccd" / f"{method}-seed{seed}" for seed in (1, 2, 3))
        assert all(value(run, "AP50") < of for run, of in zip(runs, values, strict=True))
    beside = [one for one in every_comparison() if one.other.method == RANDOM and one.has_test]
    assert [one.is_shown for one in beside] == [False] * 18


def span(values: list[float], more: str = " to ") -> str:
    return f"{min(values):.1f}{more}{max(values):.1f}"


def test_what_the_text_says_of_the_board():
    found = board()
    figure = {
        name: [fmean(values) if values else None for column in row.values() for values in column]
        for name, row in found.items()
    }

    def of(index: int, names: list[str], less: str = "") -> list[float]:
        """Of one figure; minus that of the same network with random weights."""
        values = [(figure[name][index], figure[f"{name}{less}"][index]) for name in names]
        return [one - (other if less else 0) for one, other in values]

    published, random = [*NETWORKS], [f"{name}, random" for name in NETWORKS]
    ours = ["ResNet-10-T, none", "ResNet-10-T, cutmix"]
    probe, fine_tuned, slow, smears, cards, coco = 0, 6, 7, 8, 9, 10
    gains = [span(of(index, published, ", random")) for index in (probe, smears, cards)]
    assert (
        f"worth {gains[0]} points of the CIFAR-10 probe, {gains[1]} of AP50 on the smears, "
        f"{gains[2]} on the cards" in FLAT
    )
    without = figure["ResNet-10-T, random"]
    worth = [
        span([one - without[index] for one in of(index, ours)], " and ") for index in (probe, cards)
    ]
    assert f"The study's are worth {worth[0]} of the probe, {worth[1]} on the cards" in FLAT
    assert (
        f"undo them: {span(of(fine_tuned, published))} %, where the probes have "
        f"{span(of(2, published))}; at a tenth, whose first epochs are above chance still, "
        f"{span(of(slow, published))}" in FLAT
    )
    assert (
        f"At 128 pixels their probes have {span(of(4, published))}, ours {span(of(4, ours))}"
        in FLAT
    )
    for folder in ("flowers", "flowers_slow"):
        of_flowers = (
            BOARD / folder / "classification" / f"{run}-seed1" for run, _ in NETWORKS.values()
        )
        assert all(value(run, "epochs_above_chance") > 0 for run in of_flowers)
    assert f"{without[smears]:.1f} as {span(of(smears, published))}" in FLAT
    captioners = BOARD / "photographs/captioning"
    different = [
        round(value(captioners / f"{arch}-random-seed1", "different_captions"))
        for _, arch in NETWORKS.values()
    ]
    kept = BOARD / "random/coco"
    of_ours = [round(value(run, "different_captions")) for run in kept.glob("random-seed*")]
    assert (
        f"random networks have a CIDEr of {span(of(coco, random))} with {min(different)} to "
        f"{max(different)} different captions for 79 images, that of ResNet-10-T "
        f"{without[coco]:.1f} with {min(of_ours)} to {max(of_ours)}, ours "
        f"{span(of(coco, ours), ' and ')}" in FLAT
    )
