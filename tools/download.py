"""Fetch a backbone by name or address into the cache, verified; --list shows our own list.

python tools/download.py --list
python tools/download.py torchvision:resnet50/IMAGENET1K_V2
python tools/download.py timm:resnet50.a1_in1k
python tools/download.py 'https://example.org/net.pth#sha256=...'
python tools/download.py cutmix-resnet152 --trust          its hash is known to nobody yet

The other tools take the same names after --backbone. A download that broke off goes on where it
stopped; what is in the cache needs no network.
"""

import argparse
import sys
from pathlib import Path

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from tools.command import run_main


def main(argv: list[str] | None = None) -> None:
    """List, or fetch and say where it lies."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="A name or an address.")
    parser.add_argument("--list", action="store_true", help="Show our own list.")
    parser.add_argument(
        "--trust", action="store_true", help="Take a file whose hash is not known, and record it."
    )
    options = parser.parse_args(argv)
    if options.list == (options.name is not None):
        raise UsageError("give a NAME, or --list (python tools/download.py --help).")

    from transfer import hub

    if options.list:
        print(listing(hub))
        return
    path, _ = hub.locate(options.name, trust=options.trust)
    if path == Path(options.name):
        print(f"{path} is a path already; nothing to fetch.")
        return
    digest = hub.sha256(path)
    print(f"{path}\n  {path.stat().st_size:,} bytes, SHA-256 {digest}")
    print(f"  python tools/inspect_backbone.py {options.name}")


def listing(hub: object) -> str:
    """Our list as a table, widest column last."""
    entries = hub.released().values()  # type: ignore[attr-defined]
    rows = [("name", "network", "hash", "served as", "trained with", "top-1 error %")]
    for entry in entries:
        rows.append(
            (
                entry.name,
                entry.arch,
                entry.sha256[:8] if entry.sha256 else "unknown",
                "file" if entry.url else "web page",
                entry.recipe,
                entry.row,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:5], widths, strict=True)]
        lines.append("  ".join([*cells, row[5]]))
    lines.append(
        "\nA file of unknown hash needs --trust; what comes is recorded and must stay the same.\n"
        "One that only a web page serves is downloaded by hand and given by its path. Beside\n"
        "this list: timm:NAME, torchvision:MODEL/WEIGHTS, hf:OWNER/NAME, https://..., a path."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    run_main(main)
