"""What the field's own program (pycocoevalcap, Java) makes of captions.

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


def main() -> None:
    """Score the committed captions by the reference."""
    captions = json.loads((FIXTURES / "captions.json").read_text(encoding="utf-8"))
    references = [image["wanted"] for image in captions]
    hypotheses = [image["said"] for image in captions]
    content = {
        "about": "captions.json by pycocoevalcap 1.2 with Java",
        "said": tokenized(hypotheses),
        "wanted": [tokenized(image) for image in references],
        **scored(references, hypotheses),
    }
    path = FIXTURES / "caption_scores.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
