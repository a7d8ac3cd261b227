"""The corruptions against the authors' script, imagecorruptions, SciPy and Pillow."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats

from pretrain.errors import UsageError
from tests.conftest import FIXTURES
from tests.peers.corruption_calls import seed_of
from tests.peers.corruptions import ROWS, SETS, SIZES, ours, picture
from transfer.evaluation import corruptions
from transfer.evaluation.corruptions import (
    NAMES,
    SEVERITIES,
    blur,
    constant_set,
    corrupt,
    digital,
    noise,
    weather,
)
from transfer.evaluation.corruptions.constants import CONSTANTS
from transfer.evaluation.corruptions.pixels import gaussian_filter


def pictures(count: int, height: int, width: int) -> torch.Tensor:
    first = torch.from_numpy(picture(height, width)).permute(2, 0, 1)
    return torch.stack([first.roll(5 * number, 2) for number in range(count)])


@pytest.fixture(scope="module")
def photographs() -> tuple[torch.Tensor, ...]:
    return tuple(pictures(5, 70, 90))


def test_same_draws_give_the_pixels_of_the_authors_and_of_imagecorruptions(tmp_path):
    """make_cifar_c.py at 32 x 32, with ImageMagick; imagecorruptions 1.1.2 at 44 x 40; severity 5.

    OpenCV's warp of the elastic transform rounds places to 1 / 32 pixel. Photons that are drawn
    less often than once in 65536 are another number here.
    """
    with np.load(FIXTURES / "evaluation" / "corruptions.npz") as file:
        theirs = dict(file)
    assert len(theirs) == 14 + 12
    images = dict(zip(SETS, SIZES, strict=True))
    for key, wanted in theirs.items():
        of, name = key.split()
        value = CONSTANTS[of][name][4]
        constants = value if isinstance(value, tuple) else (value,)
        made = ours(name, constants, picture(*images[of]), seed_of(0, 5), tmp_path)[:ROWS]
        off = np.abs(made.astype(int) - wanted)
        assert off.max() <= (4 if name == "elastic_transform" else 1), key
        assert (off > 0).mean() < 0.2, key


@pytest.mark.parametrize(("height", "width"), [(32, 32), (40, 56)])
def test_images_are_corrupted_by_their_own_draws(height, width, photographs):
    images = pictures(3, height, width)
    kept, numbers = images.clone(), [7, 0, 123456]
    for name in NAMES:
        for severity in (1, 5):
            made = corrupt(name, severity, images, 3, numbers, photographs)
            assert made.dtype == torch.uint8, name
            assert made.shape == images.shape, name
            assert torch.equal(images, kept), name
            assert not torch.equal(made, images), name
            alone = corrupt(name, severity, images[1:2], 3, numbers[1:2], photographs)
            assert torch.equal(alone[0], made[1]), name
            # as a GPU has it
            together = corruptions.corrupt_batch(name, severity, images, 3, numbers, photographs)
            assert (together.int() - made.int()).abs().max() <= 1, name
            assert (together != made).float().mean() < 0.01, name


def test_draws_are_a_function_of_seed_number_corruption_and_severity(photographs):
    images = pictures(1, 48, 48).repeat(2, 1, 1, 1)
    drawn = {"frost", *corruptions.DRAWS}
    assert len(drawn) == 9
    for name in NAMES:
        first, second = corrupt(name, 3, images, 0, [1, 2], photographs)
        assert torch.equal(first, second) == (name not in drawn), name
        other = corrupt(name, 3, images[:1], 1, [1], photographs)[0]
        assert torch.equal(first, other) == (name not in drawn), name
    by_severity = [
        corrupt("gaussian_noise", severity, torch.full((1, 3, 60, 60), 128), 0, [0]).float() - 128
        for severity in (1, 2)
    ]
    correlation = torch.corrcoef(torch.stack([one.flatten() for one in by_severity]))[0, 1]
    assert abs(correlation) < 0.05


def test_severity_grows():
    images = pictures(1, 128, 128)
    for name in NAMES:
        if name in ("elastic_transform", "frost"):  # the authors' constants do not
            continue
        far = [corrupt(name, severity, images, 0, [0]) - images.float() for severity in (1, 3, 5)]
        means = [float(one.abs().mean()) for one in far]
        assert means[0] < means[2], name
        if name not in ("glass_blur", "snow", "fog", "pixelate"):
            assert means == sorted(means), name


def test_constants_are_of_the_nearest_size():
    assert (
        constant_set(224, 224) == constant_set(384, 299) == constant_set(128, 500) == "imagenet-c"
    )
    assert constant_set(64, 64) == constant_set(300, 96) == "tiny-imagenet-c"
    assert constant_set(32, 32) == constant_set(28, 28) == "cifar-10-c"
    for of, table in CONSTANTS.items():
        assert table.keys() == set(NAMES), of
        assert {len(values) for values in table.values()} == {5}, of


def test_flat_images_stay_flat():
    """Cutting off loses nothing to float32."""
    levels = torch.arange(0, 256, 15, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 20, 21)
    moves = torch.arange(20 * 21).flip(0).expand(len(levels), -1)
    for made in (
        blur.defocus_blur(levels, 3, 0.1),
        blur.glass_blur(levels, moves, 1.5, 4, 2),
        blur.motion_blur(levels, [30.0] * len(levels), 20, 15),
        blur.zoom_blur(levels, 1.31, 0.03),
        digital.contrast(levels, 0.3),
        digital.pixelate(levels, 0.3),
    ):
        assert torch.equal(made, levels)
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(-1, 3, -1, -1)
    brighter = digital.brightness(levels, 0.2)
    assert torch.equal(brighter, (levels.int() + 51).clamp(max=255).to(torch.uint8))


@pytest.mark.parametrize("photons", [3, 60])
def test_shot_noise_is_poisson(photons):
    """Over all draws: the probability of each count, to a step of the draws."""
    draws = torch.arange(65536).view(1, 1, 256, 256)
    for level in (0, 1, 100, 255):
        images = torch.full((1, 1, 256, 256), level, dtype=torch.uint8)
        made = noise.shot_noise(images, draws, photons)
        counts = np.arange(photons)
        outcomes = np.floor(255 * counts / photons + 1e-6)
        shares = [(made == outcome).float().mean().item() for outcome in outcomes]
        wanted = stats.poisson.pmf(counts, level / 255 * photons)
        assert np.abs(shares - wanted).max() <= 1 / 65536 + 1e-9


def test_impulse_noise_is_black_or_white():
    draws = torch.arange(65536).view(1, 1, 256, 256)
    images = torch.full((1, 1, 256, 256), 100, dtype=torch.uint8)
    made = noise.impulse_noise(images, draws, 0.25)
    assert [int((made == level).sum()) for level in (0, 100, 255)] == [8192, 49152, 8192]


def test_glass_moves_are_the_loop_of_the_authors():
    reach, height, width = 2, 9, 11
    moves = np.random.default_rng(0).integers(-reach, reach, (3, height - 4, width - 4, 2))
    image = np.stack([np.arange(height * width).reshape(height, width)] * 3, -1)
    for round_moves in moves:
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                dx, dy = round_moves[h - reach - 1, w - reach - 1]
                image[h, w], image[h + dy, w + dx] = image[h + dy, w + dx], image[h, w]
    assert np.array_equal(blur.glass_source(moves, height, width, reach), image[..., 0].ravel())


@pytest.mark.parametrize(("mode", "sigma"), [("nearest", 1.5), ("reflect", 30.0), ("reflect", 0.0)])
def test_gaussian_is_scipys(mode, sigma):
    images = torch.rand(2, 3, 20, 33, generator=torch.Generator().manual_seed(0))
    made = gaussian_filter(images, sigma, mode, 3)
    sigmas = (0, 0, sigma, sigma)
    wanted = ndimage.gaussian_filter(images.double().numpy(), sigmas, mode=mode, truncate=3)
    assert np.abs(made.numpy() - wanted).max() < 1e-6


@pytest.mark.parametrize("factor", [1.0, 1.07, 1.3, 4.5])
def test_zoom_is_scipys(factor):
    images = torch.rand(1, 1, 37, 50, generator=torch.Generator().manual_seed(0))
    crop = [int(np.ceil(side / factor)) for side in (37, 50)]
    top, left = (37 - crop[0]) // 2, (50 - crop[1]) // 2
    middle = images[0, 0, top : top + crop[0], left : left + crop[1]].numpy()
    wanted = ndimage.zoom(middle, factor, order=1, mode="nearest")
    top, left = (wanted.shape[0] - 37) // 2, (wanted.shape[1] - 50) // 2
    made = blur.zoom_in(images, factor)[0, 0].numpy()
    assert np.abs(made - wanted[top : top + 37, left : left + 50]).max() < 1e-4


def test_pixelate_and_jpeg_are_pillows():
    images = pictures(2, 45, 61)
    for image, number in zip(images, range(2), strict=True):
        photo = Image.fromarray(image.permute(1, 2, 0).numpy())
        for severity in SEVERITIES:
            scale = CONSTANTS["cifar-10-c"]["pixelate"][severity - 1]
            small = photo.resize((int(61 * scale), int(45 * scale)), Image.Resampling.BOX)
            wanted = np.array(small.resize((61, 45), Image.Resampling.BOX))
            made = digital.pixelate(image[None], scale)[0].permute(1, 2, 0).numpy()
            assert np.array_equal(made, wanted), (number, scale)
        file = io.BytesIO()
        photo.save(file, "JPEG", quality=25)
        made = digital.jpeg_compression(image[None], 25)[0].permute(1, 2, 0).numpy()
        assert np.array_equal(made, np.array(Image.open(file)))


def test_frost_is_a_part_of_a_photograph(photographs):
    marked = [one.clone() for one in photographs]
    for which, photograph in enumerate(marked):
        photograph[0] = 40 * which
        photograph[1] = torch.arange(70)[:, None]
        photograph[2] = torch.arange(90)
    black = torch.zeros(200, 3, 40, 50, dtype=torch.uint8)
    made = corrupt("frost", 5, black, 0, range(200), marked)[:, :, 0, 0].float() / 0.45
    which, top, left = (made + 1).floor().T
    assert set((which / 40).round().tolist()) == {0, 1, 2, 3, 4}
    assert (top.max(), left.max()) <= (30, 40)
    assert top.min() < 3
    assert left.min() < 3
    assert weather.frost(torch.tensor([100]), torch.tensor([201]), 0.8, 0.6).tolist() == [200]


def test_photographs_of_frost(tmp_path, monkeypatch):
    monkeypatch.setattr(weather, "find_spec", lambda name: None)
    assert weather.find_frost(None) == []
    for name in weather.FROST_FILES[1:]:
        Image.new("RGBA", (90, 60), (200, 100, 50, 0)).save(tmp_path / name, "PNG")
    with pytest.raises(UsageError, match=r"--robustness.frost: there is no .*frost1.png"):
        weather.find_frost(str(tmp_path))
    Image.new("RGB", (400, 300)).save(tmp_path / "frost1.png")
    paths = weather.find_frost(str(tmp_path))
    assert [path.name for path in paths] == list(weather.FROST_FILES)
    first, second, *_ = weather.read_frost(paths, 64, 50)
    assert first.shape == (3, 90, 120)  # 0.3 of it, as for 64 pixels
    assert second.shape[1] > 64, "too small for an image"
    assert second.shape[2] > 50
    assert second[:, 0, 0].tolist() == [200, 100, 50]
    large = weather.read_frost(paths, 224, 224)
    assert min(side for one in large for side in one.shape[1:]) > 224
