"""Score captions as MS-COCO's evaluation code does: BLEU, ROUGE-L, CIDEr, and METEOR.

python tools/score_captions.py --references captions.json --results results.json
python tools/score_captions.py ... --out scores.json --page page.html --images DIR
python tools/score_captions.py ... --bootstrap --against other.json
python tools/score_captions.py ... --tokenizer characters       Chinese, Japanese, Thai

Files are COCO's JSON, {"ID": ["caption", ...]}, JSON lines, CSV or TSV, also .gz. An id may be a
number or a text. Scores are fractions, CIDEr from 0 to 10.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

# this script's own folder comes first on the path; the packages lie one above
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from pretrain.errors import UsageError, check_ranges
from pretrain.files import write_text
from pretrain.progress import log
from tools.support.command import Parser, run_main

if TYPE_CHECKING:
    from transfer.captioning.scores.references import MeteorBackend

_DRAWS = 1000
_LEAST_KNOWN = 0.5  # share of the words that document frequencies know; fewer is worth a word
_ENDINGS = (".jpg", ".png", ".jpeg")  # of images that are looked for by id
_SHOWN = 12  # best captions of a page, and worst


def main(argv: list[str] | None = None) -> None:
    """Read, score, print, write."""
    options = _options(argv)
    from transfer.captioning.scores import References, files
    from transfer.captioning.scores.frequencies import count_frequencies, read_frequencies
    from transfer.captioning.scores.notes import caption_notes
    from transfer.captioning.scores.summary import compute_scores
    from transfer.captioning.scores.uncertainty import compare, intervals

    # ---- read
    references = files.read_references(options.references)
    paths = [path for path in (options.results, options.against) if path is not None]
    results = [
        files.match_ids(references, files.read_results(path, options.take), path) for path in paths
    ]
    ids = None
    if options.ids:
        asked = dict.fromkeys(files.read_ids(options.ids))
        ids = [*files.match_ids(references, asked, options.ids)]
    chosen, *others = [
        files.choose(references, captions, ids, options.subset, path)
        for captions, path in zip(results, paths, strict=True)
    ]
    chosen = {key: texts for key, texts in chosen.items() if all(key in other for other in others)}
    if not chosen:
        raise UsageError(f"no image has a caption in both {options.results} and {options.against}")
    results = [{key: captions[key] for key in chosen} for captions in results]
    frequencies = None
    if options.corpus and options.corpus.suffix in (".p", ".pkl"):
        frequencies = read_frequencies(options.corpus)
    elif options.corpus:
        captions = files.read_references(options.corpus).captions
        frequencies = count_frequencies(captions, tokenizer=options.tokenizer)
    written = [(key, text) for key, texts in chosen.items() for text in texts]
    sources = [written, *([*captions.items()] for captions in results)]
    for path, pairs in zip((options.references, *paths), sources, strict=True):
        for note in caption_notes(path, pairs, options.tokenizer, "--tokenizer"):
            log(note)
    meteor = _open_meteor(options.meteor, options.meteor_data, options.tokenizer)

    # ---- score
    prepared = References(
        chosen, frequencies=frequencies, meteor=meteor, tokenizer=options.tokenizer
    )
    if (known := prepared.known_words) < _LEAST_KNOWN:
        log(
            f"{options.corpus} knows {known:.0%} of the words of {options.references}; to CIDEr "
            "the others are the rarest. Is it of other captions, or of another tokenizer than "
            f"{options.tokenizer}?"
        )
    stats, *other_stats = [
        prepared.sufficient_stats([*captions], [*captions.values()]) for captions in results
    ]
    scores = compute_scores(chosen, stats)
    content: dict[str, Any] = {**vars(scores), "n": len(chosen), "tokenizer": options.tokenizer}
    columns = {"": list(scores.corpus), "score": _format(".4f", scores.corpus.values())}
    if options.bootstrap:
        ranges = intervals(stats, options.bootstrap, options.seed)
        content["interval"] = {name: [entry.low, entry.high] for name, entry in ranges.items()}
        columns["95 % interval"] = [f"[{e.low:.4f}, {e.high:.4f}]" for e in ranges.values()]
    for other in other_stats:
        corpus = compute_scores(chosen, other).corpus
        differences = compare(stats, other, options.bootstrap or _DRAWS, options.seed)
        content["against"] = {
            "corpus": corpus,
            "difference": {name: dict(vars(entry)) for name, entry in differences.items()},
        }
        entries = differences.values()
        columns |= {
            "against": _format(".4f", corpus.values()),
            "difference": _format("+.4f", (entry.value for entry in entries)),
            "95 % interval of it": [f"[{e.low:+.4f}, {e.high:+.4f}]" for e in entries],
            "p": _format(".3f", (entry.p for entry in entries)),
        }

    # ---- report
    if empty := int((stats.bleu[:, 0] == 0).sum()):
        log(f"captions without a word: {empty}; they count, and share nothing.")
    if len(stats) == 1 and frequencies is None:
        log(
            "CIDEr is 0: with one image every n-gram stands in all of them. --corpus FILE takes "
            "document frequencies from elsewhere."
        )
    words = "" if options.tokenizer == "ptb" else f", tokenizer {options.tokenizer}"
    if options.out is not None:
        write_text(options.out, json.dumps(content, indent=1) + "\n")
    if options.page is not None:
        from transfer.captioning.page import Figure, sections, write_figures

        count = min(_SHOWN, len(chosen) // 2 or 1)
        best, worst, _ = sections(scores, count).values()

        def figure(key: str) -> Figure:
            image = _find_image(options.images, key, references.file_names.get(key))
            own = scores.per_image[key]
            return Figure(f"image {key}", image, results[0][key], chosen[key], own)

        title = (
            f"{options.results.name}: {count} best and worst of {len(chosen):,} captions by CIDEr"
        )
        figures = {"Best": [*map(figure, best)], "Worst": [*map(figure, worst)]}
        write_figures(options.page, title, figures, scores=scores.corpus)
    print(f"{options.results} beside {options.references}, {len(chosen):,} images{words}")
    print(_table(columns))
    if options.page is not None:
        print(f"page     {options.page}")


def _options(argv: list[str] | None) -> Any:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add("--references", type=Path, required=True, metavar="FILE", help="What people wrote.")
    add("--results", type=Path, required=True, metavar="FILE", help="One caption an image.")
    add("--ids", type=Path, metavar="FILE", help="Score these ids only: a JSON list, or lines.")
    help_take = "Of several captions an image in the results (beams), score the first."
    add("--take", choices=["first"], help=help_take)
    add("--subset", action="store_true", help="Score the images that have a caption, not all.")
    add("--out", type=Path, metavar="FILE", help="A JSON file for all scores, by image too.")
    add("--page", type=Path, metavar="FILE", help="An HTML page of the best and worst captions.")
    add("--images", type=Path, metavar="DIR", help="The images for the page, by name or id.")
    help_meteor = "auto: where pycocoevalcap is installed; jar: by Java, slower."
    add("--meteor", choices=["auto", "python", "jar", "off"], default="auto", help=help_meteor)
    add("--meteor-data", type=Path, metavar="DIR", help="A METEOR folder instead of pycocoevalcap.")
    help_tokenizer = (
        "What cuts captions into words: ptb, MS-COCO's, for English; characters, for languages "
        "without spaces; none, what stands between spaces."
    )
    names = ["ptb", "characters", "none"]
    add("--tokenizer", choices=names, default="ptb", help=help_tokenizer)
    help_corpus = "CIDEr's document frequencies: captions, or a pickle of CIDEr's code (.p, .pkl)."
    add("--corpus", type=Path, metavar="FILE", help=help_corpus)
    help_draws = f"Intervals of 95 percent over images, by {_DRAWS} draws or as many as are given."
    draws: Any = {"type": int, "nargs": "?", "const": _DRAWS, "default": 0}
    add("--bootstrap", metavar="DRAWS", help=help_draws, **draws)
    add("--against", type=Path, metavar="FILE", help="Other results: differences, paired test.")
    add("--seed", type=int, default=0, help="Of the draws.")
    options = parser.parse(argv)
    check_ranges("--", options, bootstrap=">= 0", seed=">= 0")
    inputs = (options.references, options.results, options.against, options.ids, options.corpus)
    for path in filter(None, (options.out, options.page)):
        if path.is_dir():
            raise UsageError(f"{path} is a folder; expected the name of a file to write.")
        if path.resolve() in [source.resolve() for source in inputs if source]:
            raise UsageError(f"{path} would be written over, and is one of the files to read.")
    if options.page is not None and options.page == options.out:
        raise UsageError(f"--out and --page both name {options.page}")
    if options.tokenizer != "ptb" and options.meteor in ("python", "jar"):
        raise UsageError(
            f"--meteor {options.meteor}: METEOR is for English words of --tokenizer ptb; it is "
            f"{options.tokenizer}. Leave out one of the two."
        )
    if options.images is not None and options.page is None:
        raise UsageError("--images names the images of a page; give --page FILE too")
    if options.images is not None and not options.images.is_dir():
        raise UsageError(f"there is no folder {options.images}.")
    return options


def _open_meteor(kind: str, folder: Path | None, tokenizer: str) -> "MeteorBackend | None":
    from transfer.captioning.scores.meteor import Meteor, why_not
    from transfer.captioning.scores.meteor.jar import MeteorJar

    if kind == "auto" and tokenizer != "ptb":
        log(f"METEOR is left out: it is for English, and the tokenizer is {tokenizer}")
        return None
    if kind == "jar":
        return MeteorJar(folder)
    if kind == "auto" and folder is None and (reason := why_not()) is not None:
        log(f"METEOR is left out: {reason}")
        return None
    return None if kind == "off" else Meteor.open(folder, log)


def _format(form: str, values: Iterable[float]) -> list[str]:
    return [format(value, form) for value in values]


def _table(columns: dict[str, list[str]]) -> str:
    """Columns by their head; the first stands at the left, the others at the right."""
    aligned: list[list[str]] = []
    for head, cells in columns.items():
        width = max(map(len, (head, *cells)))
        aligned.append([f"{cell:{'>' if aligned else '<'}{width}}" for cell in (head, *cells)])
    return "\n".join("  ".join(line) for line in zip(*aligned, strict=True))


def _find_image(folder: Path | None, image_id: str, file_name: str | None) -> Path | None:
    """The file of an image: by its name, or else by its id."""
    from transfer.captioning.image_files import image_names

    if folder is None:
        return None
    by_name, by_id = (image_names(image_id, name, _ENDINGS) for name in (file_name, None))
    for name in (*by_name, *by_id):
        path = folder / name
        if path.is_file() and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None


if __name__ == "__main__":
    run_main(main)
