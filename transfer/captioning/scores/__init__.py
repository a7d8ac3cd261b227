"""Caption scores as MS-COCO's evaluation code defines them, without Java.

    from transfer.captioning.scores import score

    scores = score({1: ["A dog runs.", ...]}, {1: "a dog running"})
    scores.corpus["CIDEr"], scores.per_image[1]["Bleu_4"]

BLEU-1 to 4, ROUGE-L and CIDEr (which there is CIDEr-D); METEOR with `meteor=Meteor.open()`. For
scoring again and again against the same references, and for rewards: `References`.
"""

from transfer.captioning.scores.cider import DocumentFrequencies
from transfer.captioning.scores.meteor import Meteor
from transfer.captioning.scores.references import References, ScoreAccumulator, score
from transfer.captioning.scores.summary import Scores
from transfer.captioning.scores.tokenizer import tokenize

__all__ = [
    "DocumentFrequencies",
    "Meteor",
    "References",
    "ScoreAccumulator",
    "Scores",
    "score",
    "tokenize",
]
