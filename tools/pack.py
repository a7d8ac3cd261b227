"""Images into shards: tar files in WebDataset's layout with an index, which all trainers read.

python tools/pack.py --data DIR --out STORE                    folders, ImageNet, CIFAR, captions
python tools/pack.py --data images.tar --out STORE             class folders in a tar file, .tar.gz
python tools/pack.py --data SHARDS --out STORE                 anybody's WebDataset shards
python tools/pack.py --data DIR --out STORE --short-side 256   larger images are resized
python tools/pack.py --verify STORE                            every byte read again; exit 0 or 1
python tools/pack.py --index SHARDS                            an index of anybody's shards

Killed, the same command goes on behind the shards that are there, to the same bytes.
"""

import shlex
import sys
import time
from pathlib import Path
from typing import Any, Literal

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.files import remove
from tools.support.command import Parser, run_main, usable_cores

_READ_BY_TIMM = {"jpg", "png", "webp"}  # unless it is told others


def main(argv: list[str] | None = None) -> None:
    """Pack, verify or index."""
    options = _options(argv)
    if options.verify is not None:
        _verify(options.verify, options.workers)
    elif options.index is not None:
        _index(options.index, options.workers)
    else:
        _pack(options)


def _options(argv: list[str] | None) -> Any:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--data", metavar="DIR", help="Images: a folder, a tar file, or the address of shards.")
    add("--out", type=Path, metavar="STORE", help="The folder of the shards.")
    kinds = Literal["auto", "classes", "captions"]
    add("--kind", type=kinds, default="auto", help="What of a folder; auto takes what is there.")
    add("--splits", nargs="+", metavar="SPLIT", help="train, val, test; all by default.")
    add("--samples-per-shard", type=int, default=1000, help="At most.")
    add("--seed", type=int, default=0, help="Of the order in which train is packed.")
    add("--short-side", type=int, metavar="PIXELS", help="Resize images that are larger.")
    add("--quality", type=int, default=90, help="Of the JPEG files that resizing writes.")
    add("--max-corrupt", type=int, default=0, help="Images of a split that may be left out.")
    add("--workers", type=int, default=usable_cores(), help="Processes (default: all cores).")
    add("--train", help="The split or folder of train, where it is called otherwise.")
    add("--val", help="That of val.")
    add("--test", help="That of test.")
    add("--val-labels", metavar="FILE", help="Labels of a val without class folders.")
    layouts = Literal["auto", "coco", "karpathy", "flickr", "folder"]
    add("--layout", type=layouts, default="auto", help="Of captions: as finetune_cap.py has it.")
    add("--split-file", metavar="FILE", help="Of captions: Karpathy's JSON.")
    add("--images", metavar="DIR", help="Of captions: the images, where they lie elsewhere.")
    add("--val-fraction", type=float, default=0.1, help="Of captions without splits.")
    add("--verify", type=Path, metavar="STORE", help="Read a store again, and compare.")
    add("--index", type=Path, metavar="SHARDS", help="Make the index of shards anew.")
    options: Any = parser.parse(argv)
    check_ranges("--", options, samples_per_shard="[1, 1000000]", seed=">= 0", workers="[1, 512]")
    check_ranges("--", options, short_side="[8, 8192]", quality="[1, 100]", max_corrupt=">= 0")
    check_ranges("--", options, val_fraction="(0, 1)")
    given = [name for name in ("data", "verify", "index") if options[name] is not None]
    if len(given) != 1 or (options.out is None) == (options.data is not None):
        raise UsageError("give one of --data DIR --out STORE, --verify STORE and --index SHARDS.")
    return options


def _pack(options: Any) -> None:
    from pretrain.shards.pack import PackOptions, pack, require_place
    from tools.support.pack_sources import SPLITS, SourceOptions, open_sources

    out: Path = options.out
    if unknown := sorted({*(options.splits or ())} - {*SPLITS}):
        raise UsageError(f"--splits has {unknown[0]!r}; it must be of {', '.join(SPLITS)}.")
    if out.resolve().is_relative_to(Path(options.data).resolve()):
        raise UsageError(f"--out {out} lies in --data {options.data}; name a folder elsewhere.")
    require_place(out)
    names = ("kind", "train", "val", "test", "val_labels", "layout", "split_file", "images")
    source = SourceOptions(
        **{name: options[name] for name in names},
        val_fraction=options.val_fraction,
        max_corrupt=options.max_corrupt,
    )
    splits = open_sources(options.data, source, out / ".pack")
    if options.splits:
        there = [split.split for split in splits]
        if missing := sorted({*options.splits}.difference(there)):
            raise UsageError(
                f"{options.data} has no split {', '.join(missing)}; it has {', '.join(there)}."
            )
        splits = [split for split in splits if split.split in options.splits]
    chosen = PackOptions(
        samples_per_shard=options.samples_per_shard,
        seed=options.seed,
        short_side=options.short_side,
        quality=options.quality,
    )
    info = pack(splits, out, chosen, workers=options.workers, max_corrupt=options.max_corrupt)
    for split in splits:
        described = info["splits"][split.split]
        texts = "captions, " if split.texts else ""
        classes = f"{len(split.classes):,} classes, " if split.classes else texts
        print(
            f"{split.split:<9}{described['num_samples']:,} images, {classes}"
            f"{len(described['filenames']):,} shards, {sum(described['bytes']):,} bytes, "
            f"{described['resized']:,} resized; {described['index']['file']} "
            f"{described['index']['blake2b']}"
        )
        if lost := info["left_out"][split.split]:
            print(f"         {len(lost):,} left out: {', '.join(lost[:5])}")
        if pairs := split.escaped:
            print(f"         {len(pairs):,} keys escaped: {pairs[0][0]} is {pairs[0][1]}")
        endings = [*described["endings"]]
        if len(endings) > 1:
            print(f"         endings {', '.join(endings)}: Hugging Face's datasets reads one only")
        if {*endings} - _READ_BY_TIMM:
            keys = ";".join(sorted({*endings} | _READ_BY_TIMM))
            print(f"         timm reads these by --input-key '{keys}'")
    print(f"next     python tools/pack.py --verify {shlex.quote(str(out))}")
    if {"val", "test"} & {split.split for split in splits} and (
        splits[0].classes or splits[0].texts
    ):
        tool = "pretrain" if splits[0].classes else "finetune_cap"
        print(f"         python tools/{tool}.py --data {shlex.quote(str(out))}")


def _index(root: Path, workers: int) -> None:
    from pretrain.shards.restore import restore_indexes
    from pretrain.shards.scan import find_tars, scan
    from pretrain.shards.store import is_packed

    if not root.is_dir():
        raise UsageError(f"--index {root} is no folder. Give the folder that holds the shards.")
    if is_packed(root):
        paths = restore_indexes(root, workers)
    else:
        tars, begun = find_tars(root), time.time()
        paths = [index.path for index in scan(root, tars).values()]
        if not paths:
            raise UsageError(f"{root} holds no shards, such as train-000000.tar.")
        if any(path.stat().st_mtime < begun for path in paths):  # those of before
            remove(paths[0].parent)
            paths = [index.path for index in scan(root, tars).values()]
    for path in paths:
        print(f"index    {path}")


def _verify(root: Path, workers: int) -> None:
    from pretrain.shards.verify import verify

    problems = verify(root, workers)
    for problem in problems:
        print(f"wrong {problem}")
    print(f"{root} is {f'damaged: {len(problems):,} problems' if problems else 'complete'}")
    if problems:
        print("fetch what is wrong again, or remove it and give the command that packed it again")
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    run_main(main, "the same command")
