"""Result files to one table."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from pretrain.errors import UserError
from pretrain.run import Result
from transfer.report import read_results, report
from transfer.statistics import paired


def result(task: str, arm: str, seed: int, value: float, **config) -> Result:
    keys = {
        "pretrain": ("top1", "top1_best"),
        "detection": ("AP50", "AP"),
        "captioning": ("Bleu_4", "CIDEr"),
    }[task]
    return Result(
        task=task,
        metric=keys[0],
        metrics=dict.fromkeys(keys, value),
        backbone={
            "name": f"net, {arm}",
            "arch": "net",
            "arm": arm,
            "fingerprint": f"{arm}{seed}",
            "recipe": "r",
            "dataset": "d",
            "epochs": 3,
            "seed": seed,
        },
        data={"name": "d", "train": 10},
        seed=seed,
        seconds=1.0,
        environment={},
        config={"name": "r", "epochs": 3, "seed": seed, "mixing": {"method": arm}, **config},
    )


def lines(results: list) -> dict[str, list[str]]:
    """{first cell: the other cells} of our own table."""
    table = report(results).split("The paper's own")[0]
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
    assert table["backbone"] == ["top-1 %, last [1]", "top-1 %, best [1]", "AP50 [2]", "AP [2]"]
    assert table["net, none"] == ["50.0", "50.0", "", ""]
    assert table["net, cutmix"] == ["52.5", "52.5", "70.0", "70.0"]
    assert table["*cutmix - none*"] == ["*+2.5*", "*+2.5*", "", ""]
    assert "±" not in str(table)


def test_a_replicate_is_a_pretraining_seed():
    """Three fine-tunings of one backbone are one value."""
    runs = [result("detection", "none", seed, 60.0 + 4 * seed) for seed in (0, 1)]
    again = [replace(runs[0], seed=7, metrics={"AP50": 63.0, "AP": 63.0})]
    assert lines(runs)["net, none"][0] == "62.0 ± 2.8 (n=2)"
    assert lines(runs + again)["net, none"][0] == "62.8 ± 1.8 (n=2)"


def test_differences_are_between_runs_of_the_same_seed():
    """Seeds differ by 10, the arms by 1 +- 0.1: pairing finds what the means hide."""
    runs = []
    for seed, gain in enumerate((0.9, 1.0, 1.1)):
        runs.append(result("pretrain", "none", seed, 50.0 + 10 * seed))
        runs.append(result("pretrain", "cutmix", seed, 50.0 + 10 * seed + gain))
    runs.append(result("pretrain", "cutmix", 7, 99.0))  # has no partner
    table = lines(runs)
    assert table["net, none"][0] == "60.0 ± 10.0 (n=3)"
    assert table["*cutmix - none*"][0] == "*+1.0 ± 0.2 (n=3, could find 0.3)*"


def power(shift: float, critical: float, n: int) -> float:
    """P(|T| > critical), by SciPy's chi distribution and quadrature."""
    from scipy import stats

    def beyond(s):
        edge = critical * s / np.sqrt(n - 1)
        return stats.norm.sf(edge - shift) + stats.norm.cdf(-edge - shift)

    return stats.chi(n - 1).expect(beyond)


def test_intervals_and_detectable_differences_are_scipy_s():
    stats = pytest.importorskip("scipy.stats")
    draw = np.random.default_rng(0)
    for n in (2, 3, 5, 8, 20):
        ours, plain = draw.normal(1, 2, n), draw.normal(0, 1, n)
        found = paired(ours.tolist(), plain.tolist())
        wanted = stats.ttest_rel(ours, plain).confidence_interval(0.95)
        assert found.mean - found.half_width == pytest.approx(wanted.low, abs=1e-9)
        assert found.mean + found.half_width == pytest.approx(wanted.high, abs=1e-9)
        shift = found.detectable * np.sqrt(n) / np.std(ours - plain, ddof=1)
        critical = stats.t.ppf(0.975, n - 1)
        assert power(shift, critical, n) == pytest.approx(0.8, abs=1e-4)
    single = paired([2.0], [1.5])
    assert (single.mean, single.half_width, single.detectable) == (0.5, None, None)


def test_other_recipes_and_data_stand_in_other_columns():
    small = result("captioning", "none", 0, 0.5)
    full = result("captioning", "none", 0, 0.7, hidden=512)
    other = replace(small, data={"name": "e", "train": 99})
    table = lines([small, full, other])
    assert len(table["backbone"]) == 6
    assert sorted(table["net, none"]) == ["50.0", "50.0", "50.0", "50.0", "70.0", "70.0"]


def test_backbones_of_other_recipes_are_no_replicates():
    one = result("detection", "none", 0, 60.0)
    two = replace(one, backbone={**one.backbone, "epochs": 300, "fingerprint": "x"})
    assert len([name for name in lines([one, two]) if name.startswith("net, none")]) == 2


def test_captions_are_shown_in_percent():
    assert lines([result("captioning", "none", 0, 0.249)])["net, none"] == ["24.9", "24.9"]


def test_foreign_and_broken_files_are_named_and_left_out(tmp_path):
    for name, text in (
        ("a", json.dumps(asdict(result("pretrain", "none", 0, 1.0)))),
        ("b", "{"),
        ("c", '{"format": "other"}'),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text(text)
    results, complaints = read_results(tmp_path)
    assert len(results) == 1
    assert len(complaints) == 2
    assert "b/result.json" in complaints[0]


def test_nothing_to_report(tmp_path):
    with pytest.raises(UserError, match="no result"):
        read_results(tmp_path)
    with pytest.raises(UserError, match="there is no folder"):
        read_results(tmp_path / "none")


def test_the_plain_arm_is_compared_with_random_weights_and_engines_stand_apart():
    table = lines(
        [
            replace(
                result("detection", arm, seed, value + seed, engine=engine, scratch=scratch),
                data={"name": "d", "train": 10, "splits": ["a", "b"], "notes": ["c"]},
            )
            for engine in ("torchvision", "detectron2")
            for arm, value, scratch in (("none", 60, False), ("from scratch", 50, True))
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
    assert "[1] - [2], none: AP50 *+1.0 ± 0.0 (n=3, could find 0.0)*" in report(both)
    assert "[1] - [2]" not in report(both[:3])
