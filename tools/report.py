"""Make the transfer table from the runs below a folder.

python tools/report.py runs                    Markdown to the terminal
python tools/report.py runs --out DIR          also DIR/report.html (one page for any browser, no
                                               network), report.md, report.tex, report.csv (runs)
                                               and cells.csv (what the table shows, unrounded)
python tools/report.py runs --docs FILE.md     also into FILE.md, between <!-- report --> or
                                               <!-- report FOLDER --> and <!-- /report -->
python tools/report.py runs --primary 'cutmix - none: top1, cifar10_cpu'
                                               the comparison that was fixed beforehand: it stands
                                               first, the others are corrected without it
python tools/report.py runs --crossing STEM    also STEM_light.svg and STEM_dark.svg: the difference
                                               to none over training images x epochs
python tools/report.py runs --check FILE.yaml  compare with expected numbers; exit code 1 where one
                                               is out of tolerance or was not measured

--primary is METHOD - METHOD: METRIC, with the key of result.json, and what chooses where several
fit, after commas: recipe of the pretraining, task, recipe, data, engine, network or architecture.
A marker may hold it too: <!-- report FOLDER --primary cutmix - none: top1, cifar10_cpu -->.
What cannot be read is named and left out. docs/report.md says how to read the table.
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, printable
from pretrain.files import write_text
from pretrain.progress import log
from tools.support.command import Parser, file_in_the_way, run_main


def main(argv: list[str] | None = None) -> None:
    """Read, group, print; write and compare where asked."""
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, help="A folder with runs, at any depth.")
    parser.add_argument("--out", type=Path, metavar="DIR", help="A folder for the page and tables.")
    parser.add_argument("--docs", type=Path, metavar="FILE.md", help="A file with the markers.")
    parser.add_argument("--primary", metavar="COMPARISON", help="Fixed beforehand; see above.")
    parser.add_argument("--crossing", type=Path, metavar="STEM", help="Two pictures: STEM_....svg.")
    parser.add_argument("--check", type=Path, metavar="FILE.yaml", help="Expected numbers.")
    options = parser.parse(argv)

    from transfer.report import read_runs, render_files, tabulate, to_markdown, write_files
    from transfer.report.comparisons import compare_all
    from transfer.report.crossing import crossing_files
    from transfer.report.expectations import compare, read_expected
    from transfer.report.markdown import primary_of, replace_between

    expected = [] if options.check is None else read_expected(options.check)
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        raise UsageError(f"--out {options.out} is a file; it must name a folder.")
    if options.primary == "":
        raise UsageError("--primary is empty; give METHOD - METHOD: METRIC, or leave it off.")
    if (stem := options.crossing) is not None:
        _refuse_stem(stem)

    def leave_out(line: str) -> None:
        log(f"left out: {line}")

    run_set = read_runs(options.runs)
    for line in run_set.complaints:
        leave_out(line)
    table, primary = tabulate(run_set), options.primary or ""
    if options.docs is not None:
        named = primary_of(options.docs, options.runs)
        if primary not in ("", named):
            raise UsageError(
                f"--primary is {primary!r}, but the marker in {options.docs} has {named!r}. What "
                "is fixed beforehand stands in the marker; give the same or nothing."
            )
        primary = named
    text = to_markdown(table, run_set, primary)
    outcomes = compare(expected, table)
    files = render_files(table, run_set, leave_out, primary) if options.out else {}
    pictures = crossing_files(compare_all(table, primary)) if options.crossing else {}
    if options.docs is not None:  # first, since it may lack the markers
        replace_between(options.docs, text, options.runs)
    if options.out is not None:
        write_files(options.out, files)
    for theme, picture in pictures.items():
        write_text(_pictures(stem)[theme], picture)
    print(text, end="")
    for outcome in outcomes:
        log(f"{'ok  ' if outcome.holds else 'FAIL'} {printable(outcome.text)}")
    if not all(outcome.holds for outcome in outcomes):
        sys.exit(1)


def _refuse_stem(stem: Path) -> None:
    """Raise UsageError where no pictures can be written beside what --crossing names."""
    if not stem.name or stem.is_dir():
        raise UsageError(f"--crossing {stem} is a folder; give a stem of names, as docs/crossing.")
    if stem.suffix == ".svg":
        raise UsageError(f"--crossing {stem}: the names are STEM_light.svg and so on; leave .svg.")
    if (place := file_in_the_way(stem.parent)) is not None:
        raise UsageError(f"--crossing {stem}: {place} is a file; give another stem.")
    for path in _pictures(stem).values():
        if path.is_dir():
            raise UsageError(f"--crossing {stem}: {path} is a folder; give another stem.")


def _pictures(stem: Path) -> dict[str, Path]:
    """Of each theme."""
    return {theme: stem.with_name(f"{stem.name}_{theme}.svg") for theme in ("light", "dark")}


if __name__ == "__main__":
    run_main(main)
