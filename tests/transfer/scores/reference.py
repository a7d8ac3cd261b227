"""What the reference implementation (pycocoevalcap, Java) makes of captions.

python -m tests.transfer.scores.reference     writes tests/fixtures/caption_scores.json
"""

import contextlib
import importlib.util
import io
import json
import shutil
from pathlib import Path

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures"
BLEU = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4")


def why_not() -> str | None:
    """The reason why the reference cannot run here, or None."""
    if importlib.util.find_spec("pycocoevalcap") is None:
        return "pycocoevalcap is not installed"
    if shutil.which("java") is None:
        return "there is no Java"
    return None


def tokenized(captions: list[str]) -> list[str]:
    """The reference's words, joined by spaces; each caption is followed by another one."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    # a next caption that begins like a sentence, so that the neighbours of no caption matter
    call = {place: [{"caption": text}, {"caption": "A"}] for place, text in enumerate(captions)}
    with contextlib.redirect_stderr(io.StringIO()):
        return [lines[0] for lines in PTBTokenizer().tokenize(call).values()]


def scored(references: list[list[str]], hypotheses: list[str], meteor: bool = True) -> dict:
    """Corpus and per-image scores of raw captions."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.rouge.rouge import Rouge

    words = iter(tokenized([text for image in references for text in image]))
    wanted = {place: [next(words) for _ in image] for place, image in enumerate(references)}
    said = {place: [words] for place, words in enumerate(tokenized(hypotheses))}
    with contextlib.redirect_stdout(io.StringIO()):
        corpus, images = Bleu(4).compute_score(wanted, said, verbose=0)
    columns = dict(zip(BLEU, zip(corpus, images, strict=True), strict=True))
    columns["ROUGE_L"] = Rouge().compute_score(wanted, said)
    columns["CIDEr"] = Cider().compute_score(wanted, said)
    if meteor:
        columns["METEOR"] = Meteor().compute_score(wanted, said)
    return {
        "corpus": {name: float(value) for name, (value, _) in columns.items()},
        "per_image": {name: [float(v) for v in values] for name, (_, values) in columns.items()},
    }


def own_captions() -> tuple[dict[str, list[str]], dict[str, str]]:
    """The committed references and captions by id."""
    wanted, results = (
        json.loads((FIXTURES / f"caption_{name}.json").read_text(encoding="utf-8"))
        for name in ("references", "results")
    )
    return wanted, {str(entry["image_id"]): entry["caption"] for entry in results}


def main() -> None:
    """Score the committed captions by the reference."""
    wanted, said = own_captions()
    found = scored(list(wanted.values()), list(said.values()))
    rows = zip(*found["per_image"].values(), strict=True)
    words = iter(tokenized([text for texts in wanted.values() for text in texts]))
    content = {
        "about": "caption_results.json by pycocoevalcap 1.2 with Java",
        "corpus": found["corpus"],
        "per_image": {
            image_id: dict(zip(found["per_image"], row, strict=True))
            for image_id, row in zip(said, rows, strict=True)
        },
        "n": len(said),
        "words": {
            image_id: {"said": own, "wanted": [next(words) for _ in wanted[image_id]]}
            for image_id, own in zip(said, tokenized(list(said.values())), strict=True)
        },
    }
    path = FIXTURES / "caption_scores.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
