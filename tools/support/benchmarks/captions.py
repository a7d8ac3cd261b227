"""Caption scores against pycocoevalcap: whole chain, rewards, METEOR, fresh processes, memory.

python tools/bench.py captions --references captions_val2017.json
    [--parts scores meteor rewards process memory] [--results FILE] [--rounds 3]

FILE and --references are as for tools/score_captions.py. Without --results each image's first
caption is scored with three words in ten exchanged for words of other captions. Both sides start
from raw strings and must give the same scores; pycocoevalcap needs Java on the PATH.
"""

import contextlib
import io
import json
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError, check_ranges
from tools.support.benchmarks._timing import heading, in_new_process, table, take_turns
from tools.support.command import ROOT, Parser

Captions = tuple[Mapping[str, list[str]], Mapping[str, str]]
Side = Callable[[], Mapping[str, float]]


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    parser = Parser(__doc__)
    parser.add_argument("--references", type=Path, required=True, help="What people wrote.")
    parser.add_argument("--results", type=Path, help="One caption an image.")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="The best of so many counts.")
    options = parser.parse(argv)
    check_ranges("--", options, rounds=">= 1")
    if util.find_spec("pycocoevalcap") is None:
        raise UsageError("the other side is missing: pip install pycocoevalcap 'snowballstemmer<3'")
    if shutil.which("java") is None:
        raise UsageError("the other side needs Java: there is no program java on the PATH")
    captions = load(options.references, options.results)
    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    print(
        f"{heading('captions', argv)}, NumPy "
        f"{metadata.version('numpy')}, pycocoevalcap {metadata.version('pycocoevalcap')}, "
        f"{java.splitlines()[0] if java else 'Java'}\n\n"
        f"{len(captions[0]):,} images with {sum(map(len, captions[0].values())):,} references; the "
        "best of the rounds.\n"
    )
    for part in options.parts:
        print(PARTS[part](captions, options.rounds) + "\n", flush=True)


def load(references: Path, results: Path | None) -> Captions:
    """References and one caption for each of their images."""
    from transfer.captioning.scores.files import choose, read_references, read_results

    read = read_references(references)
    if results is not None:
        hypotheses = read_results(results)
        return choose(read, hypotheses, subset=True), hypotheses
    draw = random.Random(0)
    words = [word for texts in read.captions.values() for word in texts[0].split()]
    hypotheses = {}
    for image_id, texts in read.captions.items():
        kept = (draw.choice(words) if draw.random() < 0.3 else word for word in texts[0].split())
        hypotheses[image_id] = " ".join(kept)
    return read.captions, hypotheses


# ---- the sides, from raw strings to corpus scores (those of each image are made too)


def score_by_reference(captions: Captions, with_meteor: bool = False) -> dict[str, float]:
    """Pycocoevalcap as its COCOEvalCap calls it."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, hypotheses = captions
    tokenizer = PTBTokenizer()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        gts = tokenizer.tokenize(
            {key: [{"caption": text} for text in texts] for key, texts in references.items()}
        )
        res = tokenizer.tokenize({key: [{"caption": hypotheses[key]}] for key in references})
        corpus, _ = Bleu(4).compute_score(gts, res, verbose=0)
        scores = {f"Bleu_{n}": value for n, value in enumerate(corpus, start=1)}
        others = [("ROUGE_L", Rouge()), ("CIDEr", Cider())]
        for name, scorer in others + ([("METEOR", Meteor())] if with_meteor else []):
            scores[name], _ = scorer.compute_score(gts, res)
    return scores


def score_here(captions: Captions, with_meteor: bool = False) -> Mapping[str, float]:
    """This project, nothing remembered from before; METEOR's index is built the first time."""
    from transfer.captioning.scores import Meteor, score
    from transfer.captioning.scores.tokenizer import tokenize_piece

    tokenize_piece.cache_clear()
    return score(*captions, meteor=Meteor.open() if with_meteor else None).corpus


SIDES = {"pycocoevalcap": score_by_reference, "ours": score_here}


# ---- the parts


def compare_scores(captions: Captions, rounds: int, with_meteor: bool = False) -> str:
    """BLEU, ROUGE-L and CIDEr, and METEOR."""
    from transfer.captioning.scores import Meteor, References

    prepared = References(captions[0], meteor=Meteor.open() if with_meteor else None)
    sides: dict[str, Side] = {
        "pycocoevalcap": partial(score_by_reference, captions, with_meteor),
        f"ours, from cold{', index opened' * with_meteor}": lambda: score_here(
            captions, with_meteor
        ),
        "ours, references prepared": lambda: prepared.score(captions[1]).corpus,
    }
    results = {name: side() for name, side in sides.items()}
    expected = results["pycocoevalcap"]
    apart = max(abs(scores[key] - expected[key]) for scores in results.values() for key in expected)
    if apart > 1e-9:
        raise UsageError(f"the sides differ by {apart:.1e}: {results}")
    best = take_turns(sides, rounds)
    head = "BLEU-1 to 4, ROUGE-L and CIDEr, tokenised, in this process:"
    if with_meteor:
        head = "The same with METEOR, whose index exists:"
    rows = _speeds(best, dict.fromkeys(best, "pycocoevalcap"), 3)
    return f"{head}\n\n{rows}\n\nLargest difference of a corpus score: {apart:.1g}."


def time_rewards(captions: Captions, rounds: int) -> str:
    """CIDEr-D of a batch: 50 images, 5 captions each, the whole set's document frequencies."""
    from transfer.captioning.scores import References

    prepared = References(captions[0])
    draw = random.Random(1)
    ids = [image_id for image_id in draw.sample(list(captions[0]), 50) for _ in range(5)]
    texts = [draw.choice(captions[0][image_id]) for image_id in ids]
    (best,) = take_turns({"": lambda: prepared.cider_d(ids, texts)}, max(20, rounds)).values()
    return (
        f"CIDEr-D rewards of {len(ids)} raw captions, 50 images with {len(captions[1]):,} images' "
        f"references prepared: {best * 1e3:.1f} ms."
    )


def time_processes(captions: Captions, rounds: int) -> str:
    """What a user waits for: imports, files and scores in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        words = _write(Path(folder), captions)
        tool = [str(ROOT / "tools" / "score_captions.py"), "--references", words[0]]
        tool += ["--results", words[1], "--meteor"]
        sides = {
            "pycocoevalcap": lambda: _run_side("pycocoevalcap", False, words),
            "tools/score_captions.py --meteor off": lambda: in_new_process(*tool, "off"),
            "pycocoevalcap with METEOR": lambda: _run_side("pycocoevalcap", True, words),
            "tools/score_captions.py": lambda: in_new_process(*tool, "python"),
        }
        best = take_turns(sides, rounds)
    names = list(sides)
    beside = {name: names[number // 2 * 2] for number, name in enumerate(names)}
    return f"A new process, from files to printed scores:\n\n{_speeds(best, beside, 2)}"


def _speeds(best: Mapping[str, float], beside: Mapping[str, str], digits: int) -> str:
    """A table of seconds, and how many times as fast as the side beside it each one is."""
    rows = [
        [name, f"{seconds:.{digits}f}", f"{best[beside[name]] / seconds:.1f}"]
        for name, seconds in best.items()
    ]
    return table(["", "seconds", "times as fast"], rows)


def measure_memory(captions: Captions, _rounds: int) -> str:
    """Peak resident size of a process of its own, and of its largest Java process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        words = _write(Path(folder), captions)
        for name in SIDES:
            for with_meteor in (False, True):
                own, java = map(float, _run_side(name, with_meteor, words).split()[-2:])
                cells = [f"{own:,.0f}", "none" if name == "ours" else f"{java:,.0f}"]
                rows.append([name + ", with METEOR" * with_meteor, *cells])
    head = ["", "Python", "largest Java process"]
    return f"Peak memory of a process, MiB:\n\n{table(head, rows)}"


PARTS: dict[str, Callable[[Captions, int], str]] = {
    "scores": compare_scores,
    "meteor": partial(compare_scores, with_meteor=True),
    "rewards": time_rewards,
    "process": time_processes,
    "memory": measure_memory,
}


# ---- one side in a process of its own


def _write(folder: Path, captions: Captions) -> list[str]:
    """Both sets as files."""
    paths = [folder / "references.json", folder / "results.json"]
    for path, content in zip(paths, captions, strict=True):
        path.write_text(json.dumps(content), encoding="utf-8")
    return [str(path) for path in paths]


def _run_side(side: str, with_meteor: bool, words: list[str]) -> str:
    code = f"from {__name__} import run_alone; run_alone({side!r}, {with_meteor})"
    return in_new_process("-c", code, *words)


def run_alone(side: str, with_meteor: bool) -> None:
    """One side on the files of the command line; prints its peak memory and its children's."""
    import resource

    from pretrain.run import peak_resident_mib

    captions: Any = [json.loads(Path(path).read_bytes()) for path in sys.argv[1:]]
    SIDES[side](captions, with_meteor)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(peak_resident_mib(), children)
