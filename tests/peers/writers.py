"""The tools' own code: what is in a folder becomes folder/voc and folder/coco.

    python writers.py TOOL FOLDER

Run by each tool's Python, for annotation_writers.py; nothing of this project is imported.
"""

import json
import sys
from pathlib import Path

CLASSES = ("cat", "traffic light")
SIZES = {
    "a": (64, 48),
    "b": (40, 40),
    "c": (61, 37),
    "d": (33, 64),
    "e": (50, 20),
    "empty": (48, 48),
}


def read_truth(folder: Path) -> dict:
    """Of each image: its objects as (name, box)."""
    return json.loads((folder / "truth.json").read_text("utf-8"))


def supervision(folder: Path) -> None:
    import numpy as np
    import supervision as sv

    truth = read_truth(folder)
    annotations = {
        str(folder / "images" / f"{stem}.jpg"): sv.Detections(
            xyxy=np.array([box for _, box in objects]).reshape(-1, 4),
            class_id=np.array([CLASSES.index(name) for name, _ in objects], int),
        )
        for stem, objects in truth.items()
    }
    data = sv.DetectionDataset(list(CLASSES), list(annotations), annotations)
    data.as_pascal_voc(str(folder / "voc/images"), str(folder / "voc/annotations"))
    data.as_coco(str(folder / "coco/train"), str(folder / "coco/train/_annotations.coco.json"))


def datumaro(folder: Path) -> None:
    import datumaro as dm

    images = {path.stem: dm.Image.from_file(path=str(path)) for path in folder.glob("images/*")}
    items = []
    for stem, objects in read_truth(folder).items():
        boxes = [
            dm.Bbox(x0, y0, x1 - x0, y1 - y0, label=CLASSES.index(name))
            for name, (x0, y0, x1, y1) in objects
        ]
        items.append(dm.DatasetItem(stem, subset="train", media=images[stem], annotations=boxes))
    data = dm.Dataset.from_iterable(items, categories=list(CLASSES))
    data.export(str(folder / "voc"), "voc_detection", save_media=True)
    data.export(str(folder / "coco"), "coco_instances", save_media=True)


def globox(folder: Path) -> None:
    from globox import AnnotationSet

    data = AnnotationSet.from_coco(folder / "coco.json")
    data.save_pascal_voc(folder / "voc")
    (folder / "coco").mkdir()
    data.save_coco(folder / "coco/labels.json")


def labelformat(folder: Path) -> None:
    from labelformat.formats import (
        COCOObjectDetectionInput,
        COCOObjectDetectionOutput,
        PascalVOCObjectDetectionOutput,
    )

    data = COCOObjectDetectionInput(folder / "coco.json")
    PascalVOCObjectDetectionOutput(folder / "voc").save(data)
    COCOObjectDetectionOutput(folder / "coco/labels.json").save(data)


def pylabel(folder: Path) -> None:
    from pylabel import importer

    data = importer.ImportCoco(str(folder / "coco.json"), path_to_images="images")
    data.export.ExportToVoc(str(folder / "voc"))
    (folder / "coco").mkdir()
    data.export.ExportToCoco(str(folder / "coco/labels.json"))


def pascal_voc_writer(folder: Path) -> None:
    from pascal_voc_writer import Writer

    (folder / "voc").mkdir()
    for stem, objects in read_truth(folder).items():
        writer = Writer(str(folder / "images" / f"{stem}.jpg"), *SIZES[stem])
        for name, box in objects:
            writer.addObject(name, *box)
        writer.save(str(folder / "voc" / f"{stem}.xml"))


def label_studio(folder: Path) -> None:
    try:
        from label_studio_sdk.converter import Converter
    except ImportError:
        from label_studio_converter import Converter

    labels = "".join(f'<Label value="{name}"/>' for name in CLASSES)
    config = (
        '<View><Image name="image" value="$image"/><RectangleLabels name="label" toName="image">'
        f"{labels}</RectangleLabels></View>"
    )
    tasks = []
    for stem, objects in read_truth(folder).items():
        width, height = SIZES[stem]
        results = []
        for n, (name, (x0, y0, x1, y1)) in enumerate(objects):
            value = {"x": 100 * x0 / width, "y": 100 * y0 / height, "rotation": 0}
            value |= {"width": 100 * (x1 - x0) / width, "height": 100 * (y1 - y0) / height}
            result = {"id": str(n), "type": "rectanglelabels", "from_name": "label"}
            result |= {"to_name": "image", "value": value | {"rectanglelabels": [name]}}
            results.append(result | {"original_width": width, "original_height": height})
        data = {"image": f"/data/upload/{stem}.jpg"}
        annotations = [{"id": 1, "result": results, "was_cancelled": False}]
        tasks.append({"id": len(tasks) + 1, "data": data, "annotations": annotations})
    (folder / "tasks.json").write_text(json.dumps(tasks), "utf-8")
    converter = Converter(config, str(folder), upload_dir=str(folder / "images"))
    converter.convert_to_voc(str(folder / "tasks.json"), str(folder / "voc"), is_dir=False)
    converter.convert_to_coco(str(folder / "tasks.json"), str(folder / "coco"), is_dir=False)


WRITERS = {
    "supervision": supervision,
    "datumaro": datumaro,
    "globox": globox,
    "labelformat": labelformat,
    "pylabel": pylabel,
    "pascal-voc-writer": pascal_voc_writer,
    "label-studio-converter": label_studio,
    "label-studio-sdk": label_studio,
}

if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]))
