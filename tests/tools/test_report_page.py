"""The page of the report, in a real browser and as text."""

import io
import json
import re
import shutil
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from tests.transfer.test_report import result
from tests.transfer.test_report_suites import evaluation
from tools.report import main

NASTY = '<script>window.broken = 1</script><img src=x onerror="window.broken = 2">"\'&'
GALLERIES = {"Learning curves", "Confusion", "Precision and recall", "Captions side by side",
             "Segmentations", "What pretraining saw"}  # fmt: skip
ALWAYS = ["Missing and left out", "Appendix"]
SCORES = {
    "Bleu_1": 0.6, "Bleu_2": 0.5, "Bleu_3": 0.4, "Bleu_4": 0.3, "ROUGE_L": 0.5, "CIDEr": 0.8,
    "val_CIDEr_last": 0.7, "val_CIDEr_best": 0.75, "best_epoch": 2,
}  # fmt: skip


def png(width: int, height: int) -> bytes:
    packed = io.BytesIO()
    Image.effect_noise((width, height), 60).convert("RGB").save(packed, "png")
    return packed.getvalue()


def write_run(folder: Path, run, log: list[dict] = (), pictures: dict[str, bytes] = ()) -> None:
    (folder / "pictures").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(asdict(run)))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log) + '{"epo')
    for name, content in dict(pictures).items():
        (folder / "pictures" / name).write_bytes(content)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Runs of every kind, one of them with a hostile name, and a failed cell."""
    root = tmp_path_factory.mktemp("runs")
    for method, base in (("none", 60.0), ("cutmix", 62.0)):
        for seed in range(3):
            run = result("pretrain", method, seed, base + seed + 0.1 * seed * (method == "none"))
            environment = {"device": "a processor", "commit": "0123456789", "dirty": True}
            environment |= {"peak_memory_mib": 512.0, "created": "2026-01-02T03:04:05+00:00"}
            run = replace(run, environment=environment, metrics=run.metrics | {"best_epoch": 2})
            log = [{"epoch": n, "top1": base + n} for n in (1, 2, 3)]
            write_run(root / f"pre-{method}-{seed}", run, log, {"mixed_batch.png": png(900, 500)})
        run = replace(result("captioning", method, 0, 0), metrics=SCORES, metric="CIDEr")
        log = [{"epoch": n, "val_CIDEr": n / 10} for n in (1, 2)]
        write_run(root / f"cap-{method}", run, log)
        captions = [
            {"image_id": n, "caption": f"{method} sees {n} {NASTY}", "references": [f"a {n} <b>"]}
            for n in range(9)
        ]
        for row in captions[1:8]:
            row["picture"] = "example.png"
        (root / f"cap-{method}" / "captions.json").write_text(json.dumps(captions))
        (root / f"cap-{method}" / "pictures" / "example.png").write_bytes(png(64, 48))
        write_run(
            root / f"det-{method}",
            result("detection", method, 0, base),
            pictures={"precision_recall.png": png(300, 200), "mixed_batch.png": b"no picture"},
        )
    run = replace(result("classification", "none", 0, 70.0), seed=1)
    log = [{"epoch": n, "val_top1": 10.0 * n} for n in (1, 2)]
    write_run(root / "cls-none", run, log, {"confusion.png": png(700, 700)})
    nasty = result("pretrain", NASTY, 0, 10.0)
    config = {"name": NASTY, "note": {NASTY: NASTY}}
    nasty = replace(nasty, config=config, data={"name": NASTY, "train": 1})
    write_run(root / "nasty", nasty, [], {"mixed_batch.png": b"\x89PNG broken"})
    backbone = result("detection", "mixup", 0, 0).backbone
    lost = {"task": "detection", "backbone": backbone, "seed": 0, "folder": "det-mixup"}
    cells = [
        lost | {"state": "failed", "why": NASTY},
        lost | {"state": "done", "folder": "det-none"},
    ]
    (root / "grid.json").write_text(json.dumps({"format": "grid/1", "cells": cells}))
    (root / "torn").mkdir()
    (root / "torn" / "result.json").write_text("{")
    return root


@pytest.fixture(scope="module")
def page_file(folder, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("page") / "ä folder"
    main([str(folder), "--out", str(out)])
    assert sorted(path.name for path in out.iterdir()) == [
        "cells.csv", "report.csv", "report.html", "report.md", "report.tex"
    ]  # fmt: skip
    return out / "report.html"


@pytest.fixture(scope="module")
def browser():
    program = next(
        filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None
    )
    if program is None:
        pytest.skip("no browser on this machine")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def tab(browser, page_file):
    """The page in a wide, light window; what it asks for and complains about is kept."""
    page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="light")
    page.asked, page.complaints = [], []
    page.on("request", lambda request: page.asked.append(request.url))
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(page_file.as_uri())
    return page


def heads(tab, table: str) -> list[str]:
    return tab.locator(f"#{table} tbody th").all_inner_texts()


def test_the_page_needs_nothing_else_and_runs_no_script_of_others(tab, page_file):
    asked = [url for url in tab.asked if not url.startswith("data:")]
    assert asked == [page_file.as_uri()]
    assert tab.complaints == []
    assert tab.evaluate("window.broken") is None
    # of data of its own: it is compared with none of the others, and has a table of its own
    assert NASTY in tab.locator("#table-summary-2").inner_text()
    assert NASTY not in tab.locator("#table-summary").inner_text()
    # even a hole in the escaping would run nothing: the page's policy forbids it
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=broken=3>')")
    tab.wait_for_timeout(50)
    assert tab.evaluate("window.broken") is None
    tab.complaints.clear()
    tab.evaluate("document.body.lastElementChild.remove()")


def test_tables_sort_by_click_and_by_keyboard(tab):
    column = tab.locator("#table-summary thead tr:nth-child(2) th").first  # top-1 % of [2]
    assert column.get_attribute("aria-sort") == "none"
    column.locator("button").click()
    assert column.get_attribute("aria-sort") == "descending"
    order = [head.split("\n")[0] for head in heads(tab, "table-summary")]
    assert order[:2] == ["net, cutmix", "net, none"]
    values = tab.locator("#table-summary tbody tr td:nth-child(2)").all_inner_texts()
    assert "not measured" in values[-1]  # missing ones stay below
    column.locator("button").focus()
    tab.keyboard.press("Enter")
    assert column.get_attribute("aria-sort") == "ascending"
    order = [head.split("\n")[0] for head in heads(tab, "table-summary")]
    assert order[:2] == ["net, none", "net, cutmix"]
    values = tab.locator("#table-summary tbody tr td:nth-child(2)").all_inner_texts()
    assert "not measured" in values[-1]
    tab.locator("#table-runs thead th button").first.click()
    folders = heads(tab, "table-runs")
    assert folders == sorted(folders)
    assert tab.locator('#table-summary [aria-sort="ascending"]').count() == 1


def test_filter_by_words_and_by_task(tab):
    every = tab.locator("#table-runs tbody tr:visible").count()
    tab.locator("#filter").fill("CutMix pretrain")
    assert tab.locator("#table-runs tbody tr:visible").count() == 3 < every
    assert "3 of 12 runs" in tab.locator("#shown").inner_text()
    tab.locator("#filter").fill("")
    tab.locator("#task").select_option("captioning")
    assert tab.locator("#table-runs tbody tr:visible").count() == 2
    assert tab.locator("#mixed figure:visible").count() == 0
    shown = tab.locator("#table-summary thead tr").first.locator("th:visible").all_inner_texts()
    assert [text.split(" ")[1] for text in shown[1:]] == ["captioning"]
    tab.locator("#task").select_option("")
    assert tab.locator("#table-runs tbody tr:visible").count() == every


def test_every_number_says_where_it_comes_from(tab):
    number = tab.locator("#table-summary a.value", has_text="63.0").first
    number.scroll_into_view_if_needed()
    tab.wait_for_timeout(300)  # scrolling closes it
    number.hover()
    tip = tab.locator("#tip")
    assert tip.is_visible()
    assert "pretraining seed 2" in tip.inner_text()
    assert "pre-cutmix-1" in tip.inner_text()
    assert "commit 0123456 (changed files)" in tip.inner_text()
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    tab.locator("#task").focus()
    for _ in range(60):  # on to the first number, by keyboard alone
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('a.value')"):
            break
    tab.locator("a.value:focus").dispatch_event("mouseleave")  # the page scrolls below the mouse
    tab.wait_for_timeout(200)
    assert tip.is_visible()
    tab.keyboard.press("Enter")
    tab.wait_for_function("location.hash.startsWith('#run-')")
    assert tab.locator("#table-runs tr:target").count() == 1
    assert tab.locator("#table-summary td [id]:visible").count() == 0  # kept for the moment
    assert tab.locator(".value[aria-describedby]").count() == tab.locator("a.value").count()


def test_pictures_have_sizes_and_words(tab):
    sizes = tab.evaluate("""() => [...document.images].map((image) => [
        image.getAttribute("width"), image.getAttribute("height"), image.alt, image.src.slice(0, 16)
    ])""")
    assert len(sizes) == 2 + 2 + 1 + 6  # mixed batches, curves, confusion, caption examples
    for width, height, alt, source in sizes:
        assert 0 < int(width) <= 720
        assert int(height) > 0
        assert len(alt) > 10
        assert source == "data:image/webp;"
    charts = tab.locator("svg.chart")
    assert tab.locator("#differences svg.chart").count() == 2
    assert tab.locator("#curves svg.chart").count() == 3  # pretrain, classification, captioning
    for chart in charts.all():
        title, description = chart.get_attribute("aria-labelledby").split()
        assert tab.locator(f"#{title}").text_content()
        assert tab.locator(f"#{description}").text_content()


def test_a_screen_reader_finds_its_way(tab):
    levels = tab.evaluate(
        "[...document.querySelectorAll('h1,h2,h3,h4')].map((head) => Number(head.tagName[1]))"
    )
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert tab.locator("table").count() == tab.locator("table > caption").count()
    assert tab.locator("th:not([scope])").count() == 0
    twice = tab.evaluate("""() => {
        const names = [...document.querySelectorAll("[id]")].map((one) => one.id);
        return names.filter((name, place) => names.indexOf(name) !== place);
    }""")
    assert twice == []
    empty = "[...document.querySelectorAll('td')].filter((cell) => !cell.textContent.trim()).length"
    assert tab.evaluate(empty) == 0
    tab.evaluate("scrollTo(0, 0); document.activeElement.blur()")
    tab.locator(".skip").focus()
    assert tab.evaluate("document.activeElement.getBoundingClientRect().left") >= 0


CONTRAST = """() => {
  const parse = (text) => {
    const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
    return [r, g, b, a];
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = (one) => {
    for (; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const one of document.querySelectorAll("body *")) {
    const hasText = [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!hasText || !one.checkVisibility() || one.closest("script")) continue;
    const style = getComputedStyle(one);
    const ink = one.closest("svg") ? style.fill : style.color;
    const [a, b] = [light(parse(ink)), light(behind(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) low.push([one.outerHTML.slice(0, 80), ink]);
  }
  return low;
}"""


def test_dark_and_light_both_readable_and_remembered(tab):
    button = tab.locator("#theme")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)
    assert tab.evaluate(CONTRAST) == []
    assert button.inner_text() == "Dark"
    button.click()
    assert button.inner_text() == "Light"
    assert tab.evaluate(paper) != light
    assert tab.evaluate(CONTRAST) == []
    for _ in range(20):  # the browser stores it behind the page's back: a busy one not at once
        tab.reload()
        if tab.evaluate(paper) != light:
            break
        tab.wait_for_timeout(100)
    assert tab.evaluate(paper) != light
    tab.locator("#theme").click()
    assert tab.evaluate(paper) == light
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(paper) == light  # what the reader chose stays


def test_nothing_is_wider_than_a_phone(tab):
    tab.set_viewport_size({"width": 390, "height": 844})
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    wide = tab.evaluate("""() => [...document.querySelectorAll("body *")]
        .filter((one) => !one.closest(".scroll, pre, .skip") && one.checkVisibility()
            && one.getBoundingClientRect().right > 390.5)
        .map((one) => one.outerHTML.slice(0, 90))""")
    assert wide == []
    assert tab.evaluate("document.querySelector('.scroll').scrollWidth") > 390
    tab.set_viewport_size({"width": 1400, "height": 900})
    assert tab.complaints == []


def test_the_blocks_of_suites(browser, tmp_path):
    """In a browser of its own theme: sorted, filtered, readable, no wider than a phone."""
    for method, gain in (("none", 0), ("cutmix", 5)):
        for seed in range(3):
            run = evaluation(method, seed, gain)
            run.metrics["calibration"]["ece"] += seed + gain
            write_run(tmp_path / "runs" / f"{method}-{seed}", run)
            short = result("pretrain", method, seed, 9 + gain * seed)
            write_run(tmp_path / "runs" / f"pre{method}-{seed}", short)
            facts = {"recipe": "long", "epochs": 30, "fingerprint": f"long{method}{seed}"}
            long = replace(short, backbone=short.backbone | facts, config={"name": "long"})
            write_run(tmp_path / "runs" / f"long{method}-{seed}", long)
    main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    tab = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="dark")
    complaints: list[str] = []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto((tmp_path / "out" / "report.html").as_uri())
    tab.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    assert tab.evaluate(CONTRAST) == []
    assert tab.locator("nav a", has_text="Robustness").inner_text() == "Robustness"
    assert tab.locator("#suite-robustness svg.chart").count() == 3
    assert tab.locator("#crossing svg.chart circle").count() == 2
    colours = "one => [getComputedStyle(one).fill, getComputedStyle(one).stroke]"
    assert tab.locator("#crossing .ring").first.evaluate(colours) == [
        "rgb(29, 32, 36)",  # a hole in the colour of the sheet
        "rgb(240, 154, 114)",
    ]
    ece = tab.locator("#table-calibration thead tr:nth-child(2) th").first
    ece.locator("button").click()  # of which less is better
    assert ece.get_attribute("aria-sort") == "ascending"
    assert heads(tab, "table-calibration") == ["net, none", "net, cutmix"]
    tab.locator("#task").select_option("robustness")
    seen = tab.locator("main > section:visible h2").all_inner_texts()
    seen = [one.split(":")[0] for one in seen if one not in GALLERIES]
    assert seen == ["Robustness", "Comparisons", *ALWAYS]
    assert tab.locator("#table-comparisons tbody tr:visible").count() == 3
    assert tab.locator("#table-runs tbody tr:visible").count() == 6
    assert tab.locator("#shown").inner_text() == "2 of 2 backbones, 6 of 18 runs"
    tab.locator("#table-robustness a.value").first.click()
    tab.wait_for_function("location.hash.startsWith('#run-')")
    assert "robustness" in tab.locator("#table-runs tr:target").inner_text()
    names = tab.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(names) == len(set(names))
    assert complaints == []
    tab.close()


def test_the_page_as_text(page_file):
    """What holds without a browser too."""
    text = page_file.read_text()
    assert NASTY not in text
    assert re.findall(r"<script[ >]", text) == ["<script>"]
    assert not re.search(r'(?:src|href)="(?!data:image/webp;base64,|#)', text)
    assert "http://" not in text
    assert "https://" not in text
    assert "torn/result.json: cannot be read as JSON" in text
    assert "failed: detection from net, mixup" in text
    assert "a 1 &lt;b&gt;" in text
    # those that stand for the set
    assert re.findall(r'<p class="note">image (\d)</p>', text) == ["1", "2", "3", "4", "5", "6"]
    summary = text.split('<table id="table-summary">')[1].split("</table>")[0]
    assert "top-1 %,<br>last" in summary
    cells = re.findall(r'<td class="[a-z]*"[^>]*>(.*?)</td>', summary)
    # one pretraining has no deviation, three have
    assert any("±" in cell and "n=3" in cell for cell in cells)
    for cell in cells:
        assert "n=1" not in cell
        assert ("±" in cell) == ("n=" in cell)


def test_a_page_of_a_single_backbone_says_what_it_lacks(tmp_path):
    write_run(tmp_path / "runs" / "a", result("detection", "none", 0, 50.0))
    main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    text = (tmp_path / "out" / "report.html").read_text()
    for words in (
        "No two methods that could be compared",
        "No run here has logged a score more than once",
        "No detection run here has left",
        "No two methods here have left captions",
        "No pretraining run here has left",
        "no grid in it has a job without a result, and every file could be read",
    ):
        assert words in text
    summary = text.split('<table id="table-summary">')[1].split("</table>")[0]
    assert "50.0" in summary
    assert "±" not in summary.split("<tbody>")[1]


def test_tables_have_the_width_of_the_window_and_text_its_measure(tab):
    width = "name => document.querySelector(name).getBoundingClientRect().width"
    assert tab.evaluate(width, ".scroll") > 1350  # of 1400
    assert tab.evaluate(width, "#differences p") <= 46 * 16
    # the head of the first number scrolls with its column; that of the backbones stays
    sticky = """[...document.querySelectorAll("#table-summary thead th")].filter(
        (head) => getComputedStyle(head).position === "sticky").map((head) => head.innerText)"""
    assert len(tab.evaluate(sticky)) == 1
