"""The published order of methods beside ours: which columns, which seeds, what is shown."""

from dataclasses import replace

import pytest
from scipy.stats import kendalltau, ttest_rel

from pretrain.run import Result
from tests.transfer.test_report import detections, result, run_set
from tests.transfer.test_report_suites import evaluation, read, runs_of
from transfer.evaluation import suites
from transfer.report import paper, published, render_files, tabulate, to_markdown
from transfer.report.order import Order, order_cells, order_names, order_rules, orders
from transfer.statistics import holm
from transfer.task import PRETRAIN, TASKS

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


def of_backbone(run: Result, **facts) -> Result:
    """The same of a backbone that says something else of itself."""
    return replace(run, backbone=run.backbone | facts)


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
    assert cells[0] == "cutmix 77.6, cutout 74.1, mixup 72.2, none 71.2 (table 10)"
    assert cells[1].startswith("cutout 59.3, cutmix 57.1, none 52.0, mixup 42.0")


def test_the_count_of_pairs_is_kendall_s_of_what_is_shown_beside_it():
    """Also where the seeds that two methods have, but not all, say the contrary."""
    one = of("CIDEr", *captions())
    ranks = [[*one.theirs.values()], [one.ours[name] for name in one.theirs]]
    assert one.agreeing == (kendalltau(*ranks)[0] + 1) / 2 * len(one.pairs) == 4
    assert order_cells(one)[3] == "4 of 6"
    values = {"none": (0.5, 0.51, 0.52), "mixup": (0.4, 0.42, 0.41), "cutmix": (0.6, 0.61, 0.63)}
    values["none"] += (0.9, 0.92)
    values["cutmix"] += (0.1, 0.11)
    one = of("CIDEr", *captions(values))
    assert list(one.ours) == ["cutmix", "none", "mixup"]
    assert order_cells(one)[2:4] == ["3", "2 of 3"]


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
    *_, as_published, other_way = order_cells(ours[0])
    assert "cutmix > none" in as_published
    assert "none > mixup" in other_way


def test_a_tie_of_ours_is_not_in_the_published_order_and_has_no_test():
    values = {"none": (0.5,) * 3, "mixup": (0.5,) * 3, "cutmix": (0.6, 0.61, 0.62)}
    one = of("CIDEr", *captions(values))
    assert order_cells(one)[3] == "2 of 3"
    assert [pair.corrected_p for pair in one.pairs if "cutmix" not in pair.better] == [None]


def test_fewer_than_three_methods_or_seeds_and_methods_of_nobody_have_no_order():
    assert not found(*(one for one in captions() if one.seed < 3))
    assert not found(*captions({name: CIDER[name] for name in ("none", "cutmix")}))
    assert not found(*(of_backbone(one, method="fmix") for one in captions()))
    assert not found(*captions({name: CIDER[name] for name in ("mixup", "cutout", "cutmix")}))


def test_a_method_without_a_place_is_named_and_the_others_stay():
    again = [
        of_backbone(one, recipe_hash="1234abcd", fingerprint=str(number))
        for number, one in enumerate(captions())
        if one.backbone["method"] == "mixup"
    ]
    ours = found(*captions(), *again)
    assert [list(one.theirs) for one in ours] == [["cutmix", "cutout", "none"]] * 2
    assert order_rules(ours).endswith(
        "Left out: mixup is there 2 times in captioning BLEU-4 [1]; "
        "mixup is there 2 times in captioning CIDEr [1]."
    )

    moved = [
        one if one.backbone["method"] != "cutout" else of_backbone(one, seed=one.seed + 2)
        for one in captions()
    ]
    ours = found(*moved)
    assert [list(one.theirs) for one in ours] == [["cutmix", "cutout", "none"]] * 2
    assert order_rules(ours).endswith(
        "Left out: mixup shares fewer than 3 seeds in captioning BLEU-4 [1]; "
        "mixup shares fewer than 3 seeds in captioning CIDEr [1]."
    )
    # the more that have seeds in common, whichever comes first
    seeds = {
        "none": range(1, 6),
        "cutmix": range(1, 4),
        "cutout": range(3, 6),
        "mixup": range(3, 6),
    }
    runs = [
        result("captioning", method, seed, 0.5 + 0.01 * seed)
        for method, own in seeds.items()
        for seed in own
    ]
    assert [{*one.theirs} for one in found(*runs)] == [{"none", "cutout", "mixup"}] * 2


@pytest.mark.parametrize(
    "other",
    [
        {"arch": "resnet50"},
        {"recipe": "longer", "epochs": 90},
    ],
)
def test_backbones_of_two_networks_or_pretrainings_are_told_apart(other):
    falling = {name: [1 - value for value in row] for name, row in CIDER.items()}
    second = [
        of_backbone(one, **other, fingerprint=f"second{number}")
        for number, one in enumerate(captions(falling))
    ]
    ours = [one for one in found(*captions(), *second) if one.column.metric.key == "CIDEr"]
    names = [", ".join(pair) for pair in order_names(ours)]
    assert len(set(names)) == 2
    assert any(str(value) in name for name in names for value in other.values())
    assert {order_cells(one)[3] for one in ours} == {"4 of 6", "2 of 6"}
    assert order_names([of("CIDEr", *captions())]) == [("captioning CIDEr [1]", "")]
    text = to_markdown(tabulate(run_set(*captions(), *second)), run_set(*captions(), *second))
    assert all(f"| {name.replace('[', chr(92) + '[').replace(']', chr(92) + ']')} |" in text
               for name in names)  # fmt: skip


def test_a_method_with_two_plain_networks_belongs_to_neither():
    again = [
        of_backbone(one, recipe_hash="1234abcd", fingerprint=f"again{one.seed}")
        for one in captions()
        if one.backbone["method"] == "none"
    ]
    assert not found(*captions(), *again)
    pretrained = [replace(one, task="pretrain", metrics={"top1": 0.5}) for one in again]
    assert found(*captions(), *pretrained)  # where the second is not in the column


@pytest.mark.parametrize(
    ("data", "source", "order"),
    [
        ("imagenette112", "table 10", ["cutmix", "mixup", "cutout", "none"]),
        ("cifar100", "table 5", ["cutmix", "mixup", "none", "cutout"]),
        ("CIFAR-10", "table 7", ["cutmix", "mixup", "cutout", "none"]),
    ],
)
def test_top_1_has_the_order_of_its_data(data, source, order):
    errors = {"none": 16.45, "mixup": 15.63, "cutout": 16.53, "cutmix": 14.47}
    runs = [
        replace(
            result("pretrain", method, seed, 1 - error / 100 + 0.001 * seed),
            data={"name": data, "train": 50_000},
        )
        for method, error in errors.items()
        for seed in range(3)
    ]
    one = of("top1_best", *runs)
    assert (one.source, list(one.theirs)) == (source, order)
    assert one.agreeing == (6 if data == "cifar100" else 5)


def test_of_all_that_is_ranked_more_is_better():
    kinds = {one.name: one.metrics for one in (*TASKS, PRETRAIN)}
    kinds |= {name: block.metrics for name, block in suites.blocks().items()}
    known = {(one.task, one.key) for one in paper.COLUMNS}
    known |= {(one.suite, key) for one in published.PUBLISHED for keys in one.keys for key in keys}
    ranked = [
        metric
        for task, metrics in kinds.items()
        for metric in metrics
        if (task, metric.key) in known
    ]
    assert len(ranked) >= len(known) - 1
    assert not any(metric.less for metric in ranked)


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
