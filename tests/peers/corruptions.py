"""The 15 corruptions of ImageNet-C beside the authors' scripts and imagecorruptions: same draws.

    python tests/peers/corruptions.py --photos DIR [--environments DIR] [--scripts DIR]
        [--fixture FILE]

imagecorruptions is installed from PyPI into an environment of its own; with --scripts, the
ImageNet-C/create_c of a checkout of github.com/hendrycks/robustness, the authors' three scripts run
there too, which needs ImageMagick's library for Wand. Each call's NumPy is seeded, and the same
numbers are drawn here and handed to our functions. Prints a Markdown table: over all severities the
largest difference in levels, and the share of the values that differ and that differ by more than
one; and milliseconds an image of 224 pixels. --fixture writes what the tests read instead.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.peers.corruption_calls import NAMES, seed_of
from tests.peers.environments import make_environment
from transfer.evaluation import corruptions
from transfer.evaluation.corruptions import blur, weather
from transfer.evaluation.corruptions.constants import CONSTANTS, SIDES, ConstantSet

REQUIREMENTS = (
    "numpy==1.26.4",
    "scipy==1.11.4",
    "scikit-image==0.20.0",
    "opencv-python-headless==4.10.0.84",
    "Pillow==12.1.0",
    "setuptools==80.9.0",
    "Wand==0.7.2",
)
ALONE = ("imagecorruptions==1.1.2",)
JPEG = (".jpg", ".jpeg")
# of the fixture; imagecorruptions has another elastic transform, and other sizes in snow and frost
SETS: tuple[ConstantSet, ...] = ("cifar-10-c", "imagenet-c")
SIZES = ((32, 32), (44, 40))
WITHOUT = (("frost",), ("frost", "snow", "elastic_transform"))
ROWS = 6


def picture(height: int, width: int) -> np.ndarray:
    """A picture of slopes, edges, black, white and noise, uint8 (H, W, 3)."""
    y, x = np.mgrid[:height, :width]
    rng = np.random.RandomState(0)
    slopes = np.stack([8 * y, 255 - 6 * x, 4 * (x + y)], -1)
    made = slopes + rng.randint(-20, 20, slopes.shape)
    made[height // 8 : height // 3, width // 4 : width // 2] = 0
    made[height // 3 : height // 2, width // 2 :] = 255
    return np.clip(made, 0, 255).astype(np.uint8)


def ours(name: str, constants: tuple, image: np.ndarray, seed: int, frost: Path) -> np.ndarray:
    """Our corruption of one image by the numbers that theirs draws after np.random.seed(seed)."""
    rng = np.random.RandomState(seed)
    height, width, _ = image.shape
    images = torch.from_numpy(image).permute(2, 0, 1)[None]
    planes = (2, 0, 1)
    draws: tuple = ()
    if name == "gaussian_noise":
        draws = (_tensor(rng.standard_normal(image.shape).transpose(planes)),)
    elif name == "shot_noise":
        # draws whose quantiles are their counts; what is rarer than 1 / 65536 becomes its neighbour
        means = image / 255.0 * constants[0]
        counts = rng.poisson(means)
        middle = (stats.poisson.cdf(counts, means) + stats.poisson.cdf(counts - 1, means)) / 2
        draws = (_tensor(np.minimum(middle * 65536, 65535).transpose(planes)).int(),)
    elif name == "impulse_noise":
        other = np.random.default_rng(seed)
        flipped, salted = (other.random(image.shape) <= p for p in (constants[0], 0.5))
        value = np.where(flipped, np.where(salted, round(constants[0] * 65536) - 1, 0), 65535)
        draws = (_tensor(value.transpose(planes)).int(),)
    elif name == "glass_blur":
        _, reach, rounds = constants
        inner = (rounds, height - 2 * reach, width - 2 * reach)
        drawn = [rng.randint(-reach, reach, size=(2,)) for _ in range(int(np.prod(inner)))]
        moves = np.reshape(drawn, (*inner, 2))[:, ::-1, ::-1]
        draws = (torch.from_numpy(blur.glass_source(moves, height, width, reach))[None],)
    elif name == "motion_blur":
        draws = ([rng.uniform(-45, 45)],)
    elif name == "snow":
        draws = (_tensor(rng.standard_normal((height, width))), [rng.uniform(-135, -45)])
    elif name == "fog":
        size = weather.cloud_size(height, width)
        draws = (_tensor(rng.random_sample(size * size - 1)),)
    elif name == "elastic_transform":
        corners = rng.uniform(-1, 1, (3, 2))
        across, down = rng.uniform(-1, 1, (2, height, width))
        draws = (_tensor(corners), _tensor(np.stack([across, down])))
    elif name == "frost":
        photographs = weather.read_frost(weather.find_frost(str(frost)), height, width)
        photograph = photographs[rng.randint(5)].permute(1, 2, 0).numpy()
        top = rng.randint(photograph.shape[0] - height)
        left = rng.randint(photograph.shape[1] - width)
        crop = photograph[top : top + height, left : left + width]
        draws = (torch.from_numpy(crop).permute(planes)[None],)
    made = corruptions.FUNCTIONS[name](images, *draws, *constants)
    return made[0].permute(1, 2, 0).numpy()


def _tensor(drawn: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(drawn, np.float32))[None]


def difference(
    name: str, of: ConstantSet, images: np.ndarray, theirs: Mapping[str, np.ndarray], frost: Path
) -> str:
    """Over all severities: the largest, and shares."""
    found = []
    for severity, value in enumerate(CONSTANTS[of][name], 1):
        constants = value if isinstance(value, tuple) else (value,)
        for number, image in enumerate(images):
            made = ours(name, constants, image, seed_of(number, severity), frost).astype(int)
            found.append(np.abs(made - theirs[f"{name}-{severity}"][number]))
    levels = np.stack(found)
    return f"{levels.max()} ({100 * (levels > 0).mean():.2f} %, {100 * (levels > 1).mean():.3f} %)"


def milliseconds(name: str, images: np.ndarray, frost: Path) -> float:
    """Of ours, an image, in a batch of 32; the draws included."""
    batch = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    batch = batch.repeat(-(-32 // len(batch)), 1, 1, 1)[:32]
    photographs = weather.read_frost(weather.find_frost(str(frost)), *batch.shape[2:])
    seconds = 0.0
    for severity in corruptions.SEVERITIES:
        corruptions.corrupt(name, severity, batch[:1], 0, [0], photographs)  # fills caches
        begun = time.perf_counter()
        corruptions.corrupt(name, severity, batch, 0, range(32), photographs)
        seconds += time.perf_counter() - begun
    return 1000 * seconds / (5 * 32)


def call(python: Path, source: str, images: np.ndarray, folder: Path) -> dict[str, np.ndarray]:
    """What corruption_calls.py makes of images."""
    given, out = folder / "in.npz", folder / "out.npz"
    np.savez(given, images=images)
    script = Path(__file__).with_name("corruption_calls.py")
    command = [python, "-W", "ignore", script, source, given, out]
    subprocess.run(command, check=True, stdout=sys.stderr)
    with np.load(out) as file:
        return dict(file)


def write_fixture(python: Path, scripts: Path, folder: Path, path: Path) -> None:
    """The first rows at severity 5: by the script for 32 pixels, and by imagecorruptions."""
    sources = (str(scripts / "make_cifar_c.py"), "imagecorruptions")
    kept = {}
    for of, size, source, without in zip(SETS, SIZES, sources, WITHOUT, strict=True):
        made = call(python, source, picture(*size)[None], folder)
        for name in NAMES:
            if name not in without:
                kept[f"{of} {name}"] = made[f"{name}-5"][0, :ROWS]
    np.savez_compressed(path, **kept)


def square(path: Path) -> np.ndarray:
    """The middle of a photo, (224, 224, 3)."""
    photo = Image.open(path).convert("RGB")
    scale = 256 / min(photo.size)
    photo = photo.resize([round(scale * side) for side in photo.size], Image.Resampling.BILINEAR)
    left, top = ((side - 224) // 2 for side in photo.size)
    return np.array(photo.crop((left, top, left + 224, top + 224)))


def main() -> None:
    """Install, run theirs, compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, default=Path(), help="JPEG files, at any depth.")
    parser.add_argument("--number", type=int, default=3, help="Of photos.")
    parser.add_argument("--environments", type=Path)
    parser.add_argument("--scripts", type=Path)
    parser.add_argument("--fixture", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        python = make_environment(
            (options.environments or work) / "imagecorruptions", REQUIREMENTS, alone=ALONE
        )
        if options.fixture:
            write_fixture(python, options.scripts.resolve(), work, options.fixture)
            return
        paths = sorted(path for path in options.photos.rglob("*") if path.suffix.lower() in JPEG)
        chosen = paths[:: len(paths) // options.number][: options.number]
        photos = np.stack([square(path) for path in chosen])
        (packaged,) = python.parents[1].glob("lib/python*/site-packages/imagecorruptions/frost")
        cases: list[tuple[str, str, ConstantSet, np.ndarray]] = [
            ("imagecorruptions, 224 x 224", "imagecorruptions", "imagenet-c", photos),
            ("160 x 120", "imagecorruptions", "imagenet-c", photos[:, 32:192, 52:172]),
        ]
        if options.scripts:
            cases += [
                (script, str(options.scripts / script), of, photos[:, ::step, ::step])
                for script, of, step in (
                    ("make_imagenet_c.py", "imagenet-c", 1),
                    ("make_tinyimagenet_c.py", "tiny-imagenet-c", 3),
                    ("make_cifar_c.py", "cifar-10-c", 7),
                )
            ]
        columns, results = [], []
        for title, source, of, images in cases:
            side = SIDES[of] if source.endswith(".py") else None
            images = np.ascontiguousarray(images[:, :side, :side])
            columns.append(title)
            results.append((of, images, call(python, source, images, work)))
        print(f"| corruption | {' | '.join(columns)} | ms | imagecorruptions, ms | ratio |")
        print(f"|---|{'---|' * len(columns)}---|---|---|")
        for name in NAMES:
            cells = [
                difference(name, of, images, theirs, packaged) for of, images, theirs in results
            ]
            mine = milliseconds(name, photos, packaged)
            other = 1000 * float(results[0][2][name]) / (5 * len(photos))
            figures = f"{mine:.1f} | {other:.1f} | {other / mine:.1f}"
            print(f"| {name} | {' | '.join(cells)} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
