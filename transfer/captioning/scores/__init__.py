"""Caption scores as MS-COCO's evaluation code defines them, without Java.

    from transfer.captioning.scores import score

    scores = score({1: ["A dog runs.", ...]}, {1: "a dog running"})
    scores.corpus["CIDEr"], scores.per_image[1]["Bleu_4"]

BLEU-1 to 4, ROUGE-L and CIDEr (which there is CIDEr-D); METEOR with `meteor=Meteor.open()`. For
scoring again and again against the same references, and for rewards: `References`.
"""

from collections.abc import Mapping, Sequence

from pretrain.errors import UsageError
from transfer.captioning.scores.frequencies import DocumentFrequencies
from transfer.captioning.scores.meteor import Meteor
from transfer.captioning.scores.references import (
    Id,
    MeteorBackend,
    References,
    Tally,
    check_captions,
)
from transfer.captioning.scores.summary import Scores
from transfer.captioning.scores.tokens import tokenize

__all__ = [
    "DocumentFrequencies",
    "Meteor",
    "References",
    "Scores",
    "Tally",
    "score",
    "tokenize",
]


def score(
    references: Mapping[Id, Sequence[str]],
    hypotheses: Mapping[Id, str],
    *,
    frequencies: DocumentFrequencies | None = None,
    meteor: MeteorBackend | None = None,
) -> Scores[Id]:
    """Score one raw caption an image against its raw reference captions.

    Args:
        references: {id: [caption, ...]}, at least one caption for each hypothesis; further ids
            are ignored.
        hypotheses: {id: caption}; an empty caption counts and shares nothing.
        frequencies: document frequencies for CIDEr from a larger corpus.
        meteor: computes METEOR too, such as `Meteor.open()`.

    Raises:
        UsageError: no hypotheses, one without a reference, or something that is no text.
    """
    check_captions(list(hypotheses), list(hypotheses.values()), references)
    wanted = {image_id: references[image_id] for image_id in hypotheses}
    if not wanted:
        raise UsageError("there are no captions to score")
    return References(wanted, frequencies=frequencies, meteor=meteor).score(hypotheses)
