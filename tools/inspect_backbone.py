"""Say what a checkpoint is: its network, origin, preprocessing, heads, and whether it looks sane.

python tools/inspect_backbone.py FILE_OR_NAME
python tools/inspect_backbone.py FILE --source torchvision     what the file itself leaves open
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from tools.support.backbone_options import add_overrides, overrides
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """Locate, open, describe."""
    parser = Parser(__doc__)
    parser.add_argument("backbone", metavar="NAME_OR_FILE", help="What to look at.")
    add_overrides(parser)
    options = parser.parse(argv)

    from transfer import hub
    from transfer.formats import Overrides
    from transfer.formats.inspection import inspect

    stated = overrides(options)
    path, known = hub.locate(options.backbone, trust=options.trust)
    name = None if path == Path(options.backbone) else options.backbone
    print(inspect(path, known if stated == Overrides() else stated, name).text())


if __name__ == "__main__":
    run_main(main)
