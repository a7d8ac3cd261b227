"""Score captions as MS-COCO's evaluation code does: BLEU, ROUGE-L, CIDEr, and METEOR.

python tools/score_captions.py --references captions.json --results results.json
python tools/score_captions.py ... --out scores.json --page page.html --images DIR
python tools/score_captions.py ... --bootstrap --against other.json

Files are COCO's JSON, {"ID": ["caption", ...]}, JSON lines, CSV or TSV, also .gz. An id may be a
number or a text. Scores are fractions, CIDEr from 0 to 10.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError
from pretrain.progress import log
from pretrain.run import write_text
from tools.command import Parser, run_main

if TYPE_CHECKING:
    from transfer.captioning.scores import DocumentFrequencies
    from transfer.captioning.scores.files import CaptionFile
    from transfer.captioning.scores.references import MeteorBackend
    from transfer.captioning.scores.summary import Rows, Scores
    from transfer.captioning.scores.uncertainty import Difference, Interval

_DRAWS = 1000
_SHOWN = 12  # best captions of a page, and worst
_ON_PAGE = ("CIDEr", "METEOR", "Bleu_4")


def main(argv: list[str] | None = None) -> None:
    """Read, score, print, write."""
    options = _options(argv)
    from transfer.captioning.scores.files import choose, read_ids, read_references, read_results
    from transfer.captioning.scores.references import References
    from transfer.captioning.scores.summary import summarise
    from transfer.captioning.scores.uncertainty import compare, intervals

    # ---- read
    references = read_references(options.references)
    results = read_results(options.results)
    other = read_results(options.against) if options.against else None
    ids = read_ids(options.ids) if options.ids else None
    wanted = choose(references, results, ids, options.subset, options.results)
    if other is not None:
        both = choose(references, other, ids, options.subset, options.against)
        wanted = {image_id: texts for image_id, texts in wanted.items() if image_id in both}
        if not wanted:
            raise UsageError(
                f"no image has a caption in both {options.results} and {options.against}"
            )
    frequencies = _frequencies(options.corpus)
    meteor = _meteor(options.meteor, options.meteor_data)

    # ---- score
    prepared = References(wanted, frequencies=frequencies, meteor=meteor)
    said = {image_id: results[image_id] for image_id in wanted}
    rows = prepared.rows(list(said), list(said.values()))
    scores = summarise(said, rows)
    content: dict[str, Any] = {
        "corpus": scores.corpus,
        "per_image": scores.per_image,
        "n": len(said),
    }
    columns = [("score", _shown(scores.corpus, ".4f"))]
    if options.bootstrap:
        found = intervals(rows, options.bootstrap, options.seed)
        content["interval"] = {name: [entry.low, entry.high] for name, entry in found.items()}
        columns.append(("95 % interval", _ranges(found, ".4f")))
    if other is not None:
        others = prepared.rows(list(wanted), [other[image_id] for image_id in wanted])
        theirs = summarise(wanted, others).corpus
        differences = compare(rows, others, options.bootstrap or _DRAWS, options.seed)
        content["against"] = {
            "corpus": theirs,
            "difference": {name: dict(vars(entry)) for name, entry in differences.items()},
        }
        columns += [
            ("against", _shown(theirs, ".4f")),
            ("difference", [f"{entry.value:+.4f}" for entry in differences.values()]),
            ("95 % interval of it", _ranges(differences, "+.4f")),
            ("p", [f"{entry.p:.3f}" for entry in differences.values()]),
        ]

    # ---- tell
    for note in _notes(rows, frequencies is not None):
        log(note)
    print(f"{options.results} beside {options.references}, {len(said):,} images")
    print(_table([("", list(scores.corpus)), *columns]))
    if options.out is not None:
        write_text(options.out, json.dumps(content, indent=1) + "\n")
    if options.page is not None:
        _write_page(options, references, said, wanted, scores)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--references", type=Path, required=True, metavar="FILE", help="What people wrote.")
    add("--results", type=Path, required=True, metavar="FILE", help="One caption an image.")
    add("--ids", type=Path, metavar="FILE", help="Score these ids only: a JSON list, or lines.")
    add("--subset", action="store_true", help="Score the images that have a caption, not all.")
    add("--out", type=Path, metavar="FILE", help="A JSON file for all scores, by image too.")
    add("--page", type=Path, metavar="FILE", help="An HTML page of the best and worst captions.")
    add("--images", type=Path, metavar="DIR", help="The pictures for the page, by name or id.")
    add(
        "--meteor",
        choices=["auto", "python", "jar", "off"],
        default="auto",
        help="auto: where pycocoevalcap is installed; jar: by Java, slower (default: auto).",
    )
    add("--meteor-data", type=Path, metavar="DIR", help="A METEOR folder instead of pycocoevalcap.")
    add(
        "--corpus",
        type=Path,
        metavar="FILE",
        help="CIDEr's document frequencies: captions, or a pickle of the field (.p, .pkl).",
    )
    add(
        "--bootstrap",
        type=int,
        nargs="?",
        const=_DRAWS,
        default=0,
        metavar="DRAWS",
        help=f"95 %% intervals over images (default: {_DRAWS} draws where it is given).",
    )
    add("--against", type=Path, metavar="FILE", help="Other results: differences, paired test.")
    add("--seed", type=int, default=0, help="Of the draws (default: 0).")
    options = parser.parse_args(argv)
    for name in ("bootstrap", "seed"):
        if getattr(options, name) < 0:
            raise UsageError(f"--{name} is {getattr(options, name)}; it may not be below 0")
    inputs = (options.references, options.results, options.against, options.ids, options.corpus)
    for path in filter(None, (options.out, options.page)):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; expected the name of a file to write.")
        if path.resolve() in [given.resolve() for given in inputs if given]:
            raise UsageError(f"{path} would be written over, and is one of the files to read.")
    if options.page is not None and options.page == options.out:
        raise UsageError(f"--out and --page both name {options.page}")
    if options.images is not None and options.page is None:
        raise UsageError("--images names the pictures of a page; give --page FILE too")
    if options.images is not None and not options.images.is_dir():
        raise UsageError(f"there is no folder {options.images}.")
    return options


def _meteor(kind: str, folder: Path | None) -> "MeteorBackend | None":
    from transfer.captioning.scores.meteor import Meteor, why_not

    if kind == "jar":
        from transfer.captioning.scores.meteor.jar import MeteorJar

        return MeteorJar(folder)
    if kind == "off":
        return None
    if kind == "auto" and folder is None and (reason := why_not()) is not None:
        log(f"METEOR is left out: {reason}")
        return None
    return Meteor.open(folder, log)


def _frequencies(path: Path | None) -> "DocumentFrequencies | None":
    if path is None:
        return None
    from transfer.captioning.scores import DocumentFrequencies
    from transfer.captioning.scores.files import read_references

    if path.suffix in (".p", ".pkl"):
        return DocumentFrequencies.read(path)
    return DocumentFrequencies.count(read_references(path).captions)


def _notes(rows: "Rows", has_corpus: bool) -> list[str]:
    notes = []
    if empty := int((rows.bleu[:, 0] == 0).sum()):
        notes.append(f"captions without a word: {empty}; they count, and share nothing.")
    if len(rows) == 1 and not has_corpus:
        notes.append(
            "CIDEr is 0: with one image every n-gram stands in all of them. --corpus FILE takes "
            "document frequencies from elsewhere."
        )
    return notes


def _shown(values: Mapping[str, float], form: str) -> list[str]:
    return [format(value, form) for value in values.values()]


def _ranges(found: "Mapping[str, Interval] | Mapping[str, Difference]", form: str) -> list[str]:
    return [f"[{entry.low:{form}}, {entry.high:{form}}]" for entry in found.values()]


def _table(columns: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Columns of a head and cells; the first stands at the left, the others at the right."""
    lined: list[list[str]] = []
    for head, cells in columns:
        width = max(map(len, (head, *cells)))
        lined.append([f"{cell:{'>' if lined else '<'}{width}}" for cell in (head, *cells)])
    return "\n".join("  ".join(line) for line in zip(*lined, strict=True))


def _write_page(
    options: argparse.Namespace,
    references: "CaptionFile",
    said: Mapping[str, str],
    wanted: Mapping[str, list[str]],
    scores: "Scores[str]",
) -> None:
    from transfer.captioning.page import Figure, write_figures

    ranked = sorted(said, key=lambda image_id: -scores.per_image[image_id]["CIDEr"])
    count = min(_SHOWN, len(ranked) // 2 or 1)
    shown = [
        Figure(
            f"image {image_id}",
            _picture(options.images, image_id, references.file_names.get(image_id)),
            said[image_id],
            wanted[image_id],
            {name: scores.per_image[image_id][name] for name in _ON_PAGE if name in scores.corpus},
        )
        for image_id in (*ranked[:count], *ranked[::-1][: min(count, len(ranked) - count)])
    ]
    title = f"{options.results.name}: {count} best and worst of {len(ranked):,} captions by CIDEr"
    halves = {"Best": shown[:count], "Worst": shown[count:]}
    write_figures(options.page, title, halves, scores=scores.corpus)
    print(f"page     {options.page}")


def _picture(folder: Path | None, image_id: str, file_name: str | None) -> Path | None:
    """The file of an image: by its name, by its id, or by its id as MS-COCO writes it."""
    if folder is None:
        return None
    stems = [image_id, image_id.zfill(12)]
    names = [file_name] if file_name else []
    names += [image_id, *(f"{stem}{end}" for stem in stems for end in (".jpg", ".png", ".jpeg"))]
    for name in names:
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None


if __name__ == "__main__":
    run_main(main)
