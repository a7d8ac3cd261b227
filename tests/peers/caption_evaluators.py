"""Other packages' caption scores, called as their documentation says. Nothing of this project here.

    python caption_evaluators.py CASE.json

Run by caption_scores.py in an environment with the packages. A case holds "ids", "references"
{id: texts}, "captions" {id: text}, and both again as words between spaces, {id: texts}:
"reference_words", "caption_words". Prints a JSON object a line: the name, and {"BLEU-4", "METEOR",
"ROUGE-L", "CIDEr"} as fractions, or the reason why there is none.
"""

import contextlib
import importlib.util
import io
import json
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path

Texts = dict[str, list[str]]


def scorers(references: Texts, captions: Texts) -> dict[str, float]:
    """pycocoevalcap's scorers that need no Java, on words between spaces."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    bleu, _ = Bleu(4).compute_score(references, captions, verbose=0)
    rouge, _ = Rouge().compute_score(references, captions)
    cider, _ = Cider().compute_score(references, captions)
    return {"BLEU-4": bleu[3], "ROUGE-L": float(rouge), "CIDEr": float(cider)}


def with_its_tokenizer(case: dict) -> dict[str, float]:
    """As MS-COCO's evaluation: Java twice."""
    from pycocoevalcap.meteor.meteor import Meteor
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    references, captions = (
        PTBTokenizer().tokenize(
            {
                key: [{"caption": " ".join(text.split())} for text in some]
                for key, some in it.items()
            }
        )
        for it in texts(case)
    )
    meteor, _ = Meteor().compute_score(references, captions)
    return scorers(references, captions) | {"METEOR": meteor}


def raw(case: dict) -> dict[str, float]:
    return scorers(*texts(case))


def texts(case: dict) -> tuple[Texts, Texts]:
    return case["references"], {key: [text] for key, text in case["captions"].items()}


def home_made(case: dict) -> dict[str, float]:
    """Lower case, letters and digits only: what many training scripts do."""

    def clean(some: Texts) -> Texts:
        return {
            key: [" ".join(re.sub("[^a-z0-9 ]", "", text.lower()).split()) for text in value]
            for key, value in some.items()
        }

    references, captions = texts(case)
    return scorers(clean(references), clean(captions))


def one_at_a_time(case: dict) -> dict[str, float]:
    references, captions = case["reference_words"], case["caption_words"]
    values = [scorers({key: references[key]}, {key: captions[key]}) for key in case["ids"]]
    return {name: sum(value[name] for value in values) / len(values) for name in values[0]}


def batches(case: dict) -> dict[str, float]:
    """Batches of 20 images, averaged, as in a validation loop."""
    references, captions, values = case["reference_words"], case["caption_words"], []
    for start in range(0, len(case["ids"]), 20):
        ids = case["ids"][start : start + 20]
        values.append(scorers({k: references[k] for k in ids}, {k: captions[k] for k in ids}))
    return {name: sum(value[name] for value in values) / len(values) for name in values[0]}


def one_reference(case: dict) -> dict[str, float]:
    """The first reference of each image alone."""
    references = {key: value[:1] for key, value in case["reference_words"].items()}
    return scorers(references, case["caption_words"])


def tokens(case: dict) -> tuple[list[list[list[str]]], list[list[str]]]:
    ids = case["ids"]
    references = [[text.split() for text in case["reference_words"][key]] for key in ids]
    return references, [case["caption_words"][key][0].split() for key in ids]


def nltk_meteor(case: dict) -> dict[str, float]:
    from types import SimpleNamespace

    from nltk.translate.meteor_score import meteor_score

    no_synonyms = SimpleNamespace(synsets=lambda word: [])  # WordNet is in no package index
    values = [
        meteor_score(one, found, wordnet=no_synonyms)
        for one, found in zip(*tokens(case), strict=True)
    ]
    return {"METEOR": sum(values) / len(values)}


def nltk_corpus_bleu(case: dict) -> dict[str, float]:
    from nltk.translate.bleu_score import corpus_bleu

    return {"BLEU-4": float(corpus_bleu(*tokens(case)))}


def nltk_sentence_bleu(method: str) -> Callable:
    def score(case: dict) -> dict[str, float]:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

        smoothing = getattr(SmoothingFunction(), method)
        values = [
            sentence_bleu(one, found, smoothing_function=smoothing)
            for one, found in zip(*tokens(case), strict=True)
        ]
        return {"BLEU-4": float(sum(values) / len(values))}

    return score


def sacrebleu(words: bool = False, **options: object) -> Callable:
    def score(case: dict) -> dict[str, float]:
        from sacrebleu.metrics import BLEU

        references, captions = texts(case)
        if words:
            references, captions = case["reference_words"], case["caption_words"]
        most = max(map(len, references.values()))
        streams = [
            [(references[key] + [None] * most)[number] for key in case["ids"]]
            for number in range(most)
        ]
        found = [captions[key][0] for key in case["ids"]]
        return {"BLEU-4": BLEU(**options).corpus_score(found, streams).score / 100}

    return score


def torchmetrics_bleu(case: dict) -> dict[str, float]:
    from torchmetrics.functional.text import bleu_score

    references, captions = texts(case)
    found = [captions[key][0] for key in case["ids"]]
    return {"BLEU-4": float(bleu_score(found, [references[key] for key in case["ids"]]))}


def torchmetrics_rouge(accumulate: str) -> Callable:
    def score(case: dict) -> dict[str, float]:
        from torchmetrics.functional.text import rouge_score

        references, captions = texts(case)
        found = [captions[key][0] for key in case["ids"]]
        wanted = [references[key] for key in case["ids"]]
        values = rouge_score(found, wanted, accumulate=accumulate, rouge_keys="rougeL")
        return {"ROUGE-L": float(values["rougeL_fmeasure"])}

    return score


def rouge_score(case: dict) -> dict[str, float]:
    from rouge_score.rouge_scorer import RougeScorer

    scorer, (references, captions) = RougeScorer(["rougeL"]), texts(case)
    values = [
        scorer.score_multi(references[key], captions[key][0])["rougeL"].fmeasure
        for key in case["ids"]
    ]
    return {"ROUGE-L": sum(values) / len(values)}


def evaluate(case: dict) -> dict[str, float]:
    from evaluate import load

    references, captions = texts(case)
    found = [captions[key][0] for key in case["ids"]]
    wanted = [references[key] for key in case["ids"]]
    bleu = load("bleu").compute(predictions=found, references=wanted)
    rouge = load("rouge").compute(predictions=found, references=wanted)
    return {"BLEU-4": bleu["bleu"], "ROUGE-L": float(rouge["rougeL"])}


def leave_out_language_models() -> None:
    """aac_metrics' packages import them; the modules of n-gram scores do not."""
    if "aac_metrics" not in sys.modules:
        root = Path(importlib.util.find_spec("aac_metrics").origin).parent
        for name in ("aac_metrics", "aac_metrics.functional", "aac_metrics.utils"):
            sys.modules[name] = package = types.ModuleType(name)
            package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]


def aac_metrics(case: dict) -> dict[str, float]:
    """Its own tokenizing wants a download, and Java 8 to 13."""
    leave_out_language_models()
    from aac_metrics.functional.bleu import bleu
    from aac_metrics.functional.cider_d import cider_d
    from aac_metrics.functional.rouge_l import rouge_l

    found = [case["caption_words"][key][0] for key in case["ids"]]
    wanted = [case["reference_words"][key] for key in case["ids"]]
    values = {"BLEU-4": bleu(found, wanted, n=4)[0]["bleu_4"]}
    values["ROUGE-L"] = rouge_l(found, wanted)[0]["rouge_l"]
    values["CIDEr"] = cider_d(found, wanted)[0]["cider_d"]
    return {name: float(value) for name, value in values.items()}


EVALUATORS = {
    "pycocoevalcap, its tokenizer": with_its_tokenizer,
    "pycocoevalcap, raw text": raw,
    "pycocoevalcap, lower case, letters and digits": home_made,
    "pycocoevalcap, one image at a time": one_at_a_time,
    "pycocoevalcap, batches of 20": batches,
    "pycocoevalcap, the first reference": one_reference,
    "aac-metrics, our words": aac_metrics,
    "nltk corpus_bleu, our words": nltk_corpus_bleu,
    "nltk sentence_bleu, method1": nltk_sentence_bleu("method1"),
    "nltk sentence_bleu, method4": nltk_sentence_bleu("method4"),
    "nltk meteor_score": nltk_meteor,
    "sacrebleu": sacrebleu(),
    "sacrebleu, lowercase": sacrebleu(lowercase=True),
    "sacrebleu, our words": sacrebleu(words=True, tokenize="none", force=True),
    "torchmetrics bleu_score": torchmetrics_bleu,
    "torchmetrics rouge_score, best": torchmetrics_rouge("best"),
    "torchmetrics rouge_score, avg": torchmetrics_rouge("avg"),
    "rouge-score": rouge_score,
    "evaluate": evaluate,
}

if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        case = json.load(file)
    for name in sys.argv[2:] or EVALUATORS:
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                line = {"values": EVALUATORS[name](case)}
        except BaseException as error:  # a library may also end the process
            line = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"name": name} | line), flush=True)
