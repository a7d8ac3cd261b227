"""What is known to go wrong with a recipe, as warnings before it is trained."""

from pretrain.config import PretrainConfig

_SMALL = 22_000_000  # ResNet-34 has 21.8 M parameters
_SHORT = 100
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
    cuts = [m for m in (mixing, *mixing.others) if m.method == "cutmix" and m.probability > 0.5]
    if cuts and not ramped and parameters < _SMALL and epochs <= _SHORT:
        warnings.append(
            f"CutMix on every batch is known to hurt small networks on short schedules: ResNet-18 "
            f"68.95 against 70.04 % without, 100 epochs of ImageNet (openmixup, mixup benchmarks); "
            f"the authors use a probability of 0.5 or less for light networks (CutMix-PyTorch, "
            f"README). This is {config.model.arch} ({parameters / 1e6:.1f} M parameters) for "
            f"{epochs:g} epochs: try --mixing.probability 0.5."
        )
    days = epochs * images * size**2 / _PIXELS_A_DAY_ON_CPU
    if on_cpu and days > 0.5:
        warnings.append(
            f"{epochs:g} epochs of {images:,} images of {size} pixels take days on a CPU: about "
            f"{days:,.1f} for a network as small as ResNet-18 on two cores. --dry-run measures ten "
            "steps and projects."
        )
    return warnings
