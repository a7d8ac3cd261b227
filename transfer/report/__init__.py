"""The transfer table: result files to one table, as Markdown, a web page, CSV and LaTeX.

    results     reading a folder of runs
    metrics     which numbers are shown
    table       rows, columns, replicates
    paper       the paper's own table
    words       cells, differences and rules in words
    markdown, latex, flat (CSV)
    page        HTML, from page_tables, charts (svg), pictures, provenance, page.css, page.js
    expectations   numbers that a table should hold

No torch: it reads what runs have written.
"""

from collections.abc import Sequence
from pathlib import Path

from pretrain.run import Result
from transfer.report.flat import cells_csv, runs_csv
from transfer.report.latex import latex
from transfer.report.markdown import markdown
from transfer.report.page import page
from transfer.report.results import Finished, Found, read
from transfer.report.table import Table, tabulate

__all__ = [
    "Found",
    "Table",
    "files",
    "markdown",
    "page",
    "read",
    "read_results",
    "report",
    "tabulate",
]


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """Every result below `folder`, and a complaint for each thing that is left out.

    Raises:
        UsageError: no such folder, or no result in it.
    """
    found = read(folder)
    return [run.result for run in found.runs], list(found.complaints)


def report(results: Sequence[Result]) -> str:
    """The table of some results in Markdown."""
    found = Found(tuple(Finished(result) for result in results))
    return markdown(tabulate(found), found)


def files(table: Table, found: Found) -> dict[str, str]:
    """{file name: content} of everything that --out writes."""
    return {
        "report.md": markdown(table, found),
        "report.html": page(table, found),
        "report.csv": runs_csv(found),
        "cells.csv": cells_csv(table),
        "report.tex": latex(table),
    }
