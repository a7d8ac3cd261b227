"""Other programs write boxes, our readers read them: the IoU with what was drawn.

    python tests/peers/annotation_writers.py [--environments DIR] [TOOL ...]

Each tool is installed from PyPI into an environment of its own (in a temporary folder, or kept in
DIR), writes the same boxes as Pascal VOC and as MS-COCO, and a Markdown table says what arrived.
It needs the network for pip, and a minute for each tool.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from environments import make_environment, reason
from writers import CLASSES, SIZES, read_truth


def draw(folder: Path) -> dict:
    """Images in folder/images, the truth in truth.json (boxes x0, y0, x1, y1) and coco.json."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    (folder / "images").mkdir(parents=True)
    truth: dict = {}
    coco: dict = {"images": [], "annotations": [], "categories": []}
    coco["categories"] = [{"id": n + 1, "name": name} for n, name in enumerate(CLASSES)]
    for number, (stem, (width, height)) in enumerate(SIZES.items(), 1):
        name = f"{stem}.jpg"
        Image.new("RGB", (width, height), "gray").save(folder / "images" / name)
        coco["images"].append({"id": number, "file_name": name, "width": width, "height": height})
        boxes = []
        for n in range(0 if stem == "empty" else 6):
            x0, y0 = generator.uniform(0, width - 12), generator.uniform(0, height - 12)
            x1, y1 = generator.uniform(x0 + 8, width), generator.uniform(y0 + 8, height)
            boxes.append([float(round(v) if n % 2 else round(v, 2)) for v in (x0, y0, x1, y1)])
        if boxes:
            boxes[1], boxes[3][2:] = [0.0, 0.0, 9.0, 10.0], [float(width), float(height)]
        truth[stem] = [(CLASSES[n % 2], box) for n, box in enumerate(boxes)]
        for name, (x0, y0, x1, y1) in truth[stem]:
            coco["annotations"].append(
                {
                    "id": len(coco["annotations"]) + 1,
                    "image_id": number,
                    "category_id": CLASSES.index(name) + 1,
                    "bbox": [x0, y0, x1 - x0, y1 - y0],
                    "area": (x1 - x0) * (y1 - y0),
                    "iscrowd": 0,
                }
            )
    (folder / "truth.json").write_text(json.dumps(truth), "utf-8")
    (folder / "coco.json").write_text(json.dumps(coco), "utf-8")
    return truth


def truncate(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    """Each number cut off."""
    return int(x0), int(y0), int(x1), int(y1)


def truncate_size(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    """Corner and size cut off, each by itself."""
    return int(x0), int(y0), int(x0) + int(x1 - x0), int(y0) + int(y1 - y0)


def round_inclusive(x0: float, y0: float, x1: float, y1: float) -> tuple[float, ...]:
    """Rounded in numbers from 1, halves to even."""
    return round(x0 + 1) - 1, round(y0 + 1) - 1, round(x1), round(y1)


# requirements, and what the tool's Pascal VOC leaves of a box
TOOLS = {
    "supervision": (("supervision==0.31.2",), round_inclusive),
    "datumaro": (("datumaro==1.13.12",), None),
    "globox": (("globox==2.9.0",), None),
    "labelformat": (("labelformat==0.1.17",), None),
    "pylabel": (("pylabel==0.1.55", "pandas==2.3.3"), truncate),
    "pascal-voc-writer": (("pascal-voc-writer==0.1.4",), None),
    "label-studio-converter": (("label-studio-converter==0.0.59",), truncate_size),
    "label-studio-sdk": (("label-studio-sdk==2.1.2",), truncate_size),
}


def first_line(error: Exception) -> str:
    """Its first sentence, without the folders of this machine."""
    return re.sub(r"\S*/", "", str(error).splitlines()[0]).split(". ")[0][:100]


def lay_out_voc(folder: Path) -> Path:
    """The XML files that were written, with our images and a list of all of them."""
    tree = folder / "tree"
    shutil.copytree(folder / "images", tree / "JPEGImages")
    for name in ("Annotations", "ImageSets/Main"):
        (tree / name).mkdir(parents=True)
    for file in (folder / "voc").rglob("*.xml"):
        shutil.copy(file, tree / "Annotations")
    (tree / "ImageSets/Main/train.txt").write_text("\n".join(SIZES), "utf-8")
    return tree


def lay_out_coco(folder: Path) -> Path:
    """The JSON file that was written, with our images."""
    root = folder / "root"
    (file,) = (folder / "coco").rglob("*.json")
    (root / "annotations").mkdir(parents=True)
    shutil.copy(file, root / "annotations/instances_train.json")
    shutil.copytree(folder / "images", root / "train")
    shutil.copytree(folder / "images", root / "images")  # label-studio names images/a.jpg
    return root


def ious(records, truth: dict, loss=None) -> list[float]:
    """Of each drawn object with the best read one of its image and class; 0 where there is none."""
    found = {record.path.stem: record for record in records.images}
    values = []
    for stem, objects in truth.items():
        for name, box in objects:
            x0, y0, x1, y1 = loss(*box) if loss else box
            record, best = found[stem], 0.0
            for label, (a0, b0, a1, b1) in zip(record.labels, record.boxes, strict=True):
                width, height = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
                if records.classes[label] == name and width > 0 and height > 0:
                    both, area = width * height, (x1 - x0) * (y1 - y0)
                    best = max(best, both / (area + (a1 - a0) * (b1 - b0) - both))
            values.append(float(best))
    return values


def measure(folder: Path, loss) -> list[str]:
    """The cells of a tool's line."""
    from transfer.detection.coco import read_coco
    from transfer.detection.coco_layout import list_splits as list_coco
    from transfer.detection.config import DatasetConfig
    from transfer.detection.voc import list_splits, read_voc

    truth = read_truth(folder)

    def show(values: list[float]) -> str:
        return f"{sum(values) / len(values):.3f} / {min(values):.3f}"

    def attempt(root: Path, read, splits) -> str:
        """What our reader says to the folder as the tool left it."""
        try:
            found = read(root, splits(root)[0])
            return f"read: {len(found)} images, {found.num_objects} objects"
        except Exception as error:
            return f"{first_line(error)}"

    tree, cells = lay_out_voc(folder), []
    for first in (0, 1):
        config = DatasetConfig(first_pixel=first, no_annotation="empty")
        records = read_voc(tree, "train", config=config, cached=False)
        cells.append(show(ious(records, truth)))
        if first == (loss is round_inclusive):
            rest = show(ious(records, truth, loss)) if loss else "none"
            counts = f"{len(records)}, {records.num_objects}"
    cells += [rest, counts, attempt(folder / "voc", read_voc, list_splits)]
    if not (folder / "coco").exists():
        return [*cells, "-", "-", "-"]
    records = read_coco(lay_out_coco(folder), "train")
    cells += [show(ious(records, truth)), f"{len(records)}, {records.num_objects}"]
    return [*cells, attempt(folder / "coco", read_coco, list_coco)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=", ".join(TOOLS))
    parser.add_argument("--environments", type=Path, metavar="DIR", help="keep them here")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    print(
        "| tool | VOC, `first_pixel` 0: IoU mean / least | 1 | with the truth so rounded | images, "
        "objects (of 6, 30) | the folder as written | COCO: IoU | images, objects | as written |"
    )
    print("|---" * 9 + "|")
    with tempfile.TemporaryDirectory() as work:
        for tool in options.tools or TOOLS:
            requirements, loss = TOOLS[tool]
            folder, place = Path(work) / tool, options.environments or Path(work) / "environments"
            draw(folder)
            try:
                python = make_environment(place / tool, requirements)
                command = [python, Path(__file__).parent / "writers.py", tool, folder]
                subprocess.run(command, check=True, capture_output=True, text=True)
                cells = measure(folder, loss)
            except subprocess.CalledProcessError as error:
                cells = [reason(error)]
            print(
                f"| {', '.join(requirements).replace('==', ' ')} | {' | '.join(cells)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
