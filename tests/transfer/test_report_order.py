"""The published order of methods beside ours: which columns, which seeds, what is shown."""

from dataclasses import replace

import pytest
from scipy.stats import kendalltau, ttest_rel

from pretrain.run import Result
from tests.transfer.test_report import detections, result, run_set
from tests.transfer.test_report_suites import evaluation, read, runs_of
from transfer.report import render_files, tabulate, to_markdown
from transfer.report.order import Order, order_cells, orders
from transfer.statistics import holm

# captions of our own; the paper's order by CIDEr is cutmix 77.6, cutout 74.1, mixup 72.2, none 71.2
CIDER = {
    "none": (0.50, 0.52, 0.54, 0.53, 0.51),
    "mixup": (0.40, 0.421, 0.439),
    "cutout": (0.59, 0.57, 0.62),
    "cutmix": (0.55, 0.571, 0.592, 0.58, 0.56),
}


def captions(values=CIDER) -> list[Result]:
    """Of backbones whose seeds are 1 to 5."""
    return [
        result("captioning", method, seed, value)
        for method, row in values.items()
        for seed, value in enumerate(row, 1)
    ]


def found(*runs: Result) -> list[Order]:
    return orders(tabulate(run_set(*runs)))


def of(key: str, *runs: Result) -> Order:
    (one,) = (one for one in found(*runs) if one.column.metric.key == key)
    return one


def test_both_orders_stand_side_by_side_over_the_seeds_that_all_have():
    one = of("CIDEr", *captions())
    assert list(one.theirs.items()) == [
        ("cutmix", 77.6),
        ("cutout", 74.1),
        ("mixup", 72.2),
        ("none", 71.2),
    ]
    assert one.n == 3
    assert list(one.ours) == ["cutout", "cutmix", "none", "mixup"]
    assert one.ours == pytest.approx(
        {name: 100 * sum(row[:3]) / 3 for name, row in CIDER.items()}, abs=1e-9
    )
    cells = order_cells(one)
    assert cells[0] == "cutmix 77.6, cutout 74.1, mixup 72.2, none 71.2"
    assert cells[1].startswith("cutout 59.3, cutmix 57.1, none 52.0, mixup 42.0")


def test_the_count_of_pairs_is_kendall_s():
    one = of("CIDEr", *captions())
    ranks = [[*one.theirs.values()], [one.ours[name] for name in one.theirs]]
    pairs = len(one.pairs)
    assert sum(pair.agrees for pair in one.pairs) == (kendalltau(*ranks)[0] + 1) / 2 * pairs == 4
    assert order_cells(one)[3] == "4 of 6"


def test_tests_are_scipy_s_of_all_shared_seeds_and_corrected_over_all_orders():
    ours = found(*captions())
    assert {one.column.metric.key for one in ours} == {"Bleu_4", "CIDEr"}
    pairs = [pair for one in ours for pair in one.pairs]
    p_values = [
        ttest_rel(*(CIDER[name][: min(len(CIDER[pair.better]), len(CIDER[pair.worse]))]
                    for name in (pair.better, pair.worse))).pvalue
        for pair in pairs
    ]  # fmt: skip
    assert [pair.corrected_p for pair in pairs] == pytest.approx(holm(p_values), rel=1e-6)
    assert {pair.difference.n for pair in pairs} == {3, 5}
    shown = {(pair.better, pair.worse, pair.agrees) for pair in ours[0].pairs if pair.is_shown}
    assert ("cutmix", "none", True) in shown
    assert ("mixup", "none", False) in shown
    _, _, _, _, as_published, reversed_ = order_cells(ours[0])
    assert "cutmix > none" in as_published
    assert "none > mixup" in reversed_


def test_a_tie_of_ours_is_not_in_the_published_order_and_has_no_test():
    values = {"none": (0.5,) * 3, "mixup": (0.5,) * 3, "cutmix": (0.6, 0.61, 0.62)}
    one = of("CIDEr", *captions(values))
    assert order_cells(one)[3] == "2 of 3"
    assert [pair.corrected_p for pair in one.pairs if "cutmix" not in pair.better] == [None]


def test_fewer_than_three_methods_have_no_order():
    assert not found(*captions({name: CIDER[name] for name in ("none", "cutmix")}))
    other = [replace(one, backbone=one.backbone | {"method": "fmix"}) for one in captions()]
    assert not found(*other)


def test_a_method_that_stands_twice_has_no_place():
    again = [
        replace(one, backbone=one.backbone | {"recipe_hash": "1234abcd", "fingerprint": f"{i}"})
        for i, one in enumerate(captions())
        if one.backbone["method"] == "mixup"
    ]
    assert "mixup" not in of("CIDEr", *captions(), *again).theirs


def test_without_a_seed_that_all_have_there_is_no_order():
    runs = [one for one in captions() if one.backbone["method"] != "cutout" or one.seed == 3]
    assert of("CIDEr", *runs).n == 1
    runs = [one for one in runs if one.backbone["method"] != "none" or one.seed != 3]
    assert not found(*runs)


def test_each_detector_has_the_order_of_its_kind():
    methods = ("none", "mixup", "cutout", "cutmix")
    runs = [
        detections(kind, seed, 0.5 + 0.01 * seed + 0.1 * place, method)
        for kind in ("ssd", "faster_rcnn", "retinanet")
        for place, method in enumerate(methods)
        for seed in range(3)
    ]
    ours = [one for one in found(*runs) if one.column.metric.key == "AP50"]
    assert [(one.column.setting.network, list(one.theirs)) for one in ours] == [
        ("Faster R-CNN", ["cutmix", "none", "cutout", "mixup"]),
        ("SSD", ["cutmix", "cutout", "none", "mixup"]),
    ]


def test_suites_have_theirs_and_every_page_shows_them(tmp_path):
    gains = {"none": 0.0, "mixup": -3.0, "cutout": 1.0, "cutmix": -9.0}
    runs = [
        evaluation(method, seed, gain + 0.1 * seed * (method == "cutmix"))
        for method, gain in gains.items()
        for seed in range(3)
    ]
    whole = read(tmp_path, runs_of(*runs))
    table = tabulate(whole)
    (one,) = orders(table)
    assert one.column.metric.key == "fgsm_pixels_top1"
    assert list(one.theirs) == ["cutmix", "mixup", "cutout", "none"]
    assert list(one.ours) == ["cutout", "none", "mixup", "cutmix"]
    files = render_files(table, whole)
    for text in (files["report.md"], files["report.html"]):
        assert "Published orders of methods" in text
        assert "none &gt; cutmix" in text or "none > cutmix" in text
    few = [one for one in runs if one.backbone["method"] in ("none", "cutmix")]
    whole = read(tmp_path / "few", runs_of(*few))
    assert "Published orders" not in to_markdown(tabulate(whole), whole)
