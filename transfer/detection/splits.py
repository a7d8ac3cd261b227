"""Splits drawn for a data set that comes without: lists of Pascal VOC, files of MS-COCO."""

import json
import os
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path

from pretrain.check_results import CheckResult, note, ok
from pretrain.errors import UsageError, shorten
from pretrain.files import write_text
from transfer.detection.annotations import read_annotations
from transfer.detection.coco_file import read_id, read_instance_file, read_json
from transfer.detection.coco_layout import ImageFinder, find_splits
from transfer.detection.voc_layout import VocFiles, describe_missing, lay_out


def draw_split(
    names: Sequence[str], val_fraction: float, test_fraction: float, seed: int
) -> dict[str, list[str]]:
    """{train, val, and test if asked: their names, sorted}.

    It depends on the set of names and the seed alone: an image keeps its place in the order of
    draws when others come.

    Raises:
        UsageError: there are too few names.
    """
    ordered = sorted(set(names), key=lambda name: blake2b(f"{seed}:{name}".encode()).digest())
    fractions = {"val": val_fraction, "test": test_fraction}
    counts = {name: max(1, round(f * len(ordered))) for name, f in fractions.items() if f > 0}
    splits, start = {}, 0
    for name, count in counts.items():
        splits[name] = sorted(ordered[start : start + count])
        start += count
    if start >= len(ordered):
        raise UsageError(
            f"{len(ordered)} images are too few for train, {', '.join(counts)} of these fractions."
        )
    return {"train": sorted(ordered[start:])} | splits


def match_files(root: Path) -> tuple[list[str], list[str], list[str]]:
    """Names of a tree's images with XML file, of images alone, and of XML files alone; sorted.

    They are as a list of ImageSets/Main takes them. UsageError where there are no such folders.
    """
    if not root.is_dir():
        raise UsageError(f"there is no folder {root}.")
    tree = lay_out(root)
    if tree.annotations is None or tree.images is None:
        raise UsageError(describe_missing(tree))
    files = VocFiles(tree, images=True)
    paths = set[str]()
    both, alone = list[str](), list[str]()
    annotations = read_annotations([xml[0] for xml in files.xml.values()])
    for (name, xml), annotation in zip(files.xml.items(), annotations, strict=True):
        found = files.find_images(name, xml[0], annotation.image if annotation else "")[0]
        paths.update(found)
        (both if found else alone).append(name)
    others = [name for name, of_name in files.images.items() if not paths.issuperset(of_name)]
    return sorted(both), sorted(others), sorted(alone)


def split_voc(
    root: Path, val_fraction: float, test_fraction: float, seed: int, *, empty: bool = False
) -> list[CheckResult]:
    """Write ImageSets/Main/train.txt and val.txt of a Pascal VOC tree, and test.txt if asked.

    Args:
        root: the tree.
        val_fraction: of the images; 0 draws none.
        test_fraction: as well. Images of a list test.txt that is there stay out of the others.
        seed: of the draw.
        empty: images without an XML file are images without objects.

    Raises:
        UsageError: no tree, too few images, or lists with other content are there.
    """
    names, only_images, only_annotations = match_files(root)
    folder, results = lay_out(root).lists or root / "ImageSets" / "Main", list[CheckResult]()
    if empty:
        names += only_images
    elif only_images:
        results.append(
            note(
                f"{len(only_images):,} images have no XML file and are in no list: "
                f"{shorten(only_images, 3)}. Have they no objects? --no-annotation empty"
            )
        )
    if only_annotations:
        text = f"{len(only_annotations):,} XML files have no image and are in no list"
        results.append(note(f"{text}: {shorten(only_annotations, 3)}"))
    if not test_fraction and (held := folder / "test.txt").is_file():
        lines = {line.strip() for line in held.read_text(encoding="utf-8-sig").splitlines()}
        names = [name for name in names if name not in lines]
        results.append(note(f"the {len(lines):,} images of {held} stay out of train and val"))
    if not names:
        raise UsageError(
            f"{root} has no image with an XML file ({len(only_images):,} images, "
            f"{len(only_annotations):,} XML files, none of one name); there is nothing to draw "
            "from. Put the images into JPEGImages under the names of their XML files."
        )
    return results + write_new({
        folder / f"{split}.txt": ("".join(f"{name}\n" for name in listed), len(listed))
        for split, listed in draw_split(names, val_fraction, test_fraction, seed).items()
    })  # fmt: skip


def split_instances(
    root: Path, val_fraction: float, test_fraction: float, seed: int
) -> list[CheckResult]:
    """Write annotations/instances_train.json, _val.json (and _test.json) from a tree's one file.

    Arguments are those of `split_voc`. File names are written relative to the tree.

    Raises:
        UsageError: no file or several, too few images, or files with other content are there.
    """
    names = ["train", *(["val"] if val_fraction else []), *(["test"] if test_fraction else [])]
    target_of = {name: root / "annotations" / f"instances_{name}.json" for name in names}
    splits = find_splits(root)
    sources = {name: path for name, path in splits.items() if path not in target_of.values()}
    if len(sources) != 1:
        if splits and not sources:
            remedy = "to draw anew, give the file to draw from the name instances_all.json."
        else:
            remedy = "one instance file to draw from is needed."
        listed = ", ".join(sorted(splits)) or "none"
        raise UsageError(f"{root} has the splits {listed}; {remedy}")
    ((source, path),) = sources.items()
    read_instance_file(path)  # or say what is wrong
    content = read_json(path)
    finder, images = ImageFinder(root, source, path), content["images"]
    for entry in images:
        if (found := finder.find(entry["file_name"])[0]) is not None:
            entry["file_name"] = os.path.relpath(found, root)
    drawn = draw_split([one["file_name"] for one in images], val_fraction, test_fraction, seed)
    split_of_name = {name: split for split, listed in drawn.items() for name in listed}
    split_of = {read_id(one["id"]): split_of_name[one["file_name"]] for one in images}
    files = {}
    for split in drawn:
        part = {
            "images": [one for one in images if split_of[read_id(one["id"])] == split],
            # one of no image is kept, for the reader to name it
            "annotations": [
                one
                for one in content["annotations"]
                if split_of.get(read_id(one.get("image_id")), "train") == split
            ],
        }
        files[target_of[split]] = json.dumps(content | part), len(part["images"])
    return write_new(files)


def write_new(files: Mapping[Path, tuple[str, int]]) -> list[CheckResult]:
    """Write files that are not there yet; those that are must have this content.

    Args:
        files: content, and number of images for the report.

    Raises:
        UsageError: one has another content; then none is written.
    """
    refuse_others(files)
    results = []
    for path, (text, count) in files.items():
        state = "is there already" if path.is_file() else "written"
        if not path.is_file():
            write_text(path, text)
        results.append(ok(f"{path} {state}: {count:,} images"))
    return results


def refuse_others(files: Mapping[Path, tuple[str, int]]) -> None:
    """Raise UsageError where a file is there with another content."""
    held = {path: path.read_text(encoding="utf-8") for path in files if path.is_file()}
    if other := [str(path) for path, text in held.items() if text != files[path][0]]:
        raise UsageError(
            f"{', '.join(other)} would be overwritten with other content. Remove what is to be "
            "written anew."
        )
