"""Make one table from the result.json files below a folder.

python tools/report.py runs                 Markdown to the terminal
python tools/report.py runs --out DIR       also DIR/report.md
"""

import argparse
import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.run import write_text
from tools.command import end
from transfer.report import read_results, report


def main(argv: list[str] | None = None) -> None:
    """Read, group, print."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", type=Path, help="A folder with runs, at any depth.")
    parser.add_argument("--out", type=Path, help="A folder for report.md.")
    options = parser.parse_args(argv)
    results, complaints = read_results(options.runs)
    for complaint in complaints:
        print(f"left out: {complaint}", file=sys.stderr)
    table = report(results)
    print(table, end="")
    if options.out is not None:
        write_text(options.out / "report.md", table)


if __name__ == "__main__":
    end(main)
