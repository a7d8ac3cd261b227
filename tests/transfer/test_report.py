"""Result files to one table."""

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from pretrain.errors import UsageError
from pretrain.run import CHANGEABLE, Result, Run
from transfer import task
from transfer.captioning.dataset import CaptionedImage
from transfer.captioning.examples import write_examples
from transfer.grid import write_grid
from transfer.report import (
    page,
    paper,
    read_runs,
    render_files,
    results_to_markdown,
    tabulate,
    to_html,
    to_markdown,
    words,
)
from transfer.report.charts import forests
from transfer.report.comparisons import compare_all
from transfer.report.expectations import compare, read_expected
from transfer.report.flat import runs_csv
from transfer.report.markdown import escape, replace_between
from transfer.report.pictures import compare_examples
from transfer.report.provenance import digest
from transfer.report.results import FinishedRun, RunSet, UnfinishedRun
from transfer.statistics import paired_difference, smallest_sign_flip_p, t_tails


def result(task: str, method: str, seed: int, value: float, **config) -> Result:
    keys = {
        "pretrain": ("top1", "top1_best"),
        "detection": ("AP50", "AP"),
        "captioning": ("Bleu_4", "CIDEr"),
        "classification": ("linear_top1",),
        "segmentation": ("mIoU", "Dice_3D"),
    }[task]
    return Result(
        task=task,
        metric=keys[0],
        metrics=dict.fromkeys(keys, value),
        backbone={
            "name": f"net, {method}",
            "arch": "net",
            "method": method,
            "fingerprint": f"{method}{seed}",
            "recipe": "r",
            "dataset": "d",
            "epochs": 3,
            "seed": seed,
        },
        data={"name": "d", "train": 10},
        seed=seed,
        seconds=1.0,
        environment={},
        config={
            **{"name": "r", "epochs": 3, "seed": seed},
            **({"mixing": {"method": method}} if task == "pretrain" else {}),
            **config,
        },
    )


def run_set(*runs: Result) -> RunSet:
    return RunSet(tuple(FinishedRun(run, f"run{number}") for number, run in enumerate(runs)))


def lines(results: list) -> dict[str, list[str]]:
    """{first cell: the other cells} of our own table."""
    table = results_to_markdown(results).split("The paper's own")[0]
    rows = [line[2:-2].split(" | ") for line in table.splitlines() if line.startswith("|")]
    return {row[0].strip(): [cell.strip() for cell in row[1:]] for row in rows}


def test_one_run_each_with_the_difference_and_no_deviation():
    table = lines(
        [
            result("pretrain", "none", 0, 50.0),
            result("pretrain", "cutmix", 0, 52.5),
            result("detection", "cutmix", 0, 70.0),
        ]
    )
    titles = ["top-1 %, last [1]", "top-1 %, best [1]", "best - last [1]", "AP50 [2]", "AP [2]"]
    assert table["backbone"] == titles
    assert table["net, none"] == ["50.0", "50.0", "+0.0", "not measured", "not measured"]
    assert table["net, cutmix"] == ["52.5", "52.5", "+0.0", "70.0", "70.0"]
    assert table["*cutmix - none*"] == ["*+2.5*", "*+2.5*", "", "*no pair*", "*no pair*"]
    assert "±" not in str(table)


def test_a_replicate_is_a_pretraining_seed():
    """Three fine-tunings of one backbone are one value."""
    runs = [result("detection", "none", seed, 60.0 + 4 * seed) for seed in (0, 1)]
    again = [replace(runs[0], seed=7, metrics={"AP50": 63.0, "AP": 63.0})]
    assert lines(runs)["net, none"][0] == "62.0 ± 2.8 (n=2)"
    assert lines(runs + again)["net, none"][0] == "62.8 ± 1.8 (n=2)"
    # of a single pretraining there is no deviation, however often it was fine-tuned
    assert lines(runs[:1] + again)["net, none"][0] == "61.5"


def test_the_work_grows_with_the_runs_not_with_their_square(monkeypatch):
    asked = []
    seed = FinishedRun.seed.fget
    monkeypatch.setattr(FinishedRun, "seed", property(lambda run: asked.append(1) or seed(run)))

    def questions(count: int) -> int:
        asked.clear()
        tabulate(run_set(*(result("detection", "none", seed, 1.0) for seed in range(count))))
        return len(asked)

    assert questions(200) == 2 * questions(100)


def test_differences_are_between_runs_of_the_same_seed():
    """Seeds differ by 10, the methods by 1 +- 0.1: pairing finds what the means hide."""
    runs = []
    for seed, gain in enumerate((0.9, 1.0, 1.1)):
        runs.append(result("pretrain", "none", seed, 50.0 + 10 * seed))
        runs.append(result("pretrain", "cutmix", seed, 50.0 + 10 * seed + gain))
    runs.insert(0, result("pretrain", "cutmix", -1, 99.0))  # has no partner
    runs.append(result("pretrain", "cutmix", 7, 99.0))
    table = lines(runs)
    assert table["net, none"][0] == "60.0 ± 10.0 (n=3)"
    assert table["*cutmix - none*"][0] == "*+1.0 ± 0.2 (n=3, p = 0.003, detectable 0.3)*"


def power(shift: float, critical: float, n: int) -> float:
    """P(|T| > critical), by SciPy's chi distribution and quadrature."""

    def beyond(s):
        edge = critical * s / np.sqrt(n - 1)
        return stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)

    return stats.chi(n - 1).expect(beyond)


def test_intervals_and_detectable_differences_are_scipy_s():
    draw = np.random.default_rng(0)
    for n in (2, 3, 4, 5, 8, 20):
        ours, plain = draw.normal(1, 2, n), draw.normal(0, 1, n)
        found = paired_difference(ours.tolist(), plain.tolist())
        test = stats.ttest_rel(ours, plain)
        wanted = test.confidence_interval(0.95)
        assert found.mean - found.half_width == pytest.approx(wanted.low, abs=1e-9)
        assert found.mean + found.half_width == pytest.approx(wanted.high, abs=1e-9)
        assert found.p == (None if n < 3 else pytest.approx(test.pvalue, rel=1e-9))
        shift = found.detectable * np.sqrt(n) / np.std(ours - plain, ddof=1)
        critical = stats.t.ppf(0.975, n - 1)
        assert power(shift, critical, n) == pytest.approx(0.8, abs=1e-4)
    single = paired_difference([2.0], [1.5])
    assert (single.mean, single.half_width, single.detectable, single.p) == (0.5, None, None, None)


def test_p_values_of_random_cases_are_scipy_s():
    draw = np.random.default_rng(1)
    for _ in range(60):
        n = int(draw.integers(3, 15))
        ours, plain = draw.normal(draw.normal(0, 2), 1, n), draw.normal(0, 1, n)
        wanted = stats.ttest_rel(ours, plain).pvalue
        assert paired_difference(ours.tolist(), plain.tolist()).p == pytest.approx(
            wanted, rel=1e-6, abs=1e-13
        )
    # and the reason for asking for three pairs: all signs alike, the exact test is at its best
    for n in (2, 3, 5):
        exact = stats.permutation_test(
            (np.arange(1.0, n + 1),), np.mean, permutation_type="samples", n_resamples=np.inf
        )
        assert exact.pvalue == pytest.approx(smallest_sign_flip_p(n))


def test_too_few_pairs_are_no_test_and_the_reason_stands_below():
    two = [
        result("pretrain", method, seed, value + seed * gain)
        for method, value, gain in (("none", 50, 1.0), ("cutmix", 51, 1.2))
        for seed in (0, 1)
    ]
    assert "(n=2, too few, detectable " in lines(two)["*cutmix - none*"][0]
    assert "n = 2 is too few pairs for a test" in results_to_markdown(two)
    assert "cannot fall below p = 0.5" in results_to_markdown(two)
    third = [
        result("pretrain", method, 2, value) for method, value in (("none", 53), ("cutmix", 53))
    ]
    assert "too few" not in results_to_markdown(two + third)
    # the same difference three times: there is no spread, so there is no t
    same = [
        result("pretrain", method, seed, value + seed)
        for method, value in (("none", 50), ("cutmix", 51))
        for seed in (0, 1, 2)
    ]
    assert "(n=3, no spread, detectable 0.0)" in lines(same)["*cutmix - none*"][0]
    rounded = paired_difference(
        [0.3, 10.3, 100.3], [0.1, 10.1, 100.1]
    )  # 0.2, but for the last bits
    assert (round(rounded.mean, 9), rounded.p) == (0.2, None)


def test_what_is_shown_is_said_in_a_sentence():
    """One pair and two show nothing; of three, those whose interval does not hold zero."""

    def said(runs: list[Result], about: tuple[str, ...] = ()) -> list[str]:
        found = replace(run_set(*runs), about=about)
        table = tabulate(found)
        html = to_html(table, found)
        texts = to_markdown(table, found).split("\n\n|")[0].replace("  \n", "\n").splitlines()
        said = words.verdicts(table, compare_all(table))
        assert all(f"<p>{text}</p>".replace("'", "&#39;") in html for text in said)
        return texts

    values = {0: (70, 73.0), 1: (71, 74.1), 2: (72, 74.9)}
    pairs = [
        result("pretrain", method, seed, pair[method == "cutmix"])
        for seed, pair in values.items()
        for method in ("none", "cutmix")
    ]
    assert said(pairs[:2]) == [
        "cutmix - none, 1 pair: no difference can be shown by fewer than 3 pairs."
    ]
    assert said(pairs[:4])[0].startswith("cutmix - none, 2 pairs: no difference can be shown")
    many = [result("pretrain", method, 0, 71.0) for method in ("none", *"abcde")]
    assert said(many) == ["5 comparisons: no difference can be shown by fewer than 3 pairs."]
    (text,) = said(pairs)
    half = np.std([3, 3.1, 2.9], ddof=1) / 3**0.5 * stats.t.ppf(0.975, 2)
    assert text == (
        "cutmix - none, 3 pairs: 2 of 2 intervals exclude zero: pretrain top-1 %, last +3.0 ± "
        f"{half:.1f}; pretrain top-1 %, best +3.0 ± {half:.1f}. Shown after Holm's correction: 2."
    )
    equal = [replace(run, metrics=dict.fromkeys(run.metrics, 70.0 + run.seed)) for run in pairs]
    uneven = [*equal[:-1], replace(equal[-1], metrics=dict.fromkeys(equal[-1].metrics, 71.0))]
    assert said(uneven) == [
        "cutmix - none, 3 pairs: no difference is shown: all 2 intervals hold zero."
    ]
    assert said(equal) == [
        "cutmix - none, 3 pairs: no difference can be shown: the pairs do not vary."
    ]
    assert said(pairs[:2], ("A <b> of *stars*",))[0] == r"A \<b\> of \*stars\*"


def test_what_a_grid_says_of_itself_is_read(tmp_path):
    write_grid([], tmp_path, "few <images>")
    (tmp_path / "run").mkdir()
    Run(tmp_path / "run").finish(result("pretrain", "none", 0, 1.0))
    found = read_runs(tmp_path)
    assert found.about == ("few <images>",)
    assert "<p>few &lt;images&gt;</p>" in to_html(tabulate(found), found)
    content = json.loads((tmp_path / "grid.json").read_text())
    (tmp_path / "grid.json").write_text(json.dumps({**content, "about": 3}))
    assert read_runs(tmp_path).about == ()
    assert "about" in read_runs(tmp_path).complaints[0]


@pytest.mark.parametrize(
    ("text", "shown"),
    [("- a", r"\- a"), ("# a", r"\# a"), ("1. a", r"1\. a"), ("a - b_c # 1.5", "a - b_c # 1.5")],
)
def test_markdown_is_escaped_where_it_would_mean_something(text, shown):
    assert escape(text) == shown


def test_other_recipes_and_data_stand_in_other_columns():
    small = result("captioning", "none", 0, 0.5)
    full = result("captioning", "none", 0, 0.7, hidden=512)
    other = replace(small, data={"name": "e", "train": 99})
    table = lines([small, full, other])
    assert len(table["backbone"]) == 6
    assert sorted(table["net, none"]) == ["50.0", "50.0", "50.0", "50.0", "70.0", "70.0"]


def test_runs_with_and_without_mixing_of_boxes_stand_in_other_columns():
    runs = [
        result("detection", "none", 0, value, mixing={"cutmix": chance})
        for chance, value in ((0.0, 60.0), (0.5, 70.0))
    ]
    assert sorted(set(lines(runs)["net, none"])) == ["60.0", "70.0"]


@pytest.mark.parametrize(
    "setting",
    [
        ("mixing", {"cutmix": 0.0}, {"cutmix": 0.5}),
        ("dataset", {"labels": "masks"}, {"labels": "scribbles"}),
        ("dataset", {"fold": None, "folds": 5}, {"fold": 0, "folds": 5}),
        ("dataset", {"fold": 0, "folds": 4}, {"fold": 0, "folds": 5}),
        ("segmenter", {"kind": "fcn"}, {"kind": "unet"}),
    ],
    ids=str,
)
def test_segmenters_of_other_settings_stand_in_other_columns(setting):
    section, *values = setting
    runs = [
        result("segmentation", "none", 0, score, **{section: value})
        for score, value in zip((60.0, 70.0), values, strict=True)
    ]
    assert sorted(lines(runs)["net, none"]) == ["60.0", "60.0", "70.0", "70.0"]


def test_columns_that_would_be_called_alike_say_in_what_they_differ():
    runs = [
        result("segmentation", "none", seed, 60.0, mixing={"cutmix": chance, "mosaic": 0.0})
        for chance in (0.0, 0.5)
        for seed in (0, 1)
    ]
    legend = [line.strip() for line in results_to_markdown(runs).splitlines() if line[:1] == "["]
    assert legend == [
        "[1] segmentation: recipe r, data d (10 train); mixing.cutmix 0",
        "[2] segmentation: recipe r, data d (10 train); mixing.cutmix 0.5",
    ]
    assert ";" not in results_to_markdown(runs[:2]).split("Cells")[0]


def folds(method: str, seed: int, values: dict[int, float]) -> list[Result]:
    """Runs of a cross-validation, whose parts are of different sizes."""
    return [
        replace(
            result("segmentation", method, seed, value, dataset={"fold": fold, "folds": 3}),
            data={"name": "ACDC", "train": 70 - fold, "val": 30 + fold, "classes": 4},
        )
        for fold, value in values.items()
    ]


def test_folds_are_averaged_as_fine_tunings_of_one_backbone():
    """Not a replicate: three folds of one pretraining are one value, and n counts pretrainings."""
    runs = folds("none", 0, {0: 60, 1: 70, 2: 80}) + folds("none", 1, {0: 62, 1: 72, 2: 82})
    assert lines(runs)["net, none"] == ["71.0 ± 1.4 (n=2)"] * 2
    assert "data ACDC (4 classes), folds 0, 1, 2" in results_to_markdown(runs)
    assert "70.00, pretraining seed 0, fold 1" in to_html(tabulate(run_set(*runs)), run_set(*runs))
    again = folds("none", 0, {0: 0})  # a second run of a fold counts within that fold
    assert lines(folds("none", 0, {0: 60, 1: 70, 2: 80}) + again)["net, none"][0] == "60.0"
    runs += folds("cutmix", 0, {2: 83, 0: 63, 1: 73}) + folds("cutmix", 1, {0: 64, 1: 74, 2: 84})
    assert lines(runs)["*cutmix - none*"][0].startswith("*+2.5 ± ")


def test_a_rate_that_was_too_high_is_named():
    found = run_set(result("classification", "none", 0, 70.0))
    assert not tabulate(found).notes
    found.runs[0].result.metrics["epochs_above_chance"] = 3
    (note,) = tabulate(found).notes
    assert note == (
        "classification from net, none, seed 0, column 1: the mean training loss of 3 epochs was "
        "far above that of chance, so the learning rate was too high for this network"
    )
    for name in ("report.md", "report.html", "report.tex"):
        assert note in render_files(tabulate(found), found)[name], name


def test_backbones_without_a_fold_that_others_have_are_in_no_cell():
    """Easy folds alone would look better: 80 here, and 70 where all are."""
    whole = folds("none", 0, {0: 60, 1: 70, 2: 80}) + folds("cutmix", 1, {0: 60, 1: 70, 2: 80})
    part = folds("cutmix", 0, {2: 80})
    table, text = lines(whole + part), results_to_markdown(whole + part)
    assert table["net, none"][0] == table["net, cutmix"][0] == "70.0"
    assert table["*cutmix - none*"][0] == "*no pair*"
    why = "pretraining seed 0: without the folds that others have: 0, 1"
    assert f"in no cell: segmentation from net, cutmix, {why}" in text
    found = run_set(*whole, *part)
    assert why in to_html(tabulate(found), found)
    # where none has them, they are compared, and the column says by what
    alike = folds("none", 0, {2: 78}) + part
    assert lines(alike)["*cutmix - none*"][0] == "*+2.0*"
    assert "data ACDC (4 classes), fold 2" in results_to_markdown(alike)
    # a fold without the metric: nothing of its class was there
    whole[0] = replace(whole[0], metrics={"mIoU": 60.0})
    assert lines(whole)["net, none"] == ["70.0", "not measured"]


def test_captioners_with_starts_of_their_own_are_compared():
    """Each goes on from one that was trained from its backbone; without a start is another."""
    runs = [
        result("captioning", method, 0, value, start_from=f"runs/xe-{method}")
        for method, value in (("none", 0.2), ("cutmix", 0.5))
    ]
    assert lines(runs)["*cutmix - none*"][0].startswith("*+30.0")
    assert len(set(map(digest, run_set(*runs).runs))) == 1
    apart = lines([*runs, result("captioning", "none", 1, 0.1, start_from=None)])
    assert len(apart["net, none"]) == 2 * len(lines(runs)["net, none"])


def test_data_of_one_name_and_other_content_stands_in_other_columns():
    def run(method: str, seed: int, value: float, content: str | None, whole: str | None = None):
        one = result("detection", method, seed, value)
        more = {"digest": content, "digest_bytes": whole}
        return replace(one, data=one.data | {k: v for k, v in more.items() if v is not None})

    # a result of before does not say it
    same = [run("none", 0, 60.0, "a" * 16), run("none", 1, 62.0, None)]
    assert lines(same)["net, none"][0] == "61.0 ± 1.4 (n=2)"
    same.append(run("none", 2, 64.0, "a" * 16, "c" * 16))  # looked at every byte
    assert lines(same)["net, none"][0] == "62.0 ± 2.0 (n=3)"
    mixed = [*same, run("cutmix", 0, 61.0, "b" * 16)]
    table = lines(mixed)
    assert table["backbone"] == [f"{name} [{n}]" for n in (1, 2, 3) for name in ("AP50", "AP")]
    assert sorted(table["net, none"]) == sorted(["62.0 ± 2.8 (n=2)", "62.0", "not measured"] * 2)
    assert table["*cutmix - none*"] == ["*no pair*"] * 6
    text = results_to_markdown(mixed)
    for name in ("aaaaaaaa", "bbbbbbbb", "unknown"):
        assert f"data d (10 train), content {name}" in text
    bytes_differ = [run("none", n, 60.0, "a" * 16, letter * 16) for n, letter in enumerate("cd")]
    assert len(lines(bytes_differ)["backbone"]) == 4
    runs = [FinishedRun(one) for one in mixed]
    rows = csv.DictReader(io.StringIO(runs_csv(RunSet(tuple(runs)))))
    assert len({row["setting"] for row in rows}) == 3


def test_backbones_of_other_recipes_are_no_replicates():
    one = result("detection", "none", 0, 60.0)
    two = replace(one, backbone={**one.backbone, "epochs": 300, "fingerprint": "x"})
    assert len([name for name in lines([one, two]) if name.startswith("net, none")]) == 2


def test_captions_are_shown_in_percent():
    assert lines([result("captioning", "none", 0, 0.249)])["net, none"] == ["24.9", "24.9"]


def test_the_plain_method_is_compared_with_random_weights_and_engines_stand_apart():
    table = lines(
        [
            replace(
                result("detection", method, seed, value + seed, engine=engine, scratch=scratch),
                data={"name": "d", "train": 10, "splits": ["a", "b"], "notes": ["c"]},
            )
            for engine in ("torchvision", "detectron2")
            for method, value, scratch in (("none", 60, False), ("from scratch", 50, True))
            for seed in (0, 1)
        ]
    )
    assert table["backbone"] == ["AP50 [1]", "AP [1]", "AP50 [2]", "AP [2]"]
    assert table["*none - from scratch*"][0].startswith("*+10.0 ± ")
    assert "*from scratch - none*" not in table
    both = [
        result("detection", "none", seed, value, engine=engine)
        for engine, values in (("torchvision", (60, 61, 62)), ("detectron2", (61, 62, 63)))
        for seed, value in enumerate(values)
    ]
    assert (
        "[1] - [2], none: AP50 *+1.0 ± 0.0 (n=3, no spread, detectable 0.0)*"
        in results_to_markdown(both)
    )
    assert "[1] - [2]" not in results_to_markdown(both[:3])


def test_last_and_best_epoch_stand_beside_each_other():
    run = result("classification", "none", 0, 0.0)
    run = replace(run, metrics={"linear_top1": 61.0, "full_top1": 80.0, "full_top1_best": 81.5})
    assert lines([run])["backbone"] == [
        "linear % [1]",
        "fine-tuned % [1]",
        "fine-tuned %, best [1]",
        "best - last [1]",
    ]
    # no k-NN: it was not asked for
    assert lines([run])["net, none"] == ["61.0", "80.0", "81.5", "+1.5"]


def test_recipes_that_differ_in_the_method_are_compared():
    """cifar10_resnet18_baseline and cifar10_resnet18_cutmix differ in nothing but the mixing."""
    runs = []
    for method, word, value in (("none", "baseline", 94.0), ("cutmix", "cutmix", 96.0)):
        run = result("pretrain", method, 0, value, name=f"r18_{word}")
        runs.append(replace(run, backbone={**run.backbone, "recipe": f"r18_{word}"}))
    table = lines(runs)
    assert table["*cutmix - none*"] == ["*+2.0*", "*+2.0*", ""]
    assert "recipe r18, data d" in results_to_markdown(runs)


def test_backbones_that_do_not_say_their_seed():
    runs = [result("detection", method, 0, 60.0) for method in ("timm:a", "timm:b")]
    runs = [replace(run, backbone={**run.backbone, "seed": None}) for run in runs]
    runs.append(result("detection", "timm:a", 4, 62.0))
    assert lines(runs)["net, timm:a"][0] == "61.0 ± 1.4 (n=2)"


def test_cells_of_a_grid_that_are_not_done_stand_in_the_table():
    done = run_set(result("detection", "none", 0, 60.0))
    lost = [
        UnfinishedRun(
            "detection", result("detection", method, seed, 0).backbone, seed, folder, state, why
        )
        for method, seed, folder, state, why in (
            ("cutmix", 0, "c0", "failed", "no | memory"),
            ("none", 1, "n1", "missing", None),
        )
    ]
    lost = [replace(cell, siblings=frozenset({"run0", "c0", "n1"})) for cell in lost]
    alone = replace(lost[0], task="captioning", folder="x", siblings=frozenset({"x"}))
    every_run = replace(done, unfinished=(*lost, alone))
    table = tabulate(every_run)
    text = to_markdown(table, every_run)
    assert "| net, none | 60.0; missing | 60.0; missing | not measured |" in text
    assert "| net, cutmix | failed | failed | failed |" in text
    assert (
        "failed: detection from net, cutmix, pretraining seed 0, seed 0 (c0): no \\| memory" in text
    )
    assert "(n1): not run yet" in text
    rows = list(csv.DictReader(io.StringIO(render_files(table, every_run)["report.csv"])))
    assert [row["state"] for row in rows] == ["done", "failed", "missing", "failed"]


def test_the_paper_s_values_are_the_paper_s():
    """Table 10, and the differences that its text claims: +0.9 for top-1 over Mixup's 77.4 ..."""
    by_title = {column.title: column for column in paper.COLUMNS}
    titles = "top-1 %, best", "AP50 (SSD)", "AP50 (Faster R-CNN)", "CIDEr"
    top1, ssd, ap, cider = (by_title[key] for key in titles)
    assert paper.text("cutmix", top1) == "78.60"  # 21.40 % error
    assert paper.gain("cutmix", top1) == 2.28
    assert (paper.gain("mixup", ap), paper.gain("cutmix", ap)) == (-1.7, 1.1)
    assert [paper.text(method, ssd) for method in paper.PRINTED] == ["76.7", "76.6", "76.8", "77.6"]
    assert (paper.value("none", cider), paper.gain("cutmix", cider)) == (71.2, 6.4)
    assert {len(row) for row in paper.PRINTED.values()} == {len(paper.COLUMNS)}
    text = results_to_markdown([result("pretrain", "none", 0, 1.0)])
    ours, theirs = text.split("The paper's own values")
    assert "Full scale" in theirs
    assert "76.32" in theirs
    assert "76.32" not in ours


def detections(kind: str | None, seed: int, value: float, method: str = "none") -> Result:
    """A run as it is read from its file; None: of before there were kinds."""
    detector = {"rois": 32} if kind is None else {"rois": 32, "kind": kind}
    found = result("detection", method, seed, value, engine="torchvision", detector=detector)
    return Result.parse(json.loads(json.dumps(asdict(found))))


def test_detectors_of_two_kinds_never_look_alike(tmp_path):
    """Of one recipe's name and one data set; a run of before is a Faster R-CNN."""
    runs = [
        detections(kind, seed, value + seed + (method == "cutmix"), method)
        for kind, value in ((None, 60.0), ("faster_rcnn", 62.0), ("ssd", 50.0), ("fcos", 40.0))
        for method in ("none", "cutmix")
        for seed in (0, 1, 2)
    ]
    table, found = tabulate(run_set(*runs)), run_set(*runs)
    assert {setting.network for setting in table.settings} == {"Faster R-CNN", "SSD", "FCOS"}
    means = {column.title: table.cells[table.rows[0], column].mean for column in table.columns}
    # seeds that were fine-tuned twice, before and after there were kinds, are one value
    assert means["AP50 (Faster R-CNN)"] == 62.0
    assert (means["AP50 (SSD)"], means["AP50 (FCOS)"]) == (51.0, 41.0)
    text = to_markdown(table, found)
    assert text.split("**Comparisons.**")[0].count("AP50 (SSD) [") == 1
    assert "detection: SSD, recipe r, data d" in text
    assert "detection AP50 (SSD) +1.0" not in text  # the pairs do not vary
    for kind in ("Faster R-CNN", "SSD", "FCOS"):
        assert re.search(rf"AP50 \({kind}\) \[\d\]", render_files(table, found)["report.tex"])
        assert any(f" detection, {kind}, r" in chart.caption for chart in forests(table))
    rows = csv.DictReader(io.StringIO(render_files(table, found)["cells.csv"]))
    assert {row["network"] for row in rows} == {"Faster R-CNN", "SSD", "FCOS"}

    # the paper's two columns, each beside its own
    columns = page._paper_columns(table)
    beside = {title: column and column.setting.network for (title, _), column in columns}
    assert list(beside.items())[1:3] == [
        ("AP50 (SSD) [3]", "SSD"),
        ("AP50 (Faster R-CNN) [2]", "Faster R-CNN"),
    ]
    only = tabulate(run_set(*runs[:6]))
    assert [title for (title, _), _ in page._paper_columns(only)][1:3] == [
        "AP50 (SSD)",
        "AP50 (Faster R-CNN) [1]",
    ]

    # expected numbers choose by it
    (tmp_path / "e.yaml").write_text(
        "tolerance: 0.1\nrows:\n"
        "- {task: detection, method: none, metric: AP50, value: 51, network: SSD}\n"
    )
    assert all(one.holds for one in compare(read_expected(tmp_path / "e.yaml"), table))


@pytest.mark.parametrize("detector", [None, 3, [], {"kind": 3}, {"kind": []}, {"kind": "yolo"}])
def test_a_detector_of_no_known_kind_has_no_name(detector):
    run = replace(result("detection", "none", 0, 1.0), config={"name": "r", "detector": detector})
    assert lines([run])["backbone"] == ["AP50 [1]", "AP [1]"]


def test_a_captioner_that_is_not_the_paper_s_never_stands_beside_it():
    runs = [
        result("captioning", "none", 0, 0.5, model={"kind": kind}, objective=objective)
        for kind in ("nic", "attention", "transformer")
        for objective in ("cross_entropy", "self_critical")
    ]
    table = tabulate(run_set(result("captioning", "none", 0, 0.4), *runs))
    assert {setting.network for setting in table.settings} == {
        "", "NIC, self-critical", "Attention", "Attention, self-critical", "Transformer",
        "Transformer, self-critical",
    }  # fmt: skip
    beside = [column for (_, name), column in page._paper_columns(table) if name == "captioning"]
    assert {column.setting.network for column in beside if column} == {""}


def test_a_dot_is_filled_where_three_pairs_exclude_zero():
    runs = [
        result("pretrain", method, seed, value + seed + 0.01 * seed * (method == "none"))
        for method, value in (("none", 50), ("cutmix", 52))
        for seed in range(3)
    ]

    def kinds(runs: list) -> list[str]:
        return re.findall(r'circle class="(\w+)"', forests(tabulate(run_set(*runs)))[0].svg)

    assert kinds(runs) == ["clear"]
    assert kinds([run for run in runs if run.seed < 2]) == ["open"]  # too few, however narrow
    assert kinds([*runs[:5], replace(runs[5], metrics={"top1": 40, "top1_best": 40})]) == ["open"]


def test_names_cannot_break_a_table():
    nasty = result("pretrain", "a|b*_\n<script>", 0, 1.0)
    nasty = replace(nasty, data={"name": "50 % & $x$ #1 {\\input}", "train": 3})
    table = tabulate(run_set(nasty))
    texts = render_files(table, run_set(nasty))
    row = next(line for line in texts["report.md"].splitlines() if line.startswith("| net"))
    assert row == "| net, a\\|b\\*\\_ \\<script\\> | 1.0 | 1.0 | +0.0 |"
    tex = texts["report.tex"]
    assert r"50 \% \& \$x\$ \#1 \{\textbackslash{}input\}" in tex
    assert r"net, a\textbar{}b*\_ \textless{}script\textgreater{} & 1.0 & 1.0 & +0.0 \\" in tex
    assert "mixup - none & +1.1 & $-$0.1 & $-$1.7 & " in tex
    unescaped = re.sub(r"\\[&%$#_{}]", "", re.sub(r"(?m)^%.*$", "", tex))
    assert not re.search(r"[%#]", unescaped)
    assert unescaped.count("{") == unescaped.count("}")


def test_latex_reads_no_cell_as_an_option_and_compiles(tmp_path):
    """A row that begins with a bracket or a star stands behind a line break or a rule."""
    names = ("[3em]", "*", " [", "none", "é & ü_50 % ~ ^ \\ $x$ # {a} <b> | \x07\x7f -3")
    runs = [
        replace(run, backbone={**run.backbone, "arch": name})
        for name in names
        for run in (result("pretrain", "none", 0, 50.0), result("pretrain", name, 0, 51.0))
    ]
    wide = replace(runs[0], backbone={**runs[0].backbone, "arch": "a network of a long name " * 5})
    runs += [wide, result("detection", "none", 0, 1.0), result("detection", "cutmix", 0, 2.0)]
    tex = render_files(tabulate(run_set(*runs)), run_set(*runs))["report.tex"]
    assert "\n{}[3em], none & 50.0" in tex
    assert "\n{}[3em] - none & " in tex
    assert "\n{}*, none & 50.0" in tex
    assert not re.search(r"(\\\\|rule)\s*[*\[]", tex)
    titles = re.findall(r"(?m)^backbone & (.*) \\\\$", tex)
    ours = [r"top-1 \%, last [1] & top-1 \%, best [1] & best - last [1]", "AP50 [2] & AP [2]"]
    assert titles[:2] == ours
    assert "Differences: mean" in tex
    assert "such pairs find" not in tex  # nor is it in a cell
    if shutil.which("pdflatex") is None:
        pytest.skip("no LaTeX on this machine")
    (tmp_path / "report.tex").write_text(tex)
    document = r"\documentclass{article}\usepackage{booktabs,graphicx}\usepackage[T1]{fontenc}"
    document += r"\begin{document}\input{report}\end{document}"
    (tmp_path / "all.tex").write_text(document)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert r"Overfull \hbox" not in done.stdout


def test_csv_holds_every_run_and_every_cell_unrounded():
    runs = [result("pretrain", "none", seed, 50 + seed / 3) for seed in (0, 1)]
    runs.append(replace(runs[0], environment={"device": "=HYPERLINK(1)", "versions": {"a": "1"}}))
    texts = render_files(tabulate(run_set(*runs)), run_set(*runs))
    rows = list(csv.DictReader(io.StringIO(texts["report.csv"])))
    assert [row["metrics.top1"] for row in rows] == ["50.0", str(50 + 1 / 3), "50.0"]
    assert rows[2]["environment.device"] == "'=HYPERLINK(1)"
    assert rows[2]["environment.versions.a"] == "1"
    assert rows[0]["config.mixing.method"] == "none"
    cells = list(csv.DictReader(io.StringIO(texts["cells.csv"])))
    assert [cell["metric"] for cell in cells] == ["top1", "top1_best"]
    assert (cells[0]["n"], cells[0]["runs"]) == ("2", "3")
    assert float(cells[0]["mean"]) == pytest.approx(50 + 1 / 6, rel=1e-12)


def test_expected_numbers(tmp_path):
    runs = [
        result("pretrain", method, seed, value + seed)
        for method, value in (("none", 50), ("cutmix", 52))
        for seed in (0, 1)
    ]
    table = tabulate(run_set(*runs, result("captioning", "none", 0, 0.249)))
    file = tmp_path / "expected.yaml"

    def outcomes(text: str) -> list[bool]:
        file.write_text(text)
        return [outcome.holds for outcome in compare(read_expected(file), table)]

    head = "tolerance: 0.1\nrows:\n"
    row = "- {task: pretrain, method: cutmix, metric: top1, "
    assert outcomes(f"{head}{row}value: 52.4}}\n{row}value: 52.35}}") == [True, False]
    assert outcomes(f"{head}{row}value: 52.0, tolerance: 0.5, n: 2}}") == [True]
    assert outcomes(f"{head}{row}value: 52.5, n: 3}}") == [False]
    assert outcomes(f"{head}{row}value: 2.0, against: none, n: 2}}") == [True]
    assert outcomes(f"{head}{row}value: 2.0, against: mixup}}") == [False]  # not measured
    assert outcomes(f"{head}- {{task: detection, method: none, metric: AP50, value: 1}}") == [False]
    assert outcomes(f"{head}- {{task: captioning, method: none, metric: CIDEr, value: 24.9}}") == [
        True
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "cannot be read as YAML"),
        ("rows: 3", "rows: expected `array`, got 3"),
        ("rows: []", "rows: expected `array` of length >= 1, got []"),
        ("rows: [{}]\nmore: 1", "unknown field `more`"),
        ("rows: [3]", "rows[0]: expected `object`, got 3"),
        (
            "rows: [{task: pretrain, method: a, metric: top1, value: 1}]",
            "required field `tolerance`",
        ),
        (
            "rows: [{task: pretrain, method: a, metric: top1, value: .nan, tolerance: 1}]",
            "value: expected a finite number of at most 1e12 in size, got nan",
        ),
        (
            "rows: [{task: pretrain, method: a, metric: top1, value: 1, tolerance: -1}]",
            "tolerance: expected `float` >= 0.0, got -1",
        ),
        (
            "rows: [{task: pretrain, method: a, metric: top1, value: yes, tolerance: 1}]",
            "value: expected `float`, got True",
        ),
        (
            "rows: [{task: pretrain, method: 3, metric: top1, value: 1, tolerance: 1}]",
            "method: expected `str`, got 3",
        ),
        (
            "rows: [{task: x, method: a, metric: top1, value: 1, tolerance: 1}]",
            "row 1: there is no task 'x'",
        ),
        (
            "rows: [{task: pretrain, method: a, metric: x, value: 1, tolerance: 1}]",
            "metric 'x'; known",
        ),
        (
            "rows: [{task: pretrain, method: a, metric: top1, value: 1, tolerance: 1, n: 0}]",
            "n: expected `int` >= 1, got 0",
        ),
        ("rows: [{task: pretrain, method: a, metrik: top1}]", "unknown ['metrik']"),
        ("rows: [{task: pretrain, arm: a, metric: top1}]", "row 1: arm is called method now"),
        ("rows: [{task: pretrain, variant: a}]", "row 1: variant is called recipe_hash now"),
    ],
)
def test_malformed_expectations_are_refused(text, said, tmp_path):
    (tmp_path / "e.yaml").write_text(text)
    with pytest.raises(UsageError, match=re.escape(said)):
        read_expected(tmp_path / "e.yaml")


def test_an_expectation_that_fits_several_numbers_is_refused(tmp_path):
    table = tabulate(
        run_set(result("pretrain", "none", 0, 1.0), result("pretrain", "none", 0, 2.0, batch=8))
    )
    file = tmp_path / "e.yaml"
    file.write_text("rows: [{task: pretrain, method: none, metric: top1, value: 1, tolerance: 1}]")
    with pytest.raises(UsageError, match="fits 2 numbers"):
        compare(read_expected(file), table)


def test_the_text_between_markers_is_replaced_and_nothing_else(tmp_path):
    file = tmp_path / "docs.md"
    file.write_bytes(b"# A\r\n<!-- report -->\r\nold\r\n<!-- /report -->\r\nend\r\n")
    assert replace_between(file, "new\nlines\n", tmp_path)
    wanted = b"# A\r\n<!-- report -->\r\n\r\nnew\r\nlines\r\n\r\n<!-- /report -->\r\nend\r\n"
    assert file.read_bytes() == wanted
    assert not replace_between(file, "new\nlines", tmp_path)  # in step already
    for text in ("none", "<!-- /report --> <!-- report -->", "<!-- report -->" * 2):
        file.write_text(text)
        with pytest.raises(UsageError, match="a line <!-- report -->"):
            replace_between(file, "x", tmp_path)
        assert file.read_text() == text


def test_each_folder_of_runs_has_its_own_place(tmp_path):
    file = tmp_path / "docs.md"
    a, b = ("<!-- report runs/{} -->\n\n{}\n\n<!-- /report -->\n".format(*x) for x in ("a1", "b2"))
    plain = "<!-- report -->\n\n3\n\n<!-- /report -->\n"
    file.write_text(a + "between\n" + b + plain)
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    assert replace_between(file, "new", tmp_path / "link" / "b")
    assert file.read_text() == a + "between\n" + b.replace("2", "new") + plain
    assert replace_between(file, "new", tmp_path)
    assert file.read_text().endswith(plain.replace("3", "new"))
    file.write_text(a)
    with pytest.raises(UsageError, match=r"0 of its markers are for .*<!-- report runs/b -->"):
        replace_between(file, "x", tmp_path / "runs" / "b")


def test_what_a_captioner_leaves_is_shown_with_pictures_and_references(tmp_path):
    images = []
    for number in range(5):
        Image.new("RGB", (8, 6), (50 * number, 0, 0)).save(tmp_path / f"{number}.png")
        images.append(CaptionedImage(number, tmp_path / f"{number}.png", (f"thing <{number}>",)))
    runs = []
    for method in ("none", "cutmix"):
        folder = tmp_path / method
        said = {image.image_id: f"{method} sees {image.image_id}" for image in images}
        write_examples(Run(folder), images, said, [1, 2, 4])
        runs.append(FinishedRun(result("captioning", method, 0, 0.0), method, folder))

    def compare(runs: list, count: int) -> tuple[list, list[str]]:
        table, log = tabulate(RunSet(tuple(runs))), []
        examples = task.by_name("captioning").examples
        return compare_examples(table, table.settings[0], examples, count, log.append), log

    shown, log = compare(runs, 3)
    assert [example.name for example in shown] == ["1", "2", "4"]
    assert log == []
    for example in shown:
        assert (example.picture.width, example.picture.height) == (8, 6)
        assert example.references == (f"thing <{example.name}>",)
        assert [text for _, text in example.answers] == [
            f"none sees {example.name}", f"cutmix sees {example.name}"
        ]  # fmt: skip
    # another pretraining of the same method is another captioner
    facts = {**runs[1].result.backbone, "recipe_hash": "aaaa1111", "fingerprint": "x"}
    other = replace(runs[1], result=replace(runs[1].result, backbone=facts), folder="other")
    ((example,), _) = compare([*runs, other], 1)
    assert len(example.answers) == 3
    # of a run of before there are captions alone
    rows = json.loads((tmp_path / "none" / "captions.json").read_text())
    assert [row["file_name"] for row in rows] == [f"{n}.png" for n in range(5)]
    for method in ("none", "cutmix"):
        old = [{key: row[key] for key in ("image_id", "caption")} for row in rows]
        (tmp_path / method / "captions.json").write_text(json.dumps(old))
    shown, log = compare(runs, 5)
    assert [(one.picture, one.references) for one in shown] == [(None, ())] * 5
    assert log == []
    (tmp_path / "none" / "captions.json").write_text(json.dumps([*rows, {"image_id": 9}]))
    shown, log = compare(runs, 5)
    assert shown == []
    assert log == ["none/captions.json: [5]: Object missing required field `caption`"]


def test_pretrainings_of_one_name_and_seed_that_differ_are_never_averaged():
    """--optimizer.lr changes neither the recipe's name nor the method: the recipe_hash says it."""
    plain = result("detection", "none", 0, 60.0)
    one = result("detection", "cutmix", 0, 61.0)
    two = result("detection", "cutmix", 0, 71.0)
    one, two = (
        replace(run, backbone={**run.backbone, "recipe_hash": digits, "fingerprint": digits})
        for run, digits in ((one, "aaaa1111"), (two, "bbbb2222"))
    )
    table = lines([plain, one, two])
    told = "net, cutmix (r, 3 epochs on d, recipe hash {})"
    assert table[told.format("aaaa1111")][0] == "61.0"
    assert table[told.format("bbbb2222")][0] == "71.0"
    assert table[f"*{told.format('bbbb2222')} - none*"][0] == "*+11.0*"
    assert not any("cutmix" in name.split(" - ")[1] for name in table if " - " in name)
    both = replace(plain, backbone={**two.backbone, "method": "none", "recipe_hash": "cccc3333"})
    shown = [name for name in lines([plain, both, one]) if " - " in name]
    assert len(shown) == 2  # with each of the two plain ones, and these told apart


def test_backbones_that_nothing_tells_apart_are_in_no_cell_and_are_named():
    one, two = result("detection", "none", 0, 60.0), result("detection", "none", 0, 70.0)
    two = replace(two, backbone={**two.backbone, "fingerprint": "other"})
    third = result("detection", "none", 1, 64.0)
    every_run = run_set(one, two, third)
    table = tabulate(every_run)
    assert lines([one, two, third])["net, none"][0] == "64.0"
    assert lines([one, two])["net, none"][0] == "not measured"
    (note,) = table.notes
    assert "run0 (none0), run1 (other)" in note
    assert "pretraining seed 0" in note
    for name in ("report.md", "report.html", "report.tex"):
        assert "in no cell" in render_files(table, every_run)[name], name


def test_what_may_change_on_resume_makes_no_other_column_and_no_other_configuration():
    changed = {"accumulate": 4, "cache": "x", "workers": 9, "tensorboard": True, "checkpoints": {}}
    changed |= {"loader": {"workers": 9}, "digest": "bytes"}
    assert set(changed) == {*CHANGEABLE, "workers"}  # of results of before
    runs = [
        result("detection", "none", 0, 60.0),
        result("detection", "none", 1, 62.0, **changed),
    ]
    assert lines(runs)["net, none"][0] == "61.0 ± 1.4 (n=2)"
    assert len(set(map(digest, run_set(*runs).runs))) == 1
    runs.append(result("detection", "none", 2, 62.0, epochs=4))
    assert len(set(map(digest, run_set(*runs).runs))) == 2


def test_small_p_values_are_scipy_s_to_their_last_digits():
    for freedom in (1, 2, 3, 4, 9, 40, 1000):
        for t in (0.0, 0.05, 0.5, 2.0, 10.0, 300.0, 1e7):
            wanted = 2 * stats.t.sf(t, freedom)
            assert t_tails(t, freedom) == pytest.approx(wanted, rel=1e-9), (t, freedom)


def test_a_single_pair_has_no_chart():
    """Nothing but itself would scale its axis; the table has it."""
    runs = [
        result("pretrain", method, 0, value) for method, value in (("none", 50), ("cutmix", 52))
    ]
    table = tabulate(run_set(*runs))
    assert forests(table) == []
    text = to_html(table, run_set(*runs))
    assert "Single pairs are no evidence: they stand in the table only." in text
    assert "Right of zero" not in text
    assert 'id="table-differences"' in text
    more = [
        result("pretrain", method, 1, value) for method, value in (("none", 51), ("cutmix", 54))
    ]
    text = to_html(tabulate(run_set(*runs, *more)), run_set(*runs, *more))
    assert "Right of zero" in text
    assert "Single pairs" not in text


def test_a_task_of_one_entry_has_columns_curves_pictures_and_examples(tmp_path, monkeypatch):
    """Nothing but its entry in transfer/task.py tells the report about it."""
    toy = task.Task(
        name="juggling",
        tool="juggle.py",
        config="nowhere:Config",
        build="nowhere:build",
        finetune="nowhere:finetune",
        metrics=(task.Metric("catches", "catches %", 100), task.Metric("drops", "drops")),
        curve=task.Metric("val_catches", "catches over time", 100),
        demo=task.DemoData("nowhere:draw", {}, {}),
        pictures=(
            task.Picture("balls.png", "balls", "The balls", "As they flew.", "{method} balls", 40),
        ),
        examples=task.Examples(
            file="throws.json",
            read="juggling:read_throws",
            section="throws",
            title="Throws side by side",
            lead="The same throws.",
            missing="No throws.",
        ),
    )
    monkeypatch.setattr(task, "TASKS", (*task.TASKS, toy))
    monkeypatch.setitem(sys.modules, "juggling", SimpleNamespace(read_throws=read_throws))
    for method, value in (("none", 0.5), ("cutmix", 0.625)):
        for seed in (0, 1):
            run = result("detection", method, seed, 0)
            run = replace(run, task="juggling", metric="catches")
            folder = tmp_path / f"{method}{seed}"
            (folder / "pictures").mkdir(parents=True)
            Image.new("RGB", (80, 40)).save(folder / "pictures/balls.png")
            run = replace(run, metrics={"catches": value + seed / 100})
            (folder / "result.json").write_text(json.dumps(asdict(run)))
            (folder / "throws.json").write_text(json.dumps({"high": f"{method} caught it"}))
            log = [{"epoch": n, "val_catches": n / 10} for n in (1, 2)]
            (folder / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    every_run = read_runs(tmp_path)
    assert every_run.complaints == ()
    table = tabulate(every_run)
    texts = render_files(table, every_run)
    assert "catches % [1]" in texts["report.md"]
    assert "drops" not in texts["report.md"]  # no run holds it
    assert "50.5 ± 0.7 (n=2)" in texts["report.md"]
    assert "*+12.5 ± " in texts["report.md"]
    assert "juggling,r," in texts["cells.csv"]
    for part in (
        '<option value="juggling">',
        "catches over time over epochs",
        '<section id="balls"',
        'alt="net, none balls"',
        "Throws side by side",
        "cutmix caught it",
    ):
        assert part in texts["report.html"], part
    file = tmp_path / "expected.yaml"
    file.write_text(
        "rows: [{task: juggling, method: none, metric: catches, value: 50.5, tolerance: 0.1}]"
    )
    assert [outcome.holds for outcome in compare(read_expected(file), table)] == [True]


def read_throws(throws: dict, name: str) -> dict[str, task.Example]:
    return {name: task.Example(answer) for name, answer in throws.items()}


def test_random_weights_of_two_networks_of_one_architecture_are_two_rows():
    runs = []
    for width in (16, 64):
        for method in ("none", "from scratch"):
            for seed in (0, 1, 2):
                one = result("detection", method, seed, width + seed)
                one.backbone["model_args"] = {"channels": [width, 2 * width]}
                one.backbone["recipe_hash"] = f"{width}" if method == "none" else None
                one.backbone["fingerprint"] += str(width)
                runs.append(one)
    table = tabulate(run_set(*runs))
    random = [table.name(row) for row in table.rows if row.method == "from scratch"]
    assert random == [f"net, from scratch (channels {one})" for one in ("16 32", "64 128")]
    pairs = {(row.model_args, other.model_args) for row, other in table.comparisons}
    assert pairs == {("channels 16 32",) * 2, ("channels 64 128",) * 2}
    assert all(one.n == 3 and one.mean == 0 for one in table.differences.values())
    assert "whatever freeze and batch_norm say" in to_markdown(table, run_set(*runs))


def test_what_an_older_result_does_not_say_of_a_network_a_newer_one_does(tmp_path):
    old, new = result("detection", "none", 0, 1.0), result("captioning", "none", 0, 1.0)
    new.backbone["model_args"] = {"channels": [16]}
    for name, one in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(json.dumps(asdict(one)))
    (row,) = tabulate(read_runs(tmp_path)).rows
    assert row.model_args == "channels 16"


def test_a_pair_is_over_the_fine_tunings_that_both_have():
    """Plain with transfer seeds 0 and 1, CutMix with 1 alone, where it is worse in every pair."""
    runs = []
    for seed in (0, 1, 2):
        for transfer, value in ((0, 40.0), (1, 50.0 + seed / 10)):
            runs.append(replace(result("detection", "none", seed, value), seed=transfer))
        runs.append(replace(result("detection", "cutmix", seed, 49.5), seed=1))
    table = tabulate(run_set(*runs))
    found = {one[2].metric.key: between for one, between in table.differences.items()}
    assert found["AP50"].mean == pytest.approx(-0.6)
    assert lines(runs)["net, none"][0] == "45.1 ± 0.1 (n=3)"
    # none in common: the means of all
    apart = [replace(one, seed=9) if one.backbone["method"] == "cutmix" else one for one in runs]
    (between, _) = tabulate(run_set(*apart)).differences.values()
    assert between.mean == pytest.approx(49.5 - 45.05)


def test_foreign_weights_of_one_name_are_told_apart_by_their_fingerprint():
    runs = []
    for task_of, print_of in (("detection", "aaaabbbbcccc"), ("captioning", "ddddeeee")):
        one = result(task_of, "model.safetensors", 0, 1.0)
        one.backbone.update(seed=None, recipe=None, fingerprint=print_of)
        runs.append(one)
    assert [row.method for row in tabulate(run_set(*runs)).rows] == [
        "model.safetensors aaaabbbb", "model.safetensors ddddeeee"]  # fmt: skip
    assert [row.method for row in tabulate(run_set(runs[0])).rows] == ["model.safetensors"]


def test_captioners_that_say_the_same_of_most_images_are_named():
    few, many = result("captioning", "none", 0, 0.1), result("captioning", "cutmix", 0, 0.1)
    for one, different in ((few, 7), (many, 8)):
        one.metrics.update(scored="val", different_captions=different)
        one.data["val"] = 80
    (note,) = tabulate(run_set(few, many)).notes
    assert note == (
        "captioning from net, none, seed 0, column 1: only 7 different captions for 80 images, so "
        "its scores tell little of what the encoder sees"
    )


def test_markdown_names_what_is_left_out():
    runs = replace(run_set(result("detection", "none", 0, 1.0)), complaints=("a: is torn",))
    assert "left out: a: is torn" in to_markdown(tabulate(runs), runs)
