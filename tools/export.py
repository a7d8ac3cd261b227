"""Write a backbone in another library's format, and verify there that it is the same function.

python tools/export.py --backbone B.pth --to detectron2 --out r50.pkl    and r50-{fpn,c4,dc5}.yaml
python tools/export.py --backbone B.pth --to timm --out FOLDER           timm: local-dir:FOLDER
python tools/export.py --backbone B.pth --to timm,onnx,torchvision --out FOLDER
python tools/export.py --backbone FOREIGN.pth --source torchvision --to backbone --out B.pth

The same raw image goes through both networks; every feature level must agree to 1e-4 of its largest
value, or nothing is written.
"""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from pretrain.files import draft, remove
from tools.support.backbone_options import add_overrides, load, overrides
from tools.support.command import Parser, backbone_name, run_main


def main(argv: list[str] | None = None) -> None:
    """Resolve, write, verify, show."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--backbone", metavar="NAME_OR_FILE", help="What to export.")
    help_to = "detectron2, torchvision, timm, safetensors, onnx, backbone (our own)."
    add("--to", metavar="FORMAT[,FORMAT]", help=help_to)
    add("--out", type=Path, metavar="PATH", help="The file (for timm, or several: a folder).")
    help_heads = "For detectron2, a YAML each: fpn, c4, dc5 (default: all that are possible)."
    add("--heads", metavar="HEAD[,HEAD]", help=help_heads)
    help_python = "For detectron2: the interpreter of the environment where it is installed."
    add("--python", metavar="PATH", help=help_python)
    help_unverified = "Write also where neither the library nor a test of ours can verify it."
    add("--unverified", action="store_true", help=help_unverified)
    add_overrides(parser)
    options: Any = parser.parse(argv)
    name = backbone_name(options.backbone)
    for flag in ("to", "out"):
        if options[flag] is None:
            raise UsageError(f"--{flag} is missing (python tools/export.py --help).")

    from transfer import formats
    from transfer.formats.writing import FORMATS, SUFFIX, check

    requested: Any = _words(options.to)
    for word in requested:
        if word not in FORMATS:
            raise UsageError(f"--to has {word!r}; it must be of {', '.join(FORMATS)}.")
    if not requested or len(set(requested)) != len(requested):
        raise UsageError(f"--to is {options.to!r}; it must name formats, each once.")
    backbone = load(name, overrides(options), trust=options.trust)
    paths = {requested[0]: options.out}
    if len(requested) > 1:
        if options.out.is_file():
            raise UsageError(f"--out {options.out} is a file; several formats need a folder.")
        paths = {to: options.out / to / (backbone.spec.arch + SUFFIX[to]) for to in requested}
    heads: Any = _words(options.heads or "") or None
    for to, path in paths.items():
        check(backbone, to, path, heads)
    print(f"{backbone.name} ({backbone.fingerprint()})")
    given = {"heads": heads, "python": options.python, "unverified": options.unverified}
    with ExitStack() as folders, ExitStack() as failed:
        for to, path in paths.items():
            folders.enter_context(draft(path))  # a new folder that stays empty goes
            export = formats.write(backbone, to, path, **given)
            print(f"\n{to}")
            for report in export.reports:
                print(report.table())
            for note in export.notes:
                print(f"  {note}")
            for file in export.files:
                print(f"  -> {file}")
                failed.callback(remove, file)  # the same command refuses what is there
        failed.pop_all()


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


if __name__ == "__main__":
    run_main(main)
