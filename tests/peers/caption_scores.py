"""The same captions through the packages that people use, beside MS-COCO's own code.

    python tests/peers/caption_scores.py [--environment DIR]

The packages are installed from PyPI into an environment (in a temporary folder, or kept in DIR);
torch is borrowed from the one that runs this. The case is golden/captions/coco_a of the reference
data ($CUTMIX_SHARED, or ../shared): 200 images of MS-COCO, a corpus of their own. METEOR and
pycocoevalcap's tokenizer need Java. Prints a Markdown table.
"""

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import make_environment

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

REQUIREMENTS = (
    "pycocoevalcap==1.2",
    "nltk==3.10.4",
    "sacrebleu==2.6.0",
    "torchmetrics==1.9.0",
    "evaluate==0.4.6",
    "rouge-score==0.1.2",
)
# aac-metrics asks for language models that its n-gram scores do not use, and for a range of
# pythonwrench whose only release was withdrawn
ALONE = ("aac-metrics==0.6.0", "pythonwrench==0.3.0")
SCORES = ("BLEU-4", "METEOR", "ROUGE-L", "CIDEr")
# (captions, references): nearest neighbours' captions with 5 references, one human's with 4
CASES = (("hyp_nn_tfidf", "refs_all"), ("hyp_human", "refs_minus_one"))


def read_case(folder: Path, captions: str, references: str) -> dict:
    """See caption_evaluators.py; ids are texts."""
    from transfer.captioning.scores import tokenize

    def read(name: str):
        with gzip.open(folder / f"{name}.json.gz") as file:
            return json.load(file)

    ids = [str(one) for one in read("scores")["per_image_ids"]]
    wanted: dict[str, list[str]] = {key: [] for key in ids}
    for one in read(references)["annotations"]:
        if (key := str(one["image_id"])) in wanted:
            wanted[key].append(one["caption"])
    found = {str(one["image_id"]): one["caption"] for one in read(captions)}
    found = {key: found[key] for key in ids}
    return {
        "ids": ids,
        "references": wanted,
        "captions": found,
        "reference_words": {
            key: [" ".join(tokenize(text)) for text in some] for key, some in wanted.items()
        },
        "caption_words": {key: [" ".join(tokenize(text))] for key, text in found.items()},
    }


def ours(case: dict) -> dict[str, float]:
    """Our scores; METEOR where its data is installed."""
    from transfer.captioning.scores import Meteor, score

    try:
        meteor = Meteor.open()
    except Exception:
        meteor = None
    values = score(case["references"], case["captions"], meteor=meteor).corpus
    renamed = {"BLEU-4": "Bleu_4", "METEOR": "METEOR", "ROUGE-L": "ROUGE_L", "CIDEr": "CIDEr"}
    return {name: values[key] for name, key in renamed.items() if key in values}


def run(python: Path, folder: Path, case: dict) -> dict[str, dict]:
    """{name: its line}."""
    (folder / "case.json").write_text(json.dumps(case), "utf-8")
    command = [python, Path(__file__).parent / "caption_evaluators.py", folder / "case.json"]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {line["name"]: line for line in map(json.loads, result.stdout.splitlines())}


def hide_folders(text: str) -> str:
    """Without this machine's paths."""
    return re.sub(r"/\S*/", "", text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep it here")
    options = parser.parse_args()
    golden = Path(os.environ.get("CUTMIX_SHARED", ROOT.parent / "shared"))
    version = dict(one.split("==") for one in REQUIREMENTS + ALONE)
    with tempfile.TemporaryDirectory() as work:
        python = make_environment(
            options.environment or Path(work) / "environment", REQUIREMENTS, True, ALONE
        )
        cases = [read_case(golden / "golden/captions/coco_a", *case) for case in CASES]
        lines = [run(python, Path(work), case) for case in cases]
    java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    print(f"java: {java.splitlines()[0] if java else 'none'}", file=sys.stderr)
    print(f"| package | {' | '.join(SCORES)} |")
    print("|---" * 5 + "|")
    for name in ("here", *lines[0]):
        first = name.split(",")[0].split()[0]
        title = name.replace(first, f"{first} {version.get(first, '')}".strip(), 1)
        results = (
            [one[name] for one in lines]
            if name != "here"
            else [{"values": ours(case)} for case in cases]
        )
        if error := results[0].get("error"):
            print(f"| {title} | {hide_folders(error)[:100]} | | | |")
            continue
        values = [one["values"] for one in results]
        cells = [
            " / ".join(f"{one[key]:.4f}" for one in values) if key in values[0] else ""
            for key in SCORES
        ]
        print(f"| {title} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
