"""The 15 corruptions of ImageNet-C by other code, on given images, with NumPy seeded before each.

    python corruption_calls.py SOURCE IN.npz OUT.npz [NAME ...]

Run by corruptions.py in an environment of its own; nothing of this project here. SOURCE is
imagecorruptions, or a script of the authors (make_imagenet_c.py), of which only the functions are
executed. What scikit-image and NumPy have dropped since is given back to them. IN.npz has images,
uint8 (N, H, W, 3); OUT.npz has them by NAME-SEVERITY, and by NAME the seconds of all severities.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

NAMES = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog"),
    *("brightness", "contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)


def seed_of(number: int, severity: int) -> int:
    """Of one call."""
    return 1000 * number + severity


def functions(source: str) -> dict:
    """The names of a source, with its corruptions."""
    np.float_ = np.float64
    if source == "imagecorruptions":
        from imagecorruptions import corruptions

        found = vars(corruptions)
    else:
        script = Path(source).resolve()
        os.chdir(script.parent)  # they open ./frost1.png
        text = script.read_text(encoding="utf-8")
        start = text.index("# /////////////// Distortion Helpers")
        found = {"np": np, "Image": Image}
        exec(text[start : text.index("# /////////////// End Distortions")], found)
    filtered = found["gaussian"]

    def gaussian(image, sigma, multichannel=False, **options):
        return filtered(image, sigma, channel_axis=-1 if multichannel else None, **options)

    found["gaussian"] = gaussian
    return found


def main() -> None:
    """Corrupt all, write all."""
    source, given, out, *names = sys.argv[1:]
    images, out = np.load(given)["images"], Path(out).resolve()
    found = functions(source)
    util = found["sk"].util
    random_noise = util.random_noise
    made = {}
    for name in names or NAMES:
        seconds = 0.0
        for severity in range(1, 6):
            corrupted = []
            for number, image in enumerate(images):
                seed = seed_of(number, severity)
                np.random.seed(seed)
                util.random_noise = partial(random_noise, seed=seed)
                begun = time.perf_counter()
                result = np.uint8(found[name](Image.fromarray(image), severity))
                seconds += time.perf_counter() - begun
                corrupted.append(result)
            made[f"{name}-{severity}"] = np.stack(corrupted)
        made[name] = np.array(seconds)
    np.savez(out, **made)


if __name__ == "__main__":
    main()
