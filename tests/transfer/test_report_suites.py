"""Results of tools/evaluate.py in the report: a block for each suite, beside the tasks' table."""

import csv
import io
import json
import re
from dataclasses import asdict, replace

import pytest
from PIL import Image

from pretrain.errors import UsageError
from pretrain.run import Result
from tests.transfer.test_report import result
from transfer.evaluation import suites
from transfer.report import published, read_runs, render_files, tabulate, to_markdown
from transfer.report.expectations import compare, read_expected
from transfer.task import Picture

ROBUSTNESS = {"clean_top1": 70.0, "fgsm_pixels_top1": 20.0, "corruptions_top1": 41.5}
CURVE = {"occlusion_centre_curve": [70.0, 50.0], "by_corruption": {"fog": {"1": 60.0}}}
CALIBRATION = {"ece": 4.25, "ece_scaled": 1.5, "temperature": 1.21}


def evaluation(method: str, seed: int | None, gain: float = 0, **options) -> Result:
    """Of two suites, as tools/evaluate.py writes it."""
    metrics = {key: value + gain for key, value in ROBUSTNESS.items()} | CURVE
    shared = {"preprocess": "pil", "precision": "32-true", "split": None, "class_order": None}
    data = {"name": "photos", "images": 334, "notes": ["a note"], "digest": "1234567890abcdef"}
    return replace(
        result("pretrain", method, seed or 0, 0),
        task="evaluate",
        metric="robustness.clean_top1",
        metrics={"robustness": metrics, "calibration": dict(CALIBRATION)},
        backbone=result("pretrain", method, seed or 0, 0).backbone | {"seed": seed},
        data={"name": "photos", "robustness": data, "calibration": data},
        config={"name": "evaluate", "max_corrupt": 0, **shared}
        | {"robustness": {"data": f"/{seed}/photos", "seed": 0, **options}}
        | {"calibration": {"data": f"/{seed}/photos", "bins": 15}},
        seed=0,
        seconds=100.0,
    )


def runs_of(*evaluations: Result) -> dict[str, Result]:
    return {f"run{number}": one for number, one in enumerate(evaluations)}


def read(folder, runs: dict[str, Result | dict]):
    for name, run in runs.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        content = run if isinstance(run, dict) else asdict(run)
        (folder / name / "result.json").write_text(json.dumps(content))
    return read_runs(folder)


def both(seeds: int = 3) -> dict[str, Result]:
    return runs_of(
        *(evaluation(method, seed, gain + 0.1 * seed * (gain == 5))
          for method, gain in (("none", 0), ("cutmix", 5)) for seed in range(seeds))
    )  # fmt: skip


def test_a_suite_is_a_table_of_its_own_with_the_published_values(tmp_path):
    tasks = {f"task{seed}": result("pretrain", "none", seed, 50 + seed) for seed in range(2)}
    found = read(tmp_path, both() | tasks)
    assert found.complaints == ()
    table = tabulate(found)
    assert [setting.task for setting in table.settings] == ["pretrain"]
    assert list(table.suites) == ["robustness", "calibration"]
    text = to_markdown(table, found)
    main, robustness, calibration = re.split(r"\n\*\*.*\*\*\n", text)
    only_tasks = replace(found, runs=tuple(run for run in found.runs if "task" in run.folder))
    assert main == to_markdown(tabulate(only_tasks), only_tasks)  # unchanged by the suites
    head = "| backbone | clean % [2] | FGSM, pixels % [2] | corruptions, mean % [2] |"
    assert head in robustness
    assert "| net, none | 70.0 ± 0.0 (n=3) | 20.0 ± 0.0 (n=3) | 41.5 ± 0.0 (n=3) |" in robustness
    assert "| *cutmix - none* | *+5.1 ± 0.2 (n=3, p < 0.001, detectable 0.3)* |" in robustness
    assert "[2] robustness: default options, data photos (334 images)" in robustness
    assert (
        "cutmix - none, 3 pairs: 3 of 3 intervals exclude zero: robustness clean % +5.1"
        in robustness
    )
    theirs = robustness.split("Published, at full scale")[1]
    assert "the paper does not say" in theirs
    assert "| cutmix | 31.0 |\n" in theirs
    assert "| *cutmix - none* | *+22.8* |" in theirs
    assert "| net, cutmix | 4.2" in calibration
    assert "[3] calibration" in calibration
    assert "Published" not in calibration


def test_a_folder_of_evaluations_alone_has_no_table_of_tasks(tmp_path):
    found = read(tmp_path, both(1))
    texts = render_files(tabulate(found), found)
    assert texts["report.md"].startswith("**Robustness")
    assert texts["report.md"].count("Cells: mean") == 1
    for name in ("report.md", "report.tex", "report.html"):
        assert "NIC on MS-COCO" not in texts[name], name
        assert "31.0" in texts[name], name
    assert 'id="summary"' not in texts["report.html"]
    assert "No pretraining run" not in texts["report.html"]
    assert "<p>2 runs from 2 backbones · robustness, calibration · 3 min" in texts["report.html"]
    assert texts["report.html"].count("How to read it") == 1


def test_an_evaluation_is_a_line_of_each_suite_in_csv_and_a_table_in_latex(tmp_path):
    found = read(tmp_path, both())
    texts = render_files(tabulate(found), found)
    runs = list(csv.DictReader(io.StringIO(texts["report.csv"])))
    assert [(run["folder"], run["task"]) for run in runs[:2]] == [
        ("run0", "robustness"), ("run0", "calibration")
    ]  # fmt: skip
    assert runs[0]["metrics.clean_top1"] == "70.0"
    assert runs[0]["metrics.occlusion_centre_curve"] == "[70.0, 50.0]"
    assert runs[1]["config.bins"] == "15"
    cells = list(csv.DictReader(io.StringIO(texts["cells.csv"])))
    assert {cell["setting"] for cell in cells} == {run["setting"] for run in runs}
    row = next(cell for cell in cells if cell["metric"] == "ece" and cell["method"] == "cutmix")
    assert (row["task"], row["mean"], row["n"], row["recipe"]) == (
        "calibration", "4.25", "3", "default options"
    )  # fmt: skip
    assert any(cell["against"] == "none" and cell["metric"] == "clean_top1" for cell in cells)
    labels = re.findall(r"\\label\{tab:(.*?)\}", texts["report.tex"])
    assert labels == ["transfer-1", "transfer-paper-robustness", "transfer-2"]
    assert r"net, cutmix & 75.1 $\pm$ 0.1 (n=3) & " in texts["report.tex"]


def test_decimals_and_direction_are_those_of_the_metric(tmp_path, monkeypatch):
    ece = task_metric("calibration", "ece")
    monkeypatch.setattr(suites, "SUITES", (replace(suites.by_name("calibration"), metrics=(ece,)),))
    runs = [evaluation(method, seed) for method in ("none", "cutmix") for seed in (0, 1)]
    for number, run in enumerate(runs):
        run.metrics.pop("robustness")
        run.metrics["calibration"]["ece"] += 0.01 * number
    found = read(tmp_path, runs_of(*runs))
    texts = render_files(tabulate(found), found)
    assert "| net, none | 4.255 ± 0.007 (n=2) |" in texts["report.md"]
    assert "*+0.020 ± 0.000 (n=2" in texts["report.md"]
    assert r"4.255 $\pm$ 0.007" in texts["report.tex"]
    page = texts["report.html"]
    assert ">4.255</a>" in page
    assert "+0.020 ± 0.000, n=2" in page
    assert "(less is better)</figcaption>" in page
    assert '<th scope="col" aria-sort="none" data-less data-task="calibration">' in page


def task_metric(suite: str, key: str):
    (metric,) = (one for one in suites.by_name(suite).metrics if one.key == key)
    return replace(metric, decimals=3, less=True)


def test_pictures_stand_in_their_suite(tmp_path, monkeypatch):
    picture = Picture(
        "reliability.png", section="reliability", title="Reliability", lead="Above the pictures.",
        alt="Accuracy over confidence: {method}", width=40,
    )  # fmt: skip
    suite = replace(suites.by_name("calibration"), pictures=(picture,))
    monkeypatch.setattr(suites, "SUITES", (suites.by_name("robustness"), suite))
    runs = both(2)
    for name in ("run1", "run2", "run3"):  # none of seed 1, cutmix of seeds 0 and 1
        (tmp_path / name / "pictures").mkdir(parents=True)
        Image.new("RGB", (80, 60)).save(tmp_path / name / "pictures" / "reliability.png")
    found = read(tmp_path, runs)
    page = render_files(tabulate(found), found)["report.html"]
    robustness, calibration = page.split('<section id="suite-')[1:]
    assert "<figure" not in robustness.split("Published")[1]
    assert '<img src="data:image/webp' in calibration
    assert "<h3>Reliability</h3>" in calibration
    captions = re.findall(r"<figcaption>(.*calibration \(.*\))</figcaption>", page)
    assert captions == ["net, cutmix, calibration (run2)", "net, none, calibration (run1)"]


def test_options_and_content_make_a_setting_paths_and_draws_do_not(tmp_path):
    def settings(*evaluations: Result) -> list[str]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        table = tabulate(read(folder, runs_of(*evaluations)))
        return [one.title for one in table.suites["robustness"].settings]

    title = "robustness: default options, data photos (334 images)"
    plain = evaluation("none", 0)
    older = evaluation("none", 1)
    older.config.pop("class_order")
    assert settings(plain, older, evaluation("none", 1, parts=["attacks"])) == [title]
    assert settings(plain, evaluation("none", 0, eps=0.5)) == [
        title, "robustness: eps 0.5, data photos (334 images)"
    ]  # fmt: skip
    half = evaluation("none", 0)
    half.config["precision"] = "bf16-mixed"
    assert settings(half) == ["robustness: precision bf16-mixed, data photos (334 images)"]
    other = evaluation("none", 0)
    other.data["robustness"] = other.data["robustness"] | {"digest": "f" * 16}
    assert settings(plain, other) == [f"{title}, content 12345678", f"{title}, content ffffffff"]


def test_foreign_sets_count_by_name(tmp_path):
    runs = []
    for number, foreign in enumerate((["/a/lsun", "isun=/a/x"], ["/b/lsun", "isun=/b/y=z"])):
        run = evaluation("none", number)
        run.metrics["ood"] = {"auroc": 90.0}
        run.data["ood"] = run.data["robustness"]
        run.config["ood"] = {"data": "/a/photos", "foreign": foreign}
        runs.append(run)
    (setting,) = tabulate(read(tmp_path, runs_of(*runs))).suites["ood"].settings
    assert setting.title == "ood: foreign lsun isun, data photos (334 images)"


def test_the_score_without_suites_is_a_block_too(tmp_path):
    runs = []
    for seed in range(2):
        run = evaluation("none", seed)
        data = {"name": "photos", "val": 334, "classes": 10, "notes": []}
        config = {"name": "evaluate", "backbone": "b.pth", "data": "/photos", "preprocess": "pil",
                  "precision": "32-true", "out": f"runs/{seed}", "device": "cpu"}  # fmt: skip
        metrics = {"top1": 70.0 + seed, "top5": 90.0, "val_loss": 1.2, "images_per_second": 3.5}
        runs.append(replace(run, metric="top1", metrics=metrics, data=data, config=config))
    found = read(tmp_path, runs_of(*runs))
    table = tabulate(found)
    text = to_markdown(table, found)
    assert text.startswith("**Accuracy: the backbone's own classifier**\n")
    assert "| net, none | 70.50 ± 0.71 (n=2) | 90.00 ± 0.00 (n=2) | 1.200 ± 0.000 (n=2) |" in text
    assert "[1] evaluate: default options, data photos (334 val, 10 classes)" in text
    assert render_files(table, found)["report.html"].count("<details id=") == 1  # one configuration


def test_expected_numbers_of_suites(tmp_path):
    table = tabulate(read(tmp_path, both()))
    file = tmp_path / "expected.yaml"
    rows = [
        "{task: robustness, method: none, metric: clean_top1, value: 70, n: 3}",
        "{task: robustness, method: cutmix, against: none, metric: clean_top1, value: 5.1}",
        "{task: calibration, method: cutmix, metric: ece, value: 4.25, data: photos}",
        "{task: calibration, method: cutmix, metric: ece, value: 5}",
    ]
    file.write_text("tolerance: 0.01\nrows:\n" + "".join(f"- {row}\n" for row in rows))
    outcomes = compare(read_expected(file), table)
    assert [one.holds for one in outcomes] == [True, True, True, False]
    for row, said in (
        ("{task: calibration, method: none, metric: top1, value: 1}", "'top1'; known are ece, "),
        ("{task: juggling, method: none, metric: top1, value: 1}", "robustness, ood, "),
    ):
        file.write_text(f"tolerance: 1\nrows:\n- {row}\n")
        with pytest.raises(UsageError, match=said):
            read_expected(file)


def changed(part: str, key: str, value) -> dict:
    content = json.loads(json.dumps(asdict(evaluation("none", 0))))
    if value is None:
        del content[part][key]
    else:
        content[part][key] = value
    return content


BAD = {
    "number": (changed("metrics", "robustness", 3), "robustness: metrics: expected `object`, got"),
    "list": (changed("metrics", "robustness", ["x"]), "metrics: expected `object`, got ['x']"),
    "text": (
        changed("metrics", "robustness", {"clean_top1": "70"}),
        "robustness: metrics.clean_top1: expected `float`, got '70'",
    ),
    "nan": (changed("metrics", "robustness", {"pgd_top1": float("nan")}), "metrics.pgd_top1: "),
    "unknown": (changed("metrics", "juggling", {}), "there is no suite 'juggling'; there are rob"),
    "itself": (changed("metrics", "evaluate", {"top1": 3}), "there is no suite 'evaluate'"),
    "data": (changed("data", "robustness", None), "robustness: data: expected `object`, got None"),
    "data_name": (changed("data", "robustness", {"images": 3}), "missing required field `name`"),
    "digest": (
        changed("data", "robustness", {"name": "d", "digest": [3]}),
        "robustness: data.digest: expected `str | null`, got [3]",
    ),
    "config": (changed("config", "robustness", None), "robustness: config: expected `object`"),
    "config_list": (changed("config", "robustness", [1]), "config: expected `object`, got [1]"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_suite_is_one_line_and_the_others_are_read(name, tmp_path):
    content, said = BAD[name]
    found = read(tmp_path, {"good": evaluation("none", 1), "bad": content})
    (line,) = found.complaints
    assert line.startswith("bad/result.json: ")
    assert said in line
    assert len(line) < 300
    left = {run.result.task for run in found.runs if run.folder == "bad"}
    assert left == {"robustness", "calibration"} - {"robustness"} or name in ("unknown", "itself")


def test_an_evaluation_that_holds_nothing_is_named(tmp_path):
    content = asdict(evaluation("none", 0)) | {"metrics": {}}
    found = read(tmp_path, {"good": evaluation("none", 1), "bad": content})
    assert found.complaints == ("bad/result.json: holds nothing that was measured",)


def test_odd_options_are_shown_as_they_are(tmp_path):
    odd = {"eps": {"a": [None]}, "<q>": "x" * 9999, "sizes": [[1.5], True], "foreign": 3}
    found = read(tmp_path, runs_of(evaluation("none", 0, **odd)))
    texts = render_files(tabulate(found), found)
    assert found.complaints == ()
    assert "<q>" not in texts["report.html"]


def test_published_values_are_those_of_the_paper():
    """The means over seven sets, which the paper prints too, from its rows of each set."""
    (ood,) = (one for one in published.PUBLISHED if one.suite == "ood")
    for method, sets in published.OOD_SETS.items():
        means = [sum(column) / 7 for column in zip(*sets.values(), strict=True)]
        assert means == pytest.approx(ood.rows[method][:3], abs=0.05)
    assert [ood.text(method, 3) for method in ood.rows] == [
        "34.7",
        "not given",
        "not given",
        "56.6",
    ]
    assert ood.gain("cutmix", 0) == "+42.7"
    for one in published.PUBLISHED:
        assert one.suite in suites.names()
        assert {len(row) for row in one.rows.values()} == {len(one.columns)}
        assert ("Unverified" in one.note) == one.is_doubtful
        assert all(row[0].endswith("?") == one.is_doubtful for row in (
            [one.text(method, 0)] for method in one.rows))  # fmt: skip
