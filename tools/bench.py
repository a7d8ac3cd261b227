"""Measure a part of this project side by side with other libraries, and print Markdown.

python tools/bench.py SUBJECT [options]     each subject has its own --help

A ratio is of two sides that took turns in one run, by the best round of each; what is printed says
on what machine and how it was called.
"""

import sys
from importlib import import_module
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from tools.support.command import run_main

SUBJECTS = Path(__file__).parent / "support" / "benchmarks"


def main(argv: list[str] | None = None) -> None:
    """Hand over to the subject."""
    words = list(sys.argv[1:] if argv is None else argv)
    subjects = sorted(path.stem for path in SUBJECTS.glob("[!_]*.py"))
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: bench.py SUBJECT [options]\n\n{__doc__}\nsubjects: {', '.join(subjects)}")
        return
    if words[0] not in subjects:
        raise UsageError(f"there is no benchmark {words[0]!r}; there are {', '.join(subjects)}.")
    import_module(f"tools.support.benchmarks.{words[0]}").main(words[1:])


if __name__ == "__main__":
    run_main(main)
