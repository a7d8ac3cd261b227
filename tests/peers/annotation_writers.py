"""Other programs write boxes, our readers read them: the IoU with what was drawn.

    python tests/peers/annotation_writers.py [--environments DIR] [TOOL ...]

Each tool is installed from PyPI into an environment of its own (in a temporary folder, or kept in
DIR), writes the same boxes as Pascal VOC and as MS-COCO, and a Markdown table says what arrived.
It needs the network for pip, and a minute for each tool.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from environments import make_environment, reason
from writers import CLASSES, SIZES, read_truth

ROOT = Path(__file__).resolve().parents[2]


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


def truncate(box, size) -> tuple[float, ...]:
    """Each number cut off."""
    return tuple(map(int, box))


def truncate_percent(box, size) -> tuple[float, ...]:
    """Corner and size as percent of the image, and back, cut off: pixel 29 may become 28."""
    x0, y0, x1, y1 = box
    parts = zip((x0, y0, x1 - x0, y1 - y0), size * 2, strict=True)
    x, y, width, height = (int(100 * part / whole / 100 * whole) for part, whole in parts)
    return x, y, x + width, y + height


def round_inclusive(box, size) -> tuple[float, ...]:
    """Rounded in numbers from 1, halves to even."""
    x0, y0, x1, y1 = box
    return round(x0 + 1) - 1, round(y0 + 1) - 1, round(x1), round(y1)


# requirements, and what the tool's Pascal VOC leaves of a box
TOOLS = {
    "supervision": (("supervision==0.31.2",), round_inclusive),
    "datumaro": (("datumaro==1.13.12",), None),
    "globox": (("globox==2.9.0",), None),
    "labelformat": (("labelformat==0.1.17",), None),
    "pylabel": (("pylabel==0.1.55", "pandas==2.3.3"), truncate),
    "pascal-voc-writer": (("pascal-voc-writer==0.1.4",), None),
    "label-studio-converter": (("label-studio-converter==0.0.59",), truncate_percent),
    "label-studio-sdk": (("label-studio-sdk==2.1.2",), truncate_percent),
}


def enter_voc(folder: Path) -> tuple[list, str]:
    """What a user does with the folder as the tool left it.

    Returns: our records with first_pixel 0 and 1, and the steps.
    """
    from pretrain.errors import UsageError
    from transfer.detection.config import DatasetConfig
    from transfer.detection.voc import read_voc
    from transfer.detection.voc_layout import list_splits

    tree, steps, rule = folder / "voc", add_images(folder, "voc"), "refuse"
    if len(list(tree.rglob("*.xml"))) < len(SIZES):
        rule = "empty"
    try:
        list_splits(tree)
    except UsageError:
        command = [sys.executable, ROOT / "tools/prepare_data.py", "voc", "--data", tree]
        command += ["--val-fraction", "0.2", "--no-annotation", rule]
        subprocess.run(command, check=True, capture_output=True, text=True)
        steps += ["`prepare_data voc`"]
    split = "+".join(list_splits(tree))

    configs = [DatasetConfig(first_pixel=first, no_annotation=rule) for first in (0, 1)]
    records = [read_voc(tree, split, config=config, cached=False) for config in configs]
    steps += ["`no_annotation empty`"] if rule == "empty" else []
    return records, ", ".join(steps) or "as written"


def enter_coco(folder: Path) -> tuple[Any, str]:
    """Our records of the folder as the tool left it, and the steps."""
    from transfer.detection.coco import read_coco
    from transfer.detection.coco_layout import list_splits

    steps = add_images(folder, "coco")
    split = "+".join(list_splits(folder / "coco"))
    return read_coco(folder / "coco", split), ", ".join(steps) or "as written"


def add_images(folder: Path, name: str) -> list[str]:
    """Our images beside the files of a tool that wrote none."""
    if any((folder / name).rglob("*.jpg")):
        return []
    shutil.copytree(folder / "images", folder / name / "images", dirs_exist_ok=True)
    return ["images added"]


def ious(records, truth: dict, loss=None) -> list[float]:
    """Of each drawn object with the best read one of its image and class; 0 where there is none."""
    found = {record.path.stem: record for record in records.images}
    values = []
    for stem, objects in truth.items():
        for name, box in objects:
            x0, y0, x1, y1 = loss(box, SIZES[stem]) if loss else box
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
    truth = read_truth(folder)

    def show(values: list[float]) -> str:
        return f"{sum(values) / len(values):.3f} / {min(values):.3f}"

    def count(records) -> str:
        return f"{len(records)}, {records.num_objects}"

    (zero, one), steps = enter_voc(folder)
    cells = [show(ious(zero, truth)), show(ious(one, truth)), ""]
    if loss:
        cells[2] = show(ious(one if loss is round_inclusive else zero, truth, loss))
    cells += [count(one), steps]
    if not (folder / "coco").exists():
        return [*cells, "-", "", ""]
    records, steps = enter_coco(folder)
    return [*cells, show(ious(records, truth)), count(records), steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tools", nargs="*", metavar="TOOL", help=", ".join(TOOLS))
    parser.add_argument("--environments", type=Path, metavar="DIR", help="keep them here")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    print(
        "| tool | VOC, `first_pixel` 0: IoU mean / least | 1 | with the truth so rounded | images, "
        "objects (of 6, 30) | read after | COCO: IoU | images, objects | read after |"
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
            except Exception as error:
                cells = [str(error)]
            print(
                f"| {', '.join(requirements).replace('==', ' ')} | {' | '.join(cells)} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
