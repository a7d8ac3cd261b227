"""Which images of caption files are scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pretrain.errors import UsageError
from transfer.captioning.scores.files import (
    CaptionFile,
    kind_of,
    parse_id,
    parse_json,
    read_text,
    suffix_of,
)


def read_ids(path: Path) -> list[str]:
    """Ids from a file: a JSON list, or one a line."""
    text = read_text(path)
    if suffix_of(path) == ".json":
        content = parse_json(text, str(path))
        if not isinstance(content, list):
            raise UsageError(f"{path} is no list of ids but {kind_of(content)}.")
        ids = [parse_id(value, f"{path}, entry {n}") for n, value in enumerate(content)]
    else:
        ids = [line.strip() for line in text.splitlines() if line.strip()]
    if not ids:
        raise UsageError(f"{path} holds no ids.")
    return list(dict.fromkeys(ids))


def choose(
    references: CaptionFile,
    results: Mapping[str, str],
    ids: Sequence[str] | None = None,
    subset: bool = False,
    name: object = "the results",
) -> dict[str, list[str]]:
    """The references of the images to score, in their order.

    Args:
        references: all there are.
        results: the captions to score.
        ids: score these images only; each needs references.
        subset: leave out the images without a caption; otherwise they are an error.
        name: what a message calls the results.

    Raises:
        UsageError: images without a caption, or captions without references.
    """
    chosen = references.captions
    if ids is not None:
        if lone := [image_id for image_id in ids if image_id not in chosen]:
            count = f"{len(lone)} of {len(ids)} ids asked for"
            path = references.path
            raise UsageError(f"{count} have no references in {path}, the first is {lone[0]!r}.")
        chosen = {image_id: chosen[image_id] for image_id in ids}
    elif lone := [image_id for image_id in results if image_id not in chosen]:
        raise UsageError(
            f"{len(lone)} of {len(results)} ids in {name} are not in {references.path}, the first "
            f"is {lone[0]!r}; ids there look like {next(iter(chosen))!r}."
        )
    if missing := [image_id for image_id in chosen if image_id not in results]:
        if not subset:
            raise UsageError(
                f"{len(missing)} of {len(chosen)} images have no caption in {name}, the first has "
                f"id {missing[0]!r}. Give captions for all, or --subset to score those that have "
                "one."
            )
        if len(missing) == len(chosen):
            raise UsageError(f"none of the {len(chosen)} images has a caption in {name}.")
        chosen = {image_id: texts for image_id, texts in chosen.items() if image_id in results}
    return chosen
