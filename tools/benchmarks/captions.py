"""Caption scores against pycocoevalcap: whole chain, rewards, METEOR, fresh processes, memory.

python tools/bench.py captions --references captions_val2017.json
    [--parts scores meteor rewards process memory] [--results FILE] [--rounds 3]

FILE and --references are as for tools/score_captions.py. Without --results each image's first
caption is scored with three words in ten exchanged for words of other captions. Both sides start
from raw strings and must give the same scores; pycocoevalcap needs Java on the PATH.
"""

import argparse
import contextlib
import io
import json
import platform
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError
from tools.benchmarks._timing import in_new_process, table, take_turns
from tools.command import ROOT

PARTS = ("scores", "meteor", "rewards", "process", "memory")
Captions = tuple[Mapping[str, list[str]], Mapping[str, str]]
Side = Callable[[], Mapping[str, float]]


def main(argv: list[str]) -> None:
    """Measure the parts that were asked for."""
    options = _options(argv)
    captions = load(options.references, options.results)
    _say_where(argv, captions)
    run: dict[str, Callable[[argparse.Namespace, Captions], str]] = {
        "scores": scores,
        "meteor": meteor,
        "rewards": rewards,
        "process": process,
        "memory": memory,
    }
    for part in options.parts:
        print(run[part](options, captions) + "\n", flush=True)


def load(references: Path, results: Path | None) -> Captions:
    """References and one caption for each of their images."""
    from transfer.captioning.scores.files import choose, read_references, read_results

    read = read_references(references)
    if results is not None:
        said = read_results(results)
        return choose(read, said, subset=True), said
    draw = random.Random(0)
    words = [word for texts in read.captions.values() for word in texts[0].split()]
    said = {}
    for image_id, texts in read.captions.items():
        kept = (draw.choice(words) if draw.random() < 0.3 else word for word in texts[0].split())
        said[image_id] = " ".join(kept)
    return read.captions, said


# ---- the sides, from raw strings to corpus scores (those of each image are made too)


def theirs(captions: Captions, with_meteor: bool = False) -> dict[str, float]:
    """Pycocoevalcap as its COCOEvalCap calls it."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, said = captions
    cut = PTBTokenizer()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        wanted = cut.tokenize(
            {key: [{"caption": text} for text in texts] for key, texts in references.items()}
        )
        got = cut.tokenize({key: [{"caption": said[key]}] for key in references})
        corpus, _ = Bleu(4).compute_score(wanted, got, verbose=0)
        found = {f"Bleu_{n}": value for n, value in enumerate(corpus, start=1)}
        found["ROUGE_L"], _ = Rouge().compute_score(wanted, got)
        found["CIDEr"], _ = Cider().compute_score(wanted, got)
        if with_meteor:
            found["METEOR"], _ = Meteor().compute_score(wanted, got)
    return found


def ours(captions: Captions, backend: Any = None) -> Mapping[str, float]:
    """This project, nothing remembered from before."""
    from transfer.captioning.scores import score
    from transfer.captioning.scores.tokens import cut_piece

    cut_piece.cache_clear()
    return score(*captions, meteor=backend).corpus


def open_meteor() -> Any:
    """METEOR with its index, which is built the first time."""
    from transfer.captioning.scores import Meteor

    return Meteor.open()


# ---- the parts


def scores(options: argparse.Namespace, captions: Captions) -> str:
    """BLEU, ROUGE-L and CIDEr."""
    from transfer.captioning.scores import References

    prepared = References(captions[0])
    sides: dict[str, Side] = {
        "pycocoevalcap": partial(theirs, captions),
        "ours, from cold": partial(ours, captions),
        "ours, references prepared": lambda: prepared.score(captions[1]).corpus,
    }
    return "BLEU-1 to 4, ROUGE-L and CIDEr, tokenised, in this process:\n\n" + _ratios(
        sides, options.rounds
    )


def meteor(options: argparse.Namespace, captions: Captions) -> str:
    """The same with METEOR."""
    from transfer.captioning.scores import References

    open_meteor()
    prepared = References(captions[0], meteor=open_meteor())
    sides: dict[str, Side] = {
        "pycocoevalcap": partial(theirs, captions, with_meteor=True),
        "ours, from cold, index opened": lambda: ours(captions, open_meteor()),
        "ours, references prepared": lambda: prepared.score(captions[1]).corpus,
    }
    return "The same with METEOR, whose index exists:\n\n" + _ratios(sides, options.rounds)


def rewards(options: argparse.Namespace, captions: Captions) -> str:
    """CIDEr-D of a batch: 50 images, 5 captions each, the whole set's document frequencies."""
    from transfer.captioning.scores import References

    prepared = References(captions[0])
    draw = random.Random(1)
    ids = [image_id for image_id in draw.sample(list(captions[0]), 50) for _ in range(5)]
    texts = [draw.choice(captions[0][image_id]) for image_id in ids]
    best = take_turns({"CIDEr-D": lambda: prepared.cider_d(ids, texts)}, max(20, options.rounds))[
        "CIDEr-D"
    ]
    return (
        f"CIDEr-D rewards of {len(ids)} raw captions, 50 images with {len(captions[1]):,} images' "
        f"references prepared: {best * 1e3:.1f} ms."
    )


def process(options: argparse.Namespace, captions: Captions) -> str:
    """What a user waits for: imports, files and scores in a new process."""
    with tempfile.TemporaryDirectory() as folder:
        words = _written(Path(folder), captions)
        tool = [sys.executable, str(ROOT / "tools" / "score_captions.py")]
        tool += ["--references", words[0], "--results", words[1], "--meteor"]
        sides = {
            "pycocoevalcap": lambda: _run(_alone("theirs", False), *words),
            "tools/score_captions.py --meteor off": lambda: in_new_process([*tool, "off"]),
            "pycocoevalcap with METEOR": lambda: _run(_alone("theirs", True), *words),
            "tools/score_captions.py": lambda: in_new_process([*tool, "python"]),
        }
        best = take_turns(sides, options.rounds)
    names = list(sides)
    rows = [
        [name, f"{best[name]:.2f}", f"{best[names[place // 2 * 2]] / best[name]:.1f}"]
        for place, name in enumerate(names)
    ]
    return "A new process, from files to printed scores:\n\n" + table(
        ["", "seconds", "times as fast"], rows
    )


def memory(_options: argparse.Namespace, captions: Captions) -> str:
    """Peak resident size of a process of its own, and of its largest Java process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        words = _written(Path(folder), captions)
        for side in ("theirs", "ours"):
            for with_meteor in (False, True):
                out = _run(_alone(side, with_meteor), *words).split()[-2:]
                name = "pycocoevalcap" if side == "theirs" else "ours"
                java = f"{float(out[1]):,.0f}" if side == "theirs" else "none"
                rows.append([name + ", with METEOR" * with_meteor, f"{float(out[0]):,.0f}", java])
    return "Peak memory of a process, MiB:\n\n" + table(
        ["", "Python", "largest Java process"], rows
    )


def alone(side: str, with_meteor: bool, references: str, results: str) -> None:
    """One side in a process of its own; prints its peak memory and that of its children."""
    import resource

    from pretrain.run import peak_resident_mib

    captions: Any = [json.loads(Path(path).read_bytes()) for path in (references, results)]
    if side == "theirs":
        theirs(captions, with_meteor)
    else:
        ours(captions, open_meteor() if with_meteor else None)
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**10
    print(peak_resident_mib(), children)


# ---- helpers


def _ratios(sides: Mapping[str, Side], rounds: int) -> str:
    found = {name: side() for name, side in sides.items()}
    first = next(iter(found.values()))
    apart = max(abs(other[key] - first[key]) for other in found.values() for key in first)
    if apart > 1e-9:
        raise UsageError(f"the sides differ by {apart:.1e}: {found}")
    best = take_turns(sides, rounds)
    slow = next(iter(best.values()))
    rows = [[name, f"{value:.3f}", f"{slow / value:.1f}"] for name, value in best.items()]
    return (
        table(["", "seconds", "times as fast"], rows)
        + f"\n\nLargest difference of a corpus score: {apart:.1g}."
    )


def _alone(side: str, with_meteor: bool) -> str:
    call = f"alone({side!r}, {with_meteor}, *sys.argv[1:])"
    return f"import sys; from tools.benchmarks.captions import alone; {call}"


def _written(folder: Path, captions: Captions) -> list[str]:
    """Both sets as files."""
    paths = []
    for name, content in zip(("references", "results"), captions, strict=True):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(content), encoding="utf-8")
        paths.append(str(path))
    return paths


def _run(code: str, *words: str) -> str:
    return in_new_process([sys.executable, "-c", code, *words])


def _say_where(argv: Sequence[str], captions: Captions) -> None:
    import torch

    from pretrain.run import environment

    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    print(
        f"`python tools/bench.py captions {' '.join(argv)}`: {date.today()}, "
        f"{environment(torch.device('cpu'))['device']}, Python {platform.python_version()}, NumPy "
        f"{metadata.version('numpy')}, pycocoevalcap {metadata.version('pycocoevalcap')}, "
        f"{java.splitlines()[0] if java else 'Java'}\n\n"
        f"{len(captions[0]):,} images with {sum(map(len, captions[0].values())):,} references; the "
        "best of the rounds.\n"
    )


def _options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.py captions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--references", type=Path, required=True, help="What people wrote.")
    parser.add_argument("--results", type=Path, help="One caption an image.")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="Default: 3.")
    options = parser.parse_args(argv)
    if options.rounds < 1:
        raise UsageError(f"--rounds is {options.rounds}; it must be at least 1")
    if util.find_spec("pycocoevalcap") is None:
        raise UsageError("the other side is missing: pip install pycocoevalcap 'snowballstemmer<3'")
    if shutil.which("java") is None:
        raise UsageError("the other side needs Java: there is no program java on the PATH")
    return options
