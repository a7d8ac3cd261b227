"""Fetch a backbone by name or address into the cache, verified; --list shows our own list.

python tools/download.py --list
python tools/download.py torchvision:resnet50/IMAGENET1K_V2
python tools/download.py timm:resnet50.a1_in1k
python tools/download.py 'https://example.org/net.pth#sha256=...'
python tools/download.py cutmix-resnet152 --trust          its hash is known to nobody yet

The other tools take the same names after --backbone. A download that broke off goes on where it
stopped; what is in the cache needs no network.
"""

import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from tools.support.command import Parser, run_main


def main(argv: list[str] | None = None) -> None:
    """List, or fetch and show the path."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("name", nargs="?", metavar="NAME", help="A name or an address.")
    add("--list", action="store_true", help="Show our own list.")
    add("--trust", action="store_true", help="Take a file whose hash is not known, and record it.")
    options = parser.parse(argv)
    if options.list == (options.name is not None):
        raise UsageError("give a NAME, or --list (python tools/download.py --help).")

    from pretrain.cache import file_sha256
    from transfer import hub

    if options.list:
        print(_list_released())
        return
    path, _ = hub.locate(options.name, trust=options.trust)
    if path == Path(options.name):
        print(f"{path} is a path already; nothing to fetch.")
        return
    print(f"{path}\n  {path.stat().st_size:,} bytes, SHA-256 {file_sha256(path)}")
    print(f"  python tools/inspect_backbone.py {options.name}")


def _list_released() -> str:
    """Our list as a table, widest column last."""
    from transfer import hub

    rows = [("name", "network", "hash", "served as", "trained with", "top-1 error %")]
    for entry in hub.released().values():
        digest = (entry.sha256 or "unknown")[:8]
        served = "file" if entry.url else "web page" if entry.page else "no address yet"
        rows.append((entry.name, entry.arch, digest, served, entry.recipe, entry.row))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    lines.append(
        "\nA file of unknown hash needs --trust; what comes is recorded and must stay the same.\n"
        "One that only a web page serves is downloaded by hand and given by its path. Beside\n"
        "this list: timm:NAME, torchvision:MODEL/WEIGHTS, hf:OWNER/NAME, https://..., a path."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
