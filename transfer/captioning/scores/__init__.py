"""Caption scores as MS-COCO's evaluation code defines them: BLEU-1 to 4 and CIDEr.

    scores = score({1: ["A dog runs.", ...]}, {1: "a dog running"})
    scores.corpus["CIDEr"], scores.per_image[1]["Bleu_4"]

Text goes through `tokenize`, a simple tokenizer: on captions with plain punctuation it gives what
the reference's gives; where they differ (abbreviations, brackets, numbers) so do the scores.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from pretrain.errors import UserError
from transfer.captioning.scores.bleu import bleu
from transfer.captioning.scores.cider import cider
from transfer.captioning.scores.tokens import tokenize

__all__ = ["Scores", "bleu", "cider", "score", "tokenize"]


Id = TypeVar("Id", bound=Hashable)


@dataclass(frozen=True)
class Scores(Generic[Id]):
    """Fractions in [0, 1], but CIDEr in [0, 10]."""

    corpus: dict[str, float]
    """{"Bleu_1", ..., "Bleu_4", "CIDEr"}."""
    per_image: dict[Id, dict[str, float]]
    """The same for each image."""


def score(references: Mapping[Id, Sequence[str]], hypotheses: Mapping[Id, str]) -> Scores[Id]:
    """Score one raw caption an image against its raw reference captions.

    Args:
        references: {id: [caption, ...]}, at least one caption for each hypothesis; further ids
            are ignored.
        hypotheses: {id: caption}; an empty caption scores 0.

    Raises:
        UserError: no hypotheses, or one without a reference.
    """
    if not hypotheses:
        raise UserError("there are no captions to score")
    if lone := [image_id for image_id in hypotheses if not references.get(image_id)]:
        raise UserError(f"{len(lone)} captions have no reference, the first has id {lone[0]!r}")
    ids = list(hypotheses)
    said = [tokenize(hypotheses[image_id]) for image_id in ids]
    wanted = [[tokenize(caption) for caption in references[image_id]] for image_id in ids]
    corpus_bleu, image_bleu = bleu(wanted, said)
    corpus_cider, image_cider = cider(wanted, said)
    names = [f"Bleu_{order}" for order in range(1, 5)]
    return Scores(
        corpus={**dict(zip(names, corpus_bleu, strict=True)), "CIDEr": corpus_cider},
        per_image={
            image_id: {**dict(zip(names, values, strict=True)), "CIDEr": value}
            for image_id, values, value in zip(ids, image_bleu, image_cider, strict=True)
        },
    )
