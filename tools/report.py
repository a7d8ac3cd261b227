"""Make the transfer table from the runs below a folder.

python tools/report.py runs                    Markdown to the terminal
python tools/report.py runs --out DIR          also DIR/report.html (one page for any browser, no
                                               network), report.md, report.tex, report.csv (runs)
                                               and cells.csv (what the table shows, unrounded)
python tools/report.py runs --docs FILE.md     also into FILE.md, between <!-- report --> or
                                               <!-- report FOLDER --> and <!-- /report -->
python tools/report.py runs --check FILE.yaml  compare with expected numbers; exit code 1 where one
                                               is out of tolerance or was not measured

What cannot be read is named and left out. docs/report.md says how to read the table.
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, printable
from pretrain.progress import log
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Read, group, print; write and compare where asked."""
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, help="A folder with runs, at any depth.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="A folder for the page and tables.")
    parser.add_argument("--docs", type=Path, metavar="FILE.md", help="A file with the markers.")
    parser.add_argument("--check", type=Path, metavar="FILE.yaml", help="Expected numbers.")
    options = parser.parse(argv)

    from transfer.report import read_runs, render_files, tabulate, to_markdown, write_files
    from transfer.report.expectations import compare, read_expected
    from transfer.report.markdown import replace_between

    expected = [] if options.check is None else read_expected(options.check)
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file; it must name a folder.")

    def leave_out(line: str) -> None:
        log(f"left out: {line}")

    run_set = read_runs(options.runs)
    for line in run_set.complaints:
        leave_out(line)
    table = tabulate(run_set)
    text = to_markdown(table, run_set)
    outcomes = compare(expected, table)
    files = render_files(table, run_set, leave_out) if options.out else {}
    if options.docs is not None:  # first, since it may lack the markers
        replace_between(options.docs, text, options.runs)
    if options.out is not None:
        write_files(options.out, files)
    print(text, end="")
    for outcome in outcomes:
        log(f"{'ok  ' if outcome.holds else 'FAIL'} {printable(outcome.text)}")
    if not all(outcome.holds for outcome in outcomes):
        sys.exit(1)


if __name__ == "__main__":
    run_main(main)
