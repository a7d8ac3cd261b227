"""Say what a checkpoint is: its network, origin, preprocessing, heads, and whether it looks sane.

python tools/inspect_backbone.py FILE_OR_NAME
python tools/inspect_backbone.py FILE --source torchvision     what the file itself leaves open
"""

import argparse
import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools import backbone_options
from tools.command import run_main


def main(argv: list[str] | None = None) -> None:
    """Locate, open, describe."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("backbone", metavar="NAME_OR_FILE", help="What to look at.")
    parser.add_argument("--trust", action="store_true", help="Download files of unknown hash.")
    backbone_options.add(parser)
    options = parser.parse_args(argv)

    from transfer import hub
    from transfer.formats import Given
    from transfer.formats.inspection import inspect

    given = backbone_options.given(options)
    path, told = hub.locate(options.backbone, trust=options.trust)
    name = None if path == Path(options.backbone) else options.backbone
    print(inspect(path, told if given == Given() else given, name).text())


if __name__ == "__main__":
    run_main(main)
