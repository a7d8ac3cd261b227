"""What is known to go wrong with a recipe, as warnings before it is trained."""

from pretrain.config import PretrainConfig

_SMALL = 22_000_000  # ResNet-34 has 21.8 M parameters
_SHORT = 100
_PARAMETERS_AN_IMAGE = 1_600  # ResNet-10-T, 4.9 M, on 3,000 images
_PIXELS_A_DAY_ON_CPU = 7e10  # a ResNet-18 at 64 px on two cores: 209 images a second (measured)


def advice(config: PretrainConfig, *, parameters: int, images: int, on_cpu: bool) -> list[str]:
    """Warnings, each with its source.

    Args:
        config: the recipe.
        parameters: of the network.
        images: in an epoch.
        on_cpu: where it is to be trained.
    """
    warnings = []
    mixing, size = config.mixing, config.dataset.image_size
    steps_per_epoch = max(1, images // config.batch_size)
    steps = config.steps(steps_per_epoch)
    epochs = steps / steps_per_epoch
    ramped = config.steps(steps_per_epoch, mixing.ramp) >= steps
    methods = [mixing, *mixing.others]
    cut = sum(m.weight * m.probability for m in methods if m.method == "cutmix")
    cut /= sum(m.weight for m in methods)
    is_early = epochs <= _SHORT and not _gains(parameters, images, epochs)
    if cut > 0.5 and not ramped and parameters < _SMALL and is_early:
        warnings.append(
            f"CutMix on {cut:.0%} of the batches pays late in small networks. Measured "
            "(docs/results.md: ResNet-10-T, ten classes of photographs, 64 pixels; points of "
            "top-1): -6.2 ± 2.2 and -4.0 ± 0.1 after 10 epochs of 3,000 and 9,469 images, no "
            "difference shown after 30 of 3,000 or 80 of 1,000, +1.6 ± 0.6 after 80 of 3,000, "
            "with the plain network above 99 % on its training images for the last 28. Cited: "
            "ResNet-18 68.95 against 70.04 % without, 100 epochs of ImageNet (openmixup, mixup "
            "benchmarks); the authors use a probability of 0.5 or less for light networks "
            "(CutMix-PyTorch, README). This is "
            f"{config.model.arch} ({parameters / 1e6:.1f} M parameters) for {_epochs(epochs)} of "
            f"{images:,} images: train longer, or try --mixing.probability 0.5."
        )
    for name, value in (("ramp", mixing.ramp), ("off_after", mixing.off_after)):
        if value is not None and config.steps(steps_per_epoch, value) > steps:
            warnings.append(
                f"mixing.{name} is {value}, beyond the end of this run of {_epochs(epochs)}: "
                + ("mixing never rises to its full" if name == "ramp" else "it changes nothing")
                + "."
            )
    days = epochs * images * size**2 / _PIXELS_A_DAY_ON_CPU
    if on_cpu and days > 0.5:
        warnings.append(
            f"{_epochs(epochs)} of {images:,} images of {size} pixels take days on a CPU: about "
            f"{days:,.1f} for a network as small as ResNet-18 on two cores. --dry-run measures ten "
            "steps and projects."
        )
    return warnings


def _gains(parameters: int, images: int, epochs: float) -> bool:
    """Where a gain was measured, or beyond: as many epochs, images seen, parameters an image."""
    is_long = epochs >= 80 and epochs * images >= 240_000
    return is_long and parameters >= _PARAMETERS_AN_IMAGE * images


def _epochs(number: float) -> str:
    """In words: `1 epoch`, `2.5 epochs`."""
    return f"{number:g} epoch{'' if number == 1 else 's'}"
