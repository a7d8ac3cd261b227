"""Write a backbone in another library's format, and prove there that it is the same function.

python tools/export.py --backbone B.pth --to detectron2 --out r50.pkl    and r50-{fpn,c4,dc5}.yaml
python tools/export.py --backbone B.pth --to timm --out FOLDER           timm: local-dir:FOLDER
python tools/export.py --backbone B.pth --to timm,onnx,torchvision --out FOLDER
python tools/export.py --backbone FOREIGN.pth --source torchvision --to backbone --out B.pth

The same raw image goes through both networks; every feature level must agree to 1e-4 of its largest
value, or nothing is written.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from tools import backbone_options
from tools.command import backbone_name, run_main


def main(argv: list[str] | None = None) -> None:
    """Resolve, write, prove, show."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--backbone", metavar="NAME_OR_FILE", help="What to export.")
    parser.add_argument(
        "--to",
        metavar="FORMAT[,FORMAT]",
        help="detectron2, torchvision, timm, safetensors, onnx, backbone (our own).",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH", help="The file (for timm, or several: a folder)."
    )
    parser.add_argument(
        "--heads",
        metavar="HEAD[,HEAD]",
        help="For detectron2, a YAML each: fpn, c4, dc5 (default: all that are possible).",
    )
    parser.add_argument(
        "--python",
        metavar="PATH",
        help="For detectron2: the interpreter of the environment where it is installed.",
    )
    parser.add_argument(
        "--unproved",
        action="store_true",
        help="Write also where neither the library nor a test of ours can prove it.",
    )
    parser.add_argument("--trust", action="store_true", help="Download files of unknown hash.")
    backbone_options.add(parser)
    options = parser.parse_args(argv)
    name = backbone_name(options.backbone)
    for flag in ("to", "out"):
        if getattr(options, flag) is None:
            raise UsageError(f"--{flag} is missing (python tools/export.py --help).")

    from transfer import hub
    from transfer.formats.writing import check

    wanted = _formats(options.to)
    backbone = hub.resolve(name, backbone_options.given(options), trust=options.trust)
    places: Any = _places(wanted, options.out, backbone.spec.arch)
    heads: Any = [word.strip() for word in options.heads.split(",")] if options.heads else None
    for to, path in places.items():
        check(backbone, to, path, heads)
    print(f"{backbone.name} ({backbone.fingerprint()})")
    for to, path in places.items():
        _export(backbone, to, path, heads, options)


def _formats(text: str) -> list[str]:
    from transfer.formats.writing import FORMATS

    wanted = [word.strip() for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in FORMATS:
            raise UsageError(f"--to has {word!r}; it must be of {', '.join(FORMATS)}.")
    if not wanted or len(set(wanted)) != len(wanted):
        raise UsageError(f"--to is {text!r}; it must name formats, each once.")
    return wanted


def _places(wanted: list[str], out: Path, arch: str) -> dict[str, Path]:
    """One format goes to --out itself; several go to --out/FORMAT/ARCH."""
    from transfer.formats.writing import SUFFIX, Format

    if len(wanted) == 1:
        return {wanted[0]: out}
    if out.is_file():
        raise UsageError(f"--out {out} is a file; several formats need a folder.")
    suffix: dict[Format, str] = SUFFIX
    return {to: out / to / (arch + suffix[to]) for to in wanted}  # type: ignore[index]


def _export(backbone: Any, to: Any, path: Path, heads: Any, options: argparse.Namespace) -> None:
    from transfer.formats import write

    written = write(
        backbone, to, path, heads=heads, python=options.python, unproved=options.unproved
    )
    print(f"\n{to}")
    for proof in written.proofs:
        print(proof.table())
    for note in written.notes:
        print(f"  {note}")
    for file in written.files:
        print(f"  -> {file}")


if __name__ == "__main__":
    run_main(main)
