"""One HTML file that needs nothing else: no network, no other file, any browser.

Text from runs is escaped wherever it stands, and the page's own policy lets no script run but the
one it came with.
"""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from transfer.report import page_tables, provenance
from transfer.report.charts import Chart, curves, forests
from transfer.report.pictures import Drawn, Example, Picture, drawn, examples
from transfer.report.results import Found
from transfer.report.table import Table
from transfer.report.words import rules, unfinished_lines

_MOST_BYTES = 1_200_000  # of each of the galleries
_MOST_EXAMPLES = 6


def page(table: Table, found: Found, title: str = "Transfer report") -> str:
    """The whole page.

    Args:
        table: of what was found.
        found: with folders, for logs and pictures.
        title: of the page.
    """
    parts = [
        _section("summary", "Summary", _summary(table, found)),
        _section("differences", "Differences", _differences(table)),
        _section("paper", "In the shape of the paper's table", _paper(table)),
        _section("curves", "Learning curves", _curves(table)),
        _section("precision-recall", "Precision and recall", _precision_recall(table)),
        _section("confusion", "Confusion", _confusion(table)),
        _section("captions", "Captions side by side", _captions(table)),
        _section("mixed", "What pretraining saw", _mixed(table)),
        _section("left-out", "Missing and left out", _left_out(table, found)),
        _section("appendix", "Appendix: every run", _appendix(found)),
    ]
    here = Path(__file__).parent
    style = (here / "page.css").read_text(encoding="utf-8")
    script = (here / "page.js").read_text(encoding="utf-8")
    links = "".join(f'<li><a href="#{name}">{escape(head)}</a></li>' for name, head, _ in parts)
    body = "".join(text for _, _, text in parts)
    tasks = "".join(
        f'<option value="{task}">{task}</option>'
        for task in dict.fromkeys(setting.task for setting in table.settings)
    )
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#main">Skip to the tables</a>
<header>
<div><h1>{escape(title)}</h1>{_facts(table, found)}</div>
<button type="button" id="theme" hidden>Dark</button>
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<form class="filters" role="search" aria-label="Filter the page">
<label>Filter <input type="search" id="filter" placeholder="cutmix" autocomplete="off"></label>
<label>Task <select id="task"><option value="">all</option>{tasks}</select></label>
<output id="shown" for="filter task"></output>
</form>
<main id="main" tabindex="-1">{body}</main>
<div id="tip" role="tooltip" hidden></div>
<script>{script}</script>
</body>
</html>
"""


def _facts(table: Table, found: Found) -> str:
    seconds = sum(run.result.seconds for run in found.runs)
    pretrainings = {run.result.backbone["fingerprint"] for run in found.runs}
    tasks = dict.fromkeys(setting.task for setting in table.settings)
    facts = [
        f"{len(found.runs):,} {_many(len(found.runs), 'run')} from {len(pretrainings):,} "
        f"{_many(len(pretrainings), 'backbone')}",
        ", ".join(tasks),
        f"{provenance.duration(seconds)} of computing",
    ]
    if found.unfinished:
        facts.append(f"{len(found.unfinished)} {_many(len(found.unfinished), 'cell')} not done")
    facts.append(f"made on {datetime.now(UTC):%Y-%m-%d}")
    return f"<p>{escape(' · '.join(facts))}</p>"


def _summary(table: Table, found: Found) -> str:
    anchors = provenance.anchors_of(found.runs)
    return (
        page_tables.summary(table, anchors)
        + f"<details><summary>How to read it</summary><p>{escape(rules(table))}</p></details>"
    )


def _differences(table: Table) -> str:
    pairs = [
        found.n
        for row, other in table.comparisons
        for column in table.columns
        if (found := table.difference(row, other, column)) is not None
    ]
    if not pairs:
        return _nothing("No two methods that could be compared have a pretraining seed in common.")
    charts = forests(table)
    told = (
        "Right of zero is better. A bar is the 95 % interval; its dot is filled where at least "
        "three pairs exclude zero, and a ring otherwise. "
    )
    single = "Single pairs are no evidence: they stand in the table only." if 1 in pairs else ""
    return (
        f"<p>{told if charts else ''}{single}</p>"
        f"{_charts(charts) if charts else ''}{page_tables.differences(table)}"
    )


def _paper(table: Table) -> str:
    return (
        f"<h3>Ours</h3>{page_tables.in_their_shape(table)}"
        f"<h3>The paper's, at full scale</h3>{page_tables.theirs()}"
    )


def _curves(table: Table) -> str:
    charts = curves(table)
    if not charts:
        return _nothing("No run here has logged a score more than once.")
    return f"<p>One line per run, as its log.jsonl has it.</p>{_charts(charts)}"


def _precision_recall(table: Table) -> str:
    alt = "Precision over recall of each class at an overlap of 0.5: {recipe} from {method}, seed {seed}"
    lead = "The detector of the smallest seed of each method."
    return _of_runs(table, "detection", "precision_recall.png", alt, 600, lead)


def _confusion(table: Table) -> str:
    alt = "Confusion matrix, classes said over classes shown: {recipe} from {method}, seed {seed}"
    lead = "The classifier of the smallest seed of each method."
    return _of_runs(table, "classification", "confusion.png", alt, 600, lead)


def _mixed(table: Table) -> str:
    alt = "A batch after mixing, with its labels: {recipe}, {method}, seed {seed}"
    lead = "A batch as the network saw it, of the smallest seed of each method."
    return _of_runs(table, "pretrain", "mixed_batch.png", alt, 720, lead)


def _of_runs(table: Table, task: str, name: str, alt: str, width: int, lead: str) -> str:
    """One picture of a run of each method; see `drawn`."""
    shown, left = drawn(table, task, name, alt, width=width, limit=_MOST_BYTES)
    if not shown:
        kind = {"pretrain": "pretraining"}.get(task, task)
        return _nothing(f"No {kind} run here has left a readable pictures/{name}.")
    return _gallery(shown, left, lead)


def _captions(table: Table) -> str:
    blocks = []
    for number, setting in enumerate(table.settings, 1):
        shown = examples(table, setting, _MOST_EXAMPLES) if setting.task == "captioning" else []
        if shown:
            head = f"[{number}] {setting.recipe}, {setting.data}"
            cards = "".join(map(_example, shown))
            blocks.append(
                f'<h3 data-task="captioning">{escape(head)}</h3>'
                f'<ul class="cards" data-task="captioning">{cards}</ul>'
            )
    if not blocks:
        return _nothing("No two methods here have left captions of the same images.")
    return (
        "<p>The same images, spread evenly over the set whatever was said of them, as the "
        "captioner of the smallest seed of each method describes them.</p>" + "".join(blocks)
    )


def _example(example: Example) -> str:
    picture = '<p class="missing">no picture</p>'
    if example.picture is not None:
        picture = _image(example.picture)
    told = "".join(
        f"<dt>{escape(method)}</dt><dd>{escape(caption) or '<i>no words</i>'}</dd>"
        for method, caption in example.captions
    )
    references = "".join(f"<li>{escape(text)}</li>" for text in example.references)
    listed = f"<details><summary>References</summary><ul>{references}</ul></details>"
    return (
        f'<li class="card">{picture}<dl>{told}</dl>{listed if references else ""}'
        f"<p class='note'>image {escape(example.name)}</p></li>"
    )


def _left_out(table: Table, found: Found) -> str:
    cells = [f"<li>{escape(line)}</li>" for line in unfinished_lines(found.unfinished)]
    files = [f"<li>{escape(line)}</li>" for line in found.complaints]
    notes = [f"<li>{escape(line)}</li>" for line in table.notes]
    if not cells and not files and not notes:
        return _nothing("Nothing: every cell has a result, and every file could be read.")
    return "".join(
        f'<h3>{head}</h3><ul class="plain">{"".join(lines)}</ul>'
        for head, lines in (
            ("Cells of the grid without a result", cells),
            ("Runs in no cell", notes),
            ("Files left out", files),
        )
        if lines
    )


def _appendix(found: Found) -> str:
    anchors = provenance.anchors_of(found.runs)
    titles = ["run", "task", "backbone", "pretraining seed", "seed", "result", "config", "commit"]
    titles += ["device", "time", "peak memory", "finished"]
    body = []
    for run in found.runs:
        result, facts = run.result, run.result.backbone
        name = provenance.digest(run)
        seed, when = facts["seed"], str(result.environment.get("created") or "unknown")
        shown = [
            (result.task, result.task),
            (f"{facts['name']} ({facts['fingerprint']})", facts["name"]),
            ("unknown" if seed is None else str(seed), seed),
            (str(result.seed), result.seed),
            (provenance.headline(run), provenance.headline(run)),
            (name, name),
            (provenance.commit(run), provenance.commit(run)),
            (str(result.environment.get("device") or "unknown"), None),
            (provenance.duration(result.seconds), result.seconds),
            (provenance.memory(run), result.environment.get("peak_memory_mib")),
            (when[:16].replace("T", " "), when),
        ]
        cells = [page_tables.value(escape(text), by) for text, by in shown]
        cells[5] = page_tables.value(f'<a href="#config-{name}"><code>{name}</code></a>', name)
        words = " ".join(text for text, _ in shown)
        anchor = anchors[run.folder]
        row = page_tables.row(run.folder, cells, words=words, task=result.task, anchor=anchor)
        body.append(row)
    top = f"<tr>{''.join(map(page_tables.head, titles))}</tr>"
    caption = "Every number on this page comes from these runs."
    return (
        page_tables.boxed("table-runs", caption, top, body)
        + f"<h3>Configurations</h3>{provenance.configs(found.runs)}"
        + f"<h3>Machines and versions</h3>{provenance.environments(found.runs)}"
    )


def _charts(charts: Sequence[Chart]) -> str:
    return (
        '<div class="charts">'
        + "".join(
            f'<figure data-task="{chart.task}" data-words="{escape(chart.words.lower())}">'
            f"<figcaption>{escape(chart.caption)}</figcaption>{chart.svg}</figure>"
            for chart in charts
        )
        + "</div>"
    )


def _gallery(shown: Sequence[Drawn], left: int, told: str) -> str:
    figures = "".join(
        f'<figure data-task="{one.run.result.task}" data-words="{escape(one.picture.alt.lower())}">'
        f"{_image(one.picture)}<figcaption>{escape(_under(one))}</figcaption></figure>"
        for one in shown
    )
    more = f" {left} more {_many(left, 'picture')} would make the page too large." if left else ""
    return f'<p>{escape(told)}{more}</p><div class="gallery">{figures}</div>'


def _under(one: Drawn) -> str:
    result = one.run.result
    return f"{result.backbone['name']}, {result.config.get('name', '?')} ({one.run.folder})"


def _image(picture: Picture) -> str:
    return (
        f'<img src="{picture.source}" width="{picture.width}" height="{picture.height}" '
        f'alt="{escape(picture.alt)}" loading="lazy">'
    )


def _section(name: str, head: str, body: str) -> tuple[str, str, str]:
    text = f'<section id="{name}" aria-labelledby="{name}-head">'
    return name, head, f'{text}<h2 id="{name}-head">{escape(head)}</h2>{body}</section>'


def _nothing(why: str) -> str:
    return f'<p class="missing">{escape(why)}</p>'


def _many(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
