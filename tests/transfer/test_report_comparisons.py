"""All comparisons of a report: which there are, how they are corrected, what is shown of them."""

import csv
import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pretrain.errors import UsageError
from pretrain.run import Result
from tests.transfer.test_report import lines, result, run_set
from tests.transfer.test_report_suites import evaluation
from tools.report import main
from transfer.report import read_runs, render_files, tabulate, to_html, to_markdown
from transfer.report.comparisons import Comparison, compare_all
from transfer.report.crossing import TIMES, crossing_files, crossings
from transfer.report.results import RunSet
from transfer.statistics import holm, pairs_needed

PRIMARY = "cutmix - none: top1, cell_300x80"
# images per class, epochs, CutMix - none of each seed
CELLS = {
    "cell_300x80": (300, 80, (2.0, 2.5, 2.2, 2.4, 2.1)),
    "cell_300x10": (300, 10, (-3.0, -2.0, -2.6)),
    "cell_100x80": (100, 80, (1.0, 4.0, 2.0)),
}


def run_of(task: str, method: str, seed: int, value: float, cell: str, **changes) -> Result:
    """Of a backbone of a cell, which is told by the name of its recipe."""
    per_class, epochs, _ = CELLS[cell]
    name = changes.pop("name", cell)
    facts = {"recipe": name, "epochs": epochs, "recipe_hash": f"{cell[5:]}{method}"[:8]}
    config = {"dataset": {"per_class": per_class, "image_size": 64}} if task == "pretrain" else {}
    one = result(task, method, seed, value, name=name, **config)
    one.config["epochs"] = epochs if task == "pretrain" else 3
    one.backbone.update(facts, fingerprint=f"{cell}{method}{seed}", **changes)
    images = {"train": 10 * per_class} if task == "pretrain" else {"train": 7}
    return replace(one, data={"name": "photos" if task == "pretrain" else "targets", **images})


def study(cells=CELLS, tasks=("pretrain",), **changes) -> list[Result]:
    runs = []
    for cell in cells:
        for seed, gain in enumerate(CELLS[cell][2]):
            for method, more in (("none", 0.0), ("cutmix", gain)):
                for task in tasks:
                    value = 70.0 + seed + more
                    runs.append(run_of(task, method, seed, value, cell, **changes))
    return runs


def compared(runs: list[Result] | RunSet, primary: str = "") -> list[Comparison]:
    found = runs if isinstance(runs, RunSet) else run_set(*runs)
    return compare_all(tabulate(found), primary)


def write(folder: Path, runs: list[Result]) -> Path:
    for number, run in enumerate(runs):
        (folder / str(number)).mkdir(parents=True)
        (folder / str(number) / "result.json").write_text(json.dumps(asdict(run)))
    return folder


def recipes(found: list[Comparison]) -> set[tuple[str | None, str | None]]:
    return {(one.row.recipe_hash, one.other.recipe_hash) for one in found}


@pytest.mark.parametrize("shared", ["name", "name and epochs"])
def test_a_method_is_never_compared_with_the_plain_row_of_another_pretraining(
    shared, tmp_path, monkeypatch
):
    """By name, by epochs, and by what the pretraining itself says where those are alike."""
    tasks = ("pretrain", "detection")
    wanted = {(f"{cell[5:]}cutmix"[:8], f"{cell[5:]}none"[:8]) for cell in CELLS}
    found = compared(study(tasks=tasks))
    assert recipes(found) == wanted
    assert len(found) == 3 * 4
    if shared == "name and epochs":
        monkeypatch.delitem(CELLS, "cell_300x10")
        wanted = {pair for pair in wanted if "300x10" not in str(pair)}
    runs = study(CELLS, tasks, name="one_name")
    for run in [one for one in runs if one.task == "pretrain"]:  # and in a suite
        whole = evaluation(run.backbone["method"], run.backbone["seed"])
        runs.append(replace(whole, backbone=run.backbone))
    suites = compared(read_runs(write(tmp_path, runs)))
    assert recipes(suites) == wanted
    assert {"pretrain", "detection", "robustness"} <= {one.column.setting.task for one in suites}


def test_the_primary_one_stands_first_and_the_others_are_corrected_without_it():
    runs = study(tasks=("pretrain", "detection"))
    for run in runs:  # a metric of the long tables alone is no comparison
        run.metrics.update({"AP50_best": 1.0} if run.task == "detection" else {})
    plain, named = compared(runs), compared(runs, PRIMARY)
    assert len(named) == len(plain) == 12
    first, *others = named
    assert (first.is_primary, first.row.recipe, first.column.metric.key) == (
        True,
        "cell_300x80",
        "top1",
    )
    assert not any(one.is_primary for one in (*others, *plain))
    assert first.corrected_p is first.corrected_half_width is None
    assert [one.corrected_p for one in others] == holm([one.difference.p for one in others])
    assert [one.corrected_p for one in plain] == holm([one.difference.p for one in plain])
    smallest = min(others, key=lambda one: one.difference.p)
    assert smallest.corrected_p == pytest.approx(11 * smallest.difference.p)
    assert smallest.corrected_half_width == smallest.difference.half_width_at(0.05 / 11)
    assert first.pairs_needed == pairs_needed(first.difference.deviation)


@pytest.mark.parametrize(
    ("primary", "said"),
    [
        ("cutmix - none: top1", "fits 3 comparisons; name one of\n  cutmix - none: top1, cell_100"),
        (
            "cutmix - none: top1, cell",
            "is none: 'cell' is no word of cutmix - none: top1; there are\n"
            "  cutmix - none: top1, cell_100x80\n",
        ),
        (
            "cutmx - none: top1, cell_300x80",
            "is none; it must be METHOD - METHOD: METRIC, WORD, ..., such as "
            "'cutmix - none: top1'. There are\n  cutmix - none: top1, cell_100x80\n",
        ),
        ("cutmix - none: top1 cell_300x80", "is none"),
        ("cutmix - none: top1_best, cell_300x80, detection", "is none"),
        ("cutmix - none: top1, cell_300x80, ", "is none"),
        (", cell_300x80", "is none"),
    ],
)
def test_a_primary_that_is_none_or_several_lists_what_there_is(primary, said, tmp_path, capsys):
    with pytest.raises(UsageError) as caught:
        compared(study(), primary)
    assert f"--primary {primary!r} {said}" in str(caught.value)
    runs = write(tmp_path / "runs", study())
    with pytest.raises(UsageError):
        main([str(runs), "--out", str(tmp_path / "out"), "--primary", primary])
    assert not (tmp_path / "out").exists()
    assert capsys.readouterr().out == ""


def test_what_an_error_lists_can_be_given():
    """Where recipes do not tell, data, engine or the digest of the setting do."""
    runs = study(["cell_300x80"], ("detection",))
    runs = [replace(one, config=one.config | {"engine": "torchvision"}) for one in runs]
    runs += [replace(one, data={"name": "cards, large", "train": 9}) for one in runs]
    runs += [replace(one, config=one.config | {"engine": "detectron2"}) for one in runs]
    runs += [replace(one, config=one.config | {"batch": 9}) for one in runs]
    with pytest.raises(UsageError) as caught:
        compared(runs, "cutmix - none: AP50")
    names = str(caught.value).split("\n  ")[1:]
    assert len(names) == len(set(names)) == 8
    assert len({compared(runs, name)[0].column.setting for name in names}) == 8


def test_the_recipe_hash_that_the_page_shows_can_be_given():
    """Where a study gives its cells no names, that is what tells their rows apart."""
    runs = study(name="quick")
    with pytest.raises(UsageError) as caught:
        compared(runs, "cutmix - none: CIDEr")
    for hashed in ("300x80cu", "300x10cu", "100x80cu"):
        assert f"cutmix - none: top1, {hashed}\n" in f"{caught.value}\n"
        assert compared(runs, f"cutmix - none: top1, {hashed}")[0].row.recipe_hash == hashed


def test_a_marker_holds_the_primary_one(tmp_path, capsys):
    runs = write(tmp_path / "results" / "study", study())
    docs = tmp_path / "docs.md"
    marker = f"<!-- report results/study --primary {PRIMARY} -->"
    docs.write_text(f"{marker}\n<!-- /report -->\n")
    main([str(runs), "--docs", str(docs)])
    text = docs.read_text()
    found = read_runs(runs)
    assert text.startswith(
        f"{marker}\n\nPrimary comparison, named beforehand: cutmix - none, cell_300x80, pretrain"
    )
    assert to_markdown(tabulate(found), found, PRIMARY).strip() in text
    assert capsys.readouterr().out.strip() in text
    main([str(runs), "--docs", str(docs), "--primary", PRIMARY])
    assert docs.read_text() == text
    for other in ("cutmix - none: top1_best, cell_300x80", "nonsense"):
        with pytest.raises(UsageError, match=r"but the marker in .* has 'cutmix - none: top1, "):
            main([str(runs), "--docs", str(docs), "--primary", other])
    docs.write_text("<!-- report results/study --primary nonsense -->\n<!-- /report -->\n")
    with pytest.raises(UsageError, match="--primary 'nonsense' is none"):
        main([str(runs), "--docs", str(docs)])


def test_the_long_table_says_the_same_in_markdown_html_and_csv():
    found = run_set(*study())
    table = tabulate(found)
    files = render_files(table, found, primary=PRIMARY)
    part = files["report.md"].split("**Comparisons.** ")[1]
    assert part.startswith(
        "p, Holm: corrected for the 5 tests of this table beside the primary one"
    )
    titles, _, *rows = [line[2:-2].split(" | ") for line in part.splitlines() if line[:1] == "|"]
    assert len(rows) == 6
    assert titles == ["comparison", "metric", "difference", "95 % interval", "n", "p", "p, Holm",
                      "interval, Holm", "detectable", "pairs for 1.1"]  # fmt: skip
    one, primary = compared(found, PRIMARY)[1], compared(found, PRIMARY)[0]
    assert rows[0][:2] == [
        "cutmix - none, cell_300x80 (primary)",
        "pretrain top-1 %, last [3]",
    ]
    assert rows[0][2:] == ["+2.2", "+2.0 to +2.5", "5", "< 0.001", "-", "-", "0.3", "3"]
    assert [row[5] for row in rows if "cell_300x10" in row[0]] == ["0.013"] * 2
    low, high = (one.difference.mean + side * one.corrected_half_width for side in (-1, 1))
    assert f"{low:+.1f} to {high:+.1f}" in rows[1]
    html = files["report.html"].split('<table id="table-comparisons">')[1].split("</table>")[0]
    for row in rows:
        for text in row[2:]:
            assert f">{text.replace('<', '&lt;')}</td>" in html
    assert html.count("<tr") == 7
    assert "<small>primary</small>" in html
    assert (
        "<p>Primary comparison, named beforehand: cutmix - none, cell_300x80"
        in files["report.html"]
    )
    cells = list(csv.DictReader(io.StringIO(files["cells.csv"])))
    lines = [cell for cell in cells if cell["primary"] == "False" and cell["against"]]
    assert sorted(float(line["corrected_p"]) for line in lines) == sorted(
        one.corrected_p for one in compared(found, PRIMARY)[1:]
    )
    (line,) = [cell for cell in cells if cell["primary"] == "True"]
    assert (line["pretraining"], line["metric"], line["corrected_p"]) == ("cell_300x80", "top1", "")
    assert float(line["deviation"]) == primary.difference.deviation


def test_markdown_has_no_table_of_comparisons_without_a_test():
    two = [run for run in study() if run.seed < 2]
    found = run_set(*two)
    text, html = to_markdown(tabulate(found), found), to_html(tabulate(found), found)
    assert "Comparisons" not in text
    assert "table-comparisons" not in html
    more = run_set(*two, *study(["cell_300x10"]))
    text = to_markdown(tabulate(more), more).split("**Comparisons.**")[1]
    assert text.count("\n| cutmix - none, cell_300x10 |") == text.count("\n| cutmix") == 2
    assert "corrected for the 2 tests of this table, those" in text
    assert "4 more have fewer than 3 pairs, and no test." in text


def test_pairs_that_do_not_vary_have_no_test_and_are_not_counted():
    runs = [
        run_of("pretrain", method, seed, value + seed, "cell_300x80")
        for method, value in (("none", 70.0), ("cutmix", 71.0))
        for seed in range(3)
    ]
    one = compared(runs + study(["cell_100x80"]))
    assert [c.corrected_p is None for c in one] == [False, False, True, True]
    found = run_set(*runs)
    text = to_markdown(tabulate(found), found).split("**Comparisons.**")[1]
    assert "corrected for the 0 tests" in text
    assert "| +1.0 | +1.0 to +1.0 | 3 | no spread | - | - | 0.0 | - |" in text


def test_what_is_shown_says_how_much_is_left_after_correction():
    found = run_set(*study(["cell_300x10", "cell_100x80"]))
    table = tabulate(found)
    shown = {one.row.recipe: one.is_shown for one in compare_all(table)}
    assert shown == {"cell_300x10": False, "cell_100x80": False}  # 4 tests of three pairs
    text = to_markdown(table, found)
    assert "-2.5 ± 1.3. Shown after Holm's correction: none." in text
    found = run_set(*study(["cell_300x80"]))  # the primary one is not corrected, and not counted
    text = to_markdown(tabulate(found), found, "cutmix - none: top1")
    assert "2 of 2 intervals exclude zero: " in text
    assert "Shown after Holm's correction: 1 besides the primary one." in text
    runs = study(["cell_300x80"], ("pretrain", "detection"))
    for run, noise in zip(runs[::4], (0, 9, -9, 9, -9), strict=True):  # a primary that holds zero
        run.metrics["top1"] += noise
    text = to_markdown(tabulate(run_set(*runs)), run_set(*runs), "cutmix - none: top1")
    assert "3 of 4 intervals exclude zero: " in text
    assert "Shown after Holm's correction: 3." in text


def test_by_how_much_the_best_epoch_flatters_is_seen_for_each_method():
    runs = []
    for method, gains in (("none", (0.2, 0.4)), ("cutmix", (0.6, 0.8))):
        for seed, gain in enumerate(gains):
            one = result("pretrain", method, seed, 70.0 + seed)
            one.metrics["top1_best"] += gain
            runs.append(one)
    runs.append(replace(runs[0], backbone=runs[0].backbone | {"seed": 9}, metrics={"top1": 1.0}))
    table = lines(runs)
    assert table["backbone"] == ["top-1 %, last [1]", "top-1 %, best [1]", "best - last [1]"]
    assert (table["net, none"][2], table["net, cutmix"][2]) == ("+0.3 ± 0.1", "+0.7 ± 0.1")
    assert table["*cutmix - none*"][2] == ""  # no third test of two scores
    found = run_set(*runs)
    html = to_html(tabulate(found), found)
    assert "<small>+0.7 ± 0.1 above the last</small>" in html
    last_alone = run_set(replace(runs[0], metrics={"top1": 1.0}))
    assert "best - last" not in to_markdown(tabulate(last_alone), last_alone)


def test_cells_of_a_study_are_tables_of_their_own():
    """What stands in one of them stands in no other; the one with the most rows comes first."""
    runs = study() + study(["cell_300x80"], ("detection",))
    runs += [run_of("pretrain", "mixup", 0, 71.0, "cell_300x80")]
    found = run_set(*runs)
    table = tabulate(found)
    parts = table.components
    assert [len(part.rows) for part in parts] == [3, 2, 2]
    assert [sorted({one.number for one in part.columns}) for part in parts] == [[3, 4], [1], [2]]
    assert sum(len(part.comparisons) for part in parts) == len(table.comparisons) == 4
    text = to_markdown(table, found).split("[1] pretrain")[0]
    assert text.count("| backbone |") == 3
    assert "not measured" not in text.replace("| resnet10t, mixup", "").split("\n\n| backbone")[2]
    html = to_html(table, found)
    for name in ("table-summary", "table-summary-2", "table-summary-3"):
        assert html.count(f'<table id="{name}">') == 1
    names = re.findall(r' id="([^"]+)"', html)
    assert len(names) == len(set(names))
    # random weights, which are compared with all plain ones, join nothing; a setting does
    scratch = replace(
        runs[0], backbone=runs[0].backbone | {"method": "from scratch"}, task="detection"
    )
    scratch = replace(scratch, metrics={"AP50": 1.0}, data={"name": "targets", "train": 7})
    scratch = replace(scratch, config=runs[-2].config)
    assert len(tabulate(run_set(*runs, scratch)).components) == 3


def sized(arch: str, size: int | None, own: bool = True, **changes) -> Result:
    one = result("classification", "none", 0, 60.0, dataset={"image_size": None if own else 64})
    own_size = {} if size is None else {"input_size": [3, size, size]}
    return replace(
        one, backbone=one.backbone | {"arch": arch, "fingerprint": arch} | own_size, **changes
    )


def settings(*runs: Result) -> list[str]:
    return [one.data for one in tabulate(run_set(*runs)).settings]


def test_backbones_that_take_images_of_other_sizes_share_no_column():
    runs = [sized("a", 224), sized("b", 240), sized("c", 224)]
    table = tabulate(run_set(*runs))
    measured = {
        column.setting.data: [row.arch for row in table.rows if table.cells[row, column].n]
        for column in table.columns
    }
    assert measured == {
        "d (10 train), 224 x 224 pixels": ["a", "c"],
        "d (10 train), 240 x 240 pixels": ["b"],
    }
    # of one size, or of that of the recipe: one column
    assert settings(sized("a", 224), sized("b", 224)) == ["d (10 train)"]
    assert settings(sized("a", 224, own=False), sized("b", 240, own=False)) == ["d (10 train)"]
    # the recipe's 64 pixels are the own ones of another
    named, apart = sized("a", 224, own=False), sized("b", 64)
    assert settings(named, apart) == ["d (10 train)"]
    large = replace(named, config=named.config | {"dataset": {"image_size": 128}})
    assert settings(named, large, apart) == [
        "d (10 train), 128 x 128 pixels",
        "d (10 train), 64 x 64 pixels",
    ]
    # where one size is named, all of that title are, whatever else tells them apart
    probe = replace(named, config=named.config | {"mode": ["linear"]})
    assert settings(named, large, probe) == [
        "d (10 train), 128 x 128 pixels",
        "d (10 train), 64 x 64 pixels; mode linear",
        "d (10 train), 64 x 64 pixels; mode unknown",
    ]
    # a detector's images have a size of their own
    detector = result("detection", "none", 0, 60.0)
    detectors = [
        replace(
            detector, backbone=detector.backbone | {"arch": arch, "input_size": [3, size, size]}
        )
        for arch, size in (("a", 224), ("b", 240))
    ]
    assert settings(*detectors) == ["d (10 train)"]


def test_a_result_of_before_that_says_no_input_size(tmp_path):
    """Others of its architecture say it, or the pretraining; else its architecture stands apart."""
    again = sized("a", None)
    again.backbone["seed"] = 1
    assert lines([sized("a", 224), again])["a, none"] == ["60.0 ± 0.0 (n=2)"]
    large = "d (10 train), 240 x 240 pixels"
    assert settings(sized("a", 224), again, sized("b", 240))[1:] == [large]
    apart = ["d (10 train), the input size of a", "d (10 train), the input size of b"]
    assert settings(sized("a", None), sized("b", None)) == apart
    assert settings(sized("a", None), sized("b", 240)) == [large, apart[0]]
    assert settings(again, sized("a", None)) == ["d (10 train)"]
    # what a recipe asked for is not the network's own
    asked = sized("a", None, own=False)
    assert settings(asked, again) == ["d (10 train), 64 x 64 pixels", apart[0]]
    pretrained = run_of("pretrain", "none", 0, 70.0, "cell_300x80")
    pretrained.backbone["fingerprint"] = "b"
    small = sized("b", None)
    found = read_runs(write(tmp_path, [pretrained, small, sized("c", 64)]))
    assert found.runs[1].result.backbone["input_size"] == [3, 64, 64]
    assert [one.task for one in tabulate(found).settings] == ["pretrain", "classification"]


def test_a_malformed_input_size_is_named_and_left_out(tmp_path):
    runs = [sized("a", 224), *(sized("b", 240) for _ in range(4))]
    for run, odd in zip(runs[1:], ("240", [240], [3, 240, None], [3, 240, "240"]), strict=True):
        run.backbone["input_size"] = odd
    found = read_runs(write(tmp_path, runs))
    assert [run.result.backbone["arch"] for run in found.runs] == ["a"]
    assert len(found.complaints) == 4
    assert all("backbone.input_size" in line for line in found.complaints)


def test_classifiers_of_other_input_sizes_share_no_column_of_a_suite(tmp_path):
    runs = []
    for arch, size in (("a", 224), ("b", 240)):
        one = evaluation("none", 0)
        runs.append(
            replace(one, backbone=one.backbone | {"arch": arch, "input_size": [3, size, size]})
        )
    table = tabulate(read_runs(write(tmp_path, runs)))
    for part in table.suites.values():
        assert len(part.settings) == 2
        assert {one.data[-16:] for one in part.settings} == {"224 x 224 pixels", "240 x 240 pixels"}


def shapes(chart: str, kind: str) -> list[dict[str, str]]:
    found = ElementTree.fromstring(chart).iter()
    return [dict(one.attrib) for one in found if kind in one.attrib.get("class", "").split()]


def test_the_crossing_has_a_point_for_each_pretraining_with_its_interval():
    found = compared(study(), PRIMARY)
    (chart,) = crossings(found)
    dots = sorted(
        (one for one in shapes(chart.svg, "a1") if "cx" in one), key=lambda one: float(one["cx"])
    )
    # 30,000, 80,000 and 240,000 images on a logarithmic axis
    xs = [float(one["cx"]) for one in dots]
    assert (xs[1] - xs[0]) / (xs[2] - xs[0]) == pytest.approx(0.4717, abs=0.002)
    assert [(one["class"], one["r"]) for one in dots] == [
        ("point a1", "4"),  # shown after Holm
        ("ring a1", "4"),
        ("point a1", "6"),  # named beforehand
    ]
    ys = [float(one["cy"]) for one in dots]
    last = [one for one in found if one.column.metric.key == "top1"]
    last.sort(key=lambda one: ["cell_300x10", "cell_100x80", "cell_300x80"].index(one.row.recipe))
    means = [one.difference.mean for one in last]
    unit = (ys[0] - ys[2]) / (means[2] - means[0])  # pixels a point
    assert ys[1] == pytest.approx(ys[0] - unit * (means[1] - means[0]), abs=0.2)
    zero = float(shapes(chart.svg, "zero")[0]["y1"])
    assert ys[2] == pytest.approx(zero - unit * means[2], abs=0.2)
    # two are corrected, one at the level of each of Holm's steps; the third is not
    bars = [one for one in shapes(chart.svg, "bar") if one["x1"] == one["x2"]]
    reach = {float(one["x1"]): abs(float(one["y1"]) - float(one["y2"])) / 2 for one in bars}
    for x, one, level in zip(xs, last, (0.025, 0.05, 0.05), strict=True):
        assert reach[x] == pytest.approx(unit * one.difference.half_width_at(level), abs=0.2)
    # what has the same images is joined
    lines = [one["points"] for one in shapes(chart.svg, "curve") if "points" in one]
    assert lines == [f"{xs[0]:.1f},{ys[0]:.1f} {xs[2]:.1f},{ys[2]:.1f}"]
    for text in (f"300 {TIMES} 80", f"cutmix, 300 {TIMES} 80: +2.2 ± 0.3, n=5", "cutmix - none",
                 "large: primary, 95 %; others: Holm over 2 tests"):  # fmt: skip
        assert text in chart.svg
    assert "intervals: Holm over 3 tests" in crossings(compared(study()))[0].svg


def test_methods_have_their_colours_and_stand_side_by_side():
    runs = study()
    for run in list(runs):
        if run.backbone["method"] == "cutmix" and run.backbone["recipe"] != "cell_100x80":
            facts = {"method": "mixup", "fingerprint": run.backbone["fingerprint"] + "m"}
            runs.append(replace(run, backbone=run.backbone | facts))
    (chart,) = crossings(compared(runs))
    cutmix, mixup = (
        [float(one["cx"]) for one in shapes(chart.svg, style) if "cx" in one]
        for style in ("a1", "a2")
    )
    assert (len(cutmix), len(mixup)) == (3, 2)
    assert max(mixup) - max(cutmix) == pytest.approx(9, abs=0.11)
    assert chart.svg.count(f"300 {TIMES} 80</text>") == 1


def test_weights_of_others_change_no_colour():
    runs = study()
    foreign = result("detection", "a.pth", 0, 60.0)
    foreign.backbone.update(arch="a", recipe=None, seed=None)
    one, other = (crossings(compared(found, PRIMARY)) for found in (runs, [*runs, foreign]))
    assert [chart.svg for chart in one] == [chart.svg for chart in other]


def test_labels_of_neighbours_do_not_overlap(monkeypatch):
    near = {f"cell_{n}x80": (n, 80, (1.0, 2.0, 1.5)) for n in (100, 101, 102, 300)}
    for cell, facts in near.items():
        monkeypatch.setitem(CELLS, cell, facts)
    (chart,) = crossings(compared(study(near)))
    found = ElementTree.fromstring(chart.svg).iter()
    labels = [one for one in found if one.get("class") == "label" and TIMES in (one.text or "")]
    boxes = [(float(one.get("x")), float(one.get("y"))) for one in labels]
    assert len(boxes) == 4
    for number, (x, y) in enumerate(boxes):
        assert all(abs(x - u) > 50 or abs(y - v) >= 14 for u, v in boxes[:number])


def test_a_point_of_all_images_stands_beside_those_of_so_many_a_class():
    def all_images(run: Result) -> Result:
        config = run.config | {"dataset": {"per_class": None, "image_size": 64}}
        return replace(run, config=config, data=run.data | {"train": 9469})

    runs = [all_images(run) if run.config["epochs"] == 10 else run for run in study()]
    (chart,) = crossings(compared(runs))
    for cell in ("300", "100"):
        assert f">{cell} {TIMES} 80</text>" in chart.svg
    assert f">all {TIMES} 10</text>" in chart.svg
    whole = [all_images(run) for run in runs if "300x" in run.config["name"]]
    (chart,) = crossings(compared(whole))
    assert f">9,469 {TIMES} 80</text>" in chart.svg


def test_each_picture_is_corrected_for_its_own_tests_alone():
    """Those of another network, and those that are in no picture, do not count."""
    runs = study()
    other = [replace(run, backbone=run.backbone | {"arch": "second"}) for run in runs]
    silent = [
        replace(run, backbone=run.backbone | {"arch": "third", "epochs": None}) for run in runs
    ]
    (alone,) = crossings(compared(runs))
    charts = crossings(compared([*runs, *other, *silent]))
    assert len(charts) == 2
    for chart in charts:
        assert "intervals: Holm over 3 tests" in chart.svg
        assert texts(chart.svg) == texts(alone.svg)


def texts(chart: str) -> list[str]:
    """Each point in words, with its interval."""
    return re.findall(r"cutmix, [^;<]*n=\d", chart)


def test_a_method_of_one_pretraining_is_in_no_picture():
    """And counts in none: it says nothing about longer training."""
    runs = study()
    for run in study(["cell_300x80"])[1::2]:
        mixup = replace(
            run, backbone=run.backbone | {"method": "mixup", "fingerprint": f"m{run.seed}"}
        )
        mixup.config["mixing"] = {"method": "mixup"}
        runs.append(mixup)
    found = compared(runs, PRIMARY)
    assert "mixup" in {one.row.method for one in found}
    assert crossings(found)[0].svg == crossings(compared(study(), PRIMARY))[0].svg


def test_a_crossing_needs_two_pretrainings_of_one_network():
    assert crossings(compared(study(["cell_300x80"]))) == []
    other = [run_of("pretrain", method, seed, 70.0 + seed, "cell_300x10", arch="other")
             for method in ("none", "cutmix") for seed in range(3)]  # fmt: skip
    assert crossings(compared(study(["cell_300x80"]) + other)) == []
    transfers = compared(study(tasks=("detection",)))
    assert crossings(transfers) == []
    with pytest.raises(UsageError, match="--crossing: no two pretraining settings of one network"):
        crossing_files(transfers)
    # pairs without a test have a ring and no interval
    (chart,) = crossings(compared([run for run in study() if run.seed < 2]))
    assert not [one for one in shapes(chart.svg, "bar") if one["x1"] != one["x2"]]
    assert {one["class"] for one in shapes(chart.svg, "a1") if "cx" in one} == {"ring a1"}
    # what does not say its images or epochs is left out
    odd = [replace(run, data={"name": "photos"}) for run in study()]
    assert crossings(compared(odd)) == []


@pytest.mark.parametrize(
    ("stem", "said"),
    [
        ("there", "is a folder; give a stem of names"),
        ("there/", "is a folder"),
        (".", "is a folder"),
        ("a.svg", "leave .svg"),
        ("runs/primary.txt/a", "primary.txt is a file; give another stem"),
        ("taken", "taken_dark.svg is a folder; give another stem"),
    ],
)
def test_pictures_that_have_no_place_are_refused_before_anything_is_written(
    stem, said, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(Path("runs"), study())
    Path("runs/primary.txt").write_text("")
    Path("there").mkdir()
    Path("taken_dark.svg").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=said):
        main(["runs", "--out", "out", "--crossing", stem, "--primary", PRIMARY])
    with pytest.raises(UsageError, match="--primary is empty"):
        main(["runs", "--out", "out", "--primary", ""])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_primary_of_one_pair_says_that_it_has_no_test():
    found = run_set(*[run for run in study() if run.backbone["seed"] == 1])
    text = to_markdown(tabulate(found), found, PRIMARY)
    assert re.search(r"named beforehand: .*: [+-][\d.]+ \(one pair: no test\)\.", text)


def test_the_pictures_of_the_crossing_are_complete_in_themselves(tmp_path):
    runs = write(tmp_path / "runs", study())
    main([str(runs), "--crossing", str(tmp_path / "crossing"), "--primary", PRIMARY])
    texts = {theme: (tmp_path / f"crossing_{theme}.svg").read_text() for theme in ("light", "dark")}
    for text in texts.values():
        assert ElementTree.fromstring(text).tag == "{http://www.w3.org/2000/svg}svg"
        assert "light-dark" not in text
        used = set(re.findall(r"var\((--\w+)\)", text))
        assert {"--a1", "--sheet", "--ink"} <= used <= set(re.findall(r"(--\w+):", text))
        assert {"bar", "point", "curve"} <= set(re.findall(r"\.(\w+)", text))
    assert "--sheet: #ffffff" in texts["light"]
    assert "--sheet: #1d2024" in texts["dark"]
    found = read_runs(runs)
    html = to_html(tabulate(found), found, primary=PRIMARY)
    assert html.count('id="crossing"') == 1
    assert crossings(compared(found, PRIMARY))[0].svg in html
    with pytest.raises(UsageError, match="--crossing"):
        main([str(write(tmp_path / "one", study(["cell_300x80"]))), "--crossing", "x"])
    with pytest.raises(UsageError, match=r"--crossing . is a folder; give a stem"):
        main([str(runs), "--crossing", "."])
