#!/usr/bin/env bash
# Package:   datasets 5.2.0 (Hugging Face), load_dataset("imagefolder", data_dir=...)
# Behaviour: a folder whose name holds train, training, valid, val, dev, test or eval as a word is
#            taken for a split, at any depth, class folders too; where one is found, everything
#            outside such folders is left out. No warning.
# Seen:      the 20 classes of Pascal VOC, one folder each with 3 images: 3 of the 60 images are
#            loaded, those of the class "train", as the split train, without labels; with
#            split="train" the same. Laid out as train/CLASS and test/CLASS, with labels: the split
#            train has 63 images and not 60, because test/train is in both splits.
# Hurts:     CIFAR-100, Pascal VOC and MS-COCO all have the class "train". Cropped objects or an
#            exported CIFAR-100 put test images, with their labels, into training, and the test
#            accuracy of that class is too good. torchvision's ImageFolder reads the same folders as
#            they are. "test tube", "freight train" or "dev" as classes do the same.
# Way out:   data_files={"train": "ROOT/train/**", "test": "ROOT/test/**"} instead of data_dir.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check \
    datasets==5.2.0 pyarrow==26.0.1 numpy==2.4.6 pandas==3.1.1 pillow==13.0.0

cat > see.py <<'PYTHON'
from pathlib import Path

from datasets import disable_progress_bars, load_dataset
from PIL import Image

VOC = """aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike
person pottedplant sheep sofa train tvmonitor""".split()


def write(folder):
    for name in VOC:
        (folder / name).mkdir(parents=True)
        for n in range(3):
            Image.new("RGB", (8, 8)).save(folder / name / f"{folder.name}_{n}.png")
    return len(VOC) * 3


def rows(split):
    return len(split), "label" in split.features


disable_progress_bars()
written = write(Path("flat"))
flat = {name: rows(part) for name, part in load_dataset("imagefolder", data_dir="flat").items()}
assert write(Path("split/train")) == write(Path("split/test")) == written
parts = load_dataset("imagefolder", data_dir="split")
split = {name: rows(part) for name, part in parts.items()}
print(f"written: {written} images a folder; loaded, with labels?")
print("CLASS/*.png                     ", flat)
print("train/CLASS/*.png, test/CLASS/* ", split)

files = [Path(image["path"]).name for image in parts["train"].data["image"].to_pylist()]
leaked = [
    (file, VOC[label])
    for file, label in zip(files, parts["train"]["label"], strict=True)
    if file.startswith("test_")
]
print("test images in the split train: ", leaked)
assert flat == {"train": (3, False)}, "the behaviour has changed"
assert split == {"train": (63, True), "test": (60, True)}, "the behaviour has changed"
assert [name for _, name in leaked] == ["train"] * 3, "the behaviour has changed"
PYTHON
HF_HOME=cache HF_HUB_OFFLINE=1 env/bin/python see.py
