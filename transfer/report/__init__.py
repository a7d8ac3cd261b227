"""The transfer table: result files to one table, as Markdown, a web page, CSV and LaTeX.

    results     reading a folder of runs
    comparisons every difference in one list, corrected for their number
    table       rows, columns, replicates: of the tasks, and of each suite of tools/evaluate.py
    paper       the paper's own table
    published   what the paper and others have published of what the suites measure
    order       whether the orders of methods that they publish hold here
    words       cells, differences and rules in words
    markdown, latex, flat (CSV)
    page        HTML (page.html, page.css, page.js), from charts (svg), pictures, provenance
    expectations   numbers that a table should hold

Which numbers, curves, pictures and examples are shown, transfer/task.py says, and of suites
transfer/evaluation/suites.py. No torch: it reads what runs have written.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pretrain.errors import UsageError
from pretrain.files import draft_folder, publish_all, write_text
from pretrain.run import Result
from transfer.report.comparisons import compare_all
from transfer.report.flat import cells_csv, runs_csv
from transfer.report.latex import to_latex
from transfer.report.markdown import to_markdown
from transfer.report.page import to_html
from transfer.report.results import FinishedRun, Log, RunSet, read_runs
from transfer.report.table import Table, tabulate

__all__ = [
    "read_results",
    "read_runs",
    "render_files",
    "results_to_markdown",
    "tabulate",
    "to_html",
    "to_markdown",
    "write_files",
]


def read_results(folder: Path) -> tuple[list[Result], list[str]]:
    """Every result below `folder`, and a complaint for each thing that is left out.

    Raises:
        UsageError: no such folder, or no result in it.
    """
    run_set = read_runs(folder)
    return [run.result for run in run_set.runs], list(run_set.complaints)


def results_to_markdown(results: Sequence[Result]) -> str:
    """The table of some results in Markdown."""
    run_set = RunSet(tuple(FinishedRun(result) for result in results))
    return to_markdown(tabulate(run_set), run_set)


def render_files(
    table: Table, run_set: RunSet, log: Log = lambda line: None, primary: str = ""
) -> dict[str, str]:
    """{file name: content} of everything that --out writes.

    `log` takes a line for each log, picture or file of examples that is left out.
    """
    return {
        "report.md": to_markdown(table, run_set, primary),
        "report.html": to_html(table, run_set, log, primary=primary),
        "report.csv": runs_csv(run_set),
        "cells.csv": cells_csv(table, compare_all(table, primary)),
        "report.tex": to_latex(table),
    }


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write {name: content} into a folder, all or none; nothing else in it is touched.

    A kill among the renames at the end leaves some new and some old ones, each of them whole.

    Raises:
        UsageError: one cannot be written; those of before are unchanged.
    """
    for name in files:
        if (folder / name).is_dir():
            raise UsageError(f"{folder / name} is a folder. Name another --out, or remove it.")
    with draft_folder(folder / "report.html") as draft:
        for name, text in files.items():
            write_text(draft / name, text)
            if (folder / name).is_file():
                shutil.copy2(folder / name, draft / f"{name}.before")
        try:
            publish_all({draft / name: folder / name for name in files})
        except BaseException:
            for name in files:
                if (before := draft / f"{name}.before").exists():
                    os.replace(before, folder / name)
                elif not (draft / name).exists():
                    (folder / name).unlink()
            raise
