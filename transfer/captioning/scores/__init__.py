"""Caption scores as MS-COCO's evaluation code defines them, without Java.

    from transfer.captioning.scores import score

    scores = score({1: ["A dog runs.", ...]}, {1: "a dog running"})
    scores.corpus["CIDEr"], scores.per_image[1]["Bleu_4"]

BLEU-1 to 4, ROUGE-L and CIDEr (which there is CIDEr-D). For scoring again and again against the
same references, and for rewards: `References`.
"""

from collections.abc import Mapping, Sequence

from transfer.captioning.scores.frequencies import DocumentFrequencies
from transfer.captioning.scores.references import (
    Id,
    References,
    Scores,
    check_hypotheses,
)
from transfer.captioning.scores.tokens import tokenize

__all__ = ["DocumentFrequencies", "References", "Scores", "score", "tokenize"]


def score(references: Mapping[Id, Sequence[str]], hypotheses: Mapping[Id, str]) -> Scores[Id]:
    """Score one raw caption an image against its raw reference captions.

    Args:
        references: {id: [caption, ...]}, at least one caption for each hypothesis; further ids
            are ignored.
        hypotheses: {id: caption}; an empty caption counts and shares nothing.

    Raises:
        UserError: no hypotheses, one without a reference, or something that is no text.
    """
    check_hypotheses(hypotheses, references)
    wanted = {image_id: references[image_id] for image_id in hypotheses}
    return References(wanted).score(hypotheses)
