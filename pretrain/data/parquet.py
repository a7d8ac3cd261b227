"""Labelled images as Hugging Face keeps them: parquet files with the columns image and label.

    data/train-00000-of-00294.parquet, data/validation-00000-of-00014.parquet, data/test-...
    default/train/0000.parquet, default/validation/0000.parquet      (the hub's own conversion)

`image` holds the bytes of a file and, often, its name; `label` is a number, whose names are in the
schema. ImageNet's are words (two classes are "crane"), in the order of the sorted synsets.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pretrain.errors import UsageError, first_line, shorten

_SPLIT = re.compile(r"(?<![a-z])(train|val|test)")
_NUMBERED = re.compile(r"-(\d{5})-of-(\d{5})")
# ImageNet's names, to which Hugging Face appends the synset
_FILE = re.compile(r"((?:n\d{8}|ILSVRC2012_val)_\d+)(?:_n\d{8})?")
_SYNSET = re.compile(r"n\d{8}")
_BATCH = 64  # rows in memory


@cache
def imagenet_classes() -> dict[str, str]:
    """ImageNet's synsets in the order of their labels, and their words."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    return dict(zip(info.label_names(), info.label_descriptions(), strict=True))


def find_shards(root: Path) -> dict[str, list[Path]]:
    """The parquet files of train and val below a folder; of test where there are none of val."""
    paths, shards = list[Path](), dict[str, list[Path]]()
    for top, folders, files in os.walk(root):
        # neither hidden nor with images
        folders[:] = [name for name in folders if name[0] != "." and not _SYNSET.fullmatch(name)]
        paths += [Path(top, name) for name in files if name.endswith(".parquet")]
    for path in sorted(paths):
        if found := _SPLIT.findall(path.relative_to(root).as_posix()):
            shards.setdefault(found[-1], []).append(path)
    if "val" in shards:  # ImageNet's test has no labels
        shards.pop("test", None)
    return shards


def require_all(shards: Sequence[Path]) -> None:
    """Raise UsageError where one is missing of those that their names count, or there are two."""
    folders = sorted({str(path.parent) for path in shards})
    if len(folders) > 1:
        raise UsageError(f"{shorten(folders)} hold one split: leave the files of one folder.")
    numbers = [match.groups() for path in shards if (match := _NUMBERED.search(path.name))]
    count = int(numbers[0][1]) if numbers else len(shards)
    held = {int(number) for number, _ in numbers}
    if numbers and (held != {*range(count)} or len(shards) != count):
        missing = [f"{number:05d}" for number in range(count) if number not in held]
        raise UsageError(
            f"{folders[0]} has {len(shards)} files like {shards[0].name}, whose names count "
            f"{count}; missing: {shorten(missing) or 'none'}. Download the data set again: what is "
            "there is not loaded twice."
        )


def read_shard(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """The images of a file: class folder, name, content.

    Raises:
        UsageError: no parquet, other columns, an image without bytes or label, labels in an order
            that the names of the images contradict.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError(
            f"{path} needs pyarrow: pip install 'cutmix-transfer[imagenet]'."
        ) from error
    try:
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            if not {"image", "label"} <= {*schema.names}:
                raise UsageError(f"{path} has the columns {schema.names}, not image and label.")
            folders, row = _class_folders(schema), 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=["image", "label"]):
                for image, label in zip(*(column.to_pylist() for column in batch), strict=True):
                    yield _image(path, row, image, label, folders)
                    row += 1
    except (ArrowException, OSError) as error:
        raise UsageError(
            f"{path} cannot be read: {first_line(error)}. Download it again."
        ) from error


def _image(
    path: Path, row: int, image: Any, label: Any, folders: Sequence[str]
) -> tuple[str, str, bytes]:
    """A row; see read_shard."""
    content = image.get("bytes") if isinstance(image, dict) else None
    is_label = isinstance(label, int) and label in range(len(folders))
    if not is_label or not isinstance(content, bytes):
        raise UsageError(
            f"{path}, row {row}: its label is {label}, its image {type(content).__name__}; it "
            f"must be a number below {len(folders)} and bytes."
        )
    folder, stem = folders[label], Path(image.get("path") or "").stem
    named = [name for name in _SYNSET.findall(stem) if _SYNSET.fullmatch(folder)]
    if named and folder not in named:
        raise UsageError(
            f"{path}, row {row}: label {label} is {folder}, but the image is named {stem}: the "
            "labels are in no known order."
        )
    match = _FILE.fullmatch(stem)
    return folder, f"{match[1]}.JPEG" if match else f"{path.stem}_{row:06d}.jpg", content


def _class_folders(schema: Any) -> list[str]:
    """The folder of each label: synsets, or else a number and the name."""
    synsets, words = [*imagenet_classes()], [*imagenet_classes().values()]
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = [str(name) for name in features["label"]["names"]]
    except (KeyError, TypeError, ValueError):  # none are said
        return synsets
    if all(map(_SYNSET.fullmatch, names)):  # Tiny ImageNet
        return names
    if len(names) == len(words) and sum(map(_same_word, names, words)) > 0.9 * len(words):
        return synsets
    return [f"{n:04d}_{re.sub('[^0-9A-Za-z]+', '_', name)[:60]}" for n, name in enumerate(names)]


def _same_word(first: str, second: str) -> bool:
    return first.split(",")[0].lower() == second.split(",")[0].lower()
